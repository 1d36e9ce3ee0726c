//! The daily comparison of a copy after its push: a repository of the real `borg`, the strict double, and what is remembered
//! and said of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "../../offsite/tests/support/mod.rs"]
mod far;
mod support;

use std::fs;

use far::{Gpg, HASTY, client, credentials, server, target};
use s3_double::Server;
use strongroom_model::condition::{ConditionId, Severity};
use strongroom_model::copy_check::{PERIOD, decide};
use strongroom_model::name::TargetName;
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::{Payload, system_clock};
use strongroom_offsite::{Encryption, Limits, PushRequest, Tuning, VerifyRequest, push};
use strongroom_supervisor::offsite::copy_check::{after_push, read};
use support::repository::Appliance;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;

/// A first backup, its owner, and where its copy goes.
struct Scene {
    appliance: Appliance,
    gpg: Gpg,
    _store: TempDir,
    server: Server,
    at: TargetName,
    tuning: Tuning,
}

impl Scene {
    async fn new() -> Self {
        let appliance = Appliance::new("none");
        appliance.write("a", 300_000, 1);
        appliance.create("one");
        let gpg = Gpg::new();
        gpg.generate("owner", "future-default", "0", "");
        let store = tempfile::tempdir().unwrap();
        Self {
            appliance,
            gpg,
            server: server(store.path(), |_| {}).await,
            _store: store,
            at: TargetName::new("double").unwrap(),
            tuning: Tuning {
                retry: HASTY,
                clock: system_clock(),
            },
        }
    }

    fn request(&self, now: u64) -> PushRequest {
        PushRequest {
            repository: self.appliance.repository(),
            target: target(&self.server, "plain"),
            credentials: credentials("ALL"),
            recipients: vec![self.gpg.export("owner")],
            encryption: Encryption::Auto,
            signer: None,
            limits: Limits::default(),
            retirement: Rules::default(),
            ledger: self.appliance.paths.ledger(&self.appliance.name, &self.at),
            now,
        }
    }
}

