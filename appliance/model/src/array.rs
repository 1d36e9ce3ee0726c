//! What to do about the array: nothing, assemble, create, or refuse with a reason. Pure.
//!
//! The rules, in this order: an array that is there is assembled whole or not at all, and never created anew; what is
//! not recognisably ours is offered, not taken; a disk that carries anything is not touched without consent to erase
//! it; creating needs consent that names every disk.
//!
//! `members` finds the arrays that are there and judges each; `consent` judges the disks for a new one; `listing` says
//! for each disk what would become of it.

mod consent;
mod listing;
mod members;

pub use listing::{ListedArray, ListedDisk, ListedPartition, Listing, Verdict, list};

use crate::condition::{Condition, ConditionId, Severity};
use crate::config;
use crate::superblock::{ArrayUuid, Superblock};
use crate::text::Text;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use members::{Candidate, Fault};

/// Where the raid partition of the system disk begins, in bytes. A constant, so that a disk that was flashed again
/// still has its member at the same place.
pub const RAID_START_BYTES: u64 = 4096 << 20;
/// Number of the raid partition on the system disk.
pub const RAID_PARTITION: u32 = 6;
/// Name of raid partitions in the partition table.
pub const RAID_LABEL: &str = "raid";
/// Name of the array, `/dev/md/strongroom`.
pub const ARRAY_NAME: &str = "strongroom";
/// The file system that an array must hold.
pub const FILE_SYSTEM: &str = "ext4";
/// Least size of a member worth having.
pub const MEMBER_BYTES_MIN: u64 = 64 << 20;

/// A signature that blkid knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its kind in blkid's words, e.g. `ext4` or `LVM2_member`.
    pub kind: String,
    /// Its label; empty when it has none.
    pub label: String,
}

impl Signature {
    fn words(&self) -> String {
        if self.label.is_empty() {
            self.kind.clone()
        } else {
            format!("{} named `{}`", self.kind, self.label)
        }
    }
}

/// What is on a disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing that is known.
    Blank,
    /// A member of an md array with metadata 1.2.
    Member {
        /// What it says of the array and of itself.
        superblock: Superblock,
        /// What its data begins with: for the first member, the array's file system.
        holds: Option<Signature>,
    },
    /// Something: a file system, LVM, LUKS, another RAID.
    Signature(Signature),
    /// It could not be read; why.
    Unreadable(String),
}

impl Contents {
    /// What it is, in words; `None` when nothing is there.
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Blank => None,
            Self::Member { superblock, .. } => Some(format!("a member of the array `{}`", superblock.name)),
            Self::Signature(signature) => Some(signature.words()),
            Self::Unreadable(why) => Some(format!("it could not be read ({why})")),
        }
    }
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
    /// What uses it right now, e.g. `mounted at /var`.
    pub used: Option<String>,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Serial number; empty when the disk tells none.
    pub serial: String,
    /// World-wide name, e.g. `0x5000c500a1b2c3d4`; empty when the disk tells none.
    pub wwn: String,
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
    /// What uses the disk as a whole right now.
    pub used: Option<String>,
}

impl DiskFacts {
    fn raid_partition(&self) -> Option<&PartitionFacts> {
        self.partitions
            .iter()
            .find(|p| p.start_bytes == RAID_START_BYTES && p.number == RAID_PARTITION)
    }

    /// Whether a name in the configuration, a serial number or a WWN, means this disk.
    pub fn is_named(&self, name: &str) -> bool {
        !name.is_empty() && (self.serial == name || self.wwn.eq_ignore_ascii_case(name))
    }

    /// The name to be written into the configuration.
    pub fn name(&self) -> &str {
        if self.serial.is_empty() {
            &self.wwn
        } else {
            &self.serial
        }
    }

    fn described(&self) -> String {
        let serial = if self.name().is_empty() {
            "without a serial number"
        } else {
            self.name()
        };
        format!("disk {serial} ({}, {} GB)", self.model, self.size_bytes / 1_000_000_000)
    }
}

/// What the state partition remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The array that the owner adopted by command.
    pub adopted: Option<ArrayUuid>,
    /// The array whose creation was begun and not finished: nothing was ever stored on it.
    pub creating: Option<ArrayUuid>,
}

/// What to erase before the array is created: every signature, so that none shows through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The disk's name, for the log.
    pub disk: String,
    /// Devices whose signatures go, in this order. Empty: the raid partition of the system disk, which may have to be
    /// made first.
    pub devices: Vec<String>,
    /// What they hold, in words.
    pub holds: String,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing can be done yet or ever; the conditions say why.
    Stand,
    /// Assemble the array from exactly these.
    Assemble {
        /// Identity of the array.
        array_uuid: String,
        /// The members' devices. `None`: the raid partition of the system disk, whose entry is made again first.
        members: Vec<(String, Option<String>)>,
        /// Whether it was made elsewhere and gets our name, by which it is recognised from then on.
        rename: bool,
    },
    /// Create the array: make partition [`RAID_PARTITION`] on the system disk and one partition on each data disk.
    Create {
        /// Device of the system disk.
        system_disk: String,
        /// Whether the raid partition's entry is there already, left by an attempt that was cut short.
        raid_partition_exists: bool,
        /// Devices of the data disks, in the order of the configuration.
        data_disks: Vec<String>,
        /// What goes first. Nothing else that holds anything is touched.
        erase: Vec<Erasure>,
    },
}

