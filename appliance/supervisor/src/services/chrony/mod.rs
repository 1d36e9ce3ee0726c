//! chronyd, asked over its own protocol ([`wire`]) on its port of loopback, as chronyc asks it.
//!
//! Owns the exchange and the translation; what the answer is worth is decided in `strongroom_model::clock`. On loopback
//! chronyd tells its state to anybody and takes orders from nobody. What may be asked by its Unix socket alone, such as the
//! state of NTS keys, is not: whoever may ask there may set the clock too.

pub mod wire;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use strongroom_model::clock::{Chrony, Silence};
use strongroom_model::status::{TIME_SOURCES_MAX, TimeSource};
use strongroom_model::text::Text;
use tokio::net::UdpSocket;
use wire::{Address, Fault, Fields, Request};

/// chronyd's port for commands (chrony.conf(5), `cmdport`).
const PORT: u16 = 323;
/// How long each request may take. It crosses no wire.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a request is sent.
const ATTEMPTS: u32 = 3;
/// Most sources that are looked at. A pool has four.
const SOURCES_MAX: u32 = 64;

/// Where chronyd is asked, and for what else than it tells.
#[derive(Clone, Debug)]
pub struct Chronyd {
    place: SocketAddr,
    nts: BTreeSet<String>,
}

impl Default for Chronyd {
    fn default() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, PORT).into())
    }
}

impl Chronyd {
    /// The chronyd at this address and command port, instead of the system's.
    pub fn at(place: SocketAddr) -> Self {
        let nts = BTreeSet::new();
        Self { place, nts }
    }

    /// Knows which of the configured servers are asked by NTS: what chronyd tells on this port does not say so.
    pub fn with_nts(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.nts.extend(names);
        self
    }

    /// Asks for the reference and all sources.
    ///
    /// Errors: chronyd does not answer in time, or the answer is not understood.
    pub async fn ask(&self) -> Result<Chrony, Silence> {
        let mut exchange = Exchange::begin(self.place).await?;
        let mut chrony = Chrony::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        chrony.tracking = exchange
            .ask(Request::Tracking, |fields| wire::tracking(fields, now))
            .await?;
        let count = exchange.ask(Request::SourceCount, wire::source_count).await?;
        for index in 0..count.min(SOURCES_MAX) {
            let asked = exchange.ask_at_all(Request::Source(index), wire::source).await?;
            let (address, mut source) = match asked {
                Ok(found) => found,
                // One has gone since they were counted.
                Err(Fault::Refused(_)) => break,
                Err(fault) => return Err(strange(Request::Source(index), &fault)),
            };
            let Address::Ip(ip) = address else {
                chrony.sources.unresolved = chrony.sources.unresolved.saturating_add(1);
                continue;
            };
            chrony.sources.count(&source);
            if chrony.servers.len() < TIME_SOURCES_MAX {
                self.name(&mut exchange, ip, &mut source).await?;
                // There is room: looked at just now.
                let _ = chrony.servers.push(source);
            }
        }
        if chrony.tracking.synchronised {
            name_of_reference(&mut chrony);
        }
        Ok(chrony)
    }

    async fn name(
        &self,
        exchange: &mut Exchange,
        ip: std::net::IpAddr,
        source: &mut TimeSource,
    ) -> Result<(), Silence> {
        source.address = Text::format(format_args!("{ip}"));
        source.name = source.address.as_str().into();
        let request = Request::SourceName(Address::Ip(ip));
        // What can't be named goes by its address.
        let named = exchange.ask_at_all(request, |fields| Ok(wire::name(&fields))).await?;
        if let Ok(Some(name)) = named {
            source.nts = self.nts.contains(&name);
            source.name = name.as_str().into();
        }
        Ok(())
    }
}

/// The reference is told by its address.
fn name_of_reference(chrony: &mut Chrony) {
    let reference = &mut chrony.tracking.source;
    let known = chrony
        .servers
        .iter()
        .find(|source| source.address.as_str() == reference.as_str());
    if let Some(source) = known.filter(|source| source.name.as_str() != source.address.as_str()) {
        *reference = source.name.clone();
    }
}

fn strange(request: Request, fault: &Fault) -> Silence {
    Silence::Strange(Text::format(format_args!("{request:?}: {fault}")))
}

struct Exchange {
    socket: UdpSocket,
    sequence: u32,
}

impl Exchange {
    async fn begin(place: SocketAddr) -> Result<Self, Silence> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(|_| Silence::NoAnswer)?;
        socket.connect(place).await.map_err(|_| Silence::NoAnswer)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for what chronyd always tells.
    async fn ask<T>(&mut self, request: Request, read: impl Fn(Fields<'_>) -> Result<T, Fault>) -> Result<T, Silence> {
        let asked = self.ask_at_all(request, read).await?;
        asked.map_err(|fault| strange(request, &fault))
    }

    /// Errors: [`Silence::NoAnswer`]; an answer that is none is inside.
    async fn ask_at_all<T>(
        &mut self,
        request: Request,
        read: impl Fn(Fields<'_>) -> Result<T, Fault>,
    ) -> Result<Result<T, Fault>, Silence> {
        let mut reply = [0; wire::REPLY_MAX];
        for _ in 0..ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let sent = self.socket.send(&request.encode(self.sequence)).await;
            // Nobody listens.
            sent.map_err(|_| Silence::NoAnswer)?;
            let sequence = self.sequence;
            let heard = tokio::time::timeout(PATIENCE, async {
                loop {
                    let length = self.socket.recv(&mut reply).await.map_err(|_| Silence::NoAnswer)?;
                    match request.fields(sequence, reply.get(..length).unwrap_or_default()) {
                        Err(Fault::Another) => {}
                        other => return Ok(other.and_then(&read)),
                    }
                }
            });
            // What takes longer was lost, as where a buffer was full.
            if let Ok(answer) = heard.await {
                return answer;
            }
        }
        Err(Silence::NoAnswer)
    }
}
