//! The offsite duty: starts the schedule, starts a push when asked to, and reads what pushes left behind and what is known
//! of recipients. The pushing itself is [`push_job`], in a unit of its own, so that it outlives the daemon; systemd starts
//! it again, less and less often, when it fails.

pub(crate) mod bucket;
pub mod challenges;
pub mod copy_check;
pub mod disk_job;
pub mod disks;
pub mod drills;
pub mod job_report;
pub mod probe_job;
pub mod push_job;
pub mod recipients;

use crate::jobs::{Heard, LOOK, SETTLE};
use crate::paths::Paths;
use crate::report::{Report, publish};
use crate::services::systemd::{Systemd, SystemdError, UnitState};
use disks::Disks;
use job_report::JobReport;
use recipients::Known;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_model::config::{Config, Proof};
use strongroom_model::copy_check::CopyCheck;
use strongroom_model::drill::Drills;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::offsite::{manifest_distrusted, retirement_hindered};
use strongroom_model::recipient::Recipient;
use strongroom_model::status::{Job, JobKind, Obsolete, Target};
use tokio::sync::{mpsc, watch};

/// Where targets are disks: one that is plugged in is copied to soon.
const POLL_DISKS: Duration = Duration::from_secs(10);
const POLL_RUNNING: Duration = Duration::from_secs(2);
/// How often systemd is asked when the timers elapse next, though none was seen to. They may after a step of the clock.
const NEXT_PERIOD: Duration = Duration::from_secs(300);
/// Where targets are disks: that it was time for one shows only there.
const NEXT_PERIOD_DISKS: Duration = Duration::from_secs(60);
const UNITS: &str = "strongroom-push@*.service";

/// The duty's part of the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offsite {
    /// Copies of each client.
    pub targets: BTreeMap<ClientName, Vec<Target>>,
    /// What the last comparison of each copy found.
    pub checks: BTreeMap<(ClientName, TargetName), CopyCheck>,
    /// Restores that were tried.
    pub drills: Drills,
    /// After how many days another is due; 0 for never.
    pub drill_days: u16,
    /// When each client is pushed next, Unix seconds.
    pub next: BTreeMap<ClientName, u64>,
    /// Pushes that are running.
    pub jobs: Vec<Job>,
    /// The targets that are plugged in now and then.
    pub disks: Vec<TargetName>,
    /// The recipients of the configuration.
    pub recipients: Vec<Recipient>,
    /// Whether pushes wait for the recipients' proofs.
    pub proof_required: bool,
}

