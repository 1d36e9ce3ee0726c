//! A folder that stands for the appliance's root, with the repository of a client made by the real `borg`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use strongroom_model::condition::{Condition, ConditionId};
use strongroom_model::name::ClientName;
use strongroom_model::verification::{self, Verification};
use strongroom_model::watch::{self, Record};
use strongroom_supervisor::paths::Paths;
use strongroom_supervisor::watch::{store, verify_job, watch_job};

const KEYS: [(&str, &str); 2] = [
    (
        "asus",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmL7ieP3gwJuuv6cGpAjCJwCoozRsUMrUS26sQVj3aO a",
    ),
    (
        "laptop",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBbGCnrVR+MkRRvhHF3kdfCGBuDsyP5ArmEVCOcyFJWY b",
    ),
];

pub struct Appliance {
    pub folder: tempfile::TempDir,
    pub paths: Paths,
    pub name: ClientName,
}

impl Appliance {
    /// With two clients, and a repository of the first.
    pub fn new(encryption: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let config: String = KEYS
            .iter()
            .map(|(name, key)| format!("[[client]]\nname = \"{name}\"\nkeys = [\"{key}\"]\n"))
            .collect();
        fs::create_dir_all(paths.config().parent().unwrap()).unwrap();
        fs::write(paths.config(), config).unwrap();
        let one = Self {
            name: ClientName::new("asus").unwrap(),
            folder,
            paths,
        };
        fs::create_dir_all(one.repository()).unwrap();
        one.borg(&["init", "--encryption", encryption]);
        one
    }

    pub fn repository(&self) -> PathBuf {
        self.paths.repository(&self.name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("borg");
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("BORG_REPO", self.repository())
            .env("BORG_BASE_DIR", self.folder.path().join("base"))
            .env("BORG_PASSPHRASE", "a test's")
            // `init` would take it as well.
            .envs((arguments[0] == "key").then_some(("BORG_NEW_PASSPHRASE", "another")))
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    pub fn try_borg(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .unwrap_or_else(|error| panic!("borg: {error}; `cargo image test` installs it"))
    }

    pub fn borg(&self, arguments: &[&str]) -> String {
        let output = self.try_borg(arguments);
        assert!(
            output.status.success(),
            "borg {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn write(&self, file: &str, length: usize, seed: u64) {
        let path = self.folder.path().join("files").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(length, seed)).unwrap();
    }

    pub fn create(&self, archive: &str) {
        self.borg(&["create", "-C", "none", &format!("::{archive}"), "files"]);
    }

    pub fn look(&self) -> Record {
        watch_job::run(&self.paths, Some("asus"), false).unwrap();
        self.record()
    }

    pub fn accept(&self) -> Record {
        watch_job::run(&self.paths, Some("asus"), true).unwrap();
        self.record()
    }

    pub fn record(&self) -> Record {
        match store::read_record(&self.paths.watch(&self.name)) {
            store::Read::Known(record) => *record,
            _ => panic!("no record"),
        }
    }

    pub fn verify(&self, instance: &str) -> Verification {
        verify_job::run(&self.paths, Some(instance)).unwrap();
        self.verification()
    }

    pub fn verification(&self) -> Verification {
        store::read_verification(&self.paths.watch(&self.name))
    }

    pub fn conditions(&self) -> Vec<Condition> {
        let mut all = watch::decide(&self.name, &self.record());
        all.extend(verification::decide(&self.name, &self.verification(), 30, None));
        all
    }

    pub fn ids(&self) -> Vec<ConditionId> {
        self.conditions().iter().map(|condition| condition.id).collect()
    }

    /// The segment that holds these bytes, its path, and where in it they are.
    pub fn holding(&self, content: &[u8]) -> (u32, PathBuf, usize) {
        let folder = self.repository().join("data/0");
        fs::read_dir(folder)
            .unwrap()
            .find_map(|entry| {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                let at = bytes.windows(64).position(|window| window == &content[..64])?;
                Some((path.file_name()?.to_str()?.parse().ok()?, path, at))
            })
            .unwrap()
    }
}

/// Bytes that do not compress and do not repeat.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
