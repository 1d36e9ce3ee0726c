//! Jobs: what is running, and how what ran last ended. A job is one run of a systemd unit; its identity is that run's
//! invocation, so it stays the same over a restart of the supervisor, and the journal knows its lines by it.

use crate::name::ClientName;
use crate::status::{self, JobKind};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Most jobs that have ended and are remembered; the oldest go first.
pub const ENDED_MAX: usize = 32;
/// Most jobs that run at once and are shown.
pub const RUNNING_MAX: usize = 32;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It runs.
    Running,
    /// It did what it was to do.
    Succeeded,
    /// It did not, or not all of it.
    Failed,
    /// It was ended before it was done.
    Stopped,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The run's invocation, 32 hexadecimal digits (systemd.exec(5), `INVOCATION_ID`).
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// What it works for: a client, a target, `every repository`, `the array`.
    pub subject: String,
    /// The unit.
    pub unit: String,
    /// When it began, Unix seconds.
    pub started: u64,
    /// When it ended; none while it runs.
    pub ended: Option<u64>,
    /// How far it is.
    pub state: State,
    /// Why it failed, as systemd calls it (`exit-code`, `timeout`, `oom-kill`, …); empty when it did not.
    pub reason: String,
    /// Which of several it works on now: a push on a target; a copy to a disk, or a check of every repository, on a client.
    /// Empty while unknown, and for jobs that work on one thing.
    pub working_on: String,
    /// Bytes done of that, as far as it tells.
    pub done_bytes: u64,
    /// Bytes in all; 0 while unknown, and for jobs that don't tell.
    pub total_bytes: u64,
}

impl Job {
    /// Whether it may be stopped at any time: what it did so far stays, and it goes on from there when it is begun again.
    /// What changes a repository may not; it is brought to its end.
    pub fn may_stop(&self) -> bool {
        match self.kind {
            JobKind::Push | JobKind::Scrub | JobKind::Check | JobKind::Probe => true,
            JobKind::Compact | JobKind::Rollback | JobKind::Repair => false,
        }
    }
}

/// What systemd calls the units of jobs, for a list of them.
pub const PATTERNS: [&str; 8] = [
    "strongroom-push@*.service",
    "strongroom-disk@*.service",
    "strongroom-scrub.service",
    "strongroom-verify@*.service",
    "strongroom-compact@*.service",
    "strongroom-rollback@*.service",
    "strongroom-repair@*.service",
    "strongroom-probe@*.service",
];

/// What a unit's job does, and for what; none for a unit that is no job.
pub fn of_unit(unit: &str) -> Option<(JobKind, String)> {
    let name = unit.strip_prefix("strongroom-")?.strip_suffix(".service")?;
    let (role, instance) = name.split_once('@').unwrap_or((name, ""));
    // An instance may name transactions after the client.
    let client = instance.split(':').next().unwrap_or_default();
    let client = ClientName::new(client).ok().map(|client| client.to_string());
    Some(match role {
        "scrub" if instance.is_empty() => (JobKind::Scrub, "the array".into()),
        "push" => (JobKind::Push, client?),
        // systemd.unit(5): a dash in a target's name is escaped.
        "disk" if !instance.is_empty() => (JobKind::Push, disk(&instance.replace("\\x2d", "-"))),
        "verify" => (JobKind::Check, client.unwrap_or_else(|| "every repository".into())),
        "compact" => (JobKind::Compact, client?),
        "rollback" => (JobKind::Rollback, client?),
        "repair" => (JobKind::Repair, client?),
        // TARGET or TARGET.CLIENT.
        "probe" if !instance.is_empty() => (JobKind::Probe, instance.replacen('.', " for ", 1)),
        _ => return None,
    })
}

fn disk(target: &str) -> String {
    format!("the disk {target}")
}

