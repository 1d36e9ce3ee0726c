//! From what stands in a [`Record`] to conditions, and whether a compaction may go on. Pure.

use super::{Finding, Found, Record};
use crate::condition::{Condition, ConditionId, Severity};
use crate::name::ClientName;
use crate::verification::Verification;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Decides what a person should know of a client's transactions. One condition for each kind of finding, about the
/// newest of its kind.
pub fn decide(name: &ClientName, record: &Record) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut told: Vec<&Finding> = Vec::new();
    for found in record.findings.iter().rev() {
        if told.iter().any(|other| other.same_kind(&found.finding)) {
            continue;
        }
        told.push(&found.finding);
        let times = record
            .findings
            .iter()
            .filter(|other| other.finding.same_kind(&found.finding))
            .count();
        conditions.push(condition(name, found, times));
    }
    if !record.failed.is_empty() {
        conditions.push(Condition::new(
            ConditionId::AuditFailed,
            Severity::Warning,
            name.as_str(),
            &format!(
                "What {name} stored and deleted lately can't be told: {}.",
                record.failed.trim_end_matches('.')
            ),
            &format!(
                "It is tried again with the next backup and each hour. `strongroom check {name}` tells whether the repository is damaged."
            ),
        ));
    }
    conditions
}

fn condition(name: &ClientName, found: &Found, times: usize) -> Condition {
    let (id, severity, mut text) = words(name, &found.finding);
    if let Some(until) = found.until {
        let place = match found.after {
            Some(after) => format!(" (transactions {after} to {until})"),
            None => format!(" (up to transaction {until})"),
        };
        text.push_str(&place);
    }
    text.push('.');
    if times > 1 {
        text.push_str(&format!(" That makes {times} since you last accepted."));
    }
    Condition::new(id, severity, name.as_str(), &text, &advice(name, found))
}

fn words(name: &ClientName, finding: &Finding) -> (ConditionId, Severity, String) {
    match finding {
        Finding::MassDeletion { lost, before } => (
            ConditionId::MassDeletion,
            Severity::Alarm,
            match before {
                Some(before) => format!(
                    "{name} deleted {lost} of the {before} pieces of its backups ({} %)",
                    percent(*lost, *before)
                ),
                None => format!("{name} deleted {lost} pieces of its backups"),
            },
        ),
        Finding::Shrinking { before, after } => (
            ConditionId::RepositoryShrinking,
            Severity::Warning,
            format!("The backups of {name} are shrinking: of {before} pieces, {after} are left"),
        ),
        Finding::UnlistedDeletion { deleted } => (
            ConditionId::UnlistedDeletion,
            Severity::Alarm,
            format!(
                "{deleted} pieces of the backups of {name} were deleted, but no archive was. No program of Borg's does that: archives may have been made unreadable"
            ),
        ),
        Finding::ArchivesRemoved { removed, before, names } => (
            ConditionId::ArchivesRemoved,
            Severity::Warning,
            format!(
                "{name} deleted {removed} of its {before} archives: {}",
                list(names, *removed)
            ),
        ),
        Finding::ManifestLost => (
            ConditionId::ManifestLost,
            Severity::Alarm,
            format!("The list of archives of {name} was deleted"),
        ),
        Finding::ConfigChanged { settings, key } => {
            let severity = if *key { Severity::Alarm } else { Severity::Warning };
            let text = if *key {
                format!(
                    "The key in the repository of {name} was replaced: the passphrase that you know may no longer open the backups"
                )
            } else {
                format!(
                    "The settings of the repository of {name} were changed: {}",
                    settings.join(", ")
                )
            };
            (ConditionId::ConfigChanged, severity, text)
        }
        Finding::OtherRepository => (
            ConditionId::ConfigChanged,
            Severity::Alarm,
            format!("Another repository lies in the place of the one of {name}"),
        ),
        Finding::SegmentsChanged {
            gone,
            resized,
            segments,
        } => {
            let numbers: Vec<String> = segments.iter().map(ToString::to_string).collect();
            let number = |number: u32, one: &str, many: &str| match number {
                1 => format!("1 segment of the repository of {name} {one}"),
                _ => format!("{number} segments of the repository of {name} {many}"),
            };
            let gone_words = number(*gone, "is gone", "are gone");
            let resized_words = number(*resized, "has another size", "have another size");
            let what = match (gone, resized) {
                (_, 0) => gone_words,
                (0, _) => resized_words,
                _ => format!("{gone_words}, {resized_words}"),
            };
            (
                ConditionId::SegmentsChanged,
                Severity::Alarm,
                format!(
                    "{what}, though segments never change: {}",
                    list(&numbers, gone.saturating_add(*resized))
                ),
            )
        }
        Finding::RecordLost => (
            ConditionId::AuditFailed,
            Severity::Warning,
            format!(
                "What was remembered of the repository of {name} is lost, so it can't be told what was deleted before"
            ),
        ),
        Finding::TransactionsGone { left } => (
            ConditionId::TransactionsGone,
            Severity::Alarm,
            match left {
                Some(left) => format!("Backups of {name} are gone: its last transaction is now {left}"),
                None => format!("All backups of {name} are gone from its repository"),
            },
        ),
    }
}

