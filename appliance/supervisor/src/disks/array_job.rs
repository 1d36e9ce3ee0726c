//! The role `strongroom-array`: observes the disks, decides with `strongroom_model::array`, creates or assembles the
//! array, and writes down what it found and did. It mounts nothing; the disks duty does, through systemd.
//!
//! Durable: nothing but what mdadm, sfdisk and mkfs write. A power cut in the middle leaves either blank partitions of
//! our name or an array without a file system together with the mark that it was being created; both are taken up by
//! the next run. Between mdadm's writes to its members lies a moment that isn't: the next run then tells of a missing
//! member.

use crate::durable;
use crate::paths::Paths;
use crate::services::block;
use crate::services::command::{self, CommandError};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use strongroom_model::array::{self, ARRAY_NAME, DiskFacts, Plan, RAID_LABEL, RAID_PARTITION, RAID_START_BYTES};
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{self, Config};
use strongroom_model::status::{Array, ArrayState, Disk, DiskRole};

/// Device of the array.
pub const ARRAY_DEVICE: &str = "/dev/md/strongroom";
/// GPT type of Linux RAID partitions (FD00 of gdisk).
const RAID_TYPE: &str = "A19D880F-05FC-4D3B-A006-743F0F84911E";

/// What the role found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArrayReport {
    /// The array, as far as it came.
    pub array: Array,
    /// Every disk.
    pub disks: Vec<Disk>,
    /// What a person should know.
    pub conditions: Vec<Condition>,
}

/// Why the array could not be made ready.
#[derive(Debug, thiserror::Error)]
enum ArrayError {
    #[error(transparent)]
    Block(#[from] block::BlockError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{0} could not be written: {1}")]
    Write(String, std::io::Error),
    #[error("the kernel did not show {0} after it was made")]
    NoDevice(String),
    #[error(
        "no file system is recognised on the array, and it was not being created; nothing is written to it. Run `fsck.ext4` on it from a Linux live system, or restore from the off-site copy"
    )]
    NoFileSystem,
}

/// Runs the role. Errors are part of the report; what is returned is only whether the report could be written.
pub fn run(paths: &Paths) -> std::io::Result<()> {
    let wanted = fs::read_to_string(paths.config())
        .ok()
        .and_then(|text| Config::parse(&text).ok());
    let wanted = wanted.and_then(|config| config.array);
    let report = match observe_and_act(paths, wanted.as_ref()) {
        Ok(report) => report,
        Err((disks, error)) => ArrayReport {
            array: Array {
                state: ArrayState::Failed,
                ..Array::default()
            },
            disks: disks
                .iter()
                .map(|disk| disk_status(disk, wanted.as_ref(), &[]))
                .collect(),
            conditions: vec![Condition::new(
                ConditionId::ArrayFailed,
                Severity::Alarm,
                "",
                &format!("The array could not be made ready: {error}."),
                "Check the disks' cables and restart. If it stays so, keep the disks as they are and ask for help with the system's log.",
            )],
        },
    };
    for condition in &report.conditions {
        eprintln!("{}: {} {}", condition.subject, condition.text, condition.advice);
    }
    durable::write(
        &paths.array_report(),
        &serde_json::to_vec(&report).unwrap_or_default(),
        0o644,
    )
}

/// Assembles the array if it is there with all its members. Never creates one: that takes a configuration, and none is
/// looked at.
pub fn assemble_existing(paths: &Paths) -> std::io::Result<ArrayReport> {
    observe_and_act(paths, None).map_err(|(_, error)| std::io::Error::other(error.to_string()))
}

