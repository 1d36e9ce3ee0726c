//! `strongroomd`, the supervisor.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{daemon, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build();
    let outcome = runtime
        .map_err(daemon::DaemonError::from)
        .and_then(|runtime| runtime.block_on(daemon::run(Paths::default())));
    ended("strongroomd", outcome)
}
