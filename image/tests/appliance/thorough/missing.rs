//! What is taken away or in the way: an occupied disk, the store, the broker, a disk. Each is told, and nothing is lost.

use std::fs;

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Machine};
use image::trial::{CLIENT, DATA_SERIAL, Trial};
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, make_files};
use crate::trouble::{has, sum_of, text_of};
use crate::{SOON, STOP, folder, start, switch_on};

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn an_occupied_disk_stays_as_it_is_and_whatever_is_missing_is_told() {
    let mut trial = Trial::new(&Workspace::here(), &folder("missing"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let data = trial.drives()[1].file.clone();

    // Consent, but the disk isn't blank: refused all the same.
    let made = std::process::Command::new("/sbin/mkfs.ext4")
        .args(["-q", "-F", "-L", "photos"])
        .arg(&data)
        .status();
    assert!(made.unwrap().success());
    let before = sum_of(&data);
    let mut machine = start(&trial, "not-blank", Firmware::Bios);
    let status = wait_for_status(&trial, &mut machine, "the occupied disk was not told", SOON, |status| {
        has(status, "array-failed")
    });
    assert!(text_of(&status, "array-failed").contains("photos"), "{status:#}");
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
