//! The status in Prometheus' text format, version 0.0.4 ("Exposition formats"). Pure. What is not known is left out.

use std::fmt::{Display, Write};
use strongroom_model::clients::quota_used_permille;
use strongroom_model::condition::{Area, Health};
use strongroom_model::status::{ArrayState, ClockState, DiskHealth, Status};

/// Everything. Names are stable; docs/exits.md lists them.
pub fn render(status: &Status) -> String {
    let mut page = Page::default();
    let release = [("release", status.appliance.release.as_str())];
    page.gauge("info", "The release that runs.").row(&release, 1);
    let health = match status.health {
        Health::Starting => -1,
        Health::Good => 0,
        Health::Warning => 1,
        Health::Alarm => 2,
    };
    page.gauge("health", "-1 starting, 0 good, 1 warning, 2 alarm.")
        .row(&[], health);
    page.gauge("problems", "Warnings and alarms that stand, by area.");
    for area in Area::ALL {
        let standing = status.conditions.standing.iter();
        let problems = standing.filter(|one| one.is_problem() && one.id.area() == area).count();
        page.row(&[("area", area.name())], problems);
    }
    page.gauge("boot_time_seconds", "When the appliance booted, Unix time.");
    page.some(&[], status.appliance.booted);
    clock(&mut page, status);
    array(&mut page, status);
    disks(&mut page, status);
    clients(&mut page, status);
    targets(&mut page, status);
    page.text
}

fn clock(page: &mut Page, status: &Status) {
    let clock = &status.clock;
    let synchronised = clock.state == ClockState::Synchronised;
    page.gauge("clock_synchronised", "1 when the clock follows a source.")
        .row(&[], u8::from(synchronised));
    let known = |ns: f64| (clock.state != ClockState::Unknown).then_some(ns / 1e9);
    page.gauge("clock_offset_seconds", "The clock less NTP time.")
        .some(&[], known(clock.offset_ns as f64));
    page.gauge("clock_error_seconds", "Largest error of the clock.")
        .some(&[], known(clock.error_ns as f64));
}

fn array(page: &mut Page, status: &Status) {
    let array = &status.array;
    let mounted = array.state == ArrayState::Mounted;
    page.gauge("array_mounted", "1 when the array is in use.")
        .row(&[], u8::from(mounted));
    let of = |bytes: u64| mounted.then_some(bytes);
    page.gauge("array_size_bytes", "Size of the array's file system.")
        .some(&[], of(array.size_bytes));
    page.gauge("array_used_bytes", "Used of it.")
        .some(&[], of(array.used_bytes));
    page.gauge(
        "array_days_until_full",
        "Days until it is full if the last month goes on.",
    )
    .some(&[], array.days_until_full);
    page.gauge("array_last_scrub_seconds", "When everything was last read, Unix time.")
        .some(&[], array.last_scrub);
}

fn disks(page: &mut Page, status: &Status) {
    page.gauge("disk_temperature_celsius", "Temperature of a disk.");
    for disk in &status.disks {
        page.some(&[("serial", &disk.serial)], disk.temperature);
    }
    page.gauge("disk_health", "0 unknown, 1 good, 2 aging, 3 failing.");
    for disk in &status.disks {
        let health = match disk.health {
            DiskHealth::Unknown => 0,
            DiskHealth::Good => 1,
            DiskHealth::Aging => 2,
            DiskHealth::Failing => 3,
        };
        page.row(&[("serial", &disk.serial)], health);
    }
}

fn clients(page: &mut Page, status: &Status) {
    let clients = &status.clients;
    page.gauge(
        "client_last_backup_seconds",
        "When a backup was last committed, Unix time.",
    );
    for client in clients {
        page.some(&[("client", client.name.as_str())], client.last_backup);
    }
    page.gauge("client_size_bytes", "Size of the repository.");
    for client in clients {
        page.row(&[("client", client.name.as_str())], client.size_bytes);
    }
    page.gauge("client_quota_used_ratio", "Share of the quota that is used.");
    for client in clients {
        let used = quota_used_permille(client).map(|permille| permille as f64 / 1000.0);
        page.some(&[("client", client.name.as_str())], used);
    }
    page.gauge("client_checked_seconds", "Every byte was checked since, Unix time.");
    for client in clients {
        page.some(&[("client", client.name.as_str())], client.checked);
    }
    page.gauge("client_damaged_segments", "Segments that a check found damaged.");
    for client in clients {
        page.row(&[("client", client.name.as_str())], client.damaged);
    }
    page.gauge(
        "client_last_drill_seconds",
        "When all of a copy was last restored for trial, Unix time.",
    );
    for client in clients {
        page.some(&[("client", client.name.as_str())], client.drill.whole);
    }
    page.gauge("client_next_push_seconds", "When it is pushed next, Unix time.");
    for client in clients {
        page.some(&[("client", client.name.as_str())], client.next_push);
    }
}

