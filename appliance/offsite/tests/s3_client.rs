//! The S3 client against the strict double.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use s3_double::{Action, Rule};
use strongroom_offsite::Credentials;
use strongroom_offsite::digest::Digest;
use strongroom_offsite::s3::{Archive, Client, Payload, S3Error};
use support::{HASTY, at, changed, client, credentials, noise, server, target};

const MIB: usize = 1024 * 1024;

fn rule(method: &'static str, contains: &str, times: u32, action: Action) -> Rule {
    Rule {
        method: Some(method),
        contains: contains.into(),
        skip: 0,
        times,
        action,
    }
}

#[tokio::test]
async fn objects_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |settings| settings.page = 3).await;
    let client = client(&target(&server, "plain"), "ALL");
    assert_eq!(client.head("a").await.unwrap(), None);
    for name in ["p/a", "p/b c", "p/d+ü", "p/e", "p/f", "p/g", "q"] {
        let bytes = Bytes::from(name.to_owned());
        let payload = Payload::of(&bytes);
        let etag = client.put_once(name, bytes, &payload).await.unwrap();
        assert_eq!(etag, payload.md5.unwrap().to_string());
        assert_eq!(client.get_small(name, 100).await.unwrap(), name.as_bytes());
    }
    assert_eq!(client.head("p/a").await.unwrap().unwrap().size, 3);
    let keys: Vec<_> = client
        .list("p/")
        .await
        .unwrap()
        .into_iter()
        .map(|listed| listed.key)
        .collect();
    assert_eq!(keys, ["p/a", "p/b c", "p/d+ü", "p/e", "p/f", "p/g"]);
    assert!(matches!(client.get("x").await, Err(S3Error::NoSuchKey { .. })));
}

#[tokio::test]
async fn multipart() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let client = client(&target(&server, "plain"), "ALL");
    let parts = [
        Bytes::from(noise(10 * MIB, 1)),
        Bytes::from(noise(10 * MIB, 2)),
        Bytes::from_static(b"end"),
    ];
    // A part that fails twice, once half-way, is sent again.
    server
        .faults()
        .add(rule("PUT", "partNumber=2", 1, Action::CutAfter(3 * MIB as u64)));
    server.faults().add(rule("PUT", "partNumber=2", 1, Action::Status(503)));
    let id = client.create_multipart_once("big").await.unwrap();
    let mut etags = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let etag = client
            .upload_part("big", &id, number, part.clone(), &Payload::of(part))
            .await
            .unwrap();
        etags.push((number, etag));
    }
    let etag = client.complete_multipart_once("big", &id, &etags).await.unwrap();
    assert!(etag.ends_with("-3"));
    assert_eq!(client.get_small("big", 21 * MIB).await.unwrap(), parts.concat());

    let id = client.create_multipart_once("left").await.unwrap();
    client
        .upload_part("left", &id, 1, Bytes::from_static(b"x"), &Payload::of(b"x"))
        .await
        .unwrap();
    assert_eq!(client.list_multipart("le").await.unwrap().len(), 1);
    client.abort_multipart("left", &id).await.unwrap();
    client.abort_multipart("left", &id).await.unwrap();
    assert!(client.list_multipart("").await.unwrap().is_empty());
    // Parts below the minimum are refused when the upload is completed.
    let id = client.create_multipart_once("small").await.unwrap();
    let mut etags = Vec::new();
    for number in 1..=2 {
        let bytes = Bytes::from_static(b"small");
        etags.push((
            number,
            client
                .upload_part("small", &id, number, bytes, &Payload::of(b"small"))
                .await
                .unwrap(),
        ));
    }
    let refused = client.complete_multipart_once("small", &id, &etags).await.unwrap_err();
    assert!(refused.to_string().contains("EntityTooSmall"), "{refused}");
}

