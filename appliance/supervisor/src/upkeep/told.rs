//! Telling what is remembered of a repository that the appliance itself changed it: what is gone was meant to go.
//! Whoever calls holds the folder's lock. Each can be done again.
//!
//! The off-site copies need not be told: a push sends the segments that are there and not known, under numbers that no
//! segment ever had, and publishes what belongs to the new state. Objects of segments that are gone stay as they are, with
//! the earlier states that they belong to. One that is there with another content stays an alarm.

use crate::paths::Paths;
use crate::watch::ledger::{Differences, Known, Ledger, SEGMENTS_MAX};
use crate::watch::{store, watch_job};
use std::io;
use strongroom_borg::{Archives, Index, Repository, SegmentFile, SegmentNumber};
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::compaction::THRESHOLD_PERCENT;
use strongroom_model::upkeep::{Journal, Outcome};
use strongroom_model::watch::{self, Compacted, Floor, Record, TransactionNote};

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ToldError {
    /// The repository can't be read.
    #[error(transparent)]
    Borg(#[from] strongroom_borg::Error),
    /// It could not be written down.
    #[error("what is remembered could not be written down ({0})")]
    Write(#[from] io::Error),
    /// What was remembered is lost.
    #[error("what was remembered of the repository is lost")]
    Lost,
}

/// What is there after the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The last transaction.
    pub transaction: Option<u32>,
    /// Size of the segments in bytes.
    pub bytes: u64,
    /// Objects, where there is an index that tells.
    pub objects: Option<u64>,
}

impl Now {
    /// How a job ended that leaves this.
    pub fn outcome(self, journal: &Journal, ended: u64, error: String) -> Outcome {
        Outcome {
            work: journal.work,
            ended,
            error,
            before: journal.bytes,
            after: self.bytes,
            transaction: self.transaction,
            repository: journal.repository.clone(),
        }
    }
}

/// Looks at what is there.
pub fn now(repository: &Repository) -> Result<Now, strongroom_borg::Error> {
    let transaction = repository.last_commit()?.map(|commit| commit.transaction);
    let objects = match transaction {
        Some(transaction) => Index::open(repository, transaction)?.map(|index| index.objects().into()),
        None => None,
    };
    Ok(Now {
        transaction: transaction.map(|transaction| transaction.0),
        bytes: repository.segments()?.iter().map(|segment| segment.size).sum(),
        objects,
    })
}

/// After a compaction, whole or cut short: segments that were there and are gone were meant to go; new ones are its own.
pub fn compacted(paths: &Paths, name: &ClientName, journal: &Journal, at: u64) -> Result<Now, ToldError> {
    let (folder, repository) = (paths.watch(name), Repository::open(paths.repository(name))?);
    let now = now(&repository)?;
    let Some(transaction) = now.transaction else {
        return Ok(now);
    };
    let mut record = read(&folder)?;
    let present = repository.state(SegmentNumber(transaction))?;
    let mut ledger = Ledger::read(&folder, &record.repository)?;
    let gone = ledger.differences(&present).gone;
    if gone.is_empty() && record.audited == now.transaction {
        // Nothing was changed, or this was told before.
        return Ok(now);
    }
    for number in gone {
        ledger.segments.remove(&number);
    }
    ledger.add(&present);
    ledger.write(&folder)?;
    record.audited = Some(transaction);
    record.seen.transaction = Some(transaction);
    record.objects = now.objects.or(record.objects);
    record.freeable = repository.freeable(SegmentNumber(transaction), THRESHOLD_PERCENT)?;
    record.floor = Floor::At(transaction);
    record.deletion = None;
    record.compacted = Some(Compacted {
        at,
        transaction,
        freed: journal.bytes.saturating_sub(now.bytes),
    });
    // Those before can't be brought back.
    store::write_transactions(&folder, &[itself(transaction, &present, &record)])?;
    store::write_record(&folder, &record)?;
    Ok(now)
}

/// After a rollback to `to`.
pub fn rolled_back(paths: &Paths, name: &ClientName, to: u32) -> Result<Now, ToldError> {
    let (folder, repository) = (paths.watch(name), Repository::open(paths.repository(name))?);
    let now = now(&repository)?;
    let Some(transaction) = now.transaction else {
        return Ok(now);
    };
    let mut record = read(&folder)?;
    let present = repository.state(SegmentNumber(transaction))?;
    let mut ledger = Ledger::read(&folder, &record.repository)?;
    ledger
        .segments
        .retain(|number, _| *number <= to || *number >= transaction);
    ledger.add(&present);
    ledger.write(&folder)?;
    let mut notes = store::read_transactions(&folder);
    notes.retain(|note| note.last <= to || note.last >= transaction);
    if notes.first().map(|note| note.last) != Some(transaction) {
        record.last_backup = notes
            .iter()
            .find(|note| note.stored)
            .and_then(|note| note.at)
            .or(record.last_backup);
        notes.insert(0, itself(transaction, &present, &record));
    }
    store::write_transactions(&folder, &notes)?;
    match repository.archives(SegmentNumber(transaction)) {
        Ok(Archives::NeedKey) => record.archives = watch::Archives::NeedKey,
        Ok(Archives::Listed(manifest)) => watch_job::list(manifest, &folder, &mut record)?,
        Err(error) => eprintln!("The archives can't be listed: {error}"),
    }
    if record.audited != Some(transaction) {
        record.roll_back(to);
    }
    record.audited = Some(transaction);
    record.seen.transaction = Some(transaction);
    // Until Borg has written its hints anew.
    record.freeable = None;
    store::write_record(&folder, &record)?;
    Ok(now)
}

/// After a repair: the segment is `known` again.
pub fn repaired(paths: &Paths, name: &ClientName, segment: u32, known: Known) -> Result<Now, ToldError> {
    let (folder, repository) = (paths.watch(name), Repository::open(paths.repository(name))?);
    let now = now(&repository)?;
    let id = repository.config().id.to_string();
    let mut verification = store::read_verification(&folder);
    if verification.repository == id {
        verification.mended(Some(segment));
        store::write_verification(&folder, &verification)?;
    }
    // What nothing is remembered of is looked at as if for the first time.
    let store::Read::Known(mut record) = store::read_record(&folder) else {
        return Ok(now);
    };
    if record.repository != id {
        return Ok(now);
    }
    let mut ledger = Ledger::read(&folder, &id)?;
    if ledger.segments.len() < SEGMENTS_MAX || ledger.segments.contains_key(&segment) {
        ledger.segments.insert(segment, known);
        ledger.write(&folder)?;
    }
    if let Some(transaction) = now.transaction
        && ledger.differences(&repository.state(SegmentNumber(transaction))?) == Differences::default()
    {
        record.segments_are_back();
        store::write_record(&folder, &record)?;
    }
    Ok(now)
}

fn read(folder: &std::path::Path) -> Result<Record, ToldError> {
    match store::read_record(folder) {
        store::Read::Known(record) => Ok(*record),
        store::Read::New | store::Read::Unreadable => Err(ToldError::Lost),
    }
}

/// The job's own transaction, which stored and deleted nothing.
fn itself(transaction: u32, present: &[SegmentFile], record: &Record) -> TransactionNote {
    let segment = present.iter().find(|segment| segment.number.0 == transaction);
    TransactionNote {
        last: transaction,
        at: segment.and_then(|segment| crate::unix_seconds(segment.modified)),
        archives: matches!(record.archives, watch::Archives::Listed { .. }).then_some((0, 0)),
        ..TransactionNote::default()
    }
}
