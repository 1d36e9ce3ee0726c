//! Transactions: runs of entries up to a commit, and how much each stored and forgot.
//!
//! A client with an append-only key can still delete logically; the DELETE entries of each
//! transaction show it, and are to be looked at before any compaction.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::headers::HeaderReader;
use crate::repository::{Repository, SegmentFile};
use crate::segment::{Entry, EntryKind, ObjectKey, ReadError, SegmentNumber};

/// What one committed transaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Its first segment.
    pub first: SegmentNumber,
    /// The segment that holds its commit.
    pub last: SegmentNumber,
    /// PUT entries, the manifest's included.
    pub puts: u64,
    /// DELETE entries. Replacing an object is a DELETE and a PUT: every transaction deletes the old manifest.
    pub deletes: u64,
    /// How many of the deletes were of the manifest.
    pub manifest_deletes: u64,
    /// How many of the puts were of the manifest. A client's transaction has one; a compaction or
    /// a mere lock has none, or moves the manifest without deleting it.
    pub manifest_puts: u64,
    /// How many deletes were followed at once by a PUT of the same key: Borg's way to replace an
    /// object. The rest of the deletes forgot something.
    pub replaced: u64,
    /// Bytes stored by PUT entries, headers included.
    pub bytes: u64,
}

impl Transaction {
    fn new(first: SegmentNumber) -> Self {
        Self {
            first,
            last: first,
            puts: 0,
            deletes: 0,
            manifest_deletes: 0,
            manifest_puts: 0,
            replaced: 0,
            bytes: 0,
        }
    }

    /// How many objects were forgotten and not replaced.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.deletes - self.replaced
    }

    /// Whether the list of archives was written anew.
    #[must_use]
    pub fn manifest_rewritten(&self) -> bool {
        self.manifest_puts > 0 && (self.manifest_deletes > 0 || self.first == SegmentNumber(0))
    }
}

/// How thoroughly entries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every byte, and every checksum.
    Everything,
    /// Headers only: seeks over what is stored, and so takes the same time for a large backup as
    /// for a small one. Checksums of stored objects are left to [`verify`](crate::verify).
    Headers,
}

/// What is met on the way through a range of segments.
pub(crate) enum Step<'a> {
    /// An entry of a transaction that may not be committed yet.
    Entry(&'a Entry),
    /// The end of a committed transaction.
    Committed(&'a Transaction),
}

impl Repository {
    /// The transactions whose segments lie in `first..=last`, oldest first. Reads and checks all of
    /// those segments' bytes. Entries after the last commit are left out.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Damaged`] for any segment up to the last commit that was asked for.
    pub fn transactions(&self, first: SegmentNumber, last: SegmentNumber) -> Result<Vec<Transaction>, Error> {
        let mut done = Vec::new();
        self.walk(first, last, Depth::Everything, &mut |step| {
            if let Step::Committed(transaction) = step {
                done.push(*transaction);
            }
            ControlFlow::Continue(())
        })?;
        Ok(done)
    }

    /// Goes through `first..=last` in order. One open file and one buffer at a time.
    pub(crate) fn walk(
        &self,
        first: SegmentNumber,
        last: SegmentNumber,
        depth: Depth,
        see: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut open: Option<Transaction> = None;
        let mut deleted: Option<ObjectKey> = None;
        for segment in self.state(last)?.iter().filter(|segment| segment.number >= first) {
            for entry in self.entries(segment, depth)? {
                let entry = entry.map_err(|error| self.explain(segment, error))?;
                if see(Step::Entry(&entry)).is_break() {
                    return Ok(());
                }
                let current = open.get_or_insert(Transaction::new(segment.number));
                match entry.kind {
                    EntryKind::Put(key) => {
                        current.puts += 1;
                        current.bytes += u64::from(entry.size);
                        current.manifest_puts += u64::from(key == ObjectKey::MANIFEST);
                        current.replaced += u64::from(deleted.take() == Some(key));
                    }
                    EntryKind::Delete(key) => {
                        current.deletes += 1;
                        current.manifest_deletes += u64::from(key == ObjectKey::MANIFEST);
                        deleted = Some(key);
                    }
                    EntryKind::Commit => {
                        current.last = segment.number;
                        deleted = None;
                        if let Some(done) = open.take()
                            && see(Step::Committed(&done)).is_break()
                        {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn entries(
        &self,
        segment: &SegmentFile,
        depth: Depth,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, ReadError>>>, Error> {
        Ok(match depth {
            Depth::Everything => Box::new(self.read_segment(segment)?),
            Depth::Headers => {
                Box::new(HeaderReader::new(self.open_segment(segment)?).map_err(|error| self.explain(segment, error))?)
            }
        })
    }
}
