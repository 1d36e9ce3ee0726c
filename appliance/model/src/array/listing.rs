//! What is on every disk, and what would become of it, for people: what `strongroom disks` shows.

use super::consent::{self, Obstacle};
use super::members::{self, Candidate, Member};
use super::{Decision, DiskFacts, Memory, PartitionFacts, Plan, RAID_START_BYTES};
use crate::config;
use crate::status::DiskRole;
use crate::superblock::Layout;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Every disk, and every array of which a member is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// When it was made, in milliseconds since the appliance booted: tells one look from another.
    pub looked_ms: u64,
    /// The disks.
    pub disks: Vec<ListedDisk>,
    /// The arrays.
    pub arrays: Vec<ListedArray>,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDisk {
    /// Serial number; empty when the disk tells none.
    pub serial: String,
    /// World-wide name; empty when the disk tells none.
    pub wwn: String,
    /// Model.
    pub model: String,
    /// Kernel name right now, e.g. `sda`.
    pub kernel_name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What part it plays.
    pub role: DiskRole,
    /// Whether it holds a member of the array in use.
    pub member: bool,
    /// What is on the disk as a whole, in words; empty: nothing but its partitions.
    pub contents: String,
    /// Its partitions.
    pub partitions: Vec<ListedPartition>,
    /// What becomes of it, in a sentence.
    pub fate: String,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedPartition {
    /// Its number.
    pub number: u32,
    /// Its name in the partition table.
    pub label: String,
    /// Where it begins, in bytes.
    pub start_bytes: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What is on it, in words; empty: nothing that is known.
    pub contents: String,
    /// What uses it, in words; empty: nothing.
    pub used: String,
}

/// What can be done with an array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is the one in use.
    InUse,
    /// It can be adopted.
    Adoptable,
    /// It is left alone.
    #[default]
    Refused,
}

/// One array of which a member is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedArray {
    /// Its identity.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its RAID level.
    pub level: i32,
    /// Its RAID0 layout.
    pub layout: Layout,
    /// How many members it has.
    pub members: u32,
    /// The members that are here: disk and device.
    pub present: Vec<String>,
    /// What it holds, in words; empty: nothing that is known.
    pub holds: String,
    /// What can be done with it.
    pub verdict: Verdict,
    /// Why it is refused; empty when it is not.
    pub why: String,
}

/// Lists what is there. `decision` is what [`super::decide`] made of the same observation.
pub fn list(wanted: Option<&config::Array>, memory: &Memory, disks: &[DiskFacts], decision: &Decision) -> Listing {
    let candidates = members::candidates(disks);
    let view = View {
        wanted,
        memory,
        disks,
        decision,
        candidates: &candidates,
    };
    Listing {
        looked_ms: 0,
        disks: disks.iter().map(|disk| view.disk(disk)).collect(),
        arrays: candidates.iter().map(|candidate| view.array(candidate)).collect(),
    }
}

struct View<'a, 'd> {
    wanted: Option<&'a config::Array>,
    memory: &'a Memory,
    disks: &'d [DiskFacts],
    decision: &'a Decision,
    candidates: &'a [Candidate<'d>],
}

