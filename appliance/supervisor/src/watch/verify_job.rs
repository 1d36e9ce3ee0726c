//! The role `strongroom-verify`: reads committed segments of the clients' repositories and compares them with what they
//! were, and what is stored in them with its names, where those are not made with a key. It needs neither Borg's lock nor its key, and writes only below the clients' folders on the state partition.
//!
//! Its argument is a client, all of whose repository is read; [`ALL`], all of every repository; or [`DUE`], what is due by
//! its age. What was read is remembered segment by segment, so that a run that was cut short goes on by itself. At most
//! half of the disks' time is taken.

use super::ledger::{Known, Ledger, SEGMENTS_MAX, hex};
use super::store;
use crate::configuration::in_force;
use crate::durable;
use crate::paths::Paths;
use crate::upkeep::hold;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use strongroom_borg::verify::{Event, Progress, Sum};
use strongroom_borg::{Plan, Problem, Protection, Repository, SegmentFile, SegmentNumber};
use strongroom_model::name::ClientName;
use strongroom_model::verification::{Age, Damage, TOUCHED_MAX, Touched, TouchedArchive, Verification, due};
use strongroom_model::watch::kept_name;

/// Instance of the unit that reads all of every repository. No client's name is in capitals.
pub const ALL: &str = "ALL";
/// Instance of the unit that reads what is due.
pub const DUE: &str = "DUE";

/// Least time between two writes of the progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// Least time between two writes of what was read.
const KEEP_PERIOD: Duration = Duration::from_secs(60);
/// Longest pause after one piece.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Damages that are traced to their archives in one run: it may mean reading the lists of all files.
const TRACED_MAX: usize = 8;
/// Files named with one archive.
const FILES_NAMED: usize = 3;

/// Why nothing could be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The name is of the wrong form.
    #[error("strongroom-verify needs the name of a client, {ALL} or {DUE}")]
    NoName,
    /// The client is not configured.
    #[error("there is no client `{0}`")]
    NoClient(ClientName),
    /// It could not be written down.
    #[error("what was found could not be written down ({0})")]
    Write(#[from] io::Error),
}

/// What a run is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// The client whose repository it reads.
    pub client: Option<ClientName>,
    /// Bytes of it read.
    pub done_bytes: u64,
    /// Bytes to be read in it.
    pub total_bytes: u64,
}

/// Runs the role. What is wrong with a repository is part of what it leaves.
pub fn run(paths: &Paths, instance: Option<&str>) -> Result<(), VerifyError> {
    let config = in_force(paths);
    let instance = instance.ok_or(VerifyError::NoName)?;
    let names: Vec<ClientName> = match instance {
        ALL | DUE => config
            .client
            .iter()
            .map(|client| client.name.get_ref().clone())
            .collect(),
        name => {
            let name = ClientName::new(name).map_err(|_| VerifyError::NoName)?;
            config
                .client(name.as_str())
                .ok_or_else(|| VerifyError::NoClient(name.clone()))?;
            vec![name]
        }
    };
    let days = *config.schedule.check_days.get_ref();
    if instance != DUE {
        for name in &names {
            let folder = paths.watch(name);
            let _lock = store::lock(&folder)?;
            let mut verification = store::read_verification(&folder);
            verification.ask(now());
            store::write_verification(&folder, &verification)?;
        }
    }
    let mut outcome = Ok(());
    for name in names {
        let checked = Run::new(paths, &name, instance).check(instance == DUE, days);
        // The others are checked all the same.
        outcome = outcome.and(checked);
    }
    durable::remove(&paths.verify_progress(instance))?;
    outcome.map_err(VerifyError::Write)
}

fn now() -> u64 {
    crate::clock_now().unwrap_or_default()
}

struct Run<'a> {
    name: &'a ClientName,
    repository: PathBuf,
    folder: PathBuf,
    progress: PathBuf,
    paths: &'a Paths,
    delta: Delta,
    shown: Instant,
    kept: Instant,
    turn: Instant,
}

/// What was found since it was last written down.
#[derive(Default)]
struct Delta {
    /// Segments that were read, with their size, when, and their sum where they are sound.
    read: BTreeMap<u32, (u64, u64, Option<Sum>)>,
    damages: Vec<Damage>,
    mended: Vec<Option<u32>>,
}

