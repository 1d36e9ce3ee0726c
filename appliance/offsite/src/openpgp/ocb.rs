//! The body of an OCB encrypted data packet (LibrePGP, draft-koch-librepgp 5.16; tag 20): AES-256 in OCB, in chunks
//! with a tag of 16 octets each, and a last tag over nothing that seals how many octets there were.
//!
//! GnuPG reads it from 2.2.21 on.

use strongroom_ciphers::{NONCE as IV, Ocb as Cipher, TAG};

use super::room::Room;

/// Version, cipher (AES-256), mode (OCB); the coded chunk size follows.
const START: [u8; 3] = [1, 9, 2];
/// Chunks have 2 to the power of this plus 6 octets: 64 KiB. They stay in a processor's cache, and any reader must
/// take chunks of up to 4 MiB.
const CHUNK: u8 = 10;

/// Octets of content in one chunk.
const fn chunk_size(coded: u8) -> usize {
    1 << (coded + 6)
}

/// Length of the body for `content` octets, if that can be counted.
pub(super) fn body_length(content: u64) -> Option<u64> {
    let tags = content.div_ceil(chunk_size(CHUNK) as u64).checked_add(1)?;
    let fixed = (START.len() + 1 + IV) as u64;
    content.checked_add(tags.checked_mul(TAG as u64)?)?.checked_add(fixed)
}

pub(super) struct Ocb {
    cipher: Cipher,
    iv: [u8; IV],
    /// The octets that begin each chunk's associated data: packet tag and the packet's first four.
    head: [u8; 5],
    /// Chunks done.
    index: u64,
    /// Octets of content done.
    total: u64,
}

impl Ocb {
    /// Starts the packet's body.
    pub fn new(key: &[u8; 32], iv: [u8; IV], message: &mut Room) -> Self {
        Self::with_chunks(CHUNK, key, iv, message)
    }

    fn with_chunks(coded: u8, key: &[u8; 32], iv: [u8; IV], message: &mut Room) -> Self {
        let [version, cipher, mode] = START;
        message.add(&[version, cipher, mode, coded]);
        message.add(&iv);
        Self {
            cipher: Cipher::new(key),
            iv,
            head: [0xd4, version, cipher, mode, coded],
            index: 0,
            total: 0,
        }
    }

    /// Octets that are sealed at once.
    pub fn chunk(&self) -> usize {
        chunk_size(self.head[4])
    }

    /// Seals the last `pending` octets, at most one chunk, if they are one. Gives how many are still to be sealed.
    pub fn seal(&mut self, message: &mut Room, pending: usize) -> usize {
        if pending < self.chunk() {
            return pending;
        }
        self.seal_chunk(message, pending);
        0
    }

    fn seal_chunk(&mut self, message: &mut Room, pending: usize) {
        self.encrypt(message, pending, &[]);
        self.total += pending as u64;
        self.index += 1;
    }

    /// Encrypts the last octets where they are, and puts their tag behind them.
    fn encrypt(&mut self, message: &mut Room, octets: usize, more_associated: &[u8]) {
        let index = self.index.to_be_bytes();
        let mut nonce = self.iv;
        for (octet, change) in nonce.iter_mut().skip(IV - index.len()).zip(index) {
            *octet ^= change;
        }
        let associated = [&self.head, index.as_slice(), more_associated].concat();
        let tag = self.cipher.encrypt(&nonce, &associated, message.last_mut(octets));
        message.add(&tag);
    }

    /// Seals the last `pending` octets and ends the packet.
    pub fn finish(mut self, message: &mut Room, pending: usize) {
        if pending > 0 {
            self.seal_chunk(message, pending);
        }
        let total = self.total.to_be_bytes();
        self.encrypt(message, 0, &total);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use pgp::crypto::aead::{AeadAlgorithm, ChunkSize, StreamDecryptor};
    use pgp::crypto::sym::SymmetricKeyAlgorithm;
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const IV_OCTETS: [u8; IV] = *b"0123456789abcde";

    fn seal(coded: u8, data: &[u8], pieces: usize) -> Vec<u8> {
        let mut body = Room::default();
        let mut ocb = Ocb::with_chunks(coded, &KEY, IV_OCTETS, &mut body);
        let (mut pending, mut rest) = (0, data);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(pieces.min(ocb.chunk() - pending).min(rest.len()));
            body.add(piece);
            pending = ocb.seal(&mut body, pending + piece.len());
            rest = later;
        }
        ocb.finish(&mut body, pending);
        body.into()
    }

    /// Opens with another's implementation.
    fn open(coded: u8, body: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = body.split_at_checked(4 + IV)?;
        assert_eq!(head, [&[1, 9, 2, coded], IV_OCTETS.as_slice()].concat());
        let mut reader = StreamDecryptor::new_gnupg(
            SymmetricKeyAlgorithm::AES256,
            AeadAlgorithm::Ocb,
            ChunkSize::try_from(coded).unwrap(),
            &KEY,
            &IV_OCTETS,
            sealed,
        )
        .unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).ok()?;
        Some(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// With chunks of 64, 128, … octets, so that there are many.
        #[test]
        fn what_goes_in_comes_out_whatever_the_chunks_and_pieces(
            data in proptest::collection::vec(any::<u8>(), 0..1500), coded in 0_u8..5, pieces in 1_usize..400,
        ) {
            let body = seal(coded, &data, pieces);
            let chunks = data.len().div_ceil(chunk_size(coded));
            prop_assert_eq!(body.len(), 4 + IV + data.len() + TAG * (chunks + 1));
            prop_assert_eq!(open(coded, &body), Some(data));
        }

        #[test]
        fn damage_and_cuts_are_seen(
            data in proptest::collection::vec(any::<u8>(), 0..500), at in any::<proptest::sample::Index>(), bit in 0_u32..8,
        ) {
            let body = seal(0, &data, 100);
            let mut bad = body.clone();
            let at = 4 + IV + at.index(body.len() - 4 - IV);
            bad[at] ^= 1_u8 << bit;
            prop_assert_eq!(open(0, &bad), None);
            prop_assert_eq!(open(0, &body[..at]), None);
        }
    }

    #[test]
    fn the_length_is_known_before() {
        let size = chunk_size(CHUNK);
        for length in [0, 1, size - 1, size, size + 1, 3 * size, 3 * size + 17] {
            let body = seal(CHUNK, &vec![5; length], 10_000);
            assert_eq!(body_length(length as u64), Some(body.len() as u64), "{length}");
            assert!(open(CHUNK, &body) == Some(vec![5; length]), "{length}");
        }
        assert_eq!(body_length(u64::MAX), None);
    }
}
