//! A restore: from a target to an empty directory that Borg can use.
//!
//! The newest manifest decides what belongs to the repository. Each object is received, decrypted and
//! checked in one pass: its own size and SHA-256, OpenPGP's integrity, the content's size and SHA-256.
//! A file gets its name only when all of that was right. Nothing in the target is changed, but archived
//! objects are asked to be made readable, which can cost money and takes hours.

mod receive;
mod signed;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strongroom_borg::segment::ReadError;
use strongroom_borg::{SegmentNumber, SegmentReader};
use zeroize::Zeroizing;

use self::receive::receive;
pub use self::signed::Signed;
use crate::digest::Sha256Sum;
use crate::layout::{self, parse_manifest, segment_of};
use crate::manifest::{BadManifest, FileEntry, Manifest};
use crate::openpgp::{Keyring, OpenError};
use crate::progress::{OnProgress, Phase, Progress};
use crate::push::Tuning;
use crate::s3::{Archive, Client, S3Error};
use crate::target::{Credentials, Target};

/// What to restore where.
#[derive(Clone)]
pub struct RestoreRequest {
    /// Where from.
    pub target: Target,
    /// With which credentials: they must allow to list, read and (from archive) restore.
    pub credentials: Credentials,
    /// Secret keys, armoured or binary.
    pub secret_keys: Vec<Zeroizing<Vec<u8>>>,
    /// Unlocks them; empty if they have none.
    pub passphrase: Zeroizing<String>,
    /// Fingerprint of the key that must have signed the state's manifest, in capitals; any or none when `None`.
    pub signer: Option<String>,
    /// Which state; the newest when `None`.
    pub transaction: Option<SegmentNumber>,
    /// The new repository's directory: empty, or not there yet. Of a single segment: its file's name, for messages.
    pub destination: PathBuf,
    /// For how many days archived objects are made readable, 1 to 10.
    pub archive_days: u32,
    /// How often to look whether they are readable; some minutes are right.
    pub archive_poll: Duration,
}

impl fmt::Debug for RestoreRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoreRequest")
            .field("target", &self.target)
            .field("transaction", &self.transaction)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The state.
    pub transaction: SegmentNumber,
    /// The repository's id, in hexadecimal.
    pub repository: String,
    /// When it was pushed, in Unix seconds.
    pub created: u64,
    /// Files written.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Files whose content's SHA-256 the manifest does not know: OpenPGP's integrity was checked, and
    /// `borg check` checks the rest.
    pub without_sum: u64,
    /// What is known of who made the copy.
    pub signed: Signed,
}

/// The segment that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The state that it was taken from.
    pub transaction: SegmentNumber,
    /// The repository's id, in hexadecimal.
    pub repository: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, as received.
    pub sha256: Sha256Sum,
    /// Whether the manifest knows the SHA-256; otherwise only OpenPGP's integrity, its size and its form were checked.
    pub known: bool,
    /// What is known of who made the copy.
    pub signed: Signed,
}

/// A state that can be restored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The transaction.
    pub transaction: SegmentNumber,
    /// Greater for a manifest that was published later for the same transaction.
    pub revision: u64,
    /// The manifest's object below the prefix.
    pub manifest: String,
}

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The service refused, or cannot be reached.
    #[error("target {target}: {source}")]
    Target {
        /// The target's name.
        target: String,
        /// What happened.
        #[source]
        source: S3Error,
    },
    /// There is no manifest.
    #[error("target {target} holds no manifest{}; check bucket and prefix", 
        .transaction.map(|t| format!(" of transaction {t}")).unwrap_or_default())]
    NoManifest {
        /// The target's name.
        target: String,
        /// The state that was asked for.
        transaction: Option<SegmentNumber>,
    },
    /// The manifest cannot be used.
    #[error("manifest {object}: {source}")]
    Manifest {
        /// The object.
        object: String,
        /// What is wrong.
        #[source]
        source: BadManifest,
    },
    /// The manifest was not signed by whom it should.
    #[error(
        "manifest {object} is not by {signer}: {why}. If the appliance has made itself a new key since, that one's          fingerprint is wanted; a restore without --signer says who signed"
    )]
    Signature {
        /// The object.
        object: String,
        /// Who should have.
        signer: String,
        /// What is wrong.
        why: String,
    },
    /// A secret key cannot be read.
    #[error(transparent)]
    Key(OpenError),
    /// An object cannot be opened.
    #[error("{object}: {source}")]
    Open {
        /// The object.
        object: String,
        /// What is wrong.
        #[source]
        source: OpenError,
    },
    /// An object or its content is not what the manifest says.
    #[error("{object}: {what} is not what the manifest says: the copy is damaged, or another object lies there")]
    Mismatch {
        /// The object.
        object: String,
        /// What differs.
        what: &'static str,
    },
    /// The state has no such segment.
    #[error(
        "the state of transaction {transaction} has no segment {segment}; it may have been freed since, or not been \
         pushed yet. An earlier state can be chosen by its transaction"
    )]
    NoSegment {
        /// The segment.
        segment: SegmentNumber,
        /// The state.
        transaction: SegmentNumber,
    },
    /// The segment was damaged already when it was pushed.
    #[error("{object}: the copy itself is of a damaged segment ({why}); another target or state may have it whole")]
    Segment {
        /// The object.
        object: String,
        /// What is wrong.
        why: String,
    },
    /// The destination is not empty.
    #[error("{path} is not empty; give a new directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread of ours ended badly.
    #[error("internal error: {0}; report this")]
    Internal(String),
}

