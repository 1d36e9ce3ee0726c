//! The router says whom to ask for the time: a second network card on a network of its own, with a real DHCP server and real
//! time servers. Nobody else answers the appliance, so that what it knows of the time it has from there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::loopback::{Serving, StoreOptions, bound, serve};
use image::qemu::{Firmware, Machine};
use image::trial::Trial;
use image::workspace::Workspace;
use serde_json::Value;

use crate::backup::wait_for_status;
use crate::{SOON, START, STOP, folder};

/// Where the DHCP server is.
const ROUTER: &str = "10.78.0.1";
/// The time servers, of which it names one.
const FIRST: &str = "10.78.0.2";
const SECOND: &str = "10.78.0.3";
/// A source that never answers (RFC 5737), so that the public pool is not asked.
const NOBODY: &str = "192.0.2.1";
/// A client asks again after half of a lease, which at dnsmasq is two minutes at least; then come a few requests for the time.
const RENEWED: Duration = Duration::from_secs(300);

#[test]
#[ignore = "needs the built image, and root: cargo image test --thorough"]
fn the_time_comes_from_whom_dhcp_names() {
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "dhcp_time: PASSED OVER. It makes a network with a DHCP server of its own, which only root may: run it as root"
        );
        return;
    }
    let trial = Trial::new(&Workspace::here(), &folder("dhcp_time"), &StoreOptions::default()).unwrap();
    let clock = |dhcp: bool| {
        format!(
            "{}\n[clock]\nservers = [\"{NOBODY}\"]\ndhcp = {dhcp}\n",
            trial.default_config()
        )
    };
    trial.configure(&clock(true)).unwrap();
    trial.flash().unwrap();
    let mut hardware = trial.hardware("dhcp_time", Firmware::Bios);
    // Without the trial's own time server.
    hardware.credentials.clear();
    let mut lan = Lan::new(&trial.folder);
    hardware.extra = lan.card();
    let mut machine = Machine::start(&hardware).unwrap();
    lan.connect();
    lan.give(FIRST);
    let admin = trial.admin(&machine);
    machine
        .wait_until("nobody could log in as admin", START, |_| {
            admin.run("true").map(|_| true)
        })
        .unwrap();

    let status = follows(&trial, &mut machine, FIRST, SOON);
    assert_eq!(sources(&status), [FIRST, NOBODY], "{status:#}");
    let shown = admin.run("strongroom clock").unwrap();
    assert!(
        shown.starts_with(&format!("synchronised to NTP server ({FIRST}) at stratum 9\n")),
        "{shown}"
    );

    // Another one is named; the first would still answer.
    lan.give(SECOND);
    let status = follows(&trial, &mut machine, SECOND, RENEWED);
    assert_eq!(sources(&status), [SECOND, NOBODY], "{status:#}");

    // The owner does not want to be told by DHCP, and then does.
    apply(&trial, &machine, &clock(false));
    let status = wait_for_status(&trial, &mut machine, "the source stayed", SOON, |status| {
        sources(status) == [NOBODY]
    });
    assert_ne!(status["clock"]["state"], "unknown", "{status:#}");
    apply(&trial, &machine, &clock(true));
    follows(&trial, &mut machine, SECOND, SOON);
    assert_eq!(admin.run("systemctl --failed --plain --no-legend").unwrap(), "");
    machine.shut_down(STOP).unwrap();
}

/// Waits until the clock is synchronised to this source.
fn follows(trial: &Trial, machine: &mut Machine, source: &str, within: Duration) -> Value {
    let otherwise = format!("the clock did not follow {source}");
    wait_for_status(trial, machine, &otherwise, within, |status| {
        status["clock"]["state"] == "synchronised" && status["clock"]["source"] == source
    })
}

/// Names of all time sources, in order.
fn sources(status: &Value) -> Vec<&str> {
    let servers = status["clock"]["servers"].as_array();
    let mut names: Vec<&str> = servers
        .into_iter()
        .flatten()
        .filter_map(|source| source["name"].as_str())
        .collect();
    names.sort_unstable();
    names
}

fn apply(trial: &Trial, machine: &Machine, config: &str) {
    let mut apply = trial.admin(machine).command("strongroom config apply - --yes");
    let mut apply = apply.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    apply.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    assert!(apply.wait().unwrap().success());
}

