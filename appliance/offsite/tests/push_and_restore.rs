//! Pushes and restores against the strict double, with the real borg and gpg.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use s3_double::{Action, Rule, Server};
use strongroom_borg::{Repository, SegmentNumber};
use strongroom_model::config::Multipart;
use strongroom_offsite::ledger::read_summary;
use strongroom_offsite::openpgp::{Mode, Signer, generate};
use strongroom_offsite::restore::sample::sample;
use strongroom_offsite::restore::survey::{self, Estimate};
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::{S3Error, system_clock};
use strongroom_offsite::{
    Consent, Encryption, Gpg as OwnersGpg, Limits, Opener, Phase, Progress, PushError, PushReport, PushRequest,
    RestoreError, RestoreRequest, Signed, Target, Tuning, VerifyError, VerifyRequest, push, restore, restore_segment,
    verify,
};
use support::{Borg, Gpg, HASTY, at, at_mut, changed, client, credentials, noise, opener, run, server, target};

const MIB: usize = 1024 * 1024;
const NOW: u64 = 1_800_000_000;

/// A push and a restore can run as tasks of any runtime.
#[allow(dead_code, reason = "it is enough that this compiles")]
fn can_be_spawned(request: PushRequest, other: RestoreRequest) {
    fn check<T: Send>(_: T) {}
    check(async move { push(&request, &Tuning::default(), &mut |_| {}).await });
    check(async move { restore(&other, &Tuning::default(), &mut |_| {}).await });
}

/// One key for all tests of this file: made by gpg, exported once.
struct Keys {
    public: Vec<u8>,
    secret: Vec<u8>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let gpg = Gpg::new();
        gpg.generate("owner", "future-default", "0", "");
        Keys {
            public: gpg.export("owner"),
            secret: gpg.export_secret("owner", ""),
        }
    })
}

/// A signing key as the appliance makes its own.
fn signer(name: &str) -> Signer {
    Signer::parse(generate::signer(name).unwrap().secret.as_bytes()).unwrap()
}

struct Scene {
    borg: Borg,
    store: tempfile::TempDir,
    server: Server,
    target: Target,
    who: &'static str,
    encryption: Encryption,
    signer: Option<Signer>,
    limits: Limits,
    rules: Rules,
    now: u64,
}

impl Scene {
    async fn new(bucket: &str) -> Self {
        let borg = Borg::new();
        let store = tempfile::tempdir().unwrap();
        let server = server(store.path(), |_| {}).await;
        let target = target(&server, bucket);
        Self {
            borg,
            store,
            server,
            target,
            who: "ALL",
            encryption: Encryption::Auto,
            signer: Some(signer("an appliance")),
            limits: Limits::default(),
            rules: Rules::default(),
            now: NOW,
        }
    }

    fn ledger(&self) -> PathBuf {
        self.borg.dir.path().join("ledger")
    }

    fn request(&self) -> PushRequest {
        PushRequest {
            repository: self.borg.repository(),
            target: self.target.clone(),
            credentials: credentials(self.who),
            recipients: vec![keys().public.clone()],
            encryption: self.encryption,
            signer: self.signer.clone(),
            limits: self.limits,
            retirement: self.rules,
            ledger: self.ledger(),
            now: self.now,
        }
    }

    async fn try_push(&mut self) -> Result<PushReport, PushError> {
        self.now += 1;
        push(&self.request(), &tuning(), &mut |_| {}).await
    }

    async fn push(&mut self) -> PushReport {
        self.try_push().await.unwrap()
    }

    fn restore_request(&self, to: &Path) -> RestoreRequest {
        RestoreRequest {
            archive_days: 1,
            archive_poll: Duration::from_millis(50),
            ..RestoreRequest::new(
                self.target.clone(),
                credentials("ALL"),
                opener(&keys().secret),
                to.to_owned(),
            )
        }
    }

    /// Restores the newest state, lets Borg check it, and compares what was archived.
    async fn restores(&self, name: &str, archive: &str) -> PathBuf {
        let to = self.borg.dir.path().join(name);
        restore(&self.restore_request(&to), &tuning(), &mut |_| {})
            .await
            .unwrap();
        self.borg.check_and_compare(&to, archive);
        to
    }

    async fn objects(&self) -> Vec<String> {
        let listed = client(&self.target, "ALL").list("").await.unwrap();
        listed
            .into_iter()
            .map(|listed| self.target.object(&listed.key).unwrap().to_owned())
            .collect()
    }

    fn log(&self) -> Vec<String> {
        self.server.faults().take_log()
    }

    fn writes(&self) -> Vec<String> {
        self.log()
            .into_iter()
            .filter(|line| line.starts_with(['P', 'D']))
            .collect()
    }

    fn fault(&self, method: &'static str, contains: &str, skip: u32, times: u32, action: Action) {
        self.server.faults().add(Rule {
            method: Some(method),
            contains: contains.into(),
            skip,
            times,
            action,
        });
    }
}

fn tuning() -> Tuning {
    Tuning {
        retry: HASTY,
        clock: system_clock(),
    }
}

#[tokio::test]
async fn full_incremental_and_nothing_to_do() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("big", &noise(30 * MIB, 1));
    scene.borg.file("small", b"hello");
    scene.borg.create("one");
    let mut steps: Vec<Progress> = Vec::new();
    let report = push(&scene.request(), &tuning(), &mut |step| steps.push(step))
        .await
        .unwrap();
    assert!(!report.nothing_to_do && !report.ledger_rebuilt);
    let state = Repository::open(scene.borg.repository())
        .unwrap()
        .state(report.transaction)
        .unwrap();
    // Segments and config; with the manifest, its sums, their signature, the signer's certificate and the instructions
    // these are all objects.
    assert_eq!(report.total_objects, state.len() as u64 + 1);
    assert_eq!(report.objects, report.total_objects + 5);
    let objects = scene.objects().await;
    assert_eq!(objects.len() as u64, report.objects);
    assert!(objects.contains(&"data/0/0.gpg".to_owned()) && objects.contains(&"RECOVERY.txt".to_owned()));
    assert!(
        scene.writes().iter().any(|line| line.contains("partNumber=3")),
        "the large one went in parts"
    );
    assert_eq!(steps.last().unwrap().phase, Phase::Done);
    assert!(
        steps
            .windows(2)
            .all(|pair| pair[1].phase == Phase::Done || pair[0].bytes_done <= pair[1].bytes_done)
    );
    let summary = read_summary(&scene.ledger()).unwrap().unwrap();
    assert_eq!((summary.transaction, summary.published_at), (report.transaction, NOW));

    let again = scene.push().await;
    assert!(again.nothing_to_do);
    assert_eq!((again.objects, again.bytes), (0, 0));
    assert!(
        scene.server.faults().take_log().is_empty(),
        "nothing to do needs no request at all"
    );
    let summary = read_summary(&scene.ledger()).unwrap().unwrap();
    assert_eq!((summary.at, summary.published_at), (NOW + 1, NOW));

    scene.borg.file("more", &noise(MIB, 2));
    scene.borg.create("two");
    scene.borg.borg(&["prune", "--keep-last", "1", "repository"]);
    let next = scene.push().await;
    assert!(next.transaction > report.transaction);
    assert!(next.bytes < 2 * MIB as u64, "only what is new: {}", next.bytes);
    scene.restores("restored", "two").await;
    // An older state is still there.
    let to = scene.borg.dir.path().join("older");
    let request = RestoreRequest {
        transaction: Some(report.transaction),
        ..scene.restore_request(&to)
    };
    let restored = restore(&request, &tuning(), &mut |_| {}).await.unwrap();
    assert_eq!((restored.transaction, restored.without_sum), (report.transaction, 0));
    scene.borg.check_and_compare(&to, "one");
    // The restored repository is the original, byte for byte.
    for segment in state {
        let [a, b] = [scene.borg.repository(), to.clone()].map(|r| fs::read(r.join(&segment.name)).unwrap());
        assert!(a == b, "{}", segment.name);
    }
    assert!(matches!(
        restore(&request, &tuning(), &mut |_| {}).await,
        Err(RestoreError::NotEmpty { .. })
    ));
}

