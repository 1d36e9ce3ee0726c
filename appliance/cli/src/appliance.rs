//! The appliance's D-Bus face, seen from this side: status, changes, pushes.

use crate::shown::Shown;
use crate::words;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use strongroom_model::array;
use strongroom_model::bus;
use strongroom_model::job::{Job, State};
use strongroom_model::name::ClientName;
use strongroom_model::recipient::{Challenge, Listing};
use strongroom_model::registry::{Answer, ListedClient, Request};
use strongroom_model::session::Session;
use strongroom_model::status::{self, JobKind, Status, Target};
use strongroom_model::upkeep::Upkeep;
use strongroom_model::watch::Remembered;
use zbus::DBusError;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::{PropertiesChangedStream, PropertiesProxy};

const POLL: Duration = Duration::from_secs(1);
/// How long a push that was asked for may take to come up or to end at once.
const PUSH_START: Duration = Duration::from_secs(15);

/// Why the appliance could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// No bus, no supervisor, or no permission.
    #[error("{}", explain(.0))]
    Bus(#[from] zbus::Error),
    /// The supervisor is of another version.
    #[error("the supervisor's answer can't be understood: {0}. Is this command of the same release?")]
    Form(#[from] serde_json::Error),
    /// The push failed.
    #[error("{0}")]
    Push(String),
    /// A check or an acceptance did not come about.
    #[error("{0}")]
    Check(String),
    /// A compaction, a rollback or a repair was refused, not confirmed, or failed.
    #[error("{0}")]
    Upkeep(String),
    /// What was asked about a client can't be, or was not confirmed.
    #[error("{0}")]
    Client(String),
    /// What was asked of the disks did not come about.
    #[error("{0}")]
    Disks(String),
    /// There is no such job.
    #[error("{0}")]
    Job(String),
}

impl ApplianceError {
    /// Whether nobody could be asked: no bus, no supervisor, or no permission.
    pub fn is_unreachable(&self) -> bool {
        let refused = |name: &str| {
            matches!(
                name.strip_prefix("org.freedesktop.DBus.Error."),
                Some("AccessDenied" | "ServiceUnknown" | "NameHasNoOwner")
            )
        };
        match self {
            Self::Bus(zbus::Error::InputOutput(_) | zbus::Error::Connection(..)) => true,
            Self::Bus(zbus::Error::MethodError(name, ..)) => refused(name.as_str()),
            Self::Bus(zbus::Error::FDO(error)) => refused(error.name().as_str()),
            _ => false,
        }
    }
}

fn explain(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => answered(name.as_str(), text.as_deref().unwrap_or_default()),
        // zbus's own form of the errors that D-Bus knows by name.
        zbus::Error::FDO(error) => answered(error.name().as_str(), error.description().unwrap_or_default()),
        zbus::Error::InputOutput(error) | zbus::Error::Connection(error, _) => {
            format!("there is no system bus here ({error}); run this on the appliance")
        }
        other => other.to_string(),
    }
}

fn answered(name: &str, text: &str) -> String {
    match name {
        "org.freedesktop.DBus.Error.AccessDenied" => {
            "not permitted; log in as `admin`, or be in the group strongroom-admin".to_string()
        }
        "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
            "the supervisor is not running; is this the appliance? `systemctl status strongroomd` says more".to_string()
        }
        _ => text.to_string(),
    }
}

#[zbus::proxy(
    interface = "org.strongroom.Appliance1",
    default_service = "org.strongroom.Appliance1",
    default_path = "/org/strongroom/Appliance1"
)]
trait Appliance {
    #[zbus(property(emits_changed_signal = "false"))]
    fn status(&self) -> zbus::Result<String>;
    fn check_all(&self) -> zbus::Result<()>;
    fn jobs(&self) -> zbus::Result<String>;
    fn clients(&self) -> zbus::Result<String>;
    fn enrol(&self, request: &str) -> zbus::Result<String>;
    fn sessions(&self) -> zbus::Result<String>;
    fn end_session(&self, id: &str) -> zbus::Result<()>;
    fn host_key(&self) -> zbus::Result<String>;
    fn recipients(&self) -> zbus::Result<String>;
    fn challenge(&self, name: &str) -> zbus::Result<String>;
    fn prove(&self, nonce: &str) -> zbus::Result<String>;
    fn record_drill(&self, record: &str) -> zbus::Result<String>;
    fn probe(&self, target: &str, client: &str) -> zbus::Result<String>;
}

