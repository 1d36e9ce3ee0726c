//! What to do about the array: nothing, assemble, create, or refuse with a reason. Pure.
//!
//! The rules, in this order: an array that is there is assembled whole or not at all, and never created anew; a disk
//! that carries anything is not touched; creating needs consent that names every disk by its serial.

use crate::condition::{Condition, ConditionId, Severity};
use crate::config;
use crate::superblock::{Layout, Superblock};
use crate::text::Text;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Where the raid partition of the system disk begins, in bytes. A constant, so that a disk that was flashed again
/// still has its member at the same place.
pub const RAID_START_BYTES: u64 = 4096 << 20;
/// Number of the raid partition on the system disk.
pub const RAID_PARTITION: u32 = 6;
/// Name of raid partitions in the partition table.
pub const RAID_LABEL: &str = "raid";
/// Name of the array, `/dev/md/strongroom`.
pub const ARRAY_NAME: &str = "strongroom";
/// Least size of a member worth having.
pub const MEMBER_BYTES_MIN: u64 = 64 << 20;

/// What is on a disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing that is known.
    Blank,
    /// A member of an md array with metadata 1.2.
    Member(Superblock),
    /// Something: a file system, LVM, LUKS, another RAID; in words.
    Signature(String),
    /// It could not be read; why.
    Unreadable(String),
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Its number.
    pub number: u32,
    /// Its device, e.g. `/dev/sda6`.
    pub path: String,
    /// Where it begins, in bytes.
    pub start_bytes: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its name in the partition table.
    pub label: String,
    /// What is on it.
    pub contents: Contents,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Serial number; empty when the disk tells none.
    pub serial: String,
    /// Its device right now, e.g. `/dev/sda`.
    pub path: String,
    /// Model.
    pub model: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Whether the running system was booted from it.
    pub booted: bool,
    /// What is on the disk as a whole, a partition table aside. For the booted disk: what lies at
    /// [`RAID_START_BYTES`], whether or not a partition entry covers it.
    pub contents: Contents,
    /// Its partitions.
    pub partitions: Vec<PartitionFacts>,
}

impl DiskFacts {
    fn raid_partition(&self) -> Option<&PartitionFacts> {
        self.partitions
            .iter()
            .find(|p| p.start_bytes == RAID_START_BYTES && p.number == RAID_PARTITION)
    }

    fn described(&self) -> String {
        let serial = if self.serial.is_empty() {
            "without a serial number"
        } else {
            &self.serial
        };
        format!("disk {serial} ({}, {} GB)", self.model, self.size_bytes / 1_000_000_000)
    }

    /// Every superblock on the disk, with the device that carries it.
    fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let whole = match &self.contents {
            Contents::Member(superblock) => {
                let path = if self.booted {
                    self.raid_partition().map(|p| p.path.clone())
                } else {
                    Some(self.path.clone())
                };
                let size_bytes = if self.booted {
                    self.size_bytes.saturating_sub(RAID_START_BYTES)
                } else {
                    self.size_bytes
                };
                Some(Member {
                    disk: self,
                    path,
                    size_bytes,
                    superblock,
                })
            }
            _ => None,
        };
        let at_raid_start = |p: &PartitionFacts| self.booted && p.start_bytes == RAID_START_BYTES;
        whole.into_iter().chain(
            self.partitions
                .iter()
                .filter(move |p| !at_raid_start(p))
                .filter_map(|partition| match &partition.contents {
                    Contents::Member(superblock) => Some(Member {
                        disk: self,
                        path: Some(partition.path.clone()),
                        size_bytes: partition.size_bytes,
                        superblock,
                    }),
                    _ => None,
                }),
        )
    }
}

struct Member<'a> {
    disk: &'a DiskFacts,
    /// `None`: on the system disk, where the partition entry has to be made again first.
    path: Option<String>,
    size_bytes: u64,
    superblock: &'a Superblock,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing can be done yet or ever; the conditions say why.
    Stand(Vec<Condition>),
    /// Assemble the array from exactly these.
    Assemble {
        /// Identity of the array.
        array_uuid: String,
        /// The members' devices. `None`: the raid partition of the system disk, whose entry is made again first.
        members: Vec<(String, Option<String>)>,
    },
    /// Create the array: make partition [`RAID_PARTITION`] on the system disk and one partition on each data disk.
    Create {
        /// Device of the system disk.
        system_disk: String,
        /// Whether the raid partition's entry is there already, left by an attempt that was cut short.
        raid_partition_exists: bool,
        /// Devices of the data disks, in the order of the configuration.
        data_disks: Vec<String>,
    },
}

fn stand(id: ConditionId, severity: Severity, subject: &str, text: &str, advice: &str) -> Plan {
    Plan::Stand(alloc::vec![Condition::new(id, severity, subject, text, advice)])
}

