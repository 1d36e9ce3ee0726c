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

use pgp::composed::{Deserializable, SignedSecretKey};
use pgp::packet::{Features, KeyFlags, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{Password, Tag};
use strongroom_offsite::Encryption;
use strongroom_offsite::openpgp::challenge::{challenge, is_answer};
use strongroom_offsite::openpgp::{
    Keyring, Mode, OpenError, RecipientError, Recipients, Signer, generate, sealed_length,
};
use support::{Gpg, noise};
use zeroize::Zeroizing;

fn open(keyring: &Keyring, message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::new();
    keyring.open(message, &mut out)?;
    Ok(out)
}

/// The gpg that is first in PATH: its version is printed, and both modes are known to work from 2.2.21 on.
fn print_version(gpg: &Gpg) {
    let text = String::from_utf8(gpg.run(&["--version"])).unwrap();
    println!("{}", text.lines().next().unwrap());
}

/// A moment that whatever a test makes with gpg is older than.
fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// An agent has secure memory for a few decryptions by RSA at a time; further ones fail, as if there were no key.
#[test]
fn many_messages_at_once_are_opened_by_one_agent() {
    let gpg = Gpg::new();
    gpg.generate("owner", "rsa4096", "0", "");
    let recipients = Recipients::parse(&[gpg.export("owner")], SystemTime::now()).unwrap();
    let message = recipients.seal(Mode::Cfb).unwrap().seal(b"a letter").unwrap();
    let owners = strongroom_offsite::Gpg::new(gpg.program());
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let mut out = Vec::new();
                    owners.open(message.as_slice(), &mut out).unwrap();
                    assert_eq!(out, b"a letter");
                }
            });
        }
    });
}

#[test]
fn gpg_opens_what_we_seal() {
    let gpg = Gpg::new();
    print_version(&gpg);
    gpg.generate("modern", "future-default", "0", "");
    gpg.generate("rsa", "rsa4096", "0", "correct horse");
    let both = [gpg.export("modern"), gpg.export("rsa")];
    let now = SystemTime::now();
    let recipients = Recipients::parse(&both, now).unwrap();
    let modern = Keyring::parse(&[gpg.export_secret("modern", "")], &Zeroizing::new(String::new())).unwrap();
    let secret = gpg.export_secret("rsa", "correct horse");
    let rsa = Keyring::parse(&[&secret], &Zeroizing::new("correct horse".into())).unwrap();
    let wrong = Keyring::parse(&[&secret], &Zeroizing::new("battery staple".into())).unwrap();
    // OCB has chunks of 64 KiB, of which 12 octets are the literal packet's header.
    let chunk = 65_536 - 12;
    let sizes = [
        0,
        1,
        30,
        33,
        34,
        35,
        98,
        191,
        192,
        8383,
        8384,
        chunk - 1,
        chunk,
        chunk + 1,
        chunk + 65_536,
        3_000_000,
    ];
    for (mode, size) in Mode::ALL.into_iter().flat_map(|mode| sizes.map(|size| (mode, size))) {
        let data = noise(size, 5 + size as u64);
        let message = recipients.seal(mode).unwrap().seal(&data).unwrap();
        assert_eq!(
            message.len() as u64,
            sealed_length(mode, recipients.key_packets_length(), size as u64).unwrap()
        );
        assert!(gpg.decrypt(&message).unwrap() == data, "{mode:?}, {size} bytes");
        assert!(open(&modern, &message).unwrap() == data, "{mode:?}, {size} bytes");
    }
    for mode in Mode::ALL {
        // Each of them alone, with our own reader.
        let data = noise(200_000, 9);
        let message = recipients.seal(mode).unwrap().seal(&data).unwrap();
        assert!(open(&modern, &message).unwrap() == data);
        assert!(open(&rsa, &message).unwrap() == data);
        assert!(matches!(open(&wrong, &message), Err(OpenError::NoKey { .. })));

        // Damage is seen by both.
        let end = message.len();
        for (at, what) in [
            (end - 1, "in the last sum"),
            (end - 18, "near the end"),
            (end - 50_000, "inside"),
            (end - 200_040, "at the start"),
        ] {
            let mut bad = message.clone();
            bad[at] ^= 1;
            assert!(gpg.decrypt(&bad).is_none(), "{mode:?}, {what}");
            assert!(open(&modern, &bad).is_err(), "{mode:?}, {what}");
        }
        for cut in [1, 16, 17, 22, 23, 32, 33, 1000, 199_000] {
            assert!(open(&modern, &message[..end - cut]).is_err(), "{mode:?}, cut by {cut}");
        }
    }
    // A whole chunk of OCB that is missing or in another place.
    let message = recipients.seal(Mode::Ocb).unwrap().seal(&noise(200_000, 9)).unwrap();
    let start = message.len() - sealed_length(Mode::Ocb, 0, 200_000).unwrap() as usize + 6 + 19;
    let sealed = 65_536 + 16;
    let (first, second) = (start..start + sealed, start + sealed..start + 2 * sealed);
    let without = [&message[..first.start], &message[second.start..]].concat();
    let swapped = [
        &message[..first.start],
        &message[second.clone()],
        &message[first],
        &message[second.end..],
    ]
    .concat();
    for bad in [without, swapped] {
        assert!(gpg.decrypt(&bad).is_none() && open(&modern, &bad).is_err());
    }
}