impl<'a> Run<'a> {
    fn new(paths: &'a Paths, name: &'a ClientName, instance: &str) -> Self {
        let now = Instant::now();
        Self {
            name,
            repository: paths.repository(name),
            folder: paths.watch(name),
            progress: paths.verify_progress(instance),
            paths,
            delta: Delta::default(),
            shown: now,
            kept: now,
            turn: now,
        }
    }

    fn check(mut self, skip_busy: bool, days: u16) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let busy = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join("verify.lock"))?;
        if skip_busy {
            match busy.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(()),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        } else {
            busy.lock()?;
        }
        if hold::of(self.paths, self.name) != hold::Hold::Open {
            return if skip_busy {
                Ok(())
            } else {
                self.end(|verification| {
                    verification.failed = "its compaction, rollback or repair has not come to its end".into();
                })
            };
        }
        self.show(None)?;
        if super::is_empty(&self.repository) {
            return self.end(|verification| {
                *verification = Verification {
                    asked: verification.asked,
                    ..Verification::default()
                };
            });
        }
        match self.read(days) {
            Ok(()) => Ok(()),
            Err(CheckError::Write(error)) => Err(error),
            Err(CheckError::Borg(error)) => {
                eprintln!("{}: {error}", self.name);
                self.end(|verification| verification.failed = error.to_string())
            }
        }
    }

    fn read(&mut self, days: u16) -> Result<(), CheckError> {
        let repository = Repository::open(&self.repository)?;
        let id = repository.config().id.to_string();
        let Some(commit) = repository.last_commit()? else {
            return Ok(self.end(|_| {})?);
        };
        let present = repository.state(commit.transaction)?;
        let (ledger, verification) = self.begin(&id)?;
        let chosen = choose(&present, &ledger, &verification, days);
        let whole = chosen.len() == present.len();
        eprintln!(
            "{}: reading {} of {} segments up to transaction {}",
            self.name,
            chosen.len(),
            present.len(),
            commit.transaction
        );
        let (mut told, mut failed) = (BTreeSet::new(), None);
        self.turn = Instant::now();
        let plan = Plan {
            transaction: Some(commit.transaction),
            sums: true,
            contents: true,
            only: &|segment: &SegmentFile| chosen.contains(&segment.number.0),
            ledger: &|number: SegmentNumber| ledger.segments.get(&number.0)?.sum,
            ..Plan::new()
        };
        let outcome = repository.verify(&plan, &mut |event| match self.see(event, &ledger, &mut told) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        // What was missing and is not any more, or is not needed any more.
        for damage in &verification.damages {
            let absent = damage
                .segment
                .is_none_or(|number| present.binary_search_by_key(&number, |one| one.number.0).is_err());
            if absent && (whole || damage.segment.is_some()) && !told.contains(&damage.segment) {
                self.delta.mended.push(damage.segment);
            }
        }
        self.keep()?;
        self.trace(&repository, commit.transaction)?;
        eprintln!(
            "{}: {} segments, {} bytes read, {} objects compared with their names; {} problems",
            self.name, outcome.segments, outcome.bytes, outcome.compared, outcome.problems
        );
        let asked = verification.asked;
        Ok(self.end_at(asked, |verification| {
            verification.segments = present.len() as u64;
            verification.bytes = present.iter().map(|segment| segment.size).sum();
            verification.index_used = outcome.index_used;
            verification.comparable = outcome.protection.map(|one| one == Protection::None);
            if outcome.protection.is_none() {
                // What was read by this run does not count; the next one begins to.
                verification.comparing_since = None;
            }
        })?)
    }

    /// What is known when the run begins.
    fn begin(&self, id: &str) -> io::Result<(Ledger, Verification)> {
        let _lock = store::lock(&self.folder)?;
        let mut verification = store::read_verification(&self.folder);
        if verification.repository != id {
            verification = Verification {
                repository: id.into(),
                since: now(),
                asked: verification.asked,
                answered: verification.answered,
                ..Verification::default()
            };
        }
        verification.failed.clear();
        verification.comparing_since.get_or_insert_with(now);
        verification.more_damages = 0;
        store::write_verification(&self.folder, &verification)?;
        Ok((Ledger::read(&self.folder, id)?, verification))
    }

    fn see(&mut self, event: Event<'_>, ledger: &Ledger, told: &mut BTreeSet<Option<u32>>) -> io::Result<()> {
        match event {
            Event::Progress(progress) => {
                let took = self.turn.elapsed();
                if self.shown.elapsed() >= PROGRESS_PERIOD {
                    self.show(Some(progress))?;
                }
                if self.kept.elapsed() >= KEEP_PERIOD {
                    self.keep()?;
                }
                std::thread::sleep(took.min(PAUSE_MAX));
                self.turn = Instant::now();
            }
            Event::Problem(problem) => {
                eprintln!("{}: {problem}", self.name);
                let segment = segment_of(&problem);
                told.insert(segment);
                if let Some(known) = segment.and_then(|number| Some((number, ledger.segments.get(&number)?))) {
                    self.delta.read.insert(known.0, (known.1.size, now(), None));
                }
                self.delta.damages.push(Damage {
                    segment,
                    what: problem.to_string(),
                    found: now(),
                    altered_to: match &problem {
                        Problem::Altered { found, .. } => Some(hex(found)),
                        _ => None,
                    },
                    stored_so: matches!(problem, Problem::Content { .. }),
                    ..Damage::default()
                });
                // Nobody has to wait for the end to hear of it.
                self.keep()?;
            }
            Event::Segment { file, sum } => {
                let number = file.number.0;
                let before = ledger.segments.get(&number);
                if let Some(before) = before.filter(|before| before.size != file.size) {
                    told.insert(Some(number));
                    self.delta.damages.push(Damage {
                        segment: Some(number),
                        what: format!(
                            "segment {number} has {} bytes, but had {} when it was committed",
                            file.size, before.size
                        ),
                        found: now(),
                        ..Damage::default()
                    });
                    self.delta.read.insert(number, (before.size, now(), None));
                } else {
                    if !told.contains(&Some(number)) {
                        self.delta.mended.push(Some(number));
                    }
                    self.delta.read.insert(number, (file.size, now(), sum));
                }
            }
        }
        Ok(())
    }

    /// Finds out which archives the damages touch that haven't been traced.
    fn trace(&self, repository: &Repository, transaction: SegmentNumber) -> io::Result<()> {
        let untraced: Vec<u32> = store::read_verification(&self.folder)
            .damages
            .iter()
            .filter(|damage| damage.touched == Touched::NotYet)
            .filter_map(|damage| damage.segment)
            .take(TRACED_MAX)
            .collect();
        for number in untraced {
            let touched = match repository.archives_touched(transaction, SegmentNumber(number)) {
                Ok(touched) => words(touched),
                Err(error) => Touched::Untold { why: error.to_string() },
            };
            let _lock = store::lock(&self.folder)?;
            let mut verification = store::read_verification(&self.folder);
            if let Some(damage) = verification.damages.iter_mut().find(|one| one.segment == Some(number)) {
                damage.touched = touched;
                store::write_verification(&self.folder, &verification)?;
            }
        }
        Ok(())
    }

    fn show(&mut self, progress: Option<Progress>) -> io::Result<()> {
        self.shown = Instant::now();
        let progress = VerifyProgress {
            client: Some(self.name.clone()),
            done_bytes: progress.map_or(0, |progress| progress.done),
            total_bytes: progress.map_or(0, |progress| progress.total),
        };
        durable::write_json(&self.progress, &progress)
    }

    /// Writes down what was found. What others wrote meanwhile stays.
    fn keep(&mut self) -> io::Result<()> {
        self.kept = Instant::now();
        let delta = std::mem::take(&mut self.delta);
        let _lock = store::lock(&self.folder)?;
        let mut verification = store::read_verification(&self.folder);
        let mut ledger = Ledger::read(&self.folder, &verification.repository)?;
        for (number, (size, at, sum)) in delta.read {
            if ledger.segments.len() >= SEGMENTS_MAX && !ledger.segments.contains_key(&number) {
                continue;
            }
            let known = ledger.segments.entry(number).or_insert(Known {
                size,
                sum: None,
                verified: 0,
            });
            // It may have been accepted as it is now while it was read.
            if known.size == size {
                known.verified = at;
                known.sum = sum.or(known.sum);
            }
        }
        for segment in delta.mended {
            verification.mended(segment);
        }
        for damage in delta.damages {
            verification.damage(damage);
        }
        ledger.write(&self.folder)?;
        store::write_verification(&self.folder, &verification)
    }

    fn end(&mut self, change: impl FnOnce(&mut Verification)) -> io::Result<()> {
        let asked = store::read_verification(&self.folder).asked;
        self.end_at(asked, change)
    }

    /// Writes down that the run came to its end, and what was asked for up to `asked` is answered.
    fn end_at(&mut self, asked: u64, change: impl FnOnce(&mut Verification)) -> io::Result<()> {
        let _lock = store::lock(&self.folder)?;
        let mut verification = store::read_verification(&self.folder);
        change(&mut verification);
        let ledger = Ledger::read(&self.folder, &verification.repository)?;
        verification.oldest = ledger
            .segments
            .values()
            .map(|known| known.verified)
            .min()
            .filter(|oldest| *oldest > 0);
        verification.answered = asked;
        verification.ended = Some(now());
        store::write_verification(&self.folder, &verification)
    }
}

