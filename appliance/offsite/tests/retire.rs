//! What nothing needs any more goes when it may, and never what something needs: against the strict double.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use s3_double::{Action, Rule, Server, Settings};
use strongroom_borg::SegmentNumber;
use strongroom_offsite::layout::parse_manifest;
use strongroom_offsite::ledger::read_summary;
use strongroom_offsite::openpgp::{Signer, generate};
use strongroom_offsite::retire::{DAY, KEEP_NEWEST, Retirement, Rules};
use strongroom_offsite::s3::system_clock;
use strongroom_offsite::{
    Encryption, Limits, PushReport, PushRequest, RestoreRequest, Tuning, VerifyRequest, push, restore, verify,
};
use support::{Gpg, HASTY, client, credentials, noise, opener, server, target};

const ACT: Rules = Rules {
    act: true,
    minimum_age_days: 0,
    keep_days: 30,
};

fn tuning() -> Tuning {
    Tuning {
        retry: HASTY,
        clock: system_clock(),
    }
}

struct Scene {
    dir: tempfile::TempDir,
    bucket: &'static str,
    retention: Option<Duration>,
    server: Server,
    who: &'static str,
    public: Vec<u8>,
    secret: Vec<u8>,
    signer: Option<Signer>,
    rules: Rules,
    /// Added to the machine's clock.
    later: u64,
    segments: u32,
}

impl Scene {
    async fn new(bucket: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gpg = Gpg::new();
        gpg.generate("owner", "future-default", "0", "");
        let repository = dir.path().join("repository/data/0");
        fs::create_dir_all(&repository).unwrap();
        let config = format!("[repository]\nversion = 1\nid = {}\n", "ab".repeat(32));
        fs::write(dir.path().join("repository/config"), config).unwrap();
        let mut scene = Self {
            server: server(&dir.path().join("store"), |_| {}).await,
            bucket,
            retention: None,
            who: "ALL",
            public: gpg.export("owner"),
            secret: gpg.export_secret("owner", ""),
            signer: Some(Signer::parse(generate::signer("an appliance").unwrap().secret.as_bytes()).unwrap()),
            rules: ACT,
            later: 0,
            segments: 0,
            dir,
        };
        scene.segment(&noise(70_000, 1));
        scene
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("repository/data/0/{number}"))
    }

    fn segment(&mut self, bytes: &[u8]) {
        let all = [strongroom_borg::segment::MAGIC.as_slice(), bytes].concat();
        fs::write(self.path(self.segments), all).unwrap();
        self.segments += 1;
    }

    /// A backup: a segment, and a commit.
    fn backup(&mut self) {
        self.segment(&noise(1000, u64::from(self.segments) + 2));
        self.segment(strongroom_borg::segment::COMMIT.as_slice());
    }

    /// Days pass: all that is stored is so much older.
    async fn days(&mut self, days: u64) {
        let store = self.dir.path().join("store");
        for entry in fs::read_dir(store.join(self.bucket)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "meta") {
                let mut meta: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                meta["modified"] = (meta["modified"].as_u64().unwrap() - days * DAY * 1000).into();
                fs::write(&path, serde_json::to_vec(&meta).unwrap()).unwrap();
            }
        }
        self.restart(&store).await;
    }

    async fn restart(&mut self, store: &Path) {
        let retention = self.retention;
        self.server = server(store, |settings: &mut Settings| settings.retention = retention).await;
    }

    fn request(&self) -> PushRequest {
        PushRequest {
            repository: self.dir.path().join("repository"),
            target: target(&self.server, self.bucket),
            credentials: credentials(self.who),
            recipients: vec![self.public.clone()],
            encryption: Encryption::Auto,
            signer: self.signer.clone(),
            limits: Limits::default(),
            retirement: self.rules,
            ledger: self.dir.path().join("ledger"),
            now: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + self.later,
        }
    }

    async fn push(&self) -> PushReport {
        push(&self.request(), &tuning(), &mut |_| {}).await.unwrap()
    }

    async fn retirement(&self) -> Retirement {
        self.push().await.retirement.unwrap()
    }

    async fn objects(&self) -> BTreeSet<String> {
        let target = target(&self.server, self.bucket);
        let listed = client(&target, "ALL").list("").await.unwrap();
        listed
            .into_iter()
            .map(|listed| target.object(&listed.key).unwrap().to_owned())
            .collect()
    }

    /// The states that are there; each is restored, byte for byte where the repository still has the segment.
    async fn states(&self) -> Vec<u32> {
        let objects = self.objects().await;
        let mut states: Vec<SegmentNumber> = objects
            .iter()
            .filter_map(|object| Some(parse_manifest(object)?.0))
            .collect();
        states.sort_unstable();
        for state in &states {
            let to = tempfile::tempdir().unwrap();
            let (from, into) = (target(&self.server, self.bucket), to.path().join("restored"));
            let request = RestoreRequest {
                transaction: Some(*state),
                signer: self.signer.as_ref().map(Signer::fingerprint),
                archive_poll: Duration::from_millis(20),
                ..RestoreRequest::new(from, credentials("ALL"), opener(&self.secret), into.clone())
            };
            let report = restore(&request, &tuning(), &mut |_| {}).await.unwrap();
            assert!(report.files > 2);
            for number in 0..=state.0 {
                let restored = fs::read(into.join(format!("data/0/{number}")));
                if let (Ok(restored), Ok(here)) = (restored, fs::read(self.path(number))) {
                    assert!(restored == here, "{number}");
                }
            }
        }
        states.into_iter().map(|state| state.0).collect()
    }
}

