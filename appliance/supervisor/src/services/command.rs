//! Running the system's own programs (mdadm, sfdisk, …) and telling what went wrong in their words.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

/// A program that failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// The program.
        program: String,
        /// Exit status, as text.
        status: String,
        /// Last lines of what it said.
        message: String,
    },
}

/// What a program said, whatever its exit code.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
}

fn start(program: &str) -> impl FnOnce(std::io::Error) -> CommandError {
    let program = program.to_string();
    move |source| CommandError::Start { program, source }
}

/// Runs a program to its end, with `input` on its standard input, and returns its standard output.
///
/// Errors: it could not be started, or ended with another code than 0.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &str) -> Result<String, CommandError> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start(program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input reports that by its own exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(start(program))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(CommandError::Failed {
        program: program.to_string(),
        status: output.status.to_string(),
        message: last_lines(if stderr.trim().is_empty() { &stdout } else { &stderr }),
    })
}

/// Runs a program whose exit codes carry meaning.
pub fn outcome<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Outcome, CommandError> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(start(program))?;
    Ok(Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failure() {
        assert_eq!(run("cat", &[] as &[&str], "hello").unwrap(), "hello");
        let error = run("sh", &["-c", "echo one >&2; echo two >&2; exit 3"], "").unwrap_err();
        assert!(error.to_string().contains("one; two"), "{error}");
        assert!(matches!(
            run("/nonexistent", &[] as &[&str], ""),
            Err(CommandError::Start { .. })
        ));
        assert_eq!(outcome("sh", &["-c", "exit 2"]).unwrap().code, Some(2));
    }
}
