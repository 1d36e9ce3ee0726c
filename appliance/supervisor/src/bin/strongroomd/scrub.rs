//! `strongroom-scrub`: reads everything on the array. A job of the disks duty.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{disks::scrub_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended(
        "strongroom-scrub: the outcome could not be written",
        scrub_job::run(&Paths::default()),
    )
}
