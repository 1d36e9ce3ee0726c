//! What objects hold is compared with their names where that takes no key: whatever real Borg stores passes, with each of
//! its compressions, and what is wrong behind a right checksum is found and traced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs;
use std::ops::ControlFlow;

use strongroom_borg::verify::Event;
use strongroom_borg::{
    BadContent, Entry, EntryKind, ObjectKey, Outcome, Plan, Problem, Protection, Repository, SegmentFile, Touched,
};
use support::{Borg, noise};

const SPEC: [&str; 9] = [
    "none",
    "lz4",
    "zstd,1",
    "zstd,19",
    "zlib,9",
    "lzma,0",
    "lzma,9",
    "auto,lzma,1",
    "obfuscate,110,zstd,3",
];

fn verify(repository: &Repository, contents: bool) -> (Outcome, Vec<Problem>) {
    let mut problems = Vec::new();
    let plan = Plan {
        contents,
        ..Plan::new()
    };
    let outcome = repository
        .verify(&plan, &mut |event| {
            if let Event::Problem(problem) = event {
                problems.push(problem);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    (outcome, problems)
}

fn puts(repository: &Repository) -> Vec<(SegmentFile, Entry)> {
    let mut all = Vec::new();
    for segment in repository.segments().unwrap() {
        for entry in repository.read_segment(&segment).unwrap() {
            let entry = entry.unwrap();
            if matches!(entry.kind, EntryKind::Put(_)) {
                all.push((segment.clone(), entry));
            }
        }
    }
    all
}

/// Files that compress well, hardly and not at all, and one of many chunks.
fn write_files(borg: &Borg) {
    let words: Vec<u8> = (0_u32..40_000)
        .flat_map(|n| format!("{} bottles, ", n * n).into_bytes())
        .collect();
    borg.write("words", &words);
    borg.write("zeros", &[0; 9_000_000]);
    borg.write("noise", &noise(300_000, 1));
    borg.write("many", &noise(3_000_000, 2));
    borg.write("empty", b"");
    borg.write("byte", b"b");
}

/// Changes an entry's data, and makes its checksum right again.
fn forge(repository: &Repository, (segment, entry): &(SegmentFile, Entry), change: impl FnOnce(&mut [u8])) {
    let path = repository.path().join(&segment.name);
    let mut bytes = fs::read(&path).unwrap();
    let start = usize::try_from(entry.offset).unwrap();
    let whole = &mut bytes[start..start + entry.size as usize];
    change(&mut whole[41..]);
    let crc = crc32fast::hash(&whole[4..]);
    whole[..4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn what_borg_stores_passes_with_each_compression() {
    for spec in SPEC {
        let borg = Borg::new();
        write_files(&borg);
        borg.run(&["init", "--encryption=none", &borg.repo()]);
        borg.run(&["create", "-C", spec, &borg.archive("one"), "files"]);
        let repository = borg.open();
        let (outcome, problems) = verify(&repository, true);
        assert!(problems.is_empty(), "{spec}: {problems:?}");
        assert_eq!(outcome.protection, Some(Protection::None));
        assert_eq!(outcome.compared, puts(&repository).len() as u64, "{spec}");
        let (unasked, _) = verify(&repository, false);
        assert_eq!((unasked.protection, unasked.compared), (None, 0));
    }
}

#[test]
fn what_takes_a_key_is_not_compared() {
    for (mode, protection) in [
        ("repokey-blake2", Protection::Encrypted),
        ("keyfile", Protection::Encrypted),
        ("authenticated", Protection::Authenticated),
        ("authenticated-blake2", Protection::Authenticated),
    ] {
        let borg = Borg::new();
        borg.write("noise", &noise(50_000, 1));
        borg.run(&["init", "--encryption", mode, &borg.repo()]);
        borg.run(&["create", &borg.archive("one"), "files"]);
        let (outcome, problems) = verify(&borg.open(), true);
        assert!(problems.is_empty(), "{mode}: {problems:?}");
        assert_eq!((outcome.protection, outcome.compared), (Some(protection), 0), "{mode}");
    }
}

#[test]
fn wrong_content_behind_a_right_checksum_is_found_and_traced() {
    for spec in SPEC {
        let borg = Borg::new();
        borg.run(&["init", "--encryption=none", &borg.repo()]);
        borg.write("sound", &noise(20_000, 1));
        borg.run(&["create", "-C", spec, &borg.archive("before"), "files"]);
        let before = borg.open().segments().unwrap().len();
        borg.write("other", &noise(30_000, 2));
        borg.run(&["create", "-C", spec, &borg.archive("after"), "files"]);
        let repository = borg.open();
        let transaction = repository.last_commit().unwrap().unwrap().transaction;
        // The file's only chunk is the largest of what came second.
        let fresh = repository.segments().unwrap()[before].number;
        let victim = puts(&repository)
            .into_iter()
            .filter(|(segment, _)| segment.number >= fresh)
            .max_by_key(|(_, entry)| entry.size)
            .unwrap();
        forge(&repository, &victim, |data| data[data.len().min(30_000) / 2] ^= 0x10);
        assert!(verify(&repository, false).1.is_empty(), "its checksum is right");
        let (_, problems) = verify(&repository, true);
        match &problems[..] {
            [
                Problem::Content {
                    segment,
                    offset,
                    objects: 1,
                    first: BadContent::Name | BadContent::Unpack,
                },
            ] => assert_eq!((*segment, *offset), (victim.0.number, victim.1.offset)),
            other => panic!("{spec}: {other:?}"),
        }
        let Touched::Archives { objects: 1, archives } =
            repository.archives_touched(transaction, victim.0.number).unwrap()
        else {
            panic!("{spec}: not traced");
        };
        let told: Vec<_> = archives
            .iter()
            .map(|touched| (touched.archive.name.as_str(), touched.named.join(" ")))
            .collect();
        assert_eq!(told, [("after", "files/other".to_owned())], "{spec}");
        // Borg says the same.
        if spec == "lz4" {
            let check = |what| borg.try_run(&["check", what, &borg.repo()]).status.success();
            assert!(check("--repository-only") && !check("--verify-data"));
        }
    }
}

#[test]
fn several_of_one_segment_are_counted_and_another_kind_is_refused() {
    let borg = Borg::new();
    borg.run(&["init", "--encryption=none", &borg.repo()]);
    borg.write("many", &noise(9_000_000, 2));
    borg.run(&["create", "-C", "none", &borg.archive("one"), "files"]);
    let repository = borg.open();
    let victims: Vec<_> = puts(&repository)
        .into_iter()
        .filter(|(_, entry)| entry.size > 100_000)
        .collect();
    assert!(victims.len() > 2);
    forge(&repository, &victims[0], |data| data[0] = 7);
    forge(&repository, &victims[2], |data| data[10] ^= 1);
    let (_, problems) = verify(&repository, true);
    assert!(
        matches!(
            problems[..],
            [Problem::Content { offset, objects: 2, first: BadContent::OtherKind, .. }] if offset == victims[0].1.offset
        ),
        "{problems:?}"
    );
    // A break of the form in the same segment says more.
    let path = repository.path().join(&victims[1].0.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(victims[1].1.offset).unwrap() + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_, problems) = verify(&repository, true);
    assert!(matches!(problems[..], [Problem::Damaged { .. }]), "{problems:?}");
    // The manifest's name says nothing of what it holds, but it has to unpack.
    let manifest = |(_, entry): &(SegmentFile, Entry)| entry.kind == EntryKind::Put(ObjectKey::MANIFEST);
    let borg = Borg::new();
    borg.run(&["init", "--encryption=none", &borg.repo()]);
    let repository = borg.open();
    let put = puts(&repository).into_iter().find(manifest).unwrap();
    forge(&repository, &put, |data| data[1] = 9);
    let (_, problems) = verify(&repository, true);
    assert!(
        matches!(
            problems[..],
            [Problem::Content {
                first: BadContent::Compression(_),
                ..
            }]
        ),
        "{problems:?}"
    );
}
