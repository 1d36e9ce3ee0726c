//! What a scrub leaves behind, and what to say of it. Pure.
//!
//! A scrub reads everything that is used on the array, so that a sector that has gone bad is found while the off-site
//! copy is there to mend it, and not in a restore.

use crate::condition::{Condition, ConditionId, Severity};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Unreadable places remembered by name; further ones are counted.
pub const PLACES_MAX: usize = 32;
/// How long an array may go without a scrub that came to its end, in seconds: three months, of which one is the
/// schedule's.
const OVERDUE: u64 = 92 * 24 * 3600;

/// A range of the array that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Where on the array it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Serial of the disk that holds it; empty when not known.
    pub serial: String,
    /// The file that it belongs to, from the array's root; empty when it belongs to none or that is not known.
    pub file: String,
}

/// One scrub, running or over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrub {
    /// Identity of the array's file system; a scrub of another one means nothing here.
    pub array: String,
    /// When it began.
    pub begun: u64,
    /// When it came to its end; `None` while it has not.
    pub ended: Option<u64>,
    /// Everything before this byte of the array has been seen to.
    pub position: u64,
    /// Bytes read.
    pub done_bytes: u64,
    /// Bytes to read.
    pub total_bytes: u64,
    /// What could not be read, the first of it.
    pub unreadable: Vec<Unreadable>,
    /// Bytes that could not be read, in all.
    pub unreadable_bytes: u64,
    /// Why it could not go on; empty when it could.
    pub failed: String,
}

impl Scrub {
    /// Whether it was cut short and waits to be taken up again.
    pub fn is_unfinished(&self) -> bool {
        self.begun > 0 && self.ended.is_none() && self.failed.is_empty()
    }

    /// Adds a range that could not be read. What touches the last one belongs to it.
    pub fn add_unreadable(&mut self, offset: u64, length: u64, serial: &str) {
        self.unreadable_bytes = self.unreadable_bytes.saturating_add(length);
        if let Some(last) = self.unreadable.last_mut()
            && last.offset + last.length == offset
            && last.serial == serial
        {
            last.length += length;
        } else if self.unreadable.len() < PLACES_MAX {
            self.unreadable.push(Unreadable {
                offset,
                length,
                serial: serial.to_string(),
                file: String::new(),
            });
        }
    }
}

/// Both scrubs that matter: the last that came to its end, and the one that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrubs {
    /// The last that came to its end.
    pub last: Option<Scrub>,
    /// The one that is under way, was cut short, or failed.
    pub current: Option<Scrub>,
}

/// What a person should know. `now` is `None` while the clock isn't trusted.
pub fn decide(scrubs: &Scrubs, now: Option<u64>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    // The newer account counts: what a later scrub could read is mended.
    let telling = scrubs
        .current
        .as_ref()
        .filter(|scrub| scrub.unreadable_bytes > 0)
        .or(scrubs.last.as_ref());
    if let Some(scrub) = telling
        && scrub.unreadable_bytes > 0
    {
        conditions.push(unreadable(scrub));
    }
    if let Some(scrub) = scrubs.current.as_ref().filter(|scrub| !scrub.failed.is_empty()) {
        conditions.push(Condition::new(
            ConditionId::ScrubFailed,
            Severity::Warning,
            "array",
            &format!("The scrub could not be done: {}.", scrub.failed),
            "`strongroom scrub` tries again. If it stays so, make a report of the system's log.",
        ));
    }
    // One that never was comes by itself within a month: the timer makes up for what was missed.
    let ended = scrubs.last.as_ref().and_then(|scrub| scrub.ended);
    if let Some((now, ended)) = now.zip(ended)
        && now.saturating_sub(ended) > OVERDUE
    {
        conditions.push(Condition::new(
            ConditionId::ScrubOverdue,
            Severity::Warning,
            "array",
            "The array has not been read through for more than three months, so it is not known whether all of it still can be read.",
            "Let the appliance run at the time of `scrub` in [schedule], or start one now with `strongroom scrub`.",
        ));
    }
    conditions
}

