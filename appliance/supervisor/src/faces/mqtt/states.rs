//! The snapshot as retained JSON, one message per subject. Pure: status in, messages out.
//!
//! Times are ISO 8601 with offset, as Home Assistant wants them; what is not known is `null`, never a number that
//! looks like an answer.

use super::topics::Topics;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use strongroom_model::clients::quota_used_permille;
use strongroom_model::condition::{Area, Condition, Health};
use strongroom_model::events::Event;
use strongroom_model::status::{
    Array, ArrayState, Client, Clock, ClockState, Disk, DiskRole, STATUS_VERSION, Status, TimeSource,
};

/// A message to publish, always with QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub topic: String,
    /// What; empty clears a retained message.
    pub payload: String,
    /// Whether the broker keeps it.
    pub retain: bool,
}

impl Message {
    /// A message for those who listen now.
    pub fn passing(topic: String, payload: String) -> Self {
        Self {
            topic,
            payload,
            retain: false,
        }
    }

    /// A retained message.
    pub fn retained(topic: String, payload: String) -> Self {
        Self {
            topic,
            payload,
            retain: true,
        }
    }
}

/// The states of everything but availability.
pub fn states(topics: &Topics, status: &Status) -> Vec<Message> {
    let mut messages = vec![
        Message::retained(topics.of("health"), health(status).to_string()),
        Message::retained(topics.of("clock"), clock(&status.clock).to_string()),
        Message::retained(topics.of("array"), array(&status.array).to_string()),
        Message::retained(topics.of("disks"), disks(&status.disks).to_string()),
        Message::retained(topics.of("appliance"), appliance(status).to_string()),
    ];
    for one in &status.clients {
        let about = status.conditions.standing.iter();
        let about: Vec<&Condition> = about.filter(|condition| condition.is_about(&one.name)).collect();
        messages.push(Message::retained(
            topics.client(one.name.as_str()),
            client(one, &about).to_string(),
        ));
    }
    messages
}

/// What happened. It passes: Home Assistant takes no event that was retained.
pub fn event(topics: &Topics, event: &Event) -> Message {
    let payload = json!({
        "event_type": event.kind,
        "number": event.number,
        "at": event.at.map(iso8601),
        "severity": event.severity,
        "subject": &event.subject,
        "text": &event.text,
    });
    Message::passing(topics.event(), payload.to_string())
}

fn health(status: &Status) -> Value {
    let standing = &status.conditions.standing;
    let problems: BTreeSet<Area> = standing
        .iter()
        .filter(|condition| condition.is_problem())
        .map(|condition| condition.id.area())
        .collect();
    json!({
        "health": status.health,
        "problem": matches!(status.health, Health::Warning | Health::Alarm),
        "problem_areas": problems,
        "conditions": standing.iter().map(condition).collect::<Vec<_>>(),
        "dropped": status.conditions.dropped,
    })
}

fn condition(condition: &Condition) -> Value {
    json!({
        "id": condition.id,
        "area": condition.id.area(),
        "severity": condition.severity,
        "subject": &condition.subject,
        "text": &condition.text,
        "advice": &condition.advice,
    })
}

fn clock(clock: &Clock) -> Value {
    let known = clock.state != ClockState::Unknown;
    let milliseconds = |ns: f64| known.then_some(ns / 1e6);
    json!({
        "state": clock.state,
        "synchronised": clock.state == ClockState::Synchronised,
        "trusted": clock.state.is_trusted(),
        "trusted_until": clock.trusted_until.map(iso8601),
        "offset_ms": milliseconds(clock.offset_ns as f64),
        "error_ms": milliseconds(clock.error_ns as f64),
        "stratum": (clock.stratum > 0).then_some(clock.stratum),
        "frequency_ppm": known.then_some(clock.frequency_ppb as f64 / 1e3),
        "skew_ppm": clock.skew_ppb.map(|ppb| ppb as f64 / 1e3),
        "wander_ppm": clock.wander_ppb.map(|ppb| ppb as f64 / 1e3),
        "leap": clock.leap,
        "last_step_s": clock.last_step.map(|step| step.by_ms as f64 / 1e3),
        "last_step": clock.last_step.and_then(|step| step.at).map(iso8601),
        "hardware_clock_offset_s": clock.rtc_offset_s,
        "source": &clock.source,
        "reachable": clock.reachable,
        "sources": clock.sources,
        "clocksource": &clock.clocksource,
        "tsc": clock.tsc,
        "servers": clock.servers.iter().map(time_source).collect::<Vec<_>>(),
    })
}

fn time_source(source: &TimeSource) -> Value {
    let answered = source.stratum > 0;
    json!({
        "name": &source.name,
        "address": &source.address,
        "state": source.state,
        "stratum": answered.then_some(source.stratum),
        "reach": source.reach.count_ones(),
        "offset_ms": answered.then_some(source.offset_ns as f64 / 1e6),
        "nts": source.nts,
    })
}

