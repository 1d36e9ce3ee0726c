//! What the edge tests share: a server, credentials, clients of the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use s3_double::{Permissions, Server, Settings};
use strongroom_model::config::Multipart;
use strongroom_offsite::s3::{Client, Retry, system_clock};
use strongroom_offsite::{AtService, Credentials, Keyring, Opener, Place, Target, Trust};
use zeroize::Zeroizing;

pub const REGION: &str = "eu-frankfurt-1";

/// Patience for tests: as many attempts, next to no waiting.
pub const HASTY: Retry = Retry {
    attempts: 4,
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(20),
};

/// A server with buckets `plain` and `vault` (archive) and a credential for each kind of permission.
pub async fn server(directory: &Path, change: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings::new(directory, REGION)
        .bucket("plain", false)
        .bucket("vault", true)
        .credential("ALL", "all-secret", Permissions::ALL)
        .credential("CREATE", "create-secret", Permissions::CREATE_ONLY)
        .credential("LOOK", "look-secret", Permissions::CREATE_AND_INSPECT);
    settings.restore_delay = Duration::from_millis(300);
    change(&mut settings);
    Server::start(settings).await.unwrap()
}

pub fn credentials(name: &str) -> Credentials {
    Credentials::new(name, Zeroizing::new(format!("{}-secret", name.to_lowercase())))
}

pub fn target(server: &Server, bucket: &str) -> Target {
    target_at(server.endpoint(), bucket)
}

pub fn target_at(endpoint: String, bucket: &str) -> Target {
    let at = AtService {
        endpoint,
        region: REGION.into(),
        bucket: bucket.into(),
        manifest_bucket: None,
        multipart: Multipart::Auto,
        trust: Trust::default(),
    };
    Target {
        name: "double".into(),
        place: Place::Bucket(at),
        prefix: "asus_home".into(),
    }
}

/// What is said of a target's bucket.
pub fn at(target: &Target) -> &AtService {
    target.place.bucket().unwrap()
}

pub fn at_mut(target: &mut Target) -> &mut AtService {
    match &mut target.place {
        Place::Bucket(at) => at,
        Place::Directory(_) => panic!("this is no bucket"),
    }
}

/// A target whose bucket is said to be another.
pub fn changed(target: &Target, change: impl FnOnce(&mut AtService)) -> Target {
    let mut target = target.clone();
    change(at_mut(&mut target));
    target
}

pub fn client(target: &Target, who: &str) -> Client {
    Client::new(at(target), credentials(who), system_clock(), HASTY).unwrap()
}

/// Opens messages with a secret key that has no passphrase.
pub fn opener(secret: &[u8]) -> Opener {
    Opener::Keys(Keyring::parse(&[secret], &Zeroizing::default()).unwrap().into())
}

/// Runs a program to its end without input.
pub fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|_| panic!("missing `{name}`: run `cargo image test`, which installs it"))
}

/// Bytes that neither compress nor repeat.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    (0..length)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 24) as u8
        })
        .collect()
}

