use super::*;
use crate::config::Config;
use std::vec;

const GIB: u64 = 1 << 30;

fn superblock(uuid: &str, members: u32, role: u16, layout: Layout) -> Superblock {
    Superblock {
        array_uuid: uuid.into(),
        name: "strongroom".into(),
        level: 0,
        layout,
        members,
        role: Some(role),
    }
}

fn system(contents: Contents) -> DiskFacts {
    let partition = |number, start_mib: u64, size_mib: u64, label: &str| PartitionFacts {
        number,
        path: format!("/dev/sda{number}"),
        start_bytes: start_mib << 20,
        size_bytes: size_mib << 20,
        label: label.into(),
        contents: Contents::Signature("something".into()),
    };
    DiskFacts {
        serial: "SYS".into(),
        path: "/dev/sda".into(),
        model: "Disk".into(),
        size_bytes: 500 * GIB,
        booted: true,
        contents,
        partitions: vec![partition(2, 3, 128, "esp"), partition(5, 1667, 2048, "state")],
    }
}

fn data(contents: Contents, partitions: Vec<PartitionFacts>) -> DiskFacts {
    DiskFacts {
        serial: "DATA".into(),
        path: "/dev/sdb".into(),
        model: "Disk".into(),
        size_bytes: 1000 * GIB,
        booted: false,
        contents,
        partitions,
    }
}

fn raid(disk: &str, number: u32, start_bytes: u64, contents: Contents) -> PartitionFacts {
    PartitionFacts {
        number,
        path: format!("{disk}{number}"),
        start_bytes,
        size_bytes: 900 * GIB,
        label: RAID_LABEL.into(),
        contents,
    }
}

fn wanted(create: bool) -> config::Array {
    let text = format!("[array]\nsystem_disk = \"SYS\"\ndata_disks = [\"DATA\"]\ncreate = {create}\n");
    Config::parse(&text).unwrap().array.unwrap()
}

#[track_caller]
fn stands(plan: Plan, id: ConditionId, words: &str) {
    let Plan::Stand(conditions) = plan else {
        panic!("{plan:?}")
    };
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
    let plan = decide(
        Some(&wanted(true)),
        &[system(Contents::Blank), data(Contents::Blank, vec![])],
    );
    assert_eq!(
        plan,
        Plan::Create {
            system_disk: "/dev/sda".into(),
            raid_partition_exists: false,
            data_disks: vec!["/dev/sdb".into()]
        }
    );
}

#[test]
fn without_consent_nothing_happens() {
    let disks = [system(Contents::Blank), data(Contents::Blank, vec![])];
    stands(
        decide(Some(&wanted(false)), &disks),
        ConditionId::ArrayNotReady,
        "consent",
    );
    stands(
        decide(None, &disks),
        ConditionId::ArrayNotReady,
        "No array is configured",
    );
}

#[test]
fn a_disk_that_is_not_blank_is_refused_in_spite_of_consent() {
    let full = data(Contents::Signature("an ext4 file system".into()), vec![]);
    stands(
        decide(Some(&wanted(true)), &[system(Contents::Blank), full]),
        ConditionId::ArrayFailed,
        "ext4",
    );
    let mut partition = raid("/dev/sdb", 1, 1 << 20, Contents::Blank);
    partition.label = "Basic data".into();
    let full = data(Contents::Blank, vec![partition]);
    stands(
        decide(Some(&wanted(true)), &[system(Contents::Blank), full]),
        ConditionId::ArrayFailed,
        "partition 1",
    );
    let unreadable = data(Contents::Unreadable("Input/output error".into()), vec![]);
    stands(
        decide(Some(&wanted(true)), &[system(Contents::Blank), unreadable]),
        ConditionId::ArrayFailed,
        "could not be read",
    );
    let full = system(Contents::Signature("an LVM volume".into()));
    stands(
        decide(Some(&wanted(true)), &[full, data(Contents::Blank, vec![])]),
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
    } = decide(Some(&wanted(true)), &[disk, half])
    else {
        panic!()
    };
    assert!(raid_partition_exists);
}

