//! `strongroom target`: adds an off-site target to a strongroom.toml, a bucket or a disk, and tries a bucket out. On any computer;
//! on the appliance, which keeps its secrets to itself, a target that is in force is tried out by a job of its own.

mod ask;
mod files;
mod section;
mod show;

use crate::appliance::{ApplianceError, Connection};
use crate::configured::{self, BadTrust};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use strongroom_model::config::{Config, ConfigError, Multipart};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_offsite::oracle::{self, OracleError};
use strongroom_offsite::probe::{self, Report};
use strongroom_offsite::s3::S3Error;
use strongroom_offsite::{AtService, Credentials, Trust, TrustError};

/// Stands for the client in the names of a probe's objects, where none is named.
const PROBE_CLIENT: &str = "strongroom-probe";

#[derive(Subcommand)]
pub enum TargetVerb {
    /// Add a target to a strongroom.toml. Asks for what is not given, tries the bucket out, and writes nothing if pushes
    /// would fail.
    Add {
        #[command(subcommand)]
        kind: Kind,
    },
    /// Try a target's bucket out with a few tiny objects of its own: what it is, what the credentials may do, what that
    /// means. Exit code 1: pushes would fail.
    Probe(ProbeArguments),
}

#[derive(Subcommand)]
pub enum Kind {
    /// A bucket of Oracle Cloud's object storage.
    Oracle {
        /// The object storage namespace, as the tenancy's page shows it.
        #[arg(long)]
        namespace: Option<String>,
        #[command(flatten)]
        common: Box<AddArguments>,
    },
    /// A bucket of any other service that speaks S3.
    S3 {
        /// The address of the service: https://HOST, without the bucket.
        #[arg(long)]
        endpoint: Option<String>,
        #[command(flatten)]
        common: Box<AddArguments>,
    },
    /// A USB disk that is plugged into the appliance now and then.
    Disk(DiskArguments),
}

#[derive(Args)]
pub struct DiskArguments {
    /// The new target's name.
    name: TargetName,
    /// The strongroom.toml to add it to.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Label or UUID of the disk's file system, as `lsblk -f` shows them. It has to be ext4 or exFAT.
    #[arg(long, value_name = "LABEL")]
    disk: Option<String>,
    /// The folder on it; `strongroom` when absent.
    #[arg(long)]
    folder: Option<String>,
    /// What object names begin with; `{client}` stands for the client's name, and is what is used when absent.
    #[arg(long)]
    prefix: Option<String>,
    /// A recipient of the configuration that is to read the copies; may be given several times. All when absent.
    #[arg(long, value_name = "NAME")]
    recipient: Vec<TargetName>,
}

#[derive(Args)]
pub struct AddArguments {
    /// The new target's name.
    name: TargetName,
    /// The strongroom.toml to add it to. The secret goes into a file beside it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The region of the bucket, such as eu-frankfurt-1.
    #[arg(long)]
    region: Option<String>,
    /// The bucket.
    #[arg(long)]
    bucket: Option<String>,
    /// A second, small bucket of the standard tier for manifests, where the first is an archive bucket.
    #[arg(long)]
    manifest_bucket: Option<String>,
    /// Id of the access key (Oracle: of the Customer Secret Key).
    #[arg(long)]
    access_key_id: Option<String>,
    /// A file with the secret access key; `-` is standard input. Asked for otherwise, without showing it.
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// What object names begin with; `{client}` stands for the client's name, and is what is used when absent.
    #[arg(long)]
    prefix: Option<String>,
    /// A recipient of the configuration that is to read the copies; may be given several times. All when absent.
    #[arg(long, value_name = "NAME")]
    recipient: Vec<TargetName>,
    /// Write it without trying it out.
    #[arg(long)]
    no_probe: bool,
}

#[derive(Args)]
pub struct ProbeArguments {
    /// The target's name.
    name: TargetName,
    /// The strongroom.toml that has it; the secret's file is looked for beside it. Without, on the appliance: the
    /// configuration in force.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file with the secret access key, if it is not beside the configuration.
    #[arg(long, value_name = "FILE", requires = "config")]
    secret_key_file: Option<PathBuf>,
    /// Try it out below this client's prefix, where permissions depend on the objects' names.
    #[arg(long, value_name = "NAME")]
    client: Option<ClientName>,
    /// What was found, as JSON.
    #[arg(long)]
    json: bool,
}

