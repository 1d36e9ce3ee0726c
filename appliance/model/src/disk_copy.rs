//! Copies on a disk that is plugged in now and then: when one begins, and what to say while it can't. Pure.
//!
//! The schedule of pushes is that of all targets. A disk that is away when its time comes is not a failure: the copy is put
//! off, and begins once the disk is there. Only a copy that becomes too old is something to be warned of.

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::TargetName;
use alloc::format;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// How long after a copy that failed another is tried, if nobody asks and the disk stays plugged in, in seconds.
pub const RETRY: u64 = 3600;
const DAY: u64 = 24 * 3600;

/// What is plugged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Plugged {
    /// Nothing of that name.
    #[default]
    Away,
    /// The disk.
    Here,
    /// Something of that name that is left alone, and why.
    Unfit(String),
}

/// The last run of the job that copies to a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended, Unix seconds.
    pub at: u64,
    /// Why it failed; empty when it did not.
    pub error: String,
}

/// What is known of a disk and its copies.
#[derive(Clone, Debug, Default)]
pub struct Situation<'a> {
    /// The target.
    pub target: TargetName,
    /// The disk, by label or UUID.
    pub disk: &'a str,
    /// What is plugged in.
    pub plugged: Plugged,
    /// Whether the job is running.
    pub running: bool,
    /// Its last run since the disk was plugged in, or since the start.
    pub attempt: Option<&'a Attempt>,
    /// When it was last time for a push, Unix seconds; `None` before the first.
    pub scheduled: Option<u64>,
    /// When the oldest of its copies was made; `None` when some client has none yet.
    pub last_copy: Option<u64>,
    /// Whether somebody asked for a copy since the last one began.
    pub asked: bool,
    /// How old a copy may become, in days.
    pub remind_days: u16,
}

