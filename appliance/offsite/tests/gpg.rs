//! Messages of ours are opened by the real gpg, and gpg's keys are understood.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs;
use std::time::{Duration, SystemTime};

use strongroom_offsite::openpgp::{Keyring, OpenError, RecipientError, Recipients};
use support::{Gpg, noise};
use zeroize::Zeroizing;

fn open(keyring: &Keyring, message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::new();
    keyring.open(message, &mut out)?;
    Ok(out)
}

#[test]
fn gpg_opens_what_we_seal() {
    let gpg = Gpg::new();
    gpg.generate("modern", "future-default", "0", "");
    gpg.generate("rsa", "rsa4096", "0", "correct horse");
    let both = [gpg.export("modern"), gpg.export("rsa")];
    let now = SystemTime::now();
    let recipients = Recipients::parse(&both, now).unwrap();
    for size in [0, 1, 100, 191, 192, 8383, 8384, 70_000, 3_000_000] {
        let data = noise(size, 5 + size as u64);
        let seal = recipients.seal().unwrap();
        let message = seal.seal(&data).unwrap();
        assert_eq!(
            message.len() as u64,
            strongroom_offsite::openpgp::sealed_length(recipients.key_packets_length(), size as u64).unwrap()
        );
        assert_eq!(gpg.decrypt(&message).unwrap(), data, "{size} bytes");
    }
    // Each of them alone, with our own reader.
    let data = noise(100_000, 9);
    let message = recipients.seal().unwrap().seal(&data).unwrap();
    let modern = Keyring::parse(&[gpg.export_secret("modern", "")], &Zeroizing::new(String::new())).unwrap();
    assert_eq!(open(&modern, &message).unwrap(), data);
    let secret = gpg.export_secret("rsa", "correct horse");
    let rsa = Keyring::parse(&[&secret], &Zeroizing::new("correct horse".into())).unwrap();
    assert_eq!(open(&rsa, &message).unwrap(), data);
    let wrong = Keyring::parse(&[&secret], &Zeroizing::new("battery staple".into())).unwrap();
    assert!(matches!(open(&wrong, &message), Err(OpenError::NoKey { .. })));

    // Damage is seen by both.
    let end = message.len();
    for (at, what) in [
        (end - 1, "in the MDC"),
        (end - 50_000, "inside"),
        (end - 100_040, "in the prefix"),
    ] {
        let mut bad = message.clone();
        bad[at] ^= 1;
        assert!(gpg.decrypt(&bad).is_none(), "{what}");
        assert!(open(&modern, &bad).is_err(), "{what}");
    }
    for cut in [1, 22, 23, 1000, 99_000] {
        assert!(open(&modern, &message[..end - cut]).is_err(), "cut by {cut}");
    }
}

#[test]
fn every_message_has_the_same_overhead() {
    let gpg = Gpg::new();
    gpg.generate("rsa", "rsa2048", "0", "");
    let recipients = Recipients::parse(&[gpg.export("rsa")], SystemTime::now()).unwrap();
    let overhead = recipients.seal().unwrap().seal(b"").unwrap().len();
    for _ in 0..600 {
        assert_eq!(recipients.seal().unwrap().seal(b"").unwrap().len(), overhead);
    }
}

#[test]
fn unusable_certificates_are_refused_with_the_reason() {
    let gpg = Gpg::new();
    let now = SystemTime::now();
    let parse = |bytes: &[u8], now| Recipients::parse(&[bytes], now).unwrap_err();

    gpg.generate("short", "future-default", "2d", "");
    let later = now + Duration::from_secs(3 * 86_400);
    assert!(matches!(
        parse(&gpg.export("short"), later),
        RecipientError::Expired { .. }
    ));
    assert!(Recipients::parse(&[gpg.export("short")], now).is_ok());

    gpg.generate("sign", "ed25519", "0", "");
    assert!(matches!(
        parse(&gpg.export("sign"), now),
        RecipientError::NoEncryptionKey { .. }
    ));

    gpg.generate("gone", "future-default", "0", "");
    let secret = gpg.export_secret("gone", "");
    let good = gpg.export("gone");
    gpg.revoke("gone");
    assert!(matches!(
        parse(&gpg.export("gone"), now),
        RecipientError::Revoked { .. }
    ));
    assert!(matches!(parse(&secret, now), RecipientError::SecretKey { number: 1 }));

    // A certificate whose binding was tampered with.
    let mut bad = good;
    let last = bad.len() - 3;
    bad[last] ^= 1;
    assert!(Recipients::parse(&[&bad], now).is_err());

    // Armour, and several in one file.
    let armoured = gpg.run(&["--armor", "--export", "short", "sign"]);
    assert!(matches!(parse(&armoured, now), RecipientError::NoEncryptionKey { .. }));
    let armoured = gpg.run(&["--armor", "--export", "short"]);
    assert_eq!(Recipients::parse(&[armoured], now).unwrap().fingerprints().count(), 1);
    drop(fs::metadata(gpg.home()));
}
