//! Borg's `hints.T`: what it keeps about transaction T beside the index. Here matter how much of each segment is in use,
//! and so how much a compaction would free, and the use of the storage quota.
//!
//! A map of MessagePack: `version` 2, `segments` (objects in use by segment), `compact` (bytes that can be freed by
//! segment), `storage_quota_use`, `shadow_index`. Source: `Repository.write_index` in Borg's `repository.py`, 1.1 to 1.4.
//! What counts against the quota is each object that was stored, with 41 bytes of header; deleting gives nothing back
//! before a compaction. Borg replaces its hints after every commit, and rebuilds them at will.

use std::collections::BTreeMap;
use std::io::{self, BufReader};

use crate::error::Error;
use crate::msgpack::{Malformed, Token, Unpacker};
use crate::repository::Repository;
use crate::segment::SegmentNumber;

/// Most segments that are believed: a hostile file names no more than a repository could have here.
const SEGMENTS_MAX: u32 = 4_000_000;
/// Longest name of a hint that is looked at.
const NAME_MAX: usize = 32;

impl Repository {
    /// About how many bytes `borg compact --threshold` would free in the state `transaction`, by Borg's own account;
    /// `None` when there are no hints of exactly that transaction, or they can't be understood.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DuplicateSegment`].
    pub fn freeable(&self, transaction: SegmentNumber, threshold_percent: u64) -> Result<Option<u64>, Error> {
        let Some(unused) = self.hint(transaction, unused)? else {
            return Ok(None);
        };
        let mut sum = 0_u64;
        for segment in self.state(transaction)? {
            let free = unused.get(&u64::from(segment.number.0)).copied().unwrap_or_default();
            let free = free.min(segment.size);
            if u128::from(free) * 100 > u128::from(segment.size) * u128::from(threshold_percent) {
                sum = sum.saturating_add(free);
            }
        }
        Ok(Some(sum))
    }

    /// How many bytes count against Borg's storage quota as of `transaction`; `None` where Borg left no hints, or none
    /// that say.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn quota_use(&self, transaction: SegmentNumber) -> Result<Option<u64>, Error> {
        self.hint(transaction, quota_use)
    }

    /// What `read` finds in the hints of exactly that transaction.
    fn hint<T>(
        &self,
        transaction: SegmentNumber,
        read: impl FnOnce(Unpacker<BufReader<std::fs::File>>) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, Error> {
        let path = self.path().join(format!("hints.{transaction}"));
        let file = match crate::file::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        match read(Unpacker::new(BufReader::new(file))) {
            Err(Malformed::Io(error)) => Err(Error::io(path)(error)),
            Err(_) => Ok(None),
            Ok(found) => Ok(found),
        }
    }
}

/// The map `compact`.
fn unused<R: io::Read>(mut hints: Unpacker<R>) -> Result<Option<BTreeMap<u64, u64>>, Malformed> {
    if !find(&mut hints, b"compact")? {
        return Ok(None);
    }
    let pairs = hints.map()?;
    if pairs > SEGMENTS_MAX {
        return Err(Malformed::Expected("fewer segments"));
    }
    let mut unused = BTreeMap::new();
    for _ in 0..pairs {
        let Token::Unsigned(segment) = hints.token()? else {
            return Err(Malformed::Expected("the number of a segment"));
        };
        match hints.token()? {
            Token::Unsigned(bytes) => drop(unused.insert(segment, bytes)),
            // Borg's own sums may come out below zero after a repair.
            Token::Other => {}
            _ => return Err(Malformed::Expected("a size")),
        }
    }
    Ok(Some(unused))
}

fn quota_use<R: io::Read>(mut hints: Unpacker<R>) -> Result<Option<u64>, Malformed> {
    if !find(&mut hints, b"storage_quota_use")? {
        return Ok(None);
    }
    Ok(match hints.token()? {
        Token::Unsigned(bytes) => Some(bytes),
        _ => None,
    })
}

/// Goes on to the value of that name; false when there is none.
fn find<R: io::Read>(hints: &mut Unpacker<R>, wanted: &[u8]) -> Result<bool, Malformed> {
    let mut name = Vec::new();
    for _ in 0..hints.map()? {
        hints.bytes(NAME_MAX, &mut name)?;
        if name == wanted {
            return Ok(true);
        }
        hints.skip()?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_found_among_others() {
        // {"version": 2, "segments": {0: 5}, "compact": {0: 300, 7: -1, 9: 17}, "x": 1}
        let bytes = [
            &[0x84, 0xa7][..],
            b"version",
            &[2, 0xa8],
            b"segments",
            &[0x81, 0, 5, 0xa7],
            b"compact",
            &[0x83, 0, 0xcd, 1, 44, 7, 0xff, 9, 17, 0xa1, b'x', 1],
        ]
        .concat();
        assert_eq!(
            unused(Unpacker::new(&*bytes)).unwrap(),
            Some(BTreeMap::from([(0, 300), (9, 17)]))
        );
        for cut in 0..bytes.len() - 3 {
            assert!(unused(Unpacker::new(&bytes[..cut])).is_err(), "{cut}");
        }
        assert_eq!(unused(Unpacker::new(&[0x80][..])).unwrap(), None);
    }

    fn read(bytes: &[u8]) -> Result<Option<u64>, Malformed> {
        quota_use(Unpacker::new(bytes))
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