fn array(array: &Array) -> Value {
    let mounted = array.state == ArrayState::Mounted && array.size_bytes > 0;
    // In tenths, so that the last byte written does not make a new message.
    let percent = |_| (u128::from(array.used_bytes) * 1000 / u128::from(array.size_bytes)) as f64 / 10.0;
    json!({
        "state": array.state,
        "size_bytes": mounted.then_some(array.size_bytes),
        "used_bytes": mounted.then_some(array.used_bytes),
        "used_percent": mounted.then_some(()).map(percent),
        "members": &array.members,
        "days_until_full": array.days_until_full,
        "last_scrub": array.last_scrub.map(iso8601),
    })
}

/// The disks, and of each that has an entity of its own what that shows, by [`disk_key`].
fn disks(disks: &[Disk]) -> Value {
    let by_key: Map<String, Value> = shown_disks(disks)
        .map(|disk| {
            let state = json!({ "temperature": disk.temperature, "health": disk.health });
            (disk_key(disk), state)
        })
        .collect();
    json!({ "disks": disks, "by_key": by_key })
}

/// Disks with entities of their own: the system disk, those that are configured, and members. Not a stick that happens
/// to be plugged in.
pub(super) fn shown_disks(disks: &[Disk]) -> impl Iterator<Item = &Disk> {
    disks
        .iter()
        .filter(|disk| (disk.member || disk.role != DiskRole::Other) && !disk.serial.is_empty())
}

/// A disk's serial number in the letters that an id may have.
pub(super) fn disk_key(disk: &Disk) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    disk.serial.chars().map(plain).collect()
}

fn appliance(status: &Status) -> Value {
    let appliance = &status.appliance;
    json!({
        "version": STATUS_VERSION,
        "id": &appliance.id,
        "hostname": &appliance.hostname,
        "release": &appliance.release,
        "addresses": &appliance.addresses,
        "host_key": &appliance.host_key,
        "booted": appliance.booted.map(iso8601),
    })
}

fn client(client: &Client, conditions: &[&Condition]) -> Value {
    let targets: Map<String, Value> = client
        .targets
        .iter()
        .map(|target| {
            let state = json!({
                "transaction": target.transaction,
                "last_push": target.last_push.map(iso8601),
                "objects": target.objects,
                "size_bytes": target.size_bytes,
                "obsolete": {
                    "free_bytes": target.obsolete.free_bytes,
                    "waiting_bytes": target.obsolete.waiting_bytes,
                    "next": target.obsolete.next.map(iso8601),
                    "retired_bytes": target.obsolete.retired_bytes,
                },
                "verified": target.verified.map(iso8601),
                "damaged": target.damaged,
                "foreign": target.foreign,
                "behind_transactions": target.behind.map(|behind| behind.transactions),
                "behind_bytes": target.behind.map(|behind| behind.bytes),
                "problem": !target.error.is_empty(),
                "error": &target.error,
            });
            (target.name.to_string(), state)
        })
        .collect();
    json!({
        "name": &client.name,
        "repository": client.repository,
        "size_bytes": client.size_bytes,
        "quota_bytes": client.quota_bytes,
        "quota_used_bytes": client.quota_used_bytes,
        "quota_used_percent": quota_used_permille(client).map(|permille| permille as f64 / 10.0),
        "transaction": client.transaction,
        "last_backup": client.last_backup.map(iso8601),
        "archives": client.archives,
        "last_archive": client.last_archive.map(iso8601),
        "last_change": client.last_change,
        "held": client.held,
        "checked": client.checked.map(iso8601),
        "compared": client.compared,
        "damaged": client.damaged,
        "problem": client.held || client.damaged > 0,
        "last_drill": client.drill.whole.map(iso8601),
        "drill_seconds": client.drill.seconds,
        "last_sample_drill": client.drill.sample.map(iso8601),
        "drill_failed": client.drill.failed.map(iso8601),
        "next_push": client.next_push.map(iso8601),
        "attention": conditions.iter().any(|condition| condition.is_problem()),
        "conditions": conditions.iter().map(|one| condition(one)).collect::<Vec<_>>(),
        "targets": targets,
    })
}

