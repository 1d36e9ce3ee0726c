//! What Borg does not bound of a session, bounded from beside it.
//!
//! - Borg commits no transaction above the quota, but goes on writing what a client sends after it was told so
//!   (`Repository.put` of Borg 1.1 to 1.4): by hand, a client could fill the array within its one transaction.
//! - The session that makes a repository is not append-only (`RepositoryServer.open`). Held open, it could erase what
//!   others store later, so it is short.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use strongroom_borg::Repository;
use strongroom_model::session::largest;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Longest session that makes a repository. `borg init` takes seconds.
const MAKING_MAX: Duration = Duration::from_secs(600);
/// Exit code of a session when the quota was passed. Borg has none above 127, systemd none below 200.
pub const PASSED_QUOTA: u8 = 198;
/// Exit code of a session when making the repository took too long.
pub const TOO_LONG: u8 = 199;

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// More was stored than the quota allows.
    Quota,
    /// The repository was made long ago.
    Making,
}

/// The bounds of one session.
#[derive(Debug)]
pub struct Bounds {
    data: PathBuf,
    most: Option<u64>,
    /// What an earlier session left without a commit. Borg deletes it when this one stores the first thing, so it counts for
    /// nothing until it is changed.
    left: BTreeSet<File>,
    until: Option<Instant>,
}

impl Bounds {
    /// Of a session that begins now, for which Borg is told this quota; `None` when Borg itself keeps all of them.
    pub fn new(repository: &Path, quota: Option<u64>) -> Option<Self> {
        let is_made = fs::symlink_metadata(repository.join("config")).is_ok();
        let data = repository.join("data");
        let bounds = Self {
            most: quota.map(|quota| largest(quota, committed(repository))),
            left: quota.map(|_| left(repository, &data)).unwrap_or_default(),
            data,
            until: (!is_made).then(|| Instant::now() + MAKING_MAX),
        };
        (bounds.most.is_some() || bounds.until.is_some()).then_some(bounds)
    }

    fn passed(&self, now: Instant) -> Option<Passed> {
        if self.most.is_some_and(|most| size(&self.data, &self.left) > most) {
            return Some(Passed::Quota);
        }
        self.until.is_some_and(|until| now > until).then_some(Passed::Making)
    }

    /// Runs the program to its end, or to that of its bounds. Returns which it was.
    pub fn hold(&self, program: &mut Command) -> io::Result<Result<ExitStatus, Passed>> {
        let look = Timespec::try_from(LOOK).map_err(io::Error::other)?;
        let mut child = program.spawn()?;
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        loop {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&look)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = child.try_wait()? {
                return Ok(Ok(status));
            }
            if let Some(passed) = self.passed(Instant::now()) {
                child.kill()?;
                child.wait()?;
                return Ok(Err(passed));
            }
        }
    }
}

/// Bytes of all segments that a commit has made final. What can't be told counts as nothing.
pub(super) fn committed(repository: &Path) -> u64 {
    let sum = || {
        let repository = Repository::open(repository)?;
        let last = repository.last_commit()?.map(|commit| commit.transaction);
        let state = last.map(|transaction| repository.state(transaction)).transpose()?;
        Ok::<u64, strongroom_borg::Error>(state.unwrap_or_default().iter().map(|segment| segment.size).sum())
    };
    sum().unwrap_or_default()
}

/// A file as it is: another number, or another time of its last change, and it is not the same any more.
type File = (u64, i64, i64);

fn file(found: &Metadata) -> File {
    (found.ino(), found.ctime(), found.ctime_nsec())
}

/// The segments after the last commit.
fn left(repository: &Path, data: &Path) -> BTreeSet<File> {
    let last = Repository::open(repository).and_then(|repository| repository.last_commit());
    let Ok(Some(last)) = last else {
        return BTreeSet::new();
    };
    let is_later = |name: &OsStr| {
        let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
        number.is_some_and(|number| number > last.transaction.0)
    };
    files(data)
        .filter(|(name, _)| is_later(name))
        .map(|(_, found)| file(&found))
        .collect()
}

/// Bytes of all but what was `left`.
fn size(data: &Path, left: &BTreeSet<File>) -> u64 {
    files(data)
        .filter(|(_, found)| !left.contains(&file(found)))
        .map(|(_, found)| found.len())
        .sum()
}

/// What is in the two levels of folders that Borg has. What comes and goes meanwhile may be among it or not.
fn files(data: &Path) -> impl Iterator<Item = (OsString, Metadata)> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries(data).flat_map(move |folder| entries(&folder.path()));
    folders.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_watched_only_where_borg_bounds_too_little() {
        let folder = tempfile::tempdir().unwrap();
        let making = Bounds::new(folder.path(), None).unwrap();
        let begun = Instant::now();
        assert_eq!(making.passed(begun), None);
        assert_eq!(making.passed(begun + MAKING_MAX * 2), Some(Passed::Making));
        fs::write(folder.path().join("config"), "[repository]\n").unwrap();
        assert!(Bounds::new(folder.path(), None).is_none());
        let bounded = Bounds::new(folder.path(), Some(1)).unwrap();
        assert_eq!(bounded.passed(begun + MAKING_MAX * 2), None);
        // A file with a hole counts as what it says.
        fs::create_dir_all(folder.path().join("data/0")).unwrap();
        let file = fs::File::create(folder.path().join("data/0/1")).unwrap();
        file.set_len(largest(1, 0)).unwrap();
        assert_eq!(bounded.passed(begun), None);
        fs::write(folder.path().join("data/0/2"), "x").unwrap();
        assert_eq!(bounded.passed(begun), Some(Passed::Quota));
    }

    #[test]
    fn a_program_runs_to_its_own_end_or_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds::new(folder.path(), Some(0)).unwrap();
        let ended = bounds.hold(Command::new("sh").args(["-c", "exit 3"])).unwrap();
        assert_eq!(ended.unwrap().code(), Some(3));
        let over = Bounds {
            most: None,
            until: Some(Instant::now()),
            ..bounds
        };
        assert_eq!(over.hold(Command::new("sleep").arg("60")).unwrap(), Err(Passed::Making));
    }
}
