//! The clock duty with real chronyds: one that follows, as on the appliance, and servers in network namespaces of their own
//! whose time is shifted, runs too fast, falls silent, lies, or announces a leap second.
//!
//! No chronyd here has control of this machine's clock (`-x`); each then reckons with a clock of its own, which a server is told
//! by samples as of a receiver (`refclock SOCK`). Each test runs this program again in a namespace made by unshare(1), and is
//! passed over where none can be made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use strongroom_model::condition::ConditionId;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{Clock, ClockState, Leap, TimeSourceState};
use strongroom_supervisor::clock::{untrusted, watch_clock};
use strongroom_supervisor::offsite::job_report::JobReport;
use strongroom_supervisor::offsite::{disk_job, push_job};
use strongroom_supervisor::paths::Paths;
use strongroom_supervisor::report::Report;
use strongroom_supervisor::services::chrony::Chronyd as Asked;
use support::repository::Appliance;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(180);
/// Set in the run that has a namespace.
const INSIDE: &str = "STRONGROOM_TEST_NAMESPACE";
/// Where the one that follows is asked.
const COMMAND_PORT: u16 = 323;

/// Runs `body` in a network namespace of its own: this program is run again for the test of that name alone.
fn in_a_namespace<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
        return;
    }
    let mut arguments = vec!["--net"];
    if !rustix::process::geteuid().is_root() {
        arguments.push("--map-root-user");
    }
    let possible = Command::new("unshare").args(&arguments).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("{test}: passed over, since unshare(1) may not make a network namespace here");
        return;
    }
    let status = Command::new("unshare")
        .args(&arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// A program that ends with this one.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str], shim: Option<&Shim>, log: &Path) -> Self {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .args(arguments)
            .stdin(Stdio::null());
        let log = std::fs::File::create(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(shim) = shim {
            command.env("LD_PRELOAD", &shim.library);
            command.env("SHIFT_S", shim.shift_s.to_string());
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Moves the wall clock that a program sees: what happens on the last day of a year can't be waited for.
struct Shim {
    library: PathBuf,
    shift_s: i64,
}

impl Shim {
    fn build(folder: &Path, shift_s: i64) -> Self {
        const SOURCE: &str = r#"
            #define _GNU_SOURCE
            #include <stdlib.h>
            #include <sys/syscall.h>
            #include <time.h>
            #include <unistd.h>
            int clock_gettime(clockid_t id, struct timespec *time) {
                int result = syscall(SYS_clock_gettime, id, time);
                const char *shift = getenv("SHIFT_S");
                if (result == 0 && id == CLOCK_REALTIME && shift) time->tv_sec += atol(shift);
                return result;
            }
        "#;
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        std::fs::write(&source, SOURCE).unwrap();
        run(
            "cc",
            &[
                "-shared",
                "-fPIC",
                "-o",
                library.to_str().unwrap(),
                source.to_str().unwrap(),
            ],
        );
        Self { library, shift_s }
    }
}

/// What a server is made to believe.
#[derive(Default)]
struct Belief {
    /// Its offset from this machine's clock, as of `since`, in microseconds.
    offset_us: AtomicI64,
    /// How fast that grows, in parts per million.
    rate_ppm: AtomicI64,
    since: Mutex<Option<Instant>>,
    leap: AtomicI32,
    stop: AtomicBool,
}

impl Belief {
    fn offset_s(&self) -> f64 {
        let since = *self.since.lock().unwrap().get_or_insert_with(Instant::now);
        let grown = since.elapsed().as_secs_f64() * self.rate_ppm.load(Ordering::Relaxed) as f64;
        (self.offset_us.load(Ordering::Relaxed) as f64 + grown) / 1e6
    }

    /// chrony's refclock_sock.c, `struct sock_sample`.
    fn sample(&self, shift_s: i64) -> [u8; 40] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut sample = [0; 40];
        sample[..8].copy_from_slice(&(now.as_secs() as i64 + shift_s).to_ne_bytes());
        sample[8..16].copy_from_slice(&i64::from(now.subsec_micros()).to_ne_bytes());
        sample[16..24].copy_from_slice(&self.offset_s().to_ne_bytes());
        sample[28..32].copy_from_slice(&self.leap.load(Ordering::Relaxed).to_ne_bytes());
        sample[36..].copy_from_slice(&0x534F_434B_i32.to_ne_bytes());
        sample
    }
}

/// A chronyd that serves the time it was made to believe, in a namespace of its own.
struct Server {
    address: Ipv4Addr,
    link: String,
    belief: Arc<Belief>,
    _chronyd: Running,
    _namespace: Running,
}

impl Server {
    fn start(number: u8, folder: &Path, belief: Belief, shim: Option<&Shim>) -> Self {
        Self::start_with(number, folder, belief, shim, "")
    }

    fn start_with(number: u8, folder: &Path, belief: Belief, shim: Option<&Shim>, more: &str) -> Self {
        let log = |name: &str| folder.join(format!("{name}{number}.log"));
        let namespace = Running::start(&["unshare", "--net", "sleep", "3600"], None, &log("namespace"));
        let pid = namespace.0.id().to_string();
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let begun = Instant::now();
        while of(&pid) == of("self") {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        let inside = ["--target", &pid, "--net"];
        let within = |arguments: &[&str]| run("nsenter", &[&inside, arguments].concat());
        let link = format!("server{number}");
        let (ours, theirs) = (format!("10.77.{number}.1/24"), format!("10.77.{number}.2/24"));
        run(
            "ip",
            &[
                "link", "add", &link, "type", "veth", "peer", "name", "client", "netns", &pid,
            ],
        );
        run("ip", &["address", "add", &ours, "dev", &link]);
        run("ip", &["link", "set", &link, "up"]);
        within(&["ip", "link", "set", "lo", "up"]);
        within(&["ip", "address", "add", &theirs, "dev", "client"]);
        within(&["ip", "link", "set", "client", "up"]);

        let socket = folder.join(format!("refclock{number}"));
        let config = folder.join(format!("server{number}.conf"));
        let text = format!(
            "refclock SOCK {} poll 0 filter 2 refid TEST precision 1e-6\nallow\ncmdport 0\nbindcmdaddress /\npidfile {}\n{more}",
            socket.display(),
            folder.join(format!("server{number}.pid")).display()
        );
        std::fs::write(&config, text).unwrap();
        let mut arguments = vec!["nsenter"];
        arguments.extend(inside);
        arguments.extend(chronyd());
        arguments.push(config.to_str().unwrap());
        let chronyd = Running::start(&arguments, shim, &log("server"));
        let belief = Arc::new(belief);
        let (told, shift_s) = (belief.clone(), shim.map_or(0, |shim| shim.shift_s));
        std::thread::spawn(move || {
            let from = UnixDatagram::unbound().unwrap();
            while !told.stop.load(Ordering::Relaxed) {
                // It is not there before its server is.
                let _ = from.send_to(&told.sample(shift_s), &socket);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            address: Ipv4Addr::new(10, 77, number, 2),
            link,
            belief,
            _chronyd: chronyd,
            _namespace: namespace,
        }
    }

    fn line(&self) -> String {
        format!("server {} iburst minpoll 0 maxpoll 0\n", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.belief.stop.store(true, Ordering::Relaxed);
    }
}

/// Without control of the clock, as root, in the foreground.
fn chronyd() -> [&'static str; 7] {
    let program = ["/usr/sbin/chronyd", "/usr/bin/chronyd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("missing `chronyd`: run `cargo image test`, which installs it");
    [program, "-x", "-U", "-d", "-u", "root", "-f"]
}

/// The chronyd that follows, and the duty that watches it.
struct Follower {
    reports: watch::Receiver<Report<Clock>>,
    duty: tokio::task::JoinHandle<()>,
    _chronyd: Running,
    _root: tempfile::TempDir,
}

impl Follower {
    fn start(folder: &Path, lines: &str, shim: Option<&Shim>) -> Self {
        let config = folder.join("follower.conf");
        let text = format!(
            "{lines}\nport 0\ncmdport {COMMAND_PORT}\nbindcmdaddress 127.0.0.1\nbindcmdaddress /\npidfile {}\n",
            folder.join("follower.pid").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut arguments = chronyd().to_vec();
        arguments.push(config.to_str().unwrap());
        let chronyd = Running::start(&arguments, shim, &folder.join("follower.log"));
        // A machine that has been up for an hour.
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/uptime"), "3600.00 1.00\n").unwrap();
        let (report, reports) = watch::channel(Report::default());
        let nts = lines.lines().filter(|line| line.ends_with(" nts"));
        let nts = nts.filter_map(|line| Some(line.split(' ').nth(1)?.to_owned()));
        let asked = Asked::at(place()).with_nts(nts);
        let duty = tokio::spawn(watch_clock(Paths::new(root.path()), asked, report));
        Self {
            reports,
            duty,
            _chronyd: chronyd,
            _root: root,
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Report<Clock>) -> bool) -> Report<Clock> {
        let found = tokio::time::timeout(PATIENCE, self.reports.wait_for(|report| wanted(report)))
            .await
            .map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not within {PATIENCE:?}; now {:?}", *self.reports.borrow()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.duty.abort();
    }
}

fn place() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, COMMAND_PORT).into()
}

fn is_good(report: &Report<Clock>) -> bool {
    report.part.state == ClockState::Synchronised
}

#[test]
fn a_shifted_clock_is_told_by_how_much_and_is_good_once_it_is_right() {
    in_a_namespace(
        "a_shifted_clock_is_told_by_how_much_and_is_good_once_it_is_right",
        || async {
            let folder = tempfile::tempdir().unwrap();
            let belief = Belief::default();
            belief.offset_us.store(5_000_000, Ordering::Relaxed);
            let server = Server::start(1, folder.path(), belief, None);
            let mut follower = Follower::start(folder.path(), &server.line(), None);
            let shifted = follower.until(|report| report.part.offset_ns < -4_000_000_000).await;
            assert_eq!(shifted.part.state, ClockState::Unsynchronised);
            assert!(!shifted.part.state.is_trusted());
            assert!(
                (-6_000_000_000..-4_000_000_000).contains(&shifted.part.offset_ns),
                "{shifted:?}"
            );
            assert_eq!(shifted.conditions[0].id, ConditionId::ClockUnsynchronised);
            assert!(shifted.conditions[0].text.contains("corrected slowly"), "{shifted:?}");
            let why = untrusted(&Asked::at(place())).await.unwrap();
            assert!(why.contains("corrected slowly"), "{why}");

            server.belief.offset_us.store(0, Ordering::Relaxed);
            let good = follower.until(is_good).await;
            assert!(good.conditions.is_empty(), "{good:?}");
            assert_eq!(untrusted(&Asked::at(place())).await, None);
            assert_eq!((good.part.stratum, good.part.source.as_str()), (2, "10.77.1.2"));
        },
    );
}

#[test]
fn a_slewed_clock_shows_in_the_rate() {
    in_a_namespace("a_slewed_clock_shows_in_the_rate", || async {
        let folder = tempfile::tempdir().unwrap();
        let belief = Belief::default();
        belief.rate_ppm.store(2_000, Ordering::Relaxed);
        let server = Server::start(1, folder.path(), belief, None);
        let mut follower = Follower::start(folder.path(), &server.line(), None);
        // Its time runs fast, so that ours runs slow.
        let slow = -2_500_000..-1_500_000;
        let slewed = follower.until(|report| slow.contains(&report.part.frequency_ppb)).await;
        assert_eq!(slewed.part.sources, 1);
    });
}

#[test]
fn silence_leaves_the_clock_coasting_until_somebody_answers_again() {
    in_a_namespace(
        "silence_leaves_the_clock_coasting_until_somebody_answers_again",
        || async {
            let folder = tempfile::tempdir().unwrap();
            let server = Server::start(1, folder.path(), Belief::default(), None);
            let mut follower = Follower::start(folder.path(), &server.line(), None);
            let good = follower.until(is_good).await;
            assert_eq!(good.part.trusted_until, None);
            run("ip", &["link", "set", &server.link, "down"]);
            let lonely = follower
                .until(|report| report.part.state == ClockState::Coasting && report.part.reachable == 0)
                .await;
            assert_eq!(lonely.part.sources, 1);
            assert!(lonely.part.state.is_trusted());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert!(lonely.part.trusted_until.unwrap() > now, "{lonely:?}");
            assert!(lonely.conditions[0].text.contains("none of 1"), "{lonely:?}");
            run("ip", &["link", "set", &server.link, "up"]);
            let good = follower.until(is_good).await;
            assert!(good.conditions.is_empty(), "{good:?}");
        },
    );
}

#[test]
fn nobody_to_ask_from_the_start_is_not_trusted() {
    in_a_namespace("nobody_to_ask_from_the_start_is_not_trusted", || async {
        let folder = tempfile::tempdir().unwrap();
        // An address without a machine.
        let server = Server::start(1, folder.path(), Belief::default(), None);
        let mut follower = Follower::start(folder.path(), "server 10.77.1.99 iburst\n", None);
        let told = follower
            .until(|report| report.part.state == ClockState::Unsynchronised)
            .await;
        assert_eq!((told.part.stratum, told.part.sources, told.part.reachable), (0, 1, 0));
        assert!(told.conditions[0].text.contains("none of 1"), "{told:?}");
        drop(server);
    });
}

#[test]
fn nothing_is_pushed_before_the_clock_is_trusted() {
    const CONFIG: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n\
        [[offsite.target]]\nname = \"far\"\nendpoint = \"https://far\"\nregion = \"r\"\nbucket = \"b\"\n\
        access_key_id = \"a\"\nsecret_key = \"s\"\nrecipients = [\"owner\"]\n\
        [[client]]\nname = \"asus\"\nkeys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO root@asus\"]\n";
    in_a_namespace("nothing_is_pushed_before_the_clock_is_trusted", || async {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("root"));
        std::fs::create_dir_all(paths.config().parent().unwrap()).unwrap();
        std::fs::write(paths.config(), CONFIG).unwrap();
        let why = async |paths: Paths| {
            let pushed = tokio::task::spawn_blocking(move || {
                assert!(push_job::run(&paths, Some("asus")).is_err());
                JobReport::<TargetName>::read(&paths.push_report(&ClientName::new("asus").unwrap()))
            });
            pushed.await.unwrap().errors[0].1.clone()
        };
        // Nobody there to ask.
        let waits = why(paths.clone()).await;
        assert!(
            waits.starts_with("nothing is copied while the clock is not to be trusted"),
            "{waits}"
        );
        let server = Server::start(1, folder.path(), Belief::default(), None);
        let mut follower = Follower::start(folder.path(), &server.line(), None);
        follower.until(is_good).await;
        let fails = why(paths).await;
        assert!(
            fails.contains("owner.asc"),
            "now it goes on, to a certificate that isn't there: {fails}"
        );
    });
}

#[test]
fn a_disk_is_copied_to_once_the_clock_is_trusted_and_it_is_told_how_far_it_is() {
    const TARGET: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n\
        [[offsite.target]]\nname = \"usb\"\ndisk = \"BACKUP\"\nrecipients = [\"owner\"]\n";
    in_a_namespace(
        "a_disk_is_copied_to_once_the_clock_is_trusted_and_it_is_told_how_far_it_is",
        || async {
            let folder = tempfile::tempdir().unwrap();
            let appliance = Appliance::new("none");
            appliance.write("a", 300_000, 1);
            appliance.create("one");
            let paths = appliance.paths.clone();
            // Of the clients, only the one that has a repository.
            let config = std::fs::read_to_string(paths.config()).unwrap();
            let (first, _) = config.split_once("[[client]]\nname = \"laptop\"").unwrap();
            std::fs::write(paths.config(), format!("{TARGET}{first}")).unwrap();
            let owner = strongroom_offsite::openpgp::generate::recipient("owner", &"secret".to_owned().into(), true);
            std::fs::create_dir_all(paths.config_files()).unwrap();
            std::fs::write(paths.config_files().join("owner.asc"), owner.unwrap().certificate).unwrap();
            let usb = TargetName::new("usb").unwrap();
            std::fs::create_dir_all(paths.disk_place(&usb)).unwrap();
            let copy = async || {
                let paths = paths.clone();
                let copied = tokio::task::spawn_blocking(move || {
                    disk_job::run(&paths, Some("usb")).unwrap();
                    disk_job::progress(&paths, &TargetName::new("usb").unwrap())
                });
                copied.await.unwrap()
            };
            // Nobody there to ask.
            let waits = copy().await;
            assert_eq!(waits.errors[0].0, appliance.name);
            let why = &waits.errors[0].1;
            assert!(
                why.starts_with("nothing is copied while the clock is not to be trusted"),
                "{why}"
            );
            assert_eq!((waits.done_bytes, waits.total_bytes), (0, 0));
            assert!(waits.last.unwrap().error.starts_with("asus: "));

            let server = Server::start(1, folder.path(), Belief::default(), None);
            let mut follower = Follower::start(folder.path(), &server.line(), None);
            follower.until(is_good).await;
            let copied = copy().await;
            assert_eq!((&copied.errors[..], &copied.now), (&[][..], &waits.now), "{copied:?}");
            assert_eq!(copied.last.unwrap().error, "");
            // What was told last of the client: all that had to be copied, and how much of it was.
            assert!(
                copied.total_bytes > 300_000 && copied.done_bytes <= copied.total_bytes,
                "{} of {}",
                copied.done_bytes,
                copied.total_bytes
            );
            assert!(paths.disk_place(&usb).join("strongroom/asus/RECOVERY.txt").exists());
        },
    );
}

#[test]
fn one_of_three_that_lies_is_outvoted_and_named() {
    in_a_namespace("one_of_three_that_lies_is_outvoted_and_named", || async {
        let folder = tempfile::tempdir().unwrap();
        let servers: Vec<Server> = (1..=3)
            .map(|number| {
                let belief = Belief::default();
                belief
                    .offset_us
                    .store(if number == 2 { 3_000_000 } else { 0 }, Ordering::Relaxed);
                Server::start(number, folder.path(), belief, None)
            })
            .collect();
        let lines: String = servers.iter().map(Server::line).collect();
        let mut follower = Follower::start(folder.path(), &lines, None);
        let outvoted = follower
            .until(|report| is_good(report) && !report.conditions.is_empty())
            .await;
        let state = |number: u8| {
            let address = format!("10.77.{number}.2");
            let found = outvoted
                .part
                .servers
                .iter()
                .find(|source| source.address.as_str() == address);
            found.unwrap().state
        };
        assert_eq!(state(2), TimeSourceState::Wrong);
        assert!(
            state(1) != TimeSourceState::Wrong && state(3) != TimeSourceState::Wrong,
            "{outvoted:?}"
        );
        assert_eq!(outvoted.conditions[0].id, ConditionId::TimeSourceWrong);
        assert!(outvoted.conditions[0].text.contains("10.77.2.2 is"), "{outvoted:?}");
        assert!(outvoted.conditions[0].text.contains("ahead"), "{outvoted:?}");
        assert!(outvoted.part.offset_ns.abs() < 1_000_000_000, "{outvoted:?}");
    });
}

#[test]
fn a_server_that_proves_who_it_is_is_followed_and_told_from_one_that_does_not() {
    in_a_namespace(
        "a_server_that_proves_who_it_is_is_followed_and_told_from_one_that_does_not",
        || async {
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
            let (key, certificate) = (file("key.pem"), file("certificate.pem"));
            let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=time \
                   -addext subjectAltName=IP:10.77.1.2";
            let mut arguments: Vec<&str> = new.split_ascii_whitespace().collect();
            arguments.extend(["-keyout", &key, "-out", &certificate]);
            run("openssl", &arguments);
            let more = format!("ntsserverkey {key}\nntsservercert {certificate}\n");
            let proven = Server::start_with(1, folder.path(), Belief::default(), None, &more);
            let plain = Server::start(2, folder.path(), Belief::default(), None);
            let lines = format!(
                "{} nts\n{}ntstrustedcerts {certificate}",
                proven.line().trim_end(),
                plain.line()
            );
            let mut follower = Follower::start(folder.path(), &lines, None);
            let good = follower
                .until(|report| is_good(report) && report.part.reachable == 2)
                .await;
            let by_nts: Vec<bool> = good.part.servers.iter().map(|source| source.nts).collect();
            assert_eq!(by_nts, [true, false], "{good:?}");
        },
    );
}

#[test]
fn a_leap_second_is_announced() {
    in_a_namespace("a_leap_second_is_announced", || async {
        let folder = tempfile::tempdir().unwrap();
        // chrony takes one for real on the last day of June and December alone: it is noon of such a day.
        const NOON: i64 = 1_798_718_400; // 2026-12-31T12:00:00Z
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let shim = Shim::build(folder.path(), NOON - now);
        let belief = Belief::default();
        belief.leap.store(1, Ordering::Relaxed);
        let server = Server::start(1, folder.path(), belief, Some(&shim));
        let mut follower = Follower::start(folder.path(), &server.line(), Some(&shim));
        follower
            .until(|report| report.part.leap == Leap::Insert && is_good(report))
            .await;
        server.belief.leap.store(0, Ordering::Relaxed);
        follower
            .until(|report| report.part.leap == Leap::None && is_good(report))
            .await;
    });
}
