//! `strongroom-configure`: takes over the owner's configuration and makes the generated files.
//!
//! Without arguments: early at boot, from the ESP. `stick DEVICE`: from a USB stick, into the running system. `offered`:
//! over a connection, from systemd, which is its standard input; into the running system too.

use crate::ended;
use std::os::fd::AsFd;
use std::process::ExitCode;
use strongroom_supervisor::{configuration, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let paths = Paths::default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => configuration::run_at_start(&paths),
        ["offered"] => std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|connection| configuration::offered::run(&paths, connection)),
        ["stick", device] => configuration::run_for_stick(&paths, device),
        _ => Err(std::io::Error::other(
            "usage: strongroom-configure [stick DEVICE | offered]",
        )),
    };
    ended("strongroom-configure", outcome)
}
