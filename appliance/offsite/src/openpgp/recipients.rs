//! Recipients: which key of which certificate a message is encrypted to.
//!
//! A certificate is used only if its primary key and one encryption key are bound by valid signatures,
//! neither revoked nor expired. Anything else is an error that says why: a copy that nobody can open is
//! worse than none.

use std::fmt;
use std::time::{Duration, SystemTime};

use pgp::composed::{Deserializable, RawSessionKey, SignedPublicKey};
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{PacketTrait, PublicKeyEncryptedSessionKey, Signature, SignatureType};
use pgp::types::{EncryptionKey, KeyDetails, KeyVersion};
use rand::RngCore;
use zeroize::Zeroizing;

use super::certificate::{Description, algorithm, end};
use super::message::{Encryption, Mode, Seal};

/// Why recipients cannot be used. `certificate` is a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// Not one certificate was given.
    #[error("no recipient is configured: make one with `strongroom recipient new` and name its certificate")]
    None,
    /// Not an OpenPGP certificate.
    #[error("recipient number {number} is not an OpenPGP certificate ({why}); export it with `gpg --export --armor`")]
    NotACertificate {
        /// Which of the given files, from 1.
        number: usize,
        /// The parser's reason.
        why: String,
    },
    /// A secret key was given instead of a certificate.
    #[error("recipient number {number} is a secret key; give the certificate only (`gpg --export --armor`)")]
    SecretKey {
        /// Which of the given files, from 1.
        number: usize,
    },
    /// No valid signature of its own binds the certificate together.
    #[error("certificate {certificate} has no valid self-signature; export it anew")]
    NotBound {
        /// Its fingerprint.
        certificate: String,
    },
    /// The certificate is revoked.
    #[error("certificate {certificate} is revoked; give another recipient")]
    Revoked {
        /// Its fingerprint.
        certificate: String,
    },
    /// The certificate has expired.
    #[error("certificate {certificate} has expired; extend it with `gpg --quick-set-expire` and export it anew")]
    Expired {
        /// Its fingerprint.
        certificate: String,
    },
    /// No key of the certificate can be used for encryption.
    #[error("certificate {certificate} has no usable encryption key{reason}")]
    NoEncryptionKey {
        /// Its fingerprint.
        certificate: String,
        /// Such as `: 0123… has expired`.
        reason: String,
    },
    /// The key exists, but encrypting to it failed.
    #[error("cannot encrypt to key {key}: {why}")]
    Encrypt {
        /// The key's fingerprint.
        key: String,
        /// The library's reason.
        why: String,
    },
}

enum Key {
    Primary(pgp::packet::PublicKey),
    Sub(pgp::packet::PublicSubkey),
}

/// One certificate's chosen key.
struct Recipient {
    description: Description,
    key: Key,
    /// Length of its key packet: the longest that can come out, so that every message has it.
    packet_length: usize,
}

/// All recipients of a push.
pub struct Recipients(Vec<Recipient>);

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fingerprints()).finish()
    }
}

impl Recipients {
    /// Parses certificates, armoured or binary, one or more in each item, and chooses their encryption keys.
    ///
    /// `now` decides what has expired and what is not valid yet; `None`, where the clock can't be trusted, judges
    /// neither.
    ///
    /// # Errors
    /// [`RecipientError`] for the first that cannot be used.
    pub fn parse<B: AsRef<[u8]>>(
        certificates: &[B],
        now: impl Into<Option<SystemTime>>,
    ) -> Result<Self, RecipientError> {
        let now = now.into();
        let mut all = Vec::new();
        for (number, bytes) in (1..).zip(certificates) {
            let not = |why: String| RecipientError::NotACertificate { number, why };
            let bytes = bytes.as_ref();
            if is_secret(bytes) {
                return Err(RecipientError::SecretKey { number });
            }
            let (found, _) = SignedPublicKey::from_reader_many(bytes).map_err(|error| not(error.to_string()))?;
            let before = all.len();
            for certificate in found {
                all.push(choose(certificate.map_err(|error| not(error.to_string()))?, now)?);
            }
            if all.len() == before {
                return Err(not("nothing in it".into()));
            }
        }
        if all.is_empty() {
            Err(RecipientError::None)
        } else {
            Ok(Self(all))
        }
    }

    /// The certificates' fingerprints, in hexadecimal.
    pub fn fingerprints(&self) -> impl Iterator<Item = &str> {
        self.descriptions().map(|description| description.fingerprint.as_str())
    }

