//! The real sshd with the appliance's own configuration, on loopback.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::role;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use strongroom_model::ssh_key::SshPublicKey;
use strongroom_supervisor::paths::Paths;

/// Our programs.
pub const SERVE: &str = "strongroom-serve";
pub const PAIR: &str = "strongroom-pair";

/// Not below /tmp, which a session may write to: in its unit it has one of its own.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

pub fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .unwrap_or_else(|error| panic!("missing `{name}` ({error}): run `cargo image test`, which installs it"))
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Which of the appliance's logins this user stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// `borgbackup`, with the keys of the appliance in that folder.
    Client,
    /// `pair`.
    Pair,
}

/// The appliance's sshd, with this user in place of its accounts.
pub struct Sshd {
    pub folder: tempfile::TempDir,
    child: Child,
    port: u16,
    user: String,
}

impl Sshd {
    /// Starts it. The folder is the root of an appliance as well; `key` is the key of whoever comes.
    pub fn start(login: As) -> Self {
        let folder = folder();
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["host", "key"] {
            make_key(&place(name));
        }
        fs::write(place("keys"), "").unwrap();
        let user = String::from_utf8(run(Command::new("id").arg("-un")).stdout).unwrap();
        let user = user.trim().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let account = match login {
            As::Client => "borgbackup",
            As::Pair => "pair",
        };
        let root = folder.path().display();
        let config = include_str!("../../../../rootfs-overlay/etc/ssh/sshd_config")
            .replace("/var/lib/strongroom/ssh/ssh_host_ed25519_key", &place("host"))
            .replace("/run/strongroom/authorized_keys/%u", &place("keys"))
            .replace("AllowUsers borgbackup admin pair", &format!("AllowUsers {user}"))
            .replace(&format!("Match User {account}"), &format!("Match User {user}"))
            // sshd runs only what root alone could have written.
            .replace(
                "/usr/lib/strongroom/strongroom-pair keys",
                &format!("/usr/bin/env {} --root {root} keys", role(PAIR)),
            )
            .replace(
                "AuthorizedKeysCommandUser pair",
                &format!("AuthorizedKeysCommandUser {user}"),
            )
            .replace("PermitRootLogin no", "PermitRootLogin prohibit-password")
            .replace("UsePAM yes", "UsePAM no")
            // Unknown to sshd before 9.8.
            .replace("PerSourcePenalties no", "");
        fs::write(
            place("config"),
            format!("Port {port}\nListenAddress 127.0.0.1\nPidFile none\nStrictModes no\n{config}"),
        )
        .unwrap();
        if user == "root" {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &place("config")])
            .stderr(fs::File::create(place("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("missing `sshd` ({error}): run `cargo image test`, which installs it"));
        let sshd = Self {
            folder,
            child,
            port,
            user,
        };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return sshd;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("sshd does not listen");
    }

    /// The appliance whose root its folder is.
    pub fn paths(&self) -> Paths {
        Paths::new(self.folder.path())
    }

    /// A connection on which nothing is said.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// A file in its folder.
    pub fn place(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    /// The key of whoever comes.
    pub fn key(&self) -> SshPublicKey {
        SshPublicKey::parse(&fs::read_to_string(self.place("key.pub")).unwrap()).unwrap()
    }

    /// What sshd admits from now on.
    pub fn admit(&self, lines: &str) {
        fs::write(self.place("keys"), lines).unwrap();
    }

    /// Runs ssh to its end.
    pub fn ssh(&self, options: &[&str], remote: &[&str]) -> Output {
        run(&mut self.command(options, remote))
    }

    /// Runs ssh without listening to it, as for one that goes on in the background.
    pub fn ssh_apart(&self, options: &[&str]) -> ExitStatus {
        let mut command = self.command(options, &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A repository in its folder, as Borg's clients name it.
    pub fn repository(&self, name: &str) -> String {
        format!("ssh://{}@127.0.0.1{}", self.user, self.place(name))
    }

    /// For `BORG_RSH`.
    pub fn shell(&self) -> String {
        format!("ssh {}", self.options().join(" "))
    }

    fn options(&self) -> Vec<String> {
        let mut options: Vec<String> = ["-F", "none", "-i", &self.place("key")].map(String::from).into();
        for option in [
            format!("Port={}", self.port),
            "IdentitiesOnly=yes".into(),
            "BatchMode=yes".into(),
            "StrictHostKeyChecking=accept-new".into(),
            format!("UserKnownHostsFile={}", self.place("known")),
            "LogLevel=ERROR".into(),
        ] {
            options.extend(["-o".into(), option]);
        }
        options
    }

    fn command(&self, options: &[&str], remote: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(self.options())
            .args(options)
            .arg(format!("{}@127.0.0.1", self.user))
            .args(remote)
            .stdin(Stdio::null());
        command
    }
}

/// Makes an Ed25519 key without a passphrase.
pub fn make_key(file: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f", file]);
    assert!(run(&mut command).status.success());
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
