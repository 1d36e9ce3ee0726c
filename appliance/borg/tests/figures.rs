//! How fast a check is, against Borg's own, on the same repository in the same run. Prints; asserts no time.
//!
//! `cargo test --release -p strongroom-borg --test figures -- --ignored --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use strongroom_borg::verify::Event;
use strongroom_borg::{Depth, Plan, Repository};
use support::{Borg, noise};

const PAIRS: usize = 7;
const FILES: u64 = 26;
const FILE: usize = 50_000_000;

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
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

/// Middle value, and the range.
fn told(mut times: Vec<Duration>) -> (f64, String) {
    times.sort_unstable();
    let seconds = |time: Duration| time.as_secs_f64();
    let middle = seconds(times[times.len() / 2]);
    (
        middle,
        format!(
            "{middle:.2} s ({:.2} to {:.2})",
            seconds(times[0]),
            seconds(times[times.len() - 1])
        ),
    )
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
    for file in 0..FILES {
        borg.write(&file.to_string(), &noise(FILE, file));
    }
    borg.run(&["create", "-C", "none", &borg.archive("big"), "files"]);
    fs::remove_dir_all(borg.path("files")).unwrap();
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
        let ((borg, said), (form, form_said), (sums, sums_said)) = (told(theirs), told(ours), told(summed));
        println!("{}:", if cold { "from the disk" } else { "from memory" });
        println!("  borg check --repository-only  {said}");
        println!(
            "  verify                        {form_said}: {:.1} times as fast",
            borg / form
        );
        println!(
            "  verify with SHA-256           {sums_said}: {:.1} times as fast",
            borg / sums
        );
    }
    let t = facts.last_commit.unwrap().transaction;
    forget(&repository);
    let headers = timed(|| {
        repository.audit(None, t, Depth::Headers, &mut |_| {}).unwrap();
    });
    let listed = timed(|| drop(repository.archives(t).unwrap()));
    println!("audit by headers {headers:.1?}, list of archives {listed:.1?}, from the disk");
    println!("peak memory of all this: {}", peak_memory());
}
