//! What goes wrong at people's homes: each boots, stays reachable, writes nothing that it should not, and is told.

use std::fs;

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Machine};
use image::trial::{CLIENT, DATA_SERIAL, Trial};
use image::workspace::Workspace;

use crate::backup::{conditions, wait_for_status};
use crate::client::{Client, make_files};
use crate::{SOON, STOP, folder, start, switch_on};

pub fn has(status: &serde_json::Value, id: &str) -> bool {
    conditions(status).iter().any(|condition| condition == id)
}

pub fn text_of(status: &serde_json::Value, id: &str) -> String {
    let standing = status["conditions"]["standing"].as_array().unwrap();
    let found = standing.iter().find(|condition| condition["id"] == id).unwrap();
    format!(
        "{} {}",
        found["text"].as_str().unwrap(),
        found["advice"].as_str().unwrap()
    )
}

pub fn all_zero(file: &std::path::Path) -> bool {
    // A sparse file that was never written to has no blocks at all.
    use std::os::unix::fs::MetadataExt;
    fs::metadata(file).unwrap().blocks() == 0
}

pub fn sum_of(file: &std::path::Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn without_consent_nothing_is_written_and_a_wrong_configuration_is_explained() {
    let mut trial = Trial::new(&Workspace::here(), &folder("trouble"), &StoreOptions::default()).unwrap();
    let good = trial.default_config();
    trial
        .configure(&good.replace("create = true", "create = false"))
        .unwrap();
    trial.flash().unwrap();

    // Without consent: reachable, told, and the second disk as blank as before.
    let mut machine = start(&trial, "no-consent", Firmware::Bios);
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the missing consent was not told",
        SOON,
        |status| has(status, "array-not-ready"),
    );
    assert!(
        text_of(&status, "array-not-ready").contains("create = true"),
        "{status:#}"
    );
    let refused = trial.client(&machine).output("borg serve").unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("array is not ready"));
    machine.shut_down(STOP).unwrap();
    let data = trial.drives()[1].file.clone();
    assert!(
        all_zero(&data),
        "something was written to the second disk without consent"
    );

    // A wrong file: the last good configuration stays, and the fault is told in one sentence, with its line.
    trial
        .configure(&good.replace("[mqtt]", "[mqtt]\nhots = \"x\""))
        .unwrap();
    trial.put_config().unwrap();
    let mut machine = start(&trial, "bad-config", Firmware::Bios);
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the wrong configuration was not told",
        SOON,
        |status| has(status, "config-refused") && has(status, "array-not-ready"),
    );
    let text = text_of(&status, "config-refused");
    assert!(
        text.contains("line ") && text.contains("`hots`") && text.contains("Did you mean `host`?"),
        "{text}"
    );
    machine.shut_down(STOP).unwrap();
    let report = String::from_utf8(trial.read_esp("CONFIG/strongroom-report.txt").unwrap()).unwrap();
    assert!(report.contains("`hots`"), "{report}");
    assert!(all_zero(&data));

    // Consent, but the disk isn't blank: refused all the same.
    let made = std::process::Command::new("/sbin/mkfs.ext4")
        .args(["-q", "-F", "-L", "photos"])
        .arg(&data)
        .status();
    assert!(made.unwrap().success());
    let before = sum_of(&data);
    trial.configure(&good).unwrap();
    trial.put_config().unwrap();
    let mut machine = start(&trial, "not-blank", Firmware::Bios);
    let status = wait_for_status(&trial, &mut machine, "the occupied disk was not told", SOON, |status| {
        has(status, "array-failed")
    });
    assert!(text_of(&status, "array-failed").contains("photos"), "{status:#}");
    assert!(!has(&status, "config-refused"), "{status:#}");
    machine.shut_down(STOP).unwrap();
    assert_eq!(sum_of(&data), before, "the occupied disk was written to");

    // Blank again: the array is made. Then the disk, the broker and the store are taken away.
    fs::File::create(&data).unwrap().set_len(3 << 30).unwrap();
    let mut machine = start(&trial, "consent", Firmware::Bios);
    wait_for_status(&trial, &mut machine, "the array was not made", SOON, |status| {
        status["array"]["state"] == "mounted"
    });
    the_line_is_down(&mut trial, &mut machine);
    machine.shut_down(STOP).unwrap();
    everything_is_taken_away(trial);
}

/// A push that can't reach the store fails in words, at once to whoever asked and as a condition.
fn the_line_is_down(trial: &mut Trial, machine: &mut Machine) {
    let client = Client::new(CLIENT, trial.client(machine), &trial.folder);
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "::one", files.to_str().unwrap()]);
    trial.store.stop();
    let output = trial
        .admin(machine)
        .output(&format!("strongroom push {CLIENT}"))
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("laptop at trial"), "{said}");
    let status = wait_for_status(trial, machine, "the failed push was not told", SOON, |status| {
        has(status, "push-failed")
    });
    assert!(text_of(&status, "push-failed").contains("tried again"), "{status:#}");
}

fn everything_is_taken_away(mut trial: Trial) {
    let mut hardware = trial.hardware("missing", Firmware::Bios);
    hardware.drives.truncate(1);
    trial.broker.stop();
    let mut machine = switch_on(&trial, &hardware);
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the missing disk and broker were not told",
        SOON,
        |status| has(status, "member-missing") && has(status, "mqtt-unreachable"),
    );
    assert!(text_of(&status, "member-missing").contains(DATA_SERIAL), "{status:#}");
    assert_eq!(status["health"], "alarm");
    machine.shut_down(STOP).unwrap();
}
