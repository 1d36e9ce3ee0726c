//! The kernel's clocks: its own discipline by adjtimex(2), the counter and the interrupts under it, the hardware clock. Reads
//! only; what it says is judged in `strongroom_model::clock`.

#![expect(
    unsafe_code,
    reason = "no crate that is here offers adjtimex(2); it is called in one place, on a value that outlives it"
)]

use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use strongroom_model::clock::kernel::{Discipline, Kernel, Routing};

/// Most that is read of one file: the first processor in `cpuinfo` fits many times, `interrupts` with 64 processors.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the kernel's files beneath `root` say; what cannot be read stays empty. `now` is the time by the system clock, Unix
/// seconds. The discipline is no file.
pub fn read_files(root: &Path, now: Option<u64>) -> Kernel {
    let clocksources = root.join("sys/devices/system/clocksource/clocksource0");
    let mut kernel = Kernel {
        clocksource: read(&clocksources.join("current_clocksource")).trim().into(),
        ..Kernel::default()
    };
    // What does not fit would be beyond any kernel of today.
    for name in read(&clocksources.join("available_clocksource")).split_ascii_whitespace() {
        let _ = kernel.available.push(name.into());
    }
    let cpuinfo = read(&root.join("proc/cpuinfo"));
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    kernel.steady_tsc = ["constant_tsc", "nonstop_tsc"]
        .iter()
        .all(|flag| flags.split(' ').any(|word| word == *flag));
    kernel.noapic = read(&root.join("proc/cmdline"))
        .split_ascii_whitespace()
        .any(|word| word == "noapic");
    interrupts(&read(&root.join("proc/interrupts")), &mut kernel);
    let hardware = read(&root.join("sys/class/rtc/rtc0/since_epoch")).trim().parse::<i64>();
    kernel.rtc_offset_s = hardware
        .ok()
        .zip(now)
        .and_then(|(hardware, now)| hardware.checked_sub(i64::try_from(now).ok()?));
    kernel
}

/// `/proc/interrupts`: a line for each interrupt with what routes it, and one with the IO-APIC's own faults
/// (arch/x86/kernel/irq.c).
fn interrupts(text: &str, kernel: &mut Kernel) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(label) = words.next().and_then(|label| label.strip_suffix(':')) else {
            continue;
        };
        if label == "MIS" {
            kernel.misrouted = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        } else if label.bytes().all(|byte| byte.is_ascii_digit()) {
            let routed = words.find_map(|word| match word {
                "IO-APIC" => Some(Routing::IoApic),
                "XT-PIC" => Some(Routing::Pic),
                _ => None,
            });
            // With the IO-APIC, some of the old controller's lines stay where they were.
            if kernel.routing != Routing::IoApic {
                kernel.routing = routed.unwrap_or(kernel.routing);
            }
        }
    }
}

/// The kernel's discipline of the clock; `None` when it may not be asked. Needs no right, since it changes nothing.
pub fn discipline() -> Option<Discipline> {
    // SAFETY: timex is plain data, for which zero is a value; its `modes` of zero only asks.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in what is ours and lives until after the call.
    let state = unsafe { libc::adjtimex(&raw mut asked) };
    (state >= 0).then(|| Discipline {
        synchronised: state != libc::TIME_ERROR && asked.status & libc::STA_UNSYNC == 0,
        max_error_us: u64::try_from(asked.maxerror).unwrap_or(0),
        tai_offset_s: asked.tai,
    })
}

/// How far the wall clock is from the time since the start, in milliseconds. Only setting the clock changes it.
pub fn distance_ms() -> i64 {
    let milliseconds = |id| {
        let time = clock_gettime(id);
        time.tv_sec
            .saturating_mul(1000)
            .saturating_add(time.tv_nsec / 1_000_000)
    };
    milliseconds(ClockId::Realtime).saturating_sub(milliseconds(ClockId::Boottime))
}

/// Seconds since the start; 0 when not known, so that nothing is judged too early.
pub fn uptime(root: &Path) -> u64 {
    read(&root.join("proc/uptime"))
        .split(['.', ' '])
        .next()
        .and_then(|whole| whole.parse().ok())
        .unwrap_or(0)
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use strongroom_model::status::Tsc;

    /// The interrupts of a PC with `noapic`, and of one without, cut short.
    const PIC: &str = "           CPU0       CPU1       \n  0:         46          0    XT-PIC      timer\n  9:          3          0    XT-PIC      acpi\nLOC:     12345      23456   Local timer interrupts\nERR:          0\nMIS:          0\n";
    const IO_APIC: &str = "           CPU0       \n  0:         46    IO-APIC    2-edge      timer\n  2:          0    XT-PIC      cascade\n 24:        900  PCI-MSI 65536-edge      nvme0q0\nERR:          0\nMIS:          7\n";

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let clocksources = root.path().join("sys/devices/system/clocksource/clocksource0");
        let rtc = root.path().join("sys/class/rtc/rtc0");
        let proc = root.path().join("proc");
        for folder in [&clocksources, &rtc, &proc] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(clocksources.join("current_clocksource"), "hpet\n").unwrap();
        fs::write(clocksources.join("available_clocksource"), "hpet acpi_pm \n").unwrap();
        fs::write(rtc.join("since_epoch"), "1699999990\n").unwrap();
        let cpuinfo = "model\t: x\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n";
        fs::write(proc.join("cpuinfo"), cpuinfo).unwrap();
        fs::write(proc.join("cmdline"), "quiet noapic raid0.default_layout=1\n").unwrap();
        fs::write(proc.join("interrupts"), PIC).unwrap();
        fs::write(proc.join("uptime"), "1234.56 999.00\n").unwrap();
        root
    }

    #[test]
    fn the_kernel_is_read_from_its_files() {
        let root = machine();
        let seen = read_files(root.path(), Some(1_700_000_000));
        assert_eq!(seen.clocksource.as_str(), "hpet");
        assert_eq!(seen.available.len(), 2);
        assert!(seen.steady_tsc && seen.noapic);
        assert_eq!((seen.routing, seen.misrouted), (Routing::Pic, 0));
        assert_eq!(seen.tsc(), Tsc::Demoted);
        assert_eq!(seen.rtc_offset_s, Some(-10));
        assert_eq!(uptime(root.path()), 1234);
        fs::write(root.path().join("proc/interrupts"), IO_APIC).unwrap();
        let seen = read_files(root.path(), None);
        assert_eq!((seen.routing, seen.misrouted), (Routing::IoApic, 7));
        assert_eq!(seen.rtc_offset_s, None);
    }

    #[test]
    fn missing_files_are_no_fault() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read_files(root.path(), Some(1)), Kernel::default());
        assert_eq!(uptime(root.path()), 0);
    }

    #[test]
    fn this_kernel_answers_and_nothing_steps_between_two_looks() {
        let told = discipline().unwrap();
        assert!((-100..1000).contains(&told.tai_offset_s), "{told:?}");
        assert!(distance_ms().abs_diff(distance_ms()) < 60_000);
    }
}
