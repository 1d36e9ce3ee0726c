//! `strongroom-pair keys|enrol TYPE BASE64`: what sshd runs for the login `pair`.

use std::io::Write;
use std::process::ExitCode;
use strongroom_supervisor::{enrol::pair, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let paths = Paths::of_arguments(&mut arguments);
    let wanted = std::env::var_os("SSH_ORIGINAL_COMMAND");
    // Whoever would read it may be gone.
    match pair::run(&paths, &arguments, wanted) {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = std::io::stderr().write_fmt(format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}
