//! Compaction, rollback and repair over repositories made by the real `borg`, in a folder that stands for the appliance's root. What
//! systemd does is left out: the program that it would start in a unit is run as it is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use strongroom_model::condition::ConditionId;
use strongroom_model::config::Config;
use strongroom_model::upkeep::repair::Content;
use strongroom_model::upkeep::{Obstacle, Outcome, Work};
use strongroom_model::watch::Floor;
use strongroom_supervisor::sessions::confine;
use strongroom_supervisor::upkeep::begin::{self, Begun, UpkeepError};
use strongroom_supervisor::upkeep::hold::{self, Hold};
use strongroom_supervisor::upkeep::{compact_job, repair_job, rollback_job};
use strongroom_supervisor::watch::store;
use strongroom_supervisor::watch::verify_job::ALL;
use support::repository::Appliance;
use support::role;

const SESSION: &str = "strongroom-session";

fn begin(appliance: &Appliance, work: Work) -> Result<Begun, UpkeepError> {
    begin::begin(&appliance.paths, &Config::default(), &appliance.name, work, &[])
}

/// As [`begin`], where nothing stands against it. Between the fork and the start of another test's program, that program
/// holds whatever lock this process holds; so what was let go may seem held for moments.
fn begun(appliance: &Appliance, work: Work) -> Begun {
    for _ in 0..1000 {
        match begin(appliance, work) {
            Err(UpkeepError::Hold(hold::HoldError::Obstacle(Obstacle::Busy(_) | Obstacle::Connected(_)))) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.unwrap(),
        }
    }
    panic!("a lock was never let go");
}

fn last(appliance: &Appliance) -> u32 {
    appliance.record().audited.unwrap()
}

fn config(appliance: &Appliance) -> String {
    fs::read_to_string(appliance.repository().join("config")).unwrap()
}

