//! Trying out a bucket, against the strict double: whatever the credentials may do, what is found is true, nothing that
//! lay there is touched, and nothing is left but what is named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use s3_double::{Lists, Permissions, Server, Settings};
use strongroom_model::config::Multipart;
use strongroom_offsite::Target;
use strongroom_offsite::probe::{Observations, Report, Tier, Verdict, judge, probe, unique_name};
use strongroom_offsite::s3::{Client, Payload, S3Error};
use support::{HASTY, at, changed, client, credentials, server, target};

/// All files of a bucket's folder.
fn bucket(store: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(store.join(name))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

/// Something that is not the probe's, with names that are near to its.
async fn furnish(server: &Server, bucket: &str) {
    let owner = client(&target(server, bucket), "ALL");
    for key in [
        "data/0/1.gpg",
        "one",
        "strongroom-probe-/one",
        "asus_home/manifest/3.json.gpg",
    ] {
        let bytes = Bytes::from_static(b"somebody's");
        owner.put_once(key, bytes.clone(), &Payload::of(&bytes)).await.unwrap();
    }
}

/// Probes as `who`, and holds the probe to its promises.
async fn probed(server: &Server, store: &Path, target: &Target, who: &str) -> (Observations, Report) {
    let before = bucket(store, &at(target).bucket);
    let prefix = target.key(&unique_name());
    let seen = probe(&client(target, who), &prefix).await;
    let report = judge(&seen, at(target));
    let mut after = bucket(store, &at(target).bucket);
    for (name, bytes) in &before {
        assert_eq!(after.remove(name).as_ref(), Some(bytes), "{name} was touched");
    }
    let mut left: Vec<String> = after
        .keys()
        .filter_map(|name| name.strip_suffix(".data"))
        .map(|name| name.replace("%2F", "/"))
        .collect();
    left.sort();
    let mut named = seen.left.clone();
    named.sort();
    assert_eq!(left, named, "what is left is what is named");
    assert!(left.iter().all(|key| key.starts_with(&format!("{prefix}/"))));
    let uploads = client(target, "ALL").list_multipart("").await.unwrap();
    assert_eq!(uploads, [], "uploads that no list shows");
    assert_eq!(seen.uploads_left, [""; 0]);
    for key in &seen.left {
        assert!(report.findings.iter().any(|finding| finding.text.contains(key)));
    }
    let _ = server.faults().take_log();
    (seen, report)
}

fn says(report: &Report, words: &str) -> Option<Verdict> {
    report
        .findings
        .iter()
        .find(|finding| finding.text.contains(words))
        .map(|finding| finding.verdict)
}

/// Each of the 64 combinations that the double has, in a standard and in an archive bucket, with refusals that are told
/// and with those that are not.
#[tokio::test]
async fn whatever_is_permitted_is_found_out() {
    for hides in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let combinations: Vec<Permissions> = (0..64)
            .map(|bits: u32| Permissions {
                create: bits & 1 != 0,
                overwrite: bits & 2 != 0,
                delete: bits & 4 != 0,
                inspect: bits & 8 != 0,
                read: bits & 16 != 0,
                restore: bits & 32 != 0,
            })
            .collect();
        let server = server(dir.path(), |settings: &mut Settings| {
            settings.hides = hides;
            settings.restore_delay = Duration::from_secs(3600);
            for (number, may) in combinations.iter().enumerate() {
                let name = format!("P{number}");
                *settings = settings
                    .clone()
                    .credential(&name, &format!("{}-secret", name.to_lowercase()), *may);
            }
        })
        .await;
        for (name, archive) in [("plain", false), ("vault", true)] {
            furnish(&server, name).await;
            for (number, may) in combinations.iter().enumerate() {
                let (seen, report) = probed(&server, dir.path(), &target(&server, name), &format!("P{number}")).await;
                agrees(*may, archive, hides, &seen, &report);
            }
        }
    }
}

fn agrees(may: Permissions, archive: bool, hides: bool, seen: &Observations, report: &Report) {
    let told = format!("{may:?} archive={archive} hides={hides}\n{seen:#?}\n{report:#?}");
    if !may.create {
        assert!(report.is_wrong() && seen.written.is_empty(), "{told}");
        assert!(says(report, "may not write a new object").is_some(), "{told}");
        return;
    }
    assert_eq!(
        says(report, "New objects can be written, and what arrived"),
        Some(Verdict::Good),
        "{told}"
    );
    // HEAD tells an archive by itself; reading it, or restoring from it, tells too.
    let tier = match (may.read || may.inspect || may.restore, archive) {
        (false, _) => Tier::Unknown,
        (true, true) => Tier::Archive,
        // That HEAD says nothing is no proof.
        (true, false) if !may.read && !may.restore => Tier::Unknown,
        (true, false) => Tier::Readable,
    };
    assert_eq!(report.tier, tier, "{told}");
    if archive && tier == Tier::Archive {
        let accepted = says(report, "A restore from the archive was accepted");
        assert_eq!(accepted, may.restore.then_some(Verdict::Good), "{told}");
        assert_eq!(
            says(report, "may not ask for a restore"),
            (!may.restore).then_some(Verdict::Note),
            "{told}"
        );
        let under_way = says(report, "and is under way").is_some();
        assert_eq!(under_way, may.restore && may.inspect, "{told}");
    }
    let in_parts = may.overwrite;
    assert_eq!(report.multipart == Multipart::Auto, in_parts && may.delete, "{told}");
    // The target's `multipart` is "auto".
    assert_eq!(report.is_wrong(), !in_parts, "{told}");
    assert_eq!(
        says(report, "can neither overwrite nor delete"),
        (!may.overwrite && !may.delete).then_some(Verdict::Good),
        "{told}"
    );
    assert_eq!(says(report, "may not list").is_some(), !may.inspect, "{told}");
    assert_eq!(
        says(report, "Lists work, page by page").is_some(),
        may.inspect,
        "{told}"
    );
    assert_eq!(says(report, "may not read").is_some(), !may.read, "{told}");
    assert_eq!(seen.left.is_empty(), may.delete, "{told}");
}

