//! `strongroom restore`: brings a repository, or one segment of it, back from its off-site copy, on any computer, with the
//! recipient's secret key and nothing else of ours.

use crate::words;
use clap::Args;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strongroom_borg::SegmentNumber;
use strongroom_model::config::{Config, ConfigError};
use strongroom_model::name::{ClientName, NameError};
use strongroom_model::recipient::is_fingerprint;
use strongroom_offsite::restore::{self, RestoreRequest};
use strongroom_offsite::{Credentials, Multipart, Phase, Progress, Target, Trust, TrustError, Tuning, trust};
use zeroize::Zeroizing;

/// How long archived objects are asked to stay readable, in days: enough for a slow line.
const ARCHIVE_DAYS: u32 = 7;
/// How often an archive is asked whether it is ready.
const POLL: Duration = Duration::from_secs(60);

/// Where from, where to, and with which keys.
#[derive(Args)]
pub struct RestoreArguments {
    /// The client whose repository is wanted.
    client: String,
    /// An empty or new folder for the repository.
    #[arg(required_unless_present = "segment", conflicts_with = "segment")]
    into: Option<PathBuf>,
    /// Only this segment, to repair the one on the appliance with.
    #[arg(long, value_name = "NUMBER", requires = "output")]
    segment: Option<u32>,
    /// The segment's file; `-` is standard output, on which nothing comes before all of it was verified.
    #[arg(long, value_name = "FILE", requires = "segment")]
    output: Option<PathBuf>,
    /// The OpenPGP secret key of a recipient, armoured or binary.
    #[arg(long)]
    key: PathBuf,
    /// A file with the key's passphrase. Asked for when absent and needed.
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
    /// The appliance's strongroom.toml, which names the target; its secret file is looked for beside it.
    #[arg(long, required_unless_present = "endpoint")]
    config: Option<PathBuf>,
    /// Which target of the configuration; needed when there are several.
    #[arg(long, requires = "config")]
    target: Option<String>,
    /// Without a configuration: address of the S3 service.
    #[arg(long, conflicts_with = "config", requires_all = ["region", "bucket", "access_key_id"])]
    endpoint: Option<String>,
    /// Without a configuration: its region.
    #[arg(long)]
    region: Option<String>,
    /// Without a configuration: the bucket.
    #[arg(long)]
    bucket: Option<String>,
    /// Without a configuration: what the names of the objects begin with; the client's name by default.
    #[arg(long)]
    prefix: Option<String>,
    /// Without a configuration: id of the access key.
    #[arg(long)]
    access_key_id: Option<String>,
    /// A file with the secret access key; STRONGROOM_SECRET_KEY in the environment otherwise.
    #[arg(long)]
    secret_key_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities that may vouch for the S3 service, beside the public ones and those that the
    /// configuration names.
    #[arg(long)]
    trust: Vec<PathBuf>,
    /// Fingerprint of the appliance's signing key (`strongroom recipient show` there, or the recovery kit): what another
    /// signed, or nobody, is refused. That of `[offsite] signer` in the configuration when absent.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    signer: Option<String>,
    /// Restore the state of this transaction instead of the newest.
    #[arg(long)]
    transaction: Option<u32>,
}

/// Why nothing, or not everything, was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFailure {
    /// A file can't be read.
    #[error("{0} could not be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The client's name is wrong.
    #[error("`{0}` is not a client: {1}")]
    Name(String, NameError),
    /// There is no such target, or the choice is not clear.
    #[error("choose one of the client's targets with --target: {0}")]
    WhichTarget(String),
    /// A file of certificates is wrong.
    #[error("{0}: {1}")]
    Trust(PathBuf, TrustError),
    /// There is no secret access key.
    #[error("the secret access key is needed: give --secret-key-file, or STRONGROOM_SECRET_KEY in the environment")]
    NoSecret,
    /// The passphrase could not be asked for.
    #[error("the passphrase could not be read: {0}")]
    Passphrase(std::io::Error),
    /// The segment could not be written.
    #[error("{0} could not be written: {1}")]
    Write(PathBuf, std::io::Error),
    /// The restore failed.
    #[error("{0}")]
    Restore(#[from] strongroom_offsite::restore::RestoreError),
}

