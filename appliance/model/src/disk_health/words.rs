//! What to tell a person about a disk, and what they can do.

use super::memory::limits;
use super::{Errors, Finding, Heat, Kind, Memory, Reading};
use crate::condition::{Condition, ConditionId, Severity};
use crate::status::DiskHealth;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const REPLACE_NOW: &str = "See that the off-site copies are up to date now (`strongroom push`). Then replace the disk and restore: in a RAID0, all is lost with either disk.";
const REPLACE_SOON: &str =
    "Nothing is lost yet. See that the off-site copies are up to date, and plan to replace the disk before it dies.";
const CABLE: &str = "Switch off, and press in or replace the disk's data cable; try another port. The number itself never goes down: what counts is that it stops growing.";

/// How bad the kernel's errors are, and in a few words.
pub(super) fn of_errors(errors: &Errors) -> (DiskHealth, String) {
    if errors.lost {
        return (DiskHealth::Failing, "it fell out of the array".into());
    }
    if errors.failed > 0 {
        let failed = count(errors.failed.into(), "read or write", "reads and writes");
        return (DiskHealth::Failing, format!("{failed} failed"));
    }
    let disturbed = count(errors.disturbed.into(), "disturbance", "disturbances");
    (DiskHealth::Aging, format!("{disturbed} of its transfer"))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub(super) fn conditions(
    serial: &str,
    model: &str,
    reading: &Reading,
    memory: &Memory,
    findings: &[Finding],
    errors: Option<&Errors>,
    now: u64,
) -> Vec<Condition> {
    let named = if model.is_empty() {
        format!("Disk {serial}")
    } else {
        format!("Disk {serial} ({model})")
    };
    let condition = |id, severity, text: &str, advice: &str| Condition::new(id, severity, serial, text, advice);
    let mut conditions = Vec::new();
    let texts = |health: DiskHealth| -> Vec<&str> {
        let of_health = findings.iter().filter(|finding| finding.health == health);
        of_health.map(|finding| finding.text.as_str()).collect()
    };
    let failing = texts(DiskHealth::Failing);
    let aging = texts(DiskHealth::Aging);
    if !failing.is_empty() {
        let all: Vec<&str> = failing.iter().chain(&aging).copied().collect();
        conditions.push(condition(
            ConditionId::DiskFailing,
            Severity::Alarm,
            &format!("{named} is failing: {}.", all.join("; ")),
            REPLACE_NOW,
        ));
    } else if !aging.is_empty() {
        conditions.push(condition(
            ConditionId::DiskAging,
            Severity::Warning,
            &format!("{named} shows its age: {}.", aging.join("; ")),
            REPLACE_SOON,
        ));
    }
    if let Some(errors) = errors {
        conditions.push(kernel(&named, errors, &condition));
    }
    // Damaged transfers of years ago, by a cable that was replaced since, say nothing.
    let said = conditions.iter().any(|said| said.id == ConditionId::DiskCable);
    if let (Some(value), Some(growth), false) = (reading.counts.crc_errors, memory.crc_errors.growth(now), said) {
        conditions.push(condition(
            ConditionId::DiskCable,
            Severity::Warning,
            &format!(
                "{named}: transfers damaged on the way (CRC errors) grew from {} to {value} {}. That is the cable or a plug, not the disk.",
                growth.from,
                growth.within(now)
            ),
            CABLE,
        ));
    }
    if reading.temperature.is_some() {
        conditions.extend(heat(&named, reading, memory.heat, &condition));
    }
    conditions
}

type Make<'a> = dyn Fn(ConditionId, Severity, &str, &str) -> Condition + 'a;

fn kernel(named: &str, errors: &Errors, condition: &Make<'_>) -> Condition {
    if errors.lost {
        return condition(
            ConditionId::DiskErrors,
            Severity::Alarm,
            &format!("{named} has fallen out of the running array: it does not answer the kernel any more."),
            "Switch off, check the disk's power and data cable, and start again. If it is not found then, it is dead: replace it and restore from the off-site copy.",
        );
    }
    if errors.failed > 0 {
        let failed = count(
            errors.failed.into(),
            "read or write has failed",
            "reads or writes have failed",
        );
        return condition(
            ConditionId::DiskErrors,
            Severity::Alarm,
            &format!("{named}: {failed} lately, says the kernel."),
            "See that the off-site copies are up to date now (`strongroom push`). Check the disk's cables; if it comes again, replace the disk and restore. `strongroom scrub` finds what can't be read any more.",
        );
    }
    condition(
        ConditionId::DiskCable,
        Severity::Warning,
        &format!(
            "{named}: its transfer was disturbed {} times lately, says the kernel, and then went on.",
            errors.disturbed
        ),
        "Switch off, and press in or replace the disk's data and power cable; try another port. If it stays so, the disk itself is to be replaced.",
    )
}

/// The temperature itself is in the status: a text that changed with every degree would be news each time.
fn heat(named: &str, reading: &Reading, heat: Heat, condition: &Make<'_>) -> Option<Condition> {
    let (warm, hot) = limits(reading);
    let (severity, limit) = match heat {
        Heat::Fine => return None,
        Heat::Warm => (Severity::Warning, warm),
        Heat::Hot => (Severity::Alarm, hot),
    };
    let harm = if reading.kind == Kind::Rotating {
        "Warmth shortens its life."
    } else {
        "It slows itself down and ages faster."
    };
    Some(condition(
        ConditionId::DiskHot,
        severity,
        &format!("{named} is too warm: about {limit} °C or more. {harm}"),
        "Give it air: clean the fan and its grille, keep a hand's breadth free around the PC, and space between disks.",
    ))
}
