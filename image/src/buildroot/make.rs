//! Runs Buildroot's make, tells which package it is at, and what took long.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::checkout::Checkout;
use super::kernel;
use super::room::Room;
use crate::error::{Error, OnFile, Result};
use crate::process;
use crate::workspace::Workspace;

/// How many packages are told at the end.
const SLOWEST: usize = 8;

/// Buildroot's make in `output`, in the room if there is one; a goal is to be added.
pub fn command(workspace: &Workspace, checkout: &Checkout, room: Option<&Room>, output: &Path) -> Command {
    let mut arguments: Vec<OsString> = vec!["-C".into(), checkout.folder.clone().into()];
    let mut variable = |name: &str, value: &Path| {
        let mut text = OsString::from(name);
        text.push("=");
        text.push(value);
        arguments.push(text);
    };
    variable("O", output);
    variable("BR2_EXTERNAL", &workspace.root.join("image"));
    match room {
        Some(room) => {
            variable("STRONGROOM_SOURCES", &room.sources);
            room.command("make", &arguments)
        }
        None => {
            let mut command = process::command("make");
            command.args(arguments);
            command
        }
    }
}

/// Tells Buildroot what to build, and configures the kernel; what is built already of it and of BusyBox is brought up to
/// date.
///
/// # Errors
/// When Buildroot does not accept the configuration, or the kernel's.
pub fn configure(
    workspace: &Workspace,
    checkout: &Checkout,
    room: Option<&Room>,
    output: &Path,
    configuration: &str,
) -> Result<()> {
    std::fs::create_dir_all(output).on("create", output)?;
    let defconfig = output.join("defconfig");
    std::fs::write(&defconfig, configuration).on("write", &defconfig)?;
    let mut configure = command(workspace, checkout, room, output);
    configure.arg("defconfig").arg({
        let mut text = OsString::from("BR2_DEFCONFIG=");
        text.push(&defconfig);
        text
    });
    process::run_logged("configure Buildroot", &mut configure, &output.join("configure.log"))?;
    // Buildroot does not look at a kernel again by itself when its fragments change.
    let goal = if kernel::configuration(output)?.is_some() {
        "linux-reconfigure"
    } else {
        "linux-configure"
    };
    let mut kernel = command(workspace, checkout, room, output);
    kernel.arg(goal);
    process::run_logged("configure the kernel", &mut kernel, &output.join("kernel.log"))?;
    // The same for BusyBox, whose last fragment is kept.
    let fragment = workspace.root.join("board/x86_64/buildroot/busybox.fragment");
    let fragment = std::fs::read(&fragment).on("read", &fragment)?;
    let kept = output.join("busybox.fragment");
    if std::fs::read(&kept).is_ok_and(|last| last != fragment) {
        let mut busybox = command(workspace, checkout, room, output);
        busybox.arg("busybox-reconfigure");
        process::run_logged("configure BusyBox", &mut busybox, &output.join("busybox.log"))?;
    }
    std::fs::write(&kept, &fragment).on("write", &kept)
}

/// Builds everything that isn't built yet.
///
/// # Errors
/// When a package fails. What was built stays: the next call goes on there.
pub fn build(workspace: &Workspace, checkout: &Checkout, room: Option<&Room>, output: &Path) -> Result<()> {
    let mut list = command(workspace, checkout, room, output);
    list.args(["--silent", "--no-print-directory", "show-build-order"]);
    let list = process::capture("ask Buildroot for its packages", &mut list)?;
    let total = list.split_whitespace().count();
    watched(
        &mut command(workspace, checkout, room, output),
        total,
        &output.join("make.log"),
    )?;
    let times = output.join("build/build-time.log");
    let times = std::fs::read_to_string(&times).on("read", &times)?;
    for (package, seconds) in slowest(&times).into_iter().take(SLOWEST) {
        eprintln!("    {package:<50} {:>4}:{:02}", seconds / 60, seconds % 60);
    }
    Ok(())
}

