//! The disks that copies go to: sees whether they are plugged in, has the job of each run when a copy is owed
//! ([`strongroom_model::disk_copy`]), and tells of those that are not there.
//!
//! Nothing here mounts anything. For each disk that the configuration names, and for no other, strongroom-configure writes a
//! mount unit that systemd unmounts as soon as nobody needs it; the job's unit needs it. So a disk is mounted for as long as
//! it is copied to, even where the job is killed. Before the job is started, the disk is judged by what it is
//! ([`crate::services::usb`]): the unit would take any of that name.

use super::disk_job::{self, clients_of};
use crate::paths::{ARRAY_MOUNT, Paths};
use crate::services::mounts;
use crate::services::systemd::{Systemd, SystemdError};
use crate::services::usb::{self, Purpose};
use std::collections::BTreeMap;
use std::path::PathBuf;
use strongroom_model::condition::Condition;
use strongroom_model::config::{Config, OnDisk, Target};
use strongroom_model::disk_copy::{Attempt, Plugged, Situation};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{Job, JobKind};

/// How long a job may take until it runs, in seconds: a disk has to spin up, and its journal may have to be replayed.
const COMING_UP: u64 = 180;

/// What is remembered of the disks between two looks. Lost with the daemon, which does no harm: a copy that is there already
/// is found so.
#[derive(Default)]
pub struct Disks(BTreeMap<TargetName, Known>);

#[derive(Default)]
struct Known {
    /// The device that was judged.
    device: Option<PathBuf>,
    plugged: Plugged,
    /// Runs that ended until then were with the disk as it was plugged in before.
    forget: u64,
    asked: bool,
    /// When the job was started, Unix seconds; `None` once it is known how it ended.
    started: Option<u64>,
    /// How a job ended that never came so far as to tell.
    stillborn: Option<Attempt>,
}

/// What a look found.
#[derive(Default)]
pub struct Seen {
    /// Jobs that are running.
    pub jobs: Vec<Job>,
    /// Whether a job was started that does not run yet, or has not told how it ended.
    pub coming_up: bool,
    /// What to tell.
    pub conditions: Vec<Condition>,
    /// What went wrong with each copy.
    pub errors: BTreeMap<(ClientName, TargetName), String>,
}

/// systemd's name of the job of a target.
pub fn unit(target: &TargetName) -> String {
    format!("strongroom-disk@{}.service", escaped(target))
}

/// The target whose job a unit is; none for another unit.
pub fn target_of(unit: &str) -> Option<TargetName> {
    let instance = unit.strip_prefix("strongroom-disk@")?.strip_suffix(".service")?;
    TargetName::new(&instance.replace("\\x2d", "-")).ok()
}

/// systemd's name of the mount of a target's disk.
pub fn mount_unit(target: &TargetName) -> String {
    format!("run-media-{}.mount", escaped(target))
}

/// systemd.unit(5), string escaping for inclusion in unit names, of a name that may have no other character to escape.
fn escaped(target: &TargetName) -> String {
    target.as_str().replace('-', "\\x2d")
}

/// The targets on disks that some client is copied to.
pub fn targets(config: &Config) -> impl Iterator<Item = (&Target, &OnDisk)> {
    let on_disk = config
        .offsite
        .target
        .iter()
        .filter_map(|target| Some((target, target.disk()?)));
    on_disk.filter(|(target, _)| !clients_of(config, target.name.get_ref()).is_empty())
}

impl Disks {
    /// Somebody asked for a push of this client now.
    pub fn ask(&mut self, config: &Config, client: &ClientName) {
        for (target, _) in targets(config) {
            let name = target.name.get_ref();
            if clients_of(config, name).contains(client) {
                self.0.entry(name.clone()).or_default().asked = true;
            }
        }
    }

