//! Writing files so that a power cut leaves the old content or the new, never a part.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` with `content`, mode `mode`: temporary file, fsync, rename, fsync of the folder. When this returns
/// `Ok`, the content is on the disk.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    // A leftover of an earlier attempt may have another mode or be a link.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Removes `path`. When this returns `Ok`, it is gone from the disk too; it may have been gone before.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_folder_of(path)
}

/// When this returns `Ok`, what was made, renamed or removed beside `path` is so on the disk too.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    File::open(folder)?.sync_all()
}

/// Like [`write`], but leaves the file alone when it already holds `content`. Returns whether it was written.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    write(path, content, mode).map(|()| true)
}

/// Replaces `path` with `value` as JSON, mode 0644, unless it holds that already.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    write_if_changed(path, &text, 0o644).map(drop)
}

/// Reads JSON of at most `bytes_max`. `None`: it is not there, too long, or not of this form.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path, bytes_max: u64) -> Option<T> {
    let fits = fs::metadata(path).ok()?.len() <= bytes_max;
    fits.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_content_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(!write_if_changed(&path, b"two", 0o644).unwrap());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "safe").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("file.new")).unwrap();
        write(&folder.path().join("file"), b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(victim).unwrap(), "safe");
    }
}
