//! A client's repository, and a folder beside it where what a job takes out of it is kept. No client sees that folder.
//! Nothing is reached through a link: the repository is its client's.

use super::begin::UpkeepError;
use crate::paths::Paths;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, fchown, fstat, linkat, mkdirat, openat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use strongroom_model::name::ClientName;

/// How a folder is opened.
pub const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// What Borg derives from segments, and replaces with each transaction.
const DERIVED: [&str; 3] = ["index.", "hints.", "integrity."];

/// What a failed call becomes.
pub fn io(what: impl std::fmt::Display) -> impl FnOnce(Errno) -> UpkeepError {
    let what = what.to_string();
    move |error| UpkeepError::Io(what, error.into())
}

/// Both folders, open.
pub struct Beside {
    /// The repository.
    pub repository: OwnedFd,
    /// Whose the repository is.
    pub owner: Stat,
    /// The folder beside it.
    pub kept: OwnedFd,
}

impl Beside {
    /// Opens the repository, and makes `kept`, a path on the array.
    pub fn open(paths: &Paths, name: &ClientName, kept: &std::path::Path) -> Result<Self, UpkeepError> {
        let repository = openat(CWD, paths.repository(name), FOLDER, Mode::empty()).map_err(io("the repository"))?;
        let owner = fstat(&repository).map_err(io("the repository"))?;
        let array = paths.at(crate::paths::ARRAY_MOUNT);
        let array = openat(CWD, &array, FOLDER, Mode::empty()).map_err(io("the array"))?;
        let mut folder = array;
        let inside = kept.strip_prefix(paths.at(crate::paths::ARRAY_MOUNT)).unwrap_or(kept);
        for part in inside.components() {
            folder = folder_in(&folder, part.as_os_str(), None).map_err(io(kept.display()))?;
        }
        Ok(Self {
            repository,
            kept: folder,
            owner,
        })
    }

    /// What Borg derived from segments.
    pub fn derived(&self) -> Result<Vec<String>, UpkeepError> {
        let mut names = Vec::new();
        let folder = rustix::fs::Dir::read_from(&self.repository).map_err(io("the repository"))?;
        for entry in folder {
            let entry = entry.map_err(io("the repository"))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let transaction = DERIVED.iter().find_map(|start| name.strip_prefix(start));
            if transaction.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Moves a file to the same place in the other folder; it may be there already.
    pub fn set_aside(&self, folders: &[&str], file: &str) -> Result<(), UpkeepError> {
        let place = folders.join("/") + "/" + file;
        let mut from = self.repository.try_clone()?;
        let mut to = self.kept.try_clone()?;
        for folder in folders {
            from = openat(&from, *folder, FOLDER, Mode::empty()).map_err(io(&place))?;
            to = folder_in(&to, folder.as_ref(), None).map_err(io(&place))?;
        }
        let found = match statat(&from, file, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(io(&place))?,
        };
        regular(&found, &place)?;
        // Never over what was kept before.
        renameat_with(&from, file, &to, file, RenameFlags::NOREPLACE).map_err(io(&place))
    }

    /// Gives a file a second name at the same place in the other folder; it may have it already, or not be there.
    pub fn keep(&self, folders: &[&str], file: &str) -> Result<(), UpkeepError> {
        let place = folders.join("/") + "/" + file;
        let mut from = self.repository.try_clone()?;
        let mut to = self.kept.try_clone()?;
        for folder in folders {
            from = match openat(&from, *folder, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                other => other.map_err(io(&place))?,
            };
            to = folder_in(&to, folder.as_ref(), None).map_err(io(&place))?;
        }
        let found = match statat(&from, file, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(io(&place))?,
        };
        regular(&found, &place)?;
        match linkat(&from, file, &to, file, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(io(&place)(error)),
        }
    }

    /// What was done is on the disk, also by a run that was cut short.
    pub fn sync(&self) -> Result<(), UpkeepError> {
        rustix::fs::syncfs(&self.repository).map_err(io("the array"))
    }
}

/// Refuses what is not a regular file.
pub fn regular(found: &Stat, place: &str) -> Result<(), UpkeepError> {
    if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
        return Ok(());
    }
    let error = std::io::Error::other("it is not a regular file");
    Err(UpkeepError::Io(place.into(), error))
}

/// Removes a file; it may be gone already.
pub fn remove(folder: &impl AsFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A folder in a folder, made where it isn't there yet: its owner's alone.
pub fn folder_in(parent: &impl AsFd, name: &std::ffi::OsStr, owner: Option<&Stat>) -> Result<OwnedFd, Errno> {
    let made = match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let folder = openat(parent, name, FOLDER, Mode::empty())?;
    if let Some(owner) = owner.filter(|_| made) {
        give(&folder, owner)?;
    }
    Ok(folder)
}

/// Gives a file to whoever the repository belongs to.
pub fn give(file: &impl AsFd, owner: &Stat) -> Result<(), Errno> {
    fchown(
        file,
        Some(Uid::from_raw(owner.st_uid)),
        Some(Gid::from_raw(owner.st_gid)),
    )
}
