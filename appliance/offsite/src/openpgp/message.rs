//! The framing of an encrypted message, as a stream of known length.
//!
//! Layout: PKESK packets (RFC 4880 5.1), then one encrypted packet ([`Mode`]) that holds one literal packet (tag 11:
//! `b`, no name, no date, the data). All lengths are definite and in the five-octet form.
//!
//! The same seal and the same data always give the same bytes, so a broken transfer can be made again.

use zeroize::Zeroizing;

use super::ocb::{self, Ocb};
use super::seipd::{self, Seipd};

/// Tag, 0xFF, four octets.
const HEADER: u64 = 6;
/// Format, length of the name, date.
const LITERAL_FIELDS: u64 = 6;

/// How the content is encrypted, with AES-256 in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// CFB with a SHA-1 at the end: SEIPD version 1. Every OpenPGP program reads it.
    Cfb,
    /// OCB in chunks, as in LibrePGP: several times as fast. GnuPG reads it from 2.2.21 on; others may not.
    Ocb,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cfb, Self::Ocb];

    fn tag(self) -> u8 {
        match self {
            Self::Cfb => 18,
            Self::Ocb => 20,
        }
    }

    /// Length of the encrypted packet's body, or `None` when it is too long for one.
    fn body(self, plain: u64) -> Option<u32> {
        let content = plain.checked_add(HEADER + LITERAL_FIELDS)?;
        let body = match self {
            Self::Cfb => content.checked_add(seipd::OVERHEAD)?,
            Self::Ocb => ocb::body_length(content)?,
        };
        u32::try_from(body).ok()
    }
}

/// Which mode to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encryption {
    /// OCB when the certificate of every recipient says that it is understood, CFB otherwise.
    #[default]
    Auto,
    /// This one, whatever the certificates say.
    Always(Mode),
}

/// What makes one message: the session key, the random octets, and the key packets for its recipients.
/// Never use one for two different contents.
#[derive(Clone)]
pub struct Seal {
    pub(super) mode: Mode,
    pub(super) key_packets: Vec<u8>,
    pub(super) session_key: Zeroizing<[u8; 32]>,
    /// CFB: the prefix. OCB: the initialization vector, and one octet that is not used.
    pub(super) random: [u8; 16],
}

/// The message's length for `plain` bytes, or `None` when they are too many for one packet (4 GiB).
#[must_use]
pub fn sealed_length(mode: Mode, key_packets: u64, plain: u64) -> Option<u64> {
    key_packets
        .checked_add(HEADER)?
        .checked_add(u64::from(mode.body(plain)?))
}

/// First octet of a [`Seal`] that was written down.
const SEAL_VERSION: u8 = 1;
/// Octets of it before the key packets: the version, the mode, the random octets, the session key.
const SEAL_HEAD: usize = 2 + 16 + 32;

impl Seal {
    /// How the content is encrypted.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// All of it, for whoever goes on with a message that was cut short. Whoever has it can read that message.
    #[must_use]
    pub fn to_secret(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(SEAL_HEAD + self.key_packets.len()));
        out.extend_from_slice(&[SEAL_VERSION, self.mode.tag()]);
        out.extend_from_slice(&self.random);
        out.extend_from_slice(&*self.session_key);
        out.extend_from_slice(&self.key_packets);
        out
    }

    /// Reads what [`Seal::to_secret`] gave; `None` for anything else.
    #[must_use]
    pub fn from_secret(bytes: &[u8]) -> Option<Self> {
        let (head, key_packets) = bytes.split_at_checked(SEAL_HEAD)?;
        let ([version, tag], rest) = head.split_first_chunk::<2>()?;
        let (random, rest) = rest.split_first_chunk::<16>()?;
        let mode = Mode::ALL.into_iter().find(|mode| mode.tag() == *tag)?;
        (*version == SEAL_VERSION).then_some(Self {
            mode,
            key_packets: key_packets.to_vec(),
            session_key: Zeroizing::new(rest.try_into().ok()?),
            random: *random,
        })
    }

    /// The whole message's length for `plain` bytes.
    #[must_use]
    pub fn length(&self, plain: u64) -> Option<u64> {
        sealed_length(self.mode, self.key_packets.len() as u64, plain)
    }

    /// Seals some bytes that are in memory. `None` when they are too many.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(usize::try_from(self.length(plain.len() as u64)?).ok()?);
        let give: Out<'_> = &mut |piece| out.extend_from_slice(piece);
        let mut encryptor = Encryptor::new(self, plain.len() as u64, give)?;
        encryptor.update(plain, give);
        encryptor.finish(give).then_some(out)
    }
}

enum Packet {
    Cfb(Box<Seipd>),
    Ocb(Box<Ocb>),
}

/// Is given each next piece of a message.
pub type Out<'a> = &'a mut dyn FnMut(&[u8]);

/// A message being made: data goes in, the message comes out in pieces.
pub struct Encryptor {
    packet: Packet,
    left: u64,
}

impl Encryptor {
    /// Starts a message of exactly `plain` bytes; `None` when that is too many.
    #[must_use]
    pub fn new(seal: &Seal, plain: u64, out: Out<'_>) -> Option<Self> {
        let body = seal.mode.body(plain)?;
        let literal = u32::try_from(plain + LITERAL_FIELDS).ok()?;
        out(&seal.key_packets);
        out(&header(seal.mode.tag(), body));
        let packet = match seal.mode {
            Mode::Cfb => Packet::Cfb(Box::new(Seipd::new(&seal.session_key, &seal.random, out))),
            Mode::Ocb => {
                let [iv @ .., _] = seal.random;
                Packet::Ocb(Box::new(Ocb::new(&seal.session_key, iv, out)))
            }
        };
        let mut it = Self { packet, left: plain };
        it.encrypt(&header(11, literal), out);
        it.encrypt(&[b'b', 0, 0, 0, 0, 0], out);
        Some(it)
    }