/// Each object says itself how it is encrypted, so a bucket may hold both kinds.
#[tokio::test]
async fn the_encryption_may_change_between_pushes() {
    let mut scene = Scene::new("plain").await;
    scene.encryption = Encryption::Always(Mode::Ocb);
    scene.borg.file("a", &noise(20 * MIB, 1));
    scene.borg.create("one");
    scene.push().await;
    let first_packets = |scene: &Scene, name: &str| {
        let path = scene
            .store
            .path()
            .join(format!("plain/asus_home%2Fdata%2F0%2F{name}.gpg.data"));
        fs::read(path).unwrap()
    };
    let gpg = Gpg::new();
    gpg.run(&[
        "--import",
        write(&scene, "secret.asc", &keys().secret).to_str().unwrap(),
    ]);
    let segment = fs::read(scene.borg.repository().join("data/0/1")).unwrap();
    assert!(gpg.decrypt(&first_packets(&scene, "1")).unwrap() == segment);
    scene.restores("restored", "one").await;

    scene.encryption = Encryption::Always(Mode::Cfb);
    scene.borg.file("b", &noise(MIB, 2));
    scene.borg.create("two");
    scene.push().await;
    scene.restores("both", "two").await;
    // The ledger is lost, and the sums can't be read: sizes tell, whichever kind it is.
    fs::remove_dir_all(scene.ledger()).unwrap();
    scene.fault("GET", "SHA256SUMS", 0, 1, Action::Status(403));
    let again = scene.push().await;
    assert_eq!(again.taken_on + 1, again.total_objects);
    scene.restores("blind", "two").await;
}

fn write(scene: &Scene, name: &str, bytes: &[u8]) -> PathBuf {
    let path = scene.borg.dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn what_is_not_committed_stays_here() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(MIB, 3));
    scene.borg.create("one");
    let top = Repository::open(scene.borg.repository())
        .unwrap()
        .last_commit()
        .unwrap()
        .unwrap()
        .transaction;
    // As a killed client leaves it: segments without a commit, the last one torn.
    let directory = scene.borg.repository().join("data/0");
    fs::write(
        directory.join((top.0 + 1).to_string()),
        [b"BORG_SEG".as_slice(), &noise(5000, 4)].concat(),
    )
    .unwrap();
    let report = scene.push().await;
    assert_eq!(report.transaction, top);
    assert!(
        !scene
            .objects()
            .await
            .iter()
            .any(|o| o.contains(&format!("/{}.", top.0 + 1)))
    );
    scene.restores("restored", "one").await;
    // The number is then used again by the next client.
    fs::remove_file(directory.join((top.0 + 1).to_string())).unwrap();
    scene.borg.create("two");
    scene.push().await;
    scene.restores("again", "two").await;
}

#[tokio::test]
async fn an_altered_segment_is_an_alarm() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(MIB, 3));
    scene.borg.create("one");
    scene.push().await;
    let segment = scene.borg.repository().join("data/0/0");
    let good = fs::read(&segment).unwrap();
    // Touched but equal: fine, and remembered.
    fs::write(&segment, &good).unwrap();
    assert!(scene.push().await.nothing_to_do);
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&segment, &bad).unwrap();
    let _ = scene.writes();
    let zero = SegmentNumber(0);
    let altered = |error| matches!(error, PushError::SegmentAltered { segment, .. } if segment == zero);
    assert!(altered(scene.try_push().await.unwrap_err()));
    fs::write(&segment, [good.as_slice(), b"x"].concat()).unwrap();
    assert!(altered(scene.try_push().await.unwrap_err()));
    assert!(scene.writes().is_empty());
    fs::write(&segment, &good).unwrap();
    scene.borg.create("two");
    scene.push().await;
}