/// A network in a namespace of its own, whose frames the machine's second card and a TAP device exchange by sockets in the
/// file system, which namespaces of networks have in common.
struct Lan {
    folder: PathBuf,
    /// Of the sockets, whose paths must be short.
    sockets: tempfile::TempDir,
    namespace: Serving,
    servers: Vec<Serving>,
    dhcp: Option<Serving>,
}

impl Lan {
    /// A network without anybody.
    fn new(folder: &Path) -> Self {
        let mut empty = bound("unshare");
        empty.args(["--net", "sleep", "infinity"]);
        let namespace = serve(&mut empty, &folder.join("namespace.log")).unwrap();
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        let id = namespace.id().to_string();
        patiently("make a network namespace", || of(&id) != of("self"));
        Self {
            folder: folder.to_owned(),
            sockets: tempfile::tempdir().unwrap(),
            namespace,
            servers: Vec::new(),
            dhcp: None,
        }
    }

    fn socket(&self, end: &str) -> String {
        self.sockets.path().join(end).display().to_string()
    }

    /// QEMU's arguments for a network card on it.
    fn card(&self) -> Vec<String> {
        let end = |which: &str, name: &str| format!("{which}.type=unix,{which}.path={}", self.socket(name));
        vec![
            "-netdev".to_owned(),
            format!("dgram,id=dhcp,{},{}", end("local", "machine"), end("remote", "lan")),
            "-device".to_owned(),
            "e1000e,netdev=dhcp".to_owned(),
        ]
    }

    /// Connects it to the machine, which must be on, and starts the time servers.
    fn connect(&mut self) {
        let ours = format!("UNIX-SENDTO:{},bind={}", self.socket("machine"), self.socket("lan"));
        let tap = format!("TUN:{ROUTER}/24,tun-type=tap,tun-name=lan,iff-no-pi,iff-up");
        let wire = self.start("wire", &["socat", &ours, &tap]);
        self.servers.push(wire);
        for address in [FIRST, SECOND] {
            let mask = format!("{address}/24");
            patiently("give the network an address", || {
                let mut ip = Command::new("nsenter");
                let ip = ip
                    .args(self.inside())
                    .args(["ip", "address", "add", &mask, "dev", "lan"]);
                ip.output().unwrap().status.success()
            });
            let config = self.folder.join(format!("chronyd-{address}.conf"));
            let id = self.folder.join(format!("chronyd-{address}.pid"));
            let text = format!(
                "local stratum 8\nallow\nbindaddress {address}\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
                id.display()
            );
            std::fs::write(&config, text).unwrap();
            let config = config.to_str().unwrap();
            let server = self.start(
                &format!("chronyd-{address}"),
                &["chronyd", "-x", "-U", "-d", "-u", "root", "-f", config],
            );
            self.servers.push(server);
        }
    }

    /// Has DHCP name this time server from now on.
    fn give(&mut self, address: &str) {
        // The old one first: both would listen on one port.
        self.dhcp = None;
        let leases = format!("--dhcp-leasefile={}", self.folder.join("dnsmasq.leases").display());
        let option = format!("--dhcp-option=option:ntp-server,{address}");
        let server = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=",
            "--port=0",
            "--interface=lan",
            "--bind-interfaces",
            "--user=root",
            "--group=root",
            "--pid-file=",
            "--log-facility=-",
            "--log-dhcp",
            "--dhcp-authoritative",
            "--dhcp-range=10.78.0.50,10.78.0.99,255.255.255.0,2m",
            // No way out leads through it.
            "--dhcp-option=option:router",
            &option,
            &leases,
        ];
        self.dhcp = Some(self.start(&format!("dnsmasq-{address}"), &server));
    }

    fn inside(&self) -> [String; 3] {
        [
            "--target".to_owned(),
            self.namespace.id().to_string(),
            "--net".to_owned(),
        ]
    }

    fn start(&self, name: &str, arguments: &[&str]) -> Serving {
        let mut command = bound("nsenter");
        command.args(self.inside()).args(arguments);
        serve(&mut command, &self.folder.join(format!("{name}.log"))).unwrap()
    }
}

fn patiently(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "could not {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
