//! A restore that was cut short goes on where it was: what its destination tells of it.
//!
//! A file in the destination names the state that is being restored, so that a push meanwhile changes nothing, and whether
//! the archive was asked. Which files are there already needs no record: a file has its name only once all of it was
//! verified, and is hashed again before it counts.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use strongroom_borg::SegmentNumber;

use super::error::RestoreError;
use super::{State, make_directory};
use crate::digest::Digest;
use crate::durable;
use crate::manifest::FileEntry;
use crate::target::Target;

/// Name of the file, in the destination; Borg takes no notice of it.
pub const FILE: &str = ".strongroom-restore";
/// It has less.
const FILE_MAX: u64 = 64 * 1024;
const FORMAT: &str = "strongroom-restore-1";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: String,
    /// The bucket, or the directory.
    bucket: String,
    prefix: String,
    /// Unix seconds, by this computer's clock.
    begun: u64,
    state: Option<Chosen>,
    /// The owner agreed that the archive is asked, and it may have been.
    archived: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Chosen {
    transaction: SegmentNumber,
    manifest: String,
}

/// The destination of a restore that is under way. Nobody else restores there while this is held.
#[derive(Debug)]
pub(super) struct Unfinished {
    folder: PathBuf,
    record: Record,
    /// Whether it was begun by another run.
    pub resumed: bool,
    _lock: File,
}

impl Unfinished {
    /// Makes the destination, or takes it over from a run that was cut short.
    pub fn begin(folder: &Path, target: &Target, wanted: Option<SegmentNumber>) -> Result<Self, RestoreError> {
        let io = |source| RestoreError::Io {
            path: folder.into(),
            source,
        };
        make_directory(folder).map_err(io)?;
        let lock = File::open(folder).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RestoreError::Busy { path: folder.into() }),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let not_empty = || RestoreError::NotEmpty { path: folder.into() };
        let path = folder.join(FILE);
        let there = match fs::metadata(&path) {
            Ok(there) if there.len() > FILE_MAX => return Err(not_empty()),
            Ok(_) => Some(fs::read(&path).map_err(io)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let record = match &there {
            Some(text) => {
                let record: Record = serde_json::from_slice(text).map_err(|_| not_empty())?;
                fits(&record, target, wanted).map_err(|what| RestoreError::Another {
                    path: folder.into(),
                    what,
                })?;
                record
            }
            None if fs::read_dir(folder).map_err(io)?.next().is_some() => return Err(not_empty()),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Record {
                    format: FORMAT.into(),
                    bucket: target.place.to_string(),
                    prefix: target.prefix.clone(),
                    begun: since.as_secs(),
                    state: None,
                    archived: false,
                }
            }
        };
        let it = Self {
            folder: folder.into(),
            record,
            resumed: there.is_some(),
            _lock: lock,
        };
        if !it.resumed {
            it.write()?;
        }
        Ok(it)
    }

    /// When it was begun, in Unix seconds, by the clock of the computer that began it.
    pub fn begun(&self) -> u64 {
        self.record.begun
    }

    /// The manifest that was chosen, if one was.
    pub fn manifest(&self) -> Option<String> {
        self.record.state.as_ref().map(|state| state.manifest.clone())
    }

    /// Whether the owner agreed that the archive is asked.
    pub fn is_archived(&self) -> bool {
        self.record.archived
    }

    /// Remembers which state it is.
    pub fn choose(&mut self, state: &State) -> Result<(), RestoreError> {
        self.record.state = Some(Chosen {
            transaction: state.transaction,
            manifest: state.manifest.clone(),
        });
        self.write()
    }

    /// Remembers that the owner agreed.
    pub fn agreed(&mut self) -> Result<(), RestoreError> {
        self.record.archived = true;
        self.write()
    }

    /// The record goes: everything is there.
    pub fn end(self) -> Result<(), RestoreError> {
        let removed = fs::remove_file(self.folder.join(FILE)).and_then(|()| durable::sync_directory(&self.folder));
        removed.map_err(|source| RestoreError::Io {
            path: self.folder.join(FILE),
            source,
        })
    }