/// Why nothing was added, or nothing tried out.
#[derive(Debug, thiserror::Error)]
pub enum TargetFailure {
    /// A file can't be read.
    #[error("{0} could not be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// A file can't be written.
    #[error("{0} could not be written: {1}; nothing was added")]
    Write(PathBuf, std::io::Error),
    /// It is there, and stays.
    #[error("there is a file {0} already, and it is not overwritten; move it away if no target needs it")]
    SecretIsThere(PathBuf),
    /// Somebody else wrote it.
    #[error("{0} was changed meanwhile; nothing was added. Try again")]
    Changed(PathBuf),
    /// The configuration is wrong.
    #[error("{0}: {1}")]
    Config(PathBuf, ConfigError),
    /// What was given makes no good configuration.
    #[error("the new target would make the configuration wrong, so nothing was added: {0}")]
    WouldBeWrong(ConfigError),
    /// There is one of that name.
    #[error("there is a target `{0}` already; it stays as it is")]
    IsThere(TargetName),
    /// There is none of that name.
    #[error("{0} has no target `{1}`; it has {2}")]
    Unknown(PathBuf, TargetName, String),
    /// There is nothing to try out.
    #[error("target `{0}` is a disk, of which there is nothing to try out: plug it in, and the copy begins")]
    IsDisk(TargetName),
    /// Nobody could read the copies.
    #[error(
        "{0} has no [[offsite.recipient]] yet, so nobody could read the copies. Make a key and add it first: docs/offsite.md"
    )]
    NoRecipient(PathBuf),
    /// Not given, and nobody to ask.
    #[error("{0} is needed, and nobody is here to ask: give it as {1}")]
    Missing(&'static str, &'static str),
    /// It could not be asked for.
    #[error("the answer could not be read: {0}")]
    Ask(std::io::Error),
    /// A secret that can't be one.
    #[error("the secret access key is empty or has spaces in it; copy it again")]
    Secret,
    /// Oracle's names.
    #[error(transparent)]
    Oracle(#[from] OracleError),
    /// A file of certificates is wrong.
    #[error("{0}: {1}")]
    Trust(PathBuf, TrustError),
    /// Nothing could be sent.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// The probe found that pushes would fail.
    #[error(
        "pushes to it would fail, so nothing was added. Mend what is WRONG above and try again, or add it as it is with --no-probe"
    )]
    Unusable,
    /// The appliance can't be asked.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// The appliance's answer.
    #[error("the supervisor's answer can't be understood: {0}. Is this command of the same release?")]
    Form(#[from] serde_json::Error),
}

