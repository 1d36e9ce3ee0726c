//! Signing what is published, and checking it. Signatures are detached and armoured: `gpg --verify` reads them.

use std::fmt;
use std::sync::Arc;

use pgp::composed::{ArmorOptions, Deserializable, DetachedSignature, SignedPublicKey, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::types::{KeyDetails, Password};

/// Why a signing key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not an OpenPGP secret key.
    #[error("the signing key can't be read: {0}")]
    NotAKey(String),
    /// The library refuses.
    #[error("signing failed: {0}")]
    Sign(String),
}

/// Why a signature is not one that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It is no signature, or does not say whose it is.
    #[error("it is no OpenPGP signature: {0}")]
    Form(String),
    /// The certificate can't be read.
    #[error("the signer's certificate can't be read: {0}")]
    Certificate(String),
    /// The certificate is another's.
    #[error("it was made by {by}, not by {certificate}")]
    Other {
        /// Fingerprint of the key that it says made it.
        by: String,
        /// Fingerprint of the certificate.
        certificate: String,
    },
    /// The signature does not fit the data.
    #[error("it does not fit what it is to sign")]
    Wrong,
}

/// The key with which an appliance signs. It has no passphrase.
#[derive(Clone)]
pub struct Signer(Arc<SignedSecretKey>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.fingerprint()).finish()
    }
}

impl Signer {
    /// Reads a secret key, armoured or binary.
    ///
    /// # Errors
    /// [`SignError::NotAKey`].
    pub fn parse(secret: &[u8]) -> Result<Self, SignError> {
        let (key, _) =
            SignedSecretKey::from_reader_single(secret).map_err(|error| SignError::NotAKey(error.to_string()))?;
        Ok(Self(Arc::new(key)))
    }

    /// The fingerprint, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.0.primary_key.fingerprint())
    }

    /// The certificate, armoured.
    ///
    /// # Errors
    /// [`SignError::Sign`].
    pub fn certificate(&self) -> Result<String, SignError> {
        let certificate = self.0.to_public_key();
        certificate
            .to_armored_string(ArmorOptions::default())
            .map_err(|error| SignError::Sign(error.to_string()))
    }

    /// A signature of `data`, armoured.
    ///
    /// # Errors
    /// [`SignError::Sign`].
    pub fn sign(&self, data: &[u8]) -> Result<String, SignError> {
        let random = rand::thread_rng();
        DetachedSignature::sign_binary_data(
            random,
            &self.0.primary_key,
            &Password::empty(),
            HashAlgorithm::Sha512,
            data,
        )
        .and_then(|signature| signature.to_armored_string(ArmorOptions::default()))
        .map_err(|error| SignError::Sign(error.to_string()))
    }
}

/// The fingerprint of the key that a signature says made it.
///
/// # Errors
/// [`BadSignature::Form`].
pub fn issuer(signature: &[u8]) -> Result<String, BadSignature> {
    let signature = parse(signature)?;
    let issuers = signature.signature.issuer_fingerprint();
    let issuer = issuers.first().map(|fingerprint| format!("{fingerprint:X}"));
    issuer.ok_or_else(|| BadSignature::Form("it does not say who made it".into()))
}

/// Checks a signature of `data` against the primary key of a certificate, and returns that one's fingerprint.
///
/// # Errors
/// [`BadSignature`].
pub fn verify(certificate: &[u8], signature: &[u8], data: &[u8]) -> Result<String, BadSignature> {
    let by = issuer(signature)?;
    let (certificate, _) = SignedPublicKey::from_reader_single(certificate)
        .map_err(|error| BadSignature::Certificate(error.to_string()))?;
    let fingerprint = fingerprint(&certificate);
    if by != fingerprint {
        return Err(BadSignature::Other {
            by,
            certificate: fingerprint,
        });
    }
    parse(signature)?
        .verify(&certificate.primary_key, data)
        .map_err(|_| BadSignature::Wrong)?;
    Ok(fingerprint)
}

/// The fingerprint of a certificate.
///
/// # Errors
/// [`BadSignature::Certificate`].
pub fn fingerprint_of(certificate: &[u8]) -> Result<String, BadSignature> {
    SignedPublicKey::from_reader_single(certificate)
        .map(|(certificate, _)| fingerprint(&certificate))
        .map_err(|error| BadSignature::Certificate(error.to_string()))
}

fn parse(signature: &[u8]) -> Result<DetachedSignature, BadSignature> {
    DetachedSignature::from_reader_single(signature)
        .map(|(signature, _)| signature)
        .map_err(|error| BadSignature::Form(error.to_string()))
}

fn fingerprint(certificate: &SignedPublicKey) -> String {
    format!("{:X}", certificate.primary_key.fingerprint())
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;

    #[test]
    fn a_signature_is_of_one_key_and_of_these_bytes() {
        let [one, other] = ["one", "other"].map(|name| generate::signer(name).unwrap());
        // As it comes out of a sealed file, which ends without a line break.
        let signer = Signer::parse(one.secret.trim_end().as_bytes()).unwrap();
        assert_eq!(signer.fingerprint(), one.fingerprint);
        let signature = signer.sign(b"hello").unwrap();
        let check =
            |certificate: &str, signature: &str, data| verify(certificate.as_bytes(), signature.as_bytes(), data);
        assert_eq!(issuer(signature.as_bytes()).unwrap(), one.fingerprint);
        assert_eq!(
            check(&one.certificate, &signature, b"hello"),
            Ok(one.fingerprint.clone())
        );
        assert_eq!(
            check(&signer.certificate().unwrap(), &signature, b"hello"),
            Ok(one.fingerprint)
        );
        assert_eq!(check(&one.certificate, &signature, b"hellO"), Err(BadSignature::Wrong));
        assert!(matches!(
            check(&other.certificate, &signature, b"hello"),
            Err(BadSignature::Other { .. })
        ));
        assert!(matches!(
            check(&one.certificate, &one.certificate, b"hello"),
            Err(BadSignature::Form(_))
        ));
        assert!(matches!(
            check(&signature, &signature, b"hello"),
            Err(BadSignature::Certificate(_))
        ));
    }
}