impl RestoreError {
    /// Whether an object has to be made readable first.
    fn is_archived(&self) -> bool {
        matches!(
            self,
            Self::Target {
                source: S3Error::Archived { .. },
                ..
            }
        )
    }
}

/// A manifest of 20,000 segments has 9 MB.
const MAX_MANIFEST: u64 = 256 * 1024 * 1024;

/// The states that can be restored, oldest first.
///
/// # Errors
/// [`RestoreError::Target`].
pub async fn list_states(
    target: &Target,
    credentials: &Credentials,
    tuning: &Tuning,
) -> Result<Vec<State>, RestoreError> {
    let wrap = |source| RestoreError::Target {
        target: target.name.clone(),
        source,
    };
    let client = Client::new(target, credentials.clone(), tuning.clock.clone(), tuning.retry).map_err(wrap)?;
    states(&client, target).await.map_err(wrap)
}

async fn states(client: &Client, target: &Target) -> Result<Vec<State>, S3Error> {
    let listed = client.list(&target.key("manifest/")).await?;
    let mut states: Vec<_> = listed
        .iter()
        .filter_map(|listed| {
            let manifest = target.object(&listed.key)?;
            let (transaction, revision) = parse_manifest(manifest)?;
            Some(State {
                transaction,
                revision,
                manifest: manifest.to_owned(),
            })
        })
        .collect();
    states.sort_unstable();
    Ok(states)
}

/// Restores.
///
/// # Errors
/// [`RestoreError`]. What was written stays, without being a complete repository; remove it.
pub async fn restore(
    request: &RestoreRequest,
    tuning: &Tuning,
    on_progress: OnProgress<'_>,
) -> Result<RestoreReport, RestoreError> {
    on_progress(Progress::new(Phase::Compare));
    let run = Run::new(request, tuning)?;
    prepare(&request.destination)?;
    let (manifest, signed) = run.chosen(on_progress).await?;

    let mut progress = Progress {
        objects_total: manifest.files.len() as u64,
        bytes_total: manifest.files.iter().map(|file| file.size).sum(),
        ..Progress::new(Phase::Receive)
    };
    on_progress(progress);
    let mut asked = false;
    for (done, file) in manifest.files.iter().enumerate() {
        loop {
            match run.file(file).await {
                Err(error) if error.is_archived() => {
                    let rest: Vec<_> = manifest
                        .files
                        .iter()
                        .skip(done)
                        .map(|file| file.object.as_str())
                        .collect();
                    // Once asked for all, a single one may still come later than the others.
                    let wanted = if asked {
                        rest.get(..1).unwrap_or_default()
                    } else {
                        rest.as_slice()
                    };
                    run.make_readable(
                        wanted,
                        Progress {
                            phase: Phase::Wait,
                            ..progress
                        },
                        on_progress,
                    )
                    .await?;
                    asked = true;
                }
                other => break other?,
            }
        }
        progress.objects_done += 1;
        progress.bytes_done += file.size;
        on_progress(progress);
    }
    let readme = request.destination.join("README");
    fs::write(
        &readme,
        "This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n",
    )
    .map_err(|source| RestoreError::Io { path: readme, source })?;
    on_progress(Progress {
        phase: Phase::Done,
        ..progress
    });
    Ok(RestoreReport {
        transaction: manifest.transaction,
        repository: manifest.repository,
        created: manifest.created,
        files: progress.objects_done,
        bytes: progress.bytes_done,
        without_sum: manifest.files.iter().filter(|file| file.sha256.is_none()).count() as u64,
        signed,
    })
}

