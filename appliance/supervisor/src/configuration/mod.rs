//! The role `strongroom-configure`: takes over a configuration that the owner offers, and makes of the last good one
//! what other programs read.
//!
//! Offers come from CONFIG on the ESP at each start, and from a USB stick or by command at any time. Whichever was made last
//! counts (see [`sources`]). A configuration is taken over whole or not at all; the last good
//! one is kept on the state partition. Writes the state partition, `/run`, and a report beside the offer.

pub(crate) mod apply;
mod esp;
pub(crate) mod generate;
mod incoming;
mod note;
pub mod offered;
pub mod seal;
pub mod signing;
mod sources;
mod stick;
mod take_over;

use crate::boot::console_password;
use crate::durable;
use crate::enrol;
use crate::identity;
use crate::paths::Paths;
use crate::services::command;
use incoming::{Incoming, IncomingError};
use sources::Source;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::config::{Config, FileName};
use strongroom_model::registry::{self, Registry};
use strongroom_offsite::{Trust, trust};
pub use take_over::declared;
use take_over::{Taken, take_over};

/// What is in force: the last good strongroom.toml and the registry of enrolled clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InForce {
    /// Both together.
    pub config: Arc<Config>,
    /// What does not fit together.
    pub conditions: Vec<Condition>,
}

/// Reads what is in force.
pub fn load(paths: &Paths) -> InForce {
    let declared = declared(paths);
    let mut conditions = Vec::new();
    let registry = enrol::registry(paths).unwrap_or_else(|error| {
        conditions.push(error.condition());
        Registry::default()
    });
    let merged = registry::merge(&declared, &registry);
    conditions.extend(merged.notes.iter().map(registry::Note::condition));
    InForce {
        config: Arc::new(merged.config),
        conditions,
    }
}

/// The configuration in force, with the enrolled clients.
pub fn in_force(paths: &Paths) -> Config {
    Arc::unwrap_or_clone(load(paths).config)
}

/// Name of the configuration file.
pub const CONFIG_NAME: &str = "strongroom.toml";
/// Where the owner finds what became of it, beside the file.
pub const REPORT_NAME: &str = "strongroom-report.txt";

/// Why an offered configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It could not be read, or is wrong.
    #[error(transparent)]
    Incoming(#[from] IncomingError),
    /// It names a certificate that is not there.
    #[error(
        "{CONFIG_NAME}: the certificate `{0}` of a recipient is neither beside the file nor known from before. Make it with `strongroom recipient new`, or export it with `gpg --export --armor KEY > {0}`, and put it beside {CONFIG_NAME}."
    )]
    NoCertificate(FileName),
    /// A certificate can't be used.
    #[error("{CONFIG_NAME}: the certificate `{0}` can't be used: {1}")]
    BadCertificate(FileName, String),
    /// It names an authority, or a certificate to be shown, that is not there.
    #[error(
        "{CONFIG_NAME}: the file `{1}` of [{0}] is neither beside the file nor known from before. Put {2} (PEM) into a file of that name beside {CONFIG_NAME}."
    )]
    NoPem(&'static str, FileName, &'static str),
    /// Such a file can't be used.
    #[error("{CONFIG_NAME}: the file `{1}` of [{0}] can't be used: {2}.")]
    BadPem(&'static str, FileName, String),
    /// It names a secret that is not there.
    #[error(
        "{CONFIG_NAME}: the secret `{0}` is neither beside the file nor known from before. Put it, and nothing else, into a file of that name beside {CONFIG_NAME}."
    )]
    NoSecret(FileName),
    /// The schedule is no calendar expression.
    #[error(
        "{CONFIG_NAME}: `{0}` in [schedule] is not a calendar expression. Write it as in systemd.time(7): `daily`, `*-*-* 03:30`."
    )]
    BadCalendar(String),
    /// The state partition refuses.
    #[error("the configuration is good, but could not be kept: {0}. The last one stays in force.")]
    State(io::Error),
    /// A secret could not be sealed.
    #[error("the configuration is good, but the secret `{0}` could not be sealed: {1}. The last one stays in force.")]
    Seal(FileName, command::CommandError),
}

/// What became of an offer.
#[derive(Debug)]
pub enum Outcome {
    /// There is no configuration there.
    Nothing,
    /// It has not changed since it was taken over, and another has been since.
    Old,
    /// It is what is in force already.
    InForce,
    /// It is in force now.
    Taken {
        /// What it changed.
        changes: Vec<String>,
        /// What of it has to wait for the next start, and why.
        later: Vec<String>,
    },
    /// It is wrong, or could not be kept.
    Refused(Refusal),
}

