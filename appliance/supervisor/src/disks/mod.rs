//! The disks duty: has the array made ready by the job, mounts it through systemd, watches space.

pub mod array_job;

use crate::paths::{ARRAY_MOUNT, Paths};
use crate::report::Report;
use crate::services::systemd::{Systemd, SystemdError};
use array_job::ArrayReport;
use std::path::Path;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::status::{Array, ArrayState, Disk};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const ARRAY_UNIT: &str = "strongroom-array.service";
const MOUNT_UNIT: &str = "mnt-raid.mount";
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
}

/// Runs the duty for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(paths: Paths, systemd: Systemd, report: watch::Sender<Report<Disks>>) -> Result<(), SystemdError> {
    let mut next_attempt = Instant::now();
    loop {
        let states = systemd.states(&[ARRAY_UNIT, MOUNT_UNIT]).await?;
        let mounted = is_mounted(&paths, ARRAY_MOUNT);
        let working = states[0].is_running();
        let found = read_report(&paths.array_report());
        if !mounted && !working {
            match &found {
                Some(found) if found.array.state == ArrayState::Assembled && !states[1].is_failed() => {
                    systemd.start(MOUNT_UNIT).await?;
                }
                _ if Instant::now() >= next_attempt => {
                    systemd.start(ARRAY_UNIT).await?;
                    next_attempt = Instant::now() + RETRY;
                }
                _ => {}
            }
        }
        let new = compose(
            &paths,
            found.unwrap_or_default(),
            mounted,
            working,
            states[1].is_failed(),
        );
        report.send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
        sleep(if mounted { POLL } else { Duration::from_secs(1) }).await;
    }
}

fn read_report(path: &Path) -> Option<ArrayReport> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn is_mounted(paths: &Paths, at: &str) -> bool {
    // proc(5), /proc/pid/mountinfo: the fifth field is the mount point.
    std::fs::read_to_string(paths.at("/proc/self/mountinfo"))
        .is_ok_and(|table| table.lines().any(|line| line.split(' ').nth(4) == Some(at)))
}

fn compose(paths: &Paths, found: ArrayReport, mounted: bool, working: bool, mount_failed: bool) -> Report<Disks> {
    let ArrayReport {
        mut array,
        disks,
        mut conditions,
    } = found;
    if mounted {
        array.state = ArrayState::Mounted;
        if let Some((size, used, free_percent)) = space(&paths.at(ARRAY_MOUNT)) {
            array.size_bytes = size;
            array.used_bytes = used;
            conditions.extend(full(
                free_percent,
                ConditionId::ArrayFull,
                "array",
                "Clients will soon be refused. Remove archives with `borg prune` and compact, or add a larger data disk.",
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
            "Restart once. If it stays so, the file system is damaged: run `fsck.ext4` from the rescue system, or restore from the off-site copy.",
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
        part: Disks { array, disks },
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

    fn compose_in(folder: &tempfile::TempDir, found: ArrayReport, mounted: bool, failed: bool) -> Report<Disks> {
        compose(&Paths::new(folder.path()), found, mounted, false, failed)
    }

    #[test]
    fn a_failed_mount_is_an_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let report = compose_in(&folder, ArrayReport::default(), false, true);
        assert_eq!(report.part.array.state, ArrayState::Failed);
        assert_eq!(report.conditions[0].id, ConditionId::ArrayNotMounted);
    }

    #[test]
    fn mount_points_are_read_from_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert!(!is_mounted(&paths, "/mnt/raid"));
        std::fs::create_dir_all(paths.at("/proc/self")).unwrap();
        let table = "36 35 98:0 / /mnt/raid rw,noatime master:1 - ext4 /dev/md127 rw\n";
        std::fs::write(paths.at("/proc/self/mountinfo"), table).unwrap();
        assert!(is_mounted(&paths, "/mnt/raid"));
        assert!(!is_mounted(&paths, "/mnt"));
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
