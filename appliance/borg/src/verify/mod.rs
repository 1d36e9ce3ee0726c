//! Checks every byte of a repository, without its lock and without its key, at the disk's speed.
//!
//! Reads committed segments only: those never change, so that no lock is needed. Each is read once,
//! in order, and checked for form, checksums and, against a ledger that the caller keeps, for its
//! SHA-256. Where the repository has no key, what each object holds is compared with its name. Gaps
//! between numbers are what compaction leaves and are legal; Borg's index tells whether a segment is
//! missing, or was cut between two entries.
//!
//! Holds a buffer, and a few bytes for every segment; where contents are compared, one object, packed and unpacked.

mod problem;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;

use rustix::fs::{Advice, fadvise};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::index::Index;
use crate::object::{self, Protection};
use crate::repository::{Repository, SegmentFile};
use crate::segment::{EntryKind, ObjectKey, ReadError, SegmentNumber, SegmentReader};
pub use problem::Problem;

/// How much is read between two calls for progress, in bytes.
pub const PROGRESS_BYTES: u64 = 64 * 1024 * 1024;

/// A SHA-256 of a whole segment.
pub type Sum = [u8; 32];

/// What to check, and how.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The first segment: 0, or where an earlier run stopped.
    pub from: SegmentNumber,
    /// The state to check; the last commit, if not given.
    pub transaction: Option<SegmentNumber>,
    /// Whether to compute the SHA-256 of each segment. Costs ten times what the checksums do.
    pub sums: bool,
    /// Which segments are read. Whether any is missing is told of all.
    pub only: &'a dyn Fn(&SegmentFile) -> bool,
    /// Whether to compare what objects hold with their names, where that takes no key. Costs their unpacking.
    pub contents: bool,
    /// What each segment's SHA-256 is known to be. Asked only with `sums`.
    pub ledger: &'a dyn Fn(SegmentNumber) -> Option<Sum>,
    /// Whether to drop each segment from the page cache before and after it is read, so that the
    /// disk itself is checked, and the cache left to others.
    pub from_disk: bool,
}

impl Plan<'_> {
    /// Form and checksums of everything, as it lies on the disk.
    #[must_use]
    pub fn new() -> Self {
        Self {
            from: SegmentNumber(0),
            transaction: None,
            sums: false,
            contents: false,
            only: &|_| true,
            ledger: &|_| None,
            from_disk: true,
        }
    }
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a run tells while it goes.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something is wrong.
    Problem(Problem),
    /// So much is done. Comes at least once for every segment and every [`PROGRESS_BYTES`].
    Progress(Progress),
    /// A segment was read to its end and is well-formed. `sum` is its SHA-256, if it was asked for.
    Segment {
        /// The file.
        file: &'a SegmentFile,
        /// Its SHA-256.
        sum: Option<Sum>,
    },
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The segment that is being read.
    pub segment: SegmentNumber,
    /// Bytes read so far.
    pub done: u64,
    /// Bytes to read in this run.
    pub total: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The state that was checked: everything up to this commit. `None`: nothing was ever committed.
    pub transaction: Option<SegmentNumber>,
    /// Segments read to their end, or to their damage.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How many problems were told.
    pub problems: u64,
    /// Whether Borg's index could be used to see that no segment is missing or cut.
    pub index_used: bool,
    /// How the repository's objects are stored; `None` where contents were not asked for, or its manifest can't be read.
    /// Contents are compared only with [`Protection::None`].
    pub protection: Option<Protection>,
    /// How many objects were compared with their names.
    pub compared: u64,
    /// Where to go on, if the run was stopped.
    pub next: Option<SegmentNumber>,
}

/// What the index expects of a segment.
#[derive(Clone, Copy)]
struct Expected {
    segment: SegmentNumber,
    objects: u32,
    last_offset: u32,
}

