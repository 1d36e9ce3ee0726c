//! What a disk's own account (SMART, NVMe health) and the kernel's log say of its health, and what to do about it. Pure.
//!
//! A RAID0 has no redundancy, so the worth of this is early warning: reallocated and pending sectors are mentioned from
//! the first one, and growth weighs more than a number that has stood still for years. Sources: ATA8-ACS (attributes'
//! meaning by habit of the makers, as smartctl(8) names them), NVM Express Base 2.0 section 5.16.1.3.

mod memory;
mod words;

pub use memory::{Counter, Counts, Errors, Heat, Memory};

use crate::condition::Condition;
use crate::status::DiskHealth;
use crate::text::Text;
use alloc::string::String;
use alloc::vec::Vec;

/// How long after the last one the kernel's errors are held against a disk, in seconds: a week.
pub const ERRORS_STAND: u64 = 7 * 24 * 3600;
/// Disturbances of the transfer in this time that are no accident.
const DISTURBED_MIN: u32 = 3;
/// Reallocated sectors, or media errors of an NVMe disk, that are beyond age.
const REALLOCATED_MANY: u64 = 100;
/// Wear in percent of what the maker promised: mentioned, and no longer promised.
const WEAR_AGING: u8 = 90;
/// Attributes that fail in advance named at most.
const NAMED_MAX: usize = 4;

/// How the disk keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Not known.
    #[default]
    Unknown,
    /// Turning platters.
    Rotating,
    /// Flash behind SATA or USB.
    Flash,
    /// Flash behind NVM Express.
    Nvme,
}

/// Whether the disk could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It told of itself.
    #[default]
    Told,
    /// It sleeps, and was left asleep.
    Asleep,
    /// It tells nothing, and never will: a virtual disk, a simple USB enclosure. Why, in words.
    Silent(String),
}

/// What a disk told of itself in one reading. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whether it could be read.
    pub answer: Answer,
    /// How it keeps its data.
    pub kind: Kind,
    /// Its own overall verdict.
    pub passed: Option<bool>,
    /// Attributes that announce a failure and are below the maker's threshold now.
    pub prefail: Vec<String>,
    /// Degrees Celsius.
    pub temperature: Option<i16>,
    /// The disk's own limits, in degrees Celsius: warning and critical.
    pub limits: (Option<i16>, Option<i16>),
    /// Hours in operation.
    pub power_on_hours: Option<u64>,
    /// Its latest self-test ended with a fault.
    pub self_test_failed: bool,
    /// Counters.
    pub counts: Counts,
    /// NVMe: the byte `critical_warning`.
    pub critical_warning: u8,
    /// Share of the promised writes that is used up, in percent; may exceed 100.
    pub percentage_used: Option<u8>,
    /// NVMe: spare blocks left, and the threshold below which the disk warns; percent.
    pub spare: Option<(u8, u8)>,
}

/// What is held of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// How it is.
    pub health: DiskHealth,
    /// Why it is not good, in a few words.
    pub reason: Text<96>,
    /// What a person should know.
    pub conditions: Vec<Condition>,
}

/// One thing that speaks against a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    health: DiskHealth,
    text: String,
}

/// Decides how a disk is. `serial` and `model` name it; `memory` has taken note of this reading already
/// ([`Memory::note`]); `now` is Unix seconds.
pub fn assess(serial: &str, model: &str, reading: &Reading, memory: &Memory, now: u64) -> Assessment {
    let mut findings = own_account(reading);
    findings.extend(counters(reading, memory, now));
    // The worst first; what was found first stays first among equals.
    findings.sort_by_key(|finding| core::cmp::Reverse(finding.health));
    let errors = memory.errors.standing(now);
    let told = reading.answer == Answer::Told && (reading.passed.is_some() || reading.power_on_hours.is_some());
    let mut health = findings
        .first()
        .map_or(if told { DiskHealth::Good } else { DiskHealth::Unknown }, |finding| {
            finding.health
        });
    let mut reason = findings
        .first()
        .map_or_else(String::new, |finding| finding.text.clone());
    if let Some(errors) = errors {
        let (of_errors, text) = words::of_errors(errors);
        if of_errors > health {
            (health, reason) = (of_errors, text);
        }
    }
    Assessment {
        health,
        reason: reason.as_str().into(),
        conditions: words::conditions(serial, model, reading, memory, &findings, errors, now),
    }
}

