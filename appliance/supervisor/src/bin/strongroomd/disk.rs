//! `strongroom-disk TARGET`: copies repositories to a target on a disk. A job of the offsite duty.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{offsite::disk_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended(
        "strongroom-disk",
        disk_job::run(&Paths::default(), std::env::args().nth(1).as_deref()),
    )
}
