//! A real client on this machine: borg, with the key and the repository of one client of the trial.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::ssh::Login;

/// One client of a running machine.
pub struct Client {
    login: Login,
    repository: String,
    folder: PathBuf,
}

impl Client {
    /// The client `name`, which logs in as `login`; its caches lie in `folder`.
    pub fn new(name: &str, login: Login, folder: &Path) -> Self {
        let folder = folder.join(format!("client-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            login,
            repository: format!("borgbackup@127.0.0.1:/mnt/raid/{name}_repository"),
            folder,
        }
    }

    /// How it logs in.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The same key, but asking for another repository.
    pub fn asking_for(&self, repository: &str) -> Self {
        Self {
            login: self.login.clone(),
            repository: format!("borgbackup@127.0.0.1:{repository}"),
            folder: self.folder.clone(),
        }
    }

    /// Runs borg, whatever its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// borg with these arguments, ready to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("borg");
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("BORG_REPO", &self.repository)
            .env("BORG_RSH", self.login.shell())
            .env("BORG_BASE_DIR", self.folder.join("borg"));
        quiet(&mut command);
        command
    }

    /// Runs borg and returns what it printed on standard output; it must end well.
    pub fn borg(&self, arguments: &[&str]) -> String {
        succeed(self.output(arguments), arguments)
    }

    /// Names of all archives.
    pub fn archives(&self) -> Vec<String> {
        self.borg(&["list", "--short"]).lines().map(str::to_owned).collect()
    }

    /// Extracts an archive into a new folder and returns it.
    pub fn extract(&self, archive: &str) -> PathBuf {
        let into = self.folder.join(format!("extracted-{archive}"));
        let _ = std::fs::remove_dir_all(&into);
        std::fs::create_dir_all(&into).unwrap();
        let name = format!("::{archive}");
        let output = self.command(&["extract", &name]).current_dir(&into).output().unwrap();
        succeed(output, &["extract", &name]);
        into
    }
}

/// borg on a repository on this machine, with caches of its own, so that it knows nothing of any other state.
pub fn local_borg(repository: &Path, caches: &Path, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("borg");
    command
        .args(arguments)
        .current_dir(folder)
        .env("BORG_REPO", repository)
        .env("BORG_BASE_DIR", caches);
    quiet(&mut command);
    succeed(command.output().unwrap(), arguments)
}

/// Answers to the questions that borg asks people.
fn quiet(command: &mut Command) {
    command
        // So that the lock of a client that was killed is known to be stale, whatever this machine's name.
        .env("BORG_HOST_ID", "trial@trial")
        .env("BORG_PASSPHRASE", "trial")
        .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
        .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
}

fn succeed(output: Output, arguments: &[&str]) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "borg {arguments:?}: {}\n{errors}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Files to back up: text that compresses, bytes that don't, an empty file, a name with a space.
pub fn make_files(folder: &Path, random_bytes: usize) {
    std::fs::create_dir_all(folder.join("letters")).unwrap();
    let text: String = (0..20_000)
        .map(|line| format!("line {line} of a long letter\n"))
        .collect();
    std::fs::write(folder.join("letters/long letter.txt"), text).unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::write(folder.join("photo"), random(random_bytes)).unwrap();
}

/// Bytes that neither compress nor repeat.
pub fn random(length: usize) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::with_capacity(length);
    let source = std::fs::File::open("/dev/urandom").unwrap();
    source.take(length as u64).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Both folders hold the same files with the same bytes.
pub fn assert_same(one: &Path, other: &Path) {
    let output = Command::new("diff").arg("-r").arg(one).arg(other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
