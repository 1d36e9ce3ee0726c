//! What is remembered of a disk between readings: when its counters grew, what the kernel could not do, how warm it was.

use super::{ERRORS_STAND, Kind, Reading};
use serde::{Deserialize, Serialize};

/// How long growth is spoken of, in seconds: 30 days.
const GROWTH_STANDS: u64 = 30 * 24 * 3600;
const DAY: u64 = 24 * 3600;
/// A disk is called cool again when it is this much below the limit, in degrees: no alternating at the limit.
const COOLED: i16 = 3;

/// Counters that a disk tells. What it does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sectors replaced by spare ones (attribute 5).
    pub reallocated: Option<u64>,
    /// Sectors that could not be read and wait for a write (attribute 197).
    pub pending: Option<u64>,
    /// Sectors that the disk itself found unreadable (attribute 198).
    pub uncorrectable: Option<u64>,
    /// Transfers damaged between disk and computer (attribute 199).
    pub crc_errors: Option<u64>,
    /// NVMe: data that could not be delivered whole.
    pub media_errors: Option<u64>,
}

/// A counter over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The last value; `None` before the first reading.
    pub value: Option<u64>,
    /// The value before it last began to grow, and when it was seen to have grown.
    pub grew: Option<(u64, u64)>,
}

/// Growth that still stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The value before.
    pub from: u64,
    /// When it was first seen to have grown, Unix seconds.
    pub since: u64,
}

impl Growth {
    /// `within a day`, `within 5 days`.
    pub fn within(&self, now: u64) -> alloc::string::String {
        match now.saturating_sub(self.since) / DAY {
            0 => "within a day".into(),
            days => alloc::format!("within {} days", days + 1),
        }
    }
}

impl Counter {
    /// Takes note of a value. The first one is no growth: nobody knows since when it stands.
    pub fn note(&mut self, value: Option<u64>, now: u64) {
        self.grew = self.grew.map(|(from, since)| (from, since.min(now)));
        let Some(value) = value else { return };
        match self.value {
            Some(before) if value > before && self.growth(now).is_none() => self.grew = Some((before, now)),
            // Sectors that were written again are pending no longer.
            Some(before) if value < before => self.grew = None,
            _ => {}
        }
        self.value = Some(value);
    }

    /// Growth within the last 30 days.
    pub fn growth(&self, now: u64) -> Option<Growth> {
        let (from, since) = self.grew?;
        (now.saturating_sub(since) < GROWTH_STANDS).then_some(Growth { from, since })
    }
}

/// What the kernel could not do with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Requests that failed for good.
    pub failed: u32,
    /// Disturbances of the transfer after which it tried again.
    pub disturbed: u32,
    /// Whether the disk fell out of the array.
    pub lost: bool,
    /// When the last of them was, Unix seconds; 0 when there was none.
    pub last: u64,
}

impl Errors {
    /// Adds what was seen at `now`. What is older than a week is no longer held against the disk.
    pub fn add(&mut self, failed: u32, disturbed: u32, lost: bool, now: u64) {
        if now.saturating_sub(self.last) >= ERRORS_STAND {
            *self = Self::default();
        }
        self.failed = self.failed.saturating_add(failed);
        self.disturbed = self.disturbed.saturating_add(disturbed);
        self.lost |= lost;
        self.last = now;
    }

    /// The system was started again: a disk that had fallen out may be back. That it did is still held against it.
    pub fn started_again(&mut self) {
        if self.lost {
            self.lost = false;
            self.failed = self.failed.max(1);
        }
    }

    /// These errors, while they are held against the disk.
    pub fn standing(&self, now: u64) -> Option<&Self> {
        let any = self.failed > 0 || self.lost || self.disturbed >= super::DISTURBED_MIN;
        (any && now.saturating_sub(self.last) < ERRORS_STAND).then_some(self)
    }
}

/// How warm a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heat {
    /// Not too warm.
    #[default]
    Fine,
    /// Warmer than is good for it.
    Warm,
    /// Hot enough to be damaged.
    Hot,
}

/// Limits in degrees Celsius: warm from, hot from.
pub(super) fn limits(reading: &Reading) -> (i16, i16) {
    let (warm, hot) = match reading.kind {
        Kind::Nvme | Kind::Flash => (70, 80),
        Kind::Rotating | Kind::Unknown => (50, 60),
    };
    match reading.kind {
        // Its own limits are those of its controller.
        Kind::Nvme => {
            let warm = reading.limits.0.filter(|limit| *limit > 0).unwrap_or(warm);
            (
                warm,
                reading
                    .limits
                    .1
                    .filter(|limit| *limit > warm)
                    .unwrap_or(hot.max(warm + 1)),
            )
        }
        _ => (warm, hot),
    }
}

impl Heat {
    /// How warm it is, knowing how warm it was.
    pub fn next(self, temperature: i16, (warm, hot): (i16, i16)) -> Self {
        let leaves = |limit: i16, at: Self| limit - if self >= at { COOLED } else { 0 };
        if temperature >= leaves(hot, Self::Hot) {
            Self::Hot
        } else if temperature >= leaves(warm, Self::Warm) {
            Self::Warm
        } else {
            Self::Fine
        }
    }
}

/// What is remembered of one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Attribute 5.
    pub reallocated: Counter,
    /// Attribute 197.
    pub pending: Counter,
    /// Attribute 198.
    pub uncorrectable: Counter,
    /// Attribute 199.
    pub crc_errors: Counter,
    /// NVMe media errors.
    pub media_errors: Counter,
    /// What the kernel could not do.
    pub errors: Errors,
    /// How warm it was.
    pub heat: Heat,
}

impl Memory {
    /// Takes note of a reading.
    pub fn note(&mut self, reading: &Reading, now: u64) {
        // A time ahead of now was told by a clock that was wrong; it must not stand until then.
        self.errors.last = self.errors.last.min(now);
        let counts = &reading.counts;
        for (counter, value) in [
            (&mut self.reallocated, counts.reallocated),
            (&mut self.pending, counts.pending),
            (&mut self.uncorrectable, counts.uncorrectable),
            (&mut self.crc_errors, counts.crc_errors),
            (&mut self.media_errors, counts.media_errors),
        ] {
            counter.note(value, now);
        }
        if let Some(temperature) = reading.temperature {
            self.heat = self.heat.next(temperature, limits(reading));
        }
    }
}
