//! `strongroom-push NAME`: pushes one client's repository to its targets. A job of the offsite duty.

use std::process::ExitCode;
use strongroom_supervisor::{offsite::push_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    push_job::run(&Paths::default(), std::env::args().nth(1).as_deref()).map_or_else(
        |error| {
            eprintln!("strongroom-push: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
