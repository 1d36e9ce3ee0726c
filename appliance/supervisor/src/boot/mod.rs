//! The role `strongroom-boot`: marks this start as good in GRUB's environment block, and gives the disk its identity.
//!
//! A start is good by local facts alone: the supervisor runs, sshd answers, the state partition takes writes. Never by
//! the network, the time, the broker or the array, whose failure an older system would not mend.

pub mod console_password;
pub mod environment;

use crate::durable;
use crate::esp::{self, EspError};
use crate::paths::Paths;
use crate::services::command::{self, CommandError};
use environment::Environment;
use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long sshd may take to greet.
const GREETING: Duration = Duration::from_secs(20);

/// Why a start is not good, or could not be marked.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A unit that must run doesn't.
    #[error("the supervisor or sshd does not run: {0}")]
    Unit(#[from] CommandError),
    /// sshd does not answer.
    #[error("sshd does not answer: {0}")]
    Ssh(io::Error),
    /// State is kept in memory, or takes no writes.
    #[error("the state partition can't be written: {0}")]
    State(io::Error),
    /// GRUB did not say which slot it started.
    #[error("the kernel line names no slot")]
    NoSlot,
    /// grubenv could not be changed.
    #[error(transparent)]
    Esp(#[from] EspError),
}

/// Checks and marks. An error means: not good yet, try again.
pub fn run(paths: &Paths) -> Result<(), BootError> {
    let slot = slot(&fs::read_to_string(paths.at("/proc/cmdline")).unwrap_or_default()).ok_or(BootError::NoSlot)?;
    command::run("systemctl", &["is-active", "--quiet", "strongroomd.service"], "")?;
    command::run("systemctl", &["is-active", "--quiet", "ssh.service"], "")?;
    ssh_answers(SocketAddr::from((Ipv4Addr::LOCALHOST, 22))).map_err(BootError::Ssh)?;
    if let Ok(why) = fs::read_to_string(paths.at("/run/strongroom/state-lost")) {
        return Err(BootError::State(io::Error::other(why)));
    }
    durable::write(&paths.state().join("last-good-start"), slot.as_bytes(), 0o644).map_err(BootError::State)?;
    mark(paths, slot)?;
    Ok(())
}

fn slot(kernel_line: &str) -> Option<&'static str> {
    let named = kernel_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("strongroom.slot="))?;
    ["A", "B"].into_iter().find(|slot| *slot == named)
}

fn ssh_answers(address: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&address, GREETING)?;
    connection.set_read_timeout(Some(GREETING))?;
    let mut greeting = [0; 4];
    connection.read_exact(&mut greeting)?;
    if &greeting == b"SSH-" {
        Ok(())
    } else {
        Err(io::Error::other("what answers there is no SSH server"))
    }
}

/// The slot has proved itself and is no longer on trial. A disk without an identity gets one.
fn mark(paths: &Paths, slot: &str) -> Result<(), EspError> {
    let path = paths.grub_environment();
    let old = Environment::load(&path)?;
    let mut new = old.clone();
    new.set(&format!("{slot}_OK"), "1");
    new.set(&format!("{slot}_TRY"), "0");
    if new.get("DISK_ID").is_none_or(str::is_empty) {
        let id = fs::read_to_string(paths.at("/proc/sys/kernel/random/uuid"))?;
        new.set("DISK_ID", &id.trim().replace('-', ""));
    }
    if new == old {
        return Ok(());
    }
    esp::writable(paths, || new.save(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn the_slot_comes_from_the_kernel_line() {
        assert_eq!(slot("root=x strongroom.slot=B quiet"), Some("B"));
        assert_eq!(slot("strongroom.slot=C"), None);
        assert_eq!(slot(""), None);
    }

    #[test]
    fn the_slot_is_marked_and_the_disk_gets_an_identity_once() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let path = paths.grub_environment();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(paths.at("/proc/sys/kernel/random")).unwrap();
        fs::write(paths.at("/proc/sys/kernel/random/uuid"), "12-34\n").unwrap();
        let mut block = b"# GRUB Environment Block\nORDER=A B\nA_OK=0\nA_TRY=1\nB_OK=1\nB_TRY=1\n".to_vec();
        block.resize(1024, b'#');
        fs::write(&path, block).unwrap();
        mark(&paths, "A").unwrap();
        fs::write(paths.at("/proc/sys/kernel/random/uuid"), "56-78\n").unwrap();
        mark(&paths, "A").unwrap();
        let marked = Environment::load(&path).unwrap();
        let values = ["ORDER", "A_OK", "A_TRY", "B_OK", "B_TRY", "DISK_ID"].map(|name| marked.get(name).unwrap());
        assert_eq!(values, ["A B", "1", "0", "1", "1", "1234"]);
    }

    #[test]
    fn only_an_ssh_server_will_do() {
        for (greeting, good) in [("SSH-2.0-OpenSSH\r\n", true), ("HTTP/1.1\r\n", false), ("", false)] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(greeting.as_bytes()));
            assert_eq!(ssh_answers(address).is_ok(), good, "{greeting}");
            server.join().unwrap().unwrap();
        }
    }
}
