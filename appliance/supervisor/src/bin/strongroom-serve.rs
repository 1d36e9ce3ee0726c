//! `strongroom-serve NAME`: becomes `borg serve` for one client. The forced command of its key.

use std::process::ExitCode;
use strongroom_supervisor::{clients::serve, paths::Paths};

fn main() -> ExitCode {
    let name = std::env::args().nth(1);
    let error = serve::run(
        &Paths::default(),
        name.as_deref(),
        std::env::var_os("SSH_ORIGINAL_COMMAND"),
    );
    eprintln!("{error}");
    ExitCode::FAILURE
}