/// Decides what to do, from the configuration and what was observed.
pub fn decide(wanted: Option<&config::Array>, disks: &[DiskFacts]) -> Plan {
    let Some(system) = disks.iter().find(|disk| disk.booted) else {
        return stand(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            "",
            "The disk that this system was booted from could not be told apart from the others, so nothing is done to any disk.",
            "Restart; if it stays so, make a report with `strongroom status` and the system's log.",
        );
    };
    if let Some(plan) = existing(system, wanted, disks) {
        return plan;
    }
    match wanted {
        None => stand(
            ConditionId::ArrayNotReady,
            Severity::Warning,
            "",
            "No array is configured, so clients cannot back up yet.",
            "Name the disks in [array] of strongroom.toml; the serial numbers are in `strongroom status`.",
        ),
        Some(wanted) => create(system, wanted, disks),
    }
}

/// An array that is there, or the reason why it can't be assembled; `None` when there is no trace of one.
fn existing(system: &DiskFacts, wanted: Option<&config::Array>, disks: &[DiskFacts]) -> Option<Plan> {
    let ours = match system.members().next() {
        Some(member) => member,
        None => {
            // A data disk with a member whose counterpart on the system disk is gone: never create over it.
            let data = wanted?.data_disks.iter().find_map(|serial| {
                disks
                    .iter()
                    .find(|disk| disk.serial == serial.get_ref().as_str())
                    .and_then(|disk| disk.members().next())
            })?;
            return Some(stand(
                ConditionId::MemberMissing,
                Severity::Alarm,
                &data.disk.serial,
                &format!(
                    "{} holds a member of the array `{}`, but the system disk holds none. Nothing was changed.",
                    data.disk.described(),
                    data.superblock.name
                ),
                "Boot from the system disk that the array was made with. To give up what the disk holds, erase it on another computer first.",
            ));
        }
    };
    let superblock = ours.superblock;
    let uuid = superblock.array_uuid.as_str();
    let mut members: Vec<Member<'_>> = disks
        .iter()
        .flat_map(DiskFacts::members)
        .filter(|member| member.superblock.array_uuid.as_str() == uuid)
        .collect();
    members.sort_by_key(|member| member.superblock.role);
    if let Some(twins) = members
        .windows(2)
        .find(|pair| pair[0].superblock.role == pair[1].superblock.role)
    {
        return Some(stand(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            &twins[1].disk.serial,
            &format!(
                "{} and {} both say that they are the same member of the array; assembled from the wrong one it would be corrupted. Nothing was done.",
                twins[0].disk.described(),
                twins[1].disk.described()
            ),
            "One is a copy of the other: remove the copy and restart.",
        ));
    }
    if superblock.level != 0 {
        return Some(stand(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            &system.serial,
            &format!(
                "The array on the system disk has RAID level {}, not 0. It is left alone.",
                superblock.level
            ),
            "Boot this disk in the computer where the array was made.",
        ));
    }
    if members.len() < superblock.members as usize {
        let present: Vec<&str> = members.iter().map(|member| member.disk.serial.as_str()).collect();
        let missing: Vec<&str> = wanted
            .iter()
            .flat_map(|wanted| &wanted.data_disks)
            .map(|serial| serial.get_ref().as_str())
            .filter(|serial| !present.contains(serial))
            .collect();
        let missing = if missing.is_empty() {
            "a data disk".to_string()
        } else {
            format!("disk {}", missing.join(", disk "))
        };
        return Some(stand(
            ConditionId::MemberMissing,
            Severity::Alarm,
            missing.trim_start_matches("disk "),
            &format!(
                "{} of the array's {} members are here; {missing} is missing. Without every member the array can't be read, and nothing is written.",
                members.len(),
                superblock.members
            ),
            "Check the disk's power and data cable. If the disk has died, the array is lost: put in a new disk, erase the raid partition of the system disk on another computer (`wipefs --all`), and restore from the off-site copy.",
        ));
    }
    let unequal = members.iter().any(|member| member.size_bytes != ours.size_bytes);
    if superblock.layout == Layout::Unrecorded && unequal {
        return Some(stand(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            "",
            "The array's members differ in size and its superblock does not record the RAID0 layout. Assembled with the wrong layout it would be corrupted, so it is left alone.",
            "If it was written only by kernels before 3.14 or after 5.3, record the layout on another computer with `mdadm --assemble --update=layout-original`.",
        ));
    }
    Some(Plan::Assemble {
        array_uuid: uuid.into(),
        members: members
            .into_iter()
            .map(|member| (member.disk.serial.clone(), member.path))
            .collect(),
    })
}

