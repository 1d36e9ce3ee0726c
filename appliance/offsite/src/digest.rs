//! Hash values that print as hexadecimal and travel so in JSON.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// `N` bytes of a hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest<const N: usize>(pub [u8; N]);

/// A SHA-256.
pub type Sha256Sum = Digest<32>;
/// An MD5: for `Content-MD5` and ETags, which are made of it. Never relied on against forgery.
pub type Md5Sum = Digest<16>;

/// What SHA-256 works on at once, in bytes.
const BLOCK: usize = 64;

impl<const N: usize> Digest<N> {
    /// Reads 2 N hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 2 * N {
            return None;
        }
        let mut out = [0; N];
        for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let [high, low] = [pair.first()?, pair.get(1)?].map(|digit| char::from(*digit).to_digit(16));
            *byte = u8::try_from(high? * 16 + low?).ok()?;
        }
        Some(Self(out))
    }
}

impl<const N: usize> fmt::Display for Digest<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Digest<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Digest<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Digest<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format_args!("expected {} hexadecimal digits", 2 * N)))
    }
}

/// Adds the same bytes to two sums, in turns of one block: a processor with SHA instructions works on both at once then, in
/// three quarters of the time, or seven eighths on one whose SHA unit is busy with a single sum already. Both have taken `before` bytes so far, or as many but for whole blocks of 64.
pub(crate) fn update_both(one: &mut sha2::Sha256, other: &mut sha2::Sha256, before: usize, bytes: &[u8]) {
    let begun = before % BLOCK;
    let to_whole = (BLOCK - begun) % BLOCK;
    let (head, blocks) = bytes.split_at(to_whole.min(bytes.len()));
    for block in std::iter::once(head).chain(blocks.chunks(BLOCK)) {
        one.update(block);
        other.update(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digest([0x00, 0x7f, 0xff]);
        assert_eq!(digest.to_string(), "007fff");
        assert_eq!(Digest::parse("007fff"), Some(digest));
        assert_eq!(Digest::<3>::parse("007ff"), None);
        assert_eq!(Digest::<3>::parse("007ffg"), None);
    }

    #[test]
    fn two_at_once_are_the_same_as_one_after_the_other() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut all = sha2::Sha256::new_with_prefix([7; 128]);
        let mut part = sha2::Sha256::new();
        let mut at = 0;
        for size in [0, 1, 62, 1, 64, 65, 200, 607] {
            update_both(&mut all, &mut part, at, &bytes[at..at + size]);
            at += size;
        }
        assert_eq!(at, 1000);
        assert_eq!(part.finalize(), sha2::Sha256::digest(&bytes));
        assert_eq!(
            all.finalize(),
            sha2::Sha256::digest([&[7; 128], bytes.as_slice()].concat())
        );
    }
}
