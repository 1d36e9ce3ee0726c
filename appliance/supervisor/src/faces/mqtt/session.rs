//! One connection to the broker, from the look-up of its name to its end.
//!
//! Two futures share the task: one drives the connection and takes what comes in, the other publishes. Neither waits
//! for the other except through the client's small queue, so a slow broker cannot make memory grow.

use super::access::Access;
use super::fault::Fault;
use super::shown::{RECALLED_MAX, Shown};
use super::states::Message;
use super::tls::{Handover, Tls};
use super::topics::{OFFLINE, Topics};
use super::wire::{self, Came, Gone, Inbox, Outbox, Terms, Way};
use super::{STEADY, STOP_GRACE, random_below, stopped};
use crate::report::Command;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use strongroom_model::config::{Mqtt, MqttVersion};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::Status;
use tokio::net::lookup_host;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

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
    version: MqttVersion,
    login: Option<(String, String)>,
    tls: Option<Tls>,
    topics: Topics,
    shown: Shown,
    commands: mpsc::Sender<Command>,
}

/// What came in and waits for the publishing side.
#[derive(Default)]
struct Waiting {
    birth: Notify,
    recalled: Mutex<BTreeMap<ClientName, BTreeSet<TargetName>>>,
}

impl Session {
    pub(super) fn new(config: &Mqtt, access: Access, id: &str, commands: mpsc::Sender<Command>) -> Self {
        // A password needs a user name (MQTT 3.1.1, section 3.1.2.9); an empty one will do.
        let username = config.username.as_ref().map(|name| name.as_str());
        let login = (username.is_some() || access.password.is_some()).then(|| {
            (
                username.unwrap_or_default().to_string(),
                access.password.map(|password| password.to_string()).unwrap_or_default(),
            )
        });
        Self {
            host: config.host.as_str().into(),
            port: config.port(),
            version: config.version,
            login,
            tls: access.tls,
            topics: Topics::new(id, config.discovery_prefix.as_str()),
            shown: Shown::default(),
            commands,
        }
    }

    /// The broker, as a person would write it.
    pub(super) fn place(&self) -> String {
        place(self.host.as_str(), self.port)
    }

    /// Makes a connection and holds it. `connected` is called once the broker has accepted us and what we asked for.
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
        let begun = Instant::now();
        let ended = match self.tls.clone() {
            None => self.converse_in_clear(status, stop, connected).await,
            Some(tls) => self.converse_by_tls(&tls, status, stop, connected).await,
        };
        match ended {
            Ok(ended) => ended,
            // One that has fallen silent is no better for having spoken.
            Err(fault) if fault == Fault::Silent || begun.elapsed() < STEADY => Ended::Failed(fault),
            Err(_) => Ended::Broken,
        }
    }

    async fn converse_in_clear(
        &mut self,
        status: watch::Receiver<Arc<Status>>,
        stop: watch::Receiver<bool>,
        connected: impl Fn(),
    ) -> Result<Ended, Fault> {
        let host = bracketed(&self.host);
        let (outbox, mut inbox) = wire::open(self.terms(Way::Tcp(&host, self.port)));
        inbox.next().await?;
        self.converse(&outbox, &mut inbox, status, stop, connected).await
    }

    async fn converse_by_tls(
        &mut self,
        tls: &Tls,
        status: watch::Receiver<Arc<Status>>,
        stop: watch::Receiver<bool>,
        connected: impl Fn(),
    ) -> Result<Ended, Fault> {
        let outer = tls.connect(&self.host, &self.place()).await?;
        let handover = Handover::new().map_err(|error| Fault::from(&error))?;
        let (outbox, mut inbox) = wire::open(self.terms(Way::HandedOver(handover.path())));
        let mut carried = std::pin::pin!(handover.carry(outer));
        // What carries is asked first, for it knows why: TLS 1.3 tells of a refused certificate only after the handshake.
        let accepted = tokio::select! {
            biased;
            error = &mut carried => Err(Fault::from(&error)),
            accepted = inbox.next() => accepted.map(drop),
        };
        accepted.map_err(|fault| match fault {
            Fault::Lost(why) => Fault::Alert(why),
            other => other,
        })?;
        let ended = tokio::select! {
            biased;
            error = &mut carried => return Err(Fault::from(&error)),
            ended = self.converse(&outbox, &mut inbox, status, stop, connected) => ended,
        };
        // What was said last has to get through.
        drop(inbox);
        let _ = timeout(STOP_GRACE, carried).await;
        ended
    }

    fn terms<'a>(&'a self, way: Way<'a>) -> Terms<'a> {
        Terms {
            version: self.version,
            id: self.topics.id(),
            login: self.login.as_ref(),
            will: self.topics.availability(),
            way,
        }
    }

    /// Speaks on a connection that the broker has accepted.
    async fn converse(
        &mut self,
        outbox: &Outbox,
        inbox: &mut Inbox,
        status: watch::Receiver<Arc<Status>>,
        stop: watch::Receiver<bool>,
        connected: impl Fn(),
    ) -> Result<Ended, Fault> {
        self.shown.forget();
        let waiting = Waiting::default();
        let (topics, commands) = (self.topics.clone(), self.commands.clone());
        let receiving = receive(inbox, &topics, &waiting, &commands, status.clone(), connected);
        let publishing = publish(outbox, &topics, &mut self.shown, &waiting, status, stop);
        tokio::select! {
            ended = receiving => ended,
            // Its only end is a connection that takes nothing more: the other future knows why.
            Gone = publishing => Ok(Ended::Broken),
        }
    }
}

