//! What an appliance talks to, on the host's loopback: an MQTT broker, an S3 store, a time server. All real programs, all
//! stopped when their handle is dropped, and nothing else is.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, OnFile, Result};
use crate::process;
use crate::programs;
use crate::qemu::free_port;
use crate::workspace::Workspace;

/// The account of the broker, and the id of the store's credential.
pub const ACCOUNT: &str = "strongroom";
/// The store's region.
pub const REGION: &str = "eu-trial-1";
/// The store's bucket.
pub const BUCKET: &str = "strongroom-copies";
/// Its second one, of the standard tier.
pub const MANIFESTS: &str = "strongroom-manifests";

/// A program that serves until this is dropped.
#[derive(Debug)]
pub struct Serving(Child);

impl Serving {
    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

/// mosquitto(8) with one account.
#[derive(Debug)]
pub struct Broker {
    /// Its port on loopback.
    pub port: u16,
    /// The password of [`ACCOUNT`].
    pub password: String,
    serving: Serving,
}

impl Broker {
    /// Stops it, as when it is unplugged.
    pub fn stop(&mut self) {
        self.serving.stop();
    }

    /// Starts a broker with its files in `folder`. `port` 0 takes a free one.
    ///
    /// # Errors
    /// When mosquitto can't be started or doesn't listen in time.
    pub fn start(folder: &Path, port: u16, password: &str) -> Result<Self> {
        let port = if port == 0 { free_port()? } else { port };
        std::fs::create_dir_all(folder).on("create", folder)?;
        let accounts = folder.join("mosquitto.passwords");
        std::fs::write(&accounts, format!("{ACCOUNT}:{password}\n")).on("write", &accounts)?;
        process::capture(
            "hash the broker's password",
            process::command("mosquitto_passwd").arg("-U").arg(&accounts),
        )?;
        let config = folder.join("mosquitto.conf");
        // As root it would change to an account that can't read the password file here.
        let user = if rustix::process::geteuid().is_root() {
            "user root\n"
        } else {
            ""
        };
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n{user}persistence false\n",
            accounts.display()
        );
        std::fs::write(&config, text).on("write", &config)?;
        let mut command = bound("mosquitto");
        command.arg("-c").arg(&config);
        let serving = serve(&mut command, &folder.join("mosquitto.log"))?;
        listening("mosquitto", port)?;
        Ok(Self {
            port,
            password: password.to_owned(),
            serving,
        })
    }

    /// A client of mosquitto, `mosquitto_sub` or `mosquitto_pub`, that knows the broker and the account.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = process::command(program);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-u",
            ACCOUNT,
            "-P",
            &self.password,
        ]);
        command
    }
}

/// The strict S3 server of this project, with the buckets [`BUCKET`] and [`MANIFESTS`], and the credential [`ACCOUNT`].
#[derive(Debug)]
pub struct Store {
    /// Its port on loopback.
    pub port: u16,
    /// The secret of the credential.
    pub secret: String,
    /// The folder that holds the objects.
    pub objects: PathBuf,
    serving: Serving,
}

/// What a store does beyond holding objects.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// The port on loopback; 0 takes a free one.
    pub port: u16,
    /// Whether the bucket is of the archive tier. [`MANIFESTS`] never is.
    pub archive: bool,
    /// What the credential may do, in s3-double's words; everything if absent.
    pub permissions: Option<String>,
    /// A cap on what is received, in bytes per second.
    pub bandwidth: Option<u64>,
    /// How long a restore from archive takes, in seconds.
    pub restore_delay: Option<u64>,
}

impl Store {
    /// Stops it, as when the line is down.
    pub fn stop(&mut self) {
        self.serving.stop();
    }

