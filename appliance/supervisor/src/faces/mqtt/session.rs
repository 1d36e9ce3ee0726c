//! One connection to the broker, from the look-up of its name to its end.
//!
//! Two futures share the task: one drives the connection and takes what comes in, the other publishes. Neither waits
//! for the other except through the client's small queue, so a slow broker cannot make memory grow.

use super::fault::Fault;
use super::shown::{RECALLED_MAX, Shown};
use super::topics::{OFFLINE, Topics};
use super::{STEADY, random_below, stopped};
use crate::report::Command;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS, SubscribeFilter};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use strongroom_model::config::Mqtt;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::Status;
use tokio::net::lookup_host;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Messages waiting for the connection.
const QUEUE: usize = 8;
/// Messages waiting for the broker's acknowledgement.
const INFLIGHT: u16 = 16;
/// Largest packet either way: a client's discovery with four targets is some 5 KiB, 64 conditions some 40 KiB.
const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Least time between two rounds of publishing.
const ROUND: Duration = Duration::from_millis(500);
/// How long the broker has for handing back what it holds of us, the duties for their first report, and Home Assistant
/// for a removal.
const SETTLE: Duration = Duration::from_secs(8);
/// Home Assistant is given this long after its birth, and up to as long again at random.
const BIRTH_DELAY: Duration = Duration::from_secs(1);
/// Bound for the look-up of the broker's name.
const LOOKUP: Duration = Duration::from_secs(10);

/// How a connection ended.
#[derive(Debug, PartialEq)]
pub(super) enum Ended {
    /// As told, with good-bye.
    Stopped,
    /// It was good for a while.
    Broken,
    /// It was not made, or broke at once.
    Failed(Fault),
}

/// What the connections to one broker have in common.
pub(super) struct Session {
    host: String,
    port: u16,
    login: Option<(String, String)>,
    topics: Topics,
    shown: Shown,
    commands: mpsc::Sender<Command>,
}

/// What came in and waits for the publishing side.
#[derive(Default)]
struct Inbox {
    birth: Notify,
    recalled: Mutex<BTreeMap<ClientName, BTreeSet<TargetName>>>,
}

impl Session {
    pub(super) fn new(config: &Mqtt, password: Option<&str>, id: &str, commands: mpsc::Sender<Command>) -> Self {
        // A password needs a user name (MQTT 3.1.1, section 3.1.2.9); an empty one will do.
        let username = config.username.as_ref().map(|name| name.as_str());
        let login = (username.is_some() || password.is_some()).then(|| {
            (
                username.unwrap_or_default().to_string(),
                password.unwrap_or_default().to_string(),
            )
        });
        Self {
            host: config.host.as_str().into(),
            port: config.port,
            login,
            topics: Topics::new(id, config.discovery_prefix.as_str()),
            shown: Shown::default(),
            commands,
        }
    }

    /// The broker, as a person would write it.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(self.topics.id(), self.bracketed_host(), self.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_inflight(INFLIGHT);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        options.set_last_will(LastWill::new(
            self.topics.availability(),
            OFFLINE,
            QoS::AtLeastOnce,
            true,
        ));
        if let Some((username, password)) = &self.login {
            options.set_credentials(username, password);
        }
        options
    }

    /// Makes a connection and holds it. `connected` is called once the broker has accepted us.
    pub(super) async fn hold(
        &mut self,
        status: watch::Receiver<Arc<Status>>,
        stop: watch::Receiver<bool>,
        connected: impl Fn(),
    ) -> Ended {
        // Looked up here only to tell a wrong name from a broker that is down.
        let look_up = tokio::time::timeout(LOOKUP, lookup_host(self.place())).await;
        let found = match look_up {
            Ok(Ok(mut addresses)) => addresses.next().is_some(),
            Ok(Err(_)) | Err(_) => false,
        };
        if !found {
            return Ended::Failed(Fault::NameNotFound);
        }
        let (client, mut events) = AsyncClient::new(self.options(), QUEUE);
        // The first event is the broker's acceptance.
        if let Err(error) = events.poll().await {
            return Ended::Failed((&error).into());
        }
        connected();
        let begun = Instant::now();
        self.shown.forget();
        let inbox = Inbox::default();
        let (topics, commands) = (self.topics.clone(), self.commands.clone());
        let receiving = receive(&mut events, &topics, &inbox, &commands, status.clone());
        let publishing = publish(&client, &topics, &mut self.shown, &inbox, status, stop);
        let ended = tokio::select! {
            ended = receiving => ended,
            // Its only end is a client that takes nothing more: the other future knows why.
            () = publishing => Ok(Ended::Broken),
        };
        match ended {
            Ok(ended) => ended,
            Err(_) if begun.elapsed() >= STEADY => Ended::Broken,
            Err(fault) => Ended::Failed(fault),
        }
    }
}

