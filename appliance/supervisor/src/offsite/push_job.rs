//! The role `strongroom-push NAME`: pushes one client's repository to each of its buckets, compares each copy with what was
//! sent, once a day, and leaves its progress and its errors where the offsite duty reads them. It ends with an error if any
//! target failed; systemd tries again. Disks, which are not always there, have a job of their own ([`super::disk_job`]).

use super::job_report::Reporter;
use super::{bucket, copy_check};
use crate::clock;
use crate::configuration::{in_force, signing};
use crate::offsite::recipients;
use crate::paths::Paths;
use crate::services::chrony::Chronyd;
use crate::upkeep::hold;
use crate::watch::store;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use strongroom_model::config::{self, AtService, Config, Proof};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_offsite::openpgp::{Encryption, Mode, Signer};
use strongroom_offsite::push::{self, Limits, PushRequest, Tuning};
use strongroom_offsite::retire::{DAY, Rules};
use strongroom_offsite::{Progress, VerifyRequest};
use zeroize::Zeroizing;

/// Least time between two tellings of the progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// Why nothing could be pushed at all.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The name is of the wrong form.
    #[error("strongroom-push needs the name of a client")]
    NoName,
    /// The client is not configured.
    #[error("there is no client `{0}`")]
    NoClient(ClientName),
    /// Some targets failed.
    #[error("{0} of {1} targets failed; it is tried again")]
    Failed(usize, usize),
    /// A runtime could not be made, or the outcome not be written.
    #[error("the job could not be done: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs the role to its end.
pub fn run(paths: &Paths, name: Option<&str>) -> Result<(), PushError> {
    let name = name
        .and_then(|name| ClientName::new(name).ok())
        .ok_or(PushError::NoName)?;
    let config = in_force(paths);
    let client = config
        .client(name.as_str())
        .ok_or_else(|| PushError::NoClient(name.clone()))?;
    if hold::of(paths, &name) != hold::Hold::Open {
        eprintln!("{name}: nothing is pushed before the repository's compaction, rollback or repair has ended");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let targets = config.targets_of(client).filter(|target| target.bucket().is_some());
    let targets: Vec<&config::Target> = targets.collect();
    let names: Vec<TargetName> = targets.iter().map(|target| target.name.get_ref().clone()).collect();
    let mut report = Reporter::new(paths.push_report(&name), &names);
    for (target, at) in targets.iter().zip(&names) {
        report.begin(at);
        let tell = |done, total| report.tell(done, total);
        let outcome = runtime.block_on(push_to(paths, &config, &name, target, tell));
        let (Ok(words) | Err(words)) = &outcome;
        eprintln!("{name} to {at}: {words}");
        report.end(at, outcome.err());
    }
    match report.close(None)?.errors.len() {
        0 => Ok(()),
        failed => Err(PushError::Failed(failed, targets.len())),
    }
}

/// Pushes one repository to one target, once the clock is to be trusted, and compares the copy if that is due. Tells what was
/// done, or why not, in words; meanwhile now and then how many bytes are done, of how many.
pub(super) async fn push_to(
    paths: &Paths,
    config: &Config,
    client: &ClientName,
    target: &config::Target,
    mut tell: impl FnMut(u64, u64) + Send,
) -> Result<String, String> {
    // Requests are signed by the time, a manifest tells it, and what is retired is chosen by age.
    if let Some(why) = clock::untrusted(&Chronyd::default()).await {
        return Err(format!("nothing is copied while the clock is not to be trusted: {why}"));
    }
    if let Some(why) = (config.offsite.proof == Proof::Required)
        .then(|| recipients::unproven(paths, config, target))
        .flatten()
    {
        return Err(why);
    }
    let mut recipients = Vec::new();
    for name in &target.recipients {
        let recipient = config.recipient(name.get_ref().as_str());
        let file = recipient.map(|recipient| paths.config_files().join(recipient.certificate.as_str()));
        let file = file.ok_or_else(|| format!("the recipient `{}` is unknown", name.get_ref()))?;
        recipients.push(fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?);
    }
    let request = PushRequest {
        repository: paths.repository(client),
        target: bucket::target(paths, target, client)?,
        credentials: bucket::credentials(target)?,
        recipients,
        encryption: match target.encryption {
            config::Encryption::Auto => Encryption::Auto,
            config::Encryption::Cfb => Encryption::Always(Mode::Cfb),
            config::Encryption::Ocb => Encryption::Always(Mode::Ocb),
        },
        signer: signer(),
        limits: Limits {
            // A disk is fastest when it writes one file after another.
            uploads: target.bucket().map_or(1, |bucket| *bucket.uploads.get_ref()),
            bandwidth: target
                .bucket()
                .and_then(|bucket| bucket.bandwidth.as_ref())
                .map(|rate| rate.get_ref().bytes()),
        },
        retirement: Rules {
            act: target.retire && !is_held(paths, client),
            minimum_age_days: target.bucket().map_or(0, AtService::minimum_age),
            keep_days: *target.keep_days.get_ref(),
        },
        ledger: paths.ledger(client, target.name.get_ref()),
        now: crate::clock_now().unwrap_or_default(),
    };
    let tuning = Tuning::default();
    let mut told: Option<Instant> = None;
    let mut on_progress = |now: Progress| {
        let is_due = told.is_none_or(|told| told.elapsed() >= PROGRESS_PERIOD);
        if now.bytes_total > 0 && is_due {
            told = Some(Instant::now());
            tell(now.bytes_done, now.bytes_total);
        }
    };
    match push::push(&request, &tuning, &mut on_progress).await {
        Ok(done) => {
            let compared = VerifyRequest {
                target: request.target,
                credentials: request.credentials,
                ledger: request.ledger,
                turn: request.now / DAY,
            };
            let name = target.name.get_ref();
            let checked = copy_check::after_push(paths, client, name, &compared, &tuning, request.now).await;
            // The copy was made all the same; a full state partition is told elsewhere.
            if let Err(error) = checked {
                eprintln!("{client} at {name}: what the comparison found could not be kept: {error}");
            }
            Ok(if done.nothing_to_do {
                format!("transaction {} is there already", done.transaction)
            } else {
                format!(
                    "transaction {}, {} objects, {} bytes sent",
                    done.transaction, done.objects, done.bytes
                )
            })
        }
        // A client that has not made its first backup is no failure; the clients duty speaks of it.
        Err(
            push::PushError::NoCommit { .. }
            | push::PushError::Repository(strongroom_borg::Error::NotARepository { .. }),
        ) => Ok("nothing was backed up yet".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether something that the client did has to be accepted first, or nobody has looked at it: what was copied before is
/// then kept, as it is by a compaction.
fn is_held(paths: &Paths, client: &ClientName) -> bool {
    !matches!(store::read_record(&paths.watch(client)), store::Read::Known(record) if record.hold.is_none())
}

/// The appliance's signing key. Without one a copy is as good, but nobody can tell who made it: that is no reason to have none.
fn signer() -> Option<Signer> {
    let folder = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    let path = folder.join(signing::credential());
    let read = fs::read(&path).map(Zeroizing::new).map_err(|error| error.to_string());
    let parsed = read.and_then(|key| Signer::parse(&key).map_err(|error| error.to_string()));
    parsed
        .inspect_err(|error| eprintln!("What is pushed is not signed: {}: {error}", path.display()))
        .ok()
}
