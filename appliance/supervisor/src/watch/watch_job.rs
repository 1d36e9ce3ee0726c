//! The role `strongroom-watch NAME`: reads what a client's repository has gained since the last look, judges it, and
//! remembers the outcome; with `--accept`, takes note that the owner knows of all that stands. It needs neither the
//! repository's lock nor its key, and writes only below the client's folder on the state partition.
//!
//! Decides nothing itself: `strongroom_borg::judgement` says what is worrying, `strongroom_model::watch` what to say.

use super::ledger::Ledger;
use super::{store, versions};
use crate::paths::Paths;
use crate::upkeep::hold;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use strongroom_borg::judgement::{self, Thresholds};
use strongroom_borg::{
    Archives, Audit, Depth, Error, LastCommit, Manifest, Repository, SegmentFile, SegmentNumber, changed_settings,
};
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::compaction::THRESHOLD_PERCENT;
use strongroom_model::watch::{
    self, ARCHIVES_MAX, ArchiveNote, Finding, Floor, Look, NAMES_MAX, Record, Seen, TRANSACTION_NAMES_MAX,
    TRANSACTIONS_MAX, TransactionNote, kept_name,
};

/// Fewer objects than there ever were, by so much per cent, is shrinking, however slowly it came.
const SHRUNK_PERCENT: u8 = 25;
/// Segments named with one finding.
const SEGMENTS_NAMED: usize = 16;
/// Transactions of one look whose archives are compared one by one, the newest: it means reading each one's list.
const COMPARED_MAX: usize = 32;

/// Why nothing could be remembered.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The name is of the wrong form.
    #[error("strongroom-watch needs the name of a client")]
    NoName,
    /// It could not be written down.
    #[error("what was found could not be written down ({0})")]
    Write(#[from] io::Error),
}

/// Runs the role. What goes wrong with the repository is part of what it remembers.
pub fn run(paths: &Paths, name: Option<&str>, accept: bool) -> Result<(), WatchError> {
    let name = name
        .and_then(|name| ClientName::new(name).ok())
        .ok_or(WatchError::NoName)?;
    let folder = paths.watch(&name);
    let _lock = store::lock(&folder)?;
    // What is between two states is not looked at; the job that holds tells what came of it.
    if hold::of(paths, &name) != hold::Hold::Open {
        return Ok(());
    }
    let now = crate::clock_now().unwrap_or_default();
    if accept {
        self::accept(paths, &name, &folder, now)?;
    } else {
        let mut record = load(&folder, now)?;
        look(paths, &name, &folder, &mut record, now)?;
    }
    Ok(())
}

fn load(folder: &Path, now: u64) -> io::Result<Record> {
    match store::read_record(folder) {
        store::Read::Known(record) => Ok(*record),
        store::Read::New => Ok(Record::default()),
        store::Read::Unreadable => {
            let mut record = Record::default();
            record.find(Finding::RecordLost, now, None, None);
            Ok(record)
        }
    }
}

/// From now on, what is there is what is right.
fn accept(paths: &Paths, name: &ClientName, folder: &Path, now: u64) -> io::Result<()> {
    let mut record = load(folder, now)?;
    for found in &record.findings {
        eprintln!("accepted: {found:?}");
    }
    record.accept();
    if let Ok(repository) = Repository::open(paths.repository(name))
        && let Some(audited) = record.audited
        && let Ok(present) = repository.state(SegmentNumber(audited))
    {
        let mut ledger = Ledger::read(folder, &record.repository)?;
        if !ledger.differences(&present).gone.is_empty() {
            // What stood before can't be brought back any more.
            record.floor = Floor::At(audited);
        }
        ledger.accept(&present);
        let mut verification = store::read_verification(folder);
        // What was altered, and is well-formed, is what is right now.
        for damage in verification.damages.iter().filter(|damage| !damage.accepted) {
            eprintln!("accepted: {}", damage.what);
            if let Some(known) = damage.segment.and_then(|number| ledger.segments.get_mut(&number))
                && let Some(sum) = damage.altered_to.as_deref().and_then(super::ledger::unhex)
            {
                known.sum = Some(sum);
            }
        }
        verification.damages.retain(|damage| damage.altered_to.is_none());
        verification.accept();
        ledger.write(folder)?;
        store::write_verification(folder, &verification)?;
    }
    store::write_record(folder, &record)
}

