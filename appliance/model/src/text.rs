//! Bounded text: strings that never allocate and never fail to be made.

use core::fmt::{self, Write};
use serde::{Deserialize, Serialize};

/// Text of at most `N` bytes of UTF-8. Longer text is cut at a character boundary and ends in `…`.
#[derive(Clone, Default)]
pub struct Text<const N: usize> {
    kept: heapless::String<N>,
    /// Set once something did not fit: whatever is written later is dropped too.
    cut: bool,
}

const ELLIPSIS: &str = "…";

impl<const N: usize> Text<N> {
    /// Empty text.
    pub const fn new() -> Self {
        Self {
            kept: heapless::String::new(),
            cut: false,
        }
    }

    /// Formats into bounded text: `Text::format(format_args!("{x} of {y}"))`.
    pub fn format(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self::new();
        // The writer below never fails; a failing `Display` just ends the text early.
        let _ = text.write_fmt(arguments);
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.kept
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if !self.cut && self.kept.push_str(s).is_err() {
            self.cut = true;
            for c in s.chars() {
                if self.kept.push(c).is_err() {
                    break;
                }
            }
            while self.kept.len() + ELLIPSIS.len() > N && self.kept.pop().is_some() {}
            let _ = self.kept.push_str(ELLIPSIS);
        }
        Ok(())
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<const N: usize> Eq for Text<N> {}

impl<const N: usize> PartialOrd for Text<N> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize> Ord for Text<N> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<const N: usize> core::hash::Hash for Text<N> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl<const N: usize> Serialize for Text<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(s: &str) -> Self {
        let mut text = Self::new();
        let _ = text.write_str(s);
        text
    }
}

impl<const N: usize> core::ops::Deref for Text<N> {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<const N: usize> serde::de::Visitor<'_> for Visitor<N> {
            type Value = Text<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Text::from(v))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Adds to a bounded list; what does not fit is dropped. Returns whether it fitted.
pub fn push_bounded<T, const N: usize>(list: &mut heapless::Vec<T, N>, item: T) -> bool {
    list.push(item).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_text_is_kept() {
        assert_eq!(Text::<8>::from("abc").as_str(), "abc");
        assert_eq!(Text::<3>::from("abc").as_str(), "abc");
    }

    #[test]
    fn long_text_is_cut_with_an_ellipsis() {
        assert_eq!(Text::<8>::from("abcdefghi").as_str(), "abcde…");
        assert_eq!(
            Text::<8>::format(format_args!("{}{}", "abcdefgh", "i")).as_str(),
            "abcde…"
        );
    }

    proptest! {
        #[test]
        fn never_longer_than_its_bound(parts in proptest::collection::vec(".{0,20}", 0..6)) {
            let mut text = Text::<16>::new();
            let whole: std::string::String = parts.concat();
            for part in &parts {
                let _ = text.write_str(part);
            }
            prop_assert!(text.len() <= 16);
            if whole.len() <= 16 {
                prop_assert_eq!(text.as_str(), whole.as_str());
            } else {
                prop_assert!(text.ends_with(ELLIPSIS));
            }
        }
    }
}
