use super::*;
use crate::config::Config;
use crate::superblock::Layout;
use std::vec;
use std::vec::Vec;

const GIB: u64 = 1 << 30;

pub(super) fn superblock(uuid: &str, members: u32, role: u16, layout: Layout) -> Superblock {
    Superblock {
        array_uuid: uuid.into(),
        name: "strongroom".into(),
        level: 0,
        layout,
        members,
        role: Some(role),
        data_offset: 2048,
        // Unequal members, as ours are.
        data_sectors: 1_000_000 * (1 + u64::from(role)),
        chunk_sectors: 1024,
    }
}

fn ext4(label: &str) -> Signature {
    Signature {
        kind: "ext4".into(),
        label: label.into(),
    }
}

/// What a member of our own array shows.
pub(super) fn ours(uuid: &str, role: u16) -> Contents {
    Contents::Member {
        superblock: superblock(uuid, 2, role, Layout::Original),
        holds: (role == 0).then(|| ext4("strongroom")),
    }
}

/// What a member of an array that was made elsewhere shows.
fn foreign(uuid: &str, role: u16) -> Contents {
    let Contents::Member { mut superblock, holds } = ours(uuid, role) else {
        panic!()
    };
    superblock.name = "oldbox:backup".into();
    Contents::Member { superblock, holds }
}

fn something(kind: &str) -> Contents {
    Contents::Signature(Signature {
        kind: kind.into(),
        label: String::new(),
    })
}

pub(super) fn system(contents: Contents) -> DiskFacts {
    let partition = |number, start_mib: u64, size_mib: u64, label: &str| PartitionFacts {
        number,
        path: format!("/dev/sda{number}"),
        start_bytes: start_mib << 20,
        size_bytes: size_mib << 20,
        label: label.into(),
        contents: something("something"),
        used: None,
    };
    DiskFacts {
        serial: "SYS".into(),
        wwn: "0x5000c5000000000a".into(),
        path: "/dev/sda".into(),
        model: "Disk".into(),
        size_bytes: 500 * GIB,
        booted: true,
        contents,
        partitions: vec![partition(2, 3, 128, "esp"), partition(5, 1667, 2048, "state")],
        used: None,
    }
}

pub(super) fn data(contents: Contents, partitions: Vec<PartitionFacts>) -> DiskFacts {
    DiskFacts {
        serial: "DATA".into(),
        wwn: "0x5000c5000000000b".into(),
        path: "/dev/sdb".into(),
        model: "Disk".into(),
        size_bytes: 1000 * GIB,
        booted: false,
        contents,
        partitions,
        used: None,
    }
}

pub(super) fn raid(disk: &str, number: u32, start_bytes: u64, contents: Contents) -> PartitionFacts {
    PartitionFacts {
        number,
        path: format!("{disk}{number}"),
        start_bytes,
        size_bytes: 900 * GIB,
        label: RAID_LABEL.into(),
        contents,
        used: None,
    }
}

pub(super) fn wanted_with(more: &str) -> config::Array {
    let text = format!("[array]\nsystem_disk = \"SYS\"\ndata_disks = [\"DATA\"]\n{more}\n");
    Config::parse(&text).unwrap().array.unwrap()
}

fn wanted(create: bool) -> config::Array {
    wanted_with(&format!("create = {create}"))
}

/// Decides, with nothing remembered.
fn decided(wanted: Option<&config::Array>, disks: &[DiskFacts]) -> Decision {
    decide(wanted, &Memory::default(), disks)
}

#[track_caller]
fn stands(decision: Decision, id: ConditionId, words: &str) {
    assert_eq!(decision.plan, Plan::Stand);
    let conditions = decision.conditions;
    assert!(
        conditions.iter().any(|c| c.id == id && c.text.contains(words)),
        "{conditions:#?}"
    );
    for condition in conditions {
        assert!(
            !condition.text.ends_with('…') && !condition.advice.ends_with('…'),
            "cut: {condition:?}"
        );
    }
}

#[test]
fn blank_disks_and_consent_create() {
    let plan = decided(
        Some(&wanted(true)),
        &[system(Contents::Blank), data(Contents::Blank, vec![])],
    );
    assert_eq!(
        plan.plan,
        Plan::Create {
            system_disk: "/dev/sda".into(),
            raid_partition_exists: false,
            data_disks: vec!["/dev/sdb".into()],
            erase: vec![],
        }
    );
}

