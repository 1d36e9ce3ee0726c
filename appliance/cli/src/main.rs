//! `strongroom`: the command on the appliance (over D-Bus) and on a workstation (restore, config check).

use std::process::ExitCode;

fn main() -> ExitCode {
    strongroom_cli::run()
}