#[zbus::proxy(
    interface = "org.strongroom.Appliance1.Array",
    default_service = "org.strongroom.Appliance1",
    default_path = "/org/strongroom/Appliance1/array"
)]
trait ArrayObject {
    fn scrub(&self) -> zbus::Result<()>;
    fn disks(&self) -> zbus::Result<String>;
    fn rescan(&self) -> zbus::Result<()>;
    fn adopt(&self, uuid: &str) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.strongroom.Appliance1.Client",
    default_service = "org.strongroom.Appliance1"
)]
trait ClientObject {
    fn push(&self) -> zbus::Result<()>;
    fn check(&self) -> zbus::Result<()>;
    fn accept(&self) -> zbus::Result<()>;
    fn watched(&self) -> zbus::Result<String>;
    fn upkeep(&self) -> zbus::Result<String>;
    fn compact(&self, transaction: u32, without_off_site_copy: bool) -> zbus::Result<()>;
    fn roll_back(&self, transaction: u32, to: u32) -> zbus::Result<()>;
    fn repairable(&self, segment: u32) -> zbus::Result<()>;
    fn repair(&self, segment: u32, bytes: zbus::Fd<'_>) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.strongroom.Appliance1.Job",
    default_service = "org.strongroom.Appliance1"
)]
trait JobObject {
    fn stop(&self) -> zbus::Result<()>;
}

/// A connection to the supervisor.
pub struct Connection {
    proxy: ApplianceProxy<'static>,
    array: ArrayObjectProxy<'static>,
    changes: Option<PropertiesChangedStream>,
}

/// Reads a snapshot.
pub fn parse(text: &str) -> Result<Box<Status>, ApplianceError> {
    Ok(serde_json::from_str(text)?)
}

impl Connection {
    /// Connects over the system bus.
    pub async fn open() -> Result<Self, ApplianceError> {
        let bus = zbus::Connection::system().await?;
        Ok(Self {
            proxy: ApplianceProxy::new(&bus).await?,
            array: ArrayObjectProxy::new(&bus).await?,
            changes: None,
        })
    }

    /// The snapshot, as JSON.
    pub async fn status_json(&self) -> Result<String, ApplianceError> {
        Ok(self.proxy.status().await?)
    }

    /// Begins to listen for changes, unless it does already.
    pub async fn follow(&mut self) -> Result<(), ApplianceError> {
        if self.changes.is_none() {
            let proxy = self.proxy.inner();
            let properties = PropertiesProxy::builder(proxy.connection())
                .destination(proxy.destination())
                .path(proxy.path())
                .build()
                .await?;
            self.changes = Some(properties.receive_properties_changed().await?);
        }
        Ok(())
    }

