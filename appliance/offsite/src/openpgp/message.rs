//! The framing of an encrypted message, as a stream of known length.
//!
//! Layout: PKESK packets (RFC 4880 5.1), then one encrypted packet ([`Mode`]) that holds one literal packet (tag 11:
//! `b`, no name, no date, the data). All lengths are definite and in the five-octet form.
//!
//! The same seal and the same data always give the same bytes, so a broken transfer can be made again.

use zeroize::Zeroizing;

use super::ocb::{self, Ocb};
use super::room::Room;
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
        let mut message = Room::with_capacity(usize::try_from(self.length(plain.len() as u64)?).ok()?);
        let mut encryptor = Encryptor::new(self, plain.len() as u64, &mut message)?;
        let mut rest = plain;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(encryptor.wants().min(rest.len()));
            message.add(now);
            encryptor.seal(&mut message, now.len())?;
            rest = later;
        }
        encryptor.finish(&mut message)?;
        Some(message.into())
    }
}

enum Packet {
    Cfb(Box<Seipd>),
    Ocb(Box<Ocb>),
}

/// What is best sealed at once in CFB, in octets: it stays in a processor's cache.
const PIECE: usize = 64 * 1024;

/// A message being made in a buffer: content is put behind what is there, and sealed where it is. What is sealed may be
/// taken from the buffer's front.
pub struct Encryptor {
    packet: Packet,
    /// Octets at the buffer's end that are still to be sealed.
    pending: usize,
    /// Octets of content that are still to come.
    left: u64,
}

impl Encryptor {
    /// Starts a message for exactly `plain` octets of content; `None` when that is too many.
    #[must_use]
    pub fn new(seal: &Seal, plain: u64, message: &mut Room) -> Option<Self> {
        let body = seal.mode.body(plain)?;
        let literal = u32::try_from(plain + LITERAL_FIELDS).ok()?;
        message.add(&seal.key_packets);
        message.add(&header(seal.mode.tag(), body));
        let (packet, prefix) = match seal.mode {
            Mode::Cfb => {
                let packet = Seipd::new(&seal.session_key, &seal.random, message);
                (Packet::Cfb(Box::new(packet)), seipd::PREFIX)
            }
            Mode::Ocb => {
                let [iv @ .., _] = seal.random;
                (Packet::Ocb(Box::new(Ocb::new(&seal.session_key, iv, message))), 0)
            }
        };
        message.add(&header(11, literal));
        message.add(&[b'b', 0, 0, 0, 0, 0]);
        Some(Self {
            packet,
            pending: prefix + (HEADER + LITERAL_FIELDS) as usize,
            left: plain,
        })
    }

    /// How much content is best added before it is sealed, and at most. Never 0.
    #[must_use]
    pub fn wants(&self) -> usize {
        match &self.packet {
            Packet::Cfb(_) => PIECE,
            Packet::Ocb(packet) => packet.chunk() - self.pending,
        }
    }

    /// Octets at the message's end that are still to be sealed. They stay where they are until they are.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Seals content: the last `added` octets of `message`, at most [`Encryptor::wants`]. `None` when there is more than
    /// was announced: the message is then worthless.
    #[must_use]
    pub fn seal(&mut self, message: &mut Room, added: usize) -> Option<()> {
        self.left = self.left.checked_sub(added as u64)?;
        let pending = self.pending + added;
        self.pending = match &mut self.packet {
            Packet::Cfb(packet) => packet.seal(message, pending),
            Packet::Ocb(packet) => packet.seal(message, pending),
        };
        Some(())
    }

    /// Ends the message. `None` when there was less content than announced: the message is then worthless.
    #[must_use]
    pub fn finish(self, message: &mut Room) -> Option<()> {
        if self.left != 0 {
            return None;
        }
        match self.packet {
            Packet::Cfb(packet) => packet.finish(message, self.pending),
            Packet::Ocb(packet) => packet.finish(message, self.pending),
        }
        Some(())
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
            let (mut message, mut rest) = (Room::default(), data.as_slice());
            let mut encryptor = Encryptor::new(&seal, data.len() as u64, &mut message).unwrap();
            let mut taken = Vec::new();
            for size in sizes.iter().cycle() {
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                message.add(piece);
                encryptor.seal(&mut message, piece.len()).unwrap();
                let sealed = message.octets().len() - encryptor.pending();
                taken.extend_from_slice(&message.octets()[..sealed]);
                let pending = message.split_off(sealed);
                message.clear();
                message.add(&pending);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            encryptor.finish(&mut message).unwrap();
            taken.extend_from_slice(message.octets());
            prop_assert_eq!(taken, seal.seal(&data).unwrap());
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
            let mut message = Room::default();
            let mut encryptor = Encryptor::new(&seal(mode, Vec::new()), 100, &mut message).unwrap();
            message.add(&vec![0; given]);
            let whole = encryptor
                .seal(&mut message, given)
                .and_then(|()| encryptor.finish(&mut message));
            assert_eq!(whole, None, "{mode:?} {given}");
        }
    }

    #[test]
    fn a_packet_has_an_end() {
        let most = u64::from(u32::MAX) - 1 - 18 - 6 - 6 - 22;
        assert_eq!(sealed_length(Mode::Cfb, 100, most), Some(100 + 6 + u64::from(u32::MAX)));
        for mode in Mode::ALL {
            assert_eq!(sealed_length(mode, 100, most + 1), None);
            assert_eq!(sealed_length(mode, 100, u64::MAX), None);
            assert!(Encryptor::new(&seal(mode, Vec::new()), most + 1, &mut Room::default()).is_none());
        }
    }
}
