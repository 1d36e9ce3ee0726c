//! `strongroom-probe TARGET[.CLIENT]`: tries a target's bucket out. A job that the supervisor starts when it is asked to.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{offsite::probe_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended(
        "strongroom-probe",
        probe_job::run(&Paths::default(), std::env::args().nth(1).as_deref()),
    )
}
