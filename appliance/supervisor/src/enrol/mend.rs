//! Setting aside what is damaged, so that its owner can go on: the registry, and the journal of a client's compaction or
//! rollback. Nothing is removed, and nothing that can be read is touched.

use super::folders::free;
use super::{StoreError, keep, registry};
use crate::durable;
use crate::paths::Paths;
use crate::upkeep::hold::{self, Hold};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use strongroom_model::name::ClientName;
use strongroom_model::registry::Registry;

/// Sets a damaged registry aside, and begins another with what of it holds at once. Returns where it lies, and the new one.
/// `None`: it can be read, and stays as it is.
pub fn set_registry_aside(paths: &Paths) -> io::Result<Option<(PathBuf, Registry)>> {
    match registry(paths) {
        Ok(_) => return Ok(None),
        Err(StoreError::Io(error)) => return Err(error),
        Err(StoreError::Damaged(_)) => {}
    }
    let path = paths.registry();
    let rest = Registry::salvaged(&String::from_utf8_lossy(&fs::read(&path)?));
    // A second name first; then the new one takes the place of the old at once.
    let aside = aside(&path);
    fs::hard_link(&path, &aside)?;
    durable::sync_folder_of(&path)?;
    keep(paths, &rest)?;
    Ok(Some((aside, rest)))
}

/// Sets aside the journal of a client's compaction or rollback, which holds the client out. Returns where it lies. `None`:
/// none is there, or it can be read; then the job brings itself to its end.
///
/// Whichever job it was, it leaves a repository that Borg can go on with. The watch finds what is not as it was.
pub fn set_journal_aside(paths: &Paths, client: &ClientName) -> io::Result<Option<PathBuf>> {
    if hold::of(paths, client) != Hold::Unreadable {
        return Ok(None);
    }
    let path = paths.upkeep(client);
    let aside = aside(&path);
    fs::rename(&path, &aside)?;
    durable::sync_folder_of(&path)?;
    Ok(Some(aside))
}

/// A name beside `path` that nothing bears.
fn aside(path: &Path) -> PathBuf {
    free(&format!("{}.damaged-", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let asus = ClientName::new("asus").unwrap();
        assert!(set_registry_aside(&paths).unwrap().is_none(), "there is none");
        assert!(set_journal_aside(&paths, &asus).unwrap().is_none());
        keep(&paths, &Registry::default()).unwrap();
        assert!(set_registry_aside(&paths).unwrap().is_none());
        let sound = r#"{"work":{"job":"compact","transaction":9},"since":1,"repository":"ab","bytes":5,"highest":9,"objects":1}"#;
        durable::write(&paths.upkeep(&asus), sound.as_bytes(), 0o644).unwrap();
        assert!(set_journal_aside(&paths, &asus).unwrap().is_none());
        assert!(matches!(hold::of(&paths, &asus), Hold::Standing(_)));
    }

    #[test]
    fn what_is_damaged_is_kept_beside_and_twice_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let asus = ClientName::new("asus").unwrap();
        for damage in [
            &b"paused = [\n    \"asus\",\n]\nx = 1\n"[..],
            b"paused = [\n    \"asus\",\n\xff",
        ] {
            durable::write(&paths.registry(), damage, 0o644).unwrap();
            durable::write(&paths.upkeep(&asus), damage, 0o644).unwrap();
            let (aside, rest) = set_registry_aside(&paths).unwrap().unwrap();
            assert_eq!(fs::read(aside).unwrap(), damage);
            assert_eq!(rest.paused, std::slice::from_ref(&asus));
            assert_eq!(registry(&paths).unwrap(), rest);
            let aside = set_journal_aside(&paths, &asus).unwrap().unwrap();
            assert_eq!(fs::read(aside).unwrap(), damage);
            assert_eq!(hold::of(&paths, &asus), Hold::Open);
        }
    }
}
