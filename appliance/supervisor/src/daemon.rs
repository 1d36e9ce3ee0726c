//! The daemon: one task per duty and face, wired by channels that carry data one way. It decides nothing itself.

use crate::clients::{self, Surroundings};
use crate::configuration;
use crate::disks;
use crate::faces::{dbus, metrics, mqtt, notices};
use crate::identity;
use crate::jobs;
use crate::offsite::{self, bucket};
use crate::paths::Paths;
use crate::report::{Command, Report, publish};
use crate::services::{notify, systemd::Systemd};
use crate::snapshot::{self, Reports};
use crate::upkeep;
use crate::watch as watched;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Health, Severity};
use strongroom_model::config::Config;
use strongroom_model::job::Job;
use strongroom_model::name::ClientName;
use strongroom_model::status::Status;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use zbus::Connection;

/// Least time between two snapshots.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(250);
/// Longest time between two signs of life, well within the unit's WatchdogSec.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// Pause before a duty that stopped is started again.
const DUTY_PAUSE: Duration = Duration::from_secs(5);

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The system bus refuses.
    #[error("the system bus does not answer or refuses: {0}")]
    Bus(#[from] zbus::Error),
    /// Signals can't be listened to.
    #[error("signals can't be waited for: {0}")]
    Signal(#[from] std::io::Error),
}

/// Runs until asked to stop by a signal.
pub async fn run(paths: Paths) -> Result<(), DaemonError> {
    // Before anybody can be told that this runs.
    let mut hangup = signal(SignalKind::hangup())?;
    let (in_force_sender, in_force) = watch::channel(Arc::new(configuration::load(&paths)));
    let config = in_force.borrow().config.clone();
    let bus = Connection::system().await?;
    let systemd = Systemd::new(&bus).await?;

    let (status_sender, status) = watch::channel(Arc::<Status>::default());
    let (commands, mut incoming) = mpsc::channel::<Command>(16);
    let (pushes, mut push_requests) = mpsc::channel(16);
    let (disk_requests, mut disk_orders) = mpsc::channel(4);
    let (watch_requests, mut watch_orders) = mpsc::channel(4);
    let (duty_sender, duties) = watch::channel(Vec::<Condition>::new());
    let (appliance_sender, appliance) = watch::channel(Report::default());
    let (clock_sender, clock) = watch::channel(Report::default());
    let (disks_sender, disks) = watch::channel(Report::default());
    let (clients_sender, clients) = watch::channel(Report::default());
    let (offsite_sender, offsite) = watch::channel(Report::default());
    let (watch_sender, watching) = watch::channel(Report::default());
    let (upkeep_sender, upkeep_jobs) = watch::channel(Report::default());
    let (upkeep_requests, mut upkeep_orders) = mpsc::channel(4);
    let (mqtt_sender, mqtt) = watch::channel(Report::default());
    let (exits_sender, exits) = watch::channel(Vec::<Condition>::new());
    let (surroundings_sender, surroundings) = watch::channel(Surroundings::default());
    let (stop_sender, stop) = watch::channel(false);

    let (jobs_sender, jobs) = watch::channel(Arc::<Vec<Job>>::default());
    let (heard_sender, heard) = watch::channel(0);
    let face = dbus::Needs {
        paths: paths.clone(),
        status: status.clone(),
        jobs,
        commands: commands.clone(),
        systemd: systemd.clone(),
    };
    let face = dbus::serve(&bus, face).await?;
    tokio::spawn(async move {
        if let Err(error) = dbus::announce(face).await {
            eprintln!("changes are not announced on the bus any more: {error}");
        }
    });
    {
        let (systemd, status, duty) = (systemd.clone(), status.clone(), duty_sender.clone());
        tokio::spawn(async move {
            loop {
                let ended = jobs::run(
                    systemd.clone(),
                    status.clone(),
                    jobs_sender.clone(),
                    heard_sender.clone(),
                )
                .await;
                stopped("jobs", ended, &duty).await;
            }
        });
    }
    {
        let (paths, config) = (paths.clone(), config.clone());
        tokio::spawn(async move { crate::clock::run(paths, &config, clock_sender).await });
    }
    tokio::spawn(clients::run(
        paths.clone(),
        in_force.clone(),
        surroundings.clone(),
        heard.clone(),
        clients_sender,
    ));
    {
        let (paths, systemd, duty) = (paths.clone(), systemd.clone(), duty_sender.clone());
        tokio::spawn(async move {
            loop {
                let ended = identity::run(paths.clone(), systemd.clone(), appliance_sender.clone()).await;
                stopped("appliance", ended, &duty).await;
            }
        });
    }
    {
        let (paths, systemd, duty) = (paths.clone(), systemd.clone(), duty_sender.clone());
        tokio::spawn(async move {
            loop {
                let ended = disks::run(paths.clone(), systemd.clone(), &mut disk_orders, disks_sender.clone()).await;
                stopped("disks", ended, &duty).await;
            }
        });
    }
    {
        let (paths, systemd, duty) = (paths.clone(), systemd.clone(), duty_sender.clone());
        let mut in_force = in_force.clone();
        let news = watched::News {
            clients: clients.clone(),
            around: surroundings,
            heard: heard.clone(),
        };
        tokio::spawn(async move {
            loop {
                let config = in_force.borrow_and_update().config.clone();
                let (paths, systemd) = (paths.clone(), systemd.clone());
                let (news, report) = (news.clone(), watch_sender.clone());
                let watching = watched::run(paths, config, systemd, &mut watch_orders, news, report);
                tokio::select! {
                    ended = watching => stopped("watch", ended, &duty).await,
                    // It begins again with other clients.
                    Ok(()) = in_force.changed() => {}
                }
            }
        });
    }
    {
        let (paths, systemd, duty) = (paths.clone(), systemd.clone(), duty_sender.clone());
        let (status, heard, mut in_force) = (status.clone(), heard.clone(), in_force.clone());
        tokio::spawn(async move {
            loop {
                let config = in_force.borrow_and_update().config.clone();
                let (paths, systemd) = (paths.clone(), systemd.clone());
                let (heard, status, report) = (heard.clone(), status.clone(), upkeep_sender.clone());
                let working = upkeep::run(paths, config, systemd, &mut upkeep_orders, heard, status, report);
                tokio::select! {
                    ended = working => stopped("upkeep", ended, &duty).await,
                    Ok(()) = in_force.changed() => {}
                }
            }
        });
    }
    {
        let (paths, systemd, mut in_force) = (paths.clone(), systemd.clone(), in_force.clone());
        tokio::spawn(async move {
            loop {
                let config = in_force.borrow_and_update().config.clone();
                let (paths, systemd) = (paths.clone(), systemd.clone());
                let (heard, report) = (heard.clone(), offsite_sender.clone());
                let pushing = offsite::run(paths, config, systemd, &mut push_requests, heard, report);
                tokio::select! {
                    ended = pushing => stopped("offsite", ended, &duty_sender).await,
                    Ok(()) = in_force.changed() => {}
                }
            }
        });
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    if let Some(metrics) = &config.metrics {
        tokio::spawn(metrics::run(
            *metrics.port.get_ref(),
            status.clone(),
            exits_sender.clone(),
        ));
    }
    // Authorities that can't be read vouch for nobody; whoever needs them says so.
    let trust = bucket::trust(&paths).unwrap_or_default();
    notices::start(
        &config,
        credentials.as_deref(),
        &trust,
        notices::LEAST_PAUSE,
        &status,
        &exits_sender,
    );
    let mqtt_task = config.mqtt.clone().map(|settings| {
        let access = mqtt::access::read(&paths, credentials.as_deref(), &settings);
        tokio::spawn(mqtt::run_until(
            settings,
            access,
            status.clone(),
            commands.clone(),
            mqtt_sender,
            stop,
        ))
    });
    let take_up = {
        let paths = paths.clone();
        move || publish(&in_force_sender, Arc::new(configuration::load(&paths)))
    };
    let take_up_by_command = take_up.clone();
    tokio::spawn(async move {
        while let Some(command) = incoming.recv().await {
            match command {
                Command::Push(client) => {
                    if pushes.send(client).await.is_err() {
                        return;
                    }
                }
                Command::Rescan => {
                    let _ = disk_requests.send(disks::Request::Rescan).await;
                }
                Command::Adopt(uuid) => {
                    let _ = disk_requests.send(disks::Request::Adopt(uuid)).await;
                }
                Command::Scrub => {
                    let _ = disk_requests.send(disks::Request::Scrub).await;
                }
                Command::Check(client) => {
                    let _ = watch_requests.send(watched::Request::Check(client)).await;
                }
                Command::Accept(client) => {
                    let _ = watch_requests.send(watched::Request::Accept(client)).await;
                }
                Command::Upkeep(order) => {
                    let _ = upkeep_requests.send(order).await;
                }
                Command::Clients => take_up_by_command(),
                Command::Identify => identify(),
            }
        }
    });
    tokio::spawn(async move {
        let mut receivers = (
            appliance,
            clock,
            disks,
            clients,
            offsite,
            mqtt,
            duties,
            watching,
            upkeep_jobs,
            exits,
        );
        let mut begun = false;
        loop {
            let config = in_force.borrow().config.clone();
            let without_target = without_target(&config);
            let mut reports = Reports {
                appliance: receivers.0.borrow_and_update().clone(),
                clock: receivers.1.borrow_and_update().clone(),
                disks: receivers.2.borrow_and_update().clone(),
                clients: receivers.3.borrow_and_update().clone(),
                offsite: receivers.4.borrow_and_update().clone(),
                mqtt: receivers.5.borrow_and_update().clone(),
                duties: receivers.6.borrow_and_update().clone(),
                watch: receivers.7.borrow_and_update().clone(),
                upkeep: receivers.8.borrow_and_update().clone(),
                exits: receivers.9.borrow_and_update().clone(),
                expected: (config.client.len(), config.client.len() - without_target.len()),
                without_target,
            };
            if begun {
                // Everybody has spoken once; clients that come later are no new beginning.
                reports.expected = (reports.clients.part.len(), reports.offsite.part.targets.len());
            }
            let clock_trusted = reports.clock.part.state.is_trusted();
            let around = Surroundings {
                array: reports.disks.part.array.state,
                clock_trusted,
                booted: reports.appliance.part.booted,
            };
            publish(&surroundings_sender, around);
            let now = clock_trusted.then(crate::clock_now).flatten();
            let mut new = snapshot::compose(&reports, now);
            begun |= new.health != Health::Starting;
            let old = status_sender.borrow().clone();
            let mut events = old.events.clone();
            events.note(&old, &new, now);
            new.events = events;
            status_sender.send_if_modified(|old| {
                let changed = **old != *new;
                if changed {
                    *old = Arc::from(new);
                }
                changed
            });
            notify::alive(&words(&status_sender.borrow()));
            tokio::time::sleep(SNAPSHOT_PERIOD).await;
            // A sender that is gone belongs to a duty that ended; the others go on.
            tokio::select! {
                Ok(()) = receivers.0.changed() => {}
                Ok(()) = receivers.1.changed() => {}
                Ok(()) = receivers.2.changed() => {}
                Ok(()) = receivers.3.changed() => {}
                Ok(()) = receivers.4.changed() => {}
                Ok(()) = receivers.5.changed() => {}
                Ok(()) = receivers.6.changed() => {}
                Ok(()) = receivers.7.changed() => {}
                Ok(()) = receivers.8.changed() => {}
                Ok(()) = receivers.9.changed() => {}
                // Nothing is new, but the loop turns: systemd wants to know.
                () = tokio::time::sleep(SIGN_OF_LIFE) => {}
            }
        }
    });

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The registry of clients was changed, as by a pairing.
            _ = hangup.recv() => take_up(),
        }
    }
    // The broker is told, so that Home Assistant does not wait for the will.
    let _ = stop_sender.send(true);
    if let Some(task) = mqtt_task {
        let _ = tokio::time::timeout(Duration::from_secs(3), task).await;
    }
    Ok(())
}