fn unreadable(scrub: &Scrub) -> Condition {
    const SHOWN: usize = 3;
    let mut files: Vec<&str> = Vec::new();
    let mut serials: Vec<&str> = Vec::new();
    for place in &scrub.unreadable {
        if !place.file.is_empty() && !files.contains(&place.file.as_str()) {
            files.push(&place.file);
        }
        if !place.serial.is_empty() && !serials.contains(&place.serial.as_str()) {
            serials.push(&place.serial);
        }
    }
    let of_files = match files.len() {
        0 => " They belong to no file that is known.".into(),
        number if number <= SHOWN => format!(" They belong to {}.", files.join(", ")),
        number => format!(
            " They belong to {} and {} more.",
            files[..SHOWN].join(", "),
            number - SHOWN
        ),
    };
    let on_disks = match serials.len() {
        0 => String::new(),
        1 => format!(" on disk {}", serials[0]),
        _ => format!(" on disks {}", serials.join(", ")),
    };
    Condition::new(
        ConditionId::ScrubUnreadable,
        Severity::Alarm,
        serials.first().unwrap_or(&"array"),
        &format!(
            "The scrub could not read {} bytes{on_disks}.{of_files}",
            scrub.unreadable_bytes
        ),
        "Copy the other repositories off-site now (`strongroom push`), then replace the disk and restore. A damaged repository is whole only in a copy made before the damage; without one, `borg check` on the client tells which backups are hit.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(ended: Option<u64>) -> Scrub {
        Scrub {
            begun: 1_700_000_000,
            ended,
            ..Scrub::default()
        }
    }

    #[test]
    fn what_could_not_be_read_names_files_and_disks() {
        let mut bad = scrub(None);
        bad.add_unreadable(4096, 4096, "WD-1");
        bad.add_unreadable(8192, 4096, "WD-1");
        bad.add_unreadable(1 << 30, 4096, "WD-1");
        assert_eq!(bad.unreadable.len(), 2);
        bad.unreadable[0].file = "laptop_repository/data/0/17".into();
        let scrubs = Scrubs {
            current: Some(bad),
            ..Scrubs::default()
        };
        let [condition] = &decide(&scrubs, None)[..] else {
            panic!("one condition");
        };
        assert_eq!(condition.subject.as_str(), "WD-1");
        assert_eq!(
            condition.text.as_str(),
            "The scrub could not read 12288 bytes on disk WD-1. They belong to laptop_repository/data/0/17."
        );
    }

    #[test]
    fn a_later_scrub_that_read_everything_ends_the_alarm() {
        let mut bad = scrub(Some(1_700_000_000));
        bad.add_unreadable(0, 4096, "");
        let mut scrubs = Scrubs {
            last: Some(bad),
            current: Some(scrub(None)),
        };
        assert_eq!(decide(&scrubs, None).len(), 1, "not before it came to its end");
        scrubs.last = scrubs.current.take();
        assert_eq!(decide(&scrubs, None), []);
    }

    #[test]
    fn overdue_only_by_a_clock_that_is_trusted() {
        let scrubs = Scrubs {
            last: Some(scrub(Some(1_700_000_000))),
            ..Scrubs::default()
        };
        let late = 1_700_000_000 + 93 * 24 * 3600;
        assert_eq!(decide(&scrubs, None), []);
        assert_eq!(decide(&scrubs, Some(1_700_000_000)), []);
        assert_eq!(decide(&scrubs, Some(late))[0].id, ConditionId::ScrubOverdue);
        assert_eq!(decide(&Scrubs::default(), Some(late)), []);
    }

    #[test]
    fn places_are_bounded_but_all_bytes_count() {
        let mut bad = scrub(None);
        for n in 0..100 {
            bad.add_unreadable(n * 1_000_000, 4096, "");
        }
        assert_eq!((bad.unreadable.len(), bad.unreadable_bytes), (PLACES_MAX, 409_600));
    }

    #[test]
    fn one_that_was_cut_short_is_taken_up_and_one_that_failed_is_not() {
        assert!(scrub(None).is_unfinished());
        assert!(!scrub(Some(1)).is_unfinished());
        assert!(!Scrub::default().is_unfinished());
        let failed = Scrub {
            failed: "gone".into(),
            ..scrub(None)
        };
        assert!(!failed.is_unfinished());
    }
}
