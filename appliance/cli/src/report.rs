//! `strongroom report`: a bundle for whoever is asked to help, made on the appliance with an administrator's rights.
//!
//! Nothing that it reads holds secrets by design; [`scrub`] is a second wall. What can't be read or run is told in its
//! place, and never fails the bundle.

mod gather;
mod scrub;

use crate::{appliance, console, now};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Most bytes of all members together, before compression.
const TOTAL_MAX: usize = 16 << 20;
/// Most bytes of a boot's journal.
const JOURNAL_MAX: usize = 2 << 20;
/// Most bytes of what one program prints or one file holds.
const PART_MAX: usize = 256 << 10;
/// The folder in which the bundle unpacks.
const FOLDER: &str = "strongroom-report";
/// Most lines asked of the journal: about [`JOURNAL_MAX`].
const JOURNAL_LINES: &str = "--lines=20000";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum ReportFailure {
    /// It would have gone to the screen.
    #[error("the bundle is a compressed archive: send it to a file, `strongroom report > report.tar.gz`")]
    Terminal,
    /// It could not be written.
    #[error("the bundle could not be written to {0}: {1}")]
    Write(String, std::io::Error),
}

/// One source of a member.
enum Source {
    /// The status over D-Bus, as JSON.
    StatusJson,
    /// The status in words.
    StatusText,
    /// What a program prints, so many bytes of it at most.
    Program(&'static [&'static str], usize),
    /// A file.
    File(&'static str),
    /// The configuration, without accounts.
    Configuration(&'static str),
    /// A file of this name in each folder below another.
    Each(&'static str, &'static str),
}

/// A file of the bundle: its name, what it is, and what it is made of.
type Member = (&'static str, &'static str, &'static [Source]);

use Source::{Configuration, Each, File, Program, StatusJson, StatusText};

const MEMBERS: &[Member] = &[
    ("status.txt", "how the appliance is doing, in words", &[StatusText]),
    (
        "status.json",
        "the same snapshot as data, conditions included",
        &[StatusJson],
    ),
    (
        "version.txt",
        "release, base system and kernel",
        &[
            Program(&["strongroom", "--version"], PART_MAX),
            Program(&["uname", "-a"], PART_MAX),
            File("/etc/os-release"),
            File("/proc/cmdline"),
        ],
    ),
    (
        "packages.txt",
        "the packages in the image",
        &[File("/usr/share/strongroom/manifest")],
    ),
    (
        "strongroom.toml",
        "the configuration in force, without accounts and the comments of keys",
        &[Configuration("/var/lib/strongroom/config/strongroom.toml")],
    ),
    (
        "clients.toml",
        "clients that were enrolled by command; not there when there are none",
        &[Configuration("/var/lib/strongroom/config/clients.toml")],
    ),
    (
        "recipients.txt",
        "the certificates that off-site copies are encrypted to, and the one that signs them",
        &[Program(&["strongroom", "recipient", "show"], PART_MAX)],
    ),
    (
        "configuration-refused.json",
        "why the last offered configuration was refused; not there when it was not",
        &[File("/run/strongroom/config-report.json")],
    ),
    (
        "journal.txt",
        "the log of this start, the end of it",
        &[Program(
            &[
                "journalctl",
                "--boot=0",
                "--no-pager",
                "--output=short-precise",
                JOURNAL_LINES,
            ],
            JOURNAL_MAX,
        )],
    ),
    (
        "journal-before.txt",
        "the log of the start before this one, the end of it",
        &[Program(
            &[
                "journalctl",
                "--boot=-1",
                "--no-pager",
                "--output=short-precise",
                JOURNAL_LINES,
            ],
            JOURNAL_MAX,
        )],
    ),
    (
        "kernel.txt",
        "what the kernel said since this start",
        &[Program(
            &[
                "journalctl",
                "--dmesg",
                "--no-pager",
                "--output=short-monotonic",
                JOURNAL_LINES,
            ],
            JOURNAL_MAX,
        )],
    ),
    (
        "units.txt",
        "the system's parts, first those that failed, and its timers",
        &[
            Program(&["systemctl", "--failed", "--no-pager", "--full"], PART_MAX),
            Program(
                &["systemctl", "list-units", "--all", "--plain", "--no-pager", "--full"],
                PART_MAX,
            ),
            Program(&["systemctl", "list-timers", "--all", "--no-pager"], PART_MAX),
            Program(&["systemd-analyze", "time"], PART_MAX),
            Program(&["systemd-analyze", "blame", "--no-pager"], PART_MAX),
        ],
    ),
    (
        "network.txt",
        "addresses, routes, names",
        &[
            Program(&["ip", "-statistics", "address"], PART_MAX),
            Program(&["ip", "route"], PART_MAX),
            Program(&["ip", "-6", "route"], PART_MAX),
            Program(&["networkctl", "status", "--all", "--no-pager", "--lines=0"], PART_MAX),
            Program(&["resolvectl", "status", "--no-pager"], PART_MAX),
            Program(&["ss", "--all", "--numeric", "--tcp", "--udp"], PART_MAX),
        ],
    ),
    (
        "clock.txt",
        "the clock and where its time comes from",
        &[
            Program(&["strongroom", "clock"], PART_MAX),
            Program(&["chronyc", "-n", "tracking"], PART_MAX),
            Program(&["chronyc", "-n", "sources", "-v"], PART_MAX),
            File("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            File("/sys/devices/system/clocksource/clocksource0/available_clocksource"),
            File("/proc/interrupts"),
            File("/proc/driver/rtc"),
        ],
    ),
    (
        "disks.txt",
        "disks, partitions, the array, what is mounted and how full it is",
        &[
            Program(&["strongroom", "disks"], PART_MAX),
            Program(
                &[
                    "lsblk",
                    "--output",
                    "NAME,SIZE,TYPE,FSTYPE,LABEL,PARTLABEL,PARTUUID,MODEL,SERIAL,WWN,ROTA,TRAN,MOUNTPOINTS",
                ],
                PART_MAX,
            ),
            File("/proc/mdstat"),
            Program(&["findmnt", "--real"], PART_MAX),
            Program(&["df", "--human-readable", "--print-type"], PART_MAX),
            Program(&["df", "--inodes"], PART_MAX),
            File("/proc/diskstats"),
        ],
    ),
    (
        "array.json",
        "what making or assembling the array found and did",
        &[File("/run/strongroom/array.json")],
    ),
    (
        "disk-health.json",
        "what the disks tell of their health, and the last scrubs",
        &[
            File("/run/strongroom-health/report.json"),
            File("/run/strongroom-scrub/scrubs.json"),
        ],
    ),
    (
        "pushes.txt",
        "progress and outcome of each client's last push since the start",
        &[Each("/run/strongroom-push", "report.json")],
    ),
    (
        "load.txt",
        "memory and what runs",
        &[
            Program(&["uptime"], PART_MAX),
            Program(&["free", "--mebi"], PART_MAX),
            Program(&["ps", "-e", "-o", "pid,user,stat,etime,time,rss,nlwp,comm"], PART_MAX),
            File("/proc/meminfo"),
            File("/proc/pressure/io"),
        ],
    ),
    (
        "hardware.txt",
        "the PC",
        &[
            File("/sys/class/dmi/id/sys_vendor"),
            File("/sys/class/dmi/id/product_name"),
            File("/sys/class/dmi/id/bios_version"),
            File("/sys/class/dmi/id/bios_date"),
            File("/proc/interrupts"),
        ],
    ),
];

/// Makes the bundle and writes it to a file, or to standard output.
///
/// Errors: it can't be written.
pub async fn run(output: Option<PathBuf>) -> Result<(), ReportFailure> {
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(ReportFailure::Terminal);
    }
    let status = match appliance::Connection::open().await {
        Ok(connection) => connection.status_json().await,
        Err(error) => Err(error),
    };
    let status = status.map_err(|error| format!("(the supervisor did not answer: {error})\n"));
    let bundle = bundle(MEMBERS, status.as_deref().map_err(String::as_str), TOTAL_MAX);
    let written = bundle.and_then(|bytes| match &output {
        Some(file) => std::fs::write(file, bytes),
        None => std::io::stdout()
            .lock()
            .write_all(&bytes)
            .and_then(|()| std::io::stdout().flush()),
    });
    let place = output.map_or("standard output".to_string(), |file| file.display().to_string());
    written.map_err(|error| ReportFailure::Write(place, error))
}

/// The bundle as `.tar.gz`, its members together at most `total` bytes long.
fn bundle(members: &[Member], status: Result<&str, &str>, total: usize) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let readme = readme(members);
    let mut free = total.saturating_sub(readme.len());
    append(&mut archive, "README.txt", &readme)?;
    for (name, _, sources) in members {
        let mut text: String = sources.iter().map(|source| obtain(source, status)).collect();
        if text.len() > free {
            text = "(left out: the bundle is large enough)\n".into();
        }
        free = free.saturating_sub(text.len());
        append(&mut archive, name, &text)?;
    }
    archive.into_inner()?.finish()
}

fn append(archive: &mut tar::Builder<GzEncoder<Vec<u8>>>, name: &str, text: &str) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(now());
    archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())
}

