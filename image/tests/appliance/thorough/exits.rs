//! Who else is told: a broker that is reached by TLS with certificates of the home's own, Prometheus, the phone, a dead man's
//! switch. And a push that a person stops.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::loopback::StoreOptions;
use image::qemu::{Firmware, HOST, Machine, free_port};
use image::trial::{CLIENT, Trial};
use image::workspace::Workspace;

use crate::backup::{json, wait_for_status};
use crate::client::{Client, make_files, random};
use crate::{SOON, START, STOP, folder, switch_on};

/// The port of `[metrics]` unless it is told.
const METRICS: u16 = 9633;
/// Part of every URL that is a secret here.
const TOKEN: &str = "tk-4e8b1f";

#[test]
#[ignore = "needs the built image: cargo image test --thorough"]
fn everyone_who_is_to_be_told_is_told_and_secrets_stay_secret() {
    // Slow enough for a person to stop a push.
    let slow = StoreOptions {
        bandwidth: Some(1 << 20),
        ..StoreOptions::default()
    };
    let mut trial = Trial::new(&Workspace::here(), &folder("exits"), &slow).unwrap();
    let config = trial.folder.join("config");
    certificates(&config);
    let broker = TlsBroker::start(&trial.folder, &config);
    let phone = Receiver::start();
    let ping = Receiver::start();
    for (name, receiver) in [("phone", &phone), ("ping-laptop", &ping), ("ping-trial", &ping)] {
        let url = format!("http://{HOST}:{}/{TOKEN}/{name}\n", receiver.port);
        std::fs::write(config.join(name), url).unwrap();
    }
    let plain = trial.default_config();
    let (before, after) = plain.split_once("[mqtt]").unwrap();
    let rest = after.split_once("[[offsite.recipient]]").unwrap().1;
    let quiet = format!(
        "{before}[mqtt]\nhost = \"{HOST}\"\nport = {}\nversion = \"5\"\ntls = true\nca = \"home-ca.pem\"\n\
         certificate = \"own.pem\"\nkey = \"own.key\"\n\n\
         [[notify]]\nurl = \"phone\"\n\n\
         [[ping]]\nurl = \"ping-laptop\"\nclient = \"{CLIENT}\"\n\n\
         [[ping]]\nurl = \"ping-trial\"\ntarget = \"trial\"\n\n\
         [[offsite.recipient]]{rest}",
        broker.port
    );
    trial.configure(&format!("{quiet}\n[metrics]\n")).unwrap();
    trial.flash().unwrap();
    let mut hardware = trial.hardware("exits", Firmware::Bios);
    let metrics = free_port().unwrap();
    hardware.forwards.push((metrics, METRICS));
    let mut machine = switch_on(&trial, &hardware);
    let status = wait_for_status(&trial, &mut machine, "the array was not mounted", SOON, |status| {
        status["array"]["state"] == "mounted" && status["clock"]["state"] == "synchronised"
    });

    // The broker knows the appliance by its certificate alone, and has all of it.
    let id = status["appliance"]["id"].as_str().unwrap();
    broker.has(&mut machine, &format!("strongroom/{id}/availability"), "online");
    broker.has(&mut machine, &format!("strongroom/{id}/array"), "mounted");

    // Prometheus reads, and nothing else is there.
    let page = get(metrics, "/metrics").unwrap();
    assert!(
        page.contains("200 OK") && page.contains("\nstrongroom_array_mounted 1\n"),
        "{page}"
    );
    assert!(get(metrics, "/").unwrap().contains("404"));

    // What begins is told to the phone: nobody has shown yet that the recipient's key is there.
    let told = phone.wait(&mut machine, "/phone", "recipient");
    let notice = json(&told);
    assert_eq!(notice["appliance"], "strongroom", "{told}");
    assert_eq!(notice["events"][0]["event"], "condition-began", "{told}");

    // A backup calls the dead man's switch, a push that is stopped does not, and one that ends well does.
    let client = Client::new(CLIENT, trial.client(&machine), &trial.folder);
    let files = trial.folder.join("files");
    make_files(&files, 1 << 20);
    std::fs::write(files.join("film"), random(60 << 20)).unwrap();
    client.borg(&["init", "--encryption=none", "--append-only"]);
    client.borg(&["create", "::one", files.to_str().unwrap()]);
    ping.wait(&mut machine, "/ping-laptop", "");
    a_push_is_stopped(&trial, &mut machine);
    assert!(!ping.has("/ping-trial"), "a push that was stopped was told as done");
    quicken(&mut trial);
    let admin = trial.admin(&machine);
    let pushed = admin.run(&format!("strongroom push {CLIENT}")).unwrap();
    assert!(pushed.contains("transaction"), "{pushed}");
    ping.wait(&mut machine, "/ping-trial", "");
    let page = get(metrics, "/metrics").unwrap();
    let copy = format!("strongroom_copy_failed{{client=\"{CLIENT}\",target=\"trial\"}} 0");
    assert!(page.contains(&copy), "{page}");

    // The URLs and the key are nowhere that a person looks, and the port closes with its line in the configuration.
    let bundle = trial.folder.join("report.tar.gz");
    std::fs::write(&bundle, admin.output("strongroom report").unwrap().stdout).unwrap();
    let unpacked = Command::new("tar").arg("-xzOf").arg(&bundle).output().unwrap();
    assert!(unpacked.status.success() && !unpacked.stdout.is_empty());
    let logged = admin.run("journalctl -b --no-pager; strongroom status --json").unwrap();
    for seen in [String::from_utf8_lossy(&unpacked.stdout), logged.into()] {
        assert!(
            !seen.contains(TOKEN),
            "a secret URL is in the log, the status or the report"
        );
        assert!(!seen.contains("PRIVATE KEY"));
    }
    let mut apply = admin.command("strongroom config apply - --yes");
    let mut child = apply.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(quiet.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    machine
        .wait_until("the port of the metrics stayed open", SOON, |_| {
            Ok(get(metrics, "/metrics").is_none_or(|page| page.is_empty()))
        })
        .unwrap();
    machine
        .wait_until("what was applied was not copied onto the array", SOON, |_| {
            let shown = admin.run("systemctl show -p ActiveState,Result strongroom-mirror.service")?;
            Ok(shown.contains("=inactive") && shown.contains("=success"))
        })
        .unwrap();
    machine.shut_down(STOP).unwrap();
    broker.has_now(&format!("strongroom/{id}/availability"), "offline");

    // Written anew without any configuration, it finds certificates and URLs again.
    phone.forget();
    trial.reflash().unwrap();
    let mut machine = Machine::start(&trial.hardware("exits-reflashed", Firmware::Bios)).unwrap();
    let admin = trial.admin(&machine);
    let _ = std::fs::remove_file(&admin.known_hosts);
    machine
        .wait_until("nobody could log in after reflashing", START * 2, |_| {
            admin.run("true").map(|_| true)
        })
        .unwrap();
    broker.has(&mut machine, &format!("strongroom/{id}/availability"), "online");
    phone.wait(&mut machine, "/phone", "recipient");
    machine.shut_down(STOP).unwrap();
}

/// The store takes what it is given as fast as it comes.
fn quicken(trial: &mut Trial) {
    trial.store.stop();
    let quick = StoreOptions {
        port: trial.store.port,
        ..StoreOptions::default()
    };
    trial.store =
        image::loopback::Store::start(&Workspace::here(), &trial.folder, &trial.store.secret.clone(), &quick).unwrap();
}

/// Begins a push, stops it by its name, and sees it told as stopped, with nothing published.
fn a_push_is_stopped(trial: &Trial, machine: &mut Machine) {
    let admin = trial.admin(machine);
    let mut push = admin.command(&format!("strongroom push {CLIENT}"));
    let mut push = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut id = String::new();
    machine
        .wait_until("the push did not begin", SOON, |_| {
            let jobs = json(&admin.run("strongroom jobs --json")?);
            let running = |job: &&serde_json::Value| job["kind"] == "push" && job["state"] == "running";
            let found = jobs.as_array().and_then(|jobs| jobs.iter().find(running));
            id = found.and_then(|job| job["id"].as_str()).unwrap_or_default().to_owned();
            Ok(!id.is_empty())
        })
        .unwrap();
    admin.run(&format!("strongroom jobs stop {}", &id[..8])).unwrap();
    assert!(!push.wait().unwrap().success(), "the push went on");
    let jobs = json(&admin.run("strongroom jobs --json").unwrap());
    let job = jobs
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["id"] == id.as_str())
        .unwrap();
    assert_eq!(job["state"], "stopped", "{jobs:#}");
}

