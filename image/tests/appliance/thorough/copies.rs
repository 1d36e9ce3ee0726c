//! As at Oracle: segments in an archive, manifests in a bucket of the standard tier. The power goes in the middle of a large
//! object; the next push goes on inside it. It comes back once the archive has given it out.

use std::collections::BTreeSet;
use std::time::Duration;

use image::loopback::{BUCKET, MANIFESTS, StoreOptions};
use image::qemu::Firmware;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::{checked, restore, wait_for_status};
use crate::client::{Client, make_files, random};
use crate::{SOON, STOP, folder, switch_on};

const PUSH: Duration = Duration::from_secs(600);

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_push_goes_on_inside_an_object_and_an_archive_gives_it_back() {
    let slow = StoreOptions {
        archive: true,
        bandwidth: Some(1 << 20),
        restore_delay: Some(5),
        ..StoreOptions::default()
    };
    let trial = Trial::new(&Workspace::here(), &folder("copies"), &slow).unwrap();
    let bucket = format!("bucket = \"{BUCKET}\"\n");
    let config = trial.default_config();
    trial
        .configure(&config.replace(&bucket, &format!("{bucket}manifest_bucket = \"{MANIFESTS}\"\n")))
        .unwrap();
    trial.flash().unwrap();
    let mounted = |status: &serde_json::Value| status["array"]["state"] == "mounted";
    let synchronised = |status: &serde_json::Value| mounted(status) && status["clock"]["state"] == "synchronised";
    let mut machine = switch_on(&trial, &trial.hardware("cut", Firmware::Bios));
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, synchronised);
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    std::fs::write(files.join("film"), random(48 << 20)).unwrap();
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "::one", files.to_str().unwrap()]);

    let admin = trial.admin(&machine);
    let mut push = admin.command(&format!("strongroom push {CLIENT}"));
    let mut push = push.stdout(std::process::Stdio::null()).spawn().unwrap();
    machine
        .wait_until(
            "no part of the object was sent",
            PUSH,
            |_| Ok(!parts(&trial).is_empty()),
        )
        .unwrap();
    machine.cut_power();
    let _ = push.wait();
    let before = parts(&trial);

    let mut machine = switch_on(&trial, &trial.hardware("on", Firmware::Bios));
    wait_for_status(&trial, &mut machine, "the array was not assembled", SOON, synchronised);
    let admin = trial.admin(&machine);
    let mut push = admin.command(&format!("strongroom push {CLIENT}"));
    let mut push = push.stdout(std::process::Stdio::null()).spawn().unwrap();
    machine
        .wait_until("the upload was not gone on with", PUSH, |_| {
            let now = parts(&trial);
            assert!(
                now.is_superset(&before),
                "a part that had arrived was thrown away: {now:?}"
            );
            Ok(now.len() > before.len())
        })
        .unwrap();
    assert!(push.wait().unwrap().success());
    assert!(parts(&trial).is_empty(), "parts were left behind");
    let (segments, manifests) = (names(&trial, BUCKET), names(&trial, MANIFESTS));
    let manifest = |name: &String| name.contains("manifest");
    assert!(!segments.is_empty() && !segments.iter().any(manifest), "{segments:?}");
    assert!(manifests.iter().any(manifest), "{manifests:?}");
    wait_for_status(&trial, &mut machine, "the copy is not told as whole", SOON, |status| {
        let target = &status["clients"][0]["targets"][0];
        target["verified"].is_u64() && target["damaged"] == 0
    });
    machine.shut_down(STOP).unwrap();

    let into = trial.folder.join("repository");
    let restored = restore(&trial)
        .args(["--manifest-bucket", MANIFESTS, "--yes"])
        .arg(&into)
        .output()
        .unwrap();
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    checked(&trial, &into, "archive", &["one"]);
}

/// Names of the objects that a bucket holds, as the store writes them down.
fn names(trial: &Trial, bucket: &str) -> Vec<String> {
    let entries = std::fs::read_dir(trial.store.objects.join(bucket)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Parts of uploads that are not completed.
fn parts(trial: &Trial) -> BTreeSet<String> {
    let part = |name: &String| name.ends_with(".tmp") && name.contains('-');
    names(trial, BUCKET).into_iter().filter(part).collect()
}
