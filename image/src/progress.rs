//! What the person at the keyboard sees: one line a stage with its time, and a bar for what is counted in bytes.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::Result;

static TIMES: Mutex<Vec<(String, f32)>> = Mutex::new(Vec::new());

/// Runs one stage of a build and tells its name, then how long it took.
///
/// # Errors
/// Those of the stage.
pub fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let terminal = std::io::stderr().is_terminal();
    if terminal {
        eprint!("  {name:<52} …");
    }
    let start = Instant::now();
    let result = work();
    let elapsed = start.elapsed();
    if let Ok(mut times) = TIMES.lock() {
        times.push((name.to_owned(), elapsed.as_secs_f32()));
    }
    let took = seconds(elapsed);
    let end = if result.is_ok() {
        took
    } else {
        format!("{took}, failed")
    };
    if terminal {
        eprintln!("\r  {name:<52} {end}");
    } else {
        eprintln!("  {name:<52} {end}");
    }
    result
}

/// Each stage so far and its time in seconds.
#[must_use]
pub fn times() -> Vec<(String, f32)> {
    TIMES.lock().map(|times| times.clone()).unwrap_or_default()
}

/// Tells that a stage had nothing to do.
pub fn unchanged(name: &str) {
    eprintln!("  {name:<52} unchanged");
}

/// A bar on the terminal; on anything else one line a tenth.
#[derive(Debug)]
pub struct Bar {
    label: &'static str,
    total: u64,
    done: u64,
    shown: Option<u64>,
    start: Instant,
    terminal: bool,
}

impl Bar {
    /// A bar for `total` bytes.
    #[must_use]
    pub fn new(label: &'static str, total: u64) -> Self {
        Self {
            label,
            total,
            done: 0,
            shown: None,
            start: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Counts bytes.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let step = if self.terminal { percent } else { percent / 10 };
        if self.shown == Some(step) {
            return;
        }
        self.shown = Some(step);
        if self.terminal {
            let filled = usize::try_from(percent / 4).unwrap_or(25).min(25);
            eprint!(
                "\r  {:<10} [{:<25}] {percent:>3} %  {} of {} MiB, {} MiB/s ",
                self.label,
                "#".repeat(filled),
                self.done >> 20,
                self.total >> 20,
                self.rate()
            );
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("  {:<10} {percent:>3} %", self.label);
        }
    }

    /// Ends the bar's line.
    pub fn finish(self) {
        if self.terminal {
            eprintln!();
        } else {
            eprintln!(
                "  {:<10} done: {} MiB in {}",
                self.label,
                self.done >> 20,
                seconds(self.start.elapsed())
            );
        }
    }

    fn rate(&self) -> u64 {
        let seconds = self.start.elapsed().as_secs().max(1);
        (self.done >> 20) / seconds
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:>6.1} s", duration.as_secs_f32())
}
