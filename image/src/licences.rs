//! Licences of the crates in the programs: which are admitted, and their texts, collected for the image.
//!
//! The build stops at a crate whose licence is not on the list, or that comes without a text: both are decisions for a
//! person. `deny.toml` holds the same list for cargo-deny.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::crates::Crate;
use crate::error::{Error, OnFile, Result};

/// Licences that a program under MIT or Apache-2.0 may be linked with and shipped in binary form, given their texts.
pub const ADMITTED: [&str; 8] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates whose archive holds no licence text, looked at by a person: the licence's standard text stands in.
const WITHOUT_TEXT: [(&str, &str); 4] = [
    ("bitfields", include_str!("../licences/MIT.txt")),
    ("crc24", include_str!("../licences/MIT.txt")),
    ("cx448", include_str!("../licences/BSD-3-Clause.txt")),
    ("rumqttc", include_str!("../../LICENSE-APACHE")),
];
/// Beginnings of file names that hold licences and what they demand to be shown.
const FILES: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];
const FOLDERS: [&str; 3] = ["licenses", "licences", "license"];
const RULE: &str = "================================================================================";

/// All texts as one: which crate is under what, then each text once.
///
/// # Errors
/// [`Error::Licence`] at a crate that isn't admitted or has no text.
pub fn collect(crates: &[Crate]) -> Result<String> {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut list = String::new();
    let mut texts = String::new();
    for item in crates.iter().filter(|item| item.checksum.is_some()) {
        admit(item)?;
        let mut cited = Vec::new();
        for text in texts_of(item)? {
            let next = numbers.len() + 1;
            let number = *numbers.entry(text.clone()).or_insert(next);
            if number == next {
                let _ = write!(texts, "\n{RULE}\n[{number}]\n\n{text}\n");
            }
            cited.push(format!("[{number}]"));
        }
        let _ = writeln!(
            list,
            "{} {}: {} {}",
            item.name,
            item.version,
            item.licence,
            cited.join(" ")
        );
    }
    Ok(format!(
        "Strongroom's programs contain the following crates, under these licences; texts by number below.\n\n{list}{texts}"
    ))
}

fn admit(item: &Crate) -> Result<()> {
    let refuse = |reason: &str| Error::Licence {
        package: format!("{} {}", item.name, item.version),
        reason: reason.to_owned(),
    };
    let expression = spdx::Expression::parse(&item.licence)
        .map_err(|error| refuse(&format!("{:?} is no SPDX expression ({})", item.licence, error.reason)))?;
    // An exception such as LLVM's only adds permissions.
    let admitted = expression.evaluate(|asked| {
        let id = asked.license.id();
        id.is_some_and(|id| ADMITTED.contains(&id.name))
    });
    if admitted {
        Ok(())
    } else {
        Err(refuse(&format!("{:?} is not on the list", item.licence)))
    }
}

fn texts_of(item: &Crate) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    gather(&item.folder, &mut texts)?;
    for folder in FOLDERS {
        let folder = item.folder.join(folder.to_uppercase());
        if folder.is_dir() {
            gather_all(&folder, &mut texts)?;
        }
    }
    if texts.is_empty()
        && let Some((_, text)) = WITHOUT_TEXT.iter().find(|(name, _)| *name == item.name)
    {
        let authors = match item.authors.as_slice() {
            [] => format!("the authors of {}", item.name),
            authors => authors.join(", "),
        };
        texts.push(clean(&text.replace("<authors>", &authors)));
    }
    if texts.is_empty() {
        return Err(Error::Licence {
            package: format!("{} {}", item.name, item.version),
            reason: "it comes without a licence text".to_owned(),
        });
    }
    texts.dedup();
    Ok(texts)
}

fn gather(folder: &Path, texts: &mut Vec<String>) -> Result<()> {
    for (name, text) in read_folder(folder)? {
        let name = name.to_ascii_lowercase();
        let source = [".rs", ".toml", ".py", ".json"]
            .iter()
            .any(|ending| name.ends_with(ending));
        if FILES.iter().any(|start| name.starts_with(start)) && !source {
            texts.push(text);
        }
    }
    Ok(())
}

fn gather_all(folder: &Path, texts: &mut Vec<String>) -> Result<()> {
    texts.extend(read_folder(folder)?.into_iter().map(|(_, text)| text));
    Ok(())
}

/// Names and texts of a folder's files, sorted. Only files that could hold a licence are opened.
fn read_folder(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).on("read", folder)? {
        let entry = entry.on("read", folder)?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let mut texts = Vec::new();
    for name in names {
        let path = folder.join(&name);
        let content = std::fs::read(&path).on("read", &path)?;
        texts.push((name, clean(&String::from_utf8_lossy(&content))));
    }
    Ok(texts)
}

/// The same text from different crates often differs in line ends only.
fn clean(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, licence: &str, folder: &Path) -> Crate {
        Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.to_owned(),
            checksum: Some("00".to_owned()),
            authors: vec!["A. Author".to_owned()],
            folder: folder.to_owned(),
        }
    }

    #[test]
    fn a_text_that_two_crates_share_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("LICENSE-MIT"), "Permission\r\nis granted \r\n\r\n").unwrap();
        std::fs::write(folder.path().join("license.rs"), "code").unwrap();
        let crates = ["one", "two"].map(|name| package(name, "MIT OR GPL-3.0-only", folder.path()));
        let text = collect(&crates).unwrap();
        assert_eq!(text.matches("Permission\nis granted").count(), 1);
        assert!(text.contains("one 1.0.0: MIT OR GPL-3.0-only [1]\ntwo 1.0.0: MIT OR GPL-3.0-only [1]\n"));
        assert!(!text.contains("code"));
    }

    #[test]
    fn unknown_licences_and_missing_texts_stop_the_build() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |item: Crate| matches!(collect(&[item]), Err(Error::Licence { .. }));
        assert!(refused(package("textless", "MIT", folder.path())));
        std::fs::write(folder.path().join("COPYING"), "text").unwrap();
        for licence in ["GPL-3.0-only", "MIT AND AGPL-3.0-only", "", "my own"] {
            assert!(refused(package("x", licence, folder.path())), "{licence}");
        }
        assert!(!refused(package("x", "Apache-2.0 WITH LLVM-exception", folder.path())));
    }

    #[test]
    fn a_standard_text_names_the_authors() {
        let folder = tempfile::tempdir().unwrap();
        let text = collect(&[package("bitfields", "MIT", folder.path())]).unwrap();
        assert!(text.contains("A. Author") && text.contains("MIT License"));
    }

    #[test]
    fn cargo_deny_is_told_the_same() {
        let deny: toml::Table = include_str!("../../deny.toml").parse().unwrap();
        let allow = deny["licenses"]["allow"].as_array().unwrap();
        let allow: Vec<&str> = allow.iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(allow, ADMITTED);
    }
}
