//! What the owner left: read from a medium that anybody may have written to. Only strongroom.toml and the files that it
//! names, in one folder; regular files, no links, bounded in size. The folder is never listed: what else lies in it, and
//! how much, does not matter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use strongroom_model::config::{CONFIG_BYTES_MAX, Config, ConfigError, FileName};

use super::CONFIG_NAME;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

/// Largest certificate or secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// An offered configuration and what it names beside itself.
#[derive(Debug)]
pub struct Incoming {
    /// Text of strongroom.toml.
    pub text: String,
    /// What it says.
    pub config: Config,
    /// The files that it names and that are there.
    pub files: BTreeMap<FileName, Vec<u8>>,
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// The medium or its file system refuses.
    #[error(
        "{0} could not be read: {1}. Write it again, from another computer, and leave the medium in until it is read"
    )]
    Io(String, io::Error),
    /// Larger than anything of its kind.
    #[error("{0} is larger than {1} KiB. Check that it is really the file that was meant")]
    TooLarge(String, u64),
    /// Not a text file.
    #[error("{CONFIG_NAME} is not UTF-8 text. Save it as plain text (UTF-8)")]
    NotText,
    /// What some editors on Windows call Unicode.
    #[error("{CONFIG_NAME} is UTF-16 text. Save it again with the encoding UTF-8 (in Notepad: Save as, Encoding)")]
    Utf16,
    /// A link, folder or device.
    #[error("{0} is not a regular file. Put the file itself there, no link and no folder")]
    NotAFile(String),
    /// It is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads the folder. `None`: there is no configuration in it.
pub fn read(folder: &Path) -> Result<Option<Incoming>, IncomingError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::open(folder, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
        Err(error) => return Err(IncomingError::Io("the folder".into(), error.into())),
    };
    let Some(bytes) = read_regular(&folder, CONFIG_NAME, CONFIG_BYTES_MAX as u64)? else {
        return Ok(None);
    };
    let text = text(bytes)?;
    let config = Config::parse(&text)?;
    let mut files = BTreeMap::new();
    for name in config.files() {
        if let Some(bytes) = read_regular(&folder, name.as_str(), FILE_BYTES_MAX)? {
            files.insert(name.clone(), bytes);
        }
    }
    Ok(Some(Incoming { text, config, files }))
}

/// What was handed over by command instead. Of the files, those that it names.
pub fn of_offer(text: String, mut offered: BTreeMap<String, Vec<u8>>) -> Result<Incoming, IncomingError> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(IncomingError::TooLarge(
            CONFIG_NAME.into(),
            CONFIG_BYTES_MAX as u64 / 1024,
        ));
    }
    let config = Config::parse(&text)?;
    let mut files = BTreeMap::new();
    for name in config.files() {
        let Some(bytes) = offered.remove(name.as_str()) else {
            continue;
        };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(IncomingError::TooLarge(name.to_string(), FILE_BYTES_MAX / 1024));
        }
        files.insert(name.clone(), bytes);
    }
    Ok(Incoming { text, config, files })
}

fn text(bytes: Vec<u8>) -> Result<String, IncomingError> {
    // Editors on Windows put a byte order mark in front.
    let bytes = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(IncomingError::Utf16),
        [0xef, 0xbb, 0xbf, rest @ ..] => rest.to_vec(),
        _ => bytes,
    };
    String::from_utf8(bytes).map_err(|_| IncomingError::NotText)
}

/// Reads a regular file of the folder without following a link. `None`: there is none.
fn read_regular(folder: &OwnedFd, name: &str, most: u64) -> Result<Option<Vec<u8>>, IncomingError> {
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = |error: io::Error| IncomingError::Io(name.into(), error);
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        // LOOP: a link. NXIO, ACCESS: a socket, or a device on a file system mounted without devices.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO | rustix::io::Errno::ACCESS) => {
            return Err(IncomingError::NotAFile(name.into()));
        }
        Err(error) => return Err(failed(error.into())),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(IncomingError::NotAFile(name.into()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(IncomingError::TooLarge(name.into(), most / 1024));
    }
    Ok(Some(bytes))
}

