//! Home Assistant's device discovery: one device for the appliance, one for each client. Pure.
//!
//! Form: the root keys `device`, `origin`, `components`, `availability` and `qos`, and no other, since one unknown key
//! drops the whole device; each component has `platform` and `unique_id` (Home Assistant, "MQTT: device discovery").

use super::states::{Message, disk_key, shown_disks};
use super::topics::{PRESS, Topics};
use serde_json::{Map, Value, json};
use strongroom_model::name::TargetName;
use strongroom_model::status::{Client, Disk, Status};

/// The appliance's device.
pub fn appliance(topics: &Topics, status: &Status) -> Message {
    let mut parts = Components::new(topics.id());
    let health = topics.of("health");
    let clock = topics.of("clock");
    let array = topics.of("array");
    parts.add(
        "problem",
        "binary_sensor",
        json!({
            "name": "Problem",
            "device_class": "problem",
            "state_topic": health,
            "value_template": on_off("value_json.problem"),
        }),
    );
    parts.add(
        "health",
        "sensor",
        json!({
            "name": "Health",
            "device_class": "enum",
            "options": ["starting", "good", "warning", "alarm"],
            "state_topic": health,
            "value_template": "{{ value_json.health }}",
            "json_attributes_topic": health,
            "json_attributes_template": "{{ {'conditions': value_json.conditions} | tojson }}",
        }),
    );
    parts.add(
        "clock_synchronised",
        "binary_sensor",
        json!({
            "name": "Clock synchronised",
            "entity_category": "diagnostic",
            "state_topic": clock,
            "value_template": on_off("value_json.synchronised"),
        }),
    );
    parts.add(
        "clock_state",
        "sensor",
        json!({
            "name": "Clock",
            "entity_category": "diagnostic",
            "device_class": "enum",
            "options": ["unknown", "synchronised", "coasting", "unsynchronised"],
            "state_topic": clock,
            "value_template": "{{ value_json.state }}",
        }),
    );
    parts.add(
        "clock_error",
        "sensor",
        json!({
            "name": "Clock error",
            "entity_category": "diagnostic",
            "device_class": "duration",
            "unit_of_measurement": "ms",
            "state_class": "measurement",
            "suggested_display_precision": 1,
            "state_topic": clock,
            "value_template": "{{ value_json.error_ms }}",
        }),
    );
    parts.add(
        "clock_offset",
        "sensor",
        json!({
            "name": "Clock offset",
            "entity_category": "diagnostic",
            "device_class": "duration",
            "unit_of_measurement": "ms",
            "state_class": "measurement",
            "suggested_display_precision": 3,
            "state_topic": clock,
            "value_template": "{{ value_json.offset_ms }}",
        }),
    );
    parts.add(
        "clock_stratum",
        "sensor",
        json!({
            "name": "Clock stratum",
            "entity_category": "diagnostic",
            "state_topic": clock,
            "value_template": "{{ value_json.stratum }}",
        }),
    );
    parts.add(
        "array",
        "sensor",
        json!({
            "name": "Array",
            "device_class": "enum",
            "options": ["unknown", "not-ready", "working", "failed", "assembled", "mounted"],
            "state_topic": array,
            "value_template": "{{ value_json.state }}",
        }),
    );
    parts.add(
        "space_used",
        "sensor",
        json!({
            "name": "Space used",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "state_topic": array,
            "value_template": "{{ value_json.used_percent }}",
        }),
    );
    parts.add(
        "days_until_full",
        "sensor",
        json!({
            "name": "Full in",
            "device_class": "duration",
            "unit_of_measurement": "d",
            "state_topic": array,
            "value_template": "{{ value_json.days_until_full }}",
        }),
    );
    parts.add(
        "last_scrub",
        "sensor",
        json!({
            "name": "Last scrub",
            "entity_category": "diagnostic",
            "device_class": "timestamp",
            "state_topic": array,
            "value_template": "{{ value_json.last_scrub }}",
        }),
    );
    for disk in shown_disks(&status.disks) {
        add_disk(&mut parts, &topics.of("disks"), disk);
    }
    parts.add(
        "identify",
        "button",
        json!({
            "name": "Identify",
            "device_class": "identify",
            "entity_category": "config",
            "command_topic": topics.identify(),
            "payload_press": press(),
        }),
    );
    let name = if status.appliance.hostname.is_empty() {
        "strongroom"
    } else {
        status.appliance.hostname.as_str()
    };
    let device = json!({
        "identifiers": [topics.id()],
        "name": name,
        "manufacturer": "Strongroom",
        "model": "Backup appliance",
        "sw_version": &status.appliance.release,
    });
    message(topics, status, topics.discovery(), device, parts)
}