/// What to do, and what a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub plan: Plan,
    /// What a person should know.
    pub conditions: Vec<Condition>,
}

impl Decision {
    fn stand(conditions: Vec<Condition>) -> Self {
        Self {
            plan: Plan::Stand,
            conditions,
        }
    }
}

/// Decides what to do, from the configuration, what is remembered, and what was observed.
pub fn decide(wanted: Option<&config::Array>, memory: &Memory, disks: &[DiskFacts]) -> Decision {
    let Some(system) = disks.iter().find(|disk| disk.booted) else {
        return Decision::stand(alloc::vec![Condition::new(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            "",
            "The disk that this system was booted from could not be told apart from the others, so nothing is done to any disk.",
            "Restart; if it stays so, make a report with `strongroom status` and the system's log.",
        )]);
    };
    let candidates = members::candidates(disks);
    match choose(&candidates, wanted, memory) {
        Choice::Use(candidate) => Decision {
            plan: candidate.assemble(),
            conditions: left_over(candidate, wanted),
        },
        Choice::Refuse(candidate, fault) => {
            let given_up = wanted.filter(|wanted| may_be_given_up(candidate, &fault, wanted, memory));
            match given_up {
                Some(wanted) => {
                    let mut decision = consent::create(system, wanted, memory, disks, &candidates);
                    if decision.plan == Plan::Stand {
                        decision
                            .conditions
                            .insert(0, fault.condition(candidate, wanted.into(), disks));
                    }
                    decision
                }
                None => Decision::stand(alloc::vec![fault.condition(candidate, wanted, disks)]),
            }
        }
        Choice::Several(ours) => Decision::stand(alloc::vec![several(&ours)]),
        Choice::None => without_array(system, wanted, memory, disks, &candidates),
    }
}

enum Choice<'a, 'd> {
    Use(&'a Candidate<'d>),
    Refuse(&'a Candidate<'d>, Fault),
    Several(Vec<&'a Candidate<'d>>),
    None,
}

/// Which of the arrays that are there is meant: one with a member on the booted disk before all, one that the owner
/// named next, one that is ours by name if it is the only one.
fn choose<'a, 'd>(candidates: &'a [Candidate<'d>], wanted: Option<&config::Array>, memory: &Memory) -> Choice<'a, 'd> {
    let named = |uuid: Option<&ArrayUuid>| {
        uuid.and_then(|uuid| candidates.iter().find(|candidate| candidate.uuid() == uuid.as_str()))
    };
    let by_owner = named(wanted.and_then(|wanted| wanted.adopt.as_ref())).or(named(memory.adopted.as_ref()));
    let is_by_owner = |candidate: &Candidate<'_>| by_owner.is_some_and(|other| other.uuid() == candidate.uuid());
    let ours: Vec<&Candidate<'_>> = candidates
        .iter()
        .filter(|candidate| candidate.is_ours_by_name() || is_by_owner(candidate))
        .collect();
    let judge = |candidate: &'a Candidate<'d>| match candidate.fault() {
        None => Choice::Use(candidate),
        Some(fault) => Choice::Refuse(candidate, fault),
    };
    let (booted, elsewhere): (Vec<&Candidate<'_>>, Vec<&Candidate<'_>>) =
        ours.into_iter().partition(|candidate| candidate.is_on_booted_disk());
    let whole: Vec<&Candidate<'_>> = booted.iter().copied().filter(|c| c.fault().is_none()).collect();
    match (whole.as_slice(), by_owner, booted.as_slice()) {
        ([only], _, _) => return Choice::Use(only),
        ([_, ..], _, _) => return Choice::Several(whole),
        ([], Some(by_owner), _) => return judge(by_owner),
        ([], None, [only]) => return judge(only),
        ([], None, [_, ..]) => return Choice::Several(booted),
        ([], None, []) => {}
    }
    // An incomplete array on disks that nobody named is a visitor's.
    let is_concerned = |candidate: &Candidate<'_>| {
        !candidate.is_incomplete()
            || candidate
                .members
                .iter()
                .any(|member| wanted.is_some_and(|wanted| wanted.disks().any(|name| member.disk.is_named(name))))
    };
    let concerned: Vec<&Candidate<'_>> = elsewhere.into_iter().filter(|c| is_concerned(c)).collect();
    match concerned.as_slice() {
        [] => Choice::None,
        [only] => judge(only),
        _ => Choice::Several(concerned),
    }
}

