//! One file out of the newest archive of a restored repository: the last proof, which a person can compare with what is at
//! home.

use super::DrillFailure;
use crate::restore::borg::Borg;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use strongroom_model::drill::Extracted;
use strongroom_offsite::digest::Digest as Sum;

/// Largest file that is chosen by chance, in bytes.
const CHOSEN_MAX: u64 = 64 * 1024 * 1024;

/// A file in an archive, by Borg's list.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    path: String,
    size: u64,
}

/// What came of it.
pub enum Taken {
    /// The file came out whole.
    Out(Box<Extracted>),
    /// There is no archive, or no file in it to be chosen.
    NothingThere,
    /// Borg could not give it.
    Failed(String),
}

/// Takes one file out of an archive: that at `path` as it was backed up, or one chosen by chance.
///
/// Errors: what was asked for is not there, or Borg does not open the archive.
pub fn take(borg: &Borg, repository: &Path, archive: Option<&str>, path: Option<&str>) -> Result<Taken, DrillFailure> {
    let Some(archive) = archive else {
        return match path {
            Some(path) => Err(DrillFailure::NoFile(path.into(), "(there is none)".into())),
            None => Ok(Taken::NothingThere),
        };
    };
    let mut place = repository.as_os_str().to_owned();
    place.push("::");
    place.push(archive);
    // Borg keeps paths without the slash before them.
    let named = path.map(|path| path.trim_start_matches('/'));
    let mut list = borg.command();
    list.args(["list", "--json-lines"])
        .arg(&place)
        .args(named.map(literally));
    let found = lines(&mut list, |lines| choose(lines, named))?;
    let Some(found) = found else {
        return match path {
            Some(path) => Err(DrillFailure::NoFile(path.into(), archive.into())),
            None => Ok(Taken::NothingThere),
        };
    };
    let mut extract = borg.command();
    extract
        .args(["extract", "--stdout"])
        .arg(&place)
        .arg(literally(&found.path));
    let mut hash = Sha256::new();
    let came = lines(&mut extract, |output| {
        let mut bytes = 0;
        loop {
            let piece = output.fill_buf()?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            hash.update(piece);
            let length = piece.len();
            bytes += length as u64;
            output.consume(length);
        }
    });
    let Ok(came) = came else {
        return Ok(Taken::Failed(format!(
            "borg could not take {} out of the archive {archive}",
            found.path
        )));
    };
    if came != found.size {
        return Ok(Taken::Failed(format!(
            "{} came out of the archive {archive} with {came} bytes instead of {}",
            found.path, found.size
        )));
    }
    let sha256 = Sum(hash.finalize().into()).to_string();
    Ok(Taken::Out(Box::new(Extracted {
        archive: archive.into(),
        path: found.path.as_str().into(),
        bytes: came,
        sha256: sha256.as_str().into(),
    })))
}

/// The name of the newest archive; none when there is no archive.
///
/// Errors: Borg does not open the repository's archives.
pub fn newest(borg: &Borg, repository: &Path) -> Result<Option<String>, DrillFailure> {
    let mut list = borg.command();
    list.args(["list", "--json", "--last", "1"]).arg(repository);
    let text = lines(&mut list, |output| {
        let mut text = Vec::new();
        output.read_to_end(&mut text).map(|_| text)
    })?;
    let list: Value = serde_json::from_slice(&text).map_err(|error| DrillFailure::Archives(error.to_string()))?;
    let name = list.pointer("/archives/0/name").and_then(Value::as_str);
    Ok(name.map(str::to_owned))
}

/// A path as Borg takes it, whatever is in it: `pp:` is this path and what is below it. (`pf:`, this path alone, is extracted
/// but not counted as matched by Borg 1.2.4, which then ends with a warning.)
fn literally(path: &str) -> String {
    format!("pp:{path}")
}

/// The file to take: that of this path if it was named, otherwise one by chance that is neither empty nor large. A list may
/// have millions of lines, of which one is kept.
fn choose(lines: &mut dyn BufRead, named: Option<&str>) -> io::Result<Option<Listed>> {
    let random = RandomState::new();
    let (mut chosen, mut seen) = (None, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(chosen);
        }
        let Some(listed) = file_of(&line) else { continue };
        if let Some(named) = named {
            if listed.path == named {
                chosen = Some(listed);
            }
        } else if (1..=CHOSEN_MAX).contains(&listed.size) {
            seen += 1;
            if random.hash_one(seen).is_multiple_of(seen) {
                chosen = Some(listed);
            }
        }
    }
}

/// A regular file of Borg's list; `None` for anything else, and for names that are not UTF-8.
fn file_of(line: &[u8]) -> Option<Listed> {
    let item: Value = serde_json::from_slice(line).ok()?;
    if item.get("type")?.as_str()? != "-" {
        return None;
    }
    Some(Listed {
        path: item.get("path")?.as_str()?.to_owned(),
        size: item.get("size")?.as_u64()?,
    })
}

/// Reads what a call of Borg prints, and waits for its end. What it complains of goes to standard error.
fn lines<T>(command: &mut Command, read: impl FnOnce(&mut dyn BufRead) -> io::Result<T>) -> Result<T, DrillFailure> {
    let failed = |error: io::Error| DrillFailure::Archives(error.to_string());
    let mut child: Child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().map(BufReader::new);
    let came = output.map_or_else(
        || Err(io::Error::other("it has no output")),
        |mut output| read(&mut output),
    );
    let status = child.wait().map_err(failed)?;
    if status.success() {
        came.map_err(failed)
    } else {
        Err(DrillFailure::Archives(format!("borg ended with {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn list(lines: &str, named: Option<&str>) -> Option<String> {
        choose(&mut lines.as_bytes(), named).unwrap().map(|listed| listed.path)
    }

    #[test]
    fn one_file_is_chosen_by_chance_and_none_that_would_not_do() {
        let lines = "{\"type\":\"d\",\"path\":\"files\",\"size\":0}\n\
             {\"type\":\"-\",\"path\":\"files/a\",\"size\":5}\n\
             {\"type\":\"-\",\"path\":\"files/empty\",\"size\":0}\n\
             {\"type\":\"-\",\"path\":\"files/large\",\"size\":67108865}\n\
             {\"type\":\"l\",\"path\":\"files/link\",\"size\":7}\n\
             {\"type\":\"-\",\"path\":\"files/\\udcff\",\"size\":7}\n\
             {\"type\":\"-\",\"path\":\"files/b\",\"size\":6}\nnonsense\n";
        let chosen: BTreeSet<String> = (0..200).filter_map(|_| list(lines, None)).collect();
        assert_eq!(chosen, BTreeSet::from(["files/a".to_owned(), "files/b".to_owned()]));
        assert_eq!(list("", None), None);
        // One that is named may be empty or large, but is none of those below it.
        for (named, found) in [
            ("files/empty", true),
            ("files/large", true),
            ("files", false),
            ("files/link", false),
        ] {
            assert_eq!(list(lines, Some(named)).as_deref(), found.then_some(named));
        }
    }
}
