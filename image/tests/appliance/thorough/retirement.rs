//! A client deletes, the owner compacts, and what nothing needs any more leaves the buckets once that costs nothing: the same
//! copy in a bucket of the standard tier and in one of the archive tier, restored on a workstation at every step.

use std::collections::BTreeSet;
use std::time::Duration;

use image::loopback::{BUCKET, MANIFESTS, Store, StoreOptions};
use image::qemu::{Firmware, Machine};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;
use serde_json::Value;

use crate::backup::{checked, decrypt, json, looked_at, number, restore_from, wait_for_status};
use crate::client::{Client, make_files, random};
use crate::trouble::has;
use crate::{SOON, STOP, folder, switch_on};

/// A push, a check or a compaction under emulation.
const LONG: Duration = Duration::from_secs(300);
const DAY: u64 = 24 * 3600;
/// New bytes in each backup.
const PHOTO: usize = 3 << 20;
/// More than any small object, and less than what the compaction frees.
const MUCH: u64 = 3 * PHOTO as u64;
/// The target in the archive tier, where 90 days are paid for in any case.
const ARCHIVE: &str = "archive";
/// The target in the standard tier.
const STANDARD: &str = "standard";

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn what_a_compaction_freed_leaves_the_buckets_when_it_costs_nothing() {
    let mut trial = Trial::new(&Workspace::here(), &folder("retirement"), &options()).unwrap();
    trial.configure(&two_targets(&trial)).unwrap();
    trial.flash().unwrap();
    let mut machine = switch_on(&trial, &trial.hardware("retirement", Firmware::Bios));
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, |status| {
        status["array"]["state"] == "mounted" && status["clock"]["state"] == "synchronised"
    });
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    client.borg(&["init", "--encryption=none", "--append-only"]);
    let all = ["one", "two", "three", "four"];
    for archive in all {
        back_up(&trial, &client, archive);
    }
    let full = pushed(&trial, &mut machine, None);
    assert_eq!(obsolete(&full, STANDARD, "waiting_bytes"), 0, "{full:#}");

    // Three of four are deleted by the client and freed by the owner: older states alone need them now.
    client.borg(&["delete", "::one"]);
    client.borg(&["prune", "--keep-last", "1"]);
    let deleted = pushed(&trial, &mut machine, number(&full));
    compact(&trial, &mut machine);
    let compacted = pushed(&trial, &mut machine, number(&deleted));
    for name in [STANDARD, ARCHIVE] {
        assert!(
            obsolete(&compacted, name, "waiting_bytes") > MUCH,
            "{name}: {compacted:#}"
        );
        // Not before there are as many newer states as are kept whatever their age.
        assert!(target(&compacted, name)["obsolete"]["next"].is_null(), "{compacted:#}");
    }
    restored(&trial, MANIFESTS, "compacted", None, &["four"]);
    restored(&trial, MANIFESTS, "as-it-was", number(&full), &all);

    // Once there are, it is told when something may go.
    back_up(&trial, &client, "five");
    let five = pushed(&trial, &mut machine, number(&compacted));
    back_up(&trial, &client, "six");
    let six = pushed(&trial, &mut machine, number(&five));
    let apart = obsolete(&six, ARCHIVE, "next") - obsolete(&six, STANDARD, "next");
    assert!(apart.abs_diff((90 - 7) * DAY) < DAY, "{six:#}");
    assert_eq!(obsolete(&six, STANDARD, "retired_bytes"), 0, "{six:#}");

    // Ten days later nobody wants to go back to them, and only the archive would still have to be paid for.
    age(&mut trial, &[BUCKET, MANIFESTS], 10);
    let (before, archived) = (objects(&trial, MANIFESTS), objects(&trial, BUCKET));
    let expected = only_needed_by(&trial, MANIFESTS, &[&full, &deleted, &compacted]);
    assert!(expected.iter().any(|name| name.starts_with("data/")), "{expected:?}");
    back_up(&trial, &client, "seven");
    let seven = pushed(&trial, &mut machine, number(&six));
    assert_eq!(gone(&trial, MANIFESTS, &before), expected);
    every_state_is_whole(&trial, MANIFESTS);
    assert!(obsolete(&seven, STANDARD, "retired_bytes") > MUCH, "{seven:#}");
    assert_eq!(obsolete(&seven, STANDARD, "waiting_bytes"), 0, "{seven:#}");
    assert_eq!(
        gone(&trial, BUCKET, &archived),
        BTreeSet::new(),
        "the archive lost something"
    );
    assert_eq!(obsolete(&seven, ARCHIVE, "retired_bytes"), 0, "{seven:#}");
    assert!(obsolete(&seven, ARCHIVE, "waiting_bytes") > MUCH, "{seven:#}");
    let told = trial.admin(&machine).run(&format!("strongroom push {CLIENT}")).unwrap();
    for (name, words) in [(STANDARD, "deleted so far"), (ARCHIVE, "kept for older states")] {
        let line = told.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains(words), "{told}");
    }
    let left = ["four", "five", "six", "seven", "eight"];
    restored(&trial, MANIFESTS, "retired", None, &left[..4]);
    restored(&trial, MANIFESTS, "oldest", number(&five), &left[..2]);
    restored(&trial, BUCKET, "archive-as-it-was", number(&full), &all);

    // After 90 days it costs nothing there either.
    age(&mut trial, &[BUCKET], 81);
    let before = objects(&trial, BUCKET);
    let expected = only_needed_by(&trial, BUCKET, &[&full, &deleted, &compacted, &five]);
    back_up(&trial, &client, "eight");
    let eight = pushed(&trial, &mut machine, number(&seven));
    assert_eq!(gone(&trial, BUCKET, &before), expected);
    every_state_is_whole(&trial, BUCKET);
    assert!(obsolete(&eight, ARCHIVE, "retired_bytes") > MUCH, "{eight:#}");
    restored(&trial, BUCKET, "archive", None, &left);

    for id in ["retirement-hindered", "copy-damaged", "copy-foreign"] {
        assert!(!has(&eight, id), "{eight:#}");
    }
    let admin = trial.admin(&machine);
    assert_eq!(admin.run("systemctl --failed --plain --no-legend").unwrap(), "");
    machine.shut_down(STOP).unwrap();
}