/// A disk's entities. One that is gone stays in Home Assistant as unknown until it is deleted there.
fn add_disk(parts: &mut Components, topic: &str, disk: &Disk) {
    let (key, serial) = (disk_key(disk), disk.serial.as_str());
    let value = |what: &str| format!("{{{{ value_json.by_key.get('{key}', {{}}).get('{what}') }}}}");
    parts.add(
        &format!("disk_{key}_temperature"),
        "sensor",
        json!({
            "name": format!("Disk {serial} temperature"),
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "state_class": "measurement",
            "state_topic": topic,
            "value_template": value("temperature"),
        }),
    );
    parts.add(
        &format!("disk_{key}_health"),
        "sensor",
        json!({
            "name": format!("Disk {serial} health"),
            "device_class": "enum",
            "options": ["unknown", "good", "aging", "failing"],
            "state_topic": topic,
            "value_template": value("health"),
        }),
    );
}

/// A client's device. `leaving` are targets that it no longer has: Home Assistant is told to remove them.
pub fn client(topics: &Topics, status: &Status, client: &Client, leaving: &[TargetName]) -> Message {
    let name = client.name.as_str();
    let state = topics.client(name);
    let mut parts = Components::new(&format!("{}/client/{name}", topics.id()));
    parts.add(
        "last_backup",
        "sensor",
        json!({
            "name": "Last backup",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": "{{ value_json.last_backup }}",
        }),
    );
    parts.add(
        "size",
        "sensor",
        json!({
            "name": "Repository size",
            "device_class": "data_size",
            "unit_of_measurement": "B",
            "state_class": "measurement",
            "state_topic": state,
            "value_template": "{{ value_json.size_bytes }}",
        }),
    );
    // Unknown without a quota.
    parts.add(
        "quota_used",
        "sensor",
        json!({
            "name": "Quota used",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "state_topic": state,
            "value_template": "{{ value_json.quota_used_percent }}",
        }),
    );
    parts.add(
        "transaction",
        "sensor",
        json!({
            "name": "Transaction",
            "entity_category": "diagnostic",
            "state_topic": state,
            "value_template": "{{ value_json.transaction }}",
        }),
    );
    parts.add(
        "repository",
        "sensor",
        json!({
            "name": "Repository",
            "entity_category": "diagnostic",
            "device_class": "enum",
            "options": ["unknown", "empty", "present", "unreadable"],
            "state_topic": state,
            "value_template": "{{ value_json.repository }}",
        }),
    );
    parts.add(
        "archives",
        "sensor",
        json!({
            "name": "Archives",
            "state_class": "measurement",
            "state_topic": state,
            "value_template": "{{ value_json.archives }}",
        }),
    );
    parts.add(
        "integrity",
        "binary_sensor",
        json!({
            "name": "Backups at risk",
            "device_class": "problem",
            "state_topic": state,
            "value_template": on_off("value_json.problem"),
        }),
    );
    parts.add(
        "checked",
        "sensor",
        json!({
            "name": "Checked since",
            "entity_category": "diagnostic",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": "{{ value_json.checked }}",
        }),
    );
    // Unknown before the first.
    parts.add(
        "last_drill",
        "sensor",
        json!({
            "name": "Last drill",
            "entity_category": "diagnostic",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": "{{ value_json.last_drill }}",
        }),
    );
    parts.add(
        "check",
        "button",
        json!({
            "name": "Check now",
            "entity_category": "config",
            "command_topic": topics.check(name),
            "payload_press": press(),
        }),
    );
    parts.add(
        "push",
        "button",
        json!({
            "name": "Push now",
            "command_topic": topics.push(name),
            "payload_press": press(),
        }),
    );
    for target in &client.targets {
        let target = target.name.as_str();
        let [pushed, verified, problem] = target_keys(target);
        let path = format!("value_json.targets['{target}']");
        parts.add(
            &pushed,
            "sensor",
            json!({
                "name": format!("Last push to {target}"),
                "device_class": "timestamp",
                "state_topic": state,
                "value_template": format!("{{{{ {path}.last_push }}}}"),
            }),
        );
        parts.add(
            &verified,
            "sensor",
            json!({
                "name": format!("Copy at {target} verified"),
                "entity_category": "diagnostic",
                "device_class": "timestamp",
                "state_topic": state,
                "value_template": format!("{{{{ {path}.verified }}}}"),
            }),
        );
        parts.add(
            &problem,
            "binary_sensor",
            json!({
                "name": format!("Push to {target}"),
                "device_class": "problem",
                "state_topic": state,
                "value_template": on_off(&format!("{path}.problem")),
            }),
        );
    }
    for target in leaving {
        let [pushed, verified, problem] = target_keys(target.as_str());
        parts.remove(&pushed, "sensor");
        parts.remove(&verified, "sensor");
        parts.remove(&problem, "binary_sensor");
    }
    let device = json!({
        "identifiers": [topics.client_device(name)],
        "name": name,
        "manufacturer": "Strongroom",
        "model": "Backup client",
        "via_device": topics.id(),
    });
    message(topics, status, topics.client_discovery(name), device, parts)
}

