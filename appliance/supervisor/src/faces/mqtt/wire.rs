//! One connection to the broker in either version of MQTT: what this face needs of it, and nothing that depends on the
//! version. MQTT 3.1.1 (OASIS standard, 2014) and 5.0 (2019).

use super::fault::Fault;
use super::states::Message;
use super::topics::OFFLINE;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5 as packets5;
use rumqttc::{self as v3, Outgoing, Packet, QoS, Transport};
use std::time::Duration;
use strongroom_model::config::MqttVersion;
use tokio::time::timeout;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The connection's own pings make something happen at every [`KEEP_ALIVE`]: longer silence is a broker that takes nothing.
const STALLED: Duration = Duration::from_secs(45);
/// Messages waiting for the connection.
const QUEUE: usize = 8;
/// Messages waiting for the broker's acknowledgement.
const INFLIGHT: u16 = 16;
/// Largest packet either way: a client's discovery with four targets is some 12 KiB, 64 conditions some 60 KiB.
const PACKET_BYTES_MAX: usize = 256 * 1024;

/// How to come in.
pub(super) struct Terms<'a> {
    pub(super) version: MqttVersion,
    /// Client id.
    pub(super) id: &'a str,
    pub(super) login: Option<&'a (String, String)>,
    /// Where the broker says [`OFFLINE`] when the connection is lost.
    pub(super) will: String,
    /// Host without brackets needed, and port; or where the connection is handed over.
    pub(super) way: Way<'a>,
}

/// How the broker is reached.
pub(super) enum Way<'a> {
    /// By TCP, as a URL would name the host.
    Tcp(&'a str, u16),
    /// By a socket of this process.
    HandedOver(&'a str),
}

/// What came in.
pub(super) enum Came {
    /// A message.
    Message {
        topic: String,
        payload: Vec<u8>,
        retained: bool,
    },
    /// The broker has taken a subscription: it lets us in, and it answers.
    Subscribed,
    /// Our good-bye is out.
    Bye,
    /// Nothing of interest.
    Other,
}

/// The side that sends. It waits for the connection when that is busy.
#[derive(Clone)]
pub(super) enum Outbox {
    V3(v3::AsyncClient),
    V5(v5::AsyncClient),
}

/// The side that drives the connection.
pub(super) enum Inbox {
    V3(Box<v3::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// The connection is gone; the [`Inbox`] knows why.
pub(super) struct Gone;

/// Both sides of a connection that is made at the first [`Inbox::next`].
pub(super) fn open(terms: Terms<'_>) -> (Outbox, Inbox) {
    let (host, port, transport) = match terms.way {
        Way::Tcp(host, port) => (host, port, Transport::Tcp),
        Way::HandedOver(path) => (path, 0, Transport::Unix),
    };
    match terms.version {
        MqttVersion::V3 => {
            let mut options = v3::MqttOptions::new(terms.id, host, port);
            options.set_transport(transport);
            options.set_keep_alive(KEEP_ALIVE);
            options.set_clean_session(true);
            options.set_inflight(INFLIGHT);
            options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
            options.set_last_will(v3::LastWill::new(terms.will, OFFLINE, QoS::AtLeastOnce, true));
            if let Some((username, password)) = terms.login {
                options.set_credentials(username, password);
            }
            let (client, events) = v3::AsyncClient::new(options, QUEUE);
            (Outbox::V3(client), Inbox::V3(Box::new(events)))
        }
        MqttVersion::V5 => {
            let mut options = v5::MqttOptions::new(terms.id, host, port);
            options.set_transport(transport);
            options.set_keep_alive(KEEP_ALIVE);
            options.set_clean_start(true);
            options.set_outgoing_inflight_upper_limit(INFLIGHT);
            options.set_max_packet_size(u32::try_from(PACKET_BYTES_MAX).ok());
            let will = packets5::LastWill::new(terms.will, OFFLINE, QoS5::AtLeastOnce, true, None);
            options.set_last_will(will);
            if let Some((username, password)) = terms.login {
                options.set_credentials(username, password);
            }
            let (client, events) = v5::AsyncClient::new(options, QUEUE);
            (Outbox::V5(client), Inbox::V5(Box::new(events)))
        }
    }
}

impl Outbox {
    /// Sends with QoS 1. Waits while the connection is busy.
    pub(super) async fn publish(&self, message: Message) -> Result<(), Gone> {
        let Message { topic, payload, retain } = message;
        match self {
            Self::V3(client) => gone(client.publish(topic, QoS::AtLeastOnce, retain, payload).await),
            Self::V5(client) => gone(client.publish(topic, QoS5::AtLeastOnce, retain, payload).await),
        }
    }

    /// Subscribes with QoS 1.
    pub(super) async fn subscribe(&self, filters: impl Iterator<Item = String>) -> Result<(), Gone> {
        match self {
            Self::V3(client) => {
                let filters = filters.map(|filter| v3::SubscribeFilter::new(filter, QoS::AtLeastOnce));
                gone(client.subscribe_many(filters).await)
            }
            Self::V5(client) => {
                let filters = filters.map(|filter| packets5::Filter::new(filter, QoS5::AtLeastOnce));
                gone(client.subscribe_many(filters).await)
            }
        }
    }

    pub(super) async fn unsubscribe(&self, filter: String) -> Result<(), Gone> {
        match self {
            Self::V3(client) => gone(client.unsubscribe(filter).await),
            Self::V5(client) => gone(client.unsubscribe(filter).await),
        }
    }

    /// Says good-bye: the broker does not publish the will.
    pub(super) async fn disconnect(&self) -> Result<(), Gone> {
        match self {
            Self::V3(client) => gone(client.disconnect().await),
            Self::V5(client) => gone(client.disconnect().await),
        }
    }
}

fn gone<E>(sent: Result<(), E>) -> Result<(), Gone> {
    sent.map_err(|_| Gone)
}

impl Inbox {
    /// What happens next. The first success is the broker's acceptance.
    pub(super) async fn next(&mut self) -> Result<Came, Fault> {
        let next = async {
            Ok(match self {
                Self::V3(events) => match events.poll().await.map_err(|error| Fault::from(&error))? {
                    v3::Event::Incoming(Packet::Publish(message)) => Came::Message {
                        topic: message.topic,
                        payload: message.payload.to_vec(),
                        retained: message.retain,
                    },
                    v3::Event::Incoming(Packet::SubAck(_)) => Came::Subscribed,
                    v3::Event::Outgoing(Outgoing::Disconnect) => Came::Bye,
                    _ => Came::Other,
                },
                Self::V5(events) => match events.poll().await.map_err(|error| Fault::from(&error))? {
                    v5::Event::Incoming(packets5::Packet::Publish(message)) => Came::Message {
                        // A topic that is no UTF-8 is against the standard, and none of ours.
                        topic: String::from_utf8_lossy(&message.topic).into_owned(),
                        payload: message.payload.to_vec(),
                        retained: message.retain,
                    },
                    v5::Event::Incoming(packets5::Packet::SubAck(_)) => Came::Subscribed,
                    v5::Event::Outgoing(Outgoing::Disconnect) => Came::Bye,
                    _ => Came::Other,
                },
            })
        };
        timeout(STALLED, next).await.unwrap_or(Err(Fault::Silent))
    }
}
