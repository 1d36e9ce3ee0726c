//! Opening messages with a secret key, for a restore.
//!
//! The library decrypts as it reads and checks the MDC, or the last tag, at the end. What came out before the end counts
//! for nothing until [`Keyring::open`] has returned without an error: write it to a temporary place.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use pgp::composed::{DecryptionOptions, Deserializable, Message, SignedSecretKey, TheRing};
use pgp::types::{KeyDetails, Password, Seipdv1ReadMode};
use zeroize::Zeroizing;

use super::gpg::Gpg;

/// Why a message or a key could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not an OpenPGP secret key.
    #[error("secret key number {number} cannot be read ({why}); export it with `gpg --export-secret-keys --armor`")]
    NotASecretKey {
        /// Which of the given files, from 1.
        number: usize,
        /// The parser's reason.
        why: String,
    },
    /// None of the keys fits, or the passphrase is wrong.
    #[error("none of the given secret keys opens this, or the passphrase is wrong ({why}); keys given: {keys}")]
    NoKey {
        /// Fingerprints of the keys given.
        keys: String,
        /// The library's reason.
        why: String,
    },
    /// Not a message, or not one of the kind that is pushed.
    #[error("this is not an encrypted message of the expected kind ({0})")]
    NotAMessage(String),
    /// The message was cut short or changed.
    #[error("the message is damaged: {0}")]
    Damaged(io::Error),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// gpg did not decrypt it.
    #[error("gpg could not decrypt it ({0}); is the secret key in its keyring, or the card plugged in?")]
    Gpg(String),
}

/// What opens messages.
#[derive(Debug, Clone)]
pub enum Opener {
    /// Secret keys that were read from files.
    Keys(Arc<Keyring>),
    /// The owner's gpg.
    Gpg(Gpg),
}

impl Opener {
    /// Decrypts `message` into `out` and returns how many bytes that were. The integrity of all of it was checked when
    /// this returns without an error, and not before.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, message: impl BufRead + fmt::Debug + Send, out: &mut dyn Write) -> Result<u64, OpenError> {
        match self {
            Self::Keys(keyring) => keyring.open(message, out),
            Self::Gpg(gpg) => gpg.open(message, out),
        }
    }
}

/// Secret keys and the passphrase that unlocks them.
pub struct Keyring {
    keys: Vec<SignedSecretKey>,
    passphrase: Password,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.fingerprints()).finish()
    }
}

impl Keyring {
    /// Parses secret keys, armoured or binary. The passphrase is empty for keys without one.
    ///
    /// # Errors
    /// [`OpenError::NotASecretKey`].
    pub fn parse<B: AsRef<[u8]>>(files: &[B], passphrase: &Zeroizing<String>) -> Result<Self, OpenError> {
        let mut keys = Vec::new();
        for (number, bytes) in (1..).zip(files) {
            let not = |error: pgp::errors::Error| OpenError::NotASecretKey {
                number,
                why: error.to_string(),
            };
            let (found, _) = SignedSecretKey::from_reader_many(bytes.as_ref()).map_err(not)?;
            let before = keys.len();
            for key in found {
                keys.push(key.map_err(not)?);
            }
            if keys.len() == before {
                return Err(OpenError::NotASecretKey {
                    number,
                    why: "nothing in it".into(),
                });
            }
        }
        Ok(Self {
            keys,
            passphrase: Password::from(passphrase.as_str()),
        })
    }

    fn fingerprints(&self) -> String {
        let all: Vec<_> = self
            .keys
            .iter()
            .map(|key| format!("{:X}", key.primary_key.fingerprint()))
            .collect();
        all.join(", ")
    }

    /// Decrypts `message` into `out` and returns how many bytes that were. The integrity of all of it
    /// was checked when this returns without an error, and not before.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, message: impl BufRead + fmt::Debug + Send, out: &mut dyn Write) -> Result<u64, OpenError> {
        let not = |error: pgp::errors::Error| OpenError::NotAMessage(error.to_string());
        let message = Message::from_bytes(message).map_err(not)?;
        if !message.is_encrypted() {
            return Err(OpenError::NotAMessage("it is not encrypted".into()));
        }
        let options = DecryptionOptions::new()
            .enable_gnupg_aead()
            .set_seipdv1_read_mode(Seipdv1ReadMode::Streaming);
        let ring = TheRing {
            secret_keys: self.keys.iter().collect(),
            key_passwords: vec![&self.passphrase],
            decrypt_options: options,
            ..TheRing::default()
        };
        let (message, _) = message.decrypt_the_ring(ring, true).map_err(|error| OpenError::NoKey {
            keys: self.fingerprints(),
            why: error.to_string(),
        })?;
        let mut message = if message.is_compressed() {
            message.decompress().map_err(not)?
        } else {
            message
        };
        if !message.is_literal() {
            return Err(OpenError::NotAMessage("it does not hold plain data".into()));
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        loop {
            let read = match message.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(OpenError::Damaged(error)),
            };
            out.write_all(buffer.get(..read).unwrap_or_default())
                .map_err(OpenError::Write)?;
            total += read as u64;
        }
    }
}
