//! What a client can reach and what it can't: every way in that a key might open is tried, and what must go on goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use image::loopback::StoreOptions;
use image::qemu::{Firmware, Machine, free_port};
use image::ssh::{self, Login};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::{login, wait_for_status};
use crate::client::{Client, assert_same, make_files, random};
use crate::{SOON, STOP, folder, is_sound, start, start_on};

/// A second client, which has a quota.
pub const OTHER: &str = "attic";
/// A third, whose key is admitted from elsewhere only.
const ELSEWHERE: &str = "cellar";
/// Most sessions of one client.
const OF_CLIENT_MAX: usize = 8;
/// Until a session that lost its client is over.
const END: Duration = Duration::from_secs(150);

pub fn configuration(trial: &Trial) -> String {
    let key = |name: &str| ssh::key(&trial.folder.join(name), name).unwrap();
    let client = format!("name = \"{CLIENT}\"");
    trial.default_config().replace(
        &client,
        &format!("{client}\nrestore_keys = [\"{}\"]", key("restore_key")),
    ) + &format!(
        "\n[[client]]\nname = \"{OTHER}\"\nquota = \"20 MB\"\nkeys = [\"{}\"]\n\n[[client]]\nname = \"{ELSEWHERE}\"\nfrom = [\"192.0.2.0/24\"]\nkeys = [\"{}\"]\n",
        key("other_key"),
        key("elsewhere_key")
    )
}

pub fn mounted(status: &serde_json::Value) -> bool {
    status["array"]["state"] == "mounted"
}

/// A machine after its first start, with its array.
pub fn ready(name: &str) -> (Trial, Machine) {
    ready_with(name, Vec::new())
}

