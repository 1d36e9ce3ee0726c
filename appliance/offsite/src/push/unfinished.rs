//! What it takes to go on with an upload in parts that was cut short: to make the same message again, to the byte.
//!
//! Parts belong to one message, which has one session key and one stream of ciphertext. So the seal of a message that goes
//! in parts is written down before its first part goes out; everything else is made again from the segment. Whoever reads
//! the seal can read that one object, whose content lies in the repository on the same machine; nothing else is opened by
//! it. It is in a file of its own, not in the ledger, which keeps what was in it: for the push alone to read, overwritten
//! and removed as soon as the object is complete or given up.
//!
//! A seal must never make two different messages. It is used again only for the segment that it was made for, unchanged in
//! size and time, and to the same certificates; and the first part that turns out to be another ends it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use strongroom_borg::SegmentNumber;
use zeroize::Zeroizing;

use crate::digest::Sha256Sum;
use crate::durable;
use crate::ledger::LedgerError;
use crate::openpgp::Seal;

/// What an upload is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub segment: SegmentNumber,
    /// The segment's size in bytes.
    pub size: u64,
    /// The segment's time of change, in nanoseconds since 1970.
    pub modified: u64,
    /// SHA-256 of the certificates that it is encrypted to.
    pub recipients: Sha256Sum,
    pub object: String,
    /// The service's name for the upload.
    pub id: String,
}

/// An upload that was begun.
#[derive(Clone)]
pub(super) struct Begun {
    pub facts: Facts,
    pub seal: Seal,
}

/// The uploads that were begun and not ended, in a folder beside the ledger.
pub(super) struct Unfinished {
    directory: PathBuf,
    begun: Mutex<BTreeMap<SegmentNumber, Begun>>,
}

fn name(segment: SegmentNumber) -> String {
    format!("{segment}.seal")
}

impl Unfinished {
    /// Reads what an earlier push left. What is of no use is removed.
    pub fn open(ledger: &Path) -> Result<Self, LedgerError> {
        let directory = ledger.join("unfinished");
        let it = Self {
            directory,
            begun: Mutex::default(),
        };
        let io = |source| it.io(source);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&it.directory)
            .map_err(io)?;
        for entry in fs::read_dir(&it.directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let bytes = fs::read(&path).map(Zeroizing::new).map_err(io)?;
            match parse(&bytes).filter(|begun| path.ends_with(name(begun.facts.segment))) {
                Some(begun) => {
                    it.all().insert(begun.facts.segment, begun);
                }
                None => wipe(&path).map_err(io)?,
            }
        }
        Ok(it)
    }

    fn io(&self, source: io::Error) -> LedgerError {
        LedgerError::Io {
            path: self.directory.clone(),
            source,
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SegmentNumber, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, segment: SegmentNumber) -> Option<Begun> {
        self.all().get(&segment).cloned()
    }

    /// Whether it can be gone on with this upload.
    pub fn holds(&self, object: &str, id: &str) -> bool {
        self.all()
            .values()
            .any(|begun| begun.facts.object == object && begun.facts.id == id)
    }

    /// Writes it down, before the first part goes out.
    pub fn keep(&self, begun: Begun) -> Result<(), LedgerError> {
        let segment = begun.facts.segment;
        let mut bytes = Zeroizing::new(serde_json::to_vec(&begun.facts).map_err(|error| self.io(error.into()))?);
        bytes.push(b'\n');
        // Room for all of it at once, so that no copy is left in memory.
        let seal = begun.seal.to_secret();
        let mut all = Zeroizing::new(Vec::with_capacity(bytes.len() + seal.len()));
        all.extend_from_slice(&bytes);
        all.extend_from_slice(&seal);
        durable::write(&self.directory, &name(segment), &all, 0o600).map_err(|source| self.io(source))?;
        self.all().insert(segment, begun);
        Ok(())
    }

    /// Wipes the seals of all that are none of these.
    pub fn retain(&self, mut fits: impl FnMut(&Begun) -> bool) -> Result<(), LedgerError> {
        let gone: Vec<SegmentNumber> = {
            let all = self.all();
            all.values()
                .filter(|begun| !fits(begun))
                .map(|begun| begun.facts.segment)
                .collect()
        };
        gone.into_iter().try_for_each(|segment| self.forget(segment))
    }

    /// Wipes a seal.
    pub fn forget(&self, segment: SegmentNumber) -> Result<(), LedgerError> {
        self.all().remove(&segment);
        wipe(&self.directory.join(name(segment))).map_err(|source| self.io(source))
    }
}

fn parse(bytes: &[u8]) -> Option<Begun> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (facts, seal) = bytes.split_at_checked(end)?;
    Some(Begun {
        facts: serde_json::from_slice(facts).ok()?,
        seal: Seal::from_secret(seal.get(1..)?)?,
    })
}

/// Overwrites and removes a file; one that is gone is fine. A disk may keep what was overwritten all the same.
fn wipe(path: &Path) -> io::Result<()> {
    let overwrite = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        file.write_all(&vec![0; length])?;
        file.sync_data()?;
        fs::remove_file(path)
    };
    match overwrite() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::digest::Digest;
    use crate::openpgp::{Mode, Recipients, generate};

    fn begun(segment: u32) -> Begun {
        let key = generate::recipient("x", &Zeroizing::new("a passphrase".into()), true).unwrap();
        let recipients = Recipients::parse(&[key.certificate], None).unwrap();
        Begun {
            facts: Facts {
                segment: SegmentNumber(segment),
                size: 5,
                modified: 6,
                recipients: Digest([1; 32]),
                object: format!("data/0/{segment}.gpg"),
                id: "an id".into(),
            },
            seal: recipients.seal(Mode::Ocb).unwrap(),
        }
    }

    #[test]
    fn what_was_begun_is_found_again_and_wiped() {
        let ledger = tempfile::tempdir().unwrap();
        let folder = ledger.path().join("unfinished");
        let unfinished = Unfinished::open(ledger.path()).unwrap();
        let first = begun(1);
        unfinished.keep(first.clone()).unwrap();
        unfinished.keep(begun(2)).unwrap();
        let file = folder.join("1.seal");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        // Torn, misnamed, and nonsense.
        let whole = fs::read(&file).unwrap();
        fs::write(folder.join("3.seal"), &whole).unwrap();
        fs::write(folder.join("4.seal.new"), &whole[..whole.len() / 2]).unwrap();
        fs::write(folder.join("5.seal"), b"{}\n").unwrap();
        let unfinished = Unfinished::open(ledger.path()).unwrap();
        let again = unfinished.get(SegmentNumber(1)).unwrap();
        assert_eq!(again.facts, first.facts);
        assert_eq!(again.seal.seal(b"content"), first.seal.seal(b"content"));
        assert!(unfinished.holds("data/0/2.gpg", "an id") && !unfinished.holds("data/0/3.gpg", "an id"));
        unfinished
            .retain(|begun| begun.facts.segment == SegmentNumber(2))
            .unwrap();
        assert!(unfinished.get(SegmentNumber(1)).is_none());
        let left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["2.seal"]);
        unfinished.forget(SegmentNumber(2)).unwrap();
        unfinished.forget(SegmentNumber(2)).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