#[tokio::test]
async fn what_is_configured_already_is_not_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let once = changed(&target(&server, "vault"), |at| at.multipart = Multipart::Never);
    let (_, report) = probed(&server, dir.path(), &once, "LOOK").await;
    assert!(!report.is_wrong(), "{report:#?}");
    let (_, report) = probed(&server, dir.path(), &once, "ALL").await;
    assert_eq!(says(&report, "could be sent in parts"), Some(Verdict::Note));
    assert_eq!(report.multipart, Multipart::Auto);
}

#[tokio::test]
async fn a_retention_rule_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |settings| {
        settings.retention = Some(Duration::from_secs(3600))
    })
    .await;
    let (seen, report) = probed(&server, dir.path(), &target(&server, "vault"), "ALL").await;
    assert_eq!(
        says(&report, "A retention rule keeps"),
        Some(Verdict::Good),
        "{report:#?}"
    );
    // Three objects, and none that stands for an upload: those can be removed.
    assert_eq!(seen.left.len(), 3);
    assert_eq!(report.multipart, Multipart::Auto);
}

#[tokio::test]
async fn lists_of_the_first_version_are_read_to_their_end() {
    for lists in [Lists::First, Lists::Mistaken] {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), |settings| {
            settings.lists = lists;
            settings.page = 2;
        })
        .await;
        furnish(&server, "plain").await;
        let all = client(&target(&server, "plain"), "ALL").list("").await.unwrap();
        assert_eq!(all.len(), 4, "{lists:?}");
        let (_, report) = probed(&server, dir.path(), &target(&server, "plain"), "ALL").await;
        assert_eq!(
            says(&report, "only their first version"),
            Some(Verdict::Good),
            "{lists:?}"
        );
    }
}

/// What is wrong before anything is written, each with what to do about it.
#[tokio::test]
async fn refusals_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let good = target(&server, "plain");
    let advice = |report: &Report| {
        assert!(report.is_wrong());
        report.findings[0].advice.clone()
    };
    let missing = changed(&good, |at| at.bucket = "missing".into());
    let seen = probe(&client(&missing, "ALL"), "p").await;
    assert!(
        matches!(seen.create, Some(Err(S3Error::NoSuchBucket { .. }))),
        "{seen:?}"
    );
    let report = judge(&seen, at(&missing));
    assert!(
        report.findings[0].text.contains("there is no bucket missing"),
        "{report:?}"
    );

    let elsewhere = changed(&good, |at| at.region = "us-ashburn-1".into());
    let report = judge(&probe(&client(&elsewhere, "ALL"), "p").await, at(&elsewhere));
    assert!(advice(&report).contains("`region` is not the bucket's"), "{report:?}");

    let wrong_secret = Client::new(
        at(&good),
        strongroom_offsite::Credentials::new("ALL", zeroize::Zeroizing::new("other".into())),
        strongroom_offsite::s3::system_clock(),
        HASTY,
    )
    .unwrap();
    let report = judge(&probe(&wrong_secret, "p").await, at(&good));
    assert!(advice(&report).contains("does not belong to this"), "{report:?}");

    let report = judge(&probe(&client(&good, "NOBODY"), "p").await, at(&good));
    assert!(advice(&report).contains("list of keys"), "{report:?}");

    for (off, told) in [(120_i64, false), (3600, true)] {
        let clock = std::sync::Arc::new(move || SystemTime::now() + Duration::from_secs(off.unsigned_abs()));
        let ahead = Client::new(at(&good), credentials("ALL"), clock, HASTY).unwrap();
        let report = judge(&probe(&ahead, "p").await, at(&good));
        assert_eq!(report.is_wrong(), told, "{report:?}");
        assert_eq!(
            says(&report, "s ahead of the service's"),
            Some(Verdict::Note),
            "{report:?}"
        );
    }

    let nowhere = changed(&good, |at| at.endpoint = "http://127.0.0.1:1".into());
    let report = judge(&probe(&client(&nowhere, "ALL"), "p").await, at(&nowhere));
    assert!(report.findings[0].text.contains("cannot reach"), "{report:?}");

    // Oracle's own words for a key that it does not find; the endpoint tells when it is the region.
    let oracle = changed(&good, |at| {
        at.endpoint = "https://n.compat.objectstorage.eu-frankfurt-1.oraclecloud.com".into()
    });
    let not_found = Observations {
        create: Some(Err(S3Error::SignatureDoesNotMatch {
            region: "eu-frankfurt-1".into(),
            hint: None,
            message: "The secret key required to complete authentication could not be found.".into(),
        })),
        ..Observations::default()
    };
    assert!(advice(&judge(&not_found, at(&oracle))).contains("younger than a few minutes"));
    let mixed = changed(&oracle, |at| at.region = "eu-zurich-1".into());
    assert!(advice(&judge(&not_found, at(&mixed))).contains("The endpoint is in eu-frankfurt-1"));
}
