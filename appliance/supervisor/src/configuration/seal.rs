//! Secrets: sealed with the appliance's own key (systemd-creds(1)), one folder per use, so that each unit is given
//! only what it needs.

use crate::boot::console_password::{self, CONSOLE};
use crate::paths::Paths;
use crate::services::command::{self, CommandError};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{Config, FileName};
use zeroize::Zeroizing;

pub use strongroom_model::config::usage::{MQTT, NOTICES, OFFSITE};

/// Name under which a unit finds a secret in its credentials folder: `LoadCredentialEncrypted=<use>:<folder>` gives
/// each file this name (systemd.exec(5)).
pub fn credential(usage: &str, name: &FileName) -> String {
    format!("{usage}_{name}")
}

/// A secret that systemd gave to this unit, opened, in its credentials `folder`.
pub fn given(folder: &Path, usage: &str, name: &FileName) -> io::Result<Zeroizing<String>> {
    fs::read_to_string(folder.join(credential(usage, name))).map(Zeroizing::new)
}

/// Whether the secret that is sealed in `folder` can be opened; `Ok(None)`: there is none.
pub fn open(folder: &Path, usage: &str, name: &FileName) -> Result<Option<Zeroizing<String>>, CommandError> {
    let path = folder.join(name.as_str());
    if !path.exists() {
        return Ok(None);
    }
    let credential = format!("--name={}", credential(usage, name));
    let path = path.display().to_string();
    command::run("systemd-creds", &["decrypt", &credential, &path, "-"], "").map(|secret| Some(Zeroizing::new(secret)))
}

/// Puts sealed secrets aside that can't be opened: systemd would start no unit that is given one. Returns a condition for
/// each, and for each that is not there at all.
pub fn set_aside_unusable(paths: &Paths, config: &Config) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (usage, name) in config.secrets() {
        let folder = paths.secrets(usage);
        if usage == CONSOLE && folder.join(name.as_str()).exists() {
            continue;
        }
        let error = match open(&folder, usage, name) {
            Ok(Some(_)) => continue,
            Ok(None) => {
                conditions.push(unusable(name, "is missing"));
                continue;
            }
            Err(error) => error,
        };
        let aside = paths.secrets("unusable");
        let moved = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&aside)
            .and_then(|()| fs::rename(folder.join(name.as_str()), aside.join(credential(usage, name))));
        eprintln!("the secret `{name}` can't be opened ({error}); put aside: {moved:?}");
        conditions.push(unusable(
            name,
            &format!("can't be opened with this appliance's key: {error}"),
        ));
    }
    conditions
}

fn unusable(name: &FileName, how: &str) -> Condition {
    Condition::new(
        ConditionId::SecretUnusable,
        Severity::Alarm,
        name.as_str(),
        &format!("The sealed secret `{name}` {how}."),
        "Offer the configuration again, with the secret's file beside it, on a USB stick labelled STRONGROOM.",
    )
}

/// Seals a secret into `folder`. A line break at its end, which editors add, is no part of it. Durable on return.
/// Returns whether it is another than before: a secret that is known stays sealed as it is.
pub fn seal(folder: &Path, usage: &str, name: &FileName, secret: &[u8]) -> Result<bool, CommandError> {
    if usage == CONSOLE {
        return console_password::keep(folder, name, secret).map_err(|source| CommandError::Start {
            program: format!("writing {}", folder.join(name.as_str()).display()),
            source,
        });
    }
    let secret = Zeroizing::new(String::from_utf8_lossy(secret).into_owned());
    let secret = secret.trim_end_matches(['\r', '\n']);
    if open(folder, usage, name).is_ok_and(|known| known.is_some_and(|known| known.as_str() == secret)) {
        return Ok(false);
    }
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
    write().map(|()| true).map_err(|source| CommandError::Start {
        program: format!("writing {}", path.display()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_can_not_be_opened_is_put_aside_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let config = Config::parse("[mqtt]\nhost = \"broker\"\npassword = \"word\"\n").unwrap();
        assert!(set_aside_unusable(&paths, &Config::default()).is_empty());
        crate::durable::write(&paths.secrets(MQTT).join("word"), b"sealed elsewhere", 0o600).unwrap();
        let told = set_aside_unusable(&paths, &config);
        assert_eq!(told[0].id, ConditionId::SecretUnusable);
        assert!(!paths.secrets(MQTT).join("word").exists());
        assert!(paths.secrets("unusable").join("mqtt_word").exists());
        assert!(set_aside_unusable(&paths, &config)[0].text.contains("is missing"));
    }
}
