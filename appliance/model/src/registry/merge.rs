//! The configuration and the registry together: what is in force. It never fails: what of the registry can't stand beside
//! strongroom.toml is left out, and told.

use super::Registry;
use crate::condition::{Condition, ConditionId, Severity};
use crate::config::{CLIENT_PLACEHOLDER, Config, Target};
use crate::name::{ClientName, TargetName};
use crate::ssh_key::SshPublicKey;
use crate::status::CLIENTS_MAX;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use toml::Spanned;

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The configuration with the enrolled clients behind its own; without revoked keys.
    pub config: Config,
    /// What does not fit together.
    pub notes: Vec<Note>,
}

/// Something of the registry or the configuration that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Both hold a client of this name: that of strongroom.toml counts.
    Shadowed(ClientName),
    /// A key of an enrolled client belongs to somebody whom strongroom.toml names.
    KeyTaken(ClientName, String),
    /// There are too many clients for this one.
    OneTooMany(ClientName),
    /// An enrolled client names a target that is no more.
    NoTarget(ClientName, TargetName),
    /// An enrolled client would share its prefix at this target with another.
    SharedPrefix(ClientName, TargetName),
    /// strongroom.toml lists a key that was revoked, for this client.
    Revoked(ClientName),
}

impl Note {
    /// In words, one sentence.
    pub fn text(&self) -> String {
        match self {
            Self::Shadowed(name) => format!(
                "The client `{name}` was enrolled by command and is declared in strongroom.toml too: what strongroom.toml says counts."
            ),
            Self::KeyTaken(name, owner) => format!(
                "A key of the enrolled client `{name}` belongs to {owner} in strongroom.toml, and admits that one only."
            ),
            Self::OneTooMany(name) => format!(
                "With the clients of strongroom.toml there are more than {CLIENTS_MAX}, so the enrolled client `{name}` is not admitted."
            ),
            Self::NoTarget(name, target) => format!(
                "The enrolled client `{name}` is to be copied to the target `{target}`, which strongroom.toml does not have."
            ),
            Self::SharedPrefix(name, target) => format!(
                "The enrolled client `{name}` is not copied to the target `{target}`: it would share one prefix there with another client."
            ),
            Self::Revoked(name) => {
                format!("strongroom.toml lists a key of client `{name}` that was revoked; it is not admitted.")
            }
        }
    }

    /// As what a person should know.
    pub fn condition(&self) -> Condition {
        let (id, severity, name, advice) = match self {
            Self::Shadowed(name) => (
                ConditionId::EnrolmentClash,
                Severity::Warning,
                name,
                "Take it out of strongroom.toml, or forget the enrolled one: `strongroom client remove` with its name.",
            ),
            Self::KeyTaken(name, _) => (
                ConditionId::EnrolmentClash,
                Severity::Warning,
                name,
                "Give the enrolled client a key of its own: `strongroom client pair` with its name.",
            ),
            Self::OneTooMany(name) => (
                ConditionId::EnrolmentClash,
                Severity::Alarm,
                name,
                "Remove clients that are no more (`strongroom client list`), or use a second appliance.",
            ),
            Self::NoTarget(name, _) => (
                ConditionId::EnrolmentClash,
                Severity::Warning,
                name,
                "Name the target again in strongroom.toml, or enrol the client anew.",
            ),
            Self::SharedPrefix(name, _) => (
                ConditionId::EnrolmentClash,
                Severity::Warning,
                name,
                "Put `{client}` into that target's `prefix` in strongroom.toml.",
            ),
            Self::Revoked(name) => (
                ConditionId::KeyRevoked,
                Severity::Info,
                name,
                "Put the client's new key in its place, or take the line out.",
            ),
        };
        Condition::new(id, severity, name.as_str(), &self.text(), advice)
    }
}

/// Puts both together. `declared` is what strongroom.toml says, validated.
pub fn merge(declared: &Config, registry: &Registry) -> Merged {
    let mut config = declared.clone();
    let mut notes = Vec::new();
    for client in &mut config.client {
        let before = client.all_keys().count();
        let admitted = |key: &Spanned<SshPublicKey>| !registry.is_revoked(key.get_ref());
        client.keys.retain(admitted);
        client.restore_keys.retain(admitted);
        if client.all_keys().count() < before {
            notes.push(Note::Revoked(client.name.get_ref().clone()));
        }
    }
    let owners = owners(declared);
    for enrolled in &registry.client {
        let name = enrolled.name.get_ref().clone();
        if config.client(name.as_str()).is_some() {
            notes.push(Note::Shadowed(name));
            continue;
        }
        if config.client.len() >= CLIENTS_MAX {
            notes.push(Note::OneTooMany(name));
            continue;
        }
        let mut client = enrolled.clone();
        for keys in [&mut client.keys, &mut client.restore_keys] {
            keys.retain(|key| {
                let owner = owners.iter().find(|(other, _)| other.same_key(key.get_ref()));
                if let Some((_, owner)) = owner {
                    notes.push(Note::KeyTaken(name.clone(), owner.clone()));
                }
                owner.is_none() && !registry.is_revoked(key.get_ref())
            });
        }
        if let Some(targets) = &mut client.targets {
            targets.retain(|wanted| {
                let known = config
                    .offsite
                    .target
                    .iter()
                    .any(|target| target.name.get_ref() == wanted.get_ref());
                if !known {
                    notes.push(Note::NoTarget(name.clone(), wanted.get_ref().clone()));
                }
                known
            });
        }
        let wanted: Vec<&Target> = config.targets_of(&client).collect();
        let (shared, own): (Vec<&Target>, Vec<&Target>) =
            wanted.into_iter().partition(|target| is_used(&config, target));
        if !shared.is_empty() {
            notes.extend(
                shared
                    .iter()
                    .map(|target| Note::SharedPrefix(name.clone(), target.name.get_ref().clone())),
            );
            client.targets = Some(own.into_iter().map(|target| target.name.clone()).collect());
        }
        config.client.push(client);
    }
    for client in &mut config.client {
        client.paused = registry.paused.contains(client.name.get_ref());
    }
    Merged { config, notes }
}

/// Who has which key by strongroom.toml.
pub(super) fn owners(declared: &Config) -> Vec<(SshPublicKey, String)> {
    let admin = declared
        .admin
        .keys
        .iter()
        .map(|key| (key.get_ref().clone(), "the administrator".to_string()));
    let clients = declared.client.iter().flat_map(|client| {
        let owner = format!("client `{}`", client.name.get_ref());
        client.all_keys().map(move |(key, _)| (key.clone(), owner.clone()))
    });
    admin.chain(clients).collect()
}

/// Whether a target has room for one client only, and has it.
fn is_used(config: &Config, target: &Target) -> bool {
    let single = !target.prefix.get_ref().as_str().contains(CLIENT_PLACEHOLDER);
    let mut clients = config.client.iter();
    single && clients.any(|client| config.targets_of(client).any(|other| other.name == target.name))
}
