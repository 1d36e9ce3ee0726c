//! What is asked of the registry, and what becomes of it. Pure: what the array and the running sessions say to it is
//! judged where they can be seen.

use super::merge::owners;
use super::{Moving, Note, REVOKED_MAX, Registry, merge};
use crate::config::{AddressRange, CONFIG_BYTES_MAX, Client, Config, QUOTA_MIN, Size, expect_hours};
use crate::drill::Drill;
use crate::name::{ClientName, TargetName};
use crate::ssh_key::SshPublicKey;
use crate::upkeep::policy;
use crate::upkeep::rollback::KeptRange;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use toml::Spanned;

/// What a person may say of a client beside its keys. What is absent stays as it is, or as is usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How much its repository may hold.
    pub quota: Option<Size>,
    /// Longest silence in hours before a warning.
    pub expect_hours: Option<u32>,
    /// Addresses from which its keys are admitted.
    pub from: Option<Vec<AddressRange>>,
    /// After how many days what it deleted is freed by itself; 0: never.
    pub compact_after_days: Option<u16>,
}

/// A change of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Enrols a client.
    Add {
        /// Its name.
        name: ClientName,
        /// Its keys; at least one.
        keys: Vec<SshPublicKey>,
        /// Keys that may only read.
        restore_keys: Vec<SshPublicKey>,
        /// What else is said of it.
        settings: Settings,
    },
    /// Changes what is said of an enrolled client.
    Set {
        /// Its name.
        name: ClientName,
        /// What changes.
        settings: Settings,
    },
    /// Gives an enrolled client another name. Its archives and its account stay.
    Rename {
        /// Its name.
        from: ClientName,
        /// The new one.
        to: ClientName,
        /// Whether off-site copies may begin anew where their place depends on the name.
        new_copies: bool,
    },
    /// Gives an enrolled client new keys. Of the kind that none is given for, the old ones stay.
    Rotate {
        /// Its name.
        name: ClientName,
        /// Its keys from now on.
        keys: Vec<SshPublicKey>,
        /// Its keys for restores from now on.
        restore_keys: Vec<SshPublicKey>,
        /// Whether the old ones are admitted as well.
        keep_old: bool,
    },
    /// Holds a client out until it is resumed.
    Pause {
        /// Its name.
        name: ClientName,
    },
    /// Lets a client in again.
    Resume {
        /// Its name.
        name: ClientName,
    },
    /// Never admits a key of a client again, or any of its keys that are admitted now.
    Revoke {
        /// Its name.
        name: ClientName,
        /// The key's fingerprint; all keys when absent.
        fingerprint: Option<String>,
    },
    /// Forgets an enrolled client.
    Remove {
        /// Its name.
        name: ClientName,
        /// Whether its repository is erased from the array.
        delete_repository: bool,
    },
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A change of the registry.
    Change(Change),
    /// Opens a pairing: for a short time, whoever knows a code can enrol the key that it has.
    Pair {
        /// The client's name: a new one, or an enrolled one that gets another key.
        name: ClientName,
        /// For how long; 1 to 60.
        minutes: u16,
        /// What else is said of a new client.
        settings: Settings,
    },
    /// Closes the pairing that is open, and takes note of one that wrong codes closed.
    ClosePairing,
    /// Sets a registry that can't be read aside, and begins another with what of it holds at once.
    SetRegistryAside,
    /// Lets a client in again whose journal of a compaction or rollback can't be read.
    Reopen {
        /// Its name.
        name: ClientName,
    },
    /// Erases what a rollback took out of a client's repository and kept.
    RemoveKept {
        /// The client's name.
        name: ClientName,
        /// Which.
        kept: KeptRange,
    },
    /// Takes note that the secret key of a recipient was shown to be there just now. Only the supervisor may say so, which
    /// has given out the nonce.
    Proven {
        /// The fingerprint of its certificate.
        fingerprint: String,
    },
    /// Takes note of a restore that was tried. Whether it can be true is looked at again.
    Drilled(Box<Drill>),
    /// The code of a pairing, from whoever holds the key.
    Code {
        /// As it was typed.
        code: String,
        /// The key that sshd has authenticated.
        key: SshPublicKey,
    },
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done, in these words, a line each.
    Done(Vec<String>),
    /// A pairing is open.
    Opened(Opened),
    /// Nothing was changed, for this reason.
    Refused(String),
}

