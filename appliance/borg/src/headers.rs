//! The entries of a segment without their data: seeks over what PUT entries store.
//!
//! Sizes, tags, the file's end, and the checksums of DELETE and COMMIT are checked as strictly as
//! by [`SegmentReader`](crate::SegmentReader); the checksum of a PUT can't be, as its data is not read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::segment::{
    Damage, Entry, EntryKind, HEADER_SIZE, Header, KEYED_HEADER_SIZE, MAGIC, ObjectKey, PUT, ReadError,
};

/// Bytes read at once. Runs of small entries (deletes) need few calls, large ones waste little.
const WINDOW: usize = 4096;

/// Reads entries in order, leaving out data. After an error it yields nothing more.
#[derive(Debug)]
pub struct HeaderReader {
    file: File,
    length: u64,
    window: Box<[u8]>,
    window_at: u64,
    filled: usize,
    offset: u64,
    finished: bool,
}

impl HeaderReader {
    /// Starts at the beginning of a segment and checks the magic.
    ///
    /// # Errors
    /// [`Damage::Magic`] or an I/O error.
    pub fn new(file: File) -> Result<Self, ReadError> {
        let mut reader = Self {
            length: file.metadata()?.len(),
            file,
            window: vec![0; WINDOW].into_boxed_slice(),
            window_at: 0,
            filled: 0,
            offset: 0,
            finished: false,
        };
        if reader.at::<8>(0)? != Some(*MAGIC) {
            return Err(Damage::Magic.into());
        }
        reader.offset = MAGIC.len() as u64;
        Ok(reader)
    }

    /// `N` bytes from `position`; `None` when the file ends before them.
    fn at<const N: usize>(&mut self, position: u64) -> io::Result<Option<[u8; N]>> {
        let inside = |at: u64, filled: usize| {
            let start = usize::try_from(position.checked_sub(at)?).ok()?;
            (start.checked_add(N)? <= filled).then_some(start)
        };
        let start = match inside(self.window_at, self.filled) {
            Some(start) => start,
            None => {
                self.window_at = position;
                self.filled = 0;
                while self.filled < N {
                    match self
                        .file
                        .read_at(&mut self.window[self.filled..], position + self.filled as u64)
                    {
                        Ok(0) => return Ok(None),
                        Ok(more) => self.filled += more,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                0
            }
        };
        let mut out = [0; N];
        out.copy_from_slice(&self.window[start..start + N]);
        Ok(Some(out))
    }

    fn entry(&mut self) -> Result<Option<Entry>, ReadError> {
        let offset = self.offset;
        if offset >= self.length {
            return Ok(None);
        }
        let torn = Damage::Torn { offset };
        let bytes: [u8; HEADER_SIZE as usize] = self.at(offset)?.ok_or(torn)?;
        let header = Header::parse(bytes, offset)?;
        let end = offset + u64::from(header.size);
        if end > self.length {
            return Err(torn.into());
        }
        let checked = |body: &[u8]| {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&bytes[4..]);
            crc.update(body);
            if crc.finalize() == header.crc {
                Ok(())
            } else {
                Err(Damage::Checksum { offset })
            }
        };
        let kind = if header.has_key() {
            let whole: [u8; KEYED_HEADER_SIZE as usize] = self.at(offset)?.ok_or(torn)?;
            let mut key = [0; 32];
            key.copy_from_slice(&whole[HEADER_SIZE as usize..]);
            if header.tag == PUT {
                EntryKind::Put(ObjectKey(key))
            } else {
                checked(&key)?;
                EntryKind::Delete(ObjectKey(key))
            }
        } else {
            checked(&[])?;
            EntryKind::Commit
        };
        self.offset = end;
        Ok(Some(Entry {
            kind,
            offset,
            size: header.size,
        }))
    }
}

impl Iterator for HeaderReader {
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
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::segment::SegmentReader;
    use crate::segment_writer::{planned, write_segment};

    fn headers(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        HeaderReader::new(file)?.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn sees_the_same_entries(plan in proptest::collection::vec(planned(), 0..60), cut in any::<proptest::sample::Index>()) {
            let bytes = write_segment(&plan);
            let full: Result<Vec<_>, _> = SegmentReader::new(bytes.as_slice()).unwrap().collect();
            prop_assert_eq!(headers(&bytes).unwrap(), full.unwrap());
            let cut = &bytes[..cut.index(bytes.len())];
            let full: Result<Vec<_>, _> = SegmentReader::new(cut).and_then(Iterator::collect);
            prop_assert_eq!(headers(cut).is_ok(), full.is_ok());
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = headers(&[MAGIC.as_slice(), &bytes].concat());
        }
    }
}
