//! A push: bring one target up to the repository's last committed transaction.
//!
//! The order is what makes it safe to kill at any instant: segments and `config` first, each under a
//! name that was never used; then the clear sums and their signature; the manifest last. Until it is there, the previous
//! manifest and everything it names are as they were. Nothing above the last commit is read, no lock is
//! taken, no object is overwritten or deleted.

mod buffer;
mod error;
mod known;
mod multipart;
mod publish;
mod read;
mod segments;
mod send;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strongroom_borg::{Repository, SegmentFile, SegmentNumber};

pub use error::PushError;
pub use read::ReadError;

use self::publish::{publish, totals};
use self::segments::{check_unaltered, send_new};
use self::send::Sender;
use crate::digest::{Digest, Sha256Sum};
use crate::ledger::{Identity, Ledger, Summary};
use crate::openpgp::{Encryption, Mode, RecipientError, Recipients, Seal, Signer};
use crate::progress::{OnProgress, Phase, Progress};
use crate::s3::{Client, Clock, Retry, system_clock};
use crate::target::{Credentials, Target};

/// Size of a part, in bytes: Oracle's minimum, since there is one in memory for each upload, and one more.
pub const PART_SIZE: usize = 10 * 1024 * 1024;
const _: () = assert!(
    PART_SIZE.is_multiple_of(64),
    "sums of parts go with the sum of the whole, block by block"
);
/// Most uploads at a time: with these a push stays within 64 MiB.
pub const UPLOADS_MAX: u8 = 4;

/// How much of the line and of the memory a push may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Uploads at a time, of files and parts of files together: 1 to [`UPLOADS_MAX`]; others are taken for the nearest.
    /// Each takes [`PART_SIZE`] bytes of memory.
    pub uploads: u8,
    /// Most bytes sent in a second; as many as the line takes when absent.
    pub bandwidth: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uploads: 3,
            bandwidth: None,
        }
    }
}

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
    /// Who signs what is published; nobody when absent.
    pub signer: Option<Signer>,
    /// How much it may take.
    pub limits: Limits,
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
    /// Objects sent, the manifest, its sums and their signature included.
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
    let mut client =
        Client::new(target, request.credentials.clone(), tuning.clock.clone(), tuning.retry).map_err(wrap)?;
    if let Some(rate) = request.limits.bandwidth {
        client.limit(rate);
    }

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
    let ledger = Ledger::open(&request.ledger, identity, request.now)?;
    let fresh = !ledger.state.ready;
    let uploads = usize::from(request.limits.uploads.clamp(1, UPLOADS_MAX));
    let sender = Sender::new(client, target, ledger, uploads, request.now);
    sender.settle().await?;
    let mut taken_on = 0;
    if fresh {
        taken_on = known::rebuild(&sender, &local, sealing.recipients.key_packets_length()).await?;
        sender.ledger().ready()?;
    }
    check_unaltered(&sender, &repository, &segments).await?;
    let manifest = sender.ledger().state.manifest;
    if let Some((there, _)) = manifest
        && there > transaction
    {
        return Err(PushError::WentBack {
            here: transaction,
            there,
        });
    }

    let nothing_to_do = manifest == Some((transaction, local.config_sha256)) && !sender.ledger().state.publish_again;
    if !nothing_to_do {
        send_new(&sender, &repository, &local, &sealing, uploads + 1, on_progress).await?;
        publish(&sender, &local, &sealing, request.signer.as_ref(), request.now).await?;
    }
    let (objects, bytes) = sender.sent();
    let (total_objects, total_bytes) = totals(&sender.ledger(), &local);
    let published_at = match crate::ledger::read_summary(&request.ledger) {
        Ok(Some(old)) if nothing_to_do && old.transaction == transaction => old.published_at,
        _ => request.now,
    };
    sender.ledger().summarise(&Summary {
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

fn too_large() -> PushError {
    PushError::Segment {
        segment: SegmentNumber(0),
        source: ReadError::TooLarge,
    }
}
