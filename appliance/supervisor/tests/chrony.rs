//! The clock duty against a real chronyd on loopback, which has no control of this machine's clock (`-x`) and follows
//! a time server of ours that is wrong on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strongroom_model::clock::Silence;
use strongroom_model::condition::ConditionId;
use strongroom_model::status::{Clock, ClockState, TimeSourceState};
use strongroom_supervisor::clock::watch_clock;
use strongroom_supervisor::paths::Paths;
use strongroom_supervisor::report::Report;
use strongroom_supervisor::services::chrony::Chronyd as Asked;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers NTP requests (RFC 5905) with this machine's time plus `ahead_ms`, from a thread that ends with it.
struct TimeServer {
    port: u16,
    ahead_ms: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
}

impl TimeServer {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (ahead_ms, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (ahead, stopped) = (ahead_ms.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut request = [0u8; 512];
                let Ok((length @ 48.., from)) = socket.recv_from(&mut request) else {
                    continue;
                };
                let _ = length;
                let ahead_ms = ahead.load(Ordering::Relaxed);
                let mut answer = [0u8; 48];
                answer[0] = (request[0] & 0x38) | 4; // No leap, the client's version, server.
                answer[1] = 2; // Stratum.
                answer[2] = request[2];
                answer[3] = (-20i8) as u8; // Precision.
                answer[7] = 1; // Root delay and dispersion: 1/65536 s.
                answer[11] = 1;
                answer[12..16].copy_from_slice(&[192, 0, 2, 1]);
                answer[16..24].copy_from_slice(&ntp_time(ahead_ms - 1000));
                answer[24..32].copy_from_slice(&request[40..48]);
                answer[32..40].copy_from_slice(&ntp_time(ahead_ms));
                answer[40..48].copy_from_slice(&ntp_time(ahead_ms));
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { port, ahead_ms, stop }
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ntp_time(ahead_ms: i64) -> [u8; 8] {
    const SINCE_1900: i128 = 2_208_988_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
    let nanoseconds = now + i128::from(ahead_ms) * 1_000_000 + SINCE_1900 * 1_000_000_000;
    (((nanoseconds << 32) / 1_000_000_000) as u64).to_be_bytes()
}

struct Chronyd {
    child: Child,
    command: SocketAddr,
    _place: tempfile::TempDir,
}

impl Chronyd {
    fn start(lines: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let file = place.path().join("chrony.conf");
        let pid = place.path().join("pid");
        std::fs::write(
            &file,
            format!(
                "{lines}\nport 0\ncmdport {}\nbindcmdaddress 127.0.0.1\nbindcmdaddress /\npidfile {}\n",
                free.port(),
                pid.display()
            ),
        )
        .unwrap();
        let program = ["/usr/sbin/chronyd", "/usr/bin/chronyd"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("missing `chronyd`: run `cargo image test`, which installs it");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(place.path()).unwrap());
        // -x: never touch the clock. -U: any user will do. -u: stay that user.
        let child = Command::new(program)
            .args(["-x", "-d", "-U", "-u", &user_name(owner), "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            command: free,
            _place: place,
        }
    }
}

/// Name of a user; chronyd takes no number.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid.to_string()))
        .unwrap();
    line.split(':').next().unwrap().to_string()
}

impl Drop for Chronyd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine that has been up for an hour.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("proc")).unwrap();
    std::fs::write(root.path().join("proc/uptime"), "3600.00 1.00\n").unwrap();
    root
}

async fn until(reports: &mut watch::Receiver<Report<Clock>>, wanted: impl Fn(&Report<Clock>) -> bool) -> Report<Clock> {
    let found = tokio::time::timeout(PATIENCE, reports.wait_for(|report| wanted(report)))
        .await
        .map(|found| found.unwrap().clone());
    found.unwrap_or_else(|_| panic!("not within {PATIENCE:?}; now {:?}", *reports.borrow()))
}

#[tokio::test]
async fn a_source_is_followed_then_lost_with_the_daemon() {
    let server = TimeServer::start();
    let mut chronyd = Chronyd::start(&format!(
        "server 127.0.0.1 port {} minpoll 0 maxpoll 0 iburst",
        server.port
    ));
    let root = machine();
    let (report, mut reports) = watch::channel(Report::default());
    let duty = tokio::spawn(watch_clock(Paths::new(root.path()), Asked::at(chronyd.command), report));

    let good = until(&mut reports, |report| report.part.state == ClockState::Synchronised).await;
    assert_eq!((good.part.stratum, good.part.sources, good.part.reachable), (3, 1, 1));
    assert_eq!(good.part.source.as_str(), "127.0.0.1");
    assert!(
        good.part.error_ns > 0 && good.part.offset_ns.abs() < 1_000_000_000,
        "{good:?}"
    );
    assert!(good.conditions.is_empty(), "{good:?}");
    let source = &good.part.servers[0];
    assert_eq!(
        (source.name.as_str(), source.address.as_str()),
        ("127.0.0.1", "127.0.0.1")
    );
    assert_eq!((source.state, source.stratum), (TimeSourceState::Followed, 2));
    assert!(source.reach & 1 == 1 && source.poll_s == 1 && !source.nts, "{source:?}");
    assert!(good.part.skew_ppb.is_some_and(|skew| skew > 0), "{good:?}");

    chronyd.child.kill().unwrap();
    chronyd.child.wait().unwrap();
    let silent = until(&mut reports, |report| report.part.state == ClockState::Unknown).await;
    assert_eq!(silent.conditions[0].id, ConditionId::ClockUnknown);
    duty.abort();
}

#[tokio::test]
async fn a_source_that_does_not_answer_is_told() {
    // A port that is held and never answers.
    let deaf = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let chronyd = Chronyd::start(&format!(
        "server 127.0.0.1 port {} iburst",
        deaf.local_addr().unwrap().port()
    ));
    let root = machine();
    let (report, mut reports) = watch::channel(Report::default());
    let duty = tokio::spawn(watch_clock(Paths::new(root.path()), Asked::at(chronyd.command), report));
    let told = until(&mut reports, |report| report.part.state == ClockState::Unsynchronised).await;
    assert_eq!((told.part.stratum, told.part.sources, told.part.reachable), (0, 1, 0));
    assert_eq!(told.conditions[0].id, ConditionId::ClockUnsynchronised);
    assert!(told.conditions[0].text.contains("none of 1"), "{told:?}");
    duty.abort();
}

#[tokio::test]
async fn a_clock_that_is_behind_has_a_negative_offset() {
    let server = TimeServer::start();
    server.ahead_ms.store(5_000, Ordering::Relaxed);
    let chronyd = Chronyd::start(&format!(
        "server 127.0.0.1 port {} minpoll 0 maxpoll 0 iburst",
        server.port
    ));
    let asked = Asked::at(chronyd.command);
    let begun = std::time::Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "never followed");
        // Slewed slowly, so most of the five seconds remains when it is seen.
        if let Ok(answer) = asked.ask().await
            && answer.tracking.synchronised
        {
            assert!(
                (-5_100_000_000..-1_000_000_000).contains(&answer.tracking.offset_ns),
                "{answer:?}"
            );
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn nobody_there_is_no_answer() {
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert_eq!(Asked::at(free).ask().await, Err(Silence::NoAnswer));
}