fn fingerprint(text: &str) -> Result<String, String> {
    let text: String = text.split_whitespace().collect::<String>().to_ascii_uppercase();
    if is_fingerprint(&text) {
        Ok(text)
    } else {
        Err("a fingerprint has 40 hexadecimal digits".into())
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, RestoreFailure> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| RestoreFailure::Read(path.into(), error))
}

fn read_line(path: &Path) -> Result<Zeroizing<String>, RestoreFailure> {
    let bytes = read(path)?;
    Ok(Zeroizing::new(
        String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\r', '\n'])
            .to_string(),
    ))
}

/// Runs the restore to its end, with progress on standard error.
pub async fn run(arguments: RestoreArguments) -> Result<(), RestoreFailure> {
    let client =
        ClientName::new(&arguments.client).map_err(|error| RestoreFailure::Name(arguments.client.clone(), error))?;
    let (target, credentials, known) = match &arguments.config {
        Some(path) => from_config(path, &client, &arguments)?,
        None => from_arguments(&client, &arguments)?,
    };
    let signer = arguments.signer.clone().or(known);
    let key = read(&arguments.key)?;
    let passphrase = match &arguments.passphrase_file {
        Some(path) => read_line(path)?,
        None if std::io::stdin().is_terminal() => {
            let prompt = format!("Passphrase of {} (empty if it has none): ", arguments.key.display());
            Zeroizing::new(rpassword::prompt_password(prompt).map_err(RestoreFailure::Passphrase)?)
        }
        None => Zeroizing::default(),
    };
    // clap has seen to it that one of the two is there.
    let destination = arguments.into.or(arguments.output).unwrap_or_default();
    let request = RestoreRequest {
        target,
        credentials,
        secret_keys: vec![key],
        passphrase,
        signer,
        transaction: arguments.transaction.map(SegmentNumber),
        destination,
        archive_days: ARCHIVE_DAYS,
        archive_poll: POLL,
    };
    match arguments.segment.map(SegmentNumber) {
        None => repository(&client, &request).await,
        Some(segment) => one_segment(&client, &request, segment).await,
    }
}

async fn repository(client: &ClientName, request: &RestoreRequest) -> Result<(), RestoreFailure> {
    let mut shown = Shown::new();
    let report = restore::restore(request, &Tuning::default(), &mut |progress| shown.show(progress)).await?;
    shown.end();
    let into = request.destination.display();
    println!(
        "Restored {client} as of transaction {} into {into}: {} files, {}.\nThe manifest: {}.\nNow run: borg check --verify-data {into}",
        report.transaction,
        report.files,
        words::size(report.bytes),
        report.signed,
    );
    Ok(())
}

/// Restores one segment. Nothing shows under the file's name, or on standard output, before all of it was verified.
async fn one_segment(
    client: &ClientName,
    request: &RestoreRequest,
    segment: SegmentNumber,
) -> Result<(), RestoreFailure> {
    let output = &request.destination;
    let write = |path: &Path| {
        let path = path.to_path_buf();
        move |error| RestoreFailure::Write(path, error)
    };
    let to_standard_output = output.as_os_str() == "-";
    let (partial, file) = if to_standard_output {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("strongroom-segment-{}", std::process::id()));
        let file = new_file(&path).map_err(write(&path))?;
        // Only this process can reach it from here on, and it goes with it.
        std::fs::remove_file(&path).map_err(write(&path))?;
        (path, file)
    } else {
        let mut name = output.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let file = new_file(&path).map_err(write(&path))?;
        (path, file)
    };
    let mut shown = Shown::new();
    let restored = restore::restore_segment(request, segment, &file, &Tuning::default(), &mut |progress| {
        shown.show(progress)
    })
    .await;
    shown.end();
    let report = match restored {
        Ok(report) => report,
        Err(error) => {
            if !to_standard_output {
                let _ = std::fs::remove_file(&partial);
            }
            return Err(error.into());
        }
    };
    if to_standard_output {
        let mut input = &file;
        let mut standard = std::io::stdout().lock();
        std::io::copy(&mut input, &mut standard)
            .and_then(|_| standard.flush())
            .map_err(write(Path::new("standard output")))?;
    } else {
        std::fs::rename(&partial, output).map_err(write(output))?;
    }
    eprintln!(
        "Restored segment {segment} of {client}, from the state of transaction {}: {}, SHA-256 {}. The manifest: {}.{}",
        report.transaction,
        words::size(report.bytes),
        report.sha256,
        report.signed,
        if report.known {
            ""
        } else {
            " The manifest does not say what that should be; its form and size are right, and the appliance knows."
        }
    );
    Ok(())
}