/// A copy of five states, of which the first alone has the first segment; all of it 40 days old.
async fn old_copy(bucket: &'static str) -> Scene {
    let mut scene = Scene::new(bucket).await;
    scene.backup();
    scene.push().await;
    fs::remove_file(scene.path(0)).unwrap();
    for _ in 0..4 {
        scene.backup();
        scene.push().await;
    }
    scene.days(40).await;
    scene
}

#[tokio::test]
async fn what_a_compaction_freed_goes_when_it_is_old() {
    for bucket in ["plain", "vault"] {
        let mut scene = old_copy(bucket).await;
        let before = scene.objects().await;
        assert!(before.contains("data/0/0.gpg"));
        scene.backup();
        let done = scene.retirement().await;
        // The first three states; the fourth was the newest 30 days ago.
        assert_eq!(scene.states().await, [8, 10, 12][..KEEP_NEWEST], "{bucket}");
        let after = scene.objects().await;
        let gone: Vec<&String> = before.difference(&after).collect();
        assert_eq!(
            gone.len(),
            10,
            "three manifests with sums and signatures, one segment: {gone:?}"
        );
        assert!(gone.iter().any(|object| *object == "data/0/0.gpg"));
        assert_eq!(done.retired.objects, 10);
        assert!(done.retired.bytes > 70_000, "{done:?}");
        assert_eq!((done.free.objects, done.hindered.as_str()), (0, ""));
        let summary = read_summary(&scene.request().ledger).unwrap().unwrap();
        assert_eq!(
            (summary.retired_bytes, summary.retirement),
            (done.retired.bytes, Some(done))
        );

        // Nothing more, and no request before the next day.
        let again = scene.push().await;
        assert!(again.nothing_to_do && again.retirement.is_none());
        scene.later = DAY;
        assert_eq!(scene.retirement().await.retired.objects, 0);
        let request = VerifyRequest {
            target: target(&scene.server, bucket),
            credentials: credentials("ALL"),
            ledger: scene.request().ledger,
            turn: 0,
        };
        let compared = verify(&request, &tuning()).await.unwrap();
        assert!(
            compared.missing.is_empty() && compared.foreign.is_empty(),
            "{compared:?}"
        );
    }
}

#[tokio::test]
async fn it_is_only_told_where_it_is_not_wanted_or_too_early() {
    let mut scene = old_copy("plain").await;
    scene.backup();
    scene.rules = Rules { act: false, ..ACT };
    let _ = scene.server.faults().take_log();
    let told = scene.retirement().await;
    assert_eq!((told.retired.objects, told.free.objects), (0, 10));
    // The tier's minimum.
    scene.later = DAY;
    scene.rules = Rules {
        minimum_age_days: 90,
        ..ACT
    };
    let early = scene.retirement().await;
    assert_eq!((early.retired.objects, early.free.objects), (0, 0));
    assert_eq!(early.waiting.objects, 1);
    let waits = early.next.unwrap() - early.at;
    assert!((48 * DAY..51 * DAY).contains(&waits), "{waits}");
    let deletes = scene.server.faults().take_log();
    assert!(!deletes.iter().any(|line| line.starts_with("DELETE")));
}

