//! Every kind of PC with both firmwares: each starts the same system soundly, finds both disks and makes or assembles the
//! array, reaches the network, and writes into the one grubenv.

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Platform};
use image::trial::Trial;
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::{SOON, STOP, Starts, folder, is_sound, started_by, switch_on};

fn both_firmwares_on(platform: Platform, name: &str) {
    let trial = Trial::new(&Workspace::here(), &folder(name), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let mut starts = Starts::none_yet(&trial);
    let mut array = String::new();
    for (firmware, ending) in [(Firmware::Bios, "bios"), (Firmware::Uefi, "uefi")] {
        let mut hardware = trial.hardware(&format!("{name}-{ending}"), firmware);
        hardware.platform = platform;
        hardware.processors = 2;
        let mut machine = switch_on(&trial, &hardware);
        let admin = trial.admin(&machine);
        eprintln!("{name}-{ending}: log-in {} s after power-on", machine.age().as_secs());
        let _ = admin.run("systemctl is-system-running --wait || true").unwrap();
        assert_eq!(started_by(&admin), ending);
        is_sound(&trial, &machine);
        wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, |status| {
            status["array"]["state"] == "mounted"
        });
        let uuid = admin.run("findmnt -no UUID /mnt/raid").unwrap();
        assert!(
            array.is_empty() || array == uuid,
            "another array than with the other firmware"
        );
        array = uuid;
        eprintln!(
            "{name}-{ending}: {}",
            admin
                .run("lsmod | wc -l; cut -d' ' -f1 /proc/uptime")
                .unwrap()
                .replace('\n', " ")
        );
        machine.shut_down(STOP).unwrap();
        // The boot loader noted the try and the system took the note back: both firmwares use the same file.
        starts.one_more(&trial);
    }
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn sata_disks_and_an_intel_card() {
    both_firmwares_on(Platform::Q35, "matrix-q35");
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn virtio_disks_and_card() {
    both_firmwares_on(Platform::Virtio, "matrix-virtio");
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn ide_disks_and_an_old_intel_card() {
    both_firmwares_on(Platform::Pc, "matrix-pc");
}
