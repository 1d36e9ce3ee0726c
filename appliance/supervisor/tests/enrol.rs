//! Enrolling with the real sshd and ssh, and the roles as systemd starts them: pairing, and keys that are admitted no more.

#![allow(clippy::unwrap_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use strongroom_model::condition::ConditionId;
use strongroom_model::config::Size;
use strongroom_model::drill::{BorgCheck, Drill, Kind};
use strongroom_model::name::ClientName;
use strongroom_model::name::TargetName;
use strongroom_model::registry::{Answer, Change, Opened, Request, Settings};
use strongroom_model::ssh_key::SshPublicKey;
use strongroom_model::upkeep::rollback::KeptRange;
use strongroom_supervisor::configuration::in_force;
use strongroom_supervisor::durable;
use strongroom_supervisor::enrol::perform::{Performed, Refusal, Running, perform};
use strongroom_supervisor::enrol::{self, ask, folders, pairing};
use strongroom_supervisor::offsite::{drills, recipients};
use strongroom_supervisor::paths::Paths;
use strongroom_supervisor::upkeep::{hold, look};
use support::role;
use support::sshd::{As, SERVE, Sshd, make_key, run, said};

const CLIENTS: &str = "strongroom-clients";

/// In place of systemd: starts the role for each connection to its socket.
struct Socket {
    paths: Paths,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    fn listen(paths: Paths) -> Self {
        let place = paths.clients_socket();
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(place).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (root, stopped) = (paths.root().to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut role = Command::new(role(CLIENTS));
                role.arg("--root").arg(&root).stderr(Stdio::null());
                let status = role.stdin(Stdio::from(OwnedFd::from(connection))).status().unwrap();
                assert!(status.success());
            }
        });
        Self {
            paths,
            stop,
            thread: Some(thread),
        }
    }

    #[track_caller]
    fn done(&self, request: &Request) -> Vec<String> {
        match ask::ask(&self.paths, request).unwrap() {
            Answer::Done(words) => words,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&self, request: &Request) -> String {
        match ask::ask(&self.paths, request).unwrap() {
            Answer::Refused(why) => why,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn open(&self, name: &str) -> Opened {
        let request = Request::Pair {
            name: client(name),
            minutes: 10,
            settings: Settings::default(),
        };
        match ask::ask(&self.paths, &request).unwrap() {
            Answer::Opened(opened) => opened,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = std::os::unix::net::UnixStream::connect(self.paths.clients_socket());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn client(name: &str) -> ClientName {
    ClientName::new(name).unwrap()
}

/// The appliance's own host key is that of its sshd.
fn with_host_key(sshd: &Sshd) {
    let file = sshd.paths().host_key();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::copy(sshd.place("host.pub"), file).unwrap();
}

#[test]
fn a_machine_enrols_the_key_that_it_holds() {
    let sshd = Sshd::start(As::Pair);
    with_host_key(&sshd);
    let socket = Socket::listen(sshd.paths());
    let is_out = |remote: &str| {
        let output = sshd.ssh(&[], &[remote]);
        assert!(!output.status.success());
        assert!(said(&output).contains("Permission denied"), "{}", said(&output));
    };
    is_out("01234-56789");

    let opened = socket.open("asus");
    assert!(!opened.known);
    assert!(
        fs::read_to_string(sshd.place("host.pub"))
            .unwrap()
            .starts_with(&opened.host_key)
    );
    // Whatever is wanted is taken for a code; there is no shell, no terminal, no forwarding.
    for wanted in ["sh", "01234-56789", "borg serve"] {
        let output = sshd.ssh(&[], &[wanted]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("tries are left"), "{}", said(&output));
        assert!(output.stdout.is_empty());
    }
    assert!(said(&sshd.ssh(&[], &[])).contains("give the code"));
    for options in [
        &["-tt"][..],
        &["-W", "127.0.0.1:22"],
        &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"],
    ] {
        assert!(!sshd.ssh(options, &[]).status.success(), "{options:?} was let in");
    }
    let output = sshd.ssh(&[], &[&opened.code.to_uppercase()]);
    assert!(output.status.success(), "{}", said(&output));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("Client asus is enrolled"), "{told}");
    let registry = enrol::registry(&sshd.paths()).unwrap();
    assert!(registry.client[0].keys[0].get_ref().same_key(&sshd.key()));
    let keys = fs::read_to_string(sshd.paths().at("/run/strongroom/authorized_keys/borgbackup")).unwrap();
    let line = format!(
        "strongroom-serve asus {}\" {}",
        sshd.key().fingerprint(),
        sshd.key().authorized()
    );
    assert!(keys.contains(&line), "{keys}");
    // The code counts once.
    is_out(&opened.code);

    // A second machine of the same client, and a key of a kind that is not taken.
    let again = socket.open("asus");
    assert!(again.known);
    let mut short = Command::new("ssh-keygen");
    let file = sshd.place("short");
    short.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", &file]);
    assert!(run(&mut short).status.success());
    let other = sshd.place("other");
    make_key(&other);
    for (file, is_let_in) in [(file, false), (other, true)] {
        fs::rename(&file, sshd.place("key")).unwrap();
        fs::rename(file + ".pub", sshd.place("key.pub")).unwrap();
        let output = sshd.ssh(&[], &[&again.code]);
        assert_eq!(output.status.success(), is_let_in, "{}", said(&output));
    }
    assert_eq!(enrol::registry(&sshd.paths()).unwrap().client[0].keys.len(), 2);
}

#[test]
fn a_pairing_is_closed_early() {
    let sshd = Sshd::start(As::Pair);
    with_host_key(&sshd);
    let socket = Socket::listen(sshd.paths());
    assert_eq!(socket.refused(&Request::ClosePairing), "no pairing is open");
    let opened = socket.open("asus");
    // The account of pairing may not: only whoever may open one closes it.
    assert!(socket.done(&Request::ClosePairing)[0].contains("for client asus is closed"));
    let output = sshd.ssh(&[], &[&opened.code]);
    assert!(said(&output).contains("Permission denied"), "{}", said(&output));
    let code = |code: &str| Request::Code {
        code: code.into(),
        key: sshd.key(),
    };
    assert!(socket.refused(&code(&opened.code)).contains("no pairing is open"));
    socket.open("asus");
    for _ in 0..5 {
        socket.refused(&code("00000-00000"));
    }
    assert_eq!(pairing::conditions(&sshd.paths()).len(), 1);
    assert!(socket.done(&Request::ClosePairing)[0].contains("told no more"));
    assert!(pairing::conditions(&sshd.paths()).is_empty());
}

#[test]
fn guessing_closes_a_pairing_and_is_told() {
    let sshd = Sshd::start(As::Pair);
    with_host_key(&sshd);
    let socket = Socket::listen(sshd.paths());
    let opened = socket.open("asus");
    for _ in 0..5 {
        assert_eq!(sshd.ssh(&[], &["00000-00000"]).status.code(), Some(1));
    }
    let output = sshd.ssh(&[], &[&opened.code]);
    assert!(said(&output).contains("Permission denied"), "{}", said(&output));
    let why = socket.refused(&Request::Code {
        code: opened.code,
        key: sshd.key(),
    });
    assert!(why.contains("no pairing is open"), "{why}");
    assert!(enrol::registry(&sshd.paths()).unwrap().client.is_empty());
    let conditions = pairing::conditions(&sshd.paths());
    assert_eq!(conditions[0].id, ConditionId::PairingFailed);
    // Another one is another chance.
    let opened = socket.open("asus");
    assert!(pairing::conditions(&sshd.paths()).is_empty());
    assert!(sshd.ssh(&[], &[&opened.code]).status.success());
}

#[test]
fn a_key_is_admitted_until_it_is_revoked_and_a_client_until_it_is_paused() {
    let sshd = Sshd::start(As::Client);
    let socket = Socket::listen(sshd.paths());
    let root = sshd.folder.path().display().to_string();
    let ask = |change: Change| {
        socket.done(&Request::Change(change));
        let keys = fs::read_to_string(sshd.paths().at("/run/strongroom/authorized_keys/borgbackup")).unwrap();
        sshd.admit(&keys.replace(
            "/usr/lib/strongroom/strongroom-serve",
            &format!("{} --root {root}", role(SERVE)),
        ));
    };
    let asked = |options: &[&str]| said(&sshd.ssh(options, &["borg serve"]));
    let ready = "array is not ready";
    assert!(asked(&[]).contains("Permission denied"));
    ask(Change::Add {
        name: client("asus"),
        keys: vec![sshd.key()],
        restore_keys: Vec::new(),
        settings: Settings::default(),
    });
    assert!(asked(&[]).contains(ready), "{}", asked(&[]));

    ask(Change::Pause { name: client("asus") });
    assert!(asked(&[]).contains("paused by the appliance's owner"), "{}", asked(&[]));
    ask(Change::Resume { name: client("asus") });
    assert!(asked(&[]).contains(ready));

    // A connection that was made before stays, but nothing is let in over it.
    let control = sshd.place("control");
    let shared = ["-o", &format!("ControlPath={control}")];
    let master = [
        &shared[..],
        &["-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-N", "-f"],
    ]
    .concat();
    // Its output would hold the test until it ends.
    assert!(sshd.ssh_apart(&master).success());
    assert!(asked(&shared).contains(ready), "{}", asked(&shared));
    ask(Change::Revoke {
        name: client("asus"),
        fingerprint: Some(sshd.key().fingerprint()),
    });
    assert!(asked(&[]).contains("Permission denied"));
    assert!(asked(&shared).contains("not admitted any more"), "{}", asked(&shared));
    sshd.ssh(&[&shared[..], &["-O", "exit"]].concat(), &[]);

    let why = socket.refused(&Request::Change(Change::Rotate {
        name: client("asus"),
        keys: vec![sshd.key()],
        restore_keys: Vec::new(),
        keep_old: false,
    }));
    assert!(why.contains("revoked"), "{why}");
}

const KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBbGCnrVR+MkRRvhHF3kdfCGBuDsyP5ArmEVCOcyFJWY",
];
const TARGET: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\naccess_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";

/// An appliance whose array is a folder.
struct Appliance {
    _folder: tempfile::TempDir,
    paths: Paths,
    running: Running,
}

impl Appliance {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        durable::write(&paths.config(), config.as_bytes(), 0o644).unwrap();
        fs::create_dir_all(paths.at("/mnt/raid")).unwrap();
        let appliance = Self {
            _folder: folder,
            paths,
            running: Running::default(),
        };
        appliance.mount(true);
        appliance
    }

    fn mount(&self, mounted: bool) {
        let table = if mounted {
            "36 35 9:127 / /mnt/raid rw - ext4 /dev/md127 rw\n"
        } else {
            ""
        };
        durable::write(&self.paths.at("/proc/self/mountinfo"), table.as_bytes(), 0o644).unwrap();
    }

    fn ask(&self, change: Change) -> Result<Performed, Refusal> {
        perform(&self.paths, &Request::Change(change), &self.running)
    }

    /// Refused, and nothing is other than before.
    #[track_caller]
    fn refused(&self, change: Change) -> String {
        let before = (fs::read(self.paths.registry()).ok(), self.array());
        let why = self.ask(change).unwrap_err().to_string();
        assert_eq!((fs::read(self.paths.registry()).ok(), self.array()), before);
        why
    }

    fn array(&self) -> Vec<String> {
        let entries = fs::read_dir(self.paths.at("/mnt/raid")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A repository made by the real Borg, with about 20 MB.
    fn borg(&self, name: &str) {
        let repository = self.paths.repository(&client(name));
        let photo = self.paths.at("/photo");
        let mut noise = fs::File::open("/dev/urandom").unwrap();
        let mut file = fs::File::create(&photo).unwrap();
        std::io::copy(&mut std::io::Read::take(&mut noise, 20 << 20), &mut file).unwrap();
        for arguments in [&["init", "--encryption=none"][..], &["create", "::one", "photo"]] {
            let mut command = Command::new("borg");
            command.args(arguments).current_dir(self.paths.root());
            command
                .env("BORG_REPO", &repository)
                .env("BORG_BASE_DIR", self.paths.at("/borg"));
            command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
            let output = run(&mut command);
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

fn key(number: usize) -> SshPublicKey {
    SshPublicKey::parse(KEYS[number]).unwrap()
}

fn add(name: &str, quota: Option<&str>) -> Change {
    Change::Add {
        name: client(name),
        keys: vec![key(0)],
        restore_keys: Vec::new(),
        settings: Settings {
            quota: quota.and_then(Size::new),
            ..Settings::default()
        },
    }
}

fn rename(from: &str, to: &str, new_copies: bool) -> Change {
    Change::Rename {
        from: client(from),
        to: client(to),
        new_copies,
    }
}

fn remove(name: &str, delete_repository: bool) -> Change {
    Change::Remove {
        name: client(name),
        delete_repository,
    }
}

#[test]
fn what_lies_in_the_place_of_a_repository_is_judged_first() {
    let appliance = Appliance::new("");
    appliance.borg("asus");
    let why = appliance.refused(add("asus", Some("15 MB")));
    assert!(why.contains("more than a quota of 15 MB"), "{why}");
    let foreign = appliance.paths.repository(&client("letters"));
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear diary").unwrap();
    let why = appliance.refused(add("letters", None));
    assert!(why.contains("not a Borg repository"), "{why}");
    let config = appliance.paths.repository(&client("asus")).join("config");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.replace("version = 1", "version = 2")).unwrap();
    let why = appliance.refused(add("asus", None));
    assert!(why.contains("version 2") || why.contains("version"), "{why}");
    fs::write(&config, good).unwrap();
    fs::write(appliance.paths.repository(&client("file")), "").unwrap();
    assert!(appliance.refused(add("file", None)).contains("not a folder"));

    let done = appliance.ask(add("asus", Some("50 MB"))).unwrap();
    assert!(matches!(&done.answer, Answer::Done(words) if words[1].contains("goes on with asus_repository")));
    assert!(in_force(&appliance.paths).client("asus").is_some());
    let lower = Change::Set {
        name: client("asus"),
        settings: Settings {
            quota: Size::new("15 MB"),
            ..Settings::default()
        },
    };
    assert!(appliance.refused(lower).contains("more than a quota"));
}

#[test]
fn a_new_name_waits_for_what_runs_and_moves_what_is_a_clients() {
    let mut appliance = Appliance::new("");
    appliance.ask(add("asus", None)).unwrap();
    let old = appliance.paths.repository(&client("asus"));
    fs::create_dir_all(old.join("data")).unwrap();
    fs::create_dir(appliance.paths.repository(&client("taken"))).unwrap();
    assert!(
        appliance
            .refused(rename("asus", "taken", false))
            .contains("taken_repository")
    );
    appliance.running.sessions.push("asus-3".parse().unwrap());
    assert!(
        appliance
            .refused(rename("asus", "laptop", false))
            .contains("session asus-3 is running")
    );
    appliance.running = Running {
        jobs: vec![(client("asus"), "a push")],
        ..Running::default()
    };
    assert!(
        appliance
            .refused(rename("asus", "laptop", false))
            .contains("a push of client `asus`")
    );
    appliance.running = Running::default();
    appliance.mount(false);
    assert!(
        appliance
            .refused(rename("asus", "laptop", false))
            .contains("not mounted")
    );
    appliance.mount(true);

    appliance.ask(rename("asus", "laptop", false)).unwrap();
    assert_eq!(appliance.array(), ["laptop_repository", "taken_repository"]);
    let registry = enrol::registry(&appliance.paths).unwrap();
    assert_eq!((registry.moving, registry.client.len()), (None, 1));
    let keys = fs::read_to_string(appliance.paths.at("/run/strongroom/authorized_keys/borgbackup")).unwrap();
    assert!(
        keys.contains("strongroom-serve laptop ") && !keys.contains("asus"),
        "{keys}"
    );
}

#[test]
fn a_change_of_name_that_was_cut_short_is_finished() {
    let appliance = Appliance::new("");
    appliance.ask(add("asus", None)).unwrap();
    fs::create_dir(appliance.paths.repository(&client("asus"))).unwrap();
    // The power goes after the registry was written.
    let cut = enrol::registry(&appliance.paths).unwrap();
    let cut = cut
        .changed(&Default::default(), &rename("asus", "laptop", false))
        .unwrap();
    enrol::keep(&appliance.paths, &cut.registry).unwrap();
    appliance.mount(false);
    let another = Change::Add {
        name: client("asus"),
        keys: vec![key(1)],
        restore_keys: Vec::new(),
        settings: Settings::default(),
    };
    assert!(appliance.refused(another).contains("still to be moved"));
    appliance.mount(true);
    appliance.ask(Change::Pause { name: client("laptop") }).unwrap();
    assert_eq!(appliance.array(), ["laptop_repository"]);
    assert_eq!(enrol::registry(&appliance.paths).unwrap().moving, None);
}

#[test]
fn a_copy_under_the_old_name_is_not_left_unasked() {
    let appliance = Appliance::new(TARGET);
    appliance.ask(add("asus", None)).unwrap();
    let ledger = appliance
        .paths
        .ledger(&client("asus"), &TargetName::new("far").unwrap());
    durable::write(&ledger.join("summary.json"), b"{}", 0o644).unwrap();
    let why = appliance.refused(rename("asus", "laptop", false));
    assert!(why.contains("target `far`") && why.contains("--new-copies"), "{why}");
    appliance.ask(rename("asus", "laptop", true)).unwrap();
    assert!(ledger.join("summary.json").exists());
}

#[test]
fn removing_keeps_the_data_and_deleting_is_for_what_is_idle() {
    let mut appliance = Appliance::new(&format!("[[client]]\nname = \"attic\"\nkeys = [\"{}\"]\n", KEYS[1]));
    let repository = appliance.paths.repository(&client("asus"));
    appliance.ask(add("asus", None)).unwrap();
    fs::create_dir(&repository).unwrap();
    appliance.ask(remove("asus", false)).unwrap();
    assert_eq!(appliance.array(), ["asus_repository"]);
    assert!(in_force(&appliance.paths).client("asus").is_none());

    appliance.ask(add("asus", None)).unwrap();
    appliance.running.sessions.push("asus-3".parse().unwrap());
    assert!(appliance.refused(remove("asus", true)).contains("session asus-3"));
    appliance.running.sessions = vec!["asus-b-3".parse().unwrap()];
    assert!(appliance.refused(remove("attic", true)).contains("strongroom.toml"));
    let watch = appliance.paths.watch(&client("asus"));
    fs::create_dir_all(&watch).unwrap();
    appliance.ask(remove("asus", true)).unwrap();
    assert!(!repository.exists() && !watch.exists());
    folders::erase(&appliance.paths).unwrap();
    assert!(appliance.array().is_empty());
}

#[test]
fn a_damaged_registry_is_set_aside_and_its_revocations_count_on() {
    let appliance = Appliance::new(&format!("[[client]]\nname = \"attic\"\nkeys = [\"{}\"]\n", KEYS[1]));
    let paths = &appliance.paths;
    let ask = |request: &Request| perform(paths, request, &Running::default());
    appliance.ask(add("asus", None)).unwrap();
    let revoke = Change::Revoke {
        name: client("attic"),
        fingerprint: None,
    };
    appliance.ask(revoke).unwrap();
    let why = ask(&Request::SetRegistryAside).unwrap_err().to_string();
    assert!(why.contains("can be read"), "{why}");
    let damaged = fs::read_to_string(paths.registry()).unwrap() + "[broken\n";
    fs::write(paths.registry(), &damaged).unwrap();
    let pause = Change::Pause { name: client("attic") };
    assert!(appliance.refused(pause.clone()).contains("is damaged"));
    let Answer::Done(words) = ask(&Request::SetRegistryAside).unwrap().answer else {
        panic!("no words");
    };
    assert!(words[1].starts_with("1 revoked keys and 0 paused"), "{words:?}");
    let aside = paths.registry().with_extension("toml.damaged-1");
    assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
    let config = in_force(paths);
    assert!(config.client("asus").is_none());
    assert!(config.client("attic").unwrap().keys.is_empty(), "revoked it stays");
    let keys = fs::read_to_string(paths.at("/run/strongroom/authorized_keys/borgbackup")).unwrap();
    assert!(!keys.contains("ssh-ed25519"), "{keys}");
    appliance.ask(pause).unwrap();
}

#[test]
fn a_client_is_let_in_again_whose_journal_is_damaged() {
    let appliance = Appliance::new("");
    let (paths, asus) = (&appliance.paths, client("asus"));
    let reopen = Request::Reopen { name: asus.clone() };
    let refused = |running: &Running| perform(paths, &reopen, running).unwrap_err().to_string();
    assert!(refused(&Running::default()).contains("brought to its end by itself"));
    durable::write(&paths.upkeep(&asus), b"torn", 0o644).unwrap();
    // Also where the registry can't be read.
    durable::write(&paths.registry(), b"torn", 0o644).unwrap();
    let busy = Running {
        jobs: vec![(asus.clone(), "a compaction")],
        ..Running::default()
    };
    assert!(refused(&busy).contains("a compaction of client `asus` is running"));
    assert!(hold::enter(paths, &asus).is_err());
    perform(paths, &reopen, &Running::default()).unwrap();
    assert!(hold::enter(paths, &asus).is_ok());
}

#[test]
fn what_a_rollback_kept_goes_when_its_name_is_said() {
    let appliance = Appliance::new("");
    let (paths, asus) = (&appliance.paths, client("asus"));
    let kept = KeptRange::new("53-77").unwrap();
    let segment = paths.rolled_back(&asus).join("53-77/data/0/54");
    durable::write(&segment, &[0; 1000], 0o600).unwrap();
    let listed = look::kept(paths, &asus);
    assert_eq!((listed.len(), listed[0].range, listed[0].bytes), (1, kept, 1000));
    let remove = |kept| {
        let name = asus.clone();
        perform(paths, &Request::RemoveKept { name, kept }, &Running::default())
    };
    let why = remove(KeptRange { to: 53, highest: 78 }).unwrap_err().to_string();
    assert!(why.contains("kept 53-78"), "{why}");
    appliance.mount(false);
    assert!(remove(kept).unwrap_err().to_string().contains("not mounted"));
    appliance.mount(true);
    durable::write(&paths.upkeep(&asus), b"torn", 0o644).unwrap();
    assert!(
        remove(kept)
            .unwrap_err()
            .to_string()
            .contains("rollback of client `asus`")
    );
    durable::remove(&paths.upkeep(&asus)).unwrap();
    assert!(segment.exists());
    assert_eq!(format!("{:?}", remove(kept).unwrap().steps), "[Repositories]");
    assert!(look::kept(paths, &asus).is_empty());
    folders::erase(paths).unwrap();
    assert!(appliance.array().is_empty());
}

#[test]
fn a_damaged_registry_is_never_written_over() {
    let appliance = Appliance::new(&format!("[[client]]\nname = \"attic\"\nkeys = [\"{}\"]\n", KEYS[1]));
    durable::write(&appliance.paths.registry(), b"\0\0\0", 0o644).unwrap();
    assert!(appliance.refused(add("asus", None)).contains("damaged"));
    let in_force = strongroom_supervisor::configuration::load(&appliance.paths);
    assert_eq!(in_force.config.client.len(), 1);
    assert_eq!(in_force.conditions[0].id, ConditionId::RegistryUnreadable);
}

/// What a workstation says of a restore is kept, if it can be true of this appliance.
#[test]
fn a_drill_is_noted_by_its_record() {
    const TARGET: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n\
        [[offsite.target]]\nname = \"oracle\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\n\
        access_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let text = format!("[[client]]\nname = \"asus\"\nkeys = [\"{}\"]\n{TARGET}", KEYS[0]);
    durable::write(&paths.config(), text.as_bytes(), 0o644).unwrap();
    let socket = Socket::listen(paths.clone());
    let now = strongroom_supervisor::clock_now().unwrap();
    let drill = |client: &str, transaction: u64, begun: u64, error: &str| {
        Request::Drilled(Box::new(Drill {
            version: strongroom_model::drill::VERSION,
            client: ClientName::new(client).unwrap(),
            target: None,
            kind: Kind::Whole,
            transaction: Some(transaction),
            begun,
            seconds: 60,
            objects: 14,
            bytes: 1_000_000,
            borg: BorgCheck::Whole,
            file: None,
            error: error.into(),
        }))
    };
    let asus = client("asus");
    let nothing_pushed = socket.refused(&drill("asus", 17, now - 60, ""));
    assert!(nothing_pushed.contains("nothing was pushed"), "{nothing_pushed}");
    let summary = r#"{"transaction":17,"at":1,"published_at":1,"objects":14,"bytes":1000000}"#;
    let ledger = paths.ledger(&asus, &TargetName::new("oracle").unwrap());
    durable::write(&ledger.join("summary.json"), summary.as_bytes(), 0o644).unwrap();
    assert!(
        socket
            .refused(&drill("laptop", 17, now - 60, ""))
            .contains("no client `laptop`")
    );
    assert!(
        socket
            .refused(&drill("asus", 18, now - 60, ""))
            .contains("transaction 17 is the last")
    );
    assert!(
        socket
            .refused(&drill("asus", 17, now + 3600, ""))
            .contains("in the future")
    );
    assert!(!paths.drills().exists());

    let words = socket.done(&drill("asus", 17, now - 120, "data/0/1.gpg: damaged"));
    assert!(words[0].contains("asus from its copy at oracle failed"), "{words:?}");
    assert_eq!(drills::read(&paths).last(&asus).failed, Some(now - 60));
    let words = socket.done(&drill("asus", 16, now - 60, ""));
    assert!(words[0].contains("went well"), "{words:?}");
    let last = drills::read(&paths).last(&asus);
    assert_eq!((last.whole, last.seconds, last.failed), (Some(now), Some(60), None));
    // A damaged file only has another asked for.
    fs::write(paths.drills(), "[{").unwrap();
    assert_eq!(drills::read(&paths).last(&asus).whole, None);
    socket.done(&drill("asus", 16, now - 60, ""));
    assert_eq!(drills::read(&paths).last(&asus).whole, Some(now));
}

/// Over the socket, as the supervisor asks for it: what is kept is what the status and a push look at.
#[test]
fn a_proof_is_kept_by_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::new(folder.path());
    let socket = Socket::listen(paths.clone());
    let proven = |fingerprint: &str| Request::Proven {
        fingerprint: fingerprint.into(),
    };
    let [one, other] = ["0A".repeat(20), "1B".repeat(20)];
    assert!(socket.refused(&proven("../x")).contains("not the fingerprint"));
    assert!(!paths.proofs().exists());
    socket.done(&proven(&one));
    let first = recipients::proofs(&paths);
    assert!(first.of(&one).is_some() && first.of(&other).is_none());
    socket.done(&proven(&other));
    assert_eq!(recipients::proofs(&paths).of(&one), first.of(&one));
    // A damaged file only has the owner asked again.
    fs::write(paths.proofs(), "{").unwrap();
    assert_eq!(recipients::proofs(&paths).of(&one), None);
    socket.done(&proven(&one));
    assert!(recipients::proofs(&paths).of(&one).is_some());
}
