//! Mutated repositories of the real Borg, read by everything that reads: nothing panics, memory stays bounded, what lies
//! before a change is read as before it, and all readers agree.
//!
//! An ordinary run takes some hundred inputs from a fixed seed. To look for more, or to repeat the input that failed:
//!
//! `STRONGROOM_FUZZ_SECONDS=300 STRONGROOM_FUZZ_SEED=1 cargo test --release -p strongroom-borg --test fuzz -- --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strongroom_borg::judgement::{self, Thresholds};
use strongroom_borg::verify::Event;
use strongroom_borg::{
    Depth, Entry, EntryKind, Error, HeaderReader, Plan, Repository, SegmentFile, SegmentNumber, SegmentReader,
};
use support::{Borg, files, noise};

/// Inputs of an ordinary run.
const INPUTS: u64 = 300;
/// By how much the memory of this process may grow, in KiB: a few of the largest objects.
const MEMORY_MAX: u64 = 256 * 1024;

type Content = BTreeMap<PathBuf, Vec<u8>>;

/// SplitMix64: small, and each seed gives another sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`; 0 when that is 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % limit.max(1)
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Three repositories of the installed Borg: each way to compress, a key, deleted archives, a torn end.
fn corpus() -> Vec<Content> {
    let made = |encryption: &str, compressions: &[&str]| {
        let borg = Borg::new();
        borg.run(&["init", "--encryption", encryption, &borg.repo()]);
        for (number, compression) in compressions.iter().enumerate() {
            borg.write(&format!("noise{number}"), &noise(3_000, number as u64));
            borg.write(&format!("letter{number}"), "dear diary\n".repeat(300).as_bytes());
            borg.run(&[
                "create",
                "-C",
                compression,
                &borg.archive(&format!("a{number}")),
                "files",
            ]);
        }
        borg.run(&["delete", &borg.archive("a1")]);
        let repo = borg.path("repo");
        let below = |(path, content): (PathBuf, Vec<u8>)| (path.strip_prefix(&repo).unwrap().to_owned(), content);
        files(&repo).into_iter().map(below).collect::<Content>()
    };
    let mut all = vec![
        made("none", &["lz4", "zstd", "zlib", "none"]),
        made("repokey-blake2", &["lz4", "none"]),
    ];
    let mut torn = all[0].clone();
    let last = torn
        .keys()
        .filter(|path| is_segment(path))
        .max_by_key(|path| number(path))
        .unwrap()
        .clone();
    let mut content = torn[&last].clone();
    content.extend(&b"BORG_SEG and so on"[8..]);
    torn.insert(last, content);
    all.push(torn);
    all
}

fn is_segment(path: &Path) -> bool {
    path.starts_with("data")
}

fn number(path: &Path) -> u32 {
    path.file_name().unwrap().to_str().unwrap().parse().unwrap_or(0)
}

/// Changes some files of a repository.
fn mutate(random: &mut Random, content: &mut Content, corpus: &[Content]) {
    for _ in 0..=random.below(3) {
        let paths: Vec<PathBuf> = content.keys().cloned().collect();
        let segments: Vec<PathBuf> = paths.iter().filter(|path| is_segment(path)).cloned().collect();
        let wanted = if random.one_in(3) || segments.is_empty() {
            &paths
        } else {
            &segments
        };
        if wanted.is_empty() {
            return;
        }
        let path = random.pick(wanted).clone();
        match random.below(20) {
            0 => drop(content.remove(&path)),
            1 if is_segment(&path) => {
                // The same under another number, among them the largest there can be.
                let all = [0, 1, 999, 1000, 1001, u32::MAX, random.below(60) as u32];
                let other = *random.pick(&all);
                let bytes = content[&path].clone();
                content.insert(PathBuf::from(format!("data/{}/{other}", other / 1000)), bytes);
            }
            2 => {
                let other = random.pick(corpus);
                let all: Vec<&PathBuf> = other.keys().collect();
                let bytes = other[*random.pick(&all)].clone();
                content.insert(path, bytes);
            }
            _ => {
                let mut bytes = content[&path].clone();
                change(random, &mut bytes);
                // What has a right checksum reaches what lies behind it.
                if is_segment(&path) && !random.one_in(3) {
                    mend(&mut bytes);
                }
                content.insert(path, bytes);
            }
        }
    }
}

