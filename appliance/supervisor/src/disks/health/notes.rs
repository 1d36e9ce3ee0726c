//! What is kept of the disks on the state partition: small, bounded, replaced as a whole.

use crate::durable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::disk_health::Memory;
use strongroom_model::space_trend::Sample;

/// Disks remembered; those that are no longer here give way.
const DISKS_MAX: usize = 32;
/// Largest file that is read: several times what is ever written.
const BYTES_MAX: u64 = 256 * 1024;
/// Fewer days than these until the array is full are told, and the days at which that is taken back.
const WARNING: (u32, u32) = (30, 35);
const ALARM: (u32, u32) = (7, 9);

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// By serial.
    pub disks: BTreeMap<String, Memory>,
    /// Space used over time, the oldest first.
    pub samples: Vec<Sample>,
    /// Whether the array was said to be filling.
    pub filling: Filling,
}

impl Notes {
    /// Reads the notes; without any, or with damaged ones, it begins anew.
    pub fn read(path: &Path) -> Self {
        durable::read_json(path, BYTES_MAX).unwrap_or_default()
    }

    /// Replaces the notes.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        durable::write_json(path, self)
    }

    /// What is remembered of a disk.
    pub fn disk(&mut self, serial: &str) -> &mut Memory {
        self.disks.entry(serial.to_string()).or_default()
    }

    /// When there are too many, forgets those that are not here.
    pub fn forget_except(&mut self, is_here: impl Fn(&str) -> bool) {
        if self.disks.len() > DISKS_MAX {
            self.disks.retain(|serial, _| is_here(serial));
        }
    }
}

/// How soon the array will be full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    /// Not soon, or not known.
    #[default]
    Slowly,
    /// Within a month.
    Warning,
    /// Within a week.
    Alarm,
}

impl Filling {
    /// From the days that are left. What was said is taken back only some days later: no alternating at the limit.
    #[must_use]
    pub fn next(self, days: Option<u32>) -> Self {
        let Some(days) = days else { return Self::Slowly };
        let within = |(from, back): (u32, u32), at: Self| days <= if self >= at { back - 1 } else { from };
        if within(ALARM, Self::Alarm) {
            Self::Alarm
        } else if within(WARNING, Self::Warning) {
            Self::Warning
        } else {
            Self::Slowly
        }
    }

    /// What a person should know.
    pub fn condition(self, days: Option<u32>) -> Option<Condition> {
        let severity = match self {
            Self::Slowly => return None,
            Self::Warning => Severity::Warning,
            Self::Alarm => Severity::Alarm,
        };
        Some(Condition::new(
            ConditionId::ArrayFilling,
            severity,
            "array",
            &format!(
                "The array will be full in about {} days if the last weeks go on.",
                days.unwrap_or_default()
            ),
            "Repositories are append-only, so pruning frees nothing yet: let clients back up less, or plan for larger disks.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_and_damage_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.json");
        assert_eq!(Notes::read(&path), Notes::default());
        let mut notes = Notes::default();
        notes.disk("WD-1").errors.add(1, 2, false, 1_700_000_000);
        notes.disk("WD-1").pending.note(Some(8), 1);
        notes.samples.push(Sample { at: 1, used: 2 });
        notes.write(&path).unwrap();
        assert_eq!(Notes::read(&path), notes);
        std::fs::write(&path, "{\"disks\":{\"WD-1\":{}},\"later\":1}").unwrap();
        assert_eq!(Notes::read(&path).disks.len(), 1, "of another release");
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Notes::read(&path), Notes::default());
    }

    #[test]
    fn filling_does_not_alternate() {
        let mut filling = Filling::default();
        let told: Vec<Filling> = [Some(31), Some(30), Some(33), Some(36), Some(7), Some(8), Some(9), None]
            .into_iter()
            .map(|days| {
                filling = filling.next(days);
                filling
            })
            .collect();
        use Filling::{Alarm, Slowly, Warning};
        assert_eq!(told, [Slowly, Warning, Warning, Slowly, Alarm, Alarm, Warning, Slowly]);
        assert!(Warning.condition(Some(12)).unwrap().text.contains("12 days"));
    }

    #[test]
    fn those_that_are_gone_give_way_when_there_are_too_many() {
        let mut notes = Notes::default();
        for n in 0..40 {
            notes.disk(&n.to_string());
        }
        notes.forget_except(|serial| serial.len() == 1);
        assert_eq!(notes.disks.len(), 10);
        notes.forget_except(|_| false);
        assert_eq!(notes.disks.len(), 10, "there is room");
    }
}
