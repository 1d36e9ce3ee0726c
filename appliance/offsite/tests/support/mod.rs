//! What the edge tests share: a server, credentials, clients of the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use s3_double::{Permissions, Server, Settings};
use strongroom_offsite::s3::{Client, Retry, system_clock};
use strongroom_offsite::{Credentials, Multipart, Target};
use zeroize::Zeroizing;

pub const REGION: &str = "eu-frankfurt-1";

/// Patience for tests: as many attempts, next to no waiting.
pub const HASTY: Retry = Retry {
    attempts: 4,
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(20),
};

/// A server with buckets `plain` and `vault` (archive) and a credential for each kind of permission.
pub async fn server(directory: &Path, change: impl FnOnce(&mut Settings)) -> Server {
    let mut settings = Settings::new(directory, REGION)
        .bucket("plain", false)
        .bucket("vault", true)
        .credential("ALL", "all-secret", Permissions::ALL)
        .credential("CREATE", "create-secret", Permissions::CREATE_ONLY)
        .credential("LOOK", "look-secret", Permissions::CREATE_AND_INSPECT);
    settings.restore_delay = Duration::from_millis(300);
    change(&mut settings);
    Server::start(settings).await.unwrap()
}

pub fn credentials(name: &str) -> Credentials {
    Credentials::new(name, Zeroizing::new(format!("{}-secret", name.to_lowercase())))
}

pub fn target(server: &Server, bucket: &str) -> Target {
    Target {
        name: "double".into(),
        endpoint: server.endpoint(),
        region: REGION.into(),
        bucket: bucket.into(),
        prefix: "asus_home".into(),
        multipart: Multipart::Auto,
    }
}

pub fn client(target: &Target, who: &str) -> Client {
    Client::new(target, credentials(who), system_clock(), HASTY).unwrap()
}

/// Runs a program to its end without input.
pub fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|_| panic!("missing `{name}`: run `cargo image test`, which installs it"))
}

/// Bytes that neither compress nor repeat.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    (0..length)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 24) as u8
        })
        .collect()
}
