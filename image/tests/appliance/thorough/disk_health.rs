//! A disk with a sector that has gone bad, beside one on NVM Express: both tell of themselves, the kernel's errors and the
//! scrub name the bad one by its serial number, and the scrub names the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use image::loopback::StoreOptions;
use image::partitions::MIB;
use image::qemu::{Firmware, Hardware};
use image::trial::{CLIENT, DATA_SERIAL, SYSTEM_SERIAL, Trial};
use image::workspace::Workspace;
use serde_json::Value;

use crate::backup::wait_for_status;
use crate::client::Client;
use crate::{SOON, STOP, folder, switch_on};

const NVME_SERIAL: &str = "STRONGROOM-NVME";
/// A scrub of some hundred MiB, whose last place is tried over and over by the kernel.
const SCRUB: std::time::Duration = std::time::Duration::from_secs(400);

fn nvme(trial: &Trial) -> Vec<String> {
    let file = trial.folder.join("nvme.img");
    if !file.exists() {
        File::create(&file).unwrap().set_len(1024 * MIB).unwrap();
    }
    vec![
        "-drive".into(),
        format!("id=nvme,if=none,format=raw,file={}", file.display()),
        "-device".into(),
        format!("nvme,drive=nvme,serial={NVME_SERIAL}"),
    ]
}

/// The data disk, but reading this sector fails (QEMU's docs, "blkdebug").
fn with_bad_sector(hardware: &mut Hardware, sector: u64) {
    let data = hardware.drives.pop().unwrap();
    let file = data.file.display();
    hardware.extra.extend([
        "-blockdev".into(),
        format!(
            "driver=raw,node-name=bad,file.driver=blkdebug,file.image.driver=file,file.image.filename={file},\
             file.inject-error.0.event=read_aio,file.inject-error.0.sector={sector},file.inject-error.0.errno=5"
        ),
        "-device".into(),
        format!("ide-hd,bus=sata.1,drive=bad,serial={}", data.serial),
    ]);
}

/// Where one of the lines lies on a disk, in bytes.
fn find(disk: &Path, line: impl Fn(&str) -> bool) -> Option<u64> {
    let mut file = File::open(disk).unwrap();
    let (mut piece, zeros) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let length = file.read(&mut piece).unwrap();
        if length == 0 {
            return None;
        }
        if piece[..length] != zeros[..length] {
            for (index, text) in piece[..length]
                .split_inclusive(|byte| *byte == b'\n')
                .scan(0, |offset, text| {
                    let index = *offset;
                    *offset += text.len();
                    Some((index, text))
                })
            {
                if std::str::from_utf8(text).is_ok_and(&line) {
                    return Some(at + index as u64);
                }
            }
        }
        at += length as u64;
    }
}

fn disk<'a>(status: &'a Value, serial: &str) -> &'a Value {
    let disks = status["disks"].as_array();
    disks
        .and_then(|disks| disks.iter().find(|disk| disk["serial"] == serial))
        .unwrap_or(&Value::Null)
}

fn condition<'a>(status: &'a Value, id: &str) -> Option<&'a Value> {
    let standing = status["conditions"]["standing"].as_array()?;
    standing.iter().find(|condition| condition["id"] == id)
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn a_bad_sector_is_found_by_the_scrub_and_told_with_its_disk_and_its_file() {
    let trial = Trial::new(&Workspace::here(), &folder("disk-health"), &StoreOptions::default()).unwrap();
    let config = trial.default_config().replace(
        &format!("[\"{DATA_SERIAL}\"]"),
        &format!("[\"{DATA_SERIAL}\", \"{NVME_SERIAL}\"]"),
    );
    trial.configure(&config).unwrap();
    trial.flash().unwrap();
    let hardware = |name: &str| {
        let mut hardware = trial.hardware(name, Firmware::Bios);
        hardware.extra.extend(nvme(&trial));
        hardware
    };

    let mut machine = switch_on(&trial, &hardware("healthy"));
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the disks did not tell of themselves",
        SOON,
        |status| {
            status["array"]["state"] == "mounted"
                && [SYSTEM_SERIAL, DATA_SERIAL, NVME_SERIAL]
                    .iter()
                    .all(|serial| disk(status, serial)["temperature"].is_number())
        },
    );
    for serial in [SYSTEM_SERIAL, DATA_SERIAL, NVME_SERIAL] {
        assert_eq!(disk(&status, serial)["health"], "good", "{status:#}");
    }
    assert_eq!(status["array"]["members"].as_array().unwrap().len(), 3);
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    std::fs::create_dir_all(&files).unwrap();
    let text: String = (0..400_000).map(|n| format!("entry {n} of a long diary\n")).collect();
    std::fs::write(files.join("diary"), text).unwrap();
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "--compression", "none", "::one", files.to_str().unwrap()]);
    let admin = trial.admin(&machine);
    eprintln!(
        "{}",
        admin
            .run("ps -o rss,comm -C strongroom-health,strongroomd; free -m")
            .unwrap()
    );

    // A scrub of healthy disks comes to its end and finds nothing.
    admin.run("strongroom scrub").unwrap();
    let status = wait_for_status(&trial, &mut machine, "the scrub did not end", SCRUB, |status| {
        status["array"]["last_scrub"].is_number()
    });
    assert_eq!(condition(&status, "scrub-unreadable"), None);
    machine.shut_down(STOP).unwrap();

    let data = trial.drives()[1].file.clone();
    let diary = |line: &str| line.starts_with("entry ") && line.ends_with(" of a long diary\n");
    let sector = find(&data, diary).unwrap() / 512;
    let mut bad = hardware("bad-sector");
    with_bad_sector(&mut bad, sector);
    let mut machine = switch_on(&trial, &bad);
    let admin = trial.admin(&machine);
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, |status| {
        status["array"]["state"] == "mounted" && disk(status, DATA_SERIAL)["health"] == "good"
    });
    // Anybody can write into the journal, even in the kernel's words.
    admin
        .run("logger -p kern.err 'I/O error, dev sda, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2'")
        .unwrap();
    admin.run("strongroom scrub").unwrap();
    let status = wait_for_status(&trial, &mut machine, "the bad sector was not told", SCRUB, |status| {
        condition(status, "scrub-unreadable").is_some_and(|found| found["text"].to_string().contains("data/0/"))
            && condition(status, "disk-errors").is_some()
    });
    let unreadable = condition(&status, "scrub-unreadable").unwrap();
    assert_eq!(unreadable["subject"], DATA_SERIAL, "{status:#}");
    assert_eq!(unreadable["severity"], "alarm");
    let text = unreadable["text"].as_str().unwrap();
    assert!(
        text.contains("4096 bytes") && text.contains("laptop_repository/data/0/"),
        "{text}"
    );
    let errors = condition(&status, "disk-errors").unwrap();
    assert_eq!(errors["subject"], DATA_SERIAL, "{status:#}");
    assert_eq!(disk(&status, DATA_SERIAL)["health"], "failing");
    assert_eq!(disk(&status, SYSTEM_SERIAL)["health"], "good", "{status:#}");
    assert_eq!(admin.run("systemctl --failed --plain --no-legend").unwrap(), "");
    eprintln!("{}", admin.run("strongroom status || true").unwrap());
    machine.shut_down(STOP).unwrap();
}
