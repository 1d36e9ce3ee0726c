//! OpenPGP: who can read what is pushed, the messages themselves, and opening them for a restore.
//!
//! A message is what any gpg of the last twenty years opens: one PKESK per recipient, then one SEIPD
//! packet of version 1 with AES-256, holding one literal packet. No compression: Borg has done that.
//! Keys are handled by rPGP; the framing of the message is ours ([`message`]), because its length must
//! be known before it is made, and the library writes partial lengths.

pub mod message;
pub mod open;
pub mod recipients;

pub use message::{Encryptor, Seal, sealed_length};
pub use open::{Keyring, OpenError};
pub use recipients::{RecipientError, Recipients};
