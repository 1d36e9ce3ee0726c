//! What a session costs on this machine: the same backup through the real sshd on loopback, by a plain `borg serve` and by
//! `strongroom-session`, which puts up Landlock and watches over Borg. In turn, in one run. Prints; asserts no time.
//!
//! Without systemd, so without the unit's own walls (name spaces, filter of system calls, control group): with those,
//! `cargo image figures` measures it in the booted image.
//!
//! `STRONGROOM_FIGURES_MIB=2048 cargo test --release -p strongroom-supervisor --test figures -- --ignored --nocapture`

#![allow(clippy::unwrap_used, clippy::panic)] // The helpers are tests too: they may fail loudly.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;
use support::repository::noise;
use support::role;
use support::sshd::{As, Sshd, run, said};

const SESSION: &str = "strongroom-session";
/// Connections without work, each way.
const EMPTY: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Session,
}

/// What something took, in seconds: by the clock, of the processor on the server's side, and on the client's.
#[derive(Clone, Copy)]
struct Cost {
    clock: f64,
    server: f64,
    client: f64,
}

/// Seconds of processor of a process's children that are over (proc_pid_stat(5), cutime and cstime; USER_HZ is 100).
fn of_children(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let ticks = after_name.split(' ').skip(13).take(2);
    ticks.map(|number| number.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

struct Bench {
    sshd: Sshd,
}

impl Bench {
    fn repository(&self) -> PathBuf {
        self.sshd.folder.path().join("asus_repository")
    }

    fn admit(&self, way: Way) {
        let own = self.repository();
        let own = own.display();
        let serve = format!(
            "/usr/bin/borg serve --append-only --umask=077 --restrict-to-repository {own} --storage-quota=900000000000"
        );
        let command = match way {
            Way::Plain => serve,
            Way::Session => format!("{} append {own} {serve}", role(SESSION)),
        };
        let key = self.sshd.key();
        let key = key.authorized();
        self.sshd.admit(&format!(
            "restrict,command=\"cd /tmp && BORG_BASE_DIR=/tmp/strongroom-figures exec {command}\" {key}\n"
        ));
    }

    fn borg(&self, arguments: &[&str]) {
        let mut command = Command::new("borg");
        command
            .args(arguments)
            .current_dir(self.sshd.folder.path())
            .env("BORG_REPO", self.sshd.repository("asus_repository"))
            .env("BORG_RSH", self.sshd.shell())
            .env("BORG_BASE_DIR", self.sshd.place("caches"))
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .stdin(Stdio::null());
        let output = run(&mut command);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    fn cost(&self, work: impl FnOnce()) -> Cost {
        let sshd = self.sshd.id().to_string();
        let (began, server, client) = (Instant::now(), of_children(&sshd), of_children("self"));
        work();
        let clock = began.elapsed().as_secs_f64();
        // sshd hears of its last child's end a moment later.
        std::thread::sleep(std::time::Duration::from_millis(500));
        Cost {
            clock,
            server: of_children(&sshd) - server,
            client: of_children("self") - client,
        }
    }

    /// One backup into a new repository.
    fn back_up(&self, way: Way) -> Cost {
        for gone in [self.repository(), self.sshd.place("caches").into()] {
            let _ = fs::remove_dir_all(gone);
        }
        fs::create_dir(self.repository()).unwrap();
        self.admit(way);
        self.borg(&["init", "--encryption=none"]);
        self.cost(|| self.borg(&["create", "--compression=none", "::one", "source"]))
    }

    /// A connection on which Borg is told nothing.
    fn connect(&self, way: Way) -> Cost {
        self.admit(way);
        self.cost(|| drop(self.sshd.ssh(&[], &["borg serve"])))
    }
}

fn middle(costs: &[Cost], of: fn(&Cost) -> f64) -> f64 {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Does `work` each way in turn, and tells the middle values.
fn compare(what: &str, pairs: usize, mut work: impl FnMut(Way) -> Cost) -> (Vec<Cost>, Vec<Cost>) {
    let (mut plain, mut session) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Who is first changes from pair to pair.
        for way in if pair % 2 == 0 {
            [Way::Plain, Way::Session]
        } else {
            [Way::Session, Way::Plain]
        } {
            let all = if way == Way::Plain { &mut plain } else { &mut session };
            all.push(work(way));
        }
    }
    println!("{what}, {pairs} pairs, middle values:");
    for (name, all) in [("plain borg serve", &plain), ("as a session", &session)] {
        println!(
            "  {name:18} clock {:.3} s, processor of the server {:.2} s, of the client {:.2} s",
            middle(all, |cost| cost.clock),
            middle(all, |cost| cost.server),
            middle(all, |cost| cost.client)
        );
    }
    (plain, session)
}

fn setting(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
#[ignore = "writes 4 GB and takes minutes; see the head of the file"]
fn a_session_beside_a_plain_borg_serve() {
    let mib = setting("STRONGROOM_FIGURES_MIB", 2048);
    let pairs = setting("STRONGROOM_FIGURES_PAIRS", 5);
    let bench = Bench {
        sshd: Sshd::start(As::Client),
    };
    fs::write(bench.sshd.place("source"), noise(mib << 20, 7)).unwrap();
    let (plain, session) = compare(&format!("borg create of {mib} MiB"), pairs, |way| bench.back_up(way));
    println!(
        "  throughput of a session, of the plain one: {:.3}; processor of the server: {:.3} times",
        middle(&plain, |cost| cost.clock) / middle(&session, |cost| cost.clock),
        middle(&session, |cost| cost.server) / middle(&plain, |cost| cost.server)
    );
    let (plain, session) = compare("a connection without work", EMPTY, |way| bench.connect(way));
    let more = middle(&session, |cost| cost.clock) - middle(&plain, |cost| cost.clock);
    println!("  a session takes {:.0} ms more", more * 1000.0);
}
