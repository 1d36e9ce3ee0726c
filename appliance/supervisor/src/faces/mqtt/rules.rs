//! Home Assistant's rules for what discovery may hold, as far as they concern what is sent here: written from its
//! documentation ("MQTT: device discovery", "MQTT sensor", "MQTT binary sensor", "MQTT button", "MQTT event", "Sensor
//! entity", "Entity category"), for tests. Stricter than it is in two things: nothing expires, and full names of keys only.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What a good device brings.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) unique_ids: Vec<String>,
    /// Topics that its entities read or write.
    pub(super) topics: Vec<String>,
}

type Object = Map<String, Value>;

/// Root keys. One that is not known drops the whole device.
const ROOT: [&str; 9] = [
    "device",
    "origin",
    "components",
    "availability",
    "availability_mode",
    "state_topic",
    "command_topic",
    "qos",
    "encoding",
];
const DEVICE: [&str; 12] = [
    "configuration_url",
    "connections",
    "hw_version",
    "identifiers",
    "manufacturer",
    "model",
    "model_id",
    "name",
    "serial_number",
    "suggested_area",
    "sw_version",
    "via_device",
];
const ORIGIN: [&str; 3] = ["name", "sw_version", "support_url"];
/// Keys that every component may have.
const ENTITY: [&str; 12] = [
    "platform",
    "unique_id",
    "name",
    "icon",
    "entity_category",
    "entity_picture",
    "enabled_by_default",
    "default_entity_id",
    "json_attributes_topic",
    "json_attributes_template",
    "qos",
    "encoding",
];

/// Further keys of a platform, with the classes that it knows here.
fn platform(name: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    Some(match name {
        "sensor" => (
            &[
                "state_topic",
                "value_template",
                "device_class",
                "state_class",
                "unit_of_measurement",
                "suggested_display_precision",
                "options",
                "force_update",
                "last_reset_value_template",
            ],
            &["enum", "timestamp", "duration", "temperature", "data_size", "data_rate"],
        ),
        "binary_sensor" => (
            &[
                "state_topic",
                "value_template",
                "device_class",
                "payload_on",
                "payload_off",
                "off_delay",
                "force_update",
            ],
            &["problem", "running", "connectivity", "safety", "update", "power"],
        ),
        "button" => (
            &[
                "command_topic",
                "command_template",
                "device_class",
                "payload_press",
                "retain",
            ],
            &["identify", "restart", "update"],
        ),
        "event" => (
            &["state_topic", "value_template", "device_class", "event_types"],
            &["button", "doorbell", "motion"],
        ),
        _ => return None,
    })
}

/// Units that a class of sensors may have.
fn units(class: &str) -> &'static [&'static str] {
    match class {
        "duration" => &["d", "h", "min", "s", "ms", "μs"],
        "temperature" => &["°C", "°F", "K"],
        "data_size" => &[
            "bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "PB", "EB", "KiB", "MiB", "GiB", "TiB", "PiB",
            "EiB",
        ],
        "data_rate" => &[
            "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s", "KiB/s", "MiB/s", "GiB/s",
        ],
        _ => &[],
    }
}

/// Whether Home Assistant would take this as a whole device; what is wrong otherwise.
pub(super) fn check(topic: &str, payload: &str) -> Result<Device, String> {
    let id = topic
        .strip_prefix("homeassistant/device/")
        .and_then(|rest| rest.strip_suffix("/config"));
    let plain = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if !id.is_some_and(plain) {
        return Err(format!("{topic} is no topic of discovery"));
    }
    let root: Object = serde_json::from_str(payload).map_err(|error| error.to_string())?;
    only(&root, "the root", &[&ROOT])?;
    let device = object(&root, "device")?;
    only(device, "device", &[&DEVICE])?;
    let identified = ["identifiers", "connections"].iter().any(|key| {
        let list = device.get(*key).and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty())
    });
    if !identified {
        return Err("the device has neither identifiers nor connections".into());
    }
    let origin = object(&root, "origin")?;
    only(origin, "origin", &[&ORIGIN])?;
    text(origin, "name")?;
    let mut found = Device::default();
    for one in root.get("availability").and_then(Value::as_array).into_iter().flatten() {
        let one = one.as_object().ok_or("availability is no list of objects")?;
        let keys = ["topic", "payload_available", "payload_not_available", "value_template"];
        only(one, "availability", &[&keys])?;
        topic_of(one, "topic", &mut found)?;
    }
    if root.get("qos").is_some_and(|qos| !matches!(qos.as_u64(), Some(0..=2))) {
        return Err("qos is 0, 1 or 2".into());
    }
    let components = object(&root, "components")?;
    if components.is_empty() {
        return Err("there are no components".into());
    }
    for (key, component) in components {
        let component = component.as_object().ok_or_else(|| format!("{key} is no object"))?;
        entity(component, &mut found).map_err(|error| format!("{key}: {error}"))?;
    }
    let unique: BTreeSet<&String> = found.unique_ids.iter().collect();
    if unique.len() != found.unique_ids.len() {
        return Err("two components have one unique_id".into());
    }
    Ok(found)
}

