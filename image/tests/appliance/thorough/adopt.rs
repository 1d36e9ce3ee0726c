//! An array made by hand on another distribution, from a partition of one disk and the whole of another, with the other
//! RAID0 layout: it is offered, adopted by command, and its client goes on as if nothing had happened.

use std::fs::File;

use image::loopback::StoreOptions;
use image::qemu::{Drive, Firmware, Hardware, Machine};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, make_files};
use crate::trouble::has;
use crate::{SOON, STOP, folder, switch_on};

/// What a person did on the old machine, here done as root before the appliance first looks at the disks. The pattern
/// is larger than the first of the two zones that unequal members form: only in the second do the layouts differ.
const BY_HAND: &str = r"set -ex
test -e /run/old.done && exit 0
A=/dev/disk/by-id/ata-QEMU_HARDDISK_OLD-A
B=/dev/disk/by-id/ata-QEMU_HARDDISK_OLD-B
echo 'label: gpt' > /run/old.table
echo 'start=100MiB, size=16MiB, name=root' >> /run/old.table
echo 'start=300MiB, size=160MiB, name=backup' >> /run/old.table
sfdisk --quiet $A < /run/old.table
udevadm settle
mdadm --create /dev/md/old --run --level=0 --metadata=1.2 --chunk=64 --layout=alternate --homehost=oldbox --name=backup --raid-devices=2 $A-part2 $B
udevadm settle
mkfs.ext4 -q -F -L oldbackup /dev/md/old
mkdir -p /run/old
mount /dev/md/old /run/old
export BORG_BASE_DIR=/run/old.borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
borg init --encryption=none --append-only /run/old/laptop_repository
borg create /run/old/laptop_repository::old /usr/lib/strongroom
borg init --encryption=none /run/old/attic_repository
ln -s /var/lib/strongroom/config /run/old/laptop_repository/link
ln -s /mnt/raid/attic_repository /run/old/laptop_repository/other
head -c 450M /dev/urandom > /run/old/pattern
cd /run/old
sha256sum pattern > pattern.sum
chown -hR 1000:1000 /run/old
cd /
umount /run/old
mdadm --stop /dev/md/old
udevadm settle
touch /run/old.done
";

fn hardware(trial: &Trial, name: &str, by_hand: bool) -> Hardware {
    let mut hardware = trial.hardware(name, Firmware::Bios);
    hardware.drives.truncate(1);
    for serial in ["OLD-A", "OLD-B"] {
        hardware.drives.push(Drive {
            file: trial.folder.join(format!("{serial}.img")),
            serial: serial.to_owned(),
        });
    }
    if by_hand {
        let script = format!("\nf /run/old.sh 0700 root root - {}\n", BY_HAND.replace('\n', "\\n"));
        for (credential, value) in &mut hardware.credentials {
            if credential == "tmpfiles.extra" {
                value.push_str(&script);
            }
        }
        // A drop-in in /run would come too late: systemd has read the unit before.
        hardware.credentials.push((
            "systemd.unit-dropin.strongroom-array.service".to_owned(),
            "[Service]\nExecStartPre=+/bin/bash /run/old.sh\n".to_owned(),
        ));
    }
    hardware
}