fn observe_and_act(paths: &Paths, wanted: Option<&config::Array>) -> Result<ArrayReport, (Vec<DiskFacts>, ArrayError)> {
    // Serial numbers come from udev's database: let it finish with what was found so far.
    let settled = command::run("udevadm", &["settle", "--timeout=30"], "");
    settled.map_err(|error| (Vec::new(), error.into()))?;
    let disks = block::disks().map_err(|error| (Vec::new(), error.into()))?;
    match act(paths, wanted, &disks) {
        Ok((state, members, conditions)) => Ok(ArrayReport {
            array: Array {
                state,
                members: members
                    .iter()
                    .map(|(serial, path)| array::member_words(serial, path))
                    .take(16)
                    .collect(),
                ..Array::default()
            },
            disks: disks.iter().map(|disk| disk_status(disk, wanted, &members)).collect(),
            conditions,
        }),
        Err(error) => Err((disks, error)),
    }
}

type Outcome = (ArrayState, Vec<(String, String)>, Vec<Condition>);

fn act(paths: &Paths, wanted: Option<&config::Array>, disks: &[DiskFacts]) -> Result<Outcome, ArrayError> {
    let plan = array::decide(wanted, disks);
    let running = Path::new(ARRAY_DEVICE).exists();
    match plan {
        Plan::Stand(conditions) => {
            let failed = conditions.iter().any(|condition| condition.severity == Severity::Alarm);
            let state = if failed {
                ArrayState::Failed
            } else {
                ArrayState::NotReady
            };
            Ok((state, Vec::new(), conditions))
        }
        Plan::Assemble { array_uuid, members } => {
            let system = disks
                .iter()
                .find(|disk| disk.booted)
                .map(|disk| disk.path.as_str())
                .unwrap_or_default();
            let mut devices = Vec::new();
            for (serial, path) in members {
                let path = match path {
                    Some(path) => path,
                    None => add_raid_partition(system)?,
                };
                devices.push((serial, path));
            }
            if !running {
                assemble(&array_uuid, &devices)?;
            }
            ensure_file_system(paths, &array_uuid, &devices)?;
            Ok((ArrayState::Assembled, devices, Vec::new()))
        }
        Plan::Create {
            system_disk,
            raid_partition_exists,
            data_disks,
        } => {
            let devices = create(paths, disks, &system_disk, raid_partition_exists, &data_disks)?;
            Ok((ArrayState::Assembled, devices, Vec::new()))
        }
    }
}

fn assemble(array_uuid: &str, devices: &[(String, String)]) -> Result<(), ArrayError> {
    eprintln!("Assembling the array {array_uuid}.");
    let uuid = format!("--uuid={array_uuid}");
    let mut arguments = vec!["--assemble", ARRAY_DEVICE, &uuid];
    arguments.extend(devices.iter().map(|(_, path)| path.as_str()));
    command::run("mdadm", &arguments, "")?;
    await_device(ARRAY_DEVICE)
}

fn create(
    paths: &Paths,
    disks: &[DiskFacts],
    system_disk: &str,
    raid_partition_exists: bool,
    data_disks: &[String],
) -> Result<Vec<(String, String)>, ArrayError> {
    let serial_of = |path: &str| {
        disks
            .iter()
            .find(|d| d.path == path)
            .map(|d| d.serial.clone())
            .unwrap_or_default()
    };
    let mut devices = Vec::new();
    let system_partition = if raid_partition_exists {
        partition_path(system_disk, RAID_PARTITION)
    } else {
        add_raid_partition(system_disk)?
    };
    devices.push((serial_of(system_disk), system_partition));
    for disk in data_disks {
        eprintln!(
            "Making one partition on the data disk {disk} (serial {}).",
            serial_of(disk)
        );
        let table = format!("label: gpt\nstart=1MiB, type={RAID_TYPE}, name=\"{RAID_LABEL}\"\n");
        command::run("sfdisk", &["--quiet", "--lock=yes", disk], &table)?;
        let partition = partition_path(disk, 1);
        await_device(&partition)?;
        devices.push((serial_of(disk), partition));
    }
    // From here to the file system, a power cut leaves an array without one: the mark says on which disks that is ours.
    mark_creating(paths, &mark(&devices))?;
    eprintln!("Creating the array on {devices:?}.");
    let count = format!("--raid-devices={}", devices.len());
    let name = format!("--name={ARRAY_NAME}");
    let mut arguments = vec![
        "--create",
        ARRAY_DEVICE,
        "--run",
        "--level=0",
        "--metadata=1.2",
        "--chunk=512",
        "--layout=original",
        "--homehost=any",
        &name,
        &count,
    ];
    arguments.extend(devices.iter().map(|(_, path)| path.as_str()));
    command::run("mdadm", &arguments, "")?;
    await_device(ARRAY_DEVICE)?;
    make_file_system(paths)?;
    Ok(devices)
}

