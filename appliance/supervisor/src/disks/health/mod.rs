//! The role `strongroom-health`: reads the disks' own account of their health at the start and every half hour, follows
//! the kernel's log for what it could not do with them, samples the space used, and writes it all down for the disks
//! duty. It changes nothing on any disk, and leaves those that sleep asleep.
//!
//! It stays, instead of being started by a timer, so that a failed read is told within seconds; between two rounds it
//! sleeps in poll(2). Durable: [`notes`], on the state partition.

pub mod notes;
pub mod report;

use crate::clock;
use crate::paths::{ARRAY_MOUNT, Paths};
use crate::services::chrony::Chronyd;
use crate::services::disk_places::{self, DiskPlace};
use crate::services::kernel_log::KernelLog;
use crate::services::{mounts, smart};
use notes::Notes;
use report::{DiskReport, HealthReport};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::disk_health::{self, Answer, Reading};
use strongroom_model::kernel_log::{self, About, Event, What};
use strongroom_model::space_trend;

/// Between two rounds of reading the disks.
const ROUND: Duration = Duration::from_secs(30 * 60);
/// A round out of turn, after trouble, waits this long: trouble seldom comes alone, and the disk is busy with it.
const AFTER_TROUBLE: Duration = Duration::from_secs(60);
/// Least time between two writes of the report while trouble pours in.
const SETTLE: Duration = Duration::from_secs(2);
/// Least time between two writes to the state partition, whatever pours in.
const KEEP: Duration = Duration::from_secs(60);
/// How often it is looked whether the array is mounted now.
const UNMOUNTED: Duration = Duration::from_secs(60);
/// Most disks that are read.
const DISKS_MAX: usize = 32;

/// Runs the role for ever. Errors: the kernel's log can't be followed, or the report can't be written.
pub fn run(paths: &Paths) -> std::io::Result<()> {
    let mut log = KernelLog::open(&paths.at("/dev/kmsg"))?;
    let mut health = Health::take_up(paths);
    let mut next_round = Instant::now();
    loop {
        let trouble = health.follow(&mut log)?;
        if trouble {
            next_round = next_round.min(Instant::now() + AFTER_TROUBLE);
        }
        if Instant::now() >= next_round {
            health.round();
            next_round = Instant::now() + ROUND;
        }
        if health.free.is_none() {
            health.sample_space();
        }
        health.write_down()?;
        let mut pause = next_round.saturating_duration_since(Instant::now());
        if health.free.is_none() {
            pause = pause.min(UNMOUNTED);
        }
        if health.is_unkept() {
            pause = pause.min(KEEP);
        }
        log.wait(pause)?;
        // Let the burst come to its end; then it is one report.
        std::thread::sleep(SETTLE);
    }
}

/// What the role knows.
struct Health<'a> {
    paths: &'a Paths,
    notes: Notes,
    /// The notes as they lie on the state partition, and since when.
    kept: (Notes, Option<Instant>),
    report: HealthReport,
    /// Every disk seen since the start, by its kernel name: one that has died is no longer listed, but still spoken of.
    places: BTreeMap<String, DiskPlace>,
    /// The last reading of each disk that told something, by serial.
    readings: BTreeMap<String, Reading>,
    free: Option<u64>,
}

impl<'a> Health<'a> {
    /// Goes on where an earlier run of this boot left off.
    fn take_up(paths: &'a Paths) -> Self {
        let mut notes = Notes::read(&paths.health_notes());
        let report = HealthReport::read(&paths.health_report()).unwrap_or_default();
        let kept = (notes.clone(), None);
        if report.sequence.is_none() {
            // A start since then: what fell out may be back, but is not to be trusted yet.
            notes
                .disks
                .values_mut()
                .for_each(|memory| memory.errors.started_again());
        }
        Self {
            paths,
            kept,
            notes,
            report,
            places: BTreeMap::new(),
            readings: BTreeMap::new(),
            free: None,
        }
    }

    /// Takes in what the kernel has said since. Returns whether a disk was in trouble.
    fn follow(&mut self, log: &mut KernelLog) -> std::io::Result<bool> {
        let mut trouble = false;
        while let Some(record) = log.take()? {
            if self.report.sequence.is_some_and(|seen| record.sequence <= seen) {
                continue;
            }
            self.report.sequence = Some(record.sequence);
            if let Some(event) = kernel_log::read(&record.message) {
                trouble |= self.take_in(&event);
            } else {
                self.report.evidence.take_in(&record.message);
            }
        }
        Ok(trouble)
    }

    fn take_in(&mut self, event: &Event) -> bool {
        let now = crate::clock_now().unwrap_or_default();
        if let (What::FileSystem, About::Array(_)) = (event.what, &event.about) {
            self.report.note_damaged("array");
            return true;
        }
        let Some(place) = self.place_of(&event.about) else {
            return false;
        };
        let serial = place.serial.clone();
        if event.what == What::FileSystem {
            self.report.note_damaged(&serial);
            return true;
        }
        let (failed, disturbed, lost) = match event.what {
            What::Failed => (1, 0, false),
            What::Disturbed => (0, 1, false),
            What::MemberLost => (0, 0, true),
            What::FileSystem => (0, 0, false),
        };
        self.notes.disk(&serial).errors.add(failed, disturbed, lost, now);
        *self.report.errors.entry(serial).or_default() += failed;
        true
    }