impl Situation<'_> {
    /// Whether a copy is owed: none was made since it was last time for one.
    fn is_due(&self) -> bool {
        match (self.last_copy, self.scheduled) {
            (None, _) => true,
            (Some(copy), Some(scheduled)) => scheduled > copy,
            (Some(_), None) => false,
        }
    }

    /// Whether the job is to be started now.
    pub fn begins(&self, now: u64) -> bool {
        if self.running || self.plugged != Plugged::Here {
            return false;
        }
        self.asked
            || match self.attempt {
                None => self.is_due(),
                Some(Attempt { at, error }) if !error.is_empty() => now.saturating_sub(*at) >= RETRY || *at > now,
                // Also where there was nothing to copy yet.
                Some(Attempt { at, .. }) => self.is_due() && self.scheduled.is_some_and(|scheduled| scheduled > *at),
            }
    }

    /// What a person should know. `now` is Unix seconds.
    pub fn decide(&self, now: u64) -> Option<Condition> {
        if self.running {
            return None;
        }
        let (target, disk) = (&self.target, self.disk);
        let (id, severity, text, advice) = match &self.plugged {
            Plugged::Unfit(why) => (
                ConditionId::DiskUnfit,
                Severity::Warning,
                format!("What is plugged in as the disk {disk} of target {target} is left alone: {why}."),
                "Pull it out, or correct `disk` of the target; docs/offsite.md tells which disks do.",
            ),
            Plugged::Away if self.is_due() || self.asked => {
                let days = self.last_copy.map(|copy| now.saturating_sub(copy) / DAY);
                let old = days.is_some_and(|days| days >= u64::from(self.remind_days));
                let age = match days {
                    None => "nothing was copied to it yet".into(),
                    Some(0) => "the last copy is less than a day old".into(),
                    Some(1) => "the last copy is a day old".into(),
                    Some(days) => format!("the last copy is {days} days old"),
                };
                (
                    ConditionId::DiskAway,
                    if old { Severity::Warning } else { Severity::Info },
                    format!("The disk {disk} of target {target} is not plugged in; {age}."),
                    "Plug it in: the copy begins by itself, and it is told here when the disk can be pulled out.",
                )
            }
            Plugged::Here if self.attempt.map_or(!self.is_due(), |attempt| attempt.error.is_empty()) => (
                ConditionId::DiskDone,
                Severity::Info,
                format!("The disk {disk} of target {target} has its copy, and is not mounted."),
                "It can be pulled out; best keep it in another house. Left in, it is copied to again at the next scheduled time.",
            ),
            Plugged::Here => match self.attempt.filter(|attempt| !attempt.error.is_empty()) {
                Some(Attempt { error, .. }) => (
                    ConditionId::DiskCopyFailed,
                    Severity::Warning,
                    format!("The copy to the disk {disk} of target {target} failed: {error}"),
                    "It is tried again within the hour, or at once when the disk is plugged in anew, or by `strongroom push`. What is whole on the disk stays so.",
                ),
                None => return None,
            },
            Plugged::Away => return None,
        };
        Some(Condition::new(id, severity, target.as_str(), &text, advice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const NOW: u64 = 100 * DAY;

    fn situation() -> Situation<'static> {
        Situation {
            target: TargetName::new("usb").unwrap(),
            disk: "BACKUP",
            plugged: Plugged::Here,
            scheduled: Some(NOW - 10),
            last_copy: Some(NOW - DAY),
            remind_days: 14,
            ..Situation::default()
        }
    }

    fn told(situation: &Situation<'_>, now: u64) -> Option<(ConditionId, Severity)> {
        situation
            .decide(now)
            .map(|condition| (condition.id, condition.severity))
    }

    #[test]
    fn a_copy_begins_when_it_is_owed_and_the_disk_is_there() {
        let owed = situation();
        assert!(owed.begins(NOW));
        for not in [
            Situation {
                plugged: Plugged::Away,
                asked: true,
                ..owed.clone()
            },
            Situation {
                plugged: Plugged::Unfit("x".into()),
                asked: true,
                ..owed.clone()
            },
            Situation {
                running: true,
                asked: true,
                ..owed.clone()
            },
            Situation {
                last_copy: Some(NOW - 5),
                ..owed.clone()
            },
            Situation {
                scheduled: None,
                ..owed.clone()
            },
        ] {
            assert!(!not.begins(NOW), "{not:?}");
        }
        let never = Situation {
            last_copy: None,
            scheduled: None,
            ..owed.clone()
        };
        assert!(never.begins(NOW));
        let current = Situation {
            last_copy: Some(NOW - 5),
            asked: true,
            ..owed
        };
        assert!(current.begins(NOW));
    }

    #[test]
    fn what_failed_is_tried_again_after_a_while_and_what_had_nothing_to_copy_at_the_next_time() {
        let attempt = |at, error: &str| Attempt {
            at,
            error: error.to_string(),
        };
        let failed = attempt(NOW, "it was pulled out");
        let owed = Situation {
            attempt: Some(&failed),
            ..situation()
        };
        assert!(!owed.begins(NOW + RETRY - 1) && owed.begins(NOW + RETRY));
        // A clock that was set back.
        assert!(owed.begins(NOW - 1));
        // Plugged in anew, nothing is remembered against it.
        assert!(
            Situation {
                attempt: None,
                ..owed.clone()
            }
            .begins(NOW)
        );
        let nothing = attempt(NOW, "");
        let empty = Situation {
            attempt: Some(&nothing),
            last_copy: None,
            ..situation()
        };
        assert!(!empty.begins(NOW + DAY));
        assert!(
            Situation {
                scheduled: Some(NOW + 1),
                ..empty
            }
            .begins(NOW + DAY)
        );
    }

    #[test]
    fn a_disk_that_is_away_is_no_alarm() {
        let away = Situation {
            plugged: Plugged::Away,
            ..situation()
        };
        assert_eq!(told(&away, NOW), Some((ConditionId::DiskAway, Severity::Info)));
        assert!(away.decide(NOW).unwrap().text.as_str().contains("a day old"));
        let old = Situation {
            last_copy: Some(NOW - 14 * DAY),
            ..away.clone()
        };
        assert_eq!(told(&old, NOW), Some((ConditionId::DiskAway, Severity::Warning)));
        assert!(old.decide(NOW).unwrap().text.as_str().contains("14 days old"));
        let never = Situation {
            last_copy: None,
            ..away.clone()
        };
        assert!(never.decide(NOW).unwrap().text.as_str().contains("nothing was copied"));
        // Nothing is owed, so nothing is missed.
        let current = Situation {
            last_copy: Some(NOW - 5),
            ..away.clone()
        };
        assert_eq!(told(&current, NOW), None);
        assert_eq!(
            told(&Situation { asked: true, ..current }, NOW),
            Some((ConditionId::DiskAway, Severity::Info))
        );
    }

    #[test]
    fn it_is_told_when_the_disk_can_be_pulled_out() {
        let done = Attempt {
            at: NOW,
            error: String::new(),
        };
        let here = Situation {
            attempt: Some(&done),
            last_copy: Some(NOW),
            ..situation()
        };
        assert_eq!(told(&here, NOW), Some((ConditionId::DiskDone, Severity::Info)));
        assert_eq!(
            told(
                &Situation {
                    running: true,
                    ..here.clone()
                },
                NOW
            ),
            None
        );
        let failed = Attempt {
            at: NOW,
            error: "full".into(),
        };
        let here = Situation {
            attempt: Some(&failed),
            ..here
        };
        assert_eq!(told(&here, NOW), Some((ConditionId::DiskCopyFailed, Severity::Warning)));
        let unfit = Situation {
            plugged: Plugged::Unfit("it is not connected by USB".into()),
            ..situation()
        };
        assert_eq!(told(&unfit, NOW), Some((ConditionId::DiskUnfit, Severity::Warning)));
    }
}
