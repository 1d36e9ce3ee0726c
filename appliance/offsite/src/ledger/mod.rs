//! The ledger: what has been sent, so that it is sent once. One directory per client and target.
//!
//! `ledger.jsonl` is a log of JSON lines, each flushed to the disk before the next step is taken.
//! `summary.json` is small and readable without credentials. A torn last line is dropped; a file that
//! cannot be read is set aside, and the ledger rebuilt from the bucket. It is a cache of what lies there.

mod record;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strongroom_borg::SegmentNumber;

pub use self::record::{Item, What};
pub(crate) use self::record::{Record, State};
use self::record::{VERSION, replay};
use crate::durable;
use crate::retire::Retirement;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing failed.
    #[error("cannot use the ledger {path}: {source}; check the space on the state partition")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another push of this client to this target is running.
    #[error("another push is using the ledger {path}; wait until it has ended")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The ledger is of another repository.
    #[error(
        "the repository was replaced: its id was {known} and is {found}. If that was intended, give the client a new \
         prefix in the target; the old copy stays as it is"
    )]
    OtherRepository {
        /// The id in the ledger or the bucket.
        known: String,
        /// The id on the disk.
        found: String,
    },
}

/// What a push last achieved; for a status, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The last transaction whose manifest was published.
    pub transaction: SegmentNumber,
    /// When a push last ended well, in Unix seconds, even if there was nothing to send.
    pub at: u64,
    /// When the manifest was published, in Unix seconds.
    pub published_at: u64,
    /// Objects that the manifest names.
    pub objects: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// What is known of objects that nothing needs any more, as of the last look at them.
    #[serde(default)]
    pub retirement: Option<Retirement>,
    /// Bytes of objects that were retired, by all pushes that this summary knows of.
    #[serde(default)]
    pub retired_bytes: u64,
    /// Manifests that claim to be newer, and are not this appliance's.
    #[serde(default)]
    pub distrusted: Vec<Distrusted>,
}

/// A manifest that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distrusted {
    /// Its object below the prefix.
    pub manifest: String,
    /// Why it does not.
    pub why: String,
}

/// Reads the summary of the ledger in `directory`; `None` before the first push has ended well.
///
/// # Errors
/// [`LedgerError::Io`], also when the file is damaged.
pub fn read_summary(directory: &Path) -> Result<Option<Summary>, LedgerError> {
    let path = directory.join("summary.json");
    match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(summary) => Ok(Some(summary)),
            Err(error) => Err(LedgerError::Io {
                path,
                source: error.into(),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LedgerError::Io { path, source }),
    }
}

/// What a ledger says of a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// All objects that belong to the states pushed.
    pub items: Vec<Item>,
    /// The newest manifest's transaction.
    pub manifest: Option<SegmentNumber>,
    /// Further names that were used, by a push that was cut short or by somebody else.
    pub used: BTreeSet<String>,
}

/// What the ledger in `directory` says of its target, without opening it for writing; `None` when there is no usable ledger.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn read_contents(directory: &Path) -> Result<Option<Contents>, LedgerError> {
    let path = directory.join("ledger.jsonl");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LedgerError::Io { path, source }),
    };
    let state = replay(&bytes, None)?.map(|(state, _)| state);
    Ok(state.map(|state| {
        let uploads = state.uploads.into_iter().map(|(object, _)| object);
        Contents {
            manifest: state.manifest.map(|(transaction, _)| transaction),
            used: state.intents.into_keys().chain(state.taken).chain(uploads).collect(),
            items: state
                .segments
                .into_values()
                .chain(state.configs.into_values())
                .collect(),
        }
    }))
}

