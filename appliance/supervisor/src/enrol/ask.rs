//! Asking the role `strongroom-clients`: one request over a socket, one answer. The request ends where its sender says no
//! more.

use crate::paths::Paths;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use strongroom_model::registry::{Answer, Request};

/// Longest answer, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;
/// How long an answer may take: a slow array is looked at.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The role can't be reached, or stopped.
    #[error(
        "what keeps the registry of clients (strongroom-clients) can't be asked: {0}. Nothing is known to have changed; try again"
    )]
    Io(#[from] io::Error),
    /// It speaks another language.
    #[error("what keeps the registry of clients (strongroom-clients) gave no answer; its log says why")]
    Form(#[from] serde_json::Error),
}

/// Asks, and waits for the answer.
pub fn ask(paths: &Paths, request: &Request) -> Result<Answer, AskError> {
    let mut socket = UnixStream::connect(paths.clients_socket())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&serde_json::to_vec(request)?)?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