fn message(topics: &Topics, status: &Status, topic: String, device: Value, parts: Components) -> Message {
    let root = json!({
        "device": device,
        "origin": { "name": "Strongroom", "sw_version": &status.appliance.release },
        "components": parts.components,
        "availability": [{ "topic": topics.availability() }],
        "qos": 1,
    });
    Message::retained(topic, root.to_string())
}

/// Keys of a target's components. The endings differ, so that no two targets can share one.
fn target_keys(target: &str) -> [String; 3] {
    [
        format!("target_{target}_last_push"),
        format!("target_{target}_verified"),
        format!("target_{target}_push_problem"),
    ]
}

fn on_off(expression: &str) -> String {
    format!("{{{{ 'ON' if {expression} else 'OFF' }}}}")
}

fn press() -> String {
    String::from_utf8_lossy(PRESS).into_owned()
}

struct Components {
    owner: String,
    components: Map<String, Value>,
}

impl Components {
    fn new(owner: &str) -> Self {
        Self {
            owner: owner.into(),
            components: Map::new(),
        }
    }

    fn add(&mut self, key: &str, platform: &str, mut component: Value) {
        component["platform"] = platform.into();
        component["unique_id"] = format!("{}/{key}", self.owner).into();
        self.components.insert(key.into(), component);
    }

