//! The names of topics, and what a message on one of ours asks for.
//!
//! Owns every topic name. `<id>` is the appliance's identity, `[a-z0-9_]`; client names are `[a-z0-9_-]`, so that no
//! part of a topic can hold a separator or a wildcard.

use crate::report::Command;
use strongroom_model::name::ClientName;

/// What a button sends.
pub const PRESS: &[u8] = b"PRESS";
/// Availability while connected.
pub const ONLINE: &str = "online";
/// Availability otherwise; also the will.
pub const OFFLINE: &str = "offline";
/// Home Assistant's birth topic unless it was changed together with the discovery prefix.
const BIRTH_TOPIC: &str = "homeassistant/status";

/// All topics of one appliance.
#[derive(Clone, Debug)]
pub struct Topics {
    id: String,
    discovery_prefix: String,
}

impl Topics {
    /// Topics of the appliance `id`, and of discovery under `discovery_prefix`.
    pub fn new(id: &str, discovery_prefix: &str) -> Self {
        Self {
            id: id.into(),
            discovery_prefix: discovery_prefix.into(),
        }
    }

    /// The appliance's identity.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `strongroom/<id>/<subject>`.
    pub fn of(&self, subject: &str) -> String {
        format!("strongroom/{}/{subject}", self.id)
    }

    /// `online` or `offline`.
    pub fn availability(&self) -> String {
        self.of("availability")
    }

    /// What happened, as it happens.
    pub fn event(&self) -> String {
        self.of("event")
    }

    /// State of one client.
    pub fn client(&self, name: &str) -> String {
        self.of(&format!("client/{name}"))
    }

    /// States of all clients, as a filter.
    pub fn clients(&self) -> String {
        self.client("+")
    }

    /// The client whose state lies on this topic.
    pub fn client_of(&self, topic: &str) -> Option<ClientName> {
        ClientName::new(topic.strip_prefix(&self.client(""))?).ok()
    }

    /// Command topic of a client's push button.
    pub fn push(&self, name: &str) -> String {
        format!("{}/push/set", self.client(name))
    }

    /// Command topic of a client's check button.
    pub fn check(&self, name: &str) -> String {
        format!("{}/check/set", self.client(name))
    }

    /// Command topic of the identify button.
    pub fn identify(&self) -> String {
        self.of("identify/set")
    }

    /// Filters of everything that may ask for something.
    pub fn commands(&self) -> [String; 3] {
        [self.push("+"), self.check("+"), self.identify()]
    }

    /// Where Home Assistant announces its birth: its default, and under the discovery prefix when that is another.
    pub fn births(&self) -> Vec<String> {
        let mut topics = vec![BIRTH_TOPIC.to_string(), format!("{}/status", self.discovery_prefix)];
        topics.dedup();
        topics
    }

    /// Discovery topic of the appliance.
    pub fn discovery(&self) -> String {
        format!("{}/device/{}/config", self.discovery_prefix, self.id)
    }

    /// Name of a client's device in Home Assistant.
    pub fn client_device(&self, name: &str) -> String {
        format!("{}_client_{name}", self.id)
    }

    /// Discovery topic of a client.
    pub fn client_discovery(&self, name: &str) -> String {
        format!("{}/device/{}/config", self.discovery_prefix, self.client_device(name))
    }

    /// What a message asks for; `None` when it is no command in due form. Retained messages are never commands: they
    /// would be carried out again at every connection.
    pub fn command(&self, topic: &str, payload: &[u8], retained: bool) -> Option<Command> {
        if retained || payload != PRESS {
            return None;
        }
        if topic == self.identify() {
            return Some(Command::Identify);
        }
        let (name, what) = topic.strip_prefix(&self.client(""))?.split_once('/')?;
        let name = ClientName::new(name).ok()?;
        match what {
            "push/set" => Some(Command::Push(name)),
            "check/set" => Some(Command::Check(Some(name))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topics() -> Topics {
        Topics::new("strongroom_0a1b2c3d", "homeassistant")
    }

    #[test]
    fn commands_in_due_form() {
        let topics = topics();
        let push = "strongroom/strongroom_0a1b2c3d/client/asus_home/push/set";
        assert_eq!(topics.push("asus_home"), push);
        assert_eq!(
            topics.command(push, PRESS, false),
            Some(Command::Push(ClientName::new("asus_home").unwrap()))
        );
        assert_eq!(
            topics.command(&topics.check("asus_home"), PRESS, false),
            Some(Command::Check(Some(ClientName::new("asus_home").unwrap())))
        );
        assert_eq!(
            topics.command(&topics.identify(), PRESS, false),
            Some(Command::Identify)
        );
    }

    #[test]
    fn anything_else_is_no_command() {
        let topics = topics();
        let push = topics.push("asus_home");
        assert_eq!(topics.command(&push, PRESS, true), None, "retained");
        assert_eq!(topics.command(&push, b"press", false), None);
        assert_eq!(topics.command(&push, b"", false), None);
        for topic in [
            "",
            "x",
            "strongroom/other/client/a/push/set",
            &topics.push("../x"),
            &topics.check(""),
            "strongroom/strongroom_0a1b2c3d/client/a/accept/set",
            &topics.push("a/b"),
            &topics.push(""),
        ] {
            assert_eq!(topics.command(topic, PRESS, false), None, "{topic}");
        }
    }

    #[test]
    fn births_once_each() {
        assert_eq!(topics().births(), ["homeassistant/status"]);
        assert_eq!(Topics::new("x", "ha").births(), ["homeassistant/status", "ha/status"]);
    }

    proptest! {
        #[test]
        fn no_topic_makes_it_panic(topic in "\\PC{0,60}", payload in proptest::collection::vec(any::<u8>(), 0..8)) {
            let _ = topics().command(&topic, &payload, false);
            let _ = topics().client_of(&topic);
        }

        #[test]
        fn a_client_is_found_again(name in "[a-z0-9_][a-z0-9_-]{0,30}") {
            let found = topics().client_of(&topics().client(&name));
            prop_assert_eq!(found, ClientName::new(&name).ok());
        }
    }
}