fn targets(page: &mut Page, status: &Status) {
    let mut all = Vec::new();
    for client in &status.clients {
        for target in &client.targets {
            all.push((
                [("client", client.name.as_str()), ("target", target.name.as_str())],
                target,
            ));
        }
    }
    page.gauge("copy_last_push_seconds", "When a copy was last completed, Unix time.");
    for (labels, target) in &all {
        page.some(labels, target.last_push);
    }
    page.gauge("copy_failed", "1 when the last push failed.");
    for (labels, target) in &all {
        page.row(labels, u8::from(!target.error.is_empty()));
    }
    page.gauge("copy_behind_transactions", "Transactions that a copy lacks.");
    for (labels, target) in &all {
        page.some(labels, target.behind.map(|behind| behind.transactions));
    }
    page.gauge("copy_behind_bytes", "Size of what a copy lacks.");
    for (labels, target) in &all {
        page.some(labels, target.behind.map(|behind| behind.bytes));
    }
    page.gauge(
        "copy_compared_seconds",
        "When a copy was last compared with what was sent, Unix time.",
    );
    for (labels, target) in &all {
        page.some(labels, target.verified);
    }
    page.gauge(
        "copy_damaged_objects",
        "Objects that were gone then, or not what was sent.",
    );
    for (labels, target) in &all {
        page.row(labels, target.damaged);
    }
    page.gauge("copy_size_bytes", "Size of a copy's objects.");
    for (labels, target) in &all {
        page.row(labels, target.size_bytes);
    }
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Begins a metric; its rows follow.
    fn gauge(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.name = name;
        // Writing to a string does not fail.
        let _ = writeln!(
            self.text,
            "# HELP strongroom_{name} {help}\n# TYPE strongroom_{name} gauge"
        );
        self
    }

    fn row(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, text)| format!("{key}=\"{}\"", escaped(text)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.text, "strongroom_{}{labels} {value}", self.name);
    }

    fn some(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.row(labels, value);
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faces::mqtt::sample::sample;

    #[test]
    fn what_is_known_is_told() {
        let text = render(&sample());
        for line in [
            "strongroom_info{release=\"0.1.0\"} 1",
            "strongroom_health 1",
            "strongroom_problems{area=\"offsite\"} 1",
            "strongroom_problems{area=\"clock\"} 0",
            "strongroom_clock_offset_seconds -0.00012",
            "strongroom_array_used_bytes 1000000",
            "strongroom_disk_temperature_celsius{serial=\"WD-1/X\"} 34",
            "strongroom_client_last_backup_seconds{client=\"asus_home\"} 1700010000",
            "strongroom_client_quota_used_ratio{client=\"asus_home\"} 0.805",
            "strongroom_client_last_drill_seconds{client=\"asus_home\"} 1700000000",
            "strongroom_copy_compared_seconds{client=\"asus_home\",target=\"oracle\"} 1700013605",
            "strongroom_copy_damaged_objects{client=\"asus_home\",target=\"oracle\"} 0",
            "strongroom_copy_behind_transactions{client=\"asus_home\",target=\"oracle\"} 2",
            "strongroom_copy_failed{client=\"asus_home\",target=\"oracle\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
        assert!(!text.contains("last_backup_seconds{client=\"laptop\"}"));
    }

    #[test]
    fn it_is_of_the_form_that_prometheus_reads() {
        let mut status = sample();
        status.disks[0].serial = "a\"b\\c\nd".into();
        let text = render(&status);
        assert!(text.ends_with('\n') && text.contains("serial=\"a\\\"b\\\\c\\nd\""));
        let mut named = None;
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                named = help.split(' ').next();
                assert!(seen.insert(named), "{line} twice");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert_eq!(kind.split(' ').collect::<Vec<_>>(), [named.unwrap(), "gauge"]);
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next(), named);
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
