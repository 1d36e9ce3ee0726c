//! The appliance as a whole: who it is, how it is doing, and what is asked of it that is no single object's.

use super::desk::{failed, json, word};
use super::tree::Object;
use crate::configuration;
use crate::enrol;
use crate::offsite::probe_job::{self, Subject};
use crate::offsite::recipients;
use crate::report::Command;
use crate::sessions::list;
use crate::sessions::unit::SessionId;
use std::time::Instant;
use strongroom_model::condition::{Conditions, Health};
use strongroom_model::drill::Drill;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::recipient::Challenge;
use strongroom_model::registry::{self, Answer, Request};
use strongroom_model::status::{self, Status};
use strongroom_offsite::openpgp::challenge::challenge;
use zbus::{fdo, interface};

/// The object.
pub type Appliance = Object<Part>;

/// What it shows, but for the whole snapshot.
#[derive(Clone, Default, PartialEq)]
pub struct Part {
    health: Health,
    appliance: status::Appliance,
    conditions: Conditions,
}

impl Part {
    /// That of a snapshot.
    pub fn new(status: &Status) -> Self {
        Self {
            health: status.health,
            appliance: status.appliance.clone(),
            conditions: status.conditions.clone(),
        }
    }
}

#[interface(name = "org.strongroom.Appliance1")]
impl Appliance {
    /// The whole snapshot, as JSON (`strongroom_model::status::Status`).
    #[zbus(property(emits_changed_signal = "invalidates"))]
    fn status(&self) -> fdo::Result<String> {
        let status = self.desk.status.borrow().clone();
        json(&*status)
    }

    /// The worst of the conditions: `starting`, `good`, `warning` or `alarm`.
    #[zbus(property)]
    fn health(&self) -> String {
        word(&self.part.get().health)
    }

    /// What a person should know, the worst first: its kind, `info`, `warning` or `alarm`, the client, disk, target or unit
    /// that it is about, what is wrong, and what to do.
    #[zbus(property)]
    fn conditions(&self) -> Vec<(String, String, String, String, String)> {
        let part = self.part.get();
        let standing = part.conditions.standing.iter();
        standing
            .map(|one| {
                let (subject, text, advice) = (one.subject.to_string(), one.text.to_string(), one.advice.to_string());
                (word(&one.id), word(&one.severity), subject, text, advice)
            })
            .collect()
    }

    /// Its identity, which stays.
    #[zbus(property)]
    fn id(&self) -> String {
        self.part.get().appliance.id.to_string()
    }

    /// Host name.
    #[zbus(property)]
    fn hostname(&self) -> String {
        self.part.get().appliance.hostname.to_string()
    }

    /// Release of Strongroom.
    #[zbus(property)]
    fn release(&self) -> String {
        self.part.get().appliance.release.to_string()
    }

    /// IP addresses.
    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.part
            .get()
            .appliance
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Fingerprint of the SSH host key, `SHA256:…`.
    #[zbus(property)]
    fn host_key_fingerprint(&self) -> String {
        self.part.get().appliance.host_key.to_string()
    }

    /// When it was started, Unix seconds; 0 while unknown.
    #[zbus(property)]
    fn booted(&self) -> u64 {
        self.part.get().appliance.booted.unwrap_or_default()
    }

    /// Reads all of every client's repository now, and compares it with what it was. Returns once the job is asked for;
    /// `answered` of each client's Watched changes with its end.
    async fn check_all(&self) -> fdo::Result<()> {
        self.desk.mounted("check")?;
        self.desk.send(Command::Check(None)).await
    }

    /// The jobs that run, and those that ended lately, as JSON (a list of `strongroom_model::job::Job`).
    async fn jobs(&self) -> fdo::Result<String> {
        let jobs = self.desk.jobs.borrow().clone();
        json(&*jobs)
    }

    /// The clients in force, as JSON (a list of `strongroom_model::registry::ListedClient`).
    async fn clients(&self) -> fdo::Result<String> {
        let registry = enrol::registry(&self.desk.paths)
            .map_err(|error| fdo::Error::Failed(format!("{error}; `strongroom status` says what to do")))?;
        let listed = registry::listing(&configuration::declared(&self.desk.paths), &registry);
        json(&listed)
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
        let answer = self.desk.ask(request).await?;
        self.desk.send(Command::Clients).await?;
        self.desk.taken_up().await;
        json(&answer)
    }

