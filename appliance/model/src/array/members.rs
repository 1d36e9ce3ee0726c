//! The arrays whose members are here, and whether each is whole and may be assembled.

use super::{ARRAY_NAME, Contents, DiskFacts, FILE_SYSTEM, Plan, RAID_START_BYTES, Signature};
use crate::condition::{Condition, ConditionId, Severity};
use crate::config;
use crate::superblock::{Layout, Superblock};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A superblock on a disk.
pub(super) struct Member<'d> {
    pub disk: &'d DiskFacts,
    /// `None`: on the system disk, where the partition entry has to be made again first.
    pub path: Option<String>,
    pub superblock: &'d Superblock,
    pub holds: Option<&'d Signature>,
}

/// All members of one array that are here, by their place in it.
pub(super) struct Candidate<'d> {
    pub members: Vec<Member<'d>>,
}

/// Why an array can't be assembled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not every member is here.
    Incomplete,
    /// Two devices say that they are the same member; the index of the second.
    Twins(usize),
    /// Not RAID0.
    Level(i32),
    /// The members' superblocks contradict each other.
    Contradiction,
    /// Unequal members, and no layout is recorded.
    Layout,
    /// It holds something else than our file system.
    FileSystem(String),
}

fn members_of(disk: &DiskFacts) -> impl Iterator<Item = Member<'_>> {
    let whole_path = if disk.booted {
        // Whatever its number: one that was kept through a flash has its own.
        let mut partitions = disk.partitions.iter();
        let at_start = partitions.find(|p| p.start_bytes == RAID_START_BYTES);
        at_start.map(|p| p.path.clone())
    } else {
        Some(disk.path.clone())
    };
    let at_raid_start = |start: u64| disk.booted && start == RAID_START_BYTES;
    let partitions = disk
        .partitions
        .iter()
        .filter(move |p| !at_raid_start(p.start_bytes))
        .map(|p| (Some(p.path.clone()), &p.contents));
    core::iter::once((whole_path, &disk.contents))
        .chain(partitions)
        .filter_map(move |(path, contents)| match contents {
            Contents::Member { superblock, holds } => Some(Member {
                disk,
                path,
                superblock,
                holds: holds.as_ref(),
            }),
            _ => None,
        })
}

/// Every array of which a member is here.
pub(super) fn candidates(disks: &[DiskFacts]) -> Vec<Candidate<'_>> {
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for member in disks.iter().flat_map(members_of) {
        let uuid = member.superblock.array_uuid.as_str();
        match candidates.iter_mut().find(|candidate| candidate.uuid() == uuid) {
            Some(candidate) => candidate.members.push(member),
            None => candidates.push(Candidate {
                members: alloc::vec![member],
            }),
        }
    }
    for candidate in &mut candidates {
        candidate.members.sort_by_key(|member| member.superblock.role);
    }
    candidates
}