#[test]
fn without_consent_nothing_happens() {
    let disks = [system(Contents::Blank), data(Contents::Blank, vec![])];
    stands(
        decided(Some(&wanted(false)), &disks),
        ConditionId::ArrayNotReady,
        "consent",
    );
    stands(
        decided(None, &disks),
        ConditionId::ArrayNotReady,
        "No array is configured",
    );
}

#[test]
fn a_disk_that_is_not_blank_is_refused_in_spite_of_consent() {
    let full = data(something("ext4"), vec![]);
    stands(
        decided(Some(&wanted(true)), &[system(Contents::Blank), full]),
        ConditionId::ArrayFailed,
        "ext4",
    );
    let mut partition = raid("/dev/sdb", 1, 1 << 20, Contents::Blank);
    partition.label = "Basic data".into();
    let full = data(Contents::Blank, vec![partition]);
    stands(
        decided(Some(&wanted(true)), &[system(Contents::Blank), full]),
        ConditionId::ArrayFailed,
        "partition 1",
    );
    let unreadable = data(Contents::Unreadable("Input/output error".into()), vec![]);
    stands(
        decided(Some(&wanted(true)), &[system(Contents::Blank), unreadable]),
        ConditionId::ArrayFailed,
        "could not be read",
    );
    let full = system(something("LVM2_member"));
    stands(
        decided(Some(&wanted(true)), &[full, data(Contents::Blank, vec![])]),
        ConditionId::ArrayFailed,
        "LVM",
    );
}

#[test]
fn an_attempt_cut_short_is_taken_up() {
    let mut disk = system(Contents::Blank);
    disk.partitions
        .push(raid("/dev/sda", 6, RAID_START_BYTES, Contents::Blank));
    let half = data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, Contents::Blank)]);
    let Plan::Create {
        raid_partition_exists, ..
    } = decided(Some(&wanted(true)), &[disk, half]).plan
    else {
        panic!()
    };
    assert!(raid_partition_exists);
}

#[test]
fn an_existing_array_is_assembled_even_without_configuration_or_partition_entry() {
    let member = |role| ours("u", role);
    let disks = [
        system(member(0)),
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]),
    ];
    for wanted in [None, Some(&wanted(true)), Some(&wanted(false))] {
        assert_eq!(
            decided(wanted, &disks).plan,
            Plan::Assemble {
                array_uuid: "u".into(),
                members: vec![("SYS".into(), None), ("DATA".into(), Some("/dev/sdb1".into()))],
                rename: false,
            }
        );
    }
}

#[test]
fn the_partition_entry_is_used_where_it_is() {
    let member = |role| ours("u", role);
    let mut disk = system(member(0));
    disk.partitions.push(raid("/dev/sda", 6, RAID_START_BYTES, member(0)));
    let disks = [
        disk,
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]),
    ];
    let Plan::Assemble { members, .. } = decided(None, &disks).plan else {
        panic!()
    };
    assert_eq!(members[0], ("SYS".into(), Some("/dev/sda6".into())));
    assert_eq!(members.len(), 2);
}

#[test]
fn a_missing_member_is_named_and_nothing_is_done() {
    let disks = [system(ours("u", 0))];
    stands(
        decided(Some(&wanted(true)), &disks),
        ConditionId::MemberMissing,
        "disk DATA is missing",
    );
    let disks = [system(ours("u", 0)), data(ours("other", 1), vec![])];
    stands(
        decided(Some(&wanted(true)), &disks),
        ConditionId::MemberMissing,
        "disk DATA holds a member of the array `strongroom`, no member of this one",
    );
}

#[test]
fn a_member_without_its_system_disk_is_never_erased() {
    let orphan = data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, ours("u", 1))]);
    stands(
        decided(Some(&wanted(true)), &[system(Contents::Blank), orphan]),
        ConditionId::MemberMissing,
        "disk SYS holds nothing in the place of its member",
    );
}

#[test]
fn an_unrecorded_layout_of_unequal_members_is_refused() {
    let member = |role| Contents::Member {
        superblock: superblock("u", 2, role, Layout::Unrecorded),
        holds: Some(ext4("")),
    };
    let disks = [
        system(member(0)),
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]),
    ];
    stands(decided(None, &disks), ConditionId::ArrayFailed, "layout");
}

#[test]
fn a_missing_or_doubled_serial_is_told() {
    stands(
        decided(Some(&wanted(true)), &[system(Contents::Blank)]),
        ConditionId::ArrayNotReady,
        "`DATA` is not there",
    );
    let twin = data(Contents::Blank, vec![]);
    stands(
        decided(Some(&wanted(true)), &[system(Contents::Blank), twin.clone(), twin]),
        ConditionId::ArrayFailed,
        "Two disks",
    );
}