fn create(system: &DiskFacts, wanted: &config::Array, disks: &[DiskFacts]) -> Plan {
    let mut problems: Vec<Condition> = Vec::new();
    let mut problem = |id, subject: &str, text: String, advice: &str| {
        problems.push(Condition::new(id, Severity::Warning, subject, &text, advice));
    };
    let wanted_system = wanted.system_disk.get_ref().as_str();
    if system.serial != wanted_system {
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
    let mut data_disks = Vec::new();
    for serial in wanted.data_disks.iter().map(|serial| serial.get_ref().as_str()) {
        let mut found = disks.iter().filter(|disk| disk.serial == serial && !disk.booted);
        match (found.next(), found.next()) {
            (Some(disk), None) => {
                data_disks.push(disk.path.clone());
                if let Some(what) = in_the_way(disk) {
                    problem(
                        ConditionId::ArrayFailed,
                        serial,
                        format!("{} is not blank: {what}. Nothing was written to it.", disk.described()),
                        "Check that it is the right disk. If what it holds may go, erase it on another computer with `wipefs --all`.",
                    );
                }
                if disk.size_bytes < MEMBER_BYTES_MIN {
                    problem(
                        ConditionId::ArrayNotReady,
                        serial,
                        format!("{} is too small.", disk.described()),
                        "Use a larger disk.",
                    );
                }
            }
            (None, _) => problem(
                ConditionId::ArrayNotReady,
                serial,
                format!("The data disk `{serial}` is not there."),
                "Check its cable and the serial number in strongroom.toml; the disks that are there are in `strongroom status`.",
            ),
            (Some(_), Some(_)) => problem(
                ConditionId::ArrayFailed,
                serial,
                format!("Two disks say that their serial number is `{serial}`."),
                "Some USB enclosures do so. Connect the disk directly, or remove the other one.",
            ),
        }
    }
    if let Some(what) = in_the_way_on_system(system) {
        problem(
            ConditionId::ArrayFailed,
            &system.serial,
            format!("The space for the array on the system disk is not blank: {what}. Nothing was written to it."),
            "If what it holds may go, erase it on another computer.",
        );
    }
    if system.size_bytes < RAID_START_BYTES + MEMBER_BYTES_MIN {
        problem(
            ConditionId::ArrayNotReady,
            &system.serial,
            "The system disk has no room for a member of the array beyond its first 4 GiB.".into(),
            "Use a larger system disk.",
        );
    }
    if !problems.is_empty() {
        return Plan::Stand(problems);
    }
    if !wanted.create {
        let text = format!(
            "The disks are here and blank; creating the array on {wanted_system} and the data disks waits for your consent."
        );
        let advice = "Set `create = true` in [array] of strongroom.toml and restart.";
        return stand(ConditionId::ArrayNotReady, Severity::Warning, "", &text, advice);
    }
    let raid_partition_exists = system.raid_partition().is_some();
    Plan::Create {
        system_disk: system.path.clone(),
        raid_partition_exists,
        data_disks,
    }
}

fn in_words(contents: &Contents) -> Option<String> {
    match contents {
        Contents::Blank => None,
        Contents::Member(superblock) => Some(format!("a member of the array `{}`", superblock.name)),
        Contents::Signature(what) => Some(what.clone()),
        Contents::Unreadable(why) => Some(format!("it could not be read ({why})")),
    }
}

/// What keeps a data disk from being used. A single blank partition of our own name is what an attempt that was cut
/// short leaves, and is no obstacle.
fn in_the_way(disk: &DiskFacts) -> Option<String> {
    if let Some(what) = in_words(&disk.contents) {
        return Some(what);
    }
    match disk.partitions.as_slice() {
        [] => None,
        [only] if only.label == RAID_LABEL => in_words(&only.contents),
        partitions => {
            let described: Vec<String> = partitions
                .iter()
                .map(|p| {
                    format!(
                        "partition {} with {}",
                        p.number,
                        in_words(&p.contents).unwrap_or("unknown contents".into())
                    )
                })
                .collect();
            Some(described.join(", "))
        }
    }
}

fn in_the_way_on_system(system: &DiskFacts) -> Option<String> {
    let foreign = system.partitions.iter().find(|p| {
        let end = p.start_bytes.saturating_add(p.size_bytes);
        end > RAID_START_BYTES && !(p.number == RAID_PARTITION && p.start_bytes == RAID_START_BYTES)
    });
    match foreign {
        Some(p) => Some(format!("partition {} ({}) lies there", p.number, p.label)),
        None => in_words(&system.contents),
    }
}

/// A member's name for people: `serial, partition`.
pub fn member_words(serial: &str, path: &str) -> Text<64> {
    Text::format(format_args!("{serial} ({})", path.trim_start_matches("/dev/")))
}

#[cfg(test)]
mod tests;
