//! `strongroom-watch [--accept] NAME`: reads what a client's repository has gained. A job of the watch.

use crate::ended;
use std::process::ExitCode;
use strongroom_supervisor::{paths::Paths, watch::watch_job};

/// Runs the role.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let accept = arguments.first().is_some_and(|first| first == "--accept");
    if accept {
        arguments.remove(0);
    }
    ended(
        "strongroom-watch",
        watch_job::run(&Paths::default(), arguments.first().map(String::as_str), accept),
    )
}
