//! SSH public keys, parsed by structure: type, base64, inner type. Never by pattern.
//!
//! Format: one line of `authorized_keys` without options (sshd(8), AUTHORIZED_KEYS FILE FORMAT); the blob begins with
//! the type again as an SSH string (RFC 4253 section 6.6).

use crate::text::Text;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Smallest RSA modulus accepted, in bits.
pub const RSA_BITS_MIN: usize = 3072;

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
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeyError::ControlCharacter);
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let (Some(kind), Some(base64)) = (words.next(), words.next()) else {
            return Err(SshKeyError::Type);
        };
        let kind = KINDS
            .into_iter()
            .find(|known| *known == kind)
            .ok_or(SshKeyError::Type)?;
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
        let right = match kind {
            "ssh-ed25519" => fields.len() == 1 && fields[0].len() == 32,
            "ssh-rsa" | "sk-ssh-ed25519@openssh.com" => fields.len() == 2,
            "sk-ecdsa-sha2-nistp256@openssh.com" => fields.len() == 3,
            _ => fields.len() == 2 && kind.as_bytes().ends_with(fields[0]),
        };
        if !right {
            return Err(SshKeyError::Blob);
        }
        if kind == "ssh-rsa" {
            let bits = bit_length(fields[1]);
            if bits < RSA_BITS_MIN {
                return Err(SshKeyError::ShortRsa(bits));
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
            ("command=\"sh\" ssh-ed25519 AAAA", Type),
            ("ssh-dss AAAAB3NzaC1kc3M=", Type),
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

    #[test]
    fn short_rsa_is_refused_with_its_size() {
        let mut blob = std::vec::Vec::new();
        for field in [&b"ssh-rsa"[..], &[1, 0, 1], &[&[0u8, 0x80][..], &[1; 127]].concat()] {
            blob.extend((field.len() as u32).to_be_bytes());
            blob.extend(field);
        }
        let line = format!("ssh-rsa {}", encode(&blob));
        assert_eq!(SshPublicKey::parse(&line), Err(SshKeyError::ShortRsa(1024)));
    }

    fn encode(bytes: &[u8]) -> std::string::String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = std::string::String::new();
        for chunk in bytes.chunks(3) {
            let b = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
            let n = u32::from_be_bytes([0, b[0], b[1], b[2]]);
            for i in 0..4 {
                if i <= chunk.len() {
                    out.push(ALPHABET[(n >> (18 - 6 * i)) as usize & 63] as char);
                } else {
                    out.push('=');
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn base64_round_trips(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            prop_assert_eq!(decode_base64(&encode(&bytes)), Some(bytes));
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
