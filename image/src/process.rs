//! Starting foreign programs: output goes to a log file or is captured, and a failure carries the end of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, OnFile, Result};

/// How much of a program's output an error message repeats, in lines.
const TAIL_LINES: usize = 15;

/// Runs `command` to its end with output in the file `log`, which is overwritten.
///
/// # Errors
/// When it can't be started or ends with another status than 0.
pub fn run_logged(purpose: &str, command: &mut Command, log: &Path) -> Result<()> {
    let out = File::create(log).on("create", log)?;
    let err = out.try_clone().on("create", log)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()
        .map_err(|source| cannot_start(command, source))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(log).on("read", log)?;
    Err(Error::Program {
        purpose: purpose.to_owned(),
        program: name(command),
        status,
        log: Some(log.to_owned()),
        output: last_lines(&String::from_utf8_lossy(&text), TAIL_LINES),
    })
}

/// Runs `command` to its end and returns what it printed on standard output.
///
/// # Errors
/// When it can't be started or ends with another status than 0.
pub fn capture(purpose: &str, command: &mut Command) -> Result<String> {
    let output = output_of(command)?;
    judged(purpose, command, output)
}

fn judged(purpose: &str, command: &Command, output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Program {
        purpose: purpose.to_owned(),
        program: name(command),
        status: output.status,
        log: None,
        output: last_lines(&String::from_utf8_lossy(&output.stderr), TAIL_LINES),
    })
}

/// Like [`capture`], with `input` on the program's standard input.
///
/// # Errors
/// When it can't be started or ends with another status than 0.
pub fn capture_with_input(purpose: &str, command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| cannot_start(command, source))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says so by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|source| cannot_start(command, source))?;
    judged(purpose, command, output)
}

/// Like [`capture`], but what the program says on standard error is shown as it comes, such as its own progress.
///
/// # Errors
/// When it can't be started or ends with another status than 0.
pub fn capture_output(purpose: &str, command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| cannot_start(command, source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Program {
        purpose: purpose.to_owned(),
        program: name(command),
        status: output.status,
        log: None,
        output: String::new(),
    })
}

/// Runs `command` to its end, whatever its status.
///
/// # Errors
/// When it can't be started.
pub fn output_of(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| cannot_start(command, source))
}

/// Whether a program of this name is on the path, or where administrators' programs are.
#[must_use]
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

/// The path with the administrators' directories added: on Debian an ordinary user's lacks `mkfs.ext4`.
#[must_use]
pub fn full_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// A command that finds administrators' programs too, in the plain locale.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", full_path()).env("LC_ALL", "C.UTF-8");
    command
}

/// cargo, the one that started this program if it was one. What that one said of this package is left out: build scripts
/// take it for a change, and some of them compile for minutes.
#[must_use]
pub fn cargo() -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    command
}

/// The last lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// That `command` could not be started.
#[must_use]
pub fn cannot_start(command: &Command, source: std::io::Error) -> Error {
    Error::Start {
        program: name(command),
        source,
    }
}

fn name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned()
}
