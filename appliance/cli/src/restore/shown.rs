//! The progress, on one line of standard error, if somebody looks at it.

use crate::words;
use std::io::{IsTerminal, Write};
use strongroom_offsite::{Phase, Progress};

pub struct Shown {
    last: Option<String>,
}

impl Shown {
    pub fn new() -> Self {
        Self {
            last: std::io::stderr().is_terminal().then(String::new),
        }
    }

    pub fn show(&mut self, progress: Progress) {
        let Some(last) = &mut self.last else { return };
        let line = line(&progress);
        if *last != line {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
            *last = line;
        }
    }

    /// Leaves the line, if there is one.
    pub fn end(&mut self) {
        if self.last.as_ref().is_some_and(|last| !last.is_empty()) {
            eprintln!();
            self.last = Some(String::new());
        }
    }
}

fn line(progress: &Progress) -> String {
    let what = match progress.phase {
        Phase::Request => "Asking the archive",
        Phase::Wait => "Waiting for the archive (an hour or more; it may be left with Ctrl-C and started again)",
        Phase::Receive => "Receiving, decrypting and checking",
        _ => "Looking",
    };
    let mut text = format!(
        "{what}: {} of {} objects",
        progress.objects_done, progress.objects_total
    );
    if matches!(progress.phase, Phase::Receive | Phase::Compare) {
        text += &format!(
            ", {} of {}",
            words::size(progress.bytes_done),
            words::size(progress.bytes_total)
        );
    }
    text
}