fn look(paths: &Paths, name: &ClientName, folder: &Path, record: &mut Record, now: u64) -> io::Result<()> {
    let path = paths.repository(name);
    record.looked = now;
    // Before anything is read: what changes meanwhile is looked at again.
    record.seen = Seen {
        transaction: None,
        config: super::stamp(&path),
    };
    record.failed.clear();
    if let Err(error) = look_at(&path, folder, record, now) {
        match error {
            LookError::Write(error) => return Err(error),
            LookError::Empty => gone(record, now),
            LookError::Borg(error) => {
                eprintln!("{name}: {error}");
                record.failed = error.to_string();
            }
        }
    }
    store::write_record(folder, record)
}

/// Why a look came to no end.
enum LookError {
    Write(io::Error),
    Borg(Error),
    /// There is no repository.
    Empty,
}

impl From<io::Error> for LookError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<Error> for LookError {
    fn from(error: Error) -> Self {
        Self::Borg(error)
    }
}

/// The repository that was there is gone as a whole.
fn gone(record: &mut Record, now: u64) {
    if let Some(audited) = record.audited.take() {
        record.find(Finding::TransactionsGone { left: None }, now, Some(audited), None);
    }
    forget(record);
}

/// What is there is to be looked at as if for the first time. What stands goes on standing.
fn forget(record: &mut Record) {
    *record = Record {
        seen: record.seen.clone(),
        looked: record.looked,
        looks: std::mem::take(&mut record.looks),
        findings: std::mem::take(&mut record.findings),
        more_findings: record.more_findings,
        hold: record.hold,
        ..Record::default()
    };
}

fn look_at(path: &Path, folder: &Path, record: &mut Record, now: u64) -> Result<(), LookError> {
    let repository = match Repository::open(path) {
        Err(Error::NotARepository { .. }) if super::is_empty(path) => return Err(LookError::Empty),
        other => other?,
    };
    let commit = repository.last_commit()?;
    record.seen.transaction = commit.map(|commit| commit.transaction.0);
    let id = repository.config().id.to_string();
    if record.repository != id {
        if !record.repository.is_empty() {
            record.find(Finding::OtherRepository, now, None, record.seen.transaction);
            forget(record);
        }
        record.repository = id;
        record.since = now;
    }
    config(&repository, folder, record, now)?;

    let mut ledger = Ledger::read(folder, &record.repository)?;
    let transaction = commit.map(|commit| commit.transaction);
    let audited = record.audited.map(SegmentNumber);
    if audited.is_some() && transaction < audited {
        let left = record.seen.transaction;
        record.find(Finding::TransactionsGone { left }, now, record.audited, left);
        ledger.forget_after(transaction);
        ledger.write(folder)?;
        record.audited = left;
        record.objects = None;
    }
    let Some(commit) = commit else { return Ok(()) };
    let present = repository.state(commit.transaction)?;
    // Where Borg left no hints, the segments tell nearly the same: they also hold what was deleted.
    let segments_bytes = || present.iter().map(|segment| segment.size).sum();
    record.quota_used = Some(repository.quota_use(commit.transaction)?.unwrap_or_else(segments_bytes));
    segments(&ledger, &present, record, now);
    if record.floor == Floor::Unknown {
        record.floor = floor(&present, record.audited.unwrap_or(commit.transaction.0));
    }
    let mut notes = store::read_transactions(folder);
    // Those of another repository, or that are gone.
    if notes.first().map(|note| note.last) != record.audited {
        notes.clear();
    }
    if record.audited.map(SegmentNumber) != Some(commit.transaction) || notes.is_empty() {
        note_transactions(&repository, commit, &present, &mut notes)?;
        store::write_transactions(folder, &notes)?;
    }
    if record.audited.map(SegmentNumber) != Some(commit.transaction) {
        audit(&repository, commit, &present, folder, record, now)?;
        ledger.add(&present);
        ledger.write(folder)?;
    }
    record.freeable = repository.freeable(commit.transaction, THRESHOLD_PERCENT)?;
    record.age_deletion(now);
    Ok(())
}

