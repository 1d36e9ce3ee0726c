//! The console password: what GRUB asks for before a rescue shell, a factory reset, or a changed menu entry.
//!
//! Only its hash is kept, in GRUB's own form (`grub-mkpasswd-pbkdf2`), and put on the ESP where GRUB reads it.

use crate::durable;
use crate::esp;
use crate::paths::Paths;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha512;
use std::fs;
use std::io;
use std::path::Path;
use strongroom_model::config::{Config, FileName};

pub use strongroom_model::config::usage::CONSOLE;

/// The account that GRUB asks for.
pub const USER: &str = "admin";
/// GRUB's own default: a boot loader on an old PC takes about a second for it.
const ROUNDS: u32 = 10_000;
const SALT_BYTES: usize = 64;
const HASH_BYTES: usize = 64;

/// Hashes the password and keeps the hash in `folder`. A line break at its end, which editors add, is no part of it.
/// Durable on return. Returns whether it is another than before.
pub fn keep(folder: &Path, name: &FileName, secret: &[u8]) -> io::Result<bool> {
    let secret = secret.trim_ascii_end();
    let path = folder.join(name.as_str());
    if fs::read_to_string(&path).is_ok_and(|known| is_of(&known, secret)) {
        return Ok(false);
    }
    let mut salt = [0; SALT_BYTES];
    let mut filled = 0;
    while filled < salt.len() {
        filled += getrandom(&mut salt[filled..], GetRandomFlags::empty())?;
    }
    durable::write(&path, hashed(secret, &salt, ROUNDS).as_bytes(), 0o600).map(|()| true)
}

fn hashed(secret: &[u8], salt: &[u8], rounds: u32) -> String {
    let hash = pbkdf2::pbkdf2_hmac_array::<Sha512, HASH_BYTES>(secret, salt, rounds);
    format!("grub.pbkdf2.sha512.{rounds}.{}.{}", hex(salt), hex(&hash))
}

fn is_of(known: &str, secret: &[u8]) -> bool {
    let mut parts = known.split('.').skip(3);
    let (Some(rounds), Some(salt)) = (parts.next().and_then(|text| text.parse().ok()), parts.next()) else {
        return false;
    };
    // Rounds of a damaged file must not cost minutes.
    rounds == ROUNDS && from_hex(salt).is_some_and(|salt| hashed(secret, &salt, rounds) == known)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    Some(
        digits?
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect(),
    )
}

/// Puts the hash on the ESP, or takes it away when the configuration names none. Without an ESP nothing is done.
pub fn apply(paths: &Paths, config: &Config) -> Result<(), esp::EspError> {
    let file = paths.grub_users();
    let Some(folder) = file.parent().filter(|folder| folder.exists()) else {
        return Ok(());
    };
    let hash = match &config.admin.console_password {
        Some(name) => Some(fs::read_to_string(paths.secrets(CONSOLE).join(name.as_str()))?),
        None => None,
    };
    let wanted = hash.map(|hash| users(&hash));
    if wanted == fs::read_to_string(&file).ok() {
        return Ok(());
    }
    esp::writable(paths, || {
        match &wanted {
            Some(text) => durable::write(&file, text.as_bytes(), 0o600)?,
            None => fs::remove_file(&file)?,
        }
        fs::File::open(folder)?.sync_all()
    })
}

/// GRUB's manual, "Authentication and authorisation".
fn users(hash: &str) -> String {
    format!(
        "# Made by strongroom-configure from strongroom.toml: the console password.\nset superusers=\"{USER}\"\nexport superusers\npassword_pbkdf2 {USER} {hash}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// A hash that GRUB's own program made of "open sesame", with the rounds that it takes by default.
    fn by_grub(secret: &str) -> String {
        let mut child = Command::new("grub-mkpasswd-pbkdf2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("missing `grub-mkpasswd-pbkdf2`: run `cargo image test`, which installs it");
        let mut input = child.stdin.take().unwrap();
        write!(input, "{secret}\n{secret}\n").unwrap();
        drop(input);
        let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let at = output.find("grub.pbkdf2").unwrap();
        output[at..].trim().to_string()
    }

    #[test]
    fn grub_hashes_alike() {
        let theirs = by_grub("open sesame");
        assert!(is_of(&theirs, b"open sesame"), "{theirs}");
        assert!(!is_of(&theirs, b"open sesam"));
        assert!(!is_of("", b"") && !is_of("grub.pbkdf2.sha512.1.zz.00", b""));
    }

    #[test]
    fn it_is_kept_as_a_hash_and_comes_and_goes_on_the_esp() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let name = FileName::new("console").unwrap();
        assert!(keep(&paths.secrets(CONSOLE), &name, b"word\r\n").unwrap());
        assert!(!keep(&paths.secrets(CONSOLE), &name, b"word").unwrap());
        let mut config = Config::parse("[admin]\nconsole_password = \"console\"\n").unwrap();
        apply(&paths, &config).unwrap();
        assert!(!paths.grub_users().exists(), "there is no ESP");
        fs::create_dir_all(paths.grub_users().parent().unwrap()).unwrap();
        apply(&paths, &config).unwrap();
        let text = fs::read_to_string(paths.grub_users()).unwrap();
        assert!(
            text.contains("password_pbkdf2 admin grub.pbkdf2.sha512.10000.") && !text.contains("word\n"),
            "{text}"
        );
        config.admin.console_password = None;
        apply(&paths, &config).unwrap();
        assert!(!paths.grub_users().exists());
    }
}
