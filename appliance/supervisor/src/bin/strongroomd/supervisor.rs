//! `strongroomd`, the supervisor.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{daemon, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // What reads disks may hang, and so may what looks up names: neither is to keep the other waiting.
        .max_blocking_threads(4)
        .build();
    let outcome = runtime
        .map_err(daemon::DaemonError::from)
        .and_then(|runtime| runtime.block_on(daemon::run(Paths::default())));
    ended("strongroomd", outcome)
}
