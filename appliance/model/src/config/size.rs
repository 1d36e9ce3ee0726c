//! Sizes as people write them: `500 GB`, `1.5 TB`, `200 GiB`.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNITS: [(&str, u64); 8] = [
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// Reads a number, of up to six digits and three decimals, and one of these units.
pub(super) fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end_matches(' '), *factor)))?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str, most: usize| {
        let right = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        right.then(|| text.parse::<u64>().ok()).flatten()
    };
    let thousandths = digits(decimals, 3)? * 10_u64.pow(3 - decimals.len() as u32);
    digits(whole, 6)?
        .checked_mul(factor)?
        .checked_add(factor / 1000 * thousandths)
}

/// A number of bytes, with the words that it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    bytes: u64,
    written: String,
}

impl Size {
    /// Checks and takes the text: a number, with up to three decimals, and a unit. `None` when it is anything else.
    pub fn new(text: &str) -> Option<Self> {
        Some(Self {
            bytes: amount(text, &UNITS)?,
            written: text.into(),
        })
    }

    /// The number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{}` is not a size such as `500 GB` or `1.5 TB` (MB, GB, TB, PB, or MiB, GiB, TiB, PiB)",
                text.escape_debug()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("500 GB", 500_000_000_000),
            ("500GB", 500_000_000_000),
            ("1.5 TB", 1_500_000_000_000),
            ("0.25 TB", 250_000_000_000),
            ("10 MB", 10_000_000),
            ("1 GiB", 1 << 30),
            ("9 PB", 9_000_000_000_000_000),
        ] {
            assert_eq!(Size::new(text).unwrap().bytes(), bytes, "{text}");
        }
        for bad in [
            "",
            "500",
            "GB",
            " 5 GB",
            "5 gb",
            "5 G",
            "-5 GB",
            "5,5 GB",
            "5. GB",
            ".5 GB",
            "1.2345 GB",
            "5 GB ",
            "1e3 GB",
            "+5 GB",
            "1234567 GB",
            "999999 PiB",
            "5 GB/day",
        ] {
            assert_eq!(Size::new(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_whole_number_of_gigabytes_is_exact(number in 0u64..1_000_000) {
            prop_assert_eq!(Size::new(&format!("{number} GB")).unwrap().bytes(), number * 1_000_000_000);
        }

        #[test]
        fn nothing_makes_it_panic(text in "[0-9.]{0,12} ?[kKMGTP]?i?B?") {
            let _ = Size::new(&text);
        }
    }
}
