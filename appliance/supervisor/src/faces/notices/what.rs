//! What there is to say, from one snapshot to the next. No I/O.

use serde_json::{Value, json};
use strongroom_model::condition::{Area, Health, Severity};
use strongroom_model::events::{Event, EventKind};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{RepositoryState, Status};

use crate::faces::mqtt::states::iso8601;

/// What was not yet said of conditions to one who is told of them.
#[derive(Debug)]
pub struct Unsaid {
    least: Severity,
    said: u32,
}

/// A notice: everything that is unsaid, in one.
#[derive(Debug)]
pub struct Notice {
    /// Number of the newest event that it covers.
    pub upto: u32,
    appliance: String,
    health: Health,
    events: Vec<Event>,
}

impl Unsaid {
    /// Nothing was said yet. Conditions milder than `least` are not.
    pub fn new(least: Severity) -> Self {
        Self { least, said: 0 }
    }

    /// The notice that is due, if any. What left the ring of events before it could be said is not said any more.
    pub fn notice(&mut self, status: &Status) -> Option<Notice> {
        let worth = |event: &&Event| {
            let condition = matches!(event.kind, EventKind::ConditionBegan | EventKind::ConditionEnded);
            condition && event.severity.is_some_and(|severity| severity >= self.least)
        };
        let events: Vec<Event> = status.events.since(self.said).filter(worth).cloned().collect();
        if events.is_empty() {
            self.said = status.events.count;
            return None;
        }
        let name = status.appliance.hostname.as_str();
        Some(Notice {
            upto: status.events.count,
            appliance: if name.is_empty() { "strongroom" } else { name }.into(),
            health: status.health,
            events,
        })
    }

    /// The notice was taken.
    pub fn said(&mut self, upto: u32) {
        self.said = upto;
    }
}

impl Notice {
    /// The worst that began; none when everything only ended.
    fn worst(&self) -> Option<Severity> {
        let began = self
            .events
            .iter()
            .filter(|event| event.kind == EventKind::ConditionBegan);
        began.filter_map(|event| event.severity).max()
    }

    fn title(&self) -> String {
        let what = match self.worst() {
            Some(Severity::Alarm) => "alarm",
            Some(Severity::Warning) => "warning",
            Some(Severity::Info) => "worth knowing",
            None => "over",
        };
        format!("{}: {what}", self.appliance)
    }

    fn text(&self) -> String {
        let lines: Vec<&str> = self.events.iter().map(|event| event.text.as_str()).collect();
        lines.join("\n")
    }

    /// Our own form, documented in docs/exits.md.
    pub fn json(&self) -> Value {
        let events = self.events.iter().map(|event| {
            json!({
                "event": event.kind,
                "at": event.at.map(iso8601),
                "severity": event.severity,
                "subject": &event.subject,
                "text": &event.text,
            })
        });
        json!({
            "appliance": self.appliance,
            "health": self.health,
            "title": self.title(),
            "text": self.text(),
            "events": events.collect::<Vec<_>>(),
        })
    }

    /// Title, priority and text for ntfy (docs.ntfy.sh/publish). A host name is in ASCII, and so is the title.
    pub fn ntfy(&self) -> (String, &'static str, String) {
        let priority = match self.worst() {
            Some(Severity::Alarm) => "5",
            Some(Severity::Warning) => "4",
            Some(Severity::Info) | None => "2",
        };
        (self.title(), priority, self.text())
    }

    /// For Gotify (gotify.net/docs/pushmsg).
    pub fn gotify(&self) -> Value {
        let priority = match self.worst() {
            Some(Severity::Alarm) => 8,
            Some(Severity::Warning) => 5,
            Some(Severity::Info) | None => 2,
        };
        json!({ "title": self.title(), "message": self.text(), "priority": priority })
    }
}

/// What is told by a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A backup was made, or a push completed.
    Good,
    /// A push failed, or an alarm stands about the client.
    Bad,
}

