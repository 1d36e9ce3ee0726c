//! The role `strongroom-configure`: takes over a configuration that the owner left on the ESP, and makes of the last
//! good one what other programs read.
//!
//! Reads `CONFIG/` on the ESP; writes the state partition and `/run`. A configuration is taken over whole or not at
//! all: certificates and sealed secrets are durable before `strongroom.toml` replaces the last good one.

mod generate;
mod incoming;
pub mod seal;

use crate::durable;
use crate::paths::Paths;
use crate::services::command;
use incoming::{Incoming, IncomingError};
use std::fs;
use std::io;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{Config, ConfigError, FileName};
use strongroom_offsite::openpgp::Recipients;

/// Name of the configuration file.
pub const CONFIG_NAME: &str = "strongroom.toml";
/// Where the owner finds what was wrong, beside the file.
pub const REPORT_NAME: &str = "strongroom-report.txt";

/// Why an offered configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It could not be read.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// It is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// It names a certificate that is not there.
    #[error(
        "{CONFIG_NAME}: the certificate `{0}` of a recipient is neither beside the file nor known from before. Export it with `gpg --export --armor KEY > {0}` and put it beside {CONFIG_NAME}."
    )]
    NoCertificate(FileName),
    /// A certificate can't be used.
    #[error("{CONFIG_NAME}: the certificate `{0}` can't be used: {1}")]
    BadCertificate(FileName, String),
    /// It names a secret that is not there.
    #[error(
        "{CONFIG_NAME}: the secret `{0}` is neither beside the file nor known from before. Put it, and nothing else, into a file of that name beside {CONFIG_NAME}; it is sealed and removed at the next start."
    )]
    NoSecret(FileName),
    /// The schedule is no calendar expression.
    #[error(
        "{CONFIG_NAME}: `{0}` in [schedule] is not a calendar expression. Write it as in systemd.time(7): `daily`, `*-*-* 03:30`."
    )]
    BadCalendar(String),
    /// The state partition refuses.
    #[error("the configuration is good, but could not be kept: {0}. The last one stays in force.")]
    State(io::Error),
    /// A secret could not be sealed.
    #[error("the configuration is good, but the secret `{0}` could not be sealed: {1}. The last one stays in force.")]
    Seal(FileName, command::CommandError),
}

/// Runs the role. Errors are only those that keep the generated files from being written.
pub fn run(paths: &Paths) -> io::Result<()> {
    let mut refused = None;
    match incoming::read(&paths.owner_config()) {
        Ok(Some(incoming)) => match take_over(paths, &incoming) {
            Ok(()) => tidy(paths, &incoming, None),
            Err(refusal) => {
                tidy(paths, &incoming, Some(&refusal));
                refused = Some(refusal);
            }
        },
        Ok(None) => {}
        Err(error) => refused = Some(error.into()),
    }
    let mut conditions: Vec<Condition> = refused
        .iter()
        .map(|refusal| {
            eprintln!("The configuration was refused. {refusal}");
            Condition::new(
                ConditionId::ConfigRefused,
                Severity::Warning,
                CONFIG_NAME,
                &refusal.to_string(),
                "The last good configuration stays in force. Correct the file and restart.",
            )
        })
        .collect();
    if let Some(Err(error)) = fs::read_to_string(paths.config()).ok().map(|text| Config::parse(&text)) {
        conditions.push(Condition::new(
            ConditionId::ConfigRefused,
            Severity::Alarm,
            "last good configuration",
            &format!("This version does not understand the last good configuration: {error}. Defaults are in force."),
            "Put a configuration for this version into CONFIG and restart.",
        ));
    }
    let report = serde_json::to_vec(&conditions).unwrap_or_default();
    durable::write(&paths.config_report(), &report, 0o644)?;
    generate(paths)
}

