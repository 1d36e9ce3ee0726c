//! A real mosquitto on loopback, a second real client that reads everything, and the MQTT face between them.

#![allow(dead_code, reason = "each test file uses its part")]

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_model::condition::{ConditionId, Health};
use strongroom_model::config::{Host, Mqtt, MqttVersion, Word};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{Client, Status, Target};
use strongroom_supervisor::faces::mqtt;
use strongroom_supervisor::faces::mqtt::access::Access;
use strongroom_supervisor::report::{Command, Report};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub const PATIENCE: Duration = Duration::from_secs(40);
pub const ID: &str = "strongroom_0a1b2c3d";

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

pub struct Broker {
    pub child: Child,
    pub port: u16,
    pub place: tempfile::TempDir,
}

impl Broker {
    pub fn start() -> Self {
        Self::with("allow_anonymous true")
    }

    pub fn with(lines: &str) -> Self {
        Self::at(tempfile::tempdir().unwrap(), lines)
    }

    /// In a folder that may hold what `lines` name.
    pub fn at(place: tempfile::TempDir, lines: &str) -> Self {
        let port = free_port();
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

    pub fn spawn(place: &Path, port: u16) -> Child {
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

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts again at the same place, with nothing remembered.
    pub fn again(&mut self) {
        self.child = Self::spawn(self.place.path(), self.port);
    }

    pub fn config(&self) -> Mqtt {
        config(self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn config(port: u16) -> Mqtt {
    Mqtt {
        host: Host::new("127.0.0.1").unwrap(),
        port: Some(port),
        version: MqttVersion::V3,
        username: None,
        password: None,
        tls: false,
        ca: None,
        certificate: None,
        key: None,
        discovery_prefix: Word::new("homeassistant").unwrap(),
    }
}

/// What the broker delivered to a second client that reads everything.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Last payload by topic; cleared ones are gone.
    pub payloads: BTreeMap<String, String>,
    /// How many were delivered by topic.
    pub counts: BTreeMap<String, usize>,
    /// Whether the subscription stands.
    pub ready: bool,
}

pub struct Observer {
    pub client: AsyncClient,
    pub seen: watch::Receiver<Seen>,
    pub task: JoinHandle<()>,
}

impl Observer {
    pub async fn start(port: u16) -> Self {
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

    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let found = tokio::time::timeout(PATIENCE, self.seen.wait_for(|seen| wanted(seen))).await;
        let found = found.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}; now {:#?}", *self.seen.borrow()))
    }

    pub async fn until_payload(&mut self, topic: &str, payload: &str) {
        self.until(&format!("{topic} to be {payload}"), |seen| {
            seen.payloads.get(topic).is_some_and(|found| found.contains(payload))
        })
        .await;
    }

    pub async fn publish(&self, topic: &str, retain: bool, payload: &str) {
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

pub fn rand_suffix() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ())
}

pub struct Face {
    pub status: watch::Sender<Arc<Status>>,
    pub commands: mpsc::Receiver<Command>,
    pub report: watch::Receiver<Report<()>>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<()>,
}

impl Face {
    pub fn start(config: Mqtt, password: Option<&str>) -> Self {
        let password = password.map(|password| String::from(password).into());
        Self::with(config, Access { password, tls: None })
    }

    pub fn with(config: Mqtt, access: Access) -> Self {
        let (status, statuses) = watch::channel(Arc::new(sample()));
        let (sender, commands) = mpsc::channel(8);
        let (reporter, report) = watch::channel(Report::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(mqtt::run_until(config, Ok(access), statuses, sender, reporter, stopped));
        Self {
            status,
            commands,
            report,
            stop,
            task,
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(|status| change(Arc::make_mut(status)));
    }

    pub async fn condition(&mut self, text: &str) -> String {
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

    pub async fn contented(&mut self) {
        let found = self.report.wait_for(|report| report.conditions.is_empty());
        tokio::time::timeout(PATIENCE, found).await.unwrap().unwrap();
    }

    pub async fn command(&mut self) -> Command {
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

pub fn sample() -> Status {
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

pub fn of(subject: &str) -> String {
    format!("strongroom/{ID}/{subject}")
}

pub fn discovery(device: &str) -> String {
    format!("homeassistant/device/{ID}{device}/config")
}
