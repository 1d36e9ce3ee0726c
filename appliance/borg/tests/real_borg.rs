//! Against repositories that the real `borg` wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use strongroom_borg::{EntryKind, ObjectKey, Repository, SegmentNumber};
use support::{Borg, noise};

#[test]
fn create_prune_and_a_killed_client() {
    let borg = Borg::new();
    let repo = borg.path("repo");
    borg.write("a", &noise(300_000, 1));

    borg.run(&["init", "--encryption=none", "--append-only", &borg.repo()]);
    let fresh = Repository::open(&repo).unwrap();
    assert!(fresh.config().append_only);
    assert_eq!(fresh.last_commit().unwrap().unwrap().transaction, SegmentNumber(1));

    borg.run(&["create", &borg.archive("one"), "files"]);
    borg.run(&["create", &borg.archive("two"), "files"]);
    let repository = Repository::open(&repo).unwrap();
    let t = repository.last_commit().unwrap().unwrap().transaction;
    let highest = repository.segments().unwrap().last().unwrap().number;
    assert_eq!(t, highest);
    let transactions = repository.transactions(SegmentNumber(0), t).unwrap();
    assert_eq!(transactions.len(), 3);
    assert_eq!(repository.facts().unwrap().transactions, 3);
    assert!(
        transactions.iter().all(|t| t.deletes == t.manifest_deletes),
        "nothing but the manifest was replaced"
    );
    assert!(transactions[1].bytes > 290_000);

    borg.run(&["prune", "--keep-last", "1", &borg.repo()]);
    let pruned = repository.last_commit().unwrap().unwrap().transaction;
    let audit = repository.transactions(SegmentNumber(t.0 + 1), pruned).unwrap();
    assert!(
        audit.iter().map(|t| t.deletes - t.manifest_deletes).sum::<u64>() >= 1,
        "the archive's item is deleted"
    );

    // Kill a client while it writes: what it left above the last commit does not count.
    borg.write("b", &noise(40_000_000, 2));
    let mut child = borg
        .command(&[
            "create",
            "--list",
            "--checkpoint-interval",
            "3600",
            &borg.archive("three"),
            "files",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().ends_with("files/b")),
        "borg lists the file once its chunks are written"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let after = repository.last_commit().unwrap().unwrap().transaction;
    let top = repository.segments().unwrap().last().unwrap().number;
    if top > pruned {
        assert_eq!(after, pruned);
        assert!(repository.state(after).unwrap().iter().all(|s| s.number <= pruned));
    }
    let state = repository.state(after).unwrap();
    let manifests = state
        .iter()
        .flat_map(|segment| repository.read_segment(segment).unwrap())
        .filter(|entry| matches!(entry, Ok(e) if e.kind == EntryKind::Put(ObjectKey::MANIFEST)))
        .count();
    assert!(manifests >= 4);
}

#[test]
fn the_use_of_a_quota_is_what_borg_goes_by() {
    let borg = Borg::new();
    borg.write("a", &noise(12_000_000, 1));
    borg.run(&["init", "--encryption=none", "--append-only", &borg.repo()]);
    let create = |name: &str| borg.try_run(&["create", "-C", "none", &borg.archive(name), "files"]);
    assert!(create("one").status.success());
    let repository = borg.open();
    let used = || {
        let transaction = repository.last_commit().unwrap().unwrap().transaction;
        let used = repository.quota_use(transaction).unwrap().unwrap();
        let stored: u64 = repository
            .state(transaction)
            .unwrap()
            .iter()
            .flat_map(|segment| repository.read_segment(segment).unwrap())
            .map(|entry| entry.unwrap())
            .filter(|entry| matches!(entry.kind, EntryKind::Put(_)))
            .map(|entry| u64::from(entry.size))
            .sum();
        assert_eq!(used, stored);
        used
    };
    let quota = (used() + 1_000_000).to_string();
    borg.run(&["config", &borg.repo(), "storage_quota", &quota]);
    borg.write("b", &noise(900_000, 2));
    assert!(create("two").status.success());
    borg.write("c", &noise(200_000, 3));
    assert!(!create("three").status.success(), "Borg took more than the quota");
    let before = used();
    borg.run(&["delete", &borg.archive("two")]);
    assert!(used() >= before, "deleting gave something back");
    // Without hints, which Borg rebuilds.
    assert_eq!(repository.quota_use(SegmentNumber(1_000_000)).unwrap(), None);
}

#[test]
fn twenty_thousand_segments_are_cheap() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path();
    fs::write(
        repo.join("config"),
        format!("[repository]\nversion = 1\nid = {}\n", "ab".repeat(32)),
    )
    .unwrap();
    for directory in 0..20 {
        let path = repo.join(format!("data/{directory}"));
        fs::create_dir_all(&path).unwrap();
        for number in directory * 1000..(directory + 1) * 1000 {
            // 10 TB in all, without a byte on disk: only the last one is ever read.
            let file = fs::File::create(path.join(number.to_string())).unwrap();
            file.set_len(500 * 1024 * 1024).unwrap();
        }
    }
    let mut commit = b"BORG_SEG".to_vec();
    commit.extend([0x40, 0xf4, 0x3c, 0x25, 0x09, 0, 0, 0, 0x02]);
    fs::write(repo.join("data/19/19998"), commit).unwrap();
    let repository = Repository::open(repo).unwrap();
    let started = std::time::Instant::now();
    assert_eq!(
        repository.last_commit().unwrap().unwrap().transaction,
        SegmentNumber(19_998)
    );
    let facts = repository.facts().unwrap();
    println!("last commit and facts of 20,000 segments: {:?}", started.elapsed());
    assert_eq!(facts.segments, 20_000);
    assert_eq!(facts.bytes, 19_999 * 500 * 1024 * 1024 + 17);
}
