//! Upkeep: the jobs that change a client's repository, compaction, rollback and repair, each in a unit of its own. The duty
//! tells what stands against them, shows those that run, and starts one again that was cut short.
//!
//! [`begin`] keeps everybody else off and compares what was confirmed with what is there; [`compact_job`],
//! [`rollback_job`] and [`repair_job`] do the work; [`told`] tells what is remembered of the repository; [`hold`] is what the others ask;
//! [`automatic`] orders what a policy asks for.

pub mod automatic;
pub mod begin;
mod beside;
pub mod compact_job;
pub mod hold;
pub mod look;
pub mod repair_job;
pub mod rollback_job;
pub mod told;

use crate::jobs::{Heard, LOOK, SETTLE};
use crate::paths::Paths;
use crate::report::{Report, publish};
use crate::services::systemd::{Systemd, SystemdError};
use hold::Hold;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::status::{ArrayState, Job, JobKind, Status};
use strongroom_model::upkeep::Work;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const POLL_RUNNING: Duration = Duration::from_secs(2);
/// A job that was cut short is started again after this time.
const AGAIN: Duration = Duration::from_secs(120);

/// What a person asked for, and confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whose repository.
    pub client: ClientName,
    /// What.
    pub work: Work,
}

/// Runs the role: `strongroom-upkeep compact|rollback|repair INSTANCE`.
pub fn run_job(paths: &Paths, arguments: &[String]) -> Result<(), begin::UpkeepError> {
    match arguments {
        [verb, instance] if verb == "compact" => compact_job::run(paths, instance),
        [verb, instance] if verb == "rollback" => rollback_job::run(paths, instance),
        [verb, instance] if verb == "repair" => repair_job::run(paths, instance),
        _ => Err(begin::UpkeepError::Usage),
    }
}

/// Runs the duty for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(
    paths: Paths,
    config: Arc<Config>,
    systemd: Systemd,
    orders: &mut mpsc::Receiver<Order>,
    mut heard: Heard,
    status: watch::Receiver<Arc<Status>>,
    report: watch::Sender<Report<Vec<Job>>>,
) -> Result<(), SystemdError> {
    let mut asked: BTreeMap<ClientName, (Work, Instant)> = BTreeMap::new();
    let mut automatic = automatic::Automatic::default();
    loop {
        let mounted = status.borrow().array.state == ArrayState::Mounted;
        let mut new = Report::<Vec<Job>>::default();
        for client in &config.client {
            let name = client.name.get_ref();
            let hold = hold::of(&paths, name);
            let work = match &hold {
                Hold::Standing(journal) => journal.work,
                Hold::Unreadable => {
                    new.conditions.push(unreadable(name));
                    continue;
                }
                // One that was asked for only a moment ago has no journal yet; a repair has none while its bytes come in.
                Hold::Open => match asked.get(name) {
                    Some((work, _)) => *work,
                    None => continue,
                },
            };
            let unit = work.unit(name);
            let running = systemd
                .states(&[unit.as_str()])
                .await?
                .iter()
                .any(|state| state.is_running());
            if running {
                new.part.push(job(name, work));
            } else if hold != Hold::Open {
                new.conditions.push(unfinished(name, work));
                let lately = asked
                    .get(name)
                    .is_some_and(|(before, at)| *before == work && at.elapsed() < AGAIN);
                if mounted && !lately {
                    eprintln!("{name}: {} was cut short; it is brought to its end", work.verb());
                    asked.insert(name.clone(), (work, Instant::now()));
                    systemd.start(&unit).await?;
                }
            } else if asked.get(name).is_some_and(|(_, at)| at.elapsed() >= AGAIN) {
                asked.remove(name);
            }
        }
        let busy = !new.part.is_empty() || !new.conditions.is_empty();
        if mounted && !busy {
            let now = status.borrow().clone();
            if let Some(Order { client, work }) = automatic.round(&paths, &config, &systemd, &now).await? {
                systemd.start(&work.unit(&client)).await?;
                asked.insert(client, (work, Instant::now()));
            }
        }
        new.conditions.extend(automatic.conditions().cloned());
        publish(&report, new);
        tokio::select! {
            () = tokio::time::sleep(if busy || !mounted { POLL_RUNNING } else { LOOK }) => {}
            Ok(()) = heard.changed() => {}
            order = orders.recv() => match order {
                Some(Order { client, work }) => {
                    systemd.start(&work.unit(&client)).await?;
                    asked.insert(client, (work, Instant::now()));
                }
                None => return Ok(()),
            },
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn job(client: &ClientName, work: Work) -> Job {
    Job {
        kind: match work {
            Work::Compact { .. } => JobKind::Compact,
            Work::RollBack { .. } => JobKind::Rollback,
            Work::Repair { .. } => JobKind::Repair,
        },
        client: Some(client.clone()),
        target: None,
        on_disk: false,
        done_bytes: 0,
        total_bytes: 0,
    }
}

fn unfinished(client: &ClientName, work: Work) -> Condition {
    let what = match work {
        Work::Compact { .. } => "compaction",
        Work::RollBack { .. } => "rollback",
        Work::Repair { .. } => "repair",
    };
    Condition::new(
        ConditionId::UpkeepUnfinished,
        Severity::Warning,
        client.as_str(),
        &format!(
            "The {what} of the repository of {client} was cut short; until it has come to its end, {client} can't back up."
        ),
        &format!(
            "It is tried again every two minutes. If this stays: `journalctl --unit '{}'` says why.",
            work.unit(client)
        ),
    )
}

fn unreadable(client: &ClientName) -> Condition {
    Condition::new(
        ConditionId::UpkeepUnfinished,
        Severity::Alarm,
        client.as_str(),
        &format!(
            "It can't be read how far a compaction, rollback or repair of the repository of {client} came, so {client} is held out."
        ),
        &format!(
            "The state partition may be damaged: make a report (`strongroom report`). Then `strongroom client reopen {client}` sets aside what can't be read; look at `strongroom client show {client}` after that."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_told_whole() {
        let long = ClientName::new("a234567890123456789012345678901").unwrap();
        let work = Work::RollBack {
            transaction: u32::MAX,
            to: u32::MAX - 1,
        };
        for condition in [unfinished(&long, work), unreadable(&long)] {
            assert!(
                !condition.text.contains('…') && !condition.advice.contains('…'),
                "{condition:?}"
            );
        }
    }
}