/// How far back a repository can go that is seen for the first time. Without a gap between the numbers of its segments,
/// nothing was ever taken out of it; with one, whatever compaction left it may have been the last thing before `now_at`.
fn floor(present: &[SegmentFile], now_at: u32) -> Floor {
    let whole = present
        .iter()
        .zip(0_u32..)
        .all(|(segment, number)| segment.number.0 == number);
    if whole { Floor::None } else { Floor::At(now_at) }
}

/// Adds to `notes`, newest first, what is new since the first of them. The archives are compared with those before for the
/// newest transactions only; what can't be told is left open.
fn note_transactions(
    repository: &Repository,
    commit: LastCommit,
    present: &[SegmentFile],
    notes: &mut Vec<TransactionNote>,
) -> Result<(), LookError> {
    let before = notes.first().map(|note| SegmentNumber(note.last));
    let mut new = std::collections::VecDeque::new();
    repository.audit(before, commit.transaction, Depth::Headers, &mut |transaction| {
        if new.len() == TRANSACTIONS_MAX {
            new.pop_front();
        }
        new.push_back(TransactionNote {
            last: transaction.last.0,
            at: present
                .binary_search_by_key(&transaction.last, |segment| segment.number)
                .ok()
                .and_then(|at| crate::unix_seconds(present[at].modified)),
            puts: transaction.puts - transaction.manifest_puts,
            deletes: transaction
                .forgotten()
                .saturating_sub(transaction.manifest_deletes.saturating_sub(transaction.manifest_puts)),
            bytes: transaction.bytes,
            stored: is_backup(transaction),
            ..TransactionNote::default()
        });
    })?;
    let compared = new.len().saturating_sub(COMPARED_MAX);
    let mut old: Option<Manifest> = None;
    for at in compared..new.len() {
        let earlier = at.checked_sub(1).map(|at| SegmentNumber(new[at].last)).or(before);
        if old.is_none() {
            old = match earlier {
                None => Some(Manifest {
                    protection: strongroom_borg::Protection::None,
                    archives: Vec::new(),
                }),
                Some(earlier) => listed(repository.archives(earlier))?,
            };
        }
        let now = listed(repository.archives(SegmentNumber(new[at].last)))?;
        if let (Some(old), Some(now)) = (&old, &now) {
            let found = judgement::archive_changes(old, now);
            let names = |archives: &[&strongroom_borg::Archive]| {
                let names = archives.iter().take(TRANSACTION_NAMES_MAX);
                names.map(|archive| kept_name(&archive.name)).collect()
            };
            let note = &mut new[at];
            note.archives = Some((count(found.added.len()), count(found.removed.len())));
            (note.came, note.went) = (names(&found.added), names(&found.removed));
        }
        old = now;
    }
    for note in new {
        notes.insert(0, note);
    }
    notes.truncate(TRANSACTIONS_MAX);
    Ok(())
}

/// The archives where they can be listed. What is wrong with a list is told by the audit.
fn listed(archives: Result<Archives, Error>) -> Result<Option<Manifest>, Error> {
    match archives {
        Ok(Archives::Listed(manifest)) => Ok(Some(manifest)),
        Err(error @ Error::Io { .. }) => Err(error),
        Ok(Archives::NeedKey) | Err(_) => Ok(None),
    }
}

/// A prune writes the list of archives anew, and nothing else; a compaction leaves it alone.
fn is_backup(transaction: &strongroom_borg::Transaction) -> bool {
    transaction.puts > transaction.manifest_puts && transaction.manifest_rewritten()
}

