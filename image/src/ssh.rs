//! Logging in to a machine with the real ssh, as tests and demonstrations do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::error::{Error, OnFile, Result};
use crate::process;

/// How to log in.
#[derive(Debug, Clone)]
pub struct Login {
    /// The account.
    pub user: String,
    /// The private key's file.
    pub key: PathBuf,
    /// The port on loopback.
    pub port: u16,
    /// Where host keys are remembered. The first one seen is trusted; another one later is refused.
    pub known_hosts: PathBuf,
    /// The socket by which [`Login::command`] goes through one connection for all (ControlMaster in ssh_config(5)); none where
    /// each is to log in anew. In an emulated machine a log-in takes ten times as long as what comes after it.
    pub shared: Option<PathBuf>,
}

/// Longest path of a socket, in bytes, less what ssh adds to it while it makes one (unix(7): 108).
const SOCKET_PATH_MAX: usize = 88;

impl Login {
    /// ssh's options that hold for this login, whatever the user's own configuration says.
    #[must_use]
    pub fn options(&self) -> Vec<String> {
        let mut options = vec![
            "-F".to_owned(),
            "none".to_owned(),
            "-i".to_owned(),
            self.key.display().to_string(),
        ];
        for option in [
            "IdentitiesOnly=yes".to_owned(),
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=accept-new".to_owned(),
            format!("UserKnownHostsFile={}", self.known_hosts.display()),
            "ConnectTimeout=10".to_owned(),
            "ServerAliveInterval=15".to_owned(),
            "ServerAliveCountMax=4".to_owned(),
            "LogLevel=ERROR".to_owned(),
            format!("Port={}", self.port),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }

    /// The whole as one command line, for `BORG_RSH` and the like.
    #[must_use]
    pub fn shell(&self) -> String {
        format!("ssh {}", self.options().join(" "))
    }

    /// ssh with this login and a command to run there.
    #[must_use]
    pub fn command(&self, remote: &str) -> Command {
        let mut command = process::command("ssh");
        let shared = self.shared.iter();
        for socket in shared.filter(|socket| socket.as_os_str().len() <= SOCKET_PATH_MAX) {
            command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o"]);
            command.arg(format!("ControlPath={}", socket.display()));
            // A machine that started again says nothing of it; of two values ssh takes the first.
            command.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=6"]);
        }
        command
            .args(self.options())
            .arg(format!("{}@127.0.0.1", self.user))
            .arg(remote);
        command
    }

    /// Runs a command there, whatever its status.
    ///
    /// # Errors
    /// When ssh can't be started.
    pub fn output(&self, remote: &str) -> Result<Output> {
        process::output_of(&mut self.command(remote))
    }

    /// Runs a command there and returns what it printed.
    ///
    /// # Errors
    /// When it ends with another status than 0, or the login fails.
    pub fn run(&self, remote: &str) -> Result<String> {
        let output = self.output(remote)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Program {
            purpose: format!("run `{remote}` as {}", self.user),
            program: "ssh".to_owned(),
            status: output.status,
            log: None,
            output: String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout),
        })
    }
}

/// Makes an ed25519 key pair without a passphrase, unless it is there, and returns the public key's line.
///
/// # Errors
/// When ssh-keygen fails.
pub fn key(file: &Path, comment: &str) -> Result<String> {
    if !file.exists() {
        let mut command = process::command("ssh-keygen");
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
            .arg(file);
        process::capture("make an SSH key", &mut command)?;
    }
    let public = file.with_extension("pub");
    Ok(std::fs::read_to_string(&public).on("read", &public)?.trim().to_owned())
}
