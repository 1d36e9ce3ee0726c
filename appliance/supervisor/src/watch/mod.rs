//! The watch: what each client did to its repository, and whether every byte of it still is as it was.
//!
//! The duty starts the roles and reads what they leave; the reading of repositories itself is in [`watch_job`] and
//! [`verify_job`], in units of their own, so that the daemon stays small and no hostile repository is parsed in it. It
//! starts a look when a client's last transaction or its `config` is another than was looked at last, and the schedule of
//! the checks once the array is mounted.

pub mod ledger;
pub mod store;
pub mod verify_job;
pub mod versions;
pub mod watch_job;

use crate::jobs::{Heard, LOOK, SETTLE};
use crate::paths::Paths;
use crate::report::{Report, publish};
use crate::services::systemd::{Systemd, SystemdError, UnitState};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use strongroom_model::condition::Condition;
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::status::{Change, Client, Job, JobKind};
use strongroom_model::verification::{self, Compared, Verification};
use strongroom_model::watch::{self, Archives, Record, Seen};
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;

const CHECK_TIMER: &str = "strongroom-verify.timer";
const POLL_RUNNING: Duration = Duration::from_secs(2);
/// The units that it starts.
const UNITS: [&str; 2] = ["strongroom-watch@*.service", "strongroom-verify@*.service"];
/// Looks that run at once.
const LOOKS_MAX: usize = 2;
/// The same look is not asked for again within this time.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// A look that failed, or that found nothing new for a day, is repeated after this many seconds.
const AFTER_FAILURE: u64 = 3600;
const AFTER_SILENCE: u64 = 24 * 3600;

/// What a person may ask of the duty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read all of a client's repository now, or of every one.
    Check(Option<ClientName>),
    /// The owner knows of all that stands about a client.
    Accept(ClientName),
}

/// What may give the duty something to do.
#[derive(Clone)]
pub struct News {
    /// What the repositories show: transactions.
    pub clients: channel::Receiver<Report<Vec<Client>>>,
    /// The array and the clock.
    pub around: channel::Receiver<crate::clients::Surroundings>,
    /// What came to its end.
    pub heard: Heard,
}

