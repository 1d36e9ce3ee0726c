//! What the kernel's log says of its counter and of interrupts: one message in, evidence out. Pure.
//!
//! The forms are those of Linux 5.10 to 6.12 (arch/x86/kernel/tsc.c, arch/x86/kernel/apic/io_apic.c, kernel/time/clocksource.c,
//! kernel/irq/spurious.c). Only messages of the kernel itself may come here: anybody can write such words into the journal.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Longest reason that is kept, in bytes.
const REASON_MAX: usize = 60;

/// What was found since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Why the processor's counter was found unstable; empty when it wasn't.
    pub tsc_fault: String,
    /// The last interrupt that nobody took.
    pub ignored_interrupt: Option<u32>,
    /// Whether the board's timer is not connected as its firmware says.
    pub timer_astray: bool,
}

impl Evidence {
    /// Takes in one message, without its prefix of priority and time. Returns whether it said anything of this.
    pub fn take_in(&mut self, message: &str) -> bool {
        if let Some(why) = tsc(message) {
            // The first reason is the cause; what follows repeats it.
            if self.tsc_fault.is_empty() {
                self.tsc_fault = why.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
            }
        } else if let Some(number) = ignored(message) {
            self.ignored_interrupt = Some(number);
        } else if message.contains("MP-BIOS bug: 8254 timer not connected to IO-APIC") {
            self.timer_astray = true;
        } else {
            return false;
        }
        true
    }
}

/// `tsc: Marking TSC unstable due to check_tsc_sync_source failed`, `clocksource: timekeeping watchdog on CPU0: Marking
/// clocksource 'tsc' as unstable because the skew is too large:`.
fn tsc(message: &str) -> Option<&str> {
    if let Some(why) = message.strip_prefix("tsc: Marking TSC unstable due to ") {
        return Some(why);
    }
    let watchdog = message.strip_prefix("clocksource: timekeeping watchdog on CPU")?;
    let (_, why) = watchdog.split_once("Marking clocksource 'tsc' as unstable because ")?;
    Some(why.trim_end_matches(':'))
}

/// `irq 16: nobody cared (try booting with the "irqpoll" option)`.
fn ignored(message: &str) -> Option<u32> {
    let (number, rest) = message.strip_prefix("irq ")?.split_once(": ")?;
    rest.starts_with("nobody cared").then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_is_read() {
        let mut evidence = Evidence::default();
        for message in [
            "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:",
            "tsc: Marking TSC unstable due to clocksource watchdog",
            "irq 16: nobody cared (try booting with the \"irqpoll\" option)",
            "APIC: ..MP-BIOS bug: 8254 timer not connected to IO-APIC",
        ] {
            assert!(evidence.take_in(message), "{message}");
        }
        let wanted = Evidence {
            tsc_fault: "the skew is too large".into(),
            ignored_interrupt: Some(16),
            timer_astray: true,
        };
        assert_eq!(evidence, wanted);
    }

    #[test]
    fn what_is_ordinary_is_none() {
        let mut evidence = Evidence::default();
        for message in [
            "tsc: Detected 2592.000 MHz processor",
            "tsc: Refined TSC clocksource calibration: 2592.000 MHz",
            "clocksource: Switched to clocksource tsc",
            "clocksource: timekeeping watchdog on CPU2: Marking clocksource 'tsc-early' as unstable because the skew is too large:",
            "irq 16: Affinity broken due to vector space exhaustion.",
            "irq x: nobody cared",
            "",
        ] {
            assert!(!evidence.take_in(message), "{message}");
        }
        assert_eq!(evidence, Evidence::default());
    }

    proptest! {
        #[test]
        fn anything_is_survived_and_bounded(message in "(tsc: Marking TSC unstable due to |irq )?.{0,300}") {
            let mut evidence = Evidence::default();
            evidence.take_in(&message);
            prop_assert!(evidence.tsc_fault.chars().count() <= REASON_MAX);
        }
    }
}
