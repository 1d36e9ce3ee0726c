//! The framing of an encrypted message, as a stream of known length.
//!
//! Layout (RFC 4880 5.1, 5.13, 5.9, 5.14), all lengths definite and in the five-octet form:
//! PKESK packets; tag 18: version 1, then in AES-256 CFB with a zero IV: 16 random octets, the last two
//! again, tag 11 (`b`, no name, no date, the data), tag 19 with the SHA-1 of everything before its sum.
//!
//! The same seal and the same data always give the same bytes, so a broken transfer can be made again.

use aes::Aes256;
use cfb_mode::BufEncryptor;
use cfb_mode::cipher::KeyIvInit;
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

const BLOCK: usize = 16;
/// Tag, 0xFF, four octets.
const HEADER: u64 = 6;
/// Format, length of the name, date.
const LITERAL_FIELDS: u64 = 6;
const MDC: u64 = 22;
/// Packet lengths are 32 bits wide.
const LONGEST_PACKET: u64 = u32::MAX as u64;

/// What makes one message: the session key, the random prefix, and the key packets for its recipients.
/// Never use one for two different contents.
#[derive(Clone)]
pub struct Seal {
    pub(super) key_packets: Vec<u8>,
    pub(super) session_key: Zeroizing<[u8; 32]>,
    pub(super) prefix: [u8; BLOCK],
}

/// The message's length for `plain` bytes, or `None` when they are too many for one packet (4 GiB).
#[must_use]
pub fn sealed_length(key_packets: u64, plain: u64) -> Option<u64> {
    let protected = protected_length(plain)?;
    key_packets.checked_add(HEADER)?.checked_add(protected)
}

/// Length of the SEIPD packet's body.
fn protected_length(plain: u64) -> Option<u64> {
    let body = plain.checked_add(1 + BLOCK as u64 + 2 + HEADER + LITERAL_FIELDS + MDC)?;
    (body <= LONGEST_PACKET).then_some(body)
}

impl Seal {
    /// The whole message's length for `plain` bytes.
    #[must_use]
    pub fn length(&self, plain: u64) -> Option<u64> {
        sealed_length(self.key_packets.len() as u64, plain)
    }

    /// Seals some bytes that are in memory. `None` when they are too many.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(usize::try_from(self.length(plain.len() as u64)?).ok()?);
        let mut encryptor = Encryptor::new(self, plain.len() as u64, &mut out)?;
        encryptor.update(plain, &mut out);
        encryptor.finish(&mut out).then_some(out)
    }
}

/// A message being made: data goes in, the message comes out, appended to a buffer of the caller's.
pub struct Encryptor {
    cipher: BufEncryptor<Aes256>,
    mdc: Sha1,
    left: u64,
}

impl Encryptor {
    /// Starts a message of exactly `plain` bytes; `None` when that is too many.
    #[must_use]
    pub fn new(seal: &Seal, plain: u64, out: &mut Vec<u8>) -> Option<Self> {
        let body = u32::try_from(protected_length(plain)?).ok()?;
        out.extend_from_slice(&seal.key_packets);
        out.extend_from_slice(&header(18, body));
        out.push(1);
        let cipher = BufEncryptor::new((&*seal.session_key).into(), &[0; BLOCK].into());
        let mut it = Self {
            cipher,
            mdc: Sha1::new(),
            left: plain,
        };
        it.encrypt(&seal.prefix, out);
        it.encrypt(&seal.prefix[BLOCK - 2..], out);
        let literal = u32::try_from(plain + LITERAL_FIELDS).ok()?;
        it.encrypt(&header(11, literal), out);
        it.encrypt(&[b'b', 0, 0, 0, 0, 0], out);
        Some(it)
    }

    fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.mdc.update(plain);
        let start = out.len();
        out.extend_from_slice(plain);
        if let Some(new) = out.get_mut(start..) {
            self.cipher.encrypt(new);
        }
    }

    /// Adds data. More than was announced is left out, and makes [`Encryptor::finish`] fail.
    pub fn update(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match self.left.checked_sub(plain.len() as u64) {
            Some(left) => {
                self.left = left;
                self.encrypt(plain, out);
            }
            None => self.left = u64::MAX,
        }
    }

    /// Ends the message. False when the data was not as long as announced: the message is then worthless.
    #[must_use]
    pub fn finish(mut self, out: &mut Vec<u8>) -> bool {
        if self.left != 0 {
            return false;
        }
        // The old-looking header is fixed by the standard: tag 19, one length octet of 20.
        self.encrypt(&[0xd3, 0x14], out);
        let sum = self.mdc.clone().finalize();
        self.encrypt(&sum, out);
        true
    }
}

