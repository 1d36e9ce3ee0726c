//! The role `strongroom-sessions`: starts sessions for `strongroom-serve`, the only one that may ask. It has systemd start
//! a unit that is built from the client's name alone, waits for its end, and ends it when whoever asked is gone.
//!
//! It carries no data: the connection's file descriptors go on to the unit. systemd starts it when it is needed; it ends
//! when nobody has needed it for a while. Sessions don't depend on it.

use super::accounts::Account;
use super::bounds;
use super::history;
use super::room::Room;
use super::serve;
use super::unit::{Right, Session, SessionId, properties};
use super::wire::{self, Answer, Request};
use crate::configuration::in_force;
use crate::durable;
use crate::identity;
use crate::paths::{ARRAY_MOUNT, Paths};
use crate::services::mounts;
use crate::services::systemd::{Ended, Systemd, SystemdError};
use crate::upkeep::hold;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;
use strongroom_model::name::ClientName;
use strongroom_model::session::Past;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;
use zbus::{Connection, Fd, Variant};

/// Most sessions of one client at once. Borg lets one write; more wait for its lock or read.
const OF_CLIENT_MAX: usize = 8;
/// Most sessions at once.
const MAX: usize = 64;
/// Most connections from `strongroom-serve` at once; those above the sessions only wait to be told that there are too many.
const CONNECTIONS_MAX: usize = MAX + 32;
/// How long a connection may take to say what it wants.
const REQUEST: Duration = Duration::from_secs(5);
/// How long the role stays when nobody needs it.
const IDLE: Duration = Duration::from_secs(600);
/// How long Borg may take to end by itself once its client is gone, which it sees as the end of its input.
const GRACE: Duration = Duration::from_secs(5);
/// How often a session is looked at although nothing was heard of it.
const LOOK: Duration = Duration::from_secs(60);
/// How often it is looked for room although no session ended.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(2);

