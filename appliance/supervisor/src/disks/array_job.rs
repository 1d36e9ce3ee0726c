//! The role `strongroom-array`: observes the disks, decides with `strongroom_model::array`, creates or assembles the
//! array, and writes down what it found and did. It mounts nothing; the disks duty does, through systemd.
//!
//! Durable: what mdadm, sfdisk and mkfs write, the mark of a creation that is not finished, and the identity of an array
//! that the owner adopted.

use super::create;
use crate::durable;
use crate::paths::Paths;
use crate::services::block;
use crate::services::command::{self, CommandError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use strongroom_model::array::{self, ARRAY_NAME, Decision, DiskFacts, FILE_SYSTEM, Listing, Memory, Plan, Verdict};
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{self, Config};
use strongroom_model::status::{Array, ArrayState, Disk};
use strongroom_model::superblock::ArrayUuid;

/// Device of the array.
pub const ARRAY_DEVICE: &str = "/dev/md/strongroom";

/// What the role found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArrayReport {
    /// The array, as far as it came.
    pub array: Array,
    /// Every disk.
    pub disks: Vec<Disk>,
    /// What a person should know.
    pub conditions: Vec<Condition>,
    /// What is on every disk and what becomes of it; more than the status has room for.
    pub listing: Listing,
}

/// Why the array could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// The disks could not be observed.
    #[error(transparent)]
    Block(#[from] block::BlockError),
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The state partition refuses.
    #[error("{0} could not be written: {1}")]
    Write(String, std::io::Error),
    /// udev or the kernel did not follow.
    #[error("the kernel did not show {0} after it was made")]
    NoDevice(String),
    /// An array without a file system that nobody was creating.
    #[error(
        "no file system is recognised on the array, and it was not being created; nothing is written to it. Run `fsck.ext4` on it from a Linux live system, or restore from the off-site copy"
    )]
    NoFileSystem,
    /// An array to be adopted holds something else.
    #[error("the array holds no {FILE_SYSTEM} file system, so it can't be used here; it was stopped again")]
    OtherFileSystem,
    /// Another array runs under our name.
    #[error("another array, on {0}, is assembled under our name; restart the appliance to use this one")]
    OtherRunning(String),
}

/// Runs the role. `adopt` records that the owner consents to use that array, if it can be used. Errors are part of the
/// report; what is returned is only whether the report could be written.
pub fn run(paths: &Paths, adopt: Option<&ArrayUuid>) -> std::io::Result<()> {
    // Held until the end: the duty and the owner may ask at the same time.
    let lock = fs::File::create(paths.array_lock())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let wanted = fs::read_to_string(paths.config())
        .ok()
        .and_then(|text| Config::parse(&text).ok())
        .and_then(|config| config.array);
    let (mut report, done) = make_ready(paths, wanted.as_ref(), adopt);
    if let Some(plan) = done {
        // Told before the disks are looked at once more, which takes seconds on a slow machine: the duty can mount it.
        write(paths, &report)?;
        report = looked_at_again(paths, wanted.as_ref(), &plan, report);
    }
    for condition in &report.conditions {
        eprintln!("{}: {} {}", condition.subject, condition.text, condition.advice);
    }
    write(paths, &report)
}

fn write(paths: &Paths, report: &ArrayReport) -> std::io::Result<()> {
    let json = serde_json::to_vec(report).unwrap_or_default();
    durable::write(&paths.array_report(), &json, 0o644)
}

/// Assembles the array if it is there with all its members. Never creates one: that takes a configuration, and none is
/// looked at.
pub fn assemble_existing(paths: &Paths) -> ArrayReport {
    make_ready(paths, None, None).0
}

fn remembered(paths: &Paths) -> Memory {
    let uuid = |path| {
        let text = fs::read_to_string(path).ok()?;
        ArrayUuid::new(text.lines().next()?)
    };
    Memory {
        adopted: uuid(paths.array_adopted()),
        creating: uuid(paths.array_creating()),
    }
}