async fn receive(
    events: &mut EventLoop,
    topics: &Topics,
    inbox: &Inbox,
    commands: &mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
) -> Result<Ended, Fault> {
    let births = topics.births();
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                if births.contains(&message.topic) {
                    // A retained birth is an old one, and everything was just sent.
                    if !message.retain && message.payload == "online" {
                        inbox.birth.notify_one();
                    }
                } else if let Some(client) = topics.client_of(&message.topic) {
                    recall(inbox, client, &message);
                } else if let Some(command) = topics.command(&message.topic, &message.payload, message.retain) {
                    carry_on(command, commands, &status);
                }
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(Ended::Stopped),
            Ok(_) => {}
            Err(error) => return Err((&error).into()),
        }
    }
}

/// Takes note of a client that the broker still shows. Our own publications come back too, but not as retained ones.
fn recall(inbox: &Inbox, client: ClientName, message: &Publish) {
    #[derive(Deserialize)]
    struct Known {
        #[serde(default)]
        targets: BTreeMap<TargetName, IgnoredAny>,
    }
    if !message.retain || message.payload.is_empty() {
        return;
    }
    // A state of a form that we no longer know is still one to be cleared.
    let targets = serde_json::from_slice::<Known>(&message.payload)
        .map(|known| known.targets)
        .unwrap_or_default();
    let mut recalled = inbox.recalled.lock().unwrap_or_else(PoisonError::into_inner);
    if recalled.len() < RECALLED_MAX {
        recalled.insert(client, targets.into_keys().collect());
    }
}

fn carry_on(command: Command, commands: &mpsc::Sender<Command>, status: &watch::Receiver<Arc<Status>>) {
    if let Command::Push(name) | Command::Check(Some(name)) = &command
        && !status.borrow().clients.iter().any(|client| client.name == *name)
    {
        return;
    }
    // A full queue means that the same button is being pressed faster than anything can be done.
    if let Err(error) = commands.try_send(command) {
        eprintln!("mqtt: a command was dropped: {error}");
    }
}

/// Publishes until told to stop, then says good-bye and waits for the other future to end both.
async fn publish(
    client: &AsyncClient,
    topics: &Topics,
    shown: &mut Shown,
    inbox: &Inbox,
    mut status: watch::Receiver<Arc<Status>>,
    stop: watch::Receiver<bool>,
) {
    let filters = topics
        .births()
        .into_iter()
        .chain(topics.commands())
        .chain([topics.clients()]);
    let filters = filters.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
    if client.subscribe_many(filters).await.is_err() {
        return;
    }
    let mut born: Option<Instant> = None;
    let mut settle = Some(Instant::now() + SETTLE);
    let mut listening = true;
    let mut alive = true;
    loop {
        let snapshot = status.borrow_and_update().clone();
        for message in shown.plan(topics, &snapshot) {
            if client
                .publish(message.topic, QoS::AtLeastOnce, message.retain, message.payload)
                .await
                .is_err()
            {
                return;
            }
        }
        if settle.is_none() && shown.unsettled() {
            settle = Some(Instant::now() + SETTLE);
        }
        let next_round = Instant::now() + ROUND;
        tokio::select! {
            changed = status.changed(), if alive => alive = changed.is_ok(),
            () = inbox.birth.notified() => {
                born = Some(Instant::now() + BIRTH_DELAY + random_below(BIRTH_DELAY));
            }
            () = sleep_until(born.unwrap_or(next_round)), if born.is_some() => {
                born = None;
                shown.forget();
            }
            () = sleep_until(settle.unwrap_or(next_round)), if settle.is_some() => {
                settle = None;
                shown.settle();
                if listening {
                    listening = false;
                    // What was retained has come; from now on only our own words would come back.
                    if client.unsubscribe(topics.clients()).await.is_err() {
                        return;
                    }
                    let recalled = std::mem::take(&mut *inbox.recalled.lock().unwrap_or_else(PoisonError::into_inner));
                    for (name, targets) in recalled {
                        shown.recall(name, targets);
                    }
                    shown.permit_removal();
                }
            }
            () = stopped(stop.clone()) => {
                let offline = client.publish(topics.availability(), QoS::AtLeastOnce, true, OFFLINE).await;
                if offline.is_ok() && client.disconnect().await.is_ok() {
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
        tokio::select! {
            () = sleep_until(next_round) => {}
            // The next turn of the loop sees it again.
            () = stopped(stop.clone()) => {}
        }
    }
}
