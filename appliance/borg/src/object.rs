//! One object's content: read from its place, checked, unpacked, and compared with its name where no key is needed.
//!
//! A stored object is a byte for the key's type, then, unless encrypted, a header of two bytes for
//! the compression and the compressed data. Where nothing is encrypted or authenticated, its name is the SHA-256 of what
//! that unpacks to; otherwise a keyed sum of it. Source: Borg's `crypto/key.py` and `compress.pyx`, 1.1 to 1.4.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use lzma_rust2::XzReader;
use sha2::{Digest, Sha256};

use crate::segment::{Damage, HEADER_SIZE, Header, KEYED_HEADER_SIZE, ObjectKey, PUT, ReadError};

/// Most bytes that an object may unpack to. Borg's own limit for a manifest is three times the
/// largest entry; everything else is smaller.
pub(crate) const MAX_PLAIN: usize = 60 * 1024 * 1024;
/// Most memory for unpacking xz, in KiB: the dictionary of its highest level has 64 MiB, of which no more is touched than
/// there is data.
const XZ_MEMORY_KIB: u32 = 68 * 1024;

/// Whether an object can be read without the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// `none`: neither encrypted nor authenticated.
    None,
    /// `authenticated…`: readable by everyone; only the key can tell whether it is genuine.
    Authenticated,
    /// `repokey…`, `keyfile…`: nothing can be read without the key.
    Encrypted,
}

impl Protection {
    /// From an object's first byte; `None` for a type that Borg 1.x does not know.
    pub(crate) fn of(first: u8) -> Option<Self> {
        match first {
            0x02 => Some(Self::None),
            0x06 | 0x07 => Some(Self::Authenticated),
            0x00 | 0x01 | 0x03..=0x05 => Some(Self::Encrypted),
            _ => None,
        }
    }
}

/// Why an object's content is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadContent {
    /// The first byte names no kind of key.
    #[error("its key type {0:#04x} is unknown")]
    KeyType(u8),
    /// The object has no content.
    #[error("it is empty")]
    Empty,
    /// Compressed by a method that is not read here.
    #[error("its compression ({0}) is not supported")]
    Compression(&'static str),
    /// The compressed data is broken.
    #[error("it does not unpack")]
    Unpack,
    /// It would unpack to more than Borg accepts.
    #[error("it unpacks to more than {} MiB", MAX_PLAIN / 1024 / 1024)]
    TooLarge,
    /// It is stored as in a repository with a key, and the others are not.
    #[error("it is stored as in a repository that has a key")]
    OtherKind,
    /// It unpacks to something else than what was named so.
    #[error("it holds something else than its name says")]
    Name,
    /// It unpacks, but does not say what it should.
    #[error("it is not as Borg writes it: {0}")]
    Form(&'static str),
}

/// Reads the PUT entry at `offset` and gives its data; checks the key and the checksum.
pub(crate) fn read_object(file: &File, offset: u64, key: &ObjectKey, data: &mut Vec<u8>) -> Result<(), ReadError> {
    let torn = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Damage(Damage::Torn { offset }),
        _ => error.into(),
    };
    let mut head = [0; KEYED_HEADER_SIZE as usize];
    file.read_exact_at(&mut head, offset).map_err(torn)?;
    let mut first = [0; HEADER_SIZE as usize];
    first.copy_from_slice(&head[..HEADER_SIZE as usize]);
    let header = Header::parse(first, offset)?;
    if header.tag != PUT || head[HEADER_SIZE as usize..] != key.0 {
        return Err(Damage::Checksum { offset }.into());
    }
    // The promised size is at most 20 MiB, and checked against the file before memory is taken.
    if offset + u64::from(header.size) > file.metadata()?.len() {
        return Err(Damage::Torn { offset }.into());
    }
    data.clear();
    data.resize((header.size - KEYED_HEADER_SIZE) as usize, 0);
    file.read_exact_at(data, offset + u64::from(KEYED_HEADER_SIZE))
        .map_err(torn)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[4..]);
    crc.update(data);
    if crc.finalize() != header.crc {
        return Err(Damage::Checksum { offset }.into());
    }
    Ok(())
}

