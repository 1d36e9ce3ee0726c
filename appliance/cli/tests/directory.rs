//! `strongroom restore --directory`, `drill --directory` and `target add disk` as they are typed: a copy that the library
//! pushed into a folder from a repository of the real `borg`, encrypted to a key of the real `gpg`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

#[path = "../../offsite/tests/support/mod.rs"]
mod far;

use far::{Borg, Gpg, HASTY, noise};
use std::fs;
use std::process::{Command, Output, Stdio};
use strongroom_model::config::Config;
use strongroom_model::drill::Drill;
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::system_clock;
use strongroom_offsite::{Credentials, Encryption, Limits, PushRequest, Target, Tuning, push};

const OWNERS: &str = "# mine\n[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n";

/// A workstation's folder with a disk in it, as it is mounted, that holds a copy.
fn scene() -> Borg {
    let (borg, gpg) = (Borg::new(), Gpg::new());
    gpg.generate("owner", "future-default", "0", "");
    let place = |name: &str| borg.dir.path().join(name);
    fs::write(place("owner.key"), gpg.export_secret("owner", "")).unwrap();
    fs::write(place("strongroom.toml"), OWNERS).unwrap();
    fs::create_dir(place("scratch")).unwrap();
    fs::create_dir(place("disk")).unwrap();
    borg.file("photo", &noise(300_000, 1));
    borg.create("monday");
    let request = PushRequest {
        repository: borg.repository(),
        target: Target::in_directory("usb".into(), place("disk/strongroom"), "asus_home".into()),
        credentials: Credentials::none(),
        recipients: vec![gpg.export("owner")],
        encryption: Encryption::Auto,
        signer: None,
        limits: Limits::default(),
        retirement: Rules::default(),
        ledger: place("ledger"),
        now: 1_800_000_000,
    };
    let tuning = Tuning {
        retry: HASTY,
        clock: system_clock(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(push(&request, &tuning, &mut |_| {})).unwrap();
    borg
}

/// Runs our command without a terminal, and without any credentials.
fn strongroom(scene: &Borg, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strongroom"))
        .current_dir(scene.dir.path())
        .args(words)
        .env_remove("STRONGROOM_SECRET_KEY")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_copy_in_a_folder_is_listed_estimated_restored_and_tried() {
    let scene = scene();
    let on_disk = ["--directory", "disk/strongroom"];
    let run = |words: &[&str]| {
        let output = strongroom(&scene, &[words, &on_disk].concat());
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    };
    let listed = run(&["restore"]);
    assert!(listed.contains("asus_home (disk/strongroom/asus_home)"), "{listed}");
    let estimate = run(&["restore", "asus_home", "--estimate"]);
    assert!(
        estimate.contains("nothing has to be requested") && estimate.contains("cost      nothing"),
        "{estimate}"
    );
    let restored = run(&["restore", "asus_home", "restored", "--key", "owner.key"]);
    assert!(restored.contains("`borg check` found nothing wrong"), "{restored}");
    scene.check_and_compare(&scene.dir.path().join("restored"), "monday");
    let drilled = strongroom(
        &scene,
        &[
            &[
                "drill",
                "asus_home",
                "--yes",
                "--scratch",
                "scratch",
                "--key",
                "owner.key",
            ],
            &on_disk[..],
        ]
        .concat(),
    );
    assert!(Drill::parse(&drilled.stdout).is_ok(), "{}", said(&drilled));

    let elsewhere = strongroom(&scene, &["restore", "--directory", "disk/nowhere"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(
        said(&elsewhere).contains("Is the disk plugged in"),
        "{}",
        said(&elsewhere)
    );
}

#[test]
fn a_disk_is_added_to_the_configuration_and_restored_from_by_it() {
    let scene = scene();
    let add = ["target", "add", "disk", "usb", "--config", "strongroom.toml"];
    let refused = strongroom(&scene, &[&add[..], &["--disk", "my disk"]].concat());
    assert!(said(&refused).contains("label or the UUID"), "{}", said(&refused));
    let text = || fs::read_to_string(scene.dir.path().join("strongroom.toml")).unwrap();
    assert_eq!(text(), OWNERS);
    let added = strongroom(&scene, &[&add[..], &["--disk", "BACKUP"]].concat());
    assert!(added.status.success(), "{}", said(&added));
    assert!(text().starts_with(OWNERS));
    let config = Config::parse(&text()).unwrap();
    assert_eq!(
        config.offsite.target[0].disk().unwrap().disk.get_ref().as_str(),
        "BACKUP"
    );
    let probed = strongroom(&scene, &["target", "probe", "usb", "--config", "strongroom.toml"]);
    assert!(said(&probed).contains("nothing to try out"), "{}", said(&probed));

    // Where the disk is mounted here, nobody knows but who mounted it.
    let restore = [
        "restore",
        "asus_home",
        "restored",
        "--config",
        "strongroom.toml",
        "--key",
        "owner.key",
    ];
    let asked = strongroom(&scene, &[&restore[..], &["--target", "usb"]].concat());
    assert!(said(&asked).contains("--directory"), "{}", said(&asked));
    let restored = strongroom(&scene, &[&restore[..], &["--directory", "disk/strongroom"]].concat());
    assert!(restored.status.success(), "{}", said(&restored));
    scene.check_and_compare(&scene.dir.path().join("restored"), "monday");
}
