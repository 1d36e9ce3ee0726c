//! The D-Bus face, `org.strongroom.Appliance1`: the snapshot as a property, and methods that start jobs. Who may call
//! is decided by the bus's policy (`org.strongroom.Appliance1.conf`): root and the group strongroom-admin.

use crate::configuration;
use crate::disks::array_job::ArrayReport;
use crate::enrol;
use crate::offsite::challenges::Challenges;
use crate::offsite::probe_job::{self, Subject};
use crate::offsite::recipients;
use crate::paths::Paths;
use crate::report::Command;
use crate::services::systemd::Systemd;
use crate::sessions::list;
use crate::sessions::unit::SessionId;
use crate::upkeep::Order;
use crate::upkeep::look::{self, Look};
use crate::watch::store;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use strongroom_model::array::Verdict;
use strongroom_model::drill::Drill;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::recipient::Challenge;
use strongroom_model::registry::{self, Answer, Request};
use strongroom_model::status::{ArrayState, Status};
use strongroom_model::superblock::ArrayUuid;
use strongroom_model::upkeep::Work;
use strongroom_model::watch::{Record, Remembered};
use strongroom_offsite::openpgp::challenge::challenge;
use tokio::sync::{mpsc, watch};
use zbus::{Connection, fdo, interface};

/// Name on the system bus.
pub const BUS_NAME: &str = "org.strongroom.Appliance1";
/// Path of the one object.
pub const OBJECT_PATH: &str = "/org/strongroom/Appliance1";
/// Least time between two announcements of a change.
const ANNOUNCE_PERIOD: Duration = Duration::from_millis(500);
/// How long clients that changed may take to show.
const TAKEN_UP: Duration = Duration::from_secs(5);

struct ApplianceFace {
    paths: Paths,
    status: watch::Receiver<Arc<Status>>,
    commands: mpsc::Sender<Command>,
    systemd: Systemd,
    inputs: Inputs,
    challenges: Challenges,
}

/// What repairs were given to read from, until their jobs fetch it: at most one for each client.
#[derive(Default)]
struct Inputs(Mutex<BTreeMap<ClientName, (u32, OwnedFd)>>);

impl Inputs {
    fn put(&self, client: ClientName, segment: u32, input: OwnedFd) {
        self.lock().insert(client, (segment, input));
    }

