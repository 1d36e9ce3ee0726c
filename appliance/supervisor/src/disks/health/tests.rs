use super::*;
use strongroom_model::status::DiskHealth;

fn place(name: &str, serial: &str, ata_port: Option<u32>) -> DiskPlace {
    DiskPlace {
        name: name.into(),
        serial: serial.into(),
        ata_port,
        ..DiskPlace::default()
    }
}

fn health(paths: &Paths) -> Health<'_> {
    let mut health = Health::take_up(paths);
    for one in [
        place("sda", "SYS", Some(1)),
        place("sdb", "WD-1", Some(2)),
        place("nvme0n1", "NV-1", None),
    ] {
        health.places.insert(one.name.clone(), one);
    }
    health
}

fn say(health: &mut Health<'_>, message: &str) {
    let event = kernel_log::read(message).unwrap();
    assert!(health.take_in(&event), "{message}");
}

#[test]
fn what_the_kernel_says_reaches_the_right_disk() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let mut health = health(&paths);
    say(&mut health, "I/O error, dev sdb, sector 2048 op 0x0:(READ) flags 0x0");
    say(&mut health, "ata2.00: failed command: READ DMA");
    say(&mut health, "nvme nvme0: I/O 7 QID 2 timeout, aborting");
    say(&mut health, "EXT4-fs error (device md127): ext4_lookup:1855: x");
    health.write_down().unwrap();
    let report = HealthReport::read(&paths.health_report()).unwrap();
    assert_eq!(report.errors["WD-1"], 1);
    let ids: Vec<_> = report.conditions.iter().map(|c| (c.id, c.subject.as_str())).collect();
    assert_eq!(
        ids,
        [
            (ConditionId::DiskErrors, "WD-1"),
            (ConditionId::FileSystemDamaged, "array")
        ]
    );
    let disk = report.disks.iter().find(|disk| disk.serial == "WD-1").unwrap();
    assert_eq!(disk.health, DiskHealth::Failing);
    let memory = Notes::read(&paths.health_notes()).disks["WD-1"];
    assert_eq!((memory.errors.failed, memory.errors.disturbed), (1, 1));
    assert_eq!(Notes::read(&paths.health_notes()).disks["NV-1"].errors.disturbed, 1);
}

#[test]
fn after_a_restart_of_the_role_nothing_is_counted_twice() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let log = folder.path().join("kmsg");
    std::fs::write(&log, "").unwrap();
    let mut first = health(&paths);
    first.report.sequence = Some(7);
    say(&mut first, "I/O error, dev sdb, sector 1 op 0x0:(READ)");
    first.write_down().unwrap();
    let second = Health::take_up(&paths);
    assert_eq!(second.report.sequence, Some(7));
    assert_eq!(second.notes.disks["WD-1"].errors.failed, 1);
}

#[test]
fn an_array_that_lost_a_member_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let md = folder.path().join("md127/md");
    std::fs::create_dir_all(&md).unwrap();
    std::fs::write(md.join("array_state"), "clean\n").unwrap();
    assert_eq!(broken_array(folder.path()), None);
    std::fs::write(md.join("array_state"), "broken\n").unwrap();
    assert_eq!(broken_array(folder.path()).unwrap().severity, Severity::Alarm);
}
