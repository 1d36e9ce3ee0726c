//! Several objects and parts on their way at a time: bounded, clean after every failure, and killed at any moment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use s3_double::{Action, Rule, Server};
use strongroom_offsite::openpgp::Mode;
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::{S3Error, system_clock};
use strongroom_offsite::{
    Encryption, Limits, PushError, PushReport, PushRequest, RestoreError, RestoreReport, RestoreRequest, Tuning, push,
    restore,
};
use support::{Gpg, HASTY, at, at_mut, client, credentials, noise, opener, server, target};

const MIB: usize = 1024 * 1024;

fn tuning() -> Tuning {
    Tuning {
        retry: HASTY,
        clock: system_clock(),
    }
}

/// A repository of raw segments in `directory`, as Borg lays it out; each call commits some more.
struct Segments {
    path: PathBuf,
    next: usize,
}

impl Segments {
    fn new(directory: &Path) -> Self {
        let path = directory.join("repository");
        fs::create_dir_all(path.join("data/0")).unwrap();
        let config = format!("[repository]\nversion = 1\nid = {}\n", "ab".repeat(32));
        fs::write(path.join("config"), config).unwrap();
        Self { path, next: 0 }
    }

    fn commit(&mut self, sizes: &[usize]) {
        for size in sizes {
            let bytes = noise(*size, 1 + self.next as u64);
            self.write(&[strongroom_borg::segment::MAGIC.as_slice(), &bytes].concat());
        }
        let (magic, commit) = (strongroom_borg::segment::MAGIC, strongroom_borg::segment::COMMIT);
        self.write(&[magic.as_slice(), commit.as_slice()].concat());
    }

    fn write(&mut self, bytes: &[u8]) {
        fs::write(self.path.join(format!("data/0/{}", self.next)), bytes).unwrap();
        self.next += 1;
    }
}

struct Scene {
    dir: tempfile::TempDir,
    segments: Segments,
    server: Server,
    public: Vec<u8>,
    secret: Vec<u8>,
    limits: Limits,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut s3_double::Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gpg = Gpg::new();
        gpg.generate("owner", "future-default", "0", "");
        Self {
            segments: Segments::new(dir.path()),
            server: server(&dir.path().join("store"), change).await,
            public: gpg.export("owner"),
            secret: gpg.export_secret("owner", ""),
            limits: Limits::default(),
            dir,
        }
    }

    fn request(&self) -> PushRequest {
        PushRequest {
            repository: self.segments.path.clone(),
            target: target(&self.server, "plain"),
            credentials: credentials("ALL"),
            recipients: vec![self.public.clone()],
            encryption: Encryption::Always(Mode::Ocb),
            signer: None,
            limits: self.limits,
            retirement: Rules::default(),
            ledger: self.dir.path().join("ledger"),
            now: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
        }
    }

    async fn push(&self) -> Result<PushReport, PushError> {
        push(&self.request(), &tuning(), &mut |_| {}).await
    }

    async fn restore(&self) -> Result<(RestoreReport, tempfile::TempDir), RestoreError> {
        let to = tempfile::tempdir().unwrap();
        let (from, into) = (target(&self.server, "plain"), to.path().join("restored"));
        let request = RestoreRequest::new(from, credentials("ALL"), opener(&self.secret), into);
        restore(&request, &tuning(), &mut |_| {})
            .await
            .map(|report| (report, to))
    }

    /// Restores the newest state: every file is what it is here. Gives its transaction.
    async fn restores(&self) -> u32 {
        let (report, to) = self.restore().await.unwrap();
        for number in 0..=report.transaction.0 {
            let name = format!("data/0/{number}");
            let [here, there] =
                [self.segments.path.clone(), to.path().join("restored")].map(|p| fs::read(p.join(&name)));
            assert!(here.unwrap() == there.unwrap(), "{name}");
        }
        report.transaction.0
    }

    async fn unfinished(&self) -> usize {
        let client = client(&target(&self.server, "plain"), "ALL");
        client.list_multipart("").await.unwrap().len()
    }

    fn fault(&self, contains: &str, skip: u32, times: u32, action: Action) {
        self.server.faults().add(Rule {
            method: Some("PUT"),
            contains: contains.into(),
            skip,
            times,
            action,
        });
    }
}

#[tokio::test]
async fn several_are_on_their_way_and_never_more_than_there_is_room_for() {
    for uploads in [1, 3, 4, 200] {
        let mut scene = Scene::new(|settings| settings.latency = Duration::from_millis(40)).await;
        scene.limits.uploads = uploads;
        scene.segments.commit(&[22 * MIB, 5000, 12 * MIB, 100, 100, 7, 7, 7, 7]);
        let report = scene.push().await.unwrap();
        assert_eq!(report.total_objects, 9 + 1 + 1);
        let most = scene.server.faults().most_uploads();
        let bound = u64::from(uploads.min(4));
        assert!((bound.min(2)..=bound).contains(&most), "{uploads}: {most}");
        assert_eq!(scene.unfinished().await, 0);
        assert_eq!(scene.restores().await, report.transaction.0);
    }
}

