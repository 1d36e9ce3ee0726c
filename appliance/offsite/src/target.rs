//! Where a repository is pushed to, and with which credentials.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use strongroom_model::config;
use strongroom_model::name::TargetName;
use zeroize::Zeroizing;

use crate::trust::Trust;

/// A bucket, or a part of one, at an S3-compatible service; or a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name in the configuration; for messages.
    pub name: String,
    /// `https://…` (or `http://…` on a LAN: what is sent is encrypted already), without the bucket.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket. Addressed in path style.
    pub bucket: String,
    /// The bucket for what is small and read first: manifests, versions of `config`, the instructions. The same when absent.
    #[serde(default)]
    pub manifest_bucket: Option<String>,
    /// The directory that takes the place of a bucket ([`Target::in_directory`]). What is said of a service above is empty then.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Keys start with this and a slash; empty for the whole bucket.
    #[serde(default)]
    pub prefix: String,
    /// Whether large objects may be sent in parts.
    #[serde(default)]
    pub multipart: Multipart,
    /// Authorities that may vouch for the endpoint, beside the public ones.
    #[serde(skip)]
    pub trust: Trust,
}

impl Target {
    /// A directory, below `prefix`. Objects are files; the messages of a service become those of the disk.
    #[must_use]
    pub fn in_directory(name: String, directory: PathBuf, prefix: String) -> Self {
        Self {
            name,
            endpoint: String::new(),
            region: String::new(),
            bucket: String::new(),
            manifest_bucket: None,
            directory: Some(directory),
            prefix,
            // Nothing is saved by parts where nothing is sent over a line.
            multipart: Multipart::Never,
            trust: Trust::default(),
        }
    }

    /// Where it is, for people: the bucket's name, or the directory.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.directory {
            Some(directory) => directory.display().to_string(),
            None => self.bucket.clone(),
        }
    }

    /// What a strongroom.toml says of a bucket, below `prefix`.
    #[must_use]
    pub fn configured(name: &TargetName, bucket: &config::AtService, prefix: String, trust: Trust) -> Self {
        Self {
            name: name.to_string(),
            endpoint: bucket.endpoint.to_string(),
            region: bucket.region.to_string(),
            bucket: bucket.bucket.to_string(),
            manifest_bucket: bucket.manifest_bucket.as_ref().map(|other| other.get_ref().to_string()),
            directory: None,
            prefix,
            multipart: match bucket.multipart {
                config::Multipart::Auto => Multipart::Auto,
                config::Multipart::Never => Multipart::Never,
            },
            trust,
        }
    }
}

/// Whether multipart uploads may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multipart {
    /// For objects larger than one part.
    #[default]
    Auto,
    /// Never: for credentials that may only create objects. Large files are then read twice.
    Never,
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
    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn check(&self) -> Result<(), BadTarget> {
        let plain = |text: &str, extra: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || extra.as_bytes().contains(&b))
        };
        let is_bucket = self.directory.is_none();
        if is_bucket && !plain(&self.region, "-_") {
            return Err(BadTarget::Region(self.region.clone()));
        }
        for bucket in [&self.bucket].into_iter().chain(&self.manifest_bucket) {
            if is_bucket && (!plain(bucket, "-_.") || bucket.starts_with('.') || bucket.len() > 255) {
                return Err(BadTarget::Bucket(bucket.clone()));
            }
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

    /// Each of its buckets as a target of its own: that of the segments, then that of the manifests if it is another.
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

    /// The full key of an object of ours.
    #[must_use]
    pub fn key(&self, object: &str) -> String {
        if self.prefix.is_empty() {
            object.to_owned()
        } else {
            format!("{}/{object}", self.prefix)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn target(prefix: &str) -> Target {
        Target {
            name: "t".into(),
            endpoint: "http://localhost".into(),
            region: "eu-frankfurt-1".into(),
            bucket: "backup".into(),
            manifest_bucket: None,
            directory: None,
            prefix: prefix.into(),
            multipart: Multipart::Auto,
            trust: Trust::default(),
        }
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
