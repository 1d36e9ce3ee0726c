//! Checking an offered configuration as a whole and making it the last good one. Certificates and sealed secrets are
//! durable before `strongroom.toml` replaces the last good one.

use std::fs;
use strongroom_model::config::{Config, FileName, changes};
use strongroom_offsite::openpgp::Recipients;
use strongroom_offsite::trust;

use super::incoming::Incoming;
use super::{Refusal, seal};
use crate::durable;
use crate::faces::mqtt::tls;
use crate::paths::Paths;
use crate::services::command;

/// What a configuration that was taken over changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// In words, one line each; empty when it is what was in force already.
    pub changes: Vec<String>,
    /// A secret is another than before.
    pub secrets_changed: bool,
}

/// What strongroom.toml says: the last good configuration, or the defaults when there is none that this version
/// understands.
pub fn declared(paths: &Paths) -> Config {
    fs::read_to_string(paths.config())
        .ok()
        .and_then(|text| Config::parse(&text).ok())
        .unwrap_or_default()
}

/// Checks an offered configuration as a whole. Returns what it would change, in words, one line each; none for what is in
/// force already.
pub fn judge(paths: &Paths, incoming: &Incoming) -> Result<Vec<String>, Refusal> {
    check(paths, incoming)?;
    let mut would = changes(&declared(paths), &incoming.config);
    would.extend(
        incoming
            .secrets()
            .iter()
            .map(|name| format!("secret {name}: sealed anew")),
    );
    for name in incoming.config.public_files() {
        let known = fs::read(paths.config_files().join(name.as_str())).ok();
        if incoming
            .files
            .get(name)
            .is_some_and(|offered| known.as_ref() != Some(offered))
        {
            would.push(format!("certificate {name}: new"));
        }
    }
    Ok(would)
}

/// Checks an offered configuration as a whole and makes it the last good one.
pub fn take_over(paths: &Paths, incoming: &Incoming) -> Result<Taken, Refusal> {
    check(paths, incoming)?;
    let config = &incoming.config;
    let known = paths.config().exists();
    let mut taken = Taken {
        changes: changes(&declared(paths), config),
        secrets_changed: false,
    };
    for (usage, name) in config.secrets() {
        if let Some(secret) = incoming.files.get(name) {
            let changed =
                seal::seal(&paths.secrets(usage), usage, name, secret).map_err(|e| Refusal::Seal(name.clone(), e))?;
            if changed {
                taken.secrets_changed = true;
                taken.changes.push(format!("secret {name}: sealed"));
            }
        }
    }
    for name in config.public_files() {
        if let Some(bytes) = incoming.files.get(name) {
            let changed = durable::write_if_changed(&paths.config_files().join(name.as_str()), bytes, 0o644)
                .map_err(Refusal::State)?;
            if changed {
                taken.changes.push(format!("certificate {name}: new"));
            }
        }
    }
    durable::write_if_changed(&paths.config(), incoming.text.as_bytes(), 0o644).map_err(Refusal::State)?;
    if !known && taken.changes.is_empty() {
        taken
            .changes
            .push("it is the first one, and leaves everything at its default".into());
    }
    Ok(taken)
}

fn check(paths: &Paths, incoming: &Incoming) -> Result<(), Refusal> {
    let config = &incoming.config;
    for recipient in &config.offsite.recipient {
        let name = &recipient.certificate;
        let certificate = public_file(paths, incoming, name).ok_or_else(|| Refusal::NoCertificate(name.clone()))?;
        // The clock may not be set yet: whether it has expired is judged at each push.
        Recipients::parse(&[certificate], None)
            .map_err(|error| Refusal::BadCertificate(name.clone(), error.to_string()))?;
    }
    let pem = |section, name: &FileName, what| {
        public_file(paths, incoming, name).ok_or_else(|| Refusal::NoPem(section, name.clone(), what))
    };
    let trusted = config.trust.certificates.iter().map(|name| ("trust", name));
    let ca = config.mqtt.iter().filter_map(|mqtt| mqtt.ca.as_ref());
    for (section, name) in trusted.chain(ca.map(|name| ("mqtt", name))) {
        let name = name.get_ref();
        let file = pem(section, name, "your authority's certificate")?;
        trust::parse(&file).map_err(|error| Refusal::BadPem(section, name.clone(), error.to_string()))?;
    }
    if let Some(name) = config.mqtt.as_ref().and_then(|mqtt| mqtt.certificate.as_ref()) {
        let name = name.get_ref();
        let file = pem("mqtt", name, "the certificate that the broker is to be shown")?;
        tls::chain(&file).map_err(|why| Refusal::BadPem("mqtt", name.clone(), why))?;
    }
    for (usage, name) in config.secrets() {
        if !incoming.files.contains_key(name) && !paths.secrets(usage).join(name.as_str()).exists() {
            return Err(Refusal::NoSecret(name.clone()));
        }
    }
    let calendar = config.schedule.push.as_str();
    if command::run("systemd-analyze", &["calendar", calendar], "").is_err() {
        return Err(Refusal::BadCalendar(calendar.to_string()));
    }
    Ok(())
}

/// A public file: the one offered, or the one known from before.
fn public_file(paths: &Paths, incoming: &Incoming, name: &FileName) -> Option<Vec<u8>> {
    match incoming.files.get(name) {
        Some(bytes) => Some(bytes.clone()),
        None => fs::read(paths.config_files().join(name.as_str())).ok(),
    }
}
