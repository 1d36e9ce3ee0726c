//! A virtual machine: QEMU with an image's disks, a user network, a serial log and QMP. Used by `cargo image run` and by
//! the tests.
//!
//! The machine is an ordinary PC, emulated unless KVM is asked for. It has no way out but through the
//! host's user network, in which the host's loopback is 10.0.2.2. It ends when its [`Machine`] is dropped, or when the
//! thread that started it ends.
//! QMP is QEMU's own protocol: <https://www.qemu.org/docs/master/interop/qmp-spec.html>.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, OnFile, Result};
use crate::process;

/// The address at which the machine reaches the host's loopback.
pub const HOST: &str = "10.0.2.2";
const PRESS_AGAIN: Duration = Duration::from_secs(30);
/// A check by ssh takes as long, and nearly all of an emulated processor.
const POLL: Duration = Duration::from_millis(500);

/// What starts the boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// The kind of PC: its chipset, and how disks and the network card are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// q35 with PCI Express, SATA disks (AHCI) and an Intel card (e1000e).
    Q35,
    /// q35 with virtio disks and network card.
    Virtio,
    /// i440FX of the nineties: IDE disks and an Intel card (e1000).
    Pc,
}

/// A disk on the machine's own controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The file with its content, raw.
    pub file: PathBuf,
    /// Its serial number.
    pub serial: String,
}

/// What machine to start.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// A name for messages and files.
    pub name: String,
    /// Where its serial log, its UEFI variables and QEMU's own log go.
    pub folder: PathBuf,
    /// The firmware.
    pub firmware: Firmware,
    /// The kind of PC.
    pub platform: Platform,
    /// The disks, in the controller's order; at most six, on [`Platform::Pc`] four.
    pub drives: Vec<Drive>,
    /// Processors.
    pub processors: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Use KVM instead of emulation.
    pub kvm: bool,
    /// Systemd credentials (systemd.io/CREDENTIALS) handed over by the firmware: name and value.
    pub credentials: Vec<(String, String)>,
    /// The hardware clock at the start, in UTC, like `2020-01-31T12:00:00`; the host's time if absent.
    pub clock: Option<String>,
    /// Further ports of the machine that the host's loopback leads to, beside that of SSH: the host's, the machine's.
    pub forwards: Vec<(u16, u16)>,
    /// Further arguments for QEMU: a USB stick, a watchdog, …
    pub extra: Vec<String>,
}

impl Hardware {
    /// A machine with one processor, 1 GiB of memory and these disks. Emulated, two processors wait for each other so often
    /// that they take half as much again for the same work.
    #[must_use]
    pub fn new(name: &str, folder: &Path, firmware: Firmware, drives: Vec<Drive>) -> Self {
        Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            firmware,
            platform: Platform::Q35,
            drives,
            processors: 1,
            memory_mib: 1024,
            kvm: false,
            credentials: Vec::new(),
            clock: None,
            forwards: Vec::new(),
            extra: Vec::new(),
        }
    }
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    name: String,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    serial: PathBuf,
    ssh_port: u16,
    started: Instant,
}

