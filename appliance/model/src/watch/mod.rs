//! What is remembered of a client's repository, and what to say of what its client did. Pure.
//!
//! The role `strongroom-watch` reads each new transaction once and adds what it found to the [`Record`]. A finding
//! stands until the owner accepts it; while one stands, nothing may be compacted.

mod decide;

pub use decide::{RefusedCompaction, decide, may_compact};

use crate::text::Text;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Looks that are remembered.
pub const LOOKS_MAX: usize = 100;
/// Transactions that are remembered one by one, the newest.
pub const TRANSACTIONS_MAX: usize = 300;
/// Archives named with one transaction.
pub const TRANSACTION_NAMES_MAX: usize = 4;
/// Archives that are listed by name, the newest.
pub const ARCHIVES_MAX: usize = 2000;
/// Findings that stand at once; further ones are only counted.
pub const FINDINGS_MAX: usize = 32;
/// Names told with one finding.
pub const NAMES_MAX: usize = 8;
/// Longest name of an archive that is kept, in bytes.
const NAME_BYTES_MAX: usize = 96;

/// What one look at new transactions counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// When it was.
    pub at: u64,
    /// The last transaction before; none: the repository's first.
    pub after: Option<u32>,
    /// The last transaction that it saw.
    pub until: u32,
    /// How many transactions.
    pub transactions: u64,
    /// Objects stored (PUT entries), the list of archives left out.
    pub puts: u64,
    /// Objects deleted (DELETE entries) and not replaced at once, the list of archives left out.
    pub deletes: u64,
    /// How many of those are gone at the end of the range.
    pub lost: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Archives that came and that went; none where they can't be listed.
    pub archives: Option<(u32, u32)>,
}

/// What one transaction did. A rollback goes back to one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransactionNote {
    /// Its number: its last segment.
    pub last: u32,
    /// When it was committed, by the appliance's clock.
    pub at: Option<u64>,
    /// Objects stored (PUT entries), the list of archives left out.
    pub puts: u64,
    /// Objects deleted (DELETE entries) and not replaced at once, the list of archives left out.
    pub deletes: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Whether it stored a backup.
    pub stored: bool,
    /// Archives that came and that went; none where they can't be listed.
    pub archives: Option<(u32, u32)>,
    /// Names of archives that came, the first [`TRANSACTION_NAMES_MAX`].
    pub came: Vec<String>,
    /// Names of archives that went, the first [`TRANSACTION_NAMES_MAX`].
    pub went: Vec<String>,
    /// The sessions that may have done it; empty where none is remembered. Filled in for faces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
}

/// The last compaction that was done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// When it ended.
    pub at: u64,
    /// The repository's last transaction after it.
    pub transaction: u32,
    /// How much less the segments held, in bytes.
    pub freed: u64,
}

/// The newest deletion that no compaction has freed. Its age is told by two measures, of which the smaller one counts: the
/// time since it was seen, and the days on which it was looked at since. A clock that jumps ahead adds to the second a day
/// or two, however far it jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The last transaction of the look that saw it.
    pub transaction: u32,
    /// When that was, and never earlier than a look before it.
    pub at: u64,
    /// How many days it has been looked at since.
    pub days: u16,
    /// Until when these are counted.
    pub counted: u64,
    /// When the oldest deletion was seen that no compaction has freed; 0 where it isn't known.
    #[serde(default)]
    pub since: u64,
}

impl Deletion {
    /// How old it is in whole days. `now` is in Unix seconds.
    pub fn age_days(&self, now: u64) -> u16 {
        let since = now.saturating_sub(self.at) / DAY;
        u16::try_from(since).unwrap_or(u16::MAX).min(self.days)
    }

    /// Counts a day, if one has gone by since the last was counted. Called by each look.
    fn count(&mut self, now: u64) {
        match now.checked_sub(self.counted) {
            // The clock was ahead, or is behind now.
            None => self.counted = now,
            Some(since) if since >= DAY => {
                self.days = self.days.saturating_add(1);
                self.counted = (self.counted + DAY).max(now - DAY);
            }
            Some(_) => {}
        }
    }
}

const DAY: u64 = 24 * 3600;

/// How far back transactions can be brought back: before it, segments that they need are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    /// It was not looked at yet.
    #[default]
    Unknown,
    /// Everything since the first is there.
    None,
    /// From this transaction on.
    At(u32),
}

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveNote {
    /// Its name, without control characters.
    pub name: String,
    /// When it was begun, by the client's clock; none before 1970.
    pub time: Option<u64>,
}

