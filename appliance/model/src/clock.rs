//! What the clock is worth: from what chronyd and the kernel say to a state, in words, with advice.
//!
//! Owns the decision only. The observation comes from the supervisor; nothing here reads a clock or a file. Values
//! follow chronyc(1), "tracking" and "sources", and the kernel's `sys/devices/system/clocksource`.

use crate::condition::{Condition, ConditionId, Severity};
use crate::status::{Clock, ClockState};
use crate::text::Text;
use heapless::Vec;

/// While the appliance has been up for less than this, a clock that is not synchronised yet is no warning.
pub const SETTLING_S: u64 = 300;
/// Largest sum of offset and error bound of a clock that counts as synchronised, in nanoseconds: 1 s. Signed requests
/// tolerate minutes, but a chronyd that is further off than this has lost its sources or is still catching up.
pub const TRUSTED_NS: u64 = 1_000_000_000;
/// Most conditions of [`decide`].
pub const CLOCK_CONDITIONS_MAX: usize = 2;
/// Most clock sources of the kernel that are looked at.
pub const CLOCKSOURCES_MAX: usize = 8;

/// The address part of chronyd's own clock (`local`), which is no source of time.
const LOCAL_REFERENCE: u32 = 0x7F7F_0101;

/// What chronyd says of its reference (`chronyc tracking`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// Identity of the reference: the IPv4 address, a hash of the IPv6 address, or four characters.
    pub reference: u32,
    /// Name or address of the source; empty when none.
    pub source: Text<64>,
    /// Stratum; 0 when not synchronised.
    pub stratum: u8,
    /// Whether the leap status is anything but "Not synchronised".
    pub synchronised: bool,
    /// Offset of the system clock from NTP time in nanoseconds; positive when it is ahead.
    pub offset_ns: i64,
    /// Frequency error in parts per billion; positive when the clock would run fast.
    pub frequency_ppb: i64,
    /// Delay of the path to the primary source, in nanoseconds.
    pub root_delay_ns: u64,
    /// Dispersion gathered over that path, in nanoseconds.
    pub root_dispersion_ns: u64,
}

/// What chronyd says of its sources (`chronyc sources -a`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Sources with an address.
    pub known: u8,
    /// Of these, those that answered at least one of the last eight requests.
    pub reachable: u8,
    /// Of these, those that chronyd holds for wrong ("falseticker").
    pub wrong: u8,
    /// Sources whose name has no address yet.
    pub unresolved: u8,
}

/// chronyd's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chrony {
    /// Its reference.
    pub tracking: Tracking,
    /// Its sources.
    pub sources: Sources,
}

/// What the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Clock source in use; empty when it could not be read.
    pub clocksource: Text<16>,
    /// Clock sources on offer. A `tsc` that was found unstable is no longer among them.
    pub available: Vec<Text<16>, CLOCKSOURCES_MAX>,
    /// Whether the processor's time stamp counter keeps one rate always (`constant_tsc` and `nonstop_tsc`).
    pub steady_tsc: bool,
    /// Whether the kernel was started with `noapic`.
    pub noapic: bool,
}

/// Why there is no answer from chronyd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The program that asks it cannot be run.
    #[error("`chronyc` cannot be run")]
    NoClient,
    /// It does not answer.
    #[error("chronyd does not answer")]
    NoAnswer,
    /// It answers, but not in the known form; holds what was not understood.
    #[error("chronyd's answer is not understood, at `{0}`")]
    Strange(Text<64>),
}

/// Everything that the decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// chronyd's answer, or why there is none.
    pub chrony: Result<Chrony, Silence>,
    /// What the kernel says.
    pub kernel: Kernel,
    /// Seconds since the appliance was started.
    pub uptime_s: u64,
}

/// Says what the clock is worth and what a person should know of it.
pub fn decide(seen: &Observation) -> (Clock, Vec<Condition, CLOCK_CONDITIONS_MAX>) {
    let mut clock = Clock {
        clocksource: seen.kernel.clocksource.clone(),
        ..Clock::default()
    };
    let mut conditions = Vec::new();
    let standing = match &seen.chrony {
        Err(why) => silent(why, seen.uptime_s),
        Ok(chrony) => {
            describe(&mut clock, chrony);
            if clock.state == ClockState::Synchronised {
                coasting(&clock)
            } else {
                Some(unsynchronised(&clock, chrony, seen.uptime_s))
            }
        }
    };
    // Two conditions at most, and room for two.
    for condition in standing.into_iter().chain(demoted(&seen.kernel)) {
        let _ = conditions.push(condition);
    }
    (clock, conditions)
}

fn describe(clock: &mut Clock, chrony: &Chrony) {
    let tracking = &chrony.tracking;
    clock.offset_ns = tracking.offset_ns;
    // Root distance without the offset, as chronyc(1) bounds the error.
    clock.error_ns = tracking.root_dispersion_ns.saturating_add(tracking.root_delay_ns / 2);
    clock.frequency_ppb = tracking.frequency_ppb;
    clock.reachable = chrony.sources.reachable;
    clock.sources = chrony.sources.known;
    let followed = tracking.synchronised && tracking.reference != LOCAL_REFERENCE && tracking.stratum > 0;
    if followed {
        clock.stratum = tracking.stratum;
        clock.source = tracking.source.clone();
    }
    clock.state = if followed && total_error(clock) <= TRUSTED_NS {
        ClockState::Synchronised
    } else {
        ClockState::Unsynchronised
    };
}