/// An authority, and certificates of it for the broker and for the appliance.
fn certificates(place: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(place)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "{new} -x509 -days 9 -subj /CN=home -keyout ca.key -out home-ca.pem"
    ));
    for (name, kind) in [
        ("broker", format!("subjectAltName=IP:{HOST}")),
        ("own", "extendedKeyUsage=clientAuth".to_owned()),
    ] {
        openssl(&format!("{new} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        std::fs::write(place.join("extensions"), kind).unwrap();
        openssl(&format!(
            "x509 -req -in {name}.csr -CA home-ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile extensions -out {name}.pem"
        ));
    }
}

/// mosquitto that takes nobody without a certificate, but for an observer on another port.
struct TlsBroker {
    port: u16,
    observer: u16,
    serving: Child,
}

impl TlsBroker {
    fn start(folder: &Path, certificates: &Path) -> Self {
        let (port, observer) = (free_port().unwrap(), free_port().unwrap());
        let config = folder.join("mosquitto-tls.conf");
        let place = certificates.display();
        let text = format!(
            "user root\nper_listener_settings true\nlistener {port} 127.0.0.1\nallow_anonymous false\n\
             cafile {place}/home-ca.pem\ncertfile {place}/broker.pem\nkeyfile {place}/broker.key\n\
             require_certificate true\nuse_identity_as_username true\n\
             listener {observer} 127.0.0.1\nallow_anonymous true\n"
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(folder.join("mosquitto-tls.log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "mosquitto", "-c"]).arg(&config);
        let serving = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self {
            port,
            observer,
            serving,
        }
    }

    /// Whether what is retained under the topic holds this.
    fn holds(&self, topic: &str, part: &str) -> bool {
        let output = Command::new("mosquitto_sub")
            .args(["-p", &self.observer.to_string(), "-t", topic, "-C", "1", "-W", "3"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).contains(part)
    }

    fn has(&self, machine: &mut Machine, topic: &str, part: &str) {
        machine
            .wait_until(&format!("{topic} did not become {part}"), SOON, |_| {
                Ok(self.holds(topic, part))
            })
            .unwrap();
    }

    fn has_now(&self, topic: &str, part: &str) {
        assert!(self.holds(topic, part), "{topic} is not {part}");
    }
}

impl Drop for TlsBroker {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
    }
}

/// Takes every request that comes, and remembers path and body.
struct Receiver {
    port: u16,
    taken: Arc<Mutex<VecDeque<(String, String)>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(Mutex::new(VecDeque::new()));
        let shared = taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(request) = take(stream) {
                    shared.lock().unwrap().push_back(request);
                }
            }
        });
        Self { port, taken }
    }

    fn find(&self, end: &str, part: &str) -> Option<String> {
        let taken = self.taken.lock().unwrap();
        let fits = |(path, body): &&(String, String)| path == &format!("/{TOKEN}{end}") && body.contains(part);
        taken.iter().find(fits).map(|(_, body)| body.clone())
    }

    fn has(&self, end: &str) -> bool {
        self.find(end, "").is_some()
    }

    fn forget(&self) {
        self.taken.lock().unwrap().clear();
    }

    /// Waits for a request to a path that ends so, whose body holds `part`, and returns the body.
    fn wait(&self, machine: &mut Machine, end: &str, part: &str) -> String {
        let waited = machine.wait_until(&format!("nobody called {end}"), SOON, |_| {
            Ok(self.find(end, part).is_some())
        });
        if let Err(error) = waited {
            panic!("{error}\n{:?}", self.taken.lock().unwrap());
        }
        self.find(end, part).unwrap()
    }
}

/// One request, which is answered with 200.
fn take(stream: TcpStream) -> std::io::Result<(String, String)> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    reader.get_mut().write_all(answer)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((path, String::from_utf8_lossy(&body).into_owned()))
}

/// What a port of loopback answers to a GET; none where nobody listens.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
