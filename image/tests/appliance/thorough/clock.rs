//! A hardware clock that is wrong by decades: the appliance starts, serves, and sets it right by NTP.

use std::time::{SystemTime, UNIX_EPOCH};

use image::loopback::StoreOptions;
use image::qemu::Firmware;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, make_files};
use crate::{SOON, folder, is_sound, switch_on};

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_clock_of_1970_or_2099_is_set_right_and_keeps_nobody_out() {
    let trial = Trial::new(&Workspace::here(), &folder("clock"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    for (earlier, (name, clock)) in [
        ("first", "2030-06-01T00:00:00"),
        ("year-1970", "1970-01-01T00:00:00"),
        ("year-2099", "2099-12-31T23:00:00"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut hardware = trial.hardware(name, Firmware::Bios);
        hardware.clock = Some(clock.to_owned());
        let mut machine = switch_on(&trial, &hardware);
        let admin = trial.admin(&machine);
        let status = wait_for_status(&trial, &mut machine, "the clock was not set", SOON, |status| {
            status["array"]["state"] == "mounted" && status["clock"]["state"] == "synchronised"
        });
        let step = &status["clock"]["last_step"];
        let days = step["by_ms"].as_i64().unwrap() / 86_400_000;
        assert!(days.abs() > 365 && step["at_start"] == true, "{clock}: {step}");
        assert!(
            status.to_string().contains("hardware-clock-wrong"),
            "{clock}: {status:#}"
        );
        let shown = admin.run("strongroom clock").unwrap();
        assert!(shown.starts_with("synchronised to NTP server ("), "{shown}");
        assert!(
            shown.contains("Hardware clock") && shown.contains("with noapic"),
            "{shown}"
        );
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let theirs: u64 = admin.run("date +%s").unwrap().trim().parse().unwrap();
        assert!(ours.abs_diff(theirs) < 60, "{clock}: {theirs}");
        admin.run("systemctl is-system-running --wait || true").unwrap();
        is_sound(&trial, &machine);
        // The timer of the pushes waits for the next night, not for the year in which it believed to be.
        let timer = admin
            .run(&format!(
                "date +%s --date \"$(systemctl show --value -p NextElapseUSecRealtime strongroom-push@{CLIENT}.timer)\""
            ))
            .unwrap();
        let next: u64 = timer.trim().parse().unwrap_or(0);
        assert!((ours..ours + 2 * 86400).contains(&next), "{clock}: {timer}");
        let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
        if name == "first" {
            client.borg(&["init", "--encryption=none", "--append-only"]);
        }
        client.borg(&["create", &format!("::{name}"), files.to_str().unwrap()]);
        // The log of this start is whole, whatever the clock did meanwhile.
        let log = admin.run("journalctl -b -o cat --no-pager").unwrap();
        assert!(
            log.contains("Linux version") && log.contains("strongroom-configure"),
            "{log}"
        );
        let starts: usize = admin
            .run("journalctl --list-boots --no-pager --quiet | grep -c .")
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(starts > earlier, "only {starts} starts are in the log");
        // Half a minute later the power fails: the log must survive that too.
        std::thread::sleep(std::time::Duration::from_secs(45));
        machine.cut_power();
    }
}
