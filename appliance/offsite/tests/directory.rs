//! Pushes to a directory and restores from it, with the real borg and gpg.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use strongroom_borg::SegmentNumber;
use strongroom_offsite::openpgp::{Signer, generate};
use strongroom_offsite::restore::survey;
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::{S3Error, system_clock};
use strongroom_offsite::verify::SHARES;
use strongroom_offsite::{
    Credentials, Encryption, Gpg as OwnersGpg, Limits, Opener, PushError, PushReport, PushRequest, RestoreError,
    RestoreRequest, Signed, Target, Tuning, VerifyReport, VerifyRequest, ledger, push, restore, restore_segment,
    verify,
};
use support::{Borg, Gpg, HASTY, noise, run};

const MIB: usize = 1024 * 1024;
const NOW: u64 = 1_800_000_000;

/// The owner's keyring, made by gpg once, with its certificate and a program that uses it.
fn owner() -> &'static (Gpg, Vec<u8>, PathBuf) {
    static OWNER: OnceLock<(Gpg, Vec<u8>, PathBuf)> = OnceLock::new();
    OWNER.get_or_init(|| {
        let gpg = Gpg::new();
        gpg.generate("owner", "future-default", "0", "");
        let public = gpg.export("owner");
        let program = gpg.program();
        (gpg, public, program)
    })
}

fn tuning() -> Tuning {
    Tuning {
        retry: HASTY,
        clock: system_clock(),
    }
}

/// A repository and a disk, which is a directory here.
struct Scene {
    borg: Borg,
    signer: Signer,
    rules: Rules,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        let borg = Borg::new();
        fs::create_dir(borg.dir.path().join("disk")).unwrap();
        Self {
            borg,
            signer: Signer::parse(generate::signer("an appliance").unwrap().secret.as_bytes()).unwrap(),
            rules: Rules::default(),
            now: NOW,
        }
    }

    fn disk(&self) -> PathBuf {
        self.borg.dir.path().join("disk")
    }

    fn copy(&self) -> PathBuf {
        self.disk().join("strongroom/asus_home")
    }

    fn target(&self) -> Target {
        Target::in_directory("usb".into(), self.disk().join("strongroom"), "asus_home".into())
    }

    fn ledger(&self) -> PathBuf {
        self.borg.dir.path().join("ledger")
    }

    async fn try_push(&mut self) -> Result<PushReport, PushError> {
        self.now += 1;
        let request = PushRequest {
            repository: self.borg.repository(),
            target: self.target(),
            credentials: Credentials::none(),
            recipients: vec![owner().1.clone()],
            encryption: Encryption::Auto,
            signer: Some(self.signer.clone()),
            limits: Limits::default(),
            retirement: self.rules,
            ledger: self.ledger(),
            now: self.now,
        };
        push(&request, &tuning(), &mut |_| {}).await
    }

    async fn push(&mut self) -> PushReport {
        self.try_push().await.unwrap()
    }

    async fn verify(&self, turn: u64) -> VerifyReport {
        let request = VerifyRequest {
            target: self.target(),
            credentials: Credentials::none(),
            ledger: self.ledger(),
            turn,
        };
        verify(&request, &tuning()).await.unwrap()
    }

    /// All comparisons that it takes to read everything.
    async fn verify_all(&self) -> Vec<VerifyReport> {
        let mut reports = Vec::new();
        for turn in 0..SHARES {
            reports.push(self.verify(turn).await);
        }
        reports
    }

    fn restore_request(&self, to: &Path) -> RestoreRequest {
        let gpg = OwnersGpg::new(&owner().2);
        RestoreRequest {
            signer: Some(self.signer.fingerprint()),
            ..RestoreRequest::new(self.target(), Credentials::none(), Opener::Gpg(gpg), to.to_owned())
        }
    }

    /// Restores the newest state by the owner's gpg, has Borg check it, and compares what was archived.
    async fn restores(&self, name: &str, archive: &str) {
        let to = self.borg.dir.path().join(name);
        let report = restore(&self.restore_request(&to), &tuning(), &mut |_| {})
            .await
            .unwrap();
        assert!(matches!(report.signed, Signed::Known { .. }), "{:?}", report.signed);
        self.borg.check_and_compare(&to, archive);
    }

    /// The files of the copy, by their paths below its folder.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        gather(&self.copy(), "", &mut files);
        files
    }
}