    /// Looks at all disks, and starts what is to be started. `scheduled` is when it was last time to push each client; `now` is
    /// Unix seconds.
    pub async fn look(
        &mut self,
        paths: &Paths,
        config: &Config,
        systemd: &Systemd,
        scheduled: &BTreeMap<ClientName, u64>,
        now: u64,
    ) -> Result<Seen, SystemdError> {
        let mut seen = Seen::default();
        if targets(config).next().is_none() {
            return Ok(seen);
        }
        let is_mounted = mounts::at(paths, ARRAY_MOUNT).is_some();
        for (target, disk) in targets(config) {
            let name = target.name.get_ref();
            let known = self.0.entry(name.clone()).or_default();
            let states = systemd.states(&[&unit(name)]).await?;
            let running = states.iter().any(|state| state.is_running());
            let progress = disk_job::progress(paths, name);
            for (client, error) in &progress.errors {
                seen.errors.insert((client.clone(), name.clone()), error.clone());
            }
            known.observe(paths, config, disk, running, now);
            if running {
                seen.jobs.push(Job {
                    kind: JobKind::Push,
                    client: progress.now.clone(),
                    target: Some(name.clone()),
                    on_disk: true,
                    done_bytes: progress.done_bytes,
                    total_bytes: progress.total_bytes,
                });
            }
            let last = progress.last.filter(|last| last.at > known.forget);
            known.settle(last.as_ref(), running, now, &mount_unit(name));
            let attempt = later(last.as_ref(), known.stillborn.as_ref()).cloned();
            let clients = clients_of(config, name);
            let mut situation = Situation {
                target: name.clone(),
                disk: disk.disk.get_ref().as_str(),
                plugged: known.plugged.clone(),
                // A disk takes its time to be mounted.
                running: running || known.started.is_some(),
                attempt: attempt.as_ref(),
                scheduled: clients.iter().filter_map(|client| scheduled.get(client)).max().copied(),
                last_copy: last_copy(paths, &clients, name),
                asked: known.asked,
                remind_days: *disk.remind_days.get_ref(),
            };
            if !is_mounted {
                // There is nothing to copy, and nothing that could be told of copies.
                continue;
            }
            if situation.begins(now) {
                // What was judged when it was plugged in may have changed since: its partitions, or what uses it.
                known.device = None;
                known.observe(paths, config, disk, false, now);
                situation.plugged = known.plugged.clone();
                if situation.plugged == Plugged::Here {
                    (known.asked, known.started, known.stillborn) = (false, Some(now), None);
                    situation.running = true;
                    if let Err(error) = systemd.start(&unit(name)).await {
                        known.fails(now, error.to_string());
                        situation.running = false;
                    }
                }
            }
            seen.coming_up |= known.started.is_some();
            seen.conditions.extend(situation.decide(now));
        }
        Ok(seen)
    }
}

impl Known {
    /// Judges what is plugged in, when it is another than before.
    fn observe(&mut self, paths: &Paths, config: &Config, disk: &OnDisk, running: bool, now: u64) {
        let volume = disk.disk.get_ref();
        let Ok(device) = std::fs::canonicalize(paths.volume(volume)) else {
            self.device = None;
            self.plugged = Plugged::Away;
            return;
        };
        // While the job runs, the disk is in use, by the job.
        if self.device.as_ref() == Some(&device) || (running && self.plugged == Plugged::Here) {
            return;
        }
        if self.plugged == Plugged::Away {
            // Plugged in anew, it gets a new chance.
            (self.forget, self.started, self.stillborn) = (now, None, None);
        }
        let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.plugged = match usb::look(&name, Purpose::Copies(volume), config.array.as_ref()) {
            Ok(_) => Plugged::Here,
            // The daemon was started while the job runs.
            Err(usb::Unfit::InUse) if running => Plugged::Here,
            Err(unfit) => Plugged::Unfit(unfit.to_string()),
        };
        self.device = Some(device);
    }

    /// Notices that the job that was started has told how it ended, or has ended without, as when the disk can't be mounted.
    fn settle(&mut self, last: Option<&Attempt>, running: bool, now: u64, mount: &str) {
        let Some(started) = self.started else {
            return;
        };
        if last.is_some_and(|last| last.at >= started) {
            self.started = None;
        } else if !running && now.saturating_sub(started) >= COMING_UP {
            self.fails(now, format!(
                "it could not be mounted, or the job was cut short; `journalctl --unit '{mount}'` says more. If its file system is damaged, repair it on another computer"
            ));
        }
    }