    /// What the certificates say of themselves.
    pub fn descriptions(&self) -> impl Iterator<Item = &Description> {
        self.0.iter().map(|recipient| &recipient.description)
    }

    /// Length of all key packets together: the same for every message, whatever the random numbers.
    #[must_use]
    pub fn key_packets_length(&self) -> u64 {
        self.0.iter().map(|recipient| recipient.packet_length as u64).sum()
    }

    /// The mode for these recipients.
    #[must_use]
    pub fn mode(&self, encryption: Encryption) -> Mode {
        match encryption {
            Encryption::Always(mode) => mode,
            Encryption::Auto if self.0.iter().all(|recipient| recipient.description.reads_ocb) => Mode::Ocb,
            Encryption::Auto => Mode::Cfb,
        }
    }

    /// Makes the secrets and key packets of one new message.
    ///
    /// # Errors
    /// [`RecipientError::Encrypt`].
    pub fn seal(&self, mode: Mode) -> Result<Seal, RecipientError> {
        let mut random = rand::thread_rng();
        let mut session_key = Zeroizing::new([0; 32]);
        let mut octets = [0; 16];
        random.fill_bytes(&mut *session_key);
        random.fill_bytes(&mut octets);
        let mut key_packets = Vec::new();
        for recipient in &self.0 {
            let packet = loop {
                let packet = recipient.key_packet(&session_key)?;
                // An RSA result with leading zeros is shorter, once in 256 times: make another.
                if packet.len() == recipient.packet_length {
                    break packet;
                }
            };
            key_packets.extend(packet);
        }
        Ok(Seal {
            mode,
            key_packets,
            session_key,
            random: octets,
        })
    }
}

impl Recipient {
    fn new(description: Description, key: Key) -> Result<Self, RecipientError> {
        let mut recipient = Self {
            description,
            key,
            packet_length: 0,
        };
        // Eight tries miss the full length with a chance of 256⁻⁸.
        for _ in 0..8 {
            let length = recipient.key_packet(&[0x55; 32])?.len();
            recipient.packet_length = recipient.packet_length.max(length);
        }
        Ok(recipient)
    }

    fn key_packet(&self, session_key: &[u8; 32]) -> Result<Vec<u8>, RecipientError> {
        match &self.key {
            Key::Primary(key) => key_packet(key, session_key),
            Key::Sub(key) => key_packet(key, session_key),
        }
    }
}

fn key_packet<K: EncryptionKey>(key: &K, session_key: &[u8; 32]) -> Result<Vec<u8>, RecipientError> {
    let failed = |error: pgp::errors::Error| RecipientError::Encrypt {
        key: fingerprint(key),
        why: error.to_string(),
    };
    let session_key = RawSessionKey::from(session_key.as_slice());
    let packet = PublicKeyEncryptedSessionKey::from_session_key_v3(
        rand::thread_rng(),
        &session_key,
        SymmetricKeyAlgorithm::AES256,
        key,
    )
    .map_err(failed)?;
    let mut out = Vec::new();
    packet.to_writer_with_header(&mut out).map_err(failed)?;
    Ok(out)
}

fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

/// Whether this is a secret key, armoured or binary.
pub(super) fn is_secret(bytes: &[u8]) -> bool {
    bytes.windows(27).any(|text| text == b"BEGIN PGP PRIVATE KEY BLOCK") || is_secret_packet(bytes)
}

/// Whether binary data starts with a secret key packet (tag 5), in the old or the new format.
fn is_secret_packet(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|tag| matches!(*tag, 0x94..=0x97 | 0xc5))
}

fn created(signature: &Signature) -> SystemTime {
    signature.created().map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
}

fn ends(key: &impl KeyDetails, signature: &Signature) -> Option<SystemTime> {
    let lasts = signature.key_expiration_time().map_or(Duration::ZERO, Duration::from);
    end(SystemTime::from(key.created_at()), lasts)
}

fn expired(key: &impl KeyDetails, signature: &Signature, now: Option<SystemTime>) -> bool {
    ends(key, signature).zip(now).is_some_and(|(end, now)| end <= now)
}

/// The primary user id, or else the first.
fn user_id(certificate: &SignedPublicKey) -> String {
    let users = &certificate.details.users;
    let primary = users
        .iter()
        .find(|user| user.signatures.iter().any(Signature::is_primary))
        .or(users.first());
    let text = primary.and_then(|user| user.id.as_str()).unwrap_or_default();
    // It is shown on terminals.
    text.chars().filter(|character| !character.is_control()).collect()
}

