//! What the real Borg says to what was restored. It gets folders of its own for caches and security notes: with those of a
//! client that knows a later state, it would say "Cache is newer".

use super::RestoreFailure;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use strongroom_borg::{Archives, Protection, Repository};
use tempfile::TempDir;
use zeroize::Zeroizing;

const PROGRAM: &str = "borg";
/// Any of these, and Borg has no need to ask for the passphrase.
const PASSPHRASES: [&str; 3] = ["BORG_PASSPHRASE", "BORG_PASSCOMMAND", "BORG_PASSPHRASE_FD"];

/// The Borg of this computer, with folders of its own.
pub struct Borg {
    base: TempDir,
    /// Of the archives; told by the environment, or asked for by Borg, when there is none.
    passphrase: Option<Zeroizing<String>>,
}

/// How far the archives could be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// All of them.
    Whole,
    /// The repository alone: its archives need a passphrase that nobody gave.
    RepositoryOnly,
}

impl Borg {
    /// `None`: there is no Borg here.
    pub fn find() -> Result<Option<Self>, RestoreFailure> {
        let found = Command::new(PROGRAM)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let base = TempDir::with_prefix("strongroom-borg-")
            .map_err(|error| RestoreFailure::Write(std::env::temp_dir(), error))?;
        Ok(Some(Self { base, passphrase: None }))
    }

    /// Asks for the passphrase of the archives once, if there is somebody to ask and the environment does not tell it: Borg
    /// would ask at each call.
    pub fn ask_passphrase(&mut self, repository: &Path) -> Result<(), RestoreFailure> {
        if needs_passphrase(repository) && !is_passphrase_told() && std::io::stdin().is_terminal() {
            let typed = rpassword::prompt_password("Passphrase of the client's repository: ");
            self.passphrase = Some(Zeroizing::new(typed.map_err(RestoreFailure::Passphrase)?));
        }
        Ok(())
    }

    /// A call of it. Borg may ask for a passphrase where a person can answer.
    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        if let Some(keys) = keys() {
            command.env("BORG_KEYS_DIR", keys);
        }
        if let Some(passphrase) = &self.passphrase {
            command.env(PASSPHRASES[0], passphrase.as_str());
        }
        command
            .env("BORG_BASE_DIR", self.base.path())
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
            .stdin(if std::io::stdin().is_terminal() {
                Stdio::inherit()
            } else {
                Stdio::null()
            });
        command
    }

    /// Runs `borg check`: the repository, then its archives if they can be read.
    pub fn check(&self, repository: &Path) -> Result<Checked, RestoreFailure> {
        self.check_repository(repository)?;
        if !can_open_archives(repository) {
            return Ok(Checked::RepositoryOnly);
        }
        self.check_archives(repository)?;
        Ok(Checked::Whole)
    }

    /// Runs `borg check` on the repository alone.
    pub fn check_repository(&self, repository: &Path) -> Result<(), RestoreFailure> {
        self.run(
            "check",
            self.command().args(["check", "--repository-only"]).arg(repository),
        )
    }

    /// Runs `borg check` on the archives of a repository that was checked.
    pub fn check_archives(&self, repository: &Path) -> Result<(), RestoreFailure> {
        self.run(
            "check",
            self.command().args(["check", "--archives-only"]).arg(repository),
        )
    }

    /// Runs a call to its end. What Borg says goes to standard error.
    fn run(&self, verb: &'static str, command: &mut Command) -> Result<(), RestoreFailure> {
        let status = command
            .stdout(Stdio::null())
            .status()
            .map_err(|error| RestoreFailure::Borg(verb, error.to_string()))?;
        if status.success() {
            Ok(())
        } else {
            Err(RestoreFailure::Borg(verb, status.to_string()))
        }
    }
}

/// Whether its archives can be read without a passphrase or a key file. What can't be told is left to Borg.
pub fn needs_passphrase(repository: &Path) -> bool {
    let archives = || {
        let repository = Repository::open(repository).ok()?;
        let last = repository.last_commit().ok()??.transaction;
        repository.archives(last).ok()
    };
    match archives() {
        Some(Archives::NeedKey) => true,
        Some(Archives::Listed(manifest)) => manifest.protection != Protection::None,
        None => false,
    }
}

/// Whether Borg gets what it needs for the archives: nothing, or a passphrase from the environment or a person.
pub fn can_open_archives(repository: &Path) -> bool {
    !needs_passphrase(repository) || is_passphrase_told() || std::io::stdin().is_terminal()
}

fn is_passphrase_told() -> bool {
    PASSPHRASES.iter().any(|name| std::env::var_os(name).is_some())
}

/// Where this user's key files are, which Borg would look for beneath its own folders otherwise.
fn keys() -> Option<PathBuf> {
    if std::env::var_os("BORG_KEYS_DIR").is_some() {
        return None;
    }
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let settings =
        of("XDG_CONFIG_HOME").or_else(|| Some(of("BORG_BASE_DIR").or_else(|| of("HOME"))?.join(".config")))?;
    let keys = settings.join("borg/keys");
    keys.is_dir().then_some(keys)
}
