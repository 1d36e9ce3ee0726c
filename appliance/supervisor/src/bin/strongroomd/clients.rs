//! `strongroom-clients`: enrols and changes clients. One connection to its socket, from systemd, is its standard input.

use crate::ended;
use std::os::fd::AsFd;
use std::process::ExitCode;
use strongroom_supervisor::{enrol::role, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let paths = Paths::of_arguments(&mut arguments);
    let connection = std::io::stdin().as_fd().try_clone_to_owned();
    ended(
        "strongroom-clients",
        connection.and_then(|connection| role::run(&paths, connection)),
    )
}
