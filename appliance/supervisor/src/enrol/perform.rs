//! Performs one request: decides with the model, looks at what the array and the running sessions say to it, writes the
//! registry and sshd's keys, and tells which steps the running system is to take. One at a time; whatever is refused
//! changes nothing.

use super::{StoreError, folders, keep, mend, pairing, registry};
use crate::configuration::apply::{Step, client_steps};
use crate::configuration::{declared, generate, lock};
use crate::durable;
use crate::offsite::{drills, recipients};
use crate::paths::{ARRAY_MOUNT, Paths, repository_name};
use crate::services::command::CommandError;
use crate::services::mounts;
use crate::sessions::unit::SessionId;
use crate::upkeep::hold::{self, Hold};
use std::fs;
use std::io;
use strongroom_borg::Repository;
use strongroom_model::config::Config;
use strongroom_model::drill::{Drill, DrillError, Kind};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::pairing::{MINUTES_MAX, Pairing, Verdict};
use strongroom_model::recipient::is_fingerprint;
use strongroom_model::registry::{Answer, Change, ChangeError, Changed, Opened, Registry, Request, Settings, merge};
use strongroom_model::ssh_key::SshPublicKey;
use strongroom_model::upkeep::rollback::KeptRange;

/// What is running of the clients'.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Their sessions.
    pub sessions: Vec<SessionId>,
    /// Jobs on a client's repository, in a word.
    pub jobs: Vec<(ClientName, &'static str)>,
}

/// What was performed.
#[derive(Debug, PartialEq, Eq)]
pub struct Performed {
    /// For whoever asked.
    pub answer: Answer,
    /// What the running system is to do now.
    pub steps: Vec<Step>,
    /// The client whose sessions are to be ended, once no new one can begin.
    pub end_sessions: Option<ClientName>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The registry can't take it.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The registry can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be written or moved.
    #[error("{0}. If it stays so, restart the appliance")]
    Io(#[from] io::Error),
    /// systemd can't be asked.
    #[error("it can't be told what is running: {0}")]
    Systemd(#[from] CommandError),
    /// Something else lies in the repository's place.
    #[error("{0} on the array is not a folder; move it away on another computer first")]
    NotAFolder(String),
    /// The folder that is there is no repository that could be gone on with.
    #[error(
        "{0} on the array can't be gone on with: {1}. Choose another name, or move that folder away on another computer"
    )]
    Foreign(String, String),
    /// The repository is larger than its quota.
    #[error(
        "the repository holds {0} already, which is more than a quota of {1}; deleting frees nothing, so the client could not back up"
    )]
    QuotaBelowUse(String, String),
    /// The array is needed.
    #[error("the array is not mounted, so nothing can be moved or erased on it; `strongroom status` says why")]
    NoArray,
    /// A session uses what is to be moved or erased.
    #[error("session {0} is running; wait for its end, or end it: `strongroom sessions end {0}`")]
    Session(SessionId),
    /// A job uses what is to be moved or erased.
    #[error("{1} of client `{0}` is running; try again when it is over")]
    Job(ClientName, &'static str),
    /// The new name is taken on the array.
    #[error("there is {0} on the array already; choose another name, or move that folder away on another computer")]
    Occupied(String),
    /// A copy would have to be sent anew.
    #[error(
        "the off-site copy of `{0}` at target `{1}` lies under that name. As `{2}` its copy would begin anew, in full, and the old one would stay as it is. If that is meant, repeat this with `--new-copies`"
    )]
    Copies(String, String, String),
    /// Folders wait for the array.
    #[error("client `{0}` is still to be moved to `{1}` on the array; mount it first, `strongroom status` says how")]
    Moving(ClientName, ClientName),
    /// A time that makes no sense.
    #[error("a pairing can be open for 1 to {MINUTES_MAX} minutes")]
    Minutes,
    /// There is no host key to tell.
    #[error("the appliance's host key could not be read: {0}")]
    HostKey(io::Error),
    /// Chance could not be had.
    #[error("no random numbers are to be had: {0}")]
    Random(io::Error),
    /// There is nothing to close.
    #[error("no pairing is open")]
    NothingOpen,
    /// It is not damaged.
    #[error(
        "the registry of enrolled clients (clients.toml) can be read, and stays as it is; `strongroom client list` shows what is in it"
    )]
    SoundRegistry,
    /// There is no damaged journal.
    #[error(
        "nothing that can't be read holds client `{0}` out. A compaction or rollback that was cut short is brought to its end by itself; `strongroom status` shows it"
    )]
    NotHeldOut(ClientName),
    /// There is nothing of the kind.
    #[error("no rollback of client `{0}` kept {1}; `strongroom rollback {0}` lists what is kept")]
    NoKept(ClientName, KeptRange),
    /// Not a certificate's.
    #[error("that is not the fingerprint of a recipient")]
    NoFingerprint,
    /// The record of a drill can't be true.
    #[error(transparent)]
    Drill(#[from] DrillError),
    /// The clock is not set.
    #[error("the appliance does not know the time, so nothing can be noted; `strongroom status` says more")]
    NoTime,
    /// Nobody waits for a code.
    #[error("no pairing is open, or its time is over. Have another opened: `strongroom client pair NAME`")]
    NoPairing,
    /// Not the code.
    #[error("that is not the code; {0} tries are left")]
    WrongCode(u8),
    /// Not the code, once too often.
    #[error("that is not the code, and the pairing is closed now. Have another opened: `strongroom client pair NAME`")]
    Closed,
}

