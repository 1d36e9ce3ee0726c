//! What holds for every observation and every configuration.

use super::tests::{data, ours, raid, system, wanted_with};
use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const MINE: &str = "0a1b2c3d:00000000:11111111:deadbeef";
const OTHER: &str = "ffffffff:00000000:11111111:deadbeef";

fn contents() -> impl Strategy<Value = Contents> {
    prop_oneof![
        3 => Just(Contents::Blank),
        1 => Just(Contents::Unreadable("Input/output error".into())),
        2 => Just(Contents::Signature(Signature { kind: "ext4".into(), label: String::new() })),
        4 => (any::<bool>(), 0u16..2, any::<bool>()).prop_map(|(mine, role, named)| {
            let mut contents = ours(if mine { MINE } else { OTHER }, role);
            if let Contents::Member { superblock, .. } = &mut contents && !named {
                superblock.name = "oldbox:backup".into();
            }
            contents
        }),
    ]
}

/// The system disk and up to three others: DATA, a second one of that name at times, and one that nobody named.
fn disks() -> impl Strategy<Value = Vec<DiskFacts>> {
    let other = |serial: &'static str, letter: char| {
        (
            contents(),
            proptest::option::of(contents()),
            proptest::bool::weighted(0.1),
        )
            .prop_map(move |(whole, part, used)| {
                let path = format!("/dev/sd{letter}");
                let partitions = part.map_or(vec![], |part| vec![raid(&path, 1, 1 << 20, part)]);
                let whole = if partitions.is_empty() { whole } else { Contents::Blank };
                let mut disk = data(whole, partitions);
                (disk.serial, disk.path) = (serial.into(), path);
                disk.used = used.then(|| "mounted at /media".into());
                disk
            })
    };
    let rest = (
        proptest::option::weighted(0.9, other("DATA", 'b')),
        proptest::option::weighted(0.1, other("DATA", 'c')),
        proptest::option::weighted(0.5, other("STRANGER", 'd')),
    );
    (contents(), rest).prop_map(|(on_system, (one, two, three))| {
        let mut disks = vec![system(on_system)];
        disks.extend([one, two, three].into_iter().flatten());
        disks
    })
}

fn consents() -> impl Strategy<Value = config::Array> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(create, system, data, adopt)| {
        let mut erase = Vec::new();
        if system {
            erase.push("\"SYS\"");
        }
        if data {
            erase.push("\"DATA\"");
        }
        let adopt = if adopt {
            format!("adopt = \"{OTHER}\"")
        } else {
            String::new()
        };
        wanted_with(&format!("create = {create}\nerase = [{}]\n{adopt}", erase.join(", ")))
    })
}

fn memories() -> impl Strategy<Value = Memory> {
    let uuid = || proptest::option::of(prop_oneof![Just(MINE), Just(OTHER)].prop_map(|u| ArrayUuid::new(u).unwrap()));
    (uuid(), uuid()).prop_map(|(adopted, creating)| Memory { adopted, creating })
}

/// The devices that carry a member of the array, each with its place.
fn members<'a>(disks: &'a [DiskFacts], uuid: &'a str) -> impl Iterator<Item = (&'a DiskFacts, u16)> {
    disks.iter().flat_map(move |disk| {
        let all = core::iter::once(&disk.contents).chain(disk.partitions.iter().map(|p| &p.contents));
        all.filter_map(move |contents| match contents {
            Contents::Member { superblock, .. } if superblock.array_uuid.as_str() == uuid => {
                Some((disk, superblock.role.unwrap()))
            }
            _ => None,
        })
    })
}