/// Unpacks an object's data into `plain`. For [`Protection::Encrypted`] nothing is written.
pub(crate) fn unpack(data: &[u8], plain: &mut Vec<u8>) -> Result<Protection, BadContent> {
    plain.clear();
    let (&first, packed) = data.split_first().ok_or(BadContent::Empty)?;
    let protection = Protection::of(first).ok_or(BadContent::KeyType(first))?;
    if protection != Protection::Encrypted {
        decompress(packed, plain)?;
    }
    Ok(protection)
}

/// Compares what an object holds with its name. `plain` is room to work in, and whatever it holds afterwards may be forgotten.
/// The manifest's name says nothing, so it needs only to unpack.
pub(crate) fn compare(key: &ObjectKey, data: &[u8], plain: &mut Vec<u8>) -> Result<(), BadContent> {
    match unpack(data, plain)? {
        Protection::None => {}
        Protection::Authenticated | Protection::Encrypted => return Err(BadContent::OtherKind),
    }
    let named = *key == ObjectKey::MANIFEST || Sha256::digest(&*plain)[..] == key.0;
    named.then_some(()).ok_or(BadContent::Name)
}

fn decompress(packed: &[u8], plain: &mut Vec<u8>) -> Result<(), BadContent> {
    let mut packed = packed;
    // "obfuscate" wraps one of the others: size (big endian), compressed data, padding.
    if let Some([a, b, c, d, rest @ ..]) = packed.strip_prefix(&[4, 0]) {
        let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        packed = rest.get(..size).ok_or(BadContent::Unpack)?;
    }
    match packed {
        [0, 0, raw @ ..] => {
            if raw.len() > MAX_PLAIN {
                return Err(BadContent::TooLarge);
            }
            plain.extend_from_slice(raw);
            Ok(())
        }
        [1, 0, block @ ..] => lz4(block, plain),
        [2, 0, stream @ ..] => drain(XzReader::new_mem_limit(stream, false, XZ_MEMORY_KIB), plain),
        [3, 0, frame @ ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(frame).map_err(|_| BadContent::Unpack)?;
            drain(decoder, plain)
        }
        // zlib keeps its own header.
        [method, flags, ..] if method & 0x0f == 8 && (u32::from(*method) * 256 + u32::from(*flags)) % 31 == 0 => {
            drain(flate2::read::ZlibDecoder::new(packed), plain)
        }
        _ => Err(BadContent::Compression("unknown")),
    }
}

/// A bare block, whose unpacked size isn't recorded.
fn lz4(block: &[u8], plain: &mut Vec<u8>) -> Result<(), BadContent> {
    let size = lz4_size(block).ok_or(BadContent::Unpack)?;
    if size > MAX_PLAIN {
        return Err(BadContent::TooLarge);
    }
    plain.resize(size, 0);
    match lz4_flex::block::decompress_into(block, plain) {
        Ok(length) if length == size => Ok(()),
        _ => Err(BadContent::Unpack),
    }
}

/// What a block unpacks to, in bytes, without unpacking it: the sum of its runs (lz4_Block_format.md of LZ4). `None`: it
/// ends where it may not.
fn lz4_size(block: &[u8]) -> Option<usize> {
    let mut rest = block.iter();
    // A length of 15 goes on in bytes, as long as those are 255.
    let long = |rest: &mut std::slice::Iter<'_, u8>, short: u8| -> Option<usize> {
        let mut length = usize::from(short);
        let mut goes_on = short == 15;
        while goes_on {
            let more = *rest.next()?;
            length += usize::from(more);
            goes_on = more == 255;
        }
        Some(length)
    };
    let mut size = 0_usize;
    loop {
        let token = *rest.next()?;
        let literals = long(&mut rest, token >> 4)?;
        size = size.checked_add(literals)?;
        rest = rest.as_slice().get(literals..)?.iter();
        // Only the last run is literals alone.
        if rest.as_slice().is_empty() {
            return Some(size);
        }
        rest = rest.as_slice().get(2..)?.iter();
        size = size.checked_add(long(&mut rest, token & 15)? + 4)?;
    }
}