/// Restores one segment into `into`, a file that nobody reads before this has ended well: a message is known to be whole
/// only at its end. The file is emptied before.
///
/// # Errors
/// [`RestoreError`]; then the file holds nothing that may be used.
pub async fn restore_segment(
    request: &RestoreRequest,
    segment: SegmentNumber,
    into: &File,
    tuning: &Tuning,
    on_progress: OnProgress<'_>,
) -> Result<SegmentReport, RestoreError> {
    on_progress(Progress::new(Phase::Compare));
    let io = |source| RestoreError::Io {
        path: request.destination.clone(),
        source,
    };
    let run = Run::new(request, tuning)?;
    let (manifest, signed) = run.chosen(on_progress).await?;
    let file = manifest
        .files
        .iter()
        .find(|file| segment_of(&file.path) == Some(segment))
        .ok_or(RestoreError::NoSegment {
            segment,
            transaction: manifest.transaction,
        })?;
    let progress = Progress {
        objects_total: 1,
        bytes_total: file.size,
        ..Progress::new(Phase::Receive)
    };
    on_progress(progress);
    let shared = Arc::new(into.try_clone().map_err(io)?);
    let received = loop {
        match run.content(file, receive::Into::Open(shared.clone())).await {
            Err(error) if error.is_archived() => {
                let waiting = Progress {
                    phase: Phase::Wait,
                    ..progress
                };
                run.make_readable(&[file.object.as_str()], waiting, on_progress).await?;
            }
            other => break other?,
        }
    };
    well_formed(into).map_err(|error| match error {
        ReadError::Io(source) => io(source),
        ReadError::Damage(why) => RestoreError::Segment {
            object: file.object.clone(),
            why: why.to_string(),
        },
    })?;
    on_progress(Progress {
        phase: Phase::Done,
        objects_done: 1,
        bytes_done: file.size,
        ..progress
    });
    Ok(SegmentReport {
        transaction: manifest.transaction,
        repository: manifest.repository.clone(),
        bytes: received.size,
        sha256: received.sha256,
        known: file.sha256.is_some(),
        signed,
    })
}

/// Checks form and checksums of all of a segment, and leaves the file at its start.
fn well_formed(mut file: &File) -> Result<(), ReadError> {
    file.rewind()?;
    for entry in SegmentReader::new(file)? {
        entry?;
    }
    Ok(file.rewind()?)
}

/// Makes the destination, which must be empty.
fn prepare(path: &Path) -> Result<(), RestoreError> {
    let io = |source| RestoreError::Io {
        path: path.into(),
        source,
    };
    match fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(RestoreError::NotEmpty { path: path.into() });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(path).map_err(io)?,
        Err(error) => return Err(io(error)),
    }
    make_directory(&path.join("data")).map_err(io)
}

/// As Borg makes them: for the owner only.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

struct Run<'a> {
    client: Client,
    request: &'a RestoreRequest,
    keyring: Arc<Keyring>,
}

impl<'a> Run<'a> {
    fn new(request: &'a RestoreRequest, tuning: &Tuning) -> Result<Self, RestoreError> {
        let target = &request.target;
        let keyring = Keyring::parse(&request.secret_keys, &request.passphrase).map_err(RestoreError::Key)?;
        let client =
            Client::new(target, request.credentials.clone(), tuning.clock.clone(), tuning.retry).map_err(|source| {
                RestoreError::Target {
                    target: target.name.clone(),
                    source,
                }
            })?;
        Ok(Self {
            client,
            request,
            keyring: Arc::new(keyring),
        })
    }

    /// The manifest of the state that was asked for, and who signed it.
    async fn chosen(&self, on_progress: OnProgress<'_>) -> Result<(Manifest, Signed), RestoreError> {
        let request = self.request;
        let states = states(&self.client, &request.target)
            .await
            .map_err(|error| self.wrap(error))?;
        let state = states
            .into_iter()
            .rev()
            .find(|state| request.transaction.is_none_or(|t| t == state.transaction));
        let state = state.ok_or_else(|| RestoreError::NoManifest {
            target: request.target.name.clone(),
            transaction: request.transaction,
        })?;
        self.manifest(&state.manifest, on_progress).await
    }

    fn wrap(&self, source: S3Error) -> RestoreError {
        RestoreError::Target {
            target: self.request.target.name.clone(),
            source,
        }
    }

    async fn manifest(&self, object: &str, on_progress: OnProgress<'_>) -> Result<(Manifest, Signed), RestoreError> {
        let (bytes, signed) = loop {
            match self.signed_manifest(object).await {
                Err(error) if error.is_archived() => {
                    let mut wanted = vec![object.to_owned()];
                    wanted.extend(signed::objects(object));
                    wanted.extend(self.signers().await?);
                    let progress = Progress {
                        objects_total: wanted.len() as u64,
                        ..Progress::new(Phase::Wait)
                    };
                    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                    self.make_readable(&wanted, progress, on_progress).await?;
                }
                other => break other?,
            }
        };
        let manifest = Manifest::parse(&bytes).map_err(|source| RestoreError::Manifest {
            object: object.into(),
            source,
        })?;
        Ok((manifest, signed))
    }