/// What is known of the archives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "known")]
pub enum Archives {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The repository is encrypted: only its client can list them.
    NeedKey,
    /// All of them.
    Listed {
        /// How many there are.
        count: u32,
        /// When the newest was begun, by its client's clock.
        newest: Option<u64>,
    },
}

/// Something that the owner should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Finding {
    /// A large part of the objects was deleted.
    MassDeletion {
        /// Objects that are gone.
        lost: u64,
        /// Objects before; none where it is not known.
        before: Option<u64>,
    },
    /// There are markedly fewer objects than there were.
    Shrinking {
        /// Objects before.
        before: u64,
        /// Objects after.
        after: u64,
    },
    /// Objects were deleted while the list of archives stayed as it was.
    UnlistedDeletion {
        /// How many.
        deleted: u64,
    },
    /// More archives went than pruning explains.
    ArchivesRemoved {
        /// How many went.
        removed: u32,
        /// How many there were.
        before: u32,
        /// Some of them.
        names: Vec<String>,
    },
    /// The list of archives itself was deleted.
    ManifestLost,
    /// The repository's settings changed.
    ConfigChanged {
        /// Names of the settings that differ. Never their values: one is the key.
        settings: Vec<String>,
        /// Whether the key or the identity is among them.
        key: bool,
    },
    /// Another repository lies in the place of the one that was there.
    OtherRepository,
    /// Committed segments are gone, or have another size.
    SegmentsChanged {
        /// How many are gone.
        gone: u32,
        /// How many have another size.
        resized: u32,
        /// Some of both.
        segments: Vec<u32>,
    },
    /// What had been remembered of the repository is lost.
    RecordLost,
    /// Transactions that had been seen are gone.
    TransactionsGone {
        /// The last that is left.
        left: Option<u32>,
    },
}

impl Finding {
    /// Whether two findings are of one kind.
    pub fn same_kind(&self, other: &Self) -> bool {
        core::mem::discriminant(self) == core::mem::discriminant(other)
    }
}

/// A finding, and where it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What.
    #[serde(flatten)]
    pub finding: Finding,
    /// When.
    pub at: u64,
    /// The last transaction before it: what was there then can be brought back.
    pub after: Option<u32>,
    /// The transaction by which it had happened.
    pub until: Option<u32>,
}

/// Keeps every compaction off: what was deleted since may be wanted back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: u64,
    /// The last transaction before the first finding.
    pub after: Option<u32>,
}

/// A look's object: the repository's last transaction and the stamp of its `config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The last transaction.
    pub transaction: Option<u32>,
    /// Changes with each change of the file `config`.
    pub config: String,
}

/// What is remembered of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The repository's identity, in hexadecimal digits.
    pub repository: String,
    /// When the watch of this repository began.
    pub since: u64,
    /// What the last look looked at, whether it could read it or not.
    pub seen: Seen,
    /// When that was.
    pub looked: u64,
    /// Why the last look failed; empty when it did not.
    pub failed: String,
    /// The last transaction that was audited.
    pub audited: Option<u32>,
    /// When the last transaction that stored a backup was committed, by the appliance's clock.
    pub last_backup: Option<u64>,
    /// Bytes that count against Borg's storage quota; none where it is not known.
    pub quota_used: Option<u64>,
    /// Live objects, the list of archives included; none where it is not known.
    pub objects: Option<u64>,
    /// The most that there ever were since the owner last accepted.
    pub most_objects: u64,
    /// The archives.
    pub archives: Archives,
    /// SHA-256 of `config` as it was last seen, in hexadecimal digits.
    pub config: String,
    /// The last looks that found something new, oldest first.
    pub looks: Vec<Look>,
    /// What stands.
    pub findings: Vec<Found>,
    /// How many findings did not fit.
    pub more_findings: u32,
    /// What keeps every compaction off.
    pub hold: Option<Hold>,
    /// How far back transactions can be brought back.
    pub floor: Floor,
    /// The last compaction.
    pub compacted: Option<Compacted>,
    /// About how much a compaction would free, in bytes, by Borg's own account; none where that can't be read.
    pub freeable: Option<u64>,
    /// The newest deletion that no compaction has freed.
    pub deletion: Option<Deletion>,
}