/// Why the role could not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The system bus or systemd refuses.
    #[error("the system bus does not answer or refuses: {0}")]
    Bus(#[from] zbus::Error),
    /// The connection to systemd broke.
    #[error("systemd can't be reached any more")]
    Lost,
    /// The socket that systemd handed over can't be used.
    #[error("the socket can't be used: {0}")]
    Socket(#[from] io::Error),
}

struct Broker {
    paths: Paths,
    systemd: Systemd,
    running: RefCell<HashMap<ClientName, usize>>,
    connections: RefCell<usize>,
    /// Sessions that were let in and are not over.
    begun: Cell<usize>,
    /// Told when one of them is over.
    over: Notify,
    /// Held by the first of those who wait for room; the others queue for it.
    line: Mutex<()>,
    /// Told when systemd can't be reached any more.
    lost: Notify,
}

/// Runs until nobody needs it. `socket` listens.
pub async fn run(paths: Paths, socket: OwnedFd) -> Result<(), BrokerError> {
    // Only how messages are told apart differs from what these types are made for.
    let socket = std::os::unix::net::UnixListener::from(socket);
    socket.set_nonblocking(true)?;
    let socket = UnixListener::from_std(socket)?;
    let bus = Connection::system().await?;
    let systemd = Systemd::new(&bus).await?;
    systemd.subscribe().await?;
    let broker = Rc::new(Broker {
        paths,
        systemd,
        running: RefCell::default(),
        connections: RefCell::default(),
        begun: Cell::default(),
        over: Notify::new(),
        line: Mutex::default(),
        lost: Notify::new(),
    });
    let sessions = tokio::task::LocalSet::new();
    let ended = sessions.run_until(async {
        tokio::select! {
            ended = accept(broker.clone(), socket) => ended.map_err(Into::into),
            // systemd starts the role again, with a new connection to the bus.
            () = broker.lost.notified() => Err(BrokerError::Lost),
        }
    });
    ended.await
}

async fn accept(broker: Rc<Broker>, socket: UnixListener) -> io::Result<()> {
    loop {
        let connection = match timeout(IDLE, socket.accept()).await {
            Ok(Ok((connection, _))) => connection,
            // Whoever connected may have gone again; what lasts is tried again with a pause.
            Ok(Err(error)) => {
                eprintln!("a connection could not be taken: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(_) if *broker.connections.borrow() == 0 => return Ok(()),
            Err(_) => continue,
        };
        if *broker.connections.borrow() >= CONNECTIONS_MAX {
            wire::send_answer(&connection, &too_many());
            continue;
        }
        *broker.connections.borrow_mut() += 1;
        let broker = broker.clone();
        tokio::task::spawn_local(async move {
            if let Some(answer) = broker.serve(&connection).await {
                wire::send_answer(&connection, &answer);
            }
            *broker.connections.borrow_mut() -= 1;
        });
    }
}

/// A session that was let in.
struct Place<'a>(&'a Broker);

impl<'a> Place<'a> {
    fn new(broker: &'a Broker) -> Self {
        broker.begun.set(broker.begun.get() + 1);
        Self(broker)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.begun.set(self.0.begun.get() - 1);
        self.0.over.notify_one();
    }
}

fn too_many() -> Answer {
    Answer::Refused(format!(
        "there are {MAX} sessions already, which is the most; try again later"
    ))
}

fn no_room(begun: usize) -> Answer {
    Answer::Waits(format!(
        "there is no memory for another session beside the {begun} that run; this one waits for its turn"
    ))
}

impl Broker {
    /// `None`: nobody is there to hear.
    async fn serve(&self, connection: &UnixStream) -> Option<Answer> {
        let received = connection.async_io(Interest::READABLE, || {
            wire::receive_request(connection).map_err(io::Error::from)
        });
        let (request, descriptors) = timeout(REQUEST, received).await.ok()?.ok()??;
        let client = request.client.clone();
        {
            let mut running = self.running.borrow_mut();
            if let Err(answer) = admit(&running, &client) {
                return Some(answer);
            }
            *running.entry(client.clone()).or_default() += 1;
        }
        let answer = self.session(connection, request, descriptors).await;
        let mut running = self.running.borrow_mut();
        match running.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(running.remove(&client)),
        }
        answer
    }

    /// Waits until the machine has memory for the session. `None`: its client did not wait as long.
    async fn place(&self, connection: &UnixStream, client: &ClientName) -> Option<Place<'_>> {
        if self.line.try_lock().is_ok() && self.has_room() {
            return Some(Place::new(self));
        }
        eprintln!("{client} has to wait: the sessions that run take all memory that there is for them");
        wire::send_answer(connection, &no_room(self.begun.get()));
        tokio::select! {
            place = self.in_turn() => Some(place),
            () = is_gone(connection) => None,
        }
    }

    async fn in_turn(&self) -> Place<'_> {
        let _first = self.line.lock().await;
        while !self.has_room() {
            tokio::select! {
                () = self.over.notified() => {}
                () = tokio::time::sleep(LOOK_FOR_ROOM) => {}
            }
        }
        Place::new(self)
    }

    fn has_room(&self) -> bool {
        Room::read(&self.paths).is_there(self.begun.get())
    }

    async fn session(&self, connection: &UnixStream, request: Request, descriptors: [OwnedFd; 3]) -> Option<Answer> {
        let _place = self.place(connection, &request.client).await?;
        // Held for as long as the session runs: no compaction and no rollback begins meanwhile.
        let _entered = match hold::enter(&self.paths, &request.client) {
            Ok(entered) => entered,
            Err(why) => return Some(Answer::Refused(why)),
        };
        let session = match self.prepare(request) {
            Ok(session) => session,
            Err(answer) => return Some(answer),
        };
        let id = session.id.clone();
        let (since, reading) = (crate::clock_now(), session.right == Right::Read);
        let ended = self.start_and_wait(connection, &session, descriptors).await;
        if let (Some(since), Some(until)) = (since, crate::clock_now()) {
            let past = Past {
                id: id.to_string(),
                since,
                until,
                reading,
            };
            if let Err(error) = history::add(&self.paths, &id.client, past) {
                eprintln!("session {id} can't be remembered: {error}");
            }
        }
        match ended {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("session {id}: {error}");
                if !self.systemd.answers().await {
                    self.lost.notify_one();
                }
                Some(Answer::Refused(
                    "the session could not be started; the appliance's log says why".into(),
                ))
            }
        }
    }

    fn prepare(&self, request: Request) -> Result<Session, Answer> {
        let config = in_force(&self.paths);
        let client = config
            .client(request.client.as_str())
            .ok_or_else(|| Answer::Refused("the appliance's configuration has no such client any more".into()))?;
        if client.paused {
            return Err(Answer::Refused(serve::paused(&request.client)));
        }
        if mounts::at(&self.paths, ARRAY_MOUNT).is_none() {
            return Err(Answer::NotYet);
        }
        let folder = std::fs::symlink_metadata(self.paths.repository(&request.client));
        let account = folder
            .ok()
            .filter(|folder| folder.is_dir())
            .and_then(|folder| Account::of_owner(folder.uid()))
            .ok_or(Answer::NotYet)?;
        let number = self.next_number().map_err(|error| {
            eprintln!("sessions can't be counted: {error}");
            Answer::Refused("the appliance can't count its sessions; restart it".into())
        })?;
        Ok(Session {
            id: SessionId {
                client: request.client,
                number,
            },
            account,
            right: request.right,
            level: request.level,
            quota: client.quota.as_ref().map(|quota| quota.get_ref().bytes()),
            host: identity::of(&self.paths).to_string(),
        })
    }

    fn next_number(&self) -> io::Result<u64> {
        let file = self.paths.session_number();
        let last: u64 = std::fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        durable::write(&file, (last + 1).to_string().as_bytes(), 0o644)?;
        Ok(last + 1)
    }

    async fn start_and_wait(
        &self,
        connection: &UnixStream,
        session: &Session,
        descriptors: [OwnedFd; 3],
    ) -> Result<Option<Answer>, SystemdError> {
        let (unit, object) = (session.id.unit(), session.id.object_path());
        let mut watched = self.systemd.watch(&unit, &object).await?;
        let mut all = properties(session);
        let names = [
            "StandardInputFileDescriptor",
            "StandardOutputFileDescriptor",
            "StandardErrorFileDescriptor",
        ];
        all.extend(
            names
                .into_iter()
                .zip(descriptors)
                .map(|(name, descriptor)| (name, Variant::Fd(Fd::from(descriptor)))),
        );
        // systemd has the descriptors once this returns; ours are closed with the message.
        self.systemd.start_transient(&unit, &all).await?;
        drop(all);
        eprintln!(
            "Session {} began, as {}{}.",
            session.id,
            session.account.name(),
            match session.right {
                Right::Append => "",
                Right::Read => ", reading only",
            }
        );
        let mut gone = false;
        let mut pause = LOOK;
        let ended = loop {
            if let Some(ended) = watched.ended().await? {
                break ended;
            }
            tokio::select! {
                () = watched.changed() => {}
                () = tokio::time::sleep(pause) => if gone {
                    self.systemd.stop(&unit).await?;
                    pause = LOOK;
                },
                () = is_gone(connection), if !gone => {
                    gone = true;
                    pause = GRACE;
                }
            }
        };
        let _ = self.systemd.unref(&unit).await;
        eprintln!("Session {} is over: {ended}{}.", session.id, why(&ended));
        Ok((!gone).then(|| answer(&ended)))
    }
}