    /// Waits until the supervisor announces a change; for ever when [`Connection::follow`] was not called or the bus is
    /// gone.
    pub async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes
            && changes.next().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }

    /// The snapshot.
    pub async fn status(&self) -> Result<Box<Status>, ApplianceError> {
        parse(&self.status_json().await?)
    }

    /// Asks for a scrub; it takes hours, so nobody waits for it.
    pub async fn scrub(&self) -> Result<(), ApplianceError> {
        Ok(self.array.scrub().await?)
    }

    /// Asks for a check of a client's repository, or of every one for an empty name.
    pub async fn check(&self, client: &str) -> Result<(), ApplianceError> {
        if client.is_empty() {
            return Ok(self.proxy.check_all().await?);
        }
        of(client, self.client(client).await?.check().await)
    }

    /// Takes note that the owner knows of all that stands about a client.
    pub async fn accept(&self, client: &str) -> Result<(), ApplianceError> {
        of(client, self.client(client).await?.accept().await)
    }

    /// What is remembered of a client's repository, as JSON.
    pub async fn watched_json(&self, client: &str) -> Result<String, ApplianceError> {
        of(client, self.client(client).await?.watched().await)
    }

    /// What is remembered of a client's repository.
    pub async fn watched(&self, client: &str) -> Result<Remembered, ApplianceError> {
        Ok(serde_json::from_str(&self.watched_json(client).await?)?)
    }

    /// The jobs that run, and those that ended lately.
    pub async fn jobs(&self) -> Result<Vec<Job>, ApplianceError> {
        Ok(serde_json::from_str(&self.proxy.jobs().await?)?)
    }

    /// Ends a job.
    pub async fn stop(&self, id: &str) -> Result<(), ApplianceError> {
        let connection = self.proxy.inner().connection();
        let job = JobObjectProxy::builder(connection).path(bus::job(id)).build().await?;
        Ok(job.stop().await?)
    }

    async fn client(&self, name: &str) -> Result<ClientObjectProxy<'static>, ApplianceError> {
        let name = ClientName::new(name).map_err(|error| ApplianceError::Client(error.to_string()))?;
        let connection = self.proxy.inner().connection();
        Ok(ClientObjectProxy::builder(connection)
            .path(bus::client(&name))
            .build()
            .await?)
    }

    /// The clients in force.
    pub async fn clients(&self) -> Result<Vec<ListedClient>, ApplianceError> {
        Ok(serde_json::from_str(&self.proxy.clients().await?)?)
    }

    /// Enrols or changes a client, or opens a pairing.
    pub async fn enrol(&self, request: &Request) -> Result<Answer, ApplianceError> {
        Ok(serde_json::from_str(
            &self.proxy.enrol(&serde_json::to_string(request)?).await?,
        )?)
    }

    /// What is on every disk, as the last look found it.
    pub async fn disks(&self) -> Result<array::Listing, ApplianceError> {
        Ok(serde_json::from_str(&self.array.disks().await?)?)
    }

    /// The sessions that are running.
    pub async fn sessions(&self) -> Result<Vec<Session>, ApplianceError> {
        Ok(serde_json::from_str(&self.proxy.sessions().await?)?)
    }

    /// Ends a session.
    pub async fn end_session(&self, id: &str) -> Result<(), ApplianceError> {
        Ok(self.proxy.end_session(id).await?)
    }

    /// What a compaction or a rollback of a client's repository would do, and how the last one ended.
    pub async fn upkeep(&self, client: &str) -> Result<Upkeep, ApplianceError> {
        let upkeep = of(client, self.client(client).await?.upkeep().await)?;
        Ok(serde_json::from_str(&upkeep)?)
    }

    /// Asks for a compaction of what was shown and confirmed.
    pub async fn compact(&self, client: &str, transaction: u32, without_copy: bool) -> Result<(), ApplianceError> {
        let compact = self.client(client).await?.compact(transaction, without_copy).await;
        of(client, compact)
    }

    /// Asks for a rollback of what was shown and confirmed.
    pub async fn roll_back(&self, client: &str, transaction: u32, to: u32) -> Result<(), ApplianceError> {
        of(client, self.client(client).await?.roll_back(transaction, to).await)
    }

    /// Asks whether a segment could be repaired now, before its bytes are sent for.
    pub async fn repairable(&self, client: &str, segment: u32) -> Result<(), ApplianceError> {
        of(client, self.client(client).await?.repairable(segment).await)
    }

    /// Asks for a segment to be repaired with what `bytes` gives.
    pub async fn repair(&self, client: &str, segment: u32, bytes: BorrowedFd<'_>) -> Result<(), ApplianceError> {
        of(client, self.client(client).await?.repair(segment, bytes.into()).await)
    }

    /// The public half of the SSH host key, one line.
    pub async fn host_key(&self) -> Result<String, ApplianceError> {
        Ok(self.proxy.host_key().await?)
    }

    /// The recipients of off-site copies, and who signs the manifests.
    pub async fn recipients(&self) -> Result<Listing, ApplianceError> {
        Ok(serde_json::from_str(&self.proxy.recipients().await?)?)
    }

    /// A message that only the holder of a recipient's secret key can read; of the only recipient for an empty name.
    pub async fn challenge(&self, name: &str) -> Result<Challenge, ApplianceError> {
        Ok(serde_json::from_str(&self.proxy.challenge(name).await?)?)
    }

    /// Answers a challenge. Returns the recipient's name.
    pub async fn prove(&self, nonce: &str) -> Result<String, ApplianceError> {
        Ok(self.proxy.prove(nonce).await?)
    }

    /// Hands over the record of a drill. Returns what was noted, in words.
    pub async fn record_drill(&self, record: &str) -> Result<String, ApplianceError> {
        Ok(self.proxy.record_drill(record).await?)
    }

    /// Has the bucket of a target tried out, below a client's prefix if one is named. What was found, as JSON.
    pub async fn probe(&self, target: &str, client: &str) -> Result<String, ApplianceError> {
        Ok(self.proxy.probe(target, client).await?)
    }

    /// Has the disks looked at again.
    pub async fn rescan(&self) -> Result<(), ApplianceError> {
        Ok(self.array.rescan().await?)
    }

    /// Consents to use an array that was made elsewhere.
    pub async fn adopt(&self, uuid: &str) -> Result<(), ApplianceError> {
        Ok(self.array.adopt(uuid).await?)
    }

    /// Asks for a push, and unless told otherwise shows its progress, waits for its end, and tells of the copies, in words or
    /// as JSON.
    ///
    /// Errors: the push failed at some target; the reason is the target's.
    pub async fn push(&self, client: &str, wait: bool, json: bool) -> Result<(), ApplianceError> {
        let before = self.status().await?;
        of(client, self.client(client).await?.push().await)?;
        if !wait {
            return Ok(());
        }
        let asked = std::time::Instant::now();
        let mut shown = Shown::new();
        let mut seen_running = false;
        loop {
            tokio::time::sleep(POLL).await;
            let status = self.status().await?;
            if let Some(job) = running(&status, JobKind::Push, client) {
                seen_running = true;
                shown.show_job(job.target.as_ref().map_or("", |target| target.as_str()), job);
                continue;
            }
            let pushed = |status: &Status| {
                status
                    .clients
                    .iter()
                    .find(|c| c.name.as_str() == client)
                    .map(|c| c.targets.clone())
            };
            // A short push may begin and end between two looks.
            if !seen_running && pushed(&before) == pushed(&status) {
                if asked.elapsed() < PUSH_START {
                    continue;
                }
                return Err(ApplianceError::Push(format!(
                    "the push of {client} did not come up, or had nothing to say; `strongroom logs --client {client}` tells more"
                )));
            }
            let jobs = self.jobs().await?;
            let job = newest_push(&jobs, client);
            if job.is_some_and(|job| job.state == State::Running) {
                continue;
            }
            shown.end();
            let targets = pushed(&status).unwrap_or_default();
            if json {
                println!("{}", serde_json::to_string(&targets)?);
            }
            return report(client, &targets, job, json);
        }
    }
}

