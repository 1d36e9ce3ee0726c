//! A restore: from a target to an empty directory that Borg can use.
//!
//! The newest manifest decides what belongs to the repository. Each object is received, decrypted and
//! checked in one pass: its own size and SHA-256, OpenPGP's integrity, the content's size and SHA-256.
//! A file gets its name only when all of that was right. Nothing in the target is changed, but archived
//! objects are asked to be made readable, which can cost money and takes hours.
//!
//! Several objects are on their way at a time, each in bounded memory. A restore that was cut short goes on where it was
//! ([`unfinished`]).

pub mod error;
mod receive;
pub mod sample;
mod signed;
pub mod survey;
mod thaw;
pub mod unfinished;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Seek, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use strongroom_borg::segment::ReadError;
use strongroom_borg::{SegmentNumber, SegmentReader};

pub use self::error::RestoreError;
use self::receive::receive;
pub use self::signed::Signed;
pub use self::thaw::{ArchiveRequest, Consent};
use self::thaw::{OnAgreed, Wanted};
use self::unfinished::Unfinished;
use crate::digest::Sha256Sum;
use crate::layout::{self, parse_manifest, segment_of};
use crate::manifest::{FileEntry, Manifest};
use crate::openpgp::{OpenError, Opener};
use crate::progress::{OnProgress, Phase, Progress, Told};
use crate::push::Tuning;
use crate::s3::S3Error;
use crate::store::Store;
use crate::target::{Credentials, Target};

/// Most downloads at a time.
pub const DOWNLOADS_MAX: u8 = 8;

/// What to restore where.
#[derive(Clone)]
pub struct RestoreRequest {
    /// Where from.
    pub target: Target,
    /// With which credentials: they must allow to list, read and (from archive) restore.
    pub credentials: Credentials,
    /// What decrypts it.
    pub opener: Opener,
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
    /// Whether the archive may be asked.
    pub consent: Consent,
    /// Downloads at a time: 1 to [`DOWNLOADS_MAX`]; others are taken for the nearest.
    pub downloads: u8,
}

