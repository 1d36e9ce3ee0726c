//! What stands against a compaction, the only job that makes something go for good. Pure.

use super::{Obstacle, Surroundings, common};
use crate::name::ClientName;
use crate::verification::Verification;
use crate::watch::{RefusedCompaction, may_compact};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Borg's own threshold, `--threshold`: a segment is rewritten where more than this share of it can be freed, in per cent.
pub const THRESHOLD_PERCENT: u64 = 10;
const DAY: u64 = 24 * 3600;

/// What is known of the checks, by segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Committed segments that were never read.
    pub unread: usize,
    /// When the one that was read the longest time ago was read.
    pub oldest: Option<u64>,
}

/// What is known of the client's copies and checks.
pub struct Situation<'a> {
    /// What keeps any job off.
    pub around: Surroundings<'a>,
    /// The time, Unix seconds; none while the clock isn't trusted.
    pub now: Option<u64>,
    /// What the checks found.
    pub verification: &'a Verification,
    /// What was read, and when.
    pub reading: Reading,
    /// Days within which every segment has to have been read.
    pub check_days: u16,
    /// Each target, and the transaction that its copy is at.
    pub copies: &'a [(String, Option<u64>)],
}

/// All that stands against it.
pub fn obstacles(name: &ClientName, situation: &Situation<'_>) -> Vec<Obstacle> {
    let around = &situation.around;
    let mut all = common(around);
    if matches!(
        all.first(),
        Some(Obstacle::UnderWay(_) | Obstacle::NotMounted | Obstacle::NoBackup)
    ) {
        return all;
    }
    match may_compact(around.record, situation.verification, around.transaction) {
        Ok(()) => {}
        // Told above, in other words.
        Err(RefusedCompaction::NotWatched | RefusedCompaction::Behind) if !all.is_empty() => {}
        Err(RefusedCompaction::NotWatched | RefusedCompaction::Behind) => all.push(Obstacle::Behind),
        Err(why @ RefusedCompaction::Held(_)) => all.push(Obstacle::Held {
            name: name.clone(),
            why: why.to_string(),
        }),
        Err(RefusedCompaction::Damaged(_)) => {}
    }
    let damaged = situation.verification.unaccepted();
    if damaged > 0 {
        all.push(Obstacle::Damaged {
            name: name.clone(),
            segments: damaged,
        });
    }
    match situation.now {
        None => all.push(Obstacle::Clock),
        Some(now) => all.extend(unchecked(situation, now).map(|why| Obstacle::Unchecked {
            why,
            failed: !situation.verification.failed.is_empty(),
            name: name.clone(),
        })),
    }
    if situation.copies.is_empty() {
        all.push(Obstacle::NoCopy);
    }
    for (target, at) in situation.copies {
        if *at != around.transaction.map(u64::from) {
            all.push(Obstacle::CopyBehind {
                name: name.clone(),
                target: target.clone(),
                at: *at,
            });
        }
    }
    all
}