/// Performs a request. `running` was seen just before.
pub fn perform(paths: &Paths, request: &Request, running: &Running) -> Result<Performed, Refusal> {
    let _lock = lock(paths)?;
    // What must be possible while the registry can't be read.
    match request {
        Request::ClosePairing => return close_pairing(paths),
        Request::SetRegistryAside => return set_registry_aside(paths),
        Request::Reopen { name } => return reopen(paths, name, running),
        Request::RemoveKept { name, kept } => return remove_kept(paths, name, *kept),
        Request::Proven { fingerprint } => return proven(paths, fingerprint),
        Request::Drilled(drill) => return drilled(paths, drill),
        Request::Change(_) | Request::Pair { .. } | Request::Code { .. } => {}
    }
    let scene = Scene {
        paths,
        declared: declared(paths),
        registry: finished(paths, registry(paths)?)?,
        running,
    };
    match request {
        Request::Change(change) => scene.change(change),
        Request::Pair {
            name,
            minutes,
            settings,
        } => scene.pair(name, *minutes, settings),
        Request::Code { code, key } => scene.code(code, key),
        // Done above.
        Request::ClosePairing
        | Request::SetRegistryAside
        | Request::Reopen { .. }
        | Request::RemoveKept { .. }
        | Request::Proven { .. }
        | Request::Drilled(_) => Ok(done(Vec::new(), Vec::new())),
    }
}

fn done(words: Vec<String>, steps: Vec<Step>) -> Performed {
    Performed {
        answer: Answer::Done(words),
        steps,
        end_sessions: None,
    }
}

fn close_pairing(paths: &Paths) -> Result<Performed, Refusal> {
    let open = pairing::read(paths);
    let had_failed = !pairing::conditions(paths).is_empty();
    pairing::close(paths)?;
    pairing::tell_failed(paths, None)?;
    match open {
        Some(pairing) => Ok(done(
            vec![format!(
                "The pairing for client {} is closed; its code counts no more.",
                pairing.client
            )],
            Vec::new(),
        )),
        None if had_failed => Ok(done(
            vec!["No pairing is open. That wrong codes closed one is told no more.".into()],
            Vec::new(),
        )),
        None => Err(Refusal::NothingOpen),
    }
}

