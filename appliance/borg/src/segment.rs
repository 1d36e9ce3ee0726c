//! One segment file: a log of entries, parsed as a stream in bounded memory.
//!
//! A segment is the magic `BORG_SEG`, then entries: `crc32` (u32, little endian), `size` (u32, the
//! whole entry), `tag` (u8), a 32-byte key (PUT and DELETE), then data (PUT). The CRC covers
//! everything after itself. Source: `LoggedIO` in Borg's `repository.py`, 1.1 to 1.4.

use std::fmt;
use std::io::{self, Read};

/// A segment's number: its file name below `data/<n>/`. Order is numeric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u32);

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// First bytes of every segment.
pub const MAGIC: &[u8; 8] = b"BORG_SEG";
/// A COMMIT entry is always these bytes.
pub const COMMIT: &[u8; 9] = &[0x40, 0xf4, 0x3c, 0x25, 0x09, 0, 0, 0, 0x02];
/// Size of a segment that holds a commit only, in bytes.
pub const COMMIT_SEGMENT_SIZE: u64 = (MAGIC.len() + COMMIT.len()) as u64;
/// Largest entry that Borg writes or reads, header included, in bytes (`MAX_OBJECT_SIZE`).
pub const MAX_ENTRY_SIZE: u32 = 20 * 1024 * 1024;

/// Size of a COMMIT, and of what every entry starts with, in bytes.
pub const HEADER_SIZE: u32 = 9;
/// Size of a DELETE, and of a PUT without its data, in bytes.
pub const KEYED_HEADER_SIZE: u32 = HEADER_SIZE + 32;

/// Tag of a PUT entry.
pub(crate) const PUT: u8 = 0;
/// Tag of a DELETE entry.
pub(crate) const DELETE: u8 = 1;
const COMMIT_TAG: u8 = 2;

/// Bytes read at once: enough to make calls cheap, and few enough to stay in the processor's cache.
const BUFFER_SIZE: usize = 128 * 1024;

/// The name of an object in the repository: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(pub [u8; 32]);

impl ObjectKey {
    /// The key of the repository's manifest, the list of archives.
    pub const MANIFEST: Self = Self([0; 32]);
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Stores an object.
    Put(ObjectKey),
    /// Forgets an object.
    Delete(ObjectKey),
    /// Makes everything before it, back to the previous commit, final.
    Commit,
}

/// One entry whose CRC was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it does.
    pub kind: EntryKind,
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Its size with header, in bytes.
    pub size: u32,
}

/// How a segment breaks the format. Offsets are in bytes from the start of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file does not start with the magic.
    #[error("it does not start with BORG_SEG")]
    Magic,
    /// The file ends inside an entry.
    #[error("it ends inside the entry at byte {offset}")]
    Torn {
        /// Start of the entry.
        offset: u64,
    },
    /// The size in the header is impossible for its tag.
    #[error("the entry at byte {offset} has the impossible size {size}")]
    Size {
        /// Start of the entry.
        offset: u64,
        /// The size found.
        size: u32,
    },
    /// A tag that Borg 1.x does not know.
    #[error("the entry at byte {offset} has the unknown tag {tag}")]
    Tag {
        /// Start of the entry.
        offset: u64,
        /// The tag found.
        tag: u8,
    },
    /// The checksum does not fit.
    #[error("the checksum of the entry at byte {offset} is wrong")]
    Checksum {
        /// Start of the entry.
        offset: u64,
    },
}

/// What every entry starts with. The size fits the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub crc: u32,
    pub size: u32,
    pub tag: u8,
}

impl Header {
    /// Reads a header that was found at `offset`.
    pub fn parse(bytes: [u8; HEADER_SIZE as usize], offset: u64) -> Result<Self, Damage> {
        let [c0, c1, c2, c3, s0, s1, s2, s3, tag] = bytes;
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let plausible = match tag {
            PUT => (KEYED_HEADER_SIZE..=MAX_ENTRY_SIZE).contains(&size),
            DELETE => size == KEYED_HEADER_SIZE,
            COMMIT_TAG => size == HEADER_SIZE,
            _ => return Err(Damage::Tag { offset, tag }),
        };
        if !plausible {
            return Err(Damage::Size { offset, size });
        }
        Ok(Self {
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            size,
            tag,
        })
    }

    /// Whether a key follows.
    pub fn has_key(self) -> bool {
        self.tag != COMMIT_TAG
    }
}

/// Reading failed, or what was read is damaged.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segment breaks the format.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads entries in order, checking each CRC. Holds one buffer of 128 KiB, whatever the entries' size; and one entry's data,
/// at most 20 MiB, where that is wanted.
///
/// Give it an unbuffered reader. After an error it yields nothing more.
pub struct SegmentReader<R> {
    input: R,
    buffer: Box<[u8]>,
    /// Unread part of `buffer`.
    start: usize,
    end: usize,
    /// Position of `start` in the file.
    offset: u64,
    finished: bool,
    /// The last PUT's data, where it is kept.
    data: Option<Vec<u8>>,
}

impl<R: Read> SegmentReader<R> {
    /// Starts at the beginning of a segment and checks the magic.
    ///
    /// # Errors
    /// [`Damage::Magic`] or an I/O error.
    pub fn new(input: R) -> Result<Self, ReadError> {
        Self::over(input).map_err(|(error, _)| error)
    }