#[tokio::test]
async fn a_copy_is_compared_daily_and_what_is_gone_is_sent_again() {
    let scene = Scene::new().await;
    let Scene {
        appliance,
        gpg,
        server,
        at,
        tuning,
        ..
    } = &scene;
    let (paths, name) = (&appliance.paths, &appliance.name);
    let request = |now| scene.request(now);
    let compared = |who: &str| VerifyRequest {
        target: target(server, "plain"),
        credentials: credentials(who),
        ledger: paths.ledger(name, at),
        turn: 0,
    };
    let after = async |who: &str, now: u64| {
        after_push(paths, name, at, &compared(who), tuning, now).await.unwrap();
        read(paths, name, at).unwrap()
    };
    let told = |now| {
        let check = read(paths, name, at).unwrap();
        let told = decide(name, at, &check, Some(now));
        told.into_iter().map(|c| (c.id, c.severity)).collect::<Vec<_>>()
    };
    assert_eq!(read(paths, name, at), None);
    let report = push(&request(NOW), tuning, &mut |_| {}).await.unwrap();
    let good = after("ALL", NOW).await;
    assert_eq!(
        (good.since, good.at, good.objects),
        (NOW, Some(NOW), report.total_objects)
    );
    assert_eq!((good.damaged(), good.foreign.count, told(NOW)), (0, 0, vec![]));

    // Somebody deletes a segment and the manifest, overwrites another segment, and leaves something.
    let far = client(&target(server, "plain"), "ALL");
    let manifest = format!("manifest/{}.json.gpg", report.transaction);
    for gone in ["data/0/0.gpg", &manifest] {
        far.delete(&format!("asus_home/{gone}")).await.unwrap();
    }
    for key in ["asus_home/data/0/1.gpg", "asus_home/holiday.jpg"] {
        let bytes: &'static [u8] = b"overwritten";
        far.put_once(key, bytes.into(), &Payload::of(bytes)).await.unwrap();
    }
    // Not twice a day.
    assert_eq!(after("ALL", NOW + PERIOD - 1).await, good);
    let later = NOW + PERIOD;
    assert!(push(&request(later), tuning, &mut |_| {}).await.unwrap().nothing_to_do);
    let bad = after("ALL", later).await;
    assert_eq!((bad.since, bad.at), (NOW, Some(later)));
    let some: Vec<&str> = bad.lost.some.iter().map(|name| name.as_str()).collect();
    assert_eq!(
        (bad.lost.count, some),
        (3, vec![manifest.as_str(), "data/0/0.gpg", "data/0/1.gpg"])
    );
    assert_eq!((bad.altered.count, bad.foreign.count), (0, 1));
    let both = [
        (ConditionId::CopyDamaged, Severity::Alarm),
        (ConditionId::CopyForeign, Severity::Warning),
    ];
    assert_eq!(told(later), both);

    // The next push, at any time, mends it; what was overwritten is left alone, and is of the past.
    let report = push(&request(later + 60), tuning, &mut |_| {}).await.unwrap();
    assert!(!report.nothing_to_do);
    let mended = after("ALL", later + 60).await;
    assert_eq!((mended.damaged(), mended.objects), (0, good.objects));
    assert_eq!(told(later + 60), [(ConditionId::CopyForeign, Severity::Warning)]);
    far.delete("asus_home/holiday.jpg").await.unwrap();
    assert!(
        push(&request(later + 120), tuning, &mut |_| {})
            .await
            .unwrap()
            .nothing_to_do
    );
    assert_eq!(after("ALL", later + 120).await.foreign.count, 0);
    let restored = appliance.folder.path().join("restored");
    let opener = far::opener(&gpg.export_secret("owner", ""));
    let from = strongroom_offsite::RestoreRequest::new(target(server, "plain"), credentials("ALL"), opener, restored);
    strongroom_offsite::restore(&from, tuning, &mut |_| {}).await.unwrap();
    for name in ["data/0/0", "data/0/1", "config"] {
        let here = fs::read(appliance.repository().join(name)).unwrap();
        assert!(fs::read(from.destination.join(name)).unwrap() == here, "{name}");
    }

    // A key that may not list: it is told after a week, and not before.
    let refused = after("CREATE", later + 2 * PERIOD).await;
    assert!(
        refused.failing.as_ref().unwrap().error.as_str().contains("may not"),
        "{refused:?}"
    );
    assert_eq!(refused.at, Some(later + 120));
    assert_eq!(told(later + 2 * PERIOD), []);
    let week = later + 2 * PERIOD + 8 * 24 * 3600;
    after("CREATE", week).await;
    assert_eq!(told(week), [(ConditionId::CopyUnverified, Severity::Warning)]);
    assert_eq!(after("ALL", week).await.failing, None);
}

/// A segment that is to be sent again is first compared with what was sent, whatever its time says.
#[tokio::test]
async fn what_was_lost_is_not_replaced_by_something_else() {
    let scene = Scene::new().await;
    let (appliance, tuning) = (&scene.appliance, &scene.tuning);
    let request = scene.request(NOW);
    push(&request, tuning, &mut |_| {}).await.unwrap();
    let folder = appliance.repository().join("data/0");
    let segments = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let path = segments
        .filter(|path| fs::metadata(path).unwrap().len() > 300_000)
        .max()
        .unwrap();
    let object = format!("data/0/{}.gpg", path.file_name().unwrap().to_str().unwrap());
    strongroom_offsite::ledger::lose(&request.ledger, vec![object]).unwrap();
    let good = fs::read(&path).unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
    };
    let mut damaged = good.clone();
    damaged[150_000] ^= 1;
    write(&damaged);
    let error = push(&request, tuning, &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(error, strongroom_offsite::PushError::SegmentAltered { .. }),
        "{error}"
    );
    write(&good);
    assert!(!push(&request, tuning, &mut |_| {}).await.unwrap().nothing_to_do);
}
