//! What checks of a repository leave behind, which segments are due for one, and what to say of the outcome. Pure.
//!
//! The role `strongroom-verify` reads segments and keeps, for each, its SHA-256 and when it was last found sound. What is
//! due is derived from that alone, so that a check that was cut short goes on by itself.

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::ClientName;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Damages that are remembered one by one; further ones are counted.
pub const DAMAGES_MAX: usize = 64;
/// Archives named with one damage.
pub const TOUCHED_MAX: usize = 8;
/// Days that a segment may go without a check where nothing else is configured.
pub const CHECK_DAYS: u16 = 30;

const DAY: u64 = 24 * 3600;
/// Days by which a check may be late before it is mentioned: the appliance may have been off.
const OVERDUE_GRACE: u64 = 7 * DAY;

/// Whom a damage concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "known")]
pub enum Touched {
    /// It has not been traced yet.
    #[default]
    NotYet,
    /// It can't be told, and why.
    Untold {
        /// Why.
        why: String,
    },
    /// The repository is encrypted: only its client can tell.
    NeedKey {
        /// How many live objects are lost.
        objects: u64,
    },
    /// The list of archives is itself lost.
    ManifestLost,
    /// These archives lost something; none: all that was lost had been deleted before.
    Archives {
        /// How many there are.
        count: u32,
        /// The first of them.
        archives: Vec<TouchedArchive>,
    },
}

/// How far what is stored was compared with the names it is stored under, which no checksum of a file replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Not all of it yet, or it isn't known whether that takes a key.
    #[default]
    NotYet,
    /// All that was checked.
    Whole,
    /// Nothing: the names are made with the repository's key. Files were checked by their checksums and their SHA-256.
    NeedKey,
}

/// An archive that lost something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchedArchive {
    /// Its name, without control characters.
    pub name: String,
    /// Files that lost content.
    pub files: u64,
    /// The first of them.
    pub named: Vec<String>,
    /// Whether part of its list of files is lost.
    pub list_lost: bool,
}

/// A segment that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Damage {
    /// Its number; none for the repository as a whole.
    pub segment: Option<u32>,
    /// What is wrong, in words.
    pub what: String,
    /// When it was found first.
    pub found: u64,
    /// The archives that it concerns.
    pub touched: Touched,
    /// SHA-256 that it has now, where it is well-formed but not what it was.
    pub altered_to: Option<String>,
    /// Whether the file is as it was written, and what was stored in it was wrong then: no copy holds it better.
    pub stored_so: bool,
    /// Whether the owner knows of it and lives with it.
    pub accepted: bool,
}

/// What is known of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// The repository's identity, in hexadecimal digits.
    pub repository: String,
    /// When the first check of it began.
    pub since: u64,
    /// Everything is to be read that was not since then: the owner asked. 0: nobody ever did.
    pub asked: u64,
    /// The last `asked` that was done in full.
    pub answered: u64,
    /// When a run last came to its end.
    pub ended: Option<u64>,
    /// Every byte was found sound, or damaged, since then; none while some part was never read.
    pub oldest: Option<u64>,
    /// Committed segments, and their size.
    pub segments: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// What is wrong, by segment.
    pub damages: Vec<Damage>,
    /// Damages that did not fit.
    pub more_damages: u64,
    /// Whether Borg's index was there to see that no segment is missing or cut.
    pub index_used: bool,
    /// Whether objects' names tell what they hold without a key, as the last run found; none where it could not.
    pub comparable: Option<bool>,
    /// Since when every run has compared them.
    pub comparing_since: Option<u64>,
    /// Why the last run could not be done; empty when it could.
    pub failed: String,
}

impl Verification {
    /// Whether the owner asked for a check that has not been done in full.
    pub fn is_unfinished(&self) -> bool {
        self.asked > self.answered
    }

    /// How far contents were compared.
    pub fn compared(&self) -> Compared {
        match self.comparable {
            Some(false) => Compared::NeedKey,
            Some(true) if self.comparing_since.is_some_and(|since| self.oldest >= Some(since)) => Compared::Whole,
            _ => Compared::NotYet,
        }
    }

    /// Damages that the owner has not accepted.
    pub fn unaccepted(&self) -> usize {
        let listed = self.damages.iter().filter(|damage| !damage.accepted).count();
        listed.saturating_add(usize::try_from(self.more_damages).unwrap_or(usize::MAX))
    }

