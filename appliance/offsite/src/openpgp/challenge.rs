//! Asking a recipient to show that the secret key is there: a nonce that only its holder can read.

use std::io;
use std::time::SystemTime;

use pgp::armor::{self, BlockType};
use pgp::ser::Serialize;
use zeroize::Zeroizing;

use super::message::Mode;
use super::passphrase::passphrase;
use super::recipients::{RecipientError, Recipients};

/// A nonce, and the armoured message that holds it, and a line break, for the holder of a certificate's secret key. It is
/// encrypted as every OpenPGP program reads it. See [`Recipients::parse`] for `now`.
///
/// # Errors
/// [`RecipientError`].
pub fn challenge(certificate: &[u8], now: Option<SystemTime>) -> Result<(Zeroizing<String>, String), RecipientError> {
    let recipients = Recipients::parse(&[certificate], now)?;
    let failed = |why: String| RecipientError::Encrypt {
        key: recipients.fingerprints().collect::<Vec<_>>().join(", "),
        why,
    };
    let nonce = passphrase();
    let line = Zeroizing::new(format!("{}\n", *nonce));
    let message = recipients.seal(Mode::Cfb)?.seal(line.as_bytes());
    let message = message.ok_or_else(|| failed("it is too long".into()))?;
    let mut text = Vec::new();
    armor::write(&Raw(&message), BlockType::Message, &mut text, None, true)
        .map_err(|error| failed(error.to_string()))?;
    Ok((nonce, String::from_utf8_lossy(&text).into_owned()))
}

/// Whether this is the nonce, as a person typed or pasted it.
#[must_use]
pub fn is_answer(nonce: &str, typed: &str) -> bool {
    typed.trim().eq_ignore_ascii_case(nonce)
}

/// Packets that are made already.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn to_writer<W: io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
        writer.write_all(self.0)?;
        Ok(())
    }

    fn write_len(&self) -> usize {
        self.0.len()
    }
}
