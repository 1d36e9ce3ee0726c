//! Sizes, ages, shares and disks in the few words that fit on a console.

use std::fmt::Write;
use strongroom_model::status::{Array, Disk, DiskHealth, Obsolete};

/// A size in binary units, three digits at most before the unit: `17 B`, `1.5 KiB`, `465 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, rounded; a value that rounds up to 1024 belongs to the next unit.
    let mut unit = 0;
    let mut tenths = (u128::from(bytes) * 10 + 512) / 1024;
    while tenths >= 10_235 && unit + 1 < UNITS.len() {
        unit += 1;
        tenths = (u128::from(bytes) * 10 + (1 << (10 * unit + 9))) >> (10 * (unit + 1));
    }
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", (tenths + 5) / 10, UNITS[unit])
    }
}

/// A span of time in its largest unit: `40 s`, `5 min`, `3 h`, `12 d`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long ago something was: `never`, `just now`, `3 h ago`. A time ahead of now is told as such: one of the two
/// clocks was wrong.
pub fn age(then: Option<u64>, now: u64) -> String {
    const SLACK: u64 = 120;
    match then {
        None => "never".into(),
        Some(then) if then > now + SLACK => format!("{} ahead of the clock", duration(then - now)),
        Some(then) if now.saturating_sub(then) < 60 => "just now".into(),
        Some(then) => format!("{} ago", duration(now - then)),
    }
}

/// A day in UTC, from Unix seconds: `2027-03-31`.
pub fn day(time: u64) -> String {
    let (year, month, day) = strongroom_model::date::of_days(time / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// What lies in a copy that its newest state does not need; empty when there is nothing.
pub fn obsolete(obsolete: &Obsolete) -> String {
    let mut text = String::new();
    for (bytes, what) in [
        (obsolete.free_bytes, "could be deleted"),
        (obsolete.waiting_bytes, "kept for older states"),
        (obsolete.retired_bytes, "deleted so far"),
    ] {
        if bytes > 0 {
            let _ = write!(text, "; {} {what}", size(bytes));
        }
    }
    text
}

/// The largest error of a clock, from nanoseconds, rounded up: `120 µs`, `16 ms`, `7 s`.
pub fn within(ns: u64) -> String {
    match ns {
        ..=999_000 => format!("{} µs", ns.div_ceil(1000)),
        999_001..10_000_000_000 => format!("{} ms", ns.div_ceil(1_000_000)),
        _ => format!("{} s", ns.div_ceil(1_000_000_000)),
    }
}

/// `part` of `whole` in percent, rounded down; `None` when there is no whole. Never more than 100.
pub fn percent(part: u64, whole: u64) -> Option<u64> {
    (whole > 0).then(|| (u128::from(part.min(whole)) * 100 / u128::from(whole)) as u64)
}

/// A disk by its serial number: `WD-WCC4N1234567 good, 34 °C`.
pub fn disk(disk: &Disk) -> String {
    format!("{}{}", disk.serial, disk_health(disk).replacen(',', "", 1))
}

/// What follows a disk's other facts: `, aging, 51 °C`; nothing when it tells nothing.
pub fn disk_health(disk: &Disk) -> String {
    let mut text = match disk.health {
        DiskHealth::Unknown => String::new(),
        DiskHealth::Good => ", good".into(),
        DiskHealth::Aging => ", aging".into(),
        DiskHealth::Failing => ", FAILING".into(),
    };
    if let Some(temperature) = disk.temperature {
        let _ = write!(text, ", {temperature} °C");
    }
    text
}

/// What is ahead of the array, and when it was last read through; nothing while neither is known.
pub fn outlook(array: &Array, now: u64) -> String {
    let mut text = String::new();
    if let Some(days) = array.days_until_full {
        let _ = write!(text, ", full in about {days} d");
    }
    if array.last_scrub.is_some() {
        let _ = write!(text, ", scrubbed {}", age(array.last_scrub, now));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::status::Clock;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 10, "10 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (500 << 20, "500 MiB"),
            (465 << 30, "465 GiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn sizes_are_never_long_and_grow() {
        let mut bytes = 1u64;
        while bytes < u64::MAX / 3 {
            for near in [bytes - 1, bytes, bytes + 1] {
                assert!(size(near).len() <= 8, "{near}: {}", size(near));
            }
            bytes = bytes * 3 / 2 + 1;
        }
    }

    #[test]
    fn ages() {
        let now = 1_000_000;
        for (then, text) in [
            (None, "never"),
            (Some(now), "just now"),
            (Some(now + 60), "just now"),
            (Some(now - 61), "1 min ago"),
            (Some(now - 3 * 3600), "3 h ago"),
            (Some(now - 47 * 3600), "47 h ago"),
            (Some(now - 3 * 86_400), "3 d ago"),
            (Some(now + 7200), "2 h ahead of the clock"),
        ] {
            assert_eq!(age(then, now), text);
        }
    }

    #[test]
    fn errors_of_the_clock() {
        for (offset_ns, error_ns, text) in [
            (0, 1, "1 µs"),
            (-120_000, 15_000_000, "16 ms"),
            (999_000, 0, "999 µs"),
            (0, 999_001, "1 ms"),
            (0, 10_000_000_000, "10 s"),
            (i64::MIN, u64::MAX, "18446744074 s"),
        ] {
            let clock = Clock {
                offset_ns,
                error_ns,
                ..Clock::default()
            };
            assert_eq!(within(clock.total_error_ns()), text);
        }
    }

    #[test]
    fn percents() {
        assert_eq!(percent(1, 0), None);
        assert_eq!(percent(1, 3), Some(33));
        assert_eq!(percent(u64::MAX, 1), Some(100));
        assert_eq!(percent(u64::MAX - 1, u64::MAX), Some(99));
    }
}