    /// The disk that an event is about, by the names that hold now; a name that is new is looked up.
    fn place_of(&mut self, about: &About) -> Option<&DiskPlace> {
        let is_it = |place: &DiskPlace| match about {
            // `nvme0` is the controller of `nvme0n1`.
            About::Disk(name) => {
                let of_controller = |rest: &str| name.starts_with("nvme") && rest.starts_with('n');
                place.name == *name || place.name.strip_prefix(name.as_str()).is_some_and(of_controller)
            }
            About::AtaPort(port) => place.ata_port == Some(*port),
            About::UsbPort(port) => place.usb_port.as_deref() == Some(port),
            About::Array(_) => false,
        };
        if !self.places.values().any(is_it) {
            self.look_around();
        }
        self.places.values().find(|place| is_it(place))
    }

    fn look_around(&mut self) -> Vec<DiskPlace> {
        let listed = disk_places::all(&self.paths.at("/sys")).unwrap_or_else(|error| {
            eprintln!("the disks could not be listed: {error}");
            Vec::new()
        });
        for place in listed.iter().take(DISKS_MAX) {
            // A disk that moved to another name has left its old one.
            self.places.retain(|_, old| old.serial != place.serial);
            self.places.insert(place.name.clone(), place.clone());
        }
        listed
    }

    /// Reads every disk, and takes a sample of the space if it is time for one.
    fn round(&mut self) {
        let now = crate::clock_now().unwrap_or_default();
        let listed = self.look_around();
        for place in listed.iter().take(DISKS_MAX) {
            let reading = smart::read(&format!("/dev/{}", place.name));
            self.notes.disk(&place.serial).note(&reading, now);
            let known = self.readings.get(&place.serial);
            let reading = match (reading.answer == Answer::Told, known) {
                // What it told before still holds, but for how warm it is.
                (false, Some(known)) => Reading {
                    temperature: None,
                    ..known.clone()
                },
                _ => reading,
            };
            self.readings.insert(place.serial.clone(), reading);
        }
        self.notes
            .forget_except(|serial| listed.iter().any(|place| place.serial == serial));
        self.sample_space();
    }

    fn sample_space(&mut self) {
        self.free = None;
        let Some(_mounted) = mounts::at(self.paths, ARRAY_MOUNT) else {
            return;
        };
        let Ok(stat) = rustix::fs::statvfs(self.paths.at(ARRAY_MOUNT)) else {
            return;
        };
        self.free = Some(stat.f_bavail * stat.f_frsize);
        let used = stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize;
        // Samples are only as good as their times.
        if let (Some(now), true) = (crate::clock_now(), clock::is_trusted(&Chronyd::default())) {
            space_trend::note(&mut self.notes.samples, now, used);
        }
    }

    fn write_down(&mut self) -> std::io::Result<()> {
        self.compose();
        self.report.write(&self.paths.health_report())?;
        let due = self.kept.1.is_none_or(|kept| kept.elapsed() >= KEEP);
        if self.is_unkept() && due {
            // Without the state partition there is still today's report.
            if let Err(error) = self.notes.write(&self.paths.health_notes()) {
                eprintln!("what was seen of the disks could not be kept: {error}");
            }
            self.kept = (self.notes.clone(), Some(Instant::now()));
        }
        Ok(())
    }

    fn is_unkept(&self) -> bool {
        self.kept.0 != self.notes
    }

    fn compose(&mut self) {
        let now = crate::clock_now().unwrap_or_default();
        let mut conditions = Vec::new();
        let mut disks = Vec::new();
        for place in self.places.values() {
            let reading = self.readings.get(&place.serial).cloned().unwrap_or_default();
            let memory = *self.notes.disk(&place.serial);
            let assessed = disk_health::assess(&place.serial, &place.model, &reading, &memory, now);
            conditions.extend(assessed.conditions);
            disks.push(DiskReport {
                serial: place.serial.clone(),
                health: assessed.health,
                reason: assessed.reason.to_string(),
                temperature: reading.temperature,
                power_on_hours: reading.power_on_hours.and_then(|hours| hours.try_into().ok()),
                silent: match reading.answer {
                    Answer::Silent(why) => why,
                    _ => String::new(),
                },
            });
        }
        conditions.extend(self.report.damaged.iter().map(|subject| damaged(subject)));
        conditions.extend(broken_array(&self.paths.at("/sys/block")));
        let days = self
            .free
            .and_then(|free| space_trend::days_until_full(&self.notes.samples, free));
        self.notes.filling = self.notes.filling.next(days);
        conditions.extend(self.notes.filling.condition(days));
        self.report.days_until_full = days;
        self.report.disks = disks;
        self.report.conditions = conditions;
    }
}

fn damaged(subject: &str) -> Condition {
    let what = if subject == "array" {
        "array".to_string()
    } else {
        format!("system disk's state partition ({subject})")
    };
    Condition::new(
        ConditionId::FileSystemDamaged,
        Severity::Alarm,
        subject,
        &format!("The file system of the {what} has found itself damaged, says the kernel."),
        "See that the off-site copies are up to date, then restart: it is checked and mended at the start. If it comes again, a disk or the memory is failing.",
    )
}

/// An array that goes on without one of its members says so (Documentation/admin-guide/md.rst, `array_state`).
fn broken_array(sys_block: &Path) -> Option<Condition> {
    let entries = std::fs::read_dir(sys_block).ok()?;
    let broken = entries.flatten().any(|entry| {
        let state = std::fs::read_to_string(entry.path().join("md/array_state"));
        state.is_ok_and(|state| state.trim() == "broken")
    });
    broken.then(|| {
        Condition::new(
            ConditionId::ArrayFailed,
            Severity::Alarm,
            "array",
            "The running array has lost a member: nothing on it can be trusted to be read or written until the disk is back.",
            "Switch off, check the disks' power and data cables, and start again. If the disk has died, replace it and restore from the off-site copy.",
        )
    })
}

#[cfg(test)]
mod tests;
