//! What the methods of all objects work with: the snapshot, the way to the duties, to the roles and to systemd.

use super::Needs;
use super::inputs::Inputs;
use crate::configuration;
use crate::disks::array_job::ArrayReport;
use crate::enrol;
use crate::offsite::challenges::Challenges;
use crate::paths::Paths;
use crate::report::Command;
use crate::services::systemd::Systemd;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use strongroom_model::job::Job;
use strongroom_model::name::ClientName;
use strongroom_model::registry::{Answer, Request};
use strongroom_model::status::{ArrayState, Status};
use tokio::sync::{mpsc, watch};
use zbus::fdo;

/// How long clients that changed may take to show.
const TAKEN_UP: Duration = Duration::from_secs(5);

/// One for all objects.
pub struct Desk {
    /// Where everything lies.
    pub paths: Paths,
    /// The snapshot.
    pub status: watch::Receiver<Arc<Status>>,
    /// The jobs.
    pub jobs: watch::Receiver<Arc<Vec<Job>>>,
    /// The service manager.
    pub systemd: Systemd,
    /// What repairs read from.
    pub inputs: Inputs,
    /// Challenges that were given out.
    pub challenges: Challenges,
    /// The clients that are objects now, in the order of the snapshot.
    pub shown: watch::Sender<Vec<ClientName>>,
    commands: mpsc::Sender<Command>,
}

impl Desk {
    /// The desk for what the daemon gives.
    pub fn new(needs: Needs) -> Self {
        Self {
            paths: needs.paths,
            status: needs.status,
            jobs: needs.jobs,
            systemd: needs.systemd,
            inputs: Inputs::default(),
            challenges: Challenges::default(),
            shown: watch::Sender::default(),
            commands: needs.commands,
        }
    }

    /// Hands a command over.
    pub async fn send(&self, command: Command) -> fdo::Result<()> {
        self.commands
            .send(command)
            .await
            .map_err(|_| fdo::Error::Failed("the supervisor is stopping".into()))
    }

    /// Asks what keeps the registry; a refusal is an error.
    pub async fn ask(&self, request: Request) -> fdo::Result<Answer> {
        let paths = self.paths.clone();
        let asked = tokio::task::spawn_blocking(move || enrol::ask::ask(&paths, &request)).await;
        let answer = asked
            .map_err(|error| error.to_string())
            .and_then(|answer| answer.map_err(|error| error.to_string()))
            .map_err(fdo::Error::Failed)?;
        match answer {
            Answer::Refused(why) => Err(fdo::Error::Failed(why)),
            answer => Ok(answer),
        }
    }

    /// Waits a moment until the clients that are in force now are objects.
    pub async fn taken_up(&self) {
        let in_force = configuration::in_force(&self.paths);
        let mut shown = self.shown.subscribe();
        let settled = shown.wait_for(|shown| {
            let names = in_force.client.iter().map(|client| client.name.get_ref());
            shown.iter().eq(names)
        });
        let _ = tokio::time::timeout(TAKEN_UP, settled).await;
    }

    /// Refuses what needs the array, `to` do something, while it isn't mounted.
    pub fn mounted(&self, to: &str) -> fdo::Result<()> {
        if self.status.borrow().array.state == ArrayState::Mounted {
            return Ok(());
        }
        Err(fdo::Error::Failed(format!(
            "the array is not mounted, so there is nothing to {to}; `strongroom status` says why"
        )))
    }

    /// What the last look at the disks found.
    pub fn disks(&self) -> fdo::Result<ArrayReport> {
        let not_yet = || fdo::Error::Failed("the disks have not been looked at yet; try again in a minute".into());
        let bytes = std::fs::read(self.paths.array_report()).map_err(|_| not_yet())?;
        serde_json::from_slice(&bytes).map_err(|_| not_yet())
    }
}

/// As JSON, for a method's answer.
pub fn json<T: Serialize + ?Sized>(value: &T) -> fdo::Result<String> {
    serde_json::to_string(value).map_err(failed)
}

/// Something that could not be done, in its own words.
pub fn failed(error: impl std::fmt::Display) -> fdo::Error {
    fdo::Error::Failed(error.to_string())
}

/// The word of a value that is one of a few, as the snapshot's JSON has it.
pub fn word<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).ok();
    value
        .and_then(|value| value.as_str().map(str::to_string))
        .unwrap_or_default()
}

/// A number that may be unknown: -1 then.
pub fn known<T: TryInto<i64>>(number: Option<T>) -> i64 {
    number.map_or(-1, |number| number.try_into().unwrap_or(i64::MAX))
}
