//! New keys, of a kind that every gpg in use reads: version 4, Ed25519 to certify and sign, Cv25519 to encrypt.

use pgp::composed::{
    ArmorOptions, EncryptionCaps, KeyDetails, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParams,
    SubkeyParamsBuilder,
};
use pgp::crypto::ecc_curve::ECCCurve;
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{Features, KeyFlags, UserId};
use pgp::types::{CompressionAlgorithm, KeyDetails as _, KeyVersion, Password, S2kParams};
use zeroize::Zeroizing;

/// Longest user id, in bytes.
pub const USER_ID_MAX: usize = 200;

/// Features (RFC 4880 5.2.3.24, draft-koch-librepgp 5.2.3.32): integrity is checked; OCB packets are read.
const SEIPD_V1: u8 = 1;
const OCB: u8 = 2;

/// A key that was just made.
pub struct NewKey {
    /// Its fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// The certificate, armoured.
    pub certificate: String,
    /// The secret key, armoured.
    pub secret: Zeroizing<String>,
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The user id has no form that all programs take.
    #[error("a user id has 1 to {USER_ID_MAX} bytes and no control characters, as in `Backups of our home`")]
    UserId,
    /// The library refuses.
    #[error("the key could not be made: {0}")]
    Library(String),
}

impl From<pgp::errors::Error> for GenerateError {
    fn from(error: pgp::errors::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// Makes a recipient's key, which never expires, locked by `passphrase`. `reads_ocb` says in its certificate that its
/// owner's programs read OCB packets.
///
/// # Errors
/// [`GenerateError`].
pub fn recipient(user_id: &str, passphrase: &Zeroizing<String>, reads_ocb: bool) -> Result<NewKey, GenerateError> {
    let encryption = subkey()?;
    let features = if reads_ocb { SEIPD_V1 | OCB } else { SEIPD_V1 };
    let mut key = make(user_id, features, vec![encryption])?;
    let password = Password::from(passphrase.as_str());
    let mut random = rand::thread_rng();
    let mut protection = || S2kParams::new_default(&mut random, KeyVersion::V4);
    key.primary_key.set_password_with_s2k(&password, protection())?;
    for subkey in &mut key.secret_subkeys {
        subkey.key.set_password_with_s2k(&password, protection())?;
    }
    armoured(&key)
}

/// Makes a key that only signs, without a passphrase.
///
/// # Errors
/// [`GenerateError`].
pub fn signer(user_id: &str) -> Result<NewKey, GenerateError> {
    armoured(&make(user_id, SEIPD_V1, Vec::new())?)
}

fn subkey() -> Result<SubkeyParams, GenerateError> {
    SubkeyParamsBuilder::default()
        .key_type(KeyType::ECDH(ECCCurve::Curve25519Legacy))
        .can_encrypt(EncryptionCaps::All)
        .build()
        .map_err(|error| GenerateError::Library(error.to_string()))
}

fn make(user_id: &str, features: u8, subkeys: Vec<SubkeyParams>) -> Result<SignedSecretKey, GenerateError> {
    let fits = (1..=USER_ID_MAX).contains(&user_id.len()) && user_id.trim() == user_id;
    if !fits || user_id.chars().any(char::is_control) {
        return Err(GenerateError::UserId);
    }
    let mut key = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id(user_id.into())
        .subkeys(subkeys)
        .build()
        .map_err(|error| GenerateError::Library(error.to_string()))?
        .generate(rand::thread_rng())?;
    // The builder knows only the features of RFC 9580, so what it said of the key is said again.
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(true);
    let symmetric = [
        SymmetricKeyAlgorithm::AES256,
        SymmetricKeyAlgorithm::AES192,
        SymmetricKeyAlgorithm::AES128,
    ];
    let hashes = [HashAlgorithm::Sha512, HashAlgorithm::Sha384, HashAlgorithm::Sha256];
    let details = KeyDetails::new(
        Some(UserId::from_str(Default::default(), user_id)?),
        Vec::new(),
        Vec::new(),
        flags,
        Features::from([features].as_slice()),
        symmetric.into_iter().collect(),
        hashes.into_iter().collect(),
        [CompressionAlgorithm::Uncompressed].into_iter().collect(),
        Default::default(),
    );
    let public = key.primary_key.public_key().clone();
    key.details = details.sign(rand::thread_rng(), &key.primary_key, &public, &Password::empty())?;
    Ok(key)
}

fn armoured(key: &SignedSecretKey) -> Result<NewKey, GenerateError> {
    let options = ArmorOptions::default;
    Ok(NewKey {
        fingerprint: format!("{:X}", key.primary_key.fingerprint()),
        certificate: key.to_public_key().to_armored_string(options())?,
        secret: Zeroizing::new(key.to_armored_string(options())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_have_a_form() {
        for bad in ["", " ", "a\nb", " a", &"x".repeat(USER_ID_MAX + 1)] {
            assert!(matches!(signer(bad), Err(GenerateError::UserId)), "{bad:?}");
        }
        assert!(signer("Familie Müller").is_ok());
    }
}