impl Repository {
    /// Checks the committed segments from `plan.from` on, in order. `see` is told everything and
    /// stops the run by [`ControlFlow::Break`]; the segment that was being read is then read again
    /// by the run that goes on at [`Outcome::next`].
    ///
    /// # Errors
    /// [`Error::Io`] when directories can't be read, or [`Error::DuplicateSegment`]. What is wrong
    /// with a segment is a [`Problem`], not an error.
    pub fn verify(&self, plan: &Plan<'_>, see: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<Outcome, Error> {
        let mut outcome = Outcome {
            transaction: None,
            segments: 0,
            bytes: 0,
            problems: 0,
            index_used: false,
            protection: None,
            compared: 0,
            next: None,
        };
        let last = self.last_commit()?.map(|commit| commit.transaction);
        if let Some(index) = self.newest_index()?
            && last.is_none_or(|last| index > last)
            // Borg commits before it writes the index: looked at again, the commit is there.
            && self.last_commit()?.is_none_or(|commit| index > commit.transaction)
        {
            outcome.problems += 1;
            if see(Event::Problem(Problem::CommitLost { index, found: last })).is_break() {
                outcome.next = Some(plan.from);
                return Ok(outcome);
            }
        }
        let Some(transaction) = plan.transaction.or(last) else {
            return Ok(outcome);
        };
        outcome.transaction = Some(transaction);
        let index = Index::open(self, transaction)?;
        let mut segments = self.state(transaction)?;
        segments.retain(|segment| segment.number >= plan.from);
        let expected = match &index {
            None => Vec::new(),
            Some(index) => self.expected(index, plan.from)?,
        };
        outcome.index_used = index.is_some();
        outcome.protection = if plan.contents {
            self.protection(transaction)
        } else {
            None
        };

        let read = |segment: &&SegmentFile| (plan.only)(segment);
        let whole = plan.from == SegmentNumber(0) && segments.iter().all(|segment| (plan.only)(segment));
        let mut run = Run {
            repository: self,
            plan,
            total: segments.iter().filter(read).map(|segment| segment.size).sum(),
            manifest: false,
            plain: Vec::new(),
            outcome,
        };
        let mut expected = expected.into_iter().peekable();
        for segment in &segments {
            while let Some(lost) = expected.next_if(|expected| expected.segment < segment.number) {
                if run.missing(lost, see).is_break() {
                    return Ok(run.stopped(segment.number));
                }
            }
            let wanted = expected.next_if(|expected| expected.segment == segment.number);
            if !(plan.only)(segment) {
                continue;
            }
            if run.segment(segment, wanted, see)?.is_break() {
                return Ok(run.stopped(segment.number));
            }
        }
        for lost in expected {
            if run.missing(lost, see).is_break() {
                return Ok(run.stopped(lost.segment));
            }
        }
        if whole && !run.manifest {
            // Whether it stops or not, there is nothing left to do.
            let _ = run.problem(Problem::NoManifest, see);
        }
        Ok(run.outcome)
    }

    /// Sums up the index by segment: one sequential pass, a few bytes for every segment.
    fn expected(&self, index: &Index, from: SegmentNumber) -> Result<Vec<Expected>, Error> {
        let failed = |source| Error::Io {
            path: self.path().join("index"),
            source,
        };
        let mut all: std::collections::HashMap<u32, (u32, u32)> = std::collections::HashMap::new();
        for entry in index.entries().map_err(failed)? {
            let (_, place) = entry.map_err(failed)?;
            if place.segment >= from {
                let (objects, last_offset) = all.entry(place.segment.0).or_default();
                *objects = objects.saturating_add(1);
                *last_offset = place.offset.max(*last_offset);
            }
        }
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(segment, (objects, last_offset))| Expected {
                segment: SegmentNumber(segment),
                objects,
                last_offset,
            })
            .collect();
        all.sort_unstable_by_key(|expected| expected.segment);
        Ok(all)
    }

    fn newest_index(&self) -> Result<Option<SegmentNumber>, Error> {
        let mut newest = None;
        for entry in std::fs::read_dir(self.path()).map_err(Error::io(self.path()))? {
            let entry = entry.map_err(Error::io(self.path()))?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("index.")?.parse().ok())
                .map(SegmentNumber);
            newest = newest.max(number);
        }
        Ok(newest)
    }
}

struct Run<'a> {
    repository: &'a Repository,
    plan: &'a Plan<'a>,
    total: u64,
    /// Whether the manifest was last stored, not deleted.
    manifest: bool,
    /// Room for an object's content.
    plain: Vec<u8>,
    outcome: Outcome,
}

