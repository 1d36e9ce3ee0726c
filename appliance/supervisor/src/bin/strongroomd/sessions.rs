//! `strongroom-sessions`: starts the sessions of clients. Its socket comes from systemd, as standard input.

use crate::ended;
use std::os::fd::AsFd;
use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, sessions::broker};

/// Runs the role.
pub fn main() -> ExitCode {
    let outcome = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(broker::BrokerError::from)
        .and_then(|socket| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(broker::run(Paths::default(), socket))
        });
    ended("strongroom-sessions", outcome)
}
