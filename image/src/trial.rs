//! A whole trial in one folder: two disks of different size, a broker, a store, a time server, keys, a recipient, and a
//! strongroom.toml that ties them together. What `cargo image run` shows and the end-to-end tests are made of.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::bmap::Bmap;
use crate::error::{OnFile, Result};
use crate::flash;
use crate::loopback::{ACCOUNT, BUCKET, Broker, REGION, Store, StoreOptions, TimeServer};
use crate::owner;
use crate::partitions::MIB;
use crate::process;
use crate::qemu::{Drive, Firmware, HOST, Hardware, Machine};
use crate::ssh::{self, Login};
use crate::workspace::Workspace;

/// Serial number of the disk that the image is written to.
pub const SYSTEM_SERIAL: &str = "STRONGROOM-SYS";
/// Serial number of the second disk.
pub const DATA_SERIAL: &str = "STRONGROOM-DATA";
/// The one client of the default configuration.
pub const CLIENT: &str = "laptop";
const SYSTEM_SIZE: u64 = 8192 * MIB;
const DATA_SIZE: u64 = 3072 * MIB;

/// A trial. Servers stop when it is dropped; files stay.
#[derive(Debug)]
pub struct Trial {
    /// The folder with everything.
    pub folder: PathBuf,
    /// The broker.
    pub broker: Broker,
    /// The store.
    pub store: Store,
    /// The time server.
    pub time: TimeServer,
    /// Public half of the administrator's key.
    pub admin_key: String,
    /// Public half of [`CLIENT`]'s key.
    pub client_key: String,
    workspace: Workspace,
}

impl Trial {
    /// Prepares a trial in `folder` and starts its servers. Keys that are there already are kept.
    ///
    /// # Errors
    /// When a server can't be started or a file can't be written.
    pub fn new(workspace: &Workspace, folder: &Path, store: &StoreOptions) -> Result<Self> {
        std::fs::create_dir_all(folder).on("create", folder)?;
        let config = folder.join("config");
        std::fs::create_dir_all(&config).on("create", &config)?;
        let broker = Broker::start(folder, 0, "trial-mqtt-password")?;
        let store = Store::start(workspace, folder, "trial-s3-secret", store)?;
        let time = TimeServer::start(folder)?;
        let trial = Self {
            admin_key: ssh::key(&folder.join("admin_key"), "admin@trial")?,
            client_key: ssh::key(&folder.join("client_key"), "client@trial")?,
            folder: folder.to_owned(),
            broker,
            store,
            time,
            workspace: workspace.clone(),
        };
        trial.recipient()?;
        write(&config.join("mqtt-password"), &trial.broker.password)?;
        write(&config.join("s3-secret"), &trial.store.secret)?;
        trial.configure(&trial.default_config())?;
        Ok(trial)
    }

