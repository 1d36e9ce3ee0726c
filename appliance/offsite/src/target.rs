//! Where a repository is pushed to, and with which credentials.

use std::fmt;
use std::path::PathBuf;

use strongroom_model::config::{self, Multipart};
use strongroom_model::name::TargetName;
use zeroize::Zeroizing;

use crate::trust::Trust;

/// Where copies lie: a bucket or a directory, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in the configuration; for messages.
    pub name: String,
    /// The bucket or the directory.
    pub place: Place,
    /// Keys start with this and a slash; empty for all of the place.
    pub prefix: String,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A bucket.
    Bucket(AtService),
    /// A directory: objects are files, and the messages of a service become those of the disk.
    Directory(PathBuf),
}

/// A bucket at an S3-compatible service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtService {
    /// `https://…` (or `http://…` on a LAN: what is sent is encrypted already), without the bucket.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket. Addressed in path style.
    pub bucket: String,
    /// The bucket for what is small and read first: manifests, versions of `config`, the instructions. The same when absent.
    pub manifest_bucket: Option<String>,
    /// Whether large objects may be sent in parts. Where they are not, large files are read twice.
    pub multipart: Multipart,
    /// Authorities that may vouch for the endpoint, beside the public ones.
    pub trust: Trust,
}

/// For people: the bucket's name, or the directory.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(service) => f.write_str(&service.bucket),
            Self::Directory(directory) => directory.display().fmt(f),
        }
    }
}

impl Place {
    /// The bucket, if it is one.
    #[must_use]
    pub fn bucket(&self) -> Option<&AtService> {
        match self {
            Self::Bucket(service) => Some(service),
            Self::Directory(_) => None,
        }
    }
}

impl AtService {
    /// What a strongroom.toml says of it.
    #[must_use]
    pub fn configured(bucket: &config::AtService, trust: Trust) -> Self {
        Self {
            endpoint: bucket.endpoint.to_string(),
            region: bucket.region.to_string(),
            bucket: bucket.bucket.to_string(),
            manifest_bucket: bucket.manifest_bucket.as_ref().map(|other| other.get_ref().to_string()),
            multipart: bucket.multipart,
            trust,
        }
    }

    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn check(&self) -> Result<(), BadTarget> {
        if !plain(&self.region, "-_") {
            return Err(BadTarget::Region(self.region.clone()));
        }
        let bad = |bucket: &&String| !plain(bucket, "-_.") || bucket.starts_with('.') || bucket.len() > 255;
        match [&self.bucket].into_iter().chain(&self.manifest_bucket).find(bad) {
            Some(bucket) => Err(BadTarget::Bucket(bucket.clone())),
            None => Ok(()),
        }
    }

    /// Each of its buckets alone: that of the segments, then that of the manifests if it is another.
    #[must_use]
    pub fn buckets(&self) -> Vec<Self> {
        let alone = |bucket: &String| Self {
            bucket: bucket.clone(),
            manifest_bucket: None,
            ..self.clone()
        };
        [&self.bucket]
            .into_iter()
            .chain(&self.manifest_bucket)
            .map(alone)
            .collect()
    }
}

fn plain(text: &str, extra: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || extra.as_bytes().contains(&b);
    !text.is_empty() && text.bytes().all(is_plain)
}

/// An access key and its secret. The secret is wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: Zeroizing<String>,
}

impl Credentials {
    /// Keeps a pair.
    #[must_use]
    pub fn new(access_key: impl Into<String>, secret_key: Zeroizing<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key,
        }
    }

    /// None: for a directory.
    #[must_use]
    pub fn none() -> Self {
        Self::new(String::new(), Zeroizing::default())
    }

    pub(crate) fn access_key(&self) -> &str {
        &self.access_key
    }

    pub(crate) fn secret_key(&self) -> &str {
        &self.secret_key
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a target, before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Not a URL of the kind needed.
    #[error("endpoint {0:?} is not valid: write https://HOST or http://HOST:PORT, without bucket, user or query")]
    Endpoint(String),
    /// The bucket's name cannot be one.
    #[error("bucket {0:?} is not a valid bucket name")]
    Bucket(String),
    /// The region is empty or has odd characters.
    #[error("region {0:?} is not valid: it looks like eu-frankfurt-1")]
    Region(String),
    /// The prefix could be read as another place.
    #[error("prefix {0:?} is not valid: use letters, digits, '-', '_', '.' and single slashes, at most 512 bytes")]
    Prefix(String),
}