    /// The recipients of off-site copies, and who signs the manifests, as JSON (`strongroom_model::recipient::Listing`).
    async fn recipients(&self) -> fdo::Result<String> {
        let config = configuration::in_force(&self.desk.paths);
        let trusted = self.desk.status.borrow().clock.state.is_trusted();
        let now = trusted.then(crate::clock_now).flatten();
        let listing = recipients::listing(&self.desk.paths, &config, now);
        json(&listing)
    }

    /// A nonce that only the holder of a recipient's secret key can read, as JSON
    /// (`strongroom_model::recipient::Challenge`). Without a name, of the only one that copies are encrypted to.
    async fn challenge(&self, name: &str) -> fdo::Result<String> {
        let config = configuration::in_force(&self.desk.paths);
        let all = recipients::recipients(&self.desk.paths, &config, None);
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
        let file = declared.map(|declared| self.desk.paths.config_files().join(declared.certificate.as_str()));
        let made = file.ok_or_else(|| "it is unknown".to_owned()).and_then(|file| {
            let certificate = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            challenge(&certificate, None).map_err(|error| error.to_string())
        });
        let (nonce, message) =
            made.map_err(|why| fdo::Error::Failed(format!("the recipient `{}` can't be used: {why}", recipient.name)))?;
        self.desk
            .challenges
            .given(recipient.fingerprint.clone(), nonce, Instant::now());
        let challenge = Challenge {
            name: recipient.name.clone(),
            fingerprint: recipient.fingerprint.clone(),
            message,
        };
        json(&challenge)
    }

    /// Takes the nonce of a challenge as the proof that its recipient's secret key is there. Returns the recipient's name,
    /// once the proof is kept.
    async fn prove(&self, nonce: &str) -> fdo::Result<String> {
        let unknown = || {
            fdo::Error::InvalidArgs(
                "that is no nonce that is waited for; have another made with `strongroom recipient challenge`".into(),
            )
        };
        let fingerprint = self.desk.challenges.of(nonce, Instant::now()).ok_or_else(unknown)?;
        let proven = Request::Proven {
            fingerprint: fingerprint.clone(),
        };
        self.desk.ask(proven).await?;
        self.desk.challenges.forget(&fingerprint);
        let config = configuration::in_force(&self.desk.paths);
        let all = recipients::recipients(&self.desk.paths, &config, None);
        let named = all.into_iter().find(|recipient| recipient.fingerprint == fingerprint);
        Ok(named.map_or(fingerprint, |recipient| recipient.name.to_string()))
    }

    /// Takes note of a restore that was tried on a workstation: the record that `strongroom drill` made there, as JSON
    /// (`strongroom_model::drill::Drill`), for which client it says itself. Returns what was noted, in words, once it is
    /// kept; a record that can't be true of this appliance is an error.
    async fn record_drill(&self, record: &str) -> fdo::Result<String> {
        let drill = Drill::parse(record.as_bytes()).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        match self.desk.ask(Request::Drilled(Box::new(drill))).await? {
            Answer::Done(words) => Ok(words.join("\n")),
            _ => Err(fdo::Error::Failed("nothing was noted".into())),
        }
    }

    /// The sessions that are running, as JSON (a list of `strongroom_model::session::Session`).
    async fn sessions(&self) -> fdo::Result<String> {
        json(&list::sessions(&self.desk.systemd).await.map_err(failed)?)
    }

    /// Ends a session. Returns once that is asked for; Borg has ten seconds to comply.
    async fn end_session(&self, id: &str) -> fdo::Result<()> {
        let id: SessionId = id
            .parse()
            .map_err(|error| fdo::Error::InvalidArgs(format!("`{}`: {error}", id.escape_debug())))?;
        match list::end(&self.desk.systemd, &id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(fdo::Error::InvalidArgs(format!(
                "there is no session {id}; `strongroom sessions` lists those that are running"
            ))),
            Err(error) => Err(fdo::Error::Failed(error.to_string())),
        }
    }

    /// The public half of the SSH host key, one line, for those who are to know the appliance by it.
    async fn host_key(&self) -> fdo::Result<String> {
        std::fs::read_to_string(self.desk.paths.host_key())
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
        probe_job::ask(&self.desk.paths, &self.desk.systemd, &Subject { target, client })
            .await
            .map_err(fdo::Error::Failed)
    }
}

impl Appliance {
    /// The client of that name.
    fn known(&self, client: &str) -> fdo::Result<ClientName> {
        let name = ClientName::new(client).map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        let known = self.desk.status.borrow().clients.iter().any(|known| known.name == name);
        known.then_some(name).ok_or_else(|| {
            fdo::Error::InvalidArgs(format!(
                "there is no client `{}`; `strongroom status` lists them",
                client.escape_debug()
            ))
        })
    }
}
