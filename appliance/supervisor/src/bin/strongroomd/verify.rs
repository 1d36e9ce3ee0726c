//! `strongroom-verify NAME|ALL|DUE`: reads repositories and compares them with what they were. A job of the watch.

use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, watch::verify_job};

/// Runs the role.
pub fn main() -> ExitCode {
    let instance = std::env::args().nth(1);
    verify_job::run(&Paths::default(), instance.as_deref()).map_or_else(
        |error| {
            eprintln!("strongroom-verify: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
