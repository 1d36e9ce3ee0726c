//! Writing a key's files: whole or not at all, and never over another.

use super::RecipientFailure;
use crate::durable;
use rustix::fs::RenameFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A name that was free and is now taken, by an empty file. Given back when it is dropped without being filled.
pub struct Claim {
    path: PathBuf,
    filled: bool,
}

/// Takes a name in a folder for a file of this mode.
pub fn claim(directory: &Path, name: &str, mode: u32) -> Result<Claim, RecipientFailure> {
    let path = directory.join(name);
    match File::options().write(true).create_new(true).mode(mode).open(&path) {
        Ok(_) => Ok(Claim { path, filled: false }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(RecipientFailure::Exists(path)),
        Err(error) => Err(RecipientFailure::Write(path, error)),
    }
}

impl Claim {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the content in its place.
    pub fn fill(mut self, content: &[u8]) -> Result<PathBuf, RecipientFailure> {
        let put = fs::metadata(&self.path)
            .and_then(|empty| durable::put(&self.path, content, empty.permissions(), RenameFlags::empty()));
        put.map_err(|error| RecipientFailure::Write(self.path.clone(), error))?;
        self.filled = true;
        Ok(self.path.clone())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.filled {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_name_is_taken_once_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path(), "owner.asc", 0o600).unwrap();
        assert!(matches!(
            claim(folder.path(), "owner.asc", 0o600),
            Err(RecipientFailure::Exists(_))
        ));
        drop(first);
        let path = claim(folder.path(), "owner.asc", 0o600).unwrap().fill(b"key").unwrap();
        assert!(claim(folder.path(), "owner.asc", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"key");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