fn is_complete(disks: &[DiskFacts], uuid: &str) -> bool {
    (0..2).all(|role| members(disks, uuid).any(|(_, other)| other == role))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn nothing_is_erased_without_consent_or_by_mistake(disks in disks(), wanted in consents(), memory in memories()) {
        let Plan::Create { erase, data_disks, .. } = decide(Some(&wanted), &memory, &disks).plan else {
            return Ok(());
        };
        prop_assert!(wanted.create);
        // Every disk that is named is here, once, readable and not in use.
        prop_assert_eq!(data_disks.len(), 1);
        prop_assert_eq!(disks.iter().filter(|disk| disk.serial == "DATA").count(), 1);
        let data = disks.iter().find(|disk| disk.serial == "DATA").unwrap();
        prop_assert_eq!(&data.path, &data_disks[0]);
        for disk in [&disks[0], data] {
            prop_assert!(disk.used.is_none());
            prop_assert!(!matches!(disk.contents, Contents::Unreadable(_)));
            // No array that is completely here loses a member.
            for uuid in [MINE, OTHER] {
                let has_member = members(&disks, uuid).any(|(of, _)| core::ptr::eq(of, disk));
                prop_assert!(!(has_member && is_complete(&disks, uuid)));
            }
            // What holds anything is erased, and by consent, unless it is our own unfinished work.
            let mut held = core::iter::once(&disk.contents);
            let mut parts = disk.partitions.iter().map(|p| &p.contents).filter(|_| !disk.booted);
            let holds: Vec<&Contents> = held.by_ref().chain(parts.by_ref()).filter(|c| **c != Contents::Blank).collect();
            let unfinished = |contents: &&Contents| matches!(contents, Contents::Member { superblock, .. }
                if memory.creating.as_ref().is_some_and(|u| u.as_str() == superblock.array_uuid.as_str()));
            let consented = wanted.erase.iter().any(|name| name.get_ref().as_str() == disk.serial);
            prop_assert!(consented || holds.iter().all(unfinished));
            prop_assert_eq!(erase.iter().any(|erasure| erasure.disk == disk.serial), !holds.is_empty());
        }
        // Nothing but the named disks, and of the booted one only the raid partition.
        for erasure in &erase {
            let expected: Vec<String> = if erasure.disk == "SYS" { vec![] } else {
                data.partitions.iter().map(|p| p.path.clone()).chain([data.path.clone()]).collect()
            };
            prop_assert_eq!(&erasure.devices, &expected);
        }
    }

    #[test]
    fn what_is_assembled_is_whole(disks in disks(), wanted in proptest::option::of(consents()), memory in memories()) {
        let Plan::Assemble { array_uuid, members: used, rename } = decide(wanted.as_ref(), &memory, &disks).plan else {
            return Ok(());
        };
        prop_assert_eq!(used.len(), 2);
        prop_assert!(is_complete(&disks, &array_uuid));
        prop_assert_eq!(members(&disks, &array_uuid).count(), 2, "a clone");
        if rename {
            let by_file = wanted.as_ref().and_then(|wanted| wanted.adopt.as_ref());
            let named = [by_file, memory.adopted.as_ref()];
            prop_assert!(named.into_iter().flatten().any(|uuid| uuid.as_str() == array_uuid));
        }
    }

    #[test]
    fn whatever_stands_is_explained_and_every_disk_has_a_fate(
        disks in disks(), wanted in proptest::option::of(consents()), memory in memories(),
    ) {
        let decision = decide(wanted.as_ref(), &memory, &disks);
        if decision.plan == Plan::Stand {
            prop_assert!(!decision.conditions.is_empty());
        }
        for condition in &decision.conditions {
            prop_assert!(!condition.text.ends_with('…') && !condition.advice.ends_with('…'), "{:?}", condition);
        }
        let listing = list(wanted.as_ref(), &memory, &disks, &decision);
        prop_assert_eq!(listing.disks.len(), disks.len());
        prop_assert!(listing.disks.iter().all(|disk| !disk.fate.is_empty()));
        let in_use = listing.arrays.iter().filter(|array| array.verdict == Verdict::InUse).count();
        prop_assert_eq!(in_use, usize::from(matches!(decision.plan, Plan::Assemble { .. })));
    }
}