fn entity(component: &Object, found: &mut Device) -> Result<(), String> {
    let name = text(component, "platform")?;
    let (keys, classes) = platform(name).ok_or_else(|| format!("there is no platform {name}"))?;
    // With its platform only, it is removed.
    if component.len() == 1 {
        return Ok(());
    }
    only(component, "it", &[&ENTITY, keys])?;
    found.unique_ids.push(text(component, "unique_id")?.to_owned());
    text(component, "name")?;
    let class = optional(component, "device_class")?;
    if class.is_some_and(|class| !classes.contains(&class)) {
        return Err(format!("{class:?} is no class of {name}"));
    }
    let categories: &[&str] = if name == "button" {
        &["config", "diagnostic"]
    } else {
        &["diagnostic"]
    };
    let category = optional(component, "entity_category")?;
    if category.is_some_and(|category| !categories.contains(&category)) {
        return Err(format!("{category:?} is no category of {name}"));
    }
    let topic = if name == "button" {
        "command_topic"
    } else {
        "state_topic"
    };
    topic_of(component, topic, found)?;
    if component.contains_key("json_attributes_topic") {
        topic_of(component, "json_attributes_topic", found)?;
    } else if component.contains_key("json_attributes_template") {
        return Err("a template of attributes without their topic".into());
    }
    for key in ["value_template", "json_attributes_template"] {
        if let Some(template) = optional(component, key)? {
            balanced(template)?;
        }
    }
    match name {
        "sensor" => sensor(component, class),
        "event" => {
            let types = component.get("event_types").and_then(Value::as_array);
            let types = types.ok_or("an event needs event_types")?;
            if types.is_empty() || !types.iter().all(Value::is_string) {
                return Err("event_types is a list of names".into());
            }
            Ok(())
        }
        "button" => optional(component, "payload_press").map(drop),
        _ => Ok(()),
    }
}

fn sensor(component: &Object, class: Option<&str>) -> Result<(), String> {
    let state_class = optional(component, "state_class")?;
    let unit = optional(component, "unit_of_measurement")?;
    let classes = ["measurement", "measurement_angle", "total", "total_increasing"];
    if state_class.is_some_and(|state_class| !classes.contains(&state_class)) {
        return Err(format!("{state_class:?} is no state_class"));
    }
    let precision = component.get("suggested_display_precision");
    if precision.is_some_and(|precision| precision.as_u64().is_none()) {
        return Err("suggested_display_precision is a whole number".into());
    }
    let options = component.get("options");
    match class {
        // What is no number has neither a unit nor statistics.
        Some("enum" | "timestamp") if state_class.is_some() || unit.is_some() => {
            return Err("an enum or a timestamp has neither state_class nor unit".into());
        }
        Some("enum") => {
            let list = options.and_then(Value::as_array).ok_or("an enum needs options")?;
            if list.is_empty() || !list.iter().all(Value::is_string) {
                return Err("options is a list of texts".into());
            }
        }
        Some(class @ ("duration" | "temperature" | "data_size" | "data_rate")) => {
            let unit = unit.ok_or("its class needs a unit")?;
            if !units(class).contains(&unit) {
                return Err(format!("{unit} is no unit of {class}"));
            }
            if class == "temperature" && matches!(state_class, Some("total" | "total_increasing")) {
                return Err("a temperature is no total".into());
            }
        }
        _ => {}
    }
    if class != Some("enum") && options.is_some() {
        return Err("only an enum has options".into());
    }
    Ok(())
}

fn only(object: &Object, what: &str, known: &[&[&str]]) -> Result<(), String> {
    match object
        .keys()
        .find(|key| !known.iter().any(|some| some.contains(&key.as_str())))
    {
        Some(key) => Err(format!("{what} has the unknown key {key}")),
        None => Ok(()),
    }
}

fn object<'a>(from: &'a Object, key: &str) -> Result<&'a Object, String> {
    from.get(key)
        .and_then(Value::as_object)
        .ok_or_else(|| format!("{key} is no object"))
}

fn optional<'a>(from: &'a Object, key: &str) -> Result<Option<&'a str>, String> {
    match from.get(key) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) if !text.is_empty() => Ok(Some(text)),
            _ => Err(format!("{key} is no text")),
        },
    }
}

fn text<'a>(from: &'a Object, key: &str) -> Result<&'a str, String> {
    optional(from, key)?.ok_or_else(|| format!("{key} is missing"))
}

/// A topic to which something is published: no wildcard, no empty level, at most 65,535 bytes (MQTT 3.1.1, section 4.7).
fn topic_of(from: &Object, key: &str, found: &mut Device) -> Result<(), String> {
    let topic = text(from, key)?;
    if topic.contains(['+', '#', '\0']) || topic.split('/').any(str::is_empty) || topic.len() > 65_535 {
        return Err(format!("{key}: {topic} is no topic"));
    }
    found.topics.push(topic.to_owned());
    Ok(())
}

/// Whether every `{{` of a template has its `}}`, in turn. Brackets of a mapping inside are counted with theirs.
fn balanced(template: &str) -> Result<(), String> {
    let wrong = || format!("{template} is no template");
    let inner = template
        .strip_prefix("{{ ")
        .and_then(|rest| rest.strip_suffix(" }}"))
        .ok_or_else(wrong)?;
    let mut open = 0i32;
    for letter in inner.chars() {
        open += match letter {
            '{' | '[' | '(' => 1,
            '}' | ']' | ')' => -1,
            _ => 0,
        };
        if open < 0 {
            return Err(wrong());
        }
    }
    if open == 0 { Ok(()) } else { Err(wrong()) }
}