    async fn signed_manifest(&self, object: &str) -> Result<(Vec<u8>, Signed), RestoreError> {
        let received = self.receive(object, receive::Into::Memory(MAX_MANIFEST)).await?;
        let (target, signer) = (&self.request.target, self.request.signer.as_deref());
        let signed = signed::check(&self.client, target, object, received.object_sha256, signer).await?;
        Ok((received.memory, signed))
    }

    /// The certificates of signers that lie in the target.
    async fn signers(&self) -> Result<Vec<String>, RestoreError> {
        let target = &self.request.target;
        let listed = self
            .client
            .list(&target.key(layout::SIGNER))
            .await
            .map_err(|error| self.wrap(error))?;
        let objects = listed.iter().filter_map(|listed| target.object(&listed.key));
        Ok(objects.map(str::to_owned).collect())
    }

    /// Receives an object, again if the connection breaks.
    async fn receive(&self, object: &str, into: receive::Into) -> Result<receive::Received, RestoreError> {
        let key = self.request.target.key(object);
        let mut failed = 0;
        loop {
            let error = match receive(&self.client, &key, self.keyring.clone(), into.clone()).await {
                Ok(received) => return Ok(received),
                Err(receive::ReceiveError::Network(error)) => error,
                Err(receive::ReceiveError::Open(OpenError::Write(source))) => {
                    let path = self.request.destination.clone();
                    return Err(RestoreError::Io { path, source });
                }
                Err(receive::ReceiveError::Open(source)) => {
                    return Err(RestoreError::Open {
                        object: object.into(),
                        source,
                    });
                }
                Err(receive::ReceiveError::Internal(text)) => return Err(RestoreError::Internal(text)),
            };
            failed += 1;
            let Some(wait) = self.client.retry().wait(failed, &error) else {
                return Err(self.wrap(error));
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn file(&self, file: &FileEntry) -> Result<(), RestoreError> {
        let path = self.request.destination.join(&file.path);
        let partial = self.request.destination.join(format!("{}.partial", file.path));
        let io = |source| RestoreError::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            make_directory(parent).map_err(io)?;
        }
        self.content(file, receive::Into::File(partial.clone())).await?;
        fs::rename(&partial, &path).map_err(io)
    }

    /// Receives an object and compares it and its content with the manifest.
    async fn content(&self, file: &FileEntry, into: receive::Into) -> Result<receive::Received, RestoreError> {
        let received = self.receive(&file.object, into).await?;
        let mismatch = |what| RestoreError::Mismatch {
            object: file.object.clone(),
            what,
        };
        if received.object_size != file.object_size {
            return Err(mismatch("its size"));
        }
        if file.object_sha256.is_some_and(|sum| sum != received.object_sha256) {
            return Err(mismatch("its SHA-256"));
        }
        if received.size != file.size {
            return Err(mismatch("its content's size"));
        }
        if file.sha256.is_some_and(|sum| sum != received.sha256) {
            return Err(mismatch("its content's SHA-256"));
        }
        Ok(received)
    }

    /// Asks for objects to be made readable, and waits until all of them are.
    async fn make_readable(
        &self,
        objects: &[&str],
        progress: Progress,
        on_progress: OnProgress<'_>,
    ) -> Result<(), RestoreError> {
        let mut waiting = Vec::new();
        for object in objects {
            let key = self.request.target.key(object);
            let head = self.client.head(&key).await.map_err(|error| self.wrap(error))?;
            if head.is_some_and(|head| head.archive == Archive::Archived) {
                self.client
                    .restore(&key, self.request.archive_days)
                    .await
                    .map_err(|error| self.wrap(error))?;
            }
            waiting.push(key);
        }
        let total = waiting.len() as u64;
        loop {
            let mut still = Vec::new();
            for key in waiting {
                let head = self.client.head(&key).await.map_err(|error| self.wrap(error))?;
                if head.is_some_and(|head| head.archive != Archive::Readable) {
                    still.push(key);
                }
            }
            waiting = still;
            on_progress(Progress {
                objects_done: total - waiting.len() as u64,
                objects_total: total,
                ..progress
            });
            if waiting.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(self.request.archive_poll).await;
        }
    }
}

/// A new file for the owner only; an old one of that name is emptied.
fn create(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}