impl Candidate<'_> {
    /// The superblock of the first member; the others say the same, unless [`Fault::Contradiction`].
    pub fn superblock(&self) -> &Superblock {
        // A candidate is made with its first member.
        self.members[0].superblock
    }

    pub fn uuid(&self) -> &str {
        self.superblock().array_uuid.as_str()
    }

    pub fn is_ours_by_name(&self) -> bool {
        self.superblock().bare_name() == ARRAY_NAME
    }

    pub fn is_on_booted_disk(&self) -> bool {
        self.members.iter().any(|member| member.disk.booted)
    }

    pub fn is_incomplete(&self) -> bool {
        let wanted = self.superblock().members;
        let has = |role: u32| {
            self.members
                .iter()
                .any(|m| m.superblock.role.map(u32::from) == Some(role))
        };
        // A superblock has at most 384 roles; a larger number is no array that could be complete.
        wanted == 0 || wanted > 384 || !(0..wanted).all(has)
    }

    /// The array's file system, as its first member shows it.
    pub fn holds(&self) -> Option<&Signature> {
        let mut members = self.members.iter();
        members.find(|member| member.superblock.role == Some(0))?.holds
    }

    /// Why it can't be assembled; `None` when it can.
    pub fn fault(&self) -> Option<Fault> {
        let superblock = self.superblock();
        let twin =
            (1..self.members.len()).find(|i| self.members[*i].superblock.role == self.members[i - 1].superblock.role);
        if let Some(twin) = twin {
            return Some(Fault::Twins(twin));
        }
        if superblock.level != 0 {
            return Some(Fault::Level(superblock.level));
        }
        if self.is_incomplete() {
            return Some(Fault::Incomplete);
        }
        let same = |other: &Superblock| {
            (other.members, other.level, other.layout, other.chunk_sectors)
                == (
                    superblock.members,
                    superblock.level,
                    superblock.layout,
                    superblock.chunk_sectors,
                )
        };
        if self.members.len() != superblock.members as usize || !self.members.iter().all(|m| same(m.superblock)) {
            return Some(Fault::Contradiction);
        }
        let unequal = self
            .members
            .iter()
            .any(|m| m.superblock.chunks() != superblock.chunks());
        if superblock.layout == Layout::Unrecorded && unequal {
            return Some(Fault::Layout);
        }
        match self.holds() {
            Some(other) if other.kind != FILE_SYSTEM => Some(Fault::FileSystem(other.words())),
            // Ours may be without one: its creation was cut short.
            None if !self.is_ours_by_name() => Some(Fault::FileSystem("nothing that is known".into())),
            _ => None,
        }
    }

    pub fn assemble(&self) -> Plan {
        Plan::Assemble {
            array_uuid: self.uuid().into(),
            members: self
                .members
                .iter()
                .map(|member| (member.disk.name().to_string(), member.path.clone()))
                .collect(),
            rename: !self.is_ours_by_name(),
        }
    }

    /// The disks that hold its members, in words.
    pub fn disks(&self) -> String {
        let mut names: Vec<&str> = self.members.iter().map(|member| member.disk.name()).collect();
        names.dedup();
        match names.as_slice() {
            [only] => format!("disk {only}"),
            [first, second] => format!("the disks {first} and {second}"),
            [first, second, rest @ ..] => format!("the disks {first}, {second} and {} more", rest.len()),
            [] => "no disk".into(),
        }
    }
}

const ANOTHER_COMPUTER: &str = "Use it in the computer where it was made, or copy its repositories from there.";

impl Fault {
    /// In words, as the end of a sentence about the array.
    pub fn words(&self) -> String {
        match self {
            Self::Incomplete => "not every member is here".into(),
            Self::Twins(_) => "two disks say that they are the same member".into(),
            Self::Level(level) => format!("its RAID level is {level}, not 0"),
            Self::Contradiction => "its members contradict each other".into(),
            Self::Layout => "its members differ in size and no layout is recorded".into(),
            Self::FileSystem(what) => format!("it holds {what}, not {FILE_SYSTEM}"),
        }
    }

    /// The condition for an array that was meant to be used.
    pub fn condition(
        &self,
        candidate: &Candidate<'_>,
        wanted: Option<&config::Array>,
        disks: &[DiskFacts],
    ) -> Condition {
        let failed = |subject: &str, text: &str, advice: &str| {
            Condition::new(ConditionId::ArrayFailed, Severity::Alarm, subject, text, advice)
        };
        let on = candidate.disks();
        match self {
            Self::Incomplete => incomplete(candidate, wanted, disks),
            Self::Twins(second) => {
                let (one, other) = (candidate.members[second - 1].disk, candidate.members[*second].disk);
                failed(
                    other.name(),
                    &format!(
                        "{} and {} both say that they are the same member of the array; assembled from the wrong one it would be corrupted. Nothing was done.",
                        one.described(),
                        other.described()
                    ),
                    "One is a copy of the other: remove the copy and restart.",
                )
            }
            Self::Level(level) => failed(
                "",
                &format!("The array on {on} has RAID level {level}, not 0. It is left alone."),
                ANOTHER_COMPUTER,
            ),
            Self::Contradiction => failed(
                "",
                &format!("The members of the array on {on} contradict each other. It is left alone."),
                "Look at them with `mdadm --examine` on another computer.",
            ),
            Self::Layout => failed(
                "",
                "The array's members differ in size and its superblock does not record the RAID0 layout. Assembled with the wrong layout it would be corrupted, so it is left alone.",
                "If only kernels before 3.14 or after 5.3 wrote to it, record the layout on another computer: `mdadm --assemble --update=layout-original`; if only kernels 3.14 to 5.3 did, `layout-alternate`. Otherwise copy it from the computer that it was used in.",
            ),
            Self::FileSystem(what) => failed(
                "",
                &format!("The array on {on} holds {what}, not {FILE_SYSTEM}. It is left alone."),
                ANOTHER_COMPUTER,
            ),
        }
    }
}

