//! `strongroom-configure`: takes over the owner's configuration and makes the generated files. Run early at boot.

use std::process::ExitCode;
use strongroom_supervisor::{configuration, paths::Paths};

fn main() -> ExitCode {
    configuration::run(&Paths::default()).map_or_else(
        |error| {
            eprintln!("strongroom-configure: the generated files could not be written: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
