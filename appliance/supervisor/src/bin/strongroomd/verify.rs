//! `strongroom-verify NAME|ALL|DUE`: reads repositories and compares them with what they were. A job of the watch.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, watch::verify_job};

/// Runs the role.
pub fn main() -> ExitCode {
    let instance = std::env::args().nth(1);
    ended(
        "strongroom-verify",
        verify_job::run(&Paths::default(), instance.as_deref()),
    )
}
