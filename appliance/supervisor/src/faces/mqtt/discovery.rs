//! Home Assistant's device discovery: one device for the appliance, one for each client. Pure.
//!
//! Form: the root keys `device`, `origin`, `components`, `availability` and `qos`, and no other, since one unknown key
//! drops the whole device; each component has `platform` and `unique_id` (Home Assistant, "MQTT: device discovery").

use super::states::{Message, disk_key, shown_disks};
use super::topics::{PRESS, Topics};
use serde_json::{Map, Value, json};
use strongroom_model::condition::Area;
use strongroom_model::events::EventKind;
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
    for area in Area::ALL {
        let name = area.name();
        parts.add(
            &format!("problem_{name}"),
            "binary_sensor",
            json!({
                "name": problem_of(area),
                "device_class": "problem",
                "entity_category": "diagnostic",
                "state_topic": health,
                "value_template": on_off(&format!("'{name}' in value_json.problem_areas")),
                "json_attributes_topic": health,
                "json_attributes_template": format!(
                    "{{{{ {{'conditions': value_json.conditions | selectattr('area', 'eq', '{name}') | list}} | tojson }}}}"
                ),
            }),
        );
    }
    parts.add(
        "event",
        "event",
        json!({
            "name": "Events",
            "event_types": EventKind::ALL.map(EventKind::name),
            "state_topic": topics.event(),
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

fn problem_of(area: Area) -> &'static str {
    match area {
        Area::System => "System problem",
        Area::Disks => "Disk problem",
        Area::Array => "Array problem",
        Area::Clock => "Clock problem",
        Area::Clients => "Client problem",
        Area::Offsite => "Off-site problem",
    }
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
        "last_archive",
        "sensor",
        json!({
            "name": "Last archive",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": "{{ value_json.last_archive }}",
        }),
    );
    parts.add(
        "attention",
        "binary_sensor",
        json!({
            "name": "Problem",
            "device_class": "problem",
            "state_topic": state,
            "value_template": on_off("value_json.attention"),
            "json_attributes_topic": state,
            "json_attributes_template": "{{ {'conditions': value_json.conditions} | tojson }}",
        }),
    );
    parts.add(
        "next_push",
        "sensor",
        json!({
            "name": "Next push",
            "entity_category": "diagnostic",
            "device_class": "timestamp",
            "state_topic": state,
            "value_template": "{{ value_json.next_push }}",
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
        let [(pushed, _), (verified, _), (problem, _), (behind, _), (behind_bytes, _)] = target_keys(target);
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
        parts.add(
            &behind,
            "sensor",
            json!({
                "name": format!("Lag of {target}"),
                "unit_of_measurement": "transactions",
                "state_class": "measurement",
                "state_topic": state,
                "value_template": format!("{{{{ {path}.behind_transactions }}}}"),
            }),
        );
        parts.add(
            &behind_bytes,
            "sensor",
            json!({
                "name": format!("Lag of {target}, size"),
                "device_class": "data_size",
                "unit_of_measurement": "B",
                "state_class": "measurement",
                "state_topic": state,
                "value_template": format!("{{{{ {path}.behind_bytes }}}}"),
            }),
        );
    }
    for target in leaving {
        for (key, platform) in target_keys(target.as_str()) {
            parts.remove(&key, platform);
        }
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

/// Keys of a target's components, and what they are. The endings differ, so that no two targets can share one.
fn target_keys(target: &str) -> [(String, &'static str); 5] {
    [
        (format!("target_{target}_last_push"), "sensor"),
        (format!("target_{target}_verified"), "sensor"),
        (format!("target_{target}_push_problem"), "binary_sensor"),
        (format!("target_{target}_behind"), "sensor"),
        (format!("target_{target}_behind_bytes"), "sensor"),
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
    use crate::faces::mqtt::rules;
    use crate::faces::mqtt::sample::{sample, topics};
    use std::collections::BTreeSet;

    fn all(status: &Status) -> Vec<Message> {
        let clients = status.clients.iter().map(|one| client(&topics(), status, one, &[]));
        std::iter::once(appliance(&topics(), status)).chain(clients).collect()
    }

    #[test]
    fn as_home_assistant_wants_it() {
        let mut unique = BTreeSet::new();
        for message in all(&sample()) {
            let device = rules::check(&message.topic, &message.payload).unwrap();
            for id in device.unique_ids {
                assert!(unique.insert(id.clone()), "{id} twice");
            }
            for topic in device.topics {
                assert!(topic.starts_with("strongroom/strongroom_0a1b2c3d/"), "{topic}");
            }
        }
    }

    #[test]
    fn at_its_longest_it_is_as_home_assistant_wants_it_and_fits_a_packet() {
        let mut status = sample();
        let long = |letter: &str| TargetName::new(&letter.repeat(31)).unwrap();
        status.clients[0].targets.clear();
        for letter in ["a", "b", "c", "d"] {
            let target = strongroom_model::status::Target {
                name: long(letter),
                ..Default::default()
            };
            status.clients[0].targets.push(target).unwrap();
        }
        let message = client(&topics(), &status, &status.clients[0], &[long("e"), long("f")]);
        rules::check(&message.topic, &message.payload).unwrap();
        assert!(message.payload.len() < 16 * 1024, "{}", message.payload.len());
    }

    #[test]
    fn the_rules_refuse_what_home_assistant_would() {
        let message = client(&topics(), &sample(), &sample().clients[0], &[]);
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut root: Value = serde_json::from_str(&message.payload).unwrap();
            change(&mut root);
            rules::check(&message.topic, &root.to_string()).unwrap_err()
        };
        refused(&|root| root["color"] = "red".into());
        refused(&|root| root["origin"] = json!({}));
        refused(&|root| root["device"] = json!({ "name": "x" }));
        for (key, value) in [
            ("platform", json!("sensors")),
            ("unique_id", json!("")),
            ("expire_after", json!(60)),
            ("entity_category", json!("config")),
            ("device_class", json!("problem")),
            ("state_class", json!("measurement")),
            ("unit_of_measurement", json!("s")),
            ("state_topic", json!("a/+/b")),
            ("value_template", json!("{{ value_json.last_backup }")),
            ("options", json!(["a"])),
            ("colour", json!("red")),
        ] {
            refused(&|root| root["components"]["last_backup"][key] = value.clone());
        }
        refused(&|root| root["components"]["size"]["unit_of_measurement"] = "parsecs".into());
        refused(&|root| root["components"]["check"]["payload_press"] = 1.into());
        refused(&|root| {
            drop(
                root["components"]["check"]
                    .as_object_mut()
                    .unwrap()
                    .remove("command_topic"),
            )
        });
        let root = |topic: &str| rules::check(topic, &message.payload).unwrap_err();
        root("homeassistant/device/a b/config");
        root("homeassistant/sensor/x/config");
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
                let event = component["platform"] == "event";
                for key in ["state_topic", "json_attributes_topic"] {
                    if let Some(topic) = component.get(key) {
                        let topic = topic.as_str().unwrap();
                        assert!(
                            published.contains(topic) || (event && topic == topics().event()),
                            "{topic}"
                        );
                    }
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
        for key in ["behind", "behind_bytes"] {
            let stub = &root["components"][format!("target_old_{key}")];
            assert_eq!(*stub, json!({ "platform": "sensor" }));
        }
    }
}
