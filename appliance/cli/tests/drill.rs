//! `strongroom drill` as it is typed: a copy that the library pushed from a repository of the real `borg` to the strict
//! double, encrypted to a key of the real `gpg`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

#[path = "../../offsite/tests/support/mod.rs"]
mod far;

use far::{Borg, Gpg, HASTY, credentials, noise, server, target};
use s3_double::Server;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use strongroom_model::drill::{BorgCheck, Drill, Kind};
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::system_clock;
use strongroom_offsite::{Encryption, Limits, PushRequest, Tuning, push};
use tokio::runtime::Runtime;

/// A bucket with a copy, and the folder of a workstation with what a drill needs.
struct Scene {
    borg: Borg,
    store: tempfile::TempDir,
    gpg: Gpg,
    server: Server,
    runtime: Runtime,
}

impl Scene {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (borg, store, gpg) = (Borg::new(), tempfile::tempdir().unwrap(), Gpg::new());
        gpg.generate("owner", "future-default", "0", "");
        let server = runtime.block_on(server(store.path(), |_| {}));
        let scene = Self {
            borg,
            store,
            gpg,
            server,
            runtime,
        };
        fs::write(scene.place("owner.key"), scene.gpg.export_secret("owner", "")).unwrap();
        fs::write(scene.place("secret"), "all-secret\n").unwrap();
        fs::create_dir(scene.place("scratch")).unwrap();
        let config = format!(
            "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"far\"\n\
             endpoint = \"{}\"\nregion = \"{}\"\nbucket = \"plain\"\naccess_key_id = \"ALL\"\nsecret_key = \"secret\"\n\
             recipients = [\"owner\"]\n",
            scene.server.endpoint(),
            far::REGION
        );
        fs::write(scene.place("strongroom.toml"), config).unwrap();
        scene
    }

    fn place(&self, name: &str) -> PathBuf {
        self.borg.dir.path().join(name)
    }

    fn push(&self, repository: &Path, prefix: &str) {
        let mut target = target(&self.server, "plain");
        target.prefix = prefix.into();
        let request = PushRequest {
            repository: repository.to_owned(),
            target,
            credentials: credentials("ALL"),
            recipients: vec![self.gpg.export("owner")],
            encryption: Encryption::Auto,
            signer: None,
            limits: Limits::default(),
            retirement: Rules::default(),
            ledger: self.place(&format!("ledger-{prefix}")),
            now: 1_800_000_000,
        };
        let tuning = Tuning {
            retry: HASTY,
            clock: system_clock(),
        };
        self.runtime.block_on(push(&request, &tuning, &mut |_| {})).unwrap();
    }

    /// Tries a drill, without a terminal.
    fn drill(&self, words: &[&str], environment: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .current_dir(self.borg.dir.path())
            .arg("drill")
            .args(words)
            .args(["--config", "strongroom.toml", "--key", "owner.key"])
            .env_remove("BORG_PASSPHRASE")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.place("scratch")).unwrap().next().is_none()
    }
}

