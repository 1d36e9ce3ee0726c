//! What the clock is worth: from what chronyd and the kernel say to a state, in words, with advice.
//!
//! Owns the decision only. The observation comes from the supervisor; nothing here reads a clock or a file. Values
//! follow chronyc(1), "tracking" and "sources".

pub mod coast;
pub mod evidence;
pub mod kernel;
pub mod steps;
pub mod wander;

use crate::condition::{Condition, ConditionId, Severity};
use crate::status::{Clock, ClockState, ClockStep, Leap, TIME_SOURCES_MAX, TimeSource, TimeSourceState};
use crate::text::Text;
use coast::Coast;
use heapless::Vec;
use kernel::Kernel;

/// While the appliance has been up for less than this, a clock that is not synchronised yet is no warning.
pub const SETTLING_S: u64 = 300;
/// Largest sum of offset and error bound of a clock that counts as synchronised, in nanoseconds: 1 s. Signed requests
/// tolerate minutes, but a chronyd that is further off than this has lost its sources or is still catching up.
pub const TRUSTED_NS: u64 = 1_000_000_000;
/// Most conditions of [`decide`].
pub const CLOCK_CONDITIONS_MAX: usize = 6;
/// Most clock sources of the kernel that are looked at.
pub const CLOCKSOURCES_MAX: usize = 8;
/// The time until which a clock is trusted is told to the minute, so that it doesn't change at each look.
const MINUTE_S: u64 = 60;

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
    /// The leap second that is announced.
    pub leap: Leap,
    /// Seconds since the last update.
    pub since_update_s: u64,
    /// Offset of the system clock from NTP time in nanoseconds; positive when it is ahead.
    pub offset_ns: i64,
    /// Frequency error in parts per billion; positive when the clock would run fast.
    pub frequency_ppb: i64,
    /// How far the last source's frequency was from that, in parts per billion.
    pub residual_ppb: i64,
    /// Error bound of the frequency, in parts per billion.
    pub skew_ppb: u64,
    /// Delay of the path to the primary source, in nanoseconds.
    pub root_delay_ns: u64,
    /// Dispersion gathered over that path and since, in nanoseconds.
    pub root_dispersion_ns: u64,
}

impl Tracking {
    /// Root distance without the offset, in nanoseconds, as chronyc(1) bounds the error.
    pub fn distance_ns(&self) -> u64 {
        self.root_dispersion_ns.saturating_add(self.root_delay_ns / 2)
    }
}

/// What chronyd says of its sources as a whole.
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
    /// Whether one is followed that answered lately. chronyd keeps one that is silent.
    pub followed: bool,
}

impl Sources {
    /// Counts one in.
    pub fn count(&mut self, source: &TimeSource) {
        let reachable = source.reach != 0;
        self.known = self.known.saturating_add(1);
        self.reachable = self.reachable.saturating_add(u8::from(reachable));
        self.wrong = self
            .wrong
            .saturating_add(u8::from(source.state == TimeSourceState::Wrong));
        self.followed |= reachable && source.state == TimeSourceState::Followed;
    }
}

/// chronyd's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chrony {
    /// Its reference.
    pub tracking: Tracking,
    /// Its sources as a whole.
    pub sources: Sources,
    /// The first of its sources, one by one.
    pub servers: Vec<TimeSource, TIME_SOURCES_MAX>,
}

/// Why there is no answer from chronyd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It does not answer.
    #[error("chronyd does not answer")]
    NoAnswer,
    /// It answers, but not in the known form; holds what was not understood.
    #[error("chronyd's answer is not understood: {0}")]
    Strange(Text<64>),
}

/// Everything that the decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// chronyd's answer, or why there is none.
    pub chrony: Result<Chrony, Silence>,
    /// What the kernel says.
    pub kernel: Kernel,
    /// The last time the clock was set.
    pub step: Option<ClockStep>,
    /// By how much its rate changed within a day, in parts per billion, if that is known.
    pub wander_ppb: Option<u64>,
    /// Seconds since the appliance was started.
    pub uptime_s: u64,
    /// The time by the clock itself, Unix seconds.
    pub now: Option<u64>,
}

