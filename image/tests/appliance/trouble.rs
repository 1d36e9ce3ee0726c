//! What goes wrong at people's homes: each boots, stays reachable, writes nothing that it should not, and is told.

use std::fs;

use image::loopback::StoreOptions;
use image::qemu::Firmware;
use image::trial::Trial;
use image::workspace::Workspace;

use crate::backup::{conditions, wait_for_status};
use crate::faces;
use crate::{SOON, STOP, folder, start};

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
    let trial = Trial::new(&Workspace::here(), &folder("trouble"), &StoreOptions::default()).unwrap();
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
    // A good one by command takes its place at once.
    let without_consent = good.replace("create = true", "create = false");
    faces::a_configuration_is_applied(&trial.admin(&machine), &without_consent);
    wait_for_status(&trial, &mut machine, "the refusal still stands", SOON, |status| {
        !has(status, "config-refused") && has(status, "array-not-ready")
    });
    machine.shut_down(STOP).unwrap();
    let report = String::from_utf8(trial.read_esp("CONFIG/strongroom-report.txt").unwrap()).unwrap();
    assert!(report.contains("`hots`"), "{report}");
    assert!(all_zero(&data));
}