#[test]
fn another_system_disk_than_the_configured_is_told() {
    let mut disk = system(Contents::Blank);
    disk.serial = "OTHER".into();
    stands(
        decided(Some(&wanted(true)), &[disk, data(Contents::Blank, vec![])]),
        ConditionId::ArrayNotReady,
        "booted from",
    );
}

#[test]
fn a_clone_of_a_member_is_never_assembled() {
    let member = |role| ours("u", role);
    let one = data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]);
    let mut clone = data(Contents::Blank, vec![raid("/dev/sdc", 1, 1 << 20, member(1))]);
    clone.serial = "CLONE".into();
    stands(
        decided(None, &[system(member(0)), one, clone]),
        ConditionId::ArrayFailed,
        "same member",
    );
}

#[test]
fn consent_to_erase_frees_a_disk_and_nothing_else() {
    let mut partition = raid("/dev/sdb", 1, 1 << 20, something("ntfs"));
    partition.label = "Basic data".into();
    let disks = [system(something("ext4")), data(Contents::Blank, vec![partition])];
    let both = wanted_with("create = true\nerase = [\"SYS\", \"DATA\"]");
    let Plan::Create { erase, .. } = decided(Some(&both), &disks).plan else {
        panic!()
    };
    assert_eq!(
        erase[0].devices,
        Vec::<String>::new(),
        "only the raid partition is meant"
    );
    assert_eq!(erase[1].devices, ["/dev/sdb1", "/dev/sdb"]);
    let one = wanted_with("create = true\nerase = [\"DATA\"]");
    stands(
        decided(Some(&one), &disks),
        ConditionId::ArrayFailed,
        "system disk is not blank: ext4",
    );
    let without = wanted_with("create = false\nerase = [\"SYS\", \"DATA\"]");
    stands(decided(Some(&without), &disks), ConditionId::ArrayNotReady, "may go");
}

#[test]
fn a_disk_in_use_or_unreadable_is_never_erased() {
    let both = wanted_with("create = true\nerase = [\"SYS\", \"DATA\"]");
    let mut used = data(something("ext4"), vec![]);
    used.used = Some("mounted at /media".into());
    stands(
        decided(Some(&both), &[system(Contents::Blank), used]),
        ConditionId::ArrayFailed,
        "in use (mounted at /media)",
    );
    let unreadable = data(Contents::Unreadable("Input/output error".into()), vec![]);
    stands(
        decided(Some(&both), &[system(Contents::Blank), unreadable]),
        ConditionId::ArrayFailed,
        "could not be read",
    );
    let mut disk = system(Contents::Blank);
    disk.partitions
        .push(raid("/dev/sda", 7, RAID_START_BYTES + GIB, something("ext4")));
    stands(
        decided(Some(&both), &[disk, data(Contents::Blank, vec![])]),
        ConditionId::ArrayFailed,
        "partition 7",
    );
}

#[test]
fn after_a_data_disk_has_died_the_rest_can_be_given_up() {
    let disks = [system(ours("u", 0)), data(Contents::Blank, vec![])];
    let decision = decided(Some(&wanted(true)), &disks);
    assert!(
        decision.conditions[0].advice.contains("erase = [\"SYS\"]"),
        "{decision:?}"
    );
    stands(decision, ConditionId::MemberMissing, "disk DATA is blank");
    let given_up = wanted_with("create = true\nerase = [\"SYS\"]");
    let Plan::Create { erase, .. } = decided(Some(&given_up), &disks).plan else {
        panic!()
    };
    assert_eq!(erase.len(), 1);
    // Not while the new disk is missing, and not while the old one is back.
    stands(
        decided(Some(&given_up), &disks[..1]),
        ConditionId::MemberMissing,
        "disk DATA is missing",
    );
    let back = data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, ours("u", 1))]);
    let decision = decided(Some(&given_up), &[system(ours("u", 0)), back]);
    assert!(matches!(decision.plan, Plan::Assemble { .. }));
    assert_eq!(decision.conditions[0].id, ConditionId::ConsentLeftOver);
}

#[test]
fn a_creation_cut_short_between_two_members_is_taken_up() {
    let uuid = "0a1b2c3d:00000000:11111111:deadbeef";
    let disks = [
        system(ours(uuid, 0)),
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, Contents::Blank)]),
    ];
    let memory = Memory {
        creating: ArrayUuid::new(uuid),
        ..Memory::default()
    };
    stands(
        decided(Some(&wanted(true)), &disks),
        ConditionId::MemberMissing,
        "1 of the 2",
    );
    stands(
        decide(Some(&wanted(false)), &memory, &disks),
        ConditionId::MemberMissing,
        "1 of the 2",
    );
    let Plan::Create { erase, .. } = decide(Some(&wanted(true)), &memory, &disks).plan else {
        panic!()
    };
    assert_eq!(erase.len(), 1);
}