/// The sum in the signature is enough for a part, unless the service wants the other as well.
#[tokio::test]
async fn parts_need_no_md5_unless_it_is_demanded() {
    for demand in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path(), |settings| settings.demand_md5 = demand).await;
        let client = client(&target(&server, "plain"), "ALL");
        let bytes = Bytes::from_static(b"part");
        let payload = Payload {
            md5: None,
            ..Payload::of(&bytes)
        };
        let id = client.create_multipart_once("a").await.unwrap();
        let etag = client.upload_part("a", &id, 1, bytes.clone(), &payload).await.unwrap();
        assert_eq!(etag, Payload::of(&bytes).md5.unwrap().to_string());
        client.complete_multipart_once("a", &id, &[(1, etag)]).await.unwrap();
        // What is not what was signed is refused.
        let id = client.create_multipart_once("b").await.unwrap();
        let other = Bytes::from_static(b"trap");
        let error = client.upload_part("b", &id, 1, other, &payload).await.unwrap_err();
        assert!(matches!(error, S3Error::Corrupted { .. }), "{error}");
        assert_eq!(client.get_small("a", 100).await.unwrap(), b"part");
    }
}

/// What one request was told holds for the others too.
#[tokio::test]
async fn a_service_that_is_busy_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let client = client(&target(&server, "plain"), "ALL");
    for status in [429, 503] {
        server.faults().add(rule("HEAD", "busy", 1, Action::Busy(status, 1)));
        assert!(client.head("busy").await.unwrap().is_none());
        server.faults().add(rule("HEAD", "busy", 1, Action::Busy(status, 1)));
        let (busy, other) = tokio::join!(client.head("busy"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            client.head("other").await
        });
        assert!(busy.unwrap().is_none() && other.unwrap().is_none());
    }
    assert_eq!(server.faults().too_early(), 0);
    // Longer than a push will wait: an error that says so.
    server.faults().add(rule("HEAD", "never", 1, Action::Busy(503, 86_400)));
    let error = client.head("never").await.unwrap_err();
    assert!(error.to_string().contains("86400"), "{error}");
}

#[tokio::test]
async fn a_limit_is_never_exceeded() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let mut client = client(&target(&server, "plain"), "ALL");
    client.limit(1_000_000);
    let started = std::time::Instant::now();
    let put = async |name: &str| {
        let bytes = Bytes::from(noise(700_000, 1));
        let payload = Payload::of(&bytes);
        client.put_once(name, bytes, &payload).await.unwrap();
    };
    tokio::join!(put("a"), put("b"));
    // Only a lower bound, which no slow machine can break; the burst and the last piece go at once.
    assert!(started.elapsed() > Duration::from_millis(1_100));
    assert_eq!(client.get_small("a", 700_000).await.unwrap(), noise(700_000, 1));
}