/// A client's job of this kind, as far as the appliance tells that one is running.
pub fn running<'a>(status: &'a Status, kind: JobKind, client: &str) -> Option<&'a status::Job> {
    let mut jobs = status.jobs.iter();
    jobs.find(|job| job.kind == kind && job.client.as_ref().is_some_and(|of| of.as_str() == client))
}

/// A client's push that began last.
fn newest_push<'a>(jobs: &'a [Job], client: &str) -> Option<&'a Job> {
    let pushes = jobs
        .iter()
        .filter(|job| job.kind == JobKind::Push && job.subject == client);
    pushes.max_by_key(|job| job.started)
}

/// What came of asking for a client; that there is no such object means that there is no such client.
fn of<T>(client: &str, answer: zbus::Result<T>) -> Result<T, ApplianceError> {
    let unknown = match &answer {
        Err(zbus::Error::MethodError(name, ..)) => name.as_str() == "org.freedesktop.DBus.Error.UnknownObject",
        Err(zbus::Error::FDO(error)) => matches!(**error, zbus::fdo::Error::UnknownObject(_)),
        _ => false,
    };
    if unknown {
        return Err(ApplianceError::Client(format!(
            "there is no client `{client}`; `strongroom status` lists them"
        )));
    }
    Ok(answer?)
}

