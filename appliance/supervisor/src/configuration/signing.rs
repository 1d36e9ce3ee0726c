//! The key with which the appliance signs its manifests: made by itself once there is a target to push to, sealed like the
//! owner's secrets, and copied onto the array with them. Its certificate is public and lies beside the configuration.

use super::seal;
use crate::durable;
use crate::identity;
use crate::paths::Paths;
use std::fs;
use std::path::PathBuf;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{Config, FileName};
use strongroom_offsite::openpgp::{Signer, generate};
use zeroize::Zeroizing;

/// Use of the signing key among the sealed secrets.
pub const SIGNING: &str = "signing";
const NAME: &str = "manifests";

/// Name under which a push finds the key in its credentials folder.
pub fn credential() -> String {
    format!("{SIGNING}_{NAME}")
}

/// Sees to it that there is a key and its certificate, if anything is pushed. Returns what a person should know.
///
/// None is made while state that would not last stands in for the state partition, or while the one on the array may still
/// come back: who has noted down whose signatures to trust should not be surprised by another.
pub fn ensure(paths: &Paths, config: &Config) -> Option<Condition> {
    if config.offsite.target.is_empty() || paths.state_lost().exists() || paths.recall_pending().exists() {
        return None;
    }
    let error = make_sure(paths).err()?;
    eprintln!("What is pushed will not be signed: {error}");
    Some(Condition::new(
        ConditionId::SecretUnusable,
        Severity::Warning,
        NAME,
        &format!("Off-site copies are made, but not signed, so that it can't be told who made them: {error}."),
        "Restart the appliance; it then tries again. If that does not help, make a `strongroom report`.",
    ))
}

fn make_sure(paths: &Paths) -> Result<(), String> {
    let name = FileName::new(NAME).ok_or("its name is none")?;
    let folder = paths.secrets(SIGNING);
    let known = match seal::open(&folder, SIGNING, &name) {
        Ok(known) => known,
        Err(error) => {
            // Sealed with another machine's key: no unit that is given it would start.
            set_aside(paths, folder.join(NAME)).map_err(|why| format!("the key can't be opened ({error}): {why}"))?;
            eprintln!("The signing key could not be opened ({error}), so another is made. The old one is put aside.");
            None
        }
    };
    let secret = match known {
        Some(secret) => secret,
        None => {
            let key = generate::signer(&format!("Strongroom {}", identity::of(paths))).map_err(|e| e.to_string())?;
            seal::seal(&folder, SIGNING, &name, key.secret.as_bytes()).map_err(|error| error.to_string())?;
            eprintln!("A signing key was made: {}.", key.fingerprint);
            key.secret
        }
    };
    let certificate = certificate(&secret)?;
    durable::write_if_changed(&paths.signer(), certificate.as_bytes(), 0o644)
        .map(drop)
        .map_err(|error| format!("{}: {error}", paths.signer().display()))
}

fn certificate(secret: &Zeroizing<String>) -> Result<String, String> {
    let signer = Signer::parse(secret.as_bytes()).map_err(|error| error.to_string())?;
    signer.certificate().map_err(|error| error.to_string())
}

fn set_aside(paths: &Paths, sealed: PathBuf) -> std::io::Result<()> {
    let aside = paths.secrets("unusable");
    fs::create_dir_all(&aside)?;
    fs::set_permissions(&aside, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    fs::rename(sealed, aside.join(credential()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_made_that_is_not_needed_or_would_not_last() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let target = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";
        let config = Config::parse(target).unwrap();
        assert_eq!(ensure(&paths, &Config::default()), None);
        for mark in [paths.state_lost(), paths.recall_pending()] {
            durable::write(&mark, b"", 0o600).unwrap();
            assert_eq!(ensure(&paths, &config), None);
            fs::remove_file(mark).unwrap();
        }
        assert!(!paths.secrets(SIGNING).exists() && !paths.signer().exists());
    }
}
