//! SSH public keys, parsed by structure: type, base64, inner type. Never by pattern.
//!
//! Format: one line of `authorized_keys` without options (sshd(8), AUTHORIZED_KEYS FILE FORMAT); the blob begins with
//! the type again as an SSH string (RFC 4253 section 6.6).

use crate::text::Text;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Smallest RSA modulus accepted, in bits.
pub const RSA_BITS_MIN: usize = 3072;
/// Largest RSA modulus that sshd reads, in bits (SSHBUF_MAX_BIGNUM).
const RSA_BITS_MAX: usize = 16384;

/// A public key of an accepted type: Ed25519, ECDSA, their security-key forms, or RSA of at least 3072 bits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct SshPublicKey {
    kind: &'static str,
    base64: String,
    comment: Text<64>,
}

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// Not a single line.
    #[error("an SSH key is one line; this has a line break or another control character in it")]
    ControlCharacter,
    /// The wrong half of the pair.
    #[error(
        "this is a private key, which belongs on its client and nowhere else; take the one line of the `.pub` file"
    )]
    Private,
    /// DSA.
    #[error("this is a DSA key, which is too weak to be accepted. Make a new one with `ssh-keygen -t ed25519`")]
    Dsa,
    /// A certificate, not a key.
    #[error("this is an SSH certificate; give the key itself, the one line of the `.pub` file without `-cert`")]
    Certificate,
    /// What stands before the type would be options of `authorized_keys`.
    #[error(
        "something stands before the key's type (`{0}`). Options are not taken: Strongroom sets its own, and `from` in [[client]] names addresses"
    )]
    Options(&'static str),
    /// The line does not begin with a key type that is accepted.
    #[error(
        "an SSH key begins with its type (`ssh-ed25519 AAAA… comment`), without options; accepted are ssh-ed25519, ecdsa-sha2-nistp256/384/521, their sk- forms, and ssh-rsa of at least 3072 bits"
    )]
    Type,
    /// The second word is not the base64 form of a key of that type.
    #[error("the key's base64 part is damaged or is of another type; copy the whole line of the `.pub` file again")]
    Blob,
    /// RSA with a short modulus.
    #[error("this RSA key has {0} bits; at least 3072 are needed. Make a new one with `ssh-keygen -t ed25519`")]
    ShortRsa(usize),
}

const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

impl SshPublicKey {
    /// Parses one line of a `.pub` file. Errors: [`SshKeyError`].
    pub fn parse(line: &str) -> Result<Self, SshKeyError> {
        let line = line.trim_matches([' ', '\t', '\r', '\n']);
        if line.starts_with("-----BEGIN") {
            return Err(SshKeyError::Private);
        }
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeyError::ControlCharacter);
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let kind = kind_of(words.next().unwrap_or_default(), words.clone())?;
        let base64 = words.next().ok_or(SshKeyError::Type)?;
        let blob = decode_base64(base64).ok_or(SshKeyError::Blob)?;
        let mut rest = blob.as_slice();
        if read_string(&mut rest) != Some(kind.as_bytes()) {
            return Err(SshKeyError::Blob);
        }
        // What follows is a series of SSH strings (for RSA: e, n), with nothing left over.
        let mut fields = Vec::new();
        while !rest.is_empty() {
            fields.push(read_string(&mut rest).ok_or(SshKeyError::Blob)?);
        }
        let right = match (kind, fields.as_slice()) {
            ("ssh-ed25519", [key]) => key.len() == 32,
            ("sk-ssh-ed25519@openssh.com", [key, application]) => key.len() == 32 && !application.is_empty(),
            ("sk-ecdsa-sha2-nistp256@openssh.com", [curve, point, application]) => {
                is_point(curve, point) && *curve == b"nistp256" && !application.is_empty()
            }
            ("ssh-rsa", [exponent, modulus]) => is_positive(exponent) && is_positive(modulus),
            (_, [curve, point]) => is_point(curve, point) && kind.as_bytes().ends_with(curve),
            _ => false,
        };
        if !right {
            return Err(SshKeyError::Blob);
        }
        if let ("ssh-rsa", [exponent, modulus]) = (kind, fields.as_slice()) {
            let bits = bit_length(modulus);
            if bits < RSA_BITS_MIN {
                return Err(SshKeyError::ShortRsa(bits));
            }
            let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
            if bits > RSA_BITS_MAX || !is_odd(modulus) || !is_odd(exponent) || bit_length(exponent) < 2 {
                return Err(SshKeyError::Blob);
            }
        }
        let mut comment = Text::new();
        for (i, word) in words.enumerate() {
            use fmt::Write;
            let _ = write!(comment, "{}{word}", if i == 0 { "" } else { " " });
        }
        Ok(Self {
            kind,
            base64: base64.into(),
            comment,
        })
    }

    /// Type and base64, the form for `authorized_keys`. The comment is left out: it is the owner's text.
    pub fn authorized(&self) -> impl fmt::Display + '_ {
        struct Line<'a>(&'a SshPublicKey);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.0.kind, self.0.base64)
            }
        }
        Line(self)
    }

    /// The owner's text behind the key; may be empty.
    pub fn comment(&self) -> &str {
        self.comment.as_str()
    }

    /// How `ssh-keygen -l` names it: `SHA256:` and the base64 form, without padding, of the hash of the key.
    pub fn fingerprint(&self) -> String {
        // Decoded before, when it was parsed.
        let blob = decode_base64(&self.base64).unwrap_or_default();
        alloc::format!("SHA256:{}", encode_base64(&Sha256::digest(blob)))
    }

    /// Whether it is the same key, whatever the comments.
    pub fn same_key(&self, other: &Self) -> bool {
        self.kind == other.kind && self.base64 == other.base64
    }
}