impl Target {
    /// A bucket as a strongroom.toml says it, below `prefix`.
    #[must_use]
    pub fn configured(name: &TargetName, bucket: &config::AtService, prefix: String, trust: Trust) -> Self {
        Self {
            name: name.to_string(),
            place: Place::Bucket(AtService::configured(bucket, trust)),
            prefix,
        }
    }

    /// A directory, below `prefix`.
    #[must_use]
    pub fn in_directory(name: String, directory: PathBuf, prefix: String) -> Self {
        Self {
            name,
            place: Place::Directory(directory),
            prefix,
        }
    }

    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn check(&self) -> Result<(), BadTarget> {
        if let Place::Bucket(service) = &self.place {
            service.check()?;
        }
        let prefix_ok = self.prefix.is_empty()
            || (self.prefix.len() <= 512
                && self
                    .prefix
                    .split('/')
                    .all(|part| plain(part, "-_.") && part != "." && part != ".."));
        if !prefix_ok {
            return Err(BadTarget::Prefix(self.prefix.clone()));
        }
        Ok(())
    }

    /// Whether large objects are sent in parts. Nothing is saved by them where nothing is sent over a line.
    #[must_use]
    pub fn goes_in_parts(&self) -> bool {
        matches!(&self.place, Place::Bucket(service) if service.multipart == Multipart::Auto)
    }

    /// The bucket for what is small, if there is another than that of the segments.
    #[must_use]
    pub fn manifest_bucket(&self) -> Option<&str> {
        self.place.bucket()?.manifest_bucket.as_deref()
    }

    /// The full key of an object of ours.
    #[must_use]
    pub fn key(&self, object: &str) -> String {
        key(&self.prefix, object)
    }

    /// The object's name below the prefix.
    #[must_use]
    pub fn object<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            Some(key)
        } else {
            key.strip_prefix(&self.prefix)?.strip_prefix('/')
        }
    }
}

/// The full key of an object below a prefix.
pub(crate) fn key(prefix: &str, object: &str) -> String {
    if prefix.is_empty() {
        object.to_owned()
    } else {
        format!("{prefix}/{object}")
    }
}

#[cfg(test)]
impl AtService {
    /// A bucket somewhere, for tests that ask nobody.
    pub(crate) fn example() -> Self {
        Self {
            endpoint: "https://s3.example".into(),
            region: "here".into(),
            bucket: "vault".into(),
            manifest_bucket: None,
            multipart: Multipart::Auto,
            trust: Trust::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(prefix: &str) -> Target {
        Target {
            name: "t".into(),
            place: Place::Bucket(AtService::example()),
            prefix: prefix.into(),
        }
    }

    #[test]
    fn what_can_be_no_bucket_is_refused() {
        let with = |change: fn(&mut AtService)| {
            let mut service = AtService::example();
            change(&mut service);
            service.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert!(matches!(with(|at| at.region = "a b".into()), Err(BadTarget::Region(_))));
        assert!(matches!(with(|at| at.bucket = ".a".into()), Err(BadTarget::Bucket(_))));
        let other = with(|at| at.manifest_bucket = Some("a/b".into()));
        assert_eq!(other, Err(BadTarget::Bucket("a/b".into())));
    }

    #[test]
    fn prefixes() {
        assert_eq!(target("").key("a/b"), "a/b");
        assert_eq!(target("x/y").key("a/b"), "x/y/a/b");
        assert_eq!(target("x/y").object("x/y/a/b"), Some("a/b"));
        assert_eq!(target("x").object("xy/a"), None);
        for bad in ["/x", "x/", "x//y", "..", "a/../b", "ä"] {
            assert!(target(bad).check().is_err(), "{bad}");
        }
        assert!(target("asus_home/v1").check().is_ok());
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials::new("id", Zeroizing::new("hunter2".into()));
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
