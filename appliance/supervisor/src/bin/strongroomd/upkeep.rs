//! `strongroom-upkeep compact|rollback|repair INSTANCE`: frees what a client deleted, brings it back, or puts a sound segment
//! in a damaged one's place. A job of the upkeep.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, upkeep};

/// Runs the role.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ended("strongroom-upkeep", upkeep::run_job(&Paths::default(), &arguments))
}
