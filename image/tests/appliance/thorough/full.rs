//! No room left: on the array, then on the state partition. Both start, stay reachable, keep what they hold, and are told.

use std::path::Path;
use std::process::Command;

use image::loopback::StoreOptions;
use image::partitions::{MIB, RAID_START, STATE};
use image::qemu::Firmware;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, random};
use crate::trouble::has;
use crate::{SOON, STOP, folder, start};

#[test]
#[ignore = "needs the built image: cargo image test"]
fn a_full_array_and_a_full_state_partition_are_told_and_harm_nothing() {
    let trial = Trial::new(&Workspace::here(), &folder("full"), &StoreOptions::default()).unwrap();
    // The smallest members there may be, so that the array is soon full.
    trial.flash_disks([RAID_START + 96 * MIB, 96 * MIB]).unwrap();
    let mut machine = start(&trial, "array", Firmware::Bios);
    let mounted = |status: &serde_json::Value| status["array"]["state"] == "mounted";
    let status = wait_for_status(&trial, &mut machine, "the array was not made", SOON, mounted);
    let array = |key: &str| status["array"][key].as_u64().unwrap();
    let free = array("size_bytes") - array("used_bytes");

    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    std::fs::create_dir_all(&files).unwrap();
    let source = files.to_str().unwrap();
    client.borg(&["init", "--encryption=none", "--append-only"]);
    std::fs::write(files.join("one"), random(usize::try_from(free).unwrap() / 100 * 88)).unwrap();
    client.borg(&["create", "::one", source]);
    wait_for_status(&trial, &mut machine, "the full array was not told", SOON, |status| {
        has(status, "array-full")
    });
    std::fs::write(files.join("two"), random(usize::try_from(free).unwrap() / 4)).unwrap();
    let refused = client.output(&["create", "::two", source]);
    assert!(!refused.status.success(), "more was stored than there is room for");
    assert_eq!(client.archives(), ["one"]);
    machine.shut_down(STOP).unwrap();

    fill_state(&trial.drives()[0].file, &trial.folder);
    let mut machine = start(&trial, "state", Firmware::Bios);
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the full state partition was not told",
        SOON,
        |status| mounted(status) && has(status, "state-full"),
    );
    assert!(has(&status, "array-full"), "{status:#}");
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    assert_eq!(client.archives(), ["one"]);
    machine.shut_down(STOP).unwrap();
}

/// Writes into the state partition of a machine that is off until nothing more fits.
fn fill_state(system_disk: &Path, folder: &Path) {
    let filling = folder.join("filling");
    std::fs::write(&filling, random(64 << 20)).unwrap();
    let commands = folder.join("filling.debugfs");
    let line = |number: u32| format!("write {} filling{number}\n", filling.display());
    std::fs::write(&commands, (0..40).map(line).collect::<String>()).unwrap();
    // debugfs(8) opens a file system inside a file by its offset, and ends well even where a write had no room.
    let inside = format!("{}?offset={}", system_disk.display(), STATE.start());
    let output = Command::new("/sbin/debugfs")
        .arg("-w")
        .arg("-f")
        .arg(&commands)
        .arg(inside)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("No space left") || said.contains("no space") || said.contains("Could not allocate"),
        "{said}"
    );
}