/// What the ledger in `directory` knows of one segment of this repository; `None` when it knows nothing of it. Reads line by
/// line, whatever the ledger's size.
///
/// # Errors
/// [`LedgerError::Io`].
pub fn read_segment(directory: &Path, repository: &str, segment: SegmentNumber) -> Result<Option<Item>, LedgerError> {
    let path = directory.join("ledger.jsonl");
    let io = |source| LedgerError::Io {
        path: path.clone(),
        source,
    };
    let mut input = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(source)),
    };
    let (mut line, mut first, mut found) = (String::new(), true, None);
    loop {
        line.clear();
        // A torn last line is no record.
        if input.read_line(&mut line).map_err(io)? == 0 || !line.ends_with('\n') {
            return Ok(found);
        }
        match serde_json::from_str::<Record>(&line) {
            Ok(Record::Header {
                version: VERSION,
                repository: own,
                ..
            }) if first && own == repository => first = false,
            Ok(Record::Stored {
                what: What::Segment(number),
                item,
            }) if !first => {
                if number == segment {
                    found = Some(item);
                }
            }
            Ok(Record::Retired { objects }) if !first => {
                found = found.filter(|item: &Item| !objects.contains(&item.object));
            }
            Ok(_) if !first => {}
            // Of another repository or version, or damaged: the next push sets it aside.
            _ => return Ok(None),
        }
    }
}

/// Takes note that objects are gone from the target, or are others than were sent, so that the next push sends them again,
/// under other names where need be, and publishes the state anew. Does nothing without a usable ledger.
///
/// # Errors
/// [`LedgerError`].
pub fn lose(directory: &Path, objects: Vec<String>) -> Result<(), LedgerError> {
    let path = directory.join("ledger.jsonl");
    let io = |source| LedgerError::Io {
        path: path.clone(),
        source,
    };
    let mut file = open_locked(&path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    let Some((state, good)) = replay(&bytes, None)? else {
        return Ok(());
    };
    file.set_len(good as u64).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    let mut ledger = Ledger {
        directory: directory.into(),
        path,
        file,
        state,
    };
    ledger.append(Record::Lost { objects })
}

/// Whose ledger it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub repository: &'a str,
    pub bucket: &'a str,
    pub prefix: &'a str,
}

/// An open, locked ledger.
pub(crate) struct Ledger {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    pub state: State,
}

