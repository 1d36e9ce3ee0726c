//! The role `strongroom-probe TARGET[.CLIENT]`: tries a target's bucket out with the credentials that pushes have, and
//! leaves what it found for whoever asked ([`ask`], in the supervisor).

use super::bucket;
use crate::configuration::in_force;
use crate::durable;
use crate::paths::Paths;
use crate::services::systemd::Systemd;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_offsite::AtService;
use strongroom_offsite::probe::{self, Report};

/// Stands for the client in the names of a probe's objects, where none is named.
const NOBODY: &str = "strongroom-probe";
/// How often it is looked whether the job has ended.
const POLL: Duration = Duration::from_millis(250);
/// How long a job may take to come up.
const START: Duration = Duration::from_secs(15);
/// How long a probe may take: twenty requests to a service that hardly answers.
const END: Duration = Duration::from_secs(600);

/// What is tried out; as text it is the unit's instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The target.
    pub target: TargetName,
    /// Below whose prefix; below nobody's when absent.
    pub client: Option<ClientName>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            // No name has a dot.
            Some(client) => write!(f, "{}.{client}", self.target),
            None => write!(f, "{}", self.target),
        }
    }
}

impl FromStr for Subject {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let (target, client) = match text.split_once('.') {
            Some((target, client)) => (target, Some(client)),
            None => (text, None),
        };
        Ok(Self {
            target: TargetName::new(target).map_err(|_| ProbeError::NoName)?,
            client: client
                .map(ClientName::new)
                .transpose()
                .map_err(|_| ProbeError::NoName)?,
        })
    }
}

/// Why nothing was tried out.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The names are of the wrong form.
    #[error("strongroom-probe needs the name of a target, or TARGET.CLIENT")]
    NoName,
    /// A runtime could not be made, or the outcome not be written.
    #[error("the job could not be done: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs the role to its end. That nothing could be tried out is an outcome as well.
pub fn run(paths: &Paths, instance: Option<&str>) -> Result<(), ProbeError> {
    let subject: Subject = instance.ok_or(ProbeError::NoName)?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(try_out(paths, &subject));
    if let Err(error) = &outcome {
        eprintln!("{subject}: {error}");
    }
    let text = serde_json::to_vec(&outcome).map_err(std::io::Error::from)?;
    Ok(durable::write(
        &paths.probe_outcome(&subject.to_string()),
        &text,
        0o640,
    )?)
}

async fn try_out(paths: &Paths, subject: &Subject) -> Result<Report, String> {
    let config = in_force(paths);
    let known = config.offsite.target.iter();
    let target = known
        .clone()
        .find(|target| *target.name.get_ref() == subject.target)
        .ok_or_else(|| format!("there is no target `{}`", subject.target))?;
    let Some(at) = target.bucket() else {
        return Err(format!(
            "target `{}` is a disk, of which there is nothing to try out: plug it in, and the copy begins",
            subject.target
        ));
    };
    let nobody = || ClientName::new(NOBODY).unwrap_or_default();
    let client = subject.client.clone().unwrap_or_else(nobody);
    let credentials = bucket::credentials(target)?;
    let at = AtService::configured(at, bucket::trust(paths)?);
    let prefix = target.prefix.get_ref().for_client(&client);
    let seen = probe::probe_buckets(&at, &prefix, &credentials).await;
    Ok(probe::judge_buckets(&seen.map_err(|error| error.to_string())?, &at))
}

/// Has the role run, waits for its end, and tells what it found, as JSON ([`Report`]). Errors are in words.
pub async fn ask(paths: &Paths, systemd: &Systemd, subject: &Subject) -> Result<String, String> {
    let config = in_force(paths);
    let names: Vec<&str> = config
        .offsite
        .target
        .iter()
        .map(|target| target.name.get_ref().as_str())
        .collect();
    if !names.contains(&subject.target.as_str()) {
        let names = if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        };
        return Err(format!(
            "there is no target `{}`; strongroom.toml has {names}",
            subject.target
        ));
    }
    let outcome = paths.probe_outcome(&subject.to_string());
    let before = version(&outcome);
    let unit = format!("strongroom-probe@{subject}.service");
    systemd.start(&unit).await.map_err(|error| error.to_string())?;
    let begun = Instant::now();
    loop {
        tokio::time::sleep(POLL).await;
        if version(&outcome) != before {
            let text = std::fs::read(&outcome).map_err(|error| format!("{}: {error}", outcome.display()))?;
            let outcome: Result<Report, String> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            return serde_json::to_string(&outcome?).map_err(|error| error.to_string());
        }
        let states = systemd.states(&[&unit]).await.map_err(|error| error.to_string())?;
        let running = states.iter().any(|state| state.is_running());
        let failed = states.iter().any(|state| state.is_failed());
        if failed || begun.elapsed() > if running { END } else { START } {
            return Err(format!("it came to no outcome; `journalctl --unit {unit}` tells more"));
        }
    }
}

/// Which outcome this is; each is a file of its own. The supervisor may not remove the last one.
fn version(outcome: &Path) -> Option<(u64, i64, i64)> {
    let metadata = std::fs::metadata(outcome).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_the_name_of_an_instance() {
        for text in ["oracle", "oracle.asus_home", "a-b.c-d"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for bad in ["", ".", "oracle.", ".asus", "a.b.c", "../x", "a/b", "a b"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }

    #[test]
    fn that_nothing_could_be_tried_out_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert!(run(&paths, None).is_err());
        run(&paths, Some("oracle")).unwrap();
        let text = std::fs::read(paths.probe_outcome("oracle")).unwrap();
        let outcome: Result<Report, String> = serde_json::from_slice(&text).unwrap();
        assert!(outcome.unwrap_err().contains("there is no target `oracle`"));
    }
}
