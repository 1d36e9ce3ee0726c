//! A configuration comes by USB stick into the running appliance; what is hostile harms nothing.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use image::loopback::StoreOptions;
use image::qemu::{Drive, Firmware, Machine};
use image::ssh;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use super::mdns::Wire;
use super::media::{debugfs, exfat, ext4, fat, place, plug, pull, put, read_fat, usb};
use crate::backup::wait_for_status;
use crate::client::Client;
use crate::trouble::{has, text_of};
use crate::{SOON, STOP, folder, switch_on};

const FILE: &str = "strongroom.toml";
const SIZE: u64 = 32 << 20;

fn start_with(trial: &Trial, name: &str, extra: Vec<String>, drives: &[Drive]) -> Machine {
    let mut hardware = trial.hardware(name, Firmware::Bios);
    hardware.extra = extra;
    hardware.drives.extend(drives.iter().cloned());
    switch_on(trial, &hardware)
}

fn hostname_is(trial: &Trial, machine: &mut Machine, name: &str) {
    wait_for_status(
        trial,
        machine,
        &format!("the host name did not become {name}"),
        SOON,
        |status| status["appliance"]["hostname"] == name,
    );
}

/// Waits until no stick is being read.
fn settled(trial: &Trial, machine: &mut Machine) {
    let admin = trial.admin(machine);
    machine
        .wait_until("a stick was read for ever", SOON, |_| {
            let units = "systemctl list-units --plain --no-legend 'strongroom-stick@*' --state=activating";
            Ok(admin.run(units)?.trim().is_empty())
        })
        .unwrap();
}