fn drain(input: impl Read, plain: &mut Vec<u8>) -> Result<(), BadContent> {
    input
        .take(MAX_PLAIN as u64 + 1)
        .read_to_end(plain)
        .map_err(|_| BadContent::Unpack)?;
    if plain.len() > MAX_PLAIN {
        return Err(BadContent::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(data: &[u8]) -> Result<(Protection, Vec<u8>), BadContent> {
        let mut out = Vec::new();
        unpack(data, &mut out).map(|protection| (protection, out))
    }

    #[test]
    fn what_needs_no_key_is_read() {
        assert_eq!(plain(&[2, 0, 0, b'a', b'b']), Ok((Protection::None, b"ab".to_vec())));
        assert_eq!(plain(&[7, 0, 0]), Ok((Protection::Authenticated, Vec::new())));
        // LZ4: one literal run of three bytes.
        assert_eq!(
            plain(&[2, 1, 0, 0x30, b'a', b'b', b'c']),
            Ok((Protection::None, b"abc".to_vec()))
        );
        // The same, then a match of nine bytes with the distance 3, and the last literal.
        assert_eq!(
            plain(&[2, 1, 0, 0x35, b'a', b'b', b'c', 3, 0, 0x10, b'd']),
            Ok((Protection::None, b"abcabcabcabcd".to_vec()))
        );
        // Obfuscated: three bytes of content, then padding.
        assert_eq!(
            plain(&[2, 4, 0, 0, 0, 0, 3, 0, 0, b'x', 0, 0, 0]),
            Ok((Protection::None, b"x".to_vec()))
        );
    }

    #[test]
    fn what_needs_a_key_is_left_alone() {
        for first in [0, 1, 3, 4, 5] {
            assert_eq!(plain(&[first, 9, 9, 9]), Ok((Protection::Encrypted, Vec::new())));
        }
        assert_eq!(plain(&[0x20]), Err(BadContent::KeyType(0x20)));
        assert_eq!(plain(&[]), Err(BadContent::Empty));
    }

    #[test]
    fn a_bomb_is_refused() {
        use std::io::Write;
        let mut packed = flate2::write::ZlibEncoder::new(vec![2], flate2::Compression::best());
        for _ in 0..61 {
            packed.write_all(&[0; 1024 * 1024]).unwrap();
        }
        assert_eq!(plain(&packed.finish().unwrap()), Err(BadContent::TooLarge));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn lz4_of_any_size_is_measured_before_it_is_unpacked(bytes in proptest::collection::vec(0..3_u8, 0..5000), more in any::<u16>()) {
            let mut bytes = bytes;
            bytes.resize(bytes.len() + usize::from(more), 7);
            let block = lz4_flex::block::compress(&bytes);
            prop_assert_eq!(lz4_size(&block), Some(bytes.len()));
            prop_assert_eq!(plain(&[&[2, 1, 0], block.as_slice()].concat()), Ok((Protection::None, bytes)));
        }

        #[test]
        fn noise_never_panics(method in prop_oneof![Just([1_u8, 0]), Just([2, 0]), Just([3, 0]), Just([4, 0]), Just([0x78, 0x9c]), any::<[u8; 2]>()],
                              bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = plain(&[&[2], method.as_slice(), &bytes].concat());
            // The start of an xz stream without a check, and of its first block.
            let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0, 0xff, 0x12, 0xd9, 0x41];
            let _ = plain(&[&[2, 2, 0], xz.as_slice(), &bytes].concat());
            // A zstd frame's magic, to get further in.
            let _ = plain(&[&[2, 3, 0, 0x28, 0xb5, 0x2f, 0xfd], bytes.as_slice()].concat());
        }
    }
}
