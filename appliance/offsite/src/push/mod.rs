//! A push: bring one target up to the repository's last committed transaction.
//!
//! The order is what makes it safe to kill at any instant: segments and `config` first, each under a
//! name that was never used; then the clear sums; the manifest last. Until it is there, the previous
//! manifest and everything it names are as they were. Nothing above the last commit is read, no lock is
//! taken, no object is overwritten or deleted.

mod error;
mod known;
mod read;
mod send;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strongroom_borg::{Repository, SegmentFile, SegmentNumber};

pub use error::PushError;
pub use read::ReadError;

use self::read::{Plan, hash_file};
use self::send::{Sender, blocking};
use crate::digest::{Digest, Sha256Sum};
use crate::layout::Name;
use crate::ledger::{Identity, Item, Ledger, Summary, What};
use crate::manifest::{FORMAT, FileEntry, Manifest, RECOVERY, VERSION};
use crate::openpgp::{Encryption, Mode, RecipientError, Recipients, Seal};
use crate::progress::{OnProgress, Phase, Progress};
use crate::s3::{Client, Clock, Payload, Retry, system_clock};
use crate::target::{Credentials, Multipart, Target};

/// Size of a part, in bytes: above Oracle's minimum of 10 MiB, three of them in memory.
pub const PART_SIZE: usize = 12 * 1024 * 1024;

/// What to push where.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The repository's directory.
    pub repository: PathBuf,
    /// Where to.
    pub target: Target,
    /// With which credentials.
    pub credentials: Credentials,
    /// The recipients' certificates, armoured or binary.
    pub recipients: Vec<Vec<u8>>,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// The ledger's directory, of this client and this target alone. Made if it is missing.
    pub ledger: PathBuf,
    /// Now, in Unix seconds: stands in manifests and names, and decides whether a certificate has expired.
    pub now: u64,
}

/// How patient a push or a restore is. [`Tuning::default`] is right but for tests.
#[derive(Clone)]
pub struct Tuning {
    /// Attempts and waits.
    pub retry: Retry,
    /// Time of the signatures.
    pub clock: Clock,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            clock: system_clock(),
        }
    }
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// The transaction that the target is now at.
    pub transaction: SegmentNumber,
    /// The target was there already; nothing was sent.
    pub nothing_to_do: bool,
    /// Objects sent, the manifest and its sums included.
    pub objects: u64,
    /// Bytes sent, encrypted.
    pub bytes: u64,
    /// Objects that the target's manifest names.
    pub total_objects: u64,
    /// Their sizes together, in bytes.
    pub total_bytes: u64,
    /// The ledger was missing, damaged, or of another place, and was made anew.
    pub ledger_rebuilt: bool,
    /// Objects found in the target and taken on when the ledger was made anew.
    pub taken_on: u64,
}

/// Who can read what is pushed, and how it is encrypted.
struct Sealing {
    recipients: Recipients,
    mode: Mode,
}

impl Sealing {
    /// Makes the secrets and key packets of one new message.
    fn seal(&self) -> Result<Seal, RecipientError> {
        self.recipients.seal(self.mode)
    }
}

/// The repository's state that is pushed.
struct Local<'a> {
    repository_id: &'a str,
    config: &'a [u8],
    config_sha256: Sha256Sum,
    transaction: SegmentNumber,
    segments: &'a [SegmentFile],
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn sha256(bytes: &[u8]) -> Sha256Sum {
    Digest(Sha256::digest(bytes).into())
}

