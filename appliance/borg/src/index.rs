//! Borg's `index.T`: which segment and offset holds each live object of transaction T.
//!
//! A hash table on disk: `BORG_IDX`, entries and buckets (i32 each), sizes of key and value (i8
//! each), then buckets of 32 bytes of key, segment and offset (u32 each), all little endian; a
//! segment of `0xffffffff` marks a bucket as empty, `0xfffffffe` as deleted. A key's place is its
//! first four bytes modulo the number of buckets, then the next ones. Source: `_hashindex.c`, 1.1 to 1.4.
//!
//! It is a hint: whoever looks something up has to check what lies there. Borg rebuilds it at will.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::error::Error;
use crate::repository::Repository;
use crate::segment::{ObjectKey, SegmentNumber};

const MAGIC: &[u8; 8] = b"BORG_IDX";
const HEADER: u64 = 18;
const BUCKET: usize = 40;
const EMPTY: u32 = 0xffff_ffff;
const DELETED: u32 = 0xffff_fffe;

/// Where a live object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: SegmentNumber,
    /// Start of its PUT entry, in bytes from the start of the file.
    pub offset: u32,
}

/// An open `index.T`.
#[derive(Debug)]
pub struct Index {
    file: File,
    objects: u32,
    buckets: u32,
}

impl Index {
    /// Opens the index of `transaction`; `None` when there is none, or none that is whole: Borg
    /// replaces it after every commit and rebuilds it when it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(repository: &Repository, transaction: SegmentNumber) -> Result<Option<Self>, Error> {
        let path = repository.path().join(format!("index.{transaction}"));
        let file = match crate::file::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        let length = file.metadata().map_err(Error::io(&path))?.len();
        let mut header = [0; HEADER as usize];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        }
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::try_from(i32::from_le_bytes(bytes)).ok()
        };
        let (Some(objects), Some(buckets)) = (number(8), number(12)) else {
            return Ok(None);
        };
        let whole = header.starts_with(MAGIC)
            && header[16..] == [32, 8]
            && buckets > 0
            && objects <= buckets
            && length == HEADER + u64::from(buckets) * BUCKET as u64;
        Ok(whole.then_some(Self { file, objects, buckets }))
    }

    /// How many live objects there are, the manifest included.
    #[must_use]
    pub fn objects(&self) -> u32 {
        self.objects
    }

    /// Where `key` lies, if it is live.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn find(&self, key: &ObjectKey) -> io::Result<Option<Place>> {
        let [a, b, c, d, ..] = key.0;
        let start = u32::from_le_bytes([a, b, c, d]) % self.buckets;
        let mut bucket = [0; BUCKET];
        for step in 0..self.buckets {
            let number = (u64::from(start) + u64::from(step)) % u64::from(self.buckets);
            self.file.read_exact_at(&mut bucket, HEADER + number * BUCKET as u64)?;
            match content(&bucket) {
                (_, place) if place.segment.0 == EMPTY => return Ok(None),
                (_, place) if place.segment.0 == DELETED => {}
                (found, place) if found == *key => return Ok(Some(place)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// All live objects, in no order, read in one sequential pass.
    ///
    /// # Errors
    /// Each item: the operating system refused.
    pub fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<(ObjectKey, Place)>>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(HEADER))?;
        let mut input = BufReader::with_capacity(64 * 1024, file);
        let mut left = self.buckets;
        Ok(std::iter::from_fn(move || {
            let mut bucket = [0; BUCKET];
            while left > 0 {
                left -= 1;
                if let Err(error) = input.read_exact(&mut bucket) {
                    left = 0;
                    return Some(Err(error));
                }
                let (key, place) = content(&bucket);
                if place.segment.0 < DELETED {
                    return Some(Ok((key, place)));
                }
            }
            None
        }))
    }
}

fn content(bucket: &[u8; BUCKET]) -> (ObjectKey, Place) {
    let [key @ .., s0, s1, s2, s3, o0, o1, o2, o3] = *bucket;
    (
        ObjectKey(key),
        Place {
            segment: SegmentNumber(u32::from_le_bytes([s0, s1, s2, s3])),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
        },
    )
}
