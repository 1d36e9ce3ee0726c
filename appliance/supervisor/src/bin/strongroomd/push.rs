//! `strongroom-push NAME`: pushes one client's repository to its targets. A job of the offsite duty.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{offsite::push_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended(
        "strongroom-push",
        push_job::run(&Paths::default(), std::env::args().nth(1).as_deref()),
    )
}