    /// A component with nothing but its platform is removed.
    fn remove(&mut self, key: &str, platform: &str) {
        self.components.insert(key.into(), json!({ "platform": platform }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faces::mqtt::sample::{sample, topics};
    use std::collections::BTreeSet;

    fn all(status: &Status) -> Vec<Message> {
        let clients = status.clients.iter().map(|one| client(&topics(), status, one, &[]));
        std::iter::once(appliance(&topics(), status)).chain(clients).collect()
    }

    #[test]
    fn only_keys_that_home_assistant_knows() {
        let known = ["device", "origin", "components", "availability", "qos"];
        let mut unique = BTreeSet::new();
        for message in all(&sample()) {
            let id = message
                .topic
                .strip_prefix("homeassistant/device/")
                .unwrap()
                .strip_suffix("/config")
                .unwrap();
            assert!(
                id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
                "{id}"
            );
            let root: Map<String, Value> = serde_json::from_str(&message.payload).unwrap();
            assert_eq!(root.len(), known.len());
            assert!(known.iter().all(|key| root.contains_key(*key)));
            assert!(root["origin"]["name"].is_string());
            assert_eq!(root["availability"][0]["topic"], topics().availability());
            for (key, component) in root["components"].as_object().unwrap() {
                let platform = component["platform"].as_str().unwrap();
                assert!(["sensor", "binary_sensor", "button"].contains(&platform), "{key}");
                assert!(
                    unique.insert(component["unique_id"].as_str().unwrap().to_string()),
                    "{key}"
                );
                let topic = if platform == "button" {
                    "command_topic"
                } else {
                    "state_topic"
                };
                let topic = component[topic].as_str().unwrap();
                assert!(topic.starts_with("strongroom/strongroom_0a1b2c3d/"), "{topic}");
                // Not to be combined with retain.
                assert!(component.get("expire_after").is_none());
                assert!(matches!(
                    component.get("entity_category").and_then(Value::as_str),
                    None | Some("diagnostic" | "config")
                ));
            }
        }
    }

    #[test]
    fn every_state_topic_is_one_that_is_published() {
        let status = sample();
        let published: BTreeSet<String> = super::super::states::states(&topics(), &status)
            .into_iter()
            .map(|message| message.topic)
            .collect();
        for message in all(&status) {
            let root: Value = serde_json::from_str(&message.payload).unwrap();
            for component in root["components"].as_object().unwrap().values() {
                if let Some(topic) = component.get("state_topic") {
                    assert!(published.contains(topic.as_str().unwrap()), "{topic}");
                }
            }
        }
    }

    #[test]
    fn each_disk_of_ours_has_a_temperature() {
        let message = appliance(&topics(), &sample());
        let root: Value = serde_json::from_str(&message.payload).unwrap();
        let components = root["components"].as_object().unwrap();
        let temperature = &components["disk_wd_1_x_temperature"];
        assert_eq!(
            temperature["value_template"],
            "{{ value_json.by_key.get('wd_1_x', {}).get('temperature') }}"
        );
        assert_eq!(temperature["unit_of_measurement"], "°C");
        assert!(!components.keys().any(|key| key.contains("stick")));
    }

    #[test]
    fn a_client_hangs_under_the_appliance() {
        let status = sample();
        let message = client(&topics(), &status, &status.clients[0], &[]);
        assert_eq!(
            message.topic,
            "homeassistant/device/strongroom_0a1b2c3d_client_asus_home/config"
        );
        let root: Value = serde_json::from_str(&message.payload).unwrap();
        assert_eq!(root["device"]["via_device"], "strongroom_0a1b2c3d");
        let pushed = &root["components"]["target_oracle_last_push"];
        assert_eq!(pushed["value_template"], "{{ value_json.targets['oracle'].last_push }}");
        let verified = &root["components"]["target_oracle_verified"];
        assert_eq!(
            verified["value_template"],
            "{{ value_json.targets['oracle'].verified }}"
        );
        assert_eq!(root["components"]["push"]["command_topic"], topics().push("asus_home"));
    }

    #[test]
    fn a_target_that_leaves_is_named_with_its_platform_only() {
        let status = sample();
        let gone = TargetName::new("old").unwrap();
        let message = client(&topics(), &status, &status.clients[0], &[gone]);
        let root: Value = serde_json::from_str(&message.payload).unwrap();
        assert_eq!(
            root["components"]["target_old_last_push"],
            json!({ "platform": "sensor" })
        );
        assert_eq!(
            root["components"]["target_old_verified"],
            json!({ "platform": "sensor" })
        );
        assert_eq!(
            root["components"]["target_old_push_problem"],
            json!({ "platform": "binary_sensor" })
        );
    }
}