/// What was found and done, and the plan if it was carried out.
fn make_ready(paths: &Paths, wanted: Option<&config::Array>, adopt: Option<&ArrayUuid>) -> (ArrayReport, Option<Plan>) {
    // Serial numbers come from udev's database: let it finish with what was found so far.
    let (disks, memory, decision) = match settle().and_then(|()| observe(paths, wanted, adopt)) {
        Ok(observed) => observed,
        Err(error) => return (failed(&error), None),
    };
    let listing = array::list(wanted, &memory, &disks, &decision);
    let (state, members, conditions) = match act(paths, &disks, &decision.plan) {
        Ok((state, members)) => (state, members, decision.conditions),
        Err(error) => (ArrayState::Failed, Vec::new(), failed(&error).conditions),
    };
    let state = match (&decision.plan, state) {
        (Plan::Stand, _) if conditions.iter().all(|c| c.severity < Severity::Alarm) => ArrayState::NotReady,
        (Plan::Stand, _) => ArrayState::Failed,
        (_, state) => state,
    };
    let array = Array {
        state,
        members: members
            .iter()
            .map(|(disk, path)| array::member_words(disk, path))
            .take(16)
            .collect(),
        ..Array::default()
    };
    let done = (state == ArrayState::Assembled).then_some(decision.plan);
    (report(array, listing, conditions), done)
}

/// What was done has changed what is there.
fn looked_at_again(paths: &Paths, wanted: Option<&config::Array>, plan: &Plan, before: ArrayReport) -> ArrayReport {
    match settle_after(plan).and_then(|()| observe(paths, wanted, None)) {
        Ok((disks, memory, decision)) => {
            let listing = array::list(wanted, &memory, &disks, &decision);
            report(before.array, listing, decision.conditions)
        }
        Err(_) => before,
    }
}

fn report(array: Array, mut listing: Listing, conditions: Vec<Condition>) -> ArrayReport {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    listing.looked_ms = up.tv_sec.unsigned_abs() * 1000 + up.tv_nsec.unsigned_abs() / 1_000_000;
    let disks = listing.disks.iter().map(|disk| Disk {
        serial: disk.serial.as_str().into(),
        model: disk.model.as_str().into(),
        kernel_name: disk.kernel_name.as_str().into(),
        size_bytes: disk.size_bytes,
        role: disk.role,
        member: disk.member && array.state == ArrayState::Assembled,
        ..Disk::default()
    });
    ArrayReport {
        disks: disks.collect(),
        array,
        conditions,
        listing,
    }
}

type Observed = (Vec<DiskFacts>, Memory, Decision);

fn observe(paths: &Paths, wanted: Option<&config::Array>, adopt: Option<&ArrayUuid>) -> Result<Observed, ArrayError> {
    let disks = block::disks()?;
    let memory = remembered(paths);
    let decision = array::decide(wanted, &memory, &disks);
    let Some(adopt) = adopt else {
        return Ok((disks, memory, decision));
    };
    // Only what can be used is recorded: a record of anything else would stand in the way of what comes later.
    let listing = array::list(wanted, &memory, &disks, &decision);
    let found = listing.arrays.iter().find(|found| found.uuid == adopt.as_str());
    match found {
        Some(found) if found.verdict == Verdict::Adoptable => {
            eprintln!("The owner adopts the array {adopt}, `{}`.", found.name);
            let path = paths.array_adopted();
            durable::write(&path, format!("{adopt}\n").as_bytes(), 0o644)
                .map_err(|error| ArrayError::Write(path.display().to_string(), error))?;
        }
        Some(found) => eprintln!("The array {adopt} is not adopted: {:?}. {}", found.verdict, found.why),
        None => eprintln!("The array {adopt} is not adopted: it is not here."),
    }
    observe(paths, wanted, None)
}

/// Waits until udev has worked off all that it knows of.
pub(super) fn settle() -> Result<(), ArrayError> {
    command::run("udevadm", &["settle", "--timeout=30"], "")
        .map(drop)
        .map_err(ArrayError::from)
}

/// A creation writes to every member, which udev then looks at again.
fn settle_after(plan: &Plan) -> Result<(), ArrayError> {
    match plan {
        Plan::Create { .. } => settle(),
        Plan::Stand | Plan::Assemble { .. } => Ok(()),
    }
}

fn failed(error: &ArrayError) -> ArrayReport {
    ArrayReport {
        array: Array {
            state: ArrayState::Failed,
            ..Array::default()
        },
        conditions: vec![Condition::new(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            "",
            &format!("The array could not be made ready: {error}."),
            "Check the disks' cables and restart. If it stays so, keep the disks as they are and ask for help with the system's log.",
        )],
        ..ArrayReport::default()
    }
}