#[test]
fn disks_are_named_by_wwn_too_and_each_once() {
    let text = "[array]\nsystem_disk = \"0x5000C5000000000A\"\ndata_disks = [\"0x5000c5000000000b\"]\ncreate = true\n";
    let array = Config::parse(text).unwrap().array.unwrap();
    let disks = [system(Contents::Blank), data(Contents::Blank, vec![])];
    assert!(matches!(decided(Some(&array), &disks).plan, Plan::Create { .. }));
    let text = "[array]\nsystem_disk = \"SYS\"\ndata_disks = [\"DATA\", \"0x5000c5000000000b\"]\ncreate = true\n";
    let array = Config::parse(text).unwrap().array.unwrap();
    stands(
        decided(Some(&array), &disks),
        ConditionId::ArrayNotReady,
        "named there already",
    );
}

fn made_elsewhere() -> [DiskFacts; 3] {
    let a = "a0000000:00000000:00000000:00000000";
    let mut first = data(Contents::Blank, vec![raid("/dev/sdb", 3, 5 << 30, foreign(a, 0))]);
    first.partitions[0].label = "old".into();
    let mut second = data(foreign(a, 1), vec![]);
    (second.serial, second.path, second.wwn) = ("OLD-B".into(), "/dev/sdc".into(), "".into());
    first.serial = "OLD-A".into();
    [system(Contents::Blank), first, second]
}

#[test]
fn an_array_made_elsewhere_is_offered_and_used_only_when_named() {
    let disks = made_elsewhere();
    let uuid = "a0000000:00000000:00000000:00000000";
    for wanted in [None, Some(&wanted(false))] {
        let decision = decided(wanted, &disks);
        assert!(
            decision.conditions[0].advice.contains(&format!("adopt {uuid}")),
            "{decision:#?}"
        );
        stands(decision, ConditionId::ArrayNotReady, "the disks OLD-A and OLD-B");
    }
    let listing = list(None, &Memory::default(), &disks, &decided(None, &disks));
    assert_eq!(listing.arrays[0].verdict, Verdict::Adoptable);
    assert!(
        listing.disks[2].fate.contains("member 2 of 2"),
        "{:?}",
        listing.disks[2]
    );
    let expected = Plan::Assemble {
        array_uuid: uuid.into(),
        members: vec![
            ("OLD-A".into(), Some("/dev/sdb3".into())),
            ("OLD-B".into(), Some("/dev/sdc".into())),
        ],
        rename: true,
    };
    let by_file = Config::parse(&format!("[array]\nadopt = \"{uuid}\"\n"))
        .unwrap()
        .array
        .unwrap();
    assert_eq!(decided(Some(&by_file), &disks).plan, expected);
    let by_command = Memory {
        adopted: ArrayUuid::new(uuid),
        ..Memory::default()
    };
    assert_eq!(decide(None, &by_command, &disks).plan, expected);
    stands(
        decide(None, &by_command, &disks[..2]),
        ConditionId::MemberMissing,
        "1 of the 2",
    );
    stands(
        decided(Some(&by_file), &disks[..1]),
        ConditionId::ArrayNotReady,
        "is not here",
    );
}