/// As the unit runs it; nobody is there to tell a passphrase.
fn command(appliance: &Appliance) -> Command {
    let repository = appliance.repository();
    let mut command = Command::new(role(SESSION));
    command
        .arg("compact")
        .arg(&repository)
        .args(["/usr/bin/borg", "compact", "--info", "--umask=077", "--lock-wait=10"])
        .arg(&repository)
        .env_clear()
        .env("PATH", "/usr/bin")
        .env("LANG", "C.UTF-8")
        .env("BORG_BASE_DIR", appliance.folder.path().join("elsewhere"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

fn run_borg(appliance: &Appliance) -> Output {
    command(appliance).output().unwrap()
}

fn compact(appliance: &Appliance) -> Outcome {
    let transaction = last(appliance);
    let begun = begun(appliance, Work::Compact { transaction });
    let output = run_borg(appliance);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome = compact_job::finish(&appliance.paths, &appliance.name, &begun, String::new()).unwrap();
    hold::release(&appliance.paths, &appliance.name, &outcome).unwrap();
    outcome
}

fn roll_back(appliance: &Appliance, to: u32) -> Outcome {
    let work = Work::RollBack {
        transaction: last(appliance),
        to,
    };
    let begun = begun(appliance, work);
    assert!(rollback_job::undo(&appliance.paths, &appliance.name, &begun.journal, &mut || true).unwrap());
    let outcome = rollback_job::finish(&appliance.paths, &appliance.name, &begun).unwrap();
    hold::release(&appliance.paths, &appliance.name, &outcome).unwrap();
    assert_eq!(outcome.error, "");
    outcome
}

fn segments(appliance: &Appliance) -> BTreeSet<u32> {
    let data = fs::read_dir(appliance.repository().join("data")).unwrap();
    data.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

/// Nothing is wrong, by our reading and by Borg's.
fn is_sound(appliance: &Appliance, archives: &[&str]) {
    appliance.look();
    assert_eq!(appliance.conditions(), []);
    let verification = appliance.verify(ALL);
    assert!(
        verification.damages.is_empty() && verification.failed.is_empty(),
        "{verification:?}"
    );
    appliance.borg(&["check", "--verify-data"]);
    let listed = appliance.borg(&["list", "--short"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), archives);
    for archive in archives {
        appliance.borg(&["extract", "--dry-run", &format!("::{archive}")]);
    }
    assert!(config(appliance).contains("append_only = 1\n"));
}

/// A client with many segments, whose repository only grows.
fn client(encryption: &str) -> Appliance {
    let appliance = Appliance::new(encryption);
    let repository = appliance.repository().to_str().unwrap().to_owned();
    appliance.borg(&["config", &repository, "max_segment_size", "200000"]);
    confine::settle(&appliance.repository()).unwrap();
    for file in 0..60 {
        appliance.write(&format!("kept/{file}"), 20_000, file);
    }
    appliance.create("one");
    for file in 0..30 {
        appliance.write(&format!("more/{file}"), 30_000, 100 + file);
    }
    appliance.create("two");
    appliance
}

#[test]
fn a_compaction_frees_what_was_deleted_and_nothing_else() {
    for encryption in ["none", "repokey-blake2"] {
        let appliance = client(encryption);
        for file in 0..60 {
            let path = appliance.folder.path().join(format!("files/kept/{file}"));
            if file % 3 == 0 {
                fs::remove_file(path).unwrap();
            }
        }
        appliance.create("three");
        appliance.look();
        appliance.borg(&["delete", "::one"]);
        appliance.borg(&["delete", "::two"]);
        let looked = appliance.look();
        let freeable = looked.freeable.unwrap();
        assert!(freeable > 400_000, "{encryption}: {freeable}");
        appliance.accept();
        appliance.verify(ALL);
        // Borg itself frees nothing here.
        let before = segments(&appliance);
        appliance.borg(&["compact"]);
        assert!(segments(&appliance).is_superset(&before));
        appliance.look();
        appliance.accept();

        let outcome = compact(&appliance);
        assert_eq!(outcome.error, "", "{encryption}");
        let freed = outcome.freed();
        assert!(
            freed.abs_diff(freeable) < freeable / 10 + 2_000,
            "{encryption}: {freed} of {freeable}"
        );
        assert_eq!(hold::of(&appliance.paths, &appliance.name), Hold::Open);
        let record = appliance.record();
        assert_eq!(record.audited, outcome.transaction);
        assert_eq!(record.floor, Floor::At(outcome.transaction.unwrap()));
        assert_eq!(record.compacted.unwrap().freed, freed);
        is_sound(&appliance, &["three"]);
        let now = segments(&appliance);
        assert!(
            now.difference(&before).all(|number| Some(number) > before.last()),
            "no number is used twice"
        );

        // It goes on as before, and what was freed can't be gone back to.
        appliance.create("four");
        appliance.look();
        assert_eq!(appliance.conditions(), []);
        is_sound(&appliance, &["three", "four"]);
        let transaction = last(&appliance);
        let to = *before.last().unwrap();
        let refused = begin(&appliance, Work::RollBack { transaction, to }).unwrap_err();
        assert!(refused.to_string().contains("there is no transaction"), "{refused}");
        roll_back(&appliance, record.audited.unwrap());
        assert_eq!(
            store::read_transactions(&appliance.paths.watch(&appliance.name)).len(),
            2
        );
    }
}

#[test]
fn a_deletion_is_in_quarantine_until_a_compaction_frees_it() {
    let appliance = client("repokey-blake2");
    appliance.look();
    appliance.borg(&["delete", "::one"]);
    let deleted = appliance.look().deletion.unwrap();
    assert_eq!((deleted.transaction, deleted.days), (last(&appliance), 0));
    // A backup that deletes nothing leaves it as it is; a prune begins it anew.
    appliance.create("three");
    assert_eq!(appliance.look().deletion, Some(deleted));
    appliance.borg(&["prune", "--keep-last", "1"]);
    let pruned = appliance.look().deletion.unwrap();
    assert_eq!(pruned.transaction, last(&appliance));
    assert!(pruned.transaction > deleted.transaction && pruned.at >= deleted.at);
    appliance.accept();
    assert_eq!(compact(&appliance).error, "");
    assert_eq!(appliance.record().deletion, None);
    // A commit or two may be left, of which nothing earlier is known: that is no older than this look.
    let left = appliance.look();
    assert!(left.freeable.unwrap() < 10_000 && left.deletion.is_none_or(|left| left.days == 0));
}

#[test]
fn what_a_policy_does_follows_from_what_is_remembered() {
    use strongroom_model::config::Size;
    use strongroom_model::status::{ArrayState, Client, ClockState, Status, Target};
    use strongroom_model::upkeep::policy::Next;
    use strongroom_supervisor::upkeep::look::look;
    let appliance = client("none");
    let (paths, name) = (&appliance.paths, &appliance.name);
    let text = fs::read_to_string(paths.config()).unwrap();
    fs::write(
        paths.config(),
        text.replacen("[[client]]", "[[client]]\ncompact_after_days = 7", 1),
    )
    .unwrap();
    let config = strongroom_supervisor::configuration::in_force(paths);
    appliance.look();
    appliance.borg(&["delete", "::two"]);
    appliance.look();
    appliance.accept();
    let mut status = Box::<Status>::default();
    status.array.state = ArrayState::Mounted;
    status.clock.state = ClockState::Synchronised;
    let transaction = Some(u64::from(last(&appliance)));
    let mut targets = strongroom_model::status::Client::default().targets;
    targets
        .push(Target {
            transaction,
            ..Target::default()
        })
        .unwrap();
    let one = Client {
        name: name.clone(),
        transaction,
        size_bytes: Size::new("2 MB").unwrap().bytes(),
        targets,
        ..Client::default()
    };
    status.clients.push(one).unwrap();
    let next = |sessions: &[&str]| {
        let sessions = sessions.iter().map(|id| id.to_string()).collect();
        look(paths, &config, name, &status, sessions).unwrap().next.unwrap().0
    };
    assert_eq!(next(&[]), Next::Quarantine(7));
    let mut record = appliance.record();
    let deletion = record.deletion.as_mut().unwrap();
    deletion.days = 7;
    store::write_record(&paths.watch(name), &record).unwrap();
    assert_eq!(next(&[]), Next::Quarantine(7), "the clock says that it is young");
    record.deletion.as_mut().unwrap().at -= 7 * 24 * 3600;
    store::write_record(&paths.watch(name), &record).unwrap();
    assert_eq!(next(&[]), Next::Prepare, "it was never checked");
    appliance.verify(ALL);
    assert!(matches!(next(&["asus-1"]), Next::Against(_)));
    assert_eq!(next(&[]), Next::Compact);
    assert_eq!(compact(&appliance).error, "");
    assert_eq!(next(&[]), Next::Nothing);
}

#[test]
fn a_compaction_is_refused_without_a_trace() {
    let appliance = client("none");
    appliance.look();
    appliance.borg(&["delete", "::one"]);
    let before = (config(&appliance), segments(&appliance));
    let refuse = |work: Work, words: &str| {
        let refused = begin(&appliance, work).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
        assert_eq!(hold::of(&appliance.paths, &appliance.name), Hold::Open);
        assert!(hold::enter(&appliance.paths, &appliance.name).is_ok());
        assert_eq!((config(&appliance), segments(&appliance)), before);
    };
    let seen = last(&appliance);
    refuse(Work::Compact { transaction: seen }, "has changed meanwhile");
    let transaction = *before.1.last().unwrap();
    refuse(Work::Compact { transaction }, "not been looked at");
    appliance.borg(&["list"]);
    appliance.look();
    // A session that is running.
    let session = hold::enter(&appliance.paths, &appliance.name).unwrap();
    let refused = begin(&appliance, Work::Compact { transaction }).unwrap_err();
    assert!(refused.to_string().contains("the client is connected"), "{refused}");
    drop(session);
    // Something that nobody accepted.
    appliance.borg(&["delete", "::two"]);
    appliance.look();
    let robbed = last(&appliance);
    assert!(appliance.record().hold.is_some());
    let refused = begin(&appliance, Work::Compact { transaction: robbed }).unwrap_err();
    assert!(
        refused.to_string().contains("strongroom client accept asus"),
        "{refused}"
    );
    appliance.accept();
    // A segment that is not what it was.
    let data = appliance.repository().join("data/0");
    let victim = data.join("0");
    let bytes = fs::read(&victim).unwrap();
    fs::remove_file(&victim).unwrap();
    let refused = begin(&appliance, Work::Compact { transaction: robbed }).unwrap_err();
    assert!(
        refused.to_string().contains("not those that were seen before"),
        "{refused}"
    );
    fs::write(&victim, bytes).unwrap();
    begun(&appliance, Work::Compact { transaction: robbed });
}

#[test]
fn a_compaction_that_is_cut_short_anywhere_leaves_a_sound_repository() {
    // Before Borg began: with the journal only, and with the repository opened.
    for opened in [false, true] {
        let appliance = client("none");
        appliance.borg(&["delete", "::one"]);
        appliance.look();
        appliance.accept();
        let work = Work::Compact {
            transaction: last(&appliance),
        };
        drop(begun(&appliance, work));
        if opened {
            let config = config(&appliance).replace("append_only = 1", "append_only = 0");
            fs::write(appliance.repository().join("config"), config).unwrap();
        }
        assert!(hold::enter(&appliance.paths, &appliance.name).is_err(), "held out");
        let untouched = appliance.record();
        assert_eq!(appliance.look(), untouched, "nobody looks meanwhile");
        let other = Work::Compact { transaction: 0 };
        assert!(begin(&appliance, other).unwrap_err().to_string().contains("already"));
        finish_cut_short(&appliance, work);
        is_sound(&appliance, &["two"]);
    }
    // Killed in the midst of it, earlier and later.
    for more in [1, 4, 9] {
        let appliance = client("none");
        for file in 0..400 {
            appliance.write(&format!("much/{file}"), 40_000, 1000 + file);
        }
        appliance.create("three");
        fs::remove_dir_all(appliance.folder.path().join("files/more")).unwrap();
        for file in (0..400).step_by(2) {
            fs::remove_file(appliance.folder.path().join(format!("files/much/{file}"))).unwrap();
        }
        appliance.create("four");
        appliance.look();
        for archive in ["one", "two", "three"] {
            appliance.borg(&["delete", &format!("::{archive}")]);
        }
        appliance.look();
        appliance.accept();
        let transaction = last(&appliance);
        let work = Work::Compact { transaction };
        drop(begun(&appliance, work));
        let mut borg = std::os::unix::process::CommandExt::process_group(&mut command(&appliance), 0)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while segments(&appliance).last().copied().unwrap() < transaction + more {
            assert!(
                borg.try_wait().unwrap().is_none(),
                "it was too fast: {:?}",
                segments(&appliance)
            );
        }
        let group = rustix::process::Pid::from_raw(borg.id().cast_signed()).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        borg.wait().unwrap();
        assert!(config(&appliance).contains("append_only = 0\n"));
        finish_cut_short(&appliance, work);
        // What a client's next session would do about the lock that a power cut left.
        appliance.borg(&["break-lock"]);
        is_sound(&appliance, &["four"]);
        appliance.create("five");
        is_sound(&appliance, &["four", "five"]);
        // And again, to its end.
        compact(&appliance);
        is_sound(&appliance, &["four", "five"]);
    }
}

/// What the job does when it finds its journal.
fn finish_cut_short(appliance: &Appliance, work: Work) {
    let begun = begun(appliance, work);
    assert!(begun.resumed);
    confine::settle(&appliance.repository()).unwrap();
    // Each can be done again.
    for _ in 0..2 {
        let outcome = compact_job::finish(&appliance.paths, &appliance.name, &begun, String::new()).unwrap();
        assert!(outcome.error.contains("cut short"), "{outcome:?}");
        hold::note(&appliance.paths, &appliance.name, &outcome).unwrap();
    }
    let outcome = hold::outcome(&appliance.paths, &appliance.name).unwrap();
    hold::release(&appliance.paths, &appliance.name, &outcome).unwrap();
    assert_eq!(hold::of(&appliance.paths, &appliance.name), Hold::Open);
}

#[test]
fn a_hostile_deletion_is_undone() {
    for encryption in ["none", "repokey-blake2"] {
        let appliance = client(encryption);
        let before = appliance.look();
        let (to, whole) = (before.audited.unwrap(), segments(&appliance));
        appliance.borg(&["delete", "::one"]);
        appliance.borg(&["delete", "::two"]);
        let files = appliance.folder.path().join("files");
        fs::rename(&files, appliance.folder.path().join("lost")).unwrap();
        appliance.write("ransom", 5_000, 7);
        appliance.create("ransom");
        assert!(appliance.look().hold.is_some());
        let nonce = fs::read(appliance.repository().join("nonce")).ok();
        let highest = *segments(&appliance).last().unwrap();

        let outcome = roll_back(&appliance, to);
        assert_eq!(outcome.transaction, Some(highest + 1));
        let expected: BTreeSet<u32> = whole.iter().copied().chain([highest + 1]).collect();
        assert_eq!(segments(&appliance), expected);
        let kept = appliance
            .paths
            .rolled_back(&appliance.name)
            .join(format!("{to}-{highest}"));
        assert_eq!(fs::read_dir(kept.join("data/0")).unwrap().count() as u32, highest - to);
        assert!(kept.join(format!("index.{highest}")).exists());
        // What the client encrypted with must never be used again.
        assert_eq!(fs::read(appliance.repository().join("nonce")).ok(), nonce);
        let record = appliance.record();
        assert_eq!(
            (record.hold, record.findings.len(), record.archives.clone()),
            (None, 0, before.archives.clone())
        );
        assert_eq!(record.last_backup, before.last_backup);
        assert_eq!(record.audited, outcome.transaction);

        // The client has to forget what is no more, and no more than that.
        let refused = appliance.try_borg(&["list"]);
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("newer"),
            "{refused:?}"
        );
        let security = appliance
            .folder
            .path()
            .join("base/.config/borg/security")
            .join(&outcome.repository);
        let secrets: Vec<_> = fs::read_dir(&security)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        appliance.borg(&["delete", "--cache-only"]);
        assert!(
            !appliance.try_borg(&["list"]).status.success(),
            "that alone is not enough"
        );
        fs::remove_file(security.join("manifest-timestamp")).unwrap();
        appliance.borg(&["list"]);
        for name in secrets {
            assert!(security.join(&name).exists(), "{}", name.display());
        }
        is_sound(&appliance, &["one", "two"]);
        appliance.create("three");
        let new = appliance.look();
        assert_eq!(appliance.conditions(), []);
        assert_eq!(new.looks.last().unwrap().after, outcome.transaction);
        is_sound(&appliance, &["one", "two", "three"]);
        assert!(
            segments(&appliance)
                .difference(&expected)
                .all(|number| *number > highest + 1),
            "no number is used twice"
        );
        // A second one, over the first.
        appliance.borg(&["delete", "::one"]);
        appliance.look();
        roll_back(&appliance, new.audited.unwrap());
        appliance.borg(&["delete", "--cache-only"]);
        fs::remove_file(security.join("manifest-timestamp")).unwrap();
        appliance.borg(&["list"]);
        is_sound(&appliance, &["one", "two", "three"]);
    }
}

#[test]
fn a_rollback_that_is_cut_short_at_each_step_is_brought_to_its_end() {
    let appliance = client("none");
    let before = appliance.look();
    let to = before.audited.unwrap();
    let whole = segments(&appliance);
    appliance.borg(&["delete", "--glob-archives", "*"]);
    appliance.create("after");
    appliance.look();
    let highest = *segments(&appliance).last().unwrap();
    let work = Work::RollBack {
        transaction: last(&appliance),
        to,
    };
    let mut runs = 0;
    let (outcome, steps) = loop {
        runs += 1;
        let begun = begun(&appliance, work);
        assert_eq!(begun.resumed, runs > 1);
        let mut left = 1;
        let mut one = || {
            left -= 1;
            left >= 0
        };
        if rollback_job::undo(&appliance.paths, &appliance.name, &begun.journal, &mut one).unwrap() {
            break (
                rollback_job::finish(&appliance.paths, &appliance.name, &begun).unwrap(),
                runs,
            );
        }
        drop(begun);
        assert!(hold::enter(&appliance.paths, &appliance.name).is_err(), "held out");
        let untouched = appliance.record();
        assert_eq!(appliance.look(), untouched, "nobody looks meanwhile");
    };
    // Three files of Borg's own, the segments, the seal.
    assert!(steps >= 3 + highest - to, "{steps} steps");
    // Killed before the end was written down: all is done again, and nothing more happens.
    let begun = begun(&appliance, work);
    assert!(rollback_job::undo(&appliance.paths, &appliance.name, &begun.journal, &mut || true).unwrap());
    let again = rollback_job::finish(&appliance.paths, &appliance.name, &begun).unwrap();
    assert_eq!((again.transaction, again.error.as_str()), (outcome.transaction, ""));
    hold::release(&appliance.paths, &appliance.name, &again).unwrap();
    drop(begun);
    assert_eq!(
        segments(&appliance),
        whole.iter().copied().chain([highest + 1]).collect()
    );
    fs::remove_dir_all(appliance.folder.path().join("base")).unwrap();
    appliance.borg(&["list"]);
    is_sound(&appliance, &["one", "two"]);
}

#[test]
fn a_rollback_can_be_undone_by_hand() {
    let appliance = client("none");
    let to = last_after_look(&appliance);
    appliance.borg(&["delete", "::one"]);
    appliance.create("three");
    appliance.look();
    let (all, highest) = (segments(&appliance), last(&appliance));
    roll_back(&appliance, to);
    // As docs/clients.md says, before the client has stored anything.
    let kept = appliance
        .paths
        .rolled_back(&appliance.name)
        .join(format!("{to}-{highest}"));
    fs::remove_file(appliance.repository().join(format!("data/0/{}", highest + 1))).unwrap();
    for number in (to + 1)..=highest {
        let place = format!("data/0/{number}");
        fs::rename(kept.join(&place), appliance.repository().join(&place)).unwrap();
    }
    assert_eq!(segments(&appliance), all);
    fs::remove_dir_all(appliance.folder.path().join("base")).unwrap();
    appliance.borg(&["list"]);
    appliance.look();
    appliance.accept();
    is_sound(&appliance, &["two", "three"]);
}

fn last_after_look(appliance: &Appliance) -> u32 {
    appliance.look().audited.unwrap()
}

#[test]
fn a_link_in_a_repository_leads_nowhere() {
    let appliance = client("none");
    let to = last_after_look(&appliance);
    appliance.create("three");
    appliance.look();
    let outside = tempfile::tempdir().unwrap();
    let data = appliance.repository().join("data");
    let work = Work::RollBack {
        transaction: last(&appliance),
        to,
    };
    let begun = begun(&appliance, work);
    let moved = outside.path().join("0");
    fs::rename(data.join("0"), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, data.join("0")).unwrap();
    let before = fs::read_dir(&moved).unwrap().count();
    assert!(rollback_job::undo(&appliance.paths, &appliance.name, &begun.journal, &mut || true).is_err());
    assert_eq!(fs::read_dir(&moved).unwrap().count(), before);
}

#[test]
fn transactions_are_listed_with_what_came_and_went() {
    let appliance = client("none");
    appliance.look();
    appliance.borg(&["delete", "::one"]);
    appliance.look();
    let notes = store::read_transactions(&appliance.paths.watch(&appliance.name));
    let told: Vec<(Vec<String>, Vec<String>, bool)> = notes
        .iter()
        .map(|note| (note.came.clone(), note.went.clone(), note.stored))
        .collect();
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(told[0], (names(&[]), names(&["one"]), false));
    assert_eq!(told[1], (names(&["two"]), names(&[]), true));
    assert_eq!(told[2], (names(&["one"]), names(&[]), true));
    assert_eq!(notes[0].archives, Some((0, 1)));
    assert!(notes[0].deletes > 0 && notes[1].puts >= 30 && notes.iter().all(|note| note.at.is_some()));
    // A repository that was compacted elsewhere can't go back before it was seen.
    let other = client("none");
    let repository = other.repository().to_str().unwrap().to_owned();
    other.borg(&["config", &repository, "append_only", "0"]);
    other.borg(&["delete", "::one"]);
    other.borg(&["compact"]);
    let record = other.look();
    assert_eq!(record.floor, Floor::At(record.audited.unwrap()));
}

/// A segment with content of archive `one` only, and its path.
fn victim(appliance: &Appliance) -> (u32, std::path::PathBuf) {
    let (segment, path, _) = appliance.holding(&support::repository::noise(20_000, 5));
    (segment, path)
}

fn turn_a_bit(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    rewrite(path, &bytes);
}

/// Changes content, and no time: the disk did it.
fn rewrite(path: &std::path::Path, bytes: &[u8]) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

/// A check that was asked for within the second in which a segment was read does not read it again.
fn verify_later(appliance: &Appliance) {
    std::thread::sleep(Duration::from_millis(1100));
    appliance.verify(ALL);
}

/// A client whose repository was looked at and checked, and the segment to damage: its number, file and content.
fn checked_client() -> (Appliance, u32, std::path::PathBuf, Vec<u8>) {
    let appliance = client("none");
    appliance.look();
    appliance.verify(ALL);
    let (segment, path) = victim(&appliance);
    let good = fs::read(&path).unwrap();
    (appliance, segment, path, good)
}

fn need(appliance: &Appliance, segment: u32) -> Result<Content, UpkeepError> {
    repair_job::need(&appliance.paths, &Config::default(), &appliance.name, segment)
}

/// All that is sent, through a pipe as the supervisor passes it on.
fn receive(appliance: &Appliance, segment: u32, content: &Content, bytes: &[u8]) -> Result<(), UpkeepError> {
    let (input, mut output) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Whoever refuses what comes closes the pipe.
            let _ = std::io::Write::write_all(&mut output, bytes);
        });
        let received = repair_job::receive(&appliance.paths, &appliance.name, segment, content, &input);
        drop(input);
        received
    })
}

