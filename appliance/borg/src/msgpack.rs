//! The subset of MessagePack that Borg 1.x writes, read as a stream in bounded memory.
//!
//! A value is a token followed by its parts, so that a list of a million chunks is never held as a
//! tree. Nothing recurses: input by a hostile client can't exhaust the stack.

use std::io::{self, Read};

/// The head of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// So many pairs follow.
    Map(u32),
    /// So many values follow.
    Array(u32),
    /// So many bytes follow; Borg 1.x writes text and bytes alike.
    Bytes(u32),
    /// A number that is not negative.
    Unsigned(u64),
    /// Anything else without parts: nil, booleans, negative numbers, floats.
    Other,
}

/// What is wrong with the input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it ends too early")]
    Ends,
    #[error("it has an unknown type {0:#04x}")]
    Type(u8),
    #[error("{0} expected")]
    Expected(&'static str),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for Malformed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Ends,
            _ => Self::Io(error),
        }
    }
}

/// Reads values one after another.
pub(crate) struct Unpacker<R> {
    input: R,
}

impl<R: Read> Unpacker<R> {
    pub fn new(input: R) -> Self {
        Self { input }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from(self.array::<1>()?[0]))
    }

    fn u16(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from(u16::from_be_bytes(self.array()?)))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The next head; `None` where the input ends between values.
    pub fn next(&mut self) -> Result<Option<Token>, Malformed> {
        let mut first = [0];
        loop {
            match self.input.read(&mut first) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.after(first[0]).map(Some),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn after(&mut self, first: u8) -> Result<Token, Malformed> {
        Ok(match first {
            0x00..=0x7f => Token::Unsigned(first.into()),
            0x80..=0x8f => Token::Map(u32::from(first & 0x0f)),
            0x90..=0x9f => Token::Array(u32::from(first & 0x0f)),
            0xa0..=0xbf => Token::Bytes(u32::from(first & 0x1f)),
            0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Token::Other,
            0xc4 | 0xd9 => Token::Bytes(self.u8()?),
            0xc5 | 0xda => Token::Bytes(self.u16()?),
            0xc6 | 0xdb => Token::Bytes(self.u32()?),
            0xcc => Token::Unsigned(self.u8()?.into()),
            0xcd => Token::Unsigned(self.u16()?.into()),
            0xce => Token::Unsigned(self.u32()?.into()),
            0xcf => Token::Unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => self.array::<1>().map(|_| Token::Other)?,
            0xd1 => self.array::<2>().map(|_| Token::Other)?,
            0xca | 0xd2 => self.array::<4>().map(|_| Token::Other)?,
            0xcb | 0xd3 => self.array::<8>().map(|_| Token::Other)?,
            0xdc => Token::Array(self.u16()?),
            0xdd => Token::Array(self.u32()?),
            0xde => Token::Map(self.u16()?),
            0xdf => Token::Map(self.u32()?),
            // 0xc1 starts a manifest "from the future"; extension types are not used.
            _ => return Err(Malformed::Type(first)),
        })
    }

    /// The next head, where one has to be.
    pub fn token(&mut self) -> Result<Token, Malformed> {
        self.next()?.ok_or(Malformed::Ends)
    }

    /// A map's head: the number of pairs.
    pub fn map(&mut self) -> Result<u32, Malformed> {
        match self.token()? {
            Token::Map(pairs) => Ok(pairs),
            _ => Err(Malformed::Expected("a map")),
        }
    }

    /// A list's head: the number of values.
    pub fn list(&mut self) -> Result<u32, Malformed> {
        match self.token()? {
            Token::Array(values) => Ok(values),
            _ => Err(Malformed::Expected("a list")),
        }
    }

    /// Bytes, of which the first `limit` are kept in `into`.
    pub fn bytes(&mut self, limit: usize, into: &mut Vec<u8>) -> Result<(), Malformed> {
        into.clear();
        let Token::Bytes(length) = self.token()? else {
            return Err(Malformed::Expected("text"));
        };
        let keep = (length as usize).min(limit);
        into.resize(keep, 0);
        self.input.read_exact(into)?;
        self.pass(u64::from(length) - keep as u64)
    }

    /// Exactly 32 bytes: an object's key.
    pub fn key(&mut self) -> Result<[u8; 32], Malformed> {
        match self.token()? {
            Token::Bytes(32) => self.array(),
            _ => Err(Malformed::Expected("a key of 32 bytes")),
        }
    }

    /// Leaves out the next value with all its parts.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let mut left = 1_u64;
        while left > 0 {
            left -= 1;
            match self.token()? {
                Token::Map(pairs) => left = left.saturating_add(2 * u64::from(pairs)),
                Token::Array(values) => left = left.saturating_add(values.into()),
                Token::Bytes(length) => self.pass(length.into())?,
                Token::Unsigned(_) | Token::Other => {}
            }
        }
        Ok(())
    }

    fn pass(&mut self, length: u64) -> Result<(), Malformed> {
        if length > 0 && io::copy(&mut self.input.by_ref().take(length), &mut io::sink())? != length {
            return Err(Malformed::Ends);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_values_are_passed_over() {
        // {"a": [1, -1, nil, 2.0], "b": {"c": "dd"}}, 7
        let bytes = [
            0x82, 0xa1, b'a', 0x94, 1, 0xff, 0xc0, 0xcb, 0x40, 0, 0, 0, 0, 0, 0, 0, 0xa1, b'b', 0x81, 0xa1, b'c', 0xda,
            0, 2, b'd', b'd', 7,
        ];
        let mut unpacker = Unpacker::new(bytes.as_slice());
        unpacker.skip().unwrap();
        assert_eq!(unpacker.token().unwrap(), Token::Unsigned(7));
        assert_eq!(unpacker.next().unwrap(), None);
        for cut in 1..bytes.len() - 1 {
            assert!(matches!(Unpacker::new(&bytes[..cut]).skip(), Err(Malformed::Ends)));
        }
    }

    #[test]
    fn a_promise_of_much_costs_nothing() {
        let mut out = Vec::new();
        assert!(Unpacker::new([0xdf, 0xff, 0xff, 0xff, 0xff].as_slice()).skip().is_err());
        assert!(
            Unpacker::new([0xdb, 0xff, 0xff, 0xff, 0xff, 1].as_slice())
                .bytes(64, &mut out)
                .is_err()
        );
        assert!(out.capacity() < 4096);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Unpacker::new(bytes.as_slice()).skip();
        }
    }
}