impl Outcome {
    fn of(changes: Vec<String>, later: Vec<String>) -> Self {
        if changes.is_empty() && later.is_empty() {
            Self::InForce
        } else {
            Self::Taken { changes, later }
        }
    }
}

/// Runs the role at the start of the system, before anything that is configured by it. Errors are only those that keep
/// the generated files from being written.
pub fn run_at_start(paths: &Paths) -> io::Result<()> {
    let _lock = lock(paths)?;
    if let Err(error) = crate::clock::note_at_start(paths) {
        eprintln!("By how much the clock will be set is not going to be known: {error}");
    }
    let (incoming, outcome) = match incoming::read(&paths.owner_config()) {
        Ok(None) => (None, Outcome::Nothing),
        Err(error) => (None, Outcome::Refused(error.into())),
        Ok(Some(incoming)) => {
            let outcome = match offer(paths, &Source::Esp, &incoming) {
                Err(refusal) => Outcome::Refused(refusal),
                Ok(None) => Outcome::Old,
                Ok(Some(taken)) => Outcome::of(taken.changes, Vec::new()),
            };
            (Some(incoming), outcome)
        }
    };
    tell(&Source::Esp, &outcome);
    esp::tidy(paths, incoming.as_ref(), &outcome);
    let mut conditions = refused(&Source::Esp, &outcome);
    if let Some(Err(error)) = fs::read_to_string(paths.config()).ok().map(|text| Config::parse(&text)) {
        conditions.push(Condition::new(
            ConditionId::ConfigRefused,
            Severity::Alarm,
            "last good configuration",
            &format!("This version does not understand the last good configuration: {error}. Defaults are in force."),
            "Offer a configuration for this version, by a USB stick or in CONFIG.",
        ));
    }
    let config = in_force(paths);
    conditions.extend(seal::set_aside_unusable(paths, &config));
    conditions.extend(signing::ensure(paths, &config));
    report(paths, &conditions)?;
    let generated = generate(paths).map(drop);
    // resolved runs since long before the state partition's configuration could be read.
    if paths.root() == Path::new("/") {
        apply::perform(&[apply::Step::Names]);
        // The firewall is up before anything; what is let in beside comes later.
        if config.metrics.is_some() {
            apply::perform(&[apply::Step::Firewall]);
        }
    }
    let now = stick::monotonic_us().to_string();
    durable::write(&paths.configured(), now.as_bytes(), 0o644)?;
    generated
}

/// Runs the role for a USB stick whose file system is on the block device of that name, such as `sdb1`.
pub fn run_for_stick(paths: &Paths, device: &str) -> io::Result<()> {
    stick::run(paths, device)
}

/// Takes an offer over if it is good and its turn, and lets the running system take it up.
fn take_incoming(paths: &Paths, source: &Source, incoming: &Incoming) -> io::Result<Outcome> {
    let _lock = lock(paths)?;
    let old = in_force(paths);
    let outcome = match offer(paths, source, incoming) {
        Err(refusal) => Outcome::Refused(refusal),
        Ok(None) => Outcome::Old,
        Ok(Some(taken)) => {
            let changed = generate(paths)?;
            // What is wrong with it is in the journal, and is told at the next start.
            signing::ensure(paths, &in_force(paths));
            let steps = apply::steps(&old, &in_force(paths), &taken, &changed);
            let later = if paths.root() == Path::new("/") {
                apply::perform(&steps)
            } else {
                Vec::new()
            };
            Outcome::of(taken.changes, later)
        }
    };
    conclude(paths, source, outcome)
}

/// Tells what became of an offer in the journal and as a condition.
fn conclude(paths: &Paths, source: &Source, outcome: Outcome) -> io::Result<Outcome> {
    tell(source, &outcome);
    if !matches!(outcome, Outcome::Old | Outcome::Nothing) {
        report(paths, &refused(source, &outcome))?;
    }
    Ok(outcome)
}

/// Takes an offer over, unless it has had its turn: `None`.
fn offer(paths: &Paths, source: &Source, incoming: &Incoming) -> Result<Option<Taken>, Refusal> {
    let digest = incoming.digest();
    // Secrets lie on the ESP only until they are sealed: the owner has put them there since.
    let secrets_came = *source == Source::Esp && !incoming.secrets().is_empty();
    if sources::is_old(paths, source, &digest) && !secrets_came {
        return Ok(None);
    }
    let taken = take_over(paths, incoming)?;
    sources::remember(paths, source, &digest).map_err(Refusal::State)?;
    Ok(Some(taken))
}

