//! What a daily comparison of an off-site copy with its ledger found, when the next is due, and what to say of it. Pure.
//!
//! The comparison goes by a list of the bucket, so it sees what is gone or has another size or ETag, and works while objects
//! are archived. Whether what is there can be read and decrypted is for a drill to say ([`crate::drill`]).

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::{ClientName, TargetName};
use crate::text::Text;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How old a comparison is before the next push makes another, in seconds: less than a day, since pushes come daily, but not
/// at the same second.
pub const PERIOD: u64 = 20 * 3600;
/// For how long comparisons may fail, while pushes end well, before that is told, in seconds.
pub const FAILING_WARNING: u64 = 7 * 24 * 3600;
/// Names that are kept of what was found.
pub const NAMES_MAX: usize = 3;

/// Objects of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// How many there are.
    pub count: u32,
    /// The names of some, below the prefix.
    pub some: heapless::Vec<Text<96>, NAMES_MAX>,
}

impl Found {
    /// Counts names, and keeps the first of them.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for name in names {
            found.count = found.count.saturating_add(1);
            // Those that do not fit are counted alone.
            let _ = found.some.push(name.into());
        }
        found
    }

    fn words(&self) -> String {
        let names: Vec<&str> = self.some.iter().map(Text::as_str).collect();
        let names = names.join(", ");
        match self.count {
            1 => format!("1 object ({names})"),
            count if count as usize == self.some.len() => format!("{count} objects ({names})"),
            count => format!("{count} objects (such as {names})"),
        }
    }
}

/// Why comparisons fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when, Unix seconds.
    pub since: u64,
    /// The reason of the last one.
    pub error: Text<280>,
}

/// What is known of one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyCheck {
    /// When a comparison was first tried, which is after the first push that ended well; Unix seconds.
    pub since: u64,
    /// When the last that came to its end did so, Unix seconds; what it found follows.
    pub at: Option<u64>,
    /// Objects compared.
    pub objects: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Those that are gone or have another size; the next push sends them again.
    pub lost: Found,
    /// Those of the right size whose ETag differs.
    pub altered: Found,
    /// Objects that no push wrote.
    pub foreign: Found,
    /// None when the last comparison came to its end.
    pub failing: Option<Failing>,
}

impl CopyCheck {
    /// Objects of the copy that are not what was sent.
    pub fn damaged(&self) -> u32 {
        self.lost.count.saturating_add(self.altered.count)
    }

    /// What is to be remembered after a comparison that could not be made.
    #[must_use]
    pub fn failed(last: Option<Self>, now: u64, error: &str) -> Self {
        let last = last.unwrap_or(Self {
            since: now,
            ..Self::default()
        });
        let since = last.failing.as_ref().map_or(now, |failing| failing.since);
        Self {
            failing: Some(Failing {
                since,
                error: error.into(),
            }),
            ..last
        }
    }
}

/// Whether a push that ended well is to be followed by a comparison. What was found wrong, or could not be looked at, is
/// looked at again each time; so is one that lies ahead of the clock.
pub fn is_due(last: Option<&CopyCheck>, now: u64) -> bool {
    let Some(last) = last else { return true };
    let clean = last.damaged() == 0 && last.foreign.count == 0 && last.failing.is_none();
    let recent = last.at.is_some_and(|at| at <= now && now - at < PERIOD);
    !(clean && recent)
}

/// Decides what a person should know. `last_push` is when a push last ended well, Unix seconds.
pub fn decide(client: &ClientName, target: &TargetName, check: &CopyCheck, last_push: Option<u64>) -> Vec<Condition> {
    let subject = format!("{client}@{target}");
    [
        damaged(client, target, check),
        foreign(client, target, check),
        failing(client, target, check, last_push),
    ]
    .into_iter()
    .flatten()
    .map(|(id, severity, text, advice)| Condition::new(id, severity, &subject, &text, &advice))
    .collect()
}

type Told = (ConditionId, Severity, String, String);

