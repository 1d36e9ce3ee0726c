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
use super::beside::{Beside, FOLDER, folder_in, give, io, remove};
use super::{hold, told};
use crate::configuration::in_force;
use crate::paths::Paths;
use crate::services::systemd::Systemd;
use crate::sessions::list;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, openat, renameat_with, statat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use strongroom_borg::segment::{COMMIT, COMMIT_SEGMENT_SIZE, MAGIC};
use strongroom_borg::{Repository, SegmentFile};
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::{Journal, Outcome, Work, rollback};
use zbus::Connection;

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
    let beside = Beside::open(paths, name, &kept(paths, name, journal, to))?;
    for file in beside.derived()? {
        if !go_on() {
            return Ok(false);
        }
        beside.set_aside(&[], &file)?;
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
            beside.set_aside(folders, file)?;
        }
    }
    if !go_on() {
        return Ok(false);
    }
    self::seal(&beside, seal, repository.config().segments_per_dir)?;
    beside.sync()?;
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
    Ok(now.outcome(journal, crate::clock_now().unwrap_or_default(), error))
}

/// Leaves a segment with a commit only.
fn seal(beside: &Beside, number: u32, per_folder: u32) -> Result<(), UpkeepError> {
    let what = format!("segment {number}");
    let content = [&MAGIC[..], &COMMIT[..]].concat();
    let data = openat(&beside.repository, "data", FOLDER, Mode::empty()).map_err(io(&what))?;
    let folder = (number / per_folder).to_string();
    let folder = folder_in(&data, folder.as_ref(), Some(&beside.owner)).map_err(io(&what))?;
    let (name, new) = (number.to_string(), format!("{number}.new"));
    match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
        // Of an attempt before.
        Ok(found) if u64::try_from(found.st_size) == Ok(COMMIT_SEGMENT_SIZE) => {}
        Ok(_) => return Err(UpkeepError::Io(what, std::io::ErrorKind::AlreadyExists.into())),
        Err(Errno::NOENT) => {
            remove(&folder, &new).map_err(io(&what))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&folder, &new, flags, Mode::RUSR | Mode::WUSR).map_err(io(&what))?;
            give(&file, &beside.owner).map_err(io(&what))?;
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