/// Pushes. Safe to repeat, and to kill.
///
/// # Errors
/// [`PushError`]; the target stays restorable to its last manifest.
pub async fn push(
    request: &PushRequest,
    tuning: &Tuning,
    on_progress: OnProgress<'_>,
) -> Result<PushReport, PushError> {
    let target = &request.target;
    on_progress(Progress::new(Phase::Compare));
    let now = UNIX_EPOCH + Duration::from_secs(request.now);
    let recipients = Recipients::parse(&request.recipients, now)?;
    let sealing = Sealing {
        mode: recipients.mode(request.encryption),
        recipients,
    };
    let wrap = |source| PushError::Target {
        target: target.name.clone(),
        source,
    };
    let client = Client::new(target, request.credentials.clone(), tuning.clock.clone(), tuning.retry).map_err(wrap)?;

    let repository = Repository::open(&request.repository)?;
    let commit = repository.last_commit()?;
    let transaction = commit
        .ok_or_else(|| PushError::NoCommit {
            path: request.repository.clone(),
        })?
        .transaction;
    let segments = repository.state(transaction)?;
    let id = repository.config().id.to_string();
    let local = Local {
        repository_id: &id,
        config: repository.config_bytes(),
        config_sha256: sha256(repository.config_bytes()),
        transaction,
        segments: &segments,
    };
    let identity = Identity {
        repository: &id,
        bucket: &target.bucket,
        prefix: &target.prefix,
    };
    let mut ledger = Ledger::open(&request.ledger, identity, request.now)?;
    let fresh = !ledger.state.ready;
    let mut sender = Sender {
        client,
        target,
        ledger: &mut ledger,
        revision: request.now,
        part_size: PART_SIZE,
        sent_objects: 0,
        sent_bytes: 0,
    };
    sender.settle().await?;
    let mut taken_on = 0;
    if fresh {
        taken_on = known::rebuild(&mut sender, &local, sealing.recipients.key_packets_length()).await?;
        sender.ledger.ready()?;
    }
    check_unaltered(&mut sender, &repository, &segments).await?;
    if let Some((there, _)) = sender.ledger.state.manifest
        && there > transaction
    {
        return Err(PushError::WentBack {
            here: transaction,
            there,
        });
    }

    let nothing_to_do = sender.ledger.state.manifest == Some((transaction, local.config_sha256));
    if !nothing_to_do {
        send_new(&mut sender, &repository, &local, &sealing, on_progress).await?;
        publish(&mut sender, &local, &sealing, request.now).await?;
    }
    let (objects, bytes) = (sender.sent_objects, sender.sent_bytes);
    let (total_objects, total_bytes) = totals(sender.ledger, &local);
    let published_at = match crate::ledger::read_summary(&request.ledger) {
        Ok(Some(old)) if nothing_to_do && old.transaction == transaction => old.published_at,
        _ => request.now,
    };
    ledger.summarise(&Summary {
        transaction,
        at: request.now,
        published_at,
        objects: total_objects,
        bytes: total_bytes,
    })?;
    on_progress(Progress::new(Phase::Done));
    let ledger_rebuilt = fresh && taken_on > 0;
    Ok(PushReport {
        transaction,
        nothing_to_do,
        objects,
        bytes,
        total_objects,
        total_bytes,
        ledger_rebuilt,
        taken_on,
    })
}

/// Compares what was sent with what is there: by size and time, and by content where the time differs.
async fn check_unaltered(
    sender: &mut Sender<'_>,
    repository: &Repository,
    segments: &[SegmentFile],
) -> Result<(), PushError> {
    for segment in segments {
        let Some(item) = sender.ledger.state.segments.get(&segment.number) else {
            continue;
        };
        let altered = |why| PushError::SegmentAltered {
            segment: segment.number,
            why,
        };
        if item.plain_size != segment.size {
            return Err(altered("its size differs"));
        }
        let modified = unix_nanos(segment.modified);
        if item.modified == modified {
            continue;
        }
        let item = item.clone();
        if let Some(known) = item.plain_sha256 {
            let (path, size) = (repository.path().join(&segment.name), segment.size);
            let found = blocking(move || hash_file(&path, size))
                .await?
                .map_err(|source| PushError::Segment {
                    segment: segment.number,
                    source,
                })?;
            if found != known {
                return Err(altered("its content differs"));
            }
        }
        sender
            .ledger
            .stored(What::Segment(segment.number), Item { modified, ..item })?;
    }
    Ok(())
}

