//! Copies on a USB disk: begun when it is plugged in, mounted only meanwhile, and restored from on a workstation.

use std::time::Duration;

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Machine};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use super::media::{backup_disk, place, plug, pull, taken_out, usb};
use crate::backup::{checked, our_command, secret_key, wait_for_status};
use crate::client::{Client, make_files};
use crate::trouble::{has, text_of};
use crate::{SOON, STOP, folder, switch_on};

const SIZE: u64 = 192 << 20;
/// A copy under emulation.
const COPY: Duration = Duration::from_secs(240);

/// Waits until the copy to the disk is there, and the disk is not mounted any more.
fn copied(trial: &Trial, machine: &mut Machine, earlier: Option<u64>) -> Option<u64> {
    let transaction = |status: &serde_json::Value| {
        let targets = status["clients"][0]["targets"].as_array()?;
        targets.iter().find(|target| target["name"] == "usb")?["transaction"].as_u64()
    };
    let status = wait_for_status(trial, machine, "the disk was not copied to", COPY, |status| {
        has(status, "disk-done")
            && transaction(status) > earlier
            && transaction(status) == status["clients"][0]["transaction"].as_u64()
    });
    let admin = trial.admin(machine);
    machine
        .wait_until("the disk stayed mounted", SOON, |_| {
            Ok(admin
                .run("findmnt -rno TARGET | grep /run/media || true")?
                .trim()
                .is_empty())
        })
        .unwrap();
    transaction(&status)
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_usb_disk_is_copied_to_when_it_is_plugged_in_and_restored_from() {
    let trial = Trial::new(&Workspace::here(), &folder("usb_copy"), &StoreOptions::default()).unwrap();
    let disk_target = "[[offsite.target]]\nname = \"usb\"\ndisk = \"BACKUP\"\nrecipients = [\"owner\"]\n\n[[client]]";
    let config = trial.default_config().replacen("[[client]]", disk_target, 1);
    trial.configure(&config).unwrap();
    trial.flash().unwrap();
    let mut hardware = trial.hardware("usb_copy", Firmware::Bios);
    hardware.extra = usb();
    let mut machine = switch_on(&trial, &hardware);
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, |status| {
        status["array"]["state"] == "mounted" && status["clock"]["state"] == "synchronised"
    });
    let admin = trial.admin(&machine);
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    make_files(&files, 20 << 20);
    let source = files.to_str().unwrap();
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "::one", source]);

    // It is asked for, and that is no more than worth knowing.
    let status = wait_for_status(&trial, &mut machine, "the disk was not asked for", SOON, |status| {
        has(status, "disk-away")
    });
    assert!(
        text_of(&status, "disk-away").contains("nothing was copied"),
        "{status:#}"
    );
    assert_ne!(status["health"], "alarm", "{status:#}");

    // What bears the name and is not fit is left alone.
    let unfit = place(&trial.folder, "unfit");
    backup_disk(&unfit, "vfat", 64 << 20);
    plug(&mut machine, "unfit", &unfit);
    let status = wait_for_status(&trial, &mut machine, "the FAT disk was not refused", SOON, |status| {
        has(status, "disk-unfit")
    });
    assert!(
        text_of(&status, "disk-unfit").contains("neither ext4 nor exFAT"),
        "{status:#}"
    );
    pull(&mut machine, "unfit");
    wait_for_status(&trial, &mut machine, "the refusal stayed", SOON, |status| {
        !has(status, "disk-unfit")
    });

    let disk = place(&trial.folder, "disk");
    backup_disk(&disk, "ext4", SIZE);
    plug(&mut machine, "first", &disk);
    let first = copied(&trial, &mut machine, None);
    // How far it was is told as long as the job is known.
    let jobs: serde_json::Value = serde_json::from_str(&admin.run("strongroom jobs --json").unwrap()).unwrap();
    let mut of_disk = jobs.as_array().unwrap().iter();
    let job = of_disk.find(|job| job["subject"] == "the disk usb").unwrap();
    assert_eq!(
        (job["state"].as_str(), job["working_on"].as_str()),
        (Some("succeeded"), Some(CLIENT)),
        "{jobs:#}"
    );
    assert!(job["total_bytes"].as_u64() > Some(20 << 20), "{jobs:#}");
    let said = admin.run(&format!("strongroom logs --client {CLIENT}")).unwrap();
    assert!(said.contains(&format!("{CLIENT} to usb: transaction ")), "{said}");
    pull(&mut machine, "first");

    // Plugged in again, only what is new goes to it, when that is asked for.
    client.borg(&["create", "::two", source]);
    plug(&mut machine, "again", &disk);
    wait_for_status(&trial, &mut machine, "the disk was not seen", SOON, |status| {
        has(status, "disk-done")
    });
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    copied(&trial, &mut machine, first);
    pull(&mut machine, "again");

    let copy = trial.folder.join("copy");
    taken_out(&disk, "/strongroom", &copy);
    let restored = trial.folder.join("restored");
    let output = our_command(&trial)
        .env_remove("STRONGROOM_SECRET_KEY")
        .args(["restore", CLIENT])
        .arg(&restored)
        .arg("--directory")
        .arg(copy.join("strongroom"))
        .arg("--key")
        .arg(secret_key(&trial))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    checked(&trial, &restored, "usb-copy", &["one", "two"]);

    // exFAT, which a workstation of any kind reads.
    let exfat = place(&trial.folder, "exfat");
    backup_disk(&exfat, "exfat", SIZE);
    plug(&mut machine, "exfat", &exfat);
    wait_for_status(&trial, &mut machine, "the exFAT disk was not seen", SOON, |status| {
        has(status, "disk-done")
    });
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    let kept = "journalctl -b -o cat --unit 'strongroom-disk@*' | grep -c 'bytes sent'";
    machine
        .wait_until("the exFAT disk was not copied to", COPY, |_| {
            Ok(admin.run(kept)?.trim() == "3")
        })
        .unwrap();
    copied(&trial, &mut machine, None);
    // Nothing else was ever mounted, and nothing was left behind.
    assert_eq!(admin.run("systemctl --failed --plain --no-legend").unwrap(), "");
    pull(&mut machine, "exfat");
    machine.shut_down(STOP).unwrap();
}
