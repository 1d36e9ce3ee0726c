//! The role `strongroom-repositories`: makes the folder of each client's repository, and gives it and all that it holds to
//! that client's own account, whoever owned it before. It runs once the array is mounted, and when clients change.
//!
//! Where the file system counts by projects, each repository is one too, of its account's number, and the kernel keeps it
//! within a bound above the client's quota. What belongs to no client any more is taken out of its project.
//!
//! Contents are given before the folder itself, whose owner is the record (see [`super::accounts`]): a run that is cut
//! short is simply done again. Last, repositories that were given up by command are erased. Nothing is reached through a link, and no other file system.

use super::accounts::{self, Account};
use super::bounds::committed;
use crate::configuration::in_force;
use crate::durable;
use crate::enrol::{self, folders};
use crate::paths::{ARRAY_MOUNT, Paths, REPOSITORY_ENDING, repository_name};
use crate::services::projects;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::fs::{Gid, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, statat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use strongroom_borg::Repository;
use strongroom_model::name::ClientName;
use strongroom_model::session::wall;
use strongroom_model::status::Quotas;

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
    /// The kernel refuses.
    #[error("the kernel does not bound {0} on the array, whose quota holds by Borg's own bound alone: {1}")]
    Quota(String, io::Error),
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
    let config = in_force(paths);
    let clients: Vec<ClientName> = config
        .client
        .iter()
        .map(|client| client.name.get_ref().clone())
        .collect();
    let quotas = quotas(array.as_fd());
    durable::write_json(&paths.quotas_report(), &quotas)?;
    let by_projects = quotas == Quotas::Enforced;
    release_unclaimed(array.as_fd(), &clients, by_projects)?;
    let mut owners = BTreeMap::new();
    let mut failed = Vec::new();
    for client in clients {
        match owner(array.as_fd(), &client) {
            Ok(owner) => drop(owners.insert(client, owner)),
            Err(error) => failed.push(error),
        }
    }
    for (client, account) in accounts::assign(&owners) {
        failed.extend(make_ready(array.as_fd(), &client, account, by_projects).err());
        if by_projects {
            let quota = config.client(client.as_str()).and_then(|client| client.quota.as_ref());
            let quota = quota.map(|quota| quota.get_ref().bytes());
            let bytes = quota.map(|quota| bound(&paths.repository(&client), quota));
            let bounded = projects::bound(&array, account.id(), bytes);
            let refused = |error: Errno| TakeoverError::Quota(repository_name(&client), error.into());
            failed.extend(bounded.map_err(refused).err());
        }
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

/// Has the kernel keep bounds, and tells whether it does.
fn quotas(array: BorrowedFd<'_>) -> Quotas {
    match projects::keep_bounds(array) {
        Ok(true) => Quotas::Enforced,
        Ok(false) => Quotas::Absent,
        Err(error) => {
            eprintln!("the kernel can't be had to bound what clients take: {error}");
            Quotas::Absent
        }
    }
}

/// What the kernel lets a repository take, in bytes.
fn bound(repository: &Path, quota: u64) -> u64 {
    let segment = Repository::open(repository).map_or(0, |repository| repository.config().max_segment_size);
    wall(quota, committed(repository), segment)
}

/// Whose a file becomes.
#[derive(Clone, Copy)]
struct Heir {
    /// The account; `None`: whose it is.
    account: Option<Account>,
    /// The project; `None`: the file system has none.
    project: Option<u32>,
}

fn make_ready(
    array: BorrowedFd<'_>,
    client: &ClientName,
    account: Account,
    by_projects: bool,
) -> Result<(), TakeoverError> {
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
    let heir = Heir {
        account: Some(account),
        project: by_projects.then(|| account.id()),
    };
    match give_all(folder.as_fd(), stat.st_dev, heir, 0) {
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

/// Gives a folder's contents to the account and the project, and the folder itself to the project: first, so that what is
/// made in it meanwhile is of the project.
fn give_all(folder: BorrowedFd<'_>, device: u64, heir: Heir, depth: usize) -> Result<(), GiveError> {
    if let Some(project) = heir.project {
        projects::give(folder, project, true)?;
    }
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
            give_all(inner.as_fd(), device, heir, depth + 1)?;
        } else if let Some(project) = heir.project
            && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        {
            give_file(folder, &name, device, project)?;
        }
        if let Some(account) = heir.account
            && !is_owned(&stat, account)
        {
            let (uid, gid) = ids(account);
            match chownat(folder, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn give_file(folder: BorrowedFd<'_>, name: &CStr, device: u64, project: u32) -> Result<(), Errno> {
    // A session may put something else in its place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
        other => other?,
    };
    let stat = fstat(&file)?;
    if stat.st_dev == device && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        projects::give(&file, project, false)?;
    }
    Ok(())
}

/// Folders that belonged to a client which is no more are kept by root, so that its account and its project are free for
/// another.
fn release_unclaimed(array: BorrowedFd<'_>, clients: &[ClientName], by_projects: bool) -> io::Result<()> {
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
        let heir = Heir {
            account: None,
            project: by_projects.then_some(projects::NONE),
        };
        match give_all(folder.as_fd(), stat.st_dev, heir, 0) {
            // No repository is so deep, and its account is free all the same.
            Ok(()) | Err(GiveError::TooDeep) => {}
            Err(GiveError::Io(error)) => return Err(error.into()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::projects::trial::Mounted;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn project(path: &Path) -> u32 {
        projects::of(File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn a_repository_is_one_project_until_its_client_is_gone() {
        let Some(mounted) = Mounted::new() else { return };
        let paths = Paths::new(mounted.folder.path());
        let asus = ClientName::new("asus").unwrap();
        let account = Account::of_owner(703).unwrap();
        let own = paths.repository(&asus);
        fs::create_dir_all(own.join("data/0")).unwrap();
        for file in ["config", "data/0/1"] {
            fs::write(own.join(file), "as it was").unwrap();
        }
        let outside = mounted.folder.path().join("mnt/raid/outside");
        fs::write(&outside, "another's").unwrap();
        symlink(&outside, own.join("link")).unwrap();
        let array = File::open(mounted.folder.path().join("mnt/raid")).unwrap();
        make_ready(array.as_fd(), &asus, account, true).unwrap();
        fs::create_dir(own.join("data/1")).unwrap();
        fs::write(own.join("data/1/1000"), "new").unwrap();
        for name in ["", "config", "data", "data/0", "data/0/1", "data/1", "data/1/1000"] {
            assert_eq!(project(&own.join(name)), 703, "{name}");
        }
        assert_eq!(project(&outside), projects::NONE);
        // What is of another project stays out, as a job has to know.
        let moved = fs::rename(&outside, own.join("data/0/2")).unwrap_err();
        assert_eq!(moved.kind(), io::ErrorKind::CrossesDevices);

        release_unclaimed(array.as_fd(), &[], true).unwrap();
        fs::write(own.join("data/1/1001"), "of nobody").unwrap();
        for name in ["", "config", "data/0/1", "data/1/1000", "data/1/1001"] {
            assert_eq!(project(&own.join(name)), projects::NONE, "{name}");
        }
    }

    #[test]
    fn the_role_bounds_a_client_by_its_quota_where_the_kernel_can() {
        let Some(mounted) = Mounted::new() else { return };
        let paths = Paths::new(mounted.folder.path());
        let configure = |quota: &str| {
            let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO a";
            let text = format!("[[client]]\nname = \"asus\"\nkeys = [\"{key}\"]\n{quota}");
            durable::write(&paths.config(), text.as_bytes(), 0o644).unwrap();
            let failed = run(&paths).unwrap();
            assert!(failed.is_empty(), "{failed:?}");
        };
        configure("quota = \"20 MB\"\n");
        let told: Quotas = durable::read_json(&paths.quotas_report(), 4096).unwrap();
        if !mounted.bounds {
            assert_eq!(told, Quotas::Absent);
            eprintln!("SKIPPED: this kernel has no quotas of ext4 (CONFIG_QFMT_V2), so its bound is not tried");
            return;
        }
        assert_eq!(told, Quotas::Enforced);
        let asus = ClientName::new("asus").unwrap();
        let file = paths.repository(&asus).join("much");
        // As the client's account, without what lets root pass.
        let takes = |bytes: u64| {
            let _ = fs::remove_file(&file);
            fs::set_permissions(
                mounted.folder.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid=700", "--regid=700", "--clear-groups", "fallocate", "--length"]);
            command
                .arg(bytes.to_string())
                .arg(&file)
                .output()
                .unwrap()
                .status
                .success()
        };
        let most = wall(20_000_000, 0, 0);
        assert!(takes(most - (8 << 20)));
        assert!(!takes(most + (8 << 20)));
        configure("");
        assert!(takes(most + (8 << 20)));
    }
}
