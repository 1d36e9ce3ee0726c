//! Bringing the copy back onto a state partition that was just flashed: the same identity, clients, secrets, as if
//! nothing had been done to the system disk. The array is assembled if it is there, and never created.
//!
//! What was brought back counts from the next start on, which is asked for at once: the machine id is read before
//! anything of ours runs. The host key comes last, so that a power cut leaves a state partition that is still fresh.

use super::{CREDENTIAL_SECRET, HOST_KEY, MACHINE_ID, last, machine_id, read, watched};
use crate::disks::array_job::{self, ARRAY_DEVICE};
use crate::durable;
use crate::paths::{ARRAY_MOUNT, Paths};
use crate::services::command::{self, CommandError};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use strongroom_model::condition::ConditionId;
use strongroom_model::status::ArrayState;

/// How long a data disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(3);

/// Why nothing was brought back although there may be something.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// The array could not be mounted.
    #[error("the array could not be looked into: {0}")]
    Mount(#[from] CommandError),
    /// A file could not be read or written.
    #[error("what the array keeps could not be brought back: {0}")]
    Io(#[from] io::Error),
    /// A member of the array is missing.
    #[error("a disk of the array is missing")]
    Incomplete,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is no array, or it holds no copy.
    Nothing,
    /// Brought back onto the state partition: the machine is to be restarted.
    Restart,
    /// Brought back into memory, since the state partition is lost: it counts at once.
    InMemory,
}

/// Runs the role. An error leaves a mark, by which the next start tries again.
pub fn run(paths: &Paths) -> Result<Outcome, RecallError> {
    let outcome = find(paths);
    let mark = paths.recall_pending();
    match &outcome {
        Err(_) => durable::write(&mark, b"", 0o600)?,
        Ok(_) => match fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        },
    }
    outcome
}

fn find(paths: &Paths) -> Result<Outcome, RecallError> {
    let end = Instant::now() + PATIENCE;
    loop {
        let report = array_job::assemble_existing(paths);
        if report.array.state == ArrayState::Assembled {
            break;
        }
        let is_missing = |id| matches!(id, ConditionId::MemberMissing);
        if !report.conditions.iter().any(|condition| is_missing(condition.id)) {
            return Ok(Outcome::Nothing);
        }
        if Instant::now() > end {
            return Err(RecallError::Incomplete);
        }
        std::thread::sleep(PAUSE);
    }
    // Our own view of the file system alone sees this mount.
    let options = "ro,noatime,nosuid,nodev,noexec";
    command::run("mount", &["-t", "ext4", "-o", options, ARRAY_DEVICE, ARRAY_MOUNT], "")?;
    let taken = take(paths);
    command::run("umount", &[ARRAY_MOUNT], "")?;
    Ok(taken?)
}

/// Copies what the array at its place holds onto the state partition.
fn take(paths: &Paths) -> io::Result<Outcome> {
    let Some(id) = last(paths) else {
        return Ok(Outcome::Nothing);
    };
    let mut tree = read(&paths.mirror().join(&id))?;
    if machine_id(&tree).as_ref() != Some(&id) {
        return Err(io::Error::other("the copy on the array is damaged"));
    }
    let Some((key_mode, key)) = tree.0.remove(Path::new(HOST_KEY)) else {
        return Err(io::Error::other("the copy on the array has no host key"));
    };
    tree.0.remove(Path::new(MACHINE_ID));
    let in_memory = paths.state_lost().exists();
    if let Some((mode, secret)) = tree.0.remove(Path::new(CREDENTIAL_SECRET)) {
        durable::write(&paths.credential_secret(), &secret, mode)?;
    }
    tree.write(&paths.state())?;
    // In memory there may be no room for it, and the array goes on keeping it.
    if !in_memory {
        let files = watched::recall(paths, &id)?;
        eprintln!("{files} files of what is remembered of clients' repositories were brought back.");
    }
    let machine_id = paths.state().join(MACHINE_ID);
    let line = format!("{id}\n");
    if in_memory {
        // The same file, since /etc/machine-id is bound to it.
        let _ = fs::set_permissions(&machine_id, std::os::unix::fs::PermissionsExt::from_mode(0o644));
        fs::write(&machine_id, line)?;
    } else {
        durable::write(&machine_id, line.as_bytes(), 0o444)?;
    }
    durable::write(&paths.state().join(HOST_KEY), &key, key_mode)?;
    eprintln!("The identity, clients and secrets of the appliance {id} were brought back from the array.");
    Ok(if in_memory { Outcome::InMemory } else { Outcome::Restart })
}

#[cfg(test)]
pub(super) fn take_for_test(paths: &Paths) -> io::Result<Outcome> {
    take(paths)
}