/// What was last told of a client, a target, or a client's copy at a target.
#[derive(Debug)]
pub struct Followed {
    client: Option<ClientName>,
    target: Option<TargetName>,
    told: Option<Seen>,
    due: Seen,
}

/// What a snapshot says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// When it last went well.
    good: Option<u64>,
    /// Whether it stands badly.
    bad: bool,
}

impl Followed {
    /// With a target, pushes of the client, or of every client; without one, the client's backups.
    pub fn new(client: Option<ClientName>, target: Option<TargetName>) -> Self {
        Self {
            client,
            target,
            told: None,
            due: Seen::default(),
        }
    }

    /// What is to be told now, if anything. The first time that all is read, nothing is but what is bad: what went well
    /// before is past.
    pub fn outcome(&mut self, status: &Status) -> Option<Outcome> {
        self.due = self.seen(status)?;
        let told = *self.told.get_or_insert(Seen { bad: false, ..self.due });
        if self.due.bad && !told.bad {
            Some(Outcome::Bad)
        } else if self.due.good > told.good && !self.due.bad {
            Some(Outcome::Good)
        } else {
            if !self.due.bad {
                self.told = Some(Seen { bad: false, ..told });
            }
            None
        }
    }

    /// It was told of the outcome that was due last.
    pub fn told(&mut self, outcome: Outcome) {
        let bad = outcome == Outcome::Bad;
        self.told = Some(Seen { bad, ..self.due });
    }