/// Runs a verb to its end.
pub async fn run(verb: TargetVerb) -> Result<ExitCode, TargetFailure> {
    match verb {
        TargetVerb::Add { kind } => {
            add(kind).await?;
            Ok(ExitCode::SUCCESS)
        }
        TargetVerb::Probe(arguments) => {
            let report = match &arguments.config {
                Some(path) => probe_here(path, &arguments).await?,
                None => {
                    let appliance = Connection::open().await?;
                    let client = arguments.client.as_ref().map_or("", |client| client.as_str());
                    serde_json::from_str(&appliance.probe(arguments.name.as_str(), client).await?)?
                }
            };
            if arguments.json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print!("{}", show::report(&report));
            }
            Ok(if report.is_wrong() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}

/// The text of a configuration that a target of this name may be added to, and the recipients that are to read its copies:
/// those that are named, or all. Before anybody is asked anything.
fn prepare(
    path: &Path,
    name: &TargetName,
    named: &[TargetName],
) -> Result<(String, Config, Vec<TargetName>), TargetFailure> {
    let text = files::read_text(path)?;
    let config = Config::parse(&text).map_err(|error| TargetFailure::Config(path.into(), error))?;
    if config.offsite.target.iter().any(|known| known.name.get_ref() == name) {
        return Err(TargetFailure::IsThere(name.clone()));
    }
    if config.offsite.recipient.is_empty() {
        return Err(TargetFailure::NoRecipient(path.into()));
    }
    let recipients = if named.is_empty() {
        let all = config.offsite.recipient.iter();
        all.map(|recipient| recipient.name.get_ref().clone()).collect()
    } else {
        named.to_vec()
    };
    Ok((text, config, recipients))
}

fn add_disk(arguments: &DiskArguments) -> Result<(), TargetFailure> {
    let (name, path) = (&arguments.name, &arguments.config);
    let (text, _, recipients) = prepare(path, name, &arguments.recipient)?;
    let section = section::DiskSection {
        name: name.clone(),
        disk: ask::given_or_asked("Label or UUID of the disk's file system", "--disk", &arguments.disk)?,
        folder: arguments.folder.clone(),
        prefix: arguments.prefix.clone(),
        recipients,
    };
    let new = section.appended(&text)?;
    files::replace(path, &text, &new)?;
    println!(
        "Added target `{name}` to {}. Offer the file to the appliance (docs/configuration.md) and plug the disk in: the first \
         copy begins by itself.",
        path.display()
    );
    Ok(())
}

async fn add(kind: Kind) -> Result<(), TargetFailure> {
    let common = match &kind {
        Kind::Oracle { common, .. } | Kind::S3 { common, .. } => common,
        Kind::Disk(arguments) => return add_disk(arguments),
    };
    let path = &common.config;
    let (text, config, recipients) = prepare(path, &common.name, &common.recipient)?;
    let secret_key = format!("{}-secret", common.name);
    let secret_file = path.with_file_name(&secret_key);
    if secret_file.symlink_metadata().is_ok() {
        return Err(TargetFailure::SecretIsThere(secret_file));
    }
    let region = |common: &AddArguments| ask::given_or_asked("Region of the bucket", "--region", &common.region);
    let (endpoint, region) = match &kind {
        Kind::Oracle { namespace, common } => {
            let namespace = ask::given_or_asked("Object storage namespace", "--namespace", namespace)?;
            let region = region(common)?;
            (oracle::endpoint(&namespace, &region)?, region)
        }
        Kind::S3 { endpoint, common } => (
            ask::given_or_asked("Address of the service (https://…)", "--endpoint", endpoint)?,
            region(common)?,
        ),
        Kind::Disk(arguments) => return add_disk(arguments),
    };
    let mut section = section::Section {
        name: common.name.clone(),
        endpoint,
        region,
        bucket: ask::given_or_asked("Bucket", "--bucket", &common.bucket)?,
        manifest_bucket: match &kind {
            Kind::Oracle { .. } => ask::given_or_offered(
                "Second bucket, of the standard tier, for manifests (empty: none)",
                &common.manifest_bucket,
            )?,
            Kind::S3 { .. } | Kind::Disk(_) => common.manifest_bucket.clone(),
        },
        prefix: common.prefix.clone(),
        access_key_id: ask::given_or_asked("Id of the access key", "--access-key-id", &common.access_key_id)?,
        secret_key,
        recipients,
        once_only: false,
    };
    let target = section.checked(&text)?;
    let secret = ask::secret(common.secret_key_file.as_deref())?;
    if !common.no_probe {
        eprintln!("Trying the bucket out …");
        let trust = trust_of(path, &config)?;
        let client = ClientName::new(PROBE_CLIENT).unwrap_or_default();
        let bucket = target
            .bucket()
            .ok_or_else(|| TargetFailure::IsDisk(common.name.clone()))?;
        let mut at = AtService::configured(bucket, trust);
        let prefix = target.prefix.get_ref().for_client(&client);
        let credentials = Credentials::new(bucket.access_key_id.as_str(), secret.clone());
        let seen = probe::probe_buckets(&at, &prefix, &credentials).await?;
        // What fits is written.
        at.multipart = probe::judge_buckets(&seen, &at).multipart;
        section.once_only = at.multipart == Multipart::Never;
        let report = probe::judge_buckets(&seen, &at);
        print!("{}", show::report(&report));
        if report.is_wrong() {
            return Err(TargetFailure::Unusable);
        }
    }
    section.checked(&text)?;
    files::add(path, &text, &section.appended(&text), &secret_file, &secret)?;
    println!(
        "Added target `{}` to {}; its secret is in {}, for you alone to read. Both belong on the stick that the appliance \
         reads: docs/configuration.md",
        common.name,
        path.display(),
        secret_file.display()
    );
    Ok(())
}

async fn probe_here(path: &Path, arguments: &ProbeArguments) -> Result<Report, TargetFailure> {
    let text = files::read_text(path)?;
    let config = Config::parse(&text).map_err(|error| TargetFailure::Config(path.into(), error))?;
    let targets = &config.offsite.target;
    let Some(target) = targets.iter().find(|target| *target.name.get_ref() == arguments.name) else {
        let names: Vec<&str> = targets.iter().map(|target| target.name.get_ref().as_str()).collect();
        let names = if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        };
        return Err(TargetFailure::Unknown(path.into(), arguments.name.clone(), names));
    };
    let bucket = target
        .bucket()
        .ok_or_else(|| TargetFailure::IsDisk(arguments.name.clone()))?;
    let beside = path.with_file_name(bucket.secret_key.as_str());
    let secret = ask::secret(Some(arguments.secret_key_file.as_deref().unwrap_or(&beside)))?;
    let client = arguments.client.clone();
    let client = client.unwrap_or_else(|| ClientName::new(PROBE_CLIENT).unwrap_or_default());
    let at = AtService::configured(bucket, trust_of(path, &config)?);
    let prefix = target.prefix.get_ref().for_client(&client);
    let credentials = Credentials::new(bucket.access_key_id.as_str(), secret);
    let seen = probe::probe_buckets(&at, &prefix, &credentials).await?;
    Ok(probe::judge_buckets(&seen, &at))
}

/// The authorities that the configuration names, from the files beside it.
fn trust_of(path: &Path, config: &Config) -> Result<Trust, TargetFailure> {
    let names = config.trust.certificates.iter();
    Ok(configured::trust(
        names.map(|name| path.with_file_name(name.get_ref().as_str())),
    )?)
}

impl From<BadTrust> for TargetFailure {
    fn from(bad: BadTrust) -> Self {
        match bad {
            BadTrust::Read(file, error) => Self::Read(file, error),
            BadTrust::Form(file, error) => Self::Trust(file, error),
        }
    }
}