/// Appends the raid partition to the system disk, whose other partitions are in use. The backup header of the image's
/// table is moved to the end of the real disk first.
fn add_raid_partition(system_disk: &str) -> Result<String, ArrayError> {
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

/// The disks of an array that is being created, by serial.
fn mark(devices: &[(String, String)]) -> String {
    let mut serials: Vec<&str> = devices.iter().map(|(serial, _)| serial.as_str()).collect();
    serials.sort_unstable();
    serials.join("\n")
}

fn mark_creating(paths: &Paths, text: &str) -> Result<(), ArrayError> {
    let mark = paths.array_creating();
    durable::write(&mark, text.as_bytes(), 0o600).map_err(|error| ArrayError::Write(mark.display().to_string(), error))
}

/// An assembled array holds a file system, unless its creation was cut short before it got one.
fn ensure_file_system(paths: &Paths, array_uuid: &str, devices: &[(String, String)]) -> Result<(), ArrayError> {
    let creating = fs::read_to_string(paths.array_creating()).is_ok_and(|text| text == mark(devices));
    let found = command::outcome("blkid", &["--probe", ARRAY_DEVICE])?;
    match found.code {
        Some(0) => {
            // The mark goes once the file system is known to be there.
            let _ = fs::remove_file(paths.array_creating());
            Ok(())
        }
        Some(2) if creating => {
            eprintln!("The array {array_uuid} was being created when the power went; making its file system.");
            make_file_system(paths)
        }
        _ => Err(ArrayError::NoFileSystem),
    }
}

fn make_file_system(paths: &Paths) -> Result<(), ArrayError> {
    eprintln!("Making the file system.");
    command::run(
        "mkfs.ext4",
        &["-q", "-F", "-L", ARRAY_NAME, "-m", "1", ARRAY_DEVICE],
        "",
    )?;
    rustix::fs::sync();
    let _ = fs::remove_file(paths.array_creating());
    Ok(())
}

fn await_device(path: &str) -> Result<(), ArrayError> {
    // udev's own queue is the right thing to wait for: the name appears while it is worked off.
    command::run("udevadm", &["settle", "--timeout=30"], "")?;
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

fn disk_status(disk: &DiskFacts, wanted: Option<&config::Array>, members: &[(String, String)]) -> Disk {
    let is_data = wanted.is_some_and(|wanted| {
        wanted
            .data_disks
            .iter()
            .any(|serial| serial.get_ref().as_str() == disk.serial)
    });
    let role = match (disk.booted, is_data) {
        (true, _) => DiskRole::System,
        (false, true) => DiskRole::Data,
        (false, false) => DiskRole::Other,
    };
    Disk {
        serial: disk.serial.as_str().into(),
        model: disk.model.as_str().into(),
        kernel_name: disk.path.trim_start_matches("/dev/").into(),
        size_bytes: disk.size_bytes,
        role,
        member: members.iter().any(|(serial, _)| *serial == disk.serial),
        ..Disk::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_disks_that_end_in_a_digit() {
        assert_eq!(partition_path("/dev/sda", 6), "/dev/sda6");
        assert_eq!(partition_path("/dev/nvme0n1", 6), "/dev/nvme0n1p6");
        assert_eq!(partition_path("/dev/mmcblk0", 1), "/dev/mmcblk0p1");
    }
}
