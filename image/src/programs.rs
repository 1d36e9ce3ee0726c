//! Our own programs, built by cargo for this machine's architecture and put where the appliance expects them.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// Packages whose programs go into the image, and the folder they go to.
const PACKAGES: [(&str, &str); 2] = [
    ("strongroom-supervisor", "usr/lib/strongroom"),
    ("strongroom-cli", "usr/bin"),
];

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
    let mut command = process::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root).args([
        "build",
        "--release",
        "--locked",
        "--bins",
        "--message-format=json-render-diagnostics",
    ]);
    for (package, _) in PACKAGES {
        command.args(["--package", package]);
    }
    let messages = process::capture_output("build the appliance's programs", &mut command)?;
    let programs = programs(&messages);
    if programs.is_empty() {
        return Err(Error::Unexpected {
            what: "the appliance's programs".to_owned(),
            detail: "cargo built none".to_owned(),
        });
    }
    Ok(programs)
}

/// Builds one program that stays on this machine, and returns its file.
///
/// # Errors
/// When cargo fails.
pub fn build_one(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    let mut command = process::command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root).args([
        "build",
        "--locked",
        "--bins",
        "--message-format=json-render-diagnostics",
        "--package",
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