fn gather(folder: &Path, before: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{before}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            gather(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test]
async fn a_directory_holds_the_same_objects_and_is_restored_from() {
    let mut scene = Scene::new();
    // Larger than what goes in one piece.
    scene.borg.file("big", &noise(30 * MIB, 1));
    scene.borg.create("one");
    let report = scene.push().await;
    assert!(!report.nothing_to_do && !report.ledger_rebuilt);
    let first = scene.files();
    let number = report.transaction;
    for name in [
        "data/0/1.gpg".to_owned(),
        format!("manifest/{number}.json.gpg"),
        format!("manifest/{number}.SHA256SUMS"),
        format!("manifest/{number}.SHA256SUMS.asc"),
        format!("signer.{}.asc", scene.signer.fingerprint()),
        "RECOVERY.txt".to_owned(),
    ] {
        assert!(first.contains_key(&name), "{name}: {:?}", first.keys());
    }
    assert_eq!(first.len() as u64, report.objects, "{:?}", first.keys());
    // Anybody may read what is encrypted.
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (
            mode(scene.copy().join("data/0")),
            mode(scene.copy().join("data/0/1.gpg"))
        ),
        (0o755, 0o644)
    );
    scene.restores("restored-1", "one").await;
    assert!(scene.push().await.nothing_to_do);

    scene.borg.file("small", b"hello");
    scene.borg.create("two");
    let report = scene.push().await;
    let second = scene.files();
    assert!(
        first.iter().all(|(name, content)| second.get(name) == Some(content)),
        "nothing is written twice"
    );
    assert_eq!((second.len() - first.len()) as u64, report.objects);
    scene.restores("restored-2", "two").await;
    let old = RestoreRequest {
        transaction: Some(number),
        ..scene.restore_request(&scene.borg.dir.path().join("restored-old"))
    };
    restore(&old, &tuning(), &mut |_| {}).await.unwrap();
    scene.borg.check_and_compare(&old.destination, "one");

    // What there is, and what it takes, are told without a key, and without reading all of it.
    let below = Target::in_directory("usb".into(), scene.disk().join("strongroom"), String::new());
    let copies = survey::copies(&below, &Credentials::none(), 9, &tuning())
        .await
        .unwrap();
    assert_eq!(copies.len(), 1);
    assert_eq!((copies[0].prefix.as_str(), copies[0].states.len()), ("asus_home", 2));
    let estimate = survey::estimate(
        &scene.target(),
        &Credentials::none(),
        None,
        true,
        &tuning(),
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(
        estimate.state.exact && estimate.archived == 0 && estimate.longest_wait() == 0 && estimate.measured.is_some()
    );

    // One segment alone.
    let output = tempfile::tempfile().unwrap();
    let segment = restore_segment(
        &scene.restore_request(Path::new("s")),
        SegmentNumber(1),
        &output,
        &tuning(),
        &mut |_| {},
    )
    .await
    .unwrap();
    assert!(segment.known);
}

#[tokio::test]
async fn what_was_damaged_on_the_disk_is_found_and_sent_again() {
    let mut scene = Scene::new();
    scene.borg.file("a", &noise(MIB, 2));
    scene.borg.create("one");
    let report = scene.push().await;
    let reports = scene.verify_all().await;
    assert!(reports.iter().all(|one| one.checked == report.total_objects
        && one.different.is_empty()
        && one.missing.is_empty()
        && one.foreign.is_empty()));
    // Each is read once: all of which the ledger knows a sum.
    let read: u64 = reports.iter().map(|one| one.read).sum();
    assert_eq!(read, report.total_objects);

    let path = scene.copy().join("data/0/1.gpg");
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&path, &content).unwrap();
    let damaged: Vec<String> = scene
        .verify_all()
        .await
        .into_iter()
        .flat_map(|one| one.lost())
        .collect();
    assert_eq!(damaged, ["data/0/1.gpg"]);
    let refused = restore(
        &scene.restore_request(&scene.borg.dir.path().join("refused")),
        &tuning(),
        &mut |_| {},
    )
    .await;
    assert!(
        matches!(refused, Err(RestoreError::Open { .. } | RestoreError::Mismatch { .. })),
        "{refused:?}"
    );

    ledger::lose(&scene.ledger(), damaged).unwrap();
    scene.push().await;
    scene.restores("restored", "one").await;
    assert_eq!(fs::read(&path).unwrap(), content, "even a damaged file is not replaced");
}

