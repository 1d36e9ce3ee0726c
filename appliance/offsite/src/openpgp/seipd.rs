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

use super::message::Out;

const BLOCK: usize = 16;
/// What is hashed and encrypted in one turn: one block of SHA-1, four of AES.
const TURN: usize = 64;

/// What the packet holds beside its content: version, prefix, MDC packet.
pub(super) const OVERHEAD: u64 = 1 + BLOCK as u64 + 2 + 22;

pub(super) struct Seipd {
    cipher: Encryptor<Aes256>,
    mdc: Sha1,
    /// What does not fill a turn yet.
    pending: Vec<u8>,
    /// What was encrypted, kept for its memory.
    done: Vec<u8>,
}

impl Seipd {
    /// Starts the packet's body.
    pub fn new(key: &[u8; 32], prefix: &[u8; BLOCK], out: Out<'_>) -> Self {
        out(&[1]);
        let mut it = Self {
            cipher: Encryptor::new(key.into(), &[0; BLOCK].into()),
            mdc: Sha1::new(),
            pending: Vec::with_capacity(TURN),
            done: Vec::new(),
        };
        it.add(prefix, out);
        it.add(&prefix[BLOCK - 2..], out);
        it
    }

    /// Adds content; what comes out may lag by less than one turn.
    pub fn add(&mut self, plain: &[u8], out: Out<'_>) {
        let missing = (TURN - self.pending.len()).min(plain.len());
        let (head, rest) = plain.split_at(missing);
        self.pending.extend_from_slice(head);
        if self.pending.len() < TURN {
            return;
        }
        let (turns, tail) = rest.split_at(rest.len() - rest.len() % TURN);
        let length = TURN + turns.len();
        if self.done.len() < length {
            self.done.resize(length, 0);
        }
        let done = self.done.get_mut(..length).unwrap_or_default();
        let pending = std::mem::take(&mut self.pending);
        let inputs = pending.chunks_exact(TURN).chain(turns.chunks_exact(TURN));
        for (input, output) in inputs.zip(done.chunks_exact_mut(TURN)) {
            self.mdc.update(input);
            if let Ok(both) = InOutBuf::new(input, output) {
                self.cipher.encrypt_blocks_inout_mut(both.into_chunks::<U16>().0);
            }
        }
        out(done);
        self.pending = pending;
        self.pending.clear();
        self.pending.extend_from_slice(tail);
    }

    /// Ends the packet with its MDC.
    pub fn finish(mut self, out: Out<'_>) {
        // The old-looking header is fixed by the standard: tag 19, one length octet of 20.
        self.pending.extend_from_slice(&[0xd3, 0x14]);
        self.mdc.update(&self.pending);
        self.pending.extend_from_slice(&self.mdc.finalize());
        self.cipher.encrypt(&mut self.pending);
        out(&self.pending);
    }
}
