//! AES-256 in OCB (RFC 7253), with nonces of 15 octets and tags of 16; encryption only.
//!
//! The `ocb3` crate gives the cipher two blocks at a time, where a processor works on eight, and takes twice as long; the
//! tests hold this against it.

use std::hint::black_box;

use aes::Aes256;
use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned as _;
use aes::cipher::{BlockBackend, BlockClosure, BlockEncrypt, BlockSizeUser, KeyInit, ParBlocks};
use zeroize::Zeroizing;

/// Octets of a nonce.
pub const NONCE: usize = 15;
/// Octets of a tag.
pub const TAG: usize = 16;
/// Octets of a block.
const BLOCK: usize = 16;

/// A block of octets, so that what is added to octets needs no turning.
type Block = u128;

/// A key.
pub struct Ocb {
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

impl Ocb {
    /// Prepares a key.
    #[must_use]
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

    /// Encrypts `text` where it is, and gives the tag of it and of what is associated with it. Never use a nonce twice with
    /// one key.
    pub fn encrypt(&self, nonce: &[u8; NONCE], associated: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let (mut offset, mut checksum) = (self.first_offset(nonce), 0);
        let (blocks, rest) = text.as_chunks_mut();
        self.cipher.encrypt_with_backend(Blocks {
            offsets: Offsets::new(&self.l, &mut offset),
            checksum: &mut checksum,
            blocks,
        });
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
        let mut offsets = Offsets::new(&self.l, &mut offset);
        for block in blocks {
            sum ^= encrypt(&self.cipher, Block::from_ne_bytes(*block) ^ offsets.next());
        }
        if !rest.is_empty() {
            sum ^= encrypt(&self.cipher, padded(rest) ^ offset ^ self.star());
        }
        sum
    }
}

/// The offsets of one block after another.
struct Offsets<'a> {
    l: &'a [Block],
    last: &'a mut Block,
    /// Of the last block, from 1.
    number: u64,
}

impl<'a> Offsets<'a> {
    fn new(l: &'a [Block; 2 + 64], last: &'a mut Block) -> Self {
        let (_, l) = l.split_at(2);
        Self { l, last, number: 0 }
    }

    fn next(&mut self) -> Block {
        self.number += 1;
        *self.last ^= self.l[self.number.trailing_zeros() as usize];
        *self.last
    }
}

/// The whole blocks of a text. The cipher says how many it takes at once.
struct Blocks<'a> {
    offsets: Offsets<'a>,
    checksum: &'a mut Block,
    blocks: &'a mut [[u8; BLOCK]],
}

impl BlockSizeUser for Blocks<'_> {
    type BlockSize = U16;
}

impl BlockClosure for Blocks<'_> {
    #[inline(always)]
    fn call<B: BlockBackend<BlockSize = U16>>(mut self, backend: &mut B) {
        let mut groups = self.blocks.chunks_exact_mut(B::ParBlocksSize::USIZE);
        for group in &mut groups {
            let (mut offsets, mut work) = (ParBlocks::<B>::default(), ParBlocks::<B>::default());
            for ((block, of_it), work) in group.iter().zip(&mut offsets).zip(&mut work) {
                let (plain, offset) = (Block::from_ne_bytes(*block), self.offsets.next());
                *self.checksum ^= plain;
                *of_it = offset.to_ne_bytes().into();
                *work = (plain ^ offset).to_ne_bytes().into();
            }
            // Not in registers, where they leave room for one or two blocks at a time.
            let offsets = black_box(offsets);
            backend.proc_par_blocks((&mut work).into());
            for ((block, of_it), work) in group.iter_mut().zip(offsets).zip(work) {
                *block = (Block::from_ne_bytes(work.into()) ^ Block::from_ne_bytes(of_it.into())).to_ne_bytes();
            }
        }
        for block in groups.into_remainder() {
            let (plain, offset) = (Block::from_ne_bytes(*block), self.offsets.next());
            *self.checksum ^= plain;
            let mut work: aes::Block = (plain ^ offset).to_ne_bytes().into();
            backend.proc_block((&mut work).into());
            *block = (Block::from_ne_bytes(work.into()) ^ offset).to_ne_bytes();
        }
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
            text in proptest::collection::vec(any::<u8>(), 0..(96 * BLOCK)),
        ) {
            let mut own = text.clone();
            let tag = Ocb::new(&key).encrypt(&nonce, &associated, &mut own);
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
        let tag = Ocb::new(&[1; 32]).encrypt(&[2; NONCE], b"", &mut own);
        let others: [u8; TAG] = Ocb3::<Aes256, U15>::new(&[1; 32].into())
            .encrypt_in_place_detached(&[2; NONCE].into(), b"", &mut other)
            .unwrap()
            .into();
        assert!(own == other && tag == others);
    }
}