/// What the appliance's own jobs leave: segments that are gone, and segments under numbers that no segment ever had.
#[tokio::test]
async fn a_compaction_and_a_rollback_are_new_states_beside_the_old_ones() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(2 * MIB, 3));
    scene.borg.create("one");
    let first = scene.push().await;
    fs::remove_file(scene.borg.dir.path().join("files/a")).unwrap();
    scene.borg.file("b", &noise(MIB, 4));
    scene.borg.create("two");
    scene.borg.borg(&["delete", "repository::one"]);
    scene.push().await;
    let before = scene.objects().await;
    scene.borg.borg(&["config", "repository", "append_only", "0"]);
    scene.borg.borg(&["compact", "repository"]);
    scene.borg.borg(&["config", "repository", "append_only", "1"]);
    let compacted = scene.push().await;
    assert!(compacted.total_bytes < first.total_bytes);
    let objects = scene.objects().await;
    assert!(
        before.iter().all(|object| objects.contains(object)),
        "nothing is deleted"
    );
    scene.restores("compacted", "two").await;

    // A rollback: what came after is gone, and a commit lies above all numbers that there ever were.
    scene.borg.create("three");
    let undone = scene.push().await;
    let data = scene.borg.repository().join("data/0");
    for number in compacted.transaction.0 + 1..=undone.transaction.0 {
        fs::remove_file(data.join(number.to_string())).unwrap();
    }
    // With it goes what Borg derived from it.
    for start in ["index", "hints", "integrity"] {
        let name = format!("{start}.{}", undone.transaction);
        fs::remove_file(scene.borg.repository().join(name)).unwrap();
    }
    let went_back = scene.try_push().await.unwrap_err();
    assert!(matches!(went_back, PushError::WentBack { .. }), "{went_back}");
    let seal = [
        strongroom_borg::segment::MAGIC.as_slice(),
        strongroom_borg::segment::COMMIT,
    ]
    .concat();
    fs::write(data.join((undone.transaction.0 + 1).to_string()), seal).unwrap();
    let back = scene.push().await;
    assert_eq!(back.transaction.0, undone.transaction.0 + 1);
    scene.restores("back", "two").await;
    // The ledger is lost: what is there is taken on, and the next segments have names of their own.
    fs::remove_dir_all(scene.ledger()).unwrap();
    fs::remove_dir_all(scene.borg.dir.path().join("base")).unwrap();
    scene.borg.file("c", &noise(MIB, 5));
    scene.borg.create("four");
    let last = scene.push().await;
    assert!(last.ledger_rebuilt && last.bytes < 3 * MIB as u64, "{last:?}");
    scene.restores("last", "four").await;
    // And every state before is where it was.
    for (state, archive) in [(first, "one"), (undone, "three")] {
        let to = scene.borg.dir.path().join(format!("state-{}", state.transaction));
        let request = RestoreRequest {
            transaction: Some(state.transaction),
            ..scene.restore_request(&to)
        };
        restore(&request, &tuning(), &mut |_| {}).await.unwrap();
        let path = to.to_str().unwrap();
        let base = scene.borg.dir.path().join(format!("base-{archive}"));
        let output = run(scene.borg.command(base.to_str().unwrap()).args([
            "extract",
            "--dry-run",
            &format!("{path}::{archive}"),
        ]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Lets every nth request of a push fail for good, as a power cut would, then pushes again.
#[tokio::test]
async fn a_push_that_dies_anywhere_can_be_repeated() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(MIB, 3));
    scene.borg.create("one");
    scene.push().await;
    let previous = scene.objects().await;
    scene.borg.file("big", &noise(14 * MIB, 5));
    scene.borg.create("two");
    let pristine = scene.borg.dir.path().join("pristine");
    copy(scene.store.path(), &pristine);
    let ledger = scene.borg.dir.path().join("ledger-pristine");
    copy(&scene.ledger(), &ledger);
    let mut died = 0;
    for action in [Action::Cut, Action::DropAnswer] {
        for skip in 0.. {
            // Back to the start: the double keeps its objects in files.
            fs::remove_dir_all(scene.ledger()).unwrap();
            copy(&ledger, &scene.ledger());
            let store = tempfile::tempdir().unwrap();
            copy(&pristine, store.path());
            scene.server = server(store.path(), |_| {}).await;
            scene.store = store;
            at_mut(&mut scene.target).endpoint = scene.server.endpoint();

            // The request does (not) reach the server, and from then on nothing does, so that no
            // clean-up is possible either.
            let mut rule = Rule {
                method: None,
                contains: String::new(),
                skip,
                times: 1,
                action,
            };
            scene.server.faults().add(rule.clone());
            rule = Rule {
                times: u32::MAX,
                action: Action::Cut,
                ..rule
            };
            scene.server.faults().add(rule);
            let Err(error) = scene.try_push().await else { break };
            died += 1;
            assert!(matches!(error, PushError::Target { .. }), "{error}");
            scene.server.faults().clear();
            let present = scene.objects().await;
            assert!(previous.iter().all(|object| present.contains(object)));

            scene.push().await;
            assert!(
                client(&scene.target, "ALL")
                    .list_multipart("")
                    .await
                    .unwrap()
                    .is_empty()
            );
            let to = scene.borg.dir.path().join(format!("after-{died}"));
            let restored = restore(&scene.restore_request(&to), &tuning(), &mut |_| {})
                .await
                .unwrap();
            assert_eq!(restored.without_sum, 0);
            let fingerprint = scene.signer.as_ref().unwrap().fingerprint();
            assert_eq!(restored.signed, Signed::ByUnknown { fingerprint });
            // Borg looks at some of them; hashes were compared for all.
            if skip % 8 == 0 {
                scene.borg.check_and_compare(&to, "two");
            }
            fs::remove_dir_all(to).unwrap();
        }
    }
    assert!(died > 20, "{died}");
}

/// A push whose process is gone: its future is dropped in the middle of an upload.
#[tokio::test]
async fn a_push_that_is_dropped_can_be_repeated() {
    let mut scene = Scene::new("plain").await;
    let store = tempfile::tempdir().unwrap();
    scene.server = server(store.path(), |settings| settings.bandwidth = Some(20 * MIB as u64)).await;
    at_mut(&mut scene.target).endpoint = scene.server.endpoint();
    scene.borg.file("big", &noise(40 * MIB, 6));
    scene.borg.create("one");
    let request = scene.request();
    let (sender, mut steps) = tokio::sync::mpsc::unbounded_channel();
    {
        let tuning = tuning();
        let mut on_progress = |step: Progress| sender.send(step.bytes_done).unwrap();
        let running = push(&request, &tuning, &mut on_progress);
        let middle = async { while steps.recv().await.unwrap() < 13 * MIB as u64 {} };
        tokio::select! {
            _ = running => panic!("it was to be dropped"),
            () = middle => {}
        }
    }
    assert_eq!(client(&scene.target, "ALL").list_multipart("").await.unwrap().len(), 1);
    scene.push().await;
    assert!(
        client(&scene.target, "ALL")
            .list_multipart("")
            .await
            .unwrap()
            .is_empty()
    );
    scene.restores("restored", "one").await;
}

#[tokio::test]
async fn credentials_that_may_only_create() {
    for who in ["CREATE", "LOOK"] {
        let mut scene = Scene::new("plain").await;
        scene.who = who;
        at_mut(&mut scene.target).multipart = Multipart::Never;
        scene.borg.file("big", &noise(20 * MIB, 7));
        scene.borg.create("one");
        // The first attempt arrives, but its answer is lost; the large one breaks half-way.
        scene.fault("PUT", "data/0/1.gpg", 0, 1, Action::DropAnswer);
        scene.fault("PUT", "data/0/2.gpg", 0, 1, Action::CutAfter(5 * MIB as u64));
        scene.push().await;
        assert!(
            !scene
                .writes()
                .iter()
                .any(|line| line.contains("upload") || line.starts_with('D')),
            "{who}"
        );
        assert!(scene.push().await.nothing_to_do);
        scene.borg.create("two");
        scene.push().await;
        scene.restores("restored", "two").await;

        // Killed between the manifest and the ledger: the next push cannot look, and takes another name.
        scene.borg.create("three");
        scene.fault("PUT", "json.gpg", 0, 1, Action::DropAnswer);
        scene.fault("HEAD", "json.gpg", 1, 100, Action::Cut);
        scene.fault("PUT", "json.gpg", 0, 100, Action::Cut);
        let first = scene.try_push().await;
        assert!(first.is_err(), "{who}: {first:?}");
        scene.server.faults().clear();
        scene.push().await;
        scene.restores("third", "three").await;
    }
    // Multipart where it is not permitted is refused with the reason.
    let mut scene = Scene::new("plain").await;
    scene.who = "LOOK";
    scene.borg.file("big", &noise(20 * MIB, 7));
    scene.borg.create("one");
    let error = scene.try_push().await.unwrap_err();
    assert!(
        matches!(
            &error,
            PushError::Target {
                source: S3Error::AccessDenied { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_lost_ledger_is_made_anew() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("big", &noise(20 * MIB, 8));
    scene.borg.create("one");
    let report = scene.push().await;
    let objects = scene.objects().await;

    // Lost: nothing is sent again, and the manifest with all its sums stays the newest.
    fs::remove_dir_all(scene.ledger()).unwrap();
    let again = scene.push().await;
    assert!(again.ledger_rebuilt && again.nothing_to_do, "{again:?}");
    assert_eq!(again.taken_on + 1, report.total_objects);
    assert_eq!(scene.objects().await, objects);

    // Lost, and the target cannot be reached at first.
    fs::remove_dir_all(scene.ledger()).unwrap();
    scene.fault("GET", "list-type", 0, 100, Action::Status(503));
    assert!(scene.try_push().await.is_err());
    scene.server.faults().clear();
    assert!(scene.push().await.nothing_to_do);

    // Lost, and something new: only that is sent.
    scene.borg.create("two");
    fs::remove_dir_all(scene.ledger()).unwrap();
    let next = scene.push().await;
    assert!(next.ledger_rebuilt && next.bytes < MIB as u64, "{next:?}");
    let to = scene.restores("restored", "two").await;
    assert!(to.join("README").exists());

    // Lost, with an unfinished upload and nothing readable but names and sizes.
    fs::remove_dir_all(scene.ledger()).unwrap();
    client(&scene.target, "ALL")
        .create_multipart_once("asus_home/data/0/99.gpg")
        .await
        .unwrap();
    scene.fault("GET", "SHA256SUMS", 0, 1, Action::Status(403));
    let blind = scene.push().await;
    assert_eq!(blind.taken_on + 1, next.total_objects);
    assert!(
        client(&scene.target, "ALL")
            .list_multipart("")
            .await
            .unwrap()
            .is_empty()
    );
    scene.restores("blind", "two").await;

    // Lost, and another repository is there now.
    fs::remove_dir_all(scene.ledger()).unwrap();
    fs::remove_dir_all(scene.borg.repository()).unwrap();
    scene.borg.borg(&["init", "--encryption=none", "repository"]);
    assert!(matches!(scene.try_push().await, Err(PushError::Ledger(_))));
}

/// Puts an object into a bucket, as somebody else could.
async fn put_into(target: &Target, object: &str, bytes: Vec<u8>) {
    let bytes = bytes::Bytes::from(bytes);
    let payload = strongroom_offsite::s3::Payload::of(&bytes);
    client(target, "ALL")
        .put_once(&target.key(object), bytes, &payload)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lost_ledger_is_made_anew_of_what_was_signed_here() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(MIB, 8));
    scene.borg.create("one");
    let t = scene.push().await.transaction;
    let read = |object: String| {
        let target = scene.target.clone();
        async move {
            client(&target, "ALL")
                .get_small(&target.key(&object), 1 << 20)
                .await
                .unwrap()
        }
    };
    let [manifest, sums, signature] = [
        read(format!("manifest/{t}.json.gpg")).await,
        read(format!("manifest/{t}.SHA256SUMS")).await,
        read(format!("manifest/{t}.SHA256SUMS.asc")).await,
    ];
    // Newer ones: unsigned, signed by another, signed here but of another state, and replaced behind the sums.
    let stranger = signer("a stranger");
    let forged = String::from_utf8(sums.clone())
        .unwrap()
        .replace(&format!("manifest/{t}.json"), "manifest/903.json");
    let by_stranger = stranger.sign(forged.as_bytes()).unwrap();
    let good = forged.replace("903.json", "904.json");
    let by_us = scene.signer.as_ref().unwrap().sign(good.as_bytes()).unwrap();
    for (number, sums, signature, why) in [
        (901, sums.clone(), None, "not signed"),
        (902, sums, Some(signature), "of another one"),
        (
            903,
            forged.into_bytes(),
            Some(by_stranger.into_bytes()),
            "does not count",
        ),
        (
            904,
            good.into_bytes(),
            Some(by_us.into_bytes()),
            "not the one that was signed",
        ),
    ] {
        let mut content = manifest.clone();
        content[100] ^= 1;
        put_into(&scene.target, &format!("manifest/{number}.json.gpg"), content).await;
        put_into(&scene.target, &format!("manifest/{number}.SHA256SUMS"), sums).await;
        if let Some(signature) = signature {
            put_into(&scene.target, &format!("manifest/{number}.SHA256SUMS.asc"), signature).await;
        }
        fs::remove_dir_all(scene.ledger()).unwrap();
        let again = scene.push().await;
        assert!(again.ledger_rebuilt && again.nothing_to_do, "{again:?}");
        let newest = again.distrusted.first().unwrap();
        assert_eq!(newest.manifest, format!("manifest/{number}.json.gpg"));
        assert!(newest.why.contains(why), "{number}: {}", newest.why);
    }
    // It stands as long as one is there.
    assert_eq!(scene.push().await.distrusted.len(), 4);
    assert_eq!(read_summary(&scene.ledger()).unwrap().unwrap().distrusted.len(), 4);
    for number in 901..=904 {
        let key = scene.target.key(&format!("manifest/{number}.json.gpg"));
        client(&scene.target, "ALL").delete(&key).await.unwrap();
    }
    assert!(scene.push().await.distrusted.is_empty());

    // With another key of ours nothing that was published counts; the segments are known by their names and sizes.
    scene.signer = Some(signer("an appliance after a factory reset"));
    fs::remove_dir_all(scene.ledger()).unwrap();
    let reset = scene.push().await;
    assert!(reset.ledger_rebuilt && !reset.nothing_to_do, "{reset:?}");
    assert!(reset.bytes < MIB as u64 / 2 && reset.distrusted.is_empty(), "{reset:?}");
    let request = RestoreRequest {
        signer: Some(scene.signer.as_ref().unwrap().fingerprint()),
        ..scene.restore_request(&scene.borg.dir.path().join("reset"))
    };
    restore(&request, &tuning(), &mut |_| {}).await.unwrap();
}

#[tokio::test]
async fn names_that_are_taken_are_not_overwritten() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(MIB, 9));
    scene.borg.create("one");
    let foreign = bytes::Bytes::from_static(b"not ours");
    for object in [
        "asus_home/data/0/0.gpg",
        "asus_home/manifest/5.json.gpg",
        "asus_home/RECOVERY.txt",
    ] {
        let payload = strongroom_offsite::s3::Payload::of(&foreign);
        client(&scene.target, "ALL")
            .put_once(object, foreign.clone(), &payload)
            .await
            .unwrap();
    }
    scene.push().await;
    let read = client(&scene.target, "ALL")
        .get_small("asus_home/data/0/0.gpg", 100)
        .await
        .unwrap();
    assert_eq!(read, b"not ours");
    scene.restores("restored", "one").await;
}

#[tokio::test]
async fn refusals_leave_everything_as_it_was() {
    let mut scene = Scene::new("plain").await;
    assert!(
        scene.try_push().await.is_ok(),
        "even an empty repository has a first transaction"
    );
    scene.borg.file("a", &noise(MIB, 9));
    scene.borg.create("one");
    let good = scene.target.clone();
    at_mut(&mut scene.target).bucket = "nowhere".into();
    scene.target.prefix = String::new();
    let error = scene.try_push().await.unwrap_err();
    assert!(
        matches!(
            &error,
            PushError::Target {
                source: S3Error::NoSuchBucket { .. },
                ..
            }
        ),
        "{error}"
    );
    scene.target = good.clone();
    at_mut(&mut scene.target).region = "us-ashburn-1".into();
    let error = scene.try_push().await.unwrap_err();
    assert!(
        matches!(
            &error,
            PushError::Target {
                source: S3Error::SignatureDoesNotMatch { .. },
                ..
            }
        ),
        "{error}"
    );
    scene.target = good;
    let skewed = Tuning {
        clock: std::sync::Arc::new(|| std::time::SystemTime::now() - Duration::from_secs(3600)),
        ..tuning()
    };
    let error = push(&scene.request(), &skewed, &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(
            &error,
            PushError::Target {
                source: S3Error::ClockSkew { .. },
                ..
            }
        ),
        "{error}"
    );
    let none = PushRequest {
        recipients: vec![],
        ..scene.request()
    };
    assert!(matches!(
        push(&none, &tuning(), &mut |_| {}).await,
        Err(PushError::Recipient(_))
    ));
    let nothing = PushRequest {
        repository: scene.borg.dir.path().join("files"),
        ..scene.request()
    };
    assert!(matches!(
        push(&nothing, &tuning(), &mut |_| {}).await,
        Err(PushError::Repository(_))
    ));
    scene.push().await;
    scene.restores("restored", "one").await;

    // A key that does not fit.
    let other = Gpg::new();
    other.generate("stranger", "future-default", "0", "");
    let to = scene.borg.dir.path().join("wrong");
    let request = RestoreRequest {
        opener: opener(&other.export_secret("stranger", "")),
        ..scene.restore_request(&to)
    };
    let error = restore(&request, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, RestoreError::Open { .. }), "{error}");
}

#[tokio::test]
async fn the_archive_is_opened_for_a_restore() {
    let mut scene = Scene::new("vault").await;
    scene.borg.file("a", &noise(MIB, 10));
    scene.borg.create("one");
    scene.push().await;
    // Without the instructions, and without the manifest, its sums, their signature and the signer's certificate.
    let objects = scene.objects().await.len() as u64 - 5;
    let to = scene.borg.dir.path().join("restored");
    // Nothing is asked for before the owner agreed; the manifest, which is archived too, can't say how much it will be.
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asking = |agrees: bool| {
        let asked = asked.clone();
        RestoreRequest {
            consent: Consent::Ask(Arc::new(move |request| {
                asked.lock().unwrap().push(request.clone());
                agrees
            })),
            ..scene.restore_request(&to)
        }
    };
    let error = restore(&asking(false), &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotAgreed), "{error}");
    assert!(!scene.log().iter().any(|line| line.starts_with("POST")));
    let mut phases = Vec::new();
    restore(&asking(true), &tuning(), &mut |step| phases.push(step.phase))
        .await
        .unwrap();
    assert!(phases.contains(&Phase::Request) && phases.contains(&Phase::Wait));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "once by each of the two");
    assert!(
        asked
            .iter()
            .all(|request| (request.objects, request.at_most) == (objects + 4, true))
    );
    // The manifest with what belongs to it, and every object, each asked for once.
    let posts = scene.log().iter().filter(|line| line.starts_with("POST")).count() as u64;
    assert_eq!(posts, objects + 4);
    scene.borg.check_and_compare(&to, "one");
    // Its sums cannot be read while archived: names and sizes do.
    scene.now += 1;
    let archive = server(scene.store.path(), |settings| {
        settings.restore_delay = Duration::from_secs(1)
    })
    .await;
    at_mut(&mut scene.target).endpoint = archive.endpoint();
    fs::remove_dir_all(scene.ledger()).unwrap();
    scene.borg.create("two");
    assert!(scene.push().await.ledger_rebuilt);
}