/// One object is refused for good: nothing is left behind of it and of those beside it.
#[tokio::test]
async fn an_error_leaves_no_uploads_behind() {
    let mut scene = Scene::new(|_| {}).await;
    scene.segments.commit(&[1000]);
    scene.push().await.unwrap();
    scene
        .segments
        .commit(&[40 * MIB, 40 * MIB, 40 * MIB, 40 * MIB, 9 * MIB]);
    scene.fault("partNumber=3", 1, u32::MAX, Action::Status(403));
    let error = scene.push().await.unwrap_err();
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
    assert_eq!(scene.unfinished().await, 0);
    assert_eq!(scene.restores().await, 1);
    scene.server.faults().clear();
    scene.push().await.unwrap();
    assert_eq!(scene.restores().await, 7);
}

/// Overloaded, broken and slow by turns: the push gets through, waits as it is told, and sends nothing twice.
#[tokio::test]
async fn a_bad_line_is_got_through() {
    let mut scene = Scene::new(|settings| settings.latency = Duration::from_millis(15)).await;
    scene.segments.commit(&[35 * MIB, 3000, 25 * MIB, 200_000, 50]);
    scene.fault("partNumber=2", 0, 1, Action::Busy(503, 1));
    scene.fault("partNumber=1", 1, 1, Action::Busy(429, 1));
    scene.fault("partNumber=3", 0, 1, Action::CutAfter(4 * MIB as u64));
    scene.fault("partNumber", 5, 2, Action::DropAnswer);
    scene.fault("data/0/1.gpg", 0, 2, Action::Status(500));
    scene.fault("data/0/3.gpg", 0, 1, Action::DropAnswer);
    scene.fault("json.gpg", 0, 1, Action::Status(502));
    let report = scene.push().await.unwrap();
    assert_eq!(report.objects, report.total_objects + 3);
    assert_eq!(scene.unfinished().await, 0);
    let objects = client(&target(&scene.server, "plain"), "ALL").list("").await.unwrap();
    assert_eq!(objects.len() as u64, report.objects);
    assert_eq!(scene.restores().await, 5);
    assert!(scene.push().await.unwrap().nothing_to_do);
}

/// What is left of a push whose line was cut for good in the middle of a large segment, of which some parts arrived.
async fn cut_short() -> Scene {
    let mut scene = Scene::new(|_| {}).await;
    scene.segments.commit(&[1000]);
    scene.push().await.unwrap();
    scene.segments.commit(&[55 * MIB]);
    scene.fault("partNumber=4", 0, u32::MAX, Action::Cut);
    let error = scene.push().await.unwrap_err();
    assert!(
        matches!(&error, PushError::Target { source, .. } if source.is_transient()),
        "{error}"
    );
    scene.server.faults().clear();
    let _ = scene.server.faults().take_log();
    assert_eq!(scene.unfinished().await, 1);
    scene
}

impl Scene {
    /// Numbers of the parts that a push sends, and what it leaves; then all must be whole.
    async fn parts_sent(&self, request: PushRequest) -> Vec<u32> {
        push(&request, &tuning(), &mut |_| {}).await.unwrap();
        let log = self.server.faults().take_log();
        let mut parts: Vec<u32> = log
            .iter()
            .filter(|line| line.starts_with("PUT"))
            .filter_map(|line| line.split("partNumber=").nth(1)?.split('&').next()?.parse().ok())
            .collect();
        parts.sort_unstable();
        assert_eq!(self.unfinished().await, 0);
        let kept = fs::read_dir(request.ledger.join("unfinished")).unwrap();
        assert_eq!(kept.count(), 0, "a session key was left behind");
        assert_eq!(self.restores().await as usize, self.segments.next - 1);
        parts
    }

    async fn uploads(&self) -> Vec<strongroom_offsite::s3::Upload> {
        let client = client(&target(&self.server, "plain"), "ALL");
        client.list_multipart("").await.unwrap()
    }
}

#[tokio::test]
async fn an_upload_that_was_cut_short_is_gone_on_with() {
    let scene = cut_short().await;
    let [upload] = &scene.uploads().await[..] else { panic!() };
    let client = client(&target(&scene.server, "plain"), "ALL");
    let arrived = client.list_parts(&upload.key, &upload.id).await.unwrap();
    assert!(!arrived.is_empty() && !arrived.contains_key(&4), "{arrived:?}");
    let sent = scene.parts_sent(scene.request()).await;
    let wanted: Vec<u32> = (1..=6).filter(|number| !arrived.contains_key(number)).collect();
    assert_eq!(sent, wanted);
}