/// Does what was planned. Returns how far the array is, and its members: disk and device.
fn act(paths: &Paths, disks: &[DiskFacts], plan: &Plan) -> Result<(ArrayState, Vec<(String, String)>), ArrayError> {
    match plan {
        Plan::Stand => Ok((ArrayState::NotReady, Vec::new())),
        Plan::Assemble {
            array_uuid,
            members,
            rename,
        } => {
            let system = disks.iter().find(|disk| disk.booted);
            let system = system.map(|disk| disk.path.as_str()).unwrap_or_default();
            let mut devices = Vec::new();
            for (disk, path) in members {
                let path = match path {
                    Some(path) => path.clone(),
                    None => create::add_raid_partition(system)?,
                };
                devices.push((disk.clone(), path));
            }
            match running_on() {
                Some(running) if running == base_names(&devices) => {}
                Some(running) => {
                    let running: Vec<String> = running.into_iter().collect();
                    return Err(ArrayError::OtherRunning(running.join(", ")));
                }
                None if *rename => adopt(array_uuid, &devices)?,
                None => assemble(array_uuid, &devices, &[])?,
            }
            create::ensure_file_system(paths, array_uuid)?;
            Ok((ArrayState::Assembled, devices))
        }
        Plan::Create {
            system_disk,
            raid_partition_exists,
            data_disks,
            erase,
        } => {
            let devices = create::create(paths, disks, system_disk, *raid_partition_exists, data_disks, erase)?;
            Ok((ArrayState::Assembled, devices))
        }
    }
}

fn base_names(devices: &[(String, String)]) -> BTreeSet<String> {
    let names = devices.iter().filter_map(|(_, path)| path.rsplit('/').next());
    names.map(str::to_string).collect()
}

/// Kernel names of the members of the array that runs under our name; `None` when none does.
fn running_on() -> Option<BTreeSet<String>> {
    let device = fs::canonicalize(ARRAY_DEVICE).ok()?;
    let members = Path::new("/sys/block").join(device.file_name()?).join("slaves");
    let names = fs::read_dir(members).ok()?.flatten();
    let names: BTreeSet<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    (!names.is_empty()).then_some(names)
}

fn assemble(array_uuid: &str, devices: &[(String, String)], more: &[&str]) -> Result<(), ArrayError> {
    eprintln!("Assembling the array {array_uuid}.");
    let uuid = format!("--uuid={array_uuid}");
    let mut arguments = vec!["--assemble", ARRAY_DEVICE, &uuid];
    arguments.extend(more);
    arguments.extend(devices.iter().map(|(_, path)| path.as_str()));
    command::run("mdadm", &arguments, "")?;
    await_array()
}

/// Waits until udev knows the array. What else it has to do at a start takes seconds more, and its own word for the end
/// of one device's turn does not reach this role, which has no network, netlink's included.
fn await_array() -> Result<(), ArrayError> {
    for _ in 0..600 {
        let known = fs::metadata(ARRAY_DEVICE).is_ok_and(|device| {
            let (major, minor) = (rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev()));
            Path::new(&format!("/run/udev/data/b{major}:{minor}")).exists()
        });
        if known {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(ArrayError::NoDevice(ARRAY_DEVICE.to_string()))
}

/// Assembles an array that was made elsewhere, first without writing anything; only when it holds our file system does
/// it get our name, by which it is recognised after a reflash.
fn adopt(array_uuid: &str, devices: &[(String, String)]) -> Result<(), ArrayError> {
    assemble(array_uuid, devices, &["--readonly"])?;
    let found = command::outcome("blkid", &["--probe", "--output", "export", ARRAY_DEVICE])?;
    command::run("mdadm", &["--stop", ARRAY_DEVICE], "")?;
    if !found
        .stdout
        .lines()
        .any(|line| line.strip_prefix("TYPE=") == Some(FILE_SYSTEM))
    {
        return Err(ArrayError::OtherFileSystem);
    }
    settle()?;
    let name = format!("--name={ARRAY_NAME}");
    assemble(array_uuid, devices, &["--update=name", &name])
}
