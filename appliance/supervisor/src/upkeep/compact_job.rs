//! The role `strongroom-upkeep compact NAME:TRANSACTION`: frees what a client deleted, with `borg compact` as the client's
//! own account, in a unit like that of a session. Nothing else makes anything go for good.
//!
//! Wherever it is cut short: the client stays held out, since the journal stands; the repository is one that Borg can go on
//! with, since its compaction commits what it moved before it deletes what it moved from; and whoever finds the journal
//! sees that the repository says again that it only grows, and tells what is remembered what came of it. A compaction that
//! was cut short is not taken up again by itself: its owner confirmed another state.

use super::begin::{self, Begun, UpkeepError};
use super::{hold, told};
use crate::configuration::in_force;
use crate::identity;
use crate::paths::{ARRAY_MOUNT, Paths, repository_name};
use crate::services::systemd::{Ended, Systemd, SystemdError};
use crate::sessions::accounts::Account;
use crate::sessions::list;
use crate::sessions::unit::{Confined, HELPER, confined, object_path};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use strongroom_borg::Repository;
use strongroom_model::name::ClientName;
use strongroom_model::upkeep::{Outcome, Work};
use zbus::{Connection, Fd, Variant};

/// Share of the disks among what wants them at once; a session has 50.
const IO_WEIGHT: u64 = 10;
const NICE: i32 = 15;
/// How long Borg waits for a lock, in seconds. Nobody holds one; one that a power cut left is known to be stale.
const LOCK_WAIT: u32 = 60;
/// Lines of Borg's that are told when it fails.
const LINES: usize = 3;
/// How often the unit is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the role to its end.
pub fn run(paths: &Paths, instance: &str) -> Result<(), UpkeepError> {
    let Some((name, work @ Work::Compact { .. })) = Work::of_instance(instance) else {
        return Err(UpkeepError::Usage);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bus = Connection::system().await?;
        let systemd = Systemd::new(&bus).await?;
        systemd.subscribe().await?;
        let running = list::of_client(&systemd, &name).await?;
        let begun = match account(paths, &name)
            .and_then(|account| Ok((account, begin::begin(paths, &in_force(paths), &name, work, &running)?)))
        {
            Ok(begun) => begun,
            Err(error) => {
                return begin::refused(paths, &name, work, error);
            }
        };
        let (account, begun) = begun;
        // Where it can't be told whether Borg has ended, or the repository does not say that it only grows, the journal
        // stands, and the client stays held out.
        let error = compact(paths, &systemd, &name, account, &begun).await?;
        if !Repository::open(paths.repository(&name))?.config().append_only {
            return Err(UpkeepError::Failed(
                "the repository's config does not say append_only = 1 again; it is tried again".into(),
            ));
        }
        let outcome = finish(paths, &name, &begun, error)?;
        hold::release(paths, &name, &outcome)?;
        begin::say(&name, &outcome);
        Ok(())
    })
}

/// What Borg is told.
pub fn command(repository: &str) -> Vec<String> {
    let mut words: Vec<String> = [HELPER, "compact", repository, "/usr/bin/borg", "compact", "--info"]
        .map(String::from)
        .into();
    words.extend([
        "--umask=077".into(),
        format!("--lock-wait={LOCK_WAIT}"),
        repository.into(),
    ]);
    words
}

/// Tells what is remembered what came of it. `error`: why Borg failed; empty when it did not.
pub fn finish(paths: &Paths, name: &ClientName, begun: &Begun, mut error: String) -> Result<Outcome, UpkeepError> {
    let (journal, at) = (&begun.journal, crate::clock_now().unwrap_or_default());
    let now = told::compacted(paths, name, journal, at)?;
    if begun.resumed && error.is_empty() {
        error = "it was cut short; what had been freed by then is free. To free the rest, compact again".into();
    }
    if let (true, Some(before), Some(after)) = (error.is_empty(), journal.objects, now.objects)
        && before != after
    {
        error = format!(
            "the repository had {before} objects before and has {after} now, though a compaction leaves them all; `strongroom check {name}`"
        );
    }
    Ok(now.outcome(journal, at, error))
}

/// Whose the repository is.
fn account(paths: &Paths, name: &ClientName) -> Result<Account, UpkeepError> {
    let owner = std::fs::symlink_metadata(paths.repository(name))?;
    Account::of_owner(owner.uid()).ok_or(UpkeepError::NoAccount)
}

/// Has Borg do it, and waits for the end of its unit. Returns why Borg failed; nothing when it did not.
async fn compact(
    paths: &Paths,
    systemd: &Systemd,
    name: &ClientName,
    account: Account,
    begun: &Begun,
) -> Result<String, UpkeepError> {
    let unit = format!("strongroom-compacting@{name}.service");
    let repository = format!("{ARRAY_MOUNT}/{}", repository_name(name));
    let words = if begun.resumed {
        // Borg may have outlived whoever waited for it.
        wait(systemd, &unit).await?;
        vec![HELPER.into(), "settle".into(), repository.clone()]
    } else {
        command(&repository)
    };
    let mut properties = confined(&Confined {
        description: format!("Strongroom: compaction of the repository of {name}"),
        account,
        repository: &repository,
        writable: true,
        command: words,
        host: &identity::of(paths).to_string(),
    });
    properties.push(("IOWeight", Variant::from(IO_WEIGHT)));
    properties.push(("Nice", Variant::from(NICE)));
    let (said, output) = std::io::pipe()?;
    let (output, errors) = (OwnedFd::from(output.try_clone()?), OwnedFd::from(output));
    properties.push(("StandardOutputFileDescriptor", Variant::Fd(Fd::from(output))));
    properties.push(("StandardErrorFileDescriptor", Variant::Fd(Fd::from(errors))));
    let lines = tokio::task::spawn_blocking(move || listen(said));
    systemd.start_transient(&unit, &properties).await?;
    // Ours are closed, so that what is said ends with the unit.
    drop(properties);
    let ended = wait(systemd, &unit).await?;
    let _ = systemd.unref(&unit).await;
    let lines = lines.await.unwrap_or_default();
    Ok(match ended {
        Ended::Exited(0) => String::new(),
        ended => format!(
            "Borg could not compact it ({ended}){}{}",
            if lines.is_empty() { "" } else { ": " },
            lines.join(" ")
        ),
    })
}

/// Waits until a unit has ended, with what comes after its program; at once if there is none.
async fn wait(systemd: &Systemd, unit: &str) -> Result<Ended, SystemdError> {
    let watched = systemd.watch(unit, &object_path(unit)).await?;
    loop {
        let states = systemd.states(&[unit]).await?;
        let over = states
            .iter()
            .all(|state| matches!(state.active.as_str(), "" | "inactive" | "failed"));
        if over {
            match watched.ended().await {
                Ok(Some(ended)) => return Ok(ended),
                // It is about to begin.
                Ok(None) => {}
                Err(error) if systemd.answers().await => {
                    eprintln!("{error}");
                    return Ok(Ended::NeverBegan);
                }
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Passes on what Borg says, and keeps the last of it.
fn listen(said: PipeReader) -> Vec<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        eprintln!("{line}");
        let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
        if line.trim().is_empty() {
            continue;
        }
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borg_gets_one_repository_and_its_default_threshold() {
        assert_eq!(
            command("/mnt/raid/asus_repository").join(" "),
            "/usr/lib/strongroom/strongroom-session compact /mnt/raid/asus_repository /usr/bin/borg compact --info \
             --umask=077 --lock-wait=60 /mnt/raid/asus_repository"
        );
    }
}
