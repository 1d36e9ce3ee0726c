//! The progress, on one line of standard error that is written over again and again, if somebody looks at it.

use crate::words;
use std::io::{IsTerminal, Stderr, Write};
use strongroom_model::status::Job;
use strongroom_offsite::{Phase, Progress};

pub struct Shown<Screen = Stderr> {
    /// None where nobody looks: the line is for a screen only.
    screen: Option<Screen>,
    last: String,
}

impl Shown {
    pub fn new() -> Self {
        let stderr = std::io::stderr();
        Self::on(stderr.is_terminal().then_some(stderr))
    }
}

impl<Screen: Write> Shown<Screen> {
    fn on(screen: Option<Screen>) -> Self {
        Self {
            screen,
            last: String::new(),
        }
    }

    /// How far a restore is.
    pub fn show(&mut self, progress: Progress) {
        self.write(|| line(&progress));
    }

    /// How far a job of the appliance is, with what it works on.
    pub fn show_job(&mut self, on: &str, job: &Job) {
        self.write(|| {
            let (done, total) = (words::size(job.done_bytes), words::size(job.total_bytes));
            format!("{on}: {done} of {total}")
        });
    }

    fn write(&mut self, line: impl FnOnce() -> String) {
        let Some(screen) = &mut self.screen else { return };
        let line = line();
        if self.last != line {
            let _ = write!(screen, "\r\x1b[K{line}").and_then(|()| screen.flush());
            self.last = line;
        }
    }

    /// Leaves the line, if there is one.
    pub fn end(&mut self) {
        if let Some(screen) = self.screen.as_mut().filter(|_| !self.last.is_empty()) {
            let _ = writeln!(screen);
            self.last.clear();
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

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::status::JobKind;

    #[test]
    fn a_line_is_written_over_when_it_changes_and_left_at_the_end() {
        let job = |done_bytes| Job {
            kind: JobKind::Check,
            client: None,
            target: None,
            on_disk: false,
            done_bytes,
            total_bytes: 4 << 20,
        };
        let mut shown = Shown::on(Some(Vec::new()));
        shown.end();
        for done in [1 << 20, 1 << 20, 2 << 20] {
            shown.show_job("asus", &job(done));
        }
        shown.end();
        shown.end();
        assert_eq!(
            String::from_utf8(shown.screen.unwrap()).unwrap(),
            "\r\x1b[Kasus: 1.0 MiB of 4.0 MiB\r\x1b[Kasus: 2.0 MiB of 4.0 MiB\n"
        );
    }
}
