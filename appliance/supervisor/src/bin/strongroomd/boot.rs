//! `strongroom-boot`: marks this start as good for GRUB, once it is.

use std::process::ExitCode;
use strongroom_supervisor::{boot, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    boot::run(&Paths::default()).map_or_else(
        |error| {
            eprintln!("strongroom-boot: this start is not marked as good: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