/// A pairing that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The code; told once.
    pub code: String,
    /// For how many minutes it counts.
    pub minutes: u16,
    /// Public half of the appliance's host key, type and base64.
    pub host_key: String,
    /// Whether the client is enrolled already, and gets another key.
    pub known: bool,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is strongroom.toml's.
    #[error("client `{0}` is declared in strongroom.toml; change it there, and offer the file again")]
    Declared(ClientName),
    /// There is none.
    #[error("there is no client `{0}`; `strongroom client list` shows them")]
    NoClient(ClientName),
    /// There is one.
    #[error(
        "there is a client `{0}` already. For a new key use `strongroom client rotate {0}` or `strongroom client pair {0}`; for other settings, `strongroom client set {0}`"
    )]
    Exists(ClientName),
    /// Not even one key.
    #[error(
        "client `{0}` needs a key: the line of its `id_ed25519.pub`. Without one at hand, use `strongroom client pair {0}`"
    )]
    NoKey(ClientName),
    /// It is somebody's.
    #[error(
        "the key {fingerprint} belongs to {owner} already. The key decides who logs in, so each needs one of its own: make it with `ssh-keygen -t ed25519`"
    )]
    KeyTaken {
        /// Which.
        fingerprint: String,
        /// Whose.
        owner: String,
    },
    /// It is never admitted again.
    #[error("the key {0} was revoked and is never admitted again; make a new one with `ssh-keygen -t ed25519`")]
    KeyRevoked(String),
    /// Nothing of the kind.
    #[error("client `{name}` has no key `{fingerprint}`; `strongroom client list` shows them")]
    NoSuchKey {
        /// The client.
        name: ClientName,
        /// What was asked for.
        fingerprint: String,
    },
    /// Nothing to revoke.
    #[error("no key of client `{0}` is admitted; there is nothing to revoke")]
    NoKeys(ClientName),
    /// Too small for Borg.
    #[error("a quota of {0} is too small: Borg needs 10 MB at least")]
    SmallQuota(String),
    /// Not a number of hours that makes sense.
    #[error("a client can be expected every 1 to 8760 hours")]
    Expectation,
    /// Not a quarantine that makes sense.
    #[error("what was deleted can be freed after {} to {} days, or `never`", policy::DAYS.start(), policy::DAYS.end())]
    Quarantine,
    /// Something else of the whole does not fit.
    #[error("{0}")]
    Whole(String),
    /// There is nothing to change.
    #[error(
        "nothing to change was named; give `--quota`, `--expect`, `--expect-hours`, `--from` or `--compact-after-days`"
    )]
    Nothing,
    /// The file would be too large.
    #[error("the registry of clients is full: it holds 256 KiB at most. Remove clients or keys that are no more")]
    Full,
}

/// What a change makes of the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The registry from now on.
    pub registry: Registry,
    /// What was done, a line each.
    pub words: Vec<String>,
    /// The client whose running sessions are to be ended.
    pub end_sessions: Option<ClientName>,
}

