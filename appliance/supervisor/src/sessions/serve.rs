//! The role `strongroom-serve NAME [restore] FINGERPRINT`: the forced command of a client's key. It sees that nothing but
//! Borg is wanted, and that the key is still admitted (a connection may be older than a revocation), has the broker start a session with this connection, and waits for its end. Whatever the client asked for, only
//! how much Borg tells is taken from it.

use super::unit::{Level, Right};
use super::wire::{self, Answer, Request};
use crate::configuration::in_force;
use crate::paths::{ARRAY_MOUNT, Paths};
use crate::services::mounts;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;

/// How long a session waits for a repository that is about to be made ready: right after the array was mounted, or the
/// client was admitted, its folder and user are still being put in order.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// What the command of a key for restores says after the name.
pub const RESTORE: &str = "restore";

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
    /// The key was admitted when the connection was made, but is no more.
    #[error("Strongroom: this key of client `{0}` is not admitted any more")]
    NotAdmitted(ClientName),
    /// The array is not mounted.
    #[error(
        "Strongroom: the array is not ready, so nothing can be backed up or restored now. The appliance's console and status say why"
    )]
    NoArray,
    /// The repository's folder is missing, or is still being taken over.
    #[error("Strongroom: the repository of client `{0}` has not been made ready yet. Try again in a minute")]
    NoRepository(ClientName),
    /// The broker can't be asked.
    #[error("Strongroom: sessions can't be started now: {0}. Try again in a minute")]
    NoBroker(String),
    /// The broker refused, or the session came to a bad end.
    #[error("Strongroom: {0}")]
    Refused(String),
    /// The connection is gone: nobody reads this.
    #[error("the connection is gone")]
    Gone,
}

/// Checks what can be checked, and has the session run to its end. Returns Borg's exit code.
pub fn run(paths: &Paths, arguments: &[String], wanted: Option<OsString>) -> Result<u8, ServeError> {
    let (request, fingerprint) = request(arguments, wanted.as_deref())?;
    let start = Instant::now();
    loop {
        match attempt(paths, &request, &fingerprint) {
            Err(ServeError::NoRepository(_)) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            decided => return decided,
        }
    }
}

fn attempt(paths: &Paths, request: &Request, fingerprint: &str) -> Result<u8, ServeError> {
    let config = in_force(paths);
    if !is_admitted(&config, request, fingerprint) {
        return Err(ServeError::NotAdmitted(request.client.clone()));
    }
    if config
        .client(request.client.as_str())
        .is_some_and(|client| client.paused)
    {
        return Err(ServeError::Refused(paused(&request.client)));
    }
    if mounts::at(paths, ARRAY_MOUNT).is_none() {
        return Err(ServeError::NoArray);
    }
    let broker = connected(paths).map_err(|error| ServeError::NoBroker(error.to_string()))?;
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    wire::send_request(&broker, request, [input.as_fd(), output.as_fd(), errors.as_fd()])
        .map_err(|error| ServeError::NoBroker(io::Error::from(error).to_string()))?;
    loop {
        return match wait(&broker, &output) {
            Some(Answer::Waits(why)) => {
                // Whether anybody reads it or not.
                let _ = writeln!(io::stderr(), "Strongroom: {why}");
                continue;
            }
            Some(Answer::Ended(code)) => Ok(code),
            Some(Answer::NotYet) => Err(ServeError::NoRepository(request.client.clone())),
            Some(Answer::Refused(why)) => Err(ServeError::Refused(why)),
            None => Err(ServeError::Gone),
        };
    }
}

fn connected(paths: &Paths) -> Result<OwnedFd, io::Error> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(paths.at(wire::SOCKET))?)?;
    Ok(socket)
}

