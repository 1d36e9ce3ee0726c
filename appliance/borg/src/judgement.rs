//! Whether what a client did is worrying. Pure: an [`Audit`] and thresholds in, findings out.

use std::collections::HashMap;

use crate::audit::Audit;
use crate::manifest::{Archive, Manifest};
use crate::segment::ObjectKey;

/// Where the ordinary ends. Percentages are of the objects that were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Deleting at least this much of a repository is a mass deletion, in percent.
    pub mass_deletion_percent: u8,
    /// Fewer deleted objects than this are never a mass deletion, so that small repositories can
    /// be pruned in peace.
    pub mass_deletion_min: u64,
    /// So many are one, where the size of the repository isn't known.
    pub mass_deletion_unknown: u64,
    /// Ending with this much fewer objects than before is shrinking, in percent.
    pub shrinking_percent: u8,
    /// Losing at least this much of the archives at once is worrying, in percent.
    pub archives_lost_percent: u8,
    /// Fewer lost archives than this are ordinary pruning.
    pub archives_lost_min: usize,
}

impl Default for Thresholds {
    /// A daily prune of an hourly backup forgets a few per cent of the objects and a handful of archives.
    fn default() -> Self {
        Self {
            mass_deletion_percent: 25,
            mass_deletion_min: 50,
            mass_deletion_unknown: 10_000,
            shrinking_percent: 10,
            archives_lost_percent: 50,
            archives_lost_min: 3,
        }
    }
}

/// Something that a person should look at before anything is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A large part of the repository was deleted.
    MassDeletion {
        /// Objects that are gone.
        lost: u64,
        /// Objects before, where it is known.
        before: Option<u64>,
    },
    /// There are markedly fewer objects than before.
    Shrinking {
        /// Objects before.
        before: u64,
        /// Objects after.
        after: u64,
    },
    /// Objects were deleted while the list of archives stayed as it was: a compaction, or an
    /// attempt to make archives unreadable.
    UnlistedDeletion {
        /// How many.
        deleted: u64,
    },
    /// The list of archives itself is gone.
    ManifestLost,
}

/// Judges an audit. The order is that of the enum; each kind appears at most once.
#[must_use]
pub fn judge(audit: &Audit, thresholds: &Thresholds) -> Vec<Finding> {
    let (lost, before) = (audit.lost(), audit.objects_before());
    let mass = match before {
        Some(before) => {
            lost >= thresholds.mass_deletion_min && at_least(lost, thresholds.mass_deletion_percent, before)
        }
        None => lost >= thresholds.mass_deletion_unknown,
    };
    let shrinking = before.zip(audit.objects_after).filter(|(before, after)| {
        let fewer = before.saturating_sub(*after);
        fewer >= thresholds.mass_deletion_min && at_least(fewer, thresholds.shrinking_percent, *before)
    });
    [
        mass.then_some(Finding::MassDeletion { lost, before }),
        shrinking.map(|(before, after)| Finding::Shrinking { before, after }),
        (audit.deleted_unlisted > 0).then_some(Finding::UnlistedDeletion {
            deleted: audit.deleted_unlisted,
        }),
        audit.manifest_lost.then_some(Finding::ManifestLost),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether a part is at least so many per cent of a whole.
#[must_use]
pub fn at_least(part: u64, percent: u8, of: u64) -> bool {
    u128::from(part) * 100 >= u128::from(of) * u128::from(percent)
}

/// How one list of archives differs from another. An archive that was made anew under the same
/// name is both removed and added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveChanges<'a> {
    /// In the new list only.
    pub added: Vec<&'a Archive>,
    /// In the old list only.
    pub removed: Vec<&'a Archive>,
    /// Same archive, other name.
    pub renamed: Vec<(&'a Archive, &'a Archive)>,
    /// How many there were.
    pub before: usize,
}

impl ArchiveChanges<'_> {
    /// Whether anything changed.
    #[must_use]
    pub fn any(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.renamed.is_empty())
    }

    /// Whether more archives vanished than pruning explains.
    #[must_use]
    pub fn worrying(&self, thresholds: &Thresholds) -> bool {
        self.removed.len() >= thresholds.archives_lost_min
            && at_least(
                self.removed.len() as u64,
                thresholds.archives_lost_percent,
                self.before as u64,
            )
    }
}

