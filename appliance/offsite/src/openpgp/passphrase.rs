//! Passphrases and nonces: made by chance, typed by people.

use rand::Rng;
use zeroize::Zeroizing;

/// Lower-case letters and digits of which none is taken for another: no `i`, `l`, `o`, `0` or `1`.
const ALPHABET: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// Groups of a passphrase.
pub const GROUPS: usize = 6;
/// Characters of a group.
pub const GROUP: usize = 4;

/// A new passphrase, such as `k7wq-3mzt-…`: six groups of four characters, 118 bits of chance. The hyphens are part of it.
#[must_use]
pub fn passphrase() -> Zeroizing<String> {
    let mut random = rand::thread_rng();
    // Reserved at once: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP + 1)));
    for place in 0..GROUPS * GROUP {
        if place > 0 && place % GROUP == 0 {
            text.push('-');
        }
        // In bounds by the range.
        let symbol = ALPHABET.get(random.gen_range(0..ALPHABET.len())).copied();
        text.push(char::from(symbol.unwrap_or_default()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_has_its_form_and_uses_the_whole_alphabet() {
        let mut seen = BTreeSet::new();
        let mut all = BTreeSet::new();
        for _ in 0..200 {
            let text = passphrase();
            let groups: Vec<&str> = text.split('-').collect();
            assert_eq!(groups.len(), GROUPS, "{}", *text);
            assert!(groups.iter().all(|group| group.len() == GROUP));
            seen.extend(text.bytes().filter(|byte| *byte != b'-'));
            all.insert(text.to_string());
        }
        assert_eq!(seen, ALPHABET.iter().copied().collect());
        assert_eq!(all.len(), 200);
    }
}