/// An array whose members are not all here may be given up: by an owner who consents to erase each disk that still
/// holds one, or where its creation was never finished.
fn may_be_given_up(candidate: &Candidate<'_>, fault: &Fault, wanted: &config::Array, memory: &Memory) -> bool {
    let unfinished = memory
        .creating
        .as_ref()
        .is_some_and(|uuid| uuid.as_str() == candidate.uuid());
    wanted.create
        && matches!(fault, Fault::Incomplete)
        && candidate.members.iter().all(|member| {
            wanted.disks().any(|name| member.disk.is_named(name))
                && (unfinished || consent::is_erasable(member.disk, wanted))
        })
}

fn several(ours: &[&Candidate<'_>]) -> Condition {
    let mut text = "More than one array here could be meant:".to_string();
    for (number, candidate) in ours.iter().take(3).enumerate() {
        let separator = if number == 0 { "" } else { "," };
        text.push_str(&format!("{separator} {} on {}", candidate.uuid(), candidate.disks()));
    }
    text.push_str(". Nothing was done to any of them.");
    Condition::new(
        ConditionId::ArrayFailed,
        Severity::Alarm,
        "",
        &text,
        "Take the disks of the others out and restart, or name the right one: `adopt = \"UUID\"` in [array] of strongroom.toml, or `strongroom disks adopt UUID`.",
    )
}

/// What is decided when none of the arrays that are there is to be used.
fn without_array(
    system: &DiskFacts,
    wanted: Option<&config::Array>,
    memory: &Memory,
    disks: &[DiskFacts],
    candidates: &[Candidate<'_>],
) -> Decision {
    let offered: Vec<&Candidate<'_>> = candidates
        .iter()
        .filter(|candidate| candidate.fault().is_none())
        .collect();
    let mut offers: Vec<Condition> = offered.iter().map(|candidate| offer(candidate)).collect();
    let Some(wanted) = wanted else {
        if offers.is_empty() {
            offers.push(Condition::new(
                ConditionId::ArrayNotReady,
                Severity::Warning,
                "",
                "No array is configured, so clients cannot back up yet.",
                "Name the disks in [array] of strongroom.toml; `strongroom disks` lists them.",
            ));
        }
        return Decision::stand(offers);
    };
    if let Some(uuid) = &wanted.adopt {
        offers.insert(
            0,
            Condition::new(
                ConditionId::ArrayNotReady,
                Severity::Warning,
                "",
                &format!("The array {uuid}, which [array] says to adopt, is not here."),
                "Check the cables of its disks and the UUID; `strongroom disks adopt` lists the arrays that are here.",
            ),
        );
    }
    if wanted.system_disk.is_none() {
        return Decision::stand(offers);
    }
    // Where an array that is offered lies on the very disks that are named, it is what has to be decided first.
    let in_question = offered.iter().any(|candidate| {
        let mut members = candidate.members.iter();
        members.any(|member| wanted.disks().any(|name| member.disk.is_named(name)))
    });
    if in_question && !wanted.create {
        return Decision::stand(offers);
    }
    let mut decision = consent::create(system, wanted, memory, disks, candidates);
    if decision.plan == Plan::Stand {
        decision.conditions.splice(0..0, offers);
    }
    decision
}

fn offer(candidate: &Candidate<'_>) -> Condition {
    let uuid = candidate.uuid();
    Condition::new(
        ConditionId::ArrayNotReady,
        Severity::Warning,
        uuid,
        &format!(
            "The array `{}` ({uuid}) on {} was made elsewhere. It is complete and can be used here with all that it holds; until you say so it is left alone.",
            candidate.superblock().name,
            candidate.disks()
        ),
        &format!(
            "To use it: `strongroom disks adopt {uuid}`, or `adopt = \"{uuid}\"` in [array] of strongroom.toml. Nothing on it is changed but its name."
        ),
    )
}

/// Consents that the file still holds though nothing is left for them to do.
fn left_over(used: &Candidate<'_>, wanted: Option<&config::Array>) -> Vec<Condition> {
    let Some(wanted) = wanted else {
        return Vec::new();
    };
    let mut conditions = Vec::new();
    let mut info = |subject: &str, text: &str| {
        conditions.push(Condition::new(
            ConditionId::ConsentLeftOver,
            Severity::Info,
            subject,
            text,
            "It may be removed from [array] of strongroom.toml now.",
        ));
    };
    if !wanted.erase.is_empty() {
        info(
            "erase",
            "`erase` in strongroom.toml is not needed any more: the array is there, and nothing is erased.",
        );
    }
    if let Some(uuid) = wanted.adopt.as_ref().filter(|uuid| uuid.as_str() != used.uuid()) {
        info(
            "adopt",
            &format!(
                "`adopt` in strongroom.toml names the array {uuid}, but the array {} is in use: it has a member on the system disk.",
                used.uuid()
            ),
        );
    }
    conditions
}

/// A member's name for people: `serial, partition`.
pub fn member_words(serial: &str, path: &str) -> Text<64> {
    Text::format(format_args!("{serial} ({})", path.trim_start_matches("/dev/")))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
