//! Many changes: through a real mosquitto, to a reader that is slow, and over a year in the places where something could
//! pile up. What is measured is this process's memory, so each test has it for itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mqtt.rs"]
mod support;

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use strongroom_model::condition::{Condition, ConditionId, Conditions, Severity};
use strongroom_model::events::EVENTS_MAX;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{CLIENTS_MAX, Client, RepositoryState, Target};
use strongroom_supervisor::faces::mqtt::shown::Shown;
use strongroom_supervisor::faces::mqtt::topics::Topics;
use strongroom_supervisor::faces::notices::what::{Followed, Unsaid};
use support::{Broker, Face, Observer, config, discovery, of};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};

/// What memory may grow by: what the allocator keeps for itself, not what piles up.
const GROWTH_MAX: u64 = 6 << 20;
/// One test at a time: the memory is the whole process's.
static ALONE: Mutex<()> = Mutex::new(());

/// Resident memory in bytes (proc_pid_statm(5)).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn client(number: usize) -> Client {
    let mut client = Client {
        name: ClientName::new(&format!("client{number}")).unwrap(),
        repository: RepositoryState::Present,
        last_backup: Some(1),
        ..Client::default()
    };
    for name in ["near", "far"] {
        let target = Target {
            name: TargetName::new(name).unwrap(),
            last_push: Some(1),
            ..Target::default()
        };
        client.targets.push(target).unwrap();
    }
    client
}

/// A way to the broker that takes only so much at a time of what is sent to it.
async fn slow_way(broker: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((face, _)) = listener.accept().await {
            let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await else {
                continue;
            };
            let (mut from_face, mut to_face) = face.into_split();
            let (mut from_broker, mut to_broker) = broker.into_split();
            tokio::spawn(async move { copy(&mut from_broker, &mut to_face).await });
            tokio::spawn(async move {
                let mut piece = [0; 2048];
                while let Ok(read @ 1..) = from_face.read(&mut piece).await {
                    if to_broker.write_all(&piece[..read]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    });
    port
}

/// 10,000 changes, each of every client.
async fn storm(face: &Face, mut midway: impl FnMut()) {
    for size in 1..=10_000u64 {
        face.change(|status| {
            status.clients.iter_mut().for_each(|client| client.size_bytes = size);
            // What comes and goes all the time is an event each time.
            let (old, mut events) = (status.clone(), status.events.clone());
            status.conditions = Conditions::default();
            if size % 2 == 0 {
                let words = format!("trouble {size}");
                let condition = Condition::new(ConditionId::DiskHot, Severity::Warning, "disk", &words, "advice");
                status.conditions.raise(condition);
            }
            events.note(&old, status, Some(size));
            status.events = events;
        });
        if size == 5_000 {
            midway();
        }
        if size % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[test]
fn a_storm_of_changes_ends_in_the_last_one_with_few_messages_and_no_more_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut broker = Broker::start();
        let mut early = Observer::start(broker.port).await;
        let face = Face::start(config(slow_way(broker.port).await), None);
        face.change(|status| {
            status.clients = (0..CLIENTS_MAX).map(client).collect();
        });
        let last = of(&format!("client/client{}", CLIENTS_MAX - 1));
        early.until_payload(&last, "client").await;
        early.until_payload(&discovery(""), "event_types").await;
        let before = resident();
        // In the middle of it, the broker restarts and has forgotten everything.
        storm(&face, || {
            broker.kill();
            broker.again();
        })
        .await;
        let grown = resident().saturating_sub(before);
        let mut observer = Observer::start(broker.port).await;
        for number in 0..CLIENTS_MAX {
            let topic = of(&format!("client/client{number}"));
            observer.until_payload(&topic, "\"size_bytes\":10000,").await;
        }
        observer.until_payload(&of("health"), "trouble 10000").await;
        observer.until_payload(&discovery(""), "components").await;
        assert!(grown < GROWTH_MAX, "memory grew by {grown} bytes");
        let count = early.seen.borrow().counts[&last];
        assert!(count < 300, "{count} messages for 10,000 changes");
        let begun = Instant::now();
        face.change(|status| status.clock.stratum = 7);
        observer.until_payload(&of("clock"), "\"stratum\":7").await;
        println!(
            "memory grew by {} KiB; {count} messages of one client for 10,000 changes; a change was seen after {} ms",
            grown >> 10,
            begun.elapsed().as_millis()
        );
    });
}

/// What a year does with 64 clients: a backup of each a day, two pushes, troubles that come and go, a client that leaves
/// and comes back. Each step goes through all that remembers something between two snapshots.
#[test]
fn a_year_of_events_leaves_nothing_behind() {
    const STEPS_A_DAY: u64 = 4;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let topics = Topics::new(support::ID, "homeassistant");
    let mut shown = Shown::default();
    shown.permit_removal();
    let (mut unsaid, mut followed) = (
        Unsaid::new(Severity::Warning),
        Followed::new(None, TargetName::new("far").ok()),
    );
    let mut status = Box::new(support::sample());
    status.clients = (0..CLIENTS_MAX).map(client).collect();
    let (mut after_a_month, mut told, mut longest) = (0, 0, 0);
    for step in 0..365 * STEPS_A_DAY {
        let now = 1_700_000_000 + step * 86_400 / STEPS_A_DAY;
        let mut new = status.clone();
        for (number, client) in (0u64..).zip(new.clients.iter_mut()) {
            match (step + number) % STEPS_A_DAY {
                0 => client.last_backup = Some(now),
                1 => client.targets[0].last_push = Some(now),
                2 => client.targets[1].last_push = Some(now),
                _ => client.size_bytes += 1 << 20,
            }
        }
        new.conditions = Conditions::default();
        for trouble in 0..step % 7 {
            let words = format!("trouble {trouble} of {step}");
            let subject = format!("disk{trouble}");
            let condition = Condition::new(ConditionId::DiskAging, Severity::Warning, &subject, &words, "advice");
            new.conditions.raise(condition);
        }
        if step % 50 == 49 {
            let name = format!("guest{step}");
            new.clients[CLIENTS_MAX - 1].name = ClientName::new(&name).unwrap();
        }
        let mut events = status.events.clone();
        events.note(&status, &new, Some(now));
        new.events = events;
        status = new;
        let messages = shown.plan(&topics, &status);
        longest = longest.max(messages.len());
        told += messages.iter().filter(|message| !message.retain).count();
        if shown.unsettled() {
            shown.settle();
        }
        if let Some(notice) = unsaid.notice(&status) {
            unsaid.said(notice.upto);
        }
        if let Some(outcome) = followed.outcome(&status) {
            followed.told(outcome);
        }
        if step == 30 * STEPS_A_DAY {
            after_a_month = resident();
        }
    }
    let grown = resident().saturating_sub(after_a_month);
    println!("memory grew by {} KiB in eleven months", grown >> 10);
    assert!(grown < GROWTH_MAX, "memory grew by {grown} bytes in eleven months");
    assert_eq!(status.events.recent.len(), EVENTS_MAX);
    assert!(
        told > 365 && told < status.events.count as usize + 1,
        "{told} events told"
    );
    // Discovery and state of every device, what is the appliance's, and the events.
    let bound = 2 * (CLIENTS_MAX + 1) + 8 + EVENTS_MAX;
    assert!(longest <= bound, "{longest} messages at once");
}