/// Keeps every version of the settings and tells what changed.
fn config(repository: &Repository, folder: &Path, record: &mut Record, now: u64) -> io::Result<()> {
    let new = repository.config_bytes();
    let sum = versions::sum(new);
    if sum == record.config {
        return Ok(());
    }
    versions::keep(folder, new)?;
    if !record.config.is_empty() {
        let text = String::from_utf8_lossy(new);
        let settings = match versions::read(folder, &record.config)? {
            Some(old) => changed_settings(&String::from_utf8_lossy(&old), &text),
            None => vec!["it can't be told which".into()],
        };
        if !settings.is_empty() {
            let key = settings.iter().any(|name| name == "key");
            let settings = settings.iter().take(NAMES_MAX).map(|name| kept_name(name)).collect();
            let finding = Finding::ConfigChanged { settings, key };
            record.find(finding, now, record.audited, record.seen.transaction);
        }
    }
    record.config = sum;
    Ok(())
}

/// Tells which committed segments are gone or have another size; once, until it is accepted.
fn segments(ledger: &Ledger, present: &[SegmentFile], record: &mut Record, now: u64) {
    let differences = ledger.differences(present);
    let numbers: BTreeSet<u32> = differences.gone.iter().chain(&differences.resized).copied().collect();
    if numbers.is_empty() {
        return;
    }
    let (gone, resized) = (count(differences.gone.len()), count(differences.resized.len()));
    let told = record.findings.iter().any(|found| {
        matches!(found.finding, Finding::SegmentsChanged { gone: before, resized: other, .. } if (before, other) == (gone, resized))
    });
    if !told {
        let finding = Finding::SegmentsChanged {
            gone,
            resized,
            segments: numbers.into_iter().take(SEGMENTS_NAMED).collect(),
        };
        record.find(finding, now, None, record.seen.transaction);
    }
}

/// Reads the transactions that are new and judges them. What was there when the watch began is only counted.
fn audit(
    repository: &Repository,
    commit: LastCommit,
    present: &[SegmentFile],
    folder: &Path,
    record: &mut Record,
    now: u64,
) -> Result<(), LookError> {
    let before = record.audited.map(SegmentNumber);
    let mut stored = None;
    let audit = repository.audit(before, commit.transaction, Depth::Headers, &mut |transaction| {
        if is_backup(transaction) {
            stored = Some(transaction.last);
        }
    })?;
    let archives = repository.archives(commit.transaction);
    let old = match (before, &archives) {
        (Some(before), Ok(Archives::Listed(_))) => match repository.archives(before) {
            Ok(Archives::Listed(manifest)) => Some(manifest),
            // Nothing was ever stored, or what was can't be read any more: then there is nothing to compare with.
            _ => None,
        },
        _ => None,
    };
    let mut changes = None;
    if let (Some(old), Ok(Archives::Listed(new))) = (&old, &archives) {
        let found = judgement::archive_changes(old, new);
        changes = Some((count(found.added.len()), count(found.removed.len())));
        if found.worrying(&Thresholds::default()) {
            let finding = Finding::ArchivesRemoved {
                removed: count(found.removed.len()),
                before: count(found.before),
                names: found
                    .removed
                    .iter()
                    .take(NAMES_MAX)
                    .map(|archive| kept_name(&archive.name))
                    .collect(),
            };
            record.find(finding, now, record.audited, Some(commit.transaction.0));
        }
    }
    if before.is_some() {
        for finding in judge(record.most_objects, &audit) {
            record.find(finding, now, record.audited, Some(commit.transaction.0));
        }
    }
    match archives {
        Ok(Archives::NeedKey) => {
            record.archives = watch::Archives::NeedKey;
            store::write_archives(folder, &[])?;
        }
        Ok(Archives::Listed(manifest)) => list(manifest, folder, record)?,
        // A repository that was only just made has none.
        Err(Error::NoManifest(_)) => {}
        // The audit is worth more than the list.
        Err(error) => eprintln!("The archives can't be listed: {error}"),
    }
    if let Some(last) = stored {
        let segment = present.iter().find(|segment| segment.number == last);
        record.last_backup = segment
            .and_then(|segment| crate::unix_seconds(segment.modified))
            .or(record.last_backup);
    }
    if audit.objects_after.is_some() {
        record.objects = audit.objects_after;
        record.most_objects = record.most_objects.max(audit.objects_after.unwrap_or_default());
    }
    if audit.deleted > 0 || changes.is_some_and(|(_, removed)| removed > 0) {
        record.deleted(commit.transaction.0, now);
    }
    record.add_look(Look {
        at: now,
        after: record.audited,
        until: commit.transaction.0,
        transactions: audit.transactions,
        puts: audit.puts,
        deletes: audit.deleted,
        lost: audit.lost(),
        bytes: audit.bytes,
        archives: changes,
    });
    record.audited = Some(commit.transaction.0);
    Ok(())
}

