//! A client deletes, the owner frees it for good; the client deletes again, and the owner brings it back.

use std::time::Duration;

use image::loopback::StoreOptions;
use image::qemu::Firmware;
use image::ssh::Login;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::{looked_at, number, the_secret_key_is_shown, wait_for_status};
use crate::client::{Client, assert_same, make_files, random};
use crate::{SOON, STOP, folder, start};

/// A compaction, a push or a check under emulation.
const LONG: Duration = Duration::from_secs(240);

/// What a command that is refused says.
fn refused(admin: &Login, command: &str) -> String {
    let output = admin.output(command).unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success(), "{command}: {said}");
    said
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn what_was_deleted_is_freed_when_the_owner_says_so_and_comes_back_when_not() {
    let trial = Trial::new(&Workspace::here(), &folder("upkeep"), &StoreOptions::default()).unwrap();
    trial.flash().unwrap();
    let mut machine = start(&trial, "upkeep", Firmware::Uefi);
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, |status| {
        status["array"]["state"] == "mounted"
    });
    the_secret_key_is_shown(&trial, &mut machine);
    let admin = trial.admin(&machine);
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 6 << 20);
    let source = files.to_str().unwrap();
    client.borg(&["init", "--encryption=repokey-blake2", "--append-only"]);
    client.borg(&["create", "::one", source]);
    std::fs::write(files.join("photo"), random(1 << 20)).unwrap();
    client.borg(&["create", "::two", source]);
    let backed_up = wait_for_status(&trial, &mut machine, "the client was not watched", LONG, |status| {
        looked_at(status, None)
    });
    client.borg(&["delete", "::one"]);
    let before = wait_for_status(&trial, &mut machine, "the deletion was not watched", LONG, |status| {
        looked_at(status, number(&backed_up))
    });
    let size = |status: &serde_json::Value| status["clients"][0]["size_bytes"].as_u64().unwrap();

    // Neither checked nor pushed: refused, with what to do; and without a confirmation nothing happens either.
    let compact = format!("strongroom compact {CLIENT} --yes {CLIENT}");
    let said = refused(&admin, &compact);
    for words in [
        format!("strongroom check {CLIENT}"),
        format!("strongroom push {CLIENT}"),
        "Deleted since".into(),
    ] {
        assert!(said.contains(&words), "{words} is not in {said}");
    }
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    let said = refused(&admin, &compact);
    assert!(
        said.contains("strongroom check") && !said.contains("strongroom push"),
        "{said}"
    );
    admin.run(&format!("strongroom check {CLIENT}")).unwrap();
    wait_for_status(
        &trial,
        &mut machine,
        "the check or the push is not told",
        LONG,
        |status| {
            status["clients"][0]["checked"].is_u64()
                && status["clients"][0]["targets"][0]["transaction"] == status["clients"][0]["transaction"]
                && status["jobs"].as_array().is_some_and(Vec::is_empty)
        },
    );
    let said = refused(&admin, &format!("strongroom compact {CLIENT}"));
    assert!(said.contains("nobody is here to confirm"), "{said}");
    let said = refused(&admin, &format!("strongroom compact {CLIENT} --yes attic"));
    assert!(said.contains("nothing was done"), "{said}");

    let said = admin.run(&compact).unwrap();
    eprintln!("{said}");
    assert!(said.contains("MiB freed"), "{said}");
    assert!(
        said.contains(&format!("session {CLIENT}-")),
        "the deletion is nobody's: {said}"
    );
    let after = wait_for_status(&trial, &mut machine, "the compaction is not told", LONG, |status| {
        size(status) + (5 << 20) < size(&before)
    });
    assert_eq!(after["health"], "good", "{after:#}");
    assert_eq!(client.archives(), ["two"]);
    let extracted = client.extract("two");
    assert_same(&extracted.join(source.trim_start_matches('/')), &files);
    client.borg(&["check", "--verify-data"]);
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    admin.run(&format!("strongroom check {CLIENT}")).unwrap();

    // All of it is deleted, and undone.
    client.borg(&["create", "::three", source]);
    let good = wait_for_status(&trial, &mut machine, "the backup was not looked at", LONG, |status| {
        looked_at(status, number(&after))
    });
    let to = number(&good).unwrap();
    client.borg(&["delete", "--glob-archives", "*"]);
    let gone = wait_for_status(&trial, &mut machine, "the deletion was not looked at", LONG, |status| {
        looked_at(status, Some(to))
    });
    let listed = admin.run(&format!("strongroom rollback {CLIENT}")).unwrap();
    eprintln!("{listed}");
    assert!(listed.contains(&format!("--to {to}")), "{listed}");
    let said = admin
        .run(&format!("strongroom rollback {CLIENT} --to {to} --yes {CLIENT}"))
        .unwrap();
    eprintln!("{said}");
    assert!(
        said.contains("borg delete --cache-only") && said.contains("manifest-timestamp"),
        "{said}"
    );
    let back = wait_for_status(&trial, &mut machine, "the rollback is not told", LONG, |status| {
        number(status) > number(&gone) && status["jobs"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(back["health"], "good", "{back:#}");
    let output = client.output(&["list"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("newer"), "{output:?}");
    client.borg(&["delete", "--cache-only"]);
    let security = trial.folder.join(format!("client-{CLIENT}/borg/.config/borg/security"));
    for known in std::fs::read_dir(security).unwrap() {
        std::fs::remove_file(known.unwrap().path().join("manifest-timestamp")).unwrap();
    }
    assert_eq!(client.archives(), ["two", "three"]);
    let extracted = client.extract("three");
    assert_same(&extracted.join(source.trim_start_matches('/')), &files);
    client.borg(&["check", "--verify-data"]);
    client.borg(&["create", "::four", source]);
    // What was taken out is kept, where no client and no report of repositories sees it.
    assert_eq!(admin.run("ls /mnt/raid").unwrap().matches("rolled-back").count(), 1);
    let listed = admin.run(&format!("strongroom rollback {CLIENT}")).unwrap();
    let kept = listed.split("--remove ").nth(1).unwrap().trim().to_owned();
    let remove = format!("strongroom rollback {CLIENT} --remove {kept}");
    let said = refused(&admin, &remove);
    assert!(said.contains(&format!("--yes {kept}")), "{said}");
    let said = refused(&admin, &format!("{remove} --yes {CLIENT}"));
    assert!(said.contains("nothing was done"), "{said}");
    admin.run(&format!("{remove} --yes {kept}")).unwrap();
    machine
        .wait_until("what the rollback kept was not erased", SOON, |_| {
            let left = admin.run("ls -A /mnt/raid")?;
            Ok(!left.contains("rolled-back") && !left.contains(".erase"))
        })
        .unwrap();
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    admin.run(&format!("strongroom check {CLIENT}")).unwrap();
    let last = wait_for_status(&trial, &mut machine, "something is wrong afterwards", LONG, |status| {
        looked_at(status, number(&back)) && status["health"] == "good"
    });
    assert_eq!(last["clients"][0]["held"], false, "{last:#}");
    machine.shut_down(STOP).unwrap();
}