fn start(trial: &Trial, name: &str, by_hand: bool) -> Machine {
    switch_on(trial, &hardware(trial, name, by_hand))
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn an_array_made_by_hand_elsewhere_is_adopted_and_its_client_goes_on() {
    let trial = Trial::new(&Workspace::here(), &folder("adopt"), &StoreOptions::default()).unwrap();
    let config = trial.default_config();
    let (before, rest) = config.split_once("[array]").unwrap();
    let (_, after) = rest.split_once("[mqtt]").unwrap();
    trial.configure(&format!("{before}[mqtt]{after}")).unwrap();
    trial.flash().unwrap();
    for (serial, size) in [("OLD-A", 1 << 30), ("OLD-B", 512 << 20)] {
        let file = File::create(trial.folder.join(format!("{serial}.img"))).unwrap();
        file.set_len(size).unwrap();
    }

    let mut machine = start(&trial, "offered", true);
    let admin = trial.admin(&machine);
    machine
        .wait_until("the old machine's work did not end", SOON * 3, |_| {
            let state = admin.run("systemctl show --value -p ActiveState strongroom-array")?;
            Ok(state.trim() != "activating")
        })
        .unwrap();
    let log = admin
        .run("journalctl -b -u strongroom-array -o cat --no-pager")
        .unwrap();
    assert!(log.contains("+ touch /run/old.done"), "{log}");
    let status = wait_for_status(&trial, &mut machine, "the array was not offered", SOON * 3, |status| {
        has(status, "array-not-ready") && status.to_string().contains("oldbox:backup")
    });
    let text = status.to_string();
    assert!(text.contains("OLD-A") && text.contains("OLD-B"), "{status:#}");
    assert_eq!(status["array"]["state"], "not-ready");
    let listed = admin.run("strongroom disks").unwrap();
    eprintln!("{listed}");
    assert!(
        listed.contains("member 1 of 2 of the array `oldbox:backup`, which can be adopted"),
        "{listed}"
    );
    let arrays = admin.run("strongroom disks adopt").unwrap();
    eprintln!("{arrays}");
    assert!(
        arrays.contains("alternate layout") && arrays.contains("holds ext4 named `oldbackup`"),
        "{arrays}"
    );
    let uuid = arrays.split_whitespace().next().unwrap().to_owned();
    let wrong = admin
        .output("strongroom disks adopt 00000000:00000000:00000000:00000000")
        .unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there is no array"));

    let said = admin.run(&format!("strongroom disks adopt {uuid}")).unwrap();
    assert!(said.contains("in use"), "{said}");
    let mounted = |status: &serde_json::Value| status["array"]["state"] == "mounted";
    wait_for_status(&trial, &mut machine, "the adopted array was not mounted", SOON, mounted);
    // The kernel's parameter says 1; the superblock says 2, and wins.
    assert_eq!(admin.run("cat /sys/block/md*/md/layout").unwrap().trim(), "2");
    let sums = admin.run("cd /mnt/raid && sha256sum -c pattern.sum").unwrap();
    assert!(sums.contains("pattern: OK"), "{sums}");

    // Its client goes on, its folder is its own now, and what a link in it leads to stays root's.
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    machine
        .wait_until("the client was not let in", SOON, |_| {
            Ok(client.output(&["list", "--short"]).status.success())
        })
        .unwrap();
    assert_eq!(client.archives(), ["old"]);
    for link in ["link", "other", "other/../../attic_repository"] {
        let through = client.asking_for(&format!("/mnt/raid/{CLIENT}_repository/{link}"));
        assert!(!through.output(&["list"]).status.success(), "{link} was followed");
    }
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    client.borg(&["create", "::new", files.to_str().unwrap()]);
    assert_eq!(
        admin
            .run("stat -c %U /var/lib/strongroom/config /mnt/raid /mnt/raid/laptop_repository")
            .unwrap(),
        "root\nroot\nstrongroom-c00\n"
    );
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the other repository was not told",
        SOON,
        |status| has(status, "repository-unclaimed"),
    );
    assert!(status.to_string().contains("attic_repository"), "{status:#}");
    machine.cut_power();

    // From now on it is ours by name, on whatever disks and without any record.
    let mut machine = start(&trial, "adopted", false);
    wait_for_status(
        &trial,
        &mut machine,
        "the adopted array was not assembled",
        SOON,
        mounted,
    );
    let admin = trial.admin(&machine);
    let arrays = admin.run("strongroom disks adopt").unwrap();
    assert!(
        arrays.contains("strongroom`") && arrays.contains("→ in use"),
        "{arrays}"
    );
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    assert_eq!(client.archives(), ["old", "new"]);
    machine.shut_down(STOP).unwrap();
}
