//! The client registry: clients that are enrolled by command, beside those of strongroom.toml; and what holds for any
//! client at once: that it is paused, that a key is revoked.
//!
//! It is a file of its own, `clients.toml`, in the form of strongroom.toml: a person can read it, and move a `[[client]]`
//! over. Only commands write it. What is in force is the configuration and the registry together ([`merge`]); what a
//! command makes of the registry is decided in [`Registry::changed`].

mod change;
mod listing;
mod merge;
#[cfg(test)]
mod tests;

pub use change::{Answer, Change, ChangeError, Changed, Opened, Request, Settings};
pub use listing::{ListedClient, ListedKey, listing};
pub use merge::{Merged, Note, merge};

use crate::config::{self, Client};
use crate::name::ClientName;
use crate::ssh_key::SshPublicKey;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use serde::Deserialize;

/// Most revoked keys that are remembered; the oldest that nobody lists any more go first.
pub const REVOKED_MAX: usize = 256;

const HEAD: &str = "\
# Clients that were enrolled by command, in the form of strongroom.toml. Written by `strongroom client …` alone.
";

/// Clients enrolled by command, and what holds at once for any client.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Clients that get no session until they are resumed, wherever they are declared.
    pub paused: Vec<ClientName>,
    /// Keys that are never admitted again, for no client.
    pub revoked: Vec<SshPublicKey>,
    /// A change of name whose folders may not have been moved yet.
    pub moving: Option<Moving>,
    /// The enrolled clients.
    pub client: Vec<Client>,
}

/// A client that changes its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moving {
    /// What it was called.
    pub from: ClientName,
    /// What it is called.
    pub to: ClientName,
}

/// Why a registry can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryError(String);

impl RegistryError {
    /// What was read is not even text.
    pub fn no_text() -> Self {
        Self("it is no text".into())
    }
}

impl Registry {
    /// Reads a registry.
    ///
    /// Errors: it is not of the form that [`Registry::to_toml`] writes, or a client is in it twice.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let registry: Self = config::read(text).map_err(|error| {
            let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
            RegistryError(format!("{line}{}", error.message))
        })?;
        for (number, client) in registry.client.iter().enumerate() {
            let name = client.name.get_ref();
            if registry.client[..number]
                .iter()
                .any(|other| other.name.get_ref() == name)
            {
                return Err(RegistryError(format!("the client `{name}` is in it twice")));
            }
        }
        Ok(registry)
    }

    /// What can be read of a damaged registry, of what must not be forgotten with it: who is paused, and which keys are
    /// revoked. It is read line by line, as [`Registry::to_toml`] writes it, and whatever is not of that form is passed over.
    pub fn salvaged(text: &str) -> Self {
        let mut rest = Self::default();
        let mut list = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_suffix("= [") {
                list = name.trim_end();
            } else if line.starts_with(['[', ']']) {
                list = "";
            } else if let Some(item) = unquoted(line) {
                match list {
                    "paused" => rest.paused.extend(ClientName::new(&item).ok()),
                    "revoked" => rest.revoked.extend(SshPublicKey::parse(&item).ok()),
                    _ => {}
                }
            }
        }
        rest.paused.truncate(crate::status::CLIENTS_MAX);
        rest.revoked.truncate(REVOKED_MAX);
        rest
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(HEAD);
        list(&mut text, "paused", self.paused.iter().map(ToString::to_string));
        list(&mut text, "revoked", self.revoked.iter().cloned().map(String::from));
        if let Some(Moving { from, to }) = &self.moving {
            let _ = writeln!(text, "\n[moving]\nfrom = \"{from}\"\nto = \"{to}\"");
        }
        for client in &self.client {
            let _ = writeln!(text, "\n[[client]]\nname = \"{}\"", client.name.get_ref());
            let keys = |keys: &[toml::Spanned<SshPublicKey>]| -> Vec<String> {
                keys.iter().map(|key| String::from(key.get_ref().clone())).collect()
            };
            if client.keys.is_empty() {
                text.push_str("keys = []\n");
            }
            list(&mut text, "keys", keys(&client.keys).into_iter());
            list(&mut text, "restore_keys", keys(&client.restore_keys).into_iter());
            list(
                &mut text,
                "from",
                client.from.iter().map(|range| range.get_ref().to_string()),
            );
            if let Some(quota) = &client.quota {
                let _ = writeln!(text, "quota = {}", quoted(&quota.get_ref().to_string()));
            }
            let _ = writeln!(text, "expect_hours = {}", client.expect_hours);
            if let Some(days) = &client.compact_after_days {
                let _ = writeln!(text, "compact_after_days = {}", days.get_ref());
            }
            if let Some(targets) = &client.targets {
                let names: Vec<String> = targets.iter().map(|name| quoted(name.get_ref().as_str())).collect();
                let _ = writeln!(text, "targets = [{}]", names.join(", "));
            }
        }
        text
    }

    /// The enrolled client of that name.
    pub fn client(&self, name: &ClientName) -> Option<&Client> {
        self.client.iter().find(|client| client.name.get_ref() == name)
    }

    /// Whether this key was revoked.
    pub fn is_revoked(&self, key: &SshPublicKey) -> bool {
        self.revoked.iter().any(|gone| gone.same_key(key))
    }
}

/// A list of strings, one on each line; nothing when there is none.
fn list(text: &mut String, name: &str, items: impl Iterator<Item = String>) {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "{name} = [");
    for item in items {
        let _ = writeln!(text, "    {},", quoted(&item));
    }
    text.push_str("]\n");
}

/// What [`quoted`] was given, from a line of a list.
fn unquoted(line: &str) -> Option<String> {
    let inside = line.trim_end_matches(',').strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inside.len());
    let mut escaped = false;
    for character in inside.chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            text.push(character);
        }
    }
    Some(text)
}

/// A basic string of TOML. No value here holds a control character: their types see to it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}