    fn take(&self, client: &ClientName, segment: u32) -> Option<OwnedFd> {
        let mut inputs = self.lock();
        if inputs.get(client)?.0 != segment {
            return None;
        }
        inputs.remove(client).map(|(_, input)| input)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientName, (u32, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[interface(name = "org.strongroom.Appliance1")]
impl ApplianceFace {
    /// The whole snapshot, as JSON (`strongroom_model::status::Status`).
    #[zbus(property)]
    async fn status(&self) -> fdo::Result<String> {
        let status = self.status.borrow().clone();
        serde_json::to_string(&*status).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// `starting`, `good`, `warning` or `alarm`.
    #[zbus(property)]
    async fn health(&self) -> String {
        serde_json::to_value(self.status.borrow().health)
            .ok()
            .and_then(|value| value.as_str().map(str::to_string))
            .unwrap_or_default()
    }

    /// Pushes a client's repository to its targets now. Returns once the job is asked for.
    async fn push(&self, client: &str) -> fdo::Result<()> {
        let name = self.known(client)?;
        let status = self.status.borrow().clone();
        let known = status.clients.iter().find(|known| known.name == name);
        if known.is_none_or(|known| known.targets.is_empty()) {
            return Err(fdo::Error::Failed(format!(
                "client `{name}` has no off-site target; add an [[offsite.target]] to strongroom.toml"
            )));
        }
        if status.array.state != ArrayState::Mounted {
            return Err(fdo::Error::Failed(
                "the array is not mounted, so there is nothing to push; `strongroom status` says why".into(),
            ));
        }
        self.send(Command::Push(name)).await
    }

    /// Reads everything on the array now, or goes on with a scrub that was cut short. Returns once the job is asked for.
    async fn scrub(&self) -> fdo::Result<()> {
        if self.status.borrow().array.state != ArrayState::Mounted {
            return Err(fdo::Error::Failed(
                "the array is not mounted, so there is nothing to read; `strongroom status` says why".into(),
            ));
        }
        self.send(Command::Scrub).await
    }

    /// Reads all of a client's repository now, or of every one where no client is named, and compares it with what it
    /// was. Returns once the job is asked for; `answered` of [`Self::watched`] changes with its end.
    async fn check(&self, client: &str) -> fdo::Result<()> {
        let client = match client {
            "" => None,
            name => Some(self.known(name)?),
        };
        if self.status.borrow().array.state != ArrayState::Mounted {
            return Err(fdo::Error::Failed(
                "the array is not mounted, so there is nothing to check; `strongroom status` says why".into(),
            ));
        }
        self.send(Command::Check(client)).await
    }

    /// Takes note that the owner knows of all that stands about a client's repository. Returns once that is asked for.
    async fn accept(&self, client: &str) -> fdo::Result<()> {
        let client = self.known(client)?;
        self.send(Command::Accept(client)).await
    }

    /// What is remembered of a client's repository, as JSON: `record` (`strongroom_model::watch::Record`), `archives`
    /// (`ArchiveNote`, newest first) and `verification` (`strongroom_model::verification::Verification`).
    async fn watched(&self, client: &str) -> fdo::Result<String> {
        let folder = self.paths.watch(&self.known(client)?);
        let record = match store::read_record(&folder) {
            store::Read::Known(record) => *record,
            store::Read::New | store::Read::Unreadable => Record::default(),
        };
        let remembered = Remembered {
            record,
            archives: store::read_archives(&folder),
            verification: store::read_verification(&folder),
            transactions: store::read_transactions(&folder),
        };
        serde_json::to_string(&remembered).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// What a compaction or a rollback of a client's repository would do, what stands against it, and how the last one
    /// ended, as JSON (`strongroom_model::upkeep::Upkeep`).
    async fn upkeep(&self, client: &str) -> fdo::Result<String> {
        let look = self.look(&self.known(client)?).await?;
        serde_json::to_string(&look.upkeep).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// Frees for good what was deleted in a client's repository up to `transaction`, its last one, as it was shown and
    /// confirmed. Returns once the job is asked for; `last` of [`Self::upkeep`] changes with its end.
    async fn compact(&self, client: &str, transaction: u32, without_off_site_copy: bool) -> fdo::Result<()> {
        let client = self.known(client)?;
        let look = self.look(&client).await?;
        let work = look
            .may_compact(transaction, without_off_site_copy)
            .map_err(fdo::Error::Failed)?;
        self.send(Command::Upkeep(Order { client, work })).await
    }

    /// Undoes what a client did to its repository after the transaction `to`. `transaction` is its last one, as it was
    /// shown and confirmed. Returns once the job is asked for; `last` of [`Self::upkeep`] changes with its end.
    async fn roll_back(&self, client: &str, transaction: u32, to: u32) -> fdo::Result<()> {
        let client = self.known(client)?;
        let look = self.look(&client).await?;
        let work = look.may_go_back(&client, transaction, to).map_err(fdo::Error::Failed)?;
        self.send(Command::Upkeep(Order { client, work })).await
    }

    /// Whether a segment of a client's repository could be repaired now, as far as that can be told without reading it. An
    /// error says what stands against it.
    async fn repairable(&self, client: &str, segment: u32) -> fdo::Result<()> {
        self.may_repair(&self.known(client)?, segment).await.map(drop)
    }

    /// Puts what `bytes` gives, up to its end, in the place of a damaged segment, if it is what the segment was. Returns once
    /// the job is asked for; `last` of [`Self::upkeep`] changes with its end.
    async fn repair(&self, client: &str, segment: u32, bytes: zbus::OwnedFd) -> fdo::Result<()> {
        let client = self.known(client)?;
        let work = self.may_repair(&client, segment).await?;
        self.inputs.put(client.clone(), segment, bytes.into());
        self.send(Command::Upkeep(Order { client, work })).await
    }

    /// What was given to [`Self::repair`], once: the job fetches it.
    async fn repair_input(&self, client: &str, segment: u32) -> fdo::Result<zbus::OwnedFd> {
        let client = self.known(client)?;
        let input = self.inputs.take(&client, segment);
        input.map(Into::into).ok_or_else(|| {
            fdo::Error::Failed(format!(
                "nothing was given to repair segment {segment} of {client} with; use `strongroom repair`"
            ))
        })
    }

    /// The clients in force, as JSON (a list of `strongroom_model::registry::ListedClient`).
    async fn clients(&self) -> fdo::Result<String> {
        let registry = enrol::registry(&self.paths)
            .map_err(|error| fdo::Error::Failed(format!("{error}; `strongroom status` says what to do")))?;
        let listed = registry::listing(&configuration::declared(&self.paths), &registry);
        serde_json::to_string(&listed).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// Enrols or changes a client, opens or closes a pairing, sets aside what is damaged, or erases what a rollback kept:
    /// `strongroom_model::registry::Request` as JSON. Returns the `Answer` as JSON, once it is in force; a refusal is an
    /// error.
    async fn enrol(&self, request: &str) -> fdo::Result<String> {
        let request: Request =
            serde_json::from_str(request).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        if matches!(request, Request::Code { .. }) {
            return Err(fdo::Error::InvalidArgs("a code is offered by the client itself".into()));
        }
        if matches!(request, Request::Proven { .. }) {
            return Err(fdo::Error::InvalidArgs("a proof is an answer to a challenge".into()));
        }
        let answer = self.ask(request).await?;
        self.send(Command::Clients).await?;
        self.taken_up().await;
        serde_json::to_string(&answer).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// The recipients of off-site copies, and who signs the manifests, as JSON (`strongroom_model::recipient::Listing`).
    async fn recipients(&self) -> fdo::Result<String> {
        let config = configuration::in_force(&self.paths);
        let trusted = self.status.borrow().clock.state.is_trusted();
        let now = trusted.then(crate::clock_now).flatten();
        let listing = recipients::listing(&self.paths, &config, now);
        serde_json::to_string(&listing).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// A nonce that only the holder of a recipient's secret key can read, as JSON
    /// (`strongroom_model::recipient::Challenge`). Without a name, of the only one that copies are encrypted to.
    async fn challenge(&self, name: &str) -> fdo::Result<String> {
        let config = configuration::in_force(&self.paths);
        let all = recipients::recipients(&self.paths, &config, None);
        let meant: Vec<_> = all
            .iter()
            .filter(|recipient| {
                if name.is_empty() {
                    recipient.used
                } else {
                    recipient.name.as_str() == name
                }
            })
            .collect();
        let [recipient] = meant.as_slice() else {
            let names: Vec<&str> = all.iter().map(|recipient| recipient.name.as_str()).collect();
            return Err(fdo::Error::InvalidArgs(match names.as_slice() {
                [] => "there are no recipients; strongroom.toml names them in [[offsite.recipient]]".into(),
                _ => format!("say which recipient is meant: {}", names.join(", ")),
            }));
        };
        let declared = config.recipient(recipient.name.as_str());
        let file = declared.map(|declared| self.paths.config_files().join(declared.certificate.as_str()));
        let made = file.ok_or_else(|| "it is unknown".to_owned()).and_then(|file| {
            let certificate = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            challenge(&certificate, None).map_err(|error| error.to_string())
        });
        let (nonce, message) =
            made.map_err(|why| fdo::Error::Failed(format!("the recipient `{}` can't be used: {why}", recipient.name)))?;
        self.challenges
            .given(recipient.fingerprint.clone(), nonce, Instant::now());
        let challenge = Challenge {
            name: recipient.name.clone(),
            fingerprint: recipient.fingerprint.clone(),
            message,
        };
        serde_json::to_string(&challenge).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// Takes the nonce of a challenge as the proof that its recipient's secret key is there. Returns the recipient's name,
    /// once the proof is kept.
    async fn prove(&self, nonce: &str) -> fdo::Result<String> {
        let unknown = || {
            fdo::Error::InvalidArgs(
                "that is no nonce that is waited for; have another made with `strongroom recipient challenge`".into(),
            )
        };
        let fingerprint = self.challenges.of(nonce, Instant::now()).ok_or_else(unknown)?;
        let proven = Request::Proven {
            fingerprint: fingerprint.clone(),
        };
        self.ask(proven).await?;
        self.challenges.forget(&fingerprint);
        let config = configuration::in_force(&self.paths);
        let all = recipients::recipients(&self.paths, &config, None);
        let named = all.into_iter().find(|recipient| recipient.fingerprint == fingerprint);
        Ok(named.map_or(fingerprint, |recipient| recipient.name.to_string()))
    }

    /// Takes note of a restore that was tried on a workstation: the record that `strongroom drill` made there, as JSON
    /// (`strongroom_model::drill::Drill`), for which client it says itself. Returns what was noted, in words, once it is
    /// kept; a record that can't be true of this appliance is an error.
    async fn record_drill(&self, record: &str) -> fdo::Result<String> {
        let drill = Drill::parse(record.as_bytes()).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        match self.ask(Request::Drilled(Box::new(drill))).await? {
            Answer::Done(words) => Ok(words.join("\n")),
            _ => Err(fdo::Error::Failed("nothing was noted".into())),
        }
    }

    /// What is on every disk and what becomes of it, as JSON (`strongroom_model::array::Listing`): what the last look
    /// at the disks found.
    async fn disks(&self) -> fdo::Result<String> {
        serde_json::to_string(&self.report()?.listing).map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    /// Looks at the disks again. Returns once that is asked for; `looked_ms` of [`Self::disks`] changes with its end.
    async fn rescan(&self) -> fdo::Result<()> {
        self.send(Command::Rescan).await
    }

    /// The sessions that are running, as JSON (a list of `strongroom_model::session::Session`).
    async fn sessions(&self) -> fdo::Result<String> {
        let sessions = list::sessions(&self.systemd).await;
        let text = sessions.map(|sessions| serde_json::to_string(&sessions));
        text.map_err(|error| error.to_string())
            .and_then(|text| text.map_err(|error| error.to_string()))
            .map_err(fdo::Error::Failed)
    }

    /// Ends a session. Returns once that is asked for; Borg has ten seconds to comply.
    async fn end_session(&self, id: &str) -> fdo::Result<()> {
        let id: SessionId = id
            .parse()
            .map_err(|error| fdo::Error::InvalidArgs(format!("`{}`: {error}", id.escape_debug())))?;
        match list::end(&self.systemd, &id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(fdo::Error::InvalidArgs(format!(
                "there is no session {id}; `strongroom sessions` lists those that are running"
            ))),
            Err(error) => Err(fdo::Error::Failed(error.to_string())),
        }
    }

    /// The public half of the SSH host key, one line, for those who are to know the appliance by it.
    async fn host_key(&self) -> fdo::Result<String> {
        std::fs::read_to_string(self.paths.host_key())
            .map_err(|error| fdo::Error::Failed(format!("the SSH host key could not be read: {error}")))
    }

    /// Tries a target's bucket out, below the prefix of `client` unless that is empty. Returns what was found, as JSON
    /// (`strongroom_offsite::probe::Report`), after some seconds.
    async fn probe(&self, target: &str, client: &str) -> fdo::Result<String> {
        let target = TargetName::new(target).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        let client = match client {
            "" => None,
            name => Some(self.known(name)?),
        };
        probe_job::ask(&self.paths, &self.systemd, &Subject { target, client })
            .await
            .map_err(fdo::Error::Failed)
    }

    /// Consents to use the array of this identity, which was made elsewhere. Returns once that is asked for.
    async fn adopt(&self, uuid: &str) -> fdo::Result<()> {
        let uuid = ArrayUuid::new(uuid)
            .ok_or_else(|| fdo::Error::InvalidArgs(format!("`{}` is not the UUID of an array", uuid.escape_debug())))?;
        let arrays = self.report()?.listing.arrays;
        match arrays.iter().find(|array| array.uuid == uuid.as_str()) {
            Some(array) if array.verdict == Verdict::Adoptable => self.send(Command::Adopt(uuid)).await,
            Some(array) if array.verdict == Verdict::InUse => {
                Err(fdo::Error::Failed(format!("the array {uuid} is in use already")))
            }
            Some(array) => Err(fdo::Error::Failed(format!(
                "the array {uuid} can't be adopted: {}",
                array.why
            ))),
            None => Err(fdo::Error::InvalidArgs(format!(
                "there is no array {uuid} here; `strongroom disks adopt` lists those that are"
            ))),
        }
    }
}

impl ApplianceFace {
    /// The client of that name.
    fn known(&self, client: &str) -> fdo::Result<ClientName> {
        let name = ClientName::new(client).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        let known = self.status.borrow().clients.iter().any(|known| known.name == name);
        known.then_some(name).ok_or_else(|| {
            fdo::Error::InvalidArgs(format!(
                "there is no client `{}`; `strongroom status` lists them",
                client.escape_debug()
            ))
        })
    }

    async fn may_repair(&self, client: &ClientName, segment: u32) -> fdo::Result<Work> {
        let look = self.look(client).await?;
        let config = configuration::in_force(&self.paths);
        look.may_repair(&self.paths, &config, client, segment)
            .map_err(|error| fdo::Error::Failed(error.to_string()))
    }

    async fn look(&self, client: &ClientName) -> fdo::Result<Look> {
        let sessions = list::of_client(&self.systemd, client)
            .await
            .map_err(|error| fdo::Error::Failed(error.to_string()))?;
        let status = self.status.borrow().clone();
        look::look(
            &self.paths,
            &configuration::in_force(&self.paths),
            client,
            &status,
            sessions,
        )
        .map_err(|error| fdo::Error::Failed(format!("what is remembered of {client} can't be read: {error}")))
    }

    /// Asks what keeps the registry; a refusal is an error.
    async fn ask(&self, request: Request) -> fdo::Result<Answer> {
        let paths = self.paths.clone();
        let asked = tokio::task::spawn_blocking(move || enrol::ask::ask(&paths, &request)).await;
        let answer = asked
            .map_err(|error| error.to_string())
            .and_then(|answer| answer.map_err(|error| error.to_string()))
            .map_err(fdo::Error::Failed)?;
        match answer {
            Answer::Refused(why) => Err(fdo::Error::Failed(why)),
            answer => Ok(answer),
        }
    }

    /// Waits a moment until the status shows the clients that are in force now.
    async fn taken_up(&self) {
        let in_force = configuration::in_force(&self.paths);
        let mut status = self.status.clone();
        let shown = status.wait_for(|status| {
            let names = in_force.client.iter().map(|client| client.name.get_ref());
            status.clients.iter().map(|client| &client.name).eq(names)
        });
        let _ = tokio::time::timeout(TAKEN_UP, shown).await;
    }

    async fn send(&self, command: Command) -> fdo::Result<()> {
        self.commands
            .send(command)
            .await
            .map_err(|_| fdo::Error::Failed("the supervisor is stopping".into()))
    }

    fn report(&self) -> fdo::Result<ArrayReport> {
        let not_yet = || fdo::Error::Failed("the disks have not been looked at yet; try again in a minute".into());
        let bytes = std::fs::read(self.paths.array_report()).map_err(|_| not_yet())?;
        serde_json::from_slice(&bytes).map_err(|_| not_yet())
    }
}

/// Serves the face on `bus` and takes the bus name.
pub async fn serve(
    bus: &Connection,
    paths: Paths,
    status: watch::Receiver<Arc<Status>>,
    commands: mpsc::Sender<Command>,
    systemd: Systemd,
) -> zbus::Result<()> {
    bus.object_server()
        .at(
            OBJECT_PATH,
            ApplianceFace {
                paths,
                status,
                commands,
                systemd,
                inputs: Inputs::default(),
                challenges: Challenges::default(),
            },
        )
        .await?;
    bus.request_name(BUS_NAME).await
}

/// Announces changes for ever.
pub async fn announce(bus: Connection, mut status: watch::Receiver<Arc<Status>>) -> zbus::Result<()> {
    let face = bus.object_server().interface::<_, ApplianceFace>(OBJECT_PATH).await?;
    while status.changed().await.is_ok() {
        status.borrow_and_update();
        face.get().await.status_changed(face.signal_emitter()).await?;
        face.get().await.health_changed(face.signal_emitter()).await?;
        tokio::time::sleep(ANNOUNCE_PERIOD).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_a_repair_was_given_is_fetched_once_and_by_that_repair() {
        let inputs = Inputs::default();
        let asus = ClientName::new("asus").unwrap();
        let give = |segment, text: &str| {
            let (input, mut output) = std::io::pipe().unwrap();
            output.write_all(text.as_bytes()).unwrap();
            inputs.put(asus.clone(), segment, input.into());
        };
        give(17, "old");
        give(17, "new");
        assert!(inputs.take(&ClientName::new("laptop").unwrap(), 17).is_none());
        assert!(inputs.take(&asus, 18).is_none());
        let mut text = String::new();
        let input = inputs.take(&asus, 17).unwrap();
        std::fs::File::from(input).read_to_string(&mut text).unwrap();
        assert_eq!(text, "new");
        assert!(inputs.take(&asus, 17).is_none());
    }
}