#[tokio::test]
async fn refusals_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let right = target(&server, "plain");
    let list = async |client: Client| client.list("").await.unwrap_err();

    let wrong = changed(&right, |at| at.region = "us-ashburn-1".into());
    assert!(matches!(
        list(client(&wrong, "ALL")).await,
        S3Error::SignatureDoesNotMatch { .. }
    ));
    let wrong = changed(&right, |at| at.bucket = "nowhere".into());
    assert!(matches!(
        list(client(&wrong, "ALL")).await,
        S3Error::NoSuchBucket { .. }
    ));
    assert!(matches!(
        list(client(&right, "NOBODY")).await,
        S3Error::UnknownAccessKey
    ));
    assert!(matches!(
        list(client(&right, "CREATE")).await,
        S3Error::AccessDenied { .. }
    ));
    let forged = Credentials::new("ALL", zeroize::Zeroizing::new("guess".into()));
    let forged = Client::new(at(&right), forged, Arc::new(SystemTime::now), HASTY).unwrap();
    assert!(matches!(list(forged).await, S3Error::SignatureDoesNotMatch { .. }));
    for offset in [-1200_i64, 1200] {
        let clock = Arc::new(move || {
            let by = Duration::from_secs(offset.unsigned_abs());
            if offset < 0 {
                SystemTime::now() - by
            } else {
                SystemTime::now() + by
            }
        });
        let skewed = Client::new(at(&right), credentials("ALL"), clock, HASTY).unwrap();
        let error = list(skewed).await;
        assert!(matches!(&error, S3Error::ClockSkew { server_time: Some(_) }), "{error}");
    }
    // A payload that is not what was signed.
    let client = client(&right, "ALL");
    let lie = Payload {
        sha256: Digest([0; 32]),
        ..Payload::of(b"truth")
    };
    let error = client
        .put_once("x", Bytes::from_static(b"truth"), &lie)
        .await
        .unwrap_err();
    assert!(matches!(error, S3Error::Corrupted { .. }), "{error}");
    let lie = Payload {
        md5: Some(Digest([0; 16])),
        ..Payload::of(b"truth")
    };
    let error = client
        .put_once("x", Bytes::from_static(b"truth"), &lie)
        .await
        .unwrap_err();
    assert!(matches!(error, S3Error::Corrupted { .. }), "{error}");
    assert_eq!(client.head("x").await.unwrap(), None);

    let nobody = changed(&right, |at| at.endpoint = "http://127.0.0.1:1".into());
    assert!(matches!(
        list(support::client(&nobody, "ALL")).await,
        S3Error::Connect { .. }
    ));
    for bad in ["ftp://x", "http://user@x", "http://x/bucket", "x"] {
        let bad = changed(&right, |at| at.endpoint = bad.into());
        assert!(Client::new(at(&bad), credentials("ALL"), Arc::new(SystemTime::now), HASTY).is_err());
    }
}

#[tokio::test]
async fn patience_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let client = client(&target(&server, "plain"), "ALL");
    server.faults().add(rule("GET", "", 3, Action::Status(503)));
    client.list("").await.unwrap();
    server.faults().add(rule("GET", "", 100, Action::Cut));
    let before = server.faults().requests();
    assert!(client.list("").await.unwrap_err().is_transient());
    assert_eq!(server.faults().requests() - before, u64::from(HASTY.attempts));
}

#[tokio::test]
async fn the_archive_opens_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let client = client(&target(&server, "vault"), "ALL");
    client
        .put_once("x", Bytes::from_static(b"cold"), &Payload::of(b"cold"))
        .await
        .unwrap();
    assert_eq!(client.head("x").await.unwrap().unwrap().archive, Archive::Archived);
    assert!(matches!(client.get("x").await, Err(S3Error::Archived { .. })));
    client.restore("x", 1).await.unwrap();
    client.restore("x", 1).await.unwrap();
    assert_eq!(client.head("x").await.unwrap().unwrap().archive, Archive::Restoring);
    while client.head("x").await.unwrap().unwrap().archive != Archive::Readable {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.restore("x", 1).await.unwrap();
    assert_eq!(client.get_small("x", 10).await.unwrap(), b"cold");
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_not_taken_for_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), |_| {}).await;
    let client = client(&target(&server, "plain"), "ALL");
    let bytes = Bytes::from(noise(MIB, 3));
    let payload = Payload::of(&bytes);
    client.put_once("a", bytes.clone(), &payload).await.unwrap();
    server
        .faults()
        .add(rule("GET", "plain/a", HASTY.attempts, Action::Truncate(200_000)));
    let error = client.get_small("a", 2 * MIB).await.unwrap_err();
    assert!(matches!(error, S3Error::Interrupted { .. }), "{error}");
    server.faults().clear();
    assert!(client.get_small("a", 2 * MIB).await.unwrap() == bytes);
    server
        .faults()
        .add(rule("GET", "prefix=", HASTY.attempts, Action::Truncate(0)));
    let error = client.list("").await.unwrap_err();
    assert!(matches!(error, S3Error::Interrupted { .. }), "{error}");
    server.faults().clear();
    assert_eq!(client.list("").await.unwrap().len(), 1);
}
