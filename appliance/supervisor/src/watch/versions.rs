//! Every version of a repository's `config`, which holds the key where the mode is `repokey`: a client may overwrite it,
//! and whoever has the old one and the old passphrase can still open the backups.
//!
//! Owns the folder `config` in the client's folder. The oldest versions stay, since those are the owner's.

use super::ledger::hex;
use crate::durable;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::Path;

/// Largest `config` that is kept. Borg's is below one KiB, with a key.
pub const VERSION_MAX: usize = 16 * 1024;
/// The first so many versions stay for ever.
const OLDEST_KEPT: usize = 16;
/// And so many of the newest.
const NEWEST_KEPT: usize = 16;

/// SHA-256 in hexadecimal digits.
pub fn sum(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Keeps a version, unless it is the newest that is kept already. Named by its number and its sum:
/// `0003-1a2b3c4d5e6f7081`. One that is too large for a `config` is not kept.
pub fn keep(folder: &Path, content: &[u8]) -> io::Result<()> {
    if content.len() > VERSION_MAX {
        return Ok(());
    }
    let folder = folder.join("config");
    let sum = sum(content);
    let short = &sum[..16];
    let names = names(&folder)?;
    if names.last().is_some_and(|name| name.ends_with(short)) {
        return Ok(());
    }
    let number = names
        .last()
        .and_then(|name| name.split('-').next()?.parse::<u32>().ok())
        .map_or(0, |number| number.saturating_add(1));
    durable::write(&folder.join(format!("{number:04}-{short}")), content, 0o640)?;
    if names.len() + 1 > OLDEST_KEPT + NEWEST_KEPT {
        durable::remove(&folder.join(&names[OLDEST_KEPT]))?;
    }
    Ok(())
}

/// The version of this sum, if it is kept.
pub fn read(folder: &Path, sum: &str) -> io::Result<Option<Vec<u8>>> {
    let folder = folder.join("config");
    let short = sum.get(..16).unwrap_or("none");
    match names(&folder)?.iter().rev().find(|name| name.ends_with(short)) {
        Some(name) => fs::read(folder.join(name)).map(Some),
        None => Ok(None),
    }
}

/// Names of all versions, oldest first.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| !name.ends_with(".new")).map(str::to_owned));
    }
    names.sort_by_key(|name| name.split('-').next().and_then(|number| number.parse::<u32>().ok()));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_kept_once_and_the_first_ones_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), b"one").unwrap();
        keep(folder.path(), b"one").unwrap();
        assert_eq!(names(&folder.path().join("config")).unwrap().len(), 1);
        for number in 0..100 {
            keep(folder.path(), format!("another {number}").as_bytes()).unwrap();
        }
        let kept = names(&folder.path().join("config")).unwrap();
        assert_eq!(kept.len(), OLDEST_KEPT + NEWEST_KEPT);
        assert_eq!(read(folder.path(), &sum(b"one")).unwrap().unwrap(), b"one");
        assert_eq!(
            read(folder.path(), &sum(b"another 99")).unwrap().unwrap(),
            b"another 99"
        );
        assert_eq!(read(folder.path(), &sum(b"another 50")).unwrap(), None);
        keep(folder.path(), &[b'x'; VERSION_MAX + 1]).unwrap();
        assert_eq!(names(&folder.path().join("config")).unwrap(), kept);
    }
}
