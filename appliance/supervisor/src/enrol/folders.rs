//! What belongs to a client by its name: its repository on the array with what rollbacks took out of it, what is
//! remembered of it, and its ledgers. Moving them to another name, and giving a repository up. Each step is one rename, so that a power cut leaves the one or the
//! other, and doing it again does the rest.

use crate::durable;
use crate::paths::{ARRAY_MOUNT, Paths};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::registry::Moving;
use strongroom_model::upkeep::rollback::KeptRange;

/// What the names of folders on the array begin with that are being erased.
const ERASE: &str = ".erase-";

/// Moves a repository to its client's new name, unless that is done. What bears the new name already stays as it is,
/// unless it is an empty folder.
pub fn move_repository(paths: &Paths, moving: &Moving) -> io::Result<()> {
    for of in [Paths::rolled_back, Paths::damaged] {
        let (from, to) = (of(paths, &moving.from), of(paths, &moving.to));
        if exists(&from) {
            set_aside(&to)?;
            move_folder(&from, &to)?;
        }
    }
    move_folder(&paths.repository(&moving.from), &paths.repository(&moving.to))
}

/// Moves what is remembered of a client, and its ledgers of those targets at which its place stays the same.
pub fn move_memory(paths: &Paths, moving: &Moving, targets: &[TargetName]) -> io::Result<()> {
    let (from, to) = (paths.watch(&moving.from), paths.watch(&moving.to));
    if exists(&from) {
        set_aside(&to)?;
        move_folder(&from, &to)?;
    }
    for of in [Paths::session_history, Paths::upkeep_outcome] {
        move_file(&of(paths, &moving.from), &of(paths, &moving.to))?;
    }
    for target in targets {
        let (from, to) = (paths.ledger(&moving.from, target), paths.ledger(&moving.to, target));
        if exists(&from) {
            set_aside(&to)?;
            if let (Some(old), Some(new)) = (from.parent(), to.parent())
                && !exists(new)
            {
                fs::create_dir(new)?;
                // systemd gives it to the role as its StateDirectory; until then it is like the old one.
                fs::set_permissions(new, fs::metadata(old)?.permissions())?;
            }
            move_folder(&from, &to)?;
        }
    }
    Ok(())
}

/// Keeps a folder that is in the way under another name beside it: `NAME.1`, which no client can have.
pub fn set_aside(folder: &Path) -> io::Result<()> {
    if !exists(folder) {
        return Ok(());
    }
    let mut name = folder.as_os_str().to_owned();
    name.push(".");
    move_folder(folder, &free(&name.to_string_lossy()))
}

/// Takes a client's repository out of sight, with what rollbacks and repairs took out of it; [`erase`] does the rest. Returns whether
/// there was one.
pub fn give_up_repository(paths: &Paths, client: &ClientName) -> io::Result<bool> {
    let start = paths.at(ARRAY_MOUNT).join(format!("{ERASE}{client}-"));
    let mut any = false;
    for folder in [
        paths.rolled_back(client),
        paths.damaged(client),
        paths.repository(client),
    ] {
        if exists(&folder) {
            move_folder(&folder, &free(&start.to_string_lossy()))?;
            any = true;
        }
    }
    Ok(any)
}

/// Takes out of sight what a rollback kept; [`erase`] does the rest. Returns whether it was there.
pub fn give_up_kept(paths: &Paths, client: &ClientName, kept: KeptRange) -> io::Result<bool> {
    let (all, start) = (
        paths.rolled_back(client),
        paths.at(ARRAY_MOUNT).join(format!("{ERASE}{client}-")),
    );
    let folder = all.join(kept.to_string());
    if !exists(&folder) {
        return Ok(false);
    }
    move_folder(&folder, &free(&start.to_string_lossy()))?;
    // Unless others are in it.
    let _ = fs::remove_dir(all);
    Ok(true)
}

/// Erases the repositories that were given up. It may be cut short at any time.
pub fn erase(paths: &Paths) -> io::Result<()> {
    for entry in fs::read_dir(paths.at(ARRAY_MOUNT))? {
        let entry = entry?;
        let is_given_up = entry.file_name().to_str().is_some_and(|name| name.starts_with(ERASE));
        if is_given_up && entry.file_type()?.is_dir() {
            // Links in it are removed, not followed.
            fs::remove_dir_all(entry.path())?;
            eprintln!("{} is erased.", entry.file_name().to_string_lossy());
        }
    }
    Ok(())
}

/// The first of these names with a number that nothing bears.
pub(super) fn free(start: &str) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let path = PathBuf::from(format!("{start}{number}"));
        if !exists(&path) {
            return path;
        }
        number += 1;
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Renames a file, unless it is gone; it takes the place of another.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => durable::sync_folder_of(to),
    }
}

