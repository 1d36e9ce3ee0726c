//! `cargo image figures`: measures what docs/figures.md states, and writes it there.
//!
//! Starts are compared within one run, since emulation on a busy machine varies: the same image on the same disks starts
//! in turn into a bare multi-user.target and into its own. Both tell the kernel's uptime when they are there, so neither
//! firmware nor GRUB counts. The units that tell come from outside, as systemd credentials (systemd.io/CREDENTIALS).
//! With `--base buildroot` the image on Debian's packages is measured in the same run, and stands beside it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::dependencies::{self, Need};
use crate::error::{Error, OnFile, Result};
use crate::fingerprint;
use crate::loopback::StoreOptions;
use crate::pack;
use crate::progress;
use crate::qemu::{Firmware, Machine};
use crate::ssh::{self, Login};
use crate::trial::Trial;
use crate::workspace::{Foundation, Workspace};
use crate::{bmap::Bmap, build, confinement, process};

/// How to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether missing packages may be installed on this machine.
    pub install: bool,
    /// Pairs of starts with each firmware.
    pub pairs: u32,
    /// Measure the image that is there instead of building it; no stage is timed.
    pub built: bool,
    /// MiB of each backup by which the cost of confinement is measured; 0 leaves that out.
    pub backup: u64,
}

const START: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(180);
/// How long a machine is left alone before its memory is looked at, or its power button pressed.
const SETTLE: Duration = Duration::from_secs(30);
const MARK: &str = "STRONGROOM-REACHED ";

/// What systemd itself puts into multi-user.target, and nothing else: the measure for our own start.
const BARE: &str = "[Unit]
Description=A bare multi-user.target
Requires=basic.target
Wants=dbus.service systemd-logind.service systemd-user-sessions.service systemd-ask-password-wall.path getty.target
After=basic.target dbus.service systemd-logind.service systemd-user-sessions.service getty.target
Wants=reached.service
AllowIsolate=yes
";
/// Tells the kernel's uptime on the console, as an alert: sysctl keeps whatever is less from the screen.
const REACHED: &str = "[Unit]
DefaultDependencies=no
After=%AFTER%
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'read -r up rest </proc/uptime; echo \"<1>STRONGROOM-REACHED $up.\" >/dev/kmsg'
";

/// One start.
struct Start {
    /// Since the firmware began, as this machine saw it.
    power_on: f64,
    /// Since the kernel began, as the kernel says.
    kernel: f64,
}

/// What was measured, and its figure.
type Rows = Vec<(String, String)>;

/// Measures, and writes docs/figures.md.
///
/// # Errors
/// When an image can't be built, or a machine does not do its part.
pub fn figures(workspace: &Workspace, options: &Options) -> Result<()> {
    dependencies::ensure(workspace, &[Need::Build, Need::Run, Need::Test], options.install)?;
    if workspace.foundation == Foundation::Debian {
        let (mut rows, details) = image(workspace, options, true)?;
        if options.backup > 0 {
            confinement::measure(workspace, options.backup, options.pairs, &mut |what, figure| {
                row(&mut rows, what, figure);
            })?;
        }
        return write(workspace, &table(&["figure"], &[rows]), &details);
    }
    let beside = Workspace {
        foundation: Foundation::Debian,
        ..workspace.clone()
    };
    let (rows, details) = image(workspace, options, false)?;
    let (other, _) = image(&beside, options, false)?;
    write(workspace, &table(&["Buildroot", "Debian"], &[rows, other]), &details)
}

/// Measures one image. Stages are timed where they are all made anew.
fn image(workspace: &Workspace, options: &Options, timed: bool) -> Result<(Rows, String)> {
    let packed = build::Options {
        install: options.install,
        locked: None,
    };
    match (options.built, timed) {
        (true, _) => {}
        (false, true) => make(workspace, &packed)?,
        (false, false) => pack::pack(workspace, &packed).map(drop)?,
    }
    let mut rows = Rows::new();
    sizes(workspace, &mut rows)?;
    if timed {
        for (stage, took) in progress::times() {
            row(&mut rows, &format!("build: {stage}"), &format!("{took:.1} s"));
        }
    }
    let folder = workspace.root.join("target/figures");
    let details = machine(workspace, &folder, options.pairs, &mut rows)?;
    Ok((rows, details))
}

