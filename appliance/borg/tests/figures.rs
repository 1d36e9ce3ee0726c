//! How fast a check is, against Borg's own, on the same repository in the same run. Prints; asserts no time.
//!
//! `STRONGROOM_FIGURES_MB=1300 cargo test --release -p strongroom-borg --test figures -- --ignored --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use strongroom_borg::verify::Event;
use strongroom_borg::{Depth, Plan, Repository};
use support::{Borg, noise};

const PAIRS: usize = 7;
/// Size of the repository in MB, unless STRONGROOM_FIGURES_MB says otherwise.
const SIZE: u64 = 1300;
const FILE: usize = 50_000_000;

/// What some work took, by the clock and of the processor.
#[derive(Clone, Copy)]
struct Cost {
    clock: f64,
    processor: f64,
}

/// Of this process and of those that it waited for, in seconds.
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let ticks: f64 = after_name
        .split(' ')
        .skip(11)
        .take(4)
        .map(|number| number.parse::<f64>().unwrap())
        .sum();
    // USER_HZ is 100 on every Linux that Rust runs on.
    ticks / 100.0
}

fn timed(work: impl FnOnce()) -> Cost {
    let (started, before) = (Instant::now(), processor());
    work();
    Cost {
        clock: started.elapsed().as_secs_f64(),
        processor: processor() - before,
    }
}

fn verify(repository: &Repository, plan: &Plan<'_>) {
    let outcome = repository
        .verify(plan, &mut |event| {
            assert!(!matches!(event, Event::Problem(_)), "{event:?}");
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(outcome.bytes, repository.facts().unwrap().bytes);
}

/// Drops the segments from the page cache, so that the next reader needs the disk.
fn forget(repository: &Repository) {
    for segment in repository.segments().unwrap() {
        let file = File::open(repository.path().join(&segment.name)).unwrap();
        rustix::fs::fsync(&file).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

fn middle(costs: &[Cost], of: fn(&Cost) -> f64) -> (f64, String) {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_unstable_by(f64::total_cmp);
    let middle = all[all.len() / 2];
    (
        middle,
        format!("{middle:.2} s ({:.2} to {:.2})", all[0], all[all.len() - 1]),
    )
}

/// One line: middle values and ranges, and how many times that of `base` would fit.
fn tell(what: &str, costs: &[Cost], base: &[Cost]) {
    let line = |of: fn(&Cost) -> f64| {
        let ((ours, said), (theirs, _)) = (middle(costs, of), middle(base, of));
        format!("{said}, {:.1} times as fast", theirs / ours)
    };
    println!(
        "  {what:28} clock {}; processor {}",
        line(|cost| cost.clock),
        line(|cost| cost.processor)
    );
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

#[test]
#[ignore = "writes 2.6 GB and takes minutes; see the head of the file"]
fn check_of_a_large_repository() {
    let borg = Borg::new();
    borg.run(&["init", "--encryption=none", &borg.repo()]);
    let size = std::env::var("STRONGROOM_FIGURES_MB").map_or(SIZE, |text| text.parse().unwrap());
    for file in 0..(size * 1_000_000).div_ceil(FILE as u64) {
        borg.write(&file.to_string(), &noise(FILE, file));
    }
    borg.run(&["create", "-C", "none", &borg.archive("big"), "files"]);
    fs::remove_dir_all(borg.path("files")).unwrap();
    // Forget the peak that making the files left.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let repository = borg.open();
    let facts = repository.facts().unwrap();
    println!("{} segments, {:.2} GB", facts.segments, facts.bytes as f64 / 1e9);

    let form = Plan {
        from_disk: false,
        ..Plan::new()
    };
    let sums = Plan { sums: true, ..form };
    let check = || drop(borg.run(&["check", "--repository-only", &borg.repo()]));
    for cold in [false, true] {
        let (mut theirs, mut ours, mut summed) = (Vec::new(), Vec::new(), Vec::new());
        let prepare = || {
            if cold {
                forget(&repository);
            } else {
                // Borg drops what it read: everyone starts with all of it in memory.
                verify(&repository, &form);
            }
        };
        for _ in 0..PAIRS {
            prepare();
            theirs.push(timed(check));
            prepare();
            ours.push(timed(|| verify(&repository, &form)));
            prepare();
            summed.push(timed(|| verify(&repository, &sums)));
        }
        println!("{}:", if cold { "from the disk" } else { "from memory" });
        tell("borg check --repository-only", &theirs, &theirs);
        tell("verify", &ours, &theirs);
        tell("verify with SHA-256", &summed, &theirs);
    }
    let t = facts.last_commit.unwrap().transaction;
    forget(&repository);
    let headers = timed(|| {
        repository.audit(None, t, Depth::Headers, &mut |_| {}).unwrap();
    });
    let listed = timed(|| drop(repository.archives(t).unwrap()));
    println!(
        "audit by headers {:.3} s, list of archives {:.3} s, from the disk",
        headers.clock, listed.clock
    );
    println!("peak memory of all this: {}", peak_memory());
}
