//! A small tree of files in memory: what is mirrored.

use crate::durable;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Most files that are looked at.
const FILES_MAX: usize = 1024;
/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Deepest folder.
const DEPTH_MAX: usize = 8;

/// Content and permissions of each file, by its path beneath the tree's top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Tree {
    /// Adds the file or folder at `from`, under the name `to`. What is not there, is no regular file, or is still being
    /// written (`*.new`) is passed over; what exceeds the bounds is an error, since a copy with holes is none.
    pub fn add(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.add_at(from, to, 0)
    }

    fn add_at(&mut self, from: &Path, to: &Path, depth: usize) -> io::Result<()> {
        let metadata = match fs::symlink_metadata(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        if metadata.is_dir() {
            if depth == DEPTH_MAX {
                return Err(io::Error::other(format!("{} is nested too deep", from.display())));
            }
            for entry in fs::read_dir(from)? {
                let name = entry?.file_name();
                self.add_at(&from.join(&name), &to.join(&name), depth + 1)?;
            }
            return Ok(());
        }
        let is_unfinished = from.extension().is_some_and(|extension| extension == "new");
        if !metadata.is_file() || is_unfinished {
            return Ok(());
        }
        if self.0.len() == FILES_MAX || metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{} is too large, or one too many",
                from.display()
            )));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(from, flags, Mode::empty())?);
        let mut content = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
        let mode = metadata.permissions().mode() & 0o777;
        self.0.insert(to.to_owned(), (mode, content));
        Ok(())
    }

    /// Writes every file beneath `top`, which is made, for nobody but its owner to look into. Durable on return.
    pub fn write(&self, top: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(top)?;
        for (path, (mode, content)) in &self.0 {
            durable::write(&top.join(path), content, *mode)?;
        }
        File::open(top)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_read_and_written_alike() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        durable::write(&from.join("a/b"), b"one", 0o600).unwrap();
        durable::write(&from.join("c"), b"two", 0o644).unwrap();
        fs::write(from.join("d.new"), "half").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let mut tree = Tree::default();
        tree.add(&from, Path::new("")).unwrap();
        tree.add(&from.join("absent"), Path::new("absent")).unwrap();
        assert_eq!(tree.0.len(), 2);
        tree.write(&folder.path().join("to")).unwrap();
        let mut back = Tree::default();
        back.add(&folder.path().join("to"), Path::new("")).unwrap();
        assert_eq!(back, tree);
        assert_eq!(back.0[Path::new("a/b")], (0o600, b"one".to_vec()));
    }

    #[test]
    fn what_is_too_large_is_not_copied_in_part() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("large")).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(Tree::default().add(folder.path(), Path::new("")).is_err());
    }
}
