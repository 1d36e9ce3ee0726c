//! SMART and NVMe health, as `smartctl --json` of smartmontools 7 tells them. Translates; decides nothing.
//!
//! smartctl's exit code is a set of bits (smartctl(8), EXIT STATUS): 0 wrong usage, 1 the device could not be opened or
//! did not identify itself, 2 a command failed, 3 the disk's verdict is that it fails, 4 an attribute that announces
//! failure is below its threshold, 5 one was in the past, 6 and 7 its logs hold errors. Bits 3 to 7 are told better by
//! the answer itself. A disk that sleeps is left asleep and answers with [`ASLEEP`], which no set of bits is.

use super::bounded::{self, Ended};
use serde::Deserialize;
use std::time::Duration;
use strongroom_model::disk_health::{Answer, Counts, Kind, Reading};

/// Exit code when the disk sleeps: bits 0 and 1 together, as smartctl(8) proposes.
const ASLEEP: i32 = 3;
/// A disk that is dying may take long to answer; the kernel gives up on a command after 30 s and tries again.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// Degrees that no disk in operation has; some tell 0 or 255 for "not known".
const TEMPERATURES: std::ops::RangeInclusive<i64> = 1..=120;
/// Counts beyond this are another thing that the maker keeps in the same place.
const SECTORS_MAX: u64 = 0xffff_ffff;

/// Reads one disk, e.g. `/dev/sda`, and leaves it asleep if it sleeps.
pub fn read(device: &str) -> Reading {
    let first = ask(device, None);
    // A USB enclosure that smartctl does not know may still pass ATA commands on (smartctl(8), `-d sat`).
    if matches!(&first.answer, Answer::Silent(why) if why.contains("USB bridge") || why.contains("Unable to detect device type"))
    {
        let again = ask(device, Some("sat"));
        if again.answer == Answer::Told {
            return again;
        }
    }
    first
}

fn ask(device: &str, kind: Option<&str>) -> Reading {
    let nocheck = format!("--nocheck=standby,{ASLEEP}");
    let mut arguments = vec![
        "--json=c",
        "--info",
        "--health",
        "--capabilities",
        "--attributes",
        "--log=selftest",
        &nocheck,
    ];
    if let Some(kind) = kind {
        arguments.extend(["--device", kind]);
    }
    arguments.push(device);
    match bounded::run("smartctl", &arguments, TIMEOUT, ANSWER_BYTES_MAX) {
        Ended::Exited { code, stdout } => parse(code, &stdout),
        Ended::TimedOut => silent("it does not answer in time"),
        Ended::NotStarted(error) => silent(&format!("smartctl could not be run: {error}")),
    }
}

fn silent(why: &str) -> Reading {
    Reading {
        answer: Answer::Silent(why.into()),
        ..Reading::default()
    }
}

