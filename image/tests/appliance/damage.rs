//! A byte of a repository turns on the disks while the machine is off; the check names the archives, the owner accepts, and
//! then has the segment repaired from off-site.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use image::qemu::Machine;
use image::ssh::Login;
use image::trial::{CLIENT, Trial};

use crate::backup::{conditions, restore, wait_for_status};
use crate::{SOON, trouble};

/// A byte on one of the disks.
pub struct Byte {
    disk: PathBuf,
    at: u64,
}

impl Byte {
    /// The first of these bytes, wherever on the trial's disks they lie. They must be there as they are, as what does not
    /// compress is in a segment.
    pub fn of(trial: &Trial, content: &[u8]) -> Self {
        const PIECE: usize = 1 << 20;
        for drive in trial.drives() {
            let file = File::open(&drive.file).unwrap();
            let length = file.metadata().unwrap().len();
            let (mut piece, zeros) = (vec![0; PIECE + content.len()], vec![0; PIECE + content.len()]);
            let mut at = 0;
            while at < length {
                let read = file.read_at(&mut piece, at).unwrap();
                if piece[..read] != zeros[..read]
                    && let Some(found) = piece[..read]
                        .windows(content.len())
                        .position(|window| window == content)
                {
                    return Self {
                        disk: drive.file,
                        at: at + found as u64,
                    };
                }
                at += PIECE as u64;
            }
        }
        panic!("the content is on no disk");
    }

    /// Turns one bit of it. The machine is off.
    pub fn turn(&self) {
        let file = File::options().read(true).write(true).open(&self.disk).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], self.at).unwrap();
        file.sync_all().unwrap();
    }
}

/// What the client did was seen: its archives are listed, its prune was counted, and nothing is wrong.
pub fn nothing_is_wrong(trial: &Trial, machine: &mut Machine, archives: u64) {
    let status = wait_for_status(trial, machine, "the client was not watched", SOON, |status| {
        let client = &status["clients"][0];
        client["archives"] == archives && client["last_change"]["transaction"] == client["transaction"]
    });
    let client = &status["clients"][0];
    assert!(
        client["last_change"]["puts"].is_u64() && client["held"] == false,
        "{status:#}"
    );
    let checked = trial.admin(machine).run(&format!("strongroom check {CLIENT}")).unwrap();
    assert!(checked.contains(&format!("{CLIENT}: sound")), "{checked}");
    let usage = "systemctl show strongroom-watch@laptop strongroom-verify@laptop -p Id -p MemoryPeak -p CPUUsageNSec";
    eprintln!("{checked}{}", trial.admin(machine).run(usage).unwrap());
}

/// The check tells of which archives, and stays an alarm until it is accepted.
pub fn is_told_with_its_archives(trial: &Trial, machine: &mut Machine, archives: &[&str]) {
    let admin = trial.admin(machine);
    let output = admin.output(&format!("strongroom check {CLIENT}")).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("DAMAGED") && said.contains("photo"), "{said}");
    // Nobody watches how far it is.
    let beside = String::from_utf8_lossy(&output.stderr);
    assert!(!beside.contains(&format!("{CLIENT}: ")), "{beside}");
    for archive in archives {
        assert!(said.contains(archive), "{archive} is not in {said}");
    }
    eprintln!("{said}");
    let status = wait_for_status(trial, machine, "the damage is no condition", SOON, |status| {
        trouble::has(status, "repository-damaged") && status["clients"][0]["damaged"] == 1
    });
    assert_eq!(status["health"], "alarm", "{status:#}");
    assert_eq!(conditions(&status)[0], "repository-damaged", "{status:#}");
    let accepted = admin.run(&format!("strongroom client accept {CLIENT}")).unwrap();
    assert!(accepted.contains("Accepted: 1"), "{accepted}");
    wait_for_status(trial, machine, "it was not accepted", SOON, |status| {
        status["health"] == "good"
    });
}

/// What `strongroom check` says as JSON, whatever it found.
fn checked(admin: &Login) -> serde_json::Value {
    let output = admin.output(&format!("strongroom check {CLIENT} --json")).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Sends a segment from off-site to the appliance, to repair another or the same one with.
fn repair(trial: &Trial, admin: &Login, sent: u64, repaired: u64) -> Output {
    let mut fetch = restore(trial)
        .args(["--segment", &sent.to_string(), "--output", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = admin
        .command(&format!("strongroom repair {CLIENT} {repaired}"))
        .stdin(fetch.stdout.take().unwrap())
        .output()
        .unwrap();
    fetch.wait().unwrap();
    output
}

/// The owner, who has the key, sends the segment from another computer.
pub fn is_repaired_from_off_site(trial: &Trial, machine: &mut Machine) {
    let admin = trial.admin(machine);
    let before = checked(&admin);
    let damages = before[CLIENT]["damages"].as_array().unwrap();
    let segment = damages[0]["segment"].as_u64().unwrap();
    let said = |output: &Output| {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    // One that isn't damaged, another segment's bytes, and none at all.
    let output = repair(trial, &admin, 0, 0);
    assert!(
        !output.status.success() && said(&output).contains("there is nothing to repair"),
        "{output:?}"
    );
    let output = repair(trial, &admin, 0, segment);
    assert!(
        !output.status.success() && said(&output).contains(&format!("bytes of segment {segment} came in")),
        "{output:?}"
    );
    let output = admin
        .output(&format!("strongroom repair {CLIENT} {segment} < /dev/null"))
        .unwrap();
    assert!(
        !output.status.success() && said(&output).contains("nothing came in"),
        "{output:?}"
    );
    assert_eq!(checked(&admin)[CLIENT]["damages"][0]["segment"], segment);

    let output = repair(trial, &admin, segment, segment);
    eprintln!("{}", said(&output));
    assert!(output.status.success(), "{output:?}");
    wait_for_status(trial, machine, "the damage is still told", SOON, |status| {
        !trouble::has(status, "repository-damaged") && status["health"] == "good"
    });
    let checked = admin.run(&format!("strongroom check {CLIENT}")).unwrap();
    assert!(checked.contains(&format!("{CLIENT}: sound")), "{checked}");
    // What was damaged is kept, where no client sees it; the next push has nothing to say against the new one.
    assert!(
        admin
            .run("ls /mnt/raid")
            .unwrap()
            .contains(&format!("{CLIENT}_repository.damaged"))
    );
    admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    let usage =
        format!("systemctl show strongroom-repair@{CLIENT}:segment:{segment} -p Id -p MemoryPeak -p CPUUsageNSec");
    eprintln!("{}", admin.run(&usage).unwrap());
}