/// Says exactly which disk is missing, as far as that can be known.
fn incomplete(candidate: &Candidate<'_>, wanted: Option<&config::Array>, disks: &[DiskFacts]) -> Condition {
    let mut lacking: Vec<String> = Vec::new();
    let mut subject = String::new();
    for name in wanted.into_iter().flat_map(config::Array::disks) {
        if candidate.members.iter().any(|member| member.disk.is_named(name)) {
            continue;
        }
        let found = disks.iter().find(|disk| disk.is_named(name));
        lacking.push(match found {
            None => format!("disk {name} is missing"),
            Some(disk) => format!("disk {name} {}", instead(disk)),
        });
        if subject.is_empty() {
            subject = name.to_string();
        }
    }
    if lacking.is_empty() {
        lacking.push("a disk that [array] does not name is missing".into());
    }
    lacking.truncate(2);
    // A disk that was put in the place of another is worth a word.
    let stranger = disks.iter().find(|disk| {
        !disk.booted
            && !wanted.is_some_and(|wanted| wanted.disks().any(|name| disk.is_named(name)))
            && !candidate.members.iter().any(|member| core::ptr::eq(member.disk, *disk))
    });
    let stranger = match stranger {
        Some(disk) => format!(" Disk {} is here instead and {}.", disk.name(), instead(disk)),
        None => String::new(),
    };
    let text = format!(
        "{} of the {} members of the array are here, on {}; {}.{stranger} Without every member the array can't be read, and nothing is written.",
        candidate.members.len(),
        candidate.superblock().members,
        candidate.disks(),
        lacking.join("; "),
    );
    let mut holders: Vec<String> = candidate
        .members
        .iter()
        .map(|member| format!("\"{}\"", member.disk.name()))
        .collect();
    holders.dedup();
    holders.truncate(2);
    let advice = format!(
        "Check the disk's power and data cable. If it has died, the array is lost: name the new disk in `data_disks`, set `create = true` and `erase = [{}]`, restart, and restore from the off-site copy.",
        holders.join(", ")
    );
    Condition::new(ConditionId::MemberMissing, Severity::Alarm, &subject, &text, &advice)
}

/// What a disk holds in place of a member.
fn instead(disk: &DiskFacts) -> String {
    let unreadable = |contents: &Contents| match contents {
        Contents::Unreadable(why) => Some(format!("could not be read ({why})")),
        _ => None,
    };
    let mut all = core::iter::once(&disk.contents).chain(disk.partitions.iter().map(|p| &p.contents));
    if let Some(words) = all.find_map(unreadable) {
        return words;
    }
    if disk.booted {
        return match disk.contents.words() {
            Some(what) => format!("holds {what} in the place of its member"),
            None => "holds nothing in the place of its member".into(),
        };
    }
    let held = core::iter::once(&disk.contents)
        .chain(disk.partitions.iter().map(|p| &p.contents))
        .find_map(Contents::words);
    match held {
        Some(what) => format!("holds {what}, no member of this one"),
        None if disk.partitions.is_empty() => "is blank".into(),
        None => "holds no member".into(),
    }
}