impl News {
    /// Waits for any.
    async fn come(&mut self) {
        tokio::select! {
            Ok(()) = self.clients.changed() => {}
            Ok(()) = self.around.changed() => {}
            Ok(()) = self.heard.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// What is known of one client's repository, for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    archives: Option<u32>,
    last_archive: Option<u64>,
    last_change: Option<Change>,
    quota_used: Option<u64>,
    held: bool,
    checked: Option<u64>,
    compared: Compared,
    damaged: u32,
}

impl Watched {
    fn new(record: &Record, verification: &Verification) -> Self {
        Self {
            archives: match record.archives {
                Archives::Listed { count, .. } => Some(count),
                _ => None,
            },
            last_archive: record.newest_archive(),
            last_change: record.looks.last().map(|look| Change {
                transaction: look.until.into(),
                puts: look.puts,
                deletes: look.deletes,
                bytes: look.bytes,
            }),
            quota_used: record.quota_used,
            held: record.hold.is_some(),
            checked: verification.oldest,
            compared: verification.compared(),
            damaged: u32::try_from(verification.unaccepted()).unwrap_or(u32::MAX),
        }
    }

    /// Enters it into a client's part of the status.
    pub fn enter(&self, client: &mut Client) {
        client.archives = self.archives;
        client.last_archive = self.last_archive;
        client.last_change = self.last_change;
        client.quota_used_bytes = self.quota_used;
        client.held = self.held;
        client.checked = self.checked;
        client.compared = self.compared;
        client.damaged = self.damaged;
    }
}

/// The duty's part of the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    /// By client.
    pub clients: BTreeMap<ClientName, Watched>,
    /// Checks that are running.
    pub jobs: Vec<Job>,
}

/// What is kept of one client between two rounds.
#[derive(Default)]
struct Kept {
    /// The files' times, so that they are read only when they changed.
    stamps: [Option<SystemTime>; 2],
    watched: Watched,
    /// What a look is compared with.
    seen: Seen,
    looked: u64,
    failed: bool,
    verification: Verification,
    /// Of the record only; those of the verification depend on the time.
    conditions: Vec<Condition>,
    asked: Option<(Seen, Instant)>,
}

/// Runs the duty for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(
    paths: Paths,
    config: Arc<Config>,
    systemd: Systemd,
    requests: &mut mpsc::Receiver<Request>,
    mut news: News,
    report: channel::Sender<Report<Watch>>,
) -> Result<(), SystemdError> {
    let names: Vec<ClientName> = config
        .client
        .iter()
        .map(|client| client.name.get_ref().clone())
        .collect();
    let mut kept: BTreeMap<ClientName, Kept> = names.iter().map(|name| (name.clone(), Kept::default())).collect();
    // Once the array is mounted: the schedule begins, and a check that was cut short is taken up again.
    let mut begin = true;
    loop {
        let states = systemd.in_mind(&UNITS).await?;
        let is_running = |unit: &str| states.get(unit).is_some_and(UnitState::is_running);
        let (mounted, trusted) = {
            let around = news.around.borrow_and_update();
            (
                around.array == strongroom_model::status::ArrayState::Mounted,
                around.clock_trusted,
            )
        };
        for (name, one) in &mut kept {
            one.refresh(&paths.watch(name), name);
        }
        let now = crate::clock_now();
        let instances = [verify_job::DUE, verify_job::ALL];
        let instances = instances.into_iter().chain(names.iter().map(ClientName::as_str));
        let checks: Vec<&str> = instances.filter(|instance| is_running(&check_unit(instance))).collect();
        publish(
            &report,
            compose(&paths, &config, &kept, &checks, now.filter(|_| trusted)),
        );
        let mut looks = names.iter().filter(|name| is_running(&look_unit(name))).count();
        let running = looks > 0 || !checks.is_empty();
        if mounted {
            if std::mem::take(&mut begin) {
                systemd.restart_anew(CHECK_TIMER).await?;
                let unfinished = kept.values().any(|one| one.verification.is_unfinished());
                if unfinished && checks.is_empty() {
                    systemd.start(&check_unit(verify_job::DUE)).await?;
                }
            }
            let present = news.clients.borrow_and_update().part.clone();
            for name in &names {
                let transaction = present
                    .iter()
                    .find(|client| client.name == *name)
                    .and_then(|client| client.transaction);
                let seen = Seen {
                    transaction: transaction.and_then(|number| u32::try_from(number).ok()),
                    config: stamp(&paths.repository(name)),
                };
                let Some(one) = kept.get_mut(name) else { continue };
                let unit = look_unit(name);
                if looks < LOOKS_MAX && !is_running(&unit) && one.wants(&seen, now.unwrap_or_default()) {
                    looks += 1;
                    one.asked = Some((seen, Instant::now()));
                    systemd.start(&unit).await?;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(if running { POLL_RUNNING } else { LOOK }) => {}
            () = news.come() => {}
            request = requests.recv() => {
                match request {
                    Some(Request::Check(None)) => systemd.start(&check_unit(verify_job::ALL)).await?,
                    Some(Request::Check(Some(name))) => systemd.start(&check_unit(name.as_str())).await?,
                    Some(Request::Accept(name)) => systemd.start(&format!("strongroom-accept@{name}.service")).await?,
                    None => return Ok(()),
                }
            }
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn look_unit(name: &ClientName) -> String {
    format!("strongroom-watch@{name}.service")
}

fn check_unit(instance: &str) -> String {
    format!("strongroom-verify@{instance}.service")
}

impl Kept {
    /// Reads the client's files again where they changed.
    fn refresh(&mut self, folder: &Path, name: &ClientName) {
        let stamps = ["record.json", "verification.json"]
            .map(|file| fs::metadata(folder.join(file)).and_then(|found| found.modified()).ok());
        if stamps == self.stamps && stamps[0].is_some() {
            return;
        }
        self.stamps = stamps;
        let record = match store::read_record(folder) {
            store::Read::Known(record) => *record,
            // The next look says so.
            store::Read::New | store::Read::Unreadable => Record::default(),
        };
        self.verification = store::read_verification(folder).summary();
        self.watched = Watched::new(&record, &self.verification);
        self.conditions = watch::decide(name, &record);
        self.seen = record.seen;
        self.looked = record.looked;
        self.failed = !record.failed.is_empty();
    }

    /// Whether a look is worth while.
    fn wants(&self, seen: &Seen, now: u64) -> bool {
        if let Some((asked, at)) = &self.asked
            && asked == seen
            && at.elapsed() < ASK_AGAIN
        {
            return false;
        }
        // A folder in which nothing was ever stored.
        if seen.config.is_empty() && self.seen.config.is_empty() {
            return false;
        }
        let pause = if self.failed { AFTER_FAILURE } else { AFTER_SILENCE };
        self.seen != *seen || now.saturating_sub(self.looked) > pause
    }
}

fn compose(
    paths: &Paths,
    config: &Config,
    kept: &BTreeMap<ClientName, Kept>,
    checks: &[&str],
    now: Option<u64>,
) -> Report<Watch> {
    let mut report = Report::<Watch>::default();
    let days = *config.schedule.check_days.get_ref();
    for client in &config.client {
        let name = client.name.get_ref();
        let Some(one) = kept.get(name) else { continue };
        report.conditions.extend(one.conditions.iter().cloned());
        report
            .conditions
            .extend(verification::decide(name, &one.verification, days, now));
        report.part.clients.insert(name.clone(), one.watched.clone());
    }
    for instance in checks {
        let progress = verify_job::progress(paths, instance);
        report.part.jobs.push(Job {
            kind: JobKind::Check,
            client: progress.client.or_else(|| ClientName::new(instance).ok()),
            target: None,
            on_disk: false,
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
        });
    }
    report
}

/// Changes with each change of the repository's `config`; empty while there is none.
pub fn stamp(repository: &Path) -> String {
    match fs::symlink_metadata(repository.join("config")) {
        Ok(found) => format!(
            "{}.{:09} {} {}",
            found.mtime(),
            found.mtime_nsec(),
            found.size(),
            found.ino()
        ),
        Err(_) => String::new(),
    }
}

/// Whether nothing is in a repository's folder, or it isn't there.
pub fn is_empty(repository: &Path) -> bool {
    match fs::read_dir(repository) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// When a backup of a client was last committed: of its last transaction, unless that is known to have stored nothing.
pub fn last_backup(paths: &Paths, name: &ClientName, transaction: Option<u64>, committed: Option<u64>) -> Option<u64> {
    match store::read_record(&paths.watch(name)) {
        store::Read::Known(record) if record.audited.map(u64::from) == transaction => record.last_backup.or(committed),
        _ => committed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(transaction: u32, config: &str) -> Seen {
        Seen {
            transaction: Some(transaction),
            config: config.into(),
        }
    }

    #[test]
    fn a_look_comes_with_what_is_new_and_not_twice() {
        let mut kept = Kept {
            seen: seen(5, "a"),
            looked: 1_000_000,
            ..Kept::default()
        };
        assert!(!kept.wants(&seen(5, "a"), 1_000_000));
        assert!(kept.wants(&seen(9, "a"), 1_000_000), "a transaction");
        assert!(kept.wants(&seen(5, "b"), 1_000_000), "the settings");
        assert!(kept.wants(&seen(5, "a"), 1_000_000 + AFTER_SILENCE + 1), "each day");
        kept.failed = true;
        assert!(kept.wants(&seen(5, "a"), 1_000_000 + AFTER_FAILURE + 1));
        kept.asked = Some((seen(9, "a"), Instant::now()));
        assert!(!kept.wants(&seen(9, "a"), 1_000_000));
        assert!(kept.wants(&seen(10, "a"), 1_000_000));
        assert!(
            !Kept::default().wants(&Seen::default(), 1_000_000),
            "nothing was ever stored"
        );
    }

    #[test]
    fn what_was_found_is_read_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let name = ClientName::new("asus").unwrap();
        let mut kept = Kept::default();
        kept.refresh(folder.path(), &name);
        assert_eq!(kept.watched, Watched::default());
        let mut record = Record {
            seen: seen(5, "a"),
            archives: Archives::Listed {
                count: 3,
                newest: Some(7),
            },
            ..Record::default()
        };
        record.find(watch::Finding::ManifestLost, 1, None, None);
        store::write_record(folder.path(), &record).unwrap();
        kept.refresh(folder.path(), &name);
        assert_eq!((kept.watched.archives, kept.watched.last_archive), (Some(3), Some(7)));
        assert!(kept.watched.held && kept.conditions.len() == 1);
        let mut client = Client::default();
        kept.watched.enter(&mut client);
        assert!(client.held && client.archives == Some(3));
    }

    #[test]
    fn a_prune_is_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let name = ClientName::new("asus").unwrap();
        assert_eq!(last_backup(&paths, &name, Some(9), Some(900)), Some(900));
        let record = Record {
            audited: Some(9),
            last_backup: Some(500),
            ..Record::default()
        };
        store::write_record(&paths.watch(&name), &record).unwrap();
        assert_eq!(last_backup(&paths, &name, Some(9), Some(900)), Some(500));
        assert_eq!(
            last_backup(&paths, &name, Some(13), Some(1300)),
            Some(1300),
            "not looked at yet"
        );
    }
}
