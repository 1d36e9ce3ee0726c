//! What the confinement of sessions costs: the same backup through the same sshd, as a client's session and as a plain
//! `borg serve` that the administrator's account runs, in turn, onto the same array of one running machine.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::error::{OnFile, Result};
use crate::loopback::StoreOptions;
use crate::partitions::MIB;
use crate::process;
use crate::qemu::{Firmware, Machine};
use crate::ssh::Login;
use crate::trial::{CLIENT, Trial};
use crate::workspace::Workspace;

const START: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(180);
/// Large enough for backups of several GiB; only what is written takes room.
const DISK: u64 = 16 * 1024 * MIB;
/// Pairs of sessions without any work.
const EMPTY_PAIRS: u32 = 7;
/// A place on the array for the account that is not confined.
const PLAIN: &str = "[Unit]
DefaultDependencies=no
After=mnt-raid.mount
[Service]
Type=oneshot
ExecStart=/usr/bin/install -d -o admin -m 700 /mnt/raid/plain
";

/// One way to the array.
struct Way {
    login: Login,
    repository: String,
    /// Borg's caches.
    caches: PathBuf,
}

/// What one run took: seconds by the clock, and of the machine's processors.
#[derive(Clone, Copy)]
struct Cost {
    clock: f64,
    processor: f64,
}

/// Measures `pairs` backups of `mib` MiB each way, and tells each figure to `row`: what it is, and how much.
///
/// # Errors
/// When the machine does not start, or a backup fails.
pub fn measure(workspace: &Workspace, mib: u64, pairs: u32, row: &mut dyn FnMut(&str, &str)) -> Result<()> {
    let folder = workspace.root.join("target/figures-confinement");
    let trial = Trial::new(workspace, &folder, &StoreOptions::default())?;
    trial.flash_disks([DISK, DISK])?;
    let machine = start(&trial)?;
    let admin = trial.admin(&machine);
    let way = |login: Login, repository: &str, caches: &str| -> Result<Way> {
        let caches = folder.join(caches);
        if caches.exists() {
            std::fs::remove_dir_all(&caches).on("remove", &caches)?;
        }
        let repository = format!("{}@127.0.0.1:{repository}", login.user);
        Ok(Way {
            login,
            repository,
            caches,
        })
    };
    let plain = way(admin.clone(), "/mnt/raid/plain/repository", "plain")?;
    let session = way(
        trial.client(&machine),
        &format!("/mnt/raid/{CLIENT}_repository"),
        "session",
    )?;
    for way in [&plain, &session] {
        way.borg(&["init", "--encryption=none"], &folder)?;
    }
    empty(&plain, &session, row)?;
    backups(&plain, &session, &admin, &folder, (mib, pairs), row)?;
    machine.shut_down(STOP)
}

fn start(trial: &Trial) -> Result<Machine> {
    let mut hardware = trial.hardware("confinement", Firmware::Bios);
    hardware.processors = 2;
    for (name, text) in [
        ("systemd.extra-unit.plain.service", PLAIN),
        ("systemd.unit-dropin.mnt-raid.mount", "[Unit]\nWants=plain.service\n"),
    ] {
        hardware.credentials.push((name.to_owned(), text.to_owned()));
    }
    let mut machine = Machine::start(&hardware)?;
    let admin = trial.admin(&machine);
    machine.wait_until("has no place for plain backups", START, |_| {
        admin
            .run("test -w /mnt/raid/plain && test -d /mnt/raid/*_repository")
            .map(|_| true)
    })?;
    admin.run("systemctl is-system-running --wait || true")?;
    Ok(machine)
}

impl Way {
    fn borg(&self, arguments: &[&str], folder: &Path) -> Result<()> {
        let mut command = process::command("borg");
        command
            .args(arguments)
            .current_dir(folder)
            .env("BORG_REPO", &self.repository)
            .env("BORG_RSH", self.login.shell())
            .env("BORG_BASE_DIR", &self.caches)
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        process::capture("back up", &mut command).map(drop)
    }

    /// From the connection to its end, in seconds, when Borg is told nothing.
    fn nothing(&self) -> Result<f64> {
        let began = Instant::now();
        process::output_of(self.login.command("borg serve").stdin(Stdio::null()))?;
        Ok(began.elapsed().as_secs_f64())
    }
}

