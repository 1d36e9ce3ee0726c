//! The built image in a virtual machine, end to end. `cargo image test` runs these; plain `cargo test` passes them over,
//! since they need the image and minutes.

#![allow(clippy::unwrap_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

mod backup;
mod client;
mod confinement;
mod console;
mod damage;
mod enrol;
mod faces;
mod reflash;
mod thorough;
mod trouble;
mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use image::grub;
use image::partitions::SYSTEM_A;
use image::qemu::{Firmware, Hardware, Machine};
use image::ssh;
use image::trial::Trial;
use image::workspace::{Foundation, Workspace};

/// A start may take this long where nothing but emulation is at hand and the machine is busy.
const START: Duration = Duration::from_secs(300);
/// What the appliance does by itself once it runs: make the array, tell a condition, settle the clock.
const SOON: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(120);

/// A new folder for one test of one base; what an earlier run left is gone, above all the objects in its store.
fn folder(name: &str) -> PathBuf {
    let workspace = Workspace::here();
    let base = match workspace.foundation {
        Foundation::Debian => "target/image-test",
        Foundation::Buildroot(_) => "target/image-test-buildroot",
    };
    let folder = workspace.root.join(base).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

/// Switches a machine on and waits until its administrator can log in.
fn switch_on(trial: &Trial, hardware: &Hardware) -> Machine {
    let mut machine = Machine::start(hardware).unwrap();
    let admin = trial.admin(&machine);
    machine
        .wait_until("nobody could log in as admin", START, |_| {
            admin.run("true").map(|_| true)
        })
        .unwrap();
    machine
}

/// Starts a machine, waits until its administrator can log in and everything has been started, and tells how long it took.
fn start(trial: &Trial, name: &str, firmware: Firmware) -> Machine {
    start_on(trial, &trial.hardware(name, firmware))
}

/// The same with this hardware.
fn start_on(trial: &Trial, hardware: &Hardware) -> Machine {
    let machine = switch_on(trial, hardware);
    let admin = trial.admin(&machine);
    let name = &hardware.name;
    eprintln!("{name}: log-in {} s after power-on", machine.age().as_secs());
    let waited = admin.run("systemctl is-system-running --wait || true").unwrap();
    eprintln!(
        "{name}: {}; {}",
        waited.trim(),
        admin.run("systemd-analyze").unwrap().trim()
    );
    machine
}

/// What holds for every healthy start.
fn is_sound(trial: &Trial, machine: &Machine) {
    let admin = trial.admin(machine);
    let run = |command: &str| admin.run(command).unwrap();
    assert_eq!(run("systemctl is-active strongroom-started").trim(), "active");
    assert_eq!(run("systemctl --failed --plain --no-legend"), "");
    assert_eq!(run("findmnt -no FSTYPE /").trim(), "squashfs");
    assert!(run("findmnt -no OPTIONS /").starts_with("ro"));
    assert_eq!(run("findmnt -no FSTYPE /var").trim(), "ext4");
    assert!(run("cat /proc/cmdline").contains("noapic raid0.default_layout=1"));
    assert!(run("cat /proc/cmdline").contains(&format!("root=PARTUUID={}", SYSTEM_A.uuid())));
    for unit in [
        "chrony",
        "ssh",
        "dbus-broker",
        "systemd-networkd",
        "systemd-resolved",
        "nftables",
        "strongroomd",
        "strongroom-time-sources.path",
    ] {
        assert_eq!(run(&format!("systemctl is-active {unit}")).trim(), "active", "{unit}");
    }
    assert!(run("borg --version").starts_with("borg 1.4"));
    assert!(run("test -x /usr/sbin/mdadm && echo yes").contains("yes"));
    // What the image says of itself.
    let version = run("sed -n s/^VERSION=//p /etc/strongroom-release");
    assert!(run("strongroom --version").starts_with(&format!("strongroom {version}")));
    assert!(run("cat /etc/os-release").contains(&format!("IMAGE_VERSION={version}")));
    assert!(run("head -c 4000 /usr/share/strongroom/sbom.cdx.json").contains("\"purl\": \"pkg:"));
    assert!(run("head -n 1 /usr/share/doc/strongroom/crates").contains("crates"));
    // An ordering cycle makes systemd drop jobs at random.
    assert_eq!(run("journalctl -b -q --grep 'ordering cycle' || true"), "");
    assert_eq!(run("cat /proc/sys/kernel/tainted").trim(), "0");
    assert_eq!(run("ls /run/strongroom/state-lost 2>/dev/null || true"), "");
}

fn environment(trial: &Trial) -> Vec<(String, String)> {
    grub::parse_environment(&trial.read_esp("grub/grubenv").unwrap()).unwrap()
}

fn variable(environment: &[(String, String)], name: &str) -> String {
    environment
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.clone())
        .unwrap()
}

/// What the one grubenv of both firmwares holds: the loader notes a try, the system marks its start as good.
struct Starts {
    last: Vec<(String, String)>,
}

impl Starts {
    /// Of a disk that was just flashed.
    fn none_yet(trial: &Trial) -> Self {
        let last = environment(trial);
        assert_eq!(
            (variable(&last, "A_OK"), variable(&last, "A_TRY")),
            ("1".into(), "0".into())
        );
        Self { last }
    }

    /// The machine, now off, has been started once more.
    fn one_more(&mut self, trial: &Trial) {
        let now = environment(trial);
        assert_eq!(
            (variable(&now, "ORDER"), variable(&now, "A_TRY")),
            ("A B".into(), "0".into())
        );
        let find = |of: &[(String, String)], name: &str| of.iter().find(|(found, _)| found == name).cloned();
        assert!(variable(&now, "START").starts_with("20"));
        assert_ne!(
            find(&now, "START"),
            find(&self.last, "START"),
            "this start was not marked as good"
        );
        let disk = find(&self.last, "DISK_ID");
        assert!(
            disk.is_none() || disk == find(&now, "DISK_ID"),
            "the disk has another name"
        );
        self.last = now;
    }
}

/// `bios` or `uefi`: which firmware started the machine.
fn started_by(admin: &ssh::Login) -> String {
    let firmware = admin
        .run("test -d /sys/firmware/efi && echo uefi || echo bios")
        .unwrap();
    firmware.trim().to_owned()
}