fn set_registry_aside(paths: &Paths) -> Result<Performed, Refusal> {
    let (aside, rest) = mend::set_registry_aside(paths)?.ok_or(Refusal::SoundRegistry)?;
    let words = vec![
        format!("The damaged registry of clients is kept as {}.", aside.display()),
        format!(
            "{} revoked keys and {} paused clients could still be read in it, and count on.",
            rest.revoked.len(),
            rest.paused.len()
        ),
        "Enrol its clients again with `strongroom client pair` or `add` and their names; their repositories are on the array.".into(),
    ];
    let declared = declared(paths);
    let (old, new) = (
        merge(&declared, &Registry::default()).config,
        merge(&declared, &rest).config,
    );
    Ok(done(words, take_up(paths, &old, &new)?))
}

fn reopen(paths: &Paths, name: &ClientName, running: &Running) -> Result<Performed, Refusal> {
    if let Some((client, job)) = running.jobs.iter().find(|(client, _)| client == name) {
        return Err(Refusal::Job(client.clone(), job));
    }
    let aside = mend::set_journal_aside(paths, name)?.ok_or_else(|| Refusal::NotHeldOut(name.clone()))?;
    let words = vec![
        format!(
            "Client {name} is let in again. What could not be read is kept as {}.",
            aside.display()
        ),
        format!(
            "Within a minute `strongroom client show {name}` tells what is not as it was. If a rollback was cut short, `strongroom rollback {name}` to the same transaction does the rest."
        ),
    ];
    Ok(done(words, Vec::new()))
}

fn remove_kept(paths: &Paths, name: &ClientName, kept: KeptRange) -> Result<Performed, Refusal> {
    if !is_mounted(paths) {
        return Err(Refusal::NoArray);
    }
    // The one that fills it may have been cut short.
    if hold::of(paths, name) != Hold::Open {
        return Err(Refusal::Job(name.clone(), "a compaction or rollback"));
    }
    if !folders::give_up_kept(paths, name, kept)? {
        return Err(Refusal::NoKept(name.clone(), kept));
    }
    let words = vec![format!(
        "What the rollback of client {name} kept as {kept} is being erased."
    )];
    Ok(done(words, vec![Step::Repositories]))
}

/// Keeps the time of a proof beside the configuration, which is copied onto the array: a reflash asks for none again.
fn proven(paths: &Paths, fingerprint: &str) -> Result<Performed, Refusal> {
    if !is_fingerprint(fingerprint) {
        return Err(Refusal::NoFingerprint);
    }
    let now = crate::clock_now().ok_or(Refusal::NoTime)?;
    let mut proofs = recipients::proofs(paths);
    proofs.proven(fingerprint, now);
    durable::write_json(&paths.proofs(), &proofs)?;
    let words = format!("It is noted that the secret key of {fingerprint} is there.");
    Ok(done(vec![words], Vec::new()))
}

/// Keeps the record of a restore that was tried, in the same place.
fn drilled(paths: &Paths, drill: &Drill) -> Result<Performed, Refusal> {
    let now = crate::clock_now().ok_or(Refusal::NoTime)?;
    let noted = drills::note(paths, drill.clone(), now).map_err(|error| match error {
        drills::NoteError::Record(error) => Refusal::Drill(error),
        drills::NoteError::Io(error) => Refusal::Io(error),
    })?;
    let what = match noted.kind {
        Kind::Whole => "a restore of",
        Kind::Sample => "a restore of a sample of",
    };
    let target = noted.target.as_ref().map_or("", |target| target.as_str());
    let how = if noted.passed() {
        "went well"
    } else {
        "failed, which is an alarm from now on"
    };
    let words = format!(
        "It is noted that {what} {} from its copy at {target} {how}.",
        noted.client
    );
    Ok(done(vec![words], Vec::new()))
}

/// Writes sshd's keys, and tells which steps the running system is to take.
fn take_up(paths: &Paths, old: &Config, new: &Config) -> Result<Vec<Step>, Refusal> {
    let keys = generate::client_keys_file(new);
    durable::write_if_changed(&paths.at(&keys.path), keys.content.as_bytes(), 0o644)?;
    let mut steps = client_steps(old, new);
    steps.push(Step::Clients);
    Ok(steps)
}