#[test]
fn ocb_is_used_where_every_certificate_says_that_it_is_read() {
    let gpg = Gpg::new();
    gpg.generate("one", "future-default", "0", "");
    gpg.generate("two", "rsa2048", "0", "");
    let now = soon();
    let certificates = |one: u8, two: u8| {
        let changed = [("one", one), ("two", two)].map(|(name, features)| with_features(&gpg, name, features));
        Recipients::parse(&changed, now).unwrap()
    };
    let auto = |one, two| certificates(one, two).mode(Encryption::Auto);
    assert_eq!(auto(1, 1), Mode::Cfb);
    // As gpg 2.4 writes it, and with the flag of SEIPD version 2 only, which gpg can't read.
    assert_eq!(auto(7, 1), Mode::Cfb);
    assert_eq!(auto(7, 9), Mode::Cfb);
    assert_eq!(auto(1, 7), Mode::Cfb);
    let both = certificates(7, 3);
    for (encryption, mode) in [
        (Encryption::Auto, Mode::Ocb),
        (Encryption::Always(Mode::Cfb), Mode::Cfb),
        (Encryption::Always(Mode::Ocb), Mode::Ocb),
    ] {
        assert_eq!(both.mode(encryption), mode);
        let message = both.seal(mode).unwrap().seal(b"hello").unwrap();
        assert_eq!(gpg.decrypt(&message).unwrap(), b"hello");
    }
    let forced = certificates(1, 1).mode(Encryption::Always(Mode::Ocb));
    assert_eq!(forced, Mode::Ocb);
}

/// A certificate of gpg's, certified anew with these features.
fn with_features(gpg: &Gpg, name: &str, features: u8) -> Vec<u8> {
    let (mut key, _) = SignedSecretKey::from_reader_single(gpg.export_secret(name, "").as_slice()).unwrap();
    let mut random = rand::thread_rng();
    let primary = key.primary_key.clone();
    for user in &mut key.details.users {
        let mut config = SignatureConfig::from_key(&mut random, &primary, SignatureType::CertPositive).unwrap();
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        let data = [
            SubpacketData::SignatureCreationTime(pgp::types::Timestamp::now()),
            SubpacketData::KeyFlags(flags),
            SubpacketData::Features(Features::from([features].as_slice())),
        ];
        config.hashed_subpackets = data.into_iter().map(|data| Subpacket::regular(data).unwrap()).collect();
        let signature = config
            .sign_certification(
                &primary,
                primary.public_key(),
                &Password::empty(),
                Tag::UserId,
                &user.id,
            )
            .unwrap();
        user.signatures = vec![signature];
    }
    key.to_public_key().to_bytes().unwrap()
}

