//! The restores that were tried, as their records were handed over. They lie beside the configuration, which is copied onto
//! the array, so a reflash forgets none.

use crate::configuration::in_force;
use crate::durable;
use crate::paths::Paths;
use std::io;
use strongroom_model::drill::{Drill, DrillError, Drills};
use strongroom_model::name::TargetName;

/// Longest file of drills, in bytes: four of each copy of 64 clients at four targets.
const BYTES_MAX: u64 = 2 * 1024 * 1024;

/// All that are remembered; none when the file is lost, which only has another asked for.
pub fn read(paths: &Paths) -> Drills {
    durable::read_json(&paths.drills(), BYTES_MAX).unwrap_or_default()
}

/// Why a drill could not be noted.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The record can't be true.
    #[error(transparent)]
    Record(#[from] DrillError),
    /// The file could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes note of a drill, if it can be true, and forgets those of copies that are not any more. Returns it with its target
/// named. `now` is Unix seconds.
pub fn note(paths: &Paths, drill: Drill, now: u64) -> Result<Drill, NoteError> {
    let config = in_force(paths);
    let client = config.client(drill.client.as_str());
    let targets: Option<Vec<(TargetName, Option<u64>)>> = client.map(|client| {
        let name = client.name.get_ref();
        let names = config.targets_of(client).map(|target| target.name.get_ref());
        names
            .map(|target| {
                let summary = strongroom_offsite::ledger::read_summary(&paths.ledger(name, target));
                let at = summary.ok().flatten().map(|summary| summary.transaction.0.into());
                (target.clone(), at)
            })
            .collect()
    });
    let drill = drill.admitted(targets.as_deref(), now)?;
    let mut drills = read(paths);
    drills.record(drill.clone());
    drills.retain(|client, target| {
        let client = config.client(client.as_str());
        client.is_some_and(|client| config.targets_of(client).any(|copy| copy.name.get_ref() == target))
    });
    durable::write_json(&paths.drills(), &drills)?;
    Ok(drill)
}
