//! A directory as a target: the same objects as files, such as on a USB disk that is plugged in for the purpose.
//!
//! A file has its name only once all of it is on the disk: it is written under a hidden name beside it, flushed, and renamed
//! without replacing anything. So a disk that is pulled at any time holds whole objects, and hidden rests that the next push
//! removes. What is hidden is never an object.
//!
//! The messages are encrypted, so the files are for anybody to read: whoever has the disk has them anyway.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use md5::Md5;
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use strongroom_borg::open_file;

use crate::digest::{Digest, Md5Sum, Sha256Sum};
use crate::durable::sync_directory;
use crate::s3::{Archive, Head, Listed, Payload, S3Error};

/// What is read at once, in bytes.
const PIECE: usize = 1024 * 1024;
/// Bytes that a file leaves free, so that the manifest of what was sent still finds room.
const SPARE: u64 = 16 * 1024 * 1024;
/// The file by which the directory is known again.
const IDENTITY: &str = ".strongroom-directory";
/// What the hidden name of a file ends with while it is written.
const HALF: &str = ".half";

/// A directory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The refusal of what only a bucket can do.
    pub fn is_no_bucket(&self) -> S3Error {
        S3Error::Directory {
            operation: self.root.display().to_string(),
            why: "a directory was asked for what only a bucket can do; report this".into(),
        }
    }

    /// Reads what the directory is known by, or makes it: 32 random hexadecimal digits.
    pub async fn identity(&self) -> Result<String, S3Error> {
        let path = self.root.join(IDENTITY);
        let made = format!("{:032x}", rand::random::<u128>());
        let found = blocking(move || match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_directories(path.parent().unwrap_or(Path::new("")))?;
                write_whole(&path, |file| file.write_all(format!("{made}\n").as_bytes()))?;
                Ok(made)
            }
            text => text.map(|text| text.trim().chars().take(32).collect()),
        });
        found.await.map_err(|error| failed(IDENTITY.into(), &error))
    }

    /// Removes what was left half written below `prefix`.
    pub async fn sweep(&self, prefix: &str) -> Result<(), S3Error> {
        let folder = self.path(prefix.trim_end_matches('/'))?;
        let swept = blocking(move || {
            each_file(&folder, &mut |path, name, _| match is_half(name) {
                true => fs::remove_file(path),
                false => Ok(()),
            })
        });
        swept
            .await
            .map_err(|error| failed(format!("cleaning {prefix}"), &error))
    }

    /// Writes a new file. The answer is what stands for its ETag: the MD5 of the payload.
    pub async fn put(&self, key: &str, bytes: Bytes, payload: &Payload) -> Result<String, S3Error> {
        let size = bytes.len() as u64;
        let (half, ()) = self.write(key, size, move |file| file.write_all(&bytes)).await?;
        half.place(key).await?;
        Ok(payload.md5.map(|md5| md5.to_string()).unwrap_or_default())
    }

    /// Writes a file of about `size` bytes to the disk, beside where it will lie, on a thread that may block.
    pub async fn write<T: Send + 'static>(
        &self,
        key: &str,
        size: u64,
        fill: impl FnOnce(&mut File) -> io::Result<T> + Send + 'static,
    ) -> Result<(Half, T), S3Error> {
        let operation = format!("writing {key}");
        let path = self.path(key)?;
        let it = self.clone();
        let written = blocking(move || {
            make_directories(path.parent().unwrap_or(&it.root))?;
            it.has_room(size)?;
            write_half(&path, fill)
        });
        let (half, outcome) = written.await.map_err(|error| failed(operation, &error))?;
        let directory = self.clone();
        Ok((Half { directory, half }, outcome))
    }

    /// Refuses what would leave nearly nothing free.
    fn has_room(&self, size: u64) -> io::Result<()> {
        let found = rustix::fs::statvfs(&self.root)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < size.saturating_add(SPARE) {
            return Err(io::Error::new(
                ErrorKind::StorageFull,
                format!(
                    "{} MB are free, and {} MB are to be written",
                    free / 1_000_000,
                    size / 1_000_000
                ),
            ));
        }
        Ok(())
    }

    /// What is known of a file. One that can't be read to its end has no MD5, so it is another than whatever was meant.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, S3Error> {
        let path = self.path(key)?;
        let found = blocking(move || {
            let mut md5 = Md5::new();
            match read_all(&path, |piece| md5.update(piece)) {
                Ok(size) => {
                    let md5: Md5Sum = Digest(md5.finalize().into());
                    Ok((size, md5.to_string()))
                }
                Err(_) => Ok((fs::symlink_metadata(&path)?.len(), String::new())),
            }
        });
        match found.await {
            Ok((size, etag)) => Ok(Some(Head {
                size,
                etag,
                archive: Archive::Readable,
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("reading {key}"), &error)),
        }
    }

    /// SHA-256 of a file.
    pub async fn sha256(&self, key: &str) -> Result<Sha256Sum, S3Error> {
        let path = self.path(key)?;
        let sum = blocking(move || {
            let mut sum = Sha256::new();
            read_all(&path, |piece| sum.update(piece))?;
            Ok(Digest(sum.finalize().into()))
        });
        sum.await.map_err(|error| failed(format!("reading {key}"), &error))
    }

    pub async fn get(&self, key: &str) -> Result<Reader, S3Error> {
        let path = self.path(key)?;
        let operation = format!("reading {key}");
        match blocking(move || open_file(&path)).await {
            Ok(file) => Ok(Reader {
                file: Some(file),
                operation,
            }),
            Err(error) => Err(failed(operation, &error)),
        }
    }

    pub async fn get_small(&self, key: &str, limit: usize) -> Result<Vec<u8>, S3Error> {
        let path = self.path(key)?;
        let read = blocking(move || {
            let mut all = Vec::new();
            open_file(&path)?.take(limit as u64 + 1).read_to_end(&mut all)?;
            if all.len() > limit {
                return Err(io::Error::new(
                    ErrorKind::FileTooLarge,
                    format!("it is larger than {limit} bytes"),
                ));
            }
            Ok(all)
        });
        read.await.map_err(|error| failed(format!("reading {key}"), &error))
    }

    /// All files whose key begins with `prefix`, in the order of their keys. What is hidden, a link, or no file is left out.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        let (folder, _) = prefix.rsplit_once('/').unwrap_or_default();
        let folder = self.path(folder)?;
        let (root, wanted) = (self.root.clone(), prefix.to_owned());
        let listed = blocking(move || {
            let mut all = Vec::new();
            // A disk that is not there must not look like an empty one.
            if !root.is_dir() {
                return Err(io::Error::other(
                    "there is no such folder. Is the disk plugged in and mounted, and the name right?",
                ));
            }
            each_file(&folder, &mut |path, name, found| {
                let key = path.strip_prefix(&root).ok().and_then(Path::to_str);
                if let Some(key) = key.filter(|key| key.starts_with(&wanted) && !is_hidden(name)) {
                    let modified = found.modified()?.duration_since(UNIX_EPOCH).ok();
                    all.push(Listed {
                        key: key.to_owned(),
                        size: found.len(),
                        etag: String::new(),
                        modified: modified.map(|since| since.as_secs()),
                    });
                }
                Ok(())
            })?;
            all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok(all)
        });
        listed
            .await
            .map_err(|error| failed(format!("listing {prefix}"), &error))
    }

    /// Removes a file. One that is gone already is fine. It stays gone through a power cut: what is removed later was
    /// needed by what is removed before.
    pub async fn delete(&self, key: &str) -> Result<(), S3Error> {
        let path = self.path(key)?;
        let deleted = blocking(move || match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync_directory),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        deleted.await.map_err(|error| failed(format!("deleting {key}"), &error))
    }

    /// The file of a key. A key of a manifest, which somebody else may have written, leads nowhere else.
    fn path(&self, key: &str) -> Result<PathBuf, S3Error> {
        let plain = |part: &str| {
            !part.starts_with('.')
                && !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if key.is_empty() {
            return Ok(self.root.clone());
        }
        if !key.split('/').all(plain) {
            return Err(S3Error::Directory {
                operation: format!("{key:?}"),
                why: "this is no name of an object of ours".into(),
            });
        }
        Ok(self.root.join(key))
    }
}

