//! Names of clients and targets.

use crate::text::Text;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
pub const NAME_MAX: usize = 31;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 31 characters: lower-case letters, digits, `_` and `-`, and does not begin with `-` (for example `asus_home`)"
)]
pub struct NameError;

fn check(name: &str) -> Result<(), NameError> {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('-') || !name.bytes().all(allowed) {
        return Err(NameError);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(Text<NAME_MAX>);

        impl $type {
            /// Checks and takes a name. Errors: anything outside `[a-z0-9_][a-z0-9_-]{0,30}`.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check(name).map(|()| Self(name.into()))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl core::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = alloc::string::String::deserialize(deserializer)?;
                Self::new(&name).map_err(|error| {
                    serde::de::Error::custom(format_args!("`{}` is not a name: {error}", name.escape_debug()))
                })
            }
        }
    };
}

name!(
    /// Name of a client: `[a-z0-9_][a-z0-9_-]{0,30}`. Its repository is `/mnt/raid/<name>_repository`.
    ClientName
);
name!(
    /// Name of an off-site target, of the same form as a client's.
    TargetName
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_and_bad_names() {
        for good in ["a", "asus_home", "0", "_x", "a-b", "a234567890123456789012345678901"] {
            assert!(ClientName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "A",
            "a b",
            "a/b",
            "..",
            "../x",
            "a.b",
            "é",
            "a\n",
            "a2345678901234567890123456789012",
        ] {
            assert_eq!(ClientName::new(bad), Err(NameError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_one_harmless_path_component(name in ".{0,40}") {
            if let Ok(accepted) = ClientName::new(&name) {
                prop_assert_eq!(accepted.as_str(), &name);
                prop_assert!(!name.contains(['/', '.', '%', '\0', '\n', ' ', '"', '\'', '$', '\\']));
                prop_assert!(!name.starts_with('-'));
            }
        }
    }
}