impl fmt::Debug for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshPublicKey({} … {})", self.kind, self.comment)
    }
}

impl From<SshPublicKey> for String {
    fn from(key: SshPublicKey) -> String {
        alloc::format!("{} {}", key.authorized(), key.comment)
    }
}

impl<'de> Deserialize<'de> for SshPublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = String::deserialize(deserializer)?;
        Self::parse(&line).map_err(serde::de::Error::custom)
    }
}

/// The accepted type that a line begins with, or why there is none.
fn kind_of<'a>(first: &str, mut others: impl Iterator<Item = &'a str>) -> Result<&'static str, SshKeyError> {
    let known = |word: &str| KINDS.into_iter().find(|kind| *kind == word);
    match first {
        "ssh-dss" => Err(SshKeyError::Dsa),
        _ if first.ends_with("-cert-v01@openssh.com") => Err(SshKeyError::Certificate),
        _ => known(first).ok_or_else(|| others.find_map(known).map_or(SshKeyError::Type, SshKeyError::Options)),
    }
}

/// A point of that curve, uncompressed (SEC 1 section 2.3.3).
fn is_point(curve: &[u8], point: &[u8]) -> bool {
    let coordinate = match curve {
        b"nistp256" => 32,
        b"nistp384" => 48,
        b"nistp521" => 66,
        _ => return false,
    };
    point.len() == 1 + 2 * coordinate && point[0] == 4
}

/// A positive number in its shortest form (RFC 4251 section 5, mpint). Of other forms sshd takes some: the same key could
/// then be there twice without looking the same.
fn is_positive(mpint: &[u8]) -> bool {
    match mpint {
        [] => false,
        [0] => false,
        [0, second, ..] => second & 0x80 != 0,
        [first, ..] => first & 0x80 == 0,
    }
}

fn bit_length(mpint: &[u8]) -> usize {
    let start = mpint.iter().position(|b| *b != 0).unwrap_or(mpint.len());
    match mpint.get(start) {
        Some(first) => (mpint.len() - start) * 8 - first.leading_zeros() as usize,
        None => 0,
    }
}

fn read_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let (string, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

/// Standard base64 without padding (RFC 4648 section 4).
fn encode_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// Standard base64 with padding (RFC 4648 section 4), strict.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(4) {
        return None;
    }
    let padding = bytes.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in &bytes[..bytes.len() - padding] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    (buffer == 0).then_some(out)
}