#[tokio::test]
async fn what_can_not_be_gone_on_with_begins_anew() {
    let all: Vec<u32> = (1..=6).collect();
    // A part is another's.
    let scene = cut_short().await;
    let [upload] = &scene.uploads().await[..] else { panic!() };
    let other = bytes::Bytes::from(noise(10 * MIB, 99));
    let payload = strongroom_offsite::s3::Payload::of(&other);
    client(&target(&scene.server, "plain"), "ALL")
        .upload_part(&upload.key, &upload.id, 2, other, &payload)
        .await
        .unwrap();
    let _ = scene.server.faults().take_log();
    let sent = scene.parts_sent(scene.request()).await;
    assert!(sent.ends_with(&all), "{sent:?}");
    // The service has dropped it.
    let scene = cut_short().await;
    let [upload] = &scene.uploads().await[..] else { panic!() };
    client(&target(&scene.server, "plain"), "ALL")
        .abort_multipart(&upload.key, &upload.id)
        .await
        .unwrap();
    assert_eq!(scene.parts_sent(scene.request()).await, all);
    // Somebody else is to read it as well.
    let scene = cut_short().await;
    let gpg = Gpg::new();
    gpg.generate("another", "future-default", "0", "");
    let mut request = scene.request();
    request.recipients.push(gpg.export("another"));
    assert_eq!(scene.parts_sent(request).await, all);
    // It goes in one piece from now on.
    let scene = cut_short().await;
    let mut request = scene.request();
    at_mut(&mut request.target).multipart = strongroom_model::config::Multipart::Never;
    assert!(scene.parts_sent(request).await.is_empty());
    // The key is gone.
    let scene = cut_short().await;
    fs::remove_dir_all(scene.request().ledger.join("unfinished")).unwrap();
    assert_eq!(scene.parts_sent(scene.request()).await, all);
    // The segment is another: the seal is never used for that.
    let scene = cut_short().await;
    let path = scene.segments.path.join("data/0/2");
    fs::write(&path, fs::read(&path).unwrap()).unwrap();
    assert_eq!(scene.parts_sent(scene.request()).await, all);
}

/// Runs this very test file again as a process of its own, which pushes and is killed as a power cut would do it.
fn child(scene: &Scene) -> std::process::Child {
    let request = scene.request();
    let certificate = scene.dir.path().join("owner.pgp");
    fs::File::create(&certificate)
        .unwrap()
        .write_all(&scene.public)
        .unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "the_child_that_is_killed"])
        .env("PUSH_REPOSITORY", &request.repository)
        .env("PUSH_LEDGER", &request.ledger)
        .env("PUSH_ENDPOINT", &at(&request.target).endpoint)
        .env("PUSH_CERTIFICATE", certificate)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "is run by a_push_that_is_killed_at_any_moment"]
async fn the_child_that_is_killed() {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(repository), Some(ledger), Some(certificate)) =
        (path("PUSH_REPOSITORY"), path("PUSH_LEDGER"), path("PUSH_CERTIFICATE"))
    else {
        return;
    };
    let request = PushRequest {
        repository,
        target: support::target_at(std::env::var("PUSH_ENDPOINT").unwrap(), "plain"),
        credentials: credentials("ALL"),
        recipients: vec![fs::read(certificate).unwrap()],
        encryption: Encryption::Always(Mode::Ocb),
        signer: None,
        limits: Limits::default(),
        retirement: Rules::default(),
        ledger,
        now: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    };
    push(&request, &tuning(), &mut |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_killed_at_any_moment() {
    let mut scene = Scene::new(|settings| settings.latency = Duration::from_millis(5)).await;
    scene.segments.commit(&[2000]);
    scene.push().await.unwrap();
    let mut there = scene.restores().await;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut killed = 0;
    for round in 0..14 {
        scene.segments.commit(&[1000, 12 * MIB, 50_000]);
        // After a number of requests that chance decides, not at a time, so that a slow machine tries the same.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let last = scene.server.faults().requests() + random % 26;
        let mut child = child(&scene);
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if scene.server.faults().requests() > last {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert!(ended.is_none_or(|status| status.success()), "round {round}: {ended:?}");
        killed += u32::from(ended.is_none());
        // What the server is still doing for the killed one.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = scene.restores().await;
        assert!(now >= there, "round {round}: {now} after {there}");
        there = now;
        // Now and then the next push is one that may end.
        if round % 4 == 3 {
            let report = scene.push().await.unwrap();
            assert_eq!(scene.unfinished().await, 0, "round {round}");
            there = scene.restores().await;
            assert_eq!(there, report.transaction.0);
        }
    }
    assert!(killed > 5, "{killed}");
    scene.push().await.unwrap();
    assert_eq!(scene.unfinished().await, 0);
    assert_eq!(scene.restores().await as usize, scene.segments.next - 1);
}