impl<'d> View<'_, 'd> {
    fn in_use(&self) -> Option<&str> {
        match &self.decision.plan {
            Plan::Assemble { array_uuid, .. } => Some(array_uuid),
            _ => None,
        }
    }

    fn array(&self, candidate: &Candidate<'_>) -> ListedArray {
        let superblock = candidate.superblock();
        let fault = candidate.fault();
        let verdict = match (&fault, self.in_use()) {
            (_, Some(uuid)) if uuid == candidate.uuid() => Verdict::InUse,
            (None, _) => Verdict::Adoptable,
            (Some(_), _) => Verdict::Refused,
        };
        ListedArray {
            uuid: candidate.uuid().to_string(),
            name: superblock.name.to_string(),
            level: superblock.level,
            layout: superblock.layout,
            members: superblock.members,
            present: candidate.members.iter().map(whereabouts).collect(),
            holds: candidate.holds().map(super::Signature::words).unwrap_or_default(),
            verdict,
            why: fault.map(|fault| fault.words()).unwrap_or_default(),
        }
    }

    fn disk(&self, disk: &DiskFacts) -> ListedDisk {
        let is_named = |name: &config::Serial| disk.is_named(name.as_str());
        let is_data = self
            .wanted
            .is_some_and(|wanted| wanted.data_disks.iter().any(|name| is_named(name.get_ref())));
        ListedDisk {
            serial: disk.serial.clone(),
            wwn: disk.wwn.clone(),
            model: disk.model.clone(),
            kernel_name: disk.path.trim_start_matches("/dev/").to_string(),
            size_bytes: disk.size_bytes,
            role: match (disk.booted, is_data) {
                (true, _) => DiskRole::System,
                (false, true) => DiskRole::Data,
                (false, false) => DiskRole::Other,
            },
            member: self
                .places(disk)
                .any(|(candidate, _)| self.in_use() == Some(candidate.uuid())),
            contents: disk.contents.words().unwrap_or_default(),
            partitions: disk.partitions.iter().map(partition).collect(),
            fate: self.fate(disk),
        }
    }

    /// The arrays that have a member on this disk, with that member.
    fn places<'s>(&'s self, disk: &'s DiskFacts) -> impl Iterator<Item = (&'s Candidate<'d>, &'s Member<'d>)> {
        self.candidates.iter().flat_map(move |candidate| {
            let of_disk = candidate
                .members
                .iter()
                .filter(move |member| core::ptr::eq(member.disk, disk));
            of_disk.map(move |member| (candidate, member))
        })
    }

    fn fate(&self, disk: &DiskFacts) -> String {
        if let Plan::Create {
            system_disk,
            data_disks,
            erase,
            ..
        } = &self.decision.plan
            && (*system_disk == disk.path || data_disks.contains(&disk.path))
        {
            let erased = erase.iter().find(|erasure| erasure.disk == disk.name());
            let erased = erased.map_or(String::new(), |erasure| format!(", after erasing {}", erasure.holds));
            return format!("becomes a member of the new array{erased}");
        }
        let mut places = self.places(disk);
        let in_use = self.in_use();
        if let Some((_, member)) = self
            .places(disk)
            .find(|(candidate, _)| Some(candidate.uuid()) == in_use)
        {
            return format!("{} in use", place(member));
        }
        let is_named = |name: &str| disk.is_named(name);
        let named = self.wanted.filter(|wanted| wanted.disks().any(is_named));
        let of_array = places.next();
        match (of_array, named, in_use) {
            (Some((candidate, member)), _, None) if candidate.fault().is_none() => format!(
                "{}, which can be adopted: `strongroom disks adopt {}`",
                place(member),
                candidate.uuid()
            ),
            (_, Some(wanted), None) => self.prospect(disk, wanted),
            (Some((candidate, member)), _, _) => {
                let other = if in_use.is_some() {
                    ", which is not the one in use"
                } else {
                    ""
                };
                let why = candidate.fault().map(|fault| format!(", since {}", fault.words()));
                format!("{}{other}: left alone{}", place(member), why.unwrap_or_default())
            }
            (None, Some(_), Some(_)) => "named in [array], but no member of the array in use: left alone".into(),
            (None, None, _) if disk.booted => "the system was booted from it; its free space is left alone".into(),
            (None, None, _) => "not named in [array]: left alone".into(),
        }
    }

    /// What would become of a disk that is named, while there is no array yet.
    fn prospect(&self, disk: &DiskFacts, wanted: &config::Array) -> String {
        let names_system = wanted
            .system_disk
            .as_ref()
            .is_some_and(|name| disk.is_named(name.get_ref().as_str()));
        let (part, obstacle) = if disk.booted {
            if !names_system {
                return "the system was booted from it, but [array] names it as a data disk: left alone".into();
            }
            let size = disk.size_bytes.saturating_sub(RAID_START_BYTES) / 1_000_000_000;
            (
                format!("system disk; its raid partition would be made from 4 GiB on ({size} GB)"),
                consent::on_system_disk(disk, self.memory, self.candidates),
            )
        } else {
            if names_system {
                return "named as the system disk, but the system was booted from another: left alone".into();
            }
            let of_name = |name: &&str| disk.is_named(name);
            if let Some(Err(_)) = wanted
                .disks()
                .find(of_name)
                .map(|name| consent::named(name, self.disks))
            {
                return "refused: two disks answer to this name; name it by its WWN".into();
            }
            (
                "would be used as a data disk".to_string(),
                consent::on_data_disk(disk, self.memory, self.candidates),
            )
        };
        let when = if wanted.create {
            "as soon as the other disks are fit for it"
        } else {
            "after consent (`create = true`)"
        };
        match obstacle {
            None | Some(Obstacle::Unfinished(_)) => format!("{part}, {when}"),
            Some(Obstacle::Holds(what)) if consent::is_erasable(disk, wanted) => {
                format!("{part}, {when}; what is there would be erased first: {what}")
            }
            Some(Obstacle::Holds(what)) => format!("refused: {what}; consent `erase` is needed"),
            Some(Obstacle::Fixed(what)) => format!("refused: {what}"),
        }
    }
}

fn place(member: &Member<'_>) -> String {
    let superblock = member.superblock;
    let number = superblock
        .role
        .map_or("a".to_string(), |role| format!("{}", u32::from(role) + 1));
    format!(
        "member {number} of {} of the array `{}`",
        superblock.members, superblock.name
    )
}

fn whereabouts(member: &Member<'_>) -> String {
    let device = member.path.as_deref().unwrap_or("no partition entry");
    super::member_words(member.disk.name(), device).to_string()
}

fn partition(partition: &PartitionFacts) -> ListedPartition {
    ListedPartition {
        number: partition.number,
        label: partition.label.clone(),
        start_bytes: partition.start_bytes,
        size_bytes: partition.size_bytes,
        contents: partition.contents.words().unwrap_or_default(),
        used: partition.used.clone().unwrap_or_default(),
    }
}
