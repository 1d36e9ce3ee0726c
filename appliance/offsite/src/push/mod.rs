//! A push: bring one target up to the repository's last committed transaction.
//!
//! The order is what makes it safe to kill at any instant: segments and `config` first, each under a
//! name that was never used; then the clear sums and their signature; the manifest last. Until it is there, the previous
//! manifest and everything it names are as they were. Nothing above the last commit is read, no lock is
//! taken, no object is overwritten. What nothing needs any more is deleted only after that, and only where the owner
//! wants it ([`crate::retire`]).

mod buffer;
mod error;
mod known;
mod multipart;
mod publish;
mod read;
mod retire;
mod segments;
mod send;
mod unfinished;

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
use self::unfinished::{Begun, Unfinished};
use crate::digest::{Digest, Sha256Sum};
use crate::layout::parse_manifest;
use crate::ledger::{Distrusted, Identity, Ledger, Summary};
use crate::openpgp::{Encryption, Mode, RecipientError, Recipients, Seal, Signer, sealed_length};
use crate::progress::{OnProgress, Phase, Progress};
use crate::retire::{Retirement, Rules};
use crate::s3::{Clock, Retry, system_clock};
use crate::store::Store;
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
    /// What becomes of objects that nothing needs any more.
    pub retirement: Rules,
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
    /// What became of objects that nothing needs any more; `None` when the target was not looked at.
    pub retirement: Option<Retirement>,
    /// Manifests in the target that claim to be newer than this, and are not this appliance's: a restore would take one of
    /// them, unless it is told who must have signed.
    pub distrusted: Vec<Distrusted>,
}

/// Who can read what is pushed, and how it is encrypted.
struct Sealing {
    recipients: Recipients,
    /// SHA-256 of their certificates.
    certificates: Sha256Sum,
    mode: Mode,
}

impl Sealing {
    /// The length of a message of `plain` bytes, or `None` when they are too many.
    fn length(&self, plain: u64) -> Option<u64> {
        sealed_length(self.mode, self.recipients.key_packets_length(), plain)
    }

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
        certificates: sha256(&request.recipients.concat()),
        recipients,
    };
    let wrap = |source| PushError::Target {
        target: target.name.clone(),
        source,
    };
    let mut client = Store::open(target, &request.credentials, tuning).map_err(wrap)?;
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
    let place = client.identity(target).await.map_err(wrap)?;
    client.sweep(&target.key("")).await.map_err(wrap)?;
    let identity = Identity {
        repository: &id,
        bucket: &place,
        prefix: &target.prefix,
    };
    let ledger = Ledger::open(&request.ledger, identity, request.now)?;
    let fresh = !ledger.state.ready;
    let uploads = usize::from(request.limits.uploads.clamp(1, UPLOADS_MAX));
    let unfinished = Unfinished::open(&request.ledger)?;
    let sender = Sender::new(client, target, ledger, unfinished, uploads, request.now);
    sender.settle(|begun| fits(begun, target, &local, &sealing)).await?;
    let mut rebuilt = known::Rebuilt::default();
    if fresh {
        let key_packets = sealing.recipients.key_packets_length();
        rebuilt = known::rebuild(&sender, &local, key_packets, request.signer.as_ref()).await?;
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
        retire::reclaim(&sender, &local)?;
        send_new(&sender, &repository, &local, &sealing, uploads + 1, on_progress).await?;
        publish(&sender, &local, &sealing, request.signer.as_ref(), request.now).await?;
    }
    let (objects, bytes) = sender.sent();
    let (total_objects, total_bytes) = totals(&sender.ledger(), &local);
    let old = crate::ledger::read_summary(&request.ledger).ok().flatten();
    let looked = old.as_ref().and_then(|old| old.retirement.clone());
    let retirement = if !nothing_to_do || retire::is_due(looked.as_ref(), request.now) {
        Some(retire::retire(&sender, &request.retirement, request.now).await)
    } else {
        None
    };
    let distrusted = match &old {
        Some(old) if !fresh => old.distrusted.clone(),
        _ => rebuilt.distrusted,
    };
    let distrusted = newer(&sender, distrusted).await;
    let retired_bytes = retirement.as_ref().map_or(0, |done| done.retired.bytes);
    let published_at = match &old {
        Some(old) if nothing_to_do && old.transaction == transaction => old.published_at,
        _ => request.now,
    };
    sender.ledger().summarise(&Summary {
        transaction,
        at: request.now,
        published_at,
        objects: total_objects,
        bytes: total_bytes,
        retirement: retirement.clone().or(looked),
        retired_bytes: old.map_or(0, |old| old.retired_bytes) + retired_bytes,
        distrusted: distrusted.clone(),
    })?;
    on_progress(Progress::new(Phase::Done));
    let taken_on = rebuilt.taken_on;
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
        retirement,
        distrusted,
    })
}

/// Those of these manifests that are there, and newer than the one that was published last.
async fn newer(sender: &Sender<'_>, distrusted: Vec<Distrusted>) -> Vec<Distrusted> {
    let own = sender
        .ledger()
        .state
        .newest()
        .and_then(|(object, _)| parse_manifest(object));
    let mut newer = Vec::new();
    for one in distrusted {
        let is_newer = parse_manifest(&one.manifest) > own;
        if is_newer && !matches!(sender.client.head(&sender.target.key(&one.manifest)).await, Ok(None)) {
            newer.push(one);
        }
    }
    newer
}

/// Whether it can be gone on with an upload: the segment is what it was, and so are those who are to read it.
fn fits(begun: &Begun, target: &Target, local: &Local<'_>, sealing: &Sealing) -> bool {
    let facts = &begun.facts;
    let is_it = |segment: &SegmentFile| {
        (segment.number, segment.size, unix_nanos(segment.modified)) == (facts.segment, facts.size, facts.modified)
    };
    target.goes_in_parts()
        && (begun.seal.mode(), facts.recipients) == (sealing.mode, sealing.certificates)
        && local.segments.iter().any(is_it)
}

fn too_large() -> PushError {
    PushError::Segment {
        segment: SegmentNumber(0),
        source: ReadError::TooLarge,
    }
}
