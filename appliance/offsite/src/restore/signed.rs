//! Who signed a manifest: the signature lies beside the clear sums, which name the manifest's object and its SHA-256.
//!
//! Encryption to a public certificate proves nothing of where a copy comes from: whoever may write to the bucket could put
//! another there. Only a signature by a key that the owner knows does, so its fingerprint has to come from elsewhere than
//! the bucket.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RestoreError;
use crate::digest::Sha256Sum;
use crate::layout;
use crate::openpgp::sign;
use crate::s3::S3Error;
use crate::store::Store;
use crate::target::Target;

/// The clear sums of 20,000 segments have 3 MB.
const MAX_SUMS: usize = 64 * 1024 * 1024;
/// A signature or a certificate of ours has half a kilobyte.
const MAX_SMALL: usize = 64 * 1024;

/// What is known of who made a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signed {
    /// By the key that the owner named.
    Known {
        /// Its fingerprint.
        fingerprint: String,
    },
    /// By a key whose certificate lies in the same bucket, and nobody has vouched for.
    ByUnknown {
        /// Its fingerprint.
        fingerprint: String,
    },
    /// Nobody can tell.
    No {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known { fingerprint } => write!(f, "signed by {fingerprint}, as was asked"),
            Self::ByUnknown { fingerprint } => write!(
                f,
                "signed by {fingerprint}; compare that with `strongroom recipient show` of the appliance or with the recovery \
                 kit, or give it with --signer"
            ),
            Self::No { why } => write!(f, "who made this copy can't be told: {why}"),
        }
    }
}

/// What belongs to a manifest to tell who signed it.
pub(super) fn objects(manifest: &str) -> Vec<String> {
    let sums = layout::sums_of_manifest(manifest);
    sums.map(|sums| vec![layout::signature_of_sums(&sums), sums])
        .unwrap_or_default()
}

/// Checks the signature of a manifest whose object has this SHA-256. `signer`, a fingerprint, must have made it.
///
/// # Errors
/// [`RestoreError::Signature`] when `signer` is given and did not; [`RestoreError::Target`], also for what is archived.
pub(super) async fn check(
    client: &Store,
    target: &Target,
    manifest: &str,
    sha256: Sha256Sum,
    signer: Option<&str>,
) -> Result<Signed, RestoreError> {
    let found = match evidence(client, target, manifest, signer).await {
        Ok(Ok(evidence)) => evidence.judge(manifest, sha256),
        Ok(Err(why)) => Err(why),
        Err(source) => {
            return Err(RestoreError::Target {
                target: target.name.clone(),
                source,
            });
        }
    };
    match (found, signer) {
        (Ok(fingerprint), Some(_)) => Ok(Signed::Known { fingerprint }),
        (Ok(fingerprint), None) => Ok(Signed::ByUnknown { fingerprint }),
        (Err(why), None) => Ok(Signed::No { why }),
        (Err(why), Some(signer)) => Err(RestoreError::Signature {
            object: manifest.into(),
            signer: signer.into(),
            why,
        }),
    }
}

struct Evidence {
    sums: Vec<u8>,
    signature: Vec<u8>,
    certificate: Vec<u8>,
}

impl Evidence {
    /// The fingerprint of who signed, or why that can't be told.
    fn judge(&self, manifest: &str, sha256: Sha256Sum) -> Result<String, String> {
        let by = sign::verify(&self.certificate, &self.signature, &self.sums)
            .map_err(|error| format!("the signature of its sums does not count: {error}"))?;
        let line = format!("{sha256}  {manifest}");
        let named = String::from_utf8_lossy(&self.sums).lines().any(|known| known == line);
        if named {
            Ok(by)
        } else {
            Err("the signed sums are not of this manifest".into())
        }
    }
}

/// Fetches what it takes, or tells why it can't be had.
async fn evidence(
    client: &Store,
    target: &Target,
    manifest: &str,
    signer: Option<&str>,
) -> Result<Result<Evidence, String>, S3Error> {
    let Some(sums) = layout::sums_of_manifest(manifest) else {
        return Ok(Err("the manifest's name is of no known form".into()));
    };
    let signature = match fetch(client, target, &layout::signature_of_sums(&sums), MAX_SMALL).await? {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(why)),
    };
    let by = match sign::issuer(&signature) {
        Ok(by) => by,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Some(wanted) = signer.filter(|wanted| *wanted != by) {
        return Ok(Err(format!("it says that it was signed by {by}, not by {wanted}")));
    }
    let certificate = match fetch(client, target, &layout::signer(&by), MAX_SMALL).await? {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(why)),
    };
    let sums = fetch(client, target, &sums, MAX_SUMS).await?;
    Ok(sums.map(|sums| Evidence {
        sums,
        signature,
        certificate,
    }))
}

/// An object, or why there is none to be read.
async fn fetch(client: &Store, target: &Target, object: &str, most: usize) -> Result<Result<Vec<u8>, String>, S3Error> {
    match client.get_small(&target.key(object), most).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(S3Error::NoSuchKey { .. }) => Ok(Err(format!("there is no {object}"))),
        Err(error) if error.is_denied() => Ok(Err(format!("{object} may not be read"))),
        Err(error) => Err(error),
    }
}
