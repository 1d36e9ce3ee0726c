use super::recall::{Outcome, take_for_test as take};
use super::*;
use crate::watch::ledger::{Known, Ledger};
use crate::watch::{store, versions};
use std::os::unix::fs::PermissionsExt;
use strongroom_model::name::ClientName;
use strongroom_model::watch::{Finding, Record};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// An appliance with a configuration, a secret and a key, whose array is a folder.
fn appliance(id: &str) -> (tempfile::TempDir, Paths) {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    for (name, content, mode) in [
        ("machine-id", format!("{id}\n"), 0o444),
        ("config/strongroom.toml", "[network]\n".to_owned(), 0o644),
        ("config/clients.toml", "paused = []\n".to_owned(), 0o644),
        ("config/files/owner.asc", "certificate".to_owned(), 0o644),
        ("config/proofs.json", "{}".to_owned(), 0o644),
        ("config/drills.json", "[]".to_owned(), 0o644),
        ("config/signer.asc", "signer".to_owned(), 0o644),
        ("config/sources.json", "[]".to_owned(), 0o644),
        ("secrets/mqtt/word", "sealed".to_owned(), 0o600),
        ("secrets/signing/manifests", "sealed".to_owned(), 0o600),
        ("ssh/ssh_host_ed25519_key", format!("private {id}"), 0o600),
        ("ssh/ssh_host_ed25519_key.pub", format!("public {id}"), 0o644),
        ("offsite/laptop/trial", "ledger".to_owned(), 0o600),
    ] {
        durable::write(&paths.state().join(name), content.as_bytes(), mode).unwrap();
    }
    durable::write(&paths.credential_secret(), b"credential", 0o400).unwrap();
    (folder, paths)
}

fn move_array(from: &Paths, to: &Paths) {
    fs::create_dir_all(to.mirror().parent().unwrap()).unwrap();
    fs::rename(from.mirror(), to.mirror()).unwrap();
}

