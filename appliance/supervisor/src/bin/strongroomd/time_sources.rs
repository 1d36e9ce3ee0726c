//! `strongroom-time-sources`: tells chronyd of the time servers that DHCP gave. A role of the clock duty.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{clock::sources, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended("strongroom-time-sources", sources::run(&Paths::default()))
}
