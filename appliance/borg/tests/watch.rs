//! What a client did, as our reading tells it, against what the real `borg` was told to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs;

use strongroom_borg::judgement::{Finding, Thresholds, archive_changes, judge};
use strongroom_borg::{Archives, Depth, Manifest, Protection, Touched};
use support::{Borg, noise};

fn listed(archives: Archives) -> Manifest {
    match archives {
        Archives::Listed(manifest) => manifest,
        Archives::NeedKey => panic!("it is not encrypted"),
    }
}

#[test]
fn a_robbed_history_is_seen_and_an_ordinary_day_is_not() {
    let borg = Borg::new();
    borg.run(&["init", "--encryption=none", "--append-only", &borg.repo()]);
    for file in 0..80 {
        borg.write(&format!("{file}"), &noise(2_000, file));
    }
    for name in ["one", "two", "three"] {
        borg.write("new", &noise(3_000, name.len() as u64));
        borg.run(&["create", "--compression=zstd", &borg.archive(name), "files"]);
    }
    let repository = borg.open();
    let t = repository.last_commit().unwrap().unwrap().transaction;
    let first = repository.audit(None, t, Depth::Headers, &mut |_| {}).unwrap();
    assert_eq!(first.until, Some(t));
    assert_eq!((first.transactions, first.manifest_rewrites), (4, 4));
    assert_eq!((first.lost(), first.replaced, first.deleted_unlisted), (0, 0, 0));
    assert_eq!(first.objects_after, Some(first.gained() + 1));
    assert_eq!(judge(&first, &Thresholds::default()), []);
    let mut seen = 0;
    let checked = repository
        .audit(None, t, Depth::Everything, &mut |_| seen += 1)
        .unwrap();
    assert_eq!((checked, seen), (first, 4));

    // An ordinary prune.
    borg.run(&["delete", &borg.archive("one")]);
    let pruned = repository.last_commit().unwrap().unwrap().transaction;
    let audit = repository.audit(Some(t), pruned, Depth::Headers, &mut |_| {}).unwrap();
    assert!(audit.lost() > 0 && audit.gained() == 0);
    assert_eq!(judge(&audit, &Thresholds::default()), []);
    assert_eq!(audit.objects_before(), first.objects_after);
    let (before, after) = (
        listed(repository.archives(t).unwrap()),
        listed(repository.archives(pruned).unwrap()),
    );
    assert_eq!(before.protection, Protection::None);
    let changes = archive_changes(&before, &after);
    assert_eq!(changes.removed, [&before.archives[0]]);
    assert_eq!(changes.removed[0].name, "one");
    assert!(changes.added.is_empty() && !changes.worrying(&Thresholds::default()));

    // The same data again: what was forgotten returns.
    borg.run(&["delete", &borg.archive("two"), "three"]);
    borg.run(&["create", &borg.archive("four"), "files"]);
    let again = repository.last_commit().unwrap().unwrap().transaction;
    let audit = repository
        .audit(Some(pruned), again, Depth::Headers, &mut |_| {})
        .unwrap();
    assert!(audit.deleted > 80 && audit.returned >= 80, "{audit:?}");
    assert_eq!(judge(&audit, &Thresholds::default()), []);
    assert_eq!(
        audit
            .objects_before()
            .zip(audit.objects_after)
            .map(|(a, b)| b as i64 - a as i64),
        Some(audit.gained() as i64 - audit.lost() as i64)
    );

    // Robbed: everything is deleted.
    borg.run(&["delete", &borg.archive("four")]);
    let robbed = repository.last_commit().unwrap().unwrap().transaction;
    let audit = repository
        .audit(Some(again), robbed, Depth::Headers, &mut |_| {})
        .unwrap();
    assert!(
        matches!(judge(&audit, &Thresholds::default())[..], [
            Finding::MassDeletion { lost, before: Some(before) },
            Finding::Shrinking { after: 1, .. },
        ] if lost >= 80 && before == lost + 1),
        "{audit:?}"
    );
    assert!(listed(repository.archives(robbed).unwrap()).archives.is_empty());
    assert_eq!(
        listed(repository.archives(t).unwrap()),
        before,
        "the past stays readable"
    );
}