#[test]
fn an_existing_array_is_assembled_even_without_configuration_or_partition_entry() {
    let member = |role| Contents::Member(superblock("u", 2, role, Layout::Original));
    let disks = [
        system(member(0)),
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]),
    ];
    for wanted in [None, Some(&wanted(true)), Some(&wanted(false))] {
        assert_eq!(
            decide(wanted, &disks),
            Plan::Assemble {
                array_uuid: "u".into(),
                members: vec![("SYS".into(), None), ("DATA".into(), Some("/dev/sdb1".into()))]
            }
        );
    }
}

#[test]
fn the_partition_entry_is_used_where_it_is() {
    let member = |role| Contents::Member(superblock("u", 2, role, Layout::Original));
    let mut disk = system(member(0));
    disk.partitions.push(raid("/dev/sda", 6, RAID_START_BYTES, member(0)));
    let disks = [
        disk,
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]),
    ];
    let Plan::Assemble { members, .. } = decide(None, &disks) else {
        panic!()
    };
    assert_eq!(members[0], ("SYS".into(), Some("/dev/sda6".into())));
    assert_eq!(members.len(), 2);
}

#[test]
fn a_missing_member_is_named_and_nothing_is_done() {
    let disks = [system(Contents::Member(superblock("u", 2, 0, Layout::Original)))];
    stands(
        decide(Some(&wanted(true)), &disks),
        ConditionId::MemberMissing,
        "disk DATA is missing",
    );
    let foreign = data(Contents::Member(superblock("other", 2, 1, Layout::Original)), vec![]);
    let disks = [
        system(Contents::Member(superblock("u", 2, 0, Layout::Original))),
        foreign,
    ];
    stands(
        decide(Some(&wanted(true)), &disks),
        ConditionId::MemberMissing,
        "1 of the array's 2",
    );
}

#[test]
fn a_member_without_its_system_disk_is_never_erased() {
    let orphan = data(
        Contents::Blank,
        vec![raid(
            "/dev/sdb",
            1,
            1 << 20,
            Contents::Member(superblock("u", 2, 1, Layout::Original)),
        )],
    );
    stands(
        decide(Some(&wanted(true)), &[system(Contents::Blank), orphan]),
        ConditionId::MemberMissing,
        "holds a member",
    );
}

#[test]
fn an_unrecorded_layout_of_unequal_members_is_refused() {
    let member = |role| Contents::Member(superblock("u", 2, role, Layout::Unrecorded));
    let disks = [
        system(member(0)),
        data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]),
    ];
    stands(decide(None, &disks), ConditionId::ArrayFailed, "layout");
}

#[test]
fn a_missing_or_doubled_serial_is_told() {
    stands(
        decide(Some(&wanted(true)), &[system(Contents::Blank)]),
        ConditionId::ArrayNotReady,
        "`DATA` is not there",
    );
    let twin = data(Contents::Blank, vec![]);
    stands(
        decide(Some(&wanted(true)), &[system(Contents::Blank), twin.clone(), twin]),
        ConditionId::ArrayFailed,
        "Two disks",
    );
}

#[test]
fn another_system_disk_than_the_configured_is_told() {
    let mut disk = system(Contents::Blank);
    disk.serial = "OTHER".into();
    stands(
        decide(Some(&wanted(true)), &[disk, data(Contents::Blank, vec![])]),
        ConditionId::ArrayNotReady,
        "booted from",
    );
}

#[test]
fn a_clone_of_a_member_is_never_assembled() {
    let member = |role| Contents::Member(superblock("u", 2, role, Layout::Original));
    let one = data(Contents::Blank, vec![raid("/dev/sdb", 1, 1 << 20, member(1))]);
    let mut clone = data(Contents::Blank, vec![raid("/dev/sdc", 1, 1 << 20, member(1))]);
    clone.serial = "CLONE".into();
    stands(
        decide(None, &[system(member(0)), one, clone]),
        ConditionId::ArrayFailed,
        "same member",
    );
}
