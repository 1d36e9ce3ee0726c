//! By how much the clock's rate changes within a day: the sign of a quartz that gets warm and cold, of interrupts that get
//! lost, or of a counter that doesn't keep one rate.

use heapless::Deque;

/// Samples kept: one each hour for a day.
const SAMPLES: usize = 24;
/// Between two samples, in seconds.
const PERIOD_S: u64 = 3600;
/// Samples before anything is said: the first of them come from a clock that still finds its rate.
const ENOUGH: usize = 3;

/// The rates of the last day.
#[derive(Clone, Debug, Default)]
pub struct Wander {
    samples: Deque<i64, SAMPLES>,
    next_s: u64,
}

impl Wander {
    /// Takes in the rate that a synchronised clock has now, in parts per billion. `uptime_s` is seconds since the start.
    pub fn note(&mut self, uptime_s: u64, frequency_ppb: i64) {
        // The first hour has it settle.
        if uptime_s < self.next_s.max(PERIOD_S) {
            return;
        }
        self.next_s = uptime_s.saturating_add(PERIOD_S);
        if self.samples.is_full() {
            self.samples.pop_front();
        }
        // There is room: made above.
        let _ = self.samples.push_back(frequency_ppb);
    }

    /// How far apart the rates of the last day were, in parts per billion; `None` while there are too few.
    pub fn spread_ppb(&self) -> Option<u64> {
        if self.samples.len() < ENOUGH {
            return None;
        }
        let least = self.samples.iter().min()?;
        self.samples.iter().max().map(|most| most.abs_diff(*least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_is_remembered_and_no_more() {
        let mut wander = Wander::default();
        wander.note(60, 900_000);
        for hour in 1..=3 {
            assert_eq!(wander.spread_ppb(), None);
            wander.note(hour * 3600, 1000 * hour as i64);
            wander.note(hour * 3600 + 16, -70_000);
        }
        assert_eq!(wander.spread_ppb(), Some(2000));
        for hour in 4..=27 {
            wander.note(hour * 3600, 3000);
        }
        assert_eq!(wander.spread_ppb(), Some(0));
    }

    proptest! {
        #[test]
        fn the_spread_holds_whatever_comes(rates in proptest::collection::vec((0u64..1 << 40, any::<i64>()), 0..60)) {
            let mut wander = Wander::default();
            for (uptime_s, rate) in rates {
                wander.note(uptime_s, rate);
                prop_assert!(wander.samples.len() <= SAMPLES);
                let _ = wander.spread_ppb();
            }
        }
    }
}
