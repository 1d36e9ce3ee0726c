//! What the server is told at its start: buckets, credentials, limits.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a credential may do, after Oracle's `OBJECT_…` permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// PUT of a new key.
    pub create: bool,
    /// PUT of an existing key. Multipart needs this and `create`.
    pub overwrite: bool,
    /// DELETE, and abort of a multipart upload.
    pub delete: bool,
    /// HEAD and lists.
    pub inspect: bool,
    /// GET.
    pub read: bool,
    /// RestoreObject.
    pub restore: bool,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self {
        create: true,
        overwrite: true,
        delete: true,
        inspect: true,
        read: true,
        restore: true,
    };
    /// Only new keys; can't even look.
    pub const CREATE_ONLY: Self = Self {
        create: true,
        overwrite: false,
        delete: false,
        inspect: false,
        read: false,
        restore: false,
    };
    /// New keys, HEAD and lists.
    pub const CREATE_AND_INSPECT: Self = Self {
        inspect: true,
        ..Self::CREATE_ONLY
    };
}

/// The text is not a list of permissions.
#[derive(Debug, thiserror::Error)]
#[error("unknown permission {0:?}: use all, or a list of create,overwrite,delete,inspect,read,restore")]
pub struct UnknownPermission(String);

impl FromStr for Permissions {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut it = Self {
            create: false,
            overwrite: false,
            delete: false,
            inspect: false,
            read: false,
            restore: false,
        };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "all" => it = Self::ALL,
                "create" => it.create = true,
                "overwrite" => it.overwrite = true,
                "delete" => it.delete = true,
                "inspect" => it.inspect = true,
                "read" => it.read = true,
                "restore" => it.restore = true,
                other => return Err(UnknownPermission(other.into())),
            }
        }
        Ok(it)
    }
}

/// A key pair and what it may do.
#[derive(Clone)]
pub struct Credential {
    /// The id, sent in the clear.
    pub access_key: String,
    /// The secret, never sent.
    pub secret_key: String,
    /// What it may do.
    pub permissions: Permissions,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

/// A bucket, made at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Whether its objects are archived as soon as they are stored.
    pub archive: bool,
}

/// The text is not `NAME` or `NAME:archive`.
#[derive(Debug, thiserror::Error)]
#[error("bucket {0:?}: write NAME or NAME:archive")]
pub struct BadBucket(String);

impl FromStr for Bucket {
    type Err = BadBucket;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, archive) = match text.split_once(':') {
            None => (text, false),
            Some((name, "archive")) => (name, true),
            Some(_) => return Err(BadBucket(text.into())),
        };
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(BadBucket(text.into()));
        }
        Ok(Self {
            name: name.into(),
            archive,
        })
    }
}

/// Everything the server is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where objects are kept, across restarts.
    pub directory: PathBuf,
    /// The one region it answers to.
    pub region: String,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
    /// Who may come in.
    pub credentials: Vec<Credential>,
    /// Smallest part but the last, in bytes. Oracle: 10 MiB.
    pub minimum_part: u64,
    /// Most keys in one page of a list.
    pub page: usize,
    /// How long a restore from archive takes.
    pub restore_delay: Duration,
    /// Cap on all bodies received together, in bytes per second.
    pub bandwidth: Option<u64>,
    /// How long every request takes at least.
    pub latency: Duration,
    /// Whether every PUT must carry `Content-MD5`, as some services demand it where a retention rule is in force.
    pub demand_md5: bool,
    /// A retention rule: what was stored for less long can't be overwritten or deleted, whoever asks.
    pub retention: Option<Duration>,
    /// Whether what is not permitted is answered as if it were not there, as Oracle does it.
    pub hides: bool,
    /// Which lists are known.
    pub lists: Lists,
}

/// Which versions of the list a server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// ListObjects and ListObjectsV2.
    Both,
    /// ListObjects; the second version is refused.
    First,
    /// ListObjects; the second version is taken for it.
    Mistaken,
}

impl Settings {
    /// Oracle's limits, on a free port of loopback, without buckets or credentials.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, region: impl Into<String>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            directory: directory.into(),
            region: region.into(),
            buckets: Vec::new(),
            credentials: Vec::new(),
            minimum_part: 10 * 1024 * 1024,
            page: 1000,
            restore_delay: Duration::from_secs(3600),
            bandwidth: None,
            latency: Duration::ZERO,
            demand_md5: false,
            retention: None,
            hides: false,
            lists: Lists::Both,
        }
    }

    /// Adds a bucket.
    #[must_use]
    pub fn bucket(mut self, name: &str, archive: bool) -> Self {
        self.buckets.push(Bucket {
            name: name.into(),
            archive,
        });
        self
    }

    /// Adds a credential.
    #[must_use]
    pub fn credential(mut self, access_key: &str, secret_key: &str, permissions: Permissions) -> Self {
        self.credentials.push(Credential {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            permissions,
        });
        self
    }
}
