//! `strongroom restore`: brings a repository, or one segment of it, back from its off-site copy, on any computer, with the
//! recipient's secret key and nothing else of ours.

pub mod borg;
pub mod key;
pub mod source;
pub mod survey;

use crate::shown::Shown;
use crate::{confirm, words};
use borg::{Borg, Checked};
use clap::Args;
use key::KeyArguments;
use source::SourceArguments;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strongroom_borg::SegmentNumber;
use strongroom_model::config::ConfigError;
use strongroom_model::name::{ClientName, NameError, TargetName};
use strongroom_offsite::restore::{self, DOWNLOADS_MAX, RestoreRequest};
use strongroom_offsite::{ArchiveRequest, Consent, OpenError, TrustError, Tuning};
use zeroize::Zeroizing;

/// What to bring back, from where, where to, and with which key.
#[derive(Args)]
pub struct RestoreArguments {
    /// The client whose repository is wanted. Without one, what the bucket holds is listed.
    client: Option<String>,
    /// A new folder for the repository, or that of a restore which was cut short. Without one, the client's points in time
    /// are listed.
    #[arg(conflicts_with_all = ["segment", "estimate", "list"])]
    into: Option<PathBuf>,
    /// List the clients, or one client's points in time, that can be restored. Needs no key.
    #[arg(long)]
    list: bool,
    /// List all points in time instead of each client's newest 20.
    #[arg(long)]
    all: bool,
    /// Tell how much would be requested and downloaded, how long that takes, and what it costs. Needs no key.
    #[arg(long, requires = "client", conflicts_with_all = ["list", "segment"])]
    estimate: bool,
    /// The list or the estimate as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    estimated: survey::EstimateArguments,
    /// Only this segment, to repair the one on the appliance with.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "output",
        requires = "client",
        conflicts_with = "list"
    )]
    segment: Option<u32>,
    /// The segment's file; `-` is standard output, on which nothing comes before all of it was verified.
    #[arg(long, value_name = "FILE", requires = "segment")]
    output: Option<PathBuf>,
    /// Restore the state of this transaction instead of the newest.
    #[arg(long, requires = "client")]
    transaction: Option<u32>,
    #[command(flatten)]
    key: KeyArguments,
    #[command(flatten)]
    fetch: FetchArguments,
    /// Leave out `borg check` at the end.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    source: SourceArguments,
}

/// How to fetch.
#[derive(Args)]
pub struct FetchArguments {
    /// Request objects from an archive tier without asking first.
    #[arg(long)]
    pub yes: bool,
    /// For how many days archived objects are made readable: 1 to 10. It has to be enough for the download.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub days: u32,
    /// Downloads at a time: 1 to 8.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(DOWNLOADS_MAX)))]
    downloads: u8,
}

impl FetchArguments {
    /// A restore that goes by these.
    pub fn applied(&self, request: RestoreRequest, client: &ClientName) -> RestoreRequest {
        RestoreRequest {
            archive_days: self.days,
            downloads: self.downloads,
            consent: self.consent(client),
            ..request
        }
    }

    fn consent(&self, client: &ClientName) -> Consent {
        if self.yes {
            return Consent::Given;
        }
        let client = client.clone();
        Consent::Ask(Arc::new(move |request| {
            eprintln!("\n{}", asked(&client, request));
            confirm::agrees("Request them?")
        }))
    }
}

