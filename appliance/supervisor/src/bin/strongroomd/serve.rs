//! `strongroom-serve NAME [restore] FINGERPRINT`: the forced command of a client's key.

use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, sessions::serve};

/// Runs the role.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let paths = Paths::of_arguments(&mut arguments);
    let wanted = std::env::var_os("SSH_ORIGINAL_COMMAND");
    match serve::run(&paths, &arguments, wanted) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Whoever would read it may be gone.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}
