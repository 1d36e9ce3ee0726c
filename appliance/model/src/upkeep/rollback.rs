//! What a rollback would undo, what stands against it, and which segments it moves. Pure.

use super::{Obstacle, Surroundings, common};
use crate::name::ClientName;
use crate::watch::{Floor, TransactionNote};
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Which transactions a rollback took out: the name of the folder in which it keeps them, such as `53-77`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptRange {
    /// The transaction that was gone back to.
    pub to: u32,
    /// The highest segment that there ever was.
    pub highest: u32,
}

impl KeptRange {
    /// Reads a folder's name; `None` for any other text.
    pub fn new(name: &str) -> Option<Self> {
        let (to, highest) = name.split_once('-')?;
        let range = Self {
            to: to.parse().ok()?,
            highest: highest.parse().ok()?,
        };
        (range.to_string() == name).then_some(range)
    }
}

impl fmt::Display for KeptRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.to, self.highest)
    }
}

/// What a rollback kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which.
    pub range: KeptRange,
    /// Size of the files in it, in bytes.
    pub bytes: u64,
    /// When the rollback was, Unix seconds; none where that can't be told.
    pub at: Option<u64>,
}

/// What stands against any rollback of this client now.
pub fn obstacles(around: &Surroundings<'_>) -> Vec<Obstacle> {
    common(around)
}

/// What stands against this one. `notes` are the transactions that are remembered.
pub fn may_go_back(
    name: &ClientName,
    around: &Surroundings<'_>,
    notes: &[TransactionNote],
    to: u32,
) -> Result<(), Obstacle> {
    if let Some(first) = obstacles(around).into_iter().next() {
        return Err(first);
    }
    let last = around.transaction.ok_or(Obstacle::NoBackup)?;
    if to >= last {
        return Err(Obstacle::NothingAfter(to));
    }
    if !notes.iter().any(|note| note.last == to) {
        return Err(Obstacle::NoTransaction(to, name.clone()));
    }
    match around.record.floor {
        Floor::Unknown => Err(Obstacle::Behind),
        Floor::At(floor) if to < floor => Err(Obstacle::BelowFloor {
            to,
            floor,
            why: if around
                .record
                .compacted
                .is_some_and(|compacted| compacted.transaction == floor)
            {
                "a compaction since then freed what it needs"
            } else {
                "segments that it needs may be missing"
            },
        }),
        Floor::None | Floor::At(_) => Ok(()),
    }
}

/// What it would undo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Transactions that go.
    pub transactions: u64,
    /// Objects that were stored since, and go.
    pub stored: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Objects that were deleted since, and return.
    pub deleted: u64,
    /// Archives that return; as far as their names are known.
    pub returns: Vec<String>,
    /// Archives that go; as far as their names are known.
    pub goes: Vec<String>,
    /// Whether archives can be told at all, and all of them were.
    pub complete: bool,
}

/// What going back to `to` undoes. The notes may be in any order.
pub fn effect(notes: &[TransactionNote], to: u32) -> Effect {
    let mut undone: Vec<&TransactionNote> = notes.iter().filter(|note| note.last > to).collect();
    undone.sort_by_key(|note| note.last);
    let mut effect = Effect {
        complete: true,
        ..Effect::default()
    };
    let (mut came, mut went) = (BTreeSet::new(), BTreeSet::new());
    for note in undone {
        effect.transactions += 1;
        effect.stored = effect.stored.saturating_add(note.puts);
        effect.bytes = effect.bytes.saturating_add(note.bytes);
        effect.deleted = effect.deleted.saturating_add(note.deletes);
        effect.complete &= note
            .archives
            .is_some_and(|(more, fewer)| (more as usize, fewer as usize) == (note.came.len(), note.went.len()));
        for name in &note.went {
            // What came and went since is of no concern.
            if !came.remove(name) {
                went.insert(name.clone());
            }
        }
        for name in &note.came {
            // One that was deleted and made anew under its name is both.
            came.insert(name.clone());
        }
    }
    effect.returns = went.into_iter().collect();
    effect.goes = came.into_iter().collect();
    effect
}

/// Which segments are moved away, in the order in which that is done: from the top, so that what is left is a repository
/// at every moment. `highest` bounds them: what lies above is the rollback's own.
pub fn moved(present: impl IntoIterator<Item = u32>, to: u32, highest: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = present
        .into_iter()
        .filter(|number| *number > to && *number <= highest)
        .collect();
    numbers.sort_unstable_by_key(|number| core::cmp::Reverse(*number));
    numbers
}

