//! Sessions with the real sshd, the real Borg and the kernel's own Landlock, on this machine: what each of them does of
//! what is asked of it. What systemd adds is tried in the booted image.

#![allow(clippy::unwrap_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use strongroom_supervisor::sessions::confine;
use support::role;
use support::rpc::{Arg, Hostile, Value};
use support::sshd::{As, SERVE, Sshd, folder, run, said};

const SESSION: &str = "strongroom-session";

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
            "#!/bin/sh\nexport BORG_BASE_DIR=/tmp/strongroom-session-test BORG_HOST_ID=test\ncd /tmp\nexec {} {} {own} /usr/bin/borg serve --append-only --umask=077 --restrict-to-repository {own}\n",
            role(SESSION),
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

    /// What runs for the client, without any client.
    fn by_hand(&self, more: &[&str]) -> Hostile {
        let own = self.repository();
        let mut command = Command::new(role(SESSION));
        command.arg(self.right).arg(&own);
        command.args([
            "/usr/bin/borg",
            "serve",
            "--append-only",
            "--umask=077",
            "--restrict-to-repository",
        ]);
        command
            .arg(&own)
            .args(more)
            .env("BORG_BASE_DIR", "/tmp/strongroom-session-test")
            .env("BORG_HOST_ID", "test")
            .current_dir("/tmp");
        Hostile::start(&mut command)
    }

    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let all = self.segments().into_iter();
        all.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
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

/// Tries to change a folder's project, and what is marked in it, in each way that Linux has; prints the errors.
const LEAVE: &str = "
import ctypes, errno, fcntl, os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
def tried(call):
    try:
        call()
        return 'done'
    except OSError as error:
        return errno.errorcode[error.errno]
get = bytearray(28)
print(tried(lambda: fcntl.ioctl(folder, 0x801c581f, get)))
print(tried(lambda: fcntl.ioctl(folder, 0x401c5820, bytes(get))))
for request in 0x40086602, 0x40046602, 0x40086602 | 1 << 40:
    ctypes.set_errno(0)
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.syscall(16, folder, ctypes.c_ulong(request), ctypes.byref(ctypes.c_long(0)))
    print('done' if code == 0 else errno.errorcode[ctypes.get_errno()])
code = libc.syscall(469, folder, b'', None, 0, 0)
print(errno.errorcode[ctypes.get_errno()])
";