fn total_error(clock: &Clock) -> u64 {
    clock.offset_ns.unsigned_abs().saturating_add(clock.error_ns)
}

fn silent(why: &Silence, uptime_s: u64) -> Option<Condition> {
    // chronyd starts after this duty may have asked for the first time.
    (uptime_s >= SETTLING_S).then(|| {
        condition(
            ConditionId::ClockUnknown,
            Severity::Warning,
            Text::format(format_args!("The clock's state is not known: {why}.")),
            "Look at `systemctl status chrony` and `journalctl -u chrony`; a restart of the appliance starts it anew.",
        )
    })
}

fn coasting(clock: &Clock) -> Option<Condition> {
    (clock.reachable == 0).then(|| {
        condition(
            ConditionId::ClockUnsynchronised,
            Severity::Info,
            Text::format(format_args!(
                "No time source has answered lately; the clock still keeps time within {} ms.",
                total_error(clock).div_ceil(1_000_000)
            )),
            "Check the network's way to the time servers (UDP port 123). Nothing is at risk yet.",
        )
    })
}

fn unsynchronised(clock: &Clock, chrony: &Chrony, uptime_s: u64) -> Condition {
    let sources = &chrony.sources;
    let followed = clock.stratum > 0;
    let (text, advice): (Text<280>, &str) = if followed {
        (
            Text::format(format_args!(
                "The clock may be off by {}.{} s and is being corrected slowly.",
                total_error(clock) / 1_000_000_000,
                total_error(clock) / 100_000_000 % 10
            )),
            "Restart the appliance: at the start the clock is set at once. If this returns, its battery or the time \
             sources need a look.",
        )
    } else if sources.known == 0 && sources.unresolved > 0 {
        (
            "The clock is not synchronised: the names of the time servers cannot be resolved.".into(),
            "Check the name server given by DHCP or `[network]`, or put an IP address into `[clock] servers`.",
        )
    } else if sources.known == 0 {
        (
            "The clock is not synchronised: no time server is known.".into(),
            "Put one or more servers into `[clock] servers`, or have DHCP announce one.",
        )
    } else if sources.reachable == 0 {
        (
            Text::format(format_args!(
                "The clock is not synchronised: none of {} time sources answers.",
                sources.known
            )),
            "Check the network cable, the router, and that UDP port 123 to the internet is open; or put a server on \
             your network into `[clock] servers`.",
        )
    } else if sources.wrong > 0 && sources.wrong >= sources.reachable {
        (
            "The clock is not synchronised: the time sources contradict each other.".into(),
            "Put three or more servers into `[clock] servers`, so that the wrong one can be told from the others.",
        )
    } else {
        (
            Text::format(format_args!(
                "The clock is not synchronised yet: {} of {} time sources answer and none has been chosen.",
                sources.reachable, sources.known
            )),
            "This settles by itself within minutes. If it stays, look at `chronyc sources`.",
        )
    };
    let severity = if uptime_s < SETTLING_S {
        Severity::Info
    } else {
        Severity::Warning
    };
    condition(ConditionId::ClockUnsynchronised, severity, text, advice)
}

/// How far a clock source is below a steady TSC.
fn severity_of(clocksource: &str) -> Option<Severity> {
    match clocksource {
        // Ticks: milliseconds at best, and slow to read. Never right.
        "jiffies" | "refined-jiffies" | "pit" => Some(Severity::Warning),
        // 3.6 MHz, 24 bits, microseconds to read.
        "acpi_pm" => Some(Severity::Warning),
        "hpet" => Some(Severity::Info),
        _ => None,
    }
}

fn demoted(kernel: &Kernel) -> Option<Condition> {
    let now = kernel.clocksource.as_str();
    let severity = severity_of(now)?;
    let better = kernel.steady_tsc || kernel.available.iter().any(|name| name.as_str() == "tsc");
    let ticks = !matches!(now, "acpi_pm" | "hpet");
    if !better && !ticks {
        // An old or emulated processor has nothing better; no advice would help.
        return None;
    }
    let text = if better {
        Text::format(format_args!(
            "The kernel keeps time by `{now}`, though the processor has a better counter (`tsc`)."
        ))
    } else {
        Text::format(format_args!("The kernel keeps time by `{now}`, which is coarse."))
    };
    let advice = if kernel.noapic {
        "`journalctl -k -g clocksource` says why. `noapic` is set: try the boot menu's entry without it, and look for \
         newer firmware of the board."
    } else {
        "`journalctl -k -g clocksource` says why. Start with the boot menu's first entry, which sets `noapic`: on some \
         boards it keeps the better counter."
    };
    Some(condition(ConditionId::ClockSourceDemoted, severity, text, advice))
}

fn condition(id: ConditionId, severity: Severity, text: Text<280>, advice: &str) -> Condition {
    Condition::new(id, severity, "", &text, advice)
}

#[cfg(test)]
mod tests;