fn change(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len());
    let most = 1 + random.below(300);
    let length = random.below(most.min(bytes.len() - at));
    let numbers = [
        0,
        1,
        8,
        9,
        10,
        40,
        41,
        42,
        255,
        1 << 20,
        20 << 20,
        (20 << 20) + 1,
        u32::MAX / 2,
        u32::MAX,
    ];
    match random.below(9) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        3 | 4 if bytes.len() >= at + 4 => {
            let number = *random.pick(&numbers);
            bytes[at..at + 4].copy_from_slice(&if random.one_in(2) {
                number.to_le_bytes()
            } else {
                number.to_be_bytes()
            });
        }
        5 => bytes.truncate(at),
        6 => drop(bytes.drain(at..at + length)),
        7 => {
            let part = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, part);
        }
        _ => {
            let part = noise(length, random.next());
            bytes.splice(at..at, part);
        }
    }
}

/// Makes the checksums of all entries right, as far as their sizes lead from one to the next.
fn mend(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(size) = bytes.get(at + 4..at + 8) {
        let size = u32::from_le_bytes(size.try_into().unwrap()) as usize;
        let Some(entry) = at
            .checked_add(size)
            .and_then(|end| bytes.get_mut(at..end))
            .filter(|_| size >= 9)
        else {
            return;
        };
        let crc = crc32fast::hash(&entry[4..]);
        entry[..4].copy_from_slice(&crc.to_le_bytes());
        at += size;
    }
}

/// All entries of a segment up to the first that is damaged, and whether there is one.
fn entries(bytes: &[u8]) -> (Vec<Entry>, bool) {
    let Ok(reader) = SegmentReader::new(bytes) else {
        return (Vec::new(), true);
    };
    let mut all = Vec::new();
    for entry in reader {
        match entry {
            Ok(entry) => all.push(entry),
            Err(_) => return (all, true),
        }
    }
    (all, false)
}

/// The same as [`entries`], in the plainest words: where each entry starts, its size and its tag.
fn in_plain_words(bytes: &[u8]) -> (Vec<(u64, u32, u8)>, bool) {
    let mut all = Vec::new();
    if !bytes.starts_with(b"BORG_SEG") {
        return (all, true);
    }
    let mut at = 8;
    while at < bytes.len() {
        let Some(header) = bytes.get(at..at + 9) else {
            return (all, true);
        };
        let number = |from: usize| u32::from_le_bytes(header[from..from + 4].try_into().unwrap());
        let (crc, size, tag) = (number(0), number(4), header[8]);
        let end = at + size as usize;
        let is_right = match tag {
            0 => (41..=20 << 20).contains(&size),
            1 => size == 41,
            2 => size == 9,
            _ => false,
        };
        if !is_right || end > bytes.len() || crc32fast::hash(&bytes[at + 4..end]) != crc {
            return (all, true);
        }
        all.push((at as u64, size, tag));
        at = end;
    }
    (all, false)
}

fn tag(entry: &Entry) -> u8 {
    match entry.kind {
        EntryKind::Put(_) => 0,
        EntryKind::Delete(_) => 1,
        EntryKind::Commit => 2,
    }
}

/// What lies before the first change is read the same; and the reader that leaves out data sees what the other one sees.
fn segment_is_read_right(repository: &Repository, file: &SegmentFile, bytes: &[u8], before: Option<&Vec<u8>>) -> bool {
    let (found, damaged) = entries(bytes);
    let told = found
        .iter()
        .map(|entry| (entry.offset, entry.size, tag(entry)))
        .collect();
    assert_eq!((told, damaged), in_plain_words(bytes), "{}", file.name);
    if let Some(before) = before {
        let same = bytes.iter().zip(before).take_while(|(one, other)| one == other).count() as u64;
        let (expected, _) = entries(before);
        let untouched = expected
            .iter()
            .take_while(|entry| entry.offset + u64::from(entry.size) <= same);
        for (number, entry) in untouched.enumerate() {
            assert_eq!(found.get(number), Some(entry), "{}: entry {number}", file.name);
        }
    }
    let headers = match HeaderReader::new(repository.open_segment(file).unwrap()) {
        Ok(reader) => reader.take_while(Result::is_ok).map(Result::unwrap).collect(),
        Err(_) => Vec::new(),
    };
    assert!(headers.starts_with(&found), "{}: {found:?}, but {headers:?}", file.name);
    assert!(damaged || headers.len() == found.len(), "{}", file.name);
    damaged
}

