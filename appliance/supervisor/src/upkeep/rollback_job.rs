//! The role `strongroom-upkeep rollback NAME:LAST:TO`: undoes what a client did after transaction TO. Nothing is deleted:
//! the segments after TO, and what Borg derived from them, are moved into a folder beside the repository that no client
//! sees. Borg derives the rest anew.
//!
//! A segment's number is never used twice, since the objects of off-site copies bear it: above all numbers that there ever
//! were, a segment is left that holds a commit only, and Borg goes on after it.
//!
//! Each step can be done again, and from the top of the numbers down what is left is a repository at every moment. A job
//! that was cut short goes on where it was; its client stays held out until then.

use super::begin::{self, Begun, UpkeepError};
use super::{hold, told};
use crate::configuration::in_force;
use crate::paths::Paths;
use crate::services::systemd::Systemd;
use crate::sessions::list;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, fchown, fstat, mkdirat, openat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use strongroom_borg::segment::{COMMIT, COMMIT_SEGMENT_SIZE, MAGIC};
use strongroom_borg::{Repository, SegmentFile};
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::{Journal, Outcome, Work, rollback};
use zbus::Connection;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// What Borg derives from segments, and replaces with each transaction.
const DERIVED: [&str; 3] = ["index.", "hints.", "integrity."];

