//! What the kernel says of the clocks under the system's clock: its counter, its interrupts, the hardware clock; and which
//! entry of the boot menu may serve the board better.
//!
//! Sources: the kernel's `sys/devices/system/clocksource`, `/proc/interrupts`, adjtimex(2), `sys/class/rtc`.

use super::{CLOCKSOURCES_MAX, condition};
use crate::condition::{Condition, ConditionId, Severity};
use crate::status::{Clock, ClockState, ClockStep, Tsc};
use crate::text::Text;
use heapless::Vec;

/// A rate further off than this, in parts per billion, is none of a quartz: 200 ppm. Interrupts get lost, or the kernel
/// measured the counter wrongly.
const QUARTZ_PPB: u64 = 200_000;
/// A rate that changes more than this within a day, in parts per billion, neither: 50 ppm.
const STEADY_PPB: u64 = 50_000;
/// A hardware clock that was this far off at the start, in milliseconds, has lost its time rather than drifted: a day.
const LOST_MS: u64 = 86_400_000;
/// Seconds that the hardware clock may be off while the kernel sets it every eleven minutes; it tells whole seconds.
const RTC_S: u64 = 2;
/// By when the kernel has set it, in seconds since the start.
const RTC_SET_S: u64 = 1800;

/// What routes the timer's and the devices' interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Not known.
    #[default]
    Unknown,
    /// The old controller (`XT-PIC`), as with `noapic`.
    Pic,
    /// The newer one (`IO-APIC`).
    IoApic,
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
    /// Why the kernel found it unstable, if its log says so.
    pub tsc_fault: Text<64>,
    /// Whether the kernel was started with `noapic`.
    pub noapic: bool,
    /// What routes interrupts.
    pub routing: Routing,
    /// Interrupts that the IO-APIC delivered in the wrong way (`MIS` of `/proc/interrupts`).
    pub misrouted: u64,
    /// An interrupt that nobody took, so that the kernel turned it off, if its log says so.
    pub ignored_interrupt: Option<u32>,
    /// Whether the kernel's log says that the board's timer isn't connected as it should be.
    pub timer_astray: bool,
    /// The kernel's own discipline of the clock; none when it can't be asked.
    pub discipline: Option<Discipline>,
    /// Offset of the hardware clock from the system clock in seconds; positive when it is ahead.
    pub rtc_offset_s: Option<i64>,
}

/// What adjtimex(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discipline {
    /// Whether `STA_UNSYNC` is clear.
    pub synchronised: bool,
    /// Largest error in microseconds, as the kernel reckons it.
    pub max_error_us: u64,
    /// Seconds between atomic time and UTC; 0 when nobody told it.
    pub tai_offset_s: i32,
}

impl Kernel {
    /// What became of the processor's counter.
    pub fn tsc(&self) -> Tsc {
        let offered = self.available.iter().any(|name| name.as_str() == "tsc");
        match self.clocksource.as_str() {
            "" => Tsc::Absent,
            "tsc" => Tsc::Used,
            _ if offered => Tsc::Spare,
            // A virtual machine's own clock stands in for it there, and one that stops when the processor sleeps is no loss.
            "kvm-clock" | "hyperv_clocksource_tsc_page" | "xen" => Tsc::Absent,
            _ if self.steady_tsc => Tsc::Demoted,
            _ => Tsc::Absent,
        }
    }

    /// How to try the other way of routing interrupts.
    fn other_entry(&self) -> &'static str {
        if self.noapic {
            "restart and choose the boot menu's second entry, `Strongroom with the IO-APIC`, which leaves `noapic` out. If it is \
             gone then, look for newer firmware of the board"
        } else {
            "restart and let the boot menu's first entry start, which sets `noapic`: on some boards that keeps the counter and the \
             interrupts in order"
        }
    }
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

