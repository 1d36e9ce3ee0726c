//! What a person sees before confirming a compaction or a rollback, and what stands against a repair: from the snapshot and
//! from what is remembered. No repository is read here.

use super::begin::UpkeepError;
use super::hold::{self, Hold};
use super::repair_job;
use crate::paths::Paths;
use crate::sessions::history;
use crate::watch::ledger::{Ledger, SEGMENTS_MAX};
use crate::watch::store;
use std::fs;
use std::io;
use std::path::Path;
use strongroom_model::condition::Condition;
use strongroom_model::config::Config;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::session;
use strongroom_model::status::{ArrayState, Job, JobKind, Status};
use strongroom_model::upkeep::compaction::{self, Reading, Situation};
use strongroom_model::upkeep::policy::{self, Next};
use strongroom_model::upkeep::rollback::{Kept, KeptRange};
use strongroom_model::upkeep::{Obstacle, Surroundings, Upkeep, Work, repair, rollback};
use strongroom_model::verification::Verification;
use strongroom_model::watch::{Floor, Record, TransactionNote};

/// All that is known of one client's repository here.
pub struct Look {
    /// For the face.
    pub upkeep: Upkeep,
    /// What the client's policy says comes next, and what a person should know of that; none without one.
    pub next: Option<(Next, Option<Condition>)>,
    compaction: Vec<Obstacle>,
    record: Record,
    sessions: Vec<String>,
    busy: Option<&'static str>,
    standing: Option<Work>,
    /// An earlier job can't be read.
    unknown: bool,
    mounted: bool,
}

/// Looks. `sessions` are the client's that are running.
pub fn look(
    paths: &Paths,
    config: &Config,
    name: &ClientName,
    status: &Status,
    sessions: Vec<String>,
) -> io::Result<Look> {
    let folder = paths.watch(name);
    let record = match store::read_record(&folder) {
        store::Read::Known(record) => *record,
        store::Read::New | store::Read::Unreadable => Record::default(),
    };
    let verification = store::read_verification(&folder);
    let (standing, unknown) = match hold::of(paths, name) {
        Hold::Standing(journal) => (Some(journal), false),
        Hold::Open => (None, false),
        Hold::Unreadable => (None, true),
    };
    let client = status.clients.iter().find(|client| client.name == *name);
    let transaction = client
        .and_then(|client| client.transaction)
        .and_then(|number| u32::try_from(number).ok());
    // What the last look saw may be newer than what the snapshot shows.
    let transaction = transaction.max(record.seen.transaction.filter(|_| transaction.is_some()));
    let on_disk = |name: &TargetName| {
        let mut targets = config.offsite.target.iter();
        targets.any(|target| target.name.get_ref() == name && target.disk().is_some())
    };
    let targets = || client.into_iter().flat_map(|client| &client.targets);
    // A disk in another house holds nothing up, where there is a bucket as well.
    let has_bucket = targets().any(|target| !on_disk(&target.name));
    let copies: Vec<(String, Option<u64>)> = targets()
        .filter(|target| !has_bucket || !on_disk(&target.name))
        .map(|target| (target.name.to_string(), target.transaction))
        .collect();
    let busy = status.jobs.iter().find_map(|job| busy(job, name));
    let mounted = status.array.state == ArrayState::Mounted;
    let trusted = status.clock.state.is_trusted();
    let around = Surroundings {
        mounted,
        sessions: &sessions,
        busy,
        standing: standing.as_ref().map(|journal| journal.work),
        transaction,
        record: &record,
    };
    let mut against_rollback = rollback::obstacles(&around);
    let now = crate::clock_now().filter(|_| trusted);
    let situation = Situation {
        around,
        now,
        verification: &verification,
        reading: reading(&Ledger::read(&folder, &record.repository)?, &verification),
        check_days: *config.schedule.check_days.get_ref(),
        copies: &copies,
    };
    let mut compaction = compaction::obstacles(name, &situation);
    if unknown {
        against_rollback.insert(0, Obstacle::Unknown);
        compaction.insert(0, Obstacle::Unknown);
    }
    let last = hold::outcome(paths, name);
    let bytes = client.map_or(0, |client| client.size_bytes);
    let next = config.client(name.as_str()).and_then(|client| {
        let days = client.compact_after_days.as_ref()?;
        let mut obstacles = compaction.clone();
        if client.paused {
            obstacles.push(Obstacle::Paused(name.clone()));
        }
        let situation = policy::Situation {
            days: *days.get_ref(),
            now,
            bytes,
            record: &record,
            last: last.as_ref(),
            obstacles: &obstacles,
        };
        let next = policy::next(&situation);
        let told = next.condition(name, &situation);
        Some((next, told))
    });
    let words = |all: &[Obstacle]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let upkeep = Upkeep {
        transaction,
        repository: record.repository.clone(),
        bytes,
        compacted: record.compacted,
        transactions: transactions(paths, name),
        floor: match record.floor {
            Floor::Unknown => None,
            Floor::None => Some(0),
            Floor::At(floor) => Some(floor),
        },
        freeable: record.freeable,
        against_compaction: words(
            &compaction
                .iter()
                .filter(|obstacle| **obstacle != Obstacle::NoCopy)
                .cloned()
                .collect::<Vec<_>>(),
        ),
        no_copy: copies.is_empty(),
        against_rollback: words(&against_rollback),
        standing: standing.clone(),
        last,
        kept: kept(paths, name),
        automatic: next.as_ref().map(|(next, _)| next.words()),
    };
    Ok(Look {
        upkeep,
        next,
        compaction,
        record,
        sessions,
        busy,
        standing: standing.map(|journal| journal.work),
        unknown,
        mounted,
    })
}

