//! `strongroom-repositories`: gives each client's repository to that client's account.

use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, sessions::takeover};

/// Runs the role.
pub fn main() -> ExitCode {
    match takeover::run(&Paths::default()) {
        Ok(failed) if failed.is_empty() => ExitCode::SUCCESS,
        Ok(failed) => {
            for error in failed {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the array can't be used: {error}");
            ExitCode::FAILURE
        }
    }
}