    /// None while it is not read yet.
    fn seen(&self, status: &Status) -> Option<Seen> {
        if status.health == Health::Starting {
            return None;
        }
        let meant = |name: &ClientName| self.client.as_ref().is_none_or(|client| client == name);
        let mut clients = status.clients.iter().filter(|client| meant(&client.name)).peekable();
        clients.peek()?;
        let mut seen = Seen::default();
        for client in clients {
            match &self.target {
                Some(target) => {
                    for copy in client.targets.iter().filter(|copy| copy.name == *target) {
                        seen.good = seen.good.max(copy.last_push);
                        seen.bad |= !copy.error.is_empty();
                    }
                }
                None if client.repository == RepositoryState::Unknown => return None,
                None => {
                    seen.good = seen.good.max(client.last_backup);
                    seen.bad |= status.conditions.standing.iter().any(|condition| {
                        condition.severity == Severity::Alarm
                            && condition.id.area() == Area::Clients
                            && condition.is_about(&client.name)
                    });
                }
            }
        }
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::condition::{Condition, ConditionId, Conditions};
    use strongroom_model::status::{Client, Target};

    fn status() -> Box<Status> {
        let mut status = Box::<Status>::default();
        status.health = Health::Good;
        status.appliance.hostname = "backup".into();
        for name in ["asus", "laptop"] {
            let target = Target {
                name: TargetName::new("far").unwrap(),
                last_push: Some(10),
                ..Target::default()
            };
            let client = Client {
                name: ClientName::new(name).unwrap(),
                repository: RepositoryState::Present,
                last_backup: Some(5),
                targets: [target].into_iter().collect(),
                ..Client::default()
            };
            status.clients.push(client).unwrap();
        }
        status
    }

    fn raise(status: &mut Status, severity: Severity, text: &str) {
        let old = status.clone();
        let condition = Condition::new(ConditionId::RepositoryDamaged, severity, "asus", text, "advice");
        status.conditions.raise(condition);
        note(&old, status);
    }

    fn calm(status: &mut Status) {
        let old = status.clone();
        status.conditions = Conditions::default();
        note(&old, status);
    }

    fn note(old: &Status, status: &mut Status) {
        let mut events = status.events.clone();
        events.note(old, status, Some(1_700_000_000));
        status.events = events;
    }

    #[test]
    fn what_is_unsaid_goes_into_one_notice_until_it_is_taken() {
        let mut unsaid = Unsaid::new(Severity::Warning);
        let mut status = status();
        assert!(unsaid.notice(&status).is_none());
        raise(&mut status, Severity::Alarm, "Two segments are damaged.");
        assert_eq!(unsaid.notice(&status).unwrap().title(), "backup: alarm");
        calm(&mut status);
        let notice = unsaid.notice(&status).unwrap();
        assert_eq!(
            notice.text(),
            "Two segments are damaged.\nNo longer: Two segments are damaged."
        );
        assert_eq!(notice.json()["events"][1]["event"], "condition-ended");
        assert_eq!(notice.json()["events"][0]["at"], "2023-11-14T22:13:20+00:00");
        assert_eq!(notice.gotify()["priority"], 8);
        unsaid.said(notice.upto);
        assert!(unsaid.notice(&status).is_none());
        raise(&mut status, Severity::Info, "mild");
        assert!(unsaid.notice(&status).is_none(), "too mild");
        calm(&mut status);
        raise(&mut status, Severity::Warning, "worse");
        let notice = unsaid.notice(&status).unwrap();
        assert_eq!(notice.ntfy(), ("backup: warning".into(), "4", "worse".into()));
        unsaid.said(notice.upto);
        calm(&mut status);
        assert_eq!(unsaid.notice(&status).unwrap().ntfy().1, "2");
    }

    fn name(client: &str) -> Option<ClientName> {
        ClientName::new(client).ok()
    }

    #[test]
    fn backups_are_pinged_once_each_and_alarms_too() {
        let mut followed = Followed::new(name("asus"), None);
        let mut status = status();
        assert_eq!(followed.outcome(&status), None, "what went well before is past");
        status.clients[1].last_backup = Some(99);
        assert_eq!(followed.outcome(&status), None, "another client's");
        status.clients[0].last_backup = Some(6);
        assert_eq!(followed.outcome(&status), Some(Outcome::Good));
        assert_eq!(followed.outcome(&status), Some(Outcome::Good), "until it is taken");
        followed.told(Outcome::Good);
        assert_eq!(followed.outcome(&status), None);
        raise(&mut status, Severity::Alarm, "damaged");
        assert_eq!(followed.outcome(&status), Some(Outcome::Bad));
        followed.told(Outcome::Bad);
        assert_eq!(followed.outcome(&status), None);
        calm(&mut status);
        assert_eq!(followed.outcome(&status), None);
        raise(&mut status, Severity::Alarm, "damaged again");
        assert_eq!(followed.outcome(&status), Some(Outcome::Bad));
    }

    #[test]
    fn pushes_are_pinged_by_target() {
        let mut one = Followed::new(name("asus"), TargetName::new("far").ok());
        let mut all = Followed::new(None, TargetName::new("far").ok());
        let mut status = status();
        assert_eq!((one.outcome(&status), all.outcome(&status)), (None, None));
        status.clients[1].targets[0].last_push = Some(11);
        assert_eq!(
            (one.outcome(&status), all.outcome(&status)),
            (None, Some(Outcome::Good))
        );
        all.told(Outcome::Good);
        status.clients[0].targets[0].error = "no route".into();
        assert_eq!(
            (one.outcome(&status), all.outcome(&status)),
            (Some(Outcome::Bad), Some(Outcome::Bad))
        );
        one.told(Outcome::Bad);
        status.clients[0].targets[0].error = "".into();
        status.clients[0].targets[0].last_push = Some(12);
        assert_eq!(one.outcome(&status), Some(Outcome::Good));
    }

    #[test]
    fn before_all_is_read_nothing_is_pinged_but_what_is_bad_then_is() {
        let mut followed = Followed::new(name("asus"), TargetName::new("far").ok());
        let mut status = status();
        status.health = Health::Starting;
        status.clients[0].targets[0].error = "no route".into();
        assert_eq!(followed.outcome(&status), None);
        status.health = Health::Warning;
        assert_eq!(followed.outcome(&status), Some(Outcome::Bad));
        let mut nobody = Followed::new(name("gone"), None);
        assert_eq!(nobody.outcome(&status), None);
    }
}