fn header(tag: u8, length: u32) -> [u8; HEADER as usize] {
    let [a, b, c, d] = length.to_be_bytes();
    [0xc0 | tag, 0xff, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use cfb_mode::BufDecryptor;
    use proptest::prelude::*;

    use super::*;

    fn seal(key_packets: Vec<u8>) -> Seal {
        Seal {
            key_packets,
            session_key: Zeroizing::new([7; 32]),
            prefix: *b"0123456789abcdef",
        }
    }

    /// Takes the framing apart again, octet by octet.
    fn unseal(seal: &Seal, message: &[u8]) -> Option<Vec<u8>> {
        let rest = message.strip_prefix(seal.key_packets.as_slice())?;
        let (head, body) = rest.split_at_checked(7)?;
        let length = u32::from_be_bytes(head[2..6].try_into().ok()?);
        if head[..2] != [0xd2, 0xff] || head[6] != 1 || length as usize != body.len() + 1 {
            return None;
        }
        let mut plain = body.to_vec();
        BufDecryptor::<Aes256>::new((&*seal.session_key).into(), &[0; 16].into()).decrypt(&mut plain);
        let (hashed, sum) = plain.split_at_checked(plain.len().checked_sub(20)?)?;
        if Sha1::digest(hashed).as_slice() != sum || hashed[14..16] != hashed[16..18] {
            return None;
        }
        let literal = hashed.strip_suffix(&[0xd3, 0x14])?.get(18..)?;
        let (head, data) = literal.split_at_checked(12)?;
        let length = u32::from_be_bytes(head[2..6].try_into().ok()?);
        let fields = head[..2] == [0xcb, 0xff] && head[6..] == [b'b', 0, 0, 0, 0, 0];
        (fields && length as usize == data.len() + 6).then(|| data.to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_goes_in_comes_out_at_the_announced_length(
            data in proptest::collection::vec(any::<u8>(), 0..3000),
            key_packets in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let seal = seal(key_packets);
            let message = seal.seal(&data).unwrap();
            prop_assert_eq!(message.len() as u64, seal.length(data.len() as u64).unwrap());
            let back = unseal(&seal, &message);
            prop_assert_eq!(back, Some(data));
        }

        #[test]
        fn the_pieces_do_not_matter(
            data in proptest::collection::vec(any::<u8>(), 1..3000), sizes in proptest::collection::vec(1_usize..200, 1..30),
        ) {
            let seal = seal(vec![1, 2, 3]);
            let mut out = Vec::new();
            let mut encryptor = Encryptor::new(&seal, data.len() as u64, &mut out).unwrap();
            let mut rest = data.as_slice();
            for size in sizes.iter().cycle() {
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                encryptor.update(piece, &mut out);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(encryptor.finish(&mut out));
            prop_assert_eq!(out, seal.seal(&data).unwrap());
        }

        #[test]
        fn one_flipped_bit_is_seen(
            data in proptest::collection::vec(any::<u8>(), 0..300), at in any::<proptest::sample::Index>(), bit in 0_u32..8,
        ) {
            let seal = seal(vec![9; 4]);
            let mut message = seal.seal(&data).unwrap();
            let at = at.index(message.len());
            message[at] ^= 1_u8 << bit;
            prop_assert_eq!(unseal(&seal, &message), None);
        }
    }

    #[test]
    fn the_announced_length_is_demanded() {
        for given in [0, 99, 101] {
            let mut out = Vec::new();
            let mut encryptor = Encryptor::new(&seal(Vec::new()), 100, &mut out).unwrap();
            encryptor.update(&vec![0; given], &mut out);
            assert!(!encryptor.finish(&mut out), "{given}");
        }
    }

    #[test]
    fn a_packet_has_an_end() {
        let most = u64::from(u32::MAX) - 1 - 18 - 6 - 6 - 22;
        assert_eq!(sealed_length(100, most), Some(100 + 6 + u64::from(u32::MAX)));
        assert_eq!(sealed_length(100, most + 1), None);
        assert_eq!(sealed_length(100, u64::MAX), None);
        assert!(Encryptor::new(&seal(Vec::new()), most + 1, &mut Vec::new()).is_none());
    }
}
