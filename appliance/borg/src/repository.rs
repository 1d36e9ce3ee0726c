//! A repository on disk: which segments exist, which of them are final, and a few cheap facts.
//!
//! Segments above the last commit are not final: after a killed client their numbers are reused
//! with other content. Nothing here trusts the name of `index.N`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::RepositoryConfig;
use crate::error::Error;
use crate::segment::{COMMIT, COMMIT_SEGMENT_SIZE, EntryKind, ReadError, SegmentNumber, SegmentReader};

/// A repository that was recognised. Holds no open file.
#[derive(Debug, Clone)]
pub struct Repository {
    path: PathBuf,
    config: RepositoryConfig,
    config_bytes: Vec<u8>,
}

/// A segment file as the directory shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number.
    pub number: SegmentNumber,
    /// Path below the repository, as Borg names it: `data/0/17`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change.
    pub modified: SystemTime,
}

/// The last transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCommit {
    /// The segment that ends in the commit: T.
    pub transaction: SegmentNumber,
    /// When that segment was last changed.
    pub at: SystemTime,
}

/// Cheap facts: names and sizes of files, and one small read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The last transaction, if there is one.
    pub last_commit: Option<LastCommit>,
    /// How many segments hold a commit only. Borg puts every final commit in a segment of its own,
    /// so this is the number of transactions since the last compaction that freed space.
    pub transactions: u32,
    /// How many segments exist, final or not.
    pub segments: u32,
    /// Sum of all segments' sizes, in bytes.
    pub bytes: u64,
}

/// What of `segments` a copy lacks that holds the state `held`, or nothing, when the state `last` is committed: how many
/// transactions, as [`Facts::transactions`] counts them, and how many bytes.
#[must_use]
pub fn lacking(segments: &[SegmentFile], held: Option<SegmentNumber>, last: SegmentNumber) -> (u32, u64) {
    let lacks = |segment: &&SegmentFile| segment.number <= last && held.is_none_or(|held| segment.number > held);
    let commits = segments
        .iter()
        .filter(lacks)
        .filter(|segment| segment.size == COMMIT_SEGMENT_SIZE);
    let transactions = u32::try_from(commits.count()).unwrap_or(u32::MAX);
    (
        transactions,
        segments.iter().filter(lacks).map(|segment| segment.size).sum(),
    )
}

/// `config` is small; anything larger is not one.
const MAX_CONFIG_SIZE: u64 = 1024 * 1024;

