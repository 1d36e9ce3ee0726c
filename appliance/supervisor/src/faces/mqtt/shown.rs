//! What the broker shows of us, and what has to be published so that it shows the snapshot. No I/O.
//!
//! Owns the rule of removal: a device or component that is no longer wanted is cleared, whether this process made it
//! or an earlier one did (which is known from the retained states that the broker hands back). Before the
//! first observations are in and every duty had time to report, nothing is cleared: a client that is merely not read
//! yet must not lose its history.

use super::discovery;
use super::states::{self, Message, disk_key, shown_disks};
use super::topics::{ONLINE, Topics};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use strongroom_model::condition::Health;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{CLIENTS_MAX, Status};

/// Most clients of earlier times that are remembered at once.
pub(super) const RECALLED_MAX: usize = 4 * CLIENTS_MAX;

/// What the broker shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// Hash of the last payload by topic.
    sent: BTreeMap<String, u64>,
    /// What the discovery messages sent last depend on.
    described: Option<u64>,
    /// Clients shown, with their targets.
    clients: BTreeMap<ClientName, BTreeSet<TargetName>>,
    /// Targets that have been or are to be removed from a client's device.
    leaving: BTreeMap<ClientName, BTreeSet<TargetName>>,
    /// Whether anything may be cleared, and events told: who listens has had time to come.
    settled: bool,
    /// Number of the newest event that was told.
    told: u32,
}

impl Shown {
    /// Has everything sent again at the next [`Shown::plan`]: after connecting, and when Home Assistant was born.
    pub fn forget(&mut self) {
        self.sent.clear();
        self.described = None;
    }

    /// Takes note of a client whose retained state the broker handed back.
    pub fn recall(&mut self, client: ClientName, targets: BTreeSet<TargetName>) {
        if self.clients.len() < RECALLED_MAX || self.clients.contains_key(&client) {
            self.clients.entry(client).or_default().extend(targets);
        }
    }

    /// Permits clearing what is no longer wanted, and telling events: the broker has handed back what it holds, the duties
    /// have reported, and Home Assistant has taken up what was discovered.
    pub fn permit_removal(&mut self) {
        self.settled = true;
    }

    /// Ends the removal of components: Home Assistant has had time to see it, and they are left out from now on.
    /// Returns whether there was any.
    pub fn settle(&mut self) -> bool {
        let any = !self.leaving.is_empty();
        self.leaving.clear();
        any
    }

    /// Whether a removal waits for [`Shown::settle`].
    pub fn unsettled(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// What to publish now, in order: discovery, availability, states, removals, events. Only what changed.
    pub fn plan(&mut self, topics: &Topics, status: &Status) -> Vec<Message> {
        let removals = if status.health == Health::Starting {
            Vec::new()
        } else {
            self.removals(topics, status)
        };
        for client in &status.clients {
            let targets = client.targets.iter().map(|target| target.name.clone()).collect();
            self.clients.insert(client.name.clone(), targets);
        }
        let mut messages = Vec::new();
        let description = description(status, &self.leaving);
        if self.described != Some(description) {
            self.described = Some(description);
            messages.push(discovery::appliance(topics, status));
            for client in &status.clients {
                let leaving: Vec<TargetName> = self.leaving.get(&client.name).into_iter().flatten().cloned().collect();
                messages.push(discovery::client(topics, status, client, &leaving));
            }
        }
        messages.push(Message::retained(topics.availability(), ONLINE.into()));
        messages.extend(states::states(topics, status));
        messages.retain(|message| self.is_new(message));
        messages.extend(removals);
        if self.settled {
            messages.extend(status.events.since(self.told).map(|event| states::event(topics, event)));
            self.told = status.events.count;
        }
        messages
    }

    fn removals(&mut self, topics: &Topics, status: &Status) -> Vec<Message> {
        let wanted = |name: &ClientName| status.clients.iter().find(|client| client.name == *name);
        let mut removals = Vec::new();
        for name in self.clients.keys().filter(|name| wanted(name).is_none()) {
            for topic in [topics.client_discovery(name.as_str()), topics.client(name.as_str())] {
                self.sent.remove(&topic);
                removals.push(Message::retained(topic, String::new()));
            }
        }
        self.clients.retain(|name, _| wanted(name).is_some());
        self.leaving.retain(|name, _| wanted(name).is_some());
        for (name, shown) in &self.clients {
            let has = |target: &TargetName| {
                wanted(name).is_some_and(|client| client.targets.iter().any(|one| one.name == *target))
            };
            let leaving: BTreeSet<TargetName> = shown.iter().filter(|target| !has(target)).cloned().collect();
            if !leaving.is_empty() {
                self.leaving.entry(name.clone()).or_default().extend(leaving);
            }
            // One that comes back meanwhile is no longer leaving.
            if let Some(leaving) = self.leaving.get_mut(name) {
                leaving.retain(|target| !has(target));
            }
        }
        self.leaving.retain(|_, leaving| !leaving.is_empty());
        removals
    }

    fn is_new(&mut self, message: &Message) -> bool {
        let hash = hash_of(&message.payload);
        self.sent.insert(message.topic.clone(), hash) != Some(hash)
    }
}

/// Everything that discovery depends on, so that it is not rendered at every change of a state.
fn description(status: &Status, leaving: &BTreeMap<ClientName, BTreeSet<TargetName>>) -> u64 {
    let clients: Vec<(&ClientName, Vec<&TargetName>)> = status
        .clients
        .iter()
        .map(|client| (&client.name, client.targets.iter().map(|target| &target.name).collect()))
        .collect();
    let disks: Vec<String> = shown_disks(&status.disks).map(disk_key).collect();
    let appliance = &status.appliance;
    hash_of(&(&appliance.hostname, &appliance.release, disks, clients, leaving))
}

fn hash_of(item: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faces::mqtt::sample::{sample, topics};

    fn shown() -> (Shown, Status) {
        let (mut shown, status) = (Shown::default(), sample());
        shown.permit_removal();
        shown.plan(&topics(), &status);
        (shown, status)
    }

    fn topics_of(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.topic.as_str()).collect()
    }