fn asked(client: &ClientName, request: &ArchiveRequest) -> String {
    format!(
        "The copy of {client} is in an archive tier. {}{} objects, {}, have to be requested; they stay readable for {} days, and \
         the provider may charge for that (`--estimate` tells more).",
        if request.at_most { "At most " } else { "" },
        request.objects,
        words::size(request.bytes),
        request.days
    )
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
    #[error("choose one of the targets with --target: {0}")]
    WhichTarget(String),
    /// The target is on a disk, which may be mounted anywhere.
    #[error("target {0} is on a disk: plug it in here, mount it, and say where its folder `{1}` is with --directory")]
    WhereIsDisk(TargetName, String),
    /// A folder was given for what is a bucket.
    #[error("target {0} is a bucket, with which --directory does not go; leave out one of the two")]
    NoDisk(TargetName),
    /// A file of certificates is wrong.
    #[error("{0}: {1}")]
    Trust(PathBuf, TrustError),
    /// There is no secret access key.
    #[error("the secret access key is needed: give --secret-key-file, or STRONGROOM_SECRET_KEY in the environment")]
    NoSecret,
    /// The key can't be used.
    #[error("{0}")]
    Key(OpenError),
    /// The passphrase could not be asked for.
    #[error("the passphrase could not be read: {0}")]
    Passphrase(std::io::Error),
    /// The segment could not be written.
    #[error("{0} could not be written: {1}")]
    Write(PathBuf, std::io::Error),
    /// The restore failed.
    #[error("{0}")]
    Restore(#[from] strongroom_offsite::restore::RestoreError),
    /// Borg does not like what was restored, or could not run.
    #[error("`borg {0}` failed ({1}); what it says stands above")]
    Borg(&'static str, String),
}

/// Checks a client's name.
pub fn client_name(text: &str) -> Result<ClientName, RestoreFailure> {
    ClientName::new(text).map_err(|error| RestoreFailure::Name(text.into(), error))
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
    let client = arguments.client.as_deref().map(client_name).transpose()?;
    let source = arguments.source.source(client.as_ref())?;
    let transaction = arguments.transaction.map(SegmentNumber);
    let destination = arguments.into.or(arguments.output);
    let (client, destination) = match (client, destination) {
        (Some(client), None) if arguments.estimate => {
            let days = arguments.fetch.days;
            let given = &arguments.estimated;
            return survey::estimate(&source, client.as_str(), transaction, days, given, arguments.json).await;
        }
        (Some(client), Some(destination)) => (client, destination),
        (client, _) => {
            let client = client.as_ref().map(ClientName::as_str);
            return survey::list(&source, client, arguments.all, arguments.json).await;
        }
    };
    let opener = arguments.key.opener()?;
    let request = RestoreRequest {
        transaction,
        signer: source.signer,
        ..RestoreRequest::new(source.target, source.credentials, opener, destination)
    };
    let request = arguments.fetch.applied(request, &client);
    match arguments.segment.map(SegmentNumber) {
        None => repository(&client, &request, !arguments.no_check).await,
        Some(segment) => one_segment(&client, &request, segment).await,
    }
}

async fn repository(client: &ClientName, request: &RestoreRequest, check: bool) -> Result<(), RestoreFailure> {
    let mut shown = Shown::new();
    let restored = restore::restore(request, &Tuning::default(), &mut |progress| shown.show(progress)).await;
    shown.end();
    let report = restored?;
    let into = &request.destination;
    println!(
        "Restored {client} as of transaction {} into {}: {} files, {}, each verified{}.\nThe manifest: {}.",
        report.transaction,
        into.display(),
        report.files,
        words::size(report.bytes),
        match report.kept {
            0 => String::new(),
            kept => format!(" ({kept} of them were there already)"),
        },
        report.signed,
    );
    let checked = if check { check_with_borg(into)? } else { None };
    print!(
        "{}",
        next(
            client,
            &into.display().to_string(),
            checked,
            borg::needs_passphrase(into)
        )
    );
    Ok(())
}

/// `None`: there is no Borg here.
fn check_with_borg(repository: &Path) -> Result<Option<Checked>, RestoreFailure> {
    let Some(borg) = Borg::find()? else {
        eprintln!("There is no borg on this computer, so it was not asked to check what was restored.");
        return Ok(None);
    };
    eprintln!("borg check …");
    borg.check(repository).map(Some)
}

/// What to do with it now.
fn next(client: &ClientName, into: &str, checked: Option<Checked>, needs_passphrase: bool) -> String {
    let mut text = match checked {
        Some(Checked::Whole) => "`borg check` found nothing wrong.\n".to_string(),
        Some(Checked::RepositoryOnly) => format!(
            "`borg check` found nothing wrong in the repository. Its archives need the passphrase: borg check --archives-only {into}\n"
        ),
        None => format!("Now run: borg check --verify-data {into}\n"),
    };
    text += &format!(
        "To take files out: borg list {into}, then borg extract {into}::ARCHIVE, or borg mount {into} FOLDER.\n\
         To have {client} back up to it again, put it in its place on the array before `borg init` is run; docs/offsite.md tells more.\n"
    );
    if needs_passphrase {
        text += "Its passphrase, and its key file if it has one, are the client's: the copy has no other.\n";
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        restore: RestoreArguments,
    }

    fn parse(text: &str) -> Result<RestoreArguments, clap::Error> {
        Line::try_parse_from(text.split_whitespace()).map(|line| line.restore)
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        Line::command().debug_assert();
        for good in [
            "restore --config c",
            "restore --list --config c",
            "restore asus --config c --all --json",
            "restore asus folder --config c --yes --days 10",
            "restore asus --estimate --config c --line 5Mbit/s",
            "restore asus --segment 7 --output - --config c --key k",
            "restore --endpoint e --region r --bucket b --access-key-id a",
            "restore --directory /media/usb/strongroom",
            "restore asus folder --directory /media/usb/strongroom --config c --key k",
        ] {
            assert!(
                parse(good).is_ok(),
                "{good}: {:?}",
                parse(good).err().map(|error| error.to_string())
            );
        }
        for bad in [
            "restore asus folder",
            "restore asus folder --estimate --config c",
            "restore --estimate --config c",
            "restore asus --segment 7 --config c",
            "restore asus folder --segment 7 --output - --config c",
            "restore asus folder --config c --days 11",
            "restore asus folder --config c --downloads 9",
            "restore asus folder --config c --passphrase-file p",
            "restore asus folder --config c --line 5Mbit/s",
            "restore asus folder --endpoint e",
            "restore asus folder --directory d --endpoint e --region r --bucket b --access-key-id a",
            "restore asus folder --directory d --secret-key-file s",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_comes_next_depends_on_what_was_checked() {
        let asus = client_name("asus").unwrap();
        let whole = next(&asus, "/r", Some(Checked::Whole), false);
        assert!(whole.starts_with("`borg check` found nothing wrong.") && whole.contains("borg extract /r::ARCHIVE"));
        let encrypted = next(&asus, "/r", Some(Checked::RepositoryOnly), true);
        assert!(encrypted.contains("borg check --archives-only /r") && encrypted.contains("key file"));
        assert!(next(&asus, "/r", None, false).starts_with("Now run: borg check --verify-data /r"));
    }
}
