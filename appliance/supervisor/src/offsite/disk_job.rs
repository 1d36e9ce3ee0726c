//! The role `strongroom-disk TARGET`: copies the repositories of all clients that have this target to its disk, one after the
//! other, and leaves its progress and its outcome where the offsite duty reads them. It runs while the disk is mounted, which
//! systemd sees to: the unit needs the mount, and the mount goes with the unit ([`super::disks`]).
//!
//! A copy that fails is an outcome like another: the duty decides when it is tried again.

use super::job_report::{JobReport, Reporter};
use super::push_job::push_to;
use crate::configuration::in_force;
use crate::paths::Paths;
use crate::upkeep::hold;
use strongroom_model::config::{self, Config};
use strongroom_model::disk_copy::Attempt;
use strongroom_model::name::{ClientName, TargetName};

/// Why nothing could be copied at all.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The name is of the wrong form.
    #[error("strongroom-disk needs the name of a target")]
    NoName,
    /// No such target, or a bucket.
    #[error("there is no target `{0}` on a disk")]
    NoDisk(TargetName),
    /// A runtime could not be made, or the outcome not be written.
    #[error("the job could not be done: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs the role to its end.
pub fn run(paths: &Paths, name: Option<&str>) -> Result<(), DiskError> {
    let name = name
        .and_then(|name| TargetName::new(name).ok())
        .ok_or(DiskError::NoName)?;
    let config = in_force(paths);
    let mut targets = config.offsite.target.iter();
    let target = targets
        .find(|target| *target.name.get_ref() == name && target.disk().is_some())
        .ok_or_else(|| DiskError::NoDisk(name.clone()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = clients_of(&config, &name);
    let mut report = Reporter::new(paths.disk_report(&name), &clients);
    let mut failed = Vec::new();
    for client in &clients {
        report.begin(client);
        let tell = |done, total| report.tell(done, total);
        let outcome = runtime.block_on(copy(paths, &config, target, client, tell));
        let (Ok(words) | Err(words)) = &outcome;
        eprintln!("{client} to {name}: {words}");
        failed.extend(outcome.as_ref().err().map(|error| format!("{client}: {error}")));
        report.end(client, outcome.err());
    }
    report.close(Some(Attempt {
        at: crate::clock_now().unwrap_or_default(),
        error: summary(&failed),
    }))?;
    Ok(())
}

/// What the job of a target left; nothing before it ran.
pub fn progress(paths: &Paths, target: &TargetName) -> JobReport<ClientName> {
    JobReport::read(&paths.disk_report(target))
}

/// The clients that are copied to this target.
pub fn clients_of(config: &Config, target: &TargetName) -> Vec<ClientName> {
    let has_it = |client: &&config::Client| config.targets_of(client).any(|other| other.name.get_ref() == target);
    let clients = config.client.iter().filter(has_it);
    clients.map(|client| client.name.get_ref().clone()).collect()
}

/// The first failure, and how many others there are.
fn summary(failed: &[String]) -> String {
    match failed {
        [] => String::new(),
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} ({} more failed)", others.len()),
    }
}

async fn copy(
    paths: &Paths,
    config: &Config,
    target: &config::Target,
    client: &ClientName,
    tell: impl FnMut(u64, u64) + Send,
) -> Result<String, String> {
    if hold::of(paths, client) != hold::Hold::Open {
        return Ok("not before the repository's compaction, rollback or repair has ended".into());
    }
    push_to(paths, config, client, target, tell).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_short() {
        assert_eq!(summary(&[]), "");
        assert_eq!(summary(&["asus: full".into()]), "asus: full");
        assert_eq!(
            summary(&["asus: full".into(), "b: x".into(), "c: x".into()]),
            "asus: full (2 more failed)"
        );
    }
}
