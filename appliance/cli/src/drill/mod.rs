//! `strongroom drill`: a restore that is tried, to know that it works before it is needed. On a workstation, which has the
//! secret key; the appliance never does. All of a copy is restored to scratch space as `strongroom restore` does it, checked
//! by Borg, and one file is taken out; or some objects are fetched and compared. What came of it is a record, on standard
//! output, for the appliance to remember (`strongroom drill-record` there).

mod file;

use crate::appliance::{ApplianceError, Connection};
use crate::restore::borg::{Borg, can_open_archives};
use crate::restore::key::KeyArguments;
use crate::restore::source::{Source, SourceArguments};
use crate::restore::{FetchArguments, RestoreFailure, client_name, survey};
use crate::shown::Shown;
use crate::{confirm, now, words};
use clap::Args;
use file::Taken;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use strongroom_borg::SegmentNumber;
use strongroom_model::drill::{BorgCheck, Drill, DrillError, Extracted, Kind, RECORD_BYTES_MAX, VERSION};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_offsite::digest::Sha256Sum;
use strongroom_offsite::restore::sample::sample;
use strongroom_offsite::{Opener, RestoreError, RestoreRequest, Tuning, restore};
use tempfile::TempDir;

/// Most objects of a sample: more is a restore.
const SAMPLE_MAX: i64 = 10_000;

/// Whose copy is tried, how, and with which key.
#[derive(Args)]
pub struct DrillArguments {
    /// The client whose copy is tried.
    client: String,
    /// Only fetch so many objects, chosen by chance, and compare them with the manifest. Needs neither room nor Borg.
    #[arg(long, value_name = "OBJECTS", value_parser = clap::value_parser!(u32).range(1..=SAMPLE_MAX),
          conflicts_with_all = ["scratch", "keep", "file", "archive", "expect"])]
    sample: Option<u32>,
    /// Try the state of this transaction instead of the newest.
    #[arg(long)]
    transaction: Option<u32>,
    /// Where there is room for the repository; the usual place for temporary files when absent.
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    /// Keep what was restored instead of removing it.
    #[arg(long)]
    keep: bool,
    /// The file that is taken out, as it was backed up, such as `home/me/photo.jpg`; one chosen by chance when absent.
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// The archive that it is taken from; the newest when absent.
    #[arg(long, value_name = "NAME")]
    archive: Option<String>,
    /// What the file's SHA-256 has to be.
    #[arg(long, value_name = "SHA256", requires = "file", value_parser = sha256)]
    expect: Option<String>,
    #[command(flatten)]
    key: KeyArguments,
    #[command(flatten)]
    fetch: FetchArguments,
    #[command(flatten)]
    source: SourceArguments,
}

fn sha256(text: &str) -> Result<String, String> {
    let sum = Sha256Sum::parse(text.trim()).map(|sum| sum.to_string());
    sum.ok_or_else(|| "a SHA-256 has 64 hexadecimal digits, as `sha256sum` prints it".into())
}

/// Why a drill could not be tried or handed over. A copy that fails it is no such failure, but its outcome.
#[derive(Debug, thiserror::Error)]
pub enum DrillFailure {
    /// What a restore needs is not there.
    #[error(transparent)]
    Restore(#[from] RestoreFailure),
    /// The appliance did not take the record.
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    /// No Borg.
    #[error("there is no borg on this computer, which is to check what is restored. Install it, or try `--sample`")]
    NoBorg,
    /// No room.
    #[error("{} has room for {}, and up to {} are to be restored; give a folder with more: --scratch", .0.display(), words::size(*.1), words::size(*.2))]
    NoRoom(PathBuf, u64, u64),
    /// Nobody agreed.
    #[error("nothing was fetched")]
    NotAgreed,
    /// Ctrl-C.
    #[error("the drill was cut short; what was restored is gone. What an archive was asked for stays on its way")]
    Interrupted,
    /// Borg does not open the archives.
    #[error(
        "the repository was restored and is sound, but Borg could not look into its archives ({0}): is it the right passphrase? That counts neither as a drill that went well nor as one that failed"
    )]
    Archives(String),
    /// The file that was asked for is not in the archive.
    #[error(
        "{0} is not a file in the archive {1}. Its path is wanted as `borg list` shows it, such as `home/me/photo.jpg`"
    )]
    NoFile(String, String),
    /// A thread ended badly.
    #[error("internal error: {0}; report this")]
    Internal(String),
    /// The record can't be used.
    #[error(transparent)]
    Record(#[from] DrillError),
}