fn advice(name: &ClientName, found: &Found) -> String {
    let accept = format!("`strongroom client accept {name}`");
    match &found.finding {
        Finding::MassDeletion { .. }
        | Finding::Shrinking { .. }
        | Finding::UnlistedDeletion { .. }
        | Finding::ArchivesRemoved { .. }
        | Finding::ManifestLost => {
            format!(
                "Nothing is erased, nor will be while this stands. If it was meant: {accept}. If not, take {name} off the network; `strongroom rollback {name}` brings all of it back."
            )
        }
        Finding::ConfigChanged { .. } => format!(
            "If you did it (as by `borg key change-passphrase`): {accept}. If not, take {name} off the network: the versions before are kept, docs/clients.md tells where."
        ),
        Finding::RecordLost => format!(
            "See with `borg list` on {name} whether its archives are there, then {accept}. Nothing is compacted before."
        ),
        Finding::OtherRepository | Finding::SegmentsChanged { .. } | Finding::TransactionsGone { .. } => format!(
            "If you restored, compacted or replaced it: {accept}. If not, `strongroom check {name}` tells what is damaged, and `strongroom restore` brings the repository back from off-site."
        ),
    }
}

fn percent(part: u64, whole: u64) -> u128 {
    u128::from(part) * 100 / u128::from(whole.max(1))
}