fn tell(source: &Source, outcome: &Outcome) {
    let from = source.words();
    match outcome {
        Outcome::Nothing => eprintln!("There is no {CONFIG_NAME} offered by {from}."),
        Outcome::Old => eprintln!("The configuration offered by {from} has had its turn and is not taken over again."),
        Outcome::InForce => eprintln!("The configuration offered by {from} is in force already."),
        Outcome::Taken { changes, later } => {
            eprintln!(
                "The configuration offered by {from} was taken over. {}.",
                changes.join("; ")
            );
            for step in later {
                eprintln!("It comes into force at the next start: {step}");
            }
        }
        Outcome::Refused(refusal) => eprintln!("The configuration offered by {from} was refused. {refusal}"),
    }
}

fn refused(source: &Source, outcome: &Outcome) -> Vec<Condition> {
    let Outcome::Refused(refusal) = outcome else {
        return Vec::new();
    };
    let advice = match source {
        Source::Esp => {
            "The last good configuration stays in force. Correct the file and restart, or plug in a USB stick labelled STRONGROOM with a good one."
        }
        Source::Stick { .. } => {
            "The last good configuration stays in force. Correct the file and plug the stick in again."
        }
        Source::Command => "The last good configuration stays in force. Correct the file and apply it again.",
    };
    vec![Condition::new(
        ConditionId::ConfigRefused,
        Severity::Warning,
        CONFIG_NAME,
        &format!(
            "From {}: {}.",
            source.words(),
            refusal.to_string().trim_end_matches('.')
        ),
        advice,
    )]
}

fn report(paths: &Paths, conditions: &[Condition]) -> io::Result<()> {
    let text = serde_json::to_vec(conditions).unwrap_or_default();
    durable::write(&paths.config_report(), &text, 0o644)
}

/// One change of what is in force at a time; released when dropped.
pub(crate) fn lock(paths: &Paths) -> io::Result<File> {
    let path = paths.config_lock();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

fn letterhead(paths: &Paths) -> note::Letterhead {
    note::Letterhead {
        hostname: in_force(paths).network.hostname.to_string(),
        id: identity::of(paths).as_str().into(),
        time: note::time(crate::clock_now()),
    }
}

/// Makes the generated files of the last good configuration, or of none. Returns which are other than before.
fn generate(paths: &Paths) -> io::Result<BTreeSet<String>> {
    let config = in_force(paths);
    let files = generate::files(&config, &identity::of(paths), &trusted(paths, &config));
    let mut changed = BTreeSet::new();
    let optional = generate::OPTIONAL
        .map(String::from)
        .into_iter()
        .chain(disk_mounts(paths));
    for path in optional {
        if !files.iter().any(|file| file.path == path) && paths.at(&path).exists() {
            fs::remove_file(paths.at(&path))?;
            changed.insert(path);
        }
    }
    for file in files {
        if durable::write_if_changed(&paths.at(&file.path), file.content.as_bytes(), 0o644)? {
            changed.insert(file.path);
        }
    }
    if let Err(error) = console_password::apply(paths, &config) {
        eprintln!("The console password could not be put where the boot loader finds it: {error}");
    }
    if paths.root() == Path::new("/") {
        rustix::system::sethostname(config.network.hostname.as_str().as_bytes())?;
    }
    Ok(changed)
}

/// The mounts of disks that were made before.
fn disk_mounts(paths: &Paths) -> Vec<String> {
    let entries = fs::read_dir(paths.at(generate::UNITS)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| generate::is_disk_mount(name))
        .map(|name| format!("{}/{name}", generate::UNITS))
        .collect()
}

/// The owner's authorities, as they were checked when they were taken over.
fn trusted(paths: &Paths, config: &Config) -> Trust {
    let mut all = Trust::default();
    for name in &config.trust.certificates {
        let file = paths.config_files().join(name.get_ref().as_str());
        let read = fs::read(&file).map_err(|error| error.to_string());
        match read.and_then(|pem| trust::parse(&pem).map_err(|error| error.to_string())) {
            Ok(trust) => all.extend(trust),
            Err(error) => eprintln!("{}: {error}", file.display()),
        }
    }
    all
}

#[cfg(test)]
mod tests;