    /// As [`SegmentReader::new`]; gives the input back on failure.
    pub(crate) fn over(input: R) -> Result<Self, (ReadError, R)> {
        let buffer = vec![0; BUFFER_SIZE].into_boxed_slice();
        let mut reader = Self {
            input,
            buffer,
            start: 0,
            end: 0,
            offset: 0,
            finished: false,
            data: None,
        };
        match reader.fixed::<8>() {
            Ok(Some(found)) if found == *MAGIC => Ok(reader),
            Ok(_) => Err((Damage::Magic.into(), reader.input)),
            Err(error) => Err((error.into(), reader.input)),
        }
    }

    /// From now on keeps what each PUT stores until the next entry is read.
    pub(crate) fn keep_data(&mut self) {
        self.data = Some(Vec::new());
    }

    /// What the last entry stored, if it was a PUT and its data is kept.
    pub(crate) fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    /// The input, to ask it what it saw.
    pub(crate) fn into_input(self) -> R {
        self.input
    }

    /// Bytes consumed so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.offset
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            self.start = 0;
            self.end = loop {
                match self.input.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
        }
        Ok(self.end - self.start)
    }

    /// The next `N` bytes; `None` when the input ends before them.
    fn fixed<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut out = [0; N];
        let mut have = 0;
        while have < N {
            let take = self.fill()?.min(N - have);
            if take == 0 {
                return Ok(None);
            }
            out[have..have + take].copy_from_slice(&self.buffer[self.start..self.start + take]);
            self.start += take;
            self.offset += take as u64;
            have += take;
        }
        Ok(Some(out))
    }

    fn entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.fill()? == 0 {
            return Ok(None);
        }
        let offset = self.offset;
        let torn = Damage::Torn { offset };
        let bytes: [u8; HEADER_SIZE as usize] = self.fixed()?.ok_or(torn)?;
        let header = Header::parse(bytes, offset)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[4..]);
        let kind = if header.has_key() {
            let key: [u8; 32] = self.fixed()?.ok_or(torn)?;
            crc.update(&key);
            let mut left = header.size - KEYED_HEADER_SIZE;
            if let Some(data) = &mut self.data {
                data.clear();
                // At most the largest entry's.
                data.reserve_exact(left as usize);
            }
            while left > 0 {
                let take = self.fill()?.min(left as usize);
                if take == 0 {
                    return Err(torn.into());
                }
                let piece = &self.buffer[self.start..self.start + take];
                crc.update(piece);
                if let Some(data) = &mut self.data {
                    data.extend_from_slice(piece);
                }
                self.start += take;
                self.offset += take as u64;
                left -= take as u32;
            }
            if header.tag == PUT {
                EntryKind::Put(ObjectKey(key))
            } else {
                EntryKind::Delete(ObjectKey(key))
            }
        } else {
            EntryKind::Commit
        };
        if crc.finalize() != header.crc {
            return Err(Damage::Checksum { offset }.into());
        }
        Ok(Some(Entry {
            kind,
            offset,
            size: header.size,
        }))
    }
}

impl<R: Read> Iterator for SegmentReader<R> {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let next = self.entry().transpose();
        self.finished = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::segment_writer::{Planned, planned, write_segment};

    fn parse(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
        SegmentReader::new(bytes)?.collect()
    }

    #[test]
    fn a_commit_is_the_constant_of_the_format() {
        let bytes = write_segment(&[Planned::Commit]);
        assert_eq!(bytes.len() as u64, COMMIT_SEGMENT_SIZE);
        assert!(bytes.ends_with(COMMIT));
    }

    #[test]
    fn the_magic_is_demanded() {
        assert!(matches!(parse(b""), Err(ReadError::Damage(Damage::Magic))));
        assert!(matches!(parse(b"BORG_SE"), Err(ReadError::Damage(Damage::Magic))));
        assert!(matches!(parse(b"ATTICSEG"), Err(ReadError::Damage(Damage::Magic))));
        assert!(parse(MAGIC).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn round_trip(plan in proptest::collection::vec(planned(), 0..20)) {
            let bytes = write_segment(&plan);
            let entries = parse(&bytes).unwrap();
            let kinds: Vec<_> = entries.iter().map(|e| e.kind).collect();
            let wanted: Vec<_> = plan.iter().map(Planned::kind).collect();
            prop_assert_eq!(kinds, wanted);
            prop_assert_eq!(entries.iter().map(|e| u64::from(e.size)).sum::<u64>() + 8, bytes.len() as u64);
        }

        #[test]
        fn a_torn_end_is_seen_unless_it_falls_between_entries(
            plan in proptest::collection::vec(planned(), 1..8), cut in any::<proptest::sample::Index>(),
        ) {
            let bytes = write_segment(&plan);
            let boundaries: Vec<u64> =
                parse(&bytes).unwrap().iter().map(|e| e.offset).chain([bytes.len() as u64]).collect();
            let cut = 8 + cut.index(bytes.len() - 8);
            let result = parse(&bytes[..cut]);
            if boundaries.contains(&(cut as u64)) {
                prop_assert!(result.is_ok());
            } else {
                let torn = matches!(result, Err(ReadError::Damage(Damage::Torn { .. })));
                prop_assert!(torn);
            }
        }

        #[test]
        fn one_flipped_bit_is_always_seen(
            plan in proptest::collection::vec(planned(), 1..8), at in any::<proptest::sample::Index>(), bit in 0_u32..8,
        ) {
            let mut bytes = write_segment(&plan);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = parse(&[MAGIC.as_slice(), &bytes].concat());
        }
    }
}