fn read(path: &Path, content: &Content, before: &Content) -> Result<(), Error> {
    let repository = Repository::open(path)?;
    let facts = repository.facts()?;
    let mut damaged = Vec::new();
    for file in repository.segments()? {
        let name = Path::new(&file.name);
        if segment_is_read_right(&repository, &file, &content[name], before.get(name)) {
            damaged.push(file.number);
        }
    }
    let Some(last) = facts.last_commit else {
        return Ok(());
    };
    let transaction = last.transaction;
    let mut problems = 0;
    let plan = Plan {
        sums: true,
        contents: true,
        from_disk: false,
        ..Plan::new()
    };
    let verified = repository.verify(&plan, &mut |event| {
        problems += u64::from(matches!(event, Event::Problem(_)));
        ControlFlow::Continue(())
    });
    if let Ok(outcome) = verified {
        assert!(outcome.bytes <= facts.bytes);
        let counted = damaged
            .iter()
            .filter(|number| Some(**number) <= outcome.transaction)
            .count() as u64;
        assert!(problems >= counted, "{problems} problems told of {damaged:?}");
    }
    for depth in [Depth::Headers, Depth::Everything] {
        let mut seen = 0;
        if let Ok(audit) = repository.audit(None, transaction, depth, &mut |_| seen += 1) {
            assert_eq!(audit.transactions, seen);
            let _ = judgement::judge(&audit, &Thresholds::default());
        }
        let _ = repository.audit(Some(SegmentNumber(transaction.0 / 2)), transaction, depth, &mut |_| {});
    }
    let _ = repository.archives(transaction);
    let _ = repository.quota_use(transaction);
    let _ = repository.freeable(transaction, 10);
    for number in damaged.into_iter().take(2).chain([SegmentNumber(0), transaction]) {
        let _ = repository.archives_touched(transaction, number);
    }
    Ok(())
}

/// A repository on disk, of which only what changes is written.
struct Place {
    folder: tempfile::TempDir,
    content: Content,
}

impl Place {
    fn put(&mut self, wanted: &Content) {
        let path = self.folder.path();
        for name in self.content.keys().filter(|name| !wanted.contains_key(*name)) {
            fs::remove_file(path.join(name)).unwrap();
        }
        for (name, bytes) in wanted
            .iter()
            .filter(|(name, bytes)| self.content.get(*name) != Some(bytes))
        {
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            fs::write(path.join(name), bytes).unwrap();
        }
        self.content = wanted.clone();
    }
}

/// Tells which input it was when a check fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with STRONGROOM_FUZZ_SEED={} STRONGROOM_FUZZ_SECONDS=0", self.0);
        }
    }
}

fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_lies_in_a_repository_is_read_safely() {
    let corpus = corpus();
    let first = setting("STRONGROOM_FUZZ_SEED").unwrap_or(0);
    let time = setting("STRONGROOM_FUZZ_SECONDS").map(Duration::from_secs);
    // Not on the disk, where there is such a place.
    let fast = Path::new("/dev/shm");
    let folder = || {
        if fast.is_dir() {
            tempfile::tempdir_in(fast)
        } else {
            tempfile::tempdir()
        }
    };
    let mut places: Vec<Place> = corpus
        .iter()
        .map(|_| Place {
            folder: folder().unwrap(),
            content: Content::new(),
        })
        .collect();
    for (place, content) in places.iter_mut().zip(&corpus) {
        place.put(content);
        read(place.folder.path(), content, content).unwrap();
    }
    let begun = Instant::now();
    let memory = memory_peak();
    let (mut seed, mut opened) = (first, 0_u64);
    loop {
        let told = Told(seed);
        let mut random = Random(seed);
        let which = random.below(corpus.len());
        let mut content = corpus[which].clone();
        mutate(&mut random, &mut content, &corpus);
        places[which].put(&content);
        opened += u64::from(read(places[which].folder.path(), &content, &corpus[which]).is_ok());
        let grown = memory_peak() - memory;
        assert!(grown < MEMORY_MAX, "memory grew by {grown} KiB");
        drop(told);
        seed += 1;
        let is_over = match time {
            Some(time) => begun.elapsed() >= time,
            None => seed - first >= INPUTS,
        };
        if is_over {
            break;
        }
    }
    let inputs = seed - first;
    println!(
        "{inputs} inputs, {opened} of them repositories; memory grew by {} KiB",
        memory_peak() - memory
    );
    assert!(
        inputs < 10 || opened > inputs / 4,
        "hardly anything got past the door: {opened} of {inputs}"
    );
}
