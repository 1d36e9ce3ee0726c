//! When the array will be full, from samples of what is used. Pure.
//!
//! The slope is the median of the slopes between all pairs of samples (Theil and Sen), which a few strange samples
//! don't move, over the last 30 days and over the later half of them; the smaller of the two counts, so that a first
//! backup of everything does not raise an alarm about growth that is already over. What was freed by a compaction
//! begins a new stretch.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Least time between two samples, in seconds.
pub const SAMPLE_PERIOD: u64 = 6 * 3600;
/// Most samples kept: 90 days.
pub const SAMPLES_MAX: usize = 360;
const DAY: u64 = 24 * 3600;
/// What the slope is taken over.
const WINDOW: u64 = 30 * DAY;
/// Less evidence than this says nothing.
const SPAN_MIN: u64 = 4 * DAY;
const EVIDENCE_MIN: usize = 10;
/// Further ahead than this nobody plans.
const DAYS_MAX: f64 = 3650.0;

/// What was used at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, Unix seconds by a trusted clock.
    pub at: u64,
    /// Bytes used.
    pub used: u64,
}

/// Takes a sample if it is time for one. Returns whether it was taken.
///
/// `now` comes from a clock that is trusted now; if samples lie ahead of it, it was not right then, and they go.
pub fn note(samples: &mut Vec<Sample>, now: u64, used: u64) -> bool {
    let before = samples.len();
    samples.retain(|sample| sample.at <= now);
    let due = samples
        .last()
        .is_none_or(|last| now.saturating_sub(last.at) >= SAMPLE_PERIOD);
    if due {
        samples.push(Sample { at: now, used });
    }
    let surplus = samples.len().saturating_sub(SAMPLES_MAX);
    samples.drain(..surplus);
    due || samples.len() != before
}

/// In how many days `free` bytes will be used up. `None`: not enough is known, or it isn't filling within ten years.
pub fn days_until_full(samples: &[Sample], free: u64) -> Option<u32> {
    let stretch = last_stretch(samples);
    let last = stretch.last()?;
    let window: Vec<Sample> = stretch
        .iter()
        .filter(|sample| last.at - sample.at <= WINDOW)
        .copied()
        .collect();
    let span = last.at - window.first()?.at;
    if span < SPAN_MIN || window.len() < EVIDENCE_MIN {
        return None;
    }
    let later: Vec<Sample> = window
        .iter()
        .filter(|sample| last.at - sample.at <= span / 2)
        .copied()
        .collect();
    let slope = median_slope(&window)?.min(median_slope(&later)?);
    if slope <= 0.0 {
        return None;
    }
    let days = free as f64 / slope / DAY as f64;
    // The cast cuts what comes after the point; it is bounded above.
    (days <= DAYS_MAX).then_some(days as u32)
}

/// The samples since the last time that something was freed (more than a hundredth of what was used) or that time
/// did not go on.
fn last_stretch(samples: &[Sample]) -> &[Sample] {
    let begin = samples
        .windows(2)
        .rposition(|pair| pair[1].at <= pair[0].at || pair[1].used < pair[0].used - pair[0].used / 100)
        .map_or(0, |at| at + 1);
    &samples[begin..]
}