/// What rollbacks kept, the newest first. No link in it is followed.
pub fn kept(paths: &Paths, name: &ClientName) -> Vec<Kept> {
    let folders = fs::read_dir(paths.rolled_back(name)).into_iter().flatten().flatten();
    let mut all: Vec<Kept> = folders
        .filter_map(|entry| {
            let range = KeptRange::new(entry.file_name().to_str()?)?;
            let found = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
            Some(Kept {
                range,
                bytes: size(&entry.path(), 0),
                at: found.modified().ok().and_then(crate::unix_seconds),
            })
        })
        .collect();
    all.sort_by_key(|kept| std::cmp::Reverse(kept.range.highest));
    all
}

/// Size of the files beneath a folder of a repository's depth.
fn size(folder: &Path, depth: u8) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| match found.is_dir() {
            true if depth < 3 => size(&path, depth + 1),
            true => 0,
            false => found.len(),
        })
        .sum()
}

/// The transactions that are remembered, with the sessions that they belong to.
fn transactions(paths: &Paths, name: &ClientName) -> Vec<TransactionNote> {
    let past = history::read(paths, name);
    let mut notes = store::read_transactions(&paths.watch(name));
    for note in &mut notes {
        note.sessions = note.at.map(|at| session::at(&past, at)).unwrap_or_default();
    }
    notes
}

impl Look {
    /// Whether the compaction that was confirmed may be done: of the state `transaction`, and, if it was said, without a
    /// copy elsewhere. `Err`: all that stands against it.
    pub fn may_compact(&self, transaction: u32, without_copy: bool) -> Result<Work, String> {
        let mut all: Vec<String> = self
            .compaction
            .iter()
            .filter(|obstacle| !(without_copy && **obstacle == Obstacle::NoCopy))
            .map(ToString::to_string)
            .collect();
        all.extend(self.changed(transaction).map(|obstacle| obstacle.to_string()));
        match all.is_empty() {
            true => Ok(Work::Compact { transaction }),
            false => Err(all.join("\n")),
        }
    }

    /// Whether the rollback that was confirmed may be done.
    pub fn may_go_back(&self, name: &ClientName, transaction: u32, to: u32) -> Result<Work, String> {
        if let Some(first) = self.upkeep.against_rollback.first() {
            return Err(first.clone());
        }
        if let Some(changed) = self.changed(transaction) {
            return Err(changed.to_string());
        }
        rollback::may_go_back(name, &self.around(), &self.upkeep.transactions, to)
            .map(|()| Work::RollBack { transaction, to })
            .map_err(|obstacle| obstacle.to_string())
    }

    /// Whether a segment could be repaired now, as far as that can be told without reading it. `Err`: all that stands
    /// against it.
    pub fn may_repair(
        &self,
        paths: &Paths,
        config: &Config,
        name: &ClientName,
        segment: u32,
    ) -> Result<Work, UpkeepError> {
        if self.unknown {
            return Err(Obstacle::Unknown.into());
        }
        let against = repair::obstacles(&self.around());
        if !against.is_empty() {
            let words: Vec<String> = against.iter().map(ToString::to_string).collect();
            return Err(UpkeepError::Failed(words.join("\n")));
        }
        // Where nothing is remembered, the job itself looks whose ledgers they are.
        if !self.record.repository.is_empty() {
            repair_job::wanted(paths, config, name, &self.record.repository, segment)?;
        }
        Ok(Work::Repair { segment })
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings {
            mounted: self.mounted,
            sessions: &self.sessions,
            busy: self.busy,
            standing: self.standing,
            transaction: self.upkeep.transaction,
            record: &self.record,
        }
    }

    fn changed(&self, seen: u32) -> Option<Obstacle> {
        let now = self.upkeep.transaction?;
        (now != seen).then_some(Obstacle::Changed { seen, now })
    }
}

/// A job that reads or changes the repository.
fn busy(job: &Job, name: &ClientName) -> Option<&'static str> {
    let of_this = job.client.as_ref() == Some(name);
    match job.kind {
        JobKind::Push if of_this => Some("push"),
        JobKind::Check if of_this => Some("check"),
        // One that receives; the client is not held out yet.
        JobKind::Repair if of_this => Some("repair"),
        _ => None,
    }
}

/// What was read of the committed segments, and when. Beyond those that are remembered one by one, the last check that came
/// to its end speaks for the rest.
fn reading(ledger: &Ledger, verification: &Verification) -> Reading {
    let unread = ledger.segments.values().filter(|known| known.verified == 0).count();
    let oldest = ledger.segments.values().map(|known| known.verified).min();
    let full = ledger.segments.len() >= SEGMENTS_MAX;
    Reading {
        unread,
        oldest: if full { oldest.min(verification.oldest) } else { oldest }.filter(|oldest| *oldest > 0),
    }
}