/// Tells of the copies after a push, which `job` was; they are told as JSON already if `told`.
fn report(client: &str, targets: &[Target], job: Option<&Job>, told: bool) -> Result<(), ApplianceError> {
    if job.is_some_and(|job| job.state == State::Stopped) {
        return Err(ApplianceError::Push(format!(
            "the push of {client} was stopped; what was sent stays, and the next one goes on from there"
        )));
    }
    let mut failed = Vec::new();
    for target in targets {
        if target.error.is_empty() && told {
            continue;
        }
        if target.error.is_empty() {
            match target.transaction {
                Some(transaction) => println!(
                    "{client} at {}: transaction {transaction}, {} objects, {}{}",
                    target.name,
                    target.objects,
                    words::size(target.size_bytes),
                    words::obsolete(&target.obsolete)
                ),
                None => println!("{client} at {}: nothing to push yet", target.name),
            }
        } else {
            failed.push(format!("{client} at {}: {}", target.name, target.error));
        }
    }
    // One that was killed could not say why.
    if let (true, Some(job)) = (failed.is_empty(), job.filter(|job| job.state == State::Failed)) {
        failed.push(format!(
            "the push of {client} failed ({}); `strongroom logs --client {client}` tells more",
            job.reason
        ));
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(ApplianceError::Push(failed.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_that_was_stopped_or_killed_is_no_success() {
        let job = |id: &str, started, state| Job {
            id: id.into(),
            kind: JobKind::Push,
            subject: "asus".into(),
            unit: String::new(),
            started,
            ended: Some(started + 9),
            state,
            reason: "oom-kill".into(),
            working_on: String::new(),
            done_bytes: 0,
            total_bytes: 0,
        };
        let copy = Target {
            transaction: Some(7),
            ..Target::default()
        };
        let told = |jobs: &[Job], copy: &Target| {
            let newest = newest_push(jobs, "asus");
            let told = report("asus", std::slice::from_ref(copy), newest, true);
            told.map_err(|error| error.to_string())
        };
        let earlier = job("a", 100, State::Succeeded);
        assert_eq!(told(&[], &copy), Ok(()));
        assert_eq!(told(&[earlier.clone(), job("b", 90, State::Failed)], &copy), Ok(()));
        let stopped = told(&[earlier.clone(), job("b", 110, State::Stopped)], &copy);
        assert!(stopped.unwrap_err().contains("was stopped"));
        let killed = told(&[earlier, job("b", 110, State::Failed)], &copy);
        assert!(killed.unwrap_err().contains("failed (oom-kill)"));
        let reason = Target {
            error: "no route".into(),
            ..copy
        };
        let failed = told(&[job("b", 110, State::Failed)], &reason).unwrap_err();
        assert!(failed.ends_with("no route"), "{failed}");
    }

    #[test]
    fn a_client_that_is_no_object_is_told_by_name() {
        let unknown = zbus::fdo::Error::UnknownObject("Unknown object '/org/…'".into());
        let told = of::<()>("asus", Err(zbus::Error::FDO(Box::new(unknown)))).unwrap_err();
        assert_eq!(
            told.to_string(),
            "there is no client `asus`; `strongroom status` lists them"
        );
        let other = zbus::fdo::Error::Failed("client `asus` has no off-site target".into());
        let told = of::<()>("asus", Err(zbus::Error::FDO(Box::new(other)))).unwrap_err();
        assert_eq!(told.to_string(), "client `asus` has no off-site target");
        assert_eq!(of("asus", Ok(7)).unwrap(), 7);
    }

    #[test]
    fn refusals_are_told_in_the_supervisors_words_alone() {
        let refused = |error: zbus::fdo::Error| explain(&zbus::Error::FDO(Box::new(error)));
        let text = "there is no session x-1";
        assert_eq!(refused(zbus::fdo::Error::InvalidArgs(text.into())), text);
        assert!(refused(zbus::fdo::Error::AccessDenied("…".into())).contains("log in as `admin`"));
    }
}