fn options() -> StoreOptions {
    StoreOptions {
        archive: true,
        restore_delay: Some(2),
        ..StoreOptions::default()
    }
}

/// The trial's own target, which is in the archive, and another like it in the other bucket.
fn two_targets(trial: &Trial) -> String {
    let config = trial.default_config();
    let start = config.find("[[offsite.target]]").unwrap();
    let end = config.find("[[client]]").unwrap();
    let target = format!("{}\nretire = true\nkeep_days = 7\n", config[start..end].trim_end());
    let archive = target.replace("\"trial\"", &format!("\"{ARCHIVE}\""));
    let standard = target
        .replace("\"trial\"", &format!("\"{STANDARD}\""))
        .replace(BUCKET, MANIFESTS);
    format!(
        "{}{archive}minimum_age_days = 90\n\n{standard}\n{}",
        &config[..start],
        &config[end..]
    )
}

/// A backup of a photo that no other backup has.
fn back_up(trial: &Trial, client: &Client, archive: &str) {
    let files = trial.folder.join("files");
    make_files(&files, 0);
    std::fs::write(files.join("photo"), random(PHOTO)).unwrap();
    client.borg(&["create", &format!("::{archive}"), files.to_str().unwrap()]);
}

/// Pushes a state later than `earlier`, and waits until it is told that both targets have it.
fn pushed(trial: &Trial, machine: &mut Machine, earlier: Option<u64>) -> Value {
    wait_for_status(trial, machine, "the client was not looked at", LONG, |status| {
        number(status) > earlier
    });
    let said = trial.admin(machine).run(&format!("strongroom push {CLIENT}")).unwrap();
    eprint!("{said}");
    wait_for_status(trial, machine, "the push is not told", LONG, |status| {
        let has = |name: &str| target(status, name)["transaction"].as_u64() == number(status);
        has(STANDARD) && has(ARCHIVE) && is_idle(status)
    })
}

fn is_idle(status: &Value) -> bool {
    status["jobs"].as_array().is_some_and(Vec::is_empty)
}

/// Has the owner free what the client deleted.
fn compact(trial: &Trial, machine: &mut Machine) {
    let admin = trial.admin(machine);
    admin.run(&format!("strongroom check {CLIENT}")).unwrap();
    wait_for_status(trial, machine, "the check is not told", LONG, |status| {
        status["clients"][0]["checked"].is_u64() && looked_at(status, None) && is_idle(status)
    });
    // So much was deleted at once that it is asked whether that was meant.
    admin.run(&format!("strongroom client accept {CLIENT}")).unwrap();
    wait_for_status(trial, machine, "the acceptance is not told", LONG, |status| {
        !has(status, "mass-deletion")
    });
    let said = admin
        .run(&format!("strongroom compact {CLIENT} --yes {CLIENT}"))
        .unwrap();
    assert!(said.contains("MiB freed"), "{said}");
}