fn repair(appliance: &Appliance, segment: u32, bytes: &[u8]) -> Outcome {
    let content = need(appliance, segment).unwrap();
    receive(appliance, segment, &content, bytes).unwrap();
    let begun = begun(appliance, Work::Repair { segment });
    assert!(repair_job::put(&appliance.paths, &appliance.name, &begun.journal, &mut || true).unwrap());
    let outcome = repair_job::finish(&appliance.paths, &appliance.name, &begun).unwrap();
    hold::release(&appliance.paths, &appliance.name, &outcome).unwrap();
    outcome
}

/// Files beside the repository, by their place there.
fn beside(appliance: &Appliance) -> Vec<String> {
    let folder = appliance.paths.damaged(&appliance.name);
    let output = Command::new("find")
        .arg(&folder)
        .args(["-type", "f", "-printf", "%P\n"])
        .output()
        .unwrap();
    let mut all: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(String::from)
        .collect();
    all.sort();
    all
}

#[test]
fn a_damaged_segment_is_repaired_with_what_it_was_and_nothing_else() {
    for encryption in ["none", "repokey-blake2"] {
        let appliance = client(encryption);
        appliance.look();
        appliance.verify(ALL);
        let segment = *segments(&appliance).iter().nth(4).unwrap();
        let path = appliance.repository().join(format!("data/0/{segment}"));
        let good = fs::read(&path).unwrap();
        let before = fs::metadata(&path).unwrap();
        let refused = need(&appliance, segment).unwrap_err().to_string();
        assert!(refused.contains("there is nothing to repair"), "{refused}");
        let refused = need(&appliance, 4_000).unwrap_err().to_string();
        assert!(refused.contains("has no segment 4000"), "{refused}");

        turn_a_bit(&path);
        let bad = fs::read(&path).unwrap();
        verify_later(&appliance);
        assert_eq!(appliance.ids(), [ConditionId::RepositoryDamaged]);
        let advice = appliance.conditions()[0].advice.to_string();
        assert!(
            advice.contains(&format!("strongroom repair asus {segment}`")),
            "{advice}"
        );
        assert!(!appliance.try_borg(&["check", "--verify-data"]).status.success());

        // What a job left that was killed while it received.
        fs::create_dir_all(appliance.paths.damaged(&appliance.name)).unwrap();
        fs::write(appliance.paths.damaged(&appliance.name).join("3.new"), "half").unwrap();

        // Another segment's bytes, the damaged ones, some of them, too many, and none.
        let content = need(&appliance, segment).unwrap();
        let other = fs::read(appliance.repository().join("data/0/0")).unwrap();
        let mut longer = good.clone();
        longer.extend([0; 100_000]);
        for (bytes, words) in [
            (&other[..], "bytes of segment"),
            (&bad, "is not what segment"),
            (&good[..good.len() - 1], "only"),
            (&longer, "more than"),
            (&[], "nothing came in"),
        ] {
            let refused = receive(&appliance, segment, &content, bytes).unwrap_err().to_string();
            assert!(refused.contains(words), "{words}: {refused}");
            assert_eq!(beside(&appliance), Vec::<String>::new());
            assert_eq!(fs::read(&path).unwrap(), bad);
            assert!(hold::enter(&appliance.paths, &appliance.name).is_ok());
        }

        let outcome = repair(&appliance, segment, &good);
        assert_eq!(outcome.error, "", "{encryption}");
        assert_eq!(hold::of(&appliance.paths, &appliance.name), Hold::Open);
        assert!(fs::read(&path).unwrap() == good);
        let after = fs::metadata(&path).unwrap();
        assert_eq!(
            (after.uid(), after.gid(), after.mode(), after.modified().unwrap()),
            (before.uid(), before.gid(), before.mode(), before.modified().unwrap())
        );
        let kept = beside(&appliance);
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert!(kept[0].ends_with(&format!("/data/0/{segment}")), "{kept:?}");
        let kept = appliance.paths.damaged(&appliance.name).join(&kept[0]);
        assert!(fs::read(kept).unwrap() == bad);
        assert_eq!(appliance.conditions(), [], "it was read back");
        is_sound(&appliance, &["one", "two"]);
        appliance.create("three");
        appliance.look();
        assert_eq!(appliance.conditions(), []);
        is_sound(&appliance, &["one", "two", "three"]);
        let refused = need(&appliance, segment).unwrap_err().to_string();
        assert!(refused.contains("there is nothing to repair"), "{refused}");
    }
}