fn damaged(client: &ClientName, target: &TargetName, check: &CopyCheck) -> Option<Told> {
    let (lost, altered) = (&check.lost, &check.altered);
    let (what, advice) = match (lost.count, altered.count) {
        (0, 0) => return None,
        (_, 0) => (
            format!("{} of it are gone, damaged or of another size", lost.words()),
            format!(
                "The next push sends them again from the array; `strongroom push {client}` does it now. Find out who deletes there: a person, a rule of the bucket, or a stranger with its key."
            ),
        ),
        (0, _) => (
            format!("{} of it are not what was sent", altered.words()),
            format!(
                "`strongroom drill {client}` on a workstation shows whether they can be read. If not, give the target another `prefix`, and a new copy begins. Find out who writes there."
            ),
        ),
        _ => (
            format!(
                "{} of it are gone, damaged or of another size, and {} not what was sent",
                lost.words(),
                altered.words()
            ),
            format!(
                "The next push sends again what is gone: `strongroom push {client}`. `strongroom drill {client}` shows whether the others can be read; if not, give the target another `prefix`. Find out who changes things there."
            ),
        ),
    };
    Some((
        ConditionId::CopyDamaged,
        Severity::Alarm,
        format!("The copy of {client} at {target} is damaged: {what}."),
        advice,
    ))
}

fn foreign(client: &ClientName, target: &TargetName, check: &CopyCheck) -> Option<Told> {
    (check.foreign.count > 0).then(|| {
        (
            ConditionId::CopyForeign,
            Severity::Warning,
            format!(
                "The copy of {client} at {target} has company that no push of this appliance sent: {}.",
                check.foreign.words()
            ),
            "Does another appliance push to the same prefix? Give each its own. If the files are yours, move them away; if nobody knows them, replace the bucket's key.".into(),
        )
    })
}

