//! The roles `strongroom-watch` and `strongroom-verify` over repositories made by the real `borg`, in a folder that stands
//! for the appliance's root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod support;

use std::fs;
use std::process::Command;

use strongroom_model::condition::{ConditionId, Severity};
use strongroom_model::name::ClientName;
use strongroom_model::verification::{Compared, Touched};
use strongroom_model::watch::{self, Archives, Finding, RefusedCompaction};
use strongroom_supervisor::watch::ledger::Ledger;
use strongroom_supervisor::watch::verify_job::{ALL, DUE};
use strongroom_supervisor::watch::{store, verify_job, watch_job};
use support::repository::{Appliance, noise};

#[test]
fn ordinary_days_raise_nothing_and_are_counted() {
    let appliance = Appliance::new("none");
    for file in 0..60 {
        appliance.write(&file.to_string(), 2_000, file);
    }
    appliance.create("one");
    let first = appliance.look();
    assert_eq!(
        first.archives,
        Archives::Listed {
            count: 1,
            newest: first.newest_archive()
        }
    );
    assert!(first.newest_archive().is_some() && first.last_backup.is_some());
    assert_eq!((first.looks.len(), first.looks[0].after), (1, None));
    assert!(first.looks[0].puts >= 60 && first.looks[0].bytes > 120_000, "{first:?}");
    assert_eq!(appliance.look().looks.len(), 1, "nothing is new");

    appliance.write("more", 3_000, 99);
    appliance.create("two");
    appliance.create("three");
    let second = appliance.look();
    let look = second.looks.last().unwrap();
    assert_eq!((look.after, look.archives), (first.audited, Some((2, 0))));
    assert!(look.puts < 20 && look.lost == 0, "{look:?}");

    // A prune is told, but is neither a backup nor a reason to worry.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    appliance.borg(&["prune", "--keep-last", "1"]);
    let pruned = appliance.look();
    assert!(pruned.audited > second.audited && pruned.looks.last().unwrap().deletes > 0);
    assert_eq!(pruned.last_backup, second.last_backup);
    assert_eq!(
        pruned.archives,
        Archives::Listed {
            count: 1,
            newest: pruned.newest_archive()
        }
    );
    assert_eq!(appliance.conditions(), []);
    assert_eq!(
        store::read_archives(&appliance.paths.watch(&appliance.name))[0].name,
        "three"
    );

    let verification = appliance.verify(DUE);
    assert!(verification.damages.is_empty() && verification.oldest.is_some() && verification.index_used);
    assert_eq!(watch::may_compact(&pruned, &verification, pruned.audited), Ok(()));
    assert_eq!(appliance.conditions(), []);
}

