//! As many clients as there may be, sixteen at once, on two cores and 1 GiB: each backs up, and every archive is intact.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use image::loopback::StoreOptions;
use image::qemu::Firmware;
use image::ssh::{self, Login};
use image::trial::Trial;
use image::workspace::Workspace;

use crate::backup::wait_for_status;
use crate::client::{Client, assert_same, random};
use crate::confinement::{mounted, wait_for_sessions};
use crate::trouble::has;
use crate::{SOON, STOP, folder, is_sound, start_on};

const CLIENTS: usize = 64;
const AT_ONCE: usize = 16;
/// For all of them to be looked at and checked under emulation.
const LONG: Duration = Duration::from_secs(1800);
/// A login among sixteen others under emulation takes longer than anybody waits for one.
const PATIENT: &str = "-o ConnectTimeout=300 -o ServerAliveInterval=60 -o ServerAliveCountMax=20";

/// One of the clients: its name, and its files, which are like nobody else's.
struct One {
    name: String,
    client: Client,
    login: Login,
    files: PathBuf,
}

impl One {
    fn new(trial: &Trial, login: &Login, number: usize) -> Self {
        let name = name(number);
        let files = trial.folder.join("files").join(&name);
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("letter"), format!("dear {name}\n").repeat(1000)).unwrap();
        std::fs::write(files.join("photo"), random(64 << 10)).unwrap();
        let login = Login {
            key: key_file(trial, number),
            ..login.clone()
        };
        Self {
            client: Client::new(&name, login.clone(), &trial.folder),
            name,
            login,
            files,
        }
    }

    fn borg(&self, arguments: &[&str], folder: &Path) {
        let mut command = self.client.command(arguments);
        let shell = format!("ssh {PATIENT} {}", self.login.options().join(" "));
        command.env("BORG_RSH", shell).current_dir(folder);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn back_up(&self) {
        // Every other one encrypts.
        let encryption = if self.name.ends_with(['0', '2', '4', '6', '8']) {
            "--encryption=none"
        } else {
            "--encryption=repokey-blake2"
        };
        self.borg(&["init", encryption], &self.files);
        self.borg(&["create", "::one", "."], &self.files);
    }

    /// All of it comes back as it was.
    fn restore(&self) {
        let into = self.files.with_extension("restored");
        std::fs::create_dir_all(&into).unwrap();
        self.borg(&["extract", "::one"], &into);
        assert_same(&self.files, &into);
    }
}

fn name(number: usize) -> String {
    format!("client{number:02}")
}

fn key_file(trial: &Trial, number: usize) -> PathBuf {
    trial.folder.join(format!("{}_key", name(number)))
}

/// Does `work` for each, sixteen at once.
fn for_all(clients: &[One], work: impl Fn(&One) + Sync) {
    let next = Mutex::new(clients.iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let one = next.lock().unwrap().next();
                    let Some(one) = one else { break };
                    work(one);
                }
            });
        }
    });
}

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn sixty_four_clients_back_up_sixteen_at_once() {
    let trial = Trial::new(&Workspace::here(), &folder("crowd"), &StoreOptions::default()).unwrap();
    let config = trial.default_config();
    let (rest, _) = config.split_once("[[client]]").unwrap();
    let mut config = rest.to_owned();
    for number in 0..CLIENTS {
        let key = ssh::key(&key_file(&trial, number), &name(number)).unwrap();
        config.push_str(&format!(
            "[[client]]\nname = \"{}\"\nquota = \"100 MB\"\nkeys = [\"{key}\"]\n\n",
            name(number)
        ));
    }
    trial.configure(&config).unwrap();
    trial.flash().unwrap();
    let mut hardware = trial.hardware("crowd", Firmware::Bios);
    hardware.processors = 2;
    let mut machine = start_on(&trial, &hardware);
    wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, mounted);
    let admin = trial.admin(&machine);
    machine
        .wait_until("the repositories' folders were not made", SOON, |_| {
            Ok(admin.run("ls -d /mnt/raid/*_repository | wc -l")?.trim() == CLIENTS.to_string())
        })
        .unwrap();

    // One connection tells the memory all the while.
    let watching = "while sleep 2; do grep MemAvailable /proc/meminfo; done";
    let mut memory = admin.command(watching).stdout(Stdio::piped()).spawn().unwrap();
    let as_client = trial.client(&machine);
    let clients: Vec<One> = (0..CLIENTS)
        .map(|number| One::new(&trial, &as_client, number))
        .collect();
    for_all(&clients, One::back_up);
    eprintln!("all have backed up, {} s after power-on", machine.age().as_secs());
    for_all(&clients, One::restore);
    eprintln!("all have restored, {} s after power-on", machine.age().as_secs());
    memory.kill().unwrap();
    let told = memory.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let least = told
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .min();
    eprintln!("least memory available: {} MiB", least.unwrap() / 1024);
    eprintln!(
        "{}",
        admin
            .run("free -m; systemctl show -p MemoryPeak strongroom-sessions.slice")
            .unwrap()
    );

    let waited = admin
        .run("journalctl -b -q -o cat -u strongroom-sessions --grep 'has to wait' | wc -l")
        .unwrap();
    eprintln!("sessions that had to wait for memory: {}", waited.trim());
    // The appliance has seen each of them, and reads all that they stored.
    wait_for_sessions(&mut machine, &admin, 0);
    let mut check = admin.command("strongroom check");
    let check = check.output().unwrap();
    eprintln!(
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
    assert!(check.status.success());
    let status = wait_for_status(
        &trial,
        &mut machine,
        "not all were looked at and checked",
        LONG,
        |status| {
            let clients = status["clients"].as_array().cloned().unwrap_or_default();
            clients.len() == CLIENTS
                && clients.iter().all(|client| {
                    client["checked"].is_u64() && client["last_change"]["transaction"] == client["transaction"]
                })
        },
    );
    for wrong in [
        "repository-damaged",
        "segments-changed",
        "audit-failed",
        "client-silent",
    ] {
        assert!(!has(&status, wrong), "{status:#}");
    }
    let killed = admin
        .run("journalctl -b -q -k -o cat --grep 'Out of memory|oom-kill' || true")
        .unwrap();
    assert_eq!(killed, "", "the memory did not suffice");
    // Hundredths of a second of this processor: user, system; before and after two minutes.
    let idle = "of=/proc/$(systemctl show -P MainPID strongroomd); cut -d ' ' -f 14,15 $of/stat; sleep 120; \
                cut -d ' ' -f 14,15 $of/stat; grep -E '^(VmRSS|RssAnon)' $of/status";
    eprintln!("the idle supervisor:\n{}", admin.run(idle).unwrap());
    for (what, command) in [("user", IN_USER_MODE), ("system", IN_THE_KERNEL)] {
        let here = Command::new("sh").args(["-c", &timed(command)]).output().unwrap();
        let here = String::from_utf8_lossy(&here.stdout).into_owned();
        let there = admin.run(&timed(command)).unwrap();
        eprintln!(
            "the same {what} work, in hundredths of a second: {} here, {} in the machine",
            here.trim(),
            there.trim()
        );
    }
    is_sound(&trial, &machine);
    machine.shut_down(STOP).unwrap();
}

/// Work that shows how much slower the emulated machine is.
const IN_USER_MODE: &str = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
const IN_THE_KERNEL: &str = "dd if=/dev/zero of=/dev/null bs=1 count=1000000 2>/dev/null";

/// A command that prints what processor time it took: user and system, its own and its children's (proc_pid_stat(5)).
fn timed(command: &str) -> String {
    format!("{command}; cut -d ' ' -f 14-17 /proc/$$/stat")
}