fn renamed(config: &str, name: &str) -> String {
    config.replace("hostname = \"strongroom\"", &format!("hostname = \"{name}\""))
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_stick_changes_the_running_appliance_and_the_offer_made_last_stays() {
    let trial = Trial::new(&Workspace::here(), &folder("stick"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let wire = Wire::new();
    let mut machine = start_with(&trial, "stick", [usb(), wire.card()].concat(), &[]);
    let admin = trial.admin(&machine);
    wait_for_status(&trial, &mut machine, "the array was not made", SOON, |status| {
        status["array"]["state"] == "mounted"
    });
    let boot = admin.run("cat /proc/sys/kernel/random/boot_id").unwrap();

    // A session that must outlive what comes.
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    client.borg(&["init", "--encryption=none", "--append-only"]);
    let done = trial.folder.join("session-may-end");
    let wait = format!("until test -e {}; do sleep 0.2; done", done.display());
    let mut session = client
        .command(&["with-lock", "::", "sh", "-c", &wait])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert!(session.try_wait().unwrap().is_none(), "the session did not come up");

    // FAT: another name, another client, an administrator's second key.
    let tower = ssh::key(&trial.folder.join("tower_key"), "tower@trial").unwrap();
    let owner = ssh::key(&trial.folder.join("second_key"), "second@trial").unwrap();
    let good = renamed(&trial.default_config(), "attic")
        .replace("[admin]\nkeys = [", &format!("[admin]\nkeys = [\"{owner}\", "))
        + &format!("\n[[client]]\nname = \"tower\"\nkeys = [\"{tower}\"]\n");
    let stick = place(&trial.folder, "fat");
    fat(&stick, SIZE, &[(FILE, good.as_bytes())]);
    plug(&mut machine, "one", &stick);
    hostname_is(&trial, &mut machine, "attic");
    wait_for_status(
        &trial,
        &mut machine,
        "the new client was not admitted",
        SOON,
        |status| {
            status["clients"].as_array().is_some_and(|all| all.len() == 2) && status["array"]["state"] == "mounted"
        },
    );
    settled(&trial, &mut machine);
    pull(&mut machine, "one");
    let report = read_fat(&stick, "strongroom-report.txt");
    assert!(
        report.contains("`attic`") && report.contains("taken over and is in force"),
        "{report}"
    );
    assert!(
        report.contains("client tower: added") && report.contains("administrators' keys: changed"),
        "{report}"
    );
    assert!(!report.contains("next start"), "{report}");
    eprintln!("{report}");
    let mut second = trial.admin(&machine);
    second.key = trial.folder.join("second_key");
    assert_eq!(second.run("hostname").unwrap().trim(), "attic");
    let mut login = trial.client(&machine);
    login.key = trial.folder.join("tower_key");
    Client::new("tower", login, &trial.folder).borg(&["init", "--encryption=none", "--append-only"]);
    fs::write(&done, "").unwrap();
    assert!(session.wait().unwrap().success(), "the client's session was cut");
    assert_eq!(admin.run("cat /proc/sys/kernel/random/boot_id").unwrap(), boot);

    // Neighbours find it by its new name, and as what it is.
    wire.ask("attic.local", 28, &["attic"], SOON);
    wire.ask("_strongroom._tcp.local", 12, &["attic", "_strongroom"], SOON);
    let found = wire.ask(
        "attic._strongroom._tcp.local",
        16,
        &["id=strongroom_", "version="],
        SOON,
    );
    eprintln!("{}", String::from_utf8_lossy(&found));
    wire.ask("_ssh._tcp.local", 12, &["attic"], SOON);

    // exFAT, and wrong: explained in both places, and nothing is changed.
    let wrong = place(&trial.folder, "exfat");
    exfat(&wrong, FILE, b"[network]\nhostnam = \"cellar\"\n");
    plug(&mut machine, "two", &wrong);
    let status = wait_for_status(&trial, &mut machine, "the wrong file was not told", SOON, |status| {
        has(status, "config-refused")
    });
    let told = text_of(&status, "config-refused");
    assert!(
        told.contains("line 2") && told.contains("`hostname`") && told.contains("plug the stick in again"),
        "{told}"
    );
    settled(&trial, &mut machine);
    pull(&mut machine, "two");
    let bytes = fs::read(&wrong).unwrap();
    let reported = b"The configuration was refused. The last good one stays in force.";
    assert!(
        bytes.windows(reported.len()).any(|part| part == reported),
        "no report on exFAT"
    );
    hostname_is(&trial, &mut machine, "attic");

    // ext4, in a folder CONFIG: good, and the condition goes.
    let files = trial.folder.join("ext4-files");
    fs::create_dir_all(files.join("CONFIG")).unwrap();
    fs::write(files.join("CONFIG").join(FILE), good.replace("\"attic\"", "\"cellar\"")).unwrap();
    let third = place(&trial.folder, "ext4");
    ext4(&third, &files);
    plug(&mut machine, "three", &third);
    hostname_is(&trial, &mut machine, "cellar");
    wait_for_status(&trial, &mut machine, "the condition stayed", SOON, |status| {
        !has(status, "config-refused")
    });
    settled(&trial, &mut machine);
    pull(&mut machine, "three");
    let report = debugfs(&third, "cat CONFIG/strongroom-report.txt");
    assert!(report.contains("host name: attic -> cellar"), "{report}");

    // The same stick once more: in force already, and nothing is started again.
    let since = "systemctl show -p ExecMainStartTimestampMonotonic strongroomd";
    let before = admin.run(since).unwrap();
    plug(&mut machine, "four", &third);
    machine
        .wait_until("the same stick was not read again", SOON, |_| {
            Ok(admin
                .run("journalctl -b -o cat -t strongroom-configure")?
                .contains("in force already"))
        })
        .unwrap();
    settled(&trial, &mut machine);
    assert_eq!(admin.run(since).unwrap(), before);
    pull(&mut machine, "four");

    a_wrong_address_is_mended_by_a_stick(&trial, &mut machine, &good, &third);

    // A restart with a stick in that had its turn, and CONFIG as it was flashed: neither comes back.
    machine.shut_down(STOP).unwrap();
    let mut extra = usb();
    extra.extend([
        "-drive".to_owned(),
        format!("id=stick,if=none,format=raw,file={}", stick.display()),
        "-device".to_owned(),
        "usb-storage,drive=stick,bus=usb.0,removable=true".to_owned(),
    ]);
    let mut machine = start_with(&trial, "again", extra, &[]);
    let admin = trial.admin(&machine);
    machine
        .wait_until("the stick that stayed in was not looked at", SOON, |_| {
            Ok(admin
                .run("journalctl -b -o cat -t strongroom-configure")?
                .matches("has had its turn")
                .count()
                == 2)
        })
        .unwrap();
    hostname_is(&trial, &mut machine, "cellar");
    machine.shut_down(STOP).unwrap();
    assert!(read_fat(&stick, "strongroom-report.txt").contains("has had its turn"));
}

/// An address and a VLAN that lead nowhere cut every line to the appliance; a stick with others brings it back.
fn a_wrong_address_is_mended_by_a_stick(trial: &Trial, machine: &mut Machine, good: &str, mending: &Path) {
    let admin = trial.admin(machine);
    let lost = place(&trial.folder, "lost");
    let nowhere = "\"lost\"\nvlan = 20\naddress = \"10.9.9.9/24\"\ngateway = \"10.9.9.1\"";
    fat(&lost, SIZE, &[(FILE, good.replace("\"attic\"", nowhere).as_bytes())]);
    plug(machine, "lost", &lost);
    machine
        .wait_until("the new address did not come into force", SOON, |_| {
            Ok(admin.run("true").is_err())
        })
        .unwrap();
    machine.wait_for_serial("10.9.9.9", SOON).unwrap();
    // Longer than the report takes to be written.
    std::thread::sleep(Duration::from_secs(20));
    pull(machine, "lost");
    let report = read_fat(&lost, "strongroom-report.txt");
    assert!(
        report.contains("address: DHCP -> 10.9.9.9/24") && report.contains("VLAN: none -> 20"),
        "{report}"
    );
    plug(machine, "mending", mending);
    hostname_is(trial, machine, "cellar");
    settled(trial, machine);
    let links = trial.admin(machine).run("ip -brief address").unwrap();
    assert!(!links.contains("vlan20") && !links.contains("10.9.9.9"), "{links}");
    pull(machine, "mending");
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn hostile_sticks_harm_nothing() {
    let trial = Trial::new(&Workspace::here(), &folder("hostile"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    // A disk inside the machine that bears the label is nobody's stick.
    let inside = place(&trial.folder, "inside");
    let intruder = renamed(&trial.default_config(), "intruder");
    fat(&inside, SIZE, &[(FILE, intruder.as_bytes())]);
    let drive = Drive {
        file: inside.clone(),
        serial: "INSIDE".to_owned(),
    };
    let mut machine = start_with(&trial, "hostile", usb(), &[drive]);
    let admin = trial.admin(&machine);

    let sticks = trial.folder.join("sticks");
    fs::create_dir_all(&sticks).unwrap();
    let offers = hostile(&sticks, &trial.default_config());
    for (number, (name, words)) in offers.iter().enumerate() {
        let id = format!("stick{number}");
        plug(&mut machine, &id, &place(&sticks, name));
        let status = wait_for_status(&trial, &mut machine, &format!("{name} was not told"), SOON, |status| {
            has(status, "config-refused") && text_of(status, "config-refused").contains(words)
        });
        eprintln!("{name}: {}", text_of(&status, "config-refused"));
        settled(&trial, &mut machine);
        pull(&mut machine, &id);
    }
    // Pulled before it was read to its end.
    let large = place(&sticks, "pulled");
    fat(
        &large,
        SIZE,
        &[(FILE, intruder.replace("intruder", "strongroom").as_bytes())],
    );
    for number in 0..3 {
        let id = format!("pulled{number}");
        plug(&mut machine, &id, &large);
        std::thread::sleep(Duration::from_millis(700 * number));
        pull(&mut machine, &id);
    }
    settled(&trial, &mut machine);

    let run = |command: &str| admin.run(command).unwrap();
    assert_eq!(run("hostname").trim(), "strongroom");
    assert_eq!(run("systemctl --failed --plain --no-legend"), "");
    assert_eq!(run("cat /proc/sys/kernel/tainted").trim(), "0");
    assert!(!run("journalctl -b -o cat --unit 'strongroom-stick@*'").contains("intruder"));
    assert_eq!(run("findmnt -rno TARGET | grep strongroom-stick || true"), "");
    // A good one, after all of these, is taken over as ever.
    let good = place(&sticks, "good");
    fat(
        &good,
        SIZE,
        &[(FILE, renamed(&trial.default_config(), "attic").as_bytes())],
    );
    plug(&mut machine, "good", &good);
    hostname_is(&trial, &mut machine, "attic");
    wait_for_status(&trial, &mut machine, "the condition stayed", SOON, |status| {
        !has(status, "config-refused")
    });
    machine.shut_down(STOP).unwrap();
}

/// Makes the hostile sticks. For each its name, and what must be said of it.
fn hostile(sticks: &Path, good: &str) -> Vec<(&'static str, &'static str)> {
    let at = |name: &str| place(sticks, name);
    let from_folder = |name: &str, make: &dyn Fn(&Path)| {
        let files = sticks.join(name);
        fs::create_dir_all(&files).unwrap();
        make(&files);
        ext4(&at(name), &files);
    };
    from_folder("link", &|files| {
        std::os::unix::fs::symlink("/etc/passwd", files.join(FILE)).unwrap();
    });
    from_folder("many", &|files| {
        for number in 0..2000 {
            fs::write(files.join(format!("{number}\n.toml")), "").unwrap();
        }
        fs::write(files.join("Strongroom.toml"), good).unwrap();
        fs::write(files.join(FILE), "[network]\nhostname = \"-\"\n").unwrap();
    });
    from_folder("fifo", &|_| {});
    debugfs(&at("fifo"), &format!("mknod {FILE} p"));
    from_folder("device", &|_| {});
    debugfs(&at("device"), &format!("mknod {FILE} c 1 5"));
    // A superblock that asks for a panic, and an inode of the folder that is nonsense.
    from_folder("damaged", &|files| fs::write(files.join(FILE), good).unwrap());
    debugfs(&at("damaged"), "set_super_value errors 3");
    debugfs(&at("damaged"), &format!("set_inode_field {FILE} block[0] 0xffffffff"));
    debugfs(&at("damaged"), &format!("set_inode_field {FILE} block[1] 0xffffffff"));
    fat(&at("large"), 200 << 20, &[(FILE, &vec![b'#'; 100 << 20])]);
    fat(&at("binary"), SIZE, &[(FILE, &crate::client::random(4096))]);
    fat(
        &at("nested"),
        SIZE,
        &[(FILE, format!("a = {}", "[{a.a = ".repeat(20_000)).as_bytes())],
    );
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fat(&at("utf16"), SIZE, &[(FILE, &[&[0xff, 0xfe], &utf16[..]].concat())]);
    let mut crowd = good.to_owned();
    for number in 0..1500 {
        crowd.push_str(&format!("[[client]]\nname = \"c{number}\"\nkeys = []\n"));
    }
    fat(&at("crowd"), SIZE, &[(FILE, crowd.as_bytes())]);
    fat(&at("folder"), SIZE, &[("other", b"")]);
    put(&at("folder"), "owner.asc", b"no certificate");
    put(&at("folder"), FILE, good.as_bytes());
    vec![
        ("link", "not a regular file"),
        ("many", "is not a host name"),
        ("fifo", "not a regular file"),
        ("large", "larger than 256 KiB"),
        ("device", "not a regular file"),
        ("binary", "not UTF-8"),
        ("nested", "nest more than"),
        ("utf16", "UTF-16"),
        ("crowd", "more than 64 clients"),
        ("folder", "`owner.asc` can't be used"),
        ("damaged", "could not be read"),
    ]
}