#[test]
fn a_segment_that_is_gone_or_cut_is_put_back() {
    for gone in [true, false] {
        let appliance = client("none");
        appliance.look();
        appliance.verify(ALL);
        let (segment, path) = victim(&appliance);
        let good = fs::read(&path).unwrap();
        if gone {
            fs::remove_file(&path).unwrap();
        } else {
            rewrite(&path, &good[..good.len() / 2]);
        }
        appliance.look();
        assert!(appliance.ids().contains(&ConditionId::SegmentsChanged));
        assert_eq!(repair(&appliance, segment, &good).error, "");
        assert_eq!(appliance.conditions(), [], "nothing is left to accept");
        assert!(appliance.record().hold.is_none());
        is_sound(&appliance, &["one", "two"]);
        // Where the segment was gone, nobody knows what Borg's index was made from.
        let derived = beside(&appliance).iter().any(|name| name.contains("/index."));
        assert_eq!(derived, gone);
    }
}

#[test]
fn an_altered_segment_and_a_lost_commit_are_put_back() {
    let appliance = client("none");
    appliance.look();
    appliance.verify(ALL);
    // Well-formed, but another one.
    let (segment, path) = victim(&appliance);
    let (good, other) = (fs::read(&path).unwrap(), appliance.repository().join("data/0/0"));
    rewrite(&path, &fs::read(other).unwrap());
    assert_eq!(repair(&appliance, segment, &good).error, "");
    is_sound(&appliance, &["one", "two"]);

    // The last commit itself: what lies below it is not committed until it is back.
    let last = *segments(&appliance).last().unwrap();
    let path = appliance.repository().join(format!("data/0/{last}"));
    let good = fs::read(&path).unwrap();
    rewrite(&path, &good[..10]);
    let refused = need(&appliance, last - 1).unwrap_err().to_string();
    assert!(refused.contains("has no segment"), "{refused}");
    assert_eq!(repair(&appliance, last, &good).error, "");
    appliance.look();
    is_sound(&appliance, &["one", "two"]);
}

