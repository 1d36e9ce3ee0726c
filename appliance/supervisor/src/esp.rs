//! The EFI system partition of the booted disk: mounted read-only, writable for as long as a change takes.

use crate::paths::Paths;
use crate::services::command::{self, CommandError};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;

/// Why it could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// It could not be made writable.
    #[error("the EFI system partition could not be made writable: {0}")]
    Remount(#[from] CommandError),
    /// A file on it could not be written.
    #[error("the EFI system partition could not be written: {0}")]
    Io(#[from] io::Error),
}

/// Runs `change` while the partition is writable. One at a time: two programs change it at a start, and the first to
/// finish would take the other's permission away.
pub fn writable<T>(paths: &Paths, change: impl FnOnce() -> io::Result<T>) -> Result<T, EspError> {
    let lock = paths.esp_lock();
    fs::create_dir_all(lock.parent().unwrap_or(paths.root()))?;
    let lock = File::create(lock)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
    let mountpoint = paths.esp().display().to_string();
    let remount = |how: &str| command::run("mount", &["-o", how, &mountpoint], "");
    // Beneath another root there is a plain folder.
    let real = paths.root() == std::path::Path::new("/");
    if real {
        remount("remount,rw")?;
    }
    let changed = change();
    if real && let Err(error) = remount("remount,ro") {
        eprintln!("The EFI system partition stays writable: {error}");
    }
    Ok(changed?)
}
