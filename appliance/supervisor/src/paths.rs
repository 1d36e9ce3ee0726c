//! Where everything lies on the appliance. The root is a parameter, so that tests can use a folder of their own.

use std::path::{Path, PathBuf};
use strongroom_model::config::Volume;
use strongroom_model::name::{ClientName, TargetName};

/// Where the array is mounted.
pub const ARRAY_MOUNT: &str = "/mnt/raid";

/// All paths, beneath one root.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Paths {
    /// Paths beneath `root`; `/` on the appliance.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Takes `--root FOLDER` from the front of a program's arguments, as tests give it; the root is `/` without.
    pub fn of_arguments(arguments: &mut Vec<String>) -> Self {
        if arguments.len() < 2 || arguments[0] != "--root" {
            return Self::default();
        }
        let mut first: Vec<String> = arguments.drain(..2).collect();
        Self::new(first.pop().unwrap_or_default())
    }

    /// Any absolute path, beneath the root.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Folder on the ESP where the owner puts the configuration.
    pub fn owner_config(&self) -> PathBuf {
        self.at("/boot/efi/CONFIG")
    }

    /// The last good configuration.
    pub fn config(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/strongroom.toml")
    }

    /// The clients that were enrolled by command, and what holds for any client at once.
    pub fn registry(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/clients.toml")
    }

    /// When the secret key of each recipient was last shown to be there.
    pub fn proofs(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/proofs.json")
    }

    /// The restores from off-site copies that were tried.
    pub fn drills(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/drills.json")
    }

    /// The certificate of the key that signs manifests; the key itself is a sealed secret.
    pub fn signer(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/signer.asc")
    }

    /// The open pairing, with the hash of its code. Gone with a restart of the machine.
    pub fn pairing(&self) -> PathBuf {
        self.at("/run/strongroom/pairing/pairing.json")
    }

    /// Until when a pairing is open, in seconds since the start of the machine; absent when none is.
    pub fn pairing_open(&self) -> PathBuf {
        self.at("/run/strongroom/pairing/open")
    }

    /// What a person should know of pairings.
    pub fn pairing_report(&self) -> PathBuf {
        self.at("/run/strongroom/pairing/report.json")
    }

    /// Where requests to change the registry are heard.
    pub fn clients_socket(&self) -> PathBuf {
        self.at("/run/strongroom/clients.sock")
    }

    /// Public files that the last good configuration names.
    pub fn config_files(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/files")
    }

    /// Which offer was taken over last from each medium.
    pub fn config_sources(&self) -> PathBuf {
        self.at("/var/lib/strongroom/config/sources.json")
    }

    /// Held while a configuration is taken over: one at a time.
    pub fn config_lock(&self) -> PathBuf {
        self.at("/run/strongroom/configure.lock")
    }

    /// How far the wall clock was from the time since the start, in milliseconds, before chronyd set it.
    pub fn clock_at_start(&self) -> PathBuf {
        self.at("/run/strongroom/clock-at-start")
    }

    /// Time servers that DHCP gave, as chronyd reads them; absent when it gave none.
    pub fn time_sources(&self) -> PathBuf {
        self.at("/run/chrony-strongroom/dhcp.sources")
    }

    /// When the configuration was made ready at this start, in microseconds since then.
    pub fn configured(&self) -> PathBuf {
        self.at("/run/strongroom/configured")
    }

    /// Certificate authorities of the owner's own, as one file in PEM; absent when there are none.
    pub fn trust(&self) -> PathBuf {
        self.at("/run/strongroom/trust.pem")
    }

    /// Sealed secrets of one use: `mqtt`, `notices` or `offsite`.
    pub fn secrets(&self, usage: &str) -> PathBuf {
        self.at("/var/lib/strongroom/secrets").join(usage)
    }

    /// Why the last offered configuration was refused, for the status; absent when it was not.
    pub fn config_report(&self) -> PathBuf {
        self.at("/run/strongroom/config-report.json")
    }

    /// What [`crate::disks::array_job`] found and did.
    pub fn array_report(&self) -> PathBuf {
        self.at("/run/strongroom/array.json")
    }

    /// Keeps two runs of [`crate::disks::array_job`] from working at once.
    pub fn array_lock(&self) -> PathBuf {
        self.at("/run/strongroom/array.lock")
    }

    /// Whether the array's file system keeps the bounds of clients, as the role `strongroom-repositories` found.
    pub fn quotas_report(&self) -> PathBuf {
        self.at("/run/strongroom-repositories/quotas.json")
    }

    /// What the role `strongroom-health` found, of this boot.
    pub fn health_report(&self) -> PathBuf {
        self.at("/run/strongroom-health/report.json")
    }

    /// What is remembered of the disks, and of the space used.
    pub fn health_notes(&self) -> PathBuf {
        self.at("/var/lib/strongroom/health/notes.json")
    }

    /// The scrubs as of the last seconds; absent before the first of this boot.
    pub fn scrub_progress(&self) -> PathBuf {
        self.at("/run/strongroom-scrub/scrubs.json")
    }

    /// The scrubs as they are kept.
    pub fn scrubs(&self) -> PathBuf {
        self.at("/var/lib/strongroom/scrub/scrubs.json")
    }

    /// Identity of the array that is being created, and nothing was ever stored on; absent otherwise.
    pub fn array_creating(&self) -> PathBuf {
        self.at("/var/lib/strongroom/array-creating")
    }

    /// Identity of the array that the owner adopted by command.
    pub fn array_adopted(&self) -> PathBuf {
        self.at("/var/lib/strongroom/array-adopted")
    }

    /// Progress and outcome of a client's push.
    pub fn push_report(&self, client: &ClientName) -> PathBuf {
        self.at("/run/strongroom-push")
            .join(client.as_str())
            .join("report.json")
    }

    /// Progress and outcome of the job that copies to a disk.
    pub fn disk_report(&self, target: &TargetName) -> PathBuf {
        self.at("/run/strongroom-disk")
            .join(target.as_str())
            .join("report.json")
    }

    /// Where the disk of a target is mounted while it is copied to.
    pub fn disk_place(&self, target: &TargetName) -> PathBuf {
        self.at("/run/media").join(target.as_str())
    }

    /// The device with a file system of this label or UUID, as udev links to it.
    pub fn volume(&self, volume: &Volume) -> PathBuf {
        let by = if volume.is_uuid() { "by-uuid" } else { "by-label" };
        self.at("/dev/disk").join(by).join(udev_name(volume))
    }

    /// What trying a target out found, by the unit's instance.
    pub fn probe_outcome(&self, instance: &str) -> PathBuf {
        self.at("/run/strongroom-probe").join(format!("{instance}.json"))
    }

    /// What is remembered of one client's repository: by `strongroom-watch` and `strongroom-verify`.
    pub fn watch(&self, client: &ClientName) -> PathBuf {
        self.watches().join(client.as_str())
    }

    /// The folders of [`Self::watch`].
    pub fn watches(&self) -> PathBuf {
        self.at("/var/lib/strongroom/watch")
    }

    /// Progress of one run of `strongroom-verify`.
    pub fn verify_progress(&self, instance: &str) -> PathBuf {
        self.at("/run/strongroom-verify").join(format!("{instance}.json"))
    }

    /// Journal of the compaction, rollback or repair of a client's repository. As long as it stands, the client is held out.
    pub fn upkeep(&self, client: &ClientName) -> PathBuf {
        self.at("/var/lib/strongroom/upkeep").join(format!("{client}.json"))
    }

    /// How the last compaction, rollback or repair of a client's repository ended.
    pub fn upkeep_outcome(&self, client: &ClientName) -> PathBuf {
        self.at("/var/lib/strongroom/upkeep")
            .join(format!("{client}.outcome.json"))
    }

    /// Locked, shared, by each session of a client that is running, and as a whole by the compaction, rollback or repair.
    pub fn session_lock(&self, client: &ClientName) -> PathBuf {
        self.at("/run/strongroom-sessions").join(format!("{client}.lock"))
    }

    /// The past sessions of a client.
    pub fn session_history(&self, client: &ClientName) -> PathBuf {
        self.at("/var/lib/strongroom/sessions").join(format!("{client}.json"))
    }

    /// Where rollbacks keep what they took out of a client's repository. No repository's name ends so.
    pub fn rolled_back(&self, client: &ClientName) -> PathBuf {
        self.at(ARRAY_MOUNT)
            .join(format!("{}.rolled-back", repository_name(client)))
    }

    /// Where repairs keep the damaged segments of a client's repository, and what comes in to replace them. No repository's
    /// name ends so.
    pub fn damaged(&self, client: &ClientName) -> PathBuf {
        self.at(ARRAY_MOUNT)
            .join(format!("{}.damaged", repository_name(client)))
    }

    /// Ledger of one client at one target.
    pub fn ledger(&self, client: &ClientName, target: &TargetName) -> PathBuf {
        self.at("/var/lib/strongroom/offsite")
            .join(client.as_str())
            .join(target.as_str())
    }

    /// What the last comparison of that copy with its ledger found.
    pub fn copy_check(&self, client: &ClientName, target: &TargetName) -> PathBuf {
        self.ledger(client, target).join("verified.json")
    }

    /// A client's repository.
    pub fn repository(&self, client: &ClientName) -> PathBuf {
        self.at(ARRAY_MOUNT).join(repository_name(client))
    }

    /// Number of the last session of this start of the machine.
    pub fn session_number(&self) -> PathBuf {
        self.at("/run/strongroom-sessions/last")
    }

    /// Public half of the SSH host key.
    pub fn host_key(&self) -> PathBuf {
        self.at("/var/lib/strongroom/ssh/ssh_host_ed25519_key.pub")
    }

    /// The EFI system partition of the booted disk.
    pub fn esp(&self) -> PathBuf {
        self.at("/boot/efi")
    }

    /// Held while the EFI system partition is writable.
    pub fn esp_lock(&self) -> PathBuf {
        self.at("/run/strongroom/esp.lock")
    }

    /// GRUB's environment block.
    pub fn grub_environment(&self) -> PathBuf {
        self.esp().join("grub/grubenv")
    }

    /// Whom GRUB asks for a password.
    pub fn grub_users(&self) -> PathBuf {
        self.esp().join("grub/users.cfg")
    }

    /// What survives, on the state partition.
    pub fn state(&self) -> PathBuf {
        self.at("/var/lib/strongroom")
    }

    /// Present while the state partition is lost, and memory stands for it.
    pub fn state_lost(&self) -> PathBuf {
        self.at("/run/strongroom/state-lost")
    }

    /// The key with which systemd seals secrets.
    pub fn credential_secret(&self) -> PathBuf {
        self.at("/var/lib/systemd/credential.secret")
    }

    /// What survives a reflash, on the array. No client can see it.
    pub fn mirror(&self) -> PathBuf {
        self.at(ARRAY_MOUNT).join(".strongroom")
    }

    /// Present while the array may hold an identity that could not be brought back yet.
    pub fn recall_pending(&self) -> PathBuf {
        self.state().join("recall-pending")
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// What the names of repositories on the array end in, after the client's.
pub const REPOSITORY_ENDING: &str = "_repository";

/// Name of a client's repository on the array.
pub fn repository_name(client: &ClientName) -> String {
    format!("{client}{REPOSITORY_ENDING}")
}

/// As udev links to it: the UUID of exFAT in capitals, others in small letters, labels as they are.
pub fn udev_name(volume: &Volume) -> String {
    match volume.as_str() {
        uuid if volume.is_uuid() && uuid.len() == "ABCD-1234".len() => uuid.to_ascii_uppercase(),
        uuid if volume.is_uuid() => uuid.to_ascii_lowercase(),
        label => label.into(),
    }
}