/// Whether that is told of this job.
fn is_of(told: &status::Job, job: &Job) -> bool {
    let of_subject = if told.on_disk {
        told.target
            .as_ref()
            .is_some_and(|target| job.subject == disk(target.as_str()))
    } else {
        let of_client = told.client.as_ref().is_none_or(|client| client.as_str() == job.subject);
        // A check of every repository works on one after the other.
        of_client || (job.kind == JobKind::Check && ClientName::new(&job.subject).is_err())
    };
    told.kind == job.kind && of_subject
}

/// What the subject does not say of that which it works on.
fn working_on(told: &status::Job, subject: &str) -> String {
    let target = told.target.as_ref().filter(|_| !told.on_disk);
    let client = told.client.as_ref().filter(|client| client.as_str() != subject);
    let client = || client.map(ToString::to_string).unwrap_or_default();
    target.map_or_else(client, ToString::to_string)
}

/// A unit as systemd tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its last invocation; empty when it never ran.
    pub invocation: String,
    /// Whether that is running.
    pub running: bool,
    /// When it began, Unix seconds.
    pub started: u64,
    /// When its process ended, Unix seconds; 0 while it never did.
    pub ended: u64,
    /// `success`, or why not.
    pub result: String,
}

/// All jobs that are known of, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    running: Vec<Job>,
    ended: VecDeque<Job>,
    /// Of those that run, the ones that were asked to stop.
    stopping: Vec<String>,
}

impl Jobs {
    /// Takes up what systemd tells of a unit. The same may be told any number of times.
    pub fn see(&mut self, unit: &str, seen: &Seen) {
        let Some((kind, subject)) = of_unit(unit) else { return };
        // An earlier run of this unit is over, whatever became of it.
        let earlier = |job: &Job| job.unit == unit && job.id != seen.invocation;
        while let Some(at) = self.running.iter().position(earlier) {
            let job = self.running.remove(at);
            let ended = job.started.max(seen.started);
            self.end(job, State::Stopped, String::new(), ended);
        }
        if seen.invocation.is_empty() || self.ended.iter().any(|job| job.id == seen.invocation) {
            return;
        }
        let at = self.running.iter().position(|job| job.id == seen.invocation);
        if seen.running {
            if at.is_none() && self.running.len() < RUNNING_MAX {
                self.running.push(new(unit, kind, subject, seen));
            }
            return;
        }
        let job = match at {
            Some(at) => self.running.remove(at),
            // It began and ended between two looks.
            None => new(unit, kind, subject, seen),
        };
        let ended = seen.ended.max(job.started);
        match seen.result.as_str() {
            _ if self.stopping.contains(&job.id) => self.end(job, State::Stopped, String::new(), ended),
            "success" => self.end(job, State::Succeeded, String::new(), ended),
            result => self.end(job, State::Failed, result.to_string(), ended),
        }
    }

    /// Somebody asked for the end of what a unit is running.
    pub fn stopping(&mut self, unit: &str) {
        let running = self.running.iter().filter(|job| job.unit == unit);
        self.stopping.extend(running.map(|job| job.id.clone()));
    }

    /// Takes over how far the running ones are.
    pub fn progress(&mut self, status: &[status::Job]) {
        for job in &mut self.running {
            if let Some(told) = status.iter().find(|told| is_of(told, job)) {
                job.working_on = working_on(told, &job.subject);
                (job.done_bytes, job.total_bytes) = (told.done_bytes, told.total_bytes);
            }
        }
    }

    /// The job that a unit is running.
    pub fn of(&self, unit: &str) -> Option<&Job> {
        self.running.iter().find(|job| job.unit == unit)
    }

    /// All of them: those that run, the oldest first, then those that ended, the last first.
    pub fn list(&self) -> Vec<Job> {
        self.running.iter().chain(self.ended.iter().rev()).cloned().collect()
    }

