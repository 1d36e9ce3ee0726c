//! How far a clock that follows nobody can have gone, and how long it may be trusted yet. Pure arithmetic.
//!
//! chronyd's own bound grows by the error of the rate that it last knew and by 1 ppm (chrony.conf(5), `maxclockerror`). That
//! holds for minutes. Over days the rate itself changes, mostly with the temperature of the quartz, so that here it grows by
//! [`WANDER_PPB`] at the least, and by what was seen to change within a day when that is more.

use super::Tracking;

/// Largest error of a clock that is trusted without a source, in nanoseconds: a minute. The strictest of what depends on it
/// is a signed request, which is refused beyond [`SIGNED_REQUEST_S`].
pub const COASTING_NS: u64 = 60_000_000_000;
/// By how much the clock of a signed request may be off (S3, `RequestTimeTooSkewed`), in seconds. [`COASTING_NS`] leaves room
/// for the service's own error and for the time that a request is under way.
pub const SIGNED_REQUEST_S: u64 = 15 * 60;
/// What the rate of a PC's quartz may change when the room gets cold or warm, at the least: 10 ppm.
pub const WANDER_PPB: u64 = 10_000;
/// chronyd's `maxclockerror`: what it allows the rate to change between two updates.
const MAX_CLOCK_ERROR_PPB: u64 = 1_000;
/// Where the kernel's own bound ends (linux/timex.h, `NTP_PHASE_LIMIT`), in microseconds: beyond it, it no longer holds itself
/// for synchronised.
const KERNEL_LIMIT_US: u64 = 16_000_000;
/// By how much the kernel's bound grows (`MAXFREQ`), in microseconds a second.
const KERNEL_GROWTH: u64 = 500;

/// A clock that follows nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coast {
    /// Largest error, beside the offset that is known, in nanoseconds.
    pub error_ns: u64,
    /// Seconds until it is no longer trusted; 0 when it isn't.
    pub left_s: u64,
}

/// After the last update that `tracking` tells of. `wander_ppb` is by how much the rate was seen to change within a day.
pub fn since_update(tracking: &Tracking, wander_ppb: Option<u64>) -> Coast {
    let known = tracking
        .skew_ppb
        .saturating_add(tracking.residual_ppb.unsigned_abs())
        .saturating_add(MAX_CLOCK_ERROR_PPB);
    let rate = known.max(WANDER_PPB).max(wander_ppb.unwrap_or(0));
    // chronyd's dispersion has grown by the known rate since the update. A part in 10^9 of a second is a nanosecond.
    let beyond = tracking.since_update_s.saturating_mul(rate - known);
    let error_ns = tracking.distance_ns().saturating_add(beyond);
    let total = error_ns.saturating_add(tracking.offset_ns.unsigned_abs());
    Coast {
        error_ns,
        left_s: COASTING_NS.saturating_sub(total) / rate,
    }
}

/// By the kernel's word alone, when nobody else is there to say: `max_error_us` is its bound (adjtimex(2), `maxerror`).
pub fn by_kernel(max_error_us: u64) -> Coast {
    Coast {
        error_ns: max_error_us.saturating_mul(1000),
        left_s: KERNEL_LIMIT_US.saturating_sub(max_error_us) / KERNEL_GROWTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tracking() -> impl Strategy<Value = Tracking> {
        (
            any::<i64>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
            any::<i64>(),
            any::<u64>(),
            0u32..64,
        )
            .prop_map(|(offset, delay, dispersion, skew, residual, since, shift)| Tracking {
                // Small and huge ones alike.
                offset_ns: offset >> shift,
                root_delay_ns: delay >> shift,
                root_dispersion_ns: dispersion >> shift,
                skew_ppb: skew >> shift,
                residual_ppb: residual >> shift,
                since_update_s: since >> shift,
                ..Tracking::default()
            })
    }

    #[test]
    fn a_good_clock_is_trusted_for_weeks_and_not_for_years() {
        let good = Tracking {
            root_delay_ns: 20_000_000,
            root_dispersion_ns: 5_000_000,
            skew_ppb: 20,
            since_update_s: 0,
            ..Tracking::default()
        };
        let days = since_update(&good, None).left_s / 86_400;
        assert!((60..80).contains(&days), "{days}");
        // A rate that changes by 100 ppm a day leaves a week.
        let days = since_update(&good, Some(100_000)).left_s / 86_400;
        assert_eq!(days, 6);
        // After one sample, chronyd knows the rate only roughly.
        let young = Tracking {
            skew_ppb: 100_000_000,
            ..good
        };
        assert!(since_update(&young, None).left_s < 600);
    }

    #[test]
    fn the_kernel_vouches_for_hours() {
        assert_eq!(by_kernel(0).left_s, 32_000);
        assert_eq!(by_kernel(KERNEL_LIMIT_US).left_s, 0);
        assert_eq!(by_kernel(u64::MAX).left_s, 0);
    }

    proptest! {
        #[test]
        fn trust_never_outlasts_the_tolerance(tracking in tracking(), wander in any::<Option<u64>>()) {
            let coast = since_update(&tracking, wander);
            let total = u128::from(coast.error_ns) + u128::from(tracking.offset_ns.unsigned_abs());
            // Even at the end of it, what is signed is well within what services tolerate.
            if coast.left_s > 0 {
                prop_assert!(total <= u128::from(COASTING_NS));
                prop_assert!(COASTING_NS / 1_000_000_000 * 10 <= SIGNED_REQUEST_S);
                let at_end = total + u128::from(coast.left_s) * u128::from(WANDER_PPB);
                prop_assert!(at_end <= u128::from(COASTING_NS));
            }
            prop_assert!(coast.error_ns >= tracking.distance_ns());
        }

        #[test]
        fn time_only_takes_trust_away(tracking in tracking(), wander in any::<Option<u64>>(), more in 0u64..1 << 40) {
            let now = since_update(&tracking, wander);
            // chronyd's own bound grows meanwhile, too.
            let own = tracking.skew_ppb.saturating_add(tracking.residual_ppb.unsigned_abs()).saturating_add(MAX_CLOCK_ERROR_PPB);
            let later = since_update(&Tracking {
                since_update_s: tracking.since_update_s.saturating_add(more),
                root_dispersion_ns: tracking.root_dispersion_ns.saturating_add(own.saturating_mul(more)),
                ..tracking
            }, wander);
            prop_assert!(later.error_ns >= now.error_ns);
            prop_assert!(later.left_s <= now.left_s.saturating_sub(more).saturating_add(1));
        }

        #[test]
        fn a_rate_that_wanders_more_is_trusted_less(tracking in tracking(), wander in 0u64..1 << 40, more in 0u64..1 << 40) {
            let calm = since_update(&tracking, Some(wander));
            let wild = since_update(&tracking, Some(wander + more));
            prop_assert!(wild.left_s <= calm.left_s && wild.error_ns >= calm.error_ns);
        }
    }
}
