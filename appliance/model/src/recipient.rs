//! Recipients of off-site copies: what their certificates say, and whether somebody has shown that the secret key is
//! there. Pure.
//!
//! A copy that is encrypted to a key that nobody has any more is worth nothing, and nobody notices before it is needed. So
//! the owner is asked to decrypt a nonce: once at the beginning, and once a year.

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::TargetName;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

const DAY: u64 = 24 * 3600;
/// For how long a recipient may go unproven before that is an alarm, in seconds.
pub const UNPROVEN_ALARM: u64 = 14 * DAY;
/// After how long a proof is to be given again, in seconds.
pub const PROOF_LASTS: u64 = 365 * DAY;
/// How long before its end a certificate is told of, in seconds.
pub const EXPIRY_NOTICE: u64 = 60 * DAY;
/// Most proofs that are remembered; the oldest go first.
pub const PROOFS_MAX: usize = 64;

/// One recipient of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Its name in the configuration.
    pub name: TargetName,
    /// Why nothing can be encrypted to it; empty when it can. The fields of the certificate are empty then.
    pub fault: String,
    /// The certificate's fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// Its user id.
    pub user_id: String,
    /// What it is encrypted with: `cv25519`, `rsa4096`.
    pub algorithm: String,
    /// When it can't be used any more, Unix seconds; none for never.
    pub expires: Option<u64>,
    /// Whether it says that its owner's programs read OCB.
    pub reads_ocb: bool,
    /// Whether copies are encrypted to it.
    pub used: bool,
    /// Since when the appliance has the certificate, Unix seconds.
    pub since: Option<u64>,
    /// When the secret key was last shown to be there, Unix seconds.
    pub proven: Option<u64>,
}

/// The key that an appliance signs its manifests with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Its fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// Its certificate, armoured.
    pub certificate: String,
}

/// All recipients, and who signs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of the configuration.
    pub recipients: Vec<Recipient>,
    /// None before the first push to a target.
    pub signer: Option<Signer>,
}

/// What was asked of a recipient's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Of which recipient.
    pub name: TargetName,
    /// Its fingerprint.
    pub fingerprint: String,
    /// A nonce, encrypted to it: an armoured message.
    pub message: String,
}

/// When each secret key was last shown to be there: fingerprint and Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proofs(BTreeMap<String, u64>);

impl Proofs {
    /// When the key of this fingerprint was last shown to be there.
    pub fn of(&self, fingerprint: &str) -> Option<u64> {
        self.0.get(fingerprint).copied()
    }

    /// Takes note that a key was shown to be there.
    pub fn proven(&mut self, fingerprint: &str, now: u64) {
        self.0.insert(fingerprint.into(), now);
        while self.0.len() > PROOFS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(who, _)| who.clone());
            let Some(oldest) = oldest else { return };
            self.0.remove(&oldest);
        }
    }
}