/// All that is remembered of one repository, for a face.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// What its client did.
    pub record: Record,
    /// Its archives, newest first, at most [`ARCHIVES_MAX`]; none where they can't be listed.
    pub archives: Vec<ArchiveNote>,
    /// What the checks found.
    pub verification: crate::verification::Verification,
    /// Its transactions, newest first, at most [`TRANSACTIONS_MAX`].
    pub transactions: Vec<TransactionNote>,
}

impl Record {
    /// Adds a look, and forgets the oldest where there are too many.
    pub fn add_look(&mut self, look: Look) {
        if self.looks.len() >= LOOKS_MAX {
            self.looks.remove(0);
        }
        self.looks.push(look);
    }

    /// Takes note of what was deleted up to `transaction`: the quarantine of all that can be freed begins anew.
    pub fn deleted(&mut self, transaction: u32, now: u64) {
        let at = self.looks.last().map_or(now, |look| look.at.max(now));
        let since = self.deletion.map_or(at, |before| match before.since {
            0 => before.at,
            since => since,
        });
        self.deletion = Some(Deletion {
            transaction,
            at,
            days: 0,
            counted: now,
            since,
        });
    }

    /// Counts the days of the newest deletion, at each look. Where something can be freed of which nothing is known, as
    /// after a rollback, it begins with this look.
    pub fn age_deletion(&mut self, now: u64) {
        match (&mut self.deletion, self.audited) {
            (Some(deletion), _) => deletion.count(now),
            (None, Some(transaction)) if self.freeable.is_some_and(|bytes| bytes > 0) => self.deleted(transaction, now),
            (None, _) => {}
        }
    }

    /// Adds a finding. It holds every compaction until [`Record::accept`].
    pub fn find(&mut self, finding: Finding, at: u64, after: Option<u32>, until: Option<u32>) {
        self.hold.get_or_insert(Hold { since: at, after });
        // A shrinking that goes on is one thing: what it came to counts.
        if let Finding::Shrinking { after: now, .. } = finding
            && let Some(found) = self
                .findings
                .iter_mut()
                .find(|found| matches!(found.finding, Finding::Shrinking { .. }))
            && let Finding::Shrinking { after, .. } = &mut found.finding
        {
            *after = now;
            found.until = until;
        } else if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Found {
                finding,
                at,
                after,
                until,
            });
        } else {
            self.more_findings = self.more_findings.saturating_add(1);
        }
    }

    /// Takes note that the owner knows of all that stands: from now on, this is what is usual.
    pub fn accept(&mut self) {
        self.findings.clear();
        self.more_findings = 0;
        self.hold = None;
        self.most_objects = self.objects.unwrap_or_default();
    }

    /// Takes note that the client's transactions after `to` were undone: what was found in them is answered.
    pub fn roll_back(&mut self, to: u32) {
        self.findings.retain(|found| {
            let of_transactions = matches!(
                found.finding,
                Finding::MassDeletion { .. }
                    | Finding::Shrinking { .. }
                    | Finding::UnlistedDeletion { .. }
                    | Finding::ArchivesRemoved { .. }
                    | Finding::ManifestLost
            );
            !(of_transactions && found.after.is_some_and(|after| after >= to))
        });
        if self.findings.is_empty() && self.more_findings == 0 {
            self.hold = None;
        }
        // Which of the earlier ones is the newest now is not remembered.
        self.deletion = None;
        // What is usual is counted anew, as the index is written anew.
        self.objects = None;
        self.most_objects = 0;
    }

    /// Takes note that every segment is there again, with the size that it had.
    pub fn segments_are_back(&mut self) {
        self.findings
            .retain(|found| !matches!(found.finding, Finding::SegmentsChanged { .. }));
        if self.findings.is_empty() && self.more_findings == 0 {
            self.hold = None;
        }
    }

    /// When the newest archive was begun, by its client's clock.
    pub fn newest_archive(&self) -> Option<u64> {
        match self.archives {
            Archives::Listed { newest, .. } => newest,
            _ => None,
        }
    }
}