/// Waits for the broker's answer; `None` when the connection is gone, whose end sshd shows by hanging up on the output.
fn wait(broker: &OwnedFd, output: &impl AsFd) -> Option<Answer> {
    loop {
        let mut watched = [
            PollFd::new(broker, PollFlags::IN),
            PollFd::new(output, PollFlags::empty()),
        ];
        match poll(&mut watched, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        if !watched[0].revents().is_empty() {
            let broken = || Answer::Refused("the session was ended: its supervisor stopped".into());
            return Some(wire::receive_answer(broker).ok().flatten().unwrap_or_else(broken));
        }
        if watched[1].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            return None;
        }
    }
}

/// What the user of a client that is held out is told.
pub fn paused(client: &ClientName) -> String {
    format!(
        "client `{client}` is paused by the appliance's owner; nothing is lost, and `strongroom client resume {client}` there lets it in again"
    )
}

/// Whether the key with which the connection was made still has its right.
fn is_admitted(config: &Config, request: &Request, fingerprint: &str) -> bool {
    let reads = request.right == Right::Read;
    let client = config.client(request.client.as_str());
    client.is_some_and(|client| {
        let mut keys = client.all_keys();
        keys.any(|(key, restore)| restore == reads && key.fingerprint() == fingerprint)
    })
}

/// What is asked for, and the key's fingerprint.
fn request(arguments: &[String], wanted: Option<&OsStr>) -> Result<(Request, String), ServeError> {
    let (name, right, fingerprint) = match arguments {
        [name, fingerprint] => (name, Right::Append, fingerprint),
        [name, restore, fingerprint] if restore == RESTORE => (name, Right::Read, fingerprint),
        _ => return Err(ServeError::NoName),
    };
    let client = ClientName::new(name).map_err(|_| ServeError::NoName)?;
    let level = wanted
        .and_then(level)
        .ok_or_else(|| ServeError::NotBorg(client.clone()))?;
    Ok((Request { client, right, level }, fingerprint.clone()))
}

