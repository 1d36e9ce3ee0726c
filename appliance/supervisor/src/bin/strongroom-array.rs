//! `strongroom-array`: creates or assembles the array. A job of the disks duty.

use std::process::ExitCode;
use strongroom_supervisor::{disks::array_job, paths::Paths};

fn main() -> ExitCode {
    array_job::run(&Paths::default()).map_or_else(
        |error| {
            eprintln!("strongroom-array: the report could not be written: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
