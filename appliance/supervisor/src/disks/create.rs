//! Creating the array: erasing what the owner consented to, partitions, mdadm, the file system.
//!
//! A power cut at any point is taken up by the next run. Before mdadm writes anything, the array's identity is chosen
//! and marked on the state partition. While the mark stands, nothing was ever stored on an array of that identity: a
//! member of it without its fellows is made anew, and its file system too.

use super::array_job::{self, ARRAY_DEVICE, ArrayError};
use crate::durable;
use crate::paths::Paths;
use crate::services::command;
use std::fs;
use std::path::Path;
use strongroom_model::array::{ARRAY_NAME, DiskFacts, Erasure, RAID_LABEL, RAID_PARTITION, RAID_START_BYTES};
use strongroom_model::superblock::ArrayUuid;

/// GPT type of Linux RAID partitions (FD00 of gdisk).
const RAID_TYPE: &str = "A19D880F-05FC-4D3B-A006-743F0F84911E";

/// What makes mkfs.ext4 have the file system count by projects, and only by those (ext4(5), mke2fs(8)).
const PROJECT_QUOTAS: [&str; 4] = ["-O", "quota,project", "-E", "quotatype=prjquota"];

pub(super) fn create(
    paths: &Paths,
    disks: &[DiskFacts],
    system_disk: &str,
    raid_partition_exists: bool,
    data_disks: &[String],
    erase: &[Erasure],
) -> Result<Vec<(String, String)>, ArrayError> {
    let name_of = |path: &str| {
        let disk = disks.iter().find(|disk| disk.path == path);
        disk.map(|disk| disk.name().to_string()).unwrap_or_default()
    };
    let mut devices = Vec::new();
    let system_partition = if raid_partition_exists {
        partition_path(system_disk, RAID_PARTITION)
    } else {
        add_raid_partition(system_disk)?
    };
    for erasure in erase {
        erase_signatures(erasure, &system_partition)?;
    }
    devices.push((name_of(system_disk), system_partition));
    for disk in data_disks {
        eprintln!(
            "Making one partition on the data disk {disk} (serial {}).",
            name_of(disk)
        );
        let table = format!("label: gpt\nstart=1MiB, type={RAID_TYPE}, name=\"{RAID_LABEL}\"\n");
        let wipe = [
            "--quiet",
            "--lock=yes",
            "--wipe=always",
            "--wipe-partitions=always",
            disk,
        ];
        command::run("sfdisk", &wipe, &table)?;
        let partition = partition_path(disk, 1);
        await_device(&partition)?;
        devices.push((name_of(disk), partition));
    }
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").ok();
    let uuid = uuid.and_then(|uuid| ArrayUuid::new(uuid.trim()));
    let uuid = uuid.ok_or_else(|| ArrayError::NoDevice("/proc/sys/kernel/random/uuid".into()))?;
    mark_creating(paths, &uuid, &devices)?;
    eprintln!("Creating the array {uuid} on {devices:?}.");
    let count = format!("--raid-devices={}", devices.len());
    let name = format!("--name={ARRAY_NAME}");
    let identity = format!("--uuid={uuid}");
    let mut arguments = vec![
        "--create",
        ARRAY_DEVICE,
        "--run",
        "--level=0",
        "--metadata=1.2",
        "--chunk=512",
        "--layout=original",
        "--homehost=any",
        &identity,
        &name,
        &count,
    ];
    arguments.extend(devices.iter().map(|(_, path)| path.as_str()));
    command::run("mdadm", &arguments, "")?;
    await_device(ARRAY_DEVICE)?;
    make_file_system(paths)?;
    Ok(devices)
}

fn erase_signatures(erasure: &Erasure, system_partition: &str) -> Result<(), ArrayError> {
    eprintln!(
        "Erasing on disk {}, by the owner's consent: {}.",
        erasure.disk, erasure.holds
    );
    let of_system = [system_partition.to_string()];
    let devices = if erasure.devices.is_empty() {
        of_system.as_slice()
    } else {
        erasure.devices.as_slice()
    };
    for device in devices {
        let erased = command::run("wipefs", &["--all", "--lock=yes", device], "")?;
        for line in erased.lines() {
            eprintln!("{line}");
        }
    }
    array_job::settle()
}