impl Repository {
    /// Opens the directory `path` and reads its `config`.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::UnsupportedVersion`], [`Error::BadConfig`] or [`Error::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let missing = |why| Error::NotARepository {
            path: path.clone(),
            why,
        };
        let file = path.join("config");
        let mut config_bytes = Vec::new();
        let opened = match crate::file::open(&file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(if path.is_dir() {
                    "it has no config"
                } else {
                    "there is no such directory"
                }));
            }
            Err(error) => return Err(Error::io(file)(error)),
        };
        opened
            .take(MAX_CONFIG_SIZE + 1)
            .read_to_end(&mut config_bytes)
            .map_err(Error::io(file))?;
        if config_bytes.len() as u64 > MAX_CONFIG_SIZE {
            return Err(missing("its config is too large"));
        }
        let text = std::str::from_utf8(&config_bytes).map_err(|_| missing("its config is not text"))?;
        let config = RepositoryConfig::parse(&path, text)?;
        // A link could lead into another client's repository.
        if !fs::symlink_metadata(path.join("data")).is_ok_and(|found| found.is_dir()) {
            return Err(missing("it has no data directory"));
        }
        Ok(Self {
            path,
            config,
            config_bytes,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its `config` said when it was opened.
    #[must_use]
    pub fn config(&self) -> &RepositoryConfig {
        &self.config
    }

    /// The bytes of `config`, as read when it was opened.
    #[must_use]
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// All segments in numeric order, final or not. Reads directories and metadata only.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DuplicateSegment`].
    pub fn segments(&self) -> Result<Vec<SegmentFile>, Error> {
        let mut all = Vec::new();
        for directory in self.directories()? {
            self.list(directory, &mut all)?;
        }
        all.sort_unstable_by_key(|segment| segment.number);
        match all.windows(2).find(|pair| pair[0].number == pair[1].number) {
            Some(pair) => Err(Error::DuplicateSegment(pair[0].number)),
            None => Ok(all),
        }
    }

    /// The segments of the committed state T: those that exist, from 0 to T.
    ///
    /// # Errors
    /// As [`Repository::segments`].
    pub fn state(&self, transaction: SegmentNumber) -> Result<Vec<SegmentFile>, Error> {
        let mut all = self.segments()?;
        all.retain(|segment| segment.number <= transaction);
        Ok(all)
    }

    /// The highest segment that parses cleanly and ends in a commit.
    ///
    /// Walks from the top, a directory at a time, and looks at the last bytes before it parses, so
    /// that the usual case reads 17 bytes however many segments there are.
    ///
    /// # Errors
    /// [`Error::Io`]. Damaged or unfinished segments at the top are passed over.
    pub fn last_commit(&self) -> Result<Option<LastCommit>, Error> {
        for directory in self.directories()?.into_iter().rev() {
            let mut segments = Vec::new();
            self.list(directory, &mut segments)?;
            segments.sort_unstable_by_key(|segment| segment.number);
            for segment in segments.iter().rev() {
                if self.ends_in_commit(segment)? {
                    return Ok(Some(LastCommit {
                        transaction: segment.number,
                        at: segment.modified,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Whether a segment is the last of a committed transaction: it parses cleanly and ends in a commit.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_commit(&self, number: SegmentNumber) -> Result<bool, Error> {
        let directory = number.0 / self.config.segments_per_dir;
        let name = format!("data/{directory}/{number}");
        let path = self.path.join(&name);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(Error::io(&path))?,
        };
        self.ends_in_commit(&SegmentFile {
            number,
            name,
            size: metadata.len(),
            modified: metadata.modified().map_err(Error::io(&path))?,
        })
    }

    /// Cheap facts for a status.
    ///
    /// # Errors
    /// As [`Repository::segments`].
    pub fn facts(&self) -> Result<Facts, Error> {
        self.facts_of(&self.segments()?)
    }

    /// As [`Repository::facts`], of the segments that it was just found to have.
    ///
    /// # Errors
    /// As [`Repository::last_commit`].
    pub fn facts_of(&self, segments: &[SegmentFile]) -> Result<Facts, Error> {
        let commits = segments
            .iter()
            .filter(|segment| segment.size == COMMIT_SEGMENT_SIZE)
            .count();
        Ok(Facts {
            last_commit: self.last_commit()?,
            transactions: u32::try_from(commits).unwrap_or(u32::MAX),
            segments: u32::try_from(segments.len()).unwrap_or(u32::MAX),
            bytes: segments.iter().map(|segment| segment.size).sum(),
        })
    }

    /// Opens a segment for reading.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_segment(&self, segment: &SegmentFile) -> Result<File, Error> {
        let path = self.path.join(&segment.name);
        crate::file::open(&path).map_err(Error::io(path))
    }

    /// Parses a segment from its start.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Damaged`] when the magic is missing.
    pub fn read_segment(&self, segment: &SegmentFile) -> Result<SegmentReader<File>, Error> {
        let file = self.open_segment(segment)?;
        SegmentReader::new(file).map_err(|error| self.explain(segment, error))
    }

    pub(crate) fn explain(&self, segment: &SegmentFile, error: ReadError) -> Error {
        match error {
            ReadError::Damage(damage) => Error::Damaged {
                segment: segment.number,
                damage,
            },
            ReadError::Io(source) => Error::Io {
                path: self.path.join(&segment.name),
                source,
            },
        }
    }

    /// Numbers of the directories below `data`, ascending. Links are none.
    fn directories(&self) -> Result<Vec<u32>, Error> {
        let data = self.path.join("data");
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&data).map_err(Error::io(&data))? {
            let entry = entry.map_err(Error::io(&data))?;
            if entry.file_type().is_ok_and(|found| found.is_dir()) {
                numbers.extend(entry.file_name().to_str().and_then(canonical_number));
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn list(&self, directory: u32, into: &mut Vec<SegmentFile>) -> Result<(), Error> {
        let path = self.path.join("data").join(directory.to_string());
        for entry in fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            let Some(number) = entry.file_name().to_str().and_then(canonical_number) else {
                continue;
            };
            let metadata = match entry.metadata() {
                // Borg removes unfinished segments when a client starts to write.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::io(entry.path()))?,
            };
            if metadata.is_file() {
                into.push(SegmentFile {
                    number: SegmentNumber(number),
                    name: format!("data/{directory}/{number}"),
                    size: metadata.len(),
                    modified: metadata.modified().map_err(Error::io(entry.path()))?,
                });
            }
        }
        Ok(())
    }

    fn ends_in_commit(&self, segment: &SegmentFile) -> Result<bool, Error> {
        if segment.size < COMMIT_SEGMENT_SIZE {
            return Ok(false);
        }
        let path = self.path.join(&segment.name);
        let mut file = match crate::file::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(Error::io(&path))?,
        };
        let mut tail = [0; COMMIT.len()];
        file.seek(SeekFrom::End(-(COMMIT.len() as i64)))
            .map_err(Error::io(&path))?;
        file.read_exact(&mut tail).map_err(Error::io(&path))?;
        if &tail != COMMIT {
            return Ok(false);
        }
        file.rewind().map_err(Error::io(&path))?;
        // The tail could be the inside of a torn entry: only a clean parse counts.
        let mut last = None;
        let reader = match SegmentReader::new(file) {
            Ok(reader) => reader,
            Err(ReadError::Damage(_)) => return Ok(false),
            Err(error) => return Err(self.explain(segment, error)),
        };
        for entry in reader {
            match entry {
                Ok(entry) => last = Some(entry.kind),
                Err(ReadError::Damage(_)) => return Ok(false),
                Err(error) => return Err(self.explain(segment, error)),
            }
        }
        Ok(last == Some(EntryKind::Commit))
    }
}

/// A number written as Borg writes it: no sign, no leading zero.
fn canonical_number(name: &str) -> Option<u32> {
    let number: u32 = name.parse().ok()?;
    (number.to_string() == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment_writer::{Planned, write_segment};

    fn repository(segments: &[(u32, Vec<u8>)]) -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("config"),
            format!("[repository]\nversion = 1\nid = {}\n", "ab".repeat(32)),
        )
        .unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        for (number, bytes) in segments {
            let directory = dir.path().join("data").join((number / 1000).to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(number.to_string()), bytes).unwrap();
        }
        let repository = Repository::open(dir.path()).unwrap();
        (dir, repository)
    }

    fn put() -> Vec<u8> {
        write_segment(&[Planned::Put([7; 32], vec![1; 500])])
    }

    fn commit() -> Vec<u8> {
        write_segment(&[Planned::Commit])
    }

    #[test]
    fn what_a_copy_lacks_is_counted_up_to_the_last_commit() {
        let all = [
            (0, put()),
            (1, commit()),
            (2, put()),
            (3, commit()),
            (4, put()),
            (5, commit()),
            (6, put()),
        ];
        let (_dir, repository) = repository(&all);
        let segments = repository.segments().unwrap();
        let size = |numbers: &[usize]| numbers.iter().map(|number| all[*number].1.len() as u64).sum::<u64>();
        let lacks = |held: Option<u32>| lacking(&segments, held.map(SegmentNumber), SegmentNumber(5));
        assert_eq!(lacks(Some(5)), (0, 0));
        assert_eq!(lacks(Some(1)), (2, size(&[2, 3, 4, 5])));
        assert_eq!(lacks(None), (3, size(&[0, 1, 2, 3, 4, 5])));
        assert_eq!(lacks(Some(9)), (0, 0));
    }

    #[test]
    fn order_is_numeric_and_directories_count() {
        let (_dir, repository) = repository(&[
            (9, put()),
            (10, commit()),
            (999, put()),
            (1000, put()),
            (2000, commit()),
            (2001, put()),
        ]);
        let numbers: Vec<_> = repository.segments().unwrap().iter().map(|s| s.number.0).collect();
        assert_eq!(numbers, [9, 10, 999, 1000, 2000, 2001]);
        assert_eq!(
            repository.last_commit().unwrap().unwrap().transaction,
            SegmentNumber(2000)
        );
        let state = repository.state(SegmentNumber(2000)).unwrap();
        assert_eq!(state.last().unwrap().name, "data/2/2000");
        assert_eq!(repository.facts().unwrap().transactions, 2);
    }

    #[test]
    fn a_commit_inside_a_torn_entry_does_not_count() {
        // A PUT whose data ends in the commit's bytes, cut so that the file ends there.
        let mut data = vec![3; 100];
        data.extend(COMMIT);
        data.extend([0; 50]);
        let mut torn = write_segment(&[Planned::Put([1; 32], data)]);
        torn.truncate(torn.len() - 50);
        let (_dir, repository) = repository(&[(0, commit()), (1, torn)]);
        assert_eq!(repository.last_commit().unwrap().unwrap().transaction, SegmentNumber(0));
    }

    #[test]
    fn an_intermediate_commit_counts_when_it_is_last() {
        let both = write_segment(&[Planned::Put([1; 32], vec![0; 10]), Planned::Commit]);
        let after = write_segment(&[Planned::Commit, Planned::Put([1; 32], vec![0; 10])]);
        let (_dir, repository) = repository(&[(0, commit()), (1, both), (2, after)]);
        assert_eq!(repository.last_commit().unwrap().unwrap().transaction, SegmentNumber(1));
    }

    #[test]
    fn commits_are_known_by_their_number() {
        let (_dir, repository) = repository(&[(1000, put()), (1001, commit())]);
        assert!(repository.is_commit(SegmentNumber(1001)).unwrap());
        for other in [0, 1000, 1002, 5000] {
            assert!(!repository.is_commit(SegmentNumber(other)).unwrap(), "{other}");
        }
    }

    #[test]
    fn what_is_not_a_repository_says_why() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Repository::open(dir.path()),
            Err(Error::NotARepository {
                why: "it has no config",
                ..
            })
        ));
        assert!(matches!(
            Repository::open(dir.path().join("x")),
            Err(Error::NotARepository { .. })
        ));
        fs::write(dir.path().join("config"), "[repository]\nversion = 2\n").unwrap();
        assert!(matches!(
            Repository::open(dir.path()),
            Err(Error::UnsupportedVersion { .. })
        ));
    }

    #[test]
    fn links_lead_nowhere() {
        use std::os::unix::fs::symlink;
        let (other, _) = repository(&[(0, put()), (1, commit())]);
        let (dir, own) = repository(&[(1000, commit())]);
        symlink(other.path().join("data/0"), dir.path().join("data/0")).unwrap();
        symlink(other.path().join("data/0/0"), dir.path().join("data/1/1001")).unwrap();
        let numbers: Vec<_> = own.segments().unwrap().iter().map(|s| s.number.0).collect();
        assert_eq!(numbers, [1000]);
        fs::remove_dir_all(dir.path().join("data")).unwrap();
        symlink(other.path().join("data"), dir.path().join("data")).unwrap();
        assert!(matches!(
            Repository::open(dir.path()),
            Err(Error::NotARepository { .. })
        ));
    }

    #[test]
    fn an_empty_repository_has_no_commit() {
        let (_dir, repository) = repository(&[]);
        assert_eq!(repository.last_commit().unwrap(), None);
        assert_eq!(repository.facts().unwrap().bytes, 0);
    }
}
