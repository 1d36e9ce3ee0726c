//! AES-256 in OCB (RFC 7253), with nonces of 15 octets and tags of 16; encryption only.
//!
//! The `ocb3` crate gives the cipher two blocks at a time, where a processor works on eight, and takes more than twice as
//! long; the tests hold this against it.

use aes::Aes256;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockEncrypt, KeyInit};
use zeroize::Zeroizing;

/// Octets of a nonce.
pub(super) const NONCE: usize = 15;
/// Octets of a tag.
pub(super) const TAG: usize = 16;
/// Octets of a block.
const BLOCK: usize = 16;
/// Blocks that the cipher is given at once: enough for any processor, and they stay in its first cache.
const AT_ONCE: usize = 32;

/// A block of octets, so that what is added to octets needs no turning.
type Block = u128;

pub(super) struct AesOcb {
    cipher: Aes256,
    /// L_*, L_$, then L_0, L_1 and so on: one for every power of two that a count of blocks can have.
    l: Zeroizing<[Block; 2 + 64]>,
}

/// Twice as much in GF(2^128).
fn double(block: Block) -> Block {
    let number = Block::from_be(block);
    ((number << 1) ^ ((number >> 127) * 0x87)).to_be()
}

/// The last octets of a text, with a one behind them and zeros.
fn padded(octets: &[u8]) -> Block {
    let mut block = [0; BLOCK];
    for (to, from) in block.iter_mut().zip(octets.iter().chain(&[0x80])) {
        *to = *from;
    }
    Block::from_ne_bytes(block)
}

impl AesOcb {
    pub fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut l = Zeroizing::new([0; 2 + 64]);
        let mut next = encrypt(&cipher, 0);
        for value in l.iter_mut() {
            *value = next;
            next = double(next);
        }
        Self { cipher, l }
    }

    fn star(&self) -> Block {
        self.l[0]
    }

    fn dollar(&self) -> Block {
        self.l[1]
    }

    /// What the offset changes by for the block of this number, from 1.
    fn step(&self, number: u64) -> Block {
        self.l[2 + number.trailing_zeros() as usize]
    }

    /// Encrypts `text` where it is, and gives the tag of it and of what is associated with it.
    pub fn encrypt(&self, nonce: &[u8; NONCE], associated: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let (mut offset, mut checksum, mut number) = (self.first_offset(nonce), 0, 0);
        let mut offsets = [0; AT_ONCE];
        let (blocks, rest) = text.as_chunks_mut::<BLOCK>();
        for batch in blocks.chunks_mut(AT_ONCE) {
            for (block, of_it) in batch.iter_mut().zip(&mut offsets) {
                number += 1;
                offset ^= self.step(number);
                *of_it = offset;
                let plain = Block::from_ne_bytes(*block);
                checksum ^= plain;
                *block = (plain ^ offset).to_ne_bytes();
            }
            let octets = InOutBuf::from(batch.as_flattened_mut());
            self.cipher.encrypt_blocks_inout(octets.into_chunks().0);
            for (block, of_it) in batch.iter_mut().zip(&offsets) {
                *block = (Block::from_ne_bytes(*block) ^ of_it).to_ne_bytes();
            }
        }
        if !rest.is_empty() {
            offset ^= self.star();
            checksum ^= padded(rest);
            let pad = encrypt(&self.cipher, offset).to_ne_bytes();
            for (octet, of_pad) in rest.iter_mut().zip(pad) {
                *octet ^= of_pad;
            }
        }
        let tag = encrypt(&self.cipher, checksum ^ offset ^ self.dollar()) ^ self.hash(associated);
        tag.to_ne_bytes()
    }

    /// Offset_0 of section 4.2. The nonce with its length, and that of the tag, makes one block of which the last six bits say
    /// how far to shift.
    fn first_offset(&self, nonce: &[u8; NONCE]) -> Block {
        let mut block = [0; BLOCK];
        let [first, rest @ ..] = &mut block;
        // 128 bits of tag count as 0; the one before the nonce ends its padding.
        *first = 1;
        *rest = *nonce;
        let number = u128::from_be_bytes(block);
        let top = Block::from_be(encrypt(&self.cipher, (number & !0x3f).to_be()));
        // The 64 bits that Stretch has more, at the upper end.
        let more = (top ^ (top << 8)) & !u128::from(u64::MAX);
        let shifted = match number & 0x3f {
            0 => top,
            bottom => (top << bottom) | (more >> (128 - bottom)),
        };
        shifted.to_be()
    }

    /// HASH of section 4.1.
    fn hash(&self, associated: &[u8]) -> Block {
        let (mut sum, mut offset) = (0, 0);
        let (blocks, rest) = associated.as_chunks::<BLOCK>();
        for (block, number) in blocks.iter().zip(1..) {
            offset ^= self.step(number);
            sum ^= encrypt(&self.cipher, Block::from_ne_bytes(*block) ^ offset);
        }
        if !rest.is_empty() {
            sum ^= encrypt(&self.cipher, padded(rest) ^ offset ^ self.star());
        }
        sum
    }
}

fn encrypt(cipher: &Aes256, block: Block) -> Block {
    let mut octets = block.to_ne_bytes().into();
    cipher.encrypt_block(&mut octets);
    Block::from_ne_bytes(octets.into())
}

#[cfg(test)]
mod tests {
    use ocb3::Ocb3;
    use ocb3::aead::AeadInPlace;
    use ocb3::consts::U15;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Every length around whole blocks and batches, and every shift of the first offset.
        #[test]
        fn another_implementation_comes_to_the_same(
            key in any::<[u8; 32]>(), nonce in any::<[u8; NONCE]>(),
            associated in proptest::collection::vec(any::<u8>(), 0..50),
            text in proptest::collection::vec(any::<u8>(), 0..(3 * AT_ONCE * BLOCK)),
        ) {
            let mut own = text.clone();
            let tag = AesOcb::new(&key).encrypt(&nonce, &associated, &mut own);
            let mut other = text;
            let others: [u8; TAG] = Ocb3::<Aes256, U15>::new(&key.into())
                .encrypt_in_place_detached(&nonce.into(), &associated, &mut other)
                .unwrap()
                .into();
            prop_assert_eq!(own, other);
            prop_assert_eq!(tag, others);
        }
    }

    /// More blocks than the others have, for the higher steps.
    #[test]
    fn a_long_text_too() {
        let mut own = vec![5; 70_000 * BLOCK + 3];
        let mut other = own.clone();
        let tag = AesOcb::new(&[1; 32]).encrypt(&[2; NONCE], b"", &mut own);
        let others: [u8; TAG] = Ocb3::<Aes256, U15>::new(&[1; 32].into())
            .encrypt_in_place_detached(&[2; NONCE].into(), b"", &mut other)
            .unwrap()
            .into();
        assert!(own == other && tag == others);
    }
}