/// A key's line of that type, from its blob.
#[cfg(test)]
pub(crate) fn line_of(kind: &str, blob: &[u8]) -> String {
    let text = encode_base64(blob);
    alloc::format!("{kind} {text}{}", &"=="[..(4 - text.len() % 4) % 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO root@asus";

    #[test]
    fn an_ed25519_key() {
        let key = SshPublicKey::parse(ED25519).unwrap();
        assert_eq!(
            format!("{}", key.authorized()),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO"
        );
        assert_eq!(String::from(key), ED25519);
    }

    #[test]
    fn hostile_lines_are_refused() {
        use SshKeyError::*;
        for (line, error) in [
            ("", Type),
            ("ssh-ed25519", Type),
            ("command=\"sh\" ssh-ed25519 AAAA", Options("ssh-ed25519")),
            ("restrict,pty ssh-rsa AAAA", Options("ssh-rsa")),
            ("ssh-dss AAAAB3NzaC1kc3M=", Dsa),
            ("ssh-ed25519-cert-v01@openssh.com AAAA", Certificate),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=", Private),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL", Blob),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3a!",
                Blob,
            ),
            (
                "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO",
                Blob,
            ),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\nssh-ed25519 AAAA",
                ControlCharacter,
            ),
        ] {
            assert_eq!(SshPublicKey::parse(line), Err(error), "{line}");
        }
    }

    fn line(fields: &[&[u8]]) -> String {
        let mut blob = std::vec::Vec::new();
        for field in fields {
            blob.extend((field.len() as u32).to_be_bytes());
            blob.extend(*field);
        }
        line_of(std::str::from_utf8(fields[0]).unwrap(), &blob)
    }

    #[test]
    fn short_rsa_is_refused_with_its_size() {
        let rsa = |exponent: &[u8], start: &[u8], rest: usize| {
            SshPublicKey::parse(&line(&[b"ssh-rsa", exponent, &[start, &std::vec![1; rest]].concat()]))
        };
        let usual = [1, 0, 1];
        assert_eq!(rsa(&usual, &[0, 0x80], 127), Err(SshKeyError::ShortRsa(1024)));
        assert_eq!(rsa(&usual, &[0x7f], 383), Err(SshKeyError::ShortRsa(3071)));
        assert!(rsa(&usual, &[0, 0x80], 383).is_ok());
        // The same number in a longer form, a negative one, and exponents that make no key.
        assert_eq!(rsa(&usual, &[0, 0, 0x80], 383), Err(SshKeyError::Blob));
        assert_eq!(rsa(&[0, 1, 0, 1], &[0, 0x80], 383), Err(SshKeyError::Blob));
        assert_eq!(rsa(&usual, &[0x80], 383), Err(SshKeyError::Blob));
        assert_eq!(rsa(&[1], &[0, 0x80], 383), Err(SshKeyError::Blob));
        assert_eq!(rsa(&[4], &[0, 0x80], 383), Err(SshKeyError::Blob));
    }

    #[test]
    fn points_are_of_the_curve_that_the_type_names() {
        let point = |length: usize| [&[4][..], &std::vec![7; length]].concat();
        let kind: &[u8] = b"ecdsa-sha2-nistp256";
        assert!(SshPublicKey::parse(&line(&[kind, b"nistp256", &point(64)])).is_ok());
        for fields in [
            [kind, b"nistp256", &point(63)],
            [kind, b"nistp384", &point(96)],
            [kind, b"256", &point(64)],
            [kind, b"nistp256", &std::vec![2; 65]],
        ] {
            assert_eq!(
                SshPublicKey::parse(&line(&fields)),
                Err(SshKeyError::Blob),
                "{fields:?}"
            );
        }
        let sk: &[u8] = b"sk-ssh-ed25519@openssh.com";
        assert!(SshPublicKey::parse(&line(&[sk, &[1; 32], b"ssh:"])).is_ok());
        assert_eq!(SshPublicKey::parse(&line(&[sk, &[1; 32], b""])), Err(SshKeyError::Blob));
    }

    #[test]
    fn the_fingerprint_is_that_of_ssh_keygen() {
        let key = SshPublicKey::parse(ED25519).unwrap();
        assert_eq!(key.fingerprint(), "SHA256:Pc1/JGh4iN3i6tWuNUUT6mkd/yiapqWo1vok87uKLl0");
        assert_eq!(key.comment(), "root@asus");
    }

    proptest! {
        #[test]
        fn base64_round_trips(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            let line = line_of("", &bytes);
            prop_assert_eq!(decode_base64(line.trim_start()), Some(bytes));
        }

        #[test]
        fn an_accepted_key_is_one_line_of_two_words(line in "(ssh-ed25519|ssh-rsa) .{0,80}") {
            if let Ok(key) = SshPublicKey::parse(&line) {
                let written = format!("{}", key.authorized());
                prop_assert!(!written.contains(['\n', '"', '\r']));
                prop_assert_eq!(written.split(' ').count(), 2);
            }
        }
    }
}
