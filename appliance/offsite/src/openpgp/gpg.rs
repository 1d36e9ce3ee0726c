//! Opening messages through the owner's own gpg: with its agent, which asks for the passphrase itself, and with smart
//! cards. Nothing of the key comes near this process.
//!
//! gpg prints plaintext before it has checked the end of a message. What came out counts for nothing until
//! [`Gpg::open`] has returned without an error: write it to a temporary place.

use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::open::OpenError;

/// What gpg says on standard error is kept up to this many bytes.
const SAID_MAX: u64 = 64 * 1024;
/// Status lines go to standard error, between the words for people (GnuPG's `doc/DETAILS`).
const STATUS: &str = "[GNUPG:] ";

/// Held until a message's key is opened. The agent has little secure memory: what several ask of it at the same time can
/// fail, and gpg then says that there is no key. Everything else of a message needs no agent, and goes on beside others.
static ASKING: Mutex<()> = Mutex::new(());

/// The gpg of whoever runs this, with its own settings and keys.
#[derive(Debug, Clone)]
pub struct Gpg {
    program: PathBuf,
}

impl Default for Gpg {
    /// `gpg`, from the search path.
    fn default() -> Self {
        Self::new("gpg")
    }
}

impl Gpg {
    /// Another program that takes gpg's options.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// Decrypts `message` into `out` and returns how many bytes that were, once gpg has ended well and says that it
    /// decrypted something.
    ///
    /// # Errors
    /// [`OpenError::Gpg`], [`OpenError::Write`].
    pub fn open(&self, message: impl BufRead + Send, out: &mut dyn Write) -> Result<u64, OpenError> {
        let mut asking = Some(ASKING.lock().unwrap_or_else(PoisonError::into_inner));
        let mut child = Command::new(&self.program)
            .args(["--batch", "--no-tty", "--status-fd", "2", "--decrypt"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| OpenError::Gpg(format!("{} could not be started: {error}", self.program.display())))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) = pipes else {
            return Err(OpenError::Gpg("it has no pipes".into()));
        };
        let (copied, said) = thread::scope(|scope| {
            // gpg may end before it has read all; what it says tells why.
            let feeder = scope.spawn(move || {
                let mut message = message;
                let _ = io::copy(&mut message, &mut stdin);
            });
            let listener = scope.spawn(move || said(stderr));
            let copied = copy(&mut stdout, out, &mut || asking = None);
            if copied.is_err() {
                let _ = child.kill();
            }
            drop(stdout);
            let _ = feeder.join();
            (copied, listener.join().unwrap_or_default())
        });
        let ended = end(child);
        let bytes = copied?;
        let is_good = ended.is_ok_and(|good| good) && said.lines().any(|line| status(line) == Some("DECRYPTION_OKAY"));
        if is_good {
            Ok(bytes)
        } else {
            Err(OpenError::Gpg(words(&said)))
        }
    }
}

fn end(mut child: Child) -> io::Result<bool> {
    Ok(child.wait()?.success())
}

/// `begun` is called when something comes.
fn copy(from: &mut impl Read, to: &mut dyn Write, begun: &mut dyn FnMut()) -> Result<u64, OpenError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(OpenError::Damaged(error)),
        };
        begun();
        to.write_all(buffer.get(..read).unwrap_or_default())
            .map_err(OpenError::Write)?;
        total += read as u64;
    }
}

/// All that gpg says, to its end, of which the beginning is kept.
fn said(mut stderr: impl Read) -> String {
    let mut kept = Vec::new();
    let _ = stderr.by_ref().take(SAID_MAX).read_to_end(&mut kept);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

/// The keyword of a status line.
fn status(line: &str) -> Option<&str> {
    line.strip_prefix(STATUS)?.split(' ').next()
}

/// Its words for people, in one line.
fn words(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with(STATUS))
        .map(|line| line.trim().trim_start_matches("gpg: "))
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        "it gave no reason".into()
    } else {
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_told_from_words() {
        let said = "[GNUPG:] ENC_TO 1 18 0\ngpg: decryption failed: No secret key\n[GNUPG:] DECRYPTION_FAILED\n";
        assert_eq!(words(said), "decryption failed: No secret key");
        assert_eq!(
            said.lines().filter_map(status).collect::<Vec<_>>(),
            ["ENC_TO", "DECRYPTION_FAILED"]
        );
        // Nobody can say it in a file's name or a user id.
        assert_eq!(status("gpg: [GNUPG:] DECRYPTION_OKAY"), None);
        assert_eq!(words(""), "it gave no reason");
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let error = Gpg::new("/nowhere/gpg").open(&b""[..], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/gpg"), "{error}");
    }
}
