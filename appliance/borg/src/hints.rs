//! Borg's `hints.T`: how much of each segment is in use at transaction T, and so how much a compaction would free.
//!
//! A map: `version`, `segments` (objects in use by segment), `compact` (bytes that can be freed by segment), and others.
//! Source: `Repository.write_index` in Borg's `repository.py`, 1.1 to 1.4. It is a hint: Borg rebuilds it at will.

use std::collections::BTreeMap;
use std::io::BufReader;

use crate::error::Error;
use crate::msgpack::{Malformed, Token, Unpacker};
use crate::repository::Repository;
use crate::segment::SegmentNumber;

/// Most segments that are believed: a hostile file names no more than a repository could have here.
const SEGMENTS_MAX: u32 = 4_000_000;

impl Repository {
    /// About how many bytes `borg compact --threshold` would free in the state `transaction`, by Borg's own account;
    /// `None` when there are no hints of exactly that transaction, or they can't be understood.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DuplicateSegment`].
    pub fn freeable(&self, transaction: SegmentNumber, threshold_percent: u64) -> Result<Option<u64>, Error> {
        let path = self.path().join(format!("hints.{transaction}"));
        let file = match crate::file::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        let unused = match unused(BufReader::new(file)) {
            Ok(Some(unused)) => unused,
            Err(Malformed::Io(error)) => return Err(Error::io(path)(error)),
            _ => return Ok(None),
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
}

/// The map `compact`.
fn unused(input: impl std::io::Read) -> Result<Option<BTreeMap<u64, u64>>, Malformed> {
    let mut unpacker = Unpacker::new(input);
    let mut field = Vec::new();
    for _ in 0..unpacker.map()? {
        unpacker.bytes(32, &mut field)?;
        if field != b"compact" {
            unpacker.skip()?;
            continue;
        }
        let pairs = unpacker.map()?;
        if pairs > SEGMENTS_MAX {
            return Err(Malformed::Expected("fewer segments"));
        }
        let mut unused = BTreeMap::new();
        for _ in 0..pairs {
            let Token::Unsigned(segment) = unpacker.token()? else {
                return Err(Malformed::Expected("the number of a segment"));
            };
            match unpacker.token()? {
                Token::Unsigned(bytes) => drop(unused.insert(segment, bytes)),
                // Borg's own sums may come out below zero after a repair.
                Token::Other => {}
                _ => return Err(Malformed::Expected("a size")),
            }
        }
        return Ok(Some(unused));
    }
    Ok(None)
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
        assert_eq!(unused(&*bytes).unwrap(), Some(BTreeMap::from([(0, 300), (9, 17)])));
        for cut in 0..bytes.len() - 3 {
            assert!(unused(&bytes[..cut]).is_err(), "{cut}");
        }
        assert_eq!(unused(&[0x80][..]).unwrap(), None);
    }
}