/// Makes the quick stages anew, so that they can be timed. Debian's base and our programs are made only if they must be.
fn make(workspace: &Workspace, packed: &build::Options) -> Result<()> {
    let work = workspace.work()?;
    for product in ["system.tar", "system-a.squashfs"] {
        fingerprint::forget(&work.join(product))?;
    }
    pack::pack(workspace, packed).map(drop)
}

fn row(rows: &mut Rows, what: &str, figure: &str) {
    eprintln!("  {what:<60} {figure}");
    rows.push((what.to_owned(), figure.to_owned()));
}

/// The rows of several images side by side, in the order of the first.
fn table(heads: &[&str], images: &[Rows]) -> String {
    let mut text = format!(
        "| what | {} |\n|---{}|\n",
        heads.join(" | "),
        "|---".repeat(heads.len())
    );
    let Some(first) = images.first() else {
        return text;
    };
    for (what, _) in first {
        let figures: Vec<&str> = images
            .iter()
            .map(|rows| {
                rows.iter()
                    .find(|(name, _)| name == what)
                    .map_or("", |(_, figure)| figure)
            })
            .collect();
        let _ = writeln!(text, "| {what} | {} |", figures.join(" | "));
    }
    text
}

fn mib(path: &Path) -> Result<String> {
    let bytes = std::fs::metadata(path).on("read", path)?.len();
    Ok(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

fn sizes(workspace: &Workspace, rows: &mut Rows) -> Result<()> {
    let work = workspace.work()?;
    let map = Bmap::read(&workspace.product("bmap")?)?;
    row(
        rows,
        "download, zstd (goal 200 MiB)",
        &mib(&workspace.product("img.zst")?)?,
    );
    row(
        rows,
        "root file system, compressed (goal 160 MiB)",
        &mib(&work.join("system-a.squashfs"))?,
    );
    row(rows, "initramfs, in the slot", &mib(&work.join("initrd.img"))?);
    row(rows, "written to a disk", &format!("{} MiB", map.mapped() >> 20));
    row(rows, "bill of materials", &mib(&workspace.product("cdx.json")?)?);
    Ok(())
}

fn machine(workspace: &Workspace, folder: &Path, pairs: u32, rows: &mut Rows) -> Result<String> {
    let trial = Trial::new(workspace, folder, &StoreOptions::default())?;
    let key = ssh::key(&folder.join("desktop_key"), "desktop@trial")?;
    let second = format!("\n[[client]]\nname = \"desktop\"\nkeys = [\"{key}\"]\n");
    trial.configure(&(trial.default_config() + &second))?;
    trial.flash()?;
    // The first start makes keys and the array: it happens once in an appliance's life and isn't counted.
    start(&trial, Firmware::Bios, false)?.1.shut_down(STOP)?;
    let mut details = String::new();
    for (firmware, name) in [(Firmware::Bios, "SeaBIOS"), (Firmware::Uefi, "OVMF")] {
        let (mut bare, mut ready) = (Vec::new(), Vec::new());
        for pair in 1..=pairs {
            let (time, machine) = start(&trial, firmware, true)?;
            bare.push(time);
            // Nothing in it need hear the power button.
            machine.cut_power();
            let (time, machine) = start(&trial, firmware, false)?;
            ready.push(time);
            if pair == pairs && firmware == Firmware::Bios {
                std::thread::sleep(SETTLE);
                details = look(&trial.admin(&machine), rows)?;
            }
            machine.shut_down(STOP)?;
        }
        let (bare, ready) = (median(&bare), median(&ready));
        row(
            rows,
            &format!("{name}: power-on to ready for clients"),
            &seconds(ready.power_on),
        );
        row(
            rows,
            &format!("{name}: kernel to ready for clients"),
            &seconds(ready.kernel),
        );
        row(
            rows,
            &format!("{name}: kernel to a bare multi-user.target, in turn"),
            &seconds(bare.kernel),
        );
        row(
            rows,
            &format!("{name}: ratio of the two (goal 1.5)"),
            &format!("{:.2}", ready.kernel / bare.kernel),
        );
    }
    Ok(details)
}

fn seconds(value: f64) -> String {
    format!("{value:.1} s")
}

/// The start in the middle by the kernel's time; of two, the quicker.
fn median(starts: &[Start]) -> Start {
    let mut sorted: Vec<&Start> = starts.iter().collect();
    sorted.sort_by(|a, b| a.kernel.total_cmp(&b.kernel));
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2);
    middle.map_or(
        Start {
            power_on: f64::NAN,
            kernel: f64::NAN,
        },
        |start| Start { ..**start },
    )
}

/// Starts the machine and waits until it has told that it is there.
fn start(trial: &Trial, firmware: Firmware, bare: bool) -> Result<(Start, Machine)> {
    let name = match (firmware, bare) {
        (Firmware::Bios, true) => "bios-bare",
        (Firmware::Bios, false) => "bios-ready",
        (Firmware::Uefi, true) => "uefi-bare",
        (Firmware::Uefi, false) => "uefi-ready",
    };
    let mut hardware = trial.hardware(name, firmware);
    hardware.processors = 2;
    let mut give = |name: &str, unit: &str| hardware.credentials.push((name.to_owned(), unit.to_owned()));
    if bare {
        give("systemd.extra-unit.default.target", BARE);
        let reached = REACHED.replace("%AFTER%", "default.target");
        give("systemd.extra-unit.reached.service", &reached);
    } else {
        // Ready for clients: sshd has said that it listens, and the array is mounted.
        let wants = "[Unit]\nWants=reached.service\n";
        give("systemd.unit-dropin.mnt-raid.mount", wants);
        let reached = REACHED.replace("%AFTER%", "ssh.service mnt-raid.mount");
        give("systemd.extra-unit.reached.service", &reached);
    }
    let mut machine = Machine::start(&hardware)?;
    machine.wait_for_serial(MARK, START)?;
    let power_on = machine.age().as_secs_f64();
    let kernel = uptime(&machine.serial()).ok_or_else(|| Error::Unexpected {
        what: format!("the serial log of {name}"),
        detail: "tells no uptime".to_owned(),
    })?;
    eprintln!("  {name:<60} {kernel:.1} s of {power_on:.1} s");
    Ok((Start { power_on, kernel }, machine))
}

fn uptime(serial: &str) -> Option<f64> {
    let after = serial.split(MARK).nth(1)?;
    let number: String = after.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    number.trim_end_matches('.').parse().ok()
}

/// Time that the supervisor had of the processor, in hundredths of a second, and again after half a minute
/// (proc_pid_stat(5), utime and stime).
const BUSY: &str =
    "p=/proc/$(systemctl show -P MainPID strongroomd)/stat; cut -d' ' -f14,15 $p; sleep 30; cut -d' ' -f14,15 $p";

fn busy(ticks: &str) -> String {
    let sum = |line: &str| {
        line.split(' ')
            .filter_map(|number| number.parse::<u64>().ok())
            .sum::<u64>()
    };
    let mut lines = ticks.lines().map(sum);
    match (lines.next(), lines.next()) {
        (Some(before), Some(after)) => format!("{:.2} %", after.saturating_sub(before) as f64 / 30.0),
        _ => "unknown".into(),
    }
}

/// Memory, and what took the time of this start.
fn look(admin: &Login, rows: &mut Rows) -> Result<String> {
    let meminfo = admin.run("cat /proc/meminfo")?;
    let kib = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        number.unwrap_or_default()
    };
    let of_kib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    row(
        rows,
        "memory in use, idle, two clients: MemTotal − MemAvailable (goal 150 MiB)",
        &of_kib(kib("MemTotal").saturating_sub(kib("MemAvailable"))),
    );
    let parts = [
        "AnonPages",
        "Shmem",
        "SUnreclaim",
        "KernelStack",
        "PageTables",
        "Percpu",
        "VmallocUsed",
    ];
    let parts: Vec<String> = parts
        .iter()
        .map(|name| format!("{name} {}", of_kib(kib(name))))
        .collect();
    row(rows, "of which", &parts.join(", "));
    let supervisor = admin.run("grep VmRSS /proc/$(systemctl show -P MainPID strongroomd)/status")?;
    let supervisor = supervisor.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
    row(
        rows,
        "supervisor, resident (goal 16 MiB)",
        &of_kib(supervisor.unwrap_or_default()),
    );
    row(
        rows,
        "supervisor, idle: of one emulated core, over half a minute (goal 0.1 %)",
        &admin.run(BUSY).map(|ticks| busy(&ticks))?,
    );
    let run = |what: &str, command: &str| {
        admin
            .run(command)
            .map(|text| format!("{what}:\n\n```\n{}\n```\n\n", text.trim_end()))
    };
    let memory = "systemctl show -p MemoryCurrent,Id '*.service' | paste -d ' ' - - - | \
                  sed 's/MemoryCurrent=//; s/Id=//' | grep -v 'not set' | sort -rn | head -n 12";
    Ok(run(
        "What takes the time of a start (`systemd-analyze blame`)",
        "systemd-analyze blame --no-pager | head -n 15",
    )? + &run(
        "What waits for what (`systemd-analyze critical-chain`)",
        "systemd-analyze critical-chain --no-pager | tail -n +4",
    )? + &run(
        "Memory by service, in bytes, file cache included (`MemoryCurrent`)",
        memory,
    )?)
}

