//! SHA-256 (FIPS 180-4) of two texts at once.
//!
//! A push sums up each byte twice, as content and as part of a message, and that is half of its processor time. The processor's
//! instructions for SHA-256 wait for one another, so that a second sum beside the first is nearly for nothing; the `sha2`
//! crate makes one at a time.

#[cfg(target_arch = "x86_64")]
mod x86_64;

use sha2::block_api::compress256;

#[cfg(not(target_arch = "x86_64"))]
use self::one_after_the_other as compress_both;
#[cfg(target_arch = "x86_64")]
use self::x86_64::compress_both;

/// Octets that are worked on at once.
const BLOCK: usize = 64;

/// Section 5.3.3.
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A sum that is being made.
pub struct Sum {
    state: [u32; 8],
    /// What is no whole block yet is at its beginning.
    block: [u8; BLOCK],
    /// Octets so far.
    taken: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            state: START,
            block: [0; BLOCK],
            taken: 0,
        }
    }
}

impl Sum {
    /// Adds octets.
    pub fn update(&mut self, octets: &[u8]) {
        let (blocks, rest) = self.fill_block(octets).as_chunks();
        self.take(blocks.len(), rest);
        compress256(&mut self.state, blocks);
    }

    /// Takes what is missing to a whole block, and gives the rest.
    fn fill_block<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let there = self.in_block();
        if there == 0 {
            return octets;
        }
        let (head, rest) = octets.split_at(octets.len().min(BLOCK - there));
        let (_, free) = self.block.split_at_mut(there);
        for (to, octet) in free.iter_mut().zip(head) {
            *to = *octet;
        }
        self.taken += head.len() as u64;
        if self.in_block() == 0 {
            compress256(&mut self.state, std::slice::from_ref(&self.block));
        }
        rest
    }

    fn in_block(&self) -> usize {
        (self.taken % BLOCK as u64) as usize
    }

    /// Counts whole blocks, and keeps what comes after them and is none.
    fn take(&mut self, blocks: usize, rest: &[u8]) {
        for (to, octet) in self.block.iter_mut().zip(rest) {
            *to = *octet;
        }
        self.taken += (blocks * BLOCK + rest.len()) as u64;
    }

    /// The sum.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.taken.wrapping_mul(8).to_be_bytes();
        self.update(&[0x80]);
        let zeros = (2 * BLOCK - bits.len() - self.in_block()) % BLOCK;
        self.update([0; BLOCK].split_at(zeros).0);
        self.update(&bits);
        let mut sum = [0; 32];
        for (octets, word) in sum.chunks_mut(4).zip(self.state) {
            octets.copy_from_slice(&word.to_be_bytes());
        }
        sum
    }
}

/// Adds to two sums, for the time of one where they are given as much.
pub fn update_both(one: (&mut Sum, &[u8]), other: (&mut Sum, &[u8])) {
    let (ones, ones_rest) = one.0.fill_block(one.1).as_chunks();
    let (others, others_rest) = other.0.fill_block(other.1).as_chunks();
    one.0.take(ones.len(), ones_rest);
    other.0.take(others.len(), others_rest);
    let both = ones.len().min(others.len());
    let (ones, ones_alone) = ones.split_at(both);
    let (others, others_alone) = others.split_at(both);
    compress_both((&mut one.0.state, ones), (&mut other.0.state, others));
    compress256(&mut one.0.state, ones_alone);
    compress256(&mut other.0.state, others_alone);
}

/// A state, and the blocks that it is to take.
type Work<'a> = (&'a mut [u32; 8], &'a [[u8; BLOCK]]);

/// What is done where the processor has no instructions for it.
fn one_after_the_other(one: Work<'_>, other: Work<'_>) {
    compress256(one.0, one.1);
    compress256(other.0, other.1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn library(octets: &[u8]) -> [u8; 32] {
        Sha256::digest(octets).into()
    }

    #[test]
    fn every_length_up_to_some_blocks() {
        let octets: Vec<u8> = (0..=255).cycle().take(4 * BLOCK).collect();
        for length in 0..octets.len() {
            let (text, _) = octets.split_at(length);
            let (mut alone, mut one, mut other) = (Sum::default(), Sum::default(), Sum::default());
            alone.update(text);
            update_both((&mut one, text), (&mut other, &octets));
            assert_eq!(alone.finish(), library(text), "{length}");
            assert_eq!(one.finish(), library(text), "{length}");
            assert_eq!(other.finish(), library(&octets), "{length}");
        }
    }

    /// Whatever this processor has.
    #[test]
    fn both_ways_come_to_the_same() {
        let blocks = |first: u8| [first, 2, 3].map(|octet| [octet; BLOCK]);
        let of = |way: fn(Work<'_>, Work<'_>)| {
            let (mut one, mut other) = (START, START);
            way((&mut one, &blocks(1)), (&mut other, &blocks(4)));
            (one, other)
        };
        assert_eq!(of(compress_both), of(one_after_the_other));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pieces_do_not_matter(
            pairs in proptest::collection::vec(
                (
                    proptest::collection::vec(any::<u8>(), 0..600),
                    proptest::collection::vec(any::<u8>(), 0..600),
                    any::<bool>(),
                ),
                0..8,
            ),
        ) {
            let (mut one, mut other) = (Sum::default(), Sum::default());
            for (ones, others, at_once) in &pairs {
                if *at_once {
                    update_both((&mut one, ones), (&mut other, others));
                } else {
                    one.update(ones);
                    other.update(others);
                }
            }
            let all_ones: Vec<u8> = pairs.iter().flat_map(|(ones, _, _)| ones.clone()).collect();
            let all_others: Vec<u8> = pairs.iter().flat_map(|(_, others, _)| others.clone()).collect();
            prop_assert_eq!(one.finish(), library(&all_ones));
            prop_assert_eq!(other.finish(), library(&all_others));
        }
    }
}
