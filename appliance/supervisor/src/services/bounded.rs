//! Running a program that may hang, such as one that talks to a dying disk: with a bound on its time and its output.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited {
        /// Exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// Standard output, cut at the bound.
        stdout: String,
    },
    /// It was killed, its time being over.
    TimedOut,
    /// It could not be started.
    NotStarted(std::io::Error),
}

/// Runs a program for at most `timeout`, and reads at most `bytes_max` of what it says.
pub fn run(program: &str, arguments: &[&str], timeout: Duration, bytes_max: u64) -> Ended {
    let end = Instant::now() + timeout;
    let spawned = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ended::NotStarted(error),
    };
    let (sender, said) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // When this ends early, the program's next write fails, and so does the program.
            let _ = stdout.take(bytes_max).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    let bytes = said.recv_timeout(end.saturating_duration_since(Instant::now()));
    let code = exit_code(&mut child, end);
    match (bytes, code) {
        (Ok(bytes), Some(code)) => Ended::Exited {
            code,
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
        },
        _ => {
            // One that waits for a disk inside the kernel can't be killed; it is not waited for.
            let _ = child.kill();
            let _ = child.try_wait();
            Ended::TimedOut
        }
    }
}

fn exit_code(child: &mut Child, end: Instant) -> Option<Option<i32>> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.code());
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_and_how_it_ends() {
        let minute = Duration::from_secs(60);
        let Ended::Exited { code, stdout } = run("sh", &["-c", "echo hello; exit 3"], minute, 100) else {
            panic!("it did not end");
        };
        assert_eq!((code, stdout.as_str()), (Some(3), "hello\n"));
        assert!(matches!(run("/nonexistent", &[], minute, 100), Ended::NotStarted(_)));
    }

    #[test]
    fn neither_time_nor_output_is_without_bound() {
        assert!(matches!(
            run("sleep", &["60"], Duration::from_millis(200), 100),
            Ended::TimedOut
        ));
        let Ended::Exited { stdout, .. } = run("yes", &[], Duration::from_secs(60), 1000) else {
            panic!("it did not end");
        };
        assert_eq!(stdout.len(), 1000);
    }
}