    fn write(&self) -> Result<(), RestoreError> {
        let bytes = serde_json::to_vec(&self.record).map_err(io::Error::from);
        let written = bytes.and_then(|bytes| durable::write(&self.folder, FILE, &bytes, 0o600));
        written.map_err(|source| RestoreError::Io {
            path: self.folder.join(FILE),
            source,
        })
    }
}

/// Whether a restore that was begun is the one that is wanted; otherwise what it is.
fn fits(record: &Record, target: &Target, wanted: Option<SegmentNumber>) -> Result<(), String> {
    let (bucket, prefix) = (&record.bucket, &record.prefix);
    if record.format != FORMAT {
        return Err("a restore by another version of this program".into());
    }
    if (bucket, prefix) != (&target.place.to_string(), &target.prefix) {
        return Err(format!("a restore of {prefix} from {bucket}"));
    }
    match &record.state {
        Some(state) if wanted.is_some_and(|wanted| wanted != state.transaction) => {
            Err(format!("a restore of transaction {}", state.transaction))
        }
        _ => Ok(()),
    }
}

/// Whether a file that was restored before is there, and is still what the manifest says. One whose sum nobody knows is
/// taken by its size: it has its name because OpenPGP's integrity was checked, and `borg check` sees the rest.
pub(super) fn is_there(folder: &Path, file: &FileEntry) -> io::Result<bool> {
    let mut found = match File::open(folder.join(&file.path)) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if found.metadata()?.len() != file.size {
        return Ok(false);
    }
    let Some(sum) = file.sha256 else {
        return Ok(true);
    };
    let mut hash = Hash(Sha256::new());
    io::copy(&mut found, &mut hash)?;
    Ok(Digest(hash.0.finalize().into()) == sum)
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(prefix: &str) -> Target {
        Target::in_directory("t".into(), "/media/usb".into(), prefix.into())
    }

    #[test]
    fn one_that_was_cut_short_is_known_again_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("new");
        let mut first = Unfinished::begin(&to, &target("asus"), None).unwrap();
        assert!(!first.resumed && first.manifest().is_none());
        let again = |target: &Target, wanted: Option<u32>| Unfinished::begin(&to, target, wanted.map(SegmentNumber));
        assert!(matches!(again(&target("asus"), None), Err(RestoreError::Busy { .. })));
        let state = State {
            transaction: SegmentNumber(7),
            revision: 0,
            manifest: "manifest/7.json.gpg".into(),
        };
        first.choose(&state).unwrap();
        first.agreed().unwrap();
        drop(first);
        for (target, wanted) in [(target("laptop"), None), (target("asus"), Some(6))] {
            assert!(matches!(again(&target, wanted), Err(RestoreError::Another { .. })));
        }
        let second = again(&target("asus"), Some(7)).unwrap();
        assert!(second.resumed && second.is_archived());
        assert_eq!(second.manifest().as_deref(), Some("manifest/7.json.gpg"));
        second.end().unwrap();
        fs::write(to.join("config"), "x").unwrap();
        assert!(matches!(
            again(&target("asus"), None),
            Err(RestoreError::NotEmpty { .. })
        ));
        fs::write(to.join(FILE), "{}").unwrap();
        assert!(matches!(
            again(&target("asus"), None),
            Err(RestoreError::NotEmpty { .. })
        ));
    }

    #[test]
    fn a_file_counts_only_if_it_is_what_it_should_be() {
        let folder = tempfile::tempdir().unwrap();
        let entry = FileEntry {
            path: "config".into(),
            size: 3,
            sha256: Some(Digest(Sha256::digest(b"abc").into())),
            object: String::new(),
            object_size: 0,
            object_sha256: None,
            object_parts: None,
            object_md5: None,
        };
        let unknown = FileEntry {
            sha256: None,
            ..entry.clone()
        };
        let there = |entry: &FileEntry| is_there(folder.path(), entry).unwrap();
        assert!(!there(&entry));
        for (content, known, by_size) in [("abc", true, true), ("abd", false, true), ("abcd", false, false)] {
            fs::write(folder.path().join("config"), content).unwrap();
            assert_eq!((there(&entry), there(&unknown)), (known, by_size), "{content}");
        }
    }
}
