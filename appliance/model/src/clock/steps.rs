//! Finds the times at which the clock was set, rather than made to run faster or slower.
//!
//! The wall clock and the time since the start run at one rate, whatever chronyd does to it (clock_gettime(2),
//! `CLOCK_BOOTTIME`); only setting the clock moves one against the other.

use crate::status::ClockStep;

/// Less than this is no step but the time between two readings, in milliseconds. chronyd's `makestep` begins at a second.
pub const LEAST_MS: u64 = 100;
/// A step within so many seconds from the start corrects the hardware clock's error.
const AT_START_S: u64 = 600;

/// Watches the wall clock's distance from the time since the start.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    known_ms: Option<i64>,
    looked: bool,
    last: Option<ClockStep>,
}

impl Steps {
    /// Begins with the distance as it was noted at the start of the machine, in milliseconds, if it was.
    pub fn since(start_ms: Option<i64>) -> Self {
        Self {
            known_ms: start_ms,
            ..Self::default()
        }
    }

    /// Takes in the distance now. `now` is the wall clock's time, Unix seconds; `uptime_s` seconds since the start. Returns the
    /// last step that is known.
    pub fn look(&mut self, distance_ms: i64, now: Option<u64>, uptime_s: u64) -> Option<ClockStep> {
        let known = *self.known_ms.get_or_insert(distance_ms);
        let by_ms = distance_ms.saturating_sub(known);
        if by_ms.unsigned_abs() >= LEAST_MS {
            self.last = Some(ClockStep {
                by_ms,
                at: now.filter(|_| self.looked),
                // What happened before the first look was chronyd's setting of the clock at the start, unless the supervisor
                // was started again: the one step that there nearly always is was that one still.
                at_start: !self.looked || uptime_s < AT_START_S,
            });
            self.known_ms = Some(distance_ms);
        }
        self.looked = true;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_step_before_the_first_look_is_known_by_the_note() {
        let mut steps = Steps::since(Some(1_000));
        let step = steps.look(5_001_000, Some(77), 30).unwrap();
        assert_eq!((step.by_ms, step.at, step.at_start), (5_000_000, None, true));
        let step = steps.look(5_001_001, Some(99), 40).unwrap();
        assert_eq!(step.by_ms, 5_000_000, "the last one stands");
        let step = steps.look(4_999_000, Some(9_000), 9_000).unwrap();
        assert_eq!((step.by_ms, step.at, step.at_start), (-2_000, Some(9_000), false));
    }

    #[test]
    fn without_a_note_the_first_look_is_the_beginning() {
        let mut steps = Steps::since(None);
        assert_eq!(steps.look(123_456, Some(1), 5), None);
        assert_eq!(steps.look(123_500, Some(2), 6), None);
        assert!(steps.look(0, Some(3), 7).unwrap().at_start);
    }

    proptest! {
        #[test]
        fn noise_never_adds_up_to_a_step(start in any::<i64>(), noise in proptest::collection::vec(-40i64..40, 0..200)) {
            let mut steps = Steps::since(Some(start));
            for (uptime, noise) in noise.into_iter().enumerate() {
                prop_assert_eq!(steps.look(start.saturating_add(noise), None, uptime as u64), None);
            }
        }

        #[test]
        fn any_step_is_found_and_any_distance_survived(start in any::<i64>(), to in any::<i64>()) {
            let step = Steps::since(Some(start)).look(to, None, 0);
            prop_assert_eq!(step.is_some(), to.saturating_sub(start).unsigned_abs() >= LEAST_MS);
        }
    }
}