/// Why a check came to no end.
enum CheckError {
    Write(io::Error),
    Borg(strongroom_borg::Error),
}

impl From<io::Error> for CheckError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<strongroom_borg::Error> for CheckError {
    fn from(error: strongroom_borg::Error) -> Self {
        Self::Borg(error)
    }
}

/// Which of the segments are read in this run.
fn choose(present: &[SegmentFile], ledger: &Ledger, verification: &Verification, days: u16) -> BTreeSet<u32> {
    let now = now();
    let damaged: BTreeSet<u32> = verification
        .damages
        .iter()
        .filter(|damage| !damage.accepted)
        .filter_map(|damage| damage.segment)
        .collect();
    let full = ledger.segments.len() >= SEGMENTS_MAX;
    let ages: Vec<Age> = present
        .iter()
        .map(|segment| {
            let number = segment.number.0;
            let verified = match ledger.segments.get(&number) {
                // Perhaps it was mended.
                _ if damaged.contains(&number) => None,
                Some(known) => (known.verified > 0).then_some(known.verified),
                // More than are remembered: each has its day.
                None if full && !(u64::from(number) + now / 86_400).is_multiple_of(u64::from(days.max(1))) => {
                    Some(now.saturating_sub(1))
                }
                None => None,
            };
            Age {
                number,
                size: segment.size,
                verified,
            }
        })
        .collect();
    let asked = verification.is_unfinished().then_some(verification.asked);
    due(&ages, now, days, asked)
}

