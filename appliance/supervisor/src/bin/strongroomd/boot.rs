//! `strongroom-boot`: marks this start as good for GRUB, once it is.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{boot, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    ended(
        "strongroom-boot: this start is not marked as good",
        boot::run(&Paths::default()),
    )
}