#[test]
fn what_cannot_be_adopted_is_explained() {
    let uuid = "a0000000:00000000:00000000:00000000";
    let by_file = Config::parse(&format!("[array]\nadopt = \"{uuid}\"\n"))
        .unwrap()
        .array
        .unwrap();
    let refused = |change: &dyn Fn(&mut Superblock, &mut Option<Signature>), words: &str| {
        let mut disks = made_elsewhere();
        for contents in [1, 2]
            .map(|i| {
                let disk = &disks[i];
                if i == 1 {
                    disk.partitions[0].contents.clone()
                } else {
                    disk.contents.clone()
                }
            })
            .into_iter()
            .enumerate()
        {
            let (
                i,
                Contents::Member {
                    mut superblock,
                    mut holds,
                },
            ) = contents
            else {
                panic!()
            };
            change(&mut superblock, &mut holds);
            let changed = Contents::Member { superblock, holds };
            if i == 0 {
                disks[1].partitions[0].contents = changed;
            } else {
                disks[2].contents = changed;
            }
        }
        stands(decided(Some(&by_file), &disks), ConditionId::ArrayFailed, words);
        let listing = list(None, &Memory::default(), &disks, &decided(None, &disks));
        assert_eq!(listing.arrays[0].verdict, Verdict::Refused);
    };
    refused(&|superblock, _| superblock.level = 1, "RAID level 1");
    refused(
        &|superblock, _| superblock.layout = Layout::Unrecorded,
        "does not record",
    );
    refused(
        &|_, holds| {
            *holds = holds.take().map(|_| Signature {
                kind: "btrfs".into(),
                label: String::new(),
            })
        },
        "btrfs",
    );
    refused(&|_, holds| *holds = None, "nothing that is known");
    refused(
        &|superblock, _| superblock.chunk_sectors = 64 << superblock.role.unwrap(),
        "contradict",
    );
    // The alternate layout is recorded: md assembles it as such.
    let mut disks = made_elsewhere();
    let alternate = |contents: &mut Contents| {
        if let Contents::Member { superblock, .. } = contents {
            superblock.layout = Layout::Alternate;
        }
    };
    alternate(&mut disks[1].partitions[0].contents);
    alternate(&mut disks[2].contents);
    assert!(matches!(decided(Some(&by_file), &disks).plan, Plan::Assemble { .. }));
}

#[test]
fn our_own_array_is_recognised_on_whatever_disks() {
    let mut disks = made_elsewhere();
    disks[1].partitions[0].contents = ours("u", 0);
    disks[2].contents = ours("u", 1);
    let Plan::Assemble { rename, .. } = decided(None, &disks).plan else {
        panic!()
    };
    assert!(!rename);
    // With a member on the booted disk, that array is meant; the other is left alone.
    let mine = data(Contents::Blank, vec![raid("/dev/sdd", 1, 1 << 20, ours("mine", 1))]);
    let mut all = disks.to_vec();
    all.push(mine);
    all[0].contents = ours("mine", 0);
    let Plan::Assemble { array_uuid, .. } = decided(None, &all).plan else {
        panic!()
    };
    assert_eq!(array_uuid, "mine");
    // Two of them, and neither on the booted disk: nobody knows which.
    let mut two = disks.to_vec();
    for (role, serial) in [(0, "X"), (1, "Y")] {
        let mut disk = data(ours("v", role), vec![]);
        disk.serial = serial.into();
        two.push(disk);
    }
    stands(decided(None, &two), ConditionId::ArrayFailed, "More than one array");
}

#[test]
fn a_disk_of_another_appliance_is_told_and_left_alone() {
    let mut visitor = data(ours("other", 1), vec![]);
    visitor.serial = "VISITOR".into();
    let disks = [system(ours("u", 0)), visitor];
    stands(
        decided(Some(&wanted(true)), &disks),
        ConditionId::MemberMissing,
        "disk DATA is missing. Disk VISITOR is here instead",
    );
}

#[test]
fn the_fate_of_each_disk_is_told() {
    let fate = |wanted: Option<&config::Array>, disks: &[DiskFacts], disk: usize| {
        let decision = decided(wanted, disks);
        list(wanted, &Memory::default(), disks, &decision).disks[disk]
            .fate
            .clone()
    };
    let blank = [system(Contents::Blank), data(Contents::Blank, vec![])];
    let (no, yes) = (wanted(false), wanted(true));
    assert_eq!(
        fate(Some(&no), &blank, 0),
        "system disk; its raid partition would be made from 4 GiB on (532 GB), after consent (`create = true`)"
    );
    assert_eq!(
        fate(Some(&no), &blank, 1),
        "would be used as a data disk, after consent (`create = true`)"
    );
    assert_eq!(fate(Some(&yes), &blank, 1), "becomes a member of the new array");
    assert_eq!(fate(None, &blank, 1), "not named in [array]: left alone");
    let photos = data(Contents::Signature(ext4("photos")), vec![]);
    let full = [system(Contents::Blank), photos];
    assert_eq!(
        fate(Some(&yes), &full, 1),
        "refused: ext4 named `photos`; consent `erase` is needed"
    );
    let erase = wanted_with("create = true\nerase = [\"DATA\"]");
    assert_eq!(
        fate(Some(&erase), &full, 1),
        "becomes a member of the new array, after erasing ext4 named `photos`"
    );
    let array = [system(ours("u", 0)), data(ours("u", 1), vec![])];
    assert_eq!(
        fate(Some(&yes), &array, 1),
        "member 2 of 2 of the array `strongroom` in use"
    );
}