impl Run<'_> {
    fn stopped(mut self, at: SegmentNumber) -> Outcome {
        self.outcome.next = Some(at);
        self.outcome
    }

    fn problem(&mut self, problem: Problem, see: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.outcome.problems += 1;
        see(Event::Problem(problem))
    }

    fn missing(&mut self, lost: Expected, see: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let problem = Problem::Lost {
            segment: lost.segment,
            objects: lost.objects,
        };
        self.problem(problem, see)
    }

    fn segment(
        &mut self,
        segment: &SegmentFile,
        wanted: Option<Expected>,
        see: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        let number = segment.number;
        let per_directory = self.repository.config().segments_per_dir;
        if segment.name != format!("data/{}/{number}", number.0 / per_directory) {
            let problem = Problem::Misplaced {
                segment: number,
                name: segment.name.clone(),
            };
            if self.problem(problem, see).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let file = match self.repository.open_segment(segment) {
            Ok(file) => file,
            // Compacted while we were reading: then there is a newer commit than ours.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let newer = self.repository.last_commit()?.map(|commit| commit.transaction);
                let problem = (newer <= self.outcome.transaction).then_some(Problem::Unreadable {
                    segment: number,
                    offset: 0,
                    source,
                });
                return Ok(problem.map_or(ControlFlow::Continue(()), |problem| self.problem(problem, see)));
            }
            Err(Error::Io { source, .. }) => {
                let problem = Problem::Unreadable {
                    segment: number,
                    offset: 0,
                    source,
                };
                return Ok(self.problem(problem, see));
            }
            Err(error) => return Err(error),
        };
        self.advise(
            &file,
            if self.plan.from_disk {
                Advice::DontNeed
            } else {
                Advice::Normal
            },
        );
        self.advise(&file, Advice::Sequential);
        let (result, content, input) = self.read(Hashing::new(&file, self.plan.sums), number, wanted, see);
        if self.plan.from_disk {
            self.advise(&file, Advice::DontNeed);
        }
        let mut problems = match result {
            ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
            ControlFlow::Continue(problems) => problems,
        };
        self.outcome.segments += 1;
        let sum = if problems.is_empty() { input.finish() } else { None };
        if let Some(found) = sum
            && let Some(expected) = (self.plan.ledger)(number)
            && found != expected
        {
            problems.push(Problem::Altered {
                segment: number,
                expected,
                found,
            });
        }
        // It is one damage, and what befell the file says more.
        if problems.is_empty() {
            problems.extend(content);
        }
        let sound = problems.is_empty();
        for problem in problems {
            if self.problem(problem, see).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if sound && see(Event::Segment { file: segment, sum }).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Advice is only that; a file system may ignore or refuse it.
    fn advise(&self, file: &File, advice: Advice) {
        let _ = fadvise(file, 0, None, advice);
    }

    /// Reads one segment. At most three problems come of it, and one of contents.
    fn read<'f>(
        &mut self,
        input: Hashing<&'f File>,
        number: SegmentNumber,
        wanted: Option<Expected>,
        see: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> (ControlFlow<(), Vec<Problem>>, Option<Problem>, Hashing<&'f File>) {
        let mut problems = Vec::new();
        let before = self.outcome.bytes;
        let mut told = 0;
        let mut reader = match SegmentReader::over(input) {
            Ok(reader) => reader,
            Err((error, input)) => {
                problems.push(broken(number, 0, error));
                return (ControlFlow::Continue(problems), None, input);
            }
        };
        let compare = self.outcome.protection == Some(Protection::None);
        if compare {
            reader.keep_data();
        }
        let mut content = None;
        let (mut entries, mut puts, mut last_put) = (0_u64, 0_u32, None);
        let mut commit = false;
        let mut after_commit = None;
        loop {
            let entry = match reader.next() {
                None => break,
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    problems.push(broken(number, reader.position(), error));
                    break;
                }
            };
            entries += 1;
            if commit && after_commit.is_none() {
                after_commit = Some(entry.offset);
            }
            match entry.kind {
                EntryKind::Commit => commit = true,
                EntryKind::Delete(key) => self.manifest &= key != ObjectKey::MANIFEST,
                EntryKind::Put(key) => {
                    self.manifest |= key == ObjectKey::MANIFEST;
                    puts = puts.saturating_add(1);
                    last_put = u32::try_from(entry.offset).ok().max(last_put);
                    if compare {
                        self.outcome.compared += 1;
                        if let Err(bad) = object::compare(&key, reader.data(), &mut self.plain) {
                            let (_, _, objects) = content.get_or_insert((entry.offset, bad, 0_u32));
                            *objects = objects.saturating_add(1);
                        }
                    }
                }
            }
            if reader.position() - told >= PROGRESS_BYTES {
                told = reader.position();
                self.outcome.bytes = before + told;
                if see(Event::Progress(self.progress(number))).is_break() {
                    return (ControlFlow::Break(()), None, reader.into_input());
                }
            }
        }
        self.outcome.bytes = before + reader.position();
        if problems.is_empty() {
            if entries == 0 {
                problems.push(Problem::Empty { segment: number });
            }
            problems.extend(after_commit.map(|offset| Problem::AfterCommit {
                segment: number,
                offset,
            }));
            // Fewer objects than the index has here, or its last one lies beyond all of them.
            problems.extend(wanted.and_then(|wanted| {
                let beyond = u32::from(last_put.is_none_or(|last| wanted.last_offset > last));
                let objects = wanted.objects.saturating_sub(puts).max(beyond);
                (objects > 0).then_some(Problem::Lost {
                    segment: number,
                    objects,
                })
            }));
        }
        let input = reader.into_input();
        if see(Event::Progress(self.progress(number))).is_break() {
            return (ControlFlow::Break(()), None, input);
        }
        let content = content.map(|(offset, first, objects)| Problem::Content {
            segment: number,
            offset,
            first,
            objects,
        });
        (ControlFlow::Continue(problems), content, input)
    }

    fn progress(&self, segment: SegmentNumber) -> Progress {
        Progress {
            segment,
            done: self.outcome.bytes,
            total: self.total,
        }
    }
}

fn broken(segment: SegmentNumber, offset: u64, error: ReadError) -> Problem {
    match error {
        ReadError::Damage(damage) => Problem::Damaged { segment, damage },
        ReadError::Io(source) => Problem::Unreadable {
            segment,
            offset,
            source,
        },
    }
}

/// Passes bytes on and sums them up on the way, while they are in the processor's cache.
struct Hashing<R> {
    input: R,
    sum: Option<Sha256>,
}

impl<R> Hashing<R> {
    fn new(input: R, wanted: bool) -> Self {
        Self {
            input,
            sum: wanted.then(Sha256::new),
        }
    }

    fn finish(self) -> Option<Sum> {
        self.sum.map(|sum| sum.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        if let Some(sum) = &mut self.sum {
            sum.update(&buffer[..length]);
        }
        Ok(length)
    }
}
