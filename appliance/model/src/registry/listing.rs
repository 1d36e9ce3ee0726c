//! The clients as a person is shown them.

use super::{Registry, merge};
use crate::config::Config;
use crate::name::ClientName;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedClient {
    /// Its name.
    pub name: ClientName,
    /// Whether strongroom.toml declares it; else it was enrolled by command.
    pub declared: bool,
    /// Whether it gets no session until it is resumed.
    pub paused: bool,
    /// The keys that are admitted.
    pub keys: Vec<ListedKey>,
    /// How much its repository may hold, as it was written.
    pub quota: Option<String>,
    /// Longest silence in hours before a warning.
    pub expect_hours: u32,
    /// Addresses from which its keys are admitted; from anywhere when there are none.
    pub from: Vec<String>,
    /// After how many days what it deleted is freed by itself; only by command when absent.
    #[serde(default)]
    pub compact_after_days: Option<u16>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedKey {
    /// As `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// The owner's text.
    pub comment: String,
    /// Whether it may only read.
    pub restore: bool,
}

/// All clients in force: those of strongroom.toml, then those that were enrolled.
pub fn listing(declared: &Config, registry: &Registry) -> Vec<ListedClient> {
    let merged = merge(declared, registry);
    let clients = merged.config.client.iter().map(|client| ListedClient {
        name: client.name.get_ref().clone(),
        declared: declared.client(client.name.get_ref().as_str()).is_some(),
        paused: client.paused,
        keys: client
            .all_keys()
            .map(|(key, restore)| ListedKey {
                fingerprint: key.fingerprint(),
                comment: key.comment().into(),
                restore,
            })
            .collect(),
        quota: client.quota.as_ref().map(|quota| quota.get_ref().to_string()),
        expect_hours: client.expect_hours,
        from: client.from.iter().map(|range| range.get_ref().to_string()).collect(),
        compact_after_days: client.compact_after_days.as_ref().map(|days| *days.get_ref()),
    });
    clients.collect()
}