impl Registry {
    /// What the registry is after a change. `declared` is what strongroom.toml says. It supposes that no folders are left
    /// to be moved.
    ///
    /// Errors: the change can't be made.
    pub fn changed(&self, declared: &Config, change: &Change) -> Result<Changed, ChangeError> {
        let mut new = self.clone();
        let mut end_sessions = None;
        let mut words = Vec::new();
        match change {
            Change::Add {
                name,
                keys,
                restore_keys,
                settings,
            } => {
                self.absent(declared, name)?;
                if keys.is_empty() {
                    return Err(ChangeError::NoKey(name.clone()));
                }
                self.free(declared, None, keys, restore_keys)?;
                new.client.push(settings.client(name, keys, restore_keys)?);
                words.push(format!(
                    "Client {name} is enrolled; its repository is {name}_repository."
                ));
            }
            Change::Set { name, settings } => {
                if *settings == Settings::default() {
                    return Err(ChangeError::Nothing);
                }
                settings.enter(new.enrolled(declared, name)?)?;
                words.push(format!("Client {name} is changed; it counts from its next session on."));
            }
            Change::Rename { from, to, .. } => {
                new.enrolled(declared, from)?.name = at_no_place(to.clone());
                self.absent(declared, to)?;
                for name in &mut new.paused {
                    if name == from {
                        *name = to.clone();
                    }
                }
                new.moving = Some(Moving {
                    from: from.clone(),
                    to: to.clone(),
                });
                words.push(format!(
                    "Client {from} is called {to} now. On the client, BORG_REPO ends in :/mnt/raid/{to}_repository from now on."
                ));
                words.push(
                    "Borg asks there once whether the repository was relocated: run `borg list` and say y.".into(),
                );
            }
            Change::Rotate {
                name,
                keys,
                restore_keys,
                keep_old,
            } => {
                new.enrolled(declared, name)?;
                if keys.is_empty() && restore_keys.is_empty() {
                    return Err(ChangeError::NoKey(name.clone()));
                }
                self.free(declared, Some(name).filter(|_| !keep_old), keys, restore_keys)?;
                let client = new.enrolled(declared, name)?;
                for (has, gets) in [(&mut client.keys, keys), (&mut client.restore_keys, restore_keys)] {
                    if !gets.is_empty() && !keep_old {
                        has.clear();
                    }
                    has.extend(spanned(gets));
                }
                // A key that changes from one kind to the other, whose own list was not replaced.
                let client = client.clone();
                let twice = client.keys.iter().find(|key| {
                    let same = |other: &Spanned<SshPublicKey>| other.get_ref().same_key(key.get_ref());
                    client.restore_keys.iter().any(same)
                });
                if let Some(key) = twice {
                    return Err(ChangeError::KeyTaken {
                        fingerprint: key.get_ref().fingerprint(),
                        owner: format!("client `{name}`"),
                    });
                }
                let also = if *keep_old {
                    " beside the old ones"
                } else {
                    " in place of the old ones"
                };
                for key in keys.iter().chain(restore_keys) {
                    words.push(format!(
                        "The key {} of client {name} is admitted{also}.",
                        key.fingerprint()
                    ));
                }
            }
            Change::Pause { name } => {
                self.known(declared, name)?;
                if !new.paused.contains(name) {
                    new.paused.push(name.clone());
                }
                end_sessions = Some(name.clone());
                words.push(format!(
                    "Client {name} is paused: no session until `strongroom client resume {name}`."
                ));
            }
            Change::Resume { name } => {
                self.known(declared, name)?;
                new.paused.retain(|paused| paused != name);
                words.push(format!("Client {name} is let in again."));
            }
            Change::Revoke { name, fingerprint } => {
                let gone = self.revocable(declared, name, fingerprint.as_deref())?;
                for key in &gone {
                    words.push(format!(
                        "The key {} of client {name} is never admitted again.",
                        key.fingerprint()
                    ));
                }
                new.revoke(declared, gone);
                end_sessions = Some(name.clone());
                let merged = merge(declared, &new).config;
                if merged
                    .client(name.as_str())
                    .is_some_and(|client| client.keys.is_empty())
                {
                    let way = if declared.client(name.as_str()).is_some() {
                        "put a new one in its place in strongroom.toml".to_string()
                    } else {
                        format!("give it one with `strongroom client pair {name}`")
                    };
                    words.push(format!("It has no key for backups left; {way}."));
                }
            }
            Change::Remove {
                name,
                delete_repository,
            } => {
                let is_declared = declared.client(name.as_str()).is_some();
                let was = new.client.len();
                new.client.retain(|client| client.name.get_ref() != name);
                if new.client.len() == was {
                    return Err(if is_declared {
                        ChangeError::Declared(name.clone())
                    } else {
                        ChangeError::NoClient(name.clone())
                    });
                }
                if is_declared && *delete_repository {
                    return Err(ChangeError::Declared(name.clone()));
                }
                if is_declared {
                    words.push(format!(
                        "What was enrolled of client {name} is forgotten; strongroom.toml declares it still."
                    ));
                } else {
                    new.paused.retain(|paused| paused != name);
                    end_sessions = Some(name.clone());
                    words.push(format!("Client {name} is removed."));
                }
            }
        }
        self.holds_together(declared, &new)?;
        Ok(Changed {
            registry: new,
            words,
            end_sessions,
        })
    }

