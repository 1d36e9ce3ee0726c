//! Sitting at the machine: pressing keys in the boot loader's menu and on the console.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use image::qemu::Machine;
use image::ssh::Login;
use serde_json::json;

use crate::SOON;

/// Places in the menu of a machine whose second slot is empty.
pub const RESCUE: usize = 2;
pub const FACTORY_RESET: usize = 3;

/// Presses keys, in QEMU's names for them (QKeyCode).
pub fn press(machine: &mut Machine, keys: &[&str]) {
    for key in keys {
        let pressed: Vec<_> = key
            .split('-')
            .map(|part| json!({"type": "qcode", "data": part}))
            .collect();
        machine.command("send-key", json!({"keys": pressed})).unwrap();
        // A PS/2 keyboard has a small memory.
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
}

/// Types small letters, digits and blanks, then the return key.
pub fn type_line(machine: &mut Machine, text: &str) {
    let keys: Vec<String> = text
        .chars()
        .map(|c| match c {
            ' ' => "spc".to_owned(),
            other => other.to_string(),
        })
        .collect();
    press(machine, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    press(machine, &["ret"]);
}

/// Waits for the boot loader's menu after power-on and chooses an entry.
pub fn choose(machine: &mut Machine, entry: usize) {
    machine
        .wait_until("the boot loader showed no menu", SOON, |machine| Ok(menus(machine) > 0))
        .unwrap();
    // The first key stops the countdown.
    press(machine, &vec!["down"; entry]);
    press(machine, &["ret"]);
}

/// How often the boot loader's menu was shown, as long as nobody moves in it.
pub fn menus(machine: &Machine) -> usize {
    machine.serial().matches("Strongroom with the IO-APIC").count()
}

/// A person at a terminal elsewhere looks at the console and leaves it by its key.
pub fn over_ssh(admin: &Login) {
    let mut command = Command::new("ssh");
    command
        .args(admin.options())
        .args([
            "-tt",
            &format!("{}@127.0.0.1", admin.user),
            "stty columns 100 rows 30; strongroom console",
        ])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut looking = command.spawn().unwrap();
    let mut keys = looking.stdin.take().unwrap();
    std::thread::sleep(Duration::from_secs(15));
    keys.write_all(b"q").unwrap();
    // The pipe stays open until the end: a terminal that hangs up would end the console too.
    let output = looking.wait_with_output().unwrap();
    drop(keys);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {shown}", output.status);
    assert!(shown.contains("q leaves") && shown.contains("SHA256:"), "{shown}");
}