impl Incoming {
    /// Tells one offer from another: over the text and the public files. Secrets are left out, since a hash of a short
    /// one would give it away.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.text.as_bytes());
        for name in self.config.public_files() {
            if let Some(bytes) = self.files.get(name) {
                hash.update(format!("\0{name}\0{}\0", bytes.len()));
                hash.update(bytes);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Names of the secrets that came along.
    pub fn secrets(&self) -> Vec<FileName> {
        let needed = self.config.secrets().into_iter().map(|(_, name)| name);
        let mut names: Vec<FileName> = needed.filter(|name| self.files.contains_key(name)).cloned().collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const OWNER: &str = "[[offsite.recipient]]\nname = \"owner\"\ncertificate = \"owner.asc\"\n";

    fn folder(config: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_NAME), config).unwrap();
        folder
    }

    fn refusal(folder: &tempfile::TempDir) -> String {
        read(folder.path()).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_not_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        assert!(read(&folder.path().join("none")).unwrap().is_none());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(read(&folder.path().join("file")).unwrap().is_none());
        symlink("/etc", folder.path().join("link")).unwrap();
        assert!(read(&folder.path().join("link")).unwrap().is_none());
    }

    #[test]
    fn only_the_files_that_it_names_are_read() {
        let folder = folder(format!("\u{feff}{OWNER}").as_bytes());
        fs::write(folder.path().join("owner.asc"), "key").unwrap();
        fs::write(folder.path().join("Owner.asc"), "another").unwrap();
        fs::write(folder.path().join("a\nb"), "x").unwrap();
        for number in 0..2000 {
            fs::write(folder.path().join(format!("{number}.jpg")), "").unwrap();
        }
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let incoming = read(folder.path()).unwrap().unwrap();
        assert_eq!(incoming.text, OWNER);
        let names: Vec<&str> = incoming.files.keys().map(FileName::as_str).collect();
        assert_eq!(names, ["owner.asc"]);
        assert_eq!(incoming.files.values().next().unwrap(), b"key");
    }

    #[test]
    fn what_is_no_file_is_refused_wherever_it_lies() {
        for name in [CONFIG_NAME, "owner.asc"] {
            let make: [&dyn Fn(&Path); 3] = [
                &|at| symlink("/etc/passwd", at).unwrap(),
                &|at| fs::create_dir(at).unwrap(),
                &|at| {
                    let made = std::process::Command::new("mkfifo").arg(at).status();
                    assert!(made.unwrap().success());
                },
            ];
            for make in make {
                let folder = folder(OWNER.as_bytes());
                let _ = fs::remove_file(folder.path().join(name));
                make(&folder.path().join(name));
                let told = refusal(&folder);
                assert!(told.starts_with(name) && told.contains("not a regular file"), "{told}");
            }
        }
    }

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let folder = folder(OWNER.as_bytes());
        let huge = fs::File::create(folder.path().join("owner.asc")).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert!(refusal(&folder).contains("owner.asc is larger than 64 KiB"));
        let huge = fs::File::create(folder.path().join(CONFIG_NAME)).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert!(refusal(&folder).contains("larger than 256 KiB"));
    }

    #[test]
    fn other_encodings_are_told_by_name() {
        let utf16: Vec<u8> = "[network]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(refusal(&folder(&[&[0xff, 0xfe], &utf16[..]].concat())).contains("UTF-16"));
        assert!(refusal(&folder(b"[network]\nhostname = \"b\xfcro\"\n")).contains("not UTF-8"));
        assert!(refusal(&folder(b"\x7fELF\x02\x01\x01\0\0\0")).contains("strongroom.toml"));
    }

    #[test]
    fn an_offer_is_known_again_by_what_it_says_but_not_by_its_secrets() {
        let text = format!("{OWNER}[mqtt]\nhost = \"broker\"\npassword = \"word\"\n");
        let offer = |certificate: &str, secret: &str| {
            let folder = folder(text.as_bytes());
            fs::write(folder.path().join("owner.asc"), certificate).unwrap();
            fs::write(folder.path().join("word"), secret).unwrap();
            read(folder.path()).unwrap().unwrap()
        };
        assert_eq!(offer("key", "one").digest(), offer("key", "two").digest());
        assert_ne!(offer("key", "one").digest(), offer("other", "one").digest());
        assert_eq!(offer("key", "one").secrets().len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_are_a_configuration_or_told_in_one_line(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            table in "(\\[[a-z.\\[\\]]{1,12}\\]\n|[a-z]{1,9} = [\\[\\]{}\"',.0-9a-z]{0,30}\n){0,20}",
        ) {
            for content in [bytes, table.into_bytes()] {
                if let Err(error) = read(folder(&content).path()) {
                    prop_assert!(!error.to_string().contains('\n'));
                }
            }
        }
    }
}