    /// Asks for everything to be read. Returns the mark with which [`Verification::answered`] will tell that it was.
    pub fn ask(&mut self, now: u64) -> u64 {
        if !self.is_unfinished() {
            self.asked = now.max(self.answered.saturating_add(1));
        }
        self.asked
    }

    /// Notes a damage. One that was known keeps its time, and its acceptance if it is the same.
    pub fn damage(&mut self, new: Damage) {
        if let Some(known) = self.damages.iter_mut().find(|known| known.segment == new.segment) {
            let same = known.what == new.what && known.altered_to == new.altered_to;
            let kept = Damage {
                found: known.found,
                accepted: known.accepted && same,
                touched: if same && new.touched == Touched::NotYet {
                    known.touched.clone()
                } else {
                    new.touched
                },
                ..new
            };
            *known = kept;
        } else if self.damages.len() < DAMAGES_MAX {
            let at = self
                .damages
                .partition_point(|known| known.segment.map_or(0, u64::from) <= new.segment.map_or(0, u64::from));
            self.damages.insert(at, new);
        } else {
            self.more_damages = self.more_damages.saturating_add(1);
        }
    }

    /// Takes a damage back: what it was about is sound.
    pub fn mended(&mut self, segment: Option<u32>) {
        self.damages.retain(|damage| damage.segment != segment);
    }

    /// As much of it as [`decide`] needs: the first damage whole, the others counted.
    #[must_use]
    pub fn summary(mut self) -> Self {
        if let Some(at) = self.damages.iter().position(|damage| !damage.accepted) {
            self.more_damages = self.unaccepted() as u64 - 1;
            self.damages = alloc::vec![self.damages.swap_remove(at)];
        } else {
            for damage in &mut self.damages {
                damage.what = String::new();
                damage.touched = Touched::NotYet;
            }
        }
        self
    }

    /// Takes note that the owner knows of all that is wrong.
    pub fn accept(&mut self) {
        for damage in &mut self.damages {
            damage.accepted = true;
        }
        self.more_damages = 0;
    }
}

/// A committed segment, and when it was last read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Its number.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last read; none: never.
    pub verified: Option<u64>,
}

/// Which segments a run reads: those never read, those that would get too old before the next days' runs, those not read
/// since `asked`; and of the others the oldest, so that each day does its share and no day has to do all.
pub fn due(segments: &[Age], now: u64, days: u16, asked: Option<u64>) -> BTreeSet<u32> {
    let days = u64::from(days.max(1));
    // A time ahead of the clock says nothing: one of the two was wrong.
    let age = |segment: &Age| segment.verified.and_then(|then| now.checked_sub(then));
    let must = |segment: &Age| match age(segment) {
        None => true,
        Some(age) => {
            age.saturating_add((2 * DAY).min(days * DAY / 2)) >= days * DAY
                || asked.is_some_and(|asked| segment.verified < Some(asked))
        }
    };
    let mut chosen: BTreeSet<u32> = segments.iter().filter(|one| must(one)).map(|one| one.number).collect();
    let total = segments.iter().fold(0_u64, |sum, one| sum.saturating_add(one.size));
    // A quarter more than the bare share: a day may be missed.
    let share = total.saturating_mul(5) / (days * 4);
    let old: u64 = segments
        .iter()
        .filter(|one| one.verified.is_some() && chosen.contains(&one.number))
        .fold(0, |sum, one| sum.saturating_add(one.size));
    let mut left = share.saturating_sub(old);
    let mut others: Vec<&Age> = segments
        .iter()
        // Read within the last day: enough for now.
        .filter(|one| !chosen.contains(&one.number) && age(one).is_some_and(|age| age >= DAY))
        .collect();
    others.sort_unstable_by_key(|one| (one.verified, one.number));
    for segment in others {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(segment.size);
        chosen.insert(segment.number);
    }
    chosen
}