    /// Takes note of a job that was started and told nothing.
    fn fails(&mut self, at: u64, error: String) {
        (self.started, self.stillborn) = (None, Some(Attempt { at, error }));
    }
}

fn later<'a>(one: Option<&'a Attempt>, other: Option<&'a Attempt>) -> Option<&'a Attempt> {
    [one, other].into_iter().flatten().max_by_key(|attempt| attempt.at)
}

/// When the oldest of these copies was made; `None` when one was never made, of a client that has something to copy.
fn last_copy(paths: &Paths, clients: &[ClientName], target: &TargetName) -> Option<u64> {
    let of = |client: &ClientName| {
        let summary = strongroom_offsite::ledger::read_summary(&paths.ledger(client, target));
        summary.ok().flatten().map(|summary| summary.at)
    };
    // A client that has not made its first backup has no copy, and lacks none.
    let has_one = |client: &&ClientName| paths.repository(client).join("config").exists();
    clients
        .iter()
        .filter(has_one)
        .map(of)
        .collect::<Option<Vec<u64>>>()?
        .into_iter()
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TargetName {
        TargetName::new(text).unwrap()
    }

    #[test]
    fn units_are_named_as_systemd_wants_it() {
        assert_eq!(unit(&name("usb")), "strongroom-disk@usb.service");
        for text in ["usb", "my-disk_2"] {
            assert_eq!(target_of(&unit(&name(text))), Some(name(text)));
        }
        assert_eq!(target_of("strongroom-push@usb.service"), None);
        assert_eq!(mount_unit(&name("my-disk_2")), "run-media-my\\x2ddisk_2.mount");
    }

    #[test]
    fn a_job_that_never_told_how_it_ended_has_failed() {
        let ended = |at| Attempt {
            at,
            error: String::new(),
        };
        let mut known = Known {
            started: Some(100),
            ..Known::default()
        };
        let old = ended(90);
        known.settle(Some(&old), false, 100 + COMING_UP - 1, "m");
        known.settle(Some(&old), true, 10_000, "m");
        assert!(
            known.stillborn.is_none() && known.started.is_some(),
            "it comes up, or runs"
        );
        known.settle(Some(&old), false, 10_000, "run-media-usb.mount");
        let told = known.stillborn.clone().unwrap();
        assert!(told.error.contains("run-media-usb.mount") && known.started.is_none());
        assert_eq!(later(Some(&old), Some(&told)).unwrap().at, 10_000);
        let mut good = Known {
            started: Some(100),
            ..Known::default()
        };
        good.settle(Some(&ended(100)), false, 10_000, "m");
        assert!(good.stillborn.is_none() && good.started.is_none());
    }

    #[test]
    fn what_is_plugged_in_is_judged_and_gets_a_new_chance_when_it_is_plugged_in_anew() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let text = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n[[offsite.target]]\nname = \"usb\"\ndisk = \"BACKUP\"\nrecipients = [\"owner\"]\n";
        let config = Config::parse(text).unwrap();
        let disk = config.offsite.target[0].disk().unwrap();
        let link = paths.volume(disk.disk.get_ref());
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        let mut known = Known::default();
        known.observe(&paths, &config, disk, false, 10);
        assert_eq!(known.plugged, Plugged::Away);

        known.stillborn = Some(Attempt::default());
        // What bears the name is no block device, which lsblk says.
        std::fs::write(paths.at("/dev/no-disk"), "").unwrap();
        std::os::unix::fs::symlink(paths.at("/dev/no-disk"), &link).unwrap();
        known.observe(&paths, &config, disk, false, 20);
        assert_eq!(known.plugged, Plugged::Unfit("it is gone".into()));
        assert!(known.forget == 20 && known.stillborn.is_none());
        // It is judged once.
        known.plugged = Plugged::Here;
        known.observe(&paths, &config, disk, false, 30);
        assert!(known.plugged == Plugged::Here && known.forget == 20);
        std::fs::remove_file(&link).unwrap();
        known.observe(&paths, &config, disk, true, 40);
        assert_eq!(known.plugged, Plugged::Away);
    }
}