    fn end(&mut self, job: Job, state: State, reason: String, ended: u64) {
        self.stopping.retain(|id| *id != job.id);
        // What was found ended at the beginning comes in any order.
        let before = |other: &Job| other.ended.unwrap_or_default() <= ended;
        let at = self.ended.iter().rposition(before).map_or(0, |at| at + 1);
        let job = Job {
            state,
            reason,
            ended: Some(ended),
            ..job
        };
        self.ended.insert(at, job);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

fn new(unit: &str, kind: JobKind, subject: String, seen: &Seen) -> Job {
    Job {
        id: seen.invocation.clone(),
        kind,
        subject,
        unit: unit.into(),
        started: seen.started,
        ended: None,
        state: State::Running,
        reason: String::new(),
        working_on: String::new(),
        done_bytes: 0,
        total_bytes: 0,
    }
}

/// The one job that is meant by an identity or the beginning of one, of at least 4 digits.
///
/// Errors: none is, or several are; in words.
pub fn find<'a>(jobs: &'a [Job], id: &str) -> Result<&'a Job, String> {
    if id.len() < 4 {
        return Err(format!("`{}` is too short to name a job", id.escape_debug()));
    }
    let mut meant = jobs.iter().filter(|job| job.id.starts_with(id));
    match (meant.next(), meant.next()) {
        (Some(job), None) => Ok(job),
        (None, _) => Err(format!("there is no job {}", id.escape_debug())),
        (Some(_), Some(_)) => Err(format!("more than one job begins with {}", id.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::TargetName;
    use proptest::prelude::*;

    const PUSH: &str = "strongroom-push@asus.service";

    fn seen(invocation: &str, running: bool, result: &str) -> Seen {
        Seen {
            invocation: invocation.into(),
            running,
            started: 100,
            ended: if running { 0 } else { 130 },
            result: result.into(),
        }
    }

    #[test]
    fn units_tell_what_their_jobs_do() {
        let of = of_unit;
        assert_eq!(of(PUSH), Some((JobKind::Push, "asus".into())));
        assert_eq!(
            of("strongroom-scrub.service"),
            Some((JobKind::Scrub, "the array".into()))
        );
        let disk = Some((JobKind::Push, "the disk my-usb".into()));
        assert_eq!(of("strongroom-disk@my\\x2dusb.service"), disk);
        let every = Some((JobKind::Check, "every repository".into()));
        assert_eq!(of("strongroom-verify@ALL.service"), every);
        assert_eq!(
            of("strongroom-verify@asus.service"),
            Some((JobKind::Check, "asus".into()))
        );
        assert_eq!(
            of("strongroom-rollback@asus:9:5.service"),
            Some((JobKind::Rollback, "asus".into()))
        );
        let probe = Some((JobKind::Probe, "oracle for asus".into()));
        assert_eq!(of("strongroom-probe@oracle.asus.service"), probe);
        for other in [
            "strongroomd.service",
            "strongroom-push@asus.timer",
            "strongroom-watch@asus.service",
            "",
        ] {
            assert_eq!(of(other), None);
        }
    }

    #[test]
    fn a_job_runs_and_ends_once() {
        let mut jobs = Jobs::default();
        jobs.see(PUSH, &Seen::default());
        assert_eq!(jobs.list(), []);
        for _ in 0..3 {
            jobs.see(PUSH, &seen("a1", true, "success"));
        }
        assert_eq!(jobs.list().len(), 1);
        assert_eq!(jobs.list()[0].state, State::Running);
        for _ in 0..3 {
            jobs.see(PUSH, &seen("a1", false, "success"));
        }
        let [job] = jobs.list().try_into().unwrap();
        assert_eq!((job.state, job.started, job.ended), (State::Succeeded, 100, Some(130)));
    }

    #[test]
    fn ends_are_told_apart() {
        let mut jobs = Jobs::default();
        jobs.see(PUSH, &seen("a1", false, "exit-code"));
        assert_eq!(
            (jobs.list()[0].state, jobs.list()[0].reason.as_str()),
            (State::Failed, "exit-code")
        );
        jobs.see(PUSH, &seen("a2", true, "success"));
        jobs.stopping(PUSH);
        jobs.see(PUSH, &seen("a2", false, "signal"));
        assert_eq!(
            (jobs.list()[0].id.as_str(), jobs.list()[0].state),
            ("a2", State::Stopped)
        );
        // Its end was missed, but another run of the unit is there.
        jobs.see(PUSH, &seen("a3", true, "success"));
        let next = Seen {
            started: 200,
            ..seen("a4", true, "success")
        };
        jobs.see(PUSH, &next);
        let list = jobs.list();
        assert_eq!((list[0].id.as_str(), list[0].state), ("a4", State::Running));
        assert_eq!((list[1].id.as_str(), list[1].state), ("a3", State::Stopped));
    }

    #[test]
    fn progress_is_that_of_the_same_job() {
        let mut jobs = Jobs::default();
        jobs.see(PUSH, &seen("a1", true, ""));
        jobs.see("strongroom-verify@ALL.service", &seen("b1", true, ""));
        jobs.see("strongroom-disk@my\\x2dusb.service", &seen("c1", true, ""));
        jobs.see("strongroom-verify@asus.service", &seen("d1", true, ""));
        let told = |kind, client: &str, target: &str, done_bytes| status::Job {
            kind,
            client: ClientName::new(client).ok(),
            target: TargetName::new(target).ok(),
            on_disk: target == "my-usb",
            done_bytes,
            total_bytes: 10,
        };
        let shown = |jobs: &Jobs| -> Vec<(String, u64)> {
            let list = jobs.list().into_iter();
            list.map(|job| (job.working_on, job.done_bytes)).collect()
        };
        let one = |on: &str, done| (on.to_string(), done);
        // The disk's job copies the same client at the same time.
        let both = [
            told(JobKind::Push, "asus", "my-usb", 4),
            told(JobKind::Push, "laptop", "oracle", 1),
            told(JobKind::Push, "asus", "oracle", 2),
            told(JobKind::Check, "asus", "", 3),
        ];
        jobs.progress(&both);
        assert_eq!(
            shown(&jobs),
            [one("oracle", 2), one("asus", 3), one("asus", 4), one("", 3)]
        );
        // It goes on to the next client.
        jobs.progress(&[told(JobKind::Push, "laptop", "my-usb", 5)]);
        assert_eq!(shown(&jobs)[2], one("laptop", 5));
        assert_eq!(shown(&jobs)[0], one("oracle", 2), "that is not the push of a client");
    }

    #[test]
    fn jobs_are_found_by_the_beginning_of_their_names() {
        let mut jobs = Jobs::default();
        jobs.see(PUSH, &seen("abcd1", false, "success"));
        jobs.see(PUSH, &seen("abcd2", true, "success"));
        let list = jobs.list();
        assert_eq!(find(&list, "abcd1").unwrap().id, "abcd1");
        assert!(find(&list, "abcd").unwrap_err().contains("more than one"));
        assert!(find(&list, "abc").unwrap_err().contains("too short"));
        assert!(find(&list, "ffff").unwrap_err().contains("no job"));
    }

    proptest! {
        #[test]
        fn whatever_is_seen_the_list_is_bounded_and_no_job_is_in_it_twice(
            events in proptest::collection::vec((0u8..60, 0u8..200, any::<bool>(), 0u64..1000), 0..400)
        ) {
            let mut jobs = Jobs::default();
            for (client, id, running, time) in events {
                let unit = format!("strongroom-push@c{client}.service");
                let invocation = format!("{client}-{id}");
                let one = Seen { invocation, running, started: time, ended: time + 1, result: "success".into() };
                jobs.see(&unit, &one);
                let list = jobs.list();
                prop_assert!(list.len() <= RUNNING_MAX + ENDED_MAX);
                let mut ids: Vec<_> = list.iter().map(|job| &job.id).collect();
                ids.sort();
                ids.dedup();
                prop_assert_eq!(ids.len(), list.len());
                let ends: Vec<_> = list.iter().filter_map(|job| job.ended).collect();
                prop_assert!(ends.is_sorted_by(|one, next| one >= next));
            }
        }
    }
}
