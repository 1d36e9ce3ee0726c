//! Random histories by real Borgs of all versions in use; our reading against Borg's own, step by step.
//!
//! The installed version is run by `cargo test` through a short history. The others are installed from PyPI below `target/`
//! (they are compiled, which takes minutes, and needs `libacl1-dev`, `libssl-dev`, `liblz4-dev`,
//! `libzstd-dev`, `libxxhash-dev`, `pkg-config` and `python3-venv`) by:
//!
//! `cargo test -p strongroom-borg --test versions -- --ignored --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use strongroom_borg::verify::Event;
use strongroom_borg::{Archives, Depth, Index, Plan};
use support::{Borg, noise};

#[derive(Debug, Clone)]
enum Step {
    /// Change some files and back up.
    Create {
        seed: u8,
        size: u16,
        compression: u8,
    },
    /// Delete one of the archives.
    Delete(u8),
    /// Keep so many.
    Prune(u8),
    Compact,
    Rename(u8),
    /// A client that is killed while it writes.
    Kill {
        size: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<u8>(), any::<u16>(), 0..6_u8)
            .prop_map(|(seed, size, compression)| Step::Create { seed, size, compression }),
        2 => any::<u8>().prop_map(Step::Delete),
        1 => (1..3_u8).prop_map(Step::Prune),
        1 => Just(Step::Compact),
        1 => any::<u8>().prop_map(Step::Rename),
        1 => any::<u16>().prop_map(|size| Step::Kill { size }),
    ]
}

struct History {
    borg: Borg,
    version: (u32, u32),
    archives: Vec<String>,
    made: u32,
    compacted: bool,
}

impl History {
    fn new(borg: Borg) -> Self {
        let text = borg.run(&["--version"]);
        let mut numbers = text
            .trim()
            .rsplit(' ')
            .next()
            .unwrap()
            .split('.')
            .map(|n| n.parse().unwrap_or(0));
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        borg.run(&["init", "--encryption=none", &borg.repo()]);
        // Segments of few objects, so that there are many.
        borg.run(&["config", &borg.repo(), "max_segment_size", "30000"]);
        Self {
            borg,
            version,
            archives: Vec::new(),
            made: 0,
            compacted: false,
        }
    }

    fn pick(&self, which: u8) -> Option<String> {
        (!self.archives.is_empty()).then(|| self.archives[usize::from(which) % self.archives.len()].clone())
    }

    fn take(&mut self, step: &Step) {
        // Borg 1.1 compacts at every commit.
        self.compacted |= self.version < (1, 2);
        match step {
            Step::Create {
                seed,
                size,
                compression,
            } => {
                for file in 0..3_u64 {
                    let seed = u64::from(*seed) + file;
                    self.borg
                        .write(&format!("{}", seed % 7), &noise(usize::from(*size), seed));
                }
                self.made += 1;
                let name = format!("made-{}", self.made);
                let compression = ["none", "lz4", "zstd,3", "zlib,6", "lzma,2", "auto,lzma"][usize::from(*compression)];
                self.borg
                    .run(&["create", "-C", compression, &self.borg.archive(&name), "files"]);
                self.archives.push(name);
            }
            Step::Delete(which) => {
                if let Some(name) = self.pick(*which) {
                    self.borg.run(&["delete", &self.borg.archive(&name)]);
                    self.archives.retain(|other| *other != name);
                }
            }
            Step::Prune(keep) => {
                self.borg
                    .run(&["prune", "--keep-last", &keep.to_string(), &self.borg.repo()]);
                let surplus = self.archives.len().saturating_sub(usize::from(*keep));
                // Borg keeps the newest: names are made in order of time, renames keep it.
                self.archives.drain(..surplus);
            }
            Step::Compact if self.version < (1, 2) => {}
            Step::Compact => {
                self.borg.run(&["compact", "--threshold", "1", &self.borg.repo()]);
                self.compacted = true;
            }
            Step::Rename(which) => {
                if let Some(name) = self.pick(*which) {
                    self.made += 1;
                    let new = format!("named-{}", self.made);
                    self.borg.run(&["rename", &self.borg.archive(&name), &new]);
                    self.archives
                        .iter_mut()
                        .filter(|other| **other == name)
                        .for_each(|other| other.clone_from(&new));
                }
            }
            Step::Kill { size } => {
                self.borg
                    .write("killed", &noise(200_000 + usize::from(*size), (*size).into()));
                let mut child = self
                    .borg
                    .command(&["create", "--list", &self.borg.archive("killed"), "files"])
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                let _ = BufReader::new(child.stderr.take().unwrap()).lines().next();
                child.kill().unwrap();
                child.wait().unwrap();
                // It may have come to its end first.
                self.borg.run(&["break-lock", &self.borg.repo()]);
                if self
                    .borg
                    .run(&["list", "--short", &self.borg.repo()])
                    .lines()
                    .any(|name| name == "killed")
                {
                    self.archives.push("killed".into());
                    self.take(&Step::Delete(u8::try_from(self.archives.len() - 1).unwrap()));
                }
                std::fs::remove_file(self.borg.path("files/killed")).unwrap();
            }
        }
    }