fn empty(plain: &Way, session: &Way, row: &mut dyn FnMut(&str, &str)) -> Result<()> {
    let (mut unconfined, mut confined) = (Vec::new(), Vec::new());
    for _ in 0..EMPTY_PAIRS {
        unconfined.push(plain.nothing()?);
        confined.push(session.nothing()?);
    }
    let (unconfined, confined) = (median(&mut unconfined), median(&mut confined));
    row(
        "connection without work, plain sshd and `borg serve`",
        &format!("{unconfined:.2} s"),
    );
    row("connection without work, as a session", &format!("{confined:.2} s"));
    row(
        "what a session takes more (goal 0.15 s on a PC)",
        &format!("{:.2} s", confined - unconfined),
    );
    Ok(())
}

fn backups(
    plain: &Way,
    session: &Way,
    admin: &Login,
    folder: &Path,
    (mib, pairs): (u64, u32),
    row: &mut dyn FnMut(&str, &str),
) -> Result<()> {
    let (mut unconfined, mut confined) = (Vec::new(), Vec::new());
    let source = folder.join("source");
    for pair in 0..pairs {
        // Nothing that is there already.
        make_noise(&source, mib * MIB)?;
        let archive = format!("::pair{pair}");
        let run = |way: &Way, costs: &mut Vec<Cost>| -> Result<()> {
            let (began, before) = (Instant::now(), busy(admin)?);
            way.borg(&["create", "--compression=none", &archive, "source"], folder)?;
            costs.push(Cost {
                clock: began.elapsed().as_secs_f64(),
                processor: busy(admin)? - before,
            });
            Ok(())
        };
        // Whoever is second may find the machine warmer, or more written that waits for the disks.
        if pair % 2 == 0 {
            run(plain, &mut unconfined)?;
            run(session, &mut confined)?;
        } else {
            run(session, &mut confined)?;
            run(plain, &mut unconfined)?;
        }
    }
    std::fs::remove_file(&source).on("remove", &source)?;
    let of = |costs: &[Cost], part: fn(&Cost) -> f64| median(&mut costs.iter().map(part).collect::<Vec<_>>());
    let clock = |costs: &[Cost]| of(costs, |cost| cost.clock);
    let processor = |costs: &[Cost]| of(costs, |cost| cost.processor);
    let mut tell = |what: &str, costs: &[Cost]| {
        let figure = format!("{:.1} s, of processor {:.1} s", clock(costs), processor(costs));
        row(&format!("`borg create` of {mib} MiB, {what}"), &figure);
    };
    tell("plain sshd and `borg serve`", &unconfined);
    tell("as a session", &confined);
    row(
        "throughput of a session, of the plain one (goal 0.97)",
        &format!("{:.2}", clock(&unconfined) / clock(&confined)),
    );
    Ok(())
}

/// Seconds that the machine's processors have worked since it started (proc_stat(5); USER_HZ is 100).
fn busy(admin: &Login) -> Result<f64> {
    Ok(worked(&admin.run("head -n 1 /proc/stat")?))
}

fn worked(line: &str) -> f64 {
    let ticks: Vec<f64> = line
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // Neither idle nor waiting for disks; time of guests counts as the machine's own already.
    let at = |number: usize| ticks.get(number).copied().unwrap_or_default();
    [0, 1, 2, 5, 6].into_iter().map(at).sum::<f64>() / 100.0
}

fn make_noise(file: &Path, bytes: u64) -> Result<()> {
    let source = Path::new("/dev/urandom");
    let mut noise = std::fs::File::open(source).on("read", source)?.take(bytes);
    let mut into = std::fs::File::create(file).on("create", file)?;
    std::io::copy(&mut noise, &mut into).on("write", file).map(drop)
}

/// The middle one; of two in the middle, the upper.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_from_waiting() {
        let line = "cpu  100 20 30 5000 600 7 3 0 0 0\n";
        assert!((worked(line) - 1.6).abs() < 1e-9);
        assert!(worked("").abs() < 1e-9);
    }

    #[test]
    fn the_middle_one_counts() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(&mut []).is_nan());
    }
}
