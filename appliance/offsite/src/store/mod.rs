//! Where a copy lies: a bucket, or a directory. What pushes, comparisons and restores ask of either is the same dozen
//! operations, so that everything that decides is above this, and written once.
//!
//! Keys are those of an S3 service in both: `NAME/data/0/17.gpg` is that file below the directory.

pub mod directory;

use bytes::Bytes;

use self::directory::{Directory, Reader};
use crate::push::Tuning;
use crate::s3::{Archive, Client, Head, Listed, Payload, Retry, S3Error, Upload};
use crate::target::{Credentials, Place, Target};

/// An open target.
#[derive(Clone)]
pub(crate) enum Store {
    /// At an S3 service.
    Bucket(Box<Client>),
    /// In a file system.
    Directory(Directory, Retry),
}

/// An object that is being read; go on with [`Store::chunk`].
pub(crate) enum Reading {
    Bucket(reqwest::Response),
    Directory(Reader),
}

impl Store {
    /// Opens a target; nothing is sent.
    pub fn open(target: &Target, credentials: &Credentials, tuning: &Tuning) -> Result<Self, S3Error> {
        target.check()?;
        Ok(match &target.place {
            Place::Directory(directory) => Self::Directory(Directory::new(directory), tuning.retry),
            Place::Bucket(service) => {
                let client = Client::new(service, credentials.clone(), tuning.clock.clone(), tuning.retry)?;
                Self::Bucket(Box::new(client))
            }
        })
    }

    /// Sends no more than `rate` bytes per second over the line, from now on. Nothing goes over a line to a directory.
    pub fn limit(&mut self, rate: u64) {
        if let Self::Bucket(client) = self {
            client.limit(rate);
        }
    }

    /// The patience in use.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Bucket(client) => client.retry(),
            Self::Directory(_, retry) => *retry,
        }
    }

    /// The bucket, for what a directory has no counterpart of: uploads in parts, and of what has to be read twice.
    pub fn bucket(&self) -> Result<&Client, S3Error> {
        match self {
            Self::Bucket(client) => Ok(client),
            Self::Directory(directory, _) => Err(directory.is_no_bucket()),
        }
    }

    /// By which a ledger knows this place again: the bucket's name, or what a file in the directory says.
    pub async fn identity(&self, target: &Target) -> Result<String, S3Error> {
        match self {
            Self::Bucket(_) => Ok(target.place.to_string()),
            Self::Directory(directory, _) => directory.identity().await,
        }
    }

    /// What a push that was cut short left half written below `prefix` goes. A bucket shows nothing half written.
    pub async fn sweep(&self, prefix: &str) -> Result<(), S3Error> {
        match self {
            Self::Bucket(_) => Ok(()),
            Self::Directory(directory, _) => directory.sweep(prefix).await,
        }
    }

    /// As [`Client::put_once`]. A directory never replaces a file that is there: such a name is refused as taken.
    pub async fn put_once(&self, key: &str, bytes: Bytes, payload: &Payload) -> Result<String, S3Error> {
        match self {
            Self::Bucket(client) => client.put_once(key, bytes, payload).await,
            Self::Directory(directory, _) => directory.put(key, bytes, payload).await,
        }
    }

    /// As [`Client::head`]. In a directory that reads all of the file, since nothing else tells its MD5.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, S3Error> {
        match self {
            Self::Bucket(client) => client.head(key).await,
            Self::Directory(directory, _) => directory.head(key).await,
        }
    }

    /// Where an object stands in an archive. One that is not there counts as readable: reading it says what is wrong.
    pub async fn archive(&self, key: &str) -> Result<Archive, S3Error> {
        match self {
            Self::Bucket(client) => Ok(client.head(key).await?.map_or(Archive::Readable, |head| head.archive)),
            Self::Directory(..) => Ok(Archive::Readable),
        }
    }

    /// As [`Client::get`].
    pub async fn get(&self, key: &str) -> Result<Reading, S3Error> {
        match self {
            Self::Bucket(client) => client.get(key).await.map(Reading::Bucket),
            Self::Directory(directory, _) => directory.get(key).await.map(Reading::Directory),
        }
    }

    /// As [`Client::chunk`].
    pub async fn chunk(&self, operation: &str, reading: &mut Reading) -> Result<Option<Bytes>, S3Error> {
        match reading {
            Reading::Bucket(response) => self.bucket()?.chunk(operation, response).await,
            Reading::Directory(reader) => reader.chunk().await,
        }
    }

    /// As [`Client::get_small`].
    pub async fn get_small(&self, key: &str, limit: usize) -> Result<Vec<u8>, S3Error> {
        match self {
            Self::Bucket(client) => client.get_small(key, limit).await,
            Self::Directory(directory, _) => directory.get_small(key, limit).await,
        }
    }

    /// As [`Client::list`]. A directory tells no ETags.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        match self {
            Self::Bucket(client) => client.list(prefix).await,
            Self::Directory(directory, _) => directory.list(prefix).await,
        }
    }

    /// Unfinished uploads in parts below `prefix`.
    pub async fn list_multipart(&self, prefix: &str) -> Result<Vec<Upload>, S3Error> {
        match self {
            Self::Bucket(client) => client.list_multipart(prefix).await,
            Self::Directory(..) => Ok(Vec::new()),
        }
    }

    /// As [`Client::delete`].
    pub async fn delete(&self, key: &str) -> Result<(), S3Error> {
        match self {
            Self::Bucket(client) => client.delete(key).await,
            Self::Directory(directory, _) => directory.delete(key).await,
        }
    }

    /// As [`Client::restore`].
    pub async fn restore(&self, key: &str, days: u32) -> Result<(), S3Error> {
        match self {
            Self::Bucket(client) => client.restore(key, days).await,
            Self::Directory(..) => Ok(()),
        }
    }
}