#[tokio::test]
async fn nothing_that_is_there_is_replaced_and_no_half_file_is_left() {
    let mut scene = Scene::new();
    scene.borg.file("a", &noise(MIB, 3));
    scene.borg.create("one");
    fs::create_dir_all(scene.copy().join("data/0")).unwrap();
    let squatter = scene.copy().join("data/0/1.gpg");
    fs::write(&squatter, b"mine").unwrap();
    // As of a push whose disk was pulled out.
    let half = scene.copy().join("data/0/.99.gpg.half");
    fs::write(&half, b"half").unwrap();
    scene.push().await;
    assert_eq!(fs::read(&squatter).unwrap(), b"mine");
    assert!(!half.exists());
    assert!(
        scene.files().keys().all(|name| !name.contains("/.")),
        "{:?}",
        scene.files().keys()
    );
    scene.restores("restored", "one").await;
}

#[tokio::test]
async fn another_disk_in_its_place_gets_a_whole_copy() {
    let mut scene = Scene::new();
    scene.borg.file("a", &noise(MIB, 4));
    scene.borg.create("one");
    let first = scene.push().await;
    let (disk, shelf) = (scene.disk(), scene.borg.dir.path().join("shelf"));
    fs::rename(&disk, &shelf).unwrap();
    fs::create_dir(&disk).unwrap();
    let second = scene.push().await;
    assert_eq!((second.objects, second.ledger_rebuilt), (first.objects, false));
    scene.restores("restored-2", "one").await;
    // The first one is known again by what lies there, and only what is new is sent.
    scene.borg.file("b", &noise(MIB, 5));
    scene.borg.create("two");
    fs::rename(&disk, scene.borg.dir.path().join("other")).unwrap();
    fs::rename(&shelf, &disk).unwrap();
    let third = scene.push().await;
    assert!(
        third.ledger_rebuilt && third.taken_on > 0 && third.objects < third.total_objects + 3,
        "{third:?}"
    );
    scene.restores("restored-1", "two").await;
}

#[tokio::test]
async fn what_nothing_needs_is_deleted_where_that_is_wanted() {
    let mut scene = Scene::new();
    scene.rules = Rules {
        act: true,
        minimum_age_days: 0,
        keep_days: 7,
    };
    scene.borg.file("a", &noise(MIB, 6));
    for archive in ["one", "two", "three", "four", "five"] {
        scene.borg.create(archive);
        scene.push().await;
    }
    let before = scene.files().len();
    // A year later, by the files' times, which are those of this computer.
    scene.now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 366 * 86_400;
    scene.borg.create("six");
    let retirement = scene.push().await.retirement.unwrap();
    assert!(
        retirement.retired.objects > 0 && retirement.hindered.is_empty(),
        "{retirement:?}"
    );
    assert!(scene.files().len() < before + 7);
    scene.restores("restored", "six").await;
}

#[tokio::test]
async fn a_disk_that_can_not_be_written_to_is_told() {
    let mut scene = Scene::new();
    scene.borg.file("a", b"a");
    scene.borg.create("one");
    fs::write(scene.disk().join("strongroom"), b"a file").unwrap();
    let error = scene.try_push().await.unwrap_err();
    assert!(
        matches!(
            &error,
            PushError::Target {
                source: S3Error::Directory { .. },
                ..
            }
        ) && error.to_string().starts_with("target usb: "),
        "{error}"
    );
    let nowhere = RestoreRequest {
        target: Target::in_directory("usb".into(), "/nonexistent".into(), "asus_home".into()),
        ..scene.restore_request(&scene.borg.dir.path().join("restored"))
    };
    let error = restore(&nowhere, &tuning(), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("listing asus_home/manifest/"), "{error}");
}

/// The instructions in RECOVERY.txt, followed literally, with gpg and sha256sum alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_without_us() {
    let mut scene = Scene::new();
    scene.borg.file("big", &noise(14 * MIB, 7));
    scene.borg.create("one");
    let report = scene.push().await;
    let text = fs::read_to_string(scene.copy().join("RECOVERY.txt")).unwrap();
    let commands: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .map(|line| line.replace("NUMBER", &report.transaction.to_string()) + "\n")
        .collect();
    let commands = commands.replace("FOLDER", scene.copy().to_str().unwrap());
    let home = scene.borg.dir.path().join("home");
    fs::create_dir(&home).unwrap();
    let output = run(std::process::Command::new("sh")
        .args(["-e", "-c", &commands])
        .current_dir(scene.borg.dir.path())
        .env("HOME", &home)
        .env("GNUPGHOME", owner().0.home())
        .env("BORG_BASE_DIR", scene.borg.dir.path().join("base-recovery"))
        .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
        .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("one"));
    scene.borg.check_and_compare(&home.join("repository"), "one");
}