/// Number of the segment that ends the rollback: it holds a commit only. Borg goes on above it, and so never gives a
/// number twice. `None`: there is no number left.
pub fn sealing(highest: u32) -> Option<u32> {
    // Borg's index marks empty places with the two highest numbers.
    highest.checked_add(1).filter(|number| *number < u32::MAX - 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{Compacted, Record};
    use alloc::vec;
    use proptest::prelude::*;

    fn note(last: u32, came: &[&str], went: &[&str]) -> TransactionNote {
        let names = |names: &[&str]| names.iter().map(|name| String::from(*name)).collect::<Vec<_>>();
        TransactionNote {
            last,
            puts: 10,
            deletes: 1,
            bytes: 100,
            archives: Some((came.len() as u32, went.len() as u32)),
            came: names(came),
            went: names(went),
            ..TransactionNote::default()
        }
    }

    #[test]
    fn what_returns_and_what_goes() {
        let notes = [
            note(9, &["a"], &[]),
            note(13, &["b"], &[]),
            note(17, &["c"], &["a"]),
            note(21, &[], &["b", "c"]),
            note(25, &["d"], &[]),
        ];
        let effect = effect(&notes, 13);
        assert_eq!(
            (effect.transactions, effect.stored, effect.deleted, effect.bytes),
            (3, 30, 3, 300)
        );
        assert_eq!(
            (&effect.returns[..], &effect.goes[..]),
            (&["a".into(), "b".into()][..], &["d".into()][..])
        );
        assert!(effect.complete);
        let mut unlisted = notes.clone();
        unlisted[3].archives = None;
        assert!(!super::effect(&unlisted, 13).complete);
        assert_eq!(
            super::effect(&notes, 25),
            Effect {
                complete: true,
                ..Effect::default()
            }
        );
    }

    #[test]
    fn the_last_the_unknown_and_the_compacted_are_refused() {
        let name = ClientName::new("asus").unwrap();
        let notes = [note(5, &[], &[]), note(9, &[], &[]), note(21, &[], &[])];
        let mut record = Record {
            audited: Some(21),
            ..Record::default()
        };
        let go = |record: &Record, to| {
            let around = Surroundings {
                mounted: true,
                sessions: &[],
                busy: None,
                standing: None,
                transaction: Some(21),
                record,
            };
            may_go_back(&name, &around, &notes, to)
        };
        assert_eq!(go(&record, 9), Err(Obstacle::Behind), "not known yet");
        record.floor = Floor::None;
        assert_eq!(go(&record, 9), Ok(()));
        assert_eq!(go(&record, 21), Err(Obstacle::NothingAfter(21)));
        assert!(matches!(go(&record, 10), Err(Obstacle::NoTransaction(10, _))));
        record.floor = Floor::At(9);
        assert_eq!(go(&record, 9), Ok(()));
        record.compacted = Some(Compacted {
            at: 1,
            transaction: 9,
            freed: 2,
        });
        assert!(
            matches!(go(&record, 5), Err(Obstacle::BelowFloor { to: 5, floor: 9, why }) if why.contains("compaction"))
        );
        record.audited = Some(17);
        assert_eq!(go(&record, 9), Err(Obstacle::Behind));
    }

    proptest! {
        #[test]
        fn what_is_moved_is_what_was_committed_after_and_nothing_of_ours(
            present in proptest::collection::btree_set(0_u32..60, 0..60), to in 0_u32..60, over in 0_u32..20, cut in 0_usize..60,
        ) {
            let highest = present.last().copied().unwrap_or(0).max(to) + over;
            let all = moved(present.iter().copied(), to, highest);
            prop_assert!(all.windows(2).all(|two| two[0] > two[1]));
            let mut left = present.clone();
            // Cut short anywhere, and done again with the sealing segment there already.
            for number in all.iter().take(cut) {
                left.remove(number);
            }
            let seal = sealing(highest).unwrap();
            left.insert(seal);
            for number in moved(left.iter().copied(), to, highest) {
                left.remove(&number);
            }
            let expected: BTreeSet<u32> = present.iter().copied().filter(|number| *number <= to).chain([seal]).collect();
            prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_folder_that_was_kept_has_one_name() {
        let range = KeptRange { to: 53, highest: 77 };
        assert_eq!(KeptRange::new("53-77"), Some(range));
        assert_eq!(range.to_string(), "53-77");
        for bad in [
            "",
            "53",
            "53-",
            "-77",
            "053-77",
            "53-+77",
            "53-77-1",
            "../53-77",
            "53-4294967296",
            "53 -77",
        ] {
            assert_eq!(KeptRange::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_end() {
        assert_eq!(sealing(7), Some(8));
        assert_eq!(sealing(u32::MAX), None);
        assert_eq!(sealing(u32::MAX - 3), None);
        assert_eq!(moved(vec![1, 2, 9], 1, 5), [2]);
    }
}
