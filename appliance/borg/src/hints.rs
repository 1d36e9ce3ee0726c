//! Borg's `hints.T`: what it keeps about transaction T beside the index, of which only the use of the storage quota matters
//! here.
//!
//! A map of MessagePack: `version` 2, `segments`, `compact`, `storage_quota_use`, `shadow_index` (`repository.py`,
//! `write_index`, 1.1 to 1.4). What counts against the quota is each object that was stored, with 41 bytes of header;
//! deleting gives nothing back before a compaction.

use std::io::{self, BufReader};

use crate::error::Error;
use crate::msgpack::{Malformed, Token, Unpacker};
use crate::repository::Repository;
use crate::segment::SegmentNumber;

/// Longest name of a hint that is looked at.
const NAME_MAX: usize = 32;

impl Repository {
    /// How many bytes count against Borg's storage quota as of `transaction`; `None` where Borg left no hints, or none
    /// that say: it replaces them after every commit and rebuilds them when they are missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn quota_use(&self, transaction: SegmentNumber) -> Result<Option<u64>, Error> {
        let path = self.path().join(format!("hints.{transaction}"));
        let file = match crate::file::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        match find(Unpacker::new(BufReader::new(file))) {
            Err(Malformed::Io(error)) => Err(Error::io(path)(error)),
            Err(_) => Ok(None),
            Ok(bytes) => Ok(bytes),
        }
    }
}

fn find<R: io::Read>(mut hints: Unpacker<R>) -> Result<Option<u64>, Malformed> {
    let mut name = Vec::new();
    for _ in 0..hints.map()? {
        hints.bytes(NAME_MAX, &mut name)?;
        if name == b"storage_quota_use" {
            return Ok(match hints.token()? {
                Token::Unsigned(bytes) => Some(bytes),
                _ => None,
            });
        }
        hints.skip()?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<u64>, Malformed> {
        find(Unpacker::new(bytes))
    }

    #[test]
    fn the_use_is_found_among_other_hints_or_not_at_all() {
        let name = b"\xb1storage_quota_use";
        // {"version": 2, "segments": {0: 1}, "storage_quota_use": 300}
        let mut hints = b"\x83\xa7version\x02\xa8segments\x81\x00\x01".to_vec();
        hints.extend(name);
        hints.extend([0xcd, 1, 44]);
        assert_eq!(read(&hints).unwrap(), Some(300));
        for cut in 0..hints.len() {
            assert!(read(&hints[..cut]).is_err(), "{cut}");
        }
        assert_eq!(read(b"\x81\xa7version\x01").unwrap(), None);
        let mut negative = b"\x81".to_vec();
        negative.extend(name);
        negative.push(0xff);
        assert_eq!(read(&negative).unwrap(), None);
        assert!(read(b"hints").is_err());
    }
}