/// Runs `command` with its output in `log`, and tells each package as it is built.
fn watched(command: &mut Command, total: usize, log: &Path) -> Result<()> {
    let (reader, writer) = std::io::pipe().on("make a pipe to", Path::new("make"))?;
    let errors = writer.try_clone().on("make a pipe to", Path::new("make"))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .map_err(|source| process::cannot_start(command, source))?;
    // The command holds the other ends of the pipe, which must close for the reading below to end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut file = File::create(log).on("create", log)?;
    let terminal = std::io::stderr().is_terminal();
    let mut seen = std::collections::BTreeSet::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.on("read from", Path::new("make"))?;
        file.write_all(&line).on("write", log)?;
        file.write_all(b"\n").on("write", log)?;
        if let Some((package, step)) = step(&String::from_utf8_lossy(&line)) {
            let new = seen.insert(package.to_owned());
            if terminal {
                eprint!("\r\x1b[K    {} of {total}: {package}, {step}", seen.len());
            } else if new {
                eprintln!("    {} of {total}: {package}", seen.len());
            }
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    let status = child.wait().on("wait for", Path::new("make"))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(log).on("read", log)?;
    Err(Error::Program {
        purpose: "build with Buildroot".to_owned(),
        program: "make".to_owned(),
        status,
        log: Some(log.to_owned()),
        output: process::last_lines(&String::from_utf8_lossy(&text), 15),
    })
}

/// The package and what is done with it, from a line like `>>> zlib 1.3.1 Building`, which may be in bold.
fn step(line: &str) -> Option<(&str, &str)> {
    let line = line.split_once(">>> ")?.1;
    let line = line.split('\x1b').next().unwrap_or(line);
    let (package, rest) = line.split_once(' ')?;
    let (_, step) = rest.split_once(' ')?;
    // What is done with the system as a whole names no package.
    (!package.is_empty()).then_some((package, step.trim()))
}

/// Packages and the seconds that they took, the longest first, from Buildroot's `build-time.log`, whose lines are
/// `seconds:start|end:step:package`. A step that was done again counts once, with its last time.
fn slowest(log: &str) -> Vec<(String, u64)> {
    let mut started: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let mut took: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for line in log.lines() {
        let mut fields = line.splitn(4, ':').map(str::trim);
        let (Some(time), Some(what), Some(step), Some(package)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(time) = time.parse::<f64>() else { continue };
        if what == "start" {
            started.insert((package, step), time);
        } else if let Some(start) = started.get(&(package, step)) {
            took.insert((package, step), time - start);
        }
    }
    let mut packages: BTreeMap<&str, f64> = BTreeMap::new();
    for ((package, _), seconds) in took {
        *packages.entry(package).or_default() += seconds;
    }
    let mut packages: Vec<(String, u64)> = packages
        .into_iter()
        // Between 0 and the age of the log: no loss that matters.
        .map(|(package, seconds)| (package.to_owned(), seconds.max(0.0).round() as u64))
        .collect();
    packages.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_words_tell_the_package_and_the_step() {
        assert_eq!(
            step("\x1b[7m>>> zlib 1.3.1 Building\x1b[27m"),
            Some(("zlib", "Building"))
        );
        assert_eq!(step(">>> skeleton  Extracting"), Some(("skeleton", "Extracting")));
        assert_eq!(step("checking for >>> x"), None);
        assert_eq!(step(">>>"), None);
        assert_eq!(step(">>>   Finalizing target directory"), None);
    }

    #[test]
    fn times_are_summed_by_package_and_a_repeated_step_counts_once() {
        let log = "10.5:start:build               : a\n20.5:end  :build               : a\n\
                   30.0:start:build               : a\n31.0:end  :build               : a\n\
                   31.0:start:install-target      : a\n33.0:end  :install-target      : a\n\
                   40.0:start:build               : b\n100.0:end  :build               : b\nnonsense\n";
        assert_eq!(slowest(log), [("b".to_owned(), 60), ("a".to_owned(), 3)]);
    }
}
