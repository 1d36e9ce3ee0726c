//! `strongroom-array [--adopt UUID]`: creates or assembles the array. A job of the disks duty.

use crate::ended;
use std::process::ExitCode;
use strongroom_model::superblock::ArrayUuid;
use strongroom_supervisor::{disks::array_job, paths::Paths};

/// Runs the role.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let adopt = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => None,
        ["--adopt", uuid] if ArrayUuid::new(uuid).is_some() => ArrayUuid::new(uuid),
        _ => {
            eprintln!("usage: strongroom-array [--adopt UUID]");
            return ExitCode::from(2);
        }
    };
    ended(
        "strongroom-array: the report could not be written",
        array_job::run(&Paths::default(), adopt.as_ref()),
    )
}