    /// The configuration that uses everything.
    #[must_use]
    pub fn default_config(&self) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            r#"[network]
hostname = "strongroom"

[admin]
keys = ["{admin}"]

[array]
system_disk = "{SYSTEM_SERIAL}"
data_disks = ["{DATA_SERIAL}"]
create = true

[mqtt]
host = "{HOST}"
port = {mqtt}
username = "{ACCOUNT}"
password = "mqtt-password"

[[offsite.recipient]]
name = "owner"
certificate = "owner.asc"

[[offsite.target]]
name = "trial"
endpoint = "http://{HOST}:{store}"
region = "{REGION}"
bucket = "{BUCKET}"
access_key_id = "{ACCOUNT}"
secret_key = "s3-secret"
recipients = ["owner"]

[[client]]
name = "{CLIENT}"
keys = ["{client}"]
"#,
            admin = self.admin_key,
            mqtt = self.broker.port,
            store = self.store.port,
            client = self.client_key,
        );
        text
    }

    /// Where the configuration lies on the host.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("config/strongroom.toml")
    }

    /// Writes the configuration on the host; [`Trial::flash`] and [`Trial::put_config`] take it from there.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        write(&self.config_file(), text)
    }

    /// The folder of the recipient's secret key, for `gpg --homedir`.
    #[must_use]
    pub fn gnupg(&self) -> PathBuf {
        self.folder.join("gnupg")
    }

    /// The disks, first the one with the system.
    #[must_use]
    pub fn drives(&self) -> Vec<Drive> {
        [("system.img", SYSTEM_SERIAL), ("data.img", DATA_SERIAL)]
            .map(|(file, serial)| Drive {
                file: self.folder.join(file),
                serial: serial.to_owned(),
            })
            .into()
    }

    /// Makes both disks anew: the built image with the configuration on the first, nothing on the second.
    ///
    /// # Errors
    /// When there is no image or a disk can't be written.
    pub fn flash(&self) -> Result<()> {
        self.flash_disks([SYSTEM_SIZE, DATA_SIZE])
    }

    /// Like [`Trial::flash`], with disks of these sizes in bytes.
    ///
    /// # Errors
    /// When there is no image or a disk can't be written.
    pub fn flash_disks(&self, sizes: [u64; 2]) -> Result<()> {
        let image = flash::built(&self.workspace)?;
        let map = Bmap::read(&self.workspace.product("bmap")?)?;
        for (drive, size) in self.drives().iter().zip(sizes) {
            let file = File::create(&drive.file).on("create", &drive.file)?;
            file.set_len(size).on("extend", &drive.file)?;
        }
        flash::write(&image, &map, &self.drives()[0].file, false)?;
        self.put_config()
    }

    /// Writes the built image onto the system disk again, without any configuration. The data disk is left alone.
    ///
    /// # Errors
    /// When there is no image or the disk can't be written.
    pub fn reflash(&self) -> Result<()> {
        let image = flash::built(&self.workspace)?;
        let map = Bmap::read(&self.workspace.product("bmap")?)?;
        flash::write(&image, &map, &self.drives()[0].file, false)
    }

    /// Puts the configuration on the system disk of a machine that is off.
    ///
    /// # Errors
    /// When mtools fails.
    pub fn put_config(&self) -> Result<()> {
        owner::put(&owner::files(&self.config_file())?, &self.drives()[0].file)
    }

    /// Reads a file of the EFI system partition of a machine that is off.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn read_esp(&self, name: &str) -> Result<Vec<u8>> {
        owner::read(&self.drives()[0].file, name)
    }

    /// The machine with both disks; it asks the trial's time server for the time, beside what its configuration says.
    #[must_use]
    pub fn hardware(&self, name: &str, firmware: Firmware) -> Hardware {
        let mut hardware = Hardware::new(name, &self.folder, firmware, self.drives());
        let sources = format!(
            "f /run/chrony-strongroom/trial.sources 0644 root root - server {HOST} port {} iburst minpoll 2 maxpoll 4\\n",
            self.time.port
        );
        hardware.credentials.push(("tmpfiles.extra".to_owned(), sources));
        hardware
    }

    /// Logs in as the administrator.
    #[must_use]
    pub fn admin(&self, machine: &Machine) -> Login {
        Login {
            shared: Some(self.folder.join(format!("ssh.{}", machine.ssh_port()))),
            ..self.login("admin", "admin_key", machine)
        }
    }

    /// Logs in as the client.
    #[must_use]
    pub fn client(&self, machine: &Machine) -> Login {
        self.login("borgbackup", "client_key", machine)
    }

    fn login(&self, user: &str, key: &str, machine: &Machine) -> Login {
        Login {
            user: user.to_owned(),
            key: self.folder.join(key),
            port: machine.ssh_port(),
            known_hosts: self.folder.join(format!("known_hosts.{}", machine.ssh_port())),
            shared: None,
        }
    }

    /// The recipient of off-site copies: a key made with gpg, its certificate beside the configuration.
    fn recipient(&self) -> Result<()> {
        let certificate = self.folder.join("config/owner.asc");
        if certificate.exists() {
            return Ok(());
        }
        let home = self.gnupg();
        std::fs::create_dir_all(&home).on("create", &home)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&home, private).on("protect", &home)?;
        let gpg = || {
            let mut command = process::command("gpg");
            command
                .arg("--homedir")
                .arg(&home)
                .args(["--batch", "--quiet", "--passphrase", ""]);
            command
        };
        let name = "Strongroom trial";
        let mut generate = gpg();
        generate.args(["--quick-generate-key", name, "default", "default", "never"]);
        process::capture("make the recipient's key", &mut generate)?;
        let mut export = gpg();
        export.args(["--armor", "--export", name]);
        let text = process::capture("export the recipient's certificate", &mut export)?;
        let mut stop = process::command("gpgconf");
        stop.arg("--homedir").arg(&home).args(["--kill", "gpg-agent"]);
        process::capture("stop the agent that gpg started", &mut stop)?;
        write(&certificate, &text)
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).on("write", file)
}