/// An object of a copy, and what damage makes of it.
struct Damage {
    object: PathBuf,
    good: Vec<u8>,
    /// A bit, a tail, and another message of ours in its place.
    bad: [Vec<u8>; 3],
}

/// A copy, and its object of segment 2.
async fn copy_to_damage() -> (Scene, Damage) {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(MIB, 13));
    scene.borg.create("one");
    scene.push().await;
    let object = |name: &str| {
        scene
            .store
            .path()
            .join(format!("plain/asus_home%2Fdata%2F0%2F{name}.gpg.data"))
    };
    let good = fs::read(object("2")).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let damage = Damage {
        object: object("2"),
        bad: [
            flipped,
            good[..good.len() - 100].to_vec(),
            fs::read(object("1")).unwrap(),
        ],
        good,
    };
    (scene, damage)
}

/// Whether a restore says that it met damage.
fn tells_of_damage(error: &RestoreError) -> bool {
    matches!(
        error,
        RestoreError::Open { .. } | RestoreError::Mismatch { .. } | RestoreError::Target { .. }
    )
}

#[tokio::test]
async fn a_damaged_copy_is_never_restored() {
    let (scene, damage) = copy_to_damage().await;
    for (number, bad) in damage.bad.iter().enumerate() {
        fs::write(&damage.object, bad).unwrap();
        let to = scene.borg.dir.path().join(format!("bad-{number}"));
        let error = restore(&scene.restore_request(&to), &tuning(), &mut |_| {})
            .await
            .unwrap_err();
        assert!(tells_of_damage(&error), "{error}");
        assert!(!to.join("data/0/2").exists());
    }
    // Once the object is whole again, a restore that met the damage goes on.
    fs::write(&damage.object, damage.good).unwrap();
    scene.restores("bad-0", "one").await;
}