/// A file that is being read.
pub(crate) struct Reader {
    /// `None` after its end.
    file: Option<File>,
    operation: String,
}

impl Reader {
    /// The next piece, or `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, S3Error> {
        let Some(mut file) = self.file.take() else {
            return Ok(None);
        };
        let read = blocking(move || {
            let mut piece = Vec::with_capacity(PIECE);
            (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
            Ok((file, piece))
        });
        let (file, piece) = read.await.map_err(|error| failed(self.operation.clone(), &error))?;
        if piece.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(piece.into()))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Gives each piece of a file, and its size.
fn read_all(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = open_file(path)?;
    let mut piece = vec![0; PIECE];
    let mut size = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(size),
            Ok(read) => {
                each(piece.get(..read).unwrap_or_default());
                size += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What is told of each file: its path, its name, and what the system knows of it.
type OnFile<'a> = &'a mut dyn FnMut(&Path, &str, &fs::Metadata) -> io::Result<()>;

/// All files below a folder, which need not be there.
fn each_file(folder: &Path, each: OnFile<'_>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else { continue };
        let kind = entry.file_type()?;
        // ext4's own folder is for root alone.
        if kind.is_dir() && name != "lost+found" && !is_hidden(name) {
            each_file(&path, each)?;
        } else if kind.is_file() {
            each(&path, name, &entry.metadata()?)?;
        }
    }
    Ok(())
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

fn is_half(name: &str) -> bool {
    is_hidden(name) && name.ends_with(HALF)
}

/// Makes a folder and those above it, and sees to it that they stay.
fn make_directories(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_directories(parent)?;
    }
    match DirBuilder::new().mode(0o755).create(folder) {
        // Another upload was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => folder.parent().map_or(Ok(()), sync_directory),
    }
}

/// A file that is on the disk and has no name yet. Without one it is removed in the end.
pub(crate) struct Half {
    directory: Directory,
    half: Hidden,
}

impl Half {
    /// Gives it its name, in the folder for which it was written; none is replaced, and then it can be tried with another.
    pub async fn place(&self, key: &str) -> Result<(), S3Error> {
        let operation = format!("writing {key}");
        let (from, to) = (self.half.0.clone(), self.directory.path(key)?);
        match blocking(move || place(&from, &to)).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(taken(operation)),
            placed => placed.map_err(|error| failed(operation, &error)),
        }
    }
}

/// A hidden file, removed in the end if it is still there.
struct Hidden(PathBuf);

impl Drop for Hidden {
    fn drop(&mut self) {
        // As far as it goes: the disk may be gone. The next push looks again.
        let _ = fs::remove_file(&self.0);
    }
}

/// Fills a hidden file beside `path`, all of which is on the disk then.
fn write_half<T>(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<(Hidden, T)> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let half = path.with_file_name(format!(".{}{HALF}", name.trim_start_matches('.')));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&half)?;
    let half = Hidden(half);
    let outcome = fill(&mut file)?;
    file.sync_all()?;
    Ok((half, outcome))
}