/// Runs the duty for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(
    paths: Paths,
    config: Arc<Config>,
    systemd: Systemd,
    pushes: &mut mpsc::Receiver<ClientName>,
    mut heard: Heard,
    report: watch::Sender<Report<Offsite>>,
) -> Result<(), SystemdError> {
    let clients: Vec<ClientName> = config
        .client
        .iter()
        .filter(|client| config.targets_of(client).next().is_some())
        .map(|client| client.name.get_ref().clone())
        .collect();
    for client in &clients {
        systemd.restart_anew(&timer(client)).await?;
    }
    let mut recipients = Known::default();
    let mut next = BTreeMap::new();
    let mut next_read: Option<Instant> = None;
    let mut disks = Disks::default();
    let mut scheduled = BTreeMap::new();
    let has_disks = disks::targets(&config).next().is_some();
    let idle = if has_disks { POLL_DISKS } else { LOOK };
    let mut before: Option<Vec<ClientName>> = None;
    loop {
        let states = systemd.in_mind(&[UNITS]).await?;
        let is_running = |client: &&ClientName| states.get(&unit(client)).is_some_and(UnitState::is_running);
        let pushed: Vec<ClientName> = clients.iter().filter(is_running).cloned().collect();
        let now = crate::clock_now().unwrap_or_default();
        let on_disks = disks.look(&paths, &config, &systemd, &scheduled, now).await?;
        let coming_up = on_disks.coming_up;
        let mut new = observe(&paths, &config, &clients, &pushed, on_disks);
        new.part.recipients = recipients.look(&paths, &config).to_vec();
        new.part.proof_required = config.offsite.proof == Proof::Required;
        let running = coming_up || !new.part.jobs.is_empty();
        // Questions for each client: when a timer may have elapsed, and now and then.
        let period = if has_disks { NEXT_PERIOD_DISKS } else { NEXT_PERIOD };
        if before.as_ref() != Some(&pushed) || next_read.is_none_or(|read| read.elapsed() >= period) {
            next_read = Some(Instant::now());
            before = Some(pushed);
            for client in &clients {
                match systemd.next_elapse(&timer(client)).await? {
                    Some(time) => next.insert(client.clone(), time),
                    None => next.remove(client),
                };
                if has_disks && let Some(time) = systemd.last_elapse(&timer(client)).await? {
                    scheduled.insert(client.clone(), time);
                }
            }
        }
        new.part.next = next.clone();
        publish(&report, new);
        tokio::select! {
            () = tokio::time::sleep(if running { POLL_RUNNING } else { idle }) => {}
            Ok(()) = heard.changed() => {}
            push = pushes.recv() => match push {
                Some(client) if clients.contains(&client) => {
                    disks.ask(&config, &client);
                    systemd.start(&unit(&client)).await?;
                }
                Some(client) => eprintln!("{client} has no target to push to"),
                None => return Ok(()),
            },
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn unit(client: &ClientName) -> String {
    format!("strongroom-push@{client}.service")
}

fn timer(client: &ClientName) -> String {
    format!("strongroom-push@{client}.timer")
}

fn observe(
    paths: &Paths,
    config: &Config,
    clients: &[ClientName],
    pushed: &[ClientName],
    on_disks: disks::Seen,
) -> Report<Offsite> {
    let mut conditions = on_disks.conditions;
    let mut part = Offsite {
        drills: drills::read(paths),
        drill_days: *config.offsite.drill_days.get_ref(),
        jobs: on_disks.jobs,
        disks: disks::targets(config)
            .map(|(target, _)| target.name.get_ref().clone())
            .collect(),
        ..Offsite::default()
    };
    for client in clients {
        let progress = JobReport::<TargetName>::read(&paths.push_report(client));
        let Some(configured) = config.client(client.as_str()) else {
            continue;
        };
        let targets = config.targets_of(configured).map(|target| {
            let name = target.name.get_ref().clone();
            let summary = strongroom_offsite::ledger::read_summary(&paths.ledger(client, &name))
                .ok()
                .flatten();
            let error = progress
                .errors
                .iter()
                .find(|(failed, _)| *failed == name)
                .map(|(_, error)| error.as_str())
                .or(on_disks.errors.get(&(client.clone(), name.clone())).map(String::as_str));
            let mut status = Target {
                error: error.unwrap_or_default().into(),
                ..Target::default()
            };
            if let Some(check) = copy_check::read(paths, client, &name) {
                status.verified = check.at;
                status.damaged = check.damaged();
                status.foreign = check.foreign.count;
                part.checks.insert((client.clone(), name.clone()), check);
            }
            status.name = name;
            if let Some(summary) = summary {
                status.transaction = Some(u64::from(summary.transaction.0));
                status.last_push = Some(summary.at);
                status.objects = summary.objects;
                status.size_bytes = summary.bytes;
                let looked = summary.retirement.unwrap_or_default();
                status.obsolete = Obsolete {
                    free_bytes: looked.free.bytes,
                    waiting_bytes: looked.waiting.bytes,
                    next: looked.next,
                    retired_bytes: summary.retired_bytes,
                };
                let newest = summary.distrusted.first();
                conditions.extend(newest.map(|one| manifest_distrusted(client, &status.name, &one.manifest, &one.why)));
                if target.retire && !looked.hindered.is_empty() {
                    conditions.push(retirement_hindered(client, &status.name, &looked.hindered));
                }
            }
            status
        });
        let targets = targets.collect();
        part.targets.insert(client.clone(), targets);
        if pushed.contains(client) {
            part.jobs.push(Job {
                kind: JobKind::Push,
                client: Some(client.clone()),
                target: progress.now,
                on_disk: false,
                done_bytes: progress.done_bytes,
                total_bytes: progress.total_bytes,
            });
        }
    }
    Report { part, conditions }
}