#[tokio::test]
async fn one_segment_comes_back_as_it_was_and_only_whole() {
    // From an archive too: it is asked for and waited for.
    for bucket in ["plain", "vault"] {
        let mut scene = Scene::new(bucket).await;
        scene.borg.file("big", &noise(14 * MIB, 1));
        scene.borg.create("one");
        let first = scene.push().await.transaction;
        scene.borg.file("more", &noise(MIB, 2));
        scene.borg.create("two");
        let last = scene.push().await.transaction;
        let state = Repository::open(scene.borg.repository()).unwrap().state(last).unwrap();
        let wanted: Vec<_> = state
            .iter()
            .filter(|segment| segment.size > MIB as u64 || segment.number == last)
            .collect();
        assert_eq!(wanted.len(), 3);
        let out = scene.borg.dir.path().join("segment");
        let into = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&out)
            .unwrap();
        let request = scene.restore_request(&out);
        let mut phases = Vec::new();
        for segment in wanted {
            let report = restore_segment(&request, segment.number, &into, &tuning(), &mut |step| {
                phases.push(step.phase)
            })
            .await
            .unwrap();
            let original = fs::read(scene.borg.repository().join(&segment.name)).unwrap();
            assert!(fs::read(&out).unwrap() == original, "{} is another", segment.name);
            assert_eq!(
                (report.transaction, report.bytes, report.known),
                (last, segment.size, true)
            );
            assert_eq!(report.sha256.to_string(), sha256sum(&out));
        }
        assert_eq!(phases.contains(&Phase::Wait), bucket == "vault");
        assert_eq!(phases.last(), Some(&Phase::Done));
        // The state before does not have it.
        let request = RestoreRequest {
            transaction: Some(first),
            ..request
        };
        let error = restore_segment(&request, last, &into, &tuning(), &mut |_| {})
            .await
            .unwrap_err();
        assert!(
            matches!(error, RestoreError::NoSegment { segment, transaction } if (segment, transaction) == (last, first))
        );
    }
}

#[tokio::test]
async fn one_segment_of_a_damaged_copy_is_refused() {
    let (mut scene, damage) = copy_to_damage().await;
    let out = scene.borg.dir.path().join("segment");
    let into = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&out)
        .unwrap();
    let request = scene.restore_request(&out);
    let segment = SegmentNumber(2);
    for bad in damage.bad {
        fs::write(&damage.object, bad).unwrap();
        let error = restore_segment(&request, segment, &into, &tuning(), &mut |_| {})
            .await
            .unwrap_err();
        assert!(tells_of_damage(&error), "{error}");
    }
    // It is tried again, over what an attempt before left.
    fs::write(&damage.object, damage.good).unwrap();
    scene.fault("GET", "data/0/2.gpg", 0, 1, Action::Cut);
    restore_segment(&request, segment, &into, &tuning(), &mut |_| {})
        .await
        .unwrap();
    assert!(fs::read(&out).unwrap() == fs::read(scene.borg.repository().join("data/0/2")).unwrap());
    // One that was damaged already when it was pushed.
    let path = scene.borg.repository().join("data/0/2");
    let mut bytes = fs::read(&path).unwrap();
    bytes[500_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_dir_all(scene.ledger()).unwrap();
    scene.target.prefix = "another".into();
    scene.push().await;
    let error = restore_segment(&scene.restore_request(&out), segment, &into, &tuning(), &mut |_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, RestoreError::Segment { .. }), "{error}");
}

#[tokio::test]
async fn a_sample_is_compared_wherever_it_lies_and_leaves_nothing() {
    for bucket in ["plain", "vault"] {
        let mut scene = Scene::new(bucket).await;
        scene.borg.file("a", &noise(MIB, 14));
        scene.borg.create("one");
        let pushed = scene.push().await;
        let nowhere = scene.borg.dir.path().join("nowhere");
        let request = scene.restore_request(&nowhere);
        let refused = RestoreRequest {
            consent: Consent::Ask(Arc::new(|_| false)),
            ..request.clone()
        };
        let error = sample(&refused, 1, &tuning(), &mut |_| {}).await;
        assert_eq!(
            matches!(error, Err(RestoreError::NotAgreed)),
            bucket == "vault",
            "{error:?}"
        );
        let two = sample(&request, 2, &tuning(), &mut |_| {}).await.unwrap();
        assert_eq!(
            (two.transaction, two.objects, two.of),
            (pushed.transaction, 2, pushed.total_objects)
        );
        let mut phases = Vec::new();
        let all = sample(&request, 1000, &tuning(), &mut |step| phases.push(step.phase))
            .await
            .unwrap();
        let repository = Repository::open(scene.borg.repository()).unwrap();
        let segments = repository.state(pushed.transaction).unwrap();
        let bytes = segments.iter().map(|segment| segment.size).sum::<u64>() + repository.config_bytes().len() as u64;
        assert_eq!(
            (all.objects, all.bytes, all.without_sum),
            (pushed.total_objects, bytes, 0)
        );
        assert_eq!(phases.last(), Some(&Phase::Done));
        assert!(matches!(all.signed, Signed::ByUnknown { .. }));
        assert!(!nowhere.exists());
    }
}

