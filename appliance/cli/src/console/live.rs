//! The console as it runs: follows the supervisor over D-Bus and draws what changed.
//!
//! It sleeps until the supervisor announces a change, a key is pressed, the terminal is resized, or an age is to be
//! refreshed.

use super::screen::{self, Size};
use super::terminal::Terminal;
use crate::appliance::{ApplianceError, Connection};
use crate::now;
use ratatui_core::buffer::Buffer;
use std::io::{IsTerminal, Read};
use std::time::Duration;
use strongroom_model::status::Status;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often ages are refreshed.
const REFRESH: Duration = Duration::from_secs(30);
/// How often everything is written again: a terminal may have been attached to a serial line, or a message written
/// across the screen.
const REPAINT: Duration = Duration::from_secs(60);
/// While the supervisor does not answer, it is asked this often.
const RETRY: Duration = Duration::from_secs(2);
/// Least time between two drawings; a push announces its progress more often.
const PACE: Duration = Duration::from_secs(1);

/// How the console is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// By a person at a shell, who leaves it with a key.
    Person,
    /// As the appliance's own screen, for ever.
    OwnScreen,
}

/// Draws until the person leaves or the service is stopped.
///
/// Errors: signals can't be waited for.
pub async fn run(use_: Use) -> std::io::Result<()> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let leave = (use_ == Use::Person).then_some("q leaves");
    let mut keys = keys(use_);
    let mut terminal = Terminal::take(use_ == Use::Person);
    let mut connection = None;
    let mut painted: Option<Instant> = None;
    let mut announced = true;
    let mut status = None;
    loop {
        if announced {
            status = Some(status_now(&mut connection).await);
        }
        let whole = painted.is_none_or(|painted| painted.elapsed() >= REPAINT);
        terminal.show(draw(status.as_ref(), Terminal::size(), leave), whole);
        if whole {
            painted = Some(Instant::now());
        }
        let wait = if matches!(status, Some(Ok(_))) { REFRESH } else { RETRY };
        announced = true;
        tokio::select! {
            () = change(connection.as_mut()) => tokio::time::sleep(PACE).await,
            () = tokio::time::sleep(wait) => {}
            _ = resized.recv() => {
                painted = None;
                announced = false;
            }
            () = left(&mut keys) => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

fn draw(status: Option<&Result<Box<Status>, ApplianceError>>, size: Size, leave: Option<&str>) -> Buffer {
    match status {
        Some(Ok(status)) => screen::render(status, now(), size, leave),
        Some(Err(error)) => screen::render_silence(&error.to_string(), size),
        None => screen::render_silence("it was not asked yet", size),
    }
}

/// The status over a connection that is kept while it works.
async fn status_now(kept: &mut Option<Connection>) -> Result<Box<Status>, ApplianceError> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open().await?,
    };
    connection.follow().await?;
    let status = connection.status().await?;
    *kept = Some(connection);
    Ok(status)
}

async fn change(connection: Option<&mut Connection>) {
    match connection {
        Some(connection) => connection.changed().await,
        None => std::future::pending().await,
    }
}

/// Returns when the person wants to leave.
async fn left(keys: &mut Option<mpsc::Receiver<u8>>) {
    if let Some(receiver) = keys {
        while let Some(key) = receiver.recv().await {
            if matches!(key, b'q' | b'Q') {
                return;
            }
        }
        // Nothing can be typed any more; signals still end it.
        *keys = None;
    }
    std::future::pending().await
}

/// The keys as they are pressed. A thread reads them, which ends with the program.
fn keys(use_: Use) -> Option<mpsc::Receiver<u8>> {
    if use_ == Use::OwnScreen || !std::io::stdin().is_terminal() {
        return None;
    }
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut key = [0];
        while std::io::stdin().read_exact(&mut key).is_ok() && sender.blocking_send(key[0]).is_ok() {}
    });
    Some(receiver)
}
