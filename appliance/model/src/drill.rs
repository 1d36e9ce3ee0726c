//! Restore drills: what was tried on a workstation, which alone has the secret key, and how it went; what is remembered of
//! that, and what to say of it. Pure.
//!
//! A copy that was never restored is a hope. `strongroom drill` restores it to scratch space (or some of its objects,
//! which is lighter), and the record of that is handed to the appliance, which asks for another in time.

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::{ClientName, TargetName};
use crate::text::Text;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Version of the record's form.
pub const VERSION: u16 = 1;
/// Longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;
/// How far the two clocks may differ, in seconds.
pub const SLACK: u64 = 300;
/// After how many days a drill is due again when nothing is said.
pub const DRILL_DAYS: u16 = 180;
/// Most days that can be said.
pub const DRILL_DAYS_MAX: u16 = 3650;
const DAY: u64 = 24 * 3600;

/// How much was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// All of a state, as a repository.
    Whole,
    /// Some objects, whose sums alone were compared.
    Sample,
}

/// What Borg checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BorgCheck {
    /// Nothing.
    #[default]
    None,
    /// The repository; its archives need a passphrase that nobody gave.
    Repository,
    /// The repository and its archives.
    Whole,
}

/// A file that was taken out of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extracted {
    /// The archive.
    pub archive: Text<128>,
    /// The file's path in it.
    pub path: Text<256>,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: Text<64>,
}

/// The record of one drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// [`VERSION`].
    pub version: u16,
    /// Whose copy.
    pub client: ClientName,
    /// At which target; none where the bucket was given without the configuration's name for it.
    pub target: Option<TargetName>,
    /// How much of it.
    pub kind: Kind,
    /// The state; none when it failed before that was known.
    pub transaction: Option<u64>,
    /// When it was begun, Unix seconds, by the workstation's clock.
    pub begun: u64,
    /// How long it took, waiting for an archive included.
    pub seconds: u64,
    /// Objects that were restored and verified.
    pub objects: u64,
    /// The sizes of what was in them, together, in bytes.
    pub bytes: u64,
    /// What Borg checked.
    pub borg: BorgCheck,
    /// The file that was taken out.
    pub file: Option<Extracted>,
    /// Why it failed; empty when it went well.
    pub error: Text<280>,
}

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    /// Nothing came.
    #[error("there is no record; hand over what `strongroom drill` printed on standard output")]
    Empty,
    /// More than any record has.
    #[error(
        "a record has {RECORD_BYTES_MAX} bytes at most; hand over what `strongroom drill` printed on standard output"
    )]
    TooLong,
    /// Not a record.
    #[error("that is not the record of a drill: {0}")]
    Form(String),
    /// Of another release.
    #[error("the record is of version {0}, and this release knows version {VERSION}: update one of the two")]
    Version(u16),
    /// It says that all went well, but not what.
    #[error("the record says that all went well, but not of which state, or of how many objects")]
    Hollow,
    /// Nobody's.
    #[error("there is no client `{0}`; `strongroom status` lists them")]
    NoClient(ClientName),
    /// The client has no such copy.
    #[error("client `{0}` has no target `{1}`; it has {2}")]
    NoTarget(ClientName, TargetName, String),
    /// It does not say which.
    #[error(
        "the record names no target, and client `{0}` has {1}; have the drill take the bucket from strongroom.toml (--config)"
    )]
    WhichTarget(ClientName, String),
    /// A state that was never pushed.
    #[error(
        "the record is of transaction {0}, and {1} pushed to that target yet. Was it another bucket, or another appliance? (After a reflash, push first.)"
    )]
    NoTransaction(u64, String),
    /// The clocks differ.
    #[error("the record says that the drill ends in the future; compare the workstation's clock with the appliance's")]
    Future,
}

impl Drill {
    /// Reads a record.
    ///
    /// Errors: [`DrillError`], as far as the record alone tells.
    pub fn parse(json: &[u8]) -> Result<Self, DrillError> {
        #[derive(Deserialize)]
        struct Version {
            version: u16,
        }
        if json.iter().all(u8::is_ascii_whitespace) {
            return Err(DrillError::Empty);
        }
        if json.len() > RECORD_BYTES_MAX {
            return Err(DrillError::TooLong);
        }
        let form = |error: serde_json::Error| DrillError::Form(error.to_string());
        let Version { version } = serde_json::from_slice(json).map_err(form)?;
        if version != VERSION {
            return Err(DrillError::Version(version));
        }
        serde_json::from_slice::<Self>(json).map_err(form)?.checked()
    }

