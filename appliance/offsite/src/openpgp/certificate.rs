//! What a recipient's certificate says of itself, and taking one over that was made elsewhere.

use std::time::{Duration, SystemTime};

use pgp::composed::{ArmorOptions, Deserializable, SignedPublicKey, SignedSecretKey};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams};

use super::recipients::{RecipientError, Recipients, is_secret};

/// Weakest RSA that is taken over, in bits (NIST SP 800-131A).
const RSA_MIN: u32 = 2048;
/// RSA below this is told, in bits (NIST SP 800-57: 128 bits of security).
const RSA_GOOD: u32 = 3072;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// Its primary user id; empty if it has none that is text.
    pub user_id: String,
    /// What it is encrypted with: `cv25519`, `rsa4096`.
    pub algorithm: String,
    /// When it, or its encryption key, can't be used any more, in Unix seconds; `None` for never.
    pub expires: Option<u64>,
    /// Whether it says that its owner's programs read OCB packets.
    pub reads_ocb: bool,
}

/// A certificate that was taken over.
#[derive(Debug)]
pub struct Imported {
    /// What it says of itself.
    pub description: Description,
    /// The certificate alone, armoured.
    pub certificate: String,
    /// A secret key was given; it is left out of `certificate`.
    pub was_secret: bool,
    /// What a person should know of its strength.
    pub weak: bool,
}

/// Why a certificate is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nobody could be sure of opening what is encrypted to it.
    #[error(transparent)]
    Recipient(#[from] RecipientError),
    /// There is more than one.
    #[error("it holds {0} certificates; export the one that is meant: `gpg --export --armor NAME`")]
    Several(usize),
    /// RSA that is too short.
    #[error("its encryption key is {0}, which can be broken; make another: `strongroom recipient new`")]
    Weak(String),
}

/// Checks a certificate, or the certificate of a secret key, as a recipient of copies, and takes the public part of it.
///
/// # Errors
/// [`ImportError`].
pub fn import(bytes: &[u8], now: SystemTime) -> Result<Imported, ImportError> {
    let not = |why: String| RecipientError::NotACertificate { number: 1, why };
    let broken = |error: pgp::errors::Error| not(error.to_string());
    let was_secret = is_secret(bytes);
    let all: Vec<SignedPublicKey> = if was_secret {
        let (keys, _) = SignedSecretKey::from_reader_many(bytes).map_err(broken)?;
        let keys = keys.map(|key| key.map(|key| key.to_public_key()));
        keys.collect::<Result<_, _>>().map_err(broken)?
    } else {
        let (certificates, _) = SignedPublicKey::from_reader_many(bytes).map_err(broken)?;
        certificates.collect::<Result<_, _>>().map_err(broken)?
    };
    let [certificate] = all.as_slice() else {
        return Err(match all.len() {
            0 => not("nothing in it".into()).into(),
            several => ImportError::Several(several),
        });
    };
    let armoured = certificate.to_armored_string(ArmorOptions::default()).map_err(broken)?;
    let description = describe(armoured.as_bytes(), Some(now))?;
    let rsa: Option<u32> = description
        .algorithm
        .strip_prefix("rsa")
        .and_then(|bits| bits.parse().ok());
    if rsa.is_some_and(|bits| bits < RSA_MIN) {
        return Err(ImportError::Weak(description.algorithm));
    }
    Ok(Imported {
        description,
        certificate: armoured,
        was_secret,
        weak: rsa.is_some_and(|bits| bits < RSA_GOOD),
    })
}

/// What the first certificate in `bytes` says of itself, if it can be a recipient; see [`Recipients::parse`] for `now`.
///
/// # Errors
/// [`RecipientError`].
pub fn describe(bytes: &[u8], now: Option<SystemTime>) -> Result<Description, RecipientError> {
    let recipients = Recipients::parse(&[bytes], now)?;
    recipients.descriptions().next().cloned().ok_or(RecipientError::None)
}

/// As gpg calls it.
pub(super) fn algorithm(key: &impl KeyDetails) -> String {
    match key.public_params() {
        PublicParams::RSA(rsa) => {
            // The modulus comes first, as a number with its length in bits before it (RFC 4880 3.2).
            let bytes = rsa.to_bytes().unwrap_or_default();
            let bits = bytes.first_chunk().map_or(0, |bits| u16::from_be_bytes(*bits));
            format!("rsa{bits}")
        }
        PublicParams::ECDH(ecdh) => {
            let curve = ecdh.curve();
            curve.alias().unwrap_or_else(|| curve.name()).to_owned()
        }
        _ => format!("{:?}", key.algorithm()),
    }
}

/// When a key of this age ends that lasts so long; `None` for never.
pub(super) fn end(created: SystemTime, lasts: Duration) -> Option<SystemTime> {
    if lasts.is_zero() {
        None
    } else {
        created.checked_add(lasts)
    }
}