#[test]
fn what_lasts_comes_back_and_nothing_else() {
    let (_one, old) = appliance(ID);
    assert!(keep(&old).unwrap());
    assert!(!keep(&old).unwrap(), "nothing has changed");
    let mode = fs::metadata(old.mirror()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    durable::write(&old.config(), b"[admin]\n", 0o644).unwrap();
    fs::remove_file(old.secrets("mqtt").join("word")).unwrap();
    assert!(keep(&old).unwrap());

    let folder = tempfile::tempdir().unwrap();
    let new = Paths::new(folder.path());
    move_array(&old, &new);
    assert_eq!(take(&new).unwrap(), Outcome::Restart);
    let state = |name: &str| fs::read_to_string(new.state().join(name)).unwrap();
    assert_eq!(state("machine-id"), format!("{ID}\n"));
    assert_eq!(state("ssh/ssh_host_ed25519_key"), format!("private {ID}"));
    assert_eq!(state("config/strongroom.toml"), "[admin]\n");
    assert_eq!(state("config/clients.toml"), "paused = []\n");
    assert_eq!(state("config/files/owner.asc"), "certificate");
    assert_eq!(
        (state("config/proofs.json"), state("config/drills.json")),
        ("{}".into(), "[]".into())
    );
    assert_eq!(
        (state("config/signer.asc"), state("secrets/signing/manifests")),
        ("signer".into(), "sealed".into())
    );
    // What is in CONFIG of a new flash is a new offer, even if it was in force once before.
    assert!(!new.config_sources().exists());
    assert_eq!(fs::read(new.credential_secret()).unwrap(), b"credential");
    assert!(!new.secrets("mqtt").join("word").exists() && !new.state().join("offsite").exists());
    assert!(!keep(&new).unwrap(), "the copy is the same again");
}

/// Remembers something of a client, as the watch does.
fn remember(paths: &Paths, client: &str, since: u64) {
    let folder = paths.watch(&ClientName::new(client).unwrap());
    let _lock = store::lock(&folder).unwrap();
    let mut record = Record {
        repository: "ab".into(),
        since,
        ..Record::default()
    };
    record.find(Finding::ManifestLost, since, Some(5), Some(9));
    store::write_record(&folder, &record).unwrap();
    let mut ledger = Ledger::read(&folder, "ab").unwrap();
    let known = Known {
        size: 9,
        sum: Some([7; 32]),
        verified: since,
    };
    ledger.segments.insert(3, known);
    ledger.write(&folder).unwrap();
    versions::keep(&folder, since.to_string().as_bytes()).unwrap();
}

/// What is remembered: when the watch began, whether it is held, and what was checked; with the versions of settings.
fn remembered(paths: &Paths, client: &str) -> (u64, bool, usize, bool) {
    let folder = paths.watch(&ClientName::new(client).unwrap());
    let store::Read::Known(record) = store::read_record(&folder) else {
        return (0, false, 0, false);
    };
    let ledger = Ledger::read(&folder, "ab").unwrap();
    let sum = versions::sum(record.since.to_string().as_bytes());
    let version = versions::read(&folder, &sum).unwrap();
    (
        record.since,
        record.hold.is_some(),
        ledger.segments.len(),
        version.is_some(),
    )
}

#[test]
fn what_is_remembered_of_repositories_comes_back_held_and_checked() {
    let (_one, old) = appliance(ID);
    keep(&old).unwrap();
    assert_eq!(watched::keep(&old).unwrap(), 0);
    remember(&old, "asus", 100);
    remember(&old, "laptop", 100);
    assert_eq!(watched::keep(&old).unwrap(), 6);
    assert_eq!(watched::keep(&old).unwrap(), 0, "nothing has changed");
    let asus = ClientName::new("asus").unwrap();
    durable::write(&old.session_history(&asus), b"sessions", 0o644).unwrap();
    durable::write(&old.upkeep_outcome(&asus), b"outcome", 0o644).unwrap();
    assert_eq!(watched::keep(&old).unwrap(), 2);
    remember(&old, "asus", 200);
    // One that is at work is passed over.
    let lock = store::lock(&old.watch(&ClientName::new("asus").unwrap())).unwrap();
    assert_eq!(watched::keep(&old).unwrap(), 0);
    drop(lock);
    assert_eq!(watched::keep(&old).unwrap(), 3);
    // Changed settings leave it alone.
    durable::write(&old.config(), b"[admin]\n", 0o644).unwrap();
    assert!(keep(&old).unwrap());
    // A client that has another name.
    fs::remove_dir_all(old.watch(&ClientName::new("laptop").unwrap())).unwrap();
    watched::keep(&old).unwrap();
    assert!(!watched::folder(&old, ID).join("laptop").exists());

    let folder = tempfile::tempdir().unwrap();
    let new = Paths::new(folder.path());
    move_array(&old, &new);
    assert_eq!(take(&new).unwrap(), Outcome::Restart);
    assert_eq!(remembered(&new, "asus"), (200, true, 1, true));
    assert_eq!(fs::read(new.session_history(&asus)).unwrap(), b"sessions");
    assert_eq!(fs::read(new.upkeep_outcome(&asus)).unwrap(), b"outcome");
    assert_eq!(remembered(&new, "laptop").0, 0);
    remember(&new, "asus", 300);
    watched::keep(&new).unwrap();
    let again = tempfile::tempdir().unwrap();
    let third = Paths::new(again.path());
    move_array(&new, &third);
    // In memory it isn't taken, and what is on the array stays.
    durable::write(&third.state_lost(), b"", 0o644).unwrap();
    fs::create_dir_all(third.state()).unwrap();
    fs::write(third.state().join(MACHINE_ID), "").unwrap();
    assert_eq!(take(&third).unwrap(), Outcome::InMemory);
    remember(&third, "asus", 400);
    assert_eq!(watched::keep(&third).unwrap(), 0);
    fs::remove_file(third.state_lost()).unwrap();
    assert_eq!(take(&third).unwrap(), Outcome::Restart);
    assert_eq!(remembered(&third, "asus").0, 300);
}

#[test]
fn what_another_could_have_written_is_not_believed() {
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (_one, old) = appliance(ID);
    keep(&old).unwrap();
    remember(&old, "asus", 100);
    watched::keep(&old).unwrap();
    let taken = || {
        let folder = tempfile::tempdir().unwrap();
        let new = Paths::new(folder.path());
        fs::create_dir_all(new.mirror().parent().unwrap()).unwrap();
        fs::rename(old.mirror(), new.mirror()).unwrap();
        assert_eq!(take(&new).unwrap(), Outcome::Restart);
        let since = remembered(&new, "asus").0;
        fs::rename(new.mirror(), old.mirror()).unwrap();
        since
    };
    assert_eq!(taken(), 100);
    let mine = watched::folder(&old, ID);
    for place in [old.mirror(), mine.clone(), mine.join("asus")] {
        chmod(&place, 0o777);
        assert_eq!(taken(), 0, "{}", place.display());
        chmod(&place, 0o700);
    }
    assert_eq!(taken(), 100);
    // A link in the place of a folder or a file leads nowhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("asus");
    fs::rename(mine.join("asus"), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, mine.join("asus")).unwrap();
    assert_eq!(taken(), 0);
    fs::remove_file(mine.join("asus")).unwrap();
    fs::create_dir(mine.join("asus")).unwrap();
    std::os::unix::fs::symlink(moved.join("record.json"), mine.join("asus/record.json")).unwrap();
    assert_eq!(taken(), 0);
}

#[test]
fn another_appliances_copy_stays_beside_the_new_one() {
    let other = "f".repeat(32);
    let (_one, first) = appliance(ID);
    let (_two, second) = appliance(&other);
    keep(&first).unwrap();
    move_array(&first, &second);
    keep(&second).unwrap();
    assert!(second.mirror().join(ID).join(HOST_KEY).exists());
    assert_eq!(last(&second), Some(other));
    for number in 0..9 {
        fs::create_dir(second.mirror().join(format!("{number:032}"))).unwrap();
        fs::create_dir(watched::folder(&second, &format!("{number:032}"))).unwrap();
    }
    fs::remove_file(second.config()).unwrap();
    keep(&second).unwrap();
    let left = fs::read_dir(second.mirror()).unwrap().flatten();
    let (watched, own): (Vec<_>, Vec<_>) = left
        .map(|entry| entry.file_name().into_string().unwrap())
        .partition(|name| name.ends_with(watched::ENDING));
    assert_eq!(own.len(), 1 + 1 + OTHERS_MAX);
    assert!(
        watched.len() >= OTHERS_MAX - 1 && watched.len() <= OTHERS_MAX,
        "{watched:?}"
    );
}

#[test]
fn a_provisional_identity_never_covers_the_one_to_be_brought_back() {
    let (_folder, paths) = appliance(ID);
    durable::write(&paths.recall_pending(), b"", 0o600).unwrap();
    assert!(!keep(&paths).unwrap());
    assert!(!paths.mirror().exists());
}

#[test]
fn damage_is_told_and_brings_back_nothing() {
    let (_one, old) = appliance(ID);
    keep(&old).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let new = Paths::new(folder.path());
    move_array(&old, &new);
    fs::write(new.mirror().join(ID).join("machine-id"), "x").unwrap();
    assert!(take(&new).is_err());
    fs::write(new.mirror().join(LAST), "../../etc").unwrap();
    assert_eq!(take(&new).unwrap(), Outcome::Nothing);
    assert!(!new.state().exists());
}
