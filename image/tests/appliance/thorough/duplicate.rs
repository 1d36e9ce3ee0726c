//! Two disks that each hold a Strongroom system, whose partitions have the same identities: each start uses its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::loopback::StoreOptions;
use image::qemu::{Drive, Firmware};
use image::trial::Trial;
use image::workspace::Workspace;

use crate::{STOP, folder, switch_on};

fn drive(file: PathBuf, serial: &str) -> Drive {
    Drive {
        file,
        serial: serial.to_owned(),
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

/// Starts from the first of the disks and tells the host name and the serial numbers of the disks that are used.
fn used(trial: &Trial, name: &str, firmware: Firmware, drives: Vec<Drive>) -> (String, Vec<String>) {
    let mut hardware = trial.hardware(name, firmware);
    hardware.drives = drives;
    let machine = switch_on(trial, &hardware);
    let admin = trial.admin(&machine);
    admin.run("systemctl is-system-running --wait || true").unwrap();
    let hostname = admin.run("cat /proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let mut serials = Vec::new();
    for place in ["/", "/var", "/boot/efi"] {
        let line = format!("lsblk -dno SERIAL /dev/$(lsblk -no PKNAME $(findmnt -no SOURCE {place}))");
        serials.push(admin.run(&line).unwrap().trim().to_owned());
    }
    machine.shut_down(STOP).unwrap();
    (hostname, serials)
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn each_of_two_system_disks_starts_its_own_system() {
    let trial = Trial::new(&Workspace::here(), &folder("duplicate"), &StoreOptions::default()).unwrap();
    let config = trial.default_config();
    let named = |name: &str| config.replace("hostname = \"strongroom\"", &format!("hostname = \"{name}\""));
    let disks = ["one", "two"].map(|name| trial.folder.join(format!("{name}.img")));
    // Copies of one image, as other programs than ours write it: neither has an identity of its own yet.
    trial.configure(&named("one")).unwrap();
    trial.flash().unwrap();
    copy(&trial.drives()[0].file, &disks[0]);
    trial.configure(&named("two")).unwrap();
    trial.put_config().unwrap();
    copy(&trial.drives()[0].file, &disks[1]);
    let [one, two] = [drive(disks[0].clone(), "ONE"), drive(disks[1].clone(), "TWO")];
    let all = |serial: &str| vec![serial.to_owned(); 3];

    for (name, firmware, drives, serial) in [
        ("one", Firmware::Bios, vec![one.clone(), two.clone()], "ONE"),
        ("two", Firmware::Uefi, vec![two.clone(), one.clone()], "TWO"),
        // Now both have identities.
        ("one", Firmware::Uefi, vec![one.clone(), two.clone()], "ONE"),
        ("two", Firmware::Bios, vec![two, one.clone()], "TWO"),
    ] {
        assert_eq!(used(&trial, name, firmware, drives), (name.to_owned(), all(serial)));
    }
    // An exact copy, identity and all, in front of the original.
    let copied = trial.folder.join("copy.img");
    copy(&one.file, &copied);
    let drives = vec![drive(copied, "COPY"), one];
    assert_eq!(
        used(&trial, "copy", Firmware::Bios, drives),
        ("one".to_owned(), all("COPY"))
    );
}
