//! Who pushes: we, in both modes, and the tools that are installed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use strongroom_offsite::openpgp::Mode;
use strongroom_offsite::retire::Rules;
use strongroom_offsite::{Encryption, Limits, PushRequest, Target, Tuning, VerifyRequest, push, trust, verify};

use crate::measure::{self, Cost};
use crate::support::{Gpg, changed, credentials, run, target_at};
use crate::{corpus, sink};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    Ours(Mode),
    /// rclone's own encryption, as fast as it goes.
    RcloneCrypt,
    /// As the original recipe did it: every file by gpg, then all of them by rclone.
    GpgThenRclone,
}

impl Contestant {
    pub const ALL: [Self; 4] = [
        Self::Ours(Mode::Cfb),
        Self::Ours(Mode::Ocb),
        Self::RcloneCrypt,
        Self::GpgThenRclone,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours(Mode::Cfb) => "strongroom, CFB",
            Self::Ours(Mode::Ocb) => "strongroom, OCB",
            Self::RcloneCrypt => "rclone crypt, cutoff 5G, 3 transfers",
            Self::GpgThenRclone => "gpg (compressing, as usual), then rclone",
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// Whether its tools are installed; says so when they are not.
    pub fn is_here(self) -> bool {
        let needs: &[&str] = match self {
            Self::Ours(_) => &[],
            Self::RcloneCrypt => &["rclone"],
            Self::GpgThenRclone => &["gpg", "rclone"],
        };
        needs.iter().all(|tool| {
            let version = Command::new(tool).arg("--version").output();
            match &version {
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stdout);
                    println!("{}", text.lines().next().unwrap_or_default());
                }
                Err(_) => println!("{tool} is not installed: `{}` is left out", self.name()),
            }
            version.is_ok()
        })
    }
}

/// Where it happens: corpus, keys, the sink's process.
pub struct Place {
    dir: tempfile::TempDir,
    gpg: Gpg,
    sink: Child,
    endpoint: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.sink.kill();
        let _ = self.sink.wait();
    }
}

impl Place {
    /// With a repository of so many bytes, and the sink at the end of this line.
    pub fn new(bytes: usize, line: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        corpus::new(&dir.path().join("repository"));
        let gpg = Gpg::new();
        gpg.generate("owner", "rsa4096", "0", "");
        fs::write(dir.path().join("owner.pgp"), gpg.export("owner")).unwrap();
        sink::certificates(dir.path());
        let mut sink = Command::new(std::env::current_exe().unwrap())
            .arg("sink")
            .arg(dir.path())
            .arg(line)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(sink.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let place = Self {
            endpoint: format!("https://localhost:{}", port.trim()),
            dir,
            gpg,
            sink,
        };
        place.grow(bytes);
        place
    }

    /// Adds so many bytes to the repository.
    pub fn grow(&self, bytes: usize) {
        corpus::grow(&self.dir.path().join("repository"), bytes);
    }

    /// Pushes everything to where nothing is yet.
    pub fn full(&self, contestant: Contestant) -> Cost {
        self.push(
            contestant,
            &std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string(),
        )
    }

    /// Pushes what is not yet below this prefix.
    pub fn push(&self, contestant: Contestant, prefix: &str) -> Cost {
        match contestant {
            Contestant::Ours(mode) => measure::run(
                Command::new(std::env::current_exe().unwrap())
                    .arg("push")
                    .arg(self.dir.path())
                    .arg(&self.endpoint)
                    .arg(format!("{mode:?}"))
                    .arg(prefix),
            ),
            Contestant::RcloneCrypt => {
                let obscured = run(Command::new("rclone").args(["obscure", "a password of this bench"])).stdout;
                let mut command = Command::new("rclone");
                self.rclone(&mut command)
                    .env("RCLONE_CONFIG_CRYPTED_TYPE", "crypt")
                    .env("RCLONE_CONFIG_CRYPTED_REMOTE", format!("sink:bucket/{prefix}"))
                    .env(
                        "RCLONE_CONFIG_CRYPTED_PASSWORD",
                        String::from_utf8(obscured).unwrap().trim(),
                    )
                    .args(["copy", "--transfers", "3", "--s3-upload-cutoff", "5G"])
                    .arg(self.dir.path().join("repository"))
                    .arg("crypted:");
                measure::run(&mut command)
            }
            Contestant::GpgThenRclone => {
                let script = "set -e; cd \"$1\"; rm -rf sealed; find repository -type f | while read -r file; do \
                    mkdir -p \"sealed/$(dirname \"$file\")\"; \
                    gpg --homedir \"$2\" --batch --quiet --trust-model always --recipient owner \
                        --output \"sealed/$file.gpg\" --encrypt \"$file\"; done; \
                    rclone copy sealed \"$3\"";
                let mut command = Command::new("sh");
                self.rclone(&mut command)
                    .args(["-c", script, "sh"])
                    .arg(self.dir.path())
                    .arg(self.gpg.home())
                    .arg(format!("sink:bucket/{prefix}"));
                measure::run(&mut command)
            }
        }
    }

    fn rclone<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let own = self.dir.path().join("rclone.conf");
        fs::write(&own, "").unwrap();
        command
            // Another authority there stops the library that it speaks S3 with.
            .env_remove("AWS_CA_BUNDLE")
            .env("RCLONE_CONFIG", own)
            .env("RCLONE_CA_CERT", self.dir.path().join("ca.pem"))
            .env("RCLONE_CONFIG_SINK_TYPE", "s3")
            .env("RCLONE_CONFIG_SINK_PROVIDER", "Other")
            .env("RCLONE_CONFIG_SINK_ENDPOINT", &self.endpoint)
            .env("RCLONE_CONFIG_SINK_REGION", "eu-frankfurt-1")
            .env("RCLONE_CONFIG_SINK_ACCESS_KEY_ID", "ALL")
            .env("RCLONE_CONFIG_SINK_SECRET_ACCESS_KEY", "all-secret")
            .env("RCLONE_CONFIG_SINK_NO_CHECK_BUCKET", "true")
    }
}

/// The contestant that we are: one push, and the comparison with a list of the bucket, in this process.
pub fn push_here(arguments: &[String]) {
    let [dir, endpoint, mode, prefix] = arguments else {
        panic!("folder, endpoint, mode and prefix are wanted");
    };
    let dir = PathBuf::from(dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let request = PushRequest {
        repository: dir.join("repository"),
        target: Target {
            prefix: prefix.clone(),
            ..changed(&target_at(endpoint.clone(), "bucket"), |at| {
                at.trust = trust::parse(&fs::read(dir.join("ca.pem")).unwrap()).unwrap();
            })
        },
        credentials: credentials("ALL"),
        recipients: vec![fs::read(dir.join("owner.pgp")).unwrap()],
        encryption: Encryption::Always(if mode == "Ocb" { Mode::Ocb } else { Mode::Cfb }),
        signer: None,
        limits: Limits::default(),
        retirement: Rules::default(),
        ledger: dir.join(format!("ledger-{prefix}")),
        now: now.as_secs(),
    };
    let tuning = Tuning::default();
    runtime.block_on(push(&request, &tuning, &mut |_| {})).unwrap();
    let compare = VerifyRequest {
        target: request.target,
        credentials: request.credentials,
        ledger: request.ledger,
        turn: 0,
    };
    let compared = runtime.block_on(verify(&compare, &tuning)).unwrap();
    assert!(compared.missing.is_empty(), "{:?}", compared.missing);
}