/// The median of the slopes between all pairs, in bytes per second. At most [`SAMPLES_MAX`] squared halves of them.
fn median_slope(samples: &[Sample]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (index, one) in samples.iter().enumerate() {
        for other in &samples[index + 1..] {
            let time = other.at.checked_sub(one.at).filter(|time| *time > 0)?;
            slopes.push((other.used as f64 - one.used as f64) / time as f64);
        }
    }
    let middle = slopes.len() / 2;
    if slopes.is_empty() {
        return None;
    }
    let (_, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_700_000_000;
    const GIB: u64 = 1 << 30;

    fn days(count: u64, used: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..count * 4)
            .map(|n| Sample {
                at: START + n * SAMPLE_PERIOD,
                used: used(n),
            })
            .collect()
    }

    #[test]
    fn steady_growth_is_told_to_the_day() {
        // 4 GiB a day, 100 GiB left.
        let samples = days(20, |n| 500 * GIB + n * GIB);
        assert_eq!(days_until_full(&samples, 100 * GIB), Some(25));
    }

    #[test]
    fn what_does_not_fill_is_not_told() {
        assert_eq!(days_until_full(&[], GIB), None);
        assert_eq!(days_until_full(&days(30, |_| 7 * GIB), GIB), None);
        assert_eq!(days_until_full(&days(30, |n| 700 * GIB - n * GIB), GIB), None);
        assert_eq!(
            days_until_full(&days(30, |n| 700 * GIB + n), 1000 * GIB),
            None,
            "in centuries"
        );
        assert_eq!(
            days_until_full(&days(3, |n| n * GIB), 10 * GIB),
            None,
            "too early to say"
        );
    }

    #[test]
    fn the_first_backup_of_everything_is_no_trend() {
        // Two days of filling, then almost nothing.
        let samples = days(12, |n| {
            if n < 8 {
                n * 50 * GIB
            } else {
                400 * GIB + n * (GIB / 100)
            }
        });
        let left = days_until_full(&samples, 200 * GIB);
        assert!(left.is_none_or(|days| days > 365), "{left:?}");
    }

    #[test]
    fn a_compaction_begins_anew() {
        let samples = days(30, |n| if n < 100 { n * GIB } else { 20 * GIB + (n - 100) * GIB });
        // 20 samples, 5 days: 4 GiB a day.
        assert_eq!(days_until_full(&samples, 40 * GIB), Some(10));
    }

    #[test]
    fn samples_of_a_clock_that_was_ahead_go() {
        let mut samples = days(10, |n| n * GIB);
        let end = samples[39].at;
        assert!(!note(&mut samples, end + 60, 40 * GIB), "too soon");
        assert!(note(&mut samples, end + 70 * 365 * DAY, 40 * GIB));
        assert_eq!(samples.len(), 41);
        assert_eq!(days_until_full(&samples, 100 * GIB), None, "nonsense");
        assert!(note(&mut samples, end + SAMPLE_PERIOD, 40 * GIB));
        assert_eq!(samples.len(), 41);
        assert_eq!(days_until_full(&samples, 100 * GIB), Some(25));
    }

    proptest! {
        #[test]
        fn noise_and_a_few_strange_samples_do_not_matter(
            noise in proptest::collection::vec(0u64..GIB / 2, 120),
            strange in proptest::collection::vec((0usize..120, 0u64..2), 0..6),
        ) {
            let mut samples = days(30, |n| 500 * GIB + n * GIB + noise[n as usize]);
            for (at, up) in strange {
                samples[at].used += up * 3 * GIB;
            }
            let days = days_until_full(&samples, 100 * GIB).unwrap();
            prop_assert!((23..=27).contains(&days), "{}", days);
        }

        #[test]
        fn whatever_comes_nothing_panics_and_all_stays_bounded(
            wild in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..60),
            free in any::<u64>(),
        ) {
            let samples: Vec<Sample> = wild.iter().map(|(at, used)| Sample { at: *at, used: *used }).collect();
            let _ = days_until_full(&samples, free);
            let mut noted = Vec::new();
            for (now, used) in wild {
                note(&mut noted, now, used);
                prop_assert!(noted.windows(2).all(|pair| pair[0].at < pair[1].at));
                let _ = days_until_full(&noted, free);
            }
        }

        #[test]
        fn more_room_never_means_fewer_days(step in 1u64..GIB, free in 0u64..1000 * GIB) {
            let samples = days(10, |n| n * step);
            let (less, more) = (days_until_full(&samples, free), days_until_full(&samples, free + GIB));
            if let (Some(less), Some(more)) = (less, more) {
                prop_assert!(more >= less);
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut samples = Vec::new();
        for n in 0..500 {
            note(&mut samples, START + n * SAMPLE_PERIOD, n);
        }
        assert_eq!(samples.len(), SAMPLES_MAX);
    }
}
