//! Pairing: for a short time, whoever knows a one-time code can enrol the key that it holds. Pure.
//!
//! The code has 50 bits and is typed or pasted once. Only its hash is kept. Five wrong tries close the pairing, so that
//! guessing has no chance, and a person who mistypes has several.

use crate::name::ClientName;
use crate::registry::Settings;
use alloc::string::String;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Wrong tries after which a pairing is closed.
pub const TRIES: u8 = 5;
/// Longest time that a pairing may be open, in minutes.
pub const MINUTES_MAX: u16 = 60;
/// Characters of a code, without what separates them.
const CODE_LENGTH: usize = 10;
/// Longest text that is looked at as a code, in bytes.
const TYPED_MAX: usize = 64;
/// Digits and letters that are not mistaken for one another (Crockford's base 32), 5 bits each.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// An open pairing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairing {
    /// The client that gets the key.
    pub client: ClientName,
    /// What else is said of a new client.
    pub settings: Settings,
    /// Until when it is open, in seconds since the start of the machine.
    pub until: u64,
    /// Wrong tries that are left.
    pub tries: u8,
    /// SHA-256 of the code.
    digest: [u8; 32],
}

/// What a try comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the code.
    Right,
    /// It is not; so many tries are left.
    Wrong(u8),
    /// The time is over.
    Expired,
}

impl Pairing {
    /// Opens a pairing. `random` makes the code; `now` is in seconds since the start of the machine. Returns the code too,
    /// which is to be told once and kept nowhere.
    pub fn open(
        client: ClientName,
        settings: Settings,
        random: [u8; CODE_LENGTH],
        now: u64,
        minutes: u16,
    ) -> (Self, String) {
        let mut code = String::with_capacity(CODE_LENGTH + 1);
        for (place, byte) in random.into_iter().enumerate() {
            if place == CODE_LENGTH / 2 {
                code.push('-');
            }
            code.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        }
        let pairing = Self {
            client,
            settings,
            until: now.saturating_add(u64::from(minutes) * 60),
            tries: TRIES,
            digest: digest(&code),
        };
        (pairing, code)
    }

    /// Whether it is open.
    pub fn is_open(&self, now: u64) -> bool {
        self.tries > 0 && now < self.until
    }

    /// Judges a try, and counts it when it is wrong. It is to be remembered before anybody is told.
    pub fn judge(&mut self, typed: &str, now: u64) -> Verdict {
        if !self.is_open(now) {
            return Verdict::Expired;
        }
        // Of hashes, and without a branch: how long it takes tells nothing.
        let unlike = digest(typed)
            .iter()
            .zip(&self.digest)
            .fold(0, |unlike, (a, b)| unlike | (a ^ b));
        if unlike == 0 {
            return Verdict::Right;
        }
        self.tries -= 1;
        Verdict::Wrong(self.tries)
    }
}

/// The hash of a code as it is meant: case, separators and look-alikes don't count.
fn digest(typed: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    let typed = if typed.len() > TYPED_MAX { "" } else { typed };
    for character in typed.chars().filter(|c| !matches!(c, '-' | ' ')) {
        let meant = match character.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        hash.update(meant.encode_utf8(&mut [0; 4]).as_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(random: [u8; CODE_LENGTH]) -> (Pairing, String) {
        Pairing::open(ClientName::new("asus").unwrap(), Settings::default(), random, 1000, 10)
    }

    #[test]
    fn a_code_is_taken_as_people_type_it() {
        let (pairing, code) = open([0, 1, 2, 3, 4, 31, 30, 29, 28, 255]);
        assert_eq!(code, "01234-zyxwz");
        for typed in [
            "01234-zyxwz",
            "01234zyxwz",
            " O1234 ZYXWZ",
            "oi234-zyxwz",
            "0L234-zyxwz",
        ] {
            assert_eq!(pairing.clone().judge(typed, 1000), Verdict::Right, "{typed}");
        }
        for typed in ["", "01234-zyxw", "01234-zyxwzz", "11234-zyxwz", "01234-zyxw\u{17f}"] {
            assert_eq!(pairing.clone().judge(typed, 1000), Verdict::Wrong(TRIES - 1), "{typed}");
        }
    }

    #[test]
    fn it_closes_by_time_and_by_wrong_tries() {
        let (mut pairing, code) = open([7; CODE_LENGTH]);
        assert_eq!(pairing.clone().judge(&code, 1000 + 599), Verdict::Right);
        assert_eq!(pairing.clone().judge(&code, 1000 + 600), Verdict::Expired);
        for left in (0..TRIES).rev() {
            assert_eq!(pairing.judge("wrong", 1000), Verdict::Wrong(left));
        }
        assert!(!pairing.is_open(1000));
        assert_eq!(pairing.judge(&code, 1000), Verdict::Expired);
    }

    #[test]
    fn what_is_kept_does_not_tell_the_code() {
        let (pairing, code) = open([9; CODE_LENGTH]);
        let kept = serde_json::to_string(&pairing).unwrap();
        assert!(
            !kept.contains(&code) && !kept.contains(&code.replace('-', "")),
            "{kept}"
        );
        assert_eq!(serde_json::from_str::<Pairing>(&kept).unwrap(), pairing);
    }

    proptest! {
        #[test]
        fn no_other_text_is_the_code(typed in "[0-9a-z-]{0,12}", random in any::<[u8; CODE_LENGTH]>()) {
            let (mut pairing, code) = open(random);
            let meant = typed.replace('-', "").replace('o', "0").replace(['i', 'l'], "1");
            let right = meant == code.replace('-', "");
            prop_assert_eq!(pairing.judge(&typed, 1000) == Verdict::Right, right);
        }
    }
}