    fn checked(self) -> Result<Self, DrillError> {
        let hollow = self.transaction.is_none()
            || self.objects == 0
            || (self.kind == Kind::Whole && self.borg == BorgCheck::None);
        if self.passed() && hollow {
            return Err(DrillError::Hollow);
        }
        Ok(self)
    }

    /// Whether it went well.
    pub fn passed(&self) -> bool {
        self.error.is_empty()
    }

    /// When it came to its end, Unix seconds, by the workstation's clock.
    pub fn ended(&self) -> u64 {
        self.begun.saturating_add(self.seconds)
    }

    /// Takes a record if it can be true of this appliance, with its target named. `targets` are the client's, with the
    /// transaction that each is at; `None` when there is no such client. `now` is Unix seconds.
    ///
    /// Errors: [`DrillError`].
    pub fn admitted(self, targets: Option<&[(TargetName, Option<u64>)]>, now: u64) -> Result<Self, DrillError> {
        let drill = self.checked()?;
        let Some(targets) = targets else {
            return Err(DrillError::NoClient(drill.client));
        };
        let names = || match targets {
            [] => "none".to_string(),
            _ => {
                let names: Vec<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
                names.join(", ")
            }
        };
        let (target, at) = match (&drill.target, targets) {
            (Some(named), _) => targets
                .iter()
                .find(|(known, _)| known == named)
                .ok_or_else(|| DrillError::NoTarget(drill.client.clone(), named.clone(), names()))?,
            (None, [only]) => only,
            (None, _) => return Err(DrillError::WhichTarget(drill.client, names())),
        };
        if let Some(transaction) = drill.transaction.filter(|of| at.is_none_or(|at| *of > at)) {
            let known = at.map_or("nothing was".into(), |at| {
                format!("transaction {at} is the last that was")
            });
            return Err(DrillError::NoTransaction(transaction, known));
        }
        if drill.ended() > now.saturating_add(SLACK) {
            return Err(DrillError::Future);
        }
        Ok(Self {
            target: Some(target.clone()),
            ..drill
        })
    }

    /// Whether it shows that what `failed` found wrong is right again.
    fn cures(&self, failed: &Self) -> bool {
        self.passed()
            && self.client == failed.client
            && self.target == failed.target
            && self.ended() >= failed.ended()
            && (self.kind == Kind::Whole || failed.kind == Kind::Sample)
    }

    fn is_of_the_same(&self, other: &Self) -> bool {
        self.client == other.client
            && self.target == other.target
            && self.kind == other.kind
            && self.passed() == other.passed()
    }
}

/// What is known of a client's drills, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDrill {
    /// When all of a copy was last restored well, Unix seconds; none for never.
    pub whole: Option<u64>,
    /// How long that took, in seconds.
    pub seconds: Option<u64>,
    /// When a sample of a copy was last restored well.
    pub sample: Option<u64>,
    /// When a drill failed that none has made good since.
    pub failed: Option<u64>,
}

/// All drills that are remembered: of each copy and kind the last that went well, and the last that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Drills(Vec<Drill>);

impl Drills {
    /// Takes note of a drill. Of two of the same kind and outcome the later counts.
    pub fn record(&mut self, drill: Drill) {
        match self.0.iter_mut().find(|known| known.is_of_the_same(&drill)) {
            Some(known) if known.ended() > drill.ended() => {}
            Some(known) => *known = drill,
            None => self.0.push(drill),
        }
    }

    /// Forgets those of copies that are not.
    pub fn retain(&mut self, is_copy: impl Fn(&ClientName, &TargetName) -> bool) {
        self.0.retain(|drill| {
            drill
                .target
                .as_ref()
                .is_some_and(|target| is_copy(&drill.client, target))
        });
    }

    fn of<'a>(&'a self, client: &'a ClientName) -> impl Iterator<Item = &'a Drill> {
        self.0.iter().filter(move |drill| drill.client == *client)
    }

