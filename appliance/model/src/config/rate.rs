//! Rates of transfer as providers write them: `20 Mbit/s`.

use super::size::amount;
use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNITS: [(&str, u64); 3] = [("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];

/// A number of bits per second, with the words that it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    bits: u64,
    written: String,
}

impl Rate {
    /// Checks and takes the text: a number, with up to three decimals, and a unit. `None` when it is anything else.
    pub fn new(text: &str) -> Option<Self> {
        Some(Self {
            bits: amount(text, &UNITS)?,
            written: text.into(),
        })
    }

    /// The number of bytes per second.
    pub fn bytes(&self) -> u64 {
        self.bits / 8
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{}` is not a rate such as `20 Mbit/s` (kbit/s, Mbit/s, Gbit/s)",
                text.escape_debug()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        for (text, bytes) in [
            ("20 Mbit/s", 2_500_000),
            ("2.5Mbit/s", 312_500),
            ("800 kbit/s", 100_000),
            ("1 Gbit/s", 125_000_000),
        ] {
            assert_eq!(Rate::new(text).unwrap().bytes(), bytes, "{text}");
        }
        for bad in [
            "",
            "20",
            "20 Mbit",
            "20 MB/s",
            "20 mbit/s",
            "-1 Mbit/s",
            "1.2345 Mbit/s",
        ] {
            assert_eq!(Rate::new(bad), None, "{bad}");
        }
    }
}