fn record(output: &Output) -> Drill {
    Drill::parse(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

const WHOLE: [&str; 4] = ["asus_home", "--yes", "--scratch", "scratch"];

#[test]
fn a_copy_is_restored_checked_and_looked_into() {
    let scene = Scene::new();
    let photo = noise(300_000, 1);
    scene.borg.file("photo", &photo);
    scene.borg.create("monday");
    scene.borg.file("diary", b"dear diary");
    scene.borg.create("tuesday");
    scene.push(&scene.borg.repository(), "asus_home");

    // Nobody agreed.
    let output = scene.drill(&["asus_home", "--scratch", "scratch"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.is_empty() && said(&output).contains("the same again with --yes"),
        "{}",
        said(&output)
    );
    assert!(
        said(&output).contains("nothing has to be requested"),
        "{}",
        said(&output)
    );

    let output = scene.drill(&WHOLE, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let drill = record(&output);
    assert_eq!(
        (drill.client.as_str(), drill.target.as_ref().unwrap().as_str()),
        ("asus_home", "far")
    );
    assert_eq!(
        (drill.kind, drill.borg, drill.passed()),
        (Kind::Whole, BorgCheck::Whole, true)
    );
    let last = strongroom_borg::Repository::open(scene.borg.repository()).unwrap();
    let last = last.last_commit().unwrap().unwrap().transaction;
    assert_eq!(drill.transaction, Some(last.0.into()));
    assert!(drill.bytes > 300_000 && drill.objects > 8);
    let file = drill.file.unwrap();
    let [sum_of_photo, sum_of_diary] = [sha256(&photo), sha256(b"dear diary")];
    assert_eq!(file.archive.as_str(), "tuesday");
    let expected = match file.path.as_str() {
        "files/photo" => &sum_of_photo,
        "files/diary" => &sum_of_diary,
        other => panic!("{other}"),
    };
    assert_eq!(file.sha256.as_str(), expected);
    assert!(scene.is_clean());

    // A file that is known.
    let with = |more: &[&str]| scene.drill(&[&WHOLE, more].concat(), &[]);
    let output = with(&[
        "--file",
        "/files/photo",
        "--archive",
        "monday",
        "--expect",
        &sum_of_photo,
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let file = record(&output).file.unwrap();
    assert_eq!((file.archive.as_str(), file.bytes), ("monday", 300_000));
    let output = with(&["--file", "files/photo", "--expect", &sum_of_diary]);
    assert_eq!(output.status.code(), Some(1));
    assert!(record(&output).error.contains("another SHA-256"), "{}", said(&output));
    // That it is not there is no fault of the copy.
    let output = with(&["--file", "files/phot?"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.is_empty() && said(&output).contains("is not a file in the archive tuesday"),
        "{}",
        said(&output)
    );
    assert!(scene.is_clean());

    let output = with(&["--keep"]);
    assert!(output.status.success(), "{}", said(&output));
    let kept = fs::read_dir(scene.place("scratch"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    scene.borg.check_and_compare(&kept.join("repository"), "tuesday");
}

#[test]
fn a_damaged_copy_fails_and_says_so_in_its_record() {
    let scene = Scene::new();
    scene.borg.file("photo", &noise(300_000, 1));
    scene.borg.create("monday");
    scene.push(&scene.borg.repository(), "asus_home");
    let object = scene.store.path().join("plain/asus_home%2Fdata%2F0%2F2.gpg.data");
    let good = fs::read(&object).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&object, bad).unwrap();
    for (words, kind) in [
        (&WHOLE[..], Kind::Whole),
        (&["asus_home", "--sample", "1000"], Kind::Sample),
    ] {
        let output = scene.drill(words, &[]);
        assert_eq!(output.status.code(), Some(1));
        let drill = record(&output);
        assert!(drill.error.contains("data/0/2.gpg"), "{}", said(&output));
        assert_eq!((drill.kind, drill.borg, drill.objects), (kind, BorgCheck::None, 0));
        assert!(scene.is_clean());
    }
    fs::write(&object, good).unwrap();
    let output = scene.drill(&["asus_home", "--sample", "3"], &[]);
    assert!(output.status.success(), "{}", said(&output));
    let drill = record(&output);
    assert_eq!((drill.kind, drill.objects, drill.passed()), (Kind::Sample, 3, true));
    // What is no fault of the copy makes no record.
    fs::write(scene.place("secret"), "wrong").unwrap();
    let output = scene.drill(&WHOLE, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{}", said(&output));
}

#[test]
fn archives_are_looked_into_with_the_clients_passphrase() {
    let scene = Scene::new();
    scene.borg.file("photo", &noise(300_000, 1));
    let repository = scene.place("encrypted");
    let borg = |arguments: &[&str]| {
        let output = far::run(
            scene
                .borg
                .command("base")
                .env("BORG_PASSPHRASE", "a test's")
                .args(arguments),
        );
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    borg(&["init", "--encryption", "repokey", "encrypted"]);
    borg(&["create", "encrypted::monday", "files"]);
    scene.push(&repository, "asus_home");
    let output = scene.drill(&WHOLE, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let drill = record(&output);
    assert_eq!((drill.borg, &drill.file), (BorgCheck::Repository, &None));
    assert!(
        said(&output).contains("needs the client's passphrase"),
        "{}",
        said(&output)
    );
    let output = scene.drill(&WHOLE, &[("BORG_PASSPHRASE", "a test's")]);
    assert!(output.status.success(), "{}", said(&output));
    let drill = record(&output);
    assert_eq!(
        (drill.borg, drill.file.unwrap().path.as_str()),
        (BorgCheck::Whole, "files/photo")
    );
    // A wrong one tells nothing of the copy.
    let output = scene.drill(&WHOLE, &[("BORG_PASSPHRASE", "wrong")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stdout.is_empty() && said(&output).contains("the right passphrase"),
        "{}",
        said(&output)
    );
    assert!(scene.is_clean());
}
