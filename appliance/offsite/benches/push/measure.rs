//! What a process costs.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Of one run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Seconds of all processors, the process and all that it started.
    pub cpu: f64,
    /// Seconds on the clock.
    pub wall: f64,
    /// Most memory of the process and what it started, in MiB: the sum of what is resident, looked at often.
    pub peak: f64,
}

impl Cost {
    /// Each figure's own median.
    pub fn median(costs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut all: Vec<f64> = costs.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        Self {
            cpu: of(|cost| cost.cpu),
            wall: of(|cost| cost.wall),
            peak: of(|cost| cost.peak),
        }
    }
}

/// Seconds that children took that have ended: fields 16 and 17 of proc_pid_stat(5), in ticks of 10 ms.
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(13) + ticks(14)) / 100.0
}

/// The peak of a process, in KiB, and its children.
fn look(process: u32) -> Option<(f64, Vec<u32>)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak = peak.trim().trim_end_matches(" kB").parse().ok()?;
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    Some((
        peak,
        children
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect(),
    ))
}

fn peak_of_tree(process: u32) -> f64 {
    look(process).map_or(0.0, |(peak, children)| {
        peak + children.into_iter().map(peak_of_tree).sum::<f64>()
    })
}

/// Runs a program to its good end.
pub fn run(command: &mut Command) -> Cost {
    let (before, started) = (children_cpu(), Instant::now());
    let mut child = command.spawn().unwrap();
    let mut peak: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        peak = peak.max(peak_of_tree(child.id()));
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{command:?}: {status}");
    Cost {
        cpu: children_cpu() - before,
        wall: started.elapsed().as_secs_f64(),
        peak: peak / 1024.0,
    }
}
