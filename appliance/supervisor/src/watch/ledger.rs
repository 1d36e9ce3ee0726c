//! What every committed segment of a repository was: its size, its SHA-256 once it was read, and when it was last found
//! sound. One line of text for each, so that it can be read without this program: number, size, SHA-256 or `-`, and the
//! time in Unix seconds or `0`.
//!
//! Owns `segments` in the client's folder. Whoever changes it holds the folder's lock and reads it anew before.

use crate::durable;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use strongroom_borg::verify::Sum;
use strongroom_borg::{SegmentFile, SegmentNumber};

/// First word of the file, before the repository's identity.
const HEAD: &str = "strongroom-segments-1";
/// Most segments that are remembered: about 10 MB on the disk and in memory. Borg makes four for each backup.
pub const SEGMENTS_MAX: usize = 100_000;
/// Longest line.
const LINE_MAX: usize = 128;

/// What is known of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, once it was read.
    pub sum: Option<Sum>,
    /// When it was last found sound; 0: never.
    pub verified: u64,
}

/// All that is known of one repository's segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The repository's identity, in hexadecimal digits.
    pub repository: String,
    /// By number.
    pub segments: BTreeMap<u32, Known>,
}

/// How a repository differs from its ledger, by names and sizes alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Segments that are gone.
    pub gone: Vec<u32>,
    /// Segments of another size.
    pub resized: Vec<u32>,
}

impl Ledger {
    /// The ledger in a client's folder, if it is of this repository; otherwise a new one. One that can't be read is
    /// begun anew: what it said can't be believed.
    pub fn read(folder: &Path, repository: &str) -> io::Result<Self> {
        let new = Self {
            repository: repository.into(),
            segments: BTreeMap::new(),
        };
        let file = match File::open(path(folder)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(new),
            Err(error) => return Err(error),
        };
        Ok(parse(BufReader::new(file))?
            .filter(|ledger| ledger.repository == repository)
            .unwrap_or(new))
    }

    /// Writes it down.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut text = String::with_capacity(64 + self.segments.len() * 96);
        let _ = writeln!(text, "{HEAD} {} {}", self.repository, self.segments.len());
        for (number, known) in &self.segments {
            let _ = write!(text, "{number} {} ", known.size);
            match &known.sum {
                Some(sum) => text.push_str(&hex(sum)),
                None => text.push('-'),
            }
            let _ = writeln!(text, " {}", known.verified);
        }
        durable::write(&path(folder), text.as_bytes(), 0o640)
    }

    /// Adds segments that are new, unread. There may be more than are remembered.
    pub fn add(&mut self, segments: &[SegmentFile]) {
        for segment in segments {
            if self.segments.len() >= SEGMENTS_MAX {
                return;
            }
            self.segments.entry(segment.number.0).or_insert(Known {
                size: segment.size,
                sum: None,
                verified: 0,
            });
        }
    }

    /// Forgets all above a transaction that is no longer the last.
    pub fn forget_after(&mut self, transaction: Option<SegmentNumber>) {
        self.segments
            .retain(|number, _| transaction.is_some_and(|last| *number <= last.0));
    }

    /// What differs among the segments that are known. `present` is in the order of numbers.
    pub fn differences(&self, present: &[SegmentFile]) -> Differences {
        let mut differences = Differences::default();
        for (number, known) in &self.segments {
            match present.binary_search_by_key(number, |segment| segment.number.0) {
                Err(_) => differences.gone.push(*number),
                Ok(at) if present[at].size != known.size => differences.resized.push(*number),
                Ok(_) => {}
            }
        }
        differences
    }

    /// Takes what is there for what is right: the owner accepted it. What has another size is read anew.
    pub fn accept(&mut self, present: &[SegmentFile]) {
        let differences = self.differences(present);
        for number in differences.gone.iter().chain(&differences.resized) {
            self.segments.remove(number);
        }
        self.add(present);
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("segments")
}

