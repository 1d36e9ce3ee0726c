//! The crates that are compiled into the appliance's programs: what cargo really links for this target, without build
//! scripts, procedural macros and tests.
//!
//! Reads `cargo tree`, `cargo metadata` and Cargo.lock. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::error::{Error, OnFile, Result};
use crate::process;
use crate::programs;
use crate::workspace::Workspace;

/// What the programs are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// One crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression; empty if it names none.
    pub licence: String,
    /// SHA-256 of its archive, as Cargo.lock demands it; none for crates of this project.
    pub checksum: Option<String>,
    /// Who wrote it, as it says itself.
    pub authors: Vec<String>,
    /// Its sources on this machine.
    pub folder: PathBuf,
}

/// The crates in the programs, sorted by name and version.
///
/// # Errors
/// When cargo fails or says what this program does not understand.
pub fn linked(workspace: &Workspace) -> Result<Vec<Crate>> {
    let mut tree = cargo(workspace, "tree");
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none"])
        .args(["--format", "{p}", "--target", TARGET]);
    for package in programs::packages() {
        tree.args(["--package", package]);
    }
    let tree = process::capture("list the crates in the programs", &mut tree)?;
    let mut metadata = cargo(workspace, "metadata");
    metadata.args(["--format-version", "1", "--filter-platform", TARGET]);
    let metadata = process::capture("ask cargo about the crates", &mut metadata)?;
    let lock = workspace.root.join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).on("read", &lock)?;
    join(&names(&tree), &metadata, &lock)
}

fn cargo(workspace: &Workspace, verb: &str) -> std::process::Command {
    let mut command = process::cargo();
    command.current_dir(&workspace.root).args([verb, "--locked"]);
    command
}

/// Names and versions out of lines like `aes v0.8.4` or `strongroom-borg v0.1.0 (/folder) (*)`.
fn names(tree: &str) -> BTreeSet<(String, String)> {
    tree.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
        })
        .collect()
}

fn join(names: &BTreeSet<(String, String)>, metadata: &str, lock: &str) -> Result<Vec<Crate>> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| odd(&error.to_string()))?;
    let checksums = checksums(lock)?;
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    names
        .iter()
        .map(|(name, version)| {
            let package = packages
                .iter()
                .find(|package| package["name"] == name.as_str() && package["version"] == version.as_str())
                .ok_or_else(|| odd(&format!("nothing about {name} {version}")))?;
            let text = |key: &str| package[key].as_str().unwrap_or_default();
            let authors = package["authors"].as_array().unwrap_or(&empty);
            let manifest = PathBuf::from(text("manifest_path"));
            Ok(Crate {
                // Before SPDX, crates wrote `A/B` for a choice.
                licence: text("license").replace('/', " OR "),
                checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
                authors: authors.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                folder: manifest.parent().unwrap_or(&manifest).to_owned(),
                name: name.clone(),
                version: version.clone(),
            })
        })
        .collect()
}

fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml::Table = lock.parse().map_err(|error: toml::de::Error| Error::Unexpected {
        what: "Cargo.lock".to_owned(),
        detail: error.to_string(),
    })?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let text = |package: &toml::Value, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    Ok(packages
        .into_iter()
        .flatten()
        .filter_map(|package| {
            let key = (text(package, "name")?, text(package, "version")?);
            Some((key, text(package, "checksum")?))
        })
        .collect())
}

fn odd(detail: &str) -> Error {
    Error::Unexpected {
        what: "cargo metadata".to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_three_accounts_are_joined() {
        let tree = "own v0.1.0 (/s/own)\nlib v1.0.0+x\nlib v1.0.0+x (*)\n\n";
        let metadata = r#"{"packages":[
            {"name":"lib","version":"0.9.0","license":"X","manifest_path":"/r/lib-0.9.0/Cargo.toml","authors":[]},
            {"name":"lib","version":"1.0.0+x","license":"MIT/Apache-2.0","manifest_path":"/r/lib-1/Cargo.toml","authors":["A"]},
            {"name":"own","version":"0.1.0","license":null,"manifest_path":"/s/own/Cargo.toml","authors":[]}]}"#;
        let lock = "version = 4\n[[package]]\nname = \"lib\"\nversion = \"1.0.0+x\"\nchecksum = \"ab\"\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let crates = join(&names(tree), metadata, lock).unwrap();
        assert_eq!(crates.len(), 2);
        assert_eq!(crates[0].licence, "MIT OR Apache-2.0");
        assert_eq!(crates[0].checksum.as_deref(), Some("ab"));
        assert_eq!(crates[0].folder, PathBuf::from("/r/lib-1"));
        assert_eq!((crates[1].licence.as_str(), &crates[1].checksum), ("", &None));
        assert!(join(&names("gone v1.0.0"), metadata, lock).is_err());
    }
}
