//! What a client did between two committed states, in bounded memory and without its key.
//!
//! Reads headers; never the data, never an object's content. What it means is for [`judgement`](crate::judgement).

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;

use crate::error::Error;
use crate::index::Index;
use crate::repository::Repository;
use crate::segment::{EntryKind, ObjectKey, SegmentNumber};
use crate::transaction::{Depth, Step, Transaction};

/// How many forgotten keys are remembered, to see which come back. About 5 MB at most.
pub const REMEMBERED_KEYS_MAX: usize = 1 << 18;

/// The sum of all transactions in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// The last commit in the range, if there is one: the next audit starts after it.
    pub until: Option<SegmentNumber>,
    /// How many transactions.
    pub transactions: u64,
    /// How many of them rewrote the list of archives.
    pub manifest_rewrites: u64,
    /// PUT entries, the manifest's left out.
    pub puts: u64,
    /// Bytes stored by PUT entries, headers and manifests included.
    pub bytes: u64,
    /// Objects that were replaced, the manifest left out.
    pub replaced: u64,
    /// Objects that were deleted and not replaced at once, the manifest left out.
    pub deleted: u64,
    /// How many of those were stored again later in the range. At most [`REMEMBERED_KEYS_MAX`]
    /// deleted keys are remembered at a time: with more, this can be too small.
    pub returned: u64,
    /// How many of the deletes came in transactions that left the list of archives alone. Borg's
    /// clients never do that; only a compaction does, and whoever wants to make archives unreadable.
    pub deleted_unlisted: u64,
    /// Whether the manifest itself was deleted and not written again.
    pub manifest_lost: bool,
    /// Live objects at `until`, the manifest included, as Borg's index counts them; `None` when
    /// there is no index of exactly that transaction.
    pub objects_after: Option<u64>,
}

impl Audit {
    /// Objects that were there before, or came, and are gone at the end.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.deleted.saturating_sub(self.returned)
    }

    /// Objects that came: stored, and not in the place of another.
    #[must_use]
    pub fn gained(&self) -> u64 {
        self.puts.saturating_sub(self.replaced).saturating_sub(self.returned)
    }

    /// Live objects before the range.
    #[must_use]
    pub fn objects_before(&self) -> Option<u64> {
        let after = self.objects_after?;
        Some(after.saturating_add(self.lost()).saturating_sub(self.gained()))
    }

    fn add(&mut self, transaction: &Transaction) {
        self.until = Some(transaction.last);
        self.transactions += 1;
        self.manifest_rewrites += u64::from(transaction.manifest_rewritten());
        self.puts += transaction.puts - transaction.manifest_puts;
        self.bytes += transaction.bytes;
        let manifests_replaced = transaction.manifest_deletes.min(transaction.manifest_puts);
        let deleted = transaction
            .forgotten()
            .saturating_sub(transaction.manifest_deletes - manifests_replaced);
        self.replaced += transaction.replaced.saturating_sub(manifests_replaced);
        self.deleted += deleted;
        if !transaction.manifest_rewritten() {
            self.deleted_unlisted += deleted;
        }
    }
}

/// Keys that were deleted and haven't come back, as fingerprints under a secret: a client can't
/// choose keys that are taken for one another.
struct Gone {
    secret: RandomState,
    prints: HashSet<u64>,
}

impl Gone {
    fn deleted(&mut self, key: &ObjectKey) {
        if self.prints.len() < REMEMBERED_KEYS_MAX {
            self.prints.insert(self.secret.hash_one(key));
        }
    }

    fn stored(&mut self, key: &ObjectKey) -> bool {
        !self.prints.is_empty() && self.prints.remove(&self.secret.hash_one(key))
    }
}

impl Repository {
    /// Sums up the committed transactions in the segments after `after` (all, for `None`) up to
    /// `to`, and shows each to `each`, oldest first. `after` should be the last segment of a transaction.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Damaged`] for any segment of the range.
    pub fn audit(
        &self,
        after: Option<SegmentNumber>,
        to: SegmentNumber,
        depth: Depth,
        each: &mut dyn FnMut(&Transaction),
    ) -> Result<Audit, Error> {
        let first = match after {
            None => SegmentNumber(0),
            Some(SegmentNumber(number)) => match number.checked_add(1) {
                Some(next) => SegmentNumber(next),
                None => return Ok(Audit::default()),
            },
        };
        let mut audit = Audit::default();
        let mut gone = Gone {
            secret: RandomState::new(),
            prints: HashSet::new(),
        };
        // A delete counts as one once it is clear that the same key isn't stored right after it.
        let mut pending: Option<ObjectKey> = None;
        let mut returned = 0;
        let mut manifest_lost = false;
        self.walk(first, to, depth, &mut |step| {
            match step {
                Step::Committed(transaction) => {
                    each(transaction);
                    audit.add(transaction);
                    // What follows the last commit never happened.
                    audit.returned = returned;
                    audit.manifest_lost = manifest_lost;
                }
                Step::Entry(entry) => {
                    let before = pending.take();
                    let stored = match entry.kind {
                        EntryKind::Put(key) => Some(key),
                        _ => None,
                    };
                    if let Some(key) = before.filter(|key| stored != Some(*key)) {
                        gone.deleted(&key);
                    }
                    match entry.kind {
                        EntryKind::Put(ObjectKey::MANIFEST) => manifest_lost = false,
                        EntryKind::Delete(ObjectKey::MANIFEST) => manifest_lost = true,
                        EntryKind::Put(key) if before != Some(key) => returned += u64::from(gone.stored(&key)),
                        EntryKind::Delete(key) => pending = Some(key),
                        EntryKind::Put(_) | EntryKind::Commit => {}
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(until) = audit.until {
            audit.objects_after = Index::open(self, until)?.map(|index| index.objects().into());
        }
        Ok(audit)
    }
}