fn finding(health: DiskHealth, text: impl Into<String>) -> Finding {
    Finding {
        health,
        text: text.into(),
    }
}

/// What the disk says outright.
fn own_account(reading: &Reading) -> Vec<Finding> {
    use DiskHealth::{Aging, Failing};
    let mut findings = Vec::new();
    if !reading.prefail.is_empty() {
        let names: Vec<&str> = reading.prefail.iter().take(NAMED_MAX).map(String::as_str).collect();
        findings.push(finding(
            Failing,
            alloc::format!("it announces its failure ({})", names.join(", ")),
        ));
    }
    // Bit 1 is the temperature, which has a condition of its own.
    for (bit, text) in [
        (0, "its spare blocks are used up"),
        (2, "it reports media or internal errors that make it unreliable"),
        (3, "it has turned read-only"),
        (4, "its backup of volatile memory has failed"),
        (5, "its persistent memory region is unreliable"),
    ] {
        if reading.critical_warning & (1 << bit) != 0 {
            findings.push(finding(Failing, text));
        }
    }
    if let Some((spare, threshold)) = reading.spare
        && spare < threshold
        && reading.critical_warning & 1 == 0
    {
        findings.push(finding(
            Failing,
            alloc::format!("only {spare} % of its spare blocks are left"),
        ));
    }
    let only_hot = reading.kind == Kind::Nvme && reading.critical_warning == 0b10;
    if reading.passed == Some(false) && findings.is_empty() && !only_hot {
        findings.push(finding(Failing, "its own verdict is that it fails"));
    }
    if reading.self_test_failed {
        findings.push(finding(Failing, "its last self-test failed"));
    }
    if let Some(used) = reading.percentage_used
        && used >= WEAR_AGING
    {
        findings.push(finding(
            Aging,
            alloc::format!("{used} % of the writes that its maker promised are used up"),
        ));
    }
    findings
}

/// What its counters say. One that grows weighs more than one that stands.
fn counters(reading: &Reading, memory: &Memory, now: u64) -> Vec<Finding> {
    use DiskHealth::{Aging, Failing};
    let mut findings = Vec::new();
    let counts = &reading.counts;
    let mut judge =
        |value: Option<u64>, counter: &Counter, one: &str, many: &str, stands: &dyn Fn(u64) -> DiskHealth| {
            let Some(value) = value.filter(|value| *value > 0) else {
                return;
            };
            let name = if value == 1 { one } else { many };
            match counter.growth(now) {
                Some(growth) => findings.push(finding(
                    Failing,
                    alloc::format!("{name} grew from {} to {value} {}", growth.from, growth.within(now)),
                )),
                None => findings.push(finding(stands(value), alloc::format!("{value} {name}"))),
            }
        };
    judge(
        counts.pending,
        &memory.pending,
        "sector that can't be read",
        "sectors that can't be read",
        &|_| Failing,
    );
    judge(
        counts.uncorrectable,
        &memory.uncorrectable,
        "uncorrectable sector",
        "uncorrectable sectors",
        &|_| Failing,
    );
    let many = |value| if value >= REALLOCATED_MANY { Failing } else { Aging };
    judge(
        counts.reallocated,
        &memory.reallocated,
        "reallocated sector",
        "reallocated sectors",
        &many,
    );
    judge(
        counts.media_errors,
        &memory.media_errors,
        "media error",
        "media errors",
        &many,
    );
    findings
}

#[cfg(test)]
mod tests;
