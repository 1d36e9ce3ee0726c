//! What Borg does not bound of a session, bounded from beside it.
//!
//! - Borg commits no transaction above the quota, but goes on writing what a client sends after it was told so
//!   (`Repository.put` of Borg 1.1 to 1.4): by hand, a client could fill the array within its one transaction.
//! - The session that makes a repository is not append-only (`RepositoryServer.open`). Held open, it could erase what
//!   others store later, so it is short.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::io;
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
    until: Option<Instant>,
}

impl Bounds {
    /// Of a session that begins now, for which Borg is told this quota; `None` when Borg itself keeps all of them.
    pub fn new(repository: &Path, quota: Option<u64>) -> Option<Self> {
        let is_made = fs::symlink_metadata(repository.join("config")).is_ok();
        let bounds = Self {
            data: repository.join("data"),
            most: quota.map(|quota| largest(quota, committed(repository))),
            until: (!is_made).then(|| Instant::now() + MAKING_MAX),
        };
        (bounds.most.is_some() || bounds.until.is_some()).then_some(bounds)
    }

    fn passed(&self, now: Instant) -> Option<Passed> {
        if self.most.is_some_and(|most| size(&self.data) > most) {
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

/// Bytes in the two levels of folders that Borg has. What comes and goes meanwhile may count or not.
fn size(data: &Path) -> u64 {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries(data).flat_map(|folder| entries(&folder.path()));
    folders
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum()
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
