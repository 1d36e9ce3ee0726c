//! The policy `compact_after_days`: a compaction that happens by itself, once what was deleted has been in quarantine for
//! so many days. Pure.
//!
//! Borg can't free only what was deleted earlier, and after any compaction no earlier transaction can be gone back to. So
//! the quarantine is that of the newest deletion: each new one begins it anew, for all that was deleted before as well.
//! Nothing is ever freed that could not have been brought back for all these days. What else a compaction demands is
//! demanded here too ([`super::compaction`]), an off-site copy without exception.

use super::{Obstacle, Outcome, Work};
use crate::condition::{Condition, ConditionId, Severity};
use crate::name::ClientName;
use crate::watch::Record;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Days that a quarantine may last.
pub const DAYS: RangeInclusive<u16> = 7..=365;
/// Smallest share of the repository that is worth a compaction, in per cent: what it moves is pushed off-site anew.
const WORTH_PERCENT: u64 = 1;
/// After a failure nothing is tried for this time.
const PAUSE: u64 = DAY;
/// What stands in the way for so many days is told.
const TOLD_AFTER_DAYS: u16 = 2;
/// Days between the end of a quarantine and the next deletion, in which check, push and compaction have their time.
const MARGIN_DAYS: u16 = 7;
const DAY: u64 = 24 * 3600;

/// What is known of a client and its repository.
pub struct Situation<'a> {
    /// Days of quarantine, as they were set.
    pub days: u16,
    /// The time, Unix seconds; none while the clock isn't trusted.
    pub now: Option<u64>,
    /// Size of the repository in bytes.
    pub bytes: u64,
    /// What is remembered of the repository.
    pub record: &'a Record,
    /// How the last job ended.
    pub last: Option<&'a Outcome>,
    /// All that stands against a compaction.
    pub obstacles: &'a [Obstacle],
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing was deleted that would be worth it.
    Nothing,
    /// The newest deletion is in quarantine for so many more days.
    Quarantine(u16),
    /// The last one failed today, for this reason.
    Failed(String),
    /// It is due, and this stands against it.
    Against(Vec<Obstacle>),
    /// It is due, and only a check and a push are wanted, which the appliance makes by itself.
    Prepare,
    /// It is due, of the state that the repository is in.
    Compact,
}

/// How many days a client should let go by between two prunes, so that a policy of so many days comes to free what they
/// delete.
#[must_use]
pub fn prune_every(days: u16) -> u16 {
    days.saturating_add(MARGIN_DAYS)
}

/// Decides.
pub fn next(situation: &Situation<'_>) -> Next {
    let record = situation.record;
    let worth = record.freeable.unwrap_or_default();
    let Some(deletion) = record.deletion else {
        return Next::Nothing;
    };
    if worth == 0 || worth < situation.bytes / 100 * WORTH_PERCENT {
        return Next::Nothing;
    }
    // Whoever writes the registry by hand makes no quarantine shorter than the shortest.
    let days = situation.days.clamp(*DAYS.start(), *DAYS.end());
    // Without a clock nothing has any age.
    let age = situation.now.map_or(0, |now| deletion.age_days(now));
    if age < days {
        return Next::Quarantine(days - age);
    }
    if let (Some(last), Some(now)) = (situation.last.filter(|last| has_failed(last)), situation.now)
        && now.saturating_sub(last.ended) < PAUSE
    {
        return Next::Failed(last.error.clone());
    }
    let can_be_made = |obstacle: &Obstacle| {
        matches!(
            obstacle,
            Obstacle::CopyBehind { .. } | Obstacle::Unchecked { failed: false, .. }
        )
    };
    match situation.obstacles {
        [] => Next::Compact,
        all if all.iter().all(can_be_made) => Next::Prepare,
        all => Next::Against(all.to_vec()),
    }
}

/// Whether it is a compaction that was begun, and did not do what it should.
fn has_failed(outcome: &Outcome) -> bool {
    matches!(outcome.work, Work::Compact { .. }) && outcome.transaction.is_some() && !outcome.error.is_empty()
}

