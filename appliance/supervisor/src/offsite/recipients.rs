//! The recipients of the configuration, with what their certificates say and when their keys were last shown to be there;
//! and the certificate of the key that signs the manifests.

use crate::durable;
use crate::paths::Paths;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strongroom_model::config::{self, Config};
use strongroom_model::recipient::{Listing, Proofs, Recipient, Signer};
use strongroom_offsite::openpgp::{certificate, sign};

/// Longest file of proofs, in bytes.
const PROOFS_BYTES_MAX: u64 = 64 * 1024;

/// All of it. `now`, Unix seconds, judges what has expired.
pub fn listing(paths: &Paths, config: &Config, now: Option<u64>) -> Listing {
    Listing {
        recipients: recipients(paths, config, now),
        signer: signer(paths),
    }
}

/// The recipients, in the order of the configuration.
pub fn recipients(paths: &Paths, config: &Config, now: Option<u64>) -> Vec<Recipient> {
    let proofs = proofs(paths);
    let declared = config.offsite.recipient.iter();
    declared
        .map(|declared| of_certificate(paths, config, declared, &proofs, now))
        .collect()
}

/// The recipients as they were last looked at: certificates are read again only when a file has changed.
#[derive(Default)]
pub struct Known {
    files: Vec<Option<u64>>,
    recipients: Vec<Recipient>,
}

impl Known {
    /// The recipients now. What has expired is not judged: the clock may not be trusted.
    pub fn look(&mut self, paths: &Paths, config: &Config) -> &[Recipient] {
        let declared = config.offsite.recipient.iter();
        let certificates = declared.map(|declared| paths.config_files().join(declared.certificate.as_str()));
        let files = certificates
            .chain([paths.proofs()])
            .map(|file| changed(&file))
            .collect();
        if self.files != files {
            self.recipients = recipients(paths, config, None);
            self.files = files;
        }
        &self.recipients
    }
}

/// When a file was written, in nanoseconds since 1970.
fn changed(file: &Path) -> Option<u64> {
    let time = fs::metadata(file).ok()?.modified().ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// What keeps copies from being encrypted to these recipients where a proof is required; `None` when nothing does.
pub fn unproven(paths: &Paths, config: &Config, target: &config::Target) -> Option<String> {
    let mut all = recipients(paths, config, None);
    all.retain(|recipient| {
        target.encrypts_to(&recipient.name) && recipient.fault.is_empty() && recipient.proven.is_none()
    });
    let names: Vec<&str> = all.iter().map(|recipient| recipient.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "nothing is pushed before it was shown that the secret key of {} is there, since strongroom.toml says `proof = \"required\"`; see `strongroom recipient challenge`",
            names.join(", ")
        )
    })
}

/// When each key was last shown to be there; nothing of it when the file is lost, which only has it asked for again.
pub fn proofs(paths: &Paths) -> Proofs {
    durable::read_json(&paths.proofs(), PROOFS_BYTES_MAX).unwrap_or_default()
}

fn of_certificate(
    paths: &Paths,
    config: &Config,
    declared: &config::Recipient,
    proofs: &Proofs,
    now: Option<u64>,
) -> Recipient {
    let name = declared.name.get_ref();
    let file = paths.config_files().join(declared.certificate.as_str());
    let mut recipient = Recipient {
        name: name.clone(),
        used: config.offsite.target.iter().any(|target| target.encrypts_to(name)),
        since: modified(&file),
        ..Recipient::default()
    };
    let now = now.map(|now| UNIX_EPOCH + Duration::from_secs(now));
    let read = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()));
    let described = read.and_then(|bytes| certificate::describe(&bytes, now).map_err(|error| error.to_string()));
    match described {
        Err(why) => recipient.fault = why,
        Ok(found) => {
            recipient.proven = proofs.of(&found.fingerprint);
            recipient.fingerprint = found.fingerprint;
            recipient.user_id = found.user_id;
            recipient.algorithm = found.algorithm;
            recipient.expires = found.expires;
            recipient.reads_ocb = found.reads_ocb;
        }
    }
    recipient
}

fn modified(file: &Path) -> Option<u64> {
    let time: SystemTime = fs::metadata(file).ok()?.modified().ok()?;
    crate::unix_seconds(time)
}

fn signer(paths: &Paths) -> Option<Signer> {
    let certificate = fs::read_to_string(paths.signer()).ok()?;
    let fingerprint = sign::fingerprint_of(certificate.as_bytes()).ok()?;
    Some(Signer {
        fingerprint,
        certificate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_offsite::openpgp::generate;
    use zeroize::Zeroizing;

    const CONFIG: &str = "[offsite]\nproof = \"required\"\n\
        [[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n\
        [[offsite.recipient]]\nname = \"aunt\"\ncertificate = \"aunt.asc\"\n\
        [[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\n\
        access_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";

    #[test]
    fn what_is_known_of_recipients_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let config = Config::parse(CONFIG).unwrap();
        let target = &config.offsite.target[0];
        let mut known = Known::default();
        let [owner, aunt] = known.look(&paths, &config) else {
            panic!()
        };
        assert!(
            owner.used && !aunt.used && owner.fault.contains("owner.asc"),
            "{owner:?}"
        );
        // Its push fails with the reason; a proof is not what is missing.
        assert_eq!(unproven(&paths, &config, target), None);

        let key = generate::recipient("Owner", &Zeroizing::new("secret".into()), true).unwrap();
        durable::write(
            &paths.config_files().join("owner.asc"),
            key.certificate.as_bytes(),
            0o644,
        )
        .unwrap();
        let owner = known.look(&paths, &config)[0].clone();
        assert_eq!((owner.fault.as_str(), owner.user_id.as_str()), ("", "Owner"));
        assert_eq!(
            (owner.algorithm.as_str(), owner.reads_ocb, owner.expires),
            ("cv25519", true, None)
        );
        assert_eq!(
            (owner.proven, owner.fingerprint.as_str()),
            (None, key.fingerprint.as_str())
        );
        assert!(owner.since.is_some());
        assert!(
            unproven(&paths, &config, target)
                .unwrap()
                .contains("the secret key of owner is there")
        );

        let mut proofs = Proofs::default();
        proofs.proven(&key.fingerprint, 1_800_000_000);
        durable::write_json(&paths.proofs(), &proofs).unwrap();
        assert_eq!(known.look(&paths, &config)[0].proven, Some(1_800_000_000));
        assert_eq!(unproven(&paths, &config, target), None);

        let signer = generate::signer("Strongroom").unwrap();
        assert_eq!(listing(&paths, &config, None).signer, None);
        durable::write(&paths.signer(), signer.certificate.as_bytes(), 0o644).unwrap();
        let listing = listing(&paths, &config, None);
        assert_eq!(listing.signer.unwrap().fingerprint, signer.fingerprint);
    }
}