#[test]
fn wrong_content_behind_a_right_checksum_is_an_alarm_that_names_its_archive() {
    let appliance = Appliance::new("none");
    appliance.write("letter", 50_000, 1);
    appliance.create("monday");
    assert_eq!(appliance.verification().compared(), Compared::NotYet);
    let sound = appliance.verify(DUE);
    assert!(sound.damages.is_empty(), "{sound:?}");
    assert_eq!(sound.compared(), Compared::Whole);

    // As a client with bad memory stores it: the entry's checksum fits what came.
    appliance.write("photo", 60_000, 2);
    appliance.create("tuesday");
    appliance.look();
    let (segment, path, at) = appliance.holding(&noise(60_000, 2));
    let mut bytes = fs::read(&path).unwrap();
    bytes[at + 1000] ^= 1;
    // Checksum, size and tag; the name; the key's type and the compression.
    let start = at - 9 - 32 - 3;
    let crc = crc32fast::hash(&bytes[start + 4..at + 60_000]);
    bytes[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();

    let found = appliance.verify(DUE);
    assert_eq!(found.damages.len(), 1, "{found:?}");
    let damage = &found.damages[0];
    assert!(damage.stored_so && damage.segment == Some(segment), "{damage:?}");
    let Touched::Archives { archives, .. } = &damage.touched else {
        panic!("{damage:?}");
    };
    assert_eq!(archives.len(), 1);
    assert_eq!(
        (archives[0].name.as_str(), &archives[0].named[..]),
        ("tuesday", &["files/photo".to_owned()][..])
    );
    let told = appliance.conditions();
    assert_eq!(told[0].id, ConditionId::RepositoryDamaged);
    assert!(
        told[0].text.contains("tuesday") && told[0].advice.contains("memory"),
        "{told:?}"
    );
    // It stays, and is only mentioned once it was accepted.
    appliance.accept();
    let again = appliance.verify(ALL);
    assert!(again.damages[0].accepted && again.unaccepted() == 0, "{again:?}");
    assert_eq!(appliance.conditions()[0].severity, Severity::Info);
}

#[test]
fn contents_that_take_a_key_are_said_not_to_be_compared() {
    for mode in ["repokey-blake2", "authenticated"] {
        let appliance = Appliance::new(mode);
        appliance.write("letter", 50_000, 1);
        appliance.create("monday");
        let sound = appliance.verify(ALL);
        assert!(
            sound.damages.is_empty() && sound.compared() == Compared::NeedKey,
            "{sound:?}"
        );
    }
}

#[test]
fn the_use_of_a_quota_is_remembered_with_borgs_hints_and_without() {
    let one = Appliance::new("none");
    assert!(one.look().quota_used.is_some_and(|used| used < 10_000));
    one.write("a", 100_000, 1);
    one.create("one");
    let used = one.look().quota_used.unwrap();
    assert!((100_000..110_000).contains(&used), "{used}");
    for entry in fs::read_dir(one.repository()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("hints.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let nearly = one.look().quota_used.unwrap();
    assert!((used..used + 2_000).contains(&nearly), "{used} {nearly}");
}

#[test]
fn a_robbed_history_is_an_alarm_and_holds_compaction_until_accepted() {
    let appliance = Appliance::new("none");
    for file in 0..80 {
        appliance.write(&file.to_string(), 2_000, file);
    }
    for archive in ["one", "two", "three"] {
        appliance.create(archive);
    }
    let before = appliance.look();
    appliance.borg(&["delete", "--glob-archives", "*"]);
    let robbed = appliance.look();
    assert_eq!(
        appliance.ids(),
        [ConditionId::MassDeletion, ConditionId::ArchivesRemoved]
    );
    let told = appliance.conditions();
    assert_eq!(told[0].severity, Severity::Alarm);
    assert!(
        told[1].text.contains("deleted 3 of its 3 archives") && told[1].text.contains("two"),
        "{told:?}"
    );
    assert_eq!(robbed.hold.unwrap().after, before.audited);
    assert_eq!(
        watch::may_compact(&robbed, &appliance.verification(), robbed.audited),
        Err(RefusedCompaction::Held(before.audited))
    );
    // It stands, whatever comes after.
    appliance.create("four");
    appliance.look();
    assert_eq!(
        appliance.ids(),
        [ConditionId::MassDeletion, ConditionId::ArchivesRemoved]
    );
    let accepted = appliance.accept();
    assert_eq!((accepted.hold, appliance.conditions()), (None, Vec::new()));
    appliance.look();
    assert_eq!(appliance.conditions(), []);
}

#[test]
fn a_new_key_is_an_alarm_and_every_version_is_kept() {
    let appliance = Appliance::new("repokey-blake2");
    appliance.write("a", 5_000, 1);
    appliance.create("one");
    assert_eq!(appliance.look().archives, Archives::NeedKey);
    let original = fs::read(appliance.repository().join("config")).unwrap();
    // What the server does to it is no news.
    let repository = appliance.repository().to_str().unwrap().to_owned();
    appliance.borg(&["config", &repository, "append_only", "1"]);
    appliance.look();
    assert_eq!(appliance.conditions(), []);
    appliance.borg(&["key", "change-passphrase"]);
    appliance.look();
    let told = appliance.conditions();
    assert_eq!(
        (told.len(), told[0].id, told[0].severity),
        (1, ConditionId::ConfigChanged, Severity::Alarm)
    );
    let folder = appliance.paths.watch(&appliance.name).join("config");
    let kept: Vec<Vec<u8>> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(kept.len(), 3);
    assert!(kept.contains(&original));
    for file in ["record.json", "verification.json"] {
        let text = fs::read_to_string(folder.parent().unwrap().join(file)).unwrap_or_default();
        assert!(!text.contains("hqlhbGdv"), "a key is in {file}");
    }
    appliance.accept();
    let verification = appliance.verify("asus");
    assert!(verification.damages.is_empty());
    assert_eq!(appliance.conditions(), []);
    // A mere setting is less.
    appliance.borg(&["config", &repository, "max_segment_size", "50000000"]);
    appliance.look();
    assert_eq!(appliance.conditions()[0].severity, Severity::Warning);
    assert!(appliance.conditions()[0].text.contains("max_segment_size"));
}

#[test]
fn a_flipped_byte_is_found_with_its_archive_and_stands_until_it_is_mended() {
    let appliance = Appliance::new("none");
    appliance.write("shared", 300_000, 1);
    appliance.create("one");
    appliance.write("later", 200_000, 2);
    appliance.create("two");
    appliance.look();
    let sound = appliance.verify(ALL);
    assert!(sound.damages.is_empty() && !sound.is_unfinished(), "{sound:?}");
    assert!(sound.segments > 4 && sound.bytes > 500_000);

    let (segment, path, at) = appliance.holding(&noise(200_000, 2));
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[at + 1000] ^= 1;
    fs::write(&path, &damaged).unwrap();
    // Not due yet: a check by its age does not see it, one that is asked for does.
    assert!(appliance.verify(DUE).damages.is_empty());
    let found = appliance.verify("asus");
    assert_eq!(found.damages.len(), 1);
    assert_eq!(found.damages[0].segment, Some(segment));
    let Touched::Archives { count: 1, archives } = &found.damages[0].touched else {
        panic!("{found:?}");
    };
    assert_eq!(
        (archives[0].name.as_str(), &archives[0].named[..]),
        ("two", &["files/later".to_owned()][..])
    );
    let told = appliance.conditions();
    assert_eq!(
        (told[0].id, told[0].severity),
        (ConditionId::RepositoryDamaged, Severity::Alarm)
    );
    assert!(
        told[0].text.contains(&format!("segment {segment}")) && told[0].text.contains("two (1 file)"),
        "{told:?}"
    );
    assert!(matches!(
        watch::may_compact(&appliance.record(), &found, appliance.record().audited),
        Err(RefusedCompaction::Damaged(1))
    ));
    assert_eq!(appliance.verify(DUE).damages.len(), 1, "it is read again each time");
    fs::write(&path, &bytes).unwrap();
    assert!(appliance.verify(DUE).damages.is_empty(), "mended");
    assert_eq!(appliance.conditions(), []);

    // Accepted, it is only mentioned.
    fs::write(&path, &damaged).unwrap();
    appliance.verify(ALL);
    appliance.accept();
    let told = appliance.conditions();
    assert_eq!((told.len(), told[0].severity), (1, Severity::Info));
    appliance.verify(ALL);
    assert_eq!(appliance.conditions()[0].severity, Severity::Info);
}

#[test]
fn what_is_well_formed_but_other_is_known_by_its_sum() {
    let appliance = Appliance::new("none");
    appliance.write("a", 50_000, 1);
    appliance.create("one");
    appliance.look();
    appliance.verify(ALL);
    // One entry less at the end, cut between two.
    let (segment, path, _) = appliance.holding(&noise(50_000, 1));
    let bytes = fs::read(&path).unwrap();
    let (mut at, mut last) = (8, 8);
    while at < bytes.len() {
        last = at;
        at += u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    fs::write(&path, &bytes[..last]).unwrap();
    let found = appliance.verify(ALL);
    assert_eq!(
        found.damages.iter().map(|one| one.segment).collect::<Vec<_>>(),
        [Some(segment)],
        "{found:?}"
    );
    // The look sees the size; at the latest with the next backup.
    appliance.look();
    assert!(appliance.ids().contains(&ConditionId::SegmentsChanged));
    let count = appliance.record().findings.len();
    appliance.look();
    assert_eq!(appliance.record().findings.len(), count, "told once");
    fs::remove_file(&path).unwrap();
    appliance.look();
    assert!(appliance.record().findings.iter().any(|found| matches!(
        &found.finding,
        Finding::SegmentsChanged { gone: 1, resized: 0, segments } if segments[..] == [segment]
    )));
    let found = appliance.verify(DUE);
    assert!(found.damages[0].what.contains("is missing"), "{found:?}");
    assert!(
        matches!(&found.damages[0].touched, Touched::Archives { count: 1, .. }),
        "{found:?}"
    );
    fs::write(&path, &bytes).unwrap();
    assert!(appliance.verify(DUE).damages.is_empty());
    appliance.accept();
    assert_eq!(appliance.conditions(), []);
}

#[test]
fn a_check_that_was_cut_short_goes_on_and_reads_nothing_twice() {
    let appliance = Appliance::new("none");
    appliance.write("a", 50_000, 1);
    appliance.create("one");
    appliance.look();
    let folder = appliance.paths.watch(&appliance.name);
    let mut asked = appliance.verification();
    asked.ask(1_000_000);
    store::write_verification(&folder, &asked).unwrap();
    // Half of it was read since.
    let id = appliance.record().repository;
    let mut ledger = Ledger::read(&folder, &id).unwrap();
    let half = ledger.segments.len() / 2;
    assert!(half > 1);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for known in ledger.segments.values_mut().take(half) {
        known.verified = now - 7;
    }
    ledger.write(&folder).unwrap();
    assert!(appliance.verification().is_unfinished());
    let done = appliance.verify(DUE);
    assert!(!done.is_unfinished());
    let ledger = Ledger::read(&folder, &id).unwrap();
    let again = ledger
        .segments
        .values()
        .take(half)
        .filter(|known| known.verified != now - 7);
    assert_eq!(again.count(), 0);
    assert!(ledger.segments.values().all(|known| known.verified > 0));
}

#[test]
fn transactions_that_are_gone_and_another_repository_are_alarms() {
    let appliance = Appliance::new("none");
    appliance.write("a", 9_000, 1);
    appliance.create("one");
    let early = appliance.folder.path().join("early");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let _ = fs::remove_dir_all(to);
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
    };
    copy(&appliance.repository(), &early);
    appliance.create("two");
    let late = appliance.look();
    copy(&early, &appliance.repository());
    // A client that remembers would refuse.
    fs::remove_dir_all(appliance.folder.path().join("base")).unwrap();
    let back = appliance.look();
    assert!(back.audited < late.audited);
    assert!(
        appliance.ids().contains(&ConditionId::TransactionsGone),
        "{:?}",
        appliance.conditions()
    );
    appliance.accept();
    appliance.create("other two");
    appliance.look();
    assert_eq!(appliance.conditions(), []);

    fs::remove_dir_all(appliance.repository()).unwrap();
    fs::create_dir(appliance.repository()).unwrap();
    appliance.look();
    assert_eq!(appliance.ids(), [ConditionId::TransactionsGone]);
    assert!(!appliance.verify(ALL).is_unfinished());
    appliance.accept();
    appliance.borg(&["init", "--encryption=none"]);
    appliance.create("new");
    appliance.look();
    assert_eq!(
        appliance.conditions(),
        [],
        "a repository that was gone may be made anew"
    );
    fs::remove_dir_all(appliance.repository()).unwrap();
    appliance.borg(&["init", "--encryption=none"]);
    appliance.look();
    let told = appliance.conditions();
    assert!(
        told.iter()
            .any(|one| one.id == ConditionId::ConfigChanged && one.text.contains("Another repository")),
        "{told:?}"
    );
}

#[test]
fn a_record_that_is_lost_is_told_and_holds() {
    let appliance = Appliance::new("none");
    appliance.write("a", 9_000, 1);
    appliance.create("one");
    appliance.look();
    fs::write(
        appliance.paths.watch(&appliance.name).join("record.json"),
        "{\"audited\": tr",
    )
    .unwrap();
    let record = appliance.look();
    assert!(record.hold.is_some() && record.audited.is_some());
    assert_eq!(appliance.ids(), [ConditionId::AuditFailed]);
}

#[test]
fn a_stranger_is_refused_and_an_absent_repository_is_not_a_fault() {
    let appliance = Appliance::new("none");
    assert!(verify_job::run(&appliance.paths, Some("stranger")).is_err());
    assert!(verify_job::run(&appliance.paths, Some("../asus")).is_err());
    assert!(watch_job::run(&appliance.paths, Some("../asus"), false).is_err());
    // The second client never made a repository.
    verify_job::run(&appliance.paths, Some(ALL)).unwrap();
    let laptop = ClientName::new("laptop").unwrap();
    let verification = store::read_verification(&appliance.paths.watch(&laptop));
    assert!(!verification.is_unfinished() && verification.failed.is_empty());
    watch_job::run(&appliance.paths, Some("laptop"), false).unwrap();
}
