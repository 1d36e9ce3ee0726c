//! Events: what happened lately, in words, found by comparing two snapshots. Pure.
//!
//! Conditions tell what is; events tell what was: a backup, a push, a trouble that came or went. The newest
//! [`EVENTS_MAX`] are kept.

use crate::condition::{Condition, Health, Severity};
use crate::status::{Client, Job, JobKind, RepositoryState, Status};
use crate::text::Text;
use core::fmt;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Most events that are kept.
pub const EVENTS_MAX: usize = 32;

/// What kind of event it is. The names are stable: faces and automations refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The supervisor has looked at everything for the first time since it started.
    Started,
    /// Something that a person should know began.
    ConditionBegan,
    /// It is no longer so.
    ConditionEnded,
    /// A client made a backup.
    BackupFinished,
    /// A copy was completed at a target.
    PushFinished,
    /// A check of a client's repository came to its end. What it found is a condition.
    CheckFinished,
    /// Another job came to its end.
    JobFinished,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Started,
        Self::ConditionBegan,
        Self::ConditionEnded,
        Self::BackupFinished,
        Self::PushFinished,
        Self::CheckFinished,
        Self::JobFinished,
    ];

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::ConditionBegan => "condition-began",
            Self::ConditionEnded => "condition-ended",
            Self::BackupFinished => "backup-finished",
            Self::PushFinished => "push-finished",
            Self::CheckFinished => "check-finished",
            Self::JobFinished => "job-finished",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 at each start of the supervisor, so that a reader knows what it has seen.
    pub number: u32,
    /// When it was noticed, Unix seconds; none while the clock isn't trusted.
    pub at: Option<u64>,
    /// What kind it is.
    pub kind: EventKind,
    /// How bad it is, or was: of conditions only.
    pub severity: Option<Severity>,
    /// The client, disk, target or unit that it is about, as in conditions; empty for the appliance as a whole.
    pub subject: Text<64>,
    /// What happened, in words.
    pub text: Text<192>,
}

/// The newest events, the oldest first, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The events.
    pub recent: Vec<Event, EVENTS_MAX>,
    /// How many there were since the supervisor started: the number of the newest.
    pub count: u32,
}

impl Events {
    /// Those whose number is above `seen`, the oldest first.
    pub fn since(&self, seen: u32) -> impl Iterator<Item = &Event> {
        self.recent.iter().filter(move |event| event.number > seen)
    }

    /// Adds what happened between two snapshots. `now` is Unix seconds, none while the clock isn't trusted. At most
    /// [`EVENTS_MAX`] are kept; older ones give way.
    pub fn note(&mut self, old: &Status, new: &Status, now: Option<u64>) {
        let mut add = |kind, severity, subject: &str, text: fmt::Arguments<'_>| {
            self.count = self.count.wrapping_add(1);
            if self.recent.is_full() {
                self.recent.remove(0);
            }
            let event = Event {
                number: self.count,
                at: now,
                kind,
                severity,
                subject: subject.into(),
                text: Text::format(text),
            };
            // There is room: made above.
            let _ = self.recent.push(event);
        };
        if old.health == Health::Starting && new.health != Health::Starting {
            let release = &new.appliance.release;
            add(
                EventKind::Started,
                None,
                "",
                format_args!("Strongroom {release} is at work."),
            );
        }
        for gone in old
            .conditions
            .standing
            .iter()
            .filter(|condition| !stands(condition, new))
        {
            let (severity, subject) = (Some(gone.severity), gone.subject.as_str());
            add(
                EventKind::ConditionEnded,
                severity,
                subject,
                format_args!("No longer: {}", gone.text),
            );
        }
        for come in new
            .conditions
            .standing
            .iter()
            .filter(|condition| !stands(condition, old))
        {
            let (severity, subject) = (Some(come.severity), come.subject.as_str());
            add(
                EventKind::ConditionBegan,
                severity,
                subject,
                format_args!("{}", come.text),
            );
        }
        for client in &new.clients {
            let Some(before) = old.clients.iter().find(|before| before.name == client.name) else {
                continue;
            };
            let name = client.name.as_str();
            if backed_up(before, client) {
                add(
                    EventKind::BackupFinished,
                    None,
                    name,
                    format_args!("{name} made a backup."),
                );
            }
            for target in &client.targets {
                let known = before.targets.iter().find(|known| known.name == target.name);
                if known.is_some_and(|known| known.last_push < target.last_push) {
                    add(
                        EventKind::PushFinished,
                        None,
                        name,
                        format_args!("The copy of {name} at {} is complete.", target.name),
                    );
                }
            }
        }
        for job in old
            .jobs
            .iter()
            .filter(|job| !new.jobs.iter().any(|other| same(job, other)))
        {
            let subject = job.client.as_ref().map(|client| client.as_str()).unwrap_or_default();
            if let Some((kind, what)) = ended(job.kind) {
                let of = if subject.is_empty() { "" } else { " of " };
                add(
                    kind,
                    None,
                    subject,
                    format_args!("The {what}{of}{subject} came to its end."),
                );
            }
        }
    }
}

/// Whether a condition of that kind about that subject stands. One whose words or severity change is the same.
fn stands(condition: &Condition, status: &Status) -> bool {
    let same = |other: &Condition| other.id == condition.id && other.subject == condition.subject;
    status.conditions.standing.iter().any(same)
}