/// How things are, in a line for systemd.
fn words(status: &Status) -> String {
    let health = match status.health {
        Health::Starting => "Looking at everything for the first time",
        Health::Good => "All is well",
        Health::Warning => "Warning",
        Health::Alarm => "Alarm",
    };
    match status.conditions.standing.first().filter(|worst| worst.is_problem()) {
        // One line, whatever a text holds.
        Some(worst) => format!("{health}: {}", worst.text.replace(char::is_control, " ")),
        None => health.into(),
    }
}

fn without_target(config: &Config) -> BTreeSet<ClientName> {
    let clients = config.client.iter();
    let without = clients.filter(|client| config.targets_of(client).next().is_none());
    without.map(|client| client.name.get_ref().clone()).collect()
}

async fn stopped<E: std::fmt::Display>(duty: &str, ended: Result<(), E>, conditions: &watch::Sender<Vec<Condition>>) {
    let Err(error) = ended else {
        return std::future::pending().await;
    };
    eprintln!("the duty {duty} stopped: {error}");
    let of_this = |condition: &Condition| condition.subject.as_str() == duty;
    conditions.send_modify(|standing| {
        standing.retain(|condition| !of_this(condition));
        standing.push(Condition::new(
            ConditionId::DutyFailed,
            Severity::Warning,
            duty,
            &format!("The supervisor's duty `{duty}` stopped: {error}."),
            "It is started again by itself. If this stays, restart the appliance.",
        ));
    });
    tokio::time::sleep(DUTY_PAUSE).await;
    conditions.send_modify(|standing| standing.retain(|condition| !of_this(condition)));
}

/// Shows which of several machines this is: a bell and a line on its console.
fn identify() {
    let _ = std::fs::write(
        "/dev/console",
        "\x07\r\n*** This is the appliance that you asked to identify itself. ***\r\n",
    );
}