/// A file that was not there, for its owner only.
fn new_file(path: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// The progress, on one line of standard error, if somebody looks at it.
struct Shown {
    last: Option<String>,
}

impl Shown {
    fn new() -> Self {
        Self {
            last: std::io::stderr().is_terminal().then(String::new),
        }
    }

    fn show(&mut self, progress: Progress) {
        let line = format!(
            "{}: {} of {} objects, {} of {}",
            phase_words(progress.phase),
            progress.objects_done,
            progress.objects_total,
            words::size(progress.bytes_done),
            words::size(progress.bytes_total)
        );
        if let Some(last) = &mut self.last
            && *last != line
        {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
            *last = line;
        }
    }

    fn end(&self) {
        if self.last.is_some() {
            eprintln!();
        }
    }
}

fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Wait => "Waiting for the archive (an hour or more)",
        Phase::Receive => "Receiving, decrypting and checking",
        _ => "Looking",
    }
}

fn secret(arguments: &RestoreArguments, beside: Option<PathBuf>) -> Result<Zeroizing<String>, RestoreFailure> {
    match (
        &arguments.secret_key_file,
        std::env::var("STRONGROOM_SECRET_KEY"),
        beside,
    ) {
        (Some(path), _, _) => read_line(path),
        (None, Ok(secret), _) => Ok(Zeroizing::new(secret)),
        (None, Err(_), Some(path)) if path.exists() => read_line(&path),
        _ => Err(RestoreFailure::NoSecret),
    }
}

fn trust_of(files: &[PathBuf]) -> Result<Trust, RestoreFailure> {
    let mut all = Trust::default();
    for file in files {
        all.extend(trust::parse(&read(file)?).map_err(|error| RestoreFailure::Trust(file.clone(), error))?);
    }
    Ok(all)
}

fn from_config(
    path: &Path,
    client: &ClientName,
    arguments: &RestoreArguments,
) -> Result<(Target, Credentials, Option<String>), RestoreFailure> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let config = Config::parse(&text)?;
    // One that was enrolled by command is copied to every target; so may one have been that is no more.
    let targets: Vec<_> = match config.client(client.as_str()) {
        Some(declared) => config.targets_of(declared).collect(),
        None => config.offsite.target.iter().collect(),
    };
    let wanted: Vec<_> = targets
        .iter()
        .filter(|target| {
            arguments
                .target
                .as_deref()
                .is_none_or(|name| target.name.get_ref().as_str() == name)
        })
        .collect();
    let [target] = wanted.as_slice() else {
        let names: Vec<String> = targets.iter().map(|target| target.name.get_ref().to_string()).collect();
        return Err(RestoreFailure::WhichTarget(names.join(", ")));
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let named = config
        .trust
        .certificates
        .iter()
        .map(|name| folder.join(name.get_ref().as_str()));
    let files: Vec<PathBuf> = named.chain(arguments.trust.iter().cloned()).collect();
    let trust = trust_of(&files)?;
    let beside = path.parent().map(|folder| folder.join(target.secret_key.as_str()));
    Ok((
        Target {
            name: target.name.get_ref().to_string(),
            endpoint: target.endpoint.to_string(),
            region: target.region.to_string(),
            bucket: target.bucket.to_string(),
            prefix: target.prefix.get_ref().for_client(client),
            multipart: Multipart::Auto,
            trust,
        },
        Credentials::new(target.access_key_id.as_str(), secret(arguments, beside)?),
        config.offsite.signer.as_ref().map(|signer| signer.as_str().to_owned()),
    ))
}

fn from_arguments(
    client: &ClientName,
    arguments: &RestoreArguments,
) -> Result<(Target, Credentials, Option<String>), RestoreFailure> {
    // clap has seen to it that these are there.
    let given = |value: &Option<String>| value.clone().unwrap_or_default();
    Ok((
        Target {
            name: "the given bucket".into(),
            endpoint: given(&arguments.endpoint),
            region: given(&arguments.region),
            bucket: given(&arguments.bucket),
            prefix: arguments.prefix.clone().unwrap_or_else(|| client.to_string()),
            multipart: Multipart::Auto,
            trust: trust_of(&arguments.trust)?,
        },
        Credentials::new(given(&arguments.access_key_id), secret(arguments, None)?),
        None,
    ))
}
