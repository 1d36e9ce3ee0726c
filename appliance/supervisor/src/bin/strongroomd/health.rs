//! `strongroom-health`: reads the disks' health and follows the kernel's log. A role of the disks duty.

use std::process::ExitCode;
use strongroom_supervisor::{disks::health, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    health::run(&Paths::default()).map_or_else(
        |error| {
            eprintln!("strongroom-health: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