#[test]
#[cfg(target_arch = "x86_64")]
fn a_session_cannot_take_files_out_of_their_project() {
    let served = Served::new();
    let own = served.repository();
    let python = |command: &mut Command| {
        let output = run(command
            .args(["-c", LEAVE])
            .arg(&own)
            .env("PYTHONDONTWRITEBYTECODE", "1"));
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let free = python(&mut Command::new("/usr/bin/python3"));
    let mut command = Command::new(role(SESSION));
    command.arg("read").arg(&own).arg("/usr/bin/python3");
    let confined = python(&mut command);
    let (free, confined): (Vec<&str>, Vec<&str>) = (free.lines().collect(), confined.lines().collect());
    assert_eq!(confined[0], free[0], "reading is left alone");
    assert_eq!(confined[1..], ["EPERM"; 5]);
    assert!(free[1..].iter().all(|line| *line != "EPERM"), "{free:?}");
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

/// A client that knows Borg's protocol asks for what no `borg` would: all that matters is refused, nothing is erased.
#[test]
fn a_client_that_speaks_the_protocol_by_hand_gains_nothing() {
    let served = Served::new();
    let there = served.folder.path().to_owned();
    let own = served.repository().to_str().unwrap().to_owned();
    let attic = there.join("attic_repository").to_str().unwrap().to_owned();
    fs::write(there.join("letter"), "dear diary").unwrap();
    served.good(&["init", "--encryption=repokey-blake2"]);
    assert!(confine::settle(&served.repository()).unwrap());
    served.good(&["create", "::one", "letter"]);
    let stored = served.contents();
    std::os::unix::fs::symlink(&attic, served.repository().join("link")).unwrap();

    // Another repository, under whatever name, to open or to make.
    let mut hostile = served.by_hand(&[]);
    let (link, up) = (format!("{own}/link"), format!("{own}/../attic_repository"));
    for path in [
        &attic,
        &link,
        &up,
        "/",
        "",
        ".",
        "~",
        "~root",
        "/~/x",
        "/./x",
        "/proc/self/root",
        "/etc",
    ] {
        for more in [
            &[][..],
            &[("create", Arg::Flag(true)), ("make_parent_dirs", Arg::Flag(true))],
        ] {
            assert_eq!(hostile.open(path, more).unwrap_err(), "PathNotAllowed", "{path}");
        }
    }
    // Its own anew, or without a lock.
    assert_eq!(
        hostile.open(&own, &[("create", Arg::Flag(true))]).unwrap_err(),
        "AlreadyExists"
    );
    let as_told = [("lock", Arg::Flag(false)), ("append_only", Arg::Flag(false))];
    hostile.open(&own, &as_told).unwrap();
    assert_eq!(hostile.call("destroy", &[]).unwrap_err(), "ValueError");
    assert_eq!(
        hostile.call("check", &[("repair", Arg::Flag(true))]).unwrap_err(),
        "ValueError"
    );
    for method in [
        "close",
        "create",
        "compact_segments",
        "save_config",
        "serve",
        "__init__",
        "__class__",
        "os.system",
    ] {
        assert_eq!(hostile.call(method, &[]).unwrap_err(), "InvalidRPCMethod", "{method}");
    }
    // Objects that are not objects.
    let put = |hostile: &mut Hostile, id: &[u8], data: &[u8]| {
        hostile.call("put", &[("id", Arg::Bytes(id)), ("data", Arg::Bytes(data))])
    };
    assert!(put(&mut hostile, b"short", b"x").is_err());
    assert!(put(&mut hostile, &[1; 32], &vec![0; 20 << 20]).is_err());
    assert!(
        hostile
            .call("put", &[("id", Arg::Number(1)), ("data", Arg::Text("x"))])
            .is_err()
    );
    // All that there is, deleted, and every compaction that can be asked for.
    let Value::List(ids) = hostile.call("list", &[]).unwrap() else {
        panic!("no list");
    };
    assert!(ids.len() > 2);
    for id in &ids {
        let Value::Bytes(id) = id else { panic!("{id:?}") };
        hostile.call("delete", &[("id", Arg::Bytes(id))]).unwrap();
    }
    let fully = [
        ("compact", Arg::Flag(true)),
        ("cleanup_commits", Arg::Flag(true)),
        ("save_space", Arg::Flag(true)),
        ("threshold", Arg::Number(0)),
    ];
    hostile.call("commit", &fully).unwrap();
    hostile.call("rollback", &[]).unwrap();
    hostile.call("break_lock", &[]).unwrap();
    // A message that is none, or that never ends, ends the session.
    hostile.send(b"\xdd\xff\xff\xff\xff").unwrap();
    let _ = hostile.send(&vec![0xc0; 1 << 20]);
    assert_eq!(hostile.call("list", &[]).unwrap_err(), "gone");
    drop(hostile);

    let left = served.contents();
    for (segment, content) in &stored {
        assert_eq!(left.get(segment), Some(content), "{} was changed", segment.display());
    }
    assert_eq!(fs::read_dir(&attic).unwrap().count(), 0);
    assert!(fs::symlink_metadata(there.join("x")).is_err());
}

/// Borg says that the quota is reached, but goes on writing: whoever does not listen would fill the disk.
#[test]
fn a_client_that_goes_on_above_its_quota_is_stopped() {
    let served = Served::new();
    let own = served.repository().to_str().unwrap().to_owned();
    served.good(&["init", "--encryption=none"]);
    let on_disk = || {
        served
            .segments()
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum::<u64>()
    };
    let mut hostile = served.by_hand(&["--storage-quota=20000000"]);
    hostile.open(&own, &[]).unwrap();
    let data = vec![7; 8 << 20];
    let mut id = [0; 32];
    for number in 0..40_u8 {
        id[0] = number + 1;
        match hostile.call("put", &[("id", Arg::Bytes(&id)), ("data", Arg::Bytes(&data))]) {
            Ok(_) => assert!(number < 2, "{} bytes were taken", on_disk()),
            Err(error) if error == "StorageQuotaExceeded" => assert!(on_disk() > 20_000_000),
            Err(error) if error == "gone" => break,
            other => panic!("{other:?}"),
        }
    }
    let mut stopped = false;
    for _ in 0..60 {
        stopped = hostile.call("get_free_nonce", &[]) == Err("gone".into());
        if stopped {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(stopped, "{} bytes were stored", on_disk());
    assert_eq!(hostile.close().code(), Some(198));
    // Whoever comes next answers for what it sends, not for what was left, however long it takes to begin.
    let mut slow = served.by_hand(&["--storage-quota=20000000"]);
    slow.open(&own, &[]).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    assert_ne!(slow.call("get_free_nonce", &[]), Err("gone".into()));
    assert!(slow.close().success());
    // What was never committed goes with the next backup, whose lock nobody holds any more.
    fs::write(served.folder.path().join("letter"), "dear diary").unwrap();
    served.good(&["create", "::one", "letter"]);
    assert!(on_disk() < 20_000_000, "{} bytes stay", on_disk());
}

/// While Borg makes a repository it is not append-only: that session is watched, and what Borg ends with comes through.
#[test]
fn the_session_that_makes_a_repository_makes_it_and_no_more() {
    let served = Served::new();
    let own = served.repository().to_str().unwrap().to_owned();
    let mut hostile = served.by_hand(&[]);
    hostile.open(&own, &[("create", Arg::Flag(true))]).unwrap();
    assert!(hostile.close().success());
    let mut hostile = served.by_hand(&[]);
    assert_eq!(
        hostile.open(&own, &[("create", Arg::Flag(true))]).unwrap_err(),
        "AlreadyExists"
    );
    assert!(hostile.close().success());
    let status = Command::new(role(SESSION))
        .args([
            "append",
            &own,
            "/usr/bin/borg",
            "serve",
            "--storage-quota=5",
            "--no-such-option",
        ])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

/// A key of more than one line is still one value, or Borg itself does not open the repository any more: no setting
/// changes by it.
#[test]
fn a_key_with_lines_in_it_sets_nothing_else() {
    for ending in ["\n", "\r", "\r\n", "\u{2028}", "\u{85}", "\u{b}"] {
        let served = Served::new();
        served.good(&["init", "--encryption=none"]);
        let own = served.repository().to_str().unwrap().to_owned();
        let key = format!("x{ending}append_only = 0{ending}[repository]{ending}storage_quota = 0{ending}");
        let mut hostile = served.by_hand(&[]);
        hostile.open(&own, &[]).unwrap();
        hostile.call("save_key", &[("keydata", Arg::Text(&key))]).unwrap();
        assert!(hostile.close().success());
        let _ = confine::settle(&served.repository()).unwrap();
        let config = fs::read_to_string(served.repository().join("config")).unwrap();
        assert!(config.contains("\nappend_only = 1\n"), "{config:?}");
        // What is shorter than it was is shorter for Borg as well.
        let mut hostile = served.by_hand(&[]);
        if hostile.open(&own, &[]).is_ok() {
            assert_eq!(hostile.call("destroy", &[]).unwrap_err(), "ValueError", "{ending:?}");
        }
    }
}

#[test]
fn the_second_wall_stands_by_itself() {
    let served = Served::new();
    let own = served.repository();
    fs::write(own.join("config"), "mine").unwrap();
    let attic = served.folder.path().join("attic_repository");
    fs::write(attic.join("config"), "secret").unwrap();
    let attempt = |right: &str, words: &[&str]| {
        let mut command = Command::new(role(SESSION));
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
    let serve = role(SERVE);
    let (root, fingerprint, authorized) = (sshd.folder.path().display(), key.fingerprint(), key.authorized());
    sshd.admit(&format!(
        "restrict,{from}command=\"{serve} --root {root} asus {fingerprint}\" {authorized}\n"
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

/// Connections that never log in, as many as one address may have, held open. sshd turns new ones away at random once
/// there are thirty: nobody gets that far alone.
#[test]
fn a_crowd_from_one_address_shuts_no_other_out() {
    let sshd = sshd_of_a_client("");
    // Those that sshd turned away are closed; the others stay.
    let crowd: Vec<TcpStream> = (0..200).map(|_| sshd.connect()).collect();
    for _ in 0..10 {
        let output = sshd.ssh(&["-b", "127.0.0.2"], &["sh"]);
        assert!(said(&output).contains("serves Borg only"), "{}", said(&output));
    }
    drop(crowd);
    // Its own address as well, once sshd has seen that they are gone.
    let is_back = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        said(&sshd.ssh(&[], &["sh"])).contains("serves Borg only")
    });
    assert!(is_back);
}
