//! The disks duty: has the array made ready by the job, mounts it through systemd, watches space, and reads what the
//! roles `health` and `scrub` found.

pub mod array_job;
mod create;
pub mod health;
pub mod scrub_job;

use crate::paths::{ARRAY_MOUNT, Paths};
use crate::report::{Report, publish};
use crate::services::mounts::{self, Mount};
use crate::services::systemd::{Systemd, SystemdError};
use array_job::ArrayReport;
use health::report::HealthReport;
use std::path::Path;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::scrub::Scrubs;
use strongroom_model::status::{Array, ArrayState, Disk, Job, JobKind};
use strongroom_model::superblock::ArrayUuid;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

const ARRAY_UNIT: &str = "strongroom-array.service";
const MOUNT_UNIT: &str = "mnt-raid.mount";
/// Checks the file system before the mount, which does not even fail by itself when this does.
const FSCK_UNIT: &str = "systemd-fsck@dev-md-strongroom.service";
const SCRUB_UNIT: &str = "strongroom-scrub.service";
const SCRUB_TIMER: &str = "strongroom-scrub.timer";
/// How often the disks are looked at again while the array isn't ready; a disk may have been plugged in.
const RETRY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(5);
/// Least free share of a file system before it is mentioned, in percent.
const FREE_PERCENT_MIN: u64 = 10;

/// The duty's part of the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disks {
    /// The array.
    pub array: Array,
    /// Every disk.
    pub disks: Vec<Disk>,
    /// The last scrub and the current one.
    pub scrubs: Scrubs,
    /// The scrub that is running.
    pub scrub: Option<Job>,
}

/// What a person may ask of the duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Look again now.
    Rescan,
    /// Use this array that was made elsewhere.
    Adopt(ArrayUuid),
    /// Read everything on the array, or go on with it.
    Scrub,
}

/// Runs the duty for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(
    paths: Paths,
    systemd: Systemd,
    requests: &mut mpsc::Receiver<Request>,
    report: watch::Sender<Report<Disks>>,
) -> Result<(), SystemdError> {
    let mut next_attempt = Instant::now();
    // Once the array is mounted: the schedule begins, and a scrub that was cut short is taken up again.
    let mut begin = true;
    loop {
        let states = systemd.states(&[ARRAY_UNIT, MOUNT_UNIT, FSCK_UNIT, SCRUB_UNIT]).await?;
        let mount = mounts::at(&paths, ARRAY_MOUNT);
        let mounted = mount.is_some();
        let mount_failed = states[1].is_failed() || states[2].is_failed();
        let working = states[0].is_running();
        let found = read_report(&paths.array_report());
        if !mounted {
            match &found {
                // The array's job may still be looking at the disks once more.
                Some(found) if found.array.state == ArrayState::Assembled && !mount_failed => {
                    systemd.start(MOUNT_UNIT).await?;
                }
                _ if !working && Instant::now() >= next_attempt => {
                    systemd.start(ARRAY_UNIT).await?;
                    next_attempt = Instant::now() + RETRY;
                }
                _ => {}
            }
        }
        let mut new = compose(&paths, found.unwrap_or_default(), mount, working, mount_failed);
        if let Some(health) = HealthReport::read(&paths.health_report()) {
            health.enter(&mut new.part.array, &mut new.part.disks, &mut new.conditions);
        }
        let scrubbing = states[3].is_running();
        enter_scrubs(&mut new.part, scrub_job::read(&paths), scrubbing);
        let unfinished = new
            .part
            .scrubs
            .current
            .as_ref()
            .is_some_and(|scrub| scrub.is_unfinished());
        publish(&report, new);
        if mounted && std::mem::take(&mut begin) {
            systemd.restart_anew(SCRUB_TIMER).await?;
            if unfinished && !scrubbing {
                systemd.start(SCRUB_UNIT).await?;
            }
        }
        let pause = if mounted { POLL } else { Duration::from_secs(1) };
        // A sender that is gone would end every pause at once; it lives as long as the daemon.
        match timeout(pause, requests.recv()).await {
            Ok(Some(Request::Rescan)) => systemd.start(ARRAY_UNIT).await?,
            // The identity is made of hexadecimal digits and colons, all of which a unit's name may hold.
            Ok(Some(Request::Adopt(uuid))) => systemd.start(&format!("strongroom-adopt@{uuid}.service")).await?,
            Ok(Some(Request::Scrub)) => systemd.start(SCRUB_UNIT).await?,
            Ok(None) => tokio::time::sleep(pause).await,
            Err(_) => {}
        }
    }
}

