//! Any change to a committed segment is found, and nothing that Borg itself does is taken for one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use strongroom_borg::verify::{Event, Sum};
use strongroom_borg::{Damage, Outcome, Plan, Problem, Repository, SegmentNumber};
use support::{Borg, files, noise};

fn verify(repository: &Repository, plan: &Plan<'_>) -> (Outcome, Vec<Problem>) {
    let mut problems = Vec::new();
    let outcome = repository
        .verify(plan, &mut |event| {
            if let Event::Problem(problem) = event {
                problems.push(problem);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(outcome.problems, problems.len() as u64);
    (outcome, problems)
}

/// A copy of a repository with three archives, one deleted again.
fn small() -> Borg {
    static FILES: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    let made = FILES.get_or_init(|| {
        let borg = Borg::new();
        borg.run(&["init", "--encryption=none", &borg.repo()]);
        for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
            borg.write(name, &noise(9_000 * (number + 1), number as u64));
            borg.run(&["create", "-C", "none", &borg.archive(name), "files"]);
        }
        borg.run(&["delete", &borg.archive("two")]);
        let repo = borg.path("repo");
        let below = |(path, content): (PathBuf, Vec<u8>)| (path.strip_prefix(&repo).unwrap().to_owned(), content);
        files(&repo).into_iter().map(below).collect()
    });
    let borg = Borg::new();
    for (name, content) in made {
        let path = borg.path("repo").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    borg
}

fn ledger(repository: &Repository) -> BTreeMap<SegmentNumber, Sum> {
    let mut ledger = BTreeMap::new();
    let plan = Plan {
        sums: true,
        ..Plan::new()
    };
    repository
        .verify(&plan, &mut |event| {
            if let Event::Segment { file, sum } = event {
                ledger.insert(file.number, sum.unwrap());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    ledger
}

#[test]
fn a_sound_repository_is_sound_before_and_after_compaction() {
    let borg = small();
    let repository = borg.open();
    let (outcome, problems) = verify(&repository, &Plan::new());
    assert!(problems.is_empty(), "{problems:?}");
    assert!(outcome.index_used && outcome.next.is_none());
    assert_eq!(outcome.segments, repository.segments().unwrap().len() as u64);
    assert_eq!(outcome.bytes, repository.facts().unwrap().bytes);

    borg.run(&["compact", &borg.repo(), "--threshold", "0"]);
    let (after, problems) = verify(&repository, &Plan::new());
    assert!(problems.is_empty(), "{problems:?}");
    assert!(after.bytes < outcome.bytes && after.transaction > outcome.transaction);

    // SHA-256 as everyone else computes it.
    let sums = ledger(&repository);
    let last = repository.segments().unwrap().pop().unwrap();
    let output = std::process::Command::new("sha256sum")
        .arg(repository.path().join(&last.name))
        .output()
        .unwrap();
    let hex: String = sums[&last.number].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(&hex));
}

#[test]
fn a_run_that_was_stopped_goes_on_where_it_was() {
    let borg = small();
    let repository = borg.open();
    let all = repository.segments().unwrap();
    for stop in 1..all.len() {
        let mut seen = Vec::new();
        let mut left = stop;
        let first = repository
            .verify(&Plan::new(), &mut |event| {
                if let Event::Segment { file, .. } = event {
                    seen.push(file.number);
                    left -= 1;
                }
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        let from = first.next.unwrap();
        assert_eq!(from, all[stop - 1].number, "the last one is read again");
        let plan = Plan { from, ..Plan::new() };
        let (second, problems) = verify(&repository, &plan);
        assert!(problems.is_empty() && second.next.is_none());
        assert_eq!(second.segments, (all.len() - stop + 1) as u64);
    }
}

#[test]
fn a_part_is_read_and_what_is_missing_is_told_of_all() {
    let borg = small();
    let repository = borg.open();
    let all = repository.segments().unwrap();
    let big = all.iter().max_by_key(|segment| segment.size).unwrap();
    let only = |segment: &strongroom_borg::SegmentFile| segment.number != big.number;
    let plan = Plan {
        only: &only,
        ..Plan::new()
    };
    let (outcome, problems) = verify(&repository, &plan);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(outcome.segments, all.len() as u64 - 1);
    assert_eq!(outcome.bytes, repository.facts().unwrap().bytes - big.size);
    // Damage that is not read is not found, but the segment's absence is.
    let path = repository.path().join(&big.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(verify(&repository, &plan).1.is_empty());
    fs::remove_file(&path).unwrap();
    let (_, problems) = verify(&repository, &plan);
    assert!(matches!(problems[..], [Problem::Lost { segment, .. }] if segment == big.number));
}

#[test]
fn what_is_missing_or_out_of_place_is_named() {
    let borg = small();
    let repository = borg.open();
    let all = repository.segments().unwrap();
    // The largest segment holds live objects.
    let big = all.iter().max_by_key(|segment| segment.size).unwrap();
    let path = repository.path().join(&big.name);
    let away = repository.path().join("away");
    fs::rename(&path, &away).unwrap();
    let (_, problems) = verify(&repository, &Plan::new());
    assert!(matches!(problems[..], [Problem::Lost { segment, objects }] if segment == big.number && objects > 0));

    fs::create_dir(repository.path().join("data/7")).unwrap();
    let misplaced = repository.path().join(format!("data/7/{}", big.number));
    fs::rename(&away, &misplaced).unwrap();
    let (_, problems) = verify(&repository, &Plan::new());
    assert!(matches!(&problems[..], [Problem::Misplaced { segment, .. }] if *segment == big.number));
    fs::rename(&misplaced, &path).unwrap();

    // Without any list of archives.
    for segment in &all {
        if segment.size != 17 && segment.number != big.number {
            fs::remove_file(repository.path().join(&segment.name)).unwrap();
        }
    }
    let (_, problems) = verify(&repository, &Plan::new());
    assert!(problems.iter().any(|problem| matches!(problem, Problem::NoManifest)));
}

#[test]
fn what_lies_above_the_last_commit_is_left_alone() {
    let borg = small();
    let repository = borg.open();
    let last = repository.segments().unwrap().pop().unwrap().number;
    fs::write(
        repository.path().join(format!("data/0/{}", last.0 + 1)),
        b"BORG_SEG half an ent",
    )
    .unwrap();
    let (outcome, problems) = verify(&repository, &Plan::new());
    assert!(problems.is_empty() && outcome.transaction == Some(last));
}

#[derive(Debug, Clone)]
enum Change {
    Flip { at: Index, bit: u8 },
    Cut(Index),
    Append(Vec<u8>),
    Overwrite { at: Index, with: Vec<u8> },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        3 => any::<Index>().prop_map(Change::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..60).prop_map(Change::Append),
        1 => (any::<Index>(), proptest::collection::vec(any::<u8>(), 1..5000))
            .prop_map(|(at, with)| Change::Overwrite { at, with }),
    ]
}

#[test]
fn any_change_to_any_segment_is_found() {
    let borg = small();
    let repository = borg.open();
    let ledger = ledger(&repository);
    let known = |segment| ledger.get(&segment).copied();
    let segments = repository.segments().unwrap();
    let mut boundaries = BTreeMap::new();
    for segment in &segments {
        let entries = repository.read_segment(segment).unwrap();
        let offsets: Vec<u64> = entries.map(|entry| entry.unwrap().offset).collect();
        boundaries.insert(segment.number, offsets);
    }
    let config = ProptestConfig {
        failure_persistence: None,
        cases: 400,
        ..ProptestConfig::default()
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&(any::<Index>(), change()), |(which, change)| {
            let segment = which.get(&segments);
            let path = repository.path().join(&segment.name);
            let original = fs::read(&path).unwrap();
            let mut bytes = original.clone();
            match &change {
                Change::Flip { at, bit } => bytes[at.index(original.len())] ^= 1 << bit,
                Change::Cut(at) => bytes.truncate(at.index(original.len())),
                Change::Append(more) => bytes.extend(more),
                Change::Overwrite { at, with } => {
                    let at = at.index(original.len());
                    let end = (at + with.len()).min(original.len());
                    bytes[at..end].copy_from_slice(&with[..end - at]);
                }
            }
            if bytes == original {
                return Ok(());
            }
            fs::write(&path, &bytes).unwrap();
            let (_, by_form) = verify(
                &repository,
                &Plan {
                    from_disk: false,
                    ..Plan::new()
                },
            );
            let plan = Plan {
                sums: true,
                ledger: &known,
                from_disk: false,
                ..Plan::new()
            };
            let (_, by_ledger) = verify(&repository, &plan);
            // None of these may panic, whatever they say.
            if let Some(commit) = repository.last_commit().unwrap() {
                let _ = repository.archives(commit.transaction);
                let _ = repository.archives_touched(commit.transaction, segment.number);
                let _ = repository.transactions(SegmentNumber(0), commit.transaction);
            }
            fs::write(&path, &original).unwrap();

            prop_assert!(!by_ledger.is_empty());
            // Without the ledger, a cut between two entries shows only if a live object is lost.
            let between = boundaries[&segment.number].contains(&(bytes.len() as u64));
            prop_assert!(!by_form.is_empty() || (matches!(change, Change::Cut(_)) && between));
            for problem in &by_form {
                if let Problem::Damaged { segment: told, damage } = problem {
                    prop_assert_eq!(*told, segment.number);
                    let offset = match damage {
                        Damage::Magic => 0,
                        Damage::Torn { offset }
                        | Damage::Size { offset, .. }
                        | Damage::Tag { offset, .. }
                        | Damage::Checksum { offset } => *offset,
                    };
                    prop_assert!(offset <= original.len() as u64);
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(verify(&repository, &Plan::new()).1.is_empty());
}

#[test]
fn every_single_bit_of_every_small_segment() {
    let borg = small();
    let repository = borg.open();
    let data = repository.path().join("data");
    for (path, original) in files(&data).into_iter().filter(|(_, bytes)| bytes.len() < 60) {
        for at in 0..original.len() {
            let mut bytes = original.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let (_, problems) = verify(
                &repository,
                &Plan {
                    from_disk: false,
                    ..Plan::new()
                },
            );
            assert!(!problems.is_empty(), "{} byte {at}", path.display());
        }
        fs::write(&path, &original).unwrap();
    }
}