    /// Whether a pairing may be opened for a client. Returns whether it is enrolled already.
    ///
    /// Errors: it is strongroom.toml's, or the settings are wrong or can't be given here.
    pub fn may_pair(&self, declared: &Config, name: &ClientName, settings: &Settings) -> Result<bool, ChangeError> {
        match self.clone().enrolled(declared, name) {
            Ok(_) if *settings != Settings::default() => Err(ChangeError::Exists(name.clone())),
            Ok(_) => Ok(true),
            Err(ChangeError::NoClient(_)) => {
                // As far as it can be told without its key.
                let mut new = self.clone();
                new.client.push(settings.client(name, &[], &[])?);
                self.holds_together(declared, &new).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// The change that enrols a key which was paired.
    pub fn paired(&self, name: &ClientName, key: &SshPublicKey, settings: &Settings) -> Change {
        let keys = [key.clone()].into();
        match self.client(name) {
            Some(_) => Change::Rotate {
                name: name.clone(),
                keys,
                restore_keys: Vec::new(),
                keep_old: true,
            },
            None => Change::Add {
                name: name.clone(),
                keys,
                restore_keys: Vec::new(),
                settings: settings.clone(),
            },
        }
    }

    /// The targets at which the place of a client's copies depends on its name.
    pub fn named_targets(&self, declared: &Config, name: &ClientName) -> Vec<TargetName> {
        let merged = merge(declared, self).config;
        let Some(client) = merged.client(name.as_str()) else {
            return Vec::new();
        };
        merged
            .targets_of(client)
            .filter(|target| {
                target
                    .prefix
                    .get_ref()
                    .as_str()
                    .contains(crate::config::CLIENT_PLACEHOLDER)
            })
            .map(|target| target.name.get_ref().clone())
            .collect()
    }

    fn known(&self, declared: &Config, name: &ClientName) -> Result<(), ChangeError> {
        let known = declared.client(name.as_str()).is_some() || self.client(name).is_some();
        known.then_some(()).ok_or_else(|| ChangeError::NoClient(name.clone()))
    }

    fn absent(&self, declared: &Config, name: &ClientName) -> Result<(), ChangeError> {
        if declared.client(name.as_str()).is_some() {
            return Err(ChangeError::Declared(name.clone()));
        }
        match self.client(name) {
            Some(_) => Err(ChangeError::Exists(name.clone())),
            None => Ok(()),
        }
    }

    /// An enrolled client, to be changed.
    fn enrolled(&mut self, declared: &Config, name: &ClientName) -> Result<&mut Client, ChangeError> {
        if declared.client(name.as_str()).is_some() {
            return Err(ChangeError::Declared(name.clone()));
        }
        self.client
            .iter_mut()
            .find(|client| client.name.get_ref() == name)
            .ok_or_else(|| ChangeError::NoClient(name.clone()))
    }

    /// Whether these keys are nobody's yet; those of `but` are to be replaced.
    fn free(
        &self,
        declared: &Config,
        but: Option<&ClientName>,
        keys: &[SshPublicKey],
        restore_keys: &[SshPublicKey],
    ) -> Result<(), ChangeError> {
        let mut taken = owners(declared);
        for client in self.client.iter().filter(|client| Some(client.name.get_ref()) != but) {
            let owner = format!("client `{}`", client.name.get_ref());
            taken.extend(client.all_keys().map(|(key, _)| (key.clone(), owner.clone())));
        }
        for key in keys.iter().chain(restore_keys) {
            if self.is_revoked(key) {
                return Err(ChangeError::KeyRevoked(key.fingerprint()));
            }
            if let Some((_, owner)) = taken.iter().find(|(other, _)| other.same_key(key)) {
                return Err(ChangeError::KeyTaken {
                    fingerprint: key.fingerprint(),
                    owner: owner.clone(),
                });
            }
            taken.push((key.clone(), "this client".to_string()));
        }
        Ok(())
    }

    /// The keys to be revoked: those of the client, wherever it is declared.
    fn revocable(
        &self,
        declared: &Config,
        name: &ClientName,
        fingerprint: Option<&str>,
    ) -> Result<Vec<SshPublicKey>, ChangeError> {
        self.known(declared, name)?;
        let both = [declared.client(name.as_str()), self.client(name)];
        let mut keys: Vec<SshPublicKey> = Vec::new();
        for (key, _) in both.into_iter().flatten().flat_map(Client::all_keys) {
            if !self.is_revoked(key) && !keys.iter().any(|other| other.same_key(key)) {
                keys.push(key.clone());
            }
        }
        match fingerprint {
            None if keys.is_empty() => Err(ChangeError::NoKeys(name.clone())),
            None => Ok(keys),
            Some(wanted) => {
                keys.retain(|key| {
                    key.fingerprint().trim_start_matches("SHA256:") == wanted.trim_start_matches("SHA256:")
                });
                if keys.is_empty() {
                    return Err(ChangeError::NoSuchKey {
                        name: name.clone(),
                        fingerprint: wanted.escape_debug().to_string(),
                    });
                }
                Ok(keys)
            }
        }
    }

    fn revoke(&mut self, declared: &Config, gone: Vec<SshPublicKey>) {
        for client in &mut self.client {
            let stays = |key: &Spanned<SshPublicKey>| !gone.iter().any(|gone| gone.same_key(key.get_ref()));
            client.keys.retain(stays);
            client.restore_keys.retain(stays);
        }
        self.revoked.extend(gone);
        let listed = owners(declared);
        while self.revoked.len() > REVOKED_MAX {
            // One that strongroom.toml lists must not come back.
            let unlisted = |key: &SshPublicKey| !listed.iter().any(|(other, _)| other.same_key(key));
            let oldest = self.revoked.iter().position(unlisted).unwrap_or(0);
            self.revoked.remove(oldest);
        }
    }

    /// Whether `new` is as good a companion of strongroom.toml as this was.
    fn holds_together(&self, declared: &Config, new: &Self) -> Result<(), ChangeError> {
        let before = merge(declared, self).notes;
        let worse = |note: &Note| !matches!(note, Note::Revoked(_)) && !before.contains(note);
        if let Some(note) = merge(declared, new).notes.into_iter().find(worse) {
            return Err(ChangeError::Whole(match note {
                Note::OneTooMany(_) => {
                    "there are 64 clients already, which is the most; remove some, or use a second appliance".into()
                }
                Note::SharedPrefix(_, target) => format!(
                    "several clients would share one prefix at target `{target}`; put `{{client}}` into its `prefix` in strongroom.toml first"
                ),
                other => other.text().trim_end_matches('.').to_string(),
            }));
        }
        if new.to_toml().len() > CONFIG_BYTES_MAX {
            return Err(ChangeError::Full);
        }
        Ok(())
    }
}

impl Settings {
    /// Errors: a value that no client can have.
    fn check(&self) -> Result<(), ChangeError> {
        if let Some(quota) = self.quota.as_ref().filter(|quota| quota.bytes() < QUOTA_MIN) {
            return Err(ChangeError::SmallQuota(quota.to_string()));
        }
        match self.expect_hours {
            Some(hours) if !(1..=8760).contains(&hours) => return Err(ChangeError::Expectation),
            _ => {}
        }
        match self.compact_after_days {
            Some(days) if days != 0 && !policy::DAYS.contains(&days) => Err(ChangeError::Quarantine),
            _ => Ok(()),
        }
    }

    /// A client with these settings.
    fn client(
        &self,
        name: &ClientName,
        keys: &[SshPublicKey],
        restore_keys: &[SshPublicKey],
    ) -> Result<Client, ChangeError> {
        let mut client = Client {
            name: at_no_place(name.clone()),
            keys: spanned(keys),
            restore_keys: spanned(restore_keys),
            from: Vec::new(),
            quota: None,
            expect_hours: expect_hours(),
            compact_after_days: None,
            targets: None,
            paused: false,
        };
        self.enter(&mut client).map(|()| client)
    }

    fn enter(&self, client: &mut Client) -> Result<(), ChangeError> {
        self.check()?;
        if let Some(quota) = &self.quota {
            client.quota = Some(at_no_place(quota.clone()));
        }
        if let Some(hours) = self.expect_hours {
            client.expect_hours = hours;
        }
        if let Some(from) = &self.from {
            client.from = from.iter().copied().map(at_no_place).collect();
        }
        if let Some(days) = self.compact_after_days {
            client.compact_after_days = (days != 0).then(|| at_no_place(days));
        }
        Ok(())
    }
}

/// A value that stands in no file.
fn at_no_place<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn spanned(keys: &[SshPublicKey]) -> Vec<Spanned<SshPublicKey>> {
    keys.iter().cloned().map(at_no_place).collect()
}