impl RestoreRequest {
    /// The newest state, three downloads at a time; from an archive for a week, which leaves time for a slow line.
    #[must_use]
    pub fn new(target: Target, credentials: Credentials, opener: Opener, destination: PathBuf) -> Self {
        Self {
            target,
            credentials,
            opener,
            signer: None,
            transaction: None,
            destination,
            archive_days: 7,
            archive_poll: Duration::from_secs(60),
            consent: Consent::Given,
            downloads: 3,
        }
    }
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
    /// Files of the repository.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Files whose content's SHA-256 the manifest does not know: OpenPGP's integrity was checked, and
    /// `borg check` checks the rest.
    pub without_sum: u64,
    /// Files that a run before, which was cut short, had restored; they were verified again.
    pub kept: u64,
    /// When it was begun, by the first of these runs, in Unix seconds of this computer's clock.
    pub begun: u64,
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

/// A manifest of 20,000 segments has 9 MB.
const MAX_MANIFEST: u64 = 256 * 1024 * 1024;

/// The states that can be restored, oldest first.
async fn states(client: &Store, target: &Target) -> Result<Vec<State>, S3Error> {
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

/// Restores, or goes on with a restore to the same place that was cut short.
///
/// # Errors
/// [`RestoreError`]. What was written stays, without being a complete repository: the same restore again goes on with it.
pub async fn restore(
    request: &RestoreRequest,
    tuning: &Tuning,
    on_progress: OnProgress<'_>,
) -> Result<RestoreReport, RestoreError> {
    on_progress(Progress::new(Phase::Compare));
    let mut begun = Unfinished::begin(&request.destination, &request.target, request.transaction)?;
    let run = Run::new(request, tuning, begun.is_archived())?;
    let object = match begun.manifest() {
        Some(object) => object,
        None => {
            let state = run.chosen().await?;
            begun.choose(&state)?;
            state.manifest
        }
    };
    let (manifest, signed) = run.manifest(&object, &mut || begun.agreed(), on_progress).await?;

    let there = if begun.resumed {
        run.there(&manifest, on_progress).await?
    } else {
        BTreeSet::new()
    };
    let (kept, mut missing): (Vec<&FileEntry>, Vec<&FileEntry>) =
        manifest.files.iter().partition(|file| there.contains(&file.path));
    let mut progress = Progress {
        objects_done: kept.len() as u64,
        objects_total: manifest.files.len() as u64,
        bytes_done: kept.iter().map(|file| file.size).sum(),
        bytes_total: manifest.files.iter().map(|file| file.size).sum(),
        ..Progress::new(Phase::Receive)
    };
    // Where the archive was asked before, all of it is asked first, instead of at the first object that can't be read.
    let mut archived = begun.is_archived();
    loop {
        if archived {
            let wanted: Vec<Wanted<'_>> = missing
                .iter()
                .map(|file| (file.object.as_str(), file.object_size))
                .collect();
            run.thaw(&wanted, None, progress, &mut || begun.agreed(), on_progress)
                .await?;
        }
        let told = Told::new(progress, &mut *on_progress);
        let received = run.download(&mut missing, &told).await;
        progress = told.progress();
        match received {
            Ok(()) => break,
            Err(error) if error.is_archived() => archived = true,
            Err(error) => return Err(error),
        }
    }
    finish(&request.destination)?;
    let report = RestoreReport {
        transaction: manifest.transaction,
        repository: manifest.repository.clone(),
        created: manifest.created,
        files: progress.objects_done,
        bytes: progress.bytes_total,
        without_sum: manifest.files.iter().filter(|file| file.sha256.is_none()).count() as u64,
        kept: kept.len() as u64,
        begun: begun.begun(),
        signed,
    };
    begun.end()?;
    on_progress(Progress {
        phase: Phase::Done,
        bytes_done: progress.bytes_total,
        ..progress
    });
    Ok(report)
}

/// What else Borg wants to see in a repository.
fn finish(destination: &Path) -> Result<(), RestoreError> {
    let path = destination.join("README");
    let write = || {
        let mut readme = create(&path)?;
        readme.write_all(b"This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n")?;
        readme.sync_all()
    };
    write().map_err(|source| RestoreError::Io {
        path: path.clone(),
        source,
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
    let run = Run::new(request, tuning, false)?;
    let state = run.chosen().await?;
    let (manifest, signed) = run.manifest(&state.manifest, &mut || Ok(()), on_progress).await?;
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
        match run
            .content(file, receive::Into::Open(shared.clone()), &mut |_| {})
            .await
        {
            Err(error) if error.is_archived() => {
                let wanted = [(file.object.as_str(), file.object_size)];
                run.thaw(&wanted, None, progress, &mut || Ok(()), on_progress).await?;
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

/// As Borg makes them: for the owner only.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

struct Run<'a> {
    client: Store,
    request: &'a RestoreRequest,
    /// The owner agreed that the archive is asked.
    agreed: AtomicBool,
}

impl<'a> Run<'a> {
    fn new(request: &'a RestoreRequest, tuning: &Tuning, agreed: bool) -> Result<Self, RestoreError> {
        let target = &request.target;
        let client = Store::open(target, &request.credentials, tuning).map_err(|source| RestoreError::Target {
            target: target.name.clone(),
            source,
        })?;
        Ok(Self {
            client,
            request,
            agreed: AtomicBool::new(agreed),
        })
    }

    /// The state that was asked for.
    async fn chosen(&self) -> Result<State, RestoreError> {
        let request = self.request;
        let states = states(&self.client, &request.target)
            .await
            .map_err(|error| self.wrap(error))?;
        let state = states
            .into_iter()
            .rev()
            .find(|state| request.transaction.is_none_or(|t| t == state.transaction));
        state.ok_or_else(|| RestoreError::NoManifest {
            target: request.target.name.clone(),
            transaction: request.transaction,
        })
    }

    fn wrap(&self, source: S3Error) -> RestoreError {
        RestoreError::Target {
            target: self.request.target.name.clone(),
            source,
        }
    }

    /// A manifest, and who signed it.
    async fn manifest(
        &self,
        object: &str,
        on_agreed: OnAgreed<'_>,
        on_progress: OnProgress<'_>,
    ) -> Result<(Manifest, Signed), RestoreError> {
        let (bytes, signed) = loop {
            match self.signed_manifest(object).await {
                Err(error) if error.is_archived() => {
                    let mut wanted = vec![object.to_owned()];
                    wanted.extend(signed::objects(object));
                    wanted.extend(self.signers().await?);
                    let bound = self.bound(object, wanted.len() as u64).await?;
                    let wanted: Vec<Wanted<'_>> = wanted.iter().map(|object| (object.as_str(), 0)).collect();
                    let progress = Progress::new(Phase::Wait);
                    self.thaw(&wanted, Some(bound), progress, &mut *on_agreed, &mut *on_progress)
                        .await?;
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
        let received = self
            .receive(object, None, receive::Into::Memory(MAX_MANIFEST), &mut |_| {})
            .await?;
        let (target, signer) = (&self.request.target, self.request.signer.as_deref());
        let signed = signed::check(&self.client, target, object, received.object_sum, signer).await?;
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

    /// What may have to be asked for once the manifest can be read, which takes so many objects itself.
    async fn bound(&self, manifest: &str, with_it: u64) -> Result<ArchiveRequest, RestoreError> {
        let target = &self.request.target;
        let listed = self
            .client
            .list(&target.key(""))
            .await
            .map_err(|error| self.wrap(error))?;
        let up_to = parse_manifest(manifest).map_or(SegmentNumber(u32::MAX), |(transaction, _)| transaction);
        let (objects, bytes) = survey::bound(target, &listed, up_to);
        Ok(ArchiveRequest {
            objects: objects + with_it,
            bytes,
            at_most: true,
            days: self.request.archive_days,
        })
    }

    /// Paths of the files that a run before has restored, and that still are what the manifest says.
    async fn there(&self, manifest: &Manifest, on_progress: OnProgress<'_>) -> Result<BTreeSet<String>, RestoreError> {
        let mut progress = Progress {
            objects_total: manifest.files.len() as u64,
            bytes_total: manifest.files.iter().map(|file| file.size).sum(),
            ..Progress::new(Phase::Compare)
        };
        let mut there = BTreeSet::new();
        for file in &manifest.files {
            on_progress(progress);
            let (folder, looked_at) = (self.request.destination.clone(), file.clone());
            let is_there = tokio::task::spawn_blocking(move || unfinished::is_there(&folder, &looked_at))
                .await
                .map_err(|error| RestoreError::Internal(error.to_string()))?
                .map_err(|source| RestoreError::Io {
                    path: self.request.destination.join(&file.path),
                    source,
                })?;
            if is_there {
                there.insert(file.path.clone());
            }
            progress.objects_done += 1;
            progress.bytes_done += file.size;
        }
        Ok(there)
    }

    /// Fetches files, several at a time; those that are left after an error stay in `missing`. When something is archived,
    /// what is under way is brought to its end.
    async fn download(&self, missing: &mut Vec<&FileEntry>, told: &Told<'_>) -> Result<(), RestoreError> {
        let at_a_time = usize::from(self.request.downloads.clamp(1, DOWNLOADS_MAX));
        let mut done = BTreeSet::new();
        let mut outcome = Ok(());
        {
            let mut waiting = missing.iter();
            let mut running = FuturesUnordered::new();
            loop {
                while outcome.is_ok()
                    && running.len() < at_a_time
                    && let Some(file) = waiting.next()
                {
                    running.push(async move { self.file(file, told).await.map(|()| file.path.as_str()) });
                }
                match running.next().await {
                    Some(Ok(path)) => {
                        done.insert(path);
                    }
                    Some(Err(error)) if error.is_archived() => outcome = Err(error),
                    Some(Err(error)) => {
                        outcome = Err(error);
                        break;
                    }
                    None => break,
                }
            }
        }
        missing.retain(|file| !done.contains(file.path.as_str()));
        outcome
    }

    /// Receives an object, again if the connection breaks.
    async fn receive(
        &self,
        object: &str,
        part_size: Option<u64>,
        into: receive::Into,
        on_bytes: receive::OnBytes<'_>,
    ) -> Result<receive::Received, RestoreError> {
        let key = self.request.target.key(object);
        let mut failed = 0;
        loop {
            let error = match receive(
                &self.client,
                &key,
                part_size,
                self.request.opener.clone(),
                into.clone(),
                &mut *on_bytes,
            )
            .await
            {
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

    async fn file(&self, file: &FileEntry, told: &Told<'_>) -> Result<(), RestoreError> {
        let path = self.request.destination.join(&file.path);
        let partial = self.request.destination.join(format!("{}.partial", file.path));
        let io = |source| RestoreError::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            make_directory(parent).map_err(io)?;
        }
        let mut part = told.file(file.size);
        let into = receive::Into::File(partial.clone());
        self.content(file, into, &mut |bytes| part.add(bytes)).await?;
        fs::rename(&partial, &path).map_err(io)?;
        part.done();
        Ok(())
    }

    /// Receives an object and compares it and its content with the manifest.
    async fn content(
        &self,
        file: &FileEntry,
        into: receive::Into,
        on_bytes: receive::OnBytes<'_>,
    ) -> Result<receive::Received, RestoreError> {
        let part_size = file.object_parts.map(|parts| parts.size);
        let received = self.receive(&file.object, part_size, into, on_bytes).await?;
        let mismatch = |what| RestoreError::Mismatch {
            object: file.object.clone(),
            what,
        };
        if received.object_size != file.object_size {
            return Err(mismatch("its size"));
        }
        let known = file.object_parts.map(|parts| parts.sha256).or(file.object_sha256);
        if known.is_some_and(|sum| sum != received.object_sum) {
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
