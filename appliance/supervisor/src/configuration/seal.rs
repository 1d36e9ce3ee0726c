//! Secrets: sealed with the appliance's own key (systemd-creds(1)), one folder per use, so that each unit is given
//! only what it needs.

use crate::services::command::{self, CommandError};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use strongroom_model::config::{Config, FileName};

/// Use of the broker's password.
pub const MQTT: &str = "mqtt";
/// Use of the targets' secret keys.
pub const OFFSITE: &str = "offsite";

/// Every secret that the configuration needs, with its use.
pub fn needed(config: &Config) -> Vec<(&'static str, FileName)> {
    let mqtt = config
        .mqtt
        .iter()
        .filter_map(|mqtt| mqtt.password.clone())
        .map(|name| (MQTT, name));
    let offsite = config
        .offsite
        .target
        .iter()
        .map(|target| (OFFSITE, target.secret_key.clone()));
    let mut all: Vec<_> = mqtt.chain(offsite).collect();
    all.sort();
    all.dedup();
    all
}

/// Name under which a unit finds a secret in its credentials folder: `LoadCredentialEncrypted=<use>:<folder>` gives
/// each file this name (systemd.exec(5)).
pub fn credential(usage: &str, name: &FileName) -> String {
    format!("{usage}_{name}")
}

/// Seals a secret into `folder`. A line break at its end, which editors add, is no part of it. Durable on return.
pub fn seal(folder: &Path, usage: &str, name: &FileName, secret: &[u8]) -> Result<(), CommandError> {
    let secret = String::from_utf8_lossy(secret);
    let secret = secret.trim_end_matches(['\r', '\n']);
    let path = folder.join(name.as_str());
    let credential = format!("--name={}", credential(usage, name));
    let sealed = command::run(
        "systemd-creds",
        &["encrypt", "--with-key=host", &credential, "-", "-"],
        secret,
    )?;
    let write = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        crate::durable::write(&path, sealed.as_bytes(), 0o600)
    };
    write().map_err(|source| CommandError::Start {
        program: format!("writing {}", path.display()),
        source,
    })
}