impl Next {
    /// When the next compaction is, in a few words.
    pub fn words(&self) -> String {
        match self {
            Self::Nothing => "nothing was deleted that would be worth it".into(),
            Self::Quarantine(1) => "tomorrow, unless something more is deleted".into(),
            Self::Quarantine(left) => format!("in {left} days, unless something more is deleted"),
            Self::Failed(_) => "tomorrow again; the last one failed".into(),
            Self::Against(_) => "as soon as nothing stands against it".into(),
            Self::Prepare => "once it is checked and pushed, which is asked for".into(),
            Self::Compact => "within minutes".into(),
        }
    }

    /// What a person should know. `record` is what is remembered of the repository.
    pub fn condition(&self, name: &ClientName, situation: &Situation<'_>) -> Option<Condition> {
        match self {
            Self::Failed(why) => Some(Condition::new(
                ConditionId::CompactionWaits,
                Severity::Warning,
                name.as_str(),
                &format!(
                    "The compaction of the repository of {name} by its policy failed: {}.",
                    why.trim_end_matches('.')
                ),
                "It is tried again after a day. `strongroom client show` with its name says more; `strongroom client set` with `--compact-after-days never` ends the policy.",
            )),
            Self::Against(all) => {
                let age = situation.record.deletion.zip(situation.now);
                let age = age.map_or(0, |(deletion, now)| deletion.age_days(now));
                let over = age.saturating_sub(situation.days);
                let why = all.iter().find(|obstacle| !passes(obstacle))?;
                (over >= TOLD_AFTER_DAYS).then(|| {
                    Condition::new(
                        ConditionId::CompactionWaits,
                        Severity::Info,
                        name.as_str(),
                        &format!(
                            "The repository of {name} was to be compacted by its policy {over} days ago, but: {}.",
                            why.to_string().trim_end_matches('.')
                        ),
                        "It happens by itself once nothing stands against it; `strongroom compact` with its name shows all that does. `strongroom client set` with `--compact-after-days never` ends the policy.",
                    )
                })
            }
            Self::Quarantine(_) => {
                let days = situation.days;
                let deletion = situation.record.deletion?;
                // Of what a record before did not know, nothing is said.
                let renewed = deletion.at.checked_sub(deletion.since).filter(|_| deletion.since > 0)? / DAY;
                (renewed >= 2 * u64::from(days)).then(|| {
                    Condition::new(
                        ConditionId::CompactionWaits,
                        Severity::Info,
                        name.as_str(),
                        &format!(
                            "{name} has deleted something more often than every {days} days for {renewed} days, so its policy never comes to free anything."
                        ),
                        &format!(
                            "Have it prune every {} days at most: a new kit of `strongroom client kit` does. `strongroom compact` with its name frees it now.",
                            prune_every(days)
                        ),
                    )
                })
            }
            _ => None,
        }
    }
}