impl Machine {
    /// Switches the machine on.
    ///
    /// # Errors
    /// When QEMU can't be started or refuses the hardware.
    pub fn start(hardware: &Hardware) -> Result<Self> {
        let folder = &hardware.folder;
        std::fs::create_dir_all(folder).on("create", folder)?;
        let serial = folder.join(format!("{}.serial.log", hardware.name));
        let log = folder.join(format!("{}.qemu.log", hardware.name));
        std::fs::write(&serial, "").on("write", &serial)?;
        let ssh_port = free_port()?;
        // setpriv: the machine must not outlive a test that was killed.
        let mut command = process::command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(arguments(hardware, &serial, ssh_port))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).on("create", &log)?);
        let mut child = command
            .spawn()
            .map_err(|source| process::cannot_start(&command, source))?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Unexpected {
                what: "QEMU".to_owned(),
                detail: "has no standard input".to_owned(),
            });
        };
        let mut machine = Self {
            name: hardware.name.clone(),
            child,
            commands,
            answers: BufReader::new(answers),
            serial,
            ssh_port,
            started: Instant::now(),
        };
        if machine.answer().is_err() || machine.command("qmp_capabilities", json!({})).is_err() {
            return Err(Error::Machine {
                machine: hardware.name.clone(),
                what: "QEMU did not start".to_owned(),
                output: std::fs::read_to_string(&log).unwrap_or_default(),
                log,
            });
        }
        Ok(machine)
    }

    /// The port on the host's loopback that leads to the machine's SSH.
    #[must_use]
    pub fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    /// How long the machine has been on.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What came over the serial line so far.
    #[must_use]
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.serial).unwrap_or_default()).into_owned()
    }

    /// Waits until the serial line has shown `text`.
    ///
    /// # Errors
    /// [`Error::Machine`] when it hasn't in time or the machine ended.
    pub fn wait_for_serial(&mut self, text: &str, within: Duration) -> Result<()> {
        self.wait_until(
            &format!("did not show {text:?} on the serial line"),
            within,
            |machine| Ok(machine.serial().contains(text)),
        )
    }

    /// Waits until `check` says yes; an error of `check` counts as not yet, and is told if time runs out.
    ///
    /// # Errors
    /// [`Error::Machine`] when time runs out or the machine ended.
    pub fn wait_until(
        &mut self,
        otherwise: &str,
        within: Duration,
        mut check: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            let last = match check(self) {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(" ({error})"),
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended with {status} and {otherwise}")));
            }
            if Instant::now() >= end {
                return Err(self.failed(&format!("{otherwise} within {} s{last}", within.as_secs())));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Presses the power button and waits until the machine is off; again now and then, as a person does whose first press
    /// came before logind listened.
    ///
    /// # Errors
    /// [`Error::Machine`] when it isn't off in time.
    pub fn shut_down(mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        let mut press = Instant::now();
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Ok(());
            }
            if Instant::now() >= press {
                // It may go off at this very moment.
                let _ = self.command("system_powerdown", json!({}));
                press += PRESS_AGAIN;
            }
            std::thread::sleep(POLL);
        }
        Err(self.failed(&format!(
            "was not off {} s after its power button was pressed",
            within.as_secs()
        )))
    }

    /// Cuts the power, without any warning to the machine.
    pub fn cut_power(self) {
        drop(self);
    }

    /// Takes a picture of the screen, in PNG.
    ///
    /// # Errors
    /// When QEMU can't.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.command("screendump", json!({"filename": file, "format": "png"}))
            .map(drop)
    }

    /// Whether QEMU is still running.
    pub fn is_on(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a QMP command and returns its answer.
    ///
    /// # Errors
    /// When QEMU is gone or refuses.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let line = json!({"execute": name, "arguments": arguments}).to_string();
        let sent = writeln!(self.commands, "{line}").and_then(|()| self.commands.flush());
        if sent.is_err() {
            return Err(self.failed("does not take commands any more"));
        }
        loop {
            let answer = self.answer()?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(self.failed(&format!("refused {name}: {error}")));
            }
        }
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(length) if length > 0 => serde_json::from_str(&line).map_err(|error| Error::Unexpected {
                what: "QEMU's answer".to_owned(),
                detail: error.to_string(),
            }),
            _ => Err(self.failed("is gone")),
        }
    }

    fn failed(&self, what: &str) -> Error {
        Error::Machine {
            machine: self.name.clone(),
            what: what.to_owned(),
            log: self.serial.clone(),
            output: process::last_lines(&self.serial(), 20),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on loopback that nobody listens on right now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .on("find a free port on", Path::new("loopback"))
}

fn arguments(hardware: &Hardware, serial: &Path, ssh_port: u16) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| {
        arguments.push(option.to_owned());
        if !value.is_empty() {
            arguments.push(value);
        }
    };
    add("-name", escape(&hardware.name));
    let pc = hardware.platform == Platform::Pc;
    add("-machine", if pc { "pc" } else { "q35" }.to_owned());
    add(
        "-accel",
        if hardware.kvm { "kvm" } else { "tcg,thread=multi" }.to_owned(),
    );
    // A processor of 2009 with a random source and what borg and TLS gain from: what a PC at hand has, and quick to emulate.
    // On an Intel one of that age Linux isolates its page tables, at a tenth of the emulation's time.
    add(
        "-cpu",
        "Opteron_G3,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+rdrand".to_owned(),
    );
    add("-smp", hardware.processors.to_string());
    add("-m", hardware.memory_mib.to_string());
    add("-display", "none".to_owned());
    add("-nodefaults", String::new());
    add("-vga", "std".to_owned());
    add("-serial", format!("file:{}", serial.display()));
    add("-qmp", "stdio".to_owned());
    if let Some(clock) = &hardware.clock {
        add("-rtc", format!("base={clock}"));
    }
    if hardware.firmware == Firmware::Uefi {
        // Without a place for its variables, UEFI forgets them: it then starts the disk's default program, as it should.
        add(
            "-drive",
            "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd".to_owned(),
        );
        add(
            "-drive",
            "if=pflash,format=raw,unit=1,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd".to_owned(),
        );
    }
    if hardware.platform == Platform::Q35 {
        add("-device", "ich9-ahci,id=sata".to_owned());
    }
    for (index, drive) in hardware.drives.iter().enumerate() {
        let file = escape(&drive.file.display().to_string());
        add(
            "-drive",
            format!("id=drive{index},if=none,format=raw,discard=unmap,file={file}"),
        );
        let attached = match hardware.platform {
            Platform::Q35 => format!("ide-hd,bus=sata.{index}"),
            Platform::Virtio => "virtio-blk-pci".to_owned(),
            Platform::Pc => format!("ide-hd,bus=ide.{},unit={}", index / 2, index % 2),
        };
        let serial = &drive.serial;
        add(
            "-device",
            format!("{attached},drive=drive{index},serial={serial},bootindex={index}"),
        );
    }
    let forwards: String = [(ssh_port, 22)]
        .iter()
        .chain(&hardware.forwards)
        .map(|(ours, theirs)| format!(",hostfwd=tcp:127.0.0.1:{ours}-:{theirs}"))
        .collect();
    add("-netdev", format!("user,id=lan{forwards}"));
    let card = match hardware.platform {
        Platform::Q35 => "e1000e",
        Platform::Virtio => "virtio-net-pci",
        Platform::Pc => "e1000",
    };
    add("-device", format!("{card},netdev=lan"));
    add("-device", "virtio-rng-pci".to_owned());
    for (name, value) in &hardware.credentials {
        // systemd takes both (systemd.exec(7), "Credentials"); a name in QEMU's own table has at most 55 characters.
        let file = format!("opt/io.systemd.credentials/{name}");
        if file.len() <= 55 {
            add("-fw_cfg", format!("name={file},string={}", escape(value)));
        } else {
            let value = escape(&format!("io.systemd.credential:{name}={value}"));
            add("-smbios", format!("type=11,value={value}"));
        }
    }
    arguments.extend(hardware.extra.iter().cloned());
    arguments
}