/// A GnuPG home of its own, with the agent that gpg starts for it.
pub struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    pub fn new() -> Self {
        // The agent's socket needs a short path.
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self { home }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("gpg");
        command
            .arg("--homedir")
            .arg(self.home())
            .args(["--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = run(self.command().args(arguments));
        assert!(
            output.status.success(),
            "gpg {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    pub fn succeeds(&self, arguments: &[&str]) -> bool {
        run(self.command().args(arguments)).status.success()
    }

    /// A key pair: `kind` as for `--quick-generate-key`; RSA gets an encryption subkey.
    /// A program that is this gpg with this keyring.
    pub fn program(&self) -> PathBuf {
        let program = self.home().join("gpg");
        let script = format!("#!/bin/sh\nexec gpg --homedir '{}' \"$@\"\n", self.home().display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    pub fn generate(&self, name: &str, kind: &str, expire: &str, passphrase: &str) {
        let usage = if kind == "future-default" { "default" } else { "cert" };
        self.run(&[
            "--passphrase",
            passphrase,
            "--quick-generate-key",
            name,
            kind,
            usage,
            expire,
        ]);
        if kind.starts_with("rsa") {
            let fingerprint = self.fingerprint(name);
            self.run(&[
                "--passphrase",
                passphrase,
                "--quick-add-key",
                &fingerprint,
                kind,
                "encr",
                expire,
            ]);
        }
    }

    fn fingerprint(&self, name: &str) -> String {
        let listing = String::from_utf8(self.run(&["--with-colons", "--list-keys", name])).unwrap();
        listing
            .lines()
            .find_map(|line| line.strip_prefix("fpr:::::::::"))
            .unwrap()
            .trim_end_matches(':')
            .to_owned()
    }

    pub fn export(&self, name: &str) -> Vec<u8> {
        self.run(&["--export", name])
    }

    pub fn export_secret(&self, name: &str, passphrase: &str) -> Vec<u8> {
        self.run(&["--passphrase", passphrase, "--armor", "--export-secret-keys", name])
    }

    pub fn revoke(&self, name: &str) {
        let path = self
            .home()
            .join(format!("openpgp-revocs.d/{}.rev", self.fingerprint(name)));
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace(":-----BEGIN", "-----BEGIN");
        std::fs::write(&path, text).unwrap();
        self.run(&["--import", path.to_str().unwrap()]);
    }

    /// The plaintext, only if gpg ended well.
    pub fn decrypt(&self, message: &[u8]) -> Option<Vec<u8>> {
        let path = self.home().join("message.gpg");
        std::fs::write(&path, message).unwrap();
        let output = run(self
            .command()
            .args(["--passphrase", "correct horse", "--decrypt"])
            .arg(path));
        output.status.success().then_some(output.stdout)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // Ends the agent of this home only.
        let _ = Command::new("gpgconf")
            .arg("--homedir")
            .arg(self.home())
            .args(["--kill", "gpg-agent"])
            .status();
    }
}

/// A directory with files, a Borg repository of them, and the caches of this one client.
pub struct Borg {
    pub dir: tempfile::TempDir,
}

impl Borg {
    /// An empty repository, as the original recipe makes it.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("files")).unwrap();
        let it = Self { dir };
        it.borg(&[
            "init",
            "--encryption=none",
            "--append-only",
            it.repository().to_str().unwrap(),
        ]);
        it
    }

    pub fn repository(&self) -> std::path::PathBuf {
        self.dir.path().join("repository")
    }

    pub fn file(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join("files").join(name), bytes).unwrap();
    }

    pub fn command(&self, base: &str) -> Command {
        let mut command = Command::new("borg");
        command
            .current_dir(self.dir.path())
            .env("BORG_BASE_DIR", self.dir.path().join(base))
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    pub fn borg(&self, arguments: &[&str]) {
        let output = run(self.command("base").args(arguments));
        assert!(
            output.status.success(),
            "borg {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn create(&self, archive: &str) {
        self.borg(&[
            "create",
            "--compression",
            "none",
            &format!("repository::{archive}"),
            "files",
        ]);
    }

    /// Checks a restored repository with fresh caches, extracts an archive and compares it with `files`.
    pub fn check_and_compare(&self, restored: &Path, archive: &str) {
        let base = format!("base-{}", restored.file_name().unwrap().to_string_lossy());
        let borg = |arguments: &[&str], directory: &Path| {
            let output = run(self.command(&base).current_dir(directory).args(arguments));
            assert!(
                output.status.success(),
                "borg {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        let path = restored.to_str().unwrap();
        borg(&["check", "--verify-data", path], self.dir.path());
        let out = tempfile::tempdir().unwrap();
        borg(&["extract", &format!("{path}::{archive}")], out.path());
        let mut compared = 0;
        for entry in std::fs::read_dir(self.dir.path().join("files")).unwrap() {
            let name = entry.unwrap().file_name();
            let extracted = out.path().join("files").join(&name);
            if extracted.exists() {
                let original = std::fs::read(self.dir.path().join("files").join(&name)).unwrap();
                assert!(std::fs::read(extracted).unwrap() == original, "{name:?} differs");
                compared += 1;
            }
        }
        assert!(compared > 0);
    }
}