/// Unix seconds as ISO 8601 in UTC, e.g. `2026-11-23T04:38:26+00:00`. Years beyond 9999 are cut to the last second of
/// that year: nothing here lives that long, and a damaged time must not break a reader.
pub fn iso8601(unix: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    let unix = unix.min(LAST);
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01, in eras of 400 years (the proleptic Gregorian calendar repeats after 146,097 days).
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}+00:00",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faces::mqtt::sample::{sample, topics};
    use proptest::prelude::*;

    fn payload(messages: &[Message], topic: &str) -> Value {
        let message = messages.iter().find(|message| message.topic == topic).unwrap();
        assert!(message.retain);
        serde_json::from_str(&message.payload).unwrap()
    }

    #[test]
    fn one_retained_message_per_subject() {
        let messages = states(&topics(), &sample());
        let names: Vec<&str> = messages
            .iter()
            .map(|message| message.topic.strip_prefix("strongroom/strongroom_0a1b2c3d/").unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "health",
                "clock",
                "array",
                "disks",
                "appliance",
                "client/asus_home",
                "client/laptop"
            ]
        );
    }

    #[test]
    fn what_they_say() {
        let messages = states(&topics(), &sample());
        let of = |subject: &str| payload(&messages, &topics().of(subject));
        assert_eq!(of("health")["health"], "warning");
        assert_eq!(of("health")["problem"], true);
        assert_eq!(of("health")["conditions"][0]["id"], "push-failed");
        assert_eq!(of("health")["problem_areas"], json!(["offsite"]));
        assert_eq!(of("clock")["synchronised"], true);
        assert_eq!(of("clock")["offset_ms"], -0.12);
        assert_eq!(of("clock")["trusted"], true);
        assert_eq!(of("clock")["last_step_s"], 1.5);
        assert_eq!(of("clock")["last_step"], "2023-11-14T22:13:20+00:00");
        let server = &of("clock")["servers"][0];
        assert_eq!((&server["state"], &server["reach"]), (&json!("followed"), &json!(8)));
        assert_eq!(of("array")["used_percent"], 25.0);
        assert_eq!(of("array")["days_until_full"], 40);
        assert_eq!(of("array")["last_scrub"], "2023-11-14T22:13:20+00:00");
        assert_eq!(of("disks")["by_key"]["wd_1_x"]["temperature"], 34);
        assert_eq!(of("disks")["by_key"].as_object().unwrap().len(), 1);
        assert_eq!(of("disks")["disks"][0]["serial"], "WD-1/X");
        assert_eq!(of("appliance")["booted"], "2023-11-14T22:13:20+00:00");
        let client = of("client/asus_home");
        assert_eq!(client["checked"], "2023-11-15T00:00:00+00:00");
        assert_eq!(client["compared"], "need-key");
        assert_eq!((&client["problem"], &client["archives"]), (&json!(true), &json!(3)));
        assert_eq!(client["quota_used_percent"], 80.5);
        assert_eq!(of("client/laptop")["quota_used_percent"], Value::Null);
        assert_eq!(of("client/laptop")["problem"], false);
        assert_eq!(of("client/laptop")["archives"], Value::Null);
        assert_eq!(client["last_backup"], "2023-11-15T01:00:00+00:00");
        assert_eq!(client["targets"]["oracle"]["last_push"], "2023-11-15T02:00:00+00:00");
        assert_eq!(client["targets"]["oracle"]["problem"], true);
        assert_eq!(client["targets"]["oracle"]["verified"], "2023-11-15T02:00:05+00:00");
        assert_eq!(client["targets"]["oracle"]["damaged"], 0);
        assert_eq!(client["last_drill"], "2023-11-14T22:13:20+00:00");
        assert_eq!(
            (&client["drill_seconds"], &client["drill_failed"]),
            (&json!(840), &Value::Null)
        );
        assert_eq!(client["targets"]["oracle"]["behind_transactions"], 2);
        assert_eq!(client["targets"]["oracle"]["behind_bytes"], 4096);
        assert_eq!(client["next_push"], "2023-11-16T02:30:00+00:00");
        assert_eq!(
            (&client["attention"], &client["conditions"][0]["text"]),
            (&json!(true), &json!("a"))
        );
        assert_eq!(of("client/laptop")["attention"], false);
    }

    #[test]
    fn an_event_passes() {
        let status = sample();
        let message = event(&topics(), &status.events.recent[0]);
        assert!(!message.retain);
        assert_eq!(message.topic, "strongroom/strongroom_0a1b2c3d/event");
        let payload: Value = serde_json::from_str(&message.payload).unwrap();
        assert_eq!(payload["event_type"], "condition-began");
        assert_eq!(
            (&payload["severity"], &payload["subject"]),
            (&json!("warning"), &json!("asus_home"))
        );
        assert_eq!(payload["at"], "2023-11-14T22:13:20+00:00");
    }

    #[test]
    fn what_is_not_known_is_null() {
        let messages = states(&topics(), &Status::default());
        let of = |subject: &str| payload(&messages, &topics().of(subject));
        assert_eq!(of("health")["problem"], false);
        for (subject, key) in [
            ("clock", "offset_ms"),
            ("clock", "stratum"),
            ("clock", "trusted_until"),
            ("clock", "last_step_s"),
            ("array", "used_percent"),
            ("appliance", "booted"),
        ] {
            assert_eq!(of(subject)[key], Value::Null, "{subject} {key}");
        }
    }

    #[test]
    fn known_dates() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (951_782_400, "2000-02-29T00:00:00+00:00"),
            (4_107_542_399, "2100-02-28T23:59:59+00:00"),
            (4_107_542_400, "2100-03-01T00:00:00+00:00"),
            (u64::MAX, "9999-12-31T23:59:59+00:00"),
        ] {
            assert_eq!(iso8601(unix), text);
        }
    }

    proptest! {
        #[test]
        fn later_times_sort_later(a in 0u64..253_402_300_799, b in 0u64..253_402_300_799) {
            prop_assert_eq!(iso8601(a).cmp(&iso8601(b)), a.cmp(&b));
        }
    }
}
