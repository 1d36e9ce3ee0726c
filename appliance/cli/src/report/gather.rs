//! Reads files and runs programs for the bundle: bounded in time and size, and never failing: what went wrong is told
//! in the text.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take; a busy PC with a long journal needs some of it.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What a program prints, the last `limit` bytes of it, and how it ended if not well.
pub fn program(line: &[&str], limit: usize) -> String {
    let Some((name, arguments)) = line.split_first() else {
        return String::new();
    };
    let child = Command::new(name)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("SYSTEMD_COLORS", "0")
        // An administrator's PATH lacks these.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return format!("({name} could not be started: {error})\n"),
    };
    let reader = |stream: Option<Box<dyn Read + Send>>, limit| {
        std::thread::spawn(move || stream.map_or_else(|| (Vec::new(), 0), |stream| last_of(stream, limit)))
    };
    let out = reader(child.stdout.take().map(|stream| Box::new(stream) as _), limit);
    let errors = reader(child.stderr.take().map(|stream| Box::new(stream) as _), 4096);
    let end = Instant::now() + PATIENCE;
    let outcome = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break String::new(),
            Ok(Some(status)) => break format!("({name} ended with {status})\n"),
            Ok(None) if Instant::now() < end => std::thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                break format!("({name} took longer than {} s and was stopped)\n", PATIENCE.as_secs());
            }
            Err(error) => break format!("({name}: {error})\n"),
        }
    };
    let (out, errors) = (out.join().unwrap_or_default(), errors.join().unwrap_or_default());
    format!("{}{}{outcome}", told(out), told(errors))
}

/// A file's content, the last `limit` bytes of it.
pub fn file(path: &Path, limit: usize) -> String {
    match std::fs::File::open(path) {
        Ok(file) => told(last_of(file, limit)),
        Err(error) => format!("({}: {error})\n", path.display()),
    }
}

/// The last `limit` bytes of a stream, and how many came before them.
fn last_of(mut stream: impl Read, limit: usize) -> (Vec<u8>, u64) {
    let (mut kept, mut dropped) = (VecDeque::new(), 0);
    let mut chunk = [0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        kept.extend(&chunk[..length]);
        let excess = kept.len().saturating_sub(limit);
        kept.drain(..excess);
        dropped += excess as u64;
    }
    (kept.into(), dropped)
}

fn told((bytes, dropped): (Vec<u8>, u64)) -> String {
    let text = String::from_utf8_lossy(&bytes);
    if dropped == 0 {
        return text.into_owned();
    }
    // The first line is cut in half: a half could hold a secret without its name.
    let whole = text.split_once('\n').map_or("", |(_, rest)| rest);
    format!("({dropped} bytes before this are left out)\n{whole}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_text() {
        assert!(program(&["/nonexistent/program"], 100).contains("could not be started"));
        let text = program(&["sh", "-c", "echo out; echo err >&2; exit 3"], 100);
        assert!(
            text.starts_with("out\nerr\n") && text.contains("ended with exit status: 3"),
            "{text}"
        );
        assert!(file(Path::new("/nonexistent"), 10).contains("/nonexistent"));
    }

    #[test]
    fn only_the_end_of_much_is_kept_in_whole_lines() {
        let text = program(&["sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do echo line $n; done"], 16);
        assert_eq!(text, "(47 bytes before this are left out)\nline 8\nline 9\n");
    }
}