/// How much Borg is to tell, if the wanted command is `borg serve`; `None` when it is anything else.
///
/// The client's `--remote-path` may name the program otherwise, as in `borg-1.4` or `/usr/bin/borg`. Borg itself takes
/// nothing else that matters from this command (FACTS: Serving); the time to wait for a lock comes over the connection.
fn level(wanted: &OsStr) -> Option<Level> {
    let text = wanted.to_str()?;
    let mut words = text.split_ascii_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    if !program.starts_with("borg") || words.next() != Some("serve") {
        return None;
    }
    let known = |word: &str| match word {
        "-v" | "--verbose" => Some(Level::Info),
        _ => Level::ALL.into_iter().find(|level| level.option() == word),
    };
    Some(words.filter_map(known).next_back().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "SHA256:Pc1/JGh4iN3i6tWuNUUT6mkd/yiapqWo1vok87uKLl0";
    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO";

    fn asked(arguments: &[&str], wanted: Option<&str>) -> Result<Request, ServeError> {
        let arguments: Vec<String> = arguments.iter().map(|text| text.to_string()).collect();
        request(&arguments, wanted.map(OsStr::new)).map(|(request, _)| request)
    }

    #[test]
    fn the_request_is_the_same_whatever_was_asked_for() {
        for (wanted, level) in [
            ("borg serve", Level::Warning),
            ("borg serve --restrict-to-path / --umask=000", Level::Warning),
            (
                "borg serve --restrict-to-repository / --storage-quota 1P",
                Level::Warning,
            ),
            ("/usr/local/bin/borg-1.4 serve --debug", Level::Debug),
            ("borg serve --info --umask=077 --error", Level::Error),
        ] {
            let expected = Request {
                client: ClientName::new("asus").unwrap(),
                right: Right::Append,
                level,
            };
            assert_eq!(asked(&["asus", KEY], Some(wanted)), Ok(expected), "{wanted}");
        }
        assert_eq!(
            asked(&["asus", "restore", KEY], Some("borg serve")).unwrap().right,
            Right::Read
        );
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let asus = ClientName::new("asus").unwrap();
        for wanted in [
            None,
            Some("sh"),
            Some(""),
            Some("scp -t /"),
            Some("borg create x"),
            Some("sh -c 'borg serve'"),
            Some("/usr/lib/openssh/sftp-server"),
            Some("rsync --server . /"),
            Some(";borg serve"),
            Some("borg\u{0}serve"),
        ] {
            assert_eq!(
                asked(&["asus", KEY], wanted),
                Err(ServeError::NotBorg(asus.clone())),
                "{wanted:?}"
            );
        }
        for arguments in [
            &["../x", KEY][..],
            &[],
            &["asus"],
            &["asus", "write", KEY],
            &["asus", "restore", KEY, "x"],
        ] {
            assert_eq!(
                asked(arguments, Some("borg serve")),
                Err(ServeError::NoName),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn a_key_counts_as_long_as_it_is_admitted() {
        let config = |keys: &str| Config::parse(&format!("[[client]]\nname = \"asus\"\n{keys}\n")).unwrap();
        let backup = config(&format!("keys = [\"{LINE}\"]"));
        let other = LINE.replace("AAAAIKmL7", "AAAAIKmL8");
        let restore = config(&format!("keys = [\"{other}\"]\nrestore_keys = [\"{LINE}\"]"));
        let append = asked(&["asus", KEY], Some("borg serve")).unwrap();
        let read = asked(&["asus", "restore", KEY], Some("borg serve")).unwrap();
        assert!(is_admitted(&backup, &append, KEY) && is_admitted(&restore, &read, KEY));
        assert!(!is_admitted(&backup, &read, KEY) && !is_admitted(&restore, &append, KEY));
        assert!(!is_admitted(&backup, &append, "") && !is_admitted(&Config::default(), &append, KEY));
    }

    #[test]
    fn an_array_that_is_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        std::fs::create_dir_all(paths.at("/proc/self")).unwrap();
        std::fs::write(paths.at("/proc/self/mountinfo"), "").unwrap();
        let request = asked(&["asus", KEY], Some("borg serve")).unwrap();
        let attempt = |paths: &Paths, request: &Request| attempt(paths, request, KEY);
        assert!(matches!(attempt(&paths, &request), Err(ServeError::NotAdmitted(_))));
        crate::durable::write(
            &paths.config(),
            format!("[[client]]\nname = \"asus\"\nkeys = [\"{LINE}\"]\n").as_bytes(),
            0o644,
        )
        .unwrap();
        assert_eq!(attempt(&paths, &request), Err(ServeError::NoArray));
        std::fs::write(
            paths.at("/proc/self/mountinfo"),
            "36 35 9:127 / /mnt/raid rw - ext4 /dev/md127 rw\n",
        )
        .unwrap();
        assert!(matches!(attempt(&paths, &request), Err(ServeError::NoBroker(_))));
    }

    #[test]
    fn a_connection_that_goes_is_noticed_and_one_that_only_says_no_more_is_not() {
        use rustix::net::socketpair;
        use std::os::unix::net::UnixStream;
        let (broker, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        // sshd keeps the input and the output of a command in one pair of sockets.
        let (far, near) = UnixStream::pair().unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        wire::send_answer(&other, &Answer::Ended(1));
        assert_eq!(wait(&broker, &near), Some(Answer::Ended(1)));
        drop(far);
        assert_eq!(wait(&broker, &near), None);
        let (_far, near) = UnixStream::pair().unwrap();
        drop(other);
        assert!(matches!(wait(&broker, &near), Some(Answer::Refused(_))));
    }

    proptest! {
        #[test]
        fn whatever_the_client_sends_decides_the_level_only(wanted in "\\PC{0,200}") {
            match asked(&["asus", KEY], Some(&wanted)) {
                Ok(request) => prop_assert_eq!((request.client.as_str(), request.right), ("asus", Right::Append)),
                Err(error) => prop_assert!(matches!(error, ServeError::NotBorg(_))),
            }
        }
    }
}