fn readme(members: &[Member]) -> String {
    let mut text = String::from(
        "A report of a Strongroom appliance, for whoever is asked to help.\n\n\
         It holds no passwords, no keys and none of the data that was backed up. It does hold names of machines,\n\
         addresses and serial numbers: look through it before you publish it. What looked like a secret stands as\n\
         \"(removed)\"; what could not be read is told in its place, in parentheses.\n\n",
    );
    for (name, about, _) in members {
        text.push_str(&format!("{name:<28}{about}\n"));
    }
    text
}

/// A source's text, headed by where it comes from, without what looks like a secret.
fn obtain(source: &Source, status: Result<&str, &str>) -> String {
    match source {
        StatusJson => scrub::scrub(&status.map_or_else(str::to_string, pretty)),
        StatusText => scrub::scrub(&match status.map(appliance::parse) {
            Ok(Ok(status)) => console::status_text(&status, now()),
            Ok(Err(error)) => format!("({error})\n"),
            Err(why) => why.to_string(),
        }),
        Program(line, limit) => headed(&line.join(" "), &scrub::scrub(&gather::program(line, *limit))),
        File(path) => headed(path, &scrub::scrub(&gather::file(Path::new(path), PART_MAX))),
        Configuration(path) => scrub::configuration(&gather::file(Path::new(path), PART_MAX)),
        Each(folder, name) => each(Path::new(folder), name),
    }
}

/// On lines of its own each, so that scrubbing takes no more than it must.
fn pretty(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| json.to_string())
}

fn each(folder: &Path, name: &str) -> String {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return format!("({}: {error})\n", folder.display()),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join(name)).collect();
    files.sort();
    let told = |file: &PathBuf| headed(&file.display().to_string(), &scrub::scrub(&gather::file(file, 4096)));
    files.iter().map(told).collect()
}

fn headed(head: &str, text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    format!("== {head}\n{text}{end}")
}

#[cfg(test)]
mod tests;
