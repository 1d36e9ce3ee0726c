//! Enrolling clients by command. The registry is a file beside strongroom.toml (`strongroom_model::registry`).
//!
//! The supervisor may write nothing, so it hands what it is asked for to the role `strongroom-clients` ([`role`]), which
//! systemd starts for each request at its socket ([`ask`]). The role decides with the model and with what it sees of the
//! array ([`perform`]), writes the registry and sshd's keys, and tells the running system. [`folders`] moves and gives up
//! what belongs to a client; [`mend`] sets aside what is damaged. [`pairing`] lets a client's machine enrol its own key: sshd asks the role `strongroom-pair`
//! whether any key may come in, and runs it for the one that did ([`pair`]).

pub mod ask;
pub mod folders;
pub mod mend;
pub mod pair;
pub mod pairing;
pub mod perform;
pub mod role;

use crate::durable;
use crate::paths::Paths;
use std::fs;
use std::io;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::registry::{Registry, RegistryError};

/// Why the registry can't be read. It is never written over then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("the registry of enrolled clients (clients.toml) could not be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("the registry of enrolled clients (clients.toml) is damaged: {0}")]
    Damaged(#[from] RegistryError),
}

impl StoreError {
    /// As what a person should know.
    pub fn condition(&self) -> Condition {
        Condition::new(
            ConditionId::RegistryUnreadable,
            Severity::Alarm,
            "clients.toml",
            &format!("Clients that were enrolled by command are not admitted: {self}."),
            "Their backups are safe. After a fall-back to an older release, start the newer one again. Otherwise make a `strongroom report`, which holds what is left of the file, set it aside with `strongroom client set-aside-registry`, and enrol the clients again.",
        )
    }
}

/// The registry; empty when nothing was ever enrolled.
pub fn registry(paths: &Paths) -> Result<Registry, StoreError> {
    match fs::read_to_string(paths.registry()) {
        Ok(text) => Ok(Registry::parse(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Registry::default()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(RegistryError::no_text().into()),
        Err(error) => Err(error.into()),
    }
}

/// Keeps the registry. Durable on return.
pub fn keep(paths: &Paths, registry: &Registry) -> io::Result<()> {
    // Keys are public; the roles that read it are not root.
    durable::write_if_changed(&paths.registry(), registry.to_toml().as_bytes(), 0o644).map(drop)
}