/// Decides what a person should know. `now` is `None` while the clock isn't trusted.
pub fn decide(name: &ClientName, verification: &Verification, days: u16, now: Option<u64>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let unaccepted: Vec<&Damage> = verification.damages.iter().filter(|damage| !damage.accepted).collect();
    if let Some(first) = unaccepted.first() {
        conditions.push(damaged(name, first, verification.unaccepted() - 1));
    } else if !verification.damages.is_empty() {
        conditions.push(Condition::new(
            ConditionId::RepositoryDamaged,
            Severity::Info,
            name.as_str(),
            &format!(
                "{} segments of the repository of {name} are damaged, as you accepted.",
                verification.damages.len()
            ),
            &format!("`strongroom check {name}` takes this back once they are mended."),
        ));
    }
    if !verification.failed.is_empty() {
        conditions.push(Condition::new(
            ConditionId::CheckFailed,
            Severity::Warning,
            name.as_str(),
            &format!(
                "The repository of {name} could not be checked: {}.",
                verification.failed.trim_end_matches('.')
            ),
            &format!("`strongroom check {name}` tries again. If it stays so, make a report."),
        ));
    }
    // Something that was never read counts from the first check on: there is a run every day.
    let oldest = match verification.oldest {
        Some(oldest) => Some(oldest),
        None => verification.ended.and(Some(verification.since)),
    };
    let limit = u64::from(days) * DAY + OVERDUE_GRACE;
    if let Some((now, oldest)) = now.zip(oldest)
        && now.saturating_sub(oldest) > limit
    {
        conditions.push(Condition::new(
            ConditionId::CheckOverdue,
            Severity::Warning,
            name.as_str(),
            &format!(
                "Parts of the repository of {name} have not been checked for {} days; {days} are allowed.",
                now.saturating_sub(oldest) / DAY
            ),
            &format!(
                "Let the appliance run at the time of `check` in [schedule], or start one now with `strongroom check {name}`."
            ),
        ));
    }
    conditions
}

fn damaged(name: &ClientName, damage: &Damage, more: usize) -> Condition {
    let mut text = format!(
        "The repository of {name} is damaged: {}.",
        damage.what.trim_end_matches('.')
    );
    text.push_str(&touched_words(&damage.touched));
    if more > 0 {
        text.push_str(&format!(
            " {more} more segments are damaged; `strongroom client show {name}` lists them."
        ));
    }
    Condition::new(
        ConditionId::RepositoryDamaged,
        Severity::Alarm,
        name.as_str(),
        &text,
        &damage_advice(name, damage),
    )
}

fn damage_advice(name: &ClientName, damage: &Damage) -> String {
    match damage.segment {
        Some(_) if damage.stored_so => format!(
            "The client stored it so: test that machine's memory. `borg check --verify-data` there tells the rest; docs/clients.md, \"What is checked\". To live with it: `strongroom client accept {name}`."
        ),
        Some(segment) => format!(
            "Where the secret key is: `strongroom restore {name} --segment {segment} --output - … | ssh admin@HOST strongroom repair {name} {segment}`. To live with it: `strongroom client accept {name}`."
        ),
        None => format!(
            "`strongroom restore {name}` brings the repository back from off-site, if a push has it whole. Do not compact or repair before. To live with it: `strongroom client accept {name}`."
        ),
    }
}

