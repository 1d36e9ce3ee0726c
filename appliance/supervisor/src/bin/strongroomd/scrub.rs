//! `strongroom-scrub`: reads everything on the array. A job of the disks duty.

use std::process::ExitCode;
use strongroom_supervisor::{disks::scrub_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    scrub_job::run(&Paths::default()).map_or_else(
        |error| {
            eprintln!("strongroom-scrub: the outcome could not be written: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
