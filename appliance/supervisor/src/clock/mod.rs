//! The clock duty: asks chronyd and the kernel, decides (in `strongroom_model::clock`), reports.
//!
//! Owns the clock's part of the status. Reads chronyd through [`Chronyc`] and a few files of `/sys` and `/proc`. It
//! never sets the clock: that is chronyd's.

use crate::report::{Report, publish};
use crate::services::chrony::Chronyc;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strongroom_model::clock::{self, Kernel, Observation};
use strongroom_model::status::{Clock, ClockState};
use tokio::sync::watch;

/// Between two looks at a clock that is good.
const CALM: Duration = Duration::from_secs(16);
/// Between two looks at a clock that is not.
const EAGER: Duration = Duration::from_secs(4);
/// Most that is read of one file: the first processor in `cpuinfo` fits many times.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Watches the system's clock for ever, and reports when something changed.
pub async fn run(report: watch::Sender<Report<Clock>>) {
    watch_clock(PathBuf::from("/"), Chronyc::default(), report).await;
}

/// Like [`run`], with the kernel's files under `root` and another chronyd.
pub async fn watch_clock(root: PathBuf, chronyc: Chronyc, report: watch::Sender<Report<Clock>>) {
    loop {
        let seen = Observation {
            chrony: chronyc.ask().await,
            kernel: kernel(&root),
            uptime_s: uptime(&root),
        };
        let (part, conditions) = clock::decide(&seen);
        let pause = if part.state == ClockState::Synchronised {
            CALM
        } else {
            EAGER
        };
        let said = Report {
            part,
            conditions: conditions.into_iter().collect(),
        };
        publish(&report, said);
        tokio::time::sleep(pause).await;
    }
}

/// What the kernel says; what cannot be read stays empty.
fn kernel(root: &Path) -> Kernel {
    let clocksources = root.join("sys/devices/system/clocksource/clocksource0");
    let mut kernel = Kernel {
        clocksource: read(&clocksources.join("current_clocksource")).trim().into(),
        ..Kernel::default()
    };
    // What does not fit would be beyond any kernel of today.
    for name in read(&clocksources.join("available_clocksource")).split_ascii_whitespace() {
        let _ = kernel.available.push(name.into());
    }
    let cpuinfo = read(&root.join("proc/cpuinfo"));
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    kernel.steady_tsc = ["constant_tsc", "nonstop_tsc"]
        .iter()
        .all(|flag| flags.split(' ').any(|word| word == *flag));
    kernel.noapic = read(&root.join("proc/cmdline"))
        .split_ascii_whitespace()
        .any(|word| word == "noapic");
    kernel
}

/// Seconds since the start; 0 when not known, so that nothing is judged too early.
fn uptime(root: &Path) -> u64 {
    read(&root.join("proc/uptime"))
        .split(['.', ' '])
        .next()
        .and_then(|whole| whole.parse().ok())
        .unwrap_or(0)
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let clocksources = root.path().join("sys/devices/system/clocksource/clocksource0");
        fs::create_dir_all(&clocksources).unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(clocksources.join("current_clocksource"), "hpet\n").unwrap();
        fs::write(clocksources.join("available_clocksource"), "hpet acpi_pm \n").unwrap();
        fs::write(
            root.path().join("proc/cpuinfo"),
            "model\t: x\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n",
        )
        .unwrap();
        fs::write(
            root.path().join("proc/cmdline"),
            "quiet noapic raid0.default_layout=1\n",
        )
        .unwrap();
        fs::write(root.path().join("proc/uptime"), "1234.56 999.00\n").unwrap();
        root
    }

    #[test]
    fn the_kernel_is_read_from_its_files() {
        let root = machine();
        let seen = kernel(root.path());
        assert_eq!(seen.clocksource.as_str(), "hpet");
        assert_eq!(seen.available.len(), 2);
        assert!(seen.steady_tsc && seen.noapic);
        assert_eq!(uptime(root.path()), 1234);
    }

    #[test]
    fn missing_files_are_no_fault() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(kernel(root.path()), Kernel::default());
        assert_eq!(uptime(root.path()), 0);
    }
}
