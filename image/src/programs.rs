//! Our own programs, built by cargo for this machine's architecture and put where the appliance expects them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, OnFile, Result};
use crate::process;
use crate::workspace::Workspace;

/// Packages whose programs go into the image, and the folder they go to.
const PACKAGES: [(&str, &str); 2] = [
    ("strongroom-supervisor", "usr/lib/strongroom"),
    ("strongroom-cli", "usr/bin"),
];

/// cargo's messages of the last build, in the work folder.
const MESSAGES: &str = "programs.json";
/// What separates options in CARGO_ENCODED_RUSTFLAGS.
const SEPARATOR: &str = "\x1f";

/// A built program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it lies on this machine.
    pub file: PathBuf,
    /// Where it goes in the slot, without the leading `/`.
    pub place: String,
}

/// Builds the programs, release profile, locked dependencies.
///
/// # Errors
/// When cargo fails, after it has said why.
pub fn build(workspace: &Workspace) -> Result<Vec<Program>> {
    let mut command = process::cargo();
    command
        .current_dir(&workspace.root)
        .args([
            "build",
            "--release",
            "--locked",
            "--bins",
            "--message-format=json-render-diagnostics",
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&workspace.root, &cargo_home())?);
    for (package, _) in PACKAGES {
        command.args(["--package", package]);
    }
    let messages = process::capture_output("build the appliance's programs", &mut command)?;
    let kept = workspace.work()?.join(MESSAGES);
    std::fs::write(&kept, &messages).on("write", &kept)?;
    let programs = programs(&messages);
    if programs.is_empty() {
        return Err(Error::Unexpected {
            what: "the appliance's programs".to_owned(),
            detail: "cargo built none".to_owned(),
        });
    }
    Ok(programs)
}

/// The programs of the last build.
///
/// # Errors
/// When there was none.
pub fn built(workspace: &Workspace) -> Result<Vec<Program>> {
    let kept = workspace.work()?.join(MESSAGES);
    Ok(programs(&std::fs::read_to_string(&kept).on("read", &kept)?))
}

/// Names of the packages whose programs go into the image.
pub fn packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|(package, _)| *package)
}

/// cargo's own folder, as cargo finds it.
#[must_use]
pub fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    )
}

/// rustc's options, in cargo's form: whatever the environment asks for, and constant names for the folders of sources,
/// which messages of the programs would otherwise repeat.
fn flags(root: &Path, cargo_home: &Path) -> Result<OsString> {
    let mut flags = std::env::var_os("CARGO_ENCODED_RUSTFLAGS").unwrap_or_else(|| {
        let plain = std::env::var("RUSTFLAGS").unwrap_or_default();
        plain.split_whitespace().collect::<Vec<_>>().join(SEPARATOR).into()
    });
    let mut add = |folder: &Path, name: &str| {
        if !flags.is_empty() {
            flags.push(SEPARATOR);
        }
        flags.push("--remap-path-prefix=");
        flags.push(folder);
        flags.push(format!("={name}"));
    };
    add(root, "/strongroom");
    let sources = cargo_home.join("registry/src");
    // One folder for each registry that crates came from; this program itself was compiled from some.
    if sources.is_dir() {
        for registry in std::fs::read_dir(&sources).on("read", &sources)? {
            add(&registry.on("read", &sources)?.path(), "/crates");
        }
    }
    Ok(flags)
}

/// Builds one program that stays on this machine, and returns its file.
///
/// # Errors
/// When cargo fails.
pub fn build_one(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    let mut command = process::cargo();
    command.current_dir(&workspace.root).args([
        "build",
        "--locked",
        "--message-format=json-render-diagnostics",
        // With the features that all packages together ask for: the tests of the crates have built it like that.
        "--workspace",
        "--bin",
        package,
    ]);
    let messages = process::capture_output("build a program for this machine", &mut command)?;
    executables(&messages)
        .find(|(id, name, _)| is_package(id, package) && name == package)
        .map(|(_, _, file)| file)
        .ok_or_else(|| Error::Unexpected {
            what: package.to_owned(),
            detail: "cargo built no such program".to_owned(),
        })
}

/// Reads cargo's messages: <https://doc.rust-lang.org/cargo/reference/external-tools.html>.
fn programs(messages: &str) -> Vec<Program> {
    let mut programs: Vec<Program> = executables(messages)
        .filter_map(|(package, name, file)| {
            let (_, folder) = PACKAGES.iter().find(|(wanted, _)| is_package(&package, wanted))?;
            Some(Program {
                file,
                place: format!("{folder}/{name}"),
            })
        })
        .collect();
    programs.sort_by(|a, b| a.place.cmp(&b.place));
    programs
}

/// Package id, name and file of each executable in cargo's messages.
fn executables(messages: &str) -> impl Iterator<Item = (String, String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let file = message["executable"].as_str()?;
            let package = message["package_id"].as_str()?;
            let name = message["target"]["name"].as_str()?;
            Some((package.to_owned(), name.to_owned(), file.into()))
        })
}

/// Package ids look like `path+file:///…/supervisor#strongroom-supervisor@0.1.0`, or, where the folder has the package's
/// name, `path+file:///…/s3-double#0.1.0`.
fn is_package(id: &str, name: &str) -> bool {
    let Some((path, end)) = id.rsplit_once('#') else {
        return false;
    };
    match end.split_once('@') {
        Some((found, _)) => found == name,
        None => path.rsplit('/').next() == Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_go_to_their_folders_and_libraries_nowhere() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///s/cli#strongroom-cli@0.1.0","target":{"name":"strongroom"},"executable":"/t/strongroom"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///s/sup#strongroom-supervisor@0.1.0","target":{"name":"strongroomd"},"executable":"/t/strongroomd"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///s/sup#strongroom-supervisor@0.1.0","target":{"name":"strongroom_supervisor"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","package_id":"path+file:///s/x#x@0.1.0","target":{"name":"x"},"executable":"/t/x"}"#,
            "\n",
            "not json\n"
        );
        let places: Vec<String> = programs(messages).into_iter().map(|program| program.place).collect();
        assert_eq!(places, ["usr/bin/strongroom", "usr/lib/strongroom/strongroomd"]);
    }

    #[test]
    fn folders_of_sources_get_constant_names() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("registry/src/index.example-1")).unwrap();
        let flags = flags(Path::new("/home/me/strongroom"), home.path()).unwrap();
        let flags = flags.to_str().unwrap();
        assert!(flags.contains("--remap-path-prefix=/home/me/strongroom=/strongroom\x1f"));
        assert!(flags.ends_with("/registry/src/index.example-1=/crates"));
    }

    #[test]
    fn package_ids_are_understood_in_both_forms() {
        assert!(is_package("path+file:///s/x/s3-double#0.1.0", "s3-double"));
        assert!(is_package(
            "path+file:///s/sup#strongroom-supervisor@0.1.0",
            "strongroom-supervisor"
        ));
        assert!(!is_package("path+file:///s/sup#strongroom-supervisor@0.1.0", "sup"));
        assert!(!is_package("x", "x"));
    }
}