fn target<'a>(status: &'a Value, name: &str) -> &'a Value {
    let targets = status["clients"][0]["targets"].as_array();
    let mut targets = targets.into_iter().flatten();
    targets.find(|target| target["name"] == name).unwrap_or(&Value::Null)
}

fn obsolete(status: &Value, name: &str, key: &str) -> u64 {
    let value = &target(status, name)["obsolete"][key];
    value.as_u64().unwrap_or_else(|| panic!("{name} {key}: {status:#}"))
}

/// Restores on a workstation, the newest state or an older one: it is sound, and holds exactly these archives.
fn restored(trial: &Trial, bucket: &str, name: &str, state: Option<u64>, archives: &[&str]) {
    let into = trial.folder.join(format!("restored-{name}"));
    let mut command = restore_from(trial, bucket);
    command.arg("--yes").arg(&into);
    if let Some(state) = state {
        command.args(["--transaction", &state.to_string()]);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    checked(trial, &into, name, archives);
}

/// Days pass: everything in these buckets is so much older.
fn age(trial: &mut Trial, buckets: &[&str], days: u64) {
    trial.store.stop();
    for bucket in buckets {
        for entry in std::fs::read_dir(trial.store.objects.join(bucket)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "meta") {
                let mut meta = json(&std::fs::read_to_string(&path).unwrap());
                meta["modified"] = (meta["modified"].as_u64().unwrap() - days * DAY * 1000).into();
                std::fs::write(&path, meta.to_string()).unwrap();
            }
        }
    }
    let again = StoreOptions {
        port: trial.store.port,
        ..options()
    };
    trial.store = Store::start(&Workspace::here(), &trial.folder, &trial.store.secret.clone(), &again).unwrap();
}

/// Names of the objects of the client's copy in a bucket, below its prefix.
fn objects(trial: &Trial, bucket: &str) -> BTreeSet<String> {
    let prefix = format!("{CLIENT}%2F");
    let entries = std::fs::read_dir(trial.store.objects.join(bucket)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_prefix(&prefix)?.strip_suffix(".meta")?.replace("%2F", "/")))
        .collect()
}

fn gone(trial: &Trial, bucket: &str, before: &BTreeSet<String>) -> BTreeSet<String> {
    before.difference(&objects(trial, bucket)).cloned().collect()
}

/// The manifests in a bucket: the number of the state, and what it names.
fn manifests(trial: &Trial, bucket: &str) -> Vec<(u64, BTreeSet<String>)> {
    let objects = objects(trial, bucket);
    let manifests = objects.iter().filter(|name| name.ends_with(".json.gpg"));
    let read = |name: &String| {
        let state = name.strip_prefix("manifest/").unwrap().split('.').next().unwrap();
        let file = format!("{CLIENT}%2F{}.data", name.replace('/', "%2F"));
        let text = decrypt(trial, &trial.store.objects.join(bucket).join(file));
        let manifest = json(&String::from_utf8(text).unwrap());
        let named = manifest["files"].as_array().unwrap().iter();
        let named = named.map(|file| file["object"].as_str().unwrap().to_owned());
        (state.parse().unwrap(), named.collect())
    };
    manifests.map(read).collect()
}

/// What goes with these states: their manifests with sums and signatures, and the segments that no other names.
fn only_needed_by(trial: &Trial, bucket: &str, states: &[&Value]) -> BTreeSet<String> {
    let states: BTreeSet<u64> = states.iter().map(|status| number(status).unwrap()).collect();
    let manifests = manifests(trial, bucket);
    let named = |going: bool| -> BTreeSet<&String> {
        let these = manifests.iter().filter(|(state, _)| states.contains(state) == going);
        these.flat_map(|(_, named)| named).collect()
    };
    let (going, staying) = (named(true), named(false));
    let is_theirs = |name: &String| {
        let manifest = states
            .iter()
            .any(|state| name.starts_with(&format!("manifest/{state}.")));
        manifest || name.starts_with("data/") && going.contains(name) && !staying.contains(name)
    };
    objects(trial, bucket).into_iter().filter(is_theirs).collect()
}

/// The newest three states are there, with all that they name.
fn every_state_is_whole(trial: &Trial, bucket: &str) {
    let (there, manifests) = (objects(trial, bucket), manifests(trial, bucket));
    assert_eq!(manifests.len(), 3, "{there:?}");
    for (state, named) in manifests {
        assert!(!named.is_empty() && named.is_subset(&there), "{state}: {named:?}");
    }
}
