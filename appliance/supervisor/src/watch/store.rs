//! The files in a client's folder on the state partition: what is remembered of its repository. Each is replaced as a
//! whole; whoever changes one holds the folder's lock.

use crate::durable;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use strongroom_model::verification::Verification;
use strongroom_model::watch::{ArchiveNote, Record, TransactionNote};

/// Longest file that is read back.
const BYTES_MAX: u64 = 1 << 20;

/// What was remembered.
pub enum Read {
    /// It was read.
    Known(Box<Record>),
    /// There is nothing yet.
    New,
    /// There is something that can't be read.
    Unreadable,
}

/// Waits until nobody else changes the folder, which is made if it isn't there.
pub fn lock(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// What the role `strongroom-watch` remembers.
pub fn read_record(folder: &Path) -> Read {
    let path = folder.join("record.json");
    match durable::read_json(&path, BYTES_MAX) {
        Some(record) => Read::Known(Box::new(record)),
        None if matches!(fs::metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound) => Read::New,
        None => Read::Unreadable,
    }
}

/// Writes down what the role `strongroom-watch` remembers.
pub fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    durable::write_json(&folder.join("record.json"), record)
}

/// The archives, newest first.
pub fn read_archives(folder: &Path) -> Vec<ArchiveNote> {
    durable::read_json(&folder.join("archives.json"), BYTES_MAX).unwrap_or_default()
}

/// Writes down the archives.
pub fn write_archives(folder: &Path, archives: &[ArchiveNote]) -> io::Result<()> {
    durable::write_json(&folder.join("archives.json"), &archives)
}

/// The transactions, newest first.
pub fn read_transactions(folder: &Path) -> Vec<TransactionNote> {
    durable::read_json(&folder.join("transactions.json"), BYTES_MAX).unwrap_or_default()
}

/// Writes down the transactions.
pub fn write_transactions(folder: &Path, transactions: &[TransactionNote]) -> io::Result<()> {
    durable::write_json(&folder.join("transactions.json"), &transactions)
}

/// What the role `strongroom-verify` remembers. Without it, everything is checked anew.
pub fn read_verification(folder: &Path) -> Verification {
    durable::read_json(&folder.join("verification.json"), BYTES_MAX).unwrap_or_default()
}

/// Writes down what the role `strongroom-verify` remembers.
pub fn write_verification(folder: &Path, verification: &Verification) -> io::Result<()> {
    durable::write_json(&folder.join("verification.json"), verification)
}
