//! `strongroom-health`: reads the disks' health and follows the kernel's log. A role of the disks duty.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{disks::health, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended("strongroom-health", health::run(&Paths::default()))
}
