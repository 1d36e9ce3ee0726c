//! Holding a client out. Two things do it together: a lock, which no session can have at the same time as the job, and the
//! journal on the state partition, which goes on holding when the job was killed or the power went.
//!
//! Whoever reads or copies the repository on its own account is kept off in the same way: a look, a check, a push.

use crate::durable;
use crate::paths::Paths;
use crate::watch::store;
use rustix::fs::{Gid, Uid, fchown};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::{Journal, Obstacle, Outcome};

/// Longest journal.
const BYTES_MAX: u64 = 4096;

/// Whether a client is held out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It isn't.
    Open,
    /// By this job.
    Standing(Journal),
    /// By something that can't be read.
    Unreadable,
}

/// Reads whether a client is held out.
pub fn of(paths: &Paths, client: &ClientName) -> Hold {
    let path = paths.upkeep(client);
    match durable::read_json(&path, BYTES_MAX) {
        Some(journal) => Hold::Standing(journal),
        None if matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound) => {
            Hold::Open
        }
        None => Hold::Unreadable,
    }
}

/// What the user of a client that is held out is told. `now` is Unix seconds.
pub fn refusal(hold: &Hold, client: &ClientName, now: Option<u64>) -> Option<String> {
    let what = match hold {
        Hold::Open => return None,
        Hold::Standing(journal) => {
            let minutes = now
                .and_then(|now| now.checked_sub(journal.since))
                .map(|since| since / 60);
            let since = match minutes {
                Some(0) | None => String::new(),
                Some(minutes) => format!(" for {minutes} min"),
            };
            format!("is being {}{since}", journal.work.participle())
        }
        Hold::Unreadable => "is being looked after".into(),
    };
    Some(format!(
        "the repository of client `{client}` {what} on the appliance, and is closed until that has ended; `strongroom status` shows it there. Nothing is lost: try again later"
    ))
}

/// What a session that begins has to have, for as long as it runs. `Err`: why it may not begin.
pub fn enter(paths: &Paths, client: &ClientName) -> Result<File, String> {
    let closed = || {
        let hold = match of(paths, client) {
            Hold::Open => Hold::Unreadable,
            other => other,
        };
        refusal(&hold, client, crate::clock_now()).unwrap_or_default()
    };
    let file = open_lock(&paths.session_lock(client)).map_err(|error| {
        eprintln!("{}: {error}", paths.session_lock(client).display());
        "the appliance can't tell whether the repository is closed; restart it".to_string()
    })?;
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(_) => return Err(closed()),
    }
    match of(paths, client) {
        Hold::Open => Ok(file),
        _ => Err(closed()),
    }
}

/// Everything that keeps others off while it is held.
#[derive(Debug)]
pub struct Guard {
    _locks: Vec<File>,
}

/// Why the job could not begin.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Something stands against it.
    #[error("{0}")]
    Obstacle(#[from] Obstacle),
    /// It could not be locked or written down.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> HoldError {
    let path = path.display().to_string();
    move |error| HoldError::Io(path, error)
}

/// Keeps sessions, checks, pushes and looks off. `running` are the client's sessions as systemd tells them: they outlive
/// whoever started them, and with it their lock.
///
/// Errors: one of them is at work. A look is waited for: it takes moments.
pub fn close(paths: &Paths, config: &Config, client: &ClientName, running: &[String]) -> Result<Guard, HoldError> {
    let mut locks = Vec::new();
    let path = paths.session_lock(client);
    let sessions = open_lock(&path).map_err(io(&path))?;
    if !try_lock(&sessions).map_err(io(&path))? || !running.is_empty() {
        return Err(Obstacle::Connected(running.to_vec()).into());
    }
    locks.push(sessions);
    let folder = paths.watch(client);
    let path = folder.join("verify.lock");
    let check = open_lock_of(&folder, "verify.lock").map_err(io(&path))?;
    if !try_lock(&check).map_err(io(&path))? {
        return Err(Obstacle::Busy("check").into());
    }
    locks.push(check);
    let targets = config
        .client(client.as_str())
        .into_iter()
        .flat_map(|client| config.targets_of(client));
    for target in targets {
        let path = paths.ledger(client, target.name.get_ref()).join("ledger.jsonl");
        let ledger = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(io(&path))?,
        };
        if !try_lock(&ledger).map_err(io(&path))? {
            return Err(Obstacle::Busy("push").into());
        }
        locks.push(ledger);
    }
    let path = folder.join("lock");
    open_lock_of(&folder, "lock").map_err(io(&path))?;
    locks.push(store::lock(&folder).map_err(io(&path))?);
    Ok(Guard { _locks: locks })
}