/// Whether a backup was made since. What is read for the first time, as after a start, is none.
fn backed_up(before: &Client, after: &Client) -> bool {
    before.repository != RepositoryState::Unknown && before.last_backup < after.last_backup
}

fn same(one: &Job, other: &Job) -> bool {
    one.kind == other.kind && one.client == other.client
}

/// What to say of a job's end. Of a push, its outcome tells: the copy is complete, or a condition stands. A probe is told to
/// whoever asked for it.
fn ended(kind: JobKind) -> Option<(EventKind, &'static str)> {
    Some(match kind {
        JobKind::Push | JobKind::Probe => return None,
        JobKind::Check => (EventKind::CheckFinished, "check"),
        JobKind::Scrub => (EventKind::JobFinished, "scrub"),
        JobKind::Compact => (EventKind::JobFinished, "compaction"),
        JobKind::Rollback => (EventKind::JobFinished, "rollback"),
        JobKind::Repair => (EventKind::JobFinished, "repair"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::ConditionId;
    use crate::name::{ClientName, TargetName};
    use crate::status::Target;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::string::String;
    use std::vec;

    fn status() -> Box<Status> {
        let mut status = Box::<Status>::default();
        status.health = Health::Good;
        let target = Target {
            name: TargetName::new("far").unwrap(),
            ..Target::default()
        };
        let client = Client {
            name: ClientName::new("asus").unwrap(),
            repository: RepositoryState::Present,
            targets: [target].into_iter().collect(),
            ..Client::default()
        };
        status.clients.push(client).unwrap();
        status
    }

    fn between(old: &Status, new: &Status) -> vec::Vec<(EventKind, String)> {
        let mut events = Events::default();
        events.note(old, new, Some(7));
        let told = events.recent.iter();
        told.map(|event| (event.kind, String::from(event.text.as_str())))
            .collect()
    }

    fn condition(text: &str, severity: Severity) -> Condition {
        Condition::new(ConditionId::PushFailed, severity, "asus@far", text, "advice")
    }

    #[test]
    fn nothing_happens_between_equals() {
        assert_eq!(between(&status(), &status()), []);
    }

    #[test]
    fn a_condition_begins_and_ends_once() {
        let (calm, mut worse) = (status(), status());
        worse.conditions.raise(condition("it failed", Severity::Warning));
        assert_eq!(
            between(&calm, &worse),
            [(EventKind::ConditionBegan, "it failed".into())]
        );
        let mut still = status();
        still.conditions.raise(condition("it failed again", Severity::Alarm));
        assert_eq!(between(&worse, &still), []);
        assert_eq!(
            between(&still, &calm),
            [(EventKind::ConditionEnded, "No longer: it failed again".into())]
        );
    }

    #[test]
    fn backups_pushes_and_jobs() {
        let (before, mut after) = (status(), status());
        after.clients[0].last_backup = Some(5);
        after.clients[0].targets[0].last_push = Some(6);
        let mut busy = status();
        for (kind, client) in [
            (JobKind::Check, Some("asus")),
            (JobKind::Scrub, None),
            (JobKind::Push, Some("asus")),
        ] {
            let job = Job {
                kind,
                client: client.map(|name| ClientName::new(name).unwrap()),
                target: None,
                on_disk: false,
                done_bytes: 0,
                total_bytes: 0,
            };
            busy.jobs.push(job).unwrap();
        }
        assert_eq!(
            between(&before, &after),
            [
                (EventKind::BackupFinished, "asus made a backup.".into()),
                (EventKind::PushFinished, "The copy of asus at far is complete.".into()),
            ]
        );
        assert_eq!(
            between(&busy, &before),
            [
                (EventKind::CheckFinished, "The check of asus came to its end.".into()),
                (EventKind::JobFinished, "The scrub came to its end.".into()),
            ]
        );
    }

    #[test]
    fn what_is_read_for_the_first_time_did_not_happen_now() {
        let mut read = status();
        read.clients[0].last_backup = Some(5);
        read.clients[0].targets[0].last_push = Some(6);
        let mut unread = status();
        unread.clients[0].repository = RepositoryState::Unknown;
        unread.clients[0].targets.clear();
        assert_eq!(between(&unread, &read), []);
        let starting = Status::default();
        assert_eq!(
            between(&starting, &read),
            [(EventKind::Started, "Strongroom  is at work.".into())]
        );
    }

    #[test]
    fn names_are_those_of_the_json() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    proptest! {
        #[test]
        fn the_newest_are_kept_and_numbered(changes in proptest::collection::vec(any::<bool>(), 0..200)) {
            let (mut events, mut old, mut expected) = (Events::default(), status(), 0);
            for failing in changes {
                let mut new = status();
                if failing {
                    new.conditions.raise(condition("x", Severity::Warning));
                }
                expected += u32::from(old.conditions.standing.len() != new.conditions.standing.len());
                events.note(&old, &new, None);
                old = new;
            }
            prop_assert_eq!(events.count, expected);
            prop_assert_eq!(events.recent.len(), EVENTS_MAX.min(expected as usize));
            let numbers: vec::Vec<u32> = events.recent.iter().map(|event| event.number).collect();
            let oldest = expected.saturating_sub(EVENTS_MAX as u32) + 1;
            prop_assert_eq!(numbers, (oldest..=expected).collect::<vec::Vec<u32>>());
            prop_assert_eq!(events.since(expected.saturating_sub(1)).count(), usize::from(expected > 0));
        }
    }
}