fn write(workspace: &Workspace, table: &str, details: &str) -> Result<()> {
    let file = workspace.root.join("docs/figures.md");
    let text = std::fs::read_to_string(&file).on("read", &file)?;
    let date = process::capture("tell the date", process::command("date").args(["-u", "+%Y-%m-%d"]))?;
    let written = format!(
        "Measured on {}, version `{}`, on {}, QEMU without KVM.\n\n{table}\n{details}",
        date.trim(),
        workspace.describe(),
        this_machine()
    );
    let command = format!("cargo image figures{}", workspace.foundation.argument());
    std::fs::write(&file, replace(&text, &command, &written)).on("write", &file)?;
    eprintln!("  written to {}", file.display());
    Ok(())
}

/// Puts `written` between the two marks of the command, or at the end with marks around it.
fn replace(text: &str, command: &str, written: &str) -> String {
    let begin = format!("<!-- from here on written by `{command}` -->");
    let end = format!("<!-- to here by `{command}` -->");
    let written = written.trim_end();
    match (text.split_once(&begin), text.split_once(&end)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{begin}\n\n{written}\n\n{end}{after}"),
        _ => format!("{}\n\n{begin}\n\n{written}\n\n{end}\n", text.trim_end()),
    }
}

/// Processors and memory of the machine that measures.
fn this_machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    format!("{cores} cores of {model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uptime_is_found_among_other_lines() {
        let serial = "x\n[   41.2] STRONGROOM-REACHED 41.27.\r\nmore 1.5";
        assert_eq!(uptime(serial), Some(41.27));
        assert_eq!(uptime("nothing"), None);
    }

    #[test]
    fn only_what_lies_between_the_marks_of_the_command_is_written_anew() {
        let first = replace("# Figures\n\nby hand\n", "measure", "one");
        assert!(first.starts_with("# Figures\n\nby hand\n\n<!-- from"));
        let both = replace(&format!("{first}\nbelow\n"), "measure more", "two");
        let second = replace(&both, "measure", "three");
        assert!(second.contains("\n\nthree\n\n") && !second.contains("one"));
        assert!(second.contains("\nbelow\n") && second.contains("\n\ntwo\n\n"));
    }

    #[test]
    fn images_stand_side_by_side_and_what_only_one_has_is_left_open() {
        let rows = |figures: &[(&str, &str)]| -> Rows {
            figures
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let text = table(
            &["a", "b"],
            &[rows(&[("size", "1"), ("time", "2")]), rows(&[("time", "3")])],
        );
        assert_eq!(
            text,
            "| what | a | b |\n|---|---|---|\n| size | 1 |  |\n| time | 2 | 3 |\n"
        );
    }

    #[test]
    fn the_middle_start_counts() {
        let starts = [3.0, 1.0, 2.0].map(|kernel| Start { power_on: 9.0, kernel });
        assert!((median(&starts).kernel - 2.0).abs() < f64::EPSILON);
        assert!((median(&starts[..2]).kernel - 1.0).abs() < f64::EPSILON);
        assert!(median(&[]).kernel.is_nan());
    }
}
