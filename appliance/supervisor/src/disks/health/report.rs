//! The report of the role `strongroom-health`, and how it enters the duty's part of the status.

use crate::durable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use strongroom_model::clock::evidence::Evidence;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::status::{Array, Disk, DiskHealth};

/// Largest report that is read.
const BYTES_MAX: u64 = 256 * 1024;
/// File systems named at most.
const DAMAGED_MAX: usize = 8;

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskReport {
    /// Its serial number.
    pub serial: String,
    /// How it is.
    pub health: DiskHealth,
    /// Why it is not good.
    pub reason: String,
    /// Degrees Celsius.
    pub temperature: Option<i16>,
    /// Hours in operation.
    pub power_on_hours: Option<u32>,
    /// Why it tells nothing; empty when it does.
    pub silent: String,
}

/// What the role found. Kept for this boot only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthReport {
    /// Number of the last message of the kernel that was taken in.
    pub sequence: Option<u64>,
    /// The disks.
    pub disks: Vec<DiskReport>,
    /// Requests that failed since the start of the system, by serial.
    pub errors: BTreeMap<String, u32>,
    /// What holds a file system that found itself damaged: `array`, or a disk by its serial.
    pub damaged: Vec<String>,
    /// What the kernel's log said of its counter and of interrupts, for the clock duty.
    pub evidence: Evidence,
    /// Days until the array is full.
    pub days_until_full: Option<u32>,
    /// What a person should know.
    pub conditions: Vec<Condition>,
}

impl HealthReport {
    /// Reads the report; `None` before the first.
    pub fn read(path: &Path) -> Option<Self> {
        durable::read_json(path, BYTES_MAX)
    }

    /// Replaces the report, if it is another.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        durable::write_json(path, self)
    }

    pub(super) fn note_damaged(&mut self, subject: &str) {
        if self.damaged.len() < DAMAGED_MAX && !self.damaged.iter().any(|known| known == subject) {
            self.damaged.push(subject.to_string());
        }
    }

    /// Enters what is known into the status, and adds the conditions.
    pub fn enter(self, array: &mut Array, disks: &mut [Disk], conditions: &mut Vec<Condition>) {
        array.days_until_full = self.days_until_full;
        let mut silent: Vec<String> = Vec::new();
        for disk in disks {
            let Some(found) = self.disks.iter().find(|found| found.serial == disk.serial.as_str()) else {
                continue;
            };
            disk.health = found.health;
            disk.reason = found.reason.as_str().into();
            disk.temperature = found.temperature;
            disk.power_on_hours = found.power_on_hours;
            if disk.member && !found.silent.is_empty() {
                silent.push(format!("{} ({})", found.serial, found.silent));
            }
        }
        conditions.extend(self.conditions);
        if !silent.is_empty() {
            conditions.push(Condition::new(
                ConditionId::DiskSilent,
                Severity::Info,
                "disks",
                &format!(
                    "Some members of the array tell nothing of their health: {}. Only what the kernel notices is seen.",
                    silent.join(", ")
                ),
                "Nothing needs to be done. In a USB enclosure, one that passes SMART on would help.",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_enters_the_status_by_serial() {
        let report = HealthReport {
            disks: vec![
                DiskReport {
                    serial: "WD-1".into(),
                    health: DiskHealth::Aging,
                    reason: "8 reallocated sectors".into(),
                    temperature: Some(34),
                    power_on_hours: Some(7),
                    ..DiskReport::default()
                },
                DiskReport {
                    serial: "USB-2".into(),
                    silent: "it has no SMART".into(),
                    ..DiskReport::default()
                },
            ],
            days_until_full: Some(40),
            ..HealthReport::default()
        };
        let disk = |serial: &str, member| Disk {
            serial: serial.into(),
            member,
            ..Disk::default()
        };
        let mut disks = [disk("X", true), disk("USB-2", true), disk("WD-1", true)];
        let (mut array, mut conditions) = (Array::default(), Vec::new());
        report.clone().enter(&mut array, &mut disks, &mut conditions);
        assert_eq!(array.days_until_full, Some(40));
        assert_eq!((disks[2].health, disks[2].temperature), (DiskHealth::Aging, Some(34)));
        assert_eq!(disks[0], disk("X", true));
        assert_eq!(conditions.len(), 1);
        assert_eq!(
            (conditions[0].id, conditions[0].severity),
            (ConditionId::DiskSilent, Severity::Info)
        );
        // A stick that merely hangs there is not spoken of.
        disks[1].member = false;
        conditions.clear();
        report.enter(&mut array, &mut disks, &mut conditions);
        assert_eq!(conditions, []);
    }
}
