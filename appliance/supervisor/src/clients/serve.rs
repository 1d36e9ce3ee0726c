//! The role `strongroom-serve NAME`: the forced command of a client's key. It becomes `borg serve`, confined to that
//! client's repository and append-only; it runs nothing else, whatever the client asked for.

use crate::paths::{ARRAY_MOUNT, Paths};
use crate::services::mounts;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use strongroom_model::name::ClientName;

/// How long a session waits for a repository that is about to be made ready: right after the array was mounted, or the
/// client was admitted, its folder and user are still being put in order.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a session was refused. The client's user reads this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The generated command is wrong.
    #[error("strongroom-serve was started without a client's name; make a report to the appliance's owner")]
    NoName,
    /// No command was given: a shell was wanted.
    #[error(
        "Strongroom: this key belongs to client `{0}` and serves Borg only. Use it as borgbackup@HOST:/mnt/raid/{0}_repository"
    )]
    NotBorg(ClientName),
    /// The array is not mounted.
    #[error(
        "Strongroom: the array is not ready, so nothing can be backed up or restored now. The appliance's console and status say why"
    )]
    NoArray,
    /// The repository's folder is missing.
    #[error("Strongroom: the repository of client `{0}` has not been made ready yet. Try again in a minute")]
    NoRepository(ClientName),
    /// Borg could not be started.
    #[error("Strongroom: borg could not be started: {0}")]
    Start(String),
}

/// Checks what can be checked and becomes `borg serve`. Returns only with an error.
pub fn run(paths: &Paths, name: Option<&str>, wanted: Option<OsString>) -> ServeError {
    match prepare_within(PATIENCE, paths, name, wanted) {
        Ok(mut command) => ServeError::Start(command.exec().to_string()),
        Err(error) => error,
    }
}

/// Like [`prepare`], but a repository that isn't ready may become so within this time.
fn prepare_within(
    patience: Duration,
    paths: &Paths,
    name: Option<&str>,
    wanted: Option<OsString>,
) -> Result<Command, ServeError> {
    let start = Instant::now();
    loop {
        match prepare(paths, name, wanted.clone()) {
            Err(ServeError::NoRepository(_)) if start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(200));
            }
            decided => return decided,
        }
    }
}

fn prepare(paths: &Paths, name: Option<&str>, wanted: Option<OsString>) -> Result<Command, ServeError> {
    let name = name
        .and_then(|name| ClientName::new(name).ok())
        .ok_or(ServeError::NoName)?;
    let Some(wanted) = wanted.filter(is_borg_serve) else {
        return Err(ServeError::NotBorg(name));
    };
    if mounts::at(paths, ARRAY_MOUNT).is_none() {
        return Err(ServeError::NoArray);
    }
    let repository = paths.repository(&name);
    if !repository.is_dir() {
        return Err(ServeError::NoRepository(name));
    }
    let mut command = Command::new("borg");
    command
        .args(["serve", "--append-only", "--umask=077", "--restrict-to-repository"])
        .arg(repository)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HOME", "/var/lib/strongroom/borgbackup")
        .env("BORG_BASE_DIR", "/var/lib/strongroom/borgbackup")
        // borg takes the log level and --lock-wait from here and ignores the rest (FACTS: Serving).
        .env("SSH_ORIGINAL_COMMAND", wanted)
        .current_dir("/");
    Ok(command)
}

/// The client's `--remote-path` may name the program otherwise, as in `borg-1.4` or `/usr/bin/borg`.
fn is_borg_serve(wanted: &OsString) -> bool {
    let text = wanted.to_string_lossy();
    let mut words = text.split_ascii_whitespace();
    let program = words
        .next()
        .and_then(|program| program.rsplit('/').next())
        .unwrap_or_default();
    program.starts_with("borg") && words.next() == Some("serve")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appliance(mounted: bool, repository: bool) -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        std::fs::create_dir_all(paths.at("/proc/self")).unwrap();
        let table = if mounted {
            "36 35 9:127 / /mnt/raid rw - ext4 /dev/md127 rw\n"
        } else {
            ""
        };
        std::fs::write(paths.at("/proc/self/mountinfo"), table).unwrap();
        if repository {
            std::fs::create_dir_all(paths.at("/mnt/raid/asus_repository")).unwrap();
        }
        (folder, paths)
    }

    fn refusal(paths: &Paths, name: Option<&str>, wanted: Option<&str>) -> ServeError {
        prepare(paths, name, wanted.map(OsString::from)).unwrap_err()
    }

    #[test]
    fn the_session_is_confined_whatever_was_asked_for() {
        let (_folder, paths) = appliance(true, true);
        for wanted in [
            "borg serve",
            "borg serve --restrict-to-path / --umask=000",
            "/usr/local/bin/borg-1.4 serve --debug",
        ] {
            let command = prepare(&paths, Some("asus"), Some(wanted.into())).unwrap();
            let arguments: Vec<String> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
            assert_eq!(
                arguments[..4],
                ["serve", "--append-only", "--umask=077", "--restrict-to-repository"]
            );
            assert!(arguments[4].ends_with("/mnt/raid/asus_repository"));
            assert_eq!(arguments.len(), 5);
        }
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let (_folder, paths) = appliance(true, true);
        let asus = ClientName::new("asus").unwrap();
        for wanted in [
            None,
            Some("sh"),
            Some(""),
            Some("scp -t /"),
            Some("borg create x"),
            Some("sh -c 'borg serve'"),
        ] {
            assert_eq!(refusal(&paths, Some("asus"), wanted), ServeError::NotBorg(asus.clone()));
        }
        assert_eq!(refusal(&paths, Some("../x"), Some("borg serve")), ServeError::NoName);
        assert_eq!(refusal(&paths, None, Some("borg serve")), ServeError::NoName);
    }

    #[test]
    fn an_array_that_is_not_there_is_told_and_nothing_is_written_beneath_the_mount_point() {
        let (_folder, paths) = appliance(false, true);
        assert_eq!(refusal(&paths, Some("asus"), Some("borg serve")), ServeError::NoArray);
        let (_folder, paths) = appliance(true, false);
        assert!(matches!(
            refusal(&paths, Some("asus"), Some("borg serve")),
            ServeError::NoRepository(_)
        ));
    }

    #[test]
    fn a_repository_that_is_about_to_be_ready_is_waited_for_and_one_that_never_is_refused() {
        let (folder, paths) = appliance(true, false);
        let wanted = || Some(OsString::from("borg serve"));
        let repository = folder.path().join("mnt/raid/asus_repository");
        let maker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::create_dir_all(repository)
        });
        assert!(prepare_within(PATIENCE, &paths, Some("asus"), wanted()).is_ok());
        maker.join().unwrap().unwrap();
        let refused = prepare_within(Duration::ZERO, &paths, Some("attic"), wanted()).unwrap_err();
        assert!(matches!(refused, ServeError::NoRepository(_)));
    }
}