/// Says what the clock is worth and what a person should know of it.
pub fn decide(seen: &Observation) -> (Clock, Vec<Condition, CLOCK_CONDITIONS_MAX>) {
    let kernel = &seen.kernel;
    let mut clock = Clock {
        last_step: seen.step,
        wander_ppb: seen.wander_ppb,
        rtc_offset_s: kernel.rtc_offset_s,
        kernel_synchronised: kernel.discipline.map(|discipline| discipline.synchronised),
        tai_offset_s: kernel
            .discipline
            .map(|discipline| discipline.tai_offset_s)
            .filter(|offset| *offset != 0),
        clocksource: kernel.clocksource.clone(),
        tsc: kernel.tsc(),
        tsc_fault: kernel.tsc_fault.clone(),
        noapic: kernel.noapic,
        ..Clock::default()
    };
    let standing = match &seen.chrony {
        Err(why) => {
            by_kernel(&mut clock, seen);
            silent(why, &clock, seen.uptime_s)
        }
        Ok(chrony) => {
            describe(&mut clock, chrony, seen);
            match clock.state {
                ClockState::Synchronised => contradicted(chrony),
                ClockState::Coasting => Some(coasting(&clock, chrony, seen.now)),
                ClockState::Unknown | ClockState::Unsynchronised => Some(unsynchronised(&clock, chrony, seen.uptime_s)),
            }
        }
    };
    let of_kernel = [
        kernel::demoted(kernel),
        kernel::interrupts(kernel),
        kernel::unsteady(&clock, kernel),
        kernel::hardware(&clock, kernel, seen.step, seen.uptime_s),
    ];
    let mut conditions = Vec::new();
    // Five at most, and room for six.
    for condition in standing.into_iter().chain(of_kernel.into_iter().flatten()) {
        let _ = conditions.push(condition);
    }
    (clock, conditions)
}

fn describe(clock: &mut Clock, chrony: &Chrony, seen: &Observation) {
    let (tracking, sources) = (&chrony.tracking, &chrony.sources);
    clock.offset_ns = tracking.offset_ns;
    clock.error_ns = tracking.distance_ns();
    clock.frequency_ppb = tracking.frequency_ppb;
    clock.reachable = sources.reachable;
    clock.sources = sources.known;
    clock.servers = chrony.servers.clone();
    clock.state = ClockState::Unsynchronised;
    let of_a_source = tracking.synchronised && tracking.reference != LOCAL_REFERENCE && tracking.stratum > 0;
    if !of_a_source {
        return;
    }
    clock.stratum = tracking.stratum;
    clock.source = tracking.source.clone();
    clock.leap = tracking.leap;
    clock.skew_ppb = Some(tracking.skew_ppb);
    if sources.followed {
        if clock.total_error_ns() <= TRUSTED_NS {
            clock.state = ClockState::Synchronised;
        }
        return;
    }
    // What is known to be off has to be corrected first; what may be off is bounded.
    if tracking.offset_ns.unsigned_abs() <= TRUSTED_NS {
        coast_along(clock, coast::since_update(tracking, seen.wander_ppb), seen.now);
    }
}

/// chronyd is silent: it was killed, or is being started again. The kernel goes on as it was told, and keeps a bound.
fn by_kernel(clock: &mut Clock, seen: &Observation) {
    let told = seen.kernel.discipline.filter(|discipline| discipline.synchronised);
    if let Some(discipline) = told {
        coast_along(clock, coast::by_kernel(discipline.max_error_us), seen.now);
    }
}

fn coast_along(clock: &mut Clock, coast: Coast, now: Option<u64>) {
    clock.error_ns = coast.error_ns;
    if coast.left_s > 0 {
        clock.state = ClockState::Coasting;
        clock.trusted_until = now.map(|now| now.saturating_add(coast.left_s) / MINUTE_S * MINUTE_S);
    }
}

fn silent(why: &Silence, clock: &Clock, uptime_s: u64) -> Option<Condition> {
    // chronyd starts after this duty may have asked for the first time.
    let text = if clock.state == ClockState::Coasting {
        Text::format(format_args!(
            "The clock's state is not known: {why}. By the kernel's reckoning it is right within {} ms still.",
            clock.error_ns.div_ceil(1_000_000)
        ))
    } else {
        Text::format(format_args!("The clock's state is not known: {why}."))
    };
    (uptime_s >= SETTLING_S).then(|| {
        condition(
            ConditionId::ClockUnknown,
            Severity::Warning,
            text,
            "Look at `systemctl status chrony` and `journalctl -u chrony`; a restart of the appliance starts it anew.",
        )
    })
}

