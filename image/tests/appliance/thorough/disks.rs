//! A life of three disks of different sizes: one that is not blank, consent to erase it, a disk swapped, a disk that
//! can't be read, and going on after it has died.

use std::fs::{self, File};
use std::path::Path;

use image::loopback::StoreOptions;
use image::qemu::{Drive, Firmware};
use image::trial::{CLIENT, DATA_SERIAL, SYSTEM_SERIAL, Trial};
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, make_files};
use crate::trouble::{all_zero, has, sum_of, text_of};
use crate::{SOON, STOP, folder, switch_on};

const THIRD: &str = "THIRD-DISK";
const NEW: &str = "NEW-DISK";

fn disk(trial: &Trial, serial: &str) -> Drive {
    Drive {
        file: trial.folder.join(format!("{serial}.img")),
        serial: serial.to_owned(),
    }
}

fn blank(file: &Path, size: u64) {
    File::create(file).unwrap().set_len(size).unwrap();
}

fn mounted(status: &serde_json::Value) -> bool {
    status["array"]["state"] == "mounted"
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn three_disks_live_through_consent_a_swap_read_errors_and_death() {
    let trial = Trial::new(&Workspace::here(), &folder("disks"), &StoreOptions::default()).unwrap();
    let one = format!("data_disks = [\"{DATA_SERIAL}\"]");
    let with = |disks: &str, erase: &str| {
        let wanted = format!("data_disks = [{disks}]\nerase = [{erase}]");
        trial.configure(&trial.default_config().replace(&one, &wanted)).unwrap();
    };
    let both = format!("\"{DATA_SERIAL}\", \"{THIRD}\"");
    with(&both, "");
    trial.flash().unwrap();
    let third = disk(&trial, THIRD);
    blank(&third.file, 1 << 30);
    let made = std::process::Command::new("/sbin/mkfs.ext4")
        .args(["-q", "-F", "-L", "photos"])
        .arg(&third.file)
        .status();
    assert!(made.unwrap().success());
    let hardware = |name: &str| {
        let mut hardware = trial.hardware(name, Firmware::Bios);
        hardware.drives.push(disk(&trial, THIRD));
        hardware
    };
    let data = trial.drives()[1].file.clone();

    // Consent to create is not consent to erase.
    let photos = sum_of(&third.file);
    let mut machine = switch_on(&trial, &hardware("signature"));
    let status = wait_for_status(&trial, &mut machine, "the occupied disk was not told", SOON, |status| {
        has(status, "array-failed")
    });
    let text = text_of(&status, "array-failed");
    assert!(
        text.contains("photos") && text.contains(&format!("erase = [\"{THIRD}\"]")),
        "{text}"
    );
    let listed = trial.admin(&machine).run("strongroom disks --rescan").unwrap();
    eprintln!("{listed}");
    assert!(
        listed.contains("refused: ext4 named `photos`; consent `erase` is needed"),
        "{listed}"
    );
    assert!(
        listed.contains("system disk; its raid partition would be made from 4 GiB on"),
        "{listed}"
    );
    machine.shut_down(STOP).unwrap();
    assert_eq!(sum_of(&third.file), photos, "the occupied disk was written to");
    assert!(all_zero(&data), "the blank disk was written to");

    // With it, the array is made over all three.
    with(&both, &format!("\"{THIRD}\""));
    trial.put_config().unwrap();
    let mut machine = switch_on(&trial, &hardware("erased"));
    let status = wait_for_status(&trial, &mut machine, "the array was not made", SOON * 2, mounted);
    assert_eq!(status["array"]["members"].as_array().unwrap().len(), 3, "{status:#}");
    assert!(has(&status, "consent-left-over"), "{status:#}");
    let log = trial
        .admin(&machine)
        .run("journalctl -b -u strongroom-array -o cat")
        .unwrap();
    assert!(log.contains("by the owner's consent: ext4 named `photos`"), "{log}");
    eprintln!("{}", trial.admin(&machine).run("strongroom disks").unwrap());
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "::one", files.to_str().unwrap()]);
    machine.shut_down(STOP).unwrap();

    // Another disk in the place of one: told which is missing and which is there, and nothing is done to it.
    let new = disk(&trial, NEW);
    blank(&new.file, 2 << 30);
    let mut swapped = hardware("swapped");
    swapped.drives[1] = new.clone();
    let before = sum_of(&third.file);
    let mut machine = switch_on(&trial, &swapped);
    let status = wait_for_status(&trial, &mut machine, "the swapped disk was not told", SOON, |status| {
        has(status, "member-missing")
    });
    let text = text_of(&status, "member-missing");
    assert!(
        text.contains(&format!("disk {DATA_SERIAL} is missing"))
            && text.contains(&format!("Disk {NEW} is here instead")),
        "{text}"
    );
    assert_eq!(
        trial.admin(&machine).run("ls /mnt/raid").unwrap(),
        "",
        "something is mounted"
    );
    machine.shut_down(STOP).unwrap();
    assert!(all_zero(&new.file), "the new disk was written to");
    assert_eq!(sum_of(&third.file), before, "a member was written to");

    // The right disk, but where its superblock lies it can't be read.
    let rules = trial.folder.join("read-errors.conf");
    fs::write(
        &rules,
        "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"2056\"\n",
    )
    .unwrap();
    let mut sick = hardware("read-errors");
    sick.drives.remove(1);
    let file = format!("blkdebug:{}:{}", rules.display(), data.display());
    sick.extra.extend([
        "-drive".to_owned(),
        format!("id=sick,if=none,format=raw,file={file}"),
        "-device".to_owned(),
        format!("ide-hd,bus=sata.4,drive=sick,serial={DATA_SERIAL}"),
    ]);
    let mut machine = switch_on(&trial, &sick);
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the read error was not told",
        SOON * 2,
        |status| has(status, "member-missing"),
    );
    let text = text_of(&status, "member-missing");
    assert!(
        text.contains(&format!("disk {DATA_SERIAL} could not be read")),
        "{text}"
    );
    machine.shut_down(STOP).unwrap();

    // All well again: what was stored is there. Then the disk dies, and the owner goes on with a new one.
    let mut machine = switch_on(&trial, &hardware("well"));
    wait_for_status(&trial, &mut machine, "the array was not assembled", SOON, mounted);
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    assert_eq!(client.archives(), ["one"]);
    machine.shut_down(STOP).unwrap();
    with(
        &format!("\"{NEW}\", \"{THIRD}\""),
        &format!("\"{SYSTEM_SERIAL}\", \"{THIRD}\""),
    );
    trial.put_config().unwrap();
    let mut died = hardware("given-up");
    died.drives[1] = new;
    let mut machine = switch_on(&trial, &died);
    let status = wait_for_status(&trial, &mut machine, "the new array was not made", SOON * 2, mounted);
    assert_eq!(status["array"]["members"].as_array().unwrap().len(), 3, "{status:#}");
    machine.shut_down(STOP).unwrap();
}