/// Appends the raid partition to the system disk, whose other partitions are in use. The backup header of the image's
/// table is moved to the end of the real disk first.
pub(super) fn add_raid_partition(system_disk: &str) -> Result<String, ArrayError> {
    eprintln!("Adding the raid partition to the system disk {system_disk}.");
    command::run(
        "sfdisk",
        &["--quiet", "--no-reread", "--relocate", "gpt-bak-std", system_disk],
        "",
    )?;
    let sectors = RAID_START_BYTES / 512;
    let number = RAID_PARTITION.to_string();
    let line = format!("start={sectors}, type={RAID_TYPE}, name=\"{RAID_LABEL}\"\n");
    let arguments = ["--quiet", "--no-reread", "--append", "--partno", &number, system_disk];
    command::run("sfdisk", &arguments, &line)?;
    let partition = partition_path(system_disk, RAID_PARTITION);
    if !Path::new(&partition).exists() {
        // sfdisk has told the kernel; where that was refused because the disk is in use, this tells only the new one.
        command::run("partx", &["--add", "--nr", &number, system_disk], "")?;
    }
    await_device(&partition)?;
    Ok(partition)
}

/// The array's identity in the first line, by which it is known again; its members after it, for people.
fn mark_creating(paths: &Paths, uuid: &ArrayUuid, devices: &[(String, String)]) -> Result<(), ArrayError> {
    let path = paths.array_creating();
    let mut text = format!("{uuid}\n");
    for (disk, _) in devices {
        text.push_str(disk);
        text.push('\n');
    }
    durable::write(&path, text.as_bytes(), 0o600).map_err(|error| ArrayError::Write(path.display().to_string(), error))
}

/// An assembled array holds a file system, unless its creation was cut short: then it is made now, whatever an earlier
/// use of the disks left to see.
pub(super) fn ensure_file_system(paths: &Paths, array_uuid: &str) -> Result<(), ArrayError> {
    let mark = fs::read_to_string(paths.array_creating()).unwrap_or_default();
    if mark.lines().next() == Some(array_uuid) {
        eprintln!("The array {array_uuid} was being created when the power went; making its file system.");
        return make_file_system(paths);
    }
    let found = command::outcome("blkid", &["--probe", ARRAY_DEVICE])?;
    match found.code {
        Some(0) => Ok(()),
        _ => Err(ArrayError::NoFileSystem),
    }
}

fn make_file_system(paths: &Paths) -> Result<(), ArrayError> {
    eprintln!("Making the file system.");
    // Signatures of an earlier array may lie just where the new one begins.
    command::run("wipefs", &["--all", "--quiet", ARRAY_DEVICE], "")?;
    let arguments = ["-q", "-F", "-L", ARRAY_NAME, "-m", "1"];
    command::run(
        "mkfs.ext4",
        &[&arguments[..], &PROJECT_QUOTAS, &[ARRAY_DEVICE]].concat(),
        "",
    )?;
    rustix::fs::sync();
    // Gone for good before anybody may store anything: while it stands, the file system is made anew.
    let path = paths.array_creating();
    durable::remove(&path).map_err(|error| ArrayError::Write(path.display().to_string(), error))
}

pub(super) fn await_device(path: &str) -> Result<(), ArrayError> {
    // udev's own queue is the right thing to wait for: the name appears while it is worked off.
    array_job::settle()?;
    if Path::new(path).exists() {
        Ok(())
    } else {
        Err(ArrayError::NoDevice(path.to_string()))
    }
}

/// Device of a partition: `/dev/sda6`, but `/dev/nvme0n1p6`.
fn partition_path(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    format!("{disk}{separator}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_system_counts_by_projects() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let image = image.to_str().unwrap();
        command::run(
            "mkfs.ext4",
            &[&["-q", "-F"][..], &PROJECT_QUOTAS, &[image]].concat(),
            "",
        )
        .unwrap();
        let told = command::run("dumpe2fs", &["-h", image], "").unwrap();
        let features = told
            .lines()
            .find(|line| line.starts_with("Filesystem features:"))
            .unwrap();
        assert!(
            features.contains(" quota ") && features.contains(" project"),
            "{features}"
        );
        let inodes: Vec<&str> = told.lines().filter(|line| line.contains("quota inode:")).collect();
        assert!(matches!(inodes[..], [one] if one.starts_with("Project")), "{inodes:?}");
    }

    #[test]
    fn partitions_of_disks_that_end_in_a_digit() {
        assert_eq!(partition_path("/dev/sda", 6), "/dev/sda6");
        assert_eq!(partition_path("/dev/nvme0n1", 6), "/dev/nvme0n1p6");
        assert_eq!(partition_path("/dev/mmcblk0", 1), "/dev/mmcblk0p1");
    }
}
