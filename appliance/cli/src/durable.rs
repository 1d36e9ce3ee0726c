//! Writing a file durably, whole or not at all.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Puts a file with these bytes there, durably; nobody ever sees a part of it.
///
/// # Errors
/// When it can't be written, or with [`RenameFlags::NOREPLACE`] when there is one; then nothing is left of it.
pub fn put(path: &Path, bytes: &[u8], permissions: Permissions, flags: RenameFlags) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        renameat_with(CWD, &temporary, CWD, path, flags)?;
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.map_or(PathBuf::from("."), Path::to_path_buf))?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