    /// The failed drills of a client that none has made good since.
    fn standing<'a>(&'a self, client: &'a ClientName) -> impl Iterator<Item = &'a Drill> {
        self.of(client)
            .filter(|drill| !drill.passed())
            .filter(move |failed| !self.0.iter().any(|other| other.cures(failed)))
    }

    /// What is known of a client's.
    pub fn last(&self, client: &ClientName) -> LastDrill {
        let passed = |kind: Kind| {
            let passed = self
                .of(client)
                .filter(move |drill| drill.passed() && drill.kind == kind);
            passed.max_by_key(|drill| drill.ended())
        };
        let whole = passed(Kind::Whole);
        LastDrill {
            whole: whole.map(Drill::ended),
            seconds: whole.map(|drill| drill.seconds),
            sample: passed(Kind::Sample).map(Drill::ended),
            failed: self.standing(client).map(Drill::ended).max(),
        }
    }

    /// Decides what a person should know of a client's drills. `copied_since` is since when there is a copy; `None` while there
    /// is none. `days` is after how many another is due; 0 for never. `now` is `None` while the clock isn't trusted.
    pub fn decide(
        &self,
        client: &ClientName,
        copied_since: Option<u64>,
        days: u16,
        now: Option<u64>,
    ) -> Vec<Condition> {
        let failed = self.standing(client).map(|failed| {
            let target = failed.target.as_ref().map_or("", |target| target.as_str());
            Condition::new(
                ConditionId::DrillFailed,
                Severity::Alarm,
                &format!("{client}@{target}"),
                &format!(
                    "A restore of {client} from its copy at {target} was tried and failed: {}",
                    failed.error
                ),
                "What is gone from the bucket is sent again by a push; docs/recovery.md tells more. Then try again: this stands until the record of a drill that went well is handed over.",
            )
        });
        failed.chain(self.due(client, copied_since, days, now)).collect()
    }