/// An archive's name as it is kept: bounded, and without what could move a terminal's cursor.
pub fn kept_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(NAME_BYTES_MAX)
        .collect();
    String::from(Text::<NAME_BYTES_MAX>::from(plain.as_str()).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    fn shrinking(before: u64, after: u64) -> Finding {
        Finding::Shrinking { before, after }
    }

    #[test]
    fn a_shrinking_that_goes_on_is_one_finding_and_acceptance_begins_anew() {
        let mut record = Record {
            objects: Some(50),
            most_objects: 100,
            ..Record::default()
        };
        record.find(shrinking(100, 70), 1, Some(5), Some(9));
        record.find(shrinking(100, 50), 2, Some(9), Some(13));
        assert_eq!(record.findings.len(), 1);
        assert_eq!(
            (record.findings[0].after, record.findings[0].until),
            (Some(5), Some(13))
        );
        assert_eq!(record.findings[0].finding, shrinking(100, 50));
        assert_eq!(
            record.hold,
            Some(Hold {
                since: 1,
                after: Some(5)
            })
        );
        record.accept();
        assert_eq!((record.findings.len(), record.hold, record.most_objects), (0, None, 50));
    }

    #[test]
    fn a_rollback_answers_what_it_undid_and_nothing_else() {
        let mut record = Record::default();
        record.find(Finding::ManifestLost, 1, Some(9), Some(13));
        record.find(Finding::MassDeletion { lost: 9, before: None }, 1, Some(13), Some(17));
        let mut all = record.clone();
        record.roll_back(13);
        assert_eq!(record.findings.len(), 1, "the older one stands");
        assert!(record.hold.is_some());
        all.roll_back(9);
        assert_eq!((all.findings.len(), all.hold), (0, None));
        all.find(Finding::RecordLost, 1, Some(9), None);
        all.roll_back(5);
        assert!(all.hold.is_some(), "this is no transaction's doing");
    }

    #[test]
    fn a_deletion_ages_by_days_that_were_looked_at_and_by_no_jump_of_the_clock() {
        let mut record = Record {
            audited: Some(9),
            ..Record::default()
        };
        record.age_deletion(DAY);
        assert_eq!(record.deletion, None, "nothing can be freed");
        record.freeable = Some(1);
        record.age_deletion(DAY);
        let age = |record: &Record, now| record.deletion.unwrap().age_days(now);
        assert_eq!(age(&record, DAY), 0);
        // Each day at about the same time, an hourly look, and one day on which it was off.
        for hours in (1..=72).chain([96, 97, 120]) {
            record.age_deletion(DAY + hours * 3600 + 60);
        }
        assert_eq!(age(&record, DAY + 120 * 3600), 5);
        // Years ahead, and back.
        for now in [500 * DAY, 500 * DAY + 60, 500 * DAY + 120] {
            record.age_deletion(now);
        }
        assert_eq!(age(&record, 500 * DAY + 120), 7);
        record.age_deletion(7 * DAY);
        assert_eq!(age(&record, 7 * DAY), 6, "it is not older than the clock says");
        record.add_look(Look {
            at: 20 * DAY,
            ..Look::default()
        });
        record.deleted(13, 8 * DAY);
        assert_eq!(age(&record, 19 * DAY), 0);
        assert_eq!(
            record.deletion.unwrap().at,
            20 * DAY,
            "a clock that went back makes nothing older"
        );
        assert_eq!(record.deletion.unwrap().since, DAY, "the oldest is remembered");
        record.roll_back(9);
        assert_eq!(record.deletion, None);
    }

    #[test]
    fn all_is_bounded() {
        let mut record = Record::default();
        for number in 0..1000 {
            record.find(Finding::ManifestLost, number, None, None);
            record.add_look(Look {
                at: number,
                ..Look::default()
            });
        }
        assert_eq!((record.findings.len(), record.more_findings), (FINDINGS_MAX, 968));
        assert_eq!((record.looks.len(), record.looks[0].at), (LOOKS_MAX, 900));
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let mut record = Record {
            repository: "ab".into(),
            archives: Archives::Listed {
                count: 1,
                newest: Some(5),
            },
            ..Record::default()
        };
        record.find(Finding::OtherRepository, 1, None, None);
        record.find(
            Finding::ConfigChanged {
                settings: alloc::vec!["key".into()],
                key: true,
            },
            2,
            Some(1),
            Some(2),
        );
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
        assert_eq!(serde_json::from_str::<Record>("{}").unwrap(), Record::default());
    }

    proptest! {
        #[test]
        fn names_are_harmless(name in "\\PC{0,200}|[\\x00-\\x1f]{0,9}") {
            let kept = kept_name(&name);
            prop_assert!(kept.len() <= NAME_BYTES_MAX && !kept.chars().any(char::is_control), "{}", format!("{kept:?}"));
        }
    }
}
