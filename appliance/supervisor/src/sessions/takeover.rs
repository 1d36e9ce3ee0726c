//! The role `strongroom-repositories`: makes the folder of each client's repository, and gives it and all that it holds to
//! that client's own account, whoever owned it before. It runs once the array is mounted, and when clients change.
//!
//! Contents are given before the folder itself, whose owner is the record (see [`super::accounts`]): a run that is cut
//! short is simply done again. Last, repositories that were given up by command are erased. Nothing is reached through a link, and no other file system.

use super::accounts::{self, Account};
use crate::configuration::in_force;
use crate::enrol::{self, folders};
use crate::paths::{ARRAY_MOUNT, Paths, REPOSITORY_ENDING, repository_name};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::fs::{Gid, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, statat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use strongroom_model::name::ClientName;

/// How deep folders in a repository may lie. Borg's own are two deep; each level holds a file descriptor.
const DEPTH_MAX: usize = 8;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why a repository is not ready.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// Something else bears its name.
    #[error("{0} on the array is not a folder; it is left alone, and its client is refused until it is renamed")]
    NotAFolder(String),
    /// It is not like any repository.
    #[error("{0} on the array holds folders more than {DEPTH_MAX} deep, which no repository does; it is left alone")]
    TooDeep(String),
    /// The file system refuses.
    #[error("{0} on the array could not be given to its client's account: {1}")]
    Io(String, io::Error),
}

/// Makes all repositories ready. Returns what could not be done; the others are ready.
///
/// Errors: the array itself can't be used.
pub fn run(paths: &Paths) -> io::Result<Vec<TakeoverError>> {
    let array = openat(CWD, paths.at(ARRAY_MOUNT), FOLDER, Mode::empty())?;
    // On an array that was made elsewhere the root may belong to anybody.
    fchown(&array, Some(Uid::ROOT), Some(Gid::ROOT))?;
    fchmod(&array, Mode::from_raw_mode(0o755))?;
    // A client that was given another name while the power went.
    let moving = enrol::registry(paths).ok().and_then(|registry| registry.moving);
    if let Some(Err(error)) = moving.map(|moving| folders::move_repository(paths, &moving)) {
        eprintln!("a repository could not be moved to its client's new name: {error}");
    }
    let clients: Vec<ClientName> = in_force(paths)
        .client
        .iter()
        .map(|client| client.name.get_ref().clone())
        .collect();
    release_unclaimed(array.as_fd(), &clients)?;
    let mut owners = BTreeMap::new();
    let mut failed = Vec::new();
    for client in clients {
        match owner(array.as_fd(), &client) {
            Ok(owner) => drop(owners.insert(client, owner)),
            Err(error) => failed.push(error),
        }
    }
    for (client, account) in accounts::assign(&owners) {
        failed.extend(make_ready(array.as_fd(), &client, account).err());
    }
    folders::erase(paths)?;
    Ok(failed)
}

/// Who owns a client's folder now.
fn owner(array: BorrowedFd<'_>, client: &ClientName) -> Result<Option<u32>, TakeoverError> {
    let name = repository_name(client);
    match statat(array, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_folder(&stat) => Ok(Some(stat.st_uid)),
        Ok(_) => Err(TakeoverError::NotAFolder(name)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(TakeoverError::Io(name, error.into())),
    }
}

fn make_ready(array: BorrowedFd<'_>, client: &ClientName, account: Account) -> Result<(), TakeoverError> {
    let name = repository_name(client);
    let io = |error: Errno| TakeoverError::Io(name.clone(), error.into());
    match mkdirat(array, name.as_str(), Mode::RWXU) {
        Err(Errno::EXIST) | Ok(()) => {}
        Err(error) => return Err(io(error)),
    }
    let folder = openat(array, name.as_str(), FOLDER, Mode::empty()).map_err(io)?;
    let stat = fstat(&folder).map_err(io)?;
    // Before its contents: nobody is to look in meanwhile.
    fchmod(&folder, Mode::RWXU).map_err(io)?;
    match give_contents(folder.as_fd(), stat.st_dev, account, 0) {
        Ok(()) => {}
        Err(GiveError::TooDeep) => return Err(TakeoverError::TooDeep(name)),
        Err(GiveError::Io(error)) => return Err(io(error)),
    }
    if !is_owned(&stat, account) {
        let (uid, gid) = ids(account);
        fchown(&folder, Some(uid), Some(gid)).map_err(io)?;
        eprintln!(
            "{name} belongs to {} now, the account of client {client}.",
            account.name()
        );
    }
    Ok(())
}

enum GiveError {
    TooDeep,
    Io(Errno),
}

impl From<Errno> for GiveError {
    fn from(error: Errno) -> Self {
        Self::Io(error)
    }
}

fn give_contents(folder: BorrowedFd<'_>, device: u64, account: Account, depth: usize) -> Result<(), GiveError> {
    let (uid, gid) = ids(account);
    for name in names(folder)? {
        let stat = match statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            // A session may be running.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if is_folder(&stat) {
            if depth + 1 == DEPTH_MAX {
                return Err(GiveError::TooDeep);
            }
            let inner = match openat(folder, &name, FOLDER, Mode::empty()) {
                Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => continue,
                other => other?,
            };
            if fstat(&inner)?.st_dev != device {
                continue;
            }
            give_contents(inner.as_fd(), device, account, depth + 1)?;
        }
        if !is_owned(&stat, account) {
            match chownat(folder, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Folders that belonged to a client which is no more are kept by root, so that its account is free for another.
fn release_unclaimed(array: BorrowedFd<'_>, clients: &[ClientName]) -> io::Result<()> {
    for name in names(array)? {
        let claimed = name
            .to_str()
            .ok()
            .and_then(|name| name.strip_suffix(REPOSITORY_ENDING))
            .is_none_or(|name| clients.iter().any(|client| client.as_str() == name));
        if claimed {
            continue;
        }
        let stat = statat(array, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !is_folder(&stat) || Account::of_owner(stat.st_uid).is_none() {
            continue;
        }
        let folder = openat(array, &name, FOLDER, Mode::empty())?;
        fchmod(&folder, Mode::RWXU)?;
        fchown(&folder, Some(Uid::ROOT), Some(Gid::ROOT))?;
        eprintln!("{} belongs to no client; it is kept.", name.to_string_lossy());
    }
    Ok(())
}

/// Names in a folder, without itself and the one above.
fn names(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let own: OwnedFd = openat(folder, c".", FOLDER, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(own, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_owned();
        let itself: &CStr = &name;
        if itself != c"." && itself != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_owned(stat: &Stat, account: Account) -> bool {
    (stat.st_uid, stat.st_gid) == (account.id(), account.id())
}

fn ids(account: Account) -> (Uid, Gid) {
    (Uid::from_raw(account.id()), Gid::from_raw(account.id()))
}
