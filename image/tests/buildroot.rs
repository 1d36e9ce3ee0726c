//! The external tree, judged by Buildroot's own tools. Needs a checkout of Buildroot, whose folder `STRONGROOM_BUILDROOT`
//! names, and make, gcc, flake8 and python-magic; `cargo image test --base buildroot` sees to all of it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // The helpers are tests too: they may fail loudly.

use std::path::{Path, PathBuf};
use std::process::Command;

fn checkout() -> PathBuf {
    let folder = std::env::var_os("STRONGROOM_BUILDROOT").expect("STRONGROOM_BUILDROOT names no checkout of Buildroot");
    PathBuf::from(folder)
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The defconfig is what Buildroot itself would save: no option in it is unknown, dropped, or the default.
#[test]
#[ignore = "needs a checkout of Buildroot"]
fn the_defconfig_comes_back_unchanged() {
    let output = tempfile::tempdir().unwrap();
    let saved = output.path().join("saved");
    let make = |arguments: &[String]| {
        run(Command::new("make")
            .arg("-C")
            .arg(checkout())
            .arg(format!("O={}", output.path().display()))
            .arg(format!("BR2_EXTERNAL={}", tree().display()))
            .args(arguments));
    };
    make(&["strongroom_x86_64_defconfig".to_owned()]);
    make(&["savedefconfig".to_owned(), format!("BR2_DEFCONFIG={}", saved.display())]);
    let ours = std::fs::read_to_string(tree().join("configs/strongroom_x86_64_defconfig")).unwrap();
    assert_eq!(std::fs::read_to_string(saved).unwrap(), ours);
}

/// Every option of a fragment is in the configuration that it makes.
#[test]
#[ignore = "needs a checkout of Buildroot"]
fn no_option_of_a_fragment_is_dropped() {
    let folder = tree().join("configs");
    let defconfig = std::fs::read_to_string(folder.join("strongroom_x86_64_defconfig")).unwrap();
    for fragment in ["debian.fragment", "internal.fragment"] {
        let fragment = std::fs::read_to_string(folder.join(fragment)).unwrap();
        let output = tempfile::tempdir().unwrap();
        let both = output.path().join("defconfig");
        std::fs::write(&both, format!("{defconfig}{fragment}")).unwrap();
        run(Command::new("make")
            .arg("-C")
            .arg(checkout())
            .arg(format!("O={}", output.path().display()))
            .arg(format!("BR2_EXTERNAL={}", tree().display()))
            .arg("defconfig")
            .arg(format!("BR2_DEFCONFIG={}", both.display())));
        let made = std::fs::read_to_string(output.path().join(".config")).unwrap();
        for line in fragment.lines() {
            assert!(made.lines().any(|made| made == line), "{line} was dropped");
        }
    }
}

#[test]
#[ignore = "needs a checkout of Buildroot"]
fn check_package_has_nothing_to_say() {
    let mut files = vec!["Config.in".to_owned(), "external.mk".to_owned()];
    for package in ["python-borgbackup", "strongroom"] {
        for entry in std::fs::read_dir(tree().join("package").join(package)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.push(format!("package/{package}/{name}"));
        }
    }
    // The distribution's Python, which has the modules that it imports.
    run(Command::new("/usr/bin/python3")
        .current_dir(tree())
        .arg(checkout().join("utils/check-package"))
        .arg("--br2-external")
        .args(&files));
}