/// Ends when nobody is at the other end any more.
async fn is_gone(connection: &UnixStream) {
    let _ = connection
        .async_io(Interest::READABLE, || {
            match rustix::net::recv(connection, &mut [0_u8; 16], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                // Nothing is said after the request: whoever does is not `strongroom-serve`.
                _ => Ok(()),
            }
        })
        .await;
}

fn admit(running: &HashMap<ClientName, usize>, client: &ClientName) -> Result<(), Answer> {
    if running.get(client).is_some_and(|count| *count >= OF_CLIENT_MAX) {
        return Err(Answer::Refused(format!(
            "client `{client}` has {OF_CLIENT_MAX} sessions already, which is the most; wait for one to end, or end one with `strongroom sessions end` on the appliance"
        )));
    }
    if running.values().sum::<usize>() >= MAX {
        return Err(too_many());
    }
    Ok(())
}

/// What the log says beside an end for which the appliance gave the reason.
fn why(ended: &Ended) -> &'static str {
    match ended {
        Ended::Exited(bounds::PASSED_QUOTA) => ", since it stored more than its client's quota allows",
        Ended::Exited(bounds::TOO_LONG) => ", since it made a repository and stayed too long",
        _ => "",
    }
}

/// What the client's user is told of a session's end.
fn answer(ended: &Ended) -> Answer {
    match ended {
        // systemd's own codes, from where it prepares the unit (systemd.exec(5), PROCESS EXIT CODES).
        Ended::Exited(code @ 200..) => Answer::Refused(format!(
            "the session could not be confined (code {code}), so it was not started; make a report to the appliance's owner"
        )),
        // It has told its user why.
        Ended::Exited(code) => Answer::Ended(*code),
        Ended::OutOfMemory => Answer::Refused(
            "the session needed more memory than there is for it and was ended; nothing that was confirmed is lost"
                .into(),
        ),
        Ended::Killed(_) => Answer::Refused("the session was ended on the appliance".into()),
        Ended::NeverBegan => Answer::Refused("the session could not be started; the appliance's log says why".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_and_all_together_are_bounded() {
        let asus = ClientName::new("asus").unwrap();
        let running = |all: &[(&str, usize)]| -> HashMap<ClientName, usize> {
            all.iter()
                .map(|(name, count)| (ClientName::new(name).unwrap(), *count))
                .collect()
        };
        assert_eq!(admit(&running(&[]), &asus), Ok(()));
        assert_eq!(admit(&running(&[("asus", 7), ("attic", 8)]), &asus), Ok(()));
        let refused = admit(&running(&[("asus", 8)]), &asus).unwrap_err();
        assert!(matches!(refused, Answer::Refused(text) if text.contains("8 sessions already")));
        let others: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
        let full: Vec<(&str, usize)> = others.iter().map(|name| (name.as_str(), 8)).collect();
        assert_eq!(admit(&running(&full), &asus), Err(too_many()));
    }

    #[test]
    fn ends_are_told_as_they_were() {
        assert_eq!(answer(&Ended::Exited(0)), Answer::Ended(0));
        assert_eq!(answer(&Ended::Exited(2)), Answer::Ended(2));
        for (ended, words) in [
            (Ended::Exited(226), "could not be confined (code 226)"),
            (Ended::OutOfMemory, "more memory"),
            (Ended::Killed(15), "ended on the appliance"),
            (Ended::NeverBegan, "could not be started"),
        ] {
            assert!(
                matches!(answer(&ended), Answer::Refused(text) if text.contains(words)),
                "{ended:?}"
            );
        }
    }
}