    fn encrypt(&mut self, plain: &[u8], out: Out<'_>) {
        match &mut self.packet {
            Packet::Cfb(packet) => packet.add(plain, out),
            Packet::Ocb(packet) => packet.add(plain, out),
        }
    }

    /// Adds data. More than was announced is left out, and makes [`Encryptor::finish`] fail. Some of the message may
    /// come out only with the next data, or at the end.
    pub fn update(&mut self, plain: &[u8], out: Out<'_>) {
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
    pub fn finish(self, out: Out<'_>) -> bool {
        if self.left != 0 {
            return false;
        }
        match self.packet {
            Packet::Cfb(packet) => packet.finish(out),
            Packet::Ocb(packet) => packet.finish(out),
        }
        true
    }
}

fn header(tag: u8, length: u32) -> [u8; HEADER as usize] {
    let [a, b, c, d] = length.to_be_bytes();
    [0xc0 | tag, 0xff, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use aes::Aes256;
    use cfb_mode::BufDecryptor;
    use cfb_mode::cipher::KeyIvInit;
    use proptest::prelude::*;
    use sha1::{Digest, Sha1};

    use super::*;

    fn seal(mode: Mode, key_packets: Vec<u8>) -> Seal {
        Seal {
            mode,
            key_packets,
            session_key: Zeroizing::new([7; 32]),
            random: *b"0123456789abcdef",
        }
    }

    fn mode() -> impl Strategy<Value = Mode> {
        proptest::sample::select(Mode::ALL.to_vec())
    }

    /// Takes the framing of CFB apart again, octet by octet. OCB's is opened by another's code, beside it.
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
            mode in mode(), data in proptest::collection::vec(any::<u8>(), 0..3000),
            key_packets in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let seal = seal(mode, key_packets);
            let message = seal.seal(&data).unwrap();
            prop_assert_eq!(message.len() as u64, seal.length(data.len() as u64).unwrap());
            if mode == Mode::Cfb {
                prop_assert_eq!(unseal(&seal, &message), Some(data));
            }
        }

        #[test]
        fn the_pieces_do_not_matter(
            mode in mode(),
            data in proptest::collection::vec(any::<u8>(), 1..3000), sizes in proptest::collection::vec(1_usize..200, 1..30),
        ) {
            let seal = seal(mode, vec![1, 2, 3]);
            let mut message = Vec::new();
            let out: Out<'_> = &mut |piece| message.extend_from_slice(piece);
            let mut encryptor = Encryptor::new(&seal, data.len() as u64, out).unwrap();
            let mut rest = data.as_slice();
            for size in sizes.iter().cycle() {
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                encryptor.update(piece, out);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(encryptor.finish(out));
            prop_assert_eq!(message, seal.seal(&data).unwrap());
        }

        #[test]
        fn one_flipped_bit_is_seen(
            data in proptest::collection::vec(any::<u8>(), 0..300), at in any::<proptest::sample::Index>(), bit in 0_u32..8,
        ) {
            let seal = seal(Mode::Cfb, vec![9; 4]);
            let mut message = seal.seal(&data).unwrap();
            let at = at.index(message.len());
            message[at] ^= 1_u8 << bit;
            prop_assert_eq!(unseal(&seal, &message), None);
        }
    }

    #[test]
    fn a_seal_comes_back_from_paper_as_it_was() {
        for mode in Mode::ALL {
            let seal = seal(mode, vec![1, 2, 3]);
            let written = seal.to_secret();
            let read = Seal::from_secret(&written).unwrap();
            assert_eq!(read.seal(b"a letter"), seal.seal(b"a letter"));
            assert!(Seal::from_secret(&written[..SEAL_HEAD - 1]).is_none());
            for at in [0, 1] {
                let mut other = written.to_vec();
                other[at] = 99;
                assert!(Seal::from_secret(&other).is_none());
            }
        }
    }

    #[test]
    fn the_announced_length_is_demanded() {
        for (mode, given) in [0, 99, 101]
            .into_iter()
            .flat_map(|given| Mode::ALL.map(|mode| (mode, given)))
        {
            let out: Out<'_> = &mut |_| {};
            let mut encryptor = Encryptor::new(&seal(mode, Vec::new()), 100, out).unwrap();
            encryptor.update(&vec![0; given], out);
            assert!(!encryptor.finish(out), "{mode:?} {given}");
        }
    }

    #[test]
    fn a_packet_has_an_end() {
        let most = u64::from(u32::MAX) - 1 - 18 - 6 - 6 - 22;
        assert_eq!(sealed_length(Mode::Cfb, 100, most), Some(100 + 6 + u64::from(u32::MAX)));
        for mode in Mode::ALL {
            assert_eq!(sealed_length(mode, 100, most + 1), None);
            assert_eq!(sealed_length(mode, 100, u64::MAX), None);
            assert!(Encryptor::new(&seal(mode, Vec::new()), most + 1, &mut |_| {}).is_none());
        }
    }
}
