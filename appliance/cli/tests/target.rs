//! `strongroom target` as it is typed, against the strict double: what is written, what is not, and what is said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use s3_double::{Permissions, Server, Settings};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tokio::runtime::Runtime;

const OWNERS: &str =
    "# Our home\n[[offsite.recipient]] # me\nname = \"owner\"\ncertificate = \"owner.asc\"\n\n# the end";

/// A folder with a strongroom.toml, and a service with an archive bucket.
struct Scene {
    folder: tempfile::TempDir,
    server: Server,
    _runtime: Runtime,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let settings = Settings::new(folder.path().join("store"), "eu-frankfurt-1")
            .bucket("vault", true)
            .credential("ALL", "all-secret", Permissions::ALL)
            .credential("LOOK", "look-secret", Permissions::CREATE_AND_INSPECT);
        let server = runtime.block_on(Server::start(settings)).unwrap();
        let scene = Self {
            folder,
            server,
            _runtime: runtime,
        };
        fs::write(scene.config(), OWNERS).unwrap();
        scene
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("strongroom.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    /// Runs it without a terminal; what it reads from standard input is `input`.
    fn strongroom(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .current_dir(self.folder.path())
            .arg("target")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn add(&self, name: &str, access: &str, secret: &str) -> Output {
        let endpoint = self.server.endpoint();
        let words = [
            "add",
            "s3",
            name,
            "--config",
            "strongroom.toml",
            "--endpoint",
            &endpoint,
            "--region",
            "eu-frankfurt-1",
            "--bucket",
            "vault",
            "--access-key-id",
            access,
            "--secret-key-file",
            "-",
        ];
        self.strongroom(&words, secret)
    }

    /// Names in the folder, but for the store.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name != "store")
            .collect();
        names.sort();
        names
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_target_is_added_as_its_bucket_allows() {
    let scene = Scene::new();
    let output = scene.add("oracle", "LOOK", "look-secret\n");
    let words = said(&output);
    assert!(output.status.success(), "{words}");
    assert!(words.contains("Large objects go in one piece"), "{words}");
    assert!(!words.contains("look-secret"), "{words}");
    let text = scene.text();
    assert!(text.starts_with(&format!("{OWNERS}\n\n[[offsite.target]]\n")), "{text}");
    assert!(text.contains("\nmultipart = \"never\""), "{text}");
    assert!(text.contains("\nrecipients = [\"owner\"]\n"), "{text}");
    let secret = scene.folder.path().join("oracle-secret");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "look-secret\n");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);

    // A second one, with more permissions, behind it; and neither a second time.
    let output = scene.add("other", "ALL", "all-secret");
    assert!(output.status.success(), "{}", said(&output));
    let both = scene.text();
    assert!(both.starts_with(&text));
    assert_eq!(both.matches("multipart").count(), 1, "{both}");
    let output = scene.add("oracle", "ALL", "all-secret");
    assert!(
        said(&output).contains("there is a target `oracle` already"),
        "{}",
        said(&output)
    );
    assert_eq!(scene.text(), both);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "look-secret\n");

    // What was written can be tried out.
    let probe = |words: &[&str]| scene.strongroom(words, "");
    let output = probe(&["probe", "oracle", "--config", "strongroom.toml"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = probe(&["probe", "other", "--config", "strongroom.toml", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tier"], "archive");
    assert_eq!(report["multipart"], "auto");
    let output = probe(&["probe", "elsewhere", "--config", "strongroom.toml"]);
    assert!(said(&output).contains("it has oracle, other"), "{}", said(&output));
    // A configuration that asks for what isn't permitted.
    fs::write(
        scene.config(),
        both.replace("multipart = \"never\"", "multipart = \"auto\""),
    )
    .unwrap();
    let output = probe(&["probe", "oracle", "--config", "strongroom.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("WRONG  Large objects can't be sent in parts"),
        "{}",
        said(&output)
    );
}

#[test]
fn nothing_is_written_that_would_not_work() {
    let scene = Scene::new();
    let refused = |output: Output, why: &str| {
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why), "{why}: {}", said(&output));
        assert_eq!(scene.text(), OWNERS);
        assert_eq!(scene.names(), ["strongroom.toml"]);
    };
    refused(
        scene.add("oracle", "ALL", "another-secret"),
        "WRONG  Nothing could be written",
    );
    refused(scene.add("oracle", "ALL", " \n"), "the secret access key is empty");
    refused(scene.add("oracle", "A L L", "all-secret"), "not one word");
    let words = ["add", "oracle", "o", "--config", "strongroom.toml"];
    refused(scene.strongroom(&words, ""), "give it as --namespace");
    let oracle = |namespace, region| {
        let words = [&words[..], &["--namespace", namespace, "--region", region]].concat();
        scene.strongroom(&words, "")
    };
    refused(
        oracle("Our Tenancy", "eu-frankfurt-1"),
        "not an object storage namespace",
    );
    refused(oracle("n", "Frankfurt"), "not a region's identifier");
    refused(oracle("n", "eu-frankfurt-1"), "give it as --bucket");

    // Unless it is meant.
    let words = [
        &words[..],
        &[
            "--namespace",
            "n",
            "--region",
            "eu-frankfurt-1",
            "--bucket",
            "b",
            "--access-key-id",
            "i",
        ],
        &["--secret-key-file", "-", "--no-probe"],
    ]
    .concat();
    let output = scene.strongroom(&words, "s");
    assert!(output.status.success(), "{}", said(&output));
    let endpoint = "endpoint = \"https://n.compat.objectstorage.eu-frankfurt-1.oraclecloud.com\"";
    assert!(scene.text().contains(endpoint), "{}", scene.text());
}

#[test]
fn copies_that_nobody_could_read_are_not_begun() {
    let scene = Scene::new();
    fs::write(scene.config(), "").unwrap();
    let output = scene.add("oracle", "ALL", "all-secret");
    assert!(
        said(&output).contains("has no [[offsite.recipient]] yet"),
        "{}",
        said(&output)
    );
    assert_eq!(scene.names(), ["strongroom.toml"]);
}