pub(crate) fn segment_of(problem: &Problem) -> Option<u32> {
    match problem {
        Problem::Damaged { segment, .. }
        | Problem::Unreadable { segment, .. }
        | Problem::Altered { segment, .. }
        | Problem::Empty { segment }
        | Problem::AfterCommit { segment, .. }
        | Problem::Content { segment, .. }
        | Problem::Misplaced { segment, .. }
        | Problem::Lost { segment, .. } => Some(segment.0),
        // About the repository as a whole.
        _ => None,
    }
}

fn words(touched: strongroom_borg::Touched) -> Touched {
    match touched {
        strongroom_borg::Touched::NeedKey { objects } => Touched::NeedKey {
            objects: objects as u64,
        },
        strongroom_borg::Touched::ManifestLost { .. } => Touched::ManifestLost,
        strongroom_borg::Touched::Archives { archives, .. } => Touched::Archives {
            count: u32::try_from(archives.len()).unwrap_or(u32::MAX),
            archives: archives
                .into_iter()
                .take(TOUCHED_MAX)
                .map(|touched| TouchedArchive {
                    name: kept_name(&touched.archive.name),
                    files: touched.files,
                    named: touched
                        .named
                        .iter()
                        .take(FILES_NAMED)
                        .map(|file| kept_name(file))
                        .collect(),
                    list_lost: touched.list_lost,
                })
                .collect(),
        },
    }
}

/// The progress of the run of this instance, while it runs.
pub fn progress(paths: &Paths, instance: &str) -> VerifyProgress {
    durable::read_json(&paths.verify_progress(instance), 4096).unwrap_or_default()
}