/// Checks an offered configuration as a whole and makes it the last good one.
fn take_over(paths: &Paths, incoming: &Incoming) -> Result<(), Refusal> {
    let config = Config::parse(&incoming.text)?;
    for name in config.public_files() {
        let certificate = match incoming.files.get(name) {
            Some(bytes) => bytes.clone(),
            None => {
                fs::read(paths.config_files().join(name.as_str())).map_err(|_| Refusal::NoCertificate(name.clone()))?
            }
        };
        // The clock may not be set yet: whether it has expired is judged at each push.
        Recipients::parse(&[certificate], None)
            .map_err(|error| Refusal::BadCertificate(name.clone(), error.to_string()))?;
    }
    let secrets = seal::needed(&config);
    for (usage, name) in &secrets {
        if !incoming.files.contains_key(name) && !paths.secrets(usage).join(name.as_str()).exists() {
            return Err(Refusal::NoSecret(name.clone()));
        }
    }
    let calendar = config.schedule.push.as_str();
    if command::run("systemd-analyze", &["calendar", calendar], "").is_err() {
        return Err(Refusal::BadCalendar(calendar.to_string()));
    }

    for (usage, name) in &secrets {
        if let Some(secret) = incoming.files.get(name) {
            seal::seal(&paths.secrets(usage), usage, name, secret).map_err(|e| Refusal::Seal(name.clone(), e))?;
        }
    }
    for name in config.public_files() {
        if let Some(bytes) = incoming.files.get(name) {
            durable::write_if_changed(&paths.config_files().join(name.as_str()), bytes, 0o644)
                .map_err(Refusal::State)?;
        }
    }
    durable::write_if_changed(&paths.config(), incoming.text.as_bytes(), 0o644).map_err(Refusal::State)?;
    Ok(())
}

/// Leaves the owner's folder as it should be: without secrets that are sealed by now, and with a report if something
/// was wrong. The folder is writable only for as long as this takes, and only when something has to change.
fn tidy(paths: &Paths, incoming: &Incoming, refusal: Option<&Refusal>) {
    let folder = paths.owner_config();
    let report = folder.join(REPORT_NAME);
    let text = refusal.map(|refusal| format!("The configuration was refused.\r\n\r\n{refusal}\r\n"));
    let old = fs::read_to_string(&report).ok();
    let secrets: Vec<FileName> = match (refusal, Config::parse(&incoming.text)) {
        (None, Ok(config)) => seal::needed(&config)
            .into_iter()
            .map(|(_, name)| name)
            .filter(|n| incoming.files.contains_key(n))
            .collect(),
        _ => Vec::new(),
    };
    if secrets.is_empty() && text == old {
        return;
    }
    let mountpoint = paths.at("/boot/efi").display().to_string();
    let remount = |how: &str| command::run("mount", &["-o", how, &mountpoint], "");
    if let Err(error) = remount("remount,rw") {
        eprintln!("{REPORT_NAME} and the secrets in CONFIG are left as they are: {error}");
        return;
    }
    let changed = (|| {
        for name in &secrets {
            let path = folder.join(name.as_str());
            let length = incoming.files.get(name).map_or(0, Vec::len);
            // Best effort on flash memory: at least the file's present blocks no longer hold the secret.
            fs::write(&path, vec![0; length])?;
            fs::File::open(&path)?.sync_all()?;
            fs::remove_file(&path)?;
        }
        match &text {
            Some(text) => durable::write(&report, text.as_bytes(), 0o644),
            None if old.is_some() => fs::remove_file(&report),
            None => Ok(()),
        }
    })();
    if let Err(error) = changed {
        eprintln!("CONFIG on the ESP could not be tidied: {error}");
    }
    if let Err(error) = remount("remount,ro") {
        eprintln!("The ESP stays writable: {error}");
    }
}

/// Makes the generated files of the last good configuration, or of none.
fn generate(paths: &Paths) -> io::Result<()> {
    let config = match fs::read_to_string(paths.config()) {
        Ok(text) => Config::parse(&text).unwrap_or_else(|error| {
            // Written by another version. Come up with the defaults rather than not at all.
            eprintln!("The last good configuration is not understood by this version. {error}");
            Config::default()
        }),
        Err(_) => Config::default(),
    };
    for file in generate::files(&config) {
        durable::write_if_changed(&paths.at(&file.path), file.content.as_bytes(), 0o644)?;
    }
    if paths.root() == std::path::Path::new("/") {
        rustix::system::sethostname(config.network.hostname.as_str().as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
