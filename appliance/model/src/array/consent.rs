//! Creating an array: whether the disks are fit for it, and what the owner's consent covers.

use super::members::Candidate;
use super::{
    Contents, Decision, DiskFacts, Erasure, MEMBER_BYTES_MIN, Memory, Plan, RAID_LABEL, RAID_PARTITION,
    RAID_START_BYTES,
};
use crate::condition::{Condition, ConditionId, Severity};
use crate::config;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What keeps a disk from being used.
pub(super) enum Obstacle {
    /// It holds something, which may go with the owner's consent.
    Holds(String),
    /// What an unfinished creation of ours left. It goes without further ado.
    Unfinished(String),
    /// Nothing that consent could remove.
    Fixed(String),
}

/// Whether the owner consents to erase what this disk holds.
pub(super) fn is_erasable(disk: &DiskFacts, wanted: &config::Array) -> bool {
    wanted.erase.iter().any(|name| disk.is_named(name.get_ref().as_str()))
}

/// The disk that a name means, or why there is none.
pub(super) fn named<'d>(name: &str, disks: &'d [DiskFacts]) -> Result<&'d DiskFacts, Box<Condition>> {
    let refused = |id, subject: &str, text: &str, advice: &str| {
        Err(Box::new(Condition::new(id, Severity::Warning, subject, text, advice)))
    };
    let mut found = disks.iter().filter(|disk| disk.is_named(name) && !disk.booted);
    match (found.next(), found.next()) {
        (Some(disk), None) => Ok(disk),
        (Some(_), Some(_)) => refused(
            ConditionId::ArrayFailed,
            name,
            &format!("Two disks say that their serial number is `{name}`."),
            "Some USB enclosures do so. Name the disk by its WWN (`strongroom disks` shows it), connect it directly, or remove the other one.",
        ),
        (None, _) if disks.iter().any(|disk| disk.is_named(name)) => refused(
            ConditionId::ArrayNotReady,
            name,
            &format!("`{name}` in `data_disks` is the disk that the system was booted from."),
            "Name it in `system_disk`, and another disk in `data_disks`.",
        ),
        (None, _) => refused(
            ConditionId::ArrayNotReady,
            name,
            &format!("The data disk `{name}` is not there."),
            "Check its cable and the serial number in strongroom.toml; `strongroom disks` lists the disks that are there.",
        ),
    }
}