/// `None`: it is not of the form, or not whole.
fn parse(mut input: impl BufRead) -> io::Result<Option<Ledger>> {
    let mut line = String::new();
    let mut next = |line: &mut String| -> io::Result<bool> {
        line.clear();
        io::Read::take(&mut input, LINE_MAX as u64 + 1).read_line(line)?;
        Ok(line.ends_with('\n'))
    };
    if !next(&mut line)? {
        return Ok(None);
    }
    let mut head = line.split_ascii_whitespace();
    let (Some(HEAD), Some(repository), Some(count)) = (head.next(), head.next(), head.next()) else {
        return Ok(None);
    };
    let Ok(count) = count.parse::<usize>() else {
        return Ok(None);
    };
    let mut ledger = Ledger {
        repository: repository.into(),
        segments: BTreeMap::new(),
    };
    if count > SEGMENTS_MAX {
        return Ok(None);
    }
    for _ in 0..count {
        if !next(&mut line)? {
            return Ok(None);
        }
        match parse_line(&line) {
            Some((number, known)) => ledger.segments.insert(number, known),
            None => return Ok(None),
        };
    }
    Ok((ledger.segments.len() == count).then_some(ledger))
}

fn parse_line(line: &str) -> Option<(u32, Known)> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let sum = match words.next()? {
        "-" => None,
        text => Some(unhex(text)?),
    };
    let verified = words.next()?.parse().ok()?;
    words
        .next()
        .is_none()
        .then_some((number, Known { size, sum, verified }))
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A SHA-256 from hexadecimal digits.
pub fn unhex(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    if text.len() != 2 * sum.len() || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::SystemTime;

    fn ledger() -> impl Strategy<Value = Ledger> {
        let known = (any::<u64>(), proptest::option::of(any::<Sum>()), any::<u64>())
            .prop_map(|(size, sum, verified)| Known { size, sum, verified });
        proptest::collection::btree_map(any::<u32>(), known, 0..20).prop_map(|segments| Ledger {
            repository: "ab".repeat(32),
            segments,
        })
    }

    fn file(number: u32, size: u64) -> SegmentFile {
        SegmentFile {
            number: SegmentNumber(number),
            name: format!("data/0/{number}"),
            size,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_is_gone_or_of_another_size_is_told_until_it_is_accepted() {
        let mut ledger = Ledger::default();
        ledger.add(&[file(1, 10), file(2, 20), file(10, 30)]);
        ledger.segments.get_mut(&2).unwrap().verified = 5;
        let now = [file(2, 20), file(10, 31), file(11, 7)];
        let differences = ledger.differences(&now);
        assert_eq!((&differences.gone[..], &differences.resized[..]), (&[1][..], &[10][..]));
        ledger.accept(&now);
        assert_eq!(ledger.differences(&now), Differences::default());
        assert_eq!(ledger.segments[&2].verified, 5);
        ledger.forget_after(Some(SegmentNumber(10)));
        assert_eq!(ledger.segments.len(), 2);
        ledger.forget_after(None);
        assert!(ledger.segments.is_empty());
    }

    #[test]
    fn of_another_repository_or_torn_it_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::read(folder.path(), "ab").unwrap();
        ledger.add(&[file(1, 10), file(2, 20)]);
        ledger.write(folder.path()).unwrap();
        assert_eq!(Ledger::read(folder.path(), "ab").unwrap(), ledger);
        assert!(Ledger::read(folder.path(), "cd").unwrap().segments.is_empty());
        let text = std::fs::read(path(folder.path())).unwrap();
        for cut in 0..text.len() {
            std::fs::write(path(folder.path()), &text[..cut]).unwrap();
            assert!(Ledger::read(folder.path(), "ab").unwrap().segments.is_empty(), "{cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_reads_back_as_written(ledger in ledger()) {
            let folder = tempfile::tempdir().unwrap();
            ledger.write(folder.path()).unwrap();
            prop_assert_eq!(Ledger::read(folder.path(), &ledger.repository).unwrap(), ledger);
        }

        #[test]
        fn noise_is_no_ledger(noise in "[0-9a-f \\n-]{0,200}") {
            let text = format!("{HEAD} ab 3\n{noise}");
            let _ = parse(text.as_bytes()).unwrap();
        }
    }
}
