//! Hostile clients, which ask for what no `borg` and no `ssh` would; crowds at the door; and clients that die at any moment.
//! Each attempt is refused and told, and meanwhile the others go on.

#[path = "../../../../appliance/supervisor/tests/support/rpc.rs"]
mod rpc;

use std::collections::VecDeque;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image::loopback::StoreOptions;
use image::qemu::{Firmware, free_port};
use image::ssh::Login;
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use self::rpc::{Arg, Hostile, Value};
use crate::backup::{login, looked_at, number, wait_for_status};
use crate::client::{Client, assert_same, make_files, random};
use crate::confinement::{OTHER, configuration, mounted, ready, wait_for_sessions};
use crate::trouble::{has, text_of};
use crate::{SOON, STOP, folder, is_sound, switch_on};

/// What takes long under emulation.
const LONG: Duration = Duration::from_secs(300);

fn by_hand(login: &Login) -> Hostile {
    Hostile::start(login.command("borg serve").stderr(Stdio::null()))
}

fn repository(client: &str) -> String {
    format!("/mnt/raid/{client}_repository")
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_client_that_speaks_borgs_protocol_by_hand_is_refused_and_told() {
    let (trial, mut machine) = ready("attack");
    let admin = trial.admin(&machine);
    let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
    let other = Client::new(OTHER, login(&trial, &machine, "other_key"), &trial.folder);
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 3 << 20);
    let source = files.to_str().unwrap();
    client.borg(&["init", "--encryption=none"]);
    client.borg(&["create", "::one", source]);
    other.borg(&["init", "--encryption=repokey-blake2"]);
    let before = wait_for_status(&trial, &mut machine, "the backup was not looked at", LONG, |status| {
        looked_at(status, None) && status["clients"][0]["size_bytes"].as_u64() > Some(3 << 20)
    });
    let to = number(&before).unwrap();

    let own = login(&trial, &machine, "client_key");
    nothing_else_is_opened(&own);
    a_replaced_key_is_told(&trial, &mut machine, &own);
    nothing_is_erased(&own);
    wait_for_status(&trial, &mut machine, "the theft was not told", LONG, |status| {
        has(status, "manifest-lost") && number(status) > Some(to)
    });
    assert!(client.output(&["list"]).status.code() != Some(0));
    let rollback = format!("strongroom rollback {CLIENT} --to {to} --yes {CLIENT}");
    eprintln!("{}", admin.run(&rollback).unwrap());
    wait_for_status(&trial, &mut machine, "the rollback is not told", LONG, |status| {
        !has(status, "manifest-lost") && status["jobs"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(client.archives(), ["one"]);
    assert_same(&files, &client.extract("one").join(source.trim_start_matches('/')));
    admin.run(&format!("strongroom client accept {CLIENT}")).unwrap();

    nobody_fills_the_disk(&trial, &admin, &client, source);
    wait_for_sessions(&mut machine, &admin, 0);
    let letter = files.join("empty");
    other.borg(&["create", "--lock-wait=60", "::small", letter.to_str().unwrap()]);
    assert_eq!(other.archives(), ["small"]);
    // What was never committed went with it.
    wait_for_status(&trial, &mut machine, "what was not committed stays", LONG, |status| {
        let clients = status["clients"].as_array().cloned().unwrap_or_default();
        let found = clients.iter().find(|found| found["name"] == OTHER);
        found.and_then(|found| found["size_bytes"].as_u64()) < Some(20 << 20)
    });
    is_sound(&trial, &machine);
    machine.shut_down(STOP).unwrap();
}

/// Neither another repository nor another place, neither to read nor to make one; and no method but Borg's own.
fn nothing_else_is_opened(login: &Login) {
    let mut hostile = by_hand(login);
    let own = repository(CLIENT);
    let making = [("create", Arg::Flag(true)), ("make_parent_dirs", Arg::Flag(true))];
    for path in [
        repository(OTHER),
        format!("{own}/../{OTHER}_repository"),
        format!("{own}/data"),
        "/mnt/raid".into(),
        "/".into(),
        String::new(),
        "~root".into(),
        "/~/x".into(),
        "/./x".into(),
        "/proc/self/root".into(),
        "/etc".into(),
        "/run/strongroom".into(),
    ] {
        for more in [&[][..], &making] {
            assert_eq!(hostile.open(&path, more).unwrap_err(), "PathNotAllowed", "{path}");
        }
    }
    assert_eq!(hostile.open(&own, &making).unwrap_err(), "AlreadyExists");
    hostile.open(&own, &[("lock", Arg::Flag(false))]).unwrap();
    for method in ["close", "compact_segments", "save_config", "__class__"] {
        assert_eq!(hostile.call(method, &[]).unwrap_err(), "InvalidRPCMethod", "{method}");
    }
    assert!(hostile.close().success());
}

fn a_replaced_key_is_told(trial: &Trial, machine: &mut image::qemu::Machine, login: &Login) {
    let mut hostile = by_hand(login);
    hostile.open(&repository(CLIENT), &[]).unwrap();
    let key = "mine\nappend_only = 0\n[repository]\nstorage_quota = 0";
    hostile.call("save_key", &[("keydata", Arg::Text(key))]).unwrap();
    assert!(hostile.close().success());
    let status = wait_for_status(trial, machine, "the other key was not told", LONG, |status| {
        has(status, "config-changed")
    });
    eprintln!("{}", text_of(&status, "config-changed"));
}

/// All objects are deleted, the manifest too, and every way to erase is tried.
fn nothing_is_erased(login: &Login) {
    let mut hostile = by_hand(login);
    hostile
        .open(&repository(CLIENT), &[("append_only", Arg::Flag(false))])
        .unwrap();
    assert_eq!(hostile.call("destroy", &[]).unwrap_err(), "ValueError");
    assert_eq!(
        hostile.call("check", &[("repair", Arg::Flag(true))]).unwrap_err(),
        "ValueError"
    );
    let Value::List(ids) = hostile.call("list", &[]).unwrap() else {
        panic!("no list");
    };
    for id in &ids {
        let Value::Bytes(id) = id else { panic!("{id:?}") };
        hostile.call("delete", &[("id", Arg::Bytes(id))]).unwrap();
    }
    let fully = [
        ("compact", Arg::Flag(true)),
        ("cleanup_commits", Arg::Flag(true)),
        ("threshold", Arg::Number(0)),
    ];
    hostile.call("commit", &fully).unwrap();
    assert!(hostile.close().success());
}

/// A client that goes on sending when Borg says that its quota is reached. Another one backs up meanwhile.
fn nobody_fills_the_disk(trial: &Trial, admin: &Login, client: &Client, source: &str) {
    let other = Login {
        key: trial.folder.join("other_key"),
        ..client.login().clone()
    };
    let mut hostile = by_hand(&other);
    hostile.open(&repository(OTHER), &[("lock", Arg::Flag(false))]).unwrap();
    let data = random(8 << 20);
    let mut refused = 0_u32;
    let mut stopped = false;
    let mut id = [0; 32];
    for number in 0..64_u8 {
        id[0] = number + 1;
        match hostile.call("put", &[("id", Arg::Bytes(&id)), ("data", Arg::Bytes(&data))]) {
            Ok(_) => assert!(refused == 0, "taken above the quota"),
            Err(error) if error == "StorageQuotaExceeded" => refused += 1,
            Err(error) => {
                assert_eq!(error, "gone");
                stopped = true;
                break;
            }
        }
        if number == 8 {
            client.borg(&["create", "::meanwhile", source]);
        }
    }
    for _ in 0..60 {
        if stopped {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
        stopped = hostile.call("get_free_nonce", &[]) == Err("gone".into());
    }
    assert!(
        stopped && refused > 0,
        "{refused} were refused, but the session goes on"
    );
    let log = "journalctl -b --no-pager -o cat -u strongroom-sessions";
    let log = admin.run(log).unwrap();
    assert!(log.contains("stored more than its client's quota allows"), "{log}");
}

/// Thousands of connections that say nothing, from one address.
struct Crowd {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Crowd {
    /// So many are held open at once.
    const AT_ONCE: usize = 120;

    fn start(port: u16) -> Self {
        let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (stop.clone(), came.clone());
        let thread = std::thread::spawn(move || {
            let mut held = VecDeque::new();
            while !until.load(Ordering::Relaxed) {
                if let Ok(connection) = TcpStream::connect(("127.0.0.1", port)) {
                    count.fetch_add(1, Ordering::Relaxed);
                    held.push_back(connection);
                }
                if held.len() > Self::AT_ONCE {
                    held.pop_front();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            stop,
            came,
            thread: Some(thread),
        }
    }

    fn count(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn thousands_of_connections_shut_nobody_else_out() {
    let trial = Trial::new(&Workspace::here(), &folder("door"), &StoreOptions::default()).unwrap();
    trial.configure(&configuration(&trial)).unwrap();
    trial.flash().unwrap();
    // A second card, by which the crowd comes: from another address than everyone else.
    let door = free_port().unwrap();
    let mut hardware = trial.hardware("door", Firmware::Bios);
    hardware.extra.extend([
        "-netdev".to_owned(),
        format!("user,id=street,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{door}-:22"),
        "-device".to_owned(),
        "e1000e,netdev=street".to_owned(),
    ]);
    let mut machine = switch_on(&trial, &hardware);
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
    let admin = trial.admin(&machine);
    let from_street = Login {
        port: door,
        known_hosts: trial.folder.join("known_hosts.street"),
        ..login(&trial, &machine, "client_key")
    };
    let client = Client::new(CLIENT, from_street, &trial.folder);
    machine
        .wait_until("the street does not lead here", SOON, |_| {
            Ok(client.output(&["init", "--encryption=none"]).status.success())
        })
        .unwrap();
    let other = Client::new(OTHER, login(&trial, &machine, "other_key"), &trial.folder);
    other.borg(&["init", "--encryption=none"]);
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 1 << 20);
    let source = files.to_str().unwrap();

    let crowd = Crowd::start(door);
    machine
        .wait_until("the crowd did not come", SOON, |_| Ok(crowd.count() > 1000))
        .unwrap();
    // In hexadecimal digits, the bytes in the processor's order: 10.0.3.2 on port 22, established.
    let count = "grep -cE ':0016 0203000A:[0-9A-F]{4} 01 ' /proc/net/tcp || true";
    for _ in 0..3 {
        let mut held = 0;
        machine
            .wait_until("the administrator was shut out", LONG, |_| {
                held = admin.run(count)?.trim().parse().unwrap();
                Ok(true)
            })
            .unwrap();
        eprintln!("{held} connections of the crowd are open, {} came", crowd.count());
        assert!(held <= 48, "{held} connections from one address");
    }
    machine
        .wait_until("another client was shut out", LONG, |_| {
            Ok(other
                .output(&["create", "--lock-wait=60", "::meanwhile", source])
                .status
                .success())
        })
        .unwrap();
    machine
        .wait_until("fewer came than were to", LONG, |_| Ok(crowd.count() > 3000))
        .unwrap();
    eprintln!("{}", admin.run("free -m; uptime").unwrap());
    drop(crowd);
    machine
        .wait_until("the crowd's own address stays shut out", LONG, |_| {
            Ok(client
                .output(&["create", "--lock-wait=60", "::after", source])
                .status
                .success())
        })
        .unwrap();
    assert_eq!(other.archives(), ["meanwhile"]);
    assert_eq!(client.archives(), ["after"]);
    is_sound(&trial, &machine);
    machine.shut_down(STOP).unwrap();
}

/// Kills borg and its ssh at once, as when a machine loses its power.
fn kill(mut borg: Child) {
    let _ = Command::new("pkill")
        .args(["-KILL", "-P", &borg.id().to_string()])
        .status();
    let _ = borg.kill();
    borg.wait().unwrap();
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn a_client_that_is_killed_at_any_moment_goes_on() {
    let (trial, mut machine) = ready("killed");
    let admin = trial.admin(&machine);
    let client = Client::new(CLIENT, login(&trial, &machine, "client_key"), &trial.folder);
    let files = trial.folder.join("files");
    let _ = std::fs::remove_dir_all(&files);
    make_files(&files, 2 << 20);
    let source = files.to_str().unwrap().to_owned();
    client.borg(&["init", "--encryption=repokey-blake2"]);
    let start = Instant::now();
    client.borg(&["create", "::whole-0", &source]);
    let whole = start.elapsed();

    let mut wholes = vec!["whole-0".to_owned()];
    for round in 1..=4 {
        for cut in 0..4 {
            std::fs::write(files.join("photo"), random(2 << 20)).unwrap();
            let archive = format!("::cut-{round}-{cut}");
            let mut borg = client
                .command(&["create", "--lock-wait=60", "--checkpoint-interval=1", &archive, &source])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let part = whole.mul_f64(f64::from(random(1)[0]) / 256.0 * 1.2);
            std::thread::sleep(part);
            let ended = borg.try_wait().unwrap();
            eprintln!("{archive}: killed after {part:?} of about {whole:?}, {ended:?}");
            kill(borg);
        }
        let archive = format!("whole-{round}");
        client.borg(&["create", "--lock-wait=120", &format!("::{archive}"), &source]);
        assert_same(&files, &client.extract(&archive).join(source.trim_start_matches('/')));
        wholes.push(archive);
    }
    let archives = client.archives();
    assert!(wholes.iter().all(|whole| archives.contains(whole)), "{archives:?}");
    client.borg(&["check", "--verify-data"]);
    wait_for_sessions(&mut machine, &admin, 0);
    admin.run(&format!("strongroom check {CLIENT}")).unwrap();
    let status = wait_for_status(
        &trial,
        &mut machine,
        "the last backup was not looked at",
        LONG,
        |status| {
            let client = &status["clients"][0];
            client["transaction"].is_u64() && client["last_change"]["transaction"] == client["transaction"]
        },
    );
    for wrong in [
        "segments-changed",
        "transactions-gone",
        "repository-damaged",
        "audit-failed",
        "manifest-lost",
    ] {
        assert!(!has(&status, wrong), "{status:#}");
    }
    is_sound(&trial, &machine);
    machine.shut_down(STOP).unwrap();
}