/// Judges one piece of a disk; `at` says which.
fn judge(contents: &Contents, at: &str, memory: &Memory, candidates: &[Candidate<'_>]) -> Option<Obstacle> {
    let place = |what: String| if at.is_empty() { what } else { format!("{at}: {what}") };
    match contents {
        Contents::Blank => None,
        Contents::Unreadable(why) => Some(Obstacle::Fixed(place(format!("it could not be read ({why})")))),
        Contents::Signature(signature) => Some(Obstacle::Holds(place(signature.words()))),
        Contents::Member { superblock, .. } => {
            let uuid = superblock.array_uuid.as_str();
            let what = place(format!("a member of the array `{}`", superblock.name));
            // Every member is here: it may be somebody's data, whole.
            let is_complete = superblock.level == 0
                && candidates
                    .iter()
                    .any(|candidate| candidate.uuid() == uuid && !candidate.is_incomplete());
            if is_complete {
                Some(Obstacle::Fixed(format!("{what}, which is complete")))
            } else if memory
                .creating
                .as_ref()
                .is_some_and(|creating| creating.as_str() == uuid)
            {
                Some(Obstacle::Unfinished(what))
            } else {
                Some(Obstacle::Holds(what))
            }
        }
    }
}

/// The gravest of several obstacles, with the words of all that are as grave.
fn gravest(obstacles: Vec<Obstacle>) -> Option<Obstacle> {
    let mut fixed = Vec::new();
    let mut holds = Vec::new();
    let mut unfinished = Vec::new();
    for obstacle in obstacles {
        match obstacle {
            Obstacle::Fixed(what) => fixed.push(what),
            Obstacle::Holds(what) => holds.push(what),
            Obstacle::Unfinished(what) => unfinished.push(what),
        }
    }
    // Enough to recognise the disk by; the rest is in the listing.
    let joined = |mut words: Vec<String>| {
        let more = words.len().saturating_sub(3);
        words.truncate(3);
        let words = words.join(", ");
        if more > 0 {
            format!("{words} and {more} more")
        } else {
            words
        }
    };
    if !fixed.is_empty() {
        Some(Obstacle::Fixed(joined(fixed)))
    } else if !holds.is_empty() {
        Some(Obstacle::Holds(joined(holds)))
    } else if !unfinished.is_empty() {
        Some(Obstacle::Unfinished(joined(unfinished)))
    } else {
        None
    }
}

/// What keeps a data disk from being used. A single blank partition of our own name is what an attempt that was cut
/// short leaves, and is no obstacle.
pub(super) fn on_data_disk(disk: &DiskFacts, memory: &Memory, candidates: &[Candidate<'_>]) -> Option<Obstacle> {
    let used = disk
        .used
        .iter()
        .chain(disk.partitions.iter().filter_map(|p| p.used.as_ref()));
    let mut obstacles: Vec<Obstacle> = used
        .map(|how| Obstacle::Fixed(format!("it is in use ({how})")))
        .collect();
    obstacles.extend(judge(&disk.contents, "", memory, candidates));
    let alone = disk.partitions.len() == 1;
    for partition in &disk.partitions {
        let at = format!("partition {}", partition.number);
        match judge(&partition.contents, &at, memory, candidates) {
            Some(obstacle) => obstacles.push(obstacle),
            None if alone && partition.label == RAID_LABEL => {}
            None => obstacles.push(Obstacle::Holds(format!("{at} with unknown contents"))),
        }
    }
    gravest(obstacles)
}

/// What keeps the space of the raid partition on the system disk from being used.
pub(super) fn on_system_disk(system: &DiskFacts, memory: &Memory, candidates: &[Candidate<'_>]) -> Option<Obstacle> {
    let mut obstacles = Vec::new();
    for partition in &system.partitions {
        let end = partition.start_bytes.saturating_add(partition.size_bytes);
        let is_raid = partition.number == RAID_PARTITION && partition.start_bytes == RAID_START_BYTES;
        if is_raid {
            let used = partition.used.iter();
            obstacles.extend(used.map(|how| Obstacle::Fixed(format!("it is in use ({how})"))));
        } else if end > RAID_START_BYTES {
            obstacles.push(Obstacle::Fixed(format!(
                "partition {} ({}) lies there",
                partition.number, partition.label
            )));
        }
    }
    obstacles.extend(judge(&system.contents, "", memory, candidates));
    gravest(obstacles)
}

fn erasure(disk: &DiskFacts, what: &str) -> Erasure {
    let devices = if disk.booted {
        Vec::new()
    } else {
        let mut devices: Vec<String> = disk.partitions.iter().map(|p| p.path.clone()).collect();
        devices.push(disk.path.clone());
        devices
    };
    Erasure {
        disk: disk.name().to_string(),
        devices,
        holds: what.to_string(),
    }
}

/// Creates the array if every disk is there and free or freed by consent; else says what is in the way.
pub(super) fn create(
    system: &DiskFacts,
    wanted: &config::Array,
    memory: &Memory,
    disks: &[DiskFacts],
    candidates: &[Candidate<'_>],
) -> Decision {
    let wanted_system = wanted.system_disk.as_ref().map_or("", |name| name.get_ref().as_str());
    let mut problems: Vec<Condition> = Vec::new();
    let mut problem = |id, subject: &str, text: String, advice: &str| {
        problems.push(Condition::new(id, Severity::Warning, subject, &text, advice));
    };
    if !system.is_named(wanted_system) {
        problem(
            ConditionId::ArrayNotReady,
            wanted_system,
            format!(
                "The system was booted from {}, but [array] names `{wanted_system}` as the system disk.",
                system.described()
            ),
            "Correct `system_disk` in strongroom.toml, or boot from that disk.",
        );
    }
    let mut erase = Vec::new();
    match on_system_disk(system, memory, candidates) {
        None => {}
        Some(Obstacle::Unfinished(what)) => erase.push(erasure(system, &what)),
        Some(Obstacle::Holds(what)) if is_erasable(system, wanted) => erase.push(erasure(system, &what)),
        Some(Obstacle::Holds(what)) => problem(
            ConditionId::ArrayFailed,
            system.name(),
            format!("The space for the array on the system disk is not blank: {what}. Nothing was written to it."),
            &consent_advice(wanted_system),
        ),
        Some(Obstacle::Fixed(what)) => problem(
            ConditionId::ArrayFailed,
            system.name(),
            format!("The space for the array on the system disk can't be used: {what}. Nothing was written to it."),
            "Free it on another computer, or adopt what is there: `strongroom disks adopt` lists it.",
        ),
    }
    if system.size_bytes < RAID_START_BYTES + MEMBER_BYTES_MIN {
        problem(
            ConditionId::ArrayNotReady,
            system.name(),
            "The system disk has no room for a member of the array beyond its first 4 GiB.".into(),
            "Use a larger system disk.",
        );
    }
    let mut data_disks: Vec<String> = Vec::new();
    for name in wanted.data_disks.iter().map(|name| name.get_ref().as_str()) {
        let disk = match named(name, disks) {
            Ok(disk) => disk,
            Err(condition) => {
                problems.push(*condition);
                continue;
            }
        };
        let mut problem = |id, text: String, advice: &str| {
            problems.push(Condition::new(id, Severity::Warning, name, &text, advice));
        };
        if data_disks.contains(&disk.path) {
            problem(
                ConditionId::ArrayNotReady,
                format!("`{name}` in `data_disks` is a disk that is named there already."),
                "Name each disk once, by its serial number or by its WWN.",
            );
        }
        data_disks.push(disk.path.clone());
        match on_data_disk(disk, memory, candidates) {
            None => {}
            Some(Obstacle::Unfinished(what)) => erase.push(erasure(disk, &what)),
            Some(Obstacle::Holds(what)) if is_erasable(disk, wanted) => erase.push(erasure(disk, &what)),
            Some(Obstacle::Holds(what)) => problem(
                ConditionId::ArrayFailed,
                format!("{} is not blank: {what}. Nothing was written to it.", disk.described()),
                &consent_advice(name),
            ),
            Some(Obstacle::Fixed(what)) => problem(
                ConditionId::ArrayFailed,
                format!("{} can't be used: {what}. Nothing was written to it.", disk.described()),
                "Check that it is the right disk. A complete array can be adopted (`strongroom disks adopt`) or erased on another computer; a disk that can't be read should be replaced.",
            ),
        }
        if disk.size_bytes < MEMBER_BYTES_MIN {
            problem(
                ConditionId::ArrayNotReady,
                format!("{} is too small.", disk.described()),
                "Use a larger disk.",
            );
        }
    }
    if !problems.is_empty() {
        return Decision::stand(problems);
    }
    if !wanted.create {
        let state = if erase.is_empty() {
            "The disks are here and blank"
        } else {
            "The disks are here, and what they hold may go"
        };
        let text = format!("{state}; creating the array on {wanted_system} and the data disks waits for your consent.");
        return Decision::stand(alloc::vec![Condition::new(
            ConditionId::ArrayNotReady,
            Severity::Warning,
            "",
            &text,
            "Set `create = true` in [array] of strongroom.toml and restart.",
        )]);
    }
    Decision {
        plan: Plan::Create {
            system_disk: system.path.clone(),
            raid_partition_exists: system.raid_partition().is_some(),
            data_disks,
            erase,
        },
        conditions: Vec::new(),
    }
}

fn consent_advice(name: &str) -> String {
    format!(
        "Check that it is the right disk. If what it holds may go for good, set `create = true` and add `erase = [\"{name}\"]` in [array] of strongroom.toml, and restart."
    )
}