    #[test]
    fn discovery_then_availability_then_states() {
        let messages = Shown::default().plan(&topics(), &sample());
        let names = topics_of(&messages);
        let availability = names
            .iter()
            .position(|topic| *topic == topics().availability())
            .unwrap();
        assert_eq!(availability, 3);
        assert!(
            names[..availability]
                .iter()
                .all(|topic| topic.starts_with("homeassistant/device/"))
        );
        assert_eq!(names.len(), 3 + 1 + 7);
    }

    #[test]
    fn only_what_changed_and_after_a_birth_everything() {
        let (mut shown, mut status) = shown();
        assert!(shown.plan(&topics(), &status).is_empty());
        status.clock.offset_ns = 7;
        assert_eq!(topics_of(&shown.plan(&topics(), &status)), [topics().of("clock")]);
        shown.forget();
        assert_eq!(shown.plan(&topics(), &status).len(), 11);
    }

    #[test]
    fn each_event_is_told_once_and_not_before_anybody_can_listen() {
        let (mut shown, mut status) = (Shown::default(), sample());
        let event = topics().event();
        let told = |messages: &[Message]| messages.iter().filter(|message| message.topic == event).count();
        assert_eq!(told(&shown.plan(&topics(), &status)), 0);
        shown.permit_removal();
        assert_eq!(told(&shown.plan(&topics(), &status)), 1);
        shown.forget();
        assert_eq!(told(&shown.plan(&topics(), &status)), 0);
        let mut after = status.clone();
        after.conditions = Default::default();
        let mut events = status.events.clone();
        events.note(&status, &after, None);
        status.events = events;
        assert_eq!(topics_of(&shown.plan(&topics(), &status)), [event.as_str()]);
    }

    #[test]
    fn a_client_that_goes_is_cleared() {
        let (mut shown, mut status) = shown();
        status.clients.pop();
        let messages = shown.plan(&topics(), &status);
        let cleared: Vec<&Message> = messages.iter().filter(|message| message.payload.is_empty()).collect();
        assert_eq!(cleared.len(), 2);
        assert_eq!(cleared[0].topic, topics().client_discovery("laptop"));
        assert_eq!(cleared[1].topic, topics().client("laptop"));
        assert!(cleared.iter().all(|message| message.retain));
        assert!(shown.plan(&topics(), &status).is_empty(), "once is enough");
    }

    #[test]
    fn a_client_of_an_earlier_run_is_cleared_but_not_before_all_is_known() {
        let (mut shown, mut status) = shown();
        shown.recall(ClientName::new("gone").unwrap(), BTreeSet::new());
        status.health = Health::Starting;
        assert!(
            shown
                .plan(&topics(), &status)
                .iter()
                .all(|message| !message.payload.is_empty())
        );
        status.health = Health::Good;
        let messages = shown.plan(&topics(), &status);
        assert!(
            messages
                .iter()
                .any(|message| message.topic == topics().client("gone") && message.payload.is_empty())
        );
    }

    #[test]
    fn a_target_that_goes_is_first_named_and_then_left_out() {
        let (mut shown, mut status) = shown();
        let target = status.clients[0].targets.pop().unwrap();
        let topic = topics().client_discovery("asus_home");
        let payload = |messages: &[Message]| {
            messages
                .iter()
                .find(|message| message.topic == topic)
                .map(|message| message.payload.clone())
        };
        let stub = format!("\"target_{}_last_push\":{{\"platform\":\"sensor\"}}", target.name);
        assert!(payload(&shown.plan(&topics(), &status)).unwrap().contains(&stub));
        assert!(shown.unsettled());
        assert_eq!(payload(&shown.plan(&topics(), &status)), None);
        assert!(shown.settle());
        assert!(!payload(&shown.plan(&topics(), &status)).unwrap().contains("last_push"));
        assert!(!shown.settle());
    }

    #[test]
    fn what_is_recalled_is_bounded() {
        let mut shown = Shown::default();
        for number in 0..2 * RECALLED_MAX {
            shown.recall(ClientName::new(&format!("c{number}")).unwrap(), BTreeSet::new());
        }
        assert_eq!(shown.clients.len(), RECALLED_MAX);
    }
}