/// Some names, and how many more.
fn list(names: &[String], count: u32) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = (count as usize).saturating_sub(shown.len());
    match (shown.is_empty(), more) {
        (true, _) => "their names are not known".into(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Why a compaction may not go on now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedCompaction {
    /// Nothing is known of the repository.
    #[error("its transactions have not been looked at yet; it happens within a minute of a backup")]
    NotWatched,
    /// The last transactions were not audited.
    #[error("its last transactions have not been looked at yet")]
    Behind,
    /// A finding stands.
    #[error("what was found since transaction {} has not been accepted", .0.map_or_else(|| "0".to_string(), |number| number.to_string()))]
    Held(Option<u32>),
    /// It is damaged.
    #[error("{0} of its segments are damaged; a compaction would make that final")]
    Damaged(usize),
}

/// Whether everything that a compaction of the state `transaction` would make final has been looked at and accepted.
///
/// # Errors
/// Why not.
pub fn may_compact(
    record: &Record,
    verification: &Verification,
    transaction: Option<u32>,
) -> Result<(), RefusedCompaction> {
    if record.repository.is_empty() {
        return Err(RefusedCompaction::NotWatched);
    }
    if record.audited != transaction || !record.failed.is_empty() {
        return Err(RefusedCompaction::Behind);
    }
    if let Some(hold) = record.hold {
        return Err(RefusedCompaction::Held(hold.after));
    }
    match verification.unaccepted() {
        0 => Ok(()),
        damaged => Err(RefusedCompaction::Damaged(damaged)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verification::Damage;
    use alloc::vec;

    fn name() -> ClientName {
        ClientName::new("asus").unwrap()
    }

    fn record(findings: &[Finding]) -> Record {
        let mut record = Record {
            repository: "ab".into(),
            audited: Some(21),
            ..Record::default()
        };
        for finding in findings {
            record.find(finding.clone(), 1_700_000_000, Some(17), Some(21));
        }
        record
    }

    fn all() -> Vec<Finding> {
        vec![
            Finding::MassDeletion {
                lost: 900,
                before: Some(1000),
            },
            Finding::MassDeletion {
                lost: 20_000,
                before: None,
            },
            Finding::Shrinking {
                before: 1000,
                after: 800,
            },
            Finding::UnlistedDeletion { deleted: 3 },
            Finding::ArchivesRemoved {
                removed: 7,
                before: 9,
                names: vec!["a".into(); 7],
            },
            Finding::ManifestLost,
            Finding::ConfigChanged {
                settings: vec!["key".into()],
                key: true,
            },
            Finding::ConfigChanged {
                settings: vec!["max_segment_size".into()],
                key: false,
            },
            Finding::OtherRepository,
            Finding::RecordLost,
            Finding::SegmentsChanged {
                gone: 1,
                resized: 1,
                segments: vec![3, 4],
            },
            Finding::TransactionsGone { left: Some(5) },
            Finding::TransactionsGone { left: None },
        ]
    }

    #[test]
    fn every_finding_is_told_whole_with_what_to_do_and_holds_a_compaction() {
        let long = ClientName::new("a234567890123456789012345678901").unwrap();
        for finding in all() {
            let record = record(&[finding]);
            for name in [name(), long.clone()] {
                let [condition] = &decide(&name, &record)[..] else {
                    panic!("one condition");
                };
                assert!(
                    condition.text.contains(name.as_str()) && condition.text.ends_with('.'),
                    "{condition:?}"
                );
                assert!(condition.advice.contains("strongroom client accept"), "{condition:?}");
                assert!(
                    !condition.text.contains('…') && !condition.advice.contains('…'),
                    "{condition:?}"
                );
                assert!(condition.severity > Severity::Info);
            }
            assert_eq!(
                may_compact(&record, &Verification::default(), Some(21)),
                Err(RefusedCompaction::Held(Some(17)))
            );
        }
    }

    #[test]
    fn one_condition_for_each_kind_the_newest() {
        let (first, second) = (
            Finding::MassDeletion {
                lost: 1,
                before: Some(2),
            },
            Finding::MassDeletion {
                lost: 90,
                before: Some(100),
            },
        );
        let conditions = decide(&name(), &record(&[first, Finding::ManifestLost, second]));
        assert_eq!(conditions.len(), 2);
        assert_eq!(
            conditions[0].text.as_str(),
            "asus deleted 90 of the 100 pieces of its backups (90 %) (transactions 17 to 21). That makes 2 since you last accepted."
        );
    }

    #[test]
    fn a_compaction_goes_on_only_where_all_is_known_and_accepted() {
        let verification = Verification::default();
        let mut record = record(&[]);
        assert_eq!(may_compact(&record, &verification, Some(21)), Ok(()));
        assert_eq!(
            may_compact(&record, &verification, Some(25)),
            Err(RefusedCompaction::Behind)
        );
        record.failed = "segment 3 is damaged".into();
        assert_eq!(
            may_compact(&record, &verification, Some(21)),
            Err(RefusedCompaction::Behind)
        );
        assert_eq!(
            may_compact(&Record::default(), &verification, None),
            Err(RefusedCompaction::NotWatched)
        );
        record.failed.clear();
        record.find(Finding::ManifestLost, 1, None, None);
        assert!(may_compact(&record, &verification, Some(21)).is_err());
        record.accept();
        assert_eq!(may_compact(&record, &verification, Some(21)), Ok(()));
        let damaged = Verification {
            damages: vec![Damage::default()],
            ..Verification::default()
        };
        assert_eq!(
            may_compact(&record, &damaged, Some(21)),
            Err(RefusedCompaction::Damaged(1))
        );
    }

    #[test]
    fn a_look_that_failed_is_told() {
        let failed = Record {
            failed: "segment 3 is damaged: it ends".into(),
            ..record(&[])
        };
        let conditions = decide(&name(), &failed);
        assert_eq!(conditions[0].id, ConditionId::AuditFailed);
        assert!(conditions[0].text.contains("segment 3 is damaged"));
    }
}