/// What is worrying about new transactions, given the most objects that there ever were.
fn judge(most: u64, audit: &Audit) -> Vec<Finding> {
    let thresholds = Thresholds::default();
    let mut found: Vec<Finding> = judgement::judge(audit, &thresholds)
        .into_iter()
        .map(|finding| match finding {
            judgement::Finding::MassDeletion { lost, before } => Finding::MassDeletion { lost, before },
            judgement::Finding::Shrinking { before, after } => Finding::Shrinking { before, after },
            judgement::Finding::UnlistedDeletion { deleted } => Finding::UnlistedDeletion { deleted },
            judgement::Finding::ManifestLost => Finding::ManifestLost,
        })
        .collect();
    let shrinking = |finding: &Finding| matches!(finding, Finding::Shrinking { .. });
    if found
        .iter()
        .any(|finding| matches!(finding, Finding::MassDeletion { .. }))
    {
        // The same story.
        found.retain(|finding| !shrinking(finding));
    } else if let Some(after) = audit.objects_after {
        let fewer = most.saturating_sub(after);
        if fewer >= thresholds.mass_deletion_min && judgement::at_least(fewer, SHRUNK_PERCENT, most) {
            found.retain(|finding| !shrinking(finding));
            found.push(Finding::Shrinking { before: most, after });
        }
    }
    found
}

pub(crate) fn list(manifest: Manifest, folder: &Path, record: &mut Record) -> io::Result<()> {
    let total = count(manifest.archives.len());
    let mut archives = manifest.archives;
    archives.sort_by_key(|archive| std::cmp::Reverse(archive.time));
    archives.truncate(ARCHIVES_MAX);
    let notes: Vec<ArchiveNote> = archives
        .iter()
        .map(|archive| ArchiveNote {
            name: kept_name(&archive.name),
            time: crate::unix_seconds(archive.time),
        })
        .collect();
    record.archives = watch::Archives::Listed {
        count: total,
        newest: notes.first().and_then(|note| note.time),
    };
    store::write_archives(folder, &notes)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(after: u64, gained: u64, deleted: u64) -> Audit {
        Audit {
            transactions: 1,
            manifest_rewrites: 1,
            puts: gained,
            deleted,
            objects_after: Some(after),
            ..Audit::default()
        }
    }

    #[test]
    fn a_robbery_in_small_steps_is_seen_by_what_there_once_was() {
        let mut objects = 1000;
        let mut found = Vec::new();
        while objects > 700 {
            objects -= 40;
            found.extend(judge(1000, &audit(objects, 0, 40)));
        }
        assert_eq!(
            found,
            [
                Finding::Shrinking {
                    before: 1000,
                    after: 720
                },
                Finding::Shrinking {
                    before: 1000,
                    after: 680
                }
            ]
        );
        assert_eq!(judge(1000, &audit(960, 0, 40)), []);
    }

    #[test]
    fn one_story_is_told_once() {
        assert_eq!(
            judge(1000, &audit(100, 0, 900)),
            [Finding::MassDeletion {
                lost: 900,
                before: Some(1000)
            }]
        );
    }
}
