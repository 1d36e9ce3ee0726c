//! Challenges that were given out and wait for an answer. In memory alone: a restart only has the owner asked again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strongroom_offsite::openpgp::challenge::is_answer;
use zeroize::Zeroizing;

/// For how long an answer is taken: the key may be in a bank's safe.
const LASTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// The newest nonce for each fingerprint, and when it was given out.
#[derive(Default)]
pub struct Challenges(Mutex<BTreeMap<String, (Zeroizing<String>, Instant)>>);

impl Challenges {
    /// Remembers a nonce that was given out to the holder of this fingerprint's key.
    pub fn given(&self, fingerprint: String, nonce: Zeroizing<String>, now: Instant) {
        let mut open = self.lock();
        open.retain(|_, (_, at)| now.saturating_duration_since(*at) < LASTS);
        open.insert(fingerprint, (nonce, now));
    }

    /// The fingerprint whose nonce this is. Forgets it once `forget` is called with it.
    pub fn of(&self, typed: &str, now: Instant) -> Option<String> {
        let open = self.lock();
        let found = open
            .iter()
            .find(|(_, (nonce, at))| now.saturating_duration_since(*at) < LASTS && is_answer(nonce, typed));
        found.map(|(fingerprint, _)| fingerprint.clone())
    }

    /// Forgets what was answered: an answer counts once.
    pub fn forget(&self, fingerprint: &str) {
        self.lock().remove(fingerprint);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Zeroizing<String>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_nonce_counts_once_and_for_a_time() {
        let challenges = Challenges::default();
        let now = Instant::now();
        let give = |who: &str, nonce: &str| challenges.given(who.into(), Zeroizing::new(nonce.into()), now);
        give("A", "abcd-efgh");
        give("A", "jkmn-pqrs");
        give("B", "tuvw-xyz2");
        assert_eq!(challenges.of("abcd-efgh", now), None);
        assert_eq!(challenges.of(" JKMN-pqrs\n", now).as_deref(), Some("A"));
        assert_eq!(challenges.of("tuvw-xyz2", now + LASTS), None);
        assert_eq!(challenges.of("", now), None);
        challenges.forget("A");
        assert_eq!(challenges.of("jkmn-pqrs", now), None);
        assert_eq!(challenges.of("tuvw-xyz2", now).as_deref(), Some("B"));
    }
}