// QEMU's options are separated by commas; a doubled comma is one.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_keep_their_order_and_serials() {
        let drive = |file: &str, serial: &str| Drive {
            file: file.into(),
            serial: serial.to_owned(),
        };
        let mut hardware = Hardware::new(
            "x",
            Path::new("/f"),
            Firmware::Bios,
            vec![drive("/a,b", "ONE"), drive("/c", "TWO")],
        );
        let line = arguments(&hardware, Path::new("/s"), 1).join(" ");
        assert!(line.contains("file=/a,,b -device ide-hd,bus=sata.0,drive=drive0,serial=ONE"));
        assert!(line.contains("bus=sata.1,drive=drive1,serial=TWO"));
        assert!(line.contains("hostfwd=tcp:127.0.0.1:1-:22"));
        assert!(!line.contains("pflash"));
        hardware.credentials = vec![
            ("short".to_owned(), "a,b".to_owned()),
            ("systemd.extra-unit.longer.service".to_owned(), "c".to_owned()),
        ];
        let line = arguments(&hardware, Path::new("/s"), 1).join(" ");
        assert!(line.contains("-fw_cfg name=opt/io.systemd.credentials/short,string=a,,b"));
        assert!(line.contains("type=11,value=io.systemd.credential:systemd.extra-unit.longer.service=c"));
        hardware.platform = Platform::Pc;
        let line = arguments(&hardware, Path::new("/s"), 1).join(" ");
        assert!(line.contains("ide-hd,bus=ide.0,unit=1,drive=drive1,serial=TWO"));
        hardware.firmware = Firmware::Uefi;
        assert!(arguments(&hardware, Path::new("/s"), 1).join(" ").contains("OVMF_CODE"));
    }
}
