//! The clock duty: asks chronyd and the kernel, decides (in `strongroom_model::clock`), reports.
//!
//! Owns the clock's part of the status. Reads chronyd through [`Chronyd`], the kernel through [`kernel_clock`], and what
//! `strongroom-health` found in the kernel's log. It never sets the clock: that is chronyd's.

pub mod sources;

use crate::disks::health::report::HealthReport;
use crate::paths::Paths;
use crate::report::{Report, publish};
use crate::services::chrony::Chronyd;
use crate::services::kernel_clock;
use std::path::Path;
use std::time::Duration;
use strongroom_model::clock::kernel::Kernel;
use strongroom_model::clock::steps::Steps;
use strongroom_model::clock::wander::Wander;
use strongroom_model::clock::{self, Observation};
use strongroom_model::config::Config;
use strongroom_model::status::{Clock, ClockState};
use tokio::sync::watch;

/// Between two looks at a clock that is good.
const CALM: Duration = Duration::from_secs(16);
/// Between two looks at a clock that is not.
const EAGER: Duration = Duration::from_secs(4);

/// Watches the system's clock for ever, and reports when something changed.
pub async fn run(paths: Paths, config: &Config, report: watch::Sender<Report<Clock>>) {
    let nts: Vec<String> = config.clock.nts.iter().map(ToString::to_string).collect();
    watch_clock(paths, Chronyd::default().with_nts(nts), report).await;
}

/// Like [`run`], with the kernel's files under another root and another chronyd.
pub async fn watch_clock(paths: Paths, chronyd: Chronyd, report: watch::Sender<Report<Clock>>) {
    let mut steps = Steps::since(noted_at_start(&paths));
    let mut wander = Wander::default();
    loop {
        let chrony = chronyd.ask().await;
        // After that, so that what chronyd set meanwhile is seen as of now.
        let (now, uptime_s) = (crate::clock_now(), kernel_clock::uptime(paths.root()));
        let seen = Observation {
            chrony,
            kernel: kernel(&paths, now),
            step: steps.look(kernel_clock::distance_ms(), now, uptime_s),
            wander_ppb: wander.spread_ppb(),
            uptime_s,
            now,
        };
        let (part, conditions) = clock::decide(&seen);
        let pause = if part.state == ClockState::Synchronised {
            wander.note(uptime_s, part.frequency_ppb);
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

fn kernel(paths: &Paths, now: Option<u64>) -> Kernel {
    let mut kernel = kernel_clock::read_files(paths.root(), now);
    let evidence = HealthReport::read(&paths.health_report()).unwrap_or_default().evidence;
    kernel.tsc_fault = evidence.tsc_fault.as_str().into();
    kernel.ignored_interrupt = evidence.ignored_interrupt;
    kernel.timer_astray = evidence.timer_astray;
    // A test's chronyd is not the one that steers this kernel.
    if paths.root() == Path::new("/") {
        kernel.discipline = kernel_clock::discipline();
    }
    kernel
}

/// Why nothing may go by the clock now; `None` when it is trusted. For jobs, which are no part of the supervisor: chronyd
/// itself is asked. What it says is all that is needed, since its bound grows while it follows nobody; their units forbid to ask
/// the kernel, by adjtimex(2).
pub async fn untrusted(chronyd: &Chronyd) -> Option<String> {
    let seen = Observation {
        chrony: chronyd.ask().await,
        kernel: Kernel::default(),
        step: None,
        wander_ppb: None,
        uptime_s: kernel_clock::uptime(Path::new("/")),
        now: crate::clock_now(),
    };
    let (clock, conditions) = clock::decide(&seen);
    if clock.state.is_trusted() {
        return None;
    }
    let why = conditions
        .first()
        .map_or("chronyd has not answered yet", |condition| condition.text.as_str());
    Some(why.trim_end_matches('.').to_owned())
}

/// Like [`untrusted`], for those who have nothing else to do meanwhile.
pub fn is_trusted(chronyd: &Chronyd) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.is_ok_and(|runtime| runtime.block_on(untrusted(chronyd)).is_none())
}

/// Notes, before chronyd runs, how far the wall clock is from the time since the start: what it is set by is seen by that.
pub fn note_at_start(paths: &Paths) -> std::io::Result<()> {
    let distance = kernel_clock::distance_ms().to_string();
    crate::durable::write(&paths.clock_at_start(), distance.as_bytes(), 0o644)
}

fn noted_at_start(paths: &Paths) -> Option<i64> {
    std::fs::read_to_string(paths.clock_at_start())
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_at_the_start_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert_eq!(noted_at_start(&paths), None);
        std::fs::create_dir_all(paths.clock_at_start().parent().unwrap()).unwrap();
        note_at_start(&paths).unwrap();
        let noted = noted_at_start(&paths).unwrap();
        assert!(noted.abs_diff(kernel_clock::distance_ms()) < 60_000);
    }

    #[test]
    fn the_log_of_the_kernel_is_taken_from_the_health_report() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let mut report = HealthReport::default();
        assert!(
            report
                .evidence
                .take_in("tsc: Marking TSC unstable due to clocksource watchdog")
        );
        std::fs::create_dir_all(paths.health_report().parent().unwrap()).unwrap();
        report.write(&paths.health_report()).unwrap();
        assert_eq!(kernel(&paths, None).tsc_fault.as_str(), "clocksource watchdog");
    }
}
