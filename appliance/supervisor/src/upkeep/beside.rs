//! A client's repository, and a folder beside it where what a job takes out of it is kept. No client sees that folder.
//! Nothing is reached through a link: the repository is its client's.

use super::begin::UpkeepError;
use crate::paths::Paths;
use crate::services::projects;
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
        renameat_with(&from, file, &to, file, RenameFlags::NOREPLACE).map_err(io(&place))?;
        leave_project(&to, file, &place);
        Ok(())
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
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io(&place)(error)),
        }
        leave_project(&to, file, &place);
        Ok(())
    }

    /// What was done is on the disk, also by a run that was cut short.
    pub fn sync(&self) -> Result<(), UpkeepError> {
        rustix::fs::syncfs(&self.repository).map_err(io("the array"))
    }
}

/// What was taken out of a repository counts no more against its client's bound. That it does all the same is no reason to
/// stop a job.
fn leave_project(folder: &OwnedFd, file: &str, place: &str) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let left = openat(folder, file, flags, Mode::empty()).and_then(|file| projects::give(&file, projects::NONE, false));
    match left {
        Ok(_) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => eprintln!("{place} still counts against what its client may take: {error}"),
    }
}

/// Takes a file into the project of the folder that it is to come into, from which ext4 keeps all others out.
pub fn join_project(file: &impl AsFd, folder: &impl AsFd) -> Result<(), Errno> {
    match projects::of(folder).and_then(|project| projects::give(file, project, false)) {
        Ok(_) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::projects::trial::Mounted;
    use std::fs::{self, File};

    #[test]
    fn what_goes_out_of_a_repository_leaves_its_project_and_what_comes_in_joins_it() {
        let Some(mounted) = Mounted::new() else { return };
        let paths = Paths::new(mounted.folder.path());
        let asus = ClientName::new("asus").unwrap();
        let own = paths.repository(&asus);
        fs::create_dir(&own).unwrap();
        projects::give(File::open(&own).unwrap(), 703, true).unwrap();
        fs::create_dir_all(own.join("data/0")).unwrap();
        for number in ["1", "2"] {
            fs::write(own.join("data/0").join(number), "a segment").unwrap();
        }
        let project = |path: &std::path::Path| projects::of(File::open(path).unwrap()).unwrap();
        assert_eq!(project(&own.join("data/0/1")), 703);

        let kept = paths.damaged(&asus).join("1-9");
        let beside = Beside::open(&paths, &asus, &kept).unwrap();
        beside.set_aside(&["data", "0"], "1").unwrap();
        beside.keep(&["data", "0"], "2").unwrap();
        assert_eq!(project(&kept.join("data/0/1")), projects::NONE);
        assert_eq!(project(&kept.join("data/0/2")), projects::NONE);

        let good = paths.damaged(&asus).join("1.new");
        fs::write(&good, "a segment").unwrap();
        let folder = File::open(own.join("data/0")).unwrap();
        assert!(
            fs::rename(&good, own.join("data/0/1")).is_err(),
            "the file system keeps it out"
        );
        join_project(&File::open(&good).unwrap(), &folder).unwrap();
        fs::rename(&good, own.join("data/0/1")).unwrap();
        assert_eq!(project(&own.join("data/0/1")), 703);
        // Over one that has left.
        let again = paths.damaged(&asus).join("2.new");
        fs::write(&again, "a segment").unwrap();
        join_project(&File::open(&again).unwrap(), &folder).unwrap();
        fs::rename(&again, own.join("data/0/2")).unwrap();
    }
}