fn unchecked(situation: &Situation<'_>, now: u64) -> Option<String> {
    let reading = situation.reading;
    if !situation.verification.failed.is_empty() {
        let why = situation.verification.failed.trim_end_matches('.');
        return Some(format!("the last check failed: {why}"));
    }
    if reading.unread > 0 {
        let noun = if reading.unread == 1 {
            "segment was"
        } else {
            "segments were"
        };
        return Some(format!("{} {noun} never checked", reading.unread));
    }
    let Some(oldest) = reading.oldest else {
        return Some("it was never checked".into());
    };
    // A time ahead of the clock says nothing: one of the two was wrong.
    match now.checked_sub(oldest) {
        None => Some("a check bears a time that is yet to come".into()),
        Some(age) if age > u64::from(situation.check_days) * DAY => Some(format!(
            "parts of it have not been checked for {} days; {} are allowed",
            age / DAY,
            situation.check_days
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::Work;
    use crate::verification::Damage;
    use crate::watch::{Finding, Record};
    use alloc::vec;

    const NOW: u64 = 1_700_000_000;

    fn name() -> ClientName {
        ClientName::new("asus").unwrap()
    }

    fn record() -> Record {
        Record {
            repository: "ab".into(),
            audited: Some(21),
            ..Record::default()
        }
    }

    /// What stands after a change of the situation in which nothing stands.
    fn after(
        change: impl FnOnce(&mut Situation<'_>, &mut Vec<(String, Option<u64>)>, &mut Record, &mut Verification),
    ) -> Vec<String> {
        let (mut record, mut verification) = (record(), Verification::default());
        let mut copies = vec![("oracle".into(), Some(21))];
        let blank = (Record::default(), Verification::default());
        let mut situation = Situation {
            around: Surroundings {
                mounted: true,
                sessions: &[],
                busy: None,
                standing: None,
                transaction: Some(21),
                record: &blank.0,
            },
            now: Some(NOW),
            verification: &blank.1,
            reading: Reading {
                unread: 0,
                oldest: Some(NOW - 29 * DAY),
            },
            check_days: 30,
            copies: &[],
        };
        change(&mut situation, &mut copies, &mut record, &mut verification);
        let situation = Situation {
            around: Surroundings {
                record: &record,
                ..situation.around
            },
            verification: &verification,
            copies: &copies,
            ..situation
        };
        obstacles(&name(), &situation).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn it_goes_on_only_where_nothing_stands() {
        assert_eq!(after(|_, _, _, _| {}), Vec::<String>::new());
        type Change = fn(&mut Situation<'_>, &mut Vec<(String, Option<u64>)>, &mut Record, &mut Verification);
        let cases: &[(Change, &str)] = &[
            (|s, _, _, _| s.around.mounted = false, "not mounted"),
            (|s, _, _, _| s.around.transaction = None, "no repository"),
            (|s, _, _, _| s.around.transaction = Some(25), "not been looked at yet"),
            (|_, _, r, _| r.failed = "torn".into(), "can't be read: torn"),
            (|_, _, r, _| *r = Record::default(), "not been looked at"),
            (
                |_, _, r, _| r.find(Finding::ManifestLost, 1, Some(17), Some(21)),
                "strongroom client accept asus",
            ),
            (
                |_, _, _, v| v.damages = vec![Damage::default()],
                "1 of its segments are damaged",
            ),
            (
                |s, _, _, _| s.reading.unread = 3,
                "3 segments were never checked; `strongroom check asus`",
            ),
            (|s, _, _, _| s.reading.oldest = None, "never checked"),
            (
                |s, _, _, _| s.reading.oldest = Some(NOW - 31 * DAY),
                "for 31 days; 30 are allowed",
            ),
            (|s, _, _, _| s.reading.oldest = Some(NOW + 1), "yet to come"),
            (|_, _, _, v| v.failed = "no".into(), "the last check failed"),
            (|s, _, _, _| s.now = None, "clock"),
            (
                |_, c, _, _| c[0].1 = Some(17),
                "oracle is at transaction 17 only; `strongroom push asus`",
            ),
            (|_, c, _, _| c[0].1 = None, "oracle is not there yet"),
            (|_, c, _, _| c.clear(), "--without-off-site-copy"),
            (|s, _, _, _| s.around.busy = Some("push"), "a push of it is running"),
            (
                |s, _, _, _| s.around.standing = Some(Work::Compact { transaction: 21 }),
                "being compacted already",
            ),
        ];
        for (change, words) in cases {
            let told = after(change);
            assert!(told.iter().any(|text| text.contains(words)), "{words}: {told:?}");
        }
        let told = after(|s, c, _, _| {
            s.around.transaction = Some(25);
            s.now = None;
            c.push(("second".into(), Some(21)));
        });
        assert_eq!(told.len(), 4, "all that stands is told at once: {told:?}");
    }
}
