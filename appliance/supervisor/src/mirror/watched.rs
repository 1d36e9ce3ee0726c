//! The copy of what is remembered of the clients' repositories (`crate::watch`): what was found and is held, what was
//! checked, and every version of their settings. It lies beside the copy of the settings, in `<machine id>.watch`, and is
//! brought up to date file by file, since ledgers of segments may be large.
//!
//! Only root can look into `.strongroom`, and no session of a client sees it; what is brought back is believed only if
//! that still is so.

use super::{MirrorError, is_machine_id};
use crate::configuration::in_force;
use crate::durable;
use crate::paths::Paths;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use strongroom_model::name::ClientName;

/// What is copied of each client's folder; `segments` is the ledger of the checks.
const FILES: [&str; 5] = [
    "record.json",
    "archives.json",
    "transactions.json",
    "verification.json",
    "segments",
];
/// The versions of the repository's settings.
const VERSIONS: &str = "config";
/// Most of those.
const VERSIONS_MAX: usize = 64;
/// Largest file that is copied, in bytes: a full ledger has about 10 MB.
const FILE_MAX: u64 = 16 << 20;
/// Most passes of one run.
const PASSES_MAX: usize = 8;
/// What the name of the folder ends in, after the machine id.
pub const ENDING: &str = ".watch";

/// Where the copy of the appliance `id` lies.
pub fn folder(paths: &Paths, id: &str) -> PathBuf {
    paths.mirror().join(format!("{id}{ENDING}"))
}

/// Brings the copy up to date, again where something was written: a look that ended meanwhile has asked in vain.
pub fn run(paths: &Paths) -> Result<(), MirrorError> {
    for _ in 0..PASSES_MAX {
        if keep(paths)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Brings the copy up to date. Returns how many files had to be written. A client whose records are being changed is passed
/// over: whoever changes them asks for the copy afterwards.
pub fn keep(paths: &Paths) -> Result<usize, MirrorError> {
    if paths.recall_pending().exists() || paths.state_lost().exists() {
        eprintln!("Nothing is copied: what the array holds is worth more than what is here.");
        return Ok(0);
    }
    let id = fs::read_to_string(paths.state().join(super::MACHINE_ID))?;
    let id = id.trim();
    if !is_machine_id(id) {
        return Err(MirrorError::MachineId);
    }
    super::make_top(paths)?;
    let mut written = 0;
    for client in clients(&paths.watches()) {
        let (from, to) = (paths.watch(&client), folder(paths, id).join(client.as_str()));
        let lock = match File::open(from.join("lock")) {
            // Nothing was ever written into it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(to.join(VERSIONS))?;
        for (original, kept) in places(paths, &client, &to) {
            written += usize::from(copy(&original, &kept, 0o600)?);
        }
        let (now, before) = (names(&from.join(VERSIONS)), names(&to.join(VERSIONS)));
        for name in &now {
            written += usize::from(copy(
                &from.join(VERSIONS).join(name),
                &to.join(VERSIONS).join(name),
                0o600,
            )?);
        }
        for gone in before.difference(&now) {
            durable::remove(&to.join(VERSIONS).join(gone))?;
        }
    }
    // Of a client that has another name now, or is no more.
    let config = in_force(paths);
    for client in clients(&folder(paths, id)) {
        if config.client(client.as_str()).is_none() && !paths.watch(&client).exists() {
            super::remove(&folder(paths, id).join(client.as_str()))?;
        }
    }
    Ok(written)
}

/// Copies what the array keeps of the appliance `id` back. Returns how many files that were. What can't be read is passed
/// over and told: the watch begins anew without it.
pub fn recall(paths: &Paths, id: &str) -> io::Result<usize> {
    let from = folder(paths, id);
    if !is_roots_alone(&paths.mirror()) || !is_roots_alone(&from) {
        return Ok(0);
    }
    let mut taken = 0;
    for client in clients(&from) {
        let from = from.join(client.as_str());
        if !is_roots_alone(&from) {
            continue;
        }
        let mut files = places(paths, &client, &from);
        files.extend(names(&from.join(VERSIONS)).into_iter().map(|name| {
            let of = |folder: &Path| folder.join(VERSIONS).join(&name);
            (of(&paths.watch(&client)), of(&from))
        }));
        for (original, kept) in files {
            match copy(&kept, &original, 0o640) {
                Ok(copied) => taken += usize::from(copied),
                Err(error) => eprintln!("{} is not brought back: {error}", original.display()),
            }
        }
    }
    Ok(taken)
}

/// Where each file lies, and where its copy does; without the versions of settings.
fn places(paths: &Paths, client: &ClientName, copies: &Path) -> Vec<(PathBuf, PathBuf)> {
    let folder = paths.watch(client);
    let of_watch = FILES.map(|name| (folder.join(name), copies.join(name)));
    // By them it is told who did what, and how the last job ended.
    let beside = [
        (paths.session_history(client), copies.join("sessions.json")),
        (paths.upkeep_outcome(client), copies.join("outcome.json")),
    ];
    of_watch.into_iter().chain(beside).collect()
}

/// Whether it is a folder of our own into which nobody else can write.
fn is_roots_alone(folder: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(folder) else {
        return false;
    };
    let alone = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if !alone {
        eprintln!(
            "{} is not brought back: others than root could have written it.",
            folder.display()
        );
    }
    alone
}

/// Clients that have a folder here.
fn clients(folder: &Path) -> Vec<ClientName> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut clients: Vec<ClientName> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| ClientName::new(entry.file_name().to_str()?).ok())
        .collect();
    clients.sort();
    clients
}

/// Names of files in a folder that are not still being written.
fn names(folder: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.file_name())
        .filter(|name| !name.as_encoded_bytes().ends_with(b".new"))
        .take(VERSIONS_MAX)
        .collect()
}

/// Copies a file with its time, by which it is known later; one that is gone goes. Returns whether it had to be written.
fn copy(from: &Path, to: &Path, mode: u32) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(from, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => {
            durable::remove(to)?;
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    let modified = found.modified()?;
    if !found.is_file() || found.len() > FILE_MAX {
        return Err(io::Error::other(format!("{} is no file, or too large", from.display())));
    }
    let is_same = |known: fs::Metadata| known.len() == found.len() && known.modified().is_ok_and(|at| at == modified);
    if fs::symlink_metadata(to).is_ok_and(is_same) {
        return Ok(false);
    }
    let mut content = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut content)?;
    durable::write(to, &content, mode)?;
    // After the content: cut short before this, it is copied once more.
    File::options().write(true).open(to)?.set_modified(modified)?;
    Ok(true)
}