/// What is made here, as gpg sees it: it lists the features, trusts the bindings, and knows what each key is for.
#[test]
fn gpg_uses_the_keys_that_we_make() {
    let gpg = Gpg::new();
    print_version(&gpg);
    let import = |name: &str, armoured: &str| {
        let path = gpg.home().join(name);
        fs::write(&path, armoured).unwrap();
        gpg.run(&["--import", path.to_str().unwrap()]);
        path
    };
    let passphrase = Zeroizing::new("correct horse".to_owned());
    for (reads_ocb, features) in [(true, "03"), (false, "01")] {
        let key = generate::recipient("Owner <owner@example.org>", &passphrase, reads_ocb).unwrap();
        let path = import("owner.asc", &key.secret);
        let packets = String::from_utf8(gpg.run(&["--list-packets", path.to_str().unwrap()])).unwrap();
        assert!(packets.contains(&format!("features: {features}")), "{packets}");
        let listed = gpg.run(&["--with-colons", "--check-signatures", &key.fingerprint]);
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.contains("\nsig:!:") && !listed.contains("\nsig:-:"), "{listed}");
        let uses = |kind: &str| {
            let line = listed.lines().find(|line| line.starts_with(kind)).unwrap();
            (
                line.split(':').nth(11).unwrap().to_owned(),
                line.split(':').nth(6).unwrap().to_owned(),
            )
        };
        assert_eq!(uses("sub:"), ("e".into(), String::new()), "{listed}");
        assert!(
            uses("pub:").0.starts_with("sc") || uses("pub:").0.starts_with("cs"),
            "{listed}"
        );
        let recipients = Recipients::parse(&[&key.certificate], SystemTime::now()).unwrap();
        let mode = recipients.mode(Encryption::Auto);
        assert_eq!(mode == Mode::Ocb, reads_ocb);
        let message = recipients.seal(mode).unwrap().seal(b"hello").unwrap();
        assert_eq!(gpg.decrypt(&message).unwrap(), b"hello");
    }
    let signer = generate::signer("Strongroom test").unwrap();
    import("signer.asc", &signer.certificate);
    let signature = Signer::parse(signer.secret.as_bytes())
        .unwrap()
        .sign(b"what is signed\n")
        .unwrap();
    let [data, detached] = ["data", "data.asc"].map(|name| gpg.home().join(name));
    fs::write(&data, "what is signed\n").unwrap();
    fs::write(&detached, signature).unwrap();
    let verify = ["--verify", detached.to_str().unwrap(), data.to_str().unwrap()];
    gpg.run(&verify);
    fs::write(&data, "what is not signed\n").unwrap();
    assert!(!gpg.succeeds(&verify));
    assert!(matches!(
        Recipients::parse(&[&signer.certificate], SystemTime::now()),
        Err(RecipientError::NoEncryptionKey { .. })
    ));
}

#[test]
fn a_challenge_is_read_with_the_secret_key_alone() {
    let owner = Gpg::new();
    owner.generate("owner", "rsa2048", "0", "correct horse");
    let (nonce, message) = challenge(&owner.export("owner"), Some(SystemTime::now())).unwrap();
    assert!(message.starts_with("-----BEGIN PGP MESSAGE-----") && !message.contains(&*nonce));
    let answer = String::from_utf8(owner.decrypt(message.as_bytes()).unwrap()).unwrap();
    assert!(is_answer(&nonce, &answer) && !is_answer(&nonce, ""));
    let stranger = Gpg::new();
    stranger.generate("stranger", "rsa2048", "0", "");
    assert_eq!(stranger.decrypt(message.as_bytes()), None);
    let (another, _) = challenge(&owner.export("owner"), None).unwrap();
    assert!(!is_answer(&another, &answer));
}

#[test]
fn every_message_has_the_same_overhead() {
    let gpg = Gpg::new();
    gpg.generate("rsa", "rsa2048", "0", "");
    let recipients = Recipients::parse(&[gpg.export("rsa")], SystemTime::now()).unwrap();
    let overhead = recipients.seal(Mode::Cfb).unwrap().seal(b"").unwrap().len();
    for _ in 0..600 {
        assert_eq!(recipients.seal(Mode::Cfb).unwrap().seal(b"").unwrap().len(), overhead);
    }
}

#[test]
fn unusable_certificates_are_refused_with_the_reason() {
    let gpg = Gpg::new();
    let now = soon();
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