    /// Starts a store with its files in `folder`; what an earlier one left there is still in it.
    ///
    /// # Errors
    /// When it can't be built, started, or doesn't listen.
    pub fn start(workspace: &Workspace, folder: &Path, secret: &str, options: &StoreOptions) -> Result<Self> {
        let program = programs::build_one(workspace, "s3-double")?;
        let objects = folder.join("objects");
        std::fs::create_dir_all(&objects).on("create", &objects)?;
        let secret_file = folder.join("s3-double.secret");
        std::fs::write(&secret_file, secret).on("write", &secret_file)?;
        let log = folder.join("s3-double.log");
        let tier = if options.archive { ":archive" } else { "" };
        let mut command = bound(program);
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", options.port))
            .arg("--dir")
            .arg(&objects)
            .arg("--bucket")
            .arg(format!("{BUCKET}{tier}"))
            .args(["--bucket", MANIFESTS])
            .args(["--region", REGION, "--access-key", ACCOUNT, "--secret-key-file"])
            .arg(&secret_file);
        for (name, value) in [
            ("--permissions", options.permissions.clone()),
            ("--bandwidth", options.bandwidth.map(|value| value.to_string())),
            ("--restore-delay", options.restore_delay.map(|value| value.to_string())),
        ] {
            if let Some(value) = value {
                command.arg(name).arg(value);
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).on("create", &log)?);
        let mut child = command
            .spawn()
            .map_err(|source| process::cannot_start(&command, source))?;
        let mut first = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut first)
                .on("read", Path::new("s3-double's address"))?;
        }
        let serving = Serving(child);
        let port = first
            .trim()
            .rsplit(':')
            .next()
            .and_then(|port| port.trim_end_matches('/').parse().ok());
        let port = port.ok_or_else(|| Error::Unexpected {
            what: "s3-double".to_owned(),
            detail: std::fs::read_to_string(&log).unwrap_or(first),
        })?;
        Ok(Self {
            port,
            secret: secret.to_owned(),
            objects,
            serving,
        })
    }
}

/// chronyd(8) as a time server that believes this machine's clock and never touches it.
#[derive(Debug)]
pub struct TimeServer {
    /// Its UDP port on loopback.
    pub port: u16,
    _serving: Serving,
}

impl TimeServer {
    /// Starts a time server with its files in `folder`.
    ///
    /// # Errors
    /// When chronyd can't be started.
    pub fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        std::fs::create_dir_all(folder).on("create", folder)?;
        let config = folder.join("chronyd.conf");
        let text = format!(
            "local stratum 8\nallow 127.0.0.1\nbindaddress 127.0.0.1\nport {port}\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
            folder.join("chronyd.pid").display()
        );
        std::fs::write(&config, text).on("write", &config)?;
        let mut command = bound("chronyd");
        command.args(["-x", "-U", "-d", "-f"]).arg(&config);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let serving = serve(&mut command, &folder.join("chronyd.log"))?;
        Ok(Self {
            port,
            _serving: serving,
        })
    }
}

/// A program that must not outlive this one, even when this one is killed: it ends with the thread that starts it.
#[must_use]
pub fn bound(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = process::command("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Starts a server that stops when what is returned is dropped; what it says goes into `log`.
///
/// # Errors
/// When it can't be started, or the log not be written.
pub fn serve(command: &mut Command, log: &Path) -> Result<Serving> {
    let out = std::fs::File::create(log).on("create", log)?;
    let err = out.try_clone().on("create", log)?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    command
        .spawn()
        .map(Serving)
        .map_err(|source| process::cannot_start(command, source))
}

fn listening(program: &str, port: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > end {
            return Err(Error::Unexpected {
                what: program.to_owned(),
                detail: format!("does not listen on port {port} of loopback"),
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_ends_with_the_thread_that_started_it_even_when_nobody_stops_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let start = move || {
            let broker = Broker::start(&path, 0, "x").expect("missing `mosquitto`: run `cargo image test`");
            let port = broker.port;
            std::mem::forget(broker);
            port
        };
        let port = std::thread::spawn(start).join().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            assert!(Instant::now() < end, "the broker outlived its thread");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
