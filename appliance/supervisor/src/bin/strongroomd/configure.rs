//! `strongroom-configure`: takes over the owner's configuration and makes the generated files.
//!
//! Without arguments: early at boot, from the ESP. `stick DEVICE`: from a USB stick, into the running system.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{configuration, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let paths = Paths::default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => configuration::run_at_start(&paths),
        ["stick", device] => configuration::run_for_stick(&paths, device),
        _ => Err(std::io::Error::other("usage: strongroom-configure [stick DEVICE]")),
    };
    ended("strongroom-configure", outcome)
}