    fn due(&self, client: &ClientName, copied_since: Option<u64>, days: u16, now: Option<u64>) -> Option<Condition> {
        let last = self.last(client).whole;
        let since = now?.checked_sub(last.unwrap_or(copied_since?))?;
        if days == 0 || since <= u64::from(days) * DAY {
            return None;
        }
        let text = if last.is_some() {
            format!("No restore of {client} from its off-site copy was tried for more than {days} days.")
        } else {
            format!("{client} has been copied off-site for more than {days} days, and no restore of it was ever tried.")
        };
        Some(Condition::new(
            ConditionId::DrillDue,
            Severity::Warning,
            client.as_str(),
            &text,
            &format!(
                "On a computer with Borg and the recovery key: `strongroom drill {client}`; docs/recovery.md shows how. `drill_days` in [offsite] says how often you are asked."
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn name(name: &str) -> ClientName {
        ClientName::new(name).unwrap()
    }

    fn target(name: &str) -> TargetName {
        TargetName::new(name).unwrap()
    }

    fn drill(at: &str, kind: Kind, ended: u64, error: &str) -> Drill {
        Drill {
            version: VERSION,
            client: name("asus"),
            target: Some(target(at)),
            kind,
            transaction: Some(17),
            begun: ended.saturating_sub(60),
            seconds: 60,
            objects: 14,
            bytes: 1_000_000,
            borg: if kind == Kind::Whole {
                BorgCheck::Whole
            } else {
                BorgCheck::None
            },
            file: None,
            error: error.into(),
        }
    }

    fn told(drills: &Drills, now: u64) -> Vec<(ConditionId, Severity)> {
        let conditions = drills.decide(&name("asus"), Some(NOW), DRILL_DAYS, Some(now));
        conditions.into_iter().map(|c| (c.id, c.severity)).collect()
    }

    #[test]
    fn a_record_reads_back_and_what_is_none_is_refused() {
        let mut good = drill("oracle", Kind::Whole, NOW, "");
        good.file = Some(Extracted {
            archive: "monday".into(),
            path: "home/me/a.jpg".into(),
            bytes: 5,
            sha256: "ab".into(),
        });
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(Drill::parse(text.as_bytes()), Ok(good.clone()));
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Drill::parse(text.replace(from, to).as_bytes()).unwrap_err()
        };
        assert_eq!(Drill::parse(b" \n"), Err(DrillError::Empty));
        assert_eq!(Drill::parse(&[b' '; RECORD_BYTES_MAX + 1]), Err(DrillError::Empty));
        assert_eq!(Drill::parse(&[b'1'; RECORD_BYTES_MAX + 1]), Err(DrillError::TooLong));
        assert_eq!(refused("\"version\":1", "\"version\":2"), DrillError::Version(2));
        assert!(matches!(refused("\"asus\"", "\"../x\""), DrillError::Form(_)));
        assert!(matches!(
            refused("\"begun\"", "\"more\":1,\"begun\""),
            DrillError::Form(_)
        ));
        assert!(matches!(refused("\"whole\"", "\"half\""), DrillError::Form(_)));
        assert_eq!(refused("\"objects\":14", "\"objects\":0"), DrillError::Hollow);
        assert_eq!(
            refused("\"transaction\":17", "\"transaction\":null"),
            DrillError::Hollow
        );
        assert_eq!(refused("\"borg\":\"whole\"", "\"borg\":\"none\""), DrillError::Hollow);
        // One that failed need not know so much.
        let failed = text
            .replace("\"error\":\"\"", "\"error\":\"it is damaged\"")
            .replace("\"transaction\":17", "\"transaction\":null")
            .replace("\"objects\":14", "\"objects\":0");
        assert!(!Drill::parse(failed.as_bytes()).unwrap().passed());
    }

    #[test]
    fn only_what_can_be_true_is_taken() {
        let targets = [(target("oracle"), Some(17)), (target("usb"), None)];
        let take = |drill: Drill| drill.admitted(Some(&targets), NOW);
        let good = drill("oracle", Kind::Whole, NOW, "");
        assert_eq!(take(good.clone()), Ok(good.clone()));
        assert_eq!(
            good.clone().admitted(None, NOW),
            Err(DrillError::NoClient(name("asus")))
        );
        let elsewhere = take(drill("nas", Kind::Whole, NOW, "")).unwrap_err();
        assert!(elsewhere.to_string().contains("it has oracle, usb"), "{elsewhere}");
        let unnamed = Drill {
            target: None,
            ..good.clone()
        };
        assert!(matches!(take(unnamed.clone()), Err(DrillError::WhichTarget(..))));
        assert_eq!(unnamed.clone().admitted(Some(&targets[..1]), NOW), Ok(good.clone()));
        assert!(matches!(
            unnamed.admitted(Some(&[]), NOW),
            Err(DrillError::WhichTarget(..))
        ));
        let later = Drill {
            transaction: Some(18),
            ..good.clone()
        };
        assert!(matches!(take(later), Err(DrillError::NoTransaction(18, _))));
        assert!(matches!(
            take(drill("usb", Kind::Whole, NOW, "")),
            Err(DrillError::NoTransaction(17, _))
        ));
        assert!(take(drill("oracle", Kind::Whole, NOW + SLACK, "")).is_ok());
        assert_eq!(
            take(drill("oracle", Kind::Whole, NOW + SLACK + 1, "")),
            Err(DrillError::Future)
        );
        let endless = Drill {
            seconds: u64::MAX,
            ..good
        };
        assert_eq!(take(endless), Err(DrillError::Future));
    }

    #[test]
    fn a_drill_is_asked_for_in_time_and_not_before() {
        let mut drills = Drills::default();
        let days = u64::from(DRILL_DAYS) * DAY;
        let due = [(ConditionId::DrillDue, Severity::Warning)];
        // Counted from the first copy, then from the last drill of all of it.
        assert_eq!(told(&drills, NOW + days), []);
        assert_eq!(told(&drills, NOW + days + 1), due);
        drills.record(drill("oracle", Kind::Sample, NOW + days, ""));
        assert_eq!(told(&drills, NOW + days + 1), due);
        drills.record(drill("oracle", Kind::Whole, NOW + days, ""));
        assert_eq!(told(&drills, NOW + 2 * days), []);
        assert_eq!(told(&drills, NOW + 2 * days + 1), due);
        let asus = name("asus");
        for (copied, days, now) in [
            (None, 1, Some(2 * NOW)),
            (Some(NOW), 0, Some(2 * NOW)),
            (Some(NOW), 1, None),
            (Some(NOW), 1, Some(0)),
        ] {
            assert_eq!(drills.decide(&asus, copied, days, now), []);
        }
        assert_eq!(drills.last(&name("laptop")), LastDrill::default());
    }

    #[test]
    fn a_failure_stands_until_it_is_made_good() {
        let mut drills = Drills::default();
        let failed = [(ConditionId::DrillFailed, Severity::Alarm)];
        drills.record(drill("oracle", Kind::Whole, NOW, "data/0/1.gpg: damaged"));
        assert_eq!(told(&drills, NOW), failed);
        assert_eq!(drills.last(&name("asus")).failed, Some(NOW));
        // Not by what was before, by less, or by another copy.
        drills.record(drill("oracle", Kind::Whole, NOW - 1, ""));
        drills.record(drill("oracle", Kind::Sample, NOW + 1, ""));
        drills.record(drill("usb", Kind::Whole, NOW + 1, ""));
        assert_eq!(told(&drills, NOW), failed);
        drills.record(drill("oracle", Kind::Whole, NOW + 2, ""));
        assert_eq!(told(&drills, NOW), []);
        drills.record(drill("oracle", Kind::Sample, NOW + 3, "damaged"));
        assert_eq!(told(&drills, NOW), failed);
        drills.record(drill("oracle", Kind::Sample, NOW + 4, ""));
        assert_eq!(told(&drills, NOW), []);
        let last = drills.last(&name("asus"));
        assert_eq!(
            (last.whole, last.sample, last.failed),
            (Some(NOW + 2), Some(NOW + 4), None)
        );
        // An older record that comes late changes nothing.
        drills.record(drill("oracle", Kind::Whole, NOW - 5, "damaged"));
        assert_eq!(told(&drills, NOW), []);
        drills.retain(|_, at| at.as_str() == "usb");
        assert_eq!(drills.0.len(), 1);
    }

    #[test]
    fn texts_fit() {
        let long = "x".repeat(31);
        let mut failed = drill(&long, Kind::Whole, NOW, &"e".repeat(280));
        failed.client = name(&long);
        let mut drills = Drills::default();
        drills.record(failed);
        let conditions = drills.decide(&name(&long), Some(0), DRILL_DAYS_MAX, Some(NOW));
        assert_eq!(conditions.len(), 2);
        for condition in conditions {
            assert!(
                !condition.text.ends_with('…') && !condition.advice.ends_with('…'),
                "{condition:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_bounded_and_in_any_order(
            records in proptest::collection::vec((0u8..2, any::<bool>(), any::<bool>(), 0u64..100), 0..60)
                .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        ) {
            let all = |records: &[(u8, bool, bool, u64)]| {
                let mut drills = Drills::default();
                for (at, whole, failed, ended) in records {
                    let kind = if *whole { Kind::Whole } else { Kind::Sample };
                    let error = if *failed { "damaged" } else { "" };
                    drills.record(drill(if *at == 0 { "a" } else { "b" }, kind, NOW + ended, error));
                }
                drills
            };
            let (one, other) = (all(&records.0), all(&records.1));
            prop_assert!(one.0.len() <= 8);
            prop_assert_eq!(one.last(&name("asus")), other.last(&name("asus")));
            // A failure stands if and only if the last word on that copy, of that kind or of all of it, is bad.
            let stands = (0..2).any(|copy| {
                let of = |wanted: fn(bool) -> bool, failed: bool| {
                    let of = records.0.iter().filter(|(at, whole, bad, _)| {
                        *at == copy && wanted(*whole) && *bad == failed
                    });
                    of.map(|(_, _, _, ended)| *ended).max()
                };
                let whole_failed = of(|whole| whole, true);
                whole_failed.is_some_and(|bad| of(|whole| whole, false).is_none_or(|good| good < bad))
                    || of(|whole| !whole, true).is_some_and(|bad| of(|_| true, false).is_none_or(|good| good < bad))
            });
            prop_assert_eq!(one.last(&name("asus")).failed.is_some(), stands);
        }
    }
}
