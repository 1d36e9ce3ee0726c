//! Clients that are enrolled by command while the appliance runs: they back up at once, and nobody else notices.

use std::io::Write;
use std::process::{Output, Stdio};

use image::loopback::StoreOptions;
use image::qemu::Firmware;
use image::ssh::{self, Login};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::{login, wait_for_status};
use crate::client::{Client, assert_same, make_files, random};
use crate::{SOON, STOP, folder, is_sound, start};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A verb that is refused, for this reason.
#[track_caller]
fn refused(admin: &Login, verb: &str, why: &str) {
    let output = admin.output(&format!("strongroom client {verb}")).unwrap();
    assert!(!output.status.success(), "`{verb}` was let in");
    assert!(said(&output).contains(why), "`{verb}`: {}", said(&output));
}

/// What somebody is told who is not let in. By ssh alone: Borg may leave before it has passed that on.
fn refusal(login: &Login) -> String {
    let output = login.output("borg serve").unwrap();
    assert!(!output.status.success());
    said(&output)
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn clients_come_and_go_while_others_work() {
    let trial = Trial::new(&Workspace::here(), &folder("enrol"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let mut machine = start(&trial, "first", Firmware::Bios);
    let mounted = |status: &serde_json::Value| status["array"]["state"] == "mounted";
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
    let admin = trial.admin(&machine);
    let key = |name: &str| ssh::key(&trial.folder.join(name), &format!("{name}@trial")).unwrap();
    let verb = |verb: &str| admin.run(&format!("strongroom client {verb}")).unwrap();
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 3 << 20);
    let source = files.to_str().unwrap();
    let inside = source.trim_start_matches('/');

    // One is in the middle of a backup all the while.
    let supervisor = admin.run("systemctl show --value -p MainPID strongroomd").unwrap();
    let declared = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
    declared.borg(&["init", "--encryption=none"]);
    let mut busy = declared
        .command(&["create", "::long", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = busy.stdin.take().unwrap();
    input.write_all(&random(1 << 20)).unwrap();

    // By its key.
    let told = verb(&format!(
        "add asus --key '{}' --quota 500MB --expect daily",
        key("asus_key")
    ));
    assert!(told.contains("strongroom client kit asus"), "{told}");
    let asus = Client::new("asus", login(&trial, &machine, "asus_key"), &trial.folder);
    asus.borg(&["init", "--encryption=none"]);
    asus.borg(&["create", "::one", source]);

    // By a code.
    let told = verb("pair nas --minutes 30");
    assert!(told.contains("StrictHostKeyChecking=yes"), "{told}");
    let code = told
        .split("pair@")
        .nth(1)
        .and_then(|rest| rest.split(' ').nth(1))
        .unwrap();
    key("nas_key");
    let pair = Login {
        user: "pair".into(),
        ..login(&trial, &machine, "nas_key")
    };
    let wrong = pair.output("00000-00000").unwrap();
    assert!(said(&wrong).contains("4 tries are left"), "{}", said(&wrong));
    assert!(pair.run(code).unwrap().contains("Client nas is enrolled"));
    let late = pair.output(code).unwrap();
    assert!(said(&late).contains("Permission denied"), "{}", said(&late));
    let nas = Client::new("nas", login(&trial, &machine, "nas_key"), &trial.folder);
    nas.borg(&["init", "--encryption=repokey-blake2"]);
    nas.borg(&["create", "::one", source]);

    // A pairing that is closed early.
    let told = verb("pair shed");
    let code = told.split("pair@").nth(1).and_then(|rest| rest.split(' ').nth(1));
    verb("pair --close");
    let late = pair.output(code.unwrap()).unwrap();
    assert!(said(&late).contains("Permission denied"), "{}", said(&late));

    // What it deletes is to be freed by itself.
    verb("set asus --compact-after-days 30");
    let told = verb("list");
    assert_eq!(told.matches("freed by itself after 30 days").count(), 1, "{told}");

    // What is wrong changes nothing.
    let before = verb("list --json");
    refused(&admin, "add 'Bad Name' --key x", "a name has 1 to 31 characters");
    refused(&admin, "add ../x --key x", "a name has 1 to 31 characters");
    refused(&admin, "add other --key 'ssh-dss AAAAB3NzaC1kc3M='", "DSA");
    let plain = key("other_key");
    for options in [
        "command=\"sh\" ",
        "no-pty,from=\"*\" ",
        "environment=\"LD_PRELOAD=/x\" ",
    ] {
        refused(
            &admin,
            &format!("add other --key '{options}{plain}'"),
            "stands before the key's type",
        );
    }
    let lines = format!("add other --key \"$(printf '%s\\n%s' '{plain}' 'command=\"sh\" {plain}')\"");
    refused(&admin, &lines, "an SSH key is one line");
    refused(
        &admin,
        &format!("add other --key '{}'", key("asus_key")),
        "belongs to client `asus`",
    );
    refused(
        &admin,
        &format!("add {CLIENT} --key '{}'", key("other_key")),
        "declared in strongroom.toml",
    );
    refused(&admin, "set asus --quota 1MB", "too small");
    refused(&admin, "set asus --quota 20MB --expect-hours 0", "");
    refused(&admin, "set asus --compact-after-days 3", "7 to 365");
    refused(&admin, "pair --close", "no pairing is open");
    refused(&admin, "set-aside-registry --yes clients.toml", "can be read");
    refused(&admin, "set-aside-registry", "--yes clients.toml");
    refused(&admin, "reopen asus --yes asus", "brought to its end by itself");
    refused(&admin, &format!("rename asus {CLIENT}"), "");
    refused(&admin, "remove asus --delete-repository", "--yes-delete asus");
    assert_eq!(verb("list --json"), before);

    // Held out, and let in again; a declared one as well.
    verb("pause asus");
    let told = refusal(&login(&trial, &machine, "asus_key"));
    assert!(told.contains("paused by the appliance's owner"), "{told}");
    verb("resume asus");
    assert_eq!(asus.archives(), ["one"]);

    // Another name: archives and account stay.
    let owner = |name: &str| admin.run(&format!("stat -c %u /mnt/raid/{name}_repository")).unwrap();
    let account = owner("asus");
    refused(&admin, &format!("rename {CLIENT} desk"), "declared in strongroom.toml");
    verb("rename asus desk --new-copies");
    assert_eq!(owner("desk"), account);
    let desk = Client::new("desk", login(&trial, &machine, "asus_key"), &trial.folder);
    assert_eq!(desk.archives(), ["one"]);
    assert_same(&files, &desk.extract("one").join(inside));
    assert!(!asus.output(&["list"]).status.success());

    // Another key.
    verb(&format!("rotate desk --key '{}'", key("desk_key")));
    let told = refusal(&login(&trial, &machine, "asus_key"));
    assert!(told.contains("Permission denied"), "{told}");
    let desk = Client::new("desk", login(&trial, &machine, "desk_key"), &trial.folder);
    desk.borg(&["create", "::two", source]);
    assert_eq!(desk.archives(), ["one", "two"]);

    // Never again.
    verb("revoke nas");
    let told = refusal(&login(&trial, &machine, "nas_key"));
    assert!(told.contains("Permission denied"), "{told}");

    // Gone: with its data kept, and erased.
    verb("remove desk");
    let told = refusal(&login(&trial, &machine, "desk_key"));
    assert!(told.contains("Permission denied"), "{told}");
    machine
        .wait_until("the repository was not kept by the system", SOON, |_| {
            Ok(admin.run("stat -c %u /mnt/raid/desk_repository")?.trim() == "0")
        })
        .unwrap();
    verb(&format!("add desk --key '{}'", key("desk_key")));
    assert_eq!(desk.archives(), ["one", "two"]);
    verb("remove nas --delete-repository --yes-delete nas");
    machine
        .wait_until("the repository was not erased", SOON, |_| {
            Ok(admin.run("ls -A /mnt/raid")?.lines().all(|name| !name.contains("nas")))
        })
        .unwrap();

    // The one that was busy all the while has noticed nothing, nor has the supervisor.
    drop(input);
    assert!(busy.wait().unwrap().success());
    assert_eq!(declared.archives(), ["long"]);
    assert_eq!(
        admin.run("systemctl show --value -p MainPID strongroomd").unwrap(),
        supervisor
    );
    wait_for_status(&trial, &mut machine, "the clients are not shown", SOON, |status| {
        let names = status["clients"].as_array().cloned().unwrap_or_default();
        names
            .iter()
            .filter_map(|client| client["name"].as_str())
            .eq([CLIENT, "desk"])
    });
    verb(&format!("pause {CLIENT}"));
    let told = refusal(&login(&trial, &machine, "client_key"));
    assert!(told.contains("paused"), "{told}");
    is_sound(&trial, &machine);
    eprintln!("{}", verb("list"));
    machine.shut_down(STOP).unwrap();
}