#[test]
fn every_way_of_storing_is_read_or_says_what_it_needs() {
    for (encryption, compression) in [
        ("none", "none"),
        ("none", "lz4"),
        ("none", "zstd,19"),
        ("none", "zlib,9"),
        ("none", "obfuscate,3,zstd"),
        ("authenticated-blake2", "auto,zlib"),
        ("repokey-blake2", "lz4"),
    ] {
        let borg = Borg::new();
        borg.write("a", &b"the same words again ".repeat(500));
        borg.run(&["init", "-e", encryption, &borg.repo()]);
        borg.run(&["create", "-C", compression, &borg.archive("wörk"), "files"]);
        let repository = borg.open();
        let t = repository.last_commit().unwrap().unwrap().transaction;
        match repository.archives(t).unwrap() {
            Archives::NeedKey => assert_eq!(encryption, "repokey-blake2"),
            Archives::Listed(manifest) => {
                assert_eq!(manifest.archives.len(), 1, "{encryption} {compression}");
                assert_eq!(manifest.archives[0].name, "wörk");
                assert_eq!(manifest.protection == Protection::None, encryption == "none");
            }
        }
    }
}

#[test]
fn a_damaged_segment_names_the_archives_and_files_it_touches() {
    let borg = Borg::new();
    borg.run(&["init", "--encryption=none", &borg.repo()]);
    borg.write("shared", &noise(400_000, 1));
    borg.run(&["create", "-C", "none", &borg.archive("one"), "files"]);
    borg.write("later/only", &noise(200_000, 2));
    borg.run(&["create", "-C", "none", &borg.archive("two"), "files"]);
    let repository = borg.open();
    let t = repository.last_commit().unwrap().unwrap().transaction;
    let segments = repository.segments().unwrap();
    let holding = |content: &[u8]| {
        segments
            .iter()
            .find_map(|segment| {
                let path = repository.path().join(&segment.name);
                let bytes = fs::read(&path).unwrap();
                let at = bytes.windows(64).position(|window| window == &content[1000..1064])?;
                Some((segment.number, path, bytes, at))
            })
            .unwrap()
    };
    let touched = |segment| match repository.archives_touched(t, segment).unwrap() {
        Touched::Archives { objects, archives } => (
            objects,
            archives
                .into_iter()
                .map(|touched| (touched.archive.name, touched.list_lost, touched.files, touched.named))
                .collect::<Vec<_>>(),
        ),
        other => panic!("{other:?}"),
    };

    let (segment, path, bytes, at) = holding(&noise(200_000, 2));
    assert_eq!(touched(segment), (0, Vec::new()), "nothing is damaged yet");
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert_eq!(
        touched(segment),
        (1, vec![("two".into(), false, 1, vec!["files/later/only".into()])])
    );
    // Borg agrees: the other archive is whole.
    assert!(
        borg.try_run(&["extract", "--dry-run", &borg.archive("one")])
            .status
            .success()
    );
    assert!(
        !borg
            .try_run(&["extract", "--dry-run", &borg.archive("two")])
            .status
            .success()
    );
    fs::write(&path, &bytes).unwrap();

    let (segment, path, bytes, _) = holding(&noise(400_000, 1));
    fs::remove_file(&path).unwrap();
    let (_, archives) = touched(segment);
    // The segment held the first archive's own list and description too.
    assert_eq!(archives.len(), 2);
    assert!(archives[0].1 && archives[0].0 == "one");
    assert!(archives[1].3.contains(&"files/shared".into()));
    fs::write(&path, &bytes).unwrap();

    // The manifest lies in the last segment but one.
    let path = repository.path().join(&segments[segments.len() - 2].name);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(
        repository
            .archives_touched(t, segments[segments.len() - 2].number)
            .unwrap(),
        Touched::ManifestLost { objects: 1 }
    );
}
