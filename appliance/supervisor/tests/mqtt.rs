//! The MQTT face against a real mosquitto on loopback, read by a second real client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_model::condition::{ConditionId, Health};
use strongroom_model::config::{Host, Mqtt, Word};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{Client, Status, Target};
use strongroom_supervisor::faces::mqtt;
use strongroom_supervisor::report::{Command, Report};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(40);
const ID: &str = "strongroom_0a1b2c3d";

struct Broker {
    child: Child,
    port: u16,
    place: tempfile::TempDir,
}

impl Broker {
    fn start() -> Self {
        Self::with("allow_anonymous true")
    }

    fn with(lines: &str) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let place = tempfile::tempdir().unwrap();
        // As root it would become another user, who cannot read here.
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(place.path()).unwrap());
        let user = if owner == 0 { "user root\n" } else { "" };
        let lines = lines.replace("PLACE", &place.path().display().to_string());
        std::fs::write(
            place.path().join("conf"),
            format!("listener {port} 127.0.0.1\n{user}{lines}\n"),
        )
        .unwrap();
        std::fs::write(place.path().join("users"), "").unwrap();
        let child = Self::spawn(place.path(), port);
        Self { child, port, place }
    }

    fn spawn(place: &Path, port: u16) -> Child {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .expect("missing `mosquitto`: run `cargo image test`, which installs it");
        let child = Program::new(program)
            .arg("-c")
            .arg(place.join("conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts again at the same place, with nothing remembered.
    fn again(&mut self) {
        self.child = Self::spawn(self.place.path(), self.port);
    }

    fn config(&self) -> Mqtt {
        config(self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(port: u16) -> Mqtt {
    Mqtt {
        host: Host::new("127.0.0.1").unwrap(),
        port,
        username: None,
        password: None,
        discovery_prefix: Word::new("homeassistant").unwrap(),
    }
}

/// What the broker delivered to a second client that reads everything.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Last payload by topic; cleared ones are gone.
    payloads: BTreeMap<String, String>,
    /// How many were delivered by topic.
    counts: BTreeMap<String, usize>,
    /// Whether the subscription stands.
    ready: bool,
}

struct Observer {
    client: AsyncClient,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Observer {
    async fn start(port: u16) -> Self {
        let mut options = MqttOptions::new(format!("observer-{}", rand_suffix()), "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut events) = AsyncClient::new(options, 16);
        let (sender, seen) = watch::channel(Seen::default());
        let subscriber = client.clone();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => subscriber.try_subscribe("#", QoS::AtLeastOnce).unwrap(),
                    Ok(Event::Incoming(Packet::SubAck(_))) => sender.send_modify(|seen| seen.ready = true),
                    Ok(Event::Incoming(Packet::Publish(message))) => sender.send_modify(|seen| {
                        *seen.counts.entry(message.topic.clone()).or_default() += 1;
                        if message.payload.is_empty() {
                            seen.payloads.remove(&message.topic);
                        } else {
                            seen.payloads
                                .insert(message.topic, String::from_utf8(message.payload.to_vec()).unwrap());
                        }
                    }),
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        let mut observer = Self { client, seen, task };
        observer.until("the subscription", |seen| seen.ready).await;
        observer
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let found = tokio::time::timeout(PATIENCE, self.seen.wait_for(|seen| wanted(seen))).await;
        let found = found.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}; now {:#?}", *self.seen.borrow()))
    }

    async fn until_payload(&mut self, topic: &str, payload: &str) {
        self.until(&format!("{topic} to be {payload}"), |seen| {
            seen.payloads.get(topic).is_some_and(|found| found.contains(payload))
        })
        .await;
    }

    async fn publish(&self, topic: &str, retain: bool, payload: &str) {
        self.client
            .publish(topic, QoS::AtLeastOnce, retain, payload)
            .await
            .unwrap();
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn rand_suffix() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ())
}

struct Face {
    status: watch::Sender<Arc<Status>>,
    commands: mpsc::Receiver<Command>,
    report: watch::Receiver<Report<()>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Face {
    fn start(config: Mqtt, password: Option<&str>) -> Self {
        let (status, statuses) = watch::channel(Arc::new(sample()));
        let (sender, commands) = mpsc::channel(8);
        let (reporter, report) = watch::channel(Report::default());
        let (stop, stopped) = watch::channel(false);
        let password = password.map(String::from);
        let task = tokio::spawn(mqtt::run_until(config, password, statuses, sender, reporter, stopped));
        Self {
            status,
            commands,
            report,
            stop,
            task,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }

    async fn condition(&mut self, text: &str) -> String {
        let found = self.report.wait_for(|report| {
            report
                .conditions
                .iter()
                .any(|one| one.id == ConditionId::MqttUnreachable && one.text.contains(text))
        });
        if let Ok(report) = tokio::time::timeout(PATIENCE, found).await {
            return report.unwrap().conditions[0].advice.to_string();
        }
        panic!("no condition with `{text}`; now {:?}", *self.report.borrow())
    }

    async fn contented(&mut self) {
        let found = self.report.wait_for(|report| report.conditions.is_empty());
        tokio::time::timeout(PATIENCE, found).await.unwrap().unwrap();
    }

    async fn command(&mut self) -> Command {
        tokio::time::timeout(PATIENCE, self.commands.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

impl Drop for Face {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn sample() -> Status {
    let mut status = Status {
        health: Health::Good,
        ..Status::default()
    };
    status.appliance.id = ID.into();
    status.appliance.hostname = "backup".into();
    let mut client = Client {
        name: ClientName::new("asus_home").unwrap(),
        last_backup: Some(1_700_010_000),
        ..Client::default()
    };
    client
        .targets
        .push(Target {
            name: TargetName::new("oracle").unwrap(),
            ..Target::default()
        })
        .unwrap();
    status.clients.push(client).unwrap();
    status
}

fn of(subject: &str) -> String {
    format!("strongroom/{ID}/{subject}")
}

fn discovery(device: &str) -> String {
    format!("homeassistant/device/{ID}{device}/config")
}

#[tokio::test]
async fn retained_states_reach_one_who_comes_later_and_changes_follow() {
    let broker = Broker::start();
    let mut face = Face::start(broker.config(), None);
    let mut early = Observer::start(broker.port).await;
    early
        .until_payload(&of("client/asus_home"), "2023-11-15T01:00:00+00:00")
        .await;

    let mut late = Observer::start(broker.port).await;
    let topics = [
        "availability",
        "health",
        "clock",
        "array",
        "disks",
        "appliance",
        "client/asus_home",
    ];
    let seen = late
        .until("all retained messages", |seen| {
            topics.iter().all(|subject| seen.payloads.contains_key(&of(subject)))
        })
        .await;
    assert_eq!(seen.payloads[&of("availability")], "online");
    for topic in [discovery(""), discovery("_client_asus_home")] {
        let payload: serde_json::Value = serde_json::from_str(&seen.payloads[&topic]).unwrap();
        assert!(payload["components"].is_object(), "{topic}");
    }
    assert_eq!(seen.payloads.len(), topics.len() + 2, "{:?}", seen.payloads.keys());

    face.change(|status| status.clock.stratum = 3);
    late.until_payload(&of("clock"), "\"stratum\":3").await;
    assert_eq!(
        late.seen.borrow().counts[&of("array")],
        1,
        "what did not change is not sent"
    );
    face.contented().await;
}

#[tokio::test]
async fn the_will_speaks_when_the_connection_is_cut_and_offline_when_told_to_stop() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    let face = Face::start(broker.config(), None);
    observer.until_payload(&of("availability"), "online").await;
    face.task.abort();
    observer.until_payload(&of("availability"), "offline").await;

    let mut face = Face::start(broker.config(), None);
    observer.until_payload(&of("availability"), "online").await;
    face.stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, &mut face.task).await.unwrap().unwrap();
    observer.until_payload(&of("availability"), "offline").await;
    // Said once: the broker did not add the will.
    assert_eq!(observer.seen.borrow().counts[&of("availability")], 4);
}

#[tokio::test]
async fn a_birth_brings_everything_again() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    let _face = Face::start(broker.config(), None);
    observer.until_payload(&of("client/asus_home"), "asus_home").await;
    // Nothing of this is a birth.
    observer.publish("homeassistant/status", false, "offline").await;
    observer.publish("homeassistant/status", false, "online").await;
    observer
        .until("everything again", |seen| {
            [
                discovery(""),
                discovery("_client_asus_home"),
                of("availability"),
                of("clock"),
                of("client/asus_home"),
            ]
            .iter()
            .all(|topic| seen.counts.get(topic) == Some(&2))
        })
        .await;
}

#[tokio::test]
async fn commands_arrive_but_not_retained_unknown_or_malformed_ones() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    observer.publish(&of("client/asus_home/push/set"), true, "PRESS").await;
    observer.until_payload(&of("client/asus_home/push/set"), "PRESS").await;
    let mut face = Face::start(broker.config(), None);
    observer.until_payload(&of("client/asus_home"), "asus_home").await;
    observer.publish(&of("client/stranger/push/set"), false, "PRESS").await;
    observer
        .publish(&of("client/asus_home/push/set"), false, "DELETE")
        .await;
    observer.publish(&of("identify/set"), false, "PRESS").await;
    observer.publish(&of("client/asus_home/push/set"), false, "PRESS").await;
    assert_eq!(face.command().await, Command::Identify);
    assert_eq!(
        face.command().await,
        Command::Push(ClientName::new("asus_home").unwrap())
    );
    assert!(face.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_broker_that_restarts_and_has_forgotten_is_told_again() {
    let mut broker = Broker::start();
    let mut face = Face::start(broker.config(), None);
    Observer::start(broker.port)
        .await
        .until_payload(&of("availability"), "online")
        .await;
    broker.kill();
    let advice = face.condition("nothing listens").await;
    assert!(advice.contains("listener 1883"), "{advice}");
    face.change(|status| status.clock.stratum = 7);
    broker.again();
    face.contented().await;
    let mut observer = Observer::start(broker.port).await;
    observer.until_payload(&of("clock"), "\"stratum\":7").await;
    observer.until_payload(&discovery(""), "components").await;
}

#[tokio::test]
async fn refused_credentials_are_told_and_good_ones_work() {
    let broker = Broker::with("allow_anonymous false\npassword_file PLACE/users");
    let users = broker.place.path().join("users");
    let set = Program::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&users)
        .args(["strongroom", "right"])
        .status();
    assert!(
        set.expect("missing `mosquitto_passwd`: run `cargo image test`, which installs it")
            .success()
    );
    let mut broker = broker;
    broker.kill();
    broker.again();
    let with_user = || Mqtt {
        username: Word::new("strongroom"),
        ..broker.config()
    };
    let mut face = Face::start(with_user(), Some("wrong"));
    let advice = face.condition("refuses the user name or password").await;
    assert!(advice.contains("username") && !advice.contains("wrong"), "{advice}");
    Face::start(broker.config(), None)
        .condition("refuses the user name or password")
        .await;

    let mut face = Face::start(with_user(), Some("right"));
    let change = face.report.changed();
    // Nothing is ever reported, and a command shows that it is connected; the broker has no other user to ask.
    assert!(tokio::time::timeout(Duration::from_secs(2), change).await.is_err());
    let press = Program::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-u",
            "strongroom",
            "-P",
            "right",
        ])
        .args(["-q", "1", "-t", &of("identify/set"), "-m", "PRESS"])
        .status();
    assert!(
        press
            .expect("missing `mosquitto_pub`: run `cargo image test`, which installs it")
            .success()
    );
    assert_eq!(face.command().await, Command::Identify);
}

#[tokio::test]
async fn a_client_that_goes_vanishes_even_one_of_an_earlier_run() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    observer.publish(&of("client/gone"), true, "{\"targets\":{}}").await;
    observer.publish(&discovery("_client_gone"), true, "{}").await;
    observer
        .publish(&of("client/asus_home"), true, "{\"targets\":{\"old\":{}}}")
        .await;
    let face = Face::start(broker.config(), None);
    observer
        .until("the earlier client to vanish", |seen| {
            !seen.payloads.contains_key(&of("client/gone")) && !seen.payloads.contains_key(&discovery("_client_gone"))
        })
        .await;
    // The earlier target's entities are first removed, then left out.
    let device = discovery("_client_asus_home");
    observer
        .until_payload(&device, "\"target_old_last_push\":{\"platform\":\"sensor\"}")
        .await;
    observer
        .until("the earlier target to be left out", |seen| {
            seen.payloads
                .get(&device)
                .is_some_and(|payload| !payload.contains("target_old"))
        })
        .await;
    face.change(|status| status.clients.clear());
    observer
        .until("the client to vanish", |seen| {
            !seen.payloads.contains_key(&of("client/asus_home")) && !seen.payloads.contains_key(&device)
        })
        .await;
}

#[tokio::test]
async fn a_broker_that_accepts_and_never_answers_is_told() {
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut face = Face::start(config(deaf.local_addr().unwrap().port()), None);
    face.condition("does not answer in time").await;
}

#[tokio::test]
async fn a_storm_of_changes_ends_in_the_last_one_with_few_messages() {
    let broker = Broker::start();
    let mut observer = Observer::start(broker.port).await;
    let face = Face::start(broker.config(), None);
    observer.until_payload(&of("client/asus_home"), "asus_home").await;
    for size in 1..=10_000u64 {
        face.change(|status| status.clients[0].size_bytes = size);
        if size % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    observer
        .until_payload(&of("client/asus_home"), "\"size_bytes\":10000,")
        .await;
    let count = observer.seen.borrow().counts[&of("client/asus_home")];
    assert!(count < 100, "{count} messages");
}