/// Whether the newest statement about a key may be used now.
fn can_encrypt(signature: &Signature) -> bool {
    let flags = signature.key_flags();
    flags.encrypt_storage() || flags.encrypt_comms()
}

/// Whether the owner's programs read LibrePGP's OCB packet: bit 2 of the features (draft-koch-librepgp 5.2.3.32).
fn reads_ocb(signature: &Signature) -> bool {
    let octets = signature.features().map(Vec::from).unwrap_or_default();
    octets.first().is_some_and(|flags| flags & 2 != 0)
}

fn usable_algorithm(key: &impl KeyDetails) -> bool {
    key.version() == KeyVersion::V4
        && matches!(
            key.algorithm(),
            PublicKeyAlgorithm::RSA | PublicKeyAlgorithm::RSAEncrypt | PublicKeyAlgorithm::ECDH
        )
}

fn choose(certificate: SignedPublicKey, now: Option<SystemTime>) -> Result<Recipient, RecipientError> {
    let primary = &certificate.primary_key;
    let name = fingerprint(primary);
    let fail = |make: fn(String) -> RecipientError| Err(make(name.clone()));
    if certificate
        .details
        .revocation_signatures
        .iter()
        .any(|signature| signature.verify_key(primary).is_ok())
    {
        return fail(|certificate| RecipientError::Revoked { certificate });
    }
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.verify_key(primary).is_ok());
    let users = certificate.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && signature
                    .verify_certification(primary, pgp::types::Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let Some(own) = direct
        .chain(users)
        .filter(|s| now.is_none_or(|now| created(s) <= now))
        .max_by_key(|s| created(s))
    else {
        return fail(|certificate| RecipientError::NotBound { certificate });
    };
    if expired(primary, own, now) {
        return fail(|certificate| RecipientError::Expired { certificate });
    }
    let description = |algorithm, end: Option<SystemTime>| Description {
        fingerprint: name.clone(),
        user_id: user_id(&certificate),
        algorithm,
        expires: [ends(primary, own), end]
            .into_iter()
            .flatten()
            .min()
            .and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map(|since| since.as_secs()),
        reads_ocb: reads_ocb(own),
    };
    let mut reasons = Vec::new();
    let mut best: Option<(SystemTime, &pgp::packet::PublicSubkey, Option<SystemTime>)> = None;
    for subkey in &certificate.public_subkeys {
        let valid = |kind| {
            subkey.signatures.iter().filter(move |signature| {
                signature.typ() == Some(kind) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
            })
        };
        let Some(binding) = valid(SignatureType::SubkeyBinding).max_by_key(|signature| created(signature)) else {
            reasons.push(format!("{} has no valid binding", fingerprint(&subkey.key)));
            continue;
        };
        if !can_encrypt(binding) {
            continue;
        }
        let fault = if valid(SignatureType::SubkeyRevocation).next().is_some() {
            "is revoked"
        } else if expired(&subkey.key, binding, now) {
            "has expired"
        } else if !usable_algorithm(&subkey.key) {
            "is of a kind that not every gpg can use (RSA and Cv25519 are)"
        } else {
            let since = SystemTime::from(subkey.key.created_at());
            if best.is_none_or(|(other, ..)| since >= other) {
                best = Some((since, &subkey.key, ends(&subkey.key, binding)));
            }
            continue;
        };
        reasons.push(format!("{} {fault}", fingerprint(&subkey.key)));
    }
    match best {
        Some((_, key, end)) => Recipient::new(description(algorithm(key), end), Key::Sub(key.clone())),
        None if can_encrypt(own) && usable_algorithm(primary) => {
            Recipient::new(description(algorithm(primary), None), Key::Primary(primary.clone()))
        }
        None => {
            let reason = if reasons.is_empty() {
                String::new()
            } else {
                format!(": {}", reasons.join("; "))
            };
            Err(RecipientError::NoEncryptionKey {
                certificate: name,
                reason,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_certificate_is_named() {
        let now = SystemTime::now();
        let none: [&[u8]; 0] = [];
        assert_eq!(Recipients::parse(&none, now).unwrap_err(), RecipientError::None);
        for bad in [
            b"".as_slice(),
            b"hello",
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n",
        ] {
            let error = Recipients::parse(&[bad], now).unwrap_err();
            assert!(
                matches!(error, RecipientError::NotACertificate { number: 1, .. }),
                "{error}"
            );
        }
    }
}