/// Finishes a change of name that was cut short, if the array is there.
fn finished(paths: &Paths, mut registry: Registry) -> Result<Registry, Refusal> {
    if let Some(moving) = &registry.moving
        && is_mounted(paths)
    {
        let stays = staying(&declared(paths), &registry, &moving.to);
        folders::move_repository(paths, moving)?;
        folders::move_memory(paths, moving, &stays)?;
        registry.moving = None;
        keep(paths, &registry)?;
    }
    Ok(registry)
}

/// The targets at which the place of a client's copies does not depend on its name.
fn staying(declared: &Config, registry: &Registry, name: &ClientName) -> Vec<TargetName> {
    let named = registry.named_targets(declared, name);
    let all = declared
        .offsite
        .target
        .iter()
        .map(|target| target.name.get_ref().clone());
    all.filter(|target| !named.contains(target)).collect()
}

fn is_mounted(paths: &Paths) -> bool {
    mounts::at(paths, ARRAY_MOUNT).is_some_and(|mount| !mount.read_only)
}

struct Scene<'a> {
    paths: &'a Paths,
    declared: Config,
    registry: Registry,
    running: &'a Running,
}

impl Scene<'_> {
    fn change(&self, change: &Change) -> Result<Performed, Refusal> {
        let Changed {
            registry: mut new,
            mut words,
            end_sessions,
        } = self.registry.changed(&self.declared, change)?;
        match change {
            Change::Add { name, settings, .. } => {
                self.settled(name)?;
                words.extend(self.fits(name, settings)?);
                words.push(format!(
                    "`strongroom client kit {name}` makes what its machine needs: script, timer, known_hosts."
                ));
            }
            Change::Set { name, settings } => drop(self.fits(name, settings)?),
            Change::Rename { from, to, new_copies } => {
                self.settled(to)?;
                self.may_rename(from, to, *new_copies)?;
                // With what is to be moved: a power cut from here on is made good by the next start.
                keep(self.paths, &new)?;
                new = finished(self.paths, new)?;
            }
            Change::Remove {
                name,
                delete_repository: true,
            } => {
                self.idle(name)?;
                keep(self.paths, &new)?;
                if folders::give_up_repository(self.paths, name)? {
                    folders::set_aside(&self.paths.watch(name))?;
                    words.push(format!(
                        "{} is being erased; off-site copies stay as they are.",
                        repository_name(name)
                    ));
                }
            }
            Change::Remove { name, .. } => {
                words.push(format!("Its repository {} stays as it is.", repository_name(name)))
            }
            Change::Rotate { .. } | Change::Pause { .. } | Change::Resume { .. } | Change::Revoke { .. } => {}
        }
        keep(self.paths, &new)?;
        let (old, new) = (
            merge(&self.declared, &self.registry).config,
            merge(&self.declared, &new).config,
        );
        Ok(Performed {
            answer: Answer::Done(words),
            steps: take_up(self.paths, &old, &new)?,
            end_sessions,
        })
    }

    /// Whether no folder of that name waits to be moved.
    fn settled(&self, name: &ClientName) -> Result<(), Refusal> {
        match &self.registry.moving {
            Some(moving) if [&moving.from, &moving.to].contains(&name) => {
                Err(Refusal::Moving(moving.from.clone(), moving.to.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Whether what lies on the array in the place of a client's repository can become its, within its quota. Returns
    /// what is to be known of it.
    fn fits(&self, name: &ClientName, settings: &Settings) -> Result<Option<String>, Refusal> {
        if !is_mounted(self.paths) {
            return Ok(None);
        }
        let (path, shown) = (self.paths.repository(name), repository_name(name));
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(found) if !found.is_dir() => return Err(Refusal::NotAFolder(shown)),
            Ok(_) => {}
        }
        if fs::read_dir(&path)?.next().is_none() {
            return Ok(None);
        }
        let facts = Repository::open(&path).and_then(|repository| repository.facts());
        let facts = facts.map_err(|error| Refusal::Foreign(shown.clone(), error.to_string()))?;
        let size = format!("{} MB", facts.bytes.div_ceil(1_000_000));
        match &settings.quota {
            Some(quota) if quota.bytes() < facts.bytes => Err(Refusal::QuotaBelowUse(size, quota.to_string())),
            _ => Ok(Some(format!(
                "It goes on with {shown}, which is on the array already ({size})."
            ))),
        }
    }

    fn may_rename(&self, from: &ClientName, to: &ClientName, new_copies: bool) -> Result<(), Refusal> {
        self.idle(from)?;
        if fs::symlink_metadata(self.paths.repository(to)).is_ok() {
            return Err(Refusal::Occupied(repository_name(to)));
        }
        let named = self.registry.named_targets(&self.declared, from);
        let sent = |target: &&TargetName| fs::symlink_metadata(self.paths.ledger(from, target)).is_ok();
        match named.iter().find(sent) {
            Some(target) if !new_copies => Err(Refusal::Copies(from.to_string(), target.to_string(), to.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether nothing uses a client's repository, and the array is there.
    fn idle(&self, name: &ClientName) -> Result<(), Refusal> {
        if !is_mounted(self.paths) {
            return Err(Refusal::NoArray);
        }
        if let Some(session) = self.running.sessions.iter().find(|session| session.client == *name) {
            return Err(Refusal::Session(session.clone()));
        }
        // One that was cut short as well: it is finished under the name that it began with.
        if hold::of(self.paths, name) != Hold::Open {
            return Err(Refusal::Job(name.clone(), "a compaction or rollback"));
        }
        match self.running.jobs.iter().find(|(client, _)| client == name) {
            Some((client, job)) => Err(Refusal::Job(client.clone(), job)),
            None => Ok(()),
        }
    }

    fn pair(&self, name: &ClientName, minutes: u16, settings: &Settings) -> Result<Performed, Refusal> {
        if !(1..=MINUTES_MAX).contains(&minutes) {
            return Err(Refusal::Minutes);
        }
        let known = self.registry.may_pair(&self.declared, name, settings)?;
        if !known {
            self.settled(name)?;
            self.fits(name, settings)?;
        }
        let host_key = fs::read_to_string(self.paths.host_key()).map_err(Refusal::HostKey)?;
        let host_key = SshPublicKey::parse(&host_key).map_err(|error| Refusal::HostKey(io::Error::other(error)))?;
        let mut random = [0; 10];
        let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        if filled.map_err(|error| Refusal::Random(error.into()))? < random.len() {
            return Err(Refusal::Random(io::ErrorKind::UnexpectedEof.into()));
        }
        let (pairing, code) = Pairing::open(name.clone(), settings.clone(), random, pairing::now(), minutes);
        pairing::tell_failed(self.paths, None)?;
        pairing::keep(self.paths, &pairing)?;
        eprintln!("A pairing for client {name} is open for {minutes} minutes.");
        let answer = Answer::Opened(Opened {
            code,
            minutes,
            host_key: host_key.authorized().to_string(),
            known,
        });
        Ok(Performed {
            answer,
            steps: Vec::new(),
            end_sessions: None,
        })
    }

    fn code(&self, code: &str, key: &SshPublicKey) -> Result<Performed, Refusal> {
        let Some(mut pairing) = pairing::read(self.paths) else {
            // Nothing is left of one whose time is over.
            pairing::close(self.paths)?;
            return Err(Refusal::NoPairing);
        };
        let client = pairing.client.clone();
        match pairing.judge(code, pairing::now()) {
            Verdict::Expired => return Err(Refusal::NoPairing),
            Verdict::Wrong(0) => {
                pairing::close(self.paths)?;
                pairing::tell_failed(self.paths, Some(&client))?;
                return Err(Refusal::Closed);
            }
            Verdict::Wrong(left) => {
                pairing::keep(self.paths, &pairing)?;
                return Err(Refusal::WrongCode(left));
            }
            Verdict::Right => {}
        }
        let change = self.registry.paired(&client, key, &pairing.settings);
        let performed = self.change(&change)?;
        pairing::close(self.paths)?;
        Ok(performed)
    }
}
