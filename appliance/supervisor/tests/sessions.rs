//! Sessions with the real sshd, the real Borg and the kernel's own Landlock, on this machine: what each of them does of
//! what is asked of it. What systemd adds is tried in the booted image.

#![allow(clippy::unwrap_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use strongroom_supervisor::sessions::confine;
use support::sshd::{As, SERVE, Sshd, folder, run, said};

const SESSION: &str = env!("CARGO_BIN_EXE_strongroom-session");

/// A repository that is served as in a session's unit, without the unit.
struct Served {
    folder: tempfile::TempDir,
    right: &'static str,
}

impl Served {
    fn new() -> Self {
        let folder = folder();
        for name in ["asus_repository", "attic_repository"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            right: "append",
        }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("asus_repository")
    }

    fn borg(&self, repository: &Path, arguments: &[&str]) -> Output {
        let own = self.repository();
        let own = own.display();
        let shell = self.folder.path().join("shell");
        // In place of ssh: whatever the client wants to run, this is what runs.
        let script = format!(
            "#!/bin/sh\nexport BORG_BASE_DIR=/tmp/strongroom-session-test BORG_HOST_ID=test\ncd /tmp\nexec {SESSION} {} {own} /usr/bin/borg serve --append-only --umask=077 --restrict-to-repository {own}\n",
            self.right
        );
        fs::write(&shell, script).unwrap();
        fs::set_permissions(&shell, PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new("borg");
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("BORG_REPO", format!("ssh://test{}", repository.display()))
            .env("BORG_RSH", &shell)
            .env("BORG_BASE_DIR", self.folder.path().join("client"))
            .env("BORG_PASSPHRASE", "one")
            .env("BORG_NEW_PASSPHRASE", "one")
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
        run(&mut command)
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.borg(&self.repository(), arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn bad(&self, arguments: &[&str]) -> String {
        let output = self.borg(&self.repository(), arguments);
        assert!(!output.status.success(), "{arguments:?} was let in");
        said(&output)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = fs::read_dir(self.repository().join("data/0"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        all.sort();
        all
    }
}

#[test]
fn borg_works_within_the_second_wall_and_erases_nothing() {
    let mut served = Served::new();
    fs::write(served.folder.path().join("letter"), "dear diary").unwrap();
    served.good(&["init", "--encryption=repokey-blake2"]);
    // Borg does not write down what it serves.
    let config = served.repository().join("config");
    assert!(fs::read_to_string(&config).unwrap().contains("append_only = 0\n"));
    let before = fs::read_to_string(&config).unwrap();
    assert!(confine::settle(&served.repository()).unwrap());
    let settled = fs::read_to_string(&config).unwrap();
    assert_eq!(settled, before.replacen("append_only = 0\n", "append_only = 1\n", 1));

    served.good(&["create", "::one", "letter"]);
    served.good(&["create", "::two", "letter"]);
    let stored = served.segments();
    let first = fs::read(&stored[0]).unwrap();
    served.good(&["delete", "::one"]);
    served.borg(&served.repository(), &["compact"]);
    assert_eq!(served.good(&["list", "--short"]).trim(), "two");
    let left = served.segments();
    assert!(
        stored.iter().all(|segment| left.contains(segment)),
        "{stored:?} {left:?}"
    );
    assert_eq!(fs::read(&stored[0]).unwrap(), first);
    served.good(&["key", "change-passphrase"]);
    assert!(!confine::settle(&served.repository()).unwrap());

    // Other places, and ways around their names.
    let there = served.folder.path().to_owned();
    std::os::unix::fs::symlink(there.join("attic_repository"), served.repository().join("link")).unwrap();
    for path in [
        there.join("attic_repository"),
        served.repository().join("../attic_repository"),
        served.repository().join("link"),
        served.repository().join("data"),
        there.join("new"),
    ] {
        let output = served.borg(&path, &["init", "--encryption=none"]);
        assert!(!output.status.success(), "{} was let in", path.display());
    }
    assert_eq!(fs::read_dir(there.join("attic_repository")).unwrap().count(), 0);

    // The same repository with a key that reads.
    served.right = "read";
    assert_eq!(served.good(&["list", "--short", "--bypass-lock"]).trim(), "two");
    let into = there.join("letter");
    fs::remove_file(&into).unwrap();
    served.good(&["extract", "--bypass-lock", "::two"]);
    assert_eq!(fs::read_to_string(&into).unwrap(), "dear diary");
    served.bad(&["list"]);
    served.bad(&["create", "::three", "letter"]);
    served.bad(&["delete", "--force", "--bypass-lock", "::two"]);
    assert_eq!(served.segments(), left);
}

#[test]
fn the_second_wall_stands_by_itself() {
    let served = Served::new();
    let own = served.repository();
    fs::write(own.join("config"), "mine").unwrap();
    let attic = served.folder.path().join("attic_repository");
    fs::write(attic.join("config"), "secret").unwrap();
    let attempt = |right: &str, words: &[&str]| {
        let mut command = Command::new(SESSION);
        command.arg(right).arg(&own).args(words).current_dir("/");
        run(&mut command).status.success()
    };
    let path = |folder: &Path, name: &str| folder.join(name).to_str().unwrap().to_string();
    assert!(attempt("append", &["/usr/bin/cat", &path(&own, "config")]));
    assert!(attempt("append", &["/usr/bin/touch", &path(&own, "new")]));
    assert!(attempt("read", &["/usr/bin/cat", &path(&own, "config")]));
    for (right, words) in [
        ("read", &["/usr/bin/touch", &path(&own, "new2")][..]),
        ("read", &["/usr/bin/rm", "-f", &path(&own, "new")]),
        ("append", &["/usr/bin/cat", &path(&attic, "config")]),
        ("append", &["/usr/bin/touch", &path(&attic, "new")]),
        ("append", &["/usr/bin/ls", &path(&attic, "")]),
        ("append", &["/usr/bin/cat", "/etc/passwd"]),
        ("append", &["/usr/bin/ln", "-s", "/etc/passwd", &path(&own, "link")]),
        ("append", &["/usr/bin/mkfifo", &path(&own, "pipe")]),
        (
            "append",
            &["/usr/bin/cp", "/usr/bin/true", "/tmp/strongroom-session-true"],
        ),
        ("append", &["/tmp/strongroom-session-true"]),
        ("append", &[&path(&own, "new")]),
        ("write", &["/usr/bin/true"]),
    ] {
        // Copying to /tmp is let in; running from there is not.
        let let_in = attempt(right, words);
        assert_eq!(let_in, words[0].ends_with("/cp"), "{right} {words:?}");
    }
    let _ = fs::remove_file("/tmp/strongroom-session-true");
    // Signals to whoever is outside.
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    attempt("append", &["/usr/bin/kill", &sleeper.id().to_string()]);
    std::thread::sleep(Duration::from_millis(200));
    let survived = sleeper.try_wait().unwrap().is_none();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(survived || !knows_scopes(), "a process outside was ended");
}

/// Whether the kernel's Landlock bounds signals: since Linux 6.12.
fn knows_scopes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 12)
}

/// An sshd that admits its key as that of client `asus`, from these addresses.
fn sshd_of_a_client(from: &str) -> Sshd {
    let sshd = Sshd::start(As::Client);
    let key = sshd.key();
    let (root, fingerprint, authorized) = (sshd.folder.path().display(), key.fingerprint(), key.authorized());
    sshd.admit(&format!(
        "restrict,{from}command=\"{SERVE} --root {root} asus {fingerprint}\" {authorized}\n"
    ));
    let config = format!("[[client]]\nname = \"asus\"\nkeys = [\"{authorized}\"]\n");
    let file = sshd.paths().config();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, config).unwrap();
    sshd
}

#[test]
fn sshd_lets_a_key_run_its_one_command_only() {
    let sshd = sshd_of_a_client("");
    for remote in [
        &[][..],
        &["sh"],
        &["scp -t /tmp"],
        &["borg", "list"],
        &["/usr/lib/openssh/sftp-server"],
    ] {
        let output = sshd.ssh(&[], remote);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(
            said(&output).contains("client `asus` and serves Borg only"),
            "{}",
            said(&output)
        );
        assert!(output.stdout.is_empty());
    }
    // As far as it comes without an appliance.
    let output = sshd.ssh(&[], &["borg serve --restrict-to-path /"]);
    assert!(said(&output).contains("array is not ready"), "{}", said(&output));
    for options in [
        &["-tt"][..],
        &["-s"],
        &["-W", "127.0.0.1:22"],
        &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"],
    ] {
        let remote: &[&str] = if options == ["-s"] { &["sftp"] } else { &[] };
        assert!(!sshd.ssh(options, remote).status.success(), "{options:?} was let in");
    }
}

#[test]
fn sshd_understands_the_addresses_of_a_key() {
    let inside = sshd_of_a_client("from=\"192.0.2.7/32,127.0.0.0/8,fd00::/64\",");
    assert!(said(&inside.ssh(&[], &["sh"])).contains("serves Borg only"));
    drop(inside);
    let outside = sshd_of_a_client("from=\"192.0.2.0/24,fd00::/64\",");
    let output = outside.ssh(&[], &["sh"]);
    assert!(said(&output).contains("Permission denied"), "{}", said(&output));
}