/// Runs the role to its end.
pub fn run(paths: &Paths, instance: &str) -> Result<(), UpkeepError> {
    let Some((name, work @ Work::RollBack { .. })) = Work::of_instance(instance) else {
        return Err(UpkeepError::Usage);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let running = runtime.block_on(async {
        let systemd = Systemd::new(&Connection::system().await?).await?;
        Ok::<_, UpkeepError>(list::of_client(&systemd, &name).await?)
    })?;
    let begun = match begin::begin(paths, &in_force(paths), &name, work, &running) {
        Ok(begun) => begun,
        Err(error) => {
            return begin::refused(paths, &name, work, error);
        }
    };
    undo(paths, &name, &begun.journal, &mut || true)?;
    let outcome = finish(paths, &name, &begun)?;
    hold::release(paths, &name, &outcome)?;
    begin::say(&name, &outcome);
    Ok(())
}

/// Where a rollback keeps what it took out: a folder of its own for each, as the numbers are never used twice.
pub fn kept(paths: &Paths, name: &ClientName, journal: &Journal, to: u32) -> std::path::PathBuf {
    let range = rollback::KeptRange {
        to,
        highest: journal.highest,
    };
    paths.rolled_back(name).join(range.to_string())
}

/// Does all steps that are not done yet. `go_on` is asked before each; returns whether it came to its end.
pub fn undo(
    paths: &Paths,
    name: &ClientName,
    journal: &Journal,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<bool, UpkeepError> {
    let Work::RollBack { to, .. } = journal.work else {
        return Err(UpkeepError::Usage);
    };
    let seal = rollback::sealing(journal.highest).ok_or(UpkeepError::NoNumber)?;
    let path = paths.repository(name);
    let repository = Repository::open(&path)?;
    let undoing = Undoing::open(paths, name, &kept(paths, name, journal, to))?;
    for file in undoing.derived()? {
        if !go_on() {
            return Ok(false);
        }
        undoing.set_aside(&[], &file)?;
    }
    let segments: BTreeMap<u32, SegmentFile> = repository
        .segments()?
        .into_iter()
        .map(|segment| (segment.number.0, segment))
        .collect();
    for number in rollback::moved(segments.keys().copied(), to, journal.highest) {
        if !go_on() {
            return Ok(false);
        }
        let places: Vec<&str> = segments
            .get(&number)
            .map(|segment| segment.name.split('/').collect())
            .unwrap_or_default();
        if let [folders @ .., file] = &places[..] {
            undoing.set_aside(folders, file)?;
        }
    }
    if !go_on() {
        return Ok(false);
    }
    undoing.seal(seal, repository.config().segments_per_dir)?;
    undoing.sync()?;
    Ok(true)
}

/// Tells what is remembered what came of it.
pub fn finish(paths: &Paths, name: &ClientName, begun: &Begun) -> Result<Outcome, UpkeepError> {
    let journal = &begun.journal;
    let Work::RollBack { to, .. } = journal.work else {
        return Err(UpkeepError::Usage);
    };
    let now = told::rolled_back(paths, name, to)?;
    let expected = rollback::sealing(journal.highest);
    let error = if now.transaction == expected {
        String::new()
    } else {
        format!(
            "the repository's last transaction should be {expected:?} now, but is {:?}; `strongroom check {name}`",
            now.transaction
        )
    };
    Ok(Outcome {
        work: journal.work,
        ended: crate::clock_now().unwrap_or_default(),
        error,
        before: journal.bytes,
        after: now.bytes,
        transaction: now.transaction,
        repository: journal.repository.clone(),
    })
}

fn io(what: impl std::fmt::Display) -> impl FnOnce(Errno) -> UpkeepError {
    let what = what.to_string();
    move |error| UpkeepError::Io(what, error.into())
}

/// The repository and the folder beside it. Nothing is reached through a link: the repository is its client's.
struct Undoing {
    repository: OwnedFd,
    kept: OwnedFd,
    /// Whose the repository is.
    owner: Stat,
}

impl Undoing {
    fn open(paths: &Paths, name: &ClientName, kept: &std::path::Path) -> Result<Self, UpkeepError> {
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
    fn derived(&self) -> Result<Vec<String>, UpkeepError> {
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
    fn set_aside(&self, folders: &[&str], file: &str) -> Result<(), UpkeepError> {
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
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(UpkeepError::Io(
                place,
                std::io::Error::other("it is not a regular file"),
            ));
        }
        // Never over what was kept before.
        renameat_with(&from, file, &to, file, RenameFlags::NOREPLACE).map_err(io(&place))
    }

    /// Leaves a segment with a commit only.
    fn seal(&self, number: u32, per_folder: u32) -> Result<(), UpkeepError> {
        let what = format!("segment {number}");
        let content = [&MAGIC[..], &COMMIT[..]].concat();
        let data = openat(&self.repository, "data", FOLDER, Mode::empty()).map_err(io(&what))?;
        let folder = (number / per_folder).to_string();
        let folder = folder_in(&data, folder.as_ref(), Some(&self.owner)).map_err(io(&what))?;
        let (name, new) = (number.to_string(), format!("{number}.new"));
        match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            // Of an attempt before.
            Ok(found) if u64::try_from(found.st_size) == Ok(COMMIT_SEGMENT_SIZE) => {}
            Ok(_) => return Err(UpkeepError::Io(what, std::io::ErrorKind::AlreadyExists.into())),
            Err(Errno::NOENT) => {
                match unlinkat(&folder, &new, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(io(&what)(error)),
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&folder, &new, flags, Mode::RUSR | Mode::WUSR).map_err(io(&what))?;
                give(&file, &self.owner).map_err(io(&what))?;
                let mut file = File::from(file);
                file.write_all(&content)
                    .and_then(|()| file.sync_all())
                    .map_err(|error| UpkeepError::Io(what.clone(), error))?;
                renameat_with(&folder, &new, &folder, &name, RenameFlags::NOREPLACE).map_err(io(&what))?;
            }
            Err(error) => return Err(io(&what)(error)),
        }
        Ok(())
    }

    /// What was done is on the disk, also by a run that was cut short.
    fn sync(&self) -> Result<(), UpkeepError> {
        rustix::fs::syncfs(&self.repository).map_err(io("the array"))
    }
}

/// A folder in a folder, made where it isn't there yet: its owner's alone.
fn folder_in(parent: &impl AsFd, name: &std::ffi::OsStr, owner: Option<&Stat>) -> Result<OwnedFd, Errno> {
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

fn give(file: &impl AsFd, owner: &Stat) -> Result<(), Errno> {
    fchown(
        file,
        Some(Uid::from_raw(owner.st_uid)),
        Some(Gid::from_raw(owner.st_gid)),
    )
}
