//! The encrypted part of an SEIPD packet of version 1 (RFC 4880 5.13): AES-256 in CFB with a zero IV over 16 random
//! octets, the last two of them again, the content, and the SHA-1 of all that.
//!
//! CFB is serial: each block waits for the one before, and the processor idles meanwhile. Hashing 64 bytes and
//! encrypting 64 bytes in turns fills these gaps; in longer turns it does not.

use aes::Aes256;
use cfb_mode::Encryptor;
use cfb_mode::cipher::consts::U16;
use cfb_mode::cipher::inout::InOutBuf;
use cfb_mode::cipher::{AsyncStreamCipher, BlockEncryptMut, KeyIvInit};
use sha1::{Digest, Sha1};

use super::room::Room;

const BLOCK: usize = 16;
/// What is hashed and encrypted in one turn: one block of SHA-1, four of AES.
const TURN: usize = 64;

/// The random octets, the last two of them again.
pub(super) const PREFIX: usize = BLOCK + 2;
/// What the packet holds beside its content: version, prefix, MDC packet.
pub(super) const OVERHEAD: u64 = 1 + PREFIX as u64 + 22;

pub(super) struct Seipd {
    cipher: Encryptor<Aes256>,
    mdc: Sha1,
}

impl Seipd {
    /// Starts the packet's body. The last [`PREFIX`] octets are still to be sealed.
    pub fn new(key: &[u8; 32], prefix: &[u8; BLOCK], message: &mut Room) -> Self {
        message.add(&[1]);
        message.add(prefix);
        message.add(&prefix[BLOCK - 2..]);
        Self {
            cipher: Encryptor::new(key.into(), &[0; BLOCK].into()),
            mdc: Sha1::new(),
        }
    }

    /// Seals what it can of the last `pending` octets, where they are. Gives how many are still to be sealed: less than
    /// one turn.
    pub fn seal(&mut self, message: &mut Room, pending: usize) -> usize {
        let mut turns = message.last_mut(pending).chunks_exact_mut(TURN);
        for turn in &mut turns {
            self.mdc.update(&*turn);
            let blocks = InOutBuf::from(turn).into_chunks::<U16>().0;
            self.cipher.encrypt_blocks_inout_mut(blocks);
        }
        turns.into_remainder().len()
    }

    /// Seals the rest, less than one turn, and ends the packet with its MDC.
    pub fn finish(mut self, message: &mut Room, pending: usize) {
        // The old-looking header is fixed by the standard: tag 19, one length octet of 20.
        message.add(&[0xd3, 0x14]);
        self.mdc.update(message.last_mut(pending + 2));
        let sum = self.mdc.finalize();
        message.add(&sum);
        self.cipher.encrypt(message.last_mut(pending + 2 + sum.len()));
    }
}