/// Renames a folder, unless it is gone. rename(2) takes the place of an empty folder, and of no other.
fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return Err(io::Error::other(format!("{} is not a folder", from.display()))),
        Ok(_) => {}
    }
    fs::rename(from, to)?;
    durable::sync_folder_of(from)?;
    durable::sync_folder_of(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClientName {
        ClientName::new(text).unwrap()
    }

    fn put(path: &Path, text: &str) {
        durable::write(path, text.as_bytes(), 0o644).unwrap();
    }

    #[test]
    fn all_that_is_a_clients_goes_along_and_twice_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let moving = Moving {
            from: name("asus"),
            to: name("laptop"),
        };
        let (one, other) = (TargetName::new("one").unwrap(), TargetName::new("other").unwrap());
        put(&paths.repository(&moving.from).join("config"), "repository");
        put(&paths.watch(&moving.from).join("record.json"), "record");
        put(&paths.watch(&moving.to).join("record.json"), "of an earlier client");
        put(&paths.rolled_back(&moving.from).join("7-9/8"), "segment");
        put(&paths.damaged(&moving.from).join("7-9/8"), "damaged");
        put(&paths.session_history(&moving.from), "sessions");
        put(&paths.upkeep_outcome(&moving.from), "outcome");
        put(&paths.ledger(&moving.from, &one).join("summary.json"), "one");
        put(&paths.ledger(&moving.from, &other).join("summary.json"), "other");
        for _ in 0..2 {
            move_repository(&paths, &moving).unwrap();
            move_memory(&paths, &moving, std::slice::from_ref(&one)).unwrap();
        }
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(paths.repository(&moving.to).join("config")), "repository");
        assert_eq!(read(paths.watch(&moving.to).join("record.json")), "record");
        assert_eq!(read(paths.rolled_back(&moving.to).join("7-9/8")), "segment");
        assert_eq!(read(paths.damaged(&moving.to).join("7-9/8")), "damaged");
        assert_eq!(read(paths.session_history(&moving.to)), "sessions");
        assert_eq!(read(paths.upkeep_outcome(&moving.to)), "outcome");
        assert_eq!(
            read(paths.at("/var/lib/strongroom/watch/laptop.1/record.json")),
            "of an earlier client"
        );
        assert_eq!(read(paths.ledger(&moving.to, &one).join("summary.json")), "one");
        // The copy whose place depends on the name stays with the old one.
        assert_eq!(read(paths.ledger(&moving.from, &other).join("summary.json")), "other");
        assert!(!exists(&paths.repository(&moving.from)));
    }

    #[test]
    fn nothing_is_moved_over_another_repository() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let moving = Moving {
            from: name("asus"),
            to: name("laptop"),
        };
        put(&paths.repository(&moving.from).join("config"), "mine");
        put(&paths.repository(&moving.to).join("config"), "another");
        assert!(move_repository(&paths, &moving).is_err());
        assert_eq!(
            fs::read_to_string(paths.repository(&moving.to).join("config")).unwrap(),
            "another"
        );
        // What the repositories' role made in between is empty.
        fs::remove_file(paths.repository(&moving.to).join("config")).unwrap();
        move_repository(&paths, &moving).unwrap();
        assert_eq!(
            fs::read_to_string(paths.repository(&moving.to).join("config")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn one_of_several_that_were_kept_goes() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let asus = name("asus");
        let range = |text: &str| KeptRange::new(text).unwrap();
        for text in ["5-9", "12-20"] {
            put(&paths.rolled_back(&asus).join(text).join("data/0/7"), "segment");
        }
        assert!(!give_up_kept(&paths, &asus, range("5-8")).unwrap());
        for (text, left) in [("5-9", true), ("12-20", false)] {
            assert!(give_up_kept(&paths, &asus, range(text)).unwrap());
            assert!(!exists(&paths.rolled_back(&asus).join(text)));
            assert_eq!(exists(&paths.rolled_back(&asus)), left);
            erase(&paths).unwrap();
        }
        std::os::unix::fs::symlink("/tmp", paths.rolled_back(&asus)).unwrap();
        assert!(!give_up_kept(&paths, &asus, range("5-9")).unwrap());
        assert_eq!(fs::read_dir(paths.at(ARRAY_MOUNT)).unwrap().count(), 1);
    }

    #[test]
    fn a_repository_is_erased_without_following_links() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let asus = name("asus");
        assert!(!give_up_repository(&paths, &asus).unwrap());
        let precious = paths.at("/mnt/raid/attic_repository/config");
        put(&precious, "precious");
        for _ in 0..2 {
            put(&paths.repository(&asus).join("data/0/1"), "segment");
            std::os::unix::fs::symlink(precious.parent().unwrap(), paths.repository(&asus).join("link")).unwrap();
            assert!(give_up_repository(&paths, &asus).unwrap());
            assert!(!exists(&paths.repository(&asus)));
        }
        std::os::unix::fs::symlink(precious.parent().unwrap(), paths.at("/mnt/raid/.erase-link")).unwrap();
        erase(&paths).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        let left = fs::read_dir(paths.at(ARRAY_MOUNT)).unwrap().count();
        assert_eq!(left, 2);
    }
}
