//! The role `strongroom-clients`: systemd starts it for one connection to its socket, which is its standard input. It
//! reads one request, performs it, answers, and ends.
//!
//! Who asks is told by the kernel: the account that the role itself runs as, which is root's and the supervisor's, may ask
//! for anything; the account of pairing, which alone else may connect, only offers a code.

use super::perform::{self, Performed, Running};
use crate::configuration::apply;
use crate::offsite::{disk_job, disks};
use crate::paths::Paths;
use crate::services::command;
use crate::sessions::unit::{SessionId, UNIT_PATTERN};
use crate::watch::verify_job;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use strongroom_model::name::ClientName;
use strongroom_model::registry::{Answer, Request};

/// Longest request, in bytes.
const REQUEST_MAX: u64 = 64 * 1024;
/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a session that was let in may take to show.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// Runs the role over a connection.
///
/// Errors: nobody could be answered.
pub fn run(paths: &Paths, connection: OwnedFd) -> io::Result<()> {
    let is_own = rustix::net::sockopt::socket_peercred(&connection)?.uid == rustix::process::geteuid();
    let mut connection = UnixStream::from(connection);
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    (&mut connection).take(REQUEST_MAX).read_to_end(&mut request)?;
    let answer = match serde_json::from_slice::<Request>(&request) {
        Ok(request) if is_own || matches!(request, Request::Code { .. }) => answer(paths, &request),
        Ok(_) => Answer::Refused("only the supervisor may ask for that".into()),
        Err(error) => Answer::Refused(format!("the request can't be understood: {error}")),
    };
    connection.write_all(&serde_json::to_vec(&answer)?)
}

fn answer(paths: &Paths, request: &Request) -> Answer {
    let is_real = paths.root() == Path::new("/");
    let running = if is_real {
        running(paths)
    } else {
        Ok(Running::default())
    };
    let performed = running
        .map_err(perform::Refusal::from)
        .and_then(|running| perform::perform(paths, request, &running));
    match performed {
        Ok(Performed {
            mut answer,
            steps,
            end_sessions,
        }) => {
            let mut later = Vec::new();
            if is_real {
                later = apply::perform(&steps);
                later.extend(
                    end_sessions
                        .and_then(|client| end_all(paths, &client).err())
                        .map(|error| error.to_string()),
                );
            }
            if let Answer::Done(words) = &mut answer {
                words.iter().for_each(|line| eprintln!("{line}"));
                words.extend(
                    later
                        .into_iter()
                        .map(|step| format!("This could not be done now, only at the next start: {step}")),
                );
            }
            answer
        }
        Err(refusal) => {
            eprintln!("refused: {refusal}");
            Answer::Refused(refusal.to_string())
        }
    }
}

/// Ends all sessions of a client that is not admitted any more.
fn end_all(paths: &Paths, client: &ClientName) -> Result<(), command::CommandError> {
    // One may have been on its way when the client was still admitted.
    for pause in [Duration::ZERO, ON_ITS_WAY] {
        std::thread::sleep(pause);
        for session in running(paths)?
            .sessions
            .iter()
            .filter(|session| session.client == *client)
        {
            eprintln!("Session {session} is ended.");
            command::run("systemctl", &["--no-block", "stop", &session.unit()], "")?;
        }
    }
    Ok(())
}

/// What is running of the clients', as systemd tells.
fn running(paths: &Paths) -> Result<Running, command::CommandError> {
    // Looks are short, and come again by themselves.
    const JOBS: [(&str, &str); 5] = [
        ("strongroom-push@", "a push"),
        ("strongroom-verify@", "a check"),
        ("strongroom-compact@", "a compaction"),
        ("strongroom-compacting@", "a compaction"),
        ("strongroom-rollback@", "a rollback"),
    ];
    let mut arguments = vec!["list-units", "--plain", "--no-legend", "--no-pager", "--full"];
    arguments.push("--state=active,activating,reloading,deactivating");
    let patterns: Vec<String> = JOBS.iter().map(|(start, _)| format!("{start}*.service")).collect();
    arguments.push(UNIT_PATTERN);
    arguments.extend(patterns.iter().map(String::as_str));
    arguments.push("strongroom-disk@*.service");
    let listed = command::run("systemctl", &arguments, "")?;
    let mut running = Running::default();
    for unit in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        running.sessions.extend(SessionId::of_unit(unit));
        // It works for all clients, on one at a time.
        let copied = disks::target_of(unit).and_then(|target| disk_job::progress(paths, &target).now);
        running.jobs.extend(copied.map(|client| (client, "a copy to a disk")));
        for (start, words) in JOBS {
            let instance = unit.strip_prefix(start).and_then(|rest| rest.strip_suffix(".service"));
            let Some(instance) = instance else { continue };
            // A check of all repositories works on one at a time. An instance may name transactions after the client.
            let client = ClientName::new(instance.split(':').next().unwrap_or_default())
                .ok()
                .or_else(|| verify_job::progress(paths, instance).client);
            running.jobs.extend(client.map(|client| (client, words)));
        }
    }
    Ok(running)
}
