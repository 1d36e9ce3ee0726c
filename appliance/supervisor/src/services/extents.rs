//! What of an ext4 file system is used, as `dumpe2fs` tells it, and which file a block belongs to, as `debugfs` does.
//! Both read the device only, and may do so while it is mounted: what they miss was written in the meantime, and so is
//! known to be good.

use super::bounded::{self, Ended};
use super::command::CommandError;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest search for the names of files.
const NAMES_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const NAMES_BYTES_MAX: u64 = 1 << 20;

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ExtentsError {
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its output was not of the expected form.
    #[error("dumpe2fs's output can't be understood")]
    Form,
    /// Its output could not be read.
    #[error("dumpe2fs's output could not be read: {0}")]
    Read(#[from] std::io::Error),
}

/// A file system and what of it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Identity of the file system.
    pub uuid: String,
    /// Size of a block in bytes.
    pub block_size: u64,
    /// Ranges in bytes, from and to, ascending, apart from each other: data and the file system's own.
    pub ranges: Vec<(u64, u64)>,
}

impl Used {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }

    /// Bytes before `position`.
    pub fn bytes_before(&self, position: u64) -> u64 {
        self.ranges
            .iter()
            .map(|(from, to)| (*to).min(position).saturating_sub(*from))
            .sum()
    }
}

/// What is used of the file system on `device`.
pub fn used(device: &str) -> Result<Used, ExtentsError> {
    let mut child = Command::new("dumpe2fs")
        .arg(device)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| CommandError::Start {
            program: "dumpe2fs".into(),
            source,
        })?;
    let stdout = child.stdout.take().ok_or(ExtentsError::Form)?;
    let parsed = parse(BufReader::new(stdout));
    let status = child.wait()?;
    if !status.success() {
        let message = "the file system's own tables could not be read".to_string();
        let (program, status) = ("dumpe2fs".to_string(), status.to_string());
        return Err(CommandError::Failed {
            program,
            status,
            message,
        }
        .into());
    }
    parsed
}

/// Reads the output line by line: for 16 TB it is tens of megabytes.
fn parse(output: impl BufRead) -> Result<Used, ExtentsError> {
    let mut used = Used::default();
    let (mut blocks, mut next) = (None, 0);
    for line in output.lines() {
        let line = line?;
        if let Some(free) = line.strip_prefix("  Free blocks: ") {
            for range in free.split(", ").filter(|range| !range.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (block(first)?, block(last)?);
                if first < next || last < first {
                    return Err(ExtentsError::Form);
                }
                push(&mut used, next, first)?;
                next = last + 1;
            }
        } else if let Some(uuid) = line.strip_prefix("Filesystem UUID:") {
            used.uuid = uuid.trim().to_string();
        } else if let Some(size) = line.strip_prefix("Block size:") {
            used.block_size = block(size)?;
        } else if let Some(count) = line.strip_prefix("Block count:") {
            blocks = Some(block(count)?);
        }
    }
    let blocks = blocks.ok_or(ExtentsError::Form)?;
    if used.block_size == 0 || used.uuid.is_empty() || next > blocks {
        return Err(ExtentsError::Form);
    }
    push(&mut used, next, blocks)?;
    Ok(used)
}

fn block(text: &str) -> Result<u64, ExtentsError> {
    text.trim().parse().map_err(|_| ExtentsError::Form)
}

fn push(used: &mut Used, from: u64, to: u64) -> Result<(), ExtentsError> {
    if from < to {
        let bytes = |block: u64| block.checked_mul(used.block_size).ok_or(ExtentsError::Form);
        let range = (bytes(from)?, bytes(to)?);
        used.ranges.push(range);
    }
    Ok(())
}

/// The files that blocks belong to, from the file system's root and without the leading `/`; absent for blocks of no
/// file. Looks at every inode: minutes on a large file system.
pub fn files(device: &str, blocks: &[u64]) -> Vec<(u64, String)> {
    if blocks.is_empty() {
        return Vec::new();
    }
    let wanted: Vec<String> = blocks.iter().map(u64::to_string).collect();
    let found = debugfs(device, &format!("icheck {}", wanted.join(" ")));
    let inodes = pairs(&found);
    let mut numbers: Vec<String> = inodes.iter().map(|(_, inode)| inode.clone()).collect();
    numbers.sort();
    numbers.dedup();
    if numbers.is_empty() {
        return Vec::new();
    }
    let names = debugfs(device, &format!("ncheck {}", numbers.join(" ")));
    let names: Vec<(String, String)> = pairs(&names);
    inodes
        .into_iter()
        .filter_map(|(block, inode)| {
            let (_, name) = names.iter().find(|(of, _)| *of == inode)?;
            Some((block.parse().ok()?, name.trim_start_matches('/').to_string()))
        })
        .collect()
}

fn debugfs(device: &str, request: &str) -> String {
    let arguments = ["-R", request, device];
    match bounded::run("debugfs", &arguments, NAMES_TIMEOUT, NAMES_BYTES_MAX) {
        Ended::Exited { stdout, .. } => stdout,
        _ => String::new(),
    }
}

/// Lines of a number, a tab and something; the heading and `<block not found>` are none.
fn pairs(output: &str) -> Vec<(String, String)> {
    output
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(number, rest)| number.parse::<u64>().is_ok() && !rest.starts_with('<'))
        .map(|(number, rest)| (number.to_string(), rest.trim().to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::command;
    use proptest::prelude::*;

    const HEAD: &str = "Filesystem UUID:          8d3f\nBlock count:              100\nFree blocks:              30\nBlock size:               1024\n\nGroup 0: (Blocks 0-99)\n";

    fn of(groups: &str) -> Result<Used, ExtentsError> {
        parse(format!("{HEAD}{groups}").as_bytes())
    }

    #[test]
    fn what_is_not_free_is_used() {
        let used = of("  Free blocks: 10-19, 25, 81-99\n").unwrap();
        assert_eq!(used.ranges, [(0, 10 << 10), (20 << 10, 25 << 10), (26 << 10, 81 << 10)]);
        assert_eq!(used.bytes(), 70 << 10);
        assert_eq!(used.bytes_before(22 << 10), 12 << 10);
        assert_eq!(of("  Free blocks: \n").unwrap().bytes(), 100 << 10);
        for strange in [
            "  Free blocks: x\n",
            "  Free blocks: 5-2\n",
            "  Free blocks: 10, 9\n",
            "  Free blocks: 200\n",
        ] {
            assert!(of(strange).is_err(), "{strange}");
        }
        assert!(parse(&b""[..]).is_err());
    }

    #[test]
    fn a_real_file_system_and_the_files_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fs");
        let device = path.to_str().unwrap();
        std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
        command::run("/sbin/mkfs.ext4", &["-q", "-b", "4096", device], "").unwrap();
        let before = used(device).unwrap();
        let content = folder.path().join("content");
        std::fs::write(&content, vec![7; 1 << 20]).unwrap();
        let write = format!("write {} seventeen", content.display());
        command::run("/sbin/debugfs", &["-w", "-R", &write, device], "").unwrap();
        let after = used(device).unwrap();
        assert_eq!(after.uuid, before.uuid);
        assert_eq!(after.bytes() - before.bytes(), 1 << 20);
        let said = command::run("/sbin/debugfs", &["-R", "blocks seventeen", device], "").unwrap();
        let block: u64 = said.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(files(device, &[block, 1]), [(block, "seventeen".to_string())]);
        assert!(used("/dev/null").is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(text in "(  Free blocks: )?[0-9, -]{0,40}\n?") {
            let _ = of(&text);
            let _ = pairs(&text);
        }
    }
}