    fn compare(&self) {
        let repository = self.borg.open();
        // Read while Borg hasn't: it would clean up after a killed client.
        let t = repository.last_commit().unwrap().unwrap().transaction;
        let plan = Plan {
            contents: true,
            ..Plan::new()
        };
        let outcome = repository
            .verify(&plan, &mut |event| {
                assert!(!matches!(event, Event::Problem(_)), "{event:?}");
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(outcome.compared > 0, "{outcome:?}");
        let Archives::Listed(manifest) = repository.archives(t).unwrap() else {
            panic!("it is not encrypted");
        };
        assert!(repository.quota_use(t).unwrap().is_some());
        let audit = repository.audit(None, t, Depth::Headers, &mut |_| {}).unwrap();
        let everything = repository.audit(None, t, Depth::Everything, &mut |_| {}).unwrap();
        assert_eq!(audit, everything);
        assert_eq!(audit.until, Some(t));
        if !self.compacted {
            assert_eq!(
                audit.objects_after,
                Some(audit.gained() - audit.lost() + 1),
                "{audit:?}"
            );
            assert_eq!(audit.deleted_unlisted, 0);
        }

        // Borg's own reading.
        let list: serde_json::Value =
            serde_json::from_str(&self.borg.run(&["list", "--json", &self.borg.repo()])).unwrap();
        let theirs: BTreeSet<(String, String, Duration)> = list["archives"]
            .as_array()
            .unwrap()
            .iter()
            .map(|archive| {
                let text = |key: &str| archive[key].as_str().unwrap().to_owned();
                (text("name"), text("id"), time(&text("time")))
            })
            .collect();
        let ours: BTreeSet<_> = manifest
            .archives
            .iter()
            .map(|archive| {
                let since = archive.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let since = Duration::from_secs(since.as_secs());
                (archive.name.clone(), format!("{:?}", archive.id), since)
            })
            .collect();
        assert_eq!(ours, theirs);
        let names: BTreeSet<_> = self.archives.iter().collect();
        assert_eq!(names, ours.iter().map(|(name, _, _)| name).collect());
        let check = self
            .borg
            .try_run(&["--debug", "check", "--repository-only", &self.borg.repo()]);
        let said = String::from_utf8(check.stderr).unwrap();
        assert!(check.status.success(), "{said}");
        assert!(
            said.lines()
                .any(|line| line.ends_with(&format!("Determined transaction is {t}"))),
            "ours is {t}: {said}"
        );
        if outcome.index_used {
            let index = Index::open(&repository, t).unwrap().unwrap();
            assert_eq!(index.entries().unwrap().count(), index.objects() as usize);
            for entry in index.entries().unwrap() {
                let (key, place) = entry.unwrap();
                assert_eq!(index.find(&key).unwrap(), Some(place));
            }
        }
    }
}

/// Borg lists whole seconds.
fn time(text: &str) -> Duration {
    let output = Command::new("date").args(["-u", "+%s", "-d", text]).output().unwrap();
    Duration::from_secs(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// `STRONGROOM_SEED` chooses other histories; what failed is printed with all its steps.
fn histories(program: &Path, cases: u32, steps: usize) {
    let seed = std::env::var("STRONGROOM_SEED").map_or(1, |seed| seed.parse::<u8>().unwrap());
    let config = Config {
        failure_persistence: None,
        cases,
        max_shrink_iters: 0,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
        .run(&proptest::collection::vec(step(), steps), |steps| {
            history(program, &steps);
            Ok(())
        })
        .unwrap();
}

fn history(program: &Path, steps: &[Step]) {
    let mut history = History::new(Borg::at(program));
    let first = Step::Create {
        seed: 0,
        size: 9000,
        compression: 1,
    };
    for step in std::iter::once(&first).chain(steps) {
        history.take(step);
        println!("{step:?}");
        history.compare();
    }
}

#[test]
fn the_installed_version() {
    let more = Step::Create {
        seed: 5,
        size: 40_000,
        compression: 2,
    };
    let steps = [more, Step::Kill { size: 1 }, Step::Delete(0), Step::Compact];
    history(Path::new("borg"), &steps);
}

fn from_pypi(version: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("borg-{version}"));
    let program = place.join("bin/borg");
    let run = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "{} {arguments:?}", program.display());
    };
    if !program.exists() {
        run(Path::new("python3"), &["-m", "venv", place.to_str().unwrap()]);
        run(
            &place.join("bin/pip"),
            &["install", "--quiet", &format!("borgbackup=={version}")],
        );
    }
    program
}

#[test]
#[ignore = "compiles Borg 1.1 from PyPI; see the head of the file"]
fn version_1_1() {
    histories(&from_pypi("1.1.18"), 2, 12);
}

#[test]
#[ignore = "compiles Borg 1.2 from PyPI; see the head of the file"]
fn version_1_2() {
    histories(&from_pypi("1.2.8"), 2, 12);
}

#[test]
#[ignore = "compiles Borg 1.4 from PyPI; see the head of the file"]
fn version_1_4() {
    histories(&from_pypi("1.4.5"), 2, 12);
}