#[tokio::test]
async fn a_sample_of_a_damaged_copy_is_refused() {
    let (scene, damage) = copy_to_damage().await;
    let request = scene.restore_request(Path::new(""));
    for bad in damage.bad {
        fs::write(&damage.object, bad).unwrap();
        let error = sample(&request, 1000, &tuning(), &mut |_| {}).await.unwrap_err();
        assert!(tells_of_damage(&error), "{error}");
    }
    fs::write(&damage.object, damage.good).unwrap();
    sample(&request, 1000, &tuning(), &mut |_| {}).await.unwrap();
    // What the line or the key does wrong is not held against the copy.
    let nobody = RestoreRequest {
        credentials: credentials("LOOK"),
        ..request.clone()
    };
    let error = sample(&nobody, 1, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(!error.is_of_the_copy(), "{error}");
    let gpg = Gpg::new();
    gpg.generate("another", "future-default", "0", "");
    let stranger = RestoreRequest {
        opener: opener(&gpg.export_secret("another", "")),
        ..request.clone()
    };
    let error = sample(&stranger, 1, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::Open { .. }) && !error.is_of_the_copy(),
        "{error}"
    );
    let none = RestoreRequest {
        transaction: Some(SegmentNumber(99)),
        ..request.clone()
    };
    assert!(
        sample(&none, 1, &tuning(), &mut |_| {})
            .await
            .unwrap_err()
            .is_of_the_copy()
    );
    client(&scene.target, "ALL")
        .delete("asus_home/data/0/2.gpg")
        .await
        .unwrap();
    let error = sample(&request, 1000, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(
        error.is_of_the_copy() && error.to_string().contains("data/0/2.gpg"),
        "{error}"
    );
}

fn sha256sum(path: &Path) -> String {
    let output = run(std::process::Command::new("sha256sum").arg(path));
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[tokio::test]
async fn a_list_shows_what_is_gone_or_changed() {
    let mut scene = Scene::new("vault").await;
    scene.borg.file("a", &noise(MIB, 12));
    scene.borg.create("one");
    let request = VerifyRequest {
        target: scene.target.clone(),
        credentials: credentials("ALL"),
        ledger: scene.ledger(),
        turn: 0,
    };
    assert!(matches!(
        verify(&request, &tuning()).await,
        Err(VerifyError::NoLedger { .. })
    ));
    let report = scene.push().await;
    let good = verify(&request, &tuning()).await.unwrap();
    assert_eq!((good.checked, good.bytes), (report.total_objects, report.total_bytes));
    assert!(good.missing.is_empty() && good.different.is_empty() && good.foreign.is_empty());
    let bytes = bytes::Bytes::from_static(b"overwritten");
    let payload = strongroom_offsite::s3::Payload::of(&bytes);
    client(&scene.target, "ALL")
        .put_once("asus_home/data/0/1.gpg", bytes, &payload)
        .await
        .unwrap();
    // What is newer than all that is known here, as of another appliance, and what is nobody's.
    let newer = format!("asus_home/manifest/{}.json.gpg", report.transaction.0 + 1);
    for key in [newer.as_str(), "asus_home/holiday.jpg"] {
        let bytes = bytes::Bytes::from_static(b"foreign");
        let payload = strongroom_offsite::s3::Payload::of(&bytes);
        client(&scene.target, "ALL")
            .put_once(key, bytes, &payload)
            .await
            .unwrap();
    }
    let manifest = format!("vault/asus_home%2Fmanifest%2F{}.json.gpg.meta", report.transaction);
    for gone in ["vault/asus_home%2Fdata%2F0%2F0.gpg.meta", &manifest] {
        fs::remove_file(scene.store.path().join(gone)).unwrap();
    }
    let restarted = server(scene.store.path(), |_| {}).await;
    let target = changed(&scene.target, |at| at.endpoint = restarted.endpoint());
    let bad = verify(&VerifyRequest { target, ..request }, &tuning()).await.unwrap();
    assert_eq!(
        bad.missing,
        [
            format!("manifest/{}.json.gpg", report.transaction),
            "data/0/0.gpg".into()
        ]
    );
    let newer = newer.strip_prefix("asus_home/").unwrap();
    assert_eq!(bad.foreign, ["holiday.jpg", newer]);
    assert_eq!(
        (&bad.different, &bad.replaced),
        (&vec!["data/0/1.gpg".to_owned()], &bad.different)
    );
    assert_eq!(bad.lost().len(), 3);
}

/// The manifest's sums are signed, so that gpg tells who made a copy, and so does a restore.
#[tokio::test]
async fn a_copy_is_known_by_who_signed_it() {
    for bucket in ["plain", "vault"] {
        let mut scene = Scene::new(bucket).await;
        scene.borg.file("a", &noise(MIB, 13));
        scene.borg.create("one");
        let first = scene.push().await.transaction;
        let own = scene.signer.as_ref().unwrap().fingerprint();
        let restored = async |scene: &Scene, name: &str, signer: Option<String>| {
            let to = scene.borg.dir.path().join(name);
            let request = RestoreRequest {
                signer,
                ..scene.restore_request(&to)
            };
            restore(&request, &tuning(), &mut |_| {})
                .await
                .map(|report| report.signed)
        };
        let fingerprint = own.clone();
        assert_eq!(
            restored(&scene, "known", Some(own.clone())).await.unwrap(),
            Signed::Known { fingerprint }
        );
        let stranger = signer("another appliance");
        let refused = restored(&scene, "refused", Some(stranger.fingerprint()))
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, RestoreError::Signature { why, .. } if why.contains(&own)),
            "{refused}"
        );

        // Without a key the push is as good, and says that nobody signed.
        let own_signer = scene.signer.take().unwrap();
        scene.borg.create("two");
        let second = scene.push().await.transaction;
        assert!(matches!(
            restored(&scene, "unsigned", None).await.unwrap(),
            Signed::No { .. }
        ));
        let refused = restored(&scene, "demanded", Some(own.clone())).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Signature { .. }), "{refused}");
        if bucket == "vault" {
            continue;
        }

        // Whoever writes to the bucket can sign with a key of his own, but not with another's.
        let store = client(&scene.target, "ALL");
        let read = async |object: &str| store.get_small(&format!("asus_home/{object}"), 2 * MIB).await.unwrap();
        let overwrite = async |object: &str, bytes: &[u8]| {
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            let payload = strongroom_offsite::s3::Payload::of(&bytes);
            let key = format!("asus_home/{object}");
            store.put_once(&key, bytes, &payload).await.unwrap();
        };
        let older = async |name: &str, signer: Option<String>| {
            let request = RestoreRequest {
                signer,
                transaction: Some(first),
                ..scene.restore_request(&scene.borg.dir.path().join(name))
            };
            restore(&request, &tuning(), &mut |_| {})
                .await
                .map(|report| report.signed)
        };
        let signature = format!("manifest/{first}.SHA256SUMS.asc");
        let sums = read(&format!("manifest/{first}.SHA256SUMS")).await;
        let good = read(&signature).await;
        let gpg = Gpg::new();
        let certificate = write(&scene, "signer.asc", &read(&format!("signer.{own}.asc")).await);
        gpg.run(&["--import", certificate.to_str().unwrap()]);
        let [plain, detached] = [("sums", &sums), ("sums.asc", &good)].map(|(name, bytes)| write(&scene, name, bytes));
        gpg.run(&["--verify", detached.to_str().unwrap(), plain.to_str().unwrap()]);

        let forged = stranger.sign(&sums).unwrap();
        overwrite(&signature, forged.as_bytes()).await;
        assert!(matches!(
            older("no-certificate", None).await.unwrap(),
            Signed::No { .. }
        ));
        let certificate = stranger.certificate().unwrap();
        overwrite(
            &format!("signer.{}.asc", stranger.fingerprint()),
            certificate.as_bytes(),
        )
        .await;
        let fingerprint = stranger.fingerprint();
        assert_eq!(older("forged", None).await.unwrap(), Signed::ByUnknown { fingerprint });
        // Its own signature of other bytes does not do either.
        let of_others = own_signer.sign(b"other sums").unwrap();
        for (number, bad) in [&forged, &of_others, "no signature"].into_iter().enumerate() {
            overwrite(&signature, bad.as_bytes()).await;
            let refused = older(&format!("bad-{number}"), Some(own.clone())).await.unwrap_err();
            assert!(matches!(refused, RestoreError::Signature { .. }), "{refused}");
        }
        // The signed sums of one state do not vouch for the manifest of another.
        overwrite(&signature, &good).await;
        let other = read(&format!("manifest/{second}.json.gpg")).await;
        overwrite(&format!("manifest/{first}.json.gpg"), &other).await;
        let refused = older("swapped", Some(own)).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Signature { .. }), "{refused}");
    }
}

/// The instructions in RECOVERY.txt, followed literally, with rclone and gpg.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_without_us() {
    follow_the_instructions(Scene::new("plain").await).await;
}

/// The same with two buckets; none of them is an archive, from which somebody would have to restore the segments first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_without_us_from_two_buckets() {
    let mut scene = Scene::new("plain").await;
    let store = tempfile::tempdir().unwrap();
    scene.server = two_plain(store.path()).await;
    at_mut(&mut scene.target).endpoint = scene.server.endpoint();
    at_mut(&mut scene.target).manifest_bucket = Some("small".into());
    scene.store = store;
    follow_the_instructions(scene).await;
}

