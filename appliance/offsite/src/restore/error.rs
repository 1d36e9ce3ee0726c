//! Why a restore failed, in words that say what to do.

use std::io;
use std::path::PathBuf;

use strongroom_borg::SegmentNumber;

use crate::manifest::BadManifest;
use crate::openpgp::OpenError;
use crate::s3::S3Error;

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The service refused, or cannot be reached.
    #[error("target {target}: {source}")]
    Target {
        /// The target's name.
        target: String,
        /// What happened.
        #[source]
        source: S3Error,
    },
    /// There is no manifest.
    #[error("target {target} holds no manifest{}; check bucket and prefix", 
        .transaction.map(|t| format!(" of transaction {t}")).unwrap_or_default())]
    NoManifest {
        /// The target's name.
        target: String,
        /// The state that was asked for.
        transaction: Option<SegmentNumber>,
    },
    /// The manifest cannot be used.
    #[error("manifest {object}: {source}")]
    Manifest {
        /// The object.
        object: String,
        /// What is wrong.
        #[source]
        source: BadManifest,
    },
    /// The manifest was not signed by whom it should.
    #[error(
        "manifest {object} is not by {signer}: {why}. If the appliance has made itself a new key since, that one's \
         fingerprint is wanted; a restore without --signer says who signed"
    )]
    Signature {
        /// The object.
        object: String,
        /// Who should have.
        signer: String,
        /// What is wrong.
        why: String,
    },
    /// An object cannot be opened.
    #[error("{object}: {source}")]
    Open {
        /// The object.
        object: String,
        /// What is wrong.
        #[source]
        source: OpenError,
    },
    /// An object or its content is not what the manifest says.
    #[error("{object}: {what} is not what the manifest says: the copy is damaged, or another object lies there")]
    Mismatch {
        /// The object.
        object: String,
        /// What differs.
        what: &'static str,
    },
    /// The state has no such segment.
    #[error(
        "the state of transaction {transaction} has no segment {segment}; it may have been freed since, or not been \
         pushed yet. An earlier state can be chosen by its transaction"
    )]
    NoSegment {
        /// The segment.
        segment: SegmentNumber,
        /// The state.
        transaction: SegmentNumber,
    },
    /// The segment was damaged already when it was pushed.
    #[error("{object}: the copy itself is of a damaged segment ({why}); another target or state may have it whole")]
    Segment {
        /// The object.
        object: String,
        /// What is wrong.
        why: String,
    },
    /// The destination is not empty.
    #[error("{path} is not empty, and holds no restore that was cut short; give a new directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The destination holds an unfinished restore of something else.
    #[error("{path} holds {what} that was cut short; finish that, or give a new directory")]
    Another {
        /// The directory.
        path: PathBuf,
        /// Of what.
        what: String,
    },
    /// Another process is restoring to the same place.
    #[error("another restore to {path} is running")]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The owner did not agree to a request to the archive.
    #[error("nothing was requested from the archive, and nothing fetched")]
    NotAgreed,
    /// Writing failed.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread of ours ended badly.
    #[error("internal error: {0}; report this")]
    Internal(String),
}

impl RestoreError {
    /// Whether it tells of the copy, which can't be restored as it is, and not of what was used to try: a line, a key, a
    /// disk, a program that is too old.
    #[must_use]
    pub fn is_of_the_copy(&self) -> bool {
        match self {
            Self::NoManifest { .. }
            | Self::Signature { .. }
            | Self::Mismatch { .. }
            | Self::NoSegment { .. }
            | Self::Segment { .. } => true,
            Self::Manifest { source, .. } => !matches!(source, BadManifest::Newer(_)),
            Self::Open { source, .. } => matches!(source, OpenError::NotAMessage(_) | OpenError::Damaged(_)),
            Self::Target { source, .. } => matches!(source, S3Error::NoSuchKey { .. }),
            Self::NotEmpty { .. }
            | Self::Another { .. }
            | Self::Busy { .. }
            | Self::NotAgreed
            | Self::Io { .. }
            | Self::Internal(_) => false,
        }
    }

    /// Whether an object has to be made readable first.
    pub(super) fn is_archived(&self) -> bool {
        matches!(
            self,
            Self::Target {
                source: S3Error::Archived { .. },
                ..
            }
        )
    }
}