/// Compares two lists of archives by their ids.
#[must_use]
pub fn archive_changes<'a>(before: &'a Manifest, after: &'a Manifest) -> ArchiveChanges<'a> {
    let old: HashMap<ObjectKey, &Archive> = before.archives.iter().map(|archive| (archive.id, archive)).collect();
    let new: HashMap<ObjectKey, &Archive> = after.archives.iter().map(|archive| (archive.id, archive)).collect();
    ArchiveChanges {
        added: after
            .archives
            .iter()
            .filter(|archive| !old.contains_key(&archive.id))
            .collect(),
        removed: before
            .archives
            .iter()
            .filter(|archive| !new.contains_key(&archive.id))
            .collect(),
        renamed: before
            .archives
            .iter()
            .filter_map(|archive| Some((archive, *new.get(&archive.id)?)))
            .filter(|(before, after)| before.name != after.name)
            .collect(),
        before: before.archives.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::object::Protection;

    fn audit(after: u64, gained: u64, deleted: u64) -> Audit {
        Audit {
            transactions: 1,
            manifest_rewrites: 1,
            puts: gained,
            deleted,
            objects_after: Some(after),
            ..Audit::default()
        }
    }

    #[test]
    fn a_daily_prune_is_ordinary() {
        assert_eq!(judge(&audit(1000, 60, 40), &Thresholds::default()), []);
        // A tiny repository that is emptied is not worth an alarm by size alone.
        assert_eq!(judge(&audit(1, 0, 20), &Thresholds::default()), []);
    }

    #[test]
    fn emptying_is_a_mass_deletion_even_when_as_much_is_added() {
        let found = judge(&audit(1000, 800, 800), &Thresholds::default());
        assert_eq!(
            found,
            [Finding::MassDeletion {
                lost: 800,
                before: Some(1000)
            }]
        );
        let found = judge(&audit(200, 0, 800), &Thresholds::default());
        assert!(matches!(
            found[..],
            [
                Finding::MassDeletion { .. },
                Finding::Shrinking {
                    before: 1000,
                    after: 200
                }
            ]
        ));
    }

    #[test]
    fn without_an_index_the_number_decides() {
        let unknown = |deleted| Audit {
            objects_after: None,
            ..audit(0, 0, deleted)
        };
        assert_eq!(judge(&unknown(9_999), &Thresholds::default()), []);
        assert!(matches!(
            judge(&unknown(10_000), &Thresholds::default())[..],
            [Finding::MassDeletion { before: None, .. }]
        ));
    }

    #[test]
    fn deletes_behind_the_manifests_back_are_told_at_any_size() {
        let audit = Audit {
            deleted_unlisted: 1,
            manifest_lost: true,
            ..audit(1000, 0, 1)
        };
        assert_eq!(
            judge(&audit, &Thresholds::default()),
            [Finding::UnlistedDeletion { deleted: 1 }, Finding::ManifestLost]
        );
    }

    fn manifest(archives: &[(&str, u8)]) -> Manifest {
        Manifest {
            protection: Protection::None,
            archives: archives
                .iter()
                .map(|(name, id)| Archive {
                    name: (*name).into(),
                    id: ObjectKey([*id; 32]),
                    time: SystemTime::UNIX_EPOCH,
                })
                .collect(),
        }
    }

    #[test]
    fn archives_are_compared_by_id() {
        let before = manifest(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        let after = manifest(&[("a", 1), ("b2", 2), ("c", 9)]);
        let changes = archive_changes(&before, &after);
        assert!(changes.any() && !changes.worrying(&Thresholds::default()));
        assert_eq!(changes.added, [&after.archives[2]]);
        assert_eq!(changes.removed, [&before.archives[2], &before.archives[3]]);
        assert_eq!(changes.renamed.len(), 1);
        assert!(!archive_changes(&before, &before).any());
        assert!(archive_changes(&before, &manifest(&[("z", 7)])).worrying(&Thresholds::default()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_numbers_overflow(after in any::<u64>(), gained in any::<u64>(), deleted in any::<u64>(), percent in any::<u8>()) {
            let thresholds = Thresholds { mass_deletion_percent: percent, shrinking_percent: percent, ..Thresholds::default() };
            let _ = judge(&audit(after, gained, deleted), &thresholds);
        }
    }
}