#[tokio::test]
async fn what_may_not_be_deleted_is_told_and_tried_again() {
    // Credentials that may only add, and those that can't even look.
    let mut scene = old_copy("plain").await;
    for (who, why) in [("LOOK", "may not do this"), ("CREATE", "may not do this")] {
        scene.who = who;
        scene.backup();
        let before = scene.objects().await;
        let refused = scene.retirement().await;
        assert!(refused.hindered.contains(why), "{who}: {refused:?}");
        assert_eq!(refused.retired.objects, 0);
        assert!(scene.objects().await.is_superset(&before));
    }
    // A retention rule that is not over yet; later it is.
    scene.who = "ALL";
    scene.retention = Some(Duration::from_secs(90 * DAY));
    scene.restart(&scene.dir.path().join("store")).await;
    scene.backup();
    let refused = scene.retirement().await;
    assert!(refused.hindered.contains("retention rule"), "{refused:?}");
    assert_eq!(refused.retired.objects, 0);
    assert!(refused.free.bytes > 70_000);
    let all = scene.states().await.len();
    scene.days(60).await;
    scene.backup();
    // Some are old enough for it by now: these go, and what no other needs.
    let some = scene.retirement().await;
    assert!(some.hindered.contains("retention rule"), "{some:?}");
    assert!(some.retired.bytes > 70_000, "{some:?}");
    assert!(scene.states().await.len() < all);
    assert!(!scene.objects().await.contains("data/0/0.gpg"));
    // Who says how long the rule is, is refused nothing.
    scene.rules.minimum_age_days = 90;
    scene.later = DAY;
    assert_eq!(scene.retirement().await.hindered, "");
    // What is not signed could be anybody's.
    scene.signer = None;
    scene.backup();
    let unsigned = scene.retirement().await;
    assert!(unsigned.hindered.contains("not signed"), "{unsigned:?}");
}

/// The connection is gone after each of its requests, for good; then all is as if it had never been.
#[tokio::test]
async fn a_retirement_that_dies_anywhere_is_brought_to_its_end() {
    let mut scene = old_copy("plain").await;
    scene.backup();
    scene.rules.act = false;
    scene.push().await;
    scene.rules.act = true;
    scene.later = DAY;
    let (store, ledger) = (scene.dir.path().join("store"), scene.request().ledger);
    let [old_store, old_ledger] = ["old-store", "old-ledger"].map(|name| scene.dir.path().join(name));
    copy(&store, &old_store);
    copy(&ledger, &old_ledger);
    let mut wanted = None;
    let mut died = 0;
    for action in [Action::Cut, Action::DropAnswer] {
        for skip in 0.. {
            for (from, to) in [(&old_store, &store), (&old_ledger, &ledger)] {
                fs::remove_dir_all(to).unwrap();
                copy(from, to);
            }
            scene.restart(&store).await;
            scene.later = DAY;
            for (times, action) in [(1, action), (u32::MAX, Action::Cut)] {
                scene.server.faults().add(Rule {
                    method: None,
                    contains: String::new(),
                    skip,
                    times,
                    action,
                });
            }
            let cut = scene.retirement().await;
            scene.server.faults().clear();
            let states = scene.states().await;
            assert!(states.len() >= KEEP_NEWEST, "{states:?}");
            scene.later = 2 * DAY;
            let rest = scene.retirement().await;
            assert_eq!((rest.hindered.as_str(), rest.free.objects), ("", 0), "{rest:?}");
            let left = scene.objects().await;
            assert_eq!(wanted.get_or_insert_with(|| left.clone()), &left);
            if cut.hindered.is_empty() {
                break;
            }
            died += 1;
        }
    }
    assert!(died > 10, "{died}");
}

/// The ledger is lost: what older states name is not known any more, so they go first.
#[tokio::test]
async fn after_the_ledger_was_lost_it_goes_on_with_care() {
    let mut scene = old_copy("plain").await;
    fs::remove_dir_all(scene.request().ledger).unwrap();
    scene.backup();
    let first = scene.push().await;
    assert!(first.ledger_rebuilt);
    assert_eq!(scene.states().await, [8, 10, 12]);
    // Two of them are not known to do without it.
    assert!(scene.objects().await.contains("data/0/0.gpg"));
    for _ in 0..KEEP_NEWEST {
        scene.backup();
        scene.push().await;
    }
    scene.days(40).await;
    scene.backup();
    scene.push().await;
    assert!(!scene.objects().await.contains("data/0/0.gpg"));
    assert_eq!(scene.states().await, [16, 18, 20]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
