//! OpenPGP: who can read what is pushed, the messages themselves, opening them for a restore, new keys, and signatures.
//!
//! A message is one PKESK per recipient, then one encrypted packet that holds one literal packet. No compression:
//! Borg has done that. The encrypted packet is SEIPD version 1, which any gpg of the last twenty years opens, or
//! LibrePGP's OCB, which is faster ([`Mode`]); never SEIPD version 2, which no gpg reads. Keys are handled by rPGP;
//! the framing of the message is ours ([`message`]), because its length must be known before it is made, and the
//! library writes partial lengths.

pub mod certificate;
pub mod challenge;
pub mod generate;
pub mod gpg;
pub mod message;
mod ocb;
pub mod open;
pub mod passphrase;
pub mod recipients;
mod room;
mod seipd;
pub mod sign;

pub use gpg::Gpg;
pub use message::{Encryption, Encryptor, Mode, Seal, sealed_length};
pub use open::{Keyring, OpenError, Opener};
pub use passphrase::passphrase;
pub use recipients::{RecipientError, Recipients};
pub use room::Room;
pub use sign::{BadSignature, Signer};
