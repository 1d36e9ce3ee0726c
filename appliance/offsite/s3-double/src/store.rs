//! Objects in a directory: one file of bytes and one of metadata each, so that a restarted server
//! still has them. Knows nothing of HTTP or signatures.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::settings::Bucket;

/// What is known of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    pub size: u64,
    pub etag: String,
    /// Milliseconds since 1970.
    pub modified: u64,
    /// When a requested restore is done, in milliseconds since 1970.
    pub restored_at: Option<u64>,
    /// When the restored copy goes away again, likewise.
    pub restored_until: Option<u64>,
}

/// Where an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Can be read at any time.
    Standard,
    /// Must be restored first.
    Archived,
    /// A restore is under way.
    Restoring,
    /// Can be read until then (milliseconds since 1970).
    Restored(u64),
}

/// One part of an upload.
#[derive(Debug, Clone)]
pub struct Part {
    pub size: u64,
    pub md5: [u8; 16],
}

/// A multipart upload that was neither completed nor aborted. Kept in memory: a restart forgets it.
#[derive(Debug, Clone)]
pub struct Upload {
    pub bucket: String,
    pub key: String,
    pub started: SystemTime,
    pub parts: BTreeMap<i32, Part>,
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no such bucket")]
    NoSuchBucket,
    #[error("no such key")]
    NoSuchKey,
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Objects = BTreeMap<String, Meta>;

/// All buckets.
pub struct Store {
    directory: PathBuf,
    buckets: BTreeMap<String, (bool, Mutex<Objects>)>,
    pub uploads: Mutex<BTreeMap<String, Upload>>,
    counter: AtomicU64,
}

/// Now, in milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Store {
    pub fn open(directory: &Path, buckets: &[Bucket]) -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for bucket in buckets {
            let path = directory.join(&bucket.name);
            fs::create_dir_all(&path)?;
            let mut objects = Objects::new();
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "tmp") {
                    fs::remove_file(&path)?;
                } else if path.extension().is_some_and(|e| e == "meta")
                    && let Some(key) = path.file_stem().and_then(|s| s.to_str()).and_then(decode)
                {
                    objects.insert(key, serde_json::from_slice(&fs::read(&path)?)?);
                }
            }
            all.insert(bucket.name.clone(), (bucket.archive, Mutex::new(objects)));
        }
        let uploads = Mutex::new(BTreeMap::new());
        Ok(Self {
            directory: directory.into(),
            buckets: all,
            uploads,
            counter: AtomicU64::new(now()),
        })
    }

    fn bucket(&self, bucket: &str) -> Result<&(bool, Mutex<Objects>), StoreError> {
        self.buckets.get(bucket).ok_or(StoreError::NoSuchBucket)
    }

    pub fn check_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        self.bucket(bucket).map(|_| ())
    }

    pub fn unique(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A new file to write a body into, to be given to [`Store::publish`].
    pub fn temporary(&self, bucket: &str) -> Result<(File, PathBuf), StoreError> {
        self.bucket(bucket)?;
        let path = self.directory.join(bucket).join(format!("{}.tmp", self.unique()));
        Ok((File::create(&path)?, path))
    }

    /// Where part `number` of an upload lies.
    pub fn part_path(&self, bucket: &str, upload: &str, number: i32) -> PathBuf {
        self.directory.join(bucket).join(format!("{upload}-{number}.tmp"))
    }

    /// Makes a written file the object `key`, at once.
    pub fn publish(&self, bucket: &str, key: &str, from: &Path, etag: String) -> Result<Meta, StoreError> {
        let (_, objects) = self.bucket(bucket)?;
        let size = fs::metadata(from)?.len();
        let meta = Meta {
            size,
            etag,
            modified: now(),
            restored_at: None,
            restored_until: None,
        };
        let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        fs::rename(from, self.path(bucket, key, "data"))?;
        fs::write(
            self.path(bucket, key, "meta"),
            serde_json::to_vec(&meta).map_err(io::Error::from)?,
        )?;
        objects.insert(key.to_owned(), meta.clone());
        Ok(meta)
    }

    pub fn head(&self, bucket: &str, key: &str) -> Result<(Meta, Tier), StoreError> {
        let (archive, objects) = self.bucket(bucket)?;
        let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = objects.get(key).ok_or(StoreError::NoSuchKey)?.clone();
        let tier = tier(*archive, &meta, now());
        Ok((meta, tier))
    }

    pub fn open_object(&self, bucket: &str, key: &str) -> Result<File, StoreError> {
        self.head(bucket, key)?;
        Ok(File::open(self.path(bucket, key, "data"))?)
    }

    /// Starts a restore of `delay`, kept for `days`.
    pub fn restore(&self, bucket: &str, key: &str, delay: Duration, days: u64) -> Result<(), StoreError> {
        let (_, objects) = self.bucket(bucket)?;
        let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = objects.get_mut(key).ok_or(StoreError::NoSuchKey)?;
        let at = now() + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX / 2);
        meta.restored_at = Some(at);
        meta.restored_until = Some(at + days * 24 * 3_600_000);
        fs::write(
            self.path(bucket, key, "meta"),
            serde_json::to_vec(meta).map_err(io::Error::from)?,
        )?;
        Ok(())
    }

    pub fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let (_, objects) = self.bucket(bucket)?;
        let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        if objects.remove(key).is_some() {
            fs::remove_file(self.path(bucket, key, "data"))?;
            fs::remove_file(self.path(bucket, key, "meta"))?;
        }
        Ok(())
    }

    /// Keys that start with `prefix` and lie after `after`, in order, with one more than `limit` as a sign of more.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Meta, Tier)>, StoreError> {
        let (archive, objects) = self.bucket(bucket)?;
        let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        let page = objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after)
            .take(limit + 1)
            .map(|(key, meta)| (key.clone(), meta.clone(), tier(*archive, meta, now())))
            .collect();
        Ok(page)
    }

    fn path(&self, bucket: &str, key: &str, extension: &str) -> PathBuf {
        self.directory.join(bucket).join(format!("{}.{extension}", encode(key)))
    }
}

fn tier(archive: bool, meta: &Meta, now: u64) -> Tier {
    match (archive, meta.restored_at, meta.restored_until) {
        (false, ..) => Tier::Standard,
        (true, Some(at), Some(until)) if now < until => {
            if now < at {
                Tier::Restoring
            } else {
                Tier::Restored(until)
            }
        }
        (true, ..) => Tier::Archived,
    }
}

/// A key as a file name: everything but letters, digits, `-`, `_` and `.` becomes `%XX`.
fn encode(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (code, tail) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_as_file_names() {
        for key in ["data/0/17.gpg", "a b/ü%2F", "RECOVERY.txt"] {
            assert_eq!(decode(&encode(key)).as_deref(), Some(key));
            assert!(!encode(key).contains('/'));
        }
    }

    #[test]
    fn archive_states_follow_time() {
        let meta = |at, until| Meta {
            size: 0,
            etag: String::new(),
            modified: 0,
            restored_at: at,
            restored_until: until,
        };
        assert_eq!(tier(false, &meta(None, None), 5), Tier::Standard);
        assert_eq!(tier(true, &meta(None, None), 5), Tier::Archived);
        assert_eq!(tier(true, &meta(Some(10), Some(20)), 5), Tier::Restoring);
        assert_eq!(tier(true, &meta(Some(10), Some(20)), 15), Tier::Restored(20));
        assert_eq!(tier(true, &meta(Some(10), Some(20)), 25), Tier::Archived);
    }
}
