//! The Debian packages that the commands need on the machine they run on, and how they get there.
//!
//! Asks dpkg, installs with apt-get as root or through sudo, and says what and why before it does.

use std::io::IsTerminal;

use crate::error::{Error, OnFile, Result};
use crate::process;
use crate::workspace::Workspace;

/// Which commands need a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// `cargo image build`.
    Build,
    /// `cargo image build --base buildroot`.
    Buildroot,
    /// The same where Buildroot works with this machine's own tools, and its own tests.
    Upstream,
    /// `cargo image flash`.
    Flash,
    /// `cargo image run`.
    Run,
    /// `cargo image test`.
    Test,
    /// `cargo image test --thorough`.
    Thorough,
}

use Need::{Build, Buildroot, Flash, Run, Test, Thorough, Upstream};

/// Package, who needs it, and what for.
const PACKAGES: &[(&str, &[Need], &str)] = &[
    (
        "mmdebstrap",
        &[Build],
        "unpacks Debian's packages into a root file system",
    ),
    (
        "debian-archive-keyring",
        &[Build],
        "checks that the packages are Debian's",
    ),
    (
        "uidmap",
        &[Build],
        "lets an ordinary user own a root file system's files",
    ),
    ("xz-utils", &[Build], "reads the mirror's index"),
    ("zstd", &[Build], "compresses the image for a download"),
    ("squashfs-tools", &[Build], "packs the system slot"),
    ("grub-common", &[Build, Test], "makes the boot loader's images"),
    ("grub-pc-bin", &[Build], "the boot loader for BIOS"),
    ("grub-efi-amd64-bin", &[Build], "the boot loader for UEFI"),
    ("dosfstools", &[Build], "formats the EFI system partition"),
    (
        "mtools",
        &[Build, Flash, Run, Test],
        "copies files to the EFI system partition",
    ),
    ("e2fsprogs", &[Build], "formats the state partition"),
    ("genimage", &[Build], "makes the partition table"),
    ("cpio", &[Buildroot], "packs the initramfs"),
    ("make", &[Upstream], "follows Buildroot's recipes"),
    ("gcc", &[Upstream], "compiles Buildroot's configuration program"),
    ("g++", &[Upstream], "compiles programs that Buildroot runs"),
    ("bc", &[Upstream], "computes constants of the kernel"),
    ("bzip2", &[Upstream], "unpacks sources"),
    ("file", &[Upstream], "tells what Buildroot has built"),
    ("patch", &[Upstream], "applies Buildroot's patches"),
    ("perl", &[Upstream], "runs in many builds"),
    ("rsync", &[Upstream], "copies sources"),
    ("unzip", &[Upstream], "unpacks sources"),
    ("wget", &[Upstream], "fetches sources"),
    ("python3-flake8", &[Upstream], "checks the form of the recipes"),
    ("python3-magic", &[Upstream], "checks the form of the recipes"),
    ("qemu-system-x86", &[Run, Test], "runs the image"),
    ("seabios", &[Run, Test], "BIOS for the virtual machine"),
    ("ovmf", &[Run, Test], "UEFI for the virtual machine"),
    ("openssh-client", &[Run, Test], "logs in to the appliance"),
    ("openssh-server", &[Test], "the real server in tests of client keys"),
    ("dbus-daemon", &[Test], "a bus of their own for tests of the D-Bus face"),
    ("libglib2.0-bin", &[Test], "speaks D-Bus as other programs do"),
    ("mosquitto", &[Run, Test], "the MQTT broker to report to"),
    ("mosquitto-clients", &[Run, Test], "reads what was reported"),
    ("borgbackup", &[Test], "the real backup client"),
    ("gnupg", &[Run, Test], "opens encrypted copies with nothing of ours"),
    ("chrony", &[Run, Test], "tells the virtual machine the time"),
    ("rclone", &[Test], "fetches copies with nothing of ours"),
    ("python3-venv", &[Test], "runs S3 servers that are not ours"),
    ("fdisk", &[Flash, Test], "keeps a partition in the table"),
    ("gdisk", &[Test], "the real tool for partitions"),
    ("exfatprogs", &[Test], "formats the exFAT sticks that tests plug in"),
    ("iproute2", &[Test], "connects network namespaces in tests of the clock"),
    ("openssl", &[Test], "makes certificate authorities for tests"),
    ("systemd", &[Test], "judges schedules as on the appliance"),
    ("shellcheck", &[Test], "checks what little shell there is"),
    ("cron", &[Test], "judges the cron table of a client's kit"),
    (
        "dnsmasq-base",
        &[Thorough],
        "the router's DHCP server in a test of the clock",
    ),
    (
        "socat",
        &[Thorough],
        "connects the virtual machine to that router's network",
    ),
];