// Only what is used, each part absent when the disk does not tell it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    smartctl: Smartctl,
    device: Device,
    rotation_rate: Option<u64>,
    smart_support: Option<Support>,
    smart_status: Option<Status>,
    temperature: Temperature,
    nvme_composite_temperature_threshold: Thresholds,
    power_on_time: PowerOnTime,
    endurance_used: Percent,
    ata_smart_attributes: Attributes,
    ata_smart_self_test_log: SelfTests,
    nvme_smart_health_information_log: Option<NvmeHealth>,
    nvme_self_test_log: NvmeSelfTests,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Smartctl {
    messages: Vec<Message>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    string: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Support {
    available: bool,
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Status {
    passed: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Temperature {
    current: Option<i64>,
    op_limit_max: Option<i64>,
    critical_limit_max: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Thresholds {
    warning: Option<i64>,
    critical: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PowerOnTime {
    hours: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Percent {
    current_percent: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    table: Vec<Attribute>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attribute {
    id: u8,
    name: String,
    when_failed: String,
    flags: Flags,
    raw: Raw,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flags {
    prefailure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SelfTests {
    standard: SelfTestTable,
    extended: SelfTestTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SelfTestTable {
    table: Vec<SelfTest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SelfTest {
    status: SelfTestStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SelfTestStatus {
    passed: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NvmeHealth {
    critical_warning: u8,
    available_spare: Option<u8>,
    available_spare_threshold: Option<u8>,
    percentage_used: Option<u8>,
    media_errors: Option<serde_json::Value>,
    power_on_hours: Option<serde_json::Value>,
    temperature: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NvmeSelfTests {
    table: Vec<NvmeSelfTest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NvmeSelfTest {
    self_test_result: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Value {
    value: Option<u8>,
}

/// Understands an answer. Whatever it holds, there is a reading.
pub fn parse(code: Option<i32>, answer: &str) -> Reading {
    if code == Some(ASLEEP) {
        return Reading {
            answer: Answer::Asleep,
            ..Reading::default()
        };
    }
    let Ok(told) = serde_json::from_str::<Told>(answer) else {
        return silent("smartctl's answer can't be understood");
    };
    let nothing = told.smart_status.is_none()
        && told.ata_smart_attributes.table.is_empty()
        && told.nvme_smart_health_information_log.is_none();
    if nothing {
        let why = match (&told.smart_support, told.smartctl.messages.first()) {
            (Some(support), _) if !support.available => "it has no SMART",
            (Some(support), _) if support.enabled == Some(false) => "its SMART is switched off",
            (_, Some(message)) => message.string.as_str(),
            _ => "it tells nothing",
        };
        return silent(why);
    }
    reading(&told)
}

fn reading(told: &Told) -> Reading {
    let nvme = told.nvme_smart_health_information_log.as_ref();
    let attributes = &told.ata_smart_attributes.table;
    let count = |ids: &[u8]| {
        let found = ids.iter().find_map(|id| attributes.iter().find(|one| one.id == *id))?;
        // The upper bytes hold something else with some makers.
        Some(found.raw.value & SECTORS_MAX)
    };
    let kind = match (nvme.is_some() || told.device.protocol == "NVMe", told.rotation_rate) {
        (true, _) => Kind::Nvme,
        (false, Some(0)) => Kind::Flash,
        (false, Some(_)) => Kind::Rotating,
        (false, None) => Kind::Unknown,
    };
    let degrees = |told: Option<i64>| {
        told.filter(|degrees| TEMPERATURES.contains(degrees))
            .and_then(|degrees| i16::try_from(degrees).ok())
    };
    let thresholds = &told.nvme_composite_temperature_threshold;
    Reading {
        answer: Answer::Told,
        kind,
        passed: told.smart_status.as_ref().and_then(|status| status.passed),
        prefail: attributes
            .iter()
            .filter(|one| one.flags.prefailure && one.when_failed == "now")
            .map(|one| one.name.chars().filter(|c| !c.is_control()).take(40).collect())
            .collect(),
        temperature: degrees(told.temperature.current).or_else(|| degrees(nvme?.temperature)),
        limits: (
            degrees(thresholds.warning.or(told.temperature.op_limit_max)),
            degrees(thresholds.critical.or(told.temperature.critical_limit_max)),
        ),
        power_on_hours: told
            .power_on_time
            .hours
            .or_else(|| number(nvme?.power_on_hours.as_ref())),
        self_test_failed: self_test_failed(told),
        counts: Counts {
            reallocated: count(&[5]),
            pending: count(&[197]),
            uncorrectable: count(&[198]),
            crc_errors: count(&[199]),
            media_errors: nvme.and_then(|nvme| number(nvme.media_errors.as_ref())),
        },
        critical_warning: nvme.map_or(0, |nvme| nvme.critical_warning),
        percentage_used: nvme
            .and_then(|nvme| nvme.percentage_used)
            .or_else(|| told.endurance_used.current_percent?.min(255).try_into().ok()),
        spare: nvme.and_then(|nvme| nvme.available_spare.zip(nvme.available_spare_threshold)),
    }
}

/// Numbers beyond 53 bits come as text.
fn number(value: Option<&serde_json::Value>) -> Option<u64> {
    match value? {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Whether the latest self-test that came to a result found a fault. Those that were interrupted have none.
fn self_test_failed(told: &Told) -> bool {
    let log = &told.ata_smart_self_test_log;
    let ata = log.extended.table.iter().chain(&log.standard.table);
    if let Some(passed) = ata.filter_map(|test| test.status.passed).next() {
        return !passed;
    }
    // NVM Express Base 2.0, figure 218: 0 passed; 5 to 7 failed; the others were stopped.
    let mut results = told
        .nvme_self_test_log
        .table
        .iter()
        .filter_map(|test| test.self_test_result.value);
    results
        .find(|result| matches!(result, 0 | 5..=7))
        .is_some_and(|result| result != 0)
}

#[cfg(test)]
mod tests;
