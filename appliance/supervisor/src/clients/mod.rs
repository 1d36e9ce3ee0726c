//! The clients duty: reads what each client's repository shows: names and sizes, and the ends of the last segments. It never
//! writes to a repository and takes no lock.

use crate::configuration::InForce;
use crate::enrol::pairing;
use crate::jobs::{Heard, LOOK};
use crate::paths::{ARRAY_MOUNT, Paths, REPOSITORY_ENDING};
use crate::report::{Report, publish};
use crate::watch;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use strongroom_borg::{Facts, Repository, SegmentFile};
use strongroom_model::clients::{Observation, decide, paused, unclaimed};
use strongroom_model::config::{self, Config};
use strongroom_model::status::{ArrayState, Behind, Client, RepositoryState, TARGETS_MAX, Target};
use strongroom_offsite::ledger;
use tokio::sync::watch as channel;

/// Between something that was heard and the look.
const PAUSE: Duration = Duration::from_millis(500);

/// What the duty needs to know of the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// How far the array is.
    pub array: ArrayState,
    /// The time, when the clock is trusted.
    pub clock_trusted: bool,
    /// When the appliance booted, Unix seconds.
    pub booted: Option<u64>,
}

/// Runs the duty for ever.
pub async fn run(
    paths: Paths,
    mut in_force: channel::Receiver<Arc<InForce>>,
    mut surroundings: channel::Receiver<Surroundings>,
    mut heard: Heard,
    report: channel::Sender<Report<Vec<Client>>>,
) {
    loop {
        let around = surroundings.borrow_and_update().clone();
        let (paths, in_force_now) = (paths.clone(), in_force.borrow_and_update().clone());
        // Reading a sick disk may hang; only this observation hangs with it.
        if let Ok(new) = tokio::task::spawn_blocking(move || observe(&paths, &in_force_now, &around)).await {
            publish(&report, new);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            changed = surroundings.changed() => if changed.is_err() { return },
            changed = in_force.changed() => if changed.is_err() { return },
            // More may end at the same time.
            Ok(()) = heard.changed() => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn observe(paths: &Paths, in_force: &InForce, around: &Surroundings) -> Report<Vec<Client>> {
    let config = &in_force.config;
    let mut report = Report::<Vec<Client>>::default();
    report.conditions.extend(in_force.conditions.iter().cloned());
    report.conditions.extend(pairing::conditions(paths));
    let now = around.clock_trusted.then(crate::clock_now).flatten();
    for client in &config.client {
        let name = client.name.get_ref();
        let mut status = Client {
            name: name.clone(),
            quota_bytes: client.quota.as_ref().map(|quota| quota.get_ref().bytes()),
            ..Client::default()
        };
        let mut error = None;
        if around.array == ArrayState::Mounted {
            match look(&paths.repository(name)) {
                Ok(Some((facts, segments))) => {
                    status.targets = copies(paths, config, client, &facts, &segments);
                    status.repository = RepositoryState::Present;
                    status.size_bytes = facts.bytes;
                    status.transaction = facts.last_commit.map(|commit| u64::from(commit.transaction.0));
                    status.last_backup = facts.last_commit.and_then(|commit| crate::unix_seconds(commit.at));
                    // A client whose backups fail, but that goes on pruning, is silent.
                    status.last_backup = watch::last_backup(paths, name, status.transaction, status.last_backup);
                }
                Ok(None) => status.repository = RepositoryState::Empty,
                Err(why) => {
                    status.repository = RepositoryState::Unreadable;
                    error = Some(why);
                }
            }
        }
        let observation = Observation {
            repository: status.repository,
            error,
            last_backup: status.last_backup,
        };
        report
            .conditions
            .extend(decide(name, client.expect_hours, &observation, now, around.booted));
        report.conditions.extend(client.paused.then(|| paused(name)));
        report.part.push(status);
    }
    if around.array == ArrayState::Mounted {
        let mut found = repositories(&paths.at(ARRAY_MOUNT));
        found.retain(|name| config.client(name).is_none());
        report.conditions.extend(unclaimed(&found));
    }
    report
}

/// What each copy of a client lacks; the rest of what is known of copies is the offsite duty's.
fn copies(
    paths: &Paths,
    config: &Config,
    client: &config::Client,
    facts: &Facts,
    segments: &[SegmentFile],
) -> heapless::Vec<Target, TARGETS_MAX> {
    let targets = config.targets_of(client).take(TARGETS_MAX).map(|target| {
        let name = target.name.get_ref().clone();
        // A ledger that can't be read tells nothing; the push says why.
        let summary = ledger::read_summary(&paths.ledger(client.name.get_ref(), &name));
        let behind = summary.ok().zip(facts.last_commit).map(|(summary, last)| {
            let held = summary.map(|summary| summary.transaction);
            let (transactions, bytes) = strongroom_borg::lacking(segments, held, last.transaction);
            Behind { transactions, bytes }
        });
        Target {
            name,
            behind,
            ..Target::default()
        }
    });
    targets.collect()
}

/// Names of all repositories on the array, without the ending that repositories have.
fn repositories(array: &Path) -> Vec<String> {
    let entries = fs::read_dir(array).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(REPOSITORY_ENDING)?.to_string()))
        .collect();
    names.sort();
    names
}

/// Facts of a repository, and its segments; `None` while the folder is empty or absent.
fn look(path: &Path) -> Result<Option<(Facts, Vec<SegmentFile>)>, String> {
    match fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(None);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    }
    let read = Repository::open(path).and_then(|repository| {
        let segments = repository.segments()?;
        Ok((repository.facts_of(&segments)?, segments))
    });
    read.map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_known_by_their_ending() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["old_repository", "asus_home_repository", "lost+found"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("note_repository"), "").unwrap();
        assert_eq!(repositories(folder.path()), ["asus_home", "old"]);
        assert!(repositories(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn empty_absent_and_foreign_folders() {
        let folder = tempfile::tempdir().unwrap();
        assert!(look(folder.path()).unwrap().is_none());
        assert!(look(&folder.path().join("none")).unwrap().is_none());
        fs::write(folder.path().join("letter.txt"), "hello").unwrap();
        assert!(look(folder.path()).unwrap_err().contains("not a Borg repository"));
    }
}
