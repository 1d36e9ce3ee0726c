//! Transactions: runs of entries up to a commit, and how much each stored and forgot.
//!
//! A client with an append-only key can still delete logically; the DELETE entries of each
//! transaction show it, and are to be looked at before any compaction.

use crate::error::Error;
use crate::repository::Repository;
use crate::segment::{EntryKind, ObjectKey, SegmentNumber};

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
    /// Bytes stored by PUT entries, headers included.
    pub bytes: u64,
}

impl Repository {
    /// The transactions whose segments lie in `first..=last`, oldest first. Reads and checks all of
    /// those segments' bytes. Entries after the last commit are left out.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Damaged`] for any segment up to the last commit that was asked for.
    pub fn transactions(&self, first: SegmentNumber, last: SegmentNumber) -> Result<Vec<Transaction>, Error> {
        let mut done = Vec::new();
        let mut open: Option<Transaction> = None;
        for segment in self.state(last)?.iter().filter(|segment| segment.number >= first) {
            for entry in self.read_segment(segment)? {
                let entry = entry.map_err(|error| self.explain(segment, error))?;
                let current = open.get_or_insert(Transaction {
                    first: segment.number,
                    last: segment.number,
                    puts: 0,
                    deletes: 0,
                    manifest_deletes: 0,
                    bytes: 0,
                });
                match entry.kind {
                    EntryKind::Put(_) => {
                        current.puts += 1;
                        current.bytes += u64::from(entry.size);
                    }
                    EntryKind::Delete(key) => {
                        current.deletes += 1;
                        current.manifest_deletes += u64::from(key == ObjectKey::MANIFEST);
                    }
                    EntryKind::Commit => {
                        current.last = segment.number;
                        done.extend(open.take());
                    }
                }
            }
        }
        Ok(done)
    }
}