async fn two_plain(store: &Path) -> Server {
    server(store, |settings| *settings = settings.clone().bucket("small", false)).await
}

/// Manifests lie in a bucket that is read at once, segments in an archive; what was pushed before stays where it is.
#[tokio::test]
async fn manifests_in_a_bucket_of_their_own() {
    let mut scene = Scene::new("vault").await;
    let store = tempfile::tempdir().unwrap();
    scene.server = two_plain(store.path()).await;
    at_mut(&mut scene.target).endpoint = scene.server.endpoint();
    scene.store = store;
    scene.borg.file("a", &noise(MIB, 31));
    scene.borg.create("one");
    let first = scene.push().await;
    let vault = scene.target.clone();
    let small = changed(&vault, |at| at.bucket = "small".into());
    let names = |target: Target| async move {
        let listed = client(&target, "ALL").list("").await.unwrap();
        let names = listed
            .iter()
            .map(|listed| target.object(&listed.key).unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let before = names(vault.clone()).await;
    assert!(names(small.clone()).await.is_empty());

    at_mut(&mut scene.target).manifest_bucket = Some("small".into());
    scene.borg.create("two");
    let second = scene.push().await;
    let there = names(small.clone()).await;
    assert!(
        there.contains(&format!("manifest/{}.json.gpg", second.transaction)),
        "{there:?}"
    );
    assert!(there.iter().any(|object| object.starts_with("RECOVERY")) && !there.iter().any(|o| o.starts_with("data/")));
    let text = client(&small, "ALL");
    let instructions = there.iter().find(|object| object.starts_with("RECOVERY")).unwrap();
    let text = text.get_small(&small.key(instructions), 10_000).await.unwrap();
    assert!(String::from_utf8(text).unwrap().contains("REMOTE:vault/PREFIX/data"));
    let after = names(vault.clone()).await;
    let new: Vec<_> = after.iter().filter(|object| !before.contains(object)).collect();
    assert!(
        !new.is_empty() && new.iter().all(|object| object.starts_with("data/")),
        "{new:?}"
    );
    assert_eq!(names(scene.target.clone()).await.len(), after.len() + there.len());
    // Once is enough.
    scene.borg.create("three");
    scene.push().await;
    let instructions = names(small.clone())
        .await
        .into_iter()
        .filter(|object| object.starts_with("RECOVERY"));
    assert_eq!(instructions.count(), 1);

    let request = VerifyRequest {
        target: scene.target.clone(),
        credentials: credentials("ALL"),
        ledger: scene.ledger(),
        turn: 0,
    };
    let good = verify(&request, &tuning()).await.unwrap();
    assert!(
        good.missing.is_empty() && good.different.is_empty() && good.foreign.is_empty(),
        "{good:?}"
    );
    // What a restore takes is known exactly, at once.
    let estimate = survey::estimate(&scene.target, &credentials("ALL"), None, false, &tuning(), &mut |_| {})
        .await
        .unwrap();
    assert!(
        estimate.state.exact && !estimate.manifest_archived && estimate.archived > 0,
        "{estimate:?}"
    );
    let copies = survey::copies(&scene.target, &credentials("ALL"), 2, &tuning())
        .await
        .unwrap();
    assert_eq!(copies[0].states.len(), 3);
    scene.restores("restored", "three").await;
    let to = scene.borg.dir.path().join("older");
    let request = RestoreRequest {
        transaction: Some(first.transaction),
        ..scene.restore_request(&to)
    };
    restore(&request, &tuning(), &mut |_| {}).await.unwrap();
    scene.borg.check_and_compare(&to, "one");
    // The ledger is made anew of both, with all sums, though the segments are archived.
    fs::remove_dir_all(scene.ledger()).unwrap();
    let rebuilt = scene.push().await;
    assert!(rebuilt.ledger_rebuilt && rebuilt.nothing_to_do, "{rebuilt:?}");
}

async fn follow_the_instructions(mut scene: Scene) {
    scene.borg.file("big", &noise(14 * MIB, 11));
    scene.borg.create("one");
    let report = scene.push().await;
    let gpg = Gpg::new();
    let key = gpg.home().join("secret.asc");
    fs::write(&key, &keys().secret).unwrap();
    gpg.run(&["--import", key.to_str().unwrap()]);
    let rclone = scene.borg.dir.path().join("rclone.conf");
    let configuration = format!(
        "[REMOTE]\ntype = s3\nprovider = Other\naccess_key_id = ALL\nsecret_access_key = all-secret\n\
         region = {}\nendpoint = {}\nforce_path_style = true\n",
        at(&scene.target).region,
        at(&scene.target).endpoint
    );
    fs::write(&rclone, configuration).unwrap();
    let manifests = at(&scene.target).buckets().pop().unwrap();
    let text = client(&changed(&scene.target, |at| *at = manifests), "ALL")
        .get_small("asus_home/RECOVERY.txt", 10_000)
        .await
        .unwrap();
    let commands: String = std::str::from_utf8(&text)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(|line| line.replace("NUMBER", &report.transaction.to_string()) + "\n")
        .collect();
    let commands = commands.replace("BUCKET", "plain").replace("PREFIX", "asus_home");
    let output = run(std::process::Command::new("sh")
        .args(["-e", "-c", &commands])
        .current_dir(scene.borg.dir.path())
        .env("HOME", scene.borg.dir.path().join("home"))
        .env("RCLONE_CONFIG", rclone)
        .env("NO_PROXY", "127.0.0.1")
        .env_remove("AWS_CA_BUNDLE")
        .env("GNUPGHOME", gpg.home())
        .env("BORG_BASE_DIR", scene.borg.dir.path().join("base-recovery"))
        .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
        .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("one"));
    let copy = scene.borg.dir.path().join("copy");
    scene.borg.check_and_compare(&copy.join("repository"), "one");

    // Damage in what was sent in parts is named.
    let sums = fs::read_to_string(copy.join(format!("manifest/{}.SHA256SUMS", report.transaction))).unwrap();
    let [large]: [&str; 1] = parts_lines(&sums).try_into().unwrap();
    let large = large.rsplit(' ').next().unwrap();
    let mut bytes = fs::read(copy.join(large)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(copy.join(large), bytes).unwrap();
    let first = commands.find("STATE=").unwrap();
    let last = commands.find("done\n").unwrap() + "done\n".len();
    let output = run(std::process::Command::new("sh")
        .args(["-e", "-c", &commands[first..last].replace("sha256sum --check", ": ")])
        .current_dir(&copy));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{large}\n"));
}

/// What clear sums say of objects that were sent in parts.
fn parts_lines(sums: &str) -> Vec<&str> {
    sums.lines().filter(|line| line.starts_with("# parts ")).collect()
}

/// They are carried from state to state, also when the ledger is made anew, and a restore compares them.
#[tokio::test]
async fn sums_of_parts_are_kept_and_compared() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("big", &noise(14 * MIB, 51));
    scene.borg.create("one");
    scene.push().await;
    let sums = async |scene: &Scene, t: SegmentNumber| {
        let key = format!("asus_home/manifest/{t}.SHA256SUMS");
        let sums = client(&scene.target, "ALL").get_small(&key, 1 << 20).await.unwrap();
        let sums = String::from_utf8(sums).unwrap();
        parts_lines(&sums).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    scene.borg.file("more", &noise(14 * MIB, 52));
    scene.borg.create("two");
    let second = scene.push().await.transaction;
    let second = sums(&scene, second).await;
    assert_eq!(second.len(), 2, "{second:?}");
    fs::remove_dir_all(scene.ledger()).unwrap();
    scene.borg.create("three");
    let third = scene.push().await;
    assert!(third.ledger_rebuilt);
    assert_eq!(sums(&scene, third.transaction).await, second);
    scene.restores("restored", "three").await;

    // As if another part had arrived than was sent.
    let ledger = scene.ledger().join("ledger.jsonl");
    let known = second[0].split(' ').nth(3).unwrap();
    let text = fs::read_to_string(&ledger).unwrap();
    assert!(text.contains(known));
    fs::write(&ledger, text.replace(known, &"0".repeat(64))).unwrap();
    scene.borg.create("four");
    scene.push().await;
    let request = scene.restore_request(&scene.borg.dir.path().join("refused"));
    let refused = restore(&request, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Mismatch { .. }), "{refused}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A restore that was cut short goes on: what is there is verified, not fetched again, and a push meanwhile changes
/// nothing. From an archive, requests that are pending are waited for.
#[tokio::test]
async fn a_restore_that_was_cut_short_goes_on() {
    for bucket in ["plain", "vault"] {
        let mut scene = Scene::new(bucket).await;
        scene.borg.file("a", &noise(3 * MIB, 21));
        scene.borg.create("one");
        let first = scene.push().await;
        let to = scene.borg.dir.path().join("restored");
        let request = RestoreRequest {
            downloads: 1,
            ..scene.restore_request(&to)
        };
        // The last object can't be had, whatever is tried.
        let last = format!("data/0/{}.gpg", first.transaction);
        scene.fault("GET", &last, 0, 1, Action::Status(403));
        let error = restore(&request, &tuning(), &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, RestoreError::Target { .. }), "{error}");
        let posts = |log: &[String]| log.iter().filter(|line| line.starts_with("POST")).count() as u64;
        let files = first.total_objects;
        // The manifest, its sums, their signature and the signer's certificate are asked for before the files.
        assert_eq!(posts(&scene.log()), if bucket == "vault" { files + 4 } else { 0 });

        // One of the files went bad meanwhile, and there is a newer state.
        let bad = to.join("data/0/0");
        let mut bytes = fs::read(&bad).unwrap();
        bytes[0] ^= 1;
        fs::write(&bad, bytes).unwrap();
        scene.borg.create("two");
        scene.push().await;
        scene.log();
        let report = restore(&request, &tuning(), &mut |_| {}).await.unwrap();
        assert_eq!((report.transaction, report.files), (first.transaction, files));
        assert_eq!(report.kept, files - 2);
        let log = scene.log();
        let gets: Vec<_> = log
            .iter()
            .filter(|line| line.starts_with("GET") && line.contains(".gpg"))
            .collect();
        assert_eq!(gets.len(), 3, "the manifest and two objects: {gets:?}");
        assert_eq!(posts(&log), 0, "all had been asked for");
        assert!(!to.join(".strongroom-restore").exists());
        scene.borg.check_and_compare(&to, "one");
    }
}

/// Somebody else asked for an object a moment ago, as a run that was cut short may have.
#[tokio::test]
async fn what_is_pending_in_the_archive_is_no_error() {
    let mut scene = Scene::new("vault").await;
    scene.borg.file("a", &noise(MIB, 22));
    scene.borg.create("one");
    scene.push().await;
    let one = "asus_home/data/0/1.gpg";
    client(&scene.target, "ALL").restore(one, 1).await.unwrap();
    // The service refuses the second: one is under way.
    client(&scene.target, "ALL").restore(one, 1).await.unwrap();
    scene.log();
    let to = scene.borg.dir.path().join("restored");
    restore(&scene.restore_request(&to), &tuning(), &mut |_| {})
        .await
        .unwrap();
    assert!(
        !scene
            .log()
            .iter()
            .any(|line| line.starts_with("POST") && line.contains("data/0/1.gpg"))
    );
    scene.borg.check_and_compare(&to, "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpg_restores_with_its_own_keyring() {
    let mut scene = Scene::new("plain").await;
    scene.borg.file("a", &noise(3 * MIB, 23));
    scene.borg.create("one");
    scene.push().await;
    let gpg = Gpg::new();
    let to = scene.borg.dir.path().join("restored");
    let request = RestoreRequest {
        opener: Opener::Gpg(OwnersGpg::new(gpg.program())),
        ..scene.restore_request(&to)
    };
    let error = restore(&request, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("No secret key"), "{error}");
    let secret = write(&scene, "secret.asc", &keys().secret);
    gpg.run(&["--import", secret.to_str().unwrap()]);
    restore(&request, &tuning(), &mut |_| {}).await.unwrap();
    scene.borg.check_and_compare(&to, "one");

    // It prints what it decrypted before it has seen the end: a copy that was cut short must not become a file.
    let object = scene.store.path().join("plain/asus_home%2Fdata%2F0%2F2.gpg.data");
    let whole = fs::read(&object).unwrap();
    fs::write(&object, &whole[..whole.len() - 30]).unwrap();
    let to = scene.borg.dir.path().join("damaged");
    let request = RestoreRequest {
        destination: to.clone(),
        ..request
    };
    let error = restore(&request, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(tells_of_damage(&error), "{error}");
    assert!(!to.join("data/0/2").exists());
    // Nor is a message that nobody encrypted taken.
    let clear = gpg.home().join("clear");
    fs::write(&clear, b"clear").unwrap();
    gpg.run(&["--output", object.to_str().unwrap(), "--store", clear.to_str().unwrap()]);
    let error = OwnersGpg::new(gpg.program())
        .open(fs::read(&object).unwrap().as_slice(), &mut Vec::new())
        .unwrap_err();
    assert!(error.to_string().contains("gpg could not decrypt it"), "{error}");
}

#[tokio::test]
async fn a_bucket_tells_what_it_holds_and_what_a_restore_takes() {
    for bucket in ["plain", "vault"] {
        let mut scene = Scene::new(bucket).await;
        scene.borg.file("a", &noise(3 * MIB, 24));
        scene.borg.create("one");
        let first = scene.push().await;
        scene.borg.create("two");
        let second = scene.push().await;
        let other = Target {
            prefix: "homes/laptop".into(),
            ..scene.target.clone()
        };
        let request = PushRequest {
            target: other,
            ledger: scene.borg.dir.path().join("other-ledger"),
            ..scene.request()
        };
        push(&request, &tuning(), &mut |_| {}).await.unwrap();
        let whole = Target {
            prefix: String::new(),
            ..scene.target.clone()
        };
        let copies = survey::copies(&whole, &credentials("ALL"), 1, &tuning()).await.unwrap();
        let names: Vec<_> = copies.iter().map(|copy| copy.prefix.as_str()).collect();
        assert_eq!(names, ["asus_home", "homes/laptop"]);
        let states = &copies[0].states;
        let exact = bucket == "plain";
        let told: Vec<_> = states
            .iter()
            .map(|state| (state.transaction, state.objects, state.exact))
            .collect();
        assert_eq!(
            told,
            [
                (second.transaction, second.total_objects, exact),
                // Not asked for; by names it comes to the same here.
                (first.transaction, first.total_objects, false)
            ]
        );
        assert_eq!(states[0].bytes, second.total_bytes);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(
            states
                .iter()
                .all(|state| state.pushed.is_some_and(|at| at + 3600 > now && at <= now + 1))
        );

        let estimate = |transaction: Option<SegmentNumber>| {
            let target = scene.target.clone();
            async move { survey::estimate(&target, &credentials("ALL"), transaction, true, &tuning(), &mut |_| {}).await }
        };
        let newest: Estimate = estimate(None).await.unwrap();
        assert_eq!(newest.state.transaction, second.transaction);
        let to_ask = if exact { 0 } else { second.total_objects };
        assert_eq!((newest.archived, newest.restoring), (to_ask, 0));
        assert_eq!((newest.measured.is_some(), newest.manifest_archived), (exact, !exact));
        assert_eq!(newest.longest_wait(), if exact { 0 } else { 2 * survey::ARCHIVE_WAIT });
        let older = estimate(Some(first.transaction)).await.unwrap();
        assert_eq!(older.state.objects, first.total_objects);
        assert!(matches!(
            estimate(Some(SegmentNumber(999))).await,
            Err(RestoreError::NoManifest { .. })
        ));
    }
}