/// Host and port, as a person would write them.
pub(super) fn place(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.into()
    }
}

async fn receive(
    inbox: &mut Inbox,
    topics: &Topics,
    waiting: &Waiting,
    commands: &mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
    connected: impl Fn(),
) -> Result<Ended, Fault> {
    let births = topics.births();
    loop {
        match inbox.next().await? {
            Came::Message {
                topic,
                payload,
                retained,
            } => {
                if births.contains(&topic) {
                    // A retained birth is an old one, and everything was just sent.
                    if !retained && payload == b"online" {
                        waiting.birth.notify_one();
                    }
                } else if let Some(client) = topics.client_of(&topic) {
                    if retained {
                        recall(waiting, client, &payload);
                    }
                } else if let Some(command) = topics.command(&topic, &payload, retained) {
                    carry_on(command, commands, &status);
                }
            }
            Came::Subscribed => connected(),
            Came::Bye => return Ok(Ended::Stopped),
            Came::Other => {}
        }
    }
}

/// Takes note of a client that the broker still shows. Our own publications come back too, but not as retained ones.
fn recall(waiting: &Waiting, client: ClientName, payload: &[u8]) {
    #[derive(Deserialize)]
    struct Known {
        #[serde(default)]
        targets: BTreeMap<TargetName, IgnoredAny>,
    }
    if payload.is_empty() {
        return;
    }
    // A state of a form that we no longer know is still one to be cleared.
    let targets = serde_json::from_slice::<Known>(payload)
        .map(|known| known.targets)
        .unwrap_or_default();
    let mut recalled = waiting.recalled.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Publishes until told to stop, then says good-bye and waits for the other future to end both. What is to be sent is what
/// differs from what was: a slow broker gets the newest state of each subject, and none that is past.
async fn publish(
    outbox: &Outbox,
    topics: &Topics,
    shown: &mut Shown,
    waiting: &Waiting,
    status: watch::Receiver<Arc<Status>>,
    stop: watch::Receiver<bool>,
) -> Gone {
    match publish_until_gone(outbox, topics, shown, waiting, status, stop).await {
        Err(gone) => gone,
        Ok(never) => match never {},
    }
}

async fn publish_until_gone(
    outbox: &Outbox,
    topics: &Topics,
    shown: &mut Shown,
    waiting: &Waiting,
    mut status: watch::Receiver<Arc<Status>>,
    stop: watch::Receiver<bool>,
) -> Result<std::convert::Infallible, Gone> {
    let filters = topics
        .births()
        .into_iter()
        .chain(topics.commands())
        .chain([topics.clients()]);
    outbox.subscribe(filters).await?;
    let mut born: Option<Instant> = None;
    let mut settle = Some(Instant::now() + SETTLE);
    let mut listening = true;
    let mut alive = true;
    loop {
        let snapshot = status.borrow_and_update().clone();
        for message in shown.plan(topics, &snapshot) {
            outbox.publish(message).await?;
        }
        if settle.is_none() && shown.unsettled() {
            settle = Some(Instant::now() + SETTLE);
        }
        let next_round = Instant::now() + ROUND;
        tokio::select! {
            changed = status.changed(), if alive => alive = changed.is_ok(),
            () = waiting.birth.notified() => {
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
                    outbox.unsubscribe(topics.clients()).await?;
                    let recalled = std::mem::take(&mut *waiting.recalled.lock().unwrap_or_else(PoisonError::into_inner));
                    for (name, targets) in recalled {
                        shown.recall(name, targets);
                    }
                    shown.permit_removal();
                }
            }
            () = stopped(stop.clone()) => {
                outbox.publish(Message::retained(topics.availability(), OFFLINE.into())).await?;
                outbox.disconnect().await?;
                return std::future::pending().await;
            }
        }
        tokio::select! {
            () = sleep_until(next_round) => {}
            // The next turn of the loop sees it again.
            () = stopped(stop.clone()) => {}
        }
    }
}