#[test]
fn a_repair_is_refused_while_anybody_else_is_at_work_and_where_nothing_is_known() {
    let appliance = client("none");
    appliance.look();
    let (segment, path) = victim(&appliance);
    let good = fs::read(&path).unwrap();
    turn_a_bit(&path);
    // Never read before it was damaged, and never pushed.
    let refused = need(&appliance, segment).unwrap_err().to_string();
    assert!(
        refused.contains("was not read here before it was damaged, and it has no off-site copy"),
        "{refused}"
    );
    rewrite(&path, &good);
    appliance.verify(ALL);
    turn_a_bit(&path);
    let work = Work::Repair { segment };
    let content = need(&appliance, segment).unwrap();
    receive(&appliance, segment, &content, &good).unwrap();
    let session = hold::enter(&appliance.paths, &appliance.name).unwrap();
    let refused = begin(&appliance, work).unwrap_err().to_string();
    assert!(refused.contains("the client is connected"), "{refused}");
    drop(session);
    let check = fs::File::options()
        .write(true)
        .open(appliance.paths.watch(&appliance.name).join("verify.lock"))
        .unwrap();
    check.lock().unwrap();
    let mut refused = String::new();
    for _ in 0..1000 {
        refused = begin(&appliance, work).unwrap_err().to_string();
        // The session's lock may seem held for moments yet.
        if !refused.contains("the client is connected") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(refused.contains("a check of it is running"), "{refused}");
    drop(check);
    // Another job that has not come to its end.
    drop(begun(&appliance, work));
    let refused = begin(&appliance, Work::Repair { segment: segment + 1 })
        .unwrap_err()
        .to_string();
    assert!(refused.contains("being repaired already"), "{refused}");
}

#[test]
fn what_a_rollback_took_out_does_not_come_back_as_a_repair() {
    let appliance = client("none");
    let to = appliance.look().audited.unwrap();
    appliance.write("later", 50_000, 999);
    appliance.create("three");
    appliance.look();
    appliance.verify(ALL);
    let (segment, path, _) = appliance.holding(&support::repository::noise(50_000, 999));
    let bytes = fs::read(&path).unwrap();
    turn_a_bit(&path);
    verify_later(&appliance);
    // It is undone while its damage still stands.
    rewrite(&path, &bytes);
    roll_back(&appliance, to);
    assert!(
        appliance
            .verification()
            .damages
            .iter()
            .any(|damage| damage.segment == Some(segment))
    );
    let refused = need(&appliance, segment).unwrap_err().to_string();
    assert!(refused.contains(&format!("has no segment {segment}")), "{refused}");
}

#[test]
fn a_repair_that_is_cut_short_at_each_step_is_brought_to_its_end() {
    for gone in [false, true] {
        let appliance = client("none");
        appliance.look();
        appliance.verify(ALL);
        let (segment, path) = victim(&appliance);
        let good = fs::read(&path).unwrap();
        turn_a_bit(&path);
        if gone {
            fs::remove_file(&path).unwrap();
        }
        let work = Work::Repair { segment };
        let content = need(&appliance, segment).unwrap();
        receive(&appliance, segment, &content, &good).unwrap();
        let mut runs = 0;
        loop {
            let begun = begun(&appliance, work);
            assert_eq!(begun.resumed, runs > 0);
            // One step more each time, and what was done is done again.
            let mut left = runs;
            let mut some = || {
                left -= 1;
                left >= 0
            };
            runs += 1;
            if repair_job::put(&appliance.paths, &appliance.name, &begun.journal, &mut some).unwrap() {
                break;
            }
            drop(begun);
            assert!(fs::read(&path).is_ok_and(|bytes| bytes != good) || gone && !path.exists());
            assert!(hold::enter(&appliance.paths, &appliance.name).is_err(), "held out");
            let untouched = appliance.record();
            assert_eq!(appliance.look(), untouched, "nobody looks meanwhile");
        }
        assert!(runs >= 4, "{runs} steps");
        // Killed before the end was written down: it is done again, and nothing more happens.
        for _ in 0..2 {
            let begun = begun(&appliance, work);
            assert!(begun.resumed);
            assert!(repair_job::put(&appliance.paths, &appliance.name, &begun.journal, &mut || true).unwrap());
            let outcome = repair_job::finish(&appliance.paths, &appliance.name, &begun).unwrap();
            assert_eq!(outcome.error, "");
            hold::note(&appliance.paths, &appliance.name, &outcome).unwrap();
        }
        let outcome = hold::outcome(&appliance.paths, &appliance.name).unwrap();
        hold::release(&appliance.paths, &appliance.name, &outcome).unwrap();
        assert!(fs::read(&path).unwrap() == good);
        is_sound(&appliance, &["one", "two"]);
    }
}

#[test]
fn what_was_received_and_then_damaged_is_not_put_in_place() {
    let (appliance, segment, path, good) = checked_client();
    turn_a_bit(&path);
    let bad = fs::read(&path).unwrap();
    let content = need(&appliance, segment).unwrap();
    receive(&appliance, segment, &content, &good).unwrap();
    drop(begun(&appliance, Work::Repair { segment }));
    turn_a_bit(&appliance.paths.damaged(&appliance.name).join(format!("{segment}.new")));
    let begun = begun(&appliance, Work::Repair { segment });
    assert!(repair_job::put(&appliance.paths, &appliance.name, &begun.journal, &mut || true).unwrap());
    let outcome = repair_job::finish(&appliance.paths, &appliance.name, &begun).unwrap();
    assert!(outcome.error.contains("it is not repaired"), "{outcome:?}");
    hold::release(&appliance.paths, &appliance.name, &outcome).unwrap();
    drop(begun);
    assert!(fs::read(&path).unwrap() == bad);
    // It can be sent again.
    assert_eq!(repair(&appliance, segment, &good).error, "");
    is_sound(&appliance, &["one", "two"]);
}

#[test]
fn a_link_in_a_segments_place_is_left_alone() {
    let (appliance, segment, path, good) = checked_client();
    let outside = appliance.folder.path().join("outside");
    fs::write(&outside, "theirs").unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&outside, &path).unwrap();
    let content = need(&appliance, segment).unwrap();
    let refused = receive(&appliance, segment, &content, &good).unwrap_err().to_string();
    assert!(refused.contains("not a regular file"), "{refused}");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "theirs");
    assert_eq!(beside(&appliance), Vec::<String>::new());
}
