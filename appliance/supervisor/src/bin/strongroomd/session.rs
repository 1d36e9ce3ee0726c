//! `strongroom-session`: the last wall around a session, within its unit.

use std::process::ExitCode;
use strongroom_supervisor::sessions::confine;

/// Runs the role.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match confine::run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{error}\n"));
            ExitCode::from(error.code())
        }
    }
}
