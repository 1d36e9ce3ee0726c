//! What a person does when things go wrong: reflash, rescue shell, factory reset.

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Machine};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, make_files};
use crate::console::{FACTORY_RESET, RESCUE, choose, press, type_line};
use crate::{SOON, START, STOP, environment, folder, reflash, start, variable};

fn mounted(status: &serde_json::Value) -> bool {
    status["array"]["state"] == "mounted"
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_reflash_changes_nothing_for_clients_and_a_factory_reset_forgets_all_but_the_backups() {
    let trial = Trial::new(&Workspace::here(), &folder("recovery"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let mut machine = start(&trial, "first", Firmware::Bios);
    let status = wait_for_status(&trial, &mut machine, "the array was not made", SOON, mounted);
    let id = status["appliance"]["id"].clone();
    let host_key = status["appliance"]["host_key"].clone();
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "::one", files.to_str().unwrap()]);
    reflash::one_more_is_enrolled(&trial, &mut machine);
    let port = machine.ssh_port();
    machine
        .wait_until("the start was not marked as good", SOON, |machine| {
            let state = trial.admin(machine).run("systemctl is-active strongroom-started")?;
            Ok(state.trim() == "active")
        })
        .unwrap();
    reflash::what_is_remembered_is_copied(&trial, &mut machine);
    machine.shut_down(STOP).unwrap();
    let before = environment(&trial);
    assert_eq!(
        (variable(&before, "A_OK"), variable(&before, "A_TRY")),
        ("1".into(), "0".into())
    );
    assert_eq!(variable(&before, "DISK_ID").len(), 32);

    let machine = reflash::changes_nothing_for_clients(&trial, port, &id, "one", &files);
    machine.shut_down(STOP).unwrap();

    // The owner forgets everything. The configuration and its secrets are put on the ESP again, as for a first start.
    trial.put_config().unwrap();
    let mut machine = Machine::start(&trial.hardware("reset", Firmware::Bios)).unwrap();
    choose(&mut machine, FACTORY_RESET);
    machine.wait_for_serial("No: back to the first menu", SOON).unwrap();
    press(&mut machine, &["down", "ret"]);
    let admin = trial.admin(&machine);
    machine
        .wait_until("nobody could log in after the reset", START, |_| {
            admin.run("true").map(|_| true)
        })
        .unwrap();
    let status = wait_for_status(&trial, &mut machine, "the array was not assembled", SOON, mounted);
    assert_ne!(status["appliance"]["id"], id);
    assert_ne!(status["appliance"]["host_key"], host_key);
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    assert_eq!(client.archives(), ["one", "after-reflash"]);
    machine.shut_down(STOP).unwrap();
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn the_rescue_shell_is_open_without_a_console_password_and_closed_with_one() {
    let trial = Trial::new(&Workspace::here(), &folder("rescue"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let mut machine = Machine::start(&trial.hardware("open", Firmware::Bios)).unwrap();
    choose(&mut machine, RESCUE);
    machine
        .wait_for_serial("root shell on the appliance's own console", START)
        .unwrap();
    machine.wait_for_serial("rescue# ", SOON).unwrap();
    machine.screenshot(&trial.folder.join("rescue.png")).unwrap();
    assert!(trial.admin(&machine).run("true").is_err(), "the network is on");
    type_line(&mut machine, "reboot");
    // Back to normal by itself.
    let admin = trial.admin(&machine);
    machine
        .wait_until("it did not come back", START, |_| admin.run("true").map(|_| true))
        .unwrap();
    machine.shut_down(STOP).unwrap();

    std::fs::write(trial.folder.join("config/console"), "open sesame\n").unwrap();
    let config = trial.default_config();
    trial
        .configure(&config.replace("[admin]\n", "[admin]\nconsole_password = \"console\"\n"))
        .unwrap();
    trial.put_config().unwrap();
    let machine = start(&trial, "password", Firmware::Bios);
    machine.shut_down(STOP).unwrap();
    assert!(
        trial.read_esp("CONFIG/console").is_err(),
        "the password lies on the ESP"
    );
    let mut machine = Machine::start(&trial.hardware("closed", Firmware::Bios)).unwrap();
    choose(&mut machine, RESCUE);
    machine.wait_for_serial("Enter username", SOON).unwrap();
    type_line(&mut machine, "admin");
    machine.wait_for_serial("Enter password", SOON).unwrap();
    type_line(&mut machine, "open simsim");
    machine.wait_for_serial("ccess denied", SOON).unwrap();
    // The menu comes back, with its first entry chosen and no countdown any more.
    machine
        .wait_until("the menu did not come back", SOON, |machine| {
            let serial = machine.serial();
            let after = serial.rsplit("ccess denied").next().unwrap_or_default();
            Ok(after.contains("Factory reset"))
        })
        .unwrap();
    press(&mut machine, &["down"; RESCUE]);
    press(&mut machine, &["ret"]);
    machine
        .wait_until("the boot loader did not ask again", SOON, |machine| {
            Ok(machine.serial().matches("Enter username").count() > 1)
        })
        .unwrap();
    type_line(&mut machine, "admin");
    machine
        .wait_until("the boot loader did not ask again", SOON, |machine| {
            Ok(machine.serial().matches("Enter password").count() > 1)
        })
        .unwrap();
    type_line(&mut machine, "open sesame");
    machine.wait_for_serial("rescue# ", START).unwrap();
    machine.cut_power();
    // Without anybody there, it starts as ever.
    let machine = start(&trial, "unattended", Firmware::Uefi);
    machine.shut_down(STOP).unwrap();
}