impl Ledger {
    /// Opens or makes the ledger. One that is damaged, or of another bucket or prefix, is set aside first.
    pub fn open(directory: &Path, identity: Identity<'_>, now: u64) -> Result<Self, LedgerError> {
        let path = directory.join("ledger.jsonl");
        let io = |source| LedgerError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(directory).map_err(io)?;
        let mut file = open_locked(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let mut state = None;
        if !bytes.is_empty() {
            match replay(&bytes, Some(identity))? {
                Some((replayed, good)) => {
                    file.set_len(good as u64).map_err(io)?;
                    state = Some(replayed);
                }
                None => {
                    fs::rename(&path, directory.join(format!("ledger.{now}.old"))).map_err(io)?;
                    file = open_locked(&path)?;
                }
            }
        }
        let fresh = state.is_none();
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let mut ledger = Self {
            directory: directory.into(),
            path,
            file,
            state: state.unwrap_or_default(),
        };
        if fresh {
            ledger.append(Record::Header {
                version: VERSION,
                repository: identity.repository.into(),
                bucket: identity.bucket.into(),
                prefix: identity.prefix.into(),
            })?;
            durable::sync_directory(directory).map_err(|source| ledger.io(source))?;
        }
        Ok(ledger)
    }

    fn io(&self, source: io::Error) -> LedgerError {
        LedgerError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn append(&mut self, record: Record) -> Result<(), LedgerError> {
        let mut line = serde_json::to_vec(&record).map_err(|error| self.io(error.into()))?;
        line.push(b'\n');
        let end = self.file.stream_position().map_err(|source| self.io(source))?;
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // Leave no half line behind for this process; a later one drops it anyway.
            let _ = self.file.set_len(end);
            let _ = self.file.seek(SeekFrom::Start(end));
            return Err(self.io(source));
        }
        self.state.apply(record);
        Ok(())
    }

    pub fn intend(&mut self, what: What, item: Item) -> Result<(), LedgerError> {
        self.append(Record::Intent { what, item })
    }

    pub fn stored(&mut self, what: What, item: Item) -> Result<(), LedgerError> {
        self.append(Record::Stored { what, item })
    }

    pub fn ready(&mut self) -> Result<(), LedgerError> {
        self.append(Record::Ready)
    }

    pub fn dropped(&mut self, object: String) -> Result<(), LedgerError> {
        self.append(Record::Dropped { object })
    }

    pub fn taken(&mut self, object: String) -> Result<(), LedgerError> {
        self.append(Record::Taken { object })
    }

    pub fn upload(&mut self, object: String, id: String) -> Result<(), LedgerError> {
        self.append(Record::Upload { object, id })
    }

    pub fn upload_ended(&mut self, object: String, id: String) -> Result<(), LedgerError> {
        self.append(Record::UploadEnded { object, id })
    }

    pub fn without(&mut self, manifest: String, segments: Vec<SegmentNumber>) -> Result<(), LedgerError> {
        self.append(Record::Without { manifest, segments })
    }

    pub fn retired(&mut self, objects: Vec<String>) -> Result<(), LedgerError> {
        self.append(Record::Retired { objects })
    }

    /// Writes the summary.
    pub fn summarise(&self, summary: &Summary) -> Result<(), LedgerError> {
        let path = self.directory.join("summary.json");
        serde_json::to_vec(summary)
            .map_err(io::Error::from)
            .and_then(|bytes| durable::write(&self.directory, "summary.json", &bytes, 0o644))
            .map_err(|source| LedgerError::Io { path, source })
    }
}

fn open_locked(path: &Path) -> Result<File, LedgerError> {
    let io = |source| LedgerError::Io {
        path: path.into(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LedgerError::Busy { path: path.into() }),
        Err(fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: Identity<'_> = Identity {
        repository: "ab",
        bucket: "b",
        prefix: "p",
    };

    fn item(object: &str) -> Item {
        Item {
            object: object.into(),
            size: 1,
            etag: "e".into(),
            md5: None,
            sha256: None,
            parts: None,
            plain_size: 1,
            plain_sha256: None,
            modified: 0,
        }
    }

    fn open(dir: &Path) -> Result<Ledger, LedgerError> {
        Ledger::open(dir, WHOSE, 7)
    }

    #[test]
    fn records_survive_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path()).unwrap();
        assert!(!ledger.state.ready);
        ledger.ready().unwrap();
        ledger.intend(What::Segment(SegmentNumber(1)), item("a")).unwrap();
        ledger.stored(What::Segment(SegmentNumber(1)), item("a")).unwrap();
        ledger.intend(What::Segment(SegmentNumber(2)), item("b")).unwrap();
        ledger.upload("c".into(), "id".into()).unwrap();
        assert!(matches!(open(dir.path()), Err(LedgerError::Busy { .. })));
        drop(ledger);
        let path = dir.path().join("ledger.jsonl");
        let whole = fs::read(&path).unwrap();
        // A program that another test is just starting may hold a copy of the lock until it runs.
        let open = || loop {
            match open(dir.path()) {
                Err(LedgerError::Busy { .. }) => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        };
        for cut in 1..60 {
            // A power cut inside the last line, at every place.
            fs::write(&path, &whole[..whole.len() - cut.min(40)]).unwrap();
            let mut ledger = open();
            assert!(ledger.state.ready);
            assert_eq!(ledger.state.segments.len(), 1);
            assert!(ledger.state.intents.contains_key("b"));
            assert!(ledger.state.uploads.is_empty());
            ledger.taken("b".into()).unwrap();
            drop(ledger);
            assert!(open().state.taken.contains("b"));
        }
    }

    #[test]
    fn one_segment_is_found_without_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let read = |repository, number| read_segment(dir.path(), repository, SegmentNumber(number)).unwrap();
        assert_eq!(read("ab", 1), None, "there is no ledger");
        let mut ledger = open(dir.path()).unwrap();
        for (number, object) in [(1, "a"), (2, "b"), (2, "c")] {
            ledger
                .stored(What::Segment(SegmentNumber(number)), item(object))
                .unwrap();
        }
        ledger.intend(What::Segment(SegmentNumber(3)), item("d")).unwrap();
        assert_eq!(read("ab", 1), Some(item("a")));
        assert_eq!(read("ab", 2), Some(item("c")), "the last record counts");
        assert_eq!(read("ab", 3), None, "it was not sent");
        assert_eq!(read("cd", 1), None, "another repository's");
        let path = dir.path().join("ledger.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"record\":\"stored\"");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read("ab", 1), Some(item("a")), "a torn end is no record");
        bytes.extend_from_slice(b"\n");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read("ab", 1), None, "a damaged one says nothing");
    }

    #[test]
    fn several_uploads_may_be_about_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = |ledger: &Ledger| ledger.state.uploads.iter().cloned().collect::<Vec<_>>();
        let pair = |object: &str, id: &str| (object.to_owned(), id.to_owned());
        let mut ledger = open(dir.path()).unwrap();
        for object in ["a", "b"] {
            ledger.upload(object.into(), String::new()).unwrap();
        }
        ledger.upload("a".into(), "1".into()).unwrap();
        ledger.upload_ended("a".into(), String::new()).unwrap();
        drop(ledger);
        let ledger = open(dir.path()).unwrap();
        assert_eq!(uploads(&ledger), [pair("a", "1"), pair("b", "")]);
        drop(ledger);
        // As an earlier version wrote it.
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.path().join("ledger.jsonl"))
            .unwrap();
        file.write_all(b"{\"record\":\"upload_ended\",\"id\":\"1\"}\n").unwrap();
        assert_eq!(uploads(&open(dir.path()).unwrap()), [pair("b", "")]);
    }

    #[test]
    fn damage_and_another_place_set_it_aside() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().ready().unwrap();
        assert!(open(dir.path()).unwrap().state.ready);
        let moved = Identity { prefix: "q", ..WHOSE };
        assert!(!Ledger::open(dir.path(), moved, 8).unwrap().state.ready);
        assert!(dir.path().join("ledger.8.old").exists());
        fs::write(dir.path().join("ledger.jsonl"), "{\"record\":\"nonsense\"}\nx\n").unwrap();
        assert!(!Ledger::open(dir.path(), moved, 9).unwrap().state.ready);
        let replaced = Identity {
            repository: "cd",
            ..moved
        };
        assert!(matches!(
            Ledger::open(dir.path(), replaced, 9),
            Err(LedgerError::OtherRepository { .. })
        ));
    }

    #[test]
    fn what_was_lost_is_sent_again_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::digest::Digest([1; 32]);
        let mut ledger = open(dir.path()).unwrap();
        for (number, object) in [(1, "a"), (2, "b")] {
            let what = What::Segment(SegmentNumber(number));
            ledger.stored(what, item(object)).unwrap();
        }
        ledger.stored(What::Config(config), item("c")).unwrap();
        ledger
            .stored(What::Manifest(SegmentNumber(2), config), item("m"))
            .unwrap();
        assert!(matches!(
            lose(dir.path(), vec!["b".into()]),
            Err(LedgerError::Busy { .. })
        ));
        drop(ledger);
        lose(dir.path(), vec!["b".into(), "c".into(), "unheard of".into()]).unwrap();
        let mut ledger = open(dir.path()).unwrap();
        assert!(ledger.state.publish_again && ledger.state.configs.is_empty());
        assert_eq!(
            ledger.state.segments.keys().copied().collect::<Vec<_>>(),
            [SegmentNumber(1)]
        );
        assert_eq!(ledger.state.lost.get(&SegmentNumber(2)), Some(&item("b")));
        // How far the copy was is still known.
        assert_eq!(ledger.state.manifest, Some((SegmentNumber(2), config)));
        ledger.stored(What::Segment(SegmentNumber(2)), item("b.1")).unwrap();
        ledger
            .stored(What::Manifest(SegmentNumber(2), config), item("m.1"))
            .unwrap();
        assert!(ledger.state.lost.is_empty() && !ledger.state.publish_again);
        let nowhere = dir.path().join("nowhere");
        fs::create_dir(&nowhere).unwrap();
        lose(&nowhere, vec!["a".into()]).unwrap();
        assert_eq!(read_contents(&nowhere).unwrap(), None);
    }

    #[test]
    fn the_summary_is_readable_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_summary(dir.path()).unwrap(), None);
        let summary = Summary {
            transaction: SegmentNumber(5),
            at: 10,
            published_at: 9,
            objects: 6,
            bytes: 1 << 40,
            retirement: None,
            retired_bytes: 0,
            distrusted: Vec::new(),
        };
        open(dir.path()).unwrap().summarise(&summary).unwrap();
        assert_eq!(read_summary(dir.path()).unwrap(), Some(summary));
    }
}