/// What passes by itself.
fn passes(obstacle: &Obstacle) -> bool {
    matches!(
        obstacle,
        Obstacle::Connected(_)
            | Obstacle::Busy(_)
            | Obstacle::Behind
            | Obstacle::UnderWay(_)
            | Obstacle::CopyBehind { .. }
            | Obstacle::Unchecked { failed: false, .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{Deletion, Record};
    use alloc::vec;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn name() -> ClientName {
        ClientName::new("a234567890123456789012345678901").unwrap()
    }

    fn record(days: u16) -> Record {
        Record {
            deletion: Some(Deletion {
                transaction: 9,
                at: NOW - u64::from(days) * DAY,
                days,
                counted: NOW,
                since: NOW - u64::from(days) * DAY,
            }),
            freeable: Some(1 << 30),
            ..Record::default()
        }
    }

    fn situation<'a>(record: &'a Record, obstacles: &'a [Obstacle]) -> Situation<'a> {
        Situation {
            days: 30,
            now: Some(NOW),
            bytes: 10 << 30,
            record,
            last: None,
            obstacles,
        }
    }

    fn behind() -> Obstacle {
        Obstacle::CopyBehind {
            name: name(),
            target: "oracle".into(),
            at: Some(7),
        }
    }

    #[test]
    fn it_waits_for_the_newest_deletion_and_for_all_that_a_compaction_demands() {
        assert_eq!(next(&situation(&record(29), &[])), Next::Quarantine(1));
        assert_eq!(next(&situation(&record(30), &[])), Next::Compact);
        assert_eq!(next(&situation(&record(30), &[behind()])), Next::Prepare);
        for obstacle in [Obstacle::NoCopy, Obstacle::Paused(name()), Obstacle::Connected(vec![])] {
            let all = [behind(), obstacle];
            assert_eq!(next(&situation(&record(400), &all)), Next::Against(all.to_vec()));
        }
        let failed = Obstacle::Unchecked {
            why: "the last check failed: no".into(),
            failed: true,
            name: name(),
        };
        assert!(matches!(next(&situation(&record(30), &[failed])), Next::Against(_)));
    }

    #[test]
    fn without_a_clock_or_without_worth_nothing_happens() {
        let aged = record(400);
        let mut blind = situation(&aged, &[]);
        blind.now = None;
        assert_eq!(next(&blind), Next::Quarantine(30));
        assert_eq!(next(&situation(&Record::default(), &[])), Next::Nothing);
        let small = Record {
            freeable: Some(1 << 20),
            ..record(400)
        };
        assert_eq!(next(&situation(&small, &[])), Next::Nothing);
    }

    #[test]
    fn a_failure_is_told_and_tried_again_the_next_day() {
        let aged = record(40);
        let mut outcome = Outcome {
            work: Work::Compact { transaction: 9 },
            ended: NOW - DAY + 1,
            error: "no space left".into(),
            before: 5,
            after: 5,
            transaction: Some(9),
            repository: String::new(),
        };
        let told = |outcome: &Outcome| {
            let mut now = situation(&aged, &[]);
            now.last = Some(outcome);
            let next = next(&now);
            (next.condition(&name(), &now).map(|condition| condition.severity), next)
        };
        assert_eq!(
            told(&outcome),
            (Some(Severity::Warning), Next::Failed("no space left".into()))
        );
        outcome.ended -= 1;
        assert_eq!(told(&outcome), (None, Next::Compact));
        outcome.ended = NOW;
        outcome.transaction = None;
        assert_eq!(told(&outcome).1, Next::Compact, "it was not begun");
    }

    #[test]
    fn what_stands_against_it_for_long_is_told_whole() {
        let told = |days, obstacle: Obstacle| {
            let (record, all) = (record(days), [Obstacle::Behind, obstacle]);
            let now = situation(&record, &all);
            next(&now).condition(&name(), &now)
        };
        assert_eq!(told(31, Obstacle::NoCopy), None);
        assert_eq!(told(99, Obstacle::Busy("push")), None);
        let held = Obstacle::Held {
            name: name(),
            why: "something about it waits to be accepted by its owner".into(),
        };
        for obstacle in [Obstacle::NoCopy, Obstacle::Paused(name()), Obstacle::Clock, held] {
            let condition = told(32, obstacle).unwrap();
            assert!(condition.text.contains("2 days ago, but: "), "{condition:?}");
            assert!(
                !condition.text.contains('…') && !condition.advice.contains('…'),
                "{condition:?}"
            );
        }
    }

    #[test]
    fn a_client_that_always_deletes_something_is_told_of() {
        let mut often = record(3);
        let mut told = |since| {
            if let Some(deletion) = &mut often.deletion {
                deletion.since = since;
            }
            let now = situation(&often, &[]);
            assert_eq!(next(&now), Next::Quarantine(27));
            next(&now).condition(&name(), &now)
        };
        let newest = NOW - 3 * DAY;
        assert_eq!(told(0), None, "it isn't known");
        assert_eq!(told(newest - 59 * DAY), None);
        let condition = told(newest - 60 * DAY).unwrap();
        assert_eq!(condition.severity, Severity::Info);
        assert!(condition.text.contains("every 30 days for 60 days"), "{condition:?}");
        assert!(condition.advice.contains("every 37 days"), "{condition:?}");
        assert!(
            !condition.text.contains('…') && !condition.advice.contains('…'),
            "{condition:?}"
        );
    }

    proptest! {
        #[test]
        fn nothing_young_is_ever_freed(at in 0u64..3_000_000_000, counted in any::<u64>(), counts in any::<u16>(), now in 0u64..3_000_000_000, days in any::<u16>()) {
            let mut record = record(0);
            record.deletion = Some(Deletion { transaction: 9, at, days: counts, counted, since: at });
            let mut one = situation(&record, &[]);
            (one.days, one.now) = (days, Some(now));
            if next(&one) == Next::Compact {
                prop_assert!(now >= at + u64::from(days.clamp(7, 365)) * DAY);
                prop_assert!(counts >= 7);
            }
        }
    }
}