fn failing(client: &ClientName, target: &TargetName, check: &CopyCheck, last_push: Option<u64>) -> Option<Told> {
    let failing = check.failing.as_ref()?;
    let pushed_since = last_push?.saturating_sub(failing.since);
    (pushed_since > FAILING_WARNING).then(|| {
        (
            ConditionId::CopyUnverified,
            Severity::Warning,
            format!(
                "The copy of {client} at {target} could not be compared with what was sent for more than a week: {}",
                failing.error
            ),
            "The bucket's key must be allowed to list (Oracle: OBJECT_INSPECT). `strongroom target probe` says what it may; docs/offsite.md has the policy.".into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn good(at: u64) -> CopyCheck {
        CopyCheck {
            since: 1_700_000_000,
            at: Some(at),
            objects: 10,
            ..CopyCheck::default()
        }
    }

    fn told(check: &CopyCheck, last_push: u64) -> Vec<(ConditionId, Severity)> {
        all(check, last_push).into_iter().map(|c| (c.id, c.severity)).collect()
    }

    fn all(check: &CopyCheck, last_push: u64) -> Vec<Condition> {
        let client = ClientName::new("asus").unwrap();
        decide(&client, &TargetName::new("oracle").unwrap(), check, Some(last_push))
    }

    #[test]
    fn one_comes_about_daily_and_after_trouble_each_time() {
        assert!(is_due(None, NOW));
        assert!(!is_due(Some(&good(NOW)), NOW));
        assert!(!is_due(Some(&good(NOW - PERIOD + 1)), NOW));
        assert!(is_due(Some(&good(NOW - PERIOD)), NOW));
        assert!(is_due(Some(&good(NOW + 1)), NOW), "the clock was wrong then, or is now");
        let bad = |change: fn(&mut CopyCheck)| {
            let mut check = good(NOW);
            change(&mut check);
            is_due(Some(&check), NOW)
        };
        assert!(bad(|check| check.lost.count = 1));
        assert!(bad(|check| check.altered.count = 1));
        assert!(bad(|check| check.foreign.count = 1));
        assert!(bad(|check| check.failing = Some(Failing::default())));
    }

    #[test]
    fn what_is_gone_or_altered_is_an_alarm_and_what_is_foreign_a_warning() {
        assert_eq!(told(&good(NOW), NOW), []);
        let mut check = good(NOW);
        check.lost = Found::of(["data/0/1.gpg", "data/0/2.gpg", "data/0/3.gpg", "data/0/4.gpg"]);
        let [condition] = all(&check, NOW).try_into().unwrap();
        assert_eq!(condition.id, ConditionId::CopyDamaged);
        assert_eq!(condition.severity, Severity::Alarm);
        assert!(
            condition
                .text
                .contains("4 objects (such as data/0/1.gpg, data/0/2.gpg, data/0/3.gpg)")
        );
        assert!(condition.advice.contains("strongroom push asus"));
        check.altered = Found::of(["config.abababab.gpg"]);
        check.foreign = Found::of(["holiday.jpg"]);
        assert_eq!(
            told(&check, NOW),
            [
                (ConditionId::CopyDamaged, Severity::Alarm),
                (ConditionId::CopyForeign, Severity::Warning)
            ]
        );
        assert_eq!(check.damaged(), 5);
        check.lost = Found::default();
        assert!(all(&check, NOW)[0].advice.contains("strongroom drill asus"));
    }

    #[test]
    fn comparisons_that_fail_are_told_after_a_week_of_pushes() {
        let first = CopyCheck::failed(None, NOW, "may not list");
        assert_eq!((first.since, first.at), (NOW, None));
        assert_eq!(told(&first, NOW + FAILING_WARNING), []);
        let warning = [(ConditionId::CopyUnverified, Severity::Warning)];
        assert_eq!(told(&first, NOW + FAILING_WARNING + 1), warning);
        // It counts from the first failure, and what was found before stands.
        let mut check = good(NOW - 5);
        check.foreign = Found::of(["x"]);
        let check = CopyCheck::failed(Some(check), NOW, "one");
        let check = CopyCheck::failed(Some(check), NOW + 100, "other");
        assert_eq!(
            check.failing,
            Some(Failing {
                since: NOW,
                error: "other".into()
            })
        );
        assert_eq!((check.at, check.foreign.count), (Some(NOW - 5), 1));
        // Where nothing is pushed, that is told elsewhere.
        let client = ClientName::new("asus").unwrap();
        assert_eq!(decide(&client, &TargetName::new("o").unwrap(), &first, None), []);
    }

    #[test]
    fn texts_fit() {
        let name = "data/1234/1234567.1800000000.gpg";
        let many = Found::of(core::iter::repeat_n(name, 1_000_000));
        let long = "x".repeat(31);
        let (client, target) = (ClientName::new(&long).unwrap(), TargetName::new(&long).unwrap());
        for (lost, altered) in [(&many, &many), (&many, &Found::default()), (&Found::default(), &many)] {
            let check = CopyCheck {
                lost: lost.clone(),
                altered: altered.clone(),
                foreign: many.clone(),
                ..good(NOW)
            };
            for condition in decide(&client, &target, &check, Some(NOW)) {
                assert!(
                    !condition.text.ends_with('…') && !condition.advice.ends_with('…'),
                    "{condition:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_and_reads_back(
            names in proptest::collection::vec("\\PC{0,200}", 0..20),
            at in any::<u64>(),
            now in any::<u64>(),
            last_push in any::<u64>(),
        ) {
            let found = Found::of(names.iter().map(String::as_str));
            prop_assert_eq!(found.count as usize, names.len());
            prop_assert!(found.some.len() <= NAMES_MAX);
            let mut check = good(at);
            (check.lost, check.foreign) = (found.clone(), found);
            let check = CopyCheck::failed(Some(check), now, &names.concat());
            let text = serde_json::to_string(&check).unwrap();
            prop_assert!(text.len() < 8 * 1024);
            prop_assert_eq!(serde_json::from_str::<CopyCheck>(&text).unwrap(), check.clone());
            // No time makes it panic.
            is_due(Some(&check), now);
            told(&check, last_push);
        }
    }
}
