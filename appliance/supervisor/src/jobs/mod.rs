//! The jobs that are running, and how those that ran last ended, from what systemd tells of their units. It is told when
//! something is done with a unit, so nothing is asked while nothing happens. Starts nothing and decides nothing.

use crate::report::publish;
use crate::services::systemd::{Queued, Systemd, SystemdError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::job::{Job, Jobs, PATTERNS, State, of_unit};
use strongroom_model::status::Status;
use tokio::sync::watch;

/// How soon a unit that is to be started is looked at again: it may have to wait for others.
const COMING_UP: Duration = Duration::from_secs(1);

/// Counts what came to its end among the appliance's own units, and the jobs that begin. The duties look again when it changes,
/// so that they need not look often.
pub type Heard = watch::Receiver<u64>;
/// How often a duty looks though nothing was heard. What changes all the same is told within a minute.
pub const LOOK: Duration = Duration::from_secs(45);
/// How long after something was heard or asked for a duty looks: a job comes up meanwhile, and whatever else happens with it.
pub const SETTLE: Duration = Duration::from_millis(200);

/// What the names of all units of the appliance start with.
const OURS: &str = "strongroom-";
/// Units that live only while they run: the sessions of clients, and whoever changes something in the registry.
const SHORT_LIVED: [&str; 2] = ["strongroom-session@", "strongroom-clients@"];

/// Why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// systemd can't be listened to.
    #[error("systemd can't be listened to: {0}")]
    Bus(#[from] zbus::Error),
    /// systemd refuses to tell.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

/// Keeps the list for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(
    systemd: Systemd,
    mut status: watch::Receiver<Arc<Status>>,
    list: watch::Sender<Arc<Vec<Job>>>,
    heard: watch::Sender<u64>,
) -> Result<(), JobsError> {
    let mut queue = systemd.queue(OURS).await?;
    let mut jobs = Jobs::default();
    for pattern in PATTERNS {
        for unit in systemd.matching(pattern).await? {
            jobs.see(&unit, &systemd.seen(&unit).await?);
        }
    }
    // Units that are to be started, and don't run yet.
    let mut coming = BTreeSet::<String>::new();
    let mut running = BTreeSet::<String>::new();
    loop {
        jobs.progress(&status.borrow_and_update().jobs);
        let now = jobs.list();
        let run = now.iter().filter(|job| job.state == State::Running);
        let run: BTreeSet<String> = run.map(|job| job.id.clone()).collect();
        if run != running {
            running = run;
            tell(&heard);
        }
        publish(&list, Arc::new(now));
        tokio::select! {
            queued = queue.next() => match queued {
                Some(Queued::Begun(unit)) if of_unit(&unit).is_some() => {
                    // Otherwise systemd forgets it with its end.
                    if let Err(error) = systemd.pin(&unit).await {
                        eprintln!("{error}");
                    }
                    jobs.see(&unit, &systemd.seen(&unit).await?);
                    if jobs.of(&unit).is_none() {
                        coming.insert(unit);
                    }
                }
                Some(Queued::Done(unit, result)) if of_unit(&unit).is_some() => {
                    coming.remove(&unit);
                    // The start is given up, because a stop is asked for.
                    if result == "canceled" {
                        jobs.stopping(&unit);
                    }
                    jobs.see(&unit, &systemd.seen(&unit).await?);
                    // Not pinned when it was begun before this.
                    let _ = systemd.unref(&unit).await;
                    // It may have been too short to be seen running.
                    tell(&heard);
                }
                Some(Queued::Done(..)) => tell(&heard),
                Some(Queued::Gone(unit)) if SHORT_LIVED.iter().any(|start| unit.starts_with(start)) => tell(&heard),
                Some(_) => {}
                None => return Ok(()),
            },
            Ok(()) = status.changed() => {}
            () = tokio::time::sleep(COMING_UP), if !coming.is_empty() => {
                for unit in &coming {
                    jobs.see(unit, &systemd.seen(unit).await?);
                }
                coming.retain(|unit| jobs.of(unit).is_none());
            }
        }
    }
}

fn tell(heard: &watch::Sender<u64>) {
    heard.send_modify(|count| *count = count.wrapping_add(1));
}