/// Gives a file its name, and sees to it that it stays; replaces none: [`ErrorKind::AlreadyExists`].
fn place(from: &Path, to: &Path) -> io::Result<()> {
    rename_new(from, to)?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// A file that has its name once all of it is on the disk, and replaces none: [`ErrorKind::AlreadyExists`].
fn write_whole(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let (half, ()) = write_half(path, fill)?;
    place(&half.0, path)
}

/// Renames without replacing. Where the file system can't promise that, it is looked at before: nobody else writes there.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    match renameat_with(here, from, here, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::INVAL | Errno::NOSYS) => Err(ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// A name that is in use, as a service says it whose objects may not be overwritten.
fn taken(operation: String) -> S3Error {
    S3Error::AccessDenied {
        operation,
        message: "there is a file of that name, and none is replaced".into(),
    }
}

fn failed(operation: String, error: &io::Error) -> S3Error {
    let advice = match error.kind() {
        ErrorKind::NotFound => return S3Error::NoSuchKey { operation },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            ": the disk is full. Remove files of your own from it, use a larger one, or set `retire` for the target"
        }
        ErrorKind::ReadOnlyFilesystem => {
            ": the disk can't be written to. Its file system may be damaged (check it with fsck), or a switch on it is on"
        }
        ErrorKind::PermissionDenied => ": these files are another user's. Look at the owner and the mode of the folder",
        _ if matches!(
            Errno::from_io_error(error),
            Some(Errno::IO | Errno::NODEV | Errno::NXIO)
        ) =>
        {
            ": the disk fails, or was pulled out. What is whole on it stays so"
        }
        _ => "",
    };
    S3Error::Directory {
        operation,
        why: format!("{error}{advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path());
        (folder, directory)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_is_written_once_and_whole_or_not_at_all() {
        let (folder, directory) = directory();
        let bytes = Bytes::from_static(b"content");
        let payload = Payload::of(&bytes);
        let etag = directory.put("c/a.gpg", bytes.clone(), &payload).await.unwrap();
        let head = directory.head("c/a.gpg").await.unwrap().unwrap();
        assert_eq!((head.size, &head.etag), (7, &etag));
        let again = directory.put("c/a.gpg", Bytes::from_static(b"another"), &payload).await;
        assert!(again.is_err_and(|error| error.is_denied()));
        // What fails while it is written, or is not given a name, leaves nothing behind.
        let broken = directory.write("c/b.gpg", 7, |file| {
            file.write_all(b"con")?;
            Err::<(), _>(ErrorKind::BrokenPipe.into())
        });
        assert!(matches!(broken.await, Err(S3Error::Directory { .. })));
        let write = || directory.write("c/b.gpg", 7, |file| file.write_all(b"content"));
        drop(write().await.unwrap());
        assert_eq!(names(&folder.path().join("c")), ["a.gpg"]);
        // A name that is in use is not replaced, and another may be tried.
        let (half, ()) = write().await.unwrap();
        assert_eq!(names(&folder.path().join("c")), [".b.gpg.half", "a.gpg"]);
        assert!(half.place("c/a.gpg").await.is_err_and(|error| error.is_denied()));
        half.place("c/b.gpg").await.unwrap();
        drop(half);
        assert_eq!(names(&folder.path().join("c")), ["a.gpg", "b.gpg"]);
        assert_eq!(directory.get_small("c/b.gpg", 7).await.unwrap(), b"content");
        assert!(directory.get_small("c/b.gpg", 6).await.is_err());
        let mut reader = directory.get("c/b.gpg").await.unwrap();
        assert_eq!(reader.chunk().await.unwrap().unwrap(), bytes);
        assert_eq!(reader.chunk().await.unwrap(), None);
        assert!(matches!(directory.get("c/c.gpg").await, Err(S3Error::NoSuchKey { .. })));
        // What can't be read takes its name, and is no object that anybody meant.
        fs::create_dir(folder.path().join("c/d.gpg")).unwrap();
        assert_eq!(directory.head("c/d.gpg").await.unwrap().unwrap().etag, "");
        assert!(directory.sha256("c/d.gpg").await.is_err());
        directory.delete("c/a.gpg").await.unwrap();
        directory.delete("c/a.gpg").await.unwrap();
        assert_eq!(directory.head("c/a.gpg").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_list_goes_by_the_beginning_of_keys() {
        let (folder, directory) = directory();
        for key in [
            "c/manifest/1.json.gpg",
            "c/signer.A.asc",
            "c/data/0/1.gpg",
            "cc/RECOVERY.txt",
        ] {
            let bytes = Bytes::from_static(b"x");
            directory.put(key, bytes.clone(), &Payload::of(&bytes)).await.unwrap();
        }
        fs::write(folder.path().join("c/.hidden"), "x").unwrap();
        fs::create_dir(folder.path().join("c/.Trash-1000")).unwrap();
        fs::write(folder.path().join("c/.Trash-1000/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("c/link")).unwrap();
        let keys = async |prefix: &str| -> Vec<String> {
            let listed = directory.list(prefix).await.unwrap();
            listed.into_iter().map(|one| one.key).collect()
        };
        assert_eq!(
            keys("c/").await,
            ["c/data/0/1.gpg", "c/manifest/1.json.gpg", "c/signer.A.asc"]
        );
        assert_eq!(keys("c/signer.").await, ["c/signer.A.asc"]);
        assert_eq!(keys("").await.len(), 4);
        assert!(keys("absent/").await.is_empty());
        // A link is not read either.
        assert!(directory.get("c/link").await.is_err());
        let gone = Directory::new(&folder.path().join("not-mounted"));
        assert!(gone.list("").await.is_err());
    }

    #[tokio::test]
    async fn no_key_leads_elsewhere() {
        let (_folder, directory) = directory();
        for key in [
            "../x",
            "/etc/passwd",
            "c/../../x",
            "c//x",
            ".strongroom-directory",
            "c/.x.half",
            "c/x\0",
            "c/x y",
        ] {
            assert!(
                matches!(directory.get(key).await, Err(S3Error::Directory { .. })),
                "{key}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_before_anything_is_written() {
        let (folder, directory) = directory();
        let written = directory
            .write("c/a.gpg", u64::MAX / 2, |file| file.write_all(b"x"))
            .await;
        let error = written.map(drop).unwrap_err();
        assert!(
            error.to_string().contains("the disk is full") && error.to_string().contains("MB are free"),
            "{error}"
        );
        assert!(names(&folder.path().join("c")).is_empty());
    }

    #[tokio::test]
    async fn it_is_known_again() {
        let (_folder, directory) = directory();
        let first = directory.identity().await.unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(directory.identity().await.unwrap(), first);
        let (_other, other) = self::directory();
        assert_ne!(other.identity().await.unwrap(), first);
    }
}