/// Whether a text is a fingerprint: 40 hexadecimal digits, in capitals.
pub fn is_fingerprint(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

/// Decides what a person should know of a recipient. `required`: nothing is pushed before the proof. `now` is `None` while
/// the clock isn't trusted.
pub fn decide(recipient: &Recipient, required: bool, now: Option<u64>) -> Vec<Condition> {
    // What can't be used makes the push fail, which is told there.
    if !recipient.used || !recipient.fault.is_empty() {
        return Vec::new();
    }
    of_proof(recipient, required, now)
        .into_iter()
        .chain(of_expiry(recipient, now))
        .collect()
}

fn of_proof(recipient: &Recipient, required: bool, now: Option<u64>) -> Option<Condition> {
    let name = &recipient.name;
    let Some(proven) = recipient.proven else {
        let since = recipient.since.zip(now).map(|(since, now)| now.saturating_sub(since));
        let long = since.is_some_and(|since| since > UNPROVEN_ALARM);
        let consequence = if required {
            "nothing is copied off-site before that"
        } else {
            "if it is lost, so are the off-site copies"
        };
        return Some(Condition::new(
            ConditionId::RecipientUnproven,
            if required || long {
                Severity::Alarm
            } else {
                Severity::Warning
            },
            name.as_str(),
            &format!(
                "Nobody has shown yet that the secret key of the recipient `{name}` is there and can be unlocked; {consequence}."
            ),
            "Where the secret key is: `ssh admin@APPLIANCE strongroom recipient challenge NAME | gpg --decrypt`, then `strongroom recipient prove` with what that prints. docs/offsite.md says more.",
        ));
    };
    let age = now?.saturating_sub(proven);
    (age > PROOF_LASTS).then(|| {
        Condition::new(
            ConditionId::KeyDrillDue,
            Severity::Warning,
            name.as_str(),
            &format!(
                "It is {} days since the secret key of the recipient `{name}` was last shown to be there.",
                age / DAY
            ),
            "Decrypt what `strongroom recipient challenge NAME` prints, with the recovery kit if you can, and give it to `strongroom recipient prove`.",
        )
    })
}

fn of_expiry(recipient: &Recipient, now: Option<u64>) -> Option<Condition> {
    let left = recipient.expires?.saturating_sub(now?);
    (left < EXPIRY_NOTICE).then(|| {
        Condition::new(
            ConditionId::RecipientExpiring,
            Severity::Warning,
            recipient.name.as_str(),
            &format!(
                "The certificate of the recipient `{}` expires in {} days; nothing is copied off-site to it from then on.",
                recipient.name,
                left / DAY
            ),
            "Extend it where the secret key is, with `gpg --quick-set-expire`, export it anew, and offer the configuration again with it. What was copied stays readable.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn recipient(since: u64, proven: Option<u64>) -> Recipient {
        Recipient {
            name: TargetName::new("owner").unwrap(),
            used: true,
            since: Some(since),
            proven,
            ..Recipient::default()
        }
    }

    fn told(recipient: &Recipient, required: bool, now: Option<u64>) -> Vec<(ConditionId, Severity)> {
        decide(recipient, required, now)
            .into_iter()
            .map(|c| (c.id, c.severity))
            .collect()
    }

    #[test]
    fn a_key_that_nobody_showed_is_a_warning_and_then_an_alarm() {
        let warning = (ConditionId::RecipientUnproven, Severity::Warning);
        let alarm = (ConditionId::RecipientUnproven, Severity::Alarm);
        let new = recipient(NOW - UNPROVEN_ALARM, None);
        assert_eq!(told(&new, false, Some(NOW)), [warning]);
        assert_eq!(told(&new, false, Some(NOW + 1)), [alarm]);
        assert_eq!(told(&new, false, None), [warning]);
        assert_eq!(told(&new, true, None), [alarm]);
        let unused = Recipient { used: false, ..new };
        assert_eq!(told(&unused, true, Some(NOW)), []);
    }

    #[test]
    fn a_proof_lasts_a_year() {
        let proven = recipient(0, Some(NOW - PROOF_LASTS));
        assert_eq!(told(&proven, true, Some(NOW)), []);
        assert_eq!(
            told(&proven, true, Some(NOW + 1)),
            [(ConditionId::KeyDrillDue, Severity::Warning)]
        );
        assert_eq!(told(&proven, true, None), []);
    }

    #[test]
    fn an_end_is_told_in_time() {
        let mut ending = recipient(0, Some(NOW));
        ending.expires = Some(NOW + EXPIRY_NOTICE);
        assert_eq!(told(&ending, false, Some(NOW)), []);
        let expiring = [(ConditionId::RecipientExpiring, Severity::Warning)];
        assert_eq!(told(&ending, false, Some(NOW + 1)), expiring);
        assert_eq!(told(&ending, false, Some(NOW + 2 * EXPIRY_NOTICE)), expiring);
    }

    #[test]
    fn texts_fit() {
        let mut long = recipient(NOW, None);
        long.name = TargetName::new(&"x".repeat(31)).unwrap();
        long.expires = Some(NOW);
        for (required, proven) in [(false, None), (true, None), (true, Some(0))] {
            long.proven = proven;
            let conditions = decide(&long, required, Some(NOW));
            assert_eq!(conditions.len(), 2);
            for condition in conditions {
                assert!(
                    !condition.text.ends_with('…') && !condition.advice.ends_with('…'),
                    "{condition:?}"
                );
            }
        }
    }

    #[test]
    fn proofs_are_bounded() {
        let mut proofs = Proofs::default();
        for number in 0..2 * PROOFS_MAX as u64 {
            proofs.proven(&format!("{number:040X}"), 1_000_000 - number);
        }
        assert_eq!(proofs.0.len(), PROOFS_MAX);
        assert_eq!(proofs.of(&format!("{:040X}", 0)), Some(1_000_000));
        let text = serde_json::to_string(&proofs).unwrap();
        assert_eq!(serde_json::from_str::<Proofs>(&text).unwrap(), proofs);
        assert!(is_fingerprint(&"0A".repeat(20)) && !is_fingerprint(&"0a".repeat(20)));
    }
}