/// What came of a drill.
#[derive(Default)]
struct Tried {
    transaction: Option<u64>,
    objects: u64,
    bytes: u64,
    borg: BorgCheck,
    file: Option<Extracted>,
    /// Why the copy failed it; empty when it did not.
    error: String,
    /// For the person alone.
    words: String,
}

impl Tried {
    /// One that the restore ended. An error that is not of the copy is one.
    fn failed(error: RestoreError) -> Result<Self, DrillFailure> {
        if !error.is_of_the_copy() {
            return Err(RestoreFailure::from(error).into());
        }
        Ok(Self {
            error: error.to_string(),
            ..Self::default()
        })
    }
}

/// Tries it. Exit code 1: the copy failed.
pub async fn run(arguments: DrillArguments) -> Result<ExitCode, DrillFailure> {
    let client = client_name(&arguments.client)?;
    let source = arguments.source.source(Some(&client))?;
    let kind = if arguments.sample.is_some() {
        Kind::Sample
    } else {
        Kind::Whole
    };
    let borg = match kind {
        Kind::Whole => Some(Borg::find()?.ok_or(DrillFailure::NoBorg)?),
        Kind::Sample => None,
    };
    let scratch = arguments.scratch.clone().unwrap_or_else(std::env::temp_dir);
    if kind == Kind::Whole {
        plan(&arguments, &source, &client, &scratch).await?;
    }
    let opener = arguments.key.opener()?;
    let (begun, clock) = (now(), Instant::now());
    let work = async {
        match borg {
            Some(borg) => whole(&arguments, &source, &client, opener, borg, &scratch).await,
            None => some(&arguments, &source, &client, opener).await,
        }
    };
    let tried = tokio::select! {
        tried = work => tried?,
        // What it made goes with it.
        _ = tokio::signal::ctrl_c() => return Err(DrillFailure::Interrupted),
    };
    let drill = Drill {
        version: VERSION,
        client,
        target: TargetName::new(&source.target.name).ok(),
        kind,
        transaction: tried.transaction,
        begun,
        seconds: clock.elapsed().as_secs(),
        objects: tried.objects,
        bytes: tried.bytes,
        borg: tried.borg,
        file: tried.file,
        error: tried.error.as_str().into(),
    };
    eprint!("{}", told(&drill, &source.target.name, &tried.words));
    let record = serde_json::to_string_pretty(&drill).map_err(|error| DrillFailure::Internal(error.to_string()))?;
    println!("{record}");
    Ok(if drill.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Shows what it takes, and asks.
async fn plan(
    arguments: &DrillArguments,
    source: &Source,
    client: &ClientName,
    scratch: &Path,
) -> Result<(), DrillFailure> {
    let transaction = arguments.transaction.map(SegmentNumber);
    let estimate = survey::look(source, transaction, true).await?;
    let free = room(scratch).map_err(|error| RestoreFailure::Read(scratch.into(), error))?;
    let needed = estimate.state.bytes;
    eprint!(
        "{}  scratch   {} of {} that are free in {}{}\n  cost      `strongroom restore {client} --estimate` tells more\n",
        survey::plan(client.as_str(), &estimate, now()),
        words::size(needed),
        words::size(free),
        scratch.display(),
        if arguments.keep {
            ""
        } else {
            ", and given back afterwards"
        },
    );
    if needed > free {
        return Err(DrillFailure::NoRoom(scratch.into(), free, needed));
    }
    if arguments.fetch.yes || confirm::agrees("Go on?") {
        Ok(())
    } else {
        Err(DrillFailure::NotAgreed)
    }
}

/// Free bytes where a folder lies.
fn room(folder: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(folder)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn request(
    arguments: &DrillArguments,
    source: &Source,
    client: &ClientName,
    opener: Opener,
    destination: PathBuf,
) -> RestoreRequest {
    let request = RestoreRequest {
        transaction: arguments.transaction.map(SegmentNumber),
        signer: source.signer.clone(),
        ..RestoreRequest::new(source.target.clone(), source.credentials.clone(), opener, destination)
    };
    arguments.fetch.applied(request, client)
}

async fn whole(
    arguments: &DrillArguments,
    source: &Source,
    client: &ClientName,
    opener: Opener,
    mut borg: Borg,
    scratch: &Path,
) -> Result<Tried, DrillFailure> {
    let folder = TempDir::with_prefix_in("strongroom-drill-", scratch)
        .map_err(|error| RestoreFailure::Write(scratch.into(), error))?;
    let repository = folder.path().join("repository");
    let mut request = request(arguments, source, client, opener, repository.clone());
    // The plan was agreed to, with what the archive is asked for.
    request.consent = strongroom_offsite::Consent::Given;
    let mut shown = Shown::new();
    let restored = restore(&request, &Tuning::default(), &mut |progress| shown.show(progress)).await;
    shown.end();
    let report = match restored {
        Ok(report) => report,
        Err(error) => return Tried::failed(error),
    };
    eprintln!("borg check …");
    borg.ask_passphrase(&repository)?;
    let (archive, path, expected) = (
        arguments.archive.clone(),
        arguments.file.clone(),
        arguments.expect.clone(),
    );
    let tried = Tried {
        transaction: Some(report.transaction.0.into()),
        objects: report.files,
        bytes: report.bytes,
        words: format!("  The manifest: {}.\n", report.signed),
        ..Tried::default()
    };
    let looked = tokio::task::spawn_blocking(move || {
        look(
            tried,
            &borg,
            &repository,
            archive.as_deref(),
            path.as_deref(),
            expected.as_deref(),
        )
    })
    .await
    .map_err(|error| DrillFailure::Internal(error.to_string()))?;
    if arguments.keep {
        eprintln!("What was restored stays in {}", folder.keep().display());
    }
    looked
}

/// Has Borg check what was restored, and give a file of it.
fn look(
    mut tried: Tried,
    borg: &Borg,
    repository: &Path,
    archive: Option<&str>,
    path: Option<&str>,
    expected: Option<&str>,
) -> Result<Tried, DrillFailure> {
    let bad = |what: &str, error| match error {
        RestoreFailure::Borg(_, why) => Ok(format!(
            "`borg check` does not like the {what} that was restored ({why})"
        )),
        other => Err(DrillFailure::from(other)),
    };
    if let Err(error) = borg.check_repository(repository) {
        tried.error = bad("repository", error)?;
        return Ok(tried);
    }
    tried.borg = BorgCheck::Repository;
    if !can_open_archives(repository) {
        tried.words += "  Its archives were not looked into: that needs the client's passphrase, for instance in BORG_PASSPHRASE.\n";
        return Ok(tried);
    }
    // A passphrase that is wrong shows here, before anything is held against the copy.
    let newest = file::newest(borg, repository)?;
    if let Err(error) = borg.check_archives(repository) {
        tried.error = bad("archives", error)?;
        return Ok(tried);
    }
    tried.borg = BorgCheck::Whole;
    match file::take(borg, repository, archive.or(newest.as_deref()), path)? {
        Taken::Out(file) => {
            if expected.is_some_and(|expected| expected != file.sha256.as_str()) {
                tried.error = format!(
                    "{} came out of the archive {} with another SHA-256 than was expected: {}",
                    file.path, file.archive, file.sha256
                );
            }
            tried.file = Some(*file);
        }
        Taken::NothingThere => tried.words += "  There is no file in it that could be taken out.\n",
        Taken::Failed(why) => tried.error = why,
    }
    Ok(tried)
}

async fn some(
    arguments: &DrillArguments,
    source: &Source,
    client: &ClientName,
    opener: Opener,
) -> Result<Tried, DrillFailure> {
    let count = arguments.sample.unwrap_or_default() as usize;
    let request = request(arguments, source, client, opener, PathBuf::new());
    let mut shown = Shown::new();
    let compared = sample(&request, count, &Tuning::default(), &mut |progress| {
        shown.show(progress)
    })
    .await;
    shown.end();
    match compared {
        Ok(report) => Ok(Tried {
            transaction: Some(report.transaction.0.into()),
            objects: report.objects,
            bytes: report.bytes,
            words: format!(
                "  Of {} objects in all, chosen by chance. The manifest: {}.\n",
                report.of, report.signed
            ),
            ..Tried::default()
        }),
        Err(error) => Tried::failed(error),
    }
}

fn told(drill: &Drill, target: &str, more: &str) -> String {
    let what = match drill.kind {
        Kind::Whole => "The drill",
        Kind::Sample => "The sample",
    };
    let mut text = format!("\n{what} of {} from {target} ", drill.client);
    if !drill.passed() {
        let _ = writeln!(
            text,
            "FAILED after {}:\n  {}",
            words::duration(drill.seconds),
            drill.error
        );
        if drill.objects == 0 {
            return text;
        }
    } else {
        let _ = writeln!(text, "went well, in {}.", words::duration(drill.seconds));
    }
    let _ = writeln!(
        text,
        "  {} objects, {}, each decrypted and compared with the manifest.",
        drill.objects,
        words::size(drill.bytes)
    );
    match drill.borg {
        BorgCheck::None => {}
        BorgCheck::Repository => text += "  `borg check` found nothing wrong in the repository.\n",
        BorgCheck::Whole => text += "  `borg check` found nothing wrong.\n",
    }
    if let Some(file) = &drill.file {
        let _ = writeln!(
            text,
            "  {} came out of the archive {}: {}, SHA-256 {}",
            file.path,
            file.archive,
            words::size(file.bytes),
            file.sha256
        );
    }
    text += more;
    text +=
        "The appliance takes note of it by the record that follows: ssh admin@… strongroom drill-record < RECORD\n\n";
    text
}

/// On the appliance: hands the record of a drill to the supervisor.
pub async fn record(path: Option<&Path>) -> Result<(), DrillFailure> {
    let most = RECORD_BYTES_MAX as u64 + 1;
    let mut text = Vec::new();
    let read = match path {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut text)),
        None => std::io::stdin().lock().take(most).read_to_end(&mut text),
    };
    read.map_err(|error| RestoreFailure::Read(path.unwrap_or(Path::new("standard input")).into(), error))?;
    // What is wrong with it is told here; whether it can be true, by the supervisor.
    Drill::parse(&text)?;
    let noted = Connection::open()
        .await?
        .record_drill(&String::from_utf8_lossy(&text))
        .await?;
    println!("{noted}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        drill: DrillArguments,
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        Line::command().debug_assert();
        let sum = "0A".repeat(32);
        for (line, good) in [
            ("drill asus --config c", true),
            (
                "drill asus --config c --scratch s --keep --yes --file f --archive a",
                true,
            ),
            ("drill asus --config c --sample 5 --key k", true),
            (&format!("drill asus --config c --file f --expect {sum}"), true),
            ("drill --config c", false),
            ("drill asus", false),
            ("drill asus --config c --sample 0", false),
            ("drill asus --config c --sample 5 --keep", false),
            ("drill asus --config c --expect 0A", false),
            (&format!("drill asus --config c --expect {sum}"), false),
        ] {
            let parsed = Line::try_parse_from(line.split_whitespace());
            assert_eq!(parsed.is_ok(), good, "{line}");
        }
    }

    #[test]
    fn what_is_told_is_of_what_was_done() {
        let mut drill = Drill {
            version: VERSION,
            client: ClientName::new("asus").unwrap(),
            target: None,
            kind: Kind::Whole,
            transaction: Some(17),
            begun: 1_800_000_000,
            seconds: 840,
            objects: 14,
            bytes: 1 << 30,
            borg: BorgCheck::Whole,
            file: None,
            error: "".into(),
        };
        let text = told(&drill, "oracle", "");
        assert!(text.contains("of asus from oracle went well, in 14 min."), "{text}");
        assert!(text.contains("14 objects, 1.0 GiB") && text.contains("`borg check` found nothing wrong.\n"));
        drill.error = "data/0/1.gpg: damaged".into();
        (drill.objects, drill.borg) = (0, BorgCheck::None);
        let text = told(&drill, "oracle", "");
        assert!(
            text.contains("FAILED after 14 min:\n  data/0/1.gpg: damaged\n"),
            "{text}"
        );
        assert!(!text.contains("nothing wrong"));
    }
}