fn contradicted(chrony: &Chrony) -> Option<Condition> {
    if chrony.sources.wrong == 0 {
        return None;
    }
    let wrong = chrony
        .servers
        .iter()
        .find(|source| source.state == TimeSourceState::Wrong);
    let (name, off_ms) = wrong.map_or(("one of them", 0), |source| {
        // By as much as the clock is ahead of it, it is behind.
        (source.name.as_str(), -(source.offset_ns / 1_000_000))
    });
    let way = if off_ms < 0 { "behind" } else { "ahead" };
    Some(condition(
        ConditionId::TimeSourceWrong,
        Severity::Info,
        Text::format(format_args!(
            "{} of {} time sources contradict the others and are not followed: {name} is {} ms {way}.",
            chrony.sources.wrong,
            chrony.sources.known,
            off_ms.unsigned_abs()
        )),
        "Nothing needs to be done while the others agree. If it stays, take it out of `[clock]`, or out of what DHCP gives \
         (`dhcp = false`).",
    ))
}

fn coasting(clock: &Clock, chrony: &Chrony, now: Option<u64>) -> Condition {
    let left_s = clock
        .trusted_until
        .zip(now)
        .map_or(0, |(until, now)| until.saturating_sub(now));
    let (why, advice) = unfollowed(&chrony.sources);
    let (left, unit) = if left_s >= 2 * 86_400 {
        (left_s / 86_400, "days")
    } else {
        (left_s / 3600, "hours")
    };
    condition(
        ConditionId::ClockUnsynchronised,
        Severity::Info,
        Text::format(format_args!(
            "The clock follows no time source now: {why}. It is right within {} ms still, and can be trusted for {left} {unit} more.",
            clock.total_error_ns().div_ceil(1_000_000)
        )),
        advice,
    )
}

fn unsynchronised(clock: &Clock, chrony: &Chrony, uptime_s: u64) -> Condition {
    let sources = &chrony.sources;
    let (text, advice): (Text<512>, &str) = if sources.followed && clock.stratum > 0 {
        (
            Text::format(format_args!(
                "The clock may be off by {}.{} s and is being corrected slowly.",
                clock.total_error_ns() / 1_000_000_000,
                clock.total_error_ns() / 100_000_000 % 10
            )),
            "Restart the appliance: at the start the clock is set at once. If this returns, its battery or the time \
             sources need a look.",
        )
    } else {
        let (why, advice) = unfollowed(sources);
        (
            Text::format(format_args!("The clock is not synchronised: {why}.")),
            advice,
        )
    };
    let severity = if uptime_s < SETTLING_S {
        Severity::Info
    } else {
        Severity::Warning
    };
    condition(ConditionId::ClockUnsynchronised, severity, text, advice)
}

/// Why no source is followed, and what to do about it.
fn unfollowed(sources: &Sources) -> (Text<128>, &'static str) {
    if sources.known == 0 && sources.unresolved > 0 {
        (
            "the names of the time servers cannot be resolved".into(),
            "Check the name server given by DHCP or `[network]`, or put an IP address into `[clock] servers`.",
        )
    } else if sources.known == 0 {
        (
            "no time server is known".into(),
            "Put one or more servers into `[clock] servers`, or have DHCP announce one.",
        )
    } else if sources.reachable == 0 {
        (
            Text::format(format_args!("none of {} time sources answers", sources.known)),
            "Check the network cable, the router, and that UDP port 123 to the internet is open; or put a server on \
             your network into `[clock] servers`.",
        )
    } else if sources.wrong > 0 && sources.wrong >= sources.reachable {
        (
            "the time sources contradict each other".into(),
            "Put three or more servers into `[clock] servers`, so that the wrong one can be told from the others.",
        )
    } else {
        (
            Text::format(format_args!(
                "{} of {} time sources answer and none has been chosen",
                sources.reachable, sources.known
            )),
            "This settles by itself within minutes. If it stays, look at `strongroom clock`.",
        )
    }
}

fn condition(id: ConditionId, severity: Severity, text: Text<512>, advice: &str) -> Condition {
    Condition::new(id, severity, "", &text, advice)
}

#[cfg(test)]
mod tests;