/// A sentence, with a space before it; nothing while it is not known.
pub fn touched_words(touched: &Touched) -> String {
    const SHOWN: usize = 4;
    match touched {
        Touched::NotYet => String::new(),
        Touched::Untold { why } => format!(
            " Which archives it touches can't be told: {}.",
            why.trim_end_matches('.')
        ),
        Touched::NeedKey { objects: 0 } => " Nothing that is still in use is lost.".into(),
        Touched::NeedKey { objects } => format!(
            " {objects} pieces are lost; the repository is encrypted, so only `borg check --verify-data` on the client tells of which archives."
        ),
        Touched::ManifestLost => " The list of archives is lost.".into(),
        Touched::Archives { count: 0, .. } => " No archive is touched: what was lost had been deleted before.".into(),
        Touched::Archives { count, archives } => {
            let names: Vec<String> = archives
                .iter()
                .take(SHOWN)
                .map(|archive| {
                    if archive.list_lost {
                        format!("{} (part of its list of files)", archive.name)
                    } else if archive.files == 1 {
                        format!("{} (1 file)", archive.name)
                    } else {
                        format!("{} ({} files)", archive.name, archive.files)
                    }
                })
                .collect();
            let more = (*count as usize).saturating_sub(names.len());
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let noun = if *count == 1 { "archive" } else { "archives" };
            format!(" It touches {count} {noun}: {}{more}.", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    fn name() -> ClientName {
        ClientName::new("asus").unwrap()
    }

    fn age(number: u32, size: u64, verified: Option<u64>) -> Age {
        Age { number, size, verified }
    }

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn new_old_and_asked_for_segments_are_due() {
        let segments = [
            age(0, 1, None),
            age(1, 1, Some(NOW - 29 * DAY)),
            age(2, 1, Some(NOW + 5)),
            age(3, 0, Some(NOW - 3600)),
        ];
        assert_eq!(due(&segments, NOW, 30, None), BTreeSet::from([0, 1, 2]));
        assert_eq!(due(&segments, NOW, 30, Some(NOW - 60)), BTreeSet::from([0, 1, 2, 3]));
        assert_eq!(due(&[], NOW, 30, Some(NOW)), BTreeSet::new());
    }

    #[test]
    fn each_day_does_its_share_of_what_was_read_all_at_once() {
        let mut segments: Vec<Age> = (0..300).map(|number| age(number, 1000, Some(NOW))).collect();
        let mut most = 0;
        for day in 1..=120 {
            let now = NOW + day * DAY;
            let chosen = due(&segments, now, 30, None);
            for segment in &mut segments {
                if chosen.contains(&segment.number) {
                    segment.verified = Some(now);
                }
            }
            let oldest = segments
                .iter()
                .map(|segment| now - segment.verified.unwrap())
                .max()
                .unwrap();
            assert!(oldest <= 30 * DAY, "day {day}: {}", oldest / DAY);
            most = most.max(chosen.len());
        }
        assert!(most <= 14, "{most} of 300 on one day");
    }

    fn damage(segment: u32, what: &str) -> Damage {
        Damage {
            segment: Some(segment),
            what: what.into(),
            found: NOW,
            ..Damage::default()
        }
    }

    #[test]
    fn a_damage_stands_until_it_is_mended_or_accepted() {
        let mut verification = Verification::default();
        verification.damage(damage(
            7,
            "segment 7 is damaged: the checksum of the entry at byte 8 is wrong",
        ));
        verification.damages[0].touched = Touched::Archives {
            count: 1,
            archives: vec![TouchedArchive {
                name: "monday".into(),
                files: 2,
                named: vec!["home/a".into()],
                list_lost: false,
            }],
        };
        let told = decide(&name(), &verification, 30, None);
        assert_eq!(
            (told[0].id, told[0].severity),
            (ConditionId::RepositoryDamaged, Severity::Alarm)
        );
        assert!(
            told[0].text.contains("segment 7") && told[0].text.contains("monday (2 files)"),
            "{told:?}"
        );
        assert!(
            told[0]
                .advice
                .contains("strongroom restore asus --segment 7 --output - … | ssh admin@HOST strongroom repair asus 7")
        );
        // Found again: what was traced, and what was accepted, stays.
        let again = verification.damages[0].what.clone();
        verification.accept();
        verification.damage(damage(7, &again));
        assert!(verification.damages[0].accepted && verification.damages[0].touched != Touched::NotYet);
        assert_eq!(decide(&name(), &verification, 30, None)[0].severity, Severity::Info);
        verification.damage(damage(7, "worse"));
        assert_eq!(verification.unaccepted(), 1);
        verification.mended(Some(7));
        assert_eq!(decide(&name(), &verification, 30, None), []);
    }

    #[test]
    fn advice_is_told_whole() {
        let long = ClientName::new("a234567890123456789012345678901").unwrap();
        for segment in [None, Some(u32::MAX)] {
            let told = damaged(
                &long,
                &Damage {
                    segment,
                    ..Damage::default()
                },
                0,
            );
            assert!(
                told.advice.ends_with(&format!("`strongroom client accept {long}`.")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn damages_are_bounded_and_in_order() {
        let mut verification = Verification::default();
        for segment in (0..100).rev() {
            verification.damage(damage(segment, "x"));
        }
        assert_eq!(
            (verification.damages.len(), verification.more_damages),
            (DAMAGES_MAX, 36)
        );
        assert!(
            verification
                .damages
                .windows(2)
                .all(|two| two[0].segment < two[1].segment)
        );
        assert_eq!(verification.unaccepted(), 100);
        let text = decide(&name(), &verification, 30, None)[0].text.to_string();
        assert!(text.contains("99 more segments"), "{text}");
        let summary = verification.clone().summary();
        assert_eq!((summary.damages.len(), summary.unaccepted()), (1, 100));
        assert_eq!(
            decide(&name(), &summary, 30, None),
            decide(&name(), &verification, 30, None)
        );
        verification.accept();
        assert_eq!(
            decide(&name(), &verification.clone().summary(), 30, None),
            decide(&name(), &verification, 30, None)
        );
    }

    #[test]
    fn what_was_asked_for_is_answered_once() {
        let mut verification = Verification::default();
        let mark = verification.ask(NOW);
        assert!(verification.is_unfinished());
        assert_eq!(verification.ask(NOW + 9), mark, "one that is under way is enough");
        verification.answered = mark;
        assert!(!verification.is_unfinished());
        assert!(verification.ask(NOW - 1000) > mark, "whatever the clock says");
    }

    #[test]
    fn contents_count_as_compared_once_every_byte_was_read_by_runs_that_do() {
        let mut one = Verification {
            oldest: Some(NOW),
            comparing_since: Some(NOW + 1),
            comparable: Some(true),
            ..Verification::default()
        };
        assert_eq!(one.compared(), Compared::NotYet, "some was read before");
        one.oldest = Some(NOW + 1);
        assert_eq!(one.compared(), Compared::Whole);
        one.oldest = None;
        assert_eq!(one.compared(), Compared::NotYet);
        one.comparable = Some(false);
        assert_eq!(one.compared(), Compared::NeedKey);
        // As an older release left it.
        let old: Verification = serde_json::from_str("{\"oldest\": 5}").unwrap();
        assert_eq!(old.compared(), Compared::NotYet);
    }

    #[test]
    fn what_was_wrong_when_it_came_is_not_sought_in_a_copy() {
        let mut one = Verification::default();
        one.damage(Damage {
            segment: Some(7),
            stored_so: true,
            ..Damage::default()
        });
        let told = decide(&name(), &one, 30, Some(NOW));
        assert!(
            told[0].advice.contains("memory") && !told[0].advice.contains("repair"),
            "{told:?}"
        );
        one.damages[0].stored_so = false;
        assert!(decide(&name(), &one, 30, Some(NOW))[0].advice.contains("repair"));
    }

    #[test]
    fn a_check_that_does_not_come_is_told_and_a_new_repository_is_not() {
        let limit = 37 * DAY;
        let overdue = |verification: &Verification, now| {
            decide(&name(), verification, 30, now)
                .iter()
                .any(|condition| condition.id == ConditionId::CheckOverdue)
        };
        let checked = Verification {
            oldest: Some(NOW),
            ended: Some(NOW),
            ..Verification::default()
        };
        assert!(!overdue(&checked, Some(NOW + limit)) && overdue(&checked, Some(NOW + limit + 1)));
        assert!(!overdue(&checked, None));
        assert!(!overdue(&Verification::default(), Some(NOW)));
    }

    proptest! {
        #[test]
        fn nothing_gets_too_old_where_a_run_comes_each_day(
            sizes in proptest::collection::vec(0_u64..1_000_000, 1..40),
            days in 2_u16..60,
            start in proptest::collection::vec(proptest::option::of(0_u64..90), 40),
        ) {
            let mut segments: Vec<Age> = sizes.iter().zip(&start).enumerate()
                .map(|(number, (size, then))| age(number as u32, *size, then.map(|then| NOW - then * DAY)))
                .collect();
            for day in 0..u64::from(days) * 2 {
                let now = NOW + day * DAY;
                for number in due(&segments, now, days, None) {
                    segments[number as usize].verified = Some(now);
                }
                for segment in &segments {
                    prop_assert!(now - segment.verified.unwrap() < u64::from(days) * DAY);
                }
            }
        }

        #[test]
        fn no_times_overflow(now in any::<u64>(), days in any::<u16>(), verified in proptest::option::of(any::<u64>()), asked in proptest::option::of(any::<u64>())) {
            let _ = due(&[age(1, u64::MAX, verified), age(2, 0, None)], now, days, asked);
            let verification = Verification { oldest: verified, ..Verification::default() };
            let _ = decide(&name(), &verification, days, Some(now));
        }
    }
}
