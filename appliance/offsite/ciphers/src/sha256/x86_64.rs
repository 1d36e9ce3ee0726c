//! The rounds of SHA-256 with the processor's instructions, for two texts in turns of four rounds.
//!
//! Names are those of FIPS 180-4 section 6.2.2: a to h are the working variables, W the message schedule. The instructions
//! want two variables of each half in one register: `abef`, `cdgh`.
#![allow(
    unsafe_code,
    reason = "whether the processor has the instructions is known only when it runs"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi32,
};

use super::{BLOCK, Work, one_after_the_other};

/// Section 4.2.2, four rounds in a row, sixteen in a line.
#[rustfmt::skip]
const K: [[[u32; 4]; 4]; 4] = [
    [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    ],
    [
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    ],
    [
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    ],
    [
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ],
];

/// Compresses both, which have as many blocks.
pub(super) fn compress_both(one: Work<'_>, other: Work<'_>) {
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") {
        // SAFETY: the processor has what the function is compiled for.
        unsafe { with_instructions(one, other) }
    } else {
        one_after_the_other(one, other);
    }
}

#[target_feature(enable = "sha,sse4.1")]
fn with_instructions(one: Work<'_>, other: Work<'_>) {
    let (mut a, mut b) = (Text::new(*one.0), Text::new(*other.0));
    for (of_a, of_b) in one.1.iter().zip(other.1) {
        let (before_a, before_b) = (a, b);
        a.load(of_a);
        b.load(of_b);
        for (k, index) in K.into_iter().zip(1..) {
            // The last sixteen rounds need no more words after theirs.
            let more = index < K.len();
            four_rounds::<0>(&mut a, &mut b, k[0], more);
            four_rounds::<1>(&mut a, &mut b, k[1], more);
            four_rounds::<2>(&mut a, &mut b, k[2], more);
            four_rounds::<3>(&mut a, &mut b, k[3], more);
        }
        a.add(&before_a);
        b.add(&before_b);
    }
    *one.0 = a.state();
    *other.0 = b.state();
}

#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn four_rounds<const W: usize>(a: &mut Text, b: &mut Text, k: [u32; 4], more: bool) {
    let k = words(k);
    a.rounds::<W>(k);
    b.rounds::<W>(k);
    if more {
        a.schedule::<W>();
        b.schedule::<W>();
    }
}

/// Four words in a register, the first of them lowest.
#[inline]
#[target_feature(enable = "sse4.1")]
fn words([a, b, c, d]: [u32; 4]) -> __m128i {
    _mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn from_words(words: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32::<0>(words),
        _mm_extract_epi32::<1>(words),
        _mm_extract_epi32::<2>(words),
        _mm_extract_epi32::<3>(words),
    ]
    .map(i32::cast_unsigned)
}

/// One of the two.
#[derive(Clone, Copy)]
struct Text {
    abef: __m128i,
    cdgh: __m128i,
    /// The next sixteen words of the schedule.
    w: [__m128i; 4],
}

impl Text {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn new([a, b, c, d, e, f, g, h]: [u32; 8]) -> Self {
        Self {
            abef: words([f, e, b, a]),
            cdgh: words([h, g, d, c]),
            w: [words([0; 4]); 4],
        }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn state(&self) -> [u32; 8] {
        let [f, e, b, a] = from_words(self.abef);
        let [h, g, d, c] = from_words(self.cdgh);
        [a, b, c, d, e, f, g, h]
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn load(&mut self, block: &[u8; BLOCK]) {
        let (octets, _) = block.as_chunks::<4>();
        let (fours, _) = octets.as_chunks::<4>();
        for (w, four) in self.w.iter_mut().zip(fours) {
            *w = words(four.map(u32::from_be_bytes));
        }
    }

    /// Four rounds, with the words in register `W`.
    #[inline]
    #[target_feature(enable = "sha,sse4.1")]
    fn rounds<const W: usize>(&mut self, k: __m128i) {
        let sum = _mm_add_epi32(self.w[W], k);
        self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sum);
        self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, _mm_shuffle_epi32::<0x0e>(sum));
    }

    /// Makes the words that come sixteen after those in register `W`, in their place.
    #[inline]
    #[target_feature(enable = "sha,sse4.1")]
    fn schedule<const W: usize>(&mut self) {
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|further| self.w[(W + further) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(first, second), _mm_alignr_epi8::<4>(fourth, third));
        self.w[W] = _mm_sha256msg2_epu32(sum, fourth);
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn add(&mut self, before: &Self) {
        self.abef = _mm_add_epi32(self.abef, before.abef);
        self.cdgh = _mm_add_epi32(self.cdgh, before.cdgh);
    }
}
