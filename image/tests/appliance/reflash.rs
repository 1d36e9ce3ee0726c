//! The system disk is written anew, without any configuration. Clients notice nothing.

use std::path::Path;

use image::qemu::{Firmware, Machine};
use image::ssh;
use image::trial::{CLIENT, Trial};

use crate::backup::{looked_at, wait_for_status};
use crate::client::{Client, assert_same};
use crate::{SOON, START, is_sound};

/// A client that is enrolled by command shortly before.
const ENROLLED: &str = "shed";

/// Enrols a client, and waits until the array has its copy of the registry.
pub fn one_more_is_enrolled(trial: &Trial, machine: &mut Machine) {
    let admin = trial.admin(machine);
    let copied = "systemctl show --value -p InvocationID,ActiveState strongroom-mirror.service";
    let before = admin.run(copied).unwrap();
    let key = ssh::key(&trial.folder.join("shed_key"), "shed@trial").unwrap();
    admin
        .run(&format!("strongroom client add {ENROLLED} --key '{key}'"))
        .unwrap();
    machine
        .wait_until("the registry was not copied onto the array", SOON, |_| {
            let now = admin.run(copied)?;
            Ok(now != before && now.contains("inactive"))
        })
        .unwrap();
}

/// Waits until the array has its copy of what is remembered of the client's repository.
pub fn what_is_remembered_is_copied(trial: &Trial, machine: &mut Machine) {
    wait_for_status(trial, machine, "the client was not looked at", SOON, |status| {
        looked_at(status, None)
    });
    let admin = trial.admin(machine);
    machine
        .wait_until("what is remembered was not copied", SOON, |_| {
            let shown =
                admin.run("systemctl show -p InvocationID,ActiveState,Result strongroom-mirror-watch.service")?;
            Ok(!shown.contains("InvocationID=\n") && shown.contains("=inactive") && shown.contains("=success"))
        })
        .unwrap();
}

/// Writes the disk of a machine that is off, starts it, and lets the client go on as before. `port`: where the client
/// reached the machine earlier; `archive` holds `files`.
pub fn changes_nothing_for_clients(
    trial: &Trial,
    port: u16,
    id: &serde_json::Value,
    archive: &str,
    files: &Path,
) -> Machine {
    trial.reflash().unwrap();
    let mut machine = Machine::start(&trial.hardware("reflashed", Firmware::Bios)).unwrap();
    // The client knows the host key of before, and takes no other.
    let known = std::fs::read_to_string(trial.folder.join(format!("known_hosts.{port}"))).unwrap();
    let known = known.replace(&format!("]:{port} "), &format!("]:{} ", machine.ssh_port()));
    assert!(!known.is_empty());
    let login = trial.client(&machine);
    std::fs::write(&login.known_hosts, known).unwrap();
    let admin = trial.admin(&machine);
    // It restarts once, as soon as it has found what the array keeps.
    machine
        .wait_until("nobody could log in after reflashing", START * 2, |_| {
            admin.run("true").map(|_| true)
        })
        .unwrap();
    eprintln!("reflashed: log-in {} s after power-on", machine.age().as_secs());
    let status = wait_for_status(trial, &mut machine, "the array was not found again", SOON, |status| {
        status["array"]["state"] == "mounted"
    });
    assert_eq!(&status["appliance"]["id"], id);
    admin.run("systemctl is-system-running --wait || true").unwrap();
    is_sound(trial, &machine);
    // What was remembered of its repository is older than this start.
    let shown = admin.run(&format!("strongroom client show {CLIENT} --json")).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let (since, booted) = (&shown["record"]["since"], &status["appliance"]["booted"]);
    assert!(
        since.as_u64() > Some(0) && since.as_u64() < booted.as_u64(),
        "{since} {booted}"
    );
    assert_ne!(shown["transactions"].as_array().map(Vec::len), Some(0), "{shown:#}");
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let inside = files.strip_prefix("/").unwrap();
    assert!(client.archives().contains(&archive.to_owned()));
    assert_same(files, &client.extract(archive).join(inside));
    client.borg(&["create", "::after-reflash", files.to_str().unwrap()]);
    let shed = crate::backup::login(trial, &machine, "shed_key");
    Client::new(ENROLLED, shed, &trial.folder).borg(&["init", "--encryption=none"]);
    // Sealed secrets open: the broker was reached with its password.
    wait_for_status(trial, &mut machine, "the broker was not reached", SOON, |status| {
        !crate::trouble::has(status, "mqtt-unreachable") && !crate::trouble::has(status, "config-refused")
    });
    machine
}