/// Writes the journal. From now on the client is held out, whatever happens.
pub fn write(paths: &Paths, client: &ClientName, journal: &Journal) -> Result<(), HoldError> {
    let path = paths.upkeep(client);
    durable::write_json(&path, journal).map_err(io(&path))
}

/// Writes down how the job ended, and opens the repository again.
pub fn release(paths: &Paths, client: &ClientName, outcome: &Outcome) -> Result<(), HoldError> {
    note(paths, client, outcome)?;
    let path = paths.upkeep(client);
    durable::remove(&path).map_err(io(&path))
}

/// Writes down how the job ended.
pub fn note(paths: &Paths, client: &ClientName, outcome: &Outcome) -> Result<(), HoldError> {
    let path = paths.upkeep_outcome(client);
    durable::write_json(&path, outcome).map_err(io(&path))
}

/// How the last one ended.
pub fn outcome(paths: &Paths, client: &ClientName) -> Option<Outcome> {
    durable::read_json(&paths.upkeep_outcome(client), 4 * BYTES_MAX)
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options().create(true).truncate(false).write(true).open(path)
}

/// A lock in a folder of another account, which has to be able to open it too.
fn open_lock_of(folder: &Path, name: &str) -> io::Result<File> {
    let file = open_lock(&folder.join(name))?;
    let (owner, own) = (fs::metadata(folder)?, file.metadata()?);
    if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
        fchown(
            &file,
            Some(Uid::from_raw(owner.uid())),
            Some(Gid::from_raw(owner.gid())),
        )?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::upkeep::Work;

    fn journal() -> Journal {
        Journal {
            work: Work::Compact { transaction: 9 },
            since: 1000,
            repository: "ab".into(),
            bytes: 5,
            highest: 9,
            objects: Some(1),
            content: None,
        }
    }

    #[test]
    fn sessions_and_the_job_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let (config, asus) = (Config::default(), ClientName::new("asus").unwrap());
        let (one, two) = (enter(&paths, &asus).unwrap(), enter(&paths, &asus).unwrap());
        let refused = close(&paths, &config, &asus, &["asus-1".into()]).unwrap_err();
        assert!(
            refused.to_string().contains("strongroom sessions end asus-1"),
            "{refused}"
        );
        drop((one, two));
        // One that outlived its broker has no lock.
        assert!(close(&paths, &config, &asus, &["asus-1".into()]).is_err());
        let guard = close(&paths, &config, &asus, &[]).unwrap();
        assert!(enter(&paths, &asus).unwrap_err().contains("closed until"));
        assert!(
            enter(&paths, &ClientName::new("laptop").unwrap()).is_ok(),
            "others go on"
        );
        write(&paths, &asus, &journal()).unwrap();
        drop(guard);
        let refused = enter(&paths, &asus).unwrap_err();
        assert!(refused.contains("is being compacted"), "{refused}");
        fs::write(paths.upkeep(&asus), "torn").unwrap();
        assert_eq!(of(&paths, &asus), Hold::Unreadable);
        assert!(enter(&paths, &asus).is_err());
        let outcome = Outcome {
            work: journal().work,
            ended: 2000,
            error: String::new(),
            before: 5,
            after: 3,
            transaction: Some(12),
            repository: "ab".into(),
        };
        release(&paths, &asus, &outcome).unwrap();
        assert!(enter(&paths, &asus).is_ok());
        assert_eq!(super::outcome(&paths, &asus), Some(outcome));
    }

    #[test]
    fn a_check_and_a_look_exclude_the_job() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let (config, asus) = (Config::default(), ClientName::new("asus").unwrap());
        drop(close(&paths, &config, &asus, &[]).unwrap());
        let check = File::options()
            .write(true)
            .open(paths.watch(&asus).join("verify.lock"))
            .unwrap();
        check.lock().unwrap();
        let refused = close(&paths, &config, &asus, &[]).unwrap_err();
        assert!(refused.to_string().contains("a check of it is running"), "{refused}");
        assert!(enter(&paths, &asus).is_ok(), "nothing is left locked");
    }

    #[test]
    fn words_for_the_clients_user() {
        let asus = ClientName::new("asus").unwrap();
        let text = refusal(&Hold::Standing(journal()), &asus, Some(1000 + 600)).unwrap();
        assert!(
            text.starts_with("the repository of client `asus` is being compacted for 10 min"),
            "{text}"
        );
        assert_eq!(refusal(&Hold::Open, &asus, None), None);
    }
}