async fn send_new(
    sender: &mut Sender<'_>,
    repository: &Repository,
    local: &Local<'_>,
    sealing: &Sealing,
    on_progress: OnProgress<'_>,
) -> Result<(), PushError> {
    let state = &sender.ledger.state;
    let new: Vec<_> = local
        .segments
        .iter()
        .filter(|s| !state.segments.contains_key(&s.number))
        .collect();
    let mut progress = Progress {
        objects_total: new.len() as u64,
        bytes_total: new.iter().map(|segment| segment.size).sum(),
        ..Progress::new(Phase::Send)
    };
    on_progress(progress);
    if !state.configs.contains_key(&local.config_sha256) {
        let sealed = sealing.seal()?.seal(local.config).ok_or(too_large(SegmentNumber(0)))?;
        let plain = (local.config_sha256, local.config.len() as u64);
        let name = Name::config(&local.config_sha256);
        sender
            .bytes(What::Config(local.config_sha256), &name, sealed.into(), plain)
            .await?;
    }
    for segment in new {
        let plan = Plan {
            path: repository.path().join(&segment.name),
            size: segment.size,
            seal: sealing.seal()?,
        };
        let length = plan
            .seal
            .length(segment.size)
            .ok_or_else(|| too_large(segment.number))?;
        let (what, name) = (What::Segment(segment.number), Name::segment(&segment.name));
        let modified = unix_nanos(segment.modified);
        let before = progress.bytes_done;
        if length > PART_SIZE as u64 && sender.target.multipart == Multipart::Auto {
            let mut on_part = |bytes: u64| {
                progress.bytes_done = (progress.bytes_done + bytes).min(before + segment.size);
                on_progress(progress);
            };
            sender.in_parts(what, &name, plan, modified, &mut on_part).await?;
        } else {
            sender.in_one_piece(what, &name, plan, modified).await?;
        }
        progress.bytes_done = before + segment.size;
        progress.objects_done += 1;
        on_progress(progress);
    }
    on_progress(Progress {
        phase: Phase::Publish,
        ..progress
    });
    Ok(())
}

fn too_large(segment: SegmentNumber) -> PushError {
    PushError::Segment {
        segment,
        source: ReadError::TooLarge,
    }
}

/// The files of the present state, as the ledger knows them.
fn files(ledger: &Ledger, local: &Local<'_>) -> Vec<FileEntry> {
    let entry = |path: &str, item: &Item| FileEntry {
        path: path.to_owned(),
        size: item.plain_size,
        sha256: item.plain_sha256,
        object: item.object.clone(),
        object_size: item.size,
        object_sha256: item.sha256,
        object_md5: item.md5,
    };
    let config = ledger
        .state
        .configs
        .get(&local.config_sha256)
        .map(|item| entry("config", item));
    let segments = local.segments.iter().filter_map(|segment| {
        let item = ledger.state.segments.get(&segment.number)?;
        Some(entry(&segment.name, item))
    });
    config.into_iter().chain(segments).collect()
}

fn totals(ledger: &Ledger, local: &Local<'_>) -> (u64, u64) {
    let files = files(ledger, local);
    (files.len() as u64, files.iter().map(|file| file.object_size).sum())
}

async fn publish(sender: &mut Sender<'_>, local: &Local<'_>, sealing: &Sealing, now: u64) -> Result<(), PushError> {
    if !sender.ledger.state.recovery {
        let text = Bytes::from_static(RECOVERY.as_bytes());
        let object = Name::recovery().revision(None);
        // An older text does as well: its commands keep working.
        if sender.choose_revision(&[Name::recovery()]).await?.is_none() {
            sender.bytes_as(What::Recovery, object, text).await?;
        }
    }
    let manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        repository: local.repository_id.into(),
        transaction: local.transaction,
        created: now,
        files: files(sender.ledger, local),
    };
    if manifest.files.len() != local.segments.len() + 1 {
        return Err(PushError::Internal(
            "the ledger does not hold all segments after sending them".into(),
        ));
    }
    let json = serde_json::to_vec(&manifest).map_err(|error| PushError::Internal(error.to_string()))?;
    let names = [Name::sums(local.transaction), Name::manifest(local.transaction)];
    let mut revision = sender.choose_revision(&names).await?;
    for _ in 0..3 {
        let [sums_object, manifest_object] = names.each_ref().map(|name| name.revision(revision));
        let sealed = sealing.seal()?.seal(&json).ok_or(too_large(SegmentNumber(0)))?;
        let sums = manifest.sums((&manifest_object, Payload::of(&sealed).sha256));
        let what = What::Manifest(local.transaction, local.config_sha256);
        if sender
            .bytes_as(What::Sums(local.transaction), sums_object, sums.into())
            .await?
            && sender.bytes_as(what, manifest_object, sealed.into()).await?
        {
            return Ok(());
        }
        revision = Some(sender.next_revision());
    }
    Err(PushError::NameTaken {
        target: sender.target.name.clone(),
        object: names[1].revision(revision),
    })
}