/// The kernel does not use the clock source that it should.
pub(super) fn demoted(kernel: &Kernel) -> Option<Condition> {
    let now = kernel.clocksource.as_str();
    let severity = severity_of(now)?;
    let tsc = kernel.tsc();
    let ticks = !matches!(now, "acpi_pm" | "hpet");
    if tsc == Tsc::Absent && !ticks {
        // An old or emulated processor has nothing better; no advice would help.
        return None;
    }
    let text = match (tsc, kernel.tsc_fault.as_str()) {
        (Tsc::Absent, _) => Text::format(format_args!("The kernel keeps time by `{now}`, which is coarse.")),
        (_, "") => Text::format(format_args!(
            "The kernel keeps time by `{now}`, though the processor has a better counter (`tsc`)."
        )),
        (_, why) => Text::format(format_args!(
            "The kernel keeps time by `{now}`, since it found the processor's counter (`tsc`) unstable: {why}."
        )),
    };
    let advice = Text::<280>::format(format_args!(
        "`journalctl -k -g clocksource` tells more. To try the other way: {}.",
        kernel.other_entry()
    ));
    Some(condition(ConditionId::ClockSourceDemoted, severity, text, &advice))
}

/// Interrupts get lost or go astray.
pub(super) fn interrupts(kernel: &Kernel) -> Option<Condition> {
    let text = if let Some(number) = kernel.ignored_interrupt {
        Text::format(format_args!(
            "Interrupt {number} came and nobody took it, so the kernel turned it off: the devices on it are slow or stand still."
        ))
    } else if kernel.timer_astray {
        "The board's timer is not connected as its firmware says (`MP-BIOS bug`); the kernel found a way around.".into()
    } else if kernel.routing == Routing::IoApic && kernel.misrouted > 0 {
        Text::format(format_args!(
            "The IO-APIC delivered {} interrupts in the wrong way since the start.",
            kernel.misrouted
        ))
    } else {
        return None;
    };
    let severity = if kernel.ignored_interrupt.is_some() {
        Severity::Warning
    } else {
        Severity::Info
    };
    let advice = Text::<280>::format(format_args!("To try the other way: {}.", kernel.other_entry()));
    Some(condition(ConditionId::InterruptsLost, severity, text, &advice))
}

/// A rate that is none of a quartz.
pub(super) fn unsteady(clock: &Clock, kernel: &Kernel) -> Option<Condition> {
    // Without it the rate is still being found.
    let wander = clock.wander_ppb?;
    if !clock.state.is_trusted() {
        // Something worse is told.
        return None;
    }
    let text = if clock.frequency_ppb.unsigned_abs() > QUARTZ_PPB {
        let way = if clock.frequency_ppb > 0 { "fast" } else { "slow" };
        Text::format(format_args!(
            "By itself the clock would run {} ppm {way}, more than any quartz; it is corrected all the time.",
            clock.frequency_ppb.unsigned_abs() / 1000
        ))
    } else if wander <= STEADY_PPB {
        return None;
    } else {
        Text::format(format_args!(
            "The clock's rate changed by {} ppm within a day, more than any quartz; it is corrected all the time.",
            wander / 1000
        ))
    };
    let advice = Text::<280>::format(format_args!(
        "Interrupts may get lost, or the counter be measured wrongly. To try the other way: {}.",
        kernel.other_entry()
    ));
    Some(condition(ConditionId::ClockUnsteady, Severity::Info, text, &advice))
}

/// A hardware clock that forgets, or doesn't keep what it is told.
pub(super) fn hardware(clock: &Clock, kernel: &Kernel, step: Option<ClockStep>, uptime_s: u64) -> Option<Condition> {
    const BATTERY: &str = "Nothing is at risk while time sources answer. Replace the board's battery (mostly a CR2032) when convenient: \
         without it, each start begins with a wrong date.";
    let id = ConditionId::HardwareClockWrong;
    let wrong = step.filter(|step| step.at_start && step.by_ms.unsigned_abs() >= LOST_MS);
    if let Some(step) = wrong {
        let way = if step.by_ms > 0 { "behind" } else { "ahead" };
        let days = step.by_ms.unsigned_abs() / 86_400_000;
        let text = Text::format(format_args!(
            "The hardware clock was {days} d {way} at the start; the clock was set right by the time sources."
        ));
        return Some(condition(id, Severity::Info, text, BATTERY));
    }
    let told = kernel.discipline.is_some_and(|discipline| discipline.synchronised);
    let settled = clock.state == ClockState::Synchronised && told && uptime_s >= RTC_SET_S;
    let off = kernel
        .rtc_offset_s
        .filter(|off| settled && off.unsigned_abs() > RTC_S)?;
    let way = if off > 0 { "ahead" } else { "behind" };
    let text = Text::format(format_args!(
        "The hardware clock is {} s {way}, though the kernel sets it every eleven minutes.",
        off.unsigned_abs()
    ));
    Some(condition(id, Severity::Info, text, BATTERY))
}