/// The same, with further credentials for its systemd.
fn ready_with(name: &str, credentials: Vec<(String, String)>) -> (Trial, Machine) {
    let trial = Trial::new(&Workspace::here(), &folder(name), &StoreOptions::default()).unwrap();
    trial.configure(&configuration(&trial)).unwrap();
    trial.flash().unwrap();
    let mut hardware = trial.hardware("first", Firmware::Bios);
    hardware.credentials.extend(credentials);
    let mut machine = start_on(&trial, &hardware);
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
    (trial, machine)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sessions(admin: &Login) -> Vec<serde_json::Value> {
    let text = admin.run("strongroom sessions --json").unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn wait_for_sessions(machine: &mut Machine, admin: &Login, count: usize) {
    machine
        .wait_until(&format!("there were not {count} sessions"), END, |_| {
            Ok(sessions(admin).len() == count)
        })
        .unwrap();
}

#[test]
#[ignore = "needs the built image: cargo image test"]
fn a_key_opens_one_repository_and_nothing_else() {
    // Memory for one session and a half.
    let little = (
        "systemd.unit-dropin.strongroom-sessions.slice".to_owned(),
        "[Slice]\nMemoryMax=100M\n".to_owned(),
    );
    let (trial, mut machine) = ready_with("confinement", vec![little]);
    let admin = trial.admin(&machine);
    let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
    let other = Client::new(OTHER, login(&trial, &machine, "other_key"), &trial.folder);

    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 3 << 20);
    let source = files.to_str().unwrap();
    client.borg(&["init", "--encryption=none"]);
    client.borg(&["create", "::one", source]);
    client.borg(&["create", "::two", source]);
    other.borg(&["init", "--encryption=repokey-blake2"]);

    each_has_an_account_of_its_own(&admin);
    the_kernel_bounds_who_has_a_quota(&admin);
    no_other_way_in(&trial, &machine);
    no_other_repository(&client);
    nothing_is_erased(&trial, &mut machine, &client);
    a_quota_holds(&trial, &other);
    an_address_is_asked_for(&trial, &machine);
    a_key_that_reads_only_reads(&trial, &machine, &files);
    sessions_are_seen_and_ended(&mut machine, &admin, &client);
    whoever_goes_leaves_nothing_running(&mut machine, &admin, &client);
    who_finds_no_memory_waits(&mut machine, &admin, &client, &other);

    assert_eq!(client.archives(), ["two"]);
    assert_same(&files, &client.extract("two").join(source.trim_start_matches('/')));
    is_sound(&trial, &machine);
    eprintln!(
        "{}",
        admin
            .run("free -m; ps -o rss,comm -C strongroom-sessions,strongroomd")
            .unwrap()
    );

    machine.shut_down(STOP).unwrap();
}

fn each_has_an_account_of_its_own(admin: &Login) {
    let owners = admin.run("stat -c '%U %a' /mnt/raid/*_repository | sort").unwrap();
    assert_eq!(owners, "strongroom-c00 700\nstrongroom-c01 700\nstrongroom-c02 700\n");
}

/// ext4 tells a folder of a bounded project that it is as large as the bound, once it keeps bounds at all.
fn the_kernel_bounds_who_has_a_quota(admin: &Login) {
    let status: serde_json::Value = serde_json::from_str(&admin.run("strongroom status --json").unwrap()).unwrap();
    assert_eq!(status["array"]["quotas"], "enforced");
    let size = |folder: &str| -> u64 {
        let told = admin.run(&format!("stat -f -c '%S %b' /mnt/raid/{folder}")).unwrap();
        told.split_whitespace()
            .map(|number| number.parse::<u64>().unwrap())
            .product()
    };
    // 20 MB and an eighth, 256 MiB, and twice Borg's 500 MiB.
    let wall: u64 = 22_500_000 + ((256 + 1000) << 20);
    let array = size("");
    assert!(array > wall, "the array is too small to show it: {array}");
    let bounded = size(&format!("{OTHER}_repository"));
    assert!(bounded.abs_diff(wall) < 8192, "{bounded} for {wall}");
    assert_eq!(size(&format!("{CLIENT}_repository")), array);
}

/// Each of these commands is refused in words.
pub fn nothing_but_borg_is_let_in(login: &Login, wanted: &[&str]) {
    for wanted in wanted {
        let output = login.output(wanted).unwrap();
        assert!(!output.status.success(), "{wanted} was let in");
        let said = said(&output);
        assert!(said.contains("serves Borg only"), "{wanted}: {said}");
        assert!(output.stdout.is_empty(), "{wanted} printed something");
    }
}

/// No transfer of files.
pub fn sftp_is_refused(login: &Login) {
    let batch = Command::new("sftp")
        .args(login.options())
        .args(["-b", "/dev/null", "borgbackup@127.0.0.1"])
        .output()
        .unwrap();
    assert!(!batch.status.success(), "sftp was let in");
}

/// Whatever ssh can ask for besides a command, and every command but Borg's.
fn no_other_way_in(trial: &Trial, machine: &Machine) {
    let login = login(trial, machine, "client_key");
    let wanted = [
        "sh",
        "sh -c id",
        "cat /etc/passwd",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        "scp -t /tmp",
        "rsync --server . /tmp",
        "borg list /",
        "strongroom sessions",
    ];
    nothing_but_borg_is_let_in(&login, &wanted);
    // Borg refuses what it does not know; the session is one of Borg all the same.
    let sly = login.output("borg serve; id").unwrap();
    assert!(sly.stdout.is_empty(), "borg serve; id printed something");
    let with = |options: &[&str], remote: &[&str]| {
        Command::new("ssh")
            .args(login.options())
            .args(options)
            .arg("borgbackup@127.0.0.1")
            .args(remote)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    // A shell, with a terminal and without.
    assert!(!with(&["-tt"], &[]).status.success());
    assert!(said(&with(&["-T"], &[])).contains("serves Borg only"));
    // Forwarding in each direction, with a command that would be let in.
    for options in [
        &["-W", "127.0.0.1:323"][..],
        &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"],
        &["-o", "ExitOnForwardFailure=yes", "-R", "/tmp/there:127.0.0.1:22"],
        &["-o", "ExitOnForwardFailure=yes", "-w", "0:0"],
    ] {
        assert!(!with(options, &[]).status.success(), "{options:?} was let in");
    }
    // These open a port here and fail only when it is used.
    for option in ["-L", "-D"] {
        let port = free_port().unwrap();
        let target = if option == "-L" {
            format!("{port}:127.0.0.1:22")
        } else {
            port.to_string()
        };
        let mut tunnel = Command::new("ssh")
            .args(login.options())
            .args([option, &target, "-N", "borgbackup@127.0.0.1"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut connection = connect(port);
        if option == "-D" {
            // SOCKS 5, no authentication, connect to 127.0.0.1:22.
            let _ = connection.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 22]);
        }
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        assert!(
            !String::from_utf8_lossy(&answer).contains("SSH-"),
            "{option} reached sshd"
        );
        tunnel.kill().unwrap();
        tunnel.wait().unwrap();
    }
    sftp_is_refused(&login);
    // Neither an agent, nor X11, nor a variable comes through: nothing could see it, so sshd's answer counts.
    let debug = with(
        &[
            "-v",
            "-A",
            "-X",
            "-o",
            "SetEnv=BORG_REPO=/ LD_PRELOAD=/x PYTHONSTARTUP=/x",
        ],
        &["sh"],
    );
    let debug = said(&debug);
    assert!(debug.contains("serves Borg only"), "{debug}");
    assert!(!debug.contains("Agent forwarding enabled"), "{debug}");
}

fn connect(port: u16) -> std::net::TcpStream {
    for _ in 0..300 {
        if let Ok(connection) = std::net::TcpStream::connect(("127.0.0.1", port)) {
            connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            return connection;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("ssh did not open its port");
}

fn no_other_repository(client: &Client) {
    let own = format!("/mnt/raid/{CLIENT}_repository");
    for path in [
        format!("/mnt/raid/{OTHER}_repository"),
        format!("{own}/../{OTHER}_repository"),
        format!("{own}/data"),
        format!("/proc/self/root/mnt/raid/{OTHER}_repository"),
        "/mnt/raid/new_one".into(),
        "/mnt/raid".into(),
        "/tmp/x".into(),
        "/".into(),
    ] {
        let asking = client.asking_for(&path);
        assert!(!asking.output(&["list"]).status.success(), "{path} was let in");
        assert!(
            !asking.output(&["init", "--encryption=none"]).status.success(),
            "{path} was let in"
        );
    }
    // Options of the client's choosing change nothing.
    let sly = "--remote-path=borg serve --restrict-to-path=/ --umask=0 --storage-quota=1P";
    let foreign = client.asking_for(&format!("/mnt/raid/{OTHER}_repository"));
    assert!(!foreign.output(&[sly, "list"]).status.success());
}

/// What a client deletes and compacts is gone for it, but its bytes stay.
fn nothing_is_erased(trial: &Trial, machine: &mut Machine, client: &Client) {
    let size = |status: &serde_json::Value| {
        let clients = status["clients"].as_array().cloned().unwrap_or_default();
        let found = clients.iter().find(|found| found["name"] == CLIENT).cloned();
        found.and_then(|found| found["size_bytes"].as_u64()).unwrap_or_default()
    };
    let known = |status: &serde_json::Value| size(status) > 3 << 20;
    let before = size(&wait_for_status(
        trial,
        machine,
        "the backups were not seen",
        SOON,
        known,
    ));
    client.borg(&["delete", "::one"]);
    client.output(&["compact"]);
    let _ = client.output(&["config", "append_only", "0"]);
    client.output(&["compact"]);
    assert_eq!(client.archives(), ["two"]);
    // Larger by what says that it was deleted.
    let grown = |status: &serde_json::Value| size(status) > before;
    wait_for_status(trial, machine, "the repository shrank", SOON, grown);
}

fn a_quota_holds(trial: &Trial, other: &Client) {
    let large = trial.folder.join("large");
    std::fs::write(&large, random(30 << 20)).unwrap();
    let refused = other.output(&["create", "--compression=none", "::large", large.to_str().unwrap()]);
    assert!(!refused.status.success(), "more than the quota was taken");
    assert!(said(&refused).to_lowercase().contains("quota"), "{}", said(&refused));
}

fn an_address_is_asked_for(trial: &Trial, machine: &Machine) {
    let output = login(trial, machine, "elsewhere_key").output("borg serve").unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", said(&output));
    assert!(said(&output).contains("Permission denied"), "{}", said(&output));
}

fn a_key_that_reads_only_reads(trial: &Trial, machine: &Machine, files: &Path) {
    let reader = Client::new(
        CLIENT,
        login(trial, machine, "restore_key"),
        &trial.folder.join("reader"),
    );
    assert_eq!(reader.borg(&["list", "--bypass-lock", "--short"]).trim(), "two");
    let into = trial.folder.join("restored");
    let _ = std::fs::remove_dir_all(&into);
    std::fs::create_dir_all(&into).unwrap();
    let mut extract = reader.command(&["extract", "--bypass-lock", "::two"]);
    assert!(extract.current_dir(&into).status().unwrap().success());
    assert_same(files, &into.join(files.to_str().unwrap().trim_start_matches('/')));
    for arguments in [
        &["list"][..],
        &["create", "::mine", "/etc/hostname"],
        &["delete", "::two"],
        &["delete", "--force", "--bypass-lock", "::two"],
        &["compact"],
    ] {
        assert!(!reader.output(arguments).status.success(), "{arguments:?} was let in");
    }
}

/// A backup that goes on until its input ends.
fn endless(client: &Client, name: &str) -> Child {
    client
        .command(&["create", "--lock-wait=60", &format!("::{name}"), "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn sessions_are_seen_and_ended(machine: &mut Machine, admin: &Login, client: &Client) {
    wait_for_sessions(machine, admin, 0);
    let mut backup = endless(client, "never");
    let mut input = backup.stdin.take().unwrap();
    input.write_all(&random(1 << 20)).unwrap();
    wait_for_sessions(machine, admin, 1);
    let session = sessions(admin).remove(0);
    assert_eq!(session["client"], CLIENT, "{session:#}");
    assert!(
        session["since"].as_u64().is_some() && session["written_bytes"].is_u64(),
        "{session:#}"
    );
    let id = session["id"].as_str().unwrap();
    eprintln!("{}", admin.run("strongroom sessions").unwrap());
    // As an account of its own, with all walls up: the kernel says so of Borg itself.
    let unit = format!("strongroom-session@{id}.service");
    let process = admin.run(&format!("systemctl show --value -p MainPID {unit}")).unwrap();
    let facts = admin.run(&format!("cat /proc/{}/status", process.trim())).unwrap();
    for fact in [
        "Uid:\t702\t702\t702\t702",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
    ] {
        assert!(facts.contains(fact), "{fact}\n{facts}");
    }
    let name = admin.run(&format!("cat /proc/{}/comm", process.trim())).unwrap();
    assert!(name.trim().starts_with("borg"), "{name}");
    let log = admin
        .run("journalctl -b --no-pager -o cat -u strongroom-sessions")
        .unwrap();
    assert!(log.contains(&format!("Session {id} began, as strongroom-c")), "{log}");

    let refused = admin.output("strongroom sessions end ../x-1").unwrap();
    assert!(said(&refused).contains("not a session"), "{}", said(&refused));
    admin.run(&format!("strongroom sessions end {id}")).unwrap();
    drop(input);
    let output = backup.wait_with_output().unwrap();
    assert!(!output.status.success(), "the backup went on");
    // Borg may see the end of the connection before it sees why.
    let why = said(&output);
    let told = why.contains("ended on the appliance") || why.contains("Connection closed");
    assert!(told, "{why}");
    wait_for_sessions(machine, admin, 0);
    // Its lock does not stand in the next one's way.
    assert_eq!(client.archives(), ["two"]);
}

fn whoever_goes_leaves_nothing_running(machine: &mut Machine, admin: &Login, client: &Client) {
    for round in 0..2 {
        let mut backup = endless(client, "gone");
        let mut input = backup.stdin.take().unwrap();
        input.write_all(&random(1 << 20)).unwrap();
        wait_for_sessions(machine, admin, 1);
        std::thread::sleep(Duration::from_millis(700 * round));
        // Borg and its ssh die at once, as with a machine that loses its power; the network stays.
        let ssh = Command::new("pkill")
            .args(["-KILL", "-P", &backup.id().to_string()])
            .status();
        assert!(ssh.unwrap().success());
        backup.kill().unwrap();
        drop(input);
        backup.wait().unwrap();
        wait_for_sessions(machine, admin, 0);
    }
    assert_eq!(client.archives(), ["two"]);
}

fn who_finds_no_memory_waits(machine: &mut Machine, admin: &Login, client: &Client, other: &Client) {
    let bound = admin
        .run("systemctl show -P MemoryMax strongroom-sessions.slice")
        .unwrap();
    assert_eq!(bound.trim(), (100 << 20).to_string());
    let mut backup = endless(client, "first");
    let mut input = backup.stdin.take().unwrap();
    input.write_all(&random(1 << 20)).unwrap();
    wait_for_sessions(machine, admin, 1);
    let mut second = other
        .command(&["info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut errors = BufReader::new(second.stderr.take().unwrap());
    errors.read_line(&mut told).unwrap();
    assert!(
        told.contains("beside the 1 that run; this one waits for its turn"),
        "{told}"
    );
    assert_eq!(sessions(admin).len(), 1);
    backup.kill().unwrap();
    drop(input);
    backup.wait().unwrap();
    assert!(second.wait().unwrap().success(), "who waited was not let in");
    wait_for_sessions(machine, admin, 0);
}

/// One after the other, since a login takes long under emulation; all are held open.
fn many_at_once_are_bounded(machine: &mut Machine, admin: &Login, login: &Login) {
    wait_for_sessions(machine, admin, 0);
    let mut held: Vec<Child> = Vec::new();
    for count in 1..=OF_CLIENT_MAX {
        let mut command = login.command("borg serve");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        held.push(command.spawn().unwrap());
        wait_for_sessions(machine, admin, count);
    }
    for _ in 0..2 {
        let output = login.output("borg serve").unwrap();
        assert!(!output.status.success());
        assert!(said(&output).contains("8 sessions already"), "{}", said(&output));
    }
    eprintln!("{}", admin.run("strongroom sessions; free -m").unwrap());
    for mut child in held {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
    wait_for_sessions(machine, admin, 0);
}

mod thorough {
    use super::*;

    #[test]
    #[ignore = "needs the built image: cargo image test"]
    fn sessions_are_bounded_and_accounts_outlive_a_restart() {
        let (trial, mut machine) = ready("bounds");
        let admin = trial.admin(&machine);
        let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
        client.borg(&["init", "--encryption=none"]);
        let own = login(&trial, &machine, "client_key");
        many_at_once_are_bounded(&mut machine, &admin, &own);

        // The owners are the only record of who has which account.
        let owners = "stat -c '%n %u' /mnt/raid/*_repository";
        let before = admin.run(owners).unwrap();
        machine.shut_down(STOP).unwrap();
        let mut machine = start(&trial, "again", Firmware::Bios);
        wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
        assert_eq!(trial.admin(&machine).run(owners).unwrap(), before);
        let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
        assert!(client.archives().is_empty());
        machine.shut_down(STOP).unwrap();
    }
}