/// Makes sure that the packages for `needs` are installed.
///
/// # Errors
/// [`Error::Missing`] with the exact command when some are missing and `install` is false or nobody can become root;
/// otherwise what apt-get said.
pub fn ensure(workspace: &Workspace, needs: &[Need], install: bool) -> Result<()> {
    let missing = missing(needs)?;
    if missing.is_empty() {
        return Ok(());
    }
    let root = rustix::process::geteuid().is_root();
    let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    let command = command_line(&names, root);
    let refuse = |reason| Error::Missing {
        packages: names.join(" "),
        reason,
        command: command.clone(),
    };
    if !install {
        return Err(refuse("not installed, as --no-install asks"));
    }
    if !root && !process::exists("sudo") {
        return Err(refuse("not installed: you are not root, and there is no sudo"));
    }
    eprintln!("Installing with apt what this command needs on this machine:");
    for (package, purpose) in &missing {
        eprintln!("  {package:<24} {purpose}");
    }
    eprintln!("by: {command}");
    let log = workspace.work()?.join("apt.log");
    let mut shell = process::command("sh");
    shell.args(["-c", &command]).env("DEBIAN_FRONTEND", "noninteractive");
    if !root && std::io::stdin().is_terminal() {
        // sudo asks on the terminal, whatever our output is.
        eprintln!("(sudo may ask for your password)");
    }
    process::run_logged("install packages with apt", &mut shell, &log)?;
    // apt may succeed without a package that has no candidate for this architecture.
    let left = self::missing(needs)?;
    if let Some((package, _)) = left.first() {
        return Err(Error::Unexpected {
            what: format!("the package {package}"),
            detail: format!("apt-get ended well but it isn't installed; see {}", log.display()),
        });
    }
    Ok(())
}

/// The shell command that installs `packages`.
fn command_line(packages: &[&str], root: bool) -> String {
    let sudo = if root { "" } else { "sudo " };
    format!(
        "{sudo}apt-get update && {sudo}env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    )
}

fn missing(needs: &[Need]) -> Result<Vec<(&'static str, &'static str)>> {
    let status = std::path::Path::new("/var/lib/dpkg/status");
    let installed = crate::manifest::installed(&std::fs::read_to_string(status).on("read", status)?);
    Ok(PACKAGES
        .iter()
        .filter(|(package, whose, _)| {
            whose.iter().any(|need| needs.contains(need))
                && !installed.contains_key(*package)
                && !(*package == "uidmap" && rustix::process::geteuid().is_root())
        })
        .map(|(package, _, purpose)| (*package, *purpose))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted_by_either() {
        assert!(command_line(&["a", "b"], false).starts_with("sudo apt-get update && sudo env "));
        assert!(command_line(&["a", "b"], true).starts_with("apt-get update && env "));
        assert!(command_line(&["a", "b"], true).ends_with(" a b"));
    }

    #[test]
    fn every_package_says_what_for() {
        for (package, whose, purpose) in PACKAGES {
            assert!(!whose.is_empty() && !purpose.is_empty(), "{package}");
        }
    }
}