fn enter_scrubs(part: &mut Disks, scrubs: Scrubs, running: bool) {
    part.array.last_scrub = scrubs.last.as_ref().and_then(|scrub| scrub.ended);
    part.scrub = running.then(|| {
        // Before it has written anything of its own, the last one's figures would mislead.
        let current = scrubs.current.as_ref().filter(|scrub| scrub.is_unfinished());
        Job {
            kind: JobKind::Scrub,
            client: None,
            target: None,
            on_disk: false,
            done_bytes: current.map_or(0, |scrub| scrub.done_bytes),
            total_bytes: current.map_or(0, |scrub| scrub.total_bytes),
        }
    });
    part.scrubs = scrubs;
}

fn read_report(path: &Path) -> Option<ArrayReport> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn compose(
    paths: &Paths,
    found: ArrayReport,
    mount: Option<Mount>,
    working: bool,
    mount_failed: bool,
) -> Report<Disks> {
    let ArrayReport {
        mut array,
        disks,
        mut conditions,
        listing: _,
    } = found;
    if let Some(mount) = mount {
        if mount.read_only {
            conditions.push(Condition::new(
                ConditionId::ArrayNotMounted,
                Severity::Alarm,
                "array",
                "The array's file system has turned read-only after an error: a disk may be failing. Clients can't back up.",
                "Check the disks' cables and restart. If it comes again, replace the disk that the system's log names, and restore from the off-site copy.",
            ));
        }
        array.state = ArrayState::Mounted;
        array.quotas = crate::durable::read_json(&paths.quotas_report(), 4096).unwrap_or_default();
        if let Some((size, used, free_percent)) = space(&paths.at(ARRAY_MOUNT)) {
            array.size_bytes = size;
            array.used_bytes = used;
            conditions.extend(full(
                free_percent,
                ConditionId::ArrayFull,
                "array",
                "Clients will soon be refused. Repositories are append-only, so pruning frees nothing yet: let clients back up less, or move to larger disks by a restore.",
            ));
        }
    } else if working {
        array.state = ArrayState::Working;
    } else if mount_failed {
        array.state = ArrayState::Failed;
        conditions.push(Condition::new(
            ConditionId::ArrayNotMounted,
            Severity::Alarm,
            "array",
            "The array is assembled, but its file system could not be mounted. Clients can't back up.",
            "Restart once. If it stays so, the file system is damaged: run `fsck.ext4` from a Linux live system, or restore from the off-site copy.",
        ));
    }
    if let Some((_, _, free_percent)) = space(&paths.at("/var")) {
        conditions.extend(full(
            free_percent,
            ConditionId::StateFull,
            "state partition",
            "Restart the appliance; if it stays full, make a report. Backups go on, but settings and logs may not be kept.",
        ));
    }
    Report {
        part: Disks {
            array,
            disks,
            ..Disks::default()
        },
        conditions,
    }
}

/// Size and used bytes, and the free share in percent.
fn space(path: &Path) -> Option<(u64, u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let size = stat.f_blocks * stat.f_frsize;
    let free = stat.f_bavail * stat.f_frsize;
    (size > 0).then(|| (size, size - stat.f_bfree * stat.f_frsize, free * 100 / size))
}

fn full(free_percent: u64, id: ConditionId, what: &str, advice: &str) -> Option<Condition> {
    (free_percent < FREE_PERCENT_MIN).then(|| {
        let severity = if free_percent < 2 {
            Severity::Alarm
        } else {
            Severity::Warning
        };
        Condition::new(
            id,
            severity,
            what,
            &format!("The {what} is nearly full: {free_percent} % is free."),
            advice,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compose_in(folder: &tempfile::TempDir, found: ArrayReport, mount: Option<Mount>, failed: bool) -> Report<Disks> {
        compose(&Paths::new(folder.path()), found, mount, false, failed)
    }

    #[test]
    fn a_failed_mount_is_an_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let report = compose_in(&folder, ArrayReport::default(), None, true);
        assert_eq!(report.part.array.state, ArrayState::Failed);
        assert_eq!(report.conditions[0].id, ConditionId::ArrayNotMounted);
    }

    #[test]
    fn a_file_system_that_turned_read_only_is_an_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let report = compose_in(&folder, ArrayReport::default(), Some(Mount { read_only: true }), false);
        assert_eq!(report.conditions[0].id, ConditionId::ArrayNotMounted);
    }

    #[test]
    fn fullness_is_graded() {
        assert_eq!(full(10, ConditionId::ArrayFull, "array", ""), None);
        assert_eq!(
            full(9, ConditionId::ArrayFull, "array", "").unwrap().severity,
            Severity::Warning
        );
        assert_eq!(
            full(1, ConditionId::ArrayFull, "array", "").unwrap().severity,
            Severity::Alarm
        );
    }
}
