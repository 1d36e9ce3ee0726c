//! What can go wrong when a repository is read, in words.

use std::io;
use std::path::PathBuf;

use crate::object::BadContent;
use crate::segment::{Damage, ObjectKey, SegmentNumber};

/// Why a repository could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `config` file with a `[repository]` section.
    #[error("{path} is not a Borg repository ({why}); run `borg init` on it from the client first")]
    NotARepository {
        /// The directory that was given.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// A repository of another major format, such as Borg 2.
    #[error("{path} is a Borg repository of version {version}; only version 1 (Borg 1.x) is supported")]
    UnsupportedVersion {
        /// The directory that was given.
        path: PathBuf,
        /// The version as written in `config`.
        version: String,
    },
    /// A value in `config` cannot be understood.
    #[error("{path}/config: {key} = {value:?} is not valid; compare it with an older copy of the file")]
    BadConfig {
        /// The repository.
        path: PathBuf,
        /// The key whose value is wrong.
        key: &'static str,
        /// The value found.
        value: String,
    },
    /// A segment does not parse.
    #[error("segment {segment} is damaged: {damage}; run `borg check` on the repository")]
    Damaged {
        /// The segment's number.
        segment: SegmentNumber,
        /// Where and how.
        damage: Damage,
    },
    /// The same segment number exists twice, under two directories.
    #[error("segment {0} exists twice under data/; run `borg check` on the repository")]
    DuplicateSegment(SegmentNumber),
    /// There is no manifest, or it was deleted.
    #[error("{0} holds no list of archives; run `borg check` on the repository")]
    NoManifest(PathBuf),
    /// An object can be read but not understood.
    #[error("object {object:?} in segment {segment} cannot be used: {problem}")]
    Content {
        /// The object.
        object: ObjectKey,
        /// Where it lies.
        segment: SegmentNumber,
        /// What is wrong with it.
        problem: BadContent,
    },
    /// A segment held more objects than are traced.
    #[error("too many objects of segment {0} are damaged to be traced one by one")]
    TooMuchDamage(SegmentNumber),
    /// Borg's own table of objects is missing or torn.
    #[error("{path}/index.{transaction} is missing or torn; any borg command on the repository rebuilds it")]
    NoIndex {
        /// The repository.
        path: PathBuf,
        /// The transaction whose index is needed.
        transaction: SegmentNumber,
    },
    /// The operating system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
