//! What the owner left: read from a medium that anybody may have written to. Only regular files in one folder, no
//! links, bounded in size and number.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use strongroom_model::config::{CONFIG_BYTES_MAX, FileName};

use super::CONFIG_NAME;
use rustix::fs::{Mode, OFlags};

/// Largest certificate or secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Most files looked at.
const FILES_MAX: usize = 64;

/// An offered configuration and what lies beside it.
pub struct Incoming {
    /// Text of strongroom.toml.
    pub text: String,
    /// Every other file, by name.
    pub files: BTreeMap<FileName, Vec<u8>>,
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// The medium or its file system refuses.
    #[error("{CONFIG_NAME} could not be read: {0}. Write it again, from another computer")]
    Io(#[from] io::Error),
    /// Larger than any configuration.
    #[error("{CONFIG_NAME} is larger than 256 KiB. Check that it is really a configuration")]
    TooLarge,
    /// Not a text file.
    #[error("{CONFIG_NAME} is not UTF-8 text. Save it as plain text (UTF-8)")]
    NotText,
    /// A link, folder or device.
    #[error("{CONFIG_NAME} is not a regular file")]
    NotAFile,
}

/// Reads the folder. `None`: there is no configuration in it.
pub fn read(folder: &Path) -> Result<Option<Incoming>, IncomingError> {
    let bytes = match read_regular(&folder.join(CONFIG_NAME), CONFIG_BYTES_MAX as u64) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(IncomingError::TooLarge),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(IncomingError::NotAFile),
        Err(error) => return Err(error.into()),
    };
    // Editors on Windows put a byte order mark in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes);
    let text = String::from_utf8(bytes).map_err(|_| IncomingError::NotText)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)?.take(FILES_MAX) {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(FileName::new) else {
            continue;
        };
        if name.as_str() == CONFIG_NAME {
            continue;
        }
        if let Ok(Some(bytes)) = read_regular(&entry.path(), FILE_BYTES_MAX) {
            files.insert(name, bytes);
        }
    }
    Ok(Some(Incoming { text, files }))
}

/// Reads a regular file without following a link. `None`: it is larger than `most`.
fn read_regular(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    // NONBLOCK: opening a FIFO must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::LOOP => io::Error::from(io::ErrorKind::InvalidInput),
            other => other.into(),
        })?,
    );
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(config: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_NAME), config).unwrap();
        folder
    }

    #[test]
    fn nothing_is_not_an_error() {
        assert!(
            read(&tempfile::tempdir().unwrap().path().join("none"))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn files_beside_it_are_read_by_name() {
        let folder = folder(b"\xef\xbb\xbf[network]\n");
        fs::write(folder.path().join("owner.asc"), "key").unwrap();
        fs::write(folder.path().join(".hidden"), "x").unwrap();
        fs::write(folder.path().join("large"), vec![0; FILE_BYTES_MAX as usize + 1]).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let incoming = read(folder.path()).unwrap().unwrap();
        assert_eq!(incoming.text, "[network]\n");
        assert_eq!(
            incoming.files.keys().map(FileName::as_str).collect::<Vec<_>>(),
            ["owner.asc"]
        );
    }

    #[test]
    fn hostile_files_are_refused() {
        assert!(matches!(
            read(folder(&vec![b'#'; CONFIG_BYTES_MAX + 1]).path()),
            Err(IncomingError::TooLarge)
        ));
        assert!(matches!(
            read(folder(b"\xff\xfe\x00").path()),
            Err(IncomingError::NotText)
        ));
        let links = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", links.path().join(CONFIG_NAME)).unwrap();
        assert!(matches!(read(links.path()), Err(IncomingError::NotAFile)));
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(CONFIG_NAME)).unwrap();
        assert!(matches!(read(directory.path()), Err(IncomingError::NotAFile)));
    }
}
