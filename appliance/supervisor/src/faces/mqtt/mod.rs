//! MQTT: the snapshot on a broker, for Home Assistant and anything else that reads JSON; and a few harmless commands.
//!
//! Owns the connection. Every connection starts afresh: discovery, availability and states are sent again, so that a
//! broker that lost its memory shows the truth. What is sent is decided in [`shown`], without I/O; what is rendered,
//! in [`states`] and [`discovery`]. Nothing here blocks the daemon: a slow broker only delays its own rounds, and a
//! round always sends the newest snapshot. [`wire`] knows the versions of MQTT, [`tls`] knows TLS.

pub mod access;
pub mod discovery;
pub mod fault;
#[cfg(test)]
mod rules;
#[cfg(test)]
pub(crate) mod sample;
mod session;
pub mod shown;
pub mod states;
pub mod tls;
pub mod topics;
mod wire;

use crate::report::{Command, Report, publish};
use access::Access;
use fault::Fault;
use session::{Ended, Session};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::config::Mqtt;
use strongroom_model::status::Status;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

/// First pause before another attempt; doubled each time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A connection that held this long was a good one: its end is no fault, and the next attempt comes soon.
const STEADY: Duration = Duration::from_secs(30);
/// How long a clean stop may take to say good-bye.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Serves the broker for ever, unless what opens its door can't be used. When this future is dropped, the broker publishes the will.
pub async fn run(
    config: Mqtt,
    access: Result<Access, Fault>,
    status: watch::Receiver<Arc<Status>>,
    commands: mpsc::Sender<Command>,
    report: watch::Sender<Report<()>>,
) {
    let (_running, stop) = watch::channel(false);
    run_until(config, access, status, commands, report, stop).await;
}

/// Like [`run`], until `stop` turns true: then it publishes `offline`, disconnects and returns, within two seconds.
pub async fn run_until(
    config: Mqtt,
    access: Result<Access, Fault>,
    mut status: watch::Receiver<Arc<Status>>,
    commands: mpsc::Sender<Command>,
    report: watch::Sender<Report<()>>,
    stop: watch::Receiver<bool>,
) {
    let serve = async {
        // Topics carry the identity, so there is nothing to say before it is known.
        if status.wait_for(|status| !status.appliance.id.is_empty()).await.is_err() {
            return std::future::pending().await;
        }
        let id = status.borrow().appliance.id.clone();
        let access = match access {
            Ok(access) => access,
            Err(fault) => {
                let place = session::place(config.host.as_str(), config.port());
                say(
                    &report,
                    Report {
                        part: (),
                        conditions: vec![fault.condition(&place)],
                    },
                );
                return std::future::pending().await;
            }
        };
        let mut session = Session::new(&config, access, &id, commands);
        let mut pause = BACKOFF_MIN;
        loop {
            let begun = Instant::now();
            match session
                .hold(status.clone(), stop.clone(), || say(&report, Report::default()))
                .await
            {
                Ended::Stopped => return,
                Ended::Broken if begun.elapsed() >= STEADY => pause = BACKOFF_MIN,
                Ended::Broken => {}
                Ended::Failed(fault) => say(
                    &report,
                    Report {
                        part: (),
                        conditions: vec![fault.condition(&session.place())],
                    },
                ),
            }
            sleep(pause + random_below(pause / 4)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    };
    let given_up = async {
        stopped(stop.clone()).await;
        sleep(STOP_GRACE).await;
    };
    tokio::select! {
        () = serve => {}
        () = given_up => {}
    }
}

fn say(report: &watch::Sender<Report<()>>, said: Report<()>) {
    publish(report, said);
}

/// Waits until told to stop; for ever when nobody is left to tell.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let told = stop.wait_for(|stop| *stop).await.is_ok();
    if !told {
        std::future::pending::<()>().await;
    }
}

/// A random time below `bound`. Spreads load only; nothing secret hangs on it.
fn random_below(bound: Duration) -> Duration {
    bound.mul_f64((random() >> 11) as f64 / (1u64 << 53) as f64)
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}
