//! A machine that hangs is reset by its watchdog, whichever it has; a supervisor that hangs is started again.

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Hardware, Platform};
use image::trial::Trial;
use image::workspace::Workspace;

use crate::console::menus;
use crate::{SOON, START, STOP, folder, start, switch_on};

/// Makes the first process of the system stand still, which feeds the watchdog. Root's work: a unit that the tests' own
/// firmware hands over.
const HANG: &str = "[Unit]\nAfter=strongroom-softdog.service strongroom-started.service\n[Service]\nType=oneshot\n\
    ExecStart=/bin/sh -c 'sleep 30; echo hanging >/dev/ttyS0; echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze'\n";
const WANTED: &str = "[Unit]\nWants=hang.service\n";

/// Gives the machine a unit `hang.service` of this content, which starts by itself.
fn give_unit(hardware: &mut Hardware, content: &str) {
    for (name, text) in [
        ("systemd.extra-unit.hang.service", content),
        ("systemd.unit-dropin.multi-user.target", WANTED),
    ] {
        hardware.credentials.push((name.to_owned(), text.to_owned()));
    }
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_machine_that_hangs_is_reset() {
    let trial = Trial::new(&Workspace::here(), &folder("watchdog"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    for (name, platform, device, driver) in [
        ("ich9", Platform::Q35, None, "iTCO"),
        ("i6300esb", Platform::Pc, Some("i6300esb"), "i6300ESB"),
        ("softdog", Platform::Pc, None, "Software Watchdog"),
    ] {
        let mut hardware = trial.hardware(name, Firmware::Bios);
        hardware.platform = platform;
        // The pin by which a mainboard forbids its watchdog to reset; older QEMUs have it set.
        if platform == Platform::Q35 {
            hardware
                .extra
                .extend(["-global".to_owned(), "ICH9-LPC.noreboot=false".to_owned()]);
        }
        if let Some(device) = device {
            hardware.extra.extend(["-device".to_owned(), device.to_owned()]);
        }
        give_unit(&mut hardware, HANG);
        let mut machine = switch_on(&trial, &hardware);
        let admin = trial.admin(&machine);
        machine
            .wait_until("systemd did not open the watchdog", SOON, |_| {
                Ok(admin.run("cat /sys/class/watchdog/watchdog0/state")?.trim() == "active")
            })
            .unwrap();
        let identity = admin.run("cat /sys/class/watchdog/watchdog0/identity").unwrap();
        assert!(identity.contains(driver), "{identity}");
        machine.wait_for_serial("hanging", SOON).unwrap();
        machine
            .wait_until("the watchdog did not reset it", START, |machine| Ok(menus(machine) > 1))
            .unwrap();
        eprintln!("{name}: reset by {}", identity.trim());
        machine.cut_power();
    }
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_supervisor_that_hangs_is_started_again() {
    let trial = Trial::new(&Workspace::here(), &folder("watchdog-daemon"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let mut hardware = trial.hardware("stopped", Firmware::Bios);
    let stop = "[Unit]\nAfter=strongroom-started.service\n[Service]\nType=oneshot\n\
        ExecStart=/bin/sh -c 'sleep 5; kill -STOP $(systemctl show --value -p MainPID strongroomd)'\n";
    give_unit(&mut hardware, stop);
    let mut machine = switch_on(&trial, &hardware);
    let admin = trial.admin(&machine);
    machine
        .wait_until("the supervisor was not started again", START, |_| {
            let log = admin.run("journalctl -b -q -o cat -u strongroomd")?;
            let restarts = admin.run("systemctl show --value -p NRestarts strongroomd")?;
            Ok(log.contains("Watchdog timeout") && restarts.trim() != "0")
        })
        .unwrap();
    machine
        .wait_until("it does not answer again", SOON, |_| {
            Ok(admin.run("strongroom status --json")?.contains("conditions"))
        })
        .unwrap();
    machine.shut_down(STOP).unwrap();
    // And one that does not hang is left alone: every other scenario would see it restarted.
    let machine = start(&trial, "undisturbed", Firmware::Bios);
    machine.shut_down(STOP).unwrap();
}
