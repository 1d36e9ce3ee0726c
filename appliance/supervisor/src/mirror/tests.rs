use super::recall::{Outcome, take_for_test as take};
use super::*;
use std::os::unix::fs::PermissionsExt;

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
        ("config/sources.json", "[]".to_owned(), 0o644),
        ("secrets/mqtt/word", "sealed".to_owned(), 0o600),
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
    // What is in CONFIG of a new flash is a new offer, even if it was in force once before.
    assert!(!new.config_sources().exists());
    assert_eq!(fs::read(new.credential_secret()).unwrap(), b"credential");
    assert!(!new.secrets("mqtt").join("word").exists() && !new.state().join("offsite").exists());
    assert!(!keep(&new).unwrap(), "the copy is the same again");
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
    }
    fs::remove_file(second.config()).unwrap();
    keep(&second).unwrap();
    assert_eq!(fs::read_dir(second.mirror()).unwrap().count(), 1 + 1 + OTHERS_MAX);
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
