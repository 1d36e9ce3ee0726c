//! `strongroom-mirror`: copies what must survive a reflash onto the array; `strongroom-mirror watched`: what is remembered
//! of the clients' repositories. `strongroom-mirror recall`: brings both back.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::mirror::{self, recall, watched};
use strongroom_supervisor::{paths::Paths, services::command};

/// Runs the role.
pub fn main() -> ExitCode {
    let paths = Paths::default();
    let done = match std::env::args().nth(1).as_deref() {
        Some("recall") => bring_back(&paths),
        Some("watched") => watched::run(&paths).map_err(|error| error.to_string()),
        _ => mirror::keep(&paths).map(drop).map_err(|error| error.to_string()),
    };
    ended("strongroom-mirror", done)
}

fn bring_back(paths: &Paths) -> Result<(), String> {
    match recall::run(paths) {
        Ok(recall::Outcome::Restart) => {
            // At once, before anything is started with the identity that was.
            command::run("systemctl", &["reboot", "--force"], "").map_err(|error| error.to_string())?;
            std::thread::sleep(std::time::Duration::from_secs(60));
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => {
            // The appliance comes up with an identity of its own until the next start.
            eprintln!("strongroom-mirror: {error}. It is tried again at the next start.");
            Ok(())
        }
    }
}
