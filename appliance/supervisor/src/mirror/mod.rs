//! The role `strongroom-mirror`: keeps a copy of what must survive a reflash on the array, in `.strongroom` beside the
//! repositories, where only root may look; and brings it back ([`recall`]).
//!
//! Each appliance's copy has a folder named by its machine id, so that an array that was moved to another PC still
//! knows whose it was; `last` names the one that wrote last. What is remembered of the clients' repositories is copied too
//! ([`watched`]). Ledgers of off-site copies are left out: they are rebuilt from the bucket.

pub mod recall;
mod tree;
pub mod watched;

use crate::durable;
use crate::paths::Paths;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tree::Tree;

/// What is mirrored: names in `/var/lib/strongroom`. Not which offers of a configuration had their turn
/// (`config/sources.json`): what CONFIG of a new flash holds is a new offer.
const LASTING: [&str; 9] = [
    "config/strongroom.toml",
    "config/clients.toml",
    "config/files",
    "config/proofs.json",
    "config/drills.json",
    "config/signer.asc",
    "secrets",
    "ssh",
    "machine-id",
];
/// The key that opens the sealed secrets (systemd-creds(1)), which systemd keeps elsewhere.
const CREDENTIAL_SECRET: &str = "credential.secret";
const MACHINE_ID: &str = "machine-id";
const HOST_KEY: &str = "ssh/ssh_host_ed25519_key";
/// Names the folder that was written last.
const LAST: &str = "last";
/// Most copies of other appliances that are kept, the oldest go first.
const OTHERS_MAX: usize = 4;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A file could not be read or written.
    #[error("the settings could not be copied to the array: {0}")]
    Io(#[from] io::Error),
    /// The machine id is not of its form.
    #[error("the machine id on the state partition is damaged")]
    MachineId,
}

/// Brings the copy up to date. Returns whether anything had to be written.
pub fn keep(paths: &Paths) -> Result<bool, MirrorError> {
    if paths.recall_pending().exists() {
        eprintln!("Nothing is copied: what the array holds is still to be brought back, at the next start.");
        return Ok(false);
    }
    let mut tree = Tree::default();
    for name in LASTING {
        tree.add(&paths.state().join(name), Path::new(name))?;
    }
    tree.add(&paths.credential_secret(), Path::new(CREDENTIAL_SECRET))?;
    if !tree.0.contains_key(Path::new(HOST_KEY)) {
        return Ok(false);
    }
    let id = machine_id(&tree).ok_or(MirrorError::MachineId)?;
    let top = paths.mirror();
    let mine = top.join(&id);
    let known = read(&mine)?;
    if known == tree && last(paths).is_some_and(|last| last == id) {
        return Ok(false);
    }
    make_top(paths)?;
    if known != tree {
        // Under another name first; then both names change places at once.
        let new = top.join(format!("{id}.new"));
        remove(&new)?;
        tree.write(&new)?;
        if mine.exists() {
            renameat_with(CWD, &new, CWD, &mine, RenameFlags::EXCHANGE).map_err(io::Error::from)?;
        } else {
            fs::rename(&new, &mine)?;
        }
        File::open(&top)?.sync_all()?;
        remove(&new)?;
    }
    durable::write(&top.join(LAST), id.as_bytes(), 0o600)?;
    forget_oldest(&top, &id)?;
    Ok(true)
}

/// Makes the folder of all copies, which nobody but its owner looks into.
fn make_top(paths: &Paths) -> io::Result<()> {
    let top = paths.mirror();
    fs::DirBuilder::new().recursive(true).create(&top)?;
    fs::set_permissions(&top, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

fn read(folder: &Path) -> io::Result<Tree> {
    let mut tree = Tree::default();
    tree.add(folder, Path::new(""))?;
    Ok(tree)
}

fn last(paths: &Paths) -> Option<String> {
    let last = fs::read_to_string(paths.mirror().join(LAST)).ok()?;
    is_machine_id(&last).then_some(last)
}

fn machine_id(tree: &Tree) -> Option<String> {
    let (_, content) = tree.0.get(Path::new(MACHINE_ID))?;
    let id = std::str::from_utf8(content).ok()?.trim();
    is_machine_id(id).then(|| id.to_string())
}

/// machine-id(5).
fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn forget_oldest(top: &Path, mine: &str) -> io::Result<()> {
    let mut others: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(top)? {
        let entry = entry?;
        let is_other = entry
            .file_name()
            .to_str()
            .is_some_and(|name| is_machine_id(name) && name != mine);
        if is_other {
            others.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    others.sort();
    let surplus = others.len().saturating_sub(OTHERS_MAX);
    others.iter().take(surplus).try_for_each(|(_, folder)| {
        let mut watched = folder.clone().into_os_string();
        watched.push(watched::ENDING);
        remove(Path::new(&watched))?;
        remove(folder)
    })
}

#[cfg(test)]
mod tests;
