//! How the jobs begin: everybody else is kept off, what was confirmed is compared with what is there, and the journal is
//! written. A job that finds its own journal goes on with it.

use super::hold::{self, Guard, Hold, HoldError};
use super::{repair_job, told};
use crate::paths::Paths;
use crate::watch::ledger::{Differences, Ledger};
use crate::watch::{store, versions};
use std::io;
use strongroom_borg::{Repository, SegmentNumber};
use strongroom_model::config::Config;
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::{Journal, Obstacle, Outcome, Surroundings, Work, rollback};
use strongroom_model::watch::may_compact;

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The unit was started wrongly.
    #[error("it was started wrongly; use `strongroom compact`, `strongroom rollback` or `strongroom repair`")]
    Usage,
    /// It was not begun.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The repository can't be read.
    #[error(transparent)]
    Borg(#[from] strongroom_borg::Error),
    /// What is remembered could not be told.
    #[error(transparent)]
    Told(#[from] told::ToldError),
    /// Files could not be moved.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// There is no number for a further segment.
    #[error("the repository has used up the numbers of its segments; begin a new one")]
    NoNumber,
    /// The folder belongs to no account of a client.
    #[error("the repository does not belong to its client's account yet; try again in a minute")]
    NoAccount,
    /// systemd refuses.
    #[error(transparent)]
    Systemd(#[from] crate::services::systemd::SystemdError),
    /// The bus can't be reached.
    #[error("the system bus does not answer or refuses: {0}")]
    Bus(#[from] zbus::Error),
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
}

impl From<Obstacle> for UpkeepError {
    fn from(obstacle: Obstacle) -> Self {
        Self::Hold(obstacle.into())
    }
}

/// A job that may work: nobody else does.
#[derive(Debug)]
pub struct Begun {
    /// What is known of it.
    pub journal: Journal,
    /// Whether it was cut short before.
    pub resumed: bool,
    _guard: Guard,
}

/// Begins, or goes on. `running` are the client's sessions as systemd tells them.
///
/// Errors: something stands against it; then nothing is changed, and nobody held out.
pub fn begin(
    paths: &Paths,
    config: &Config,
    name: &ClientName,
    work: Work,
    running: &[String],
) -> Result<Begun, UpkeepError> {
    let standing = match hold::of(paths, name) {
        Hold::Open => None,
        Hold::Standing(journal) if journal.work == work => Some(journal),
        Hold::Standing(journal) => return Err(Obstacle::UnderWay(journal.work).into()),
        Hold::Unreadable => return Err(Obstacle::Unknown.into()),
    };
    let guard = hold::close(paths, config, name, running)?;
    let resumed = standing.is_some();
    let journal = match standing {
        Some(journal) => journal,
        None => {
            let journal = compare(paths, config, name, work)?;
            hold::write(paths, name, &journal)?;
            journal
        }
    };
    Ok(Begun {
        journal,
        resumed,
        _guard: guard,
    })
}

/// Compares what was confirmed with what is there.
fn compare(paths: &Paths, config: &Config, name: &ClientName, work: Work) -> Result<Journal, UpkeepError> {
    let (seen, to) = match work {
        Work::Compact { transaction } => (transaction, None),
        Work::RollBack { transaction, to } => (transaction, Some(to)),
        Work::Repair { segment } => {
            let repository = Repository::open(paths.repository(name))?;
            return Ok(Journal {
                work,
                since: crate::clock_now().unwrap_or_default(),
                repository: repository.config().id.to_string(),
                bytes: told::now(&repository)?.bytes,
                highest: segment,
                objects: None,
                content: Some(repair_job::need(paths, config, name, segment)?),
            });
        }
    };
    let folder = paths.watch(name);
    let store::Read::Known(record) = store::read_record(&folder) else {
        return Err(Obstacle::Behind.into());
    };
    let repository = Repository::open(paths.repository(name))?;
    let id = repository.config().id.to_string();
    let now = told::now(&repository)?;
    let last = now.transaction.ok_or(Obstacle::NoBackup)?;
    if last != seen {
        return Err(Obstacle::Changed { seen, now: last }.into());
    }
    if record.repository != id || record.audited != Some(last) {
        return Err(Obstacle::Behind.into());
    }
    let ledger = Ledger::read(&folder, &id)?;
    let present = repository.state(SegmentNumber(last))?;
    let differences = ledger.differences(&present);
    if differences != Differences::default() || versions::sum(repository.config_bytes()) != record.config {
        return Err(Obstacle::Altered(name.clone()).into());
    }
    match to {
        None => {
            let verification = store::read_verification(&folder);
            if let Err(why) = may_compact(&record, &verification, Some(last)) {
                let (name, why) = (name.clone(), why.to_string());
                return Err(Obstacle::Held { name, why }.into());
            }
        }
        Some(to) => {
            let around = Surroundings {
                mounted: true,
                sessions: &[],
                busy: None,
                standing: None,
                transaction: Some(last),
                record: &record,
            };
            rollback::may_go_back(name, &around, &store::read_transactions(&folder), to)?;
            if !repository.is_commit(SegmentNumber(to))? {
                return Err(Obstacle::NoTransaction(to, name.clone()).into());
            }
        }
    }
    let present = repository.segments()?.into_iter().map(|segment| segment.number.0);
    let pushed = config
        .client(name.as_str())
        .into_iter()
        .flat_map(|client| config.targets_of(client))
        .filter_map(|target| {
            strongroom_offsite::ledger::read_summary(&paths.ledger(name, target.name.get_ref())).ok()?
        })
        .map(|summary| summary.transaction.0);
    let remembered = ledger.segments.keys().next_back().copied();
    Ok(Journal {
        work,
        since: crate::clock_now().unwrap_or_default(),
        repository: id,
        bytes: now.bytes,
        highest: present.chain(pushed).chain(remembered).max().unwrap_or(last),
        objects: now.objects,
        content: None,
    })
}

impl From<io::Error> for UpkeepError {
    fn from(error: io::Error) -> Self {
        Self::Io("a file of the job's".into(), error)
    }
}

/// Tells whoever waits that nothing was begun. While a journal stands, that is an error: it has to be brought to its end.
pub fn refused(paths: &Paths, name: &ClientName, work: Work, error: UpkeepError) -> Result<(), UpkeepError> {
    let outcome = Outcome {
        work,
        ended: crate::clock_now().unwrap_or_default(),
        error: error.to_string(),
        before: 0,
        after: 0,
        transaction: None,
        repository: String::new(),
    };
    hold::note(paths, name, &outcome)?;
    if hold::of(paths, name) != Hold::Open {
        return Err(error);
    }
    say(name, &outcome);
    Ok(())
}

/// What the log is told. It is no failure of the unit: whoever asked is told, and nothing waits for an end.
pub fn say(name: &ClientName, outcome: &Outcome) {
    let what = outcome.work.participle();
    match outcome.error.as_str() {
        "" => eprintln!(
            "The repository of {name} was {what}: {} bytes before, {} after.",
            outcome.before, outcome.after
        ),
        why => eprintln!("The repository of {name} was not {what}: {why}"),
    }
}
