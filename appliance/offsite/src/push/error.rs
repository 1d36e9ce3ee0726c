//! Why a push failed, and what to do about it.

use std::path::PathBuf;

use strongroom_borg::SegmentNumber;

use super::read::ReadError;
use crate::ledger::LedgerError;
use crate::openpgp::RecipientError;
use crate::openpgp::sign::SignError;
use crate::s3::S3Error;

/// Why a push failed. Nothing is lost: the target stays restorable to its last manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] strongroom_borg::Error),
    /// Nothing was ever committed.
    #[error("{path} holds no committed transaction yet; run a first backup")]
    NoCommit {
        /// The repository.
        path: PathBuf,
    },
    /// A recipient cannot be used.
    #[error(transparent)]
    Recipient(#[from] RecipientError),
    /// The appliance's own key does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The service refused, or cannot be reached.
    #[error("target {target}: {source}")]
    Target {
        /// The target's name.
        target: String,
        /// What happened.
        #[source]
        source: S3Error,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A committed segment is not what was sent before. An alarm: such segments never change.
    #[error(
        "committed segment {segment} has changed since it was pushed ({why}); nothing was sent. The disk may be \
         failing, or someone changed the repository: run `borg check`, and restore the segment from the target"
    )]
    SegmentAltered {
        /// Its number.
        segment: SegmentNumber,
        /// What differs.
        why: &'static str,
    },
    /// A segment cannot be read or sealed.
    #[error("segment {segment} cannot be sent: {source}")]
    Segment {
        /// Its number.
        segment: SegmentNumber,
        /// What happened.
        #[source]
        source: ReadError,
    },
    /// The repository on the disk is older than what was pushed.
    #[error(
        "the repository's last transaction is {here}, but {there} was pushed already: the repository went back in \
         time. Find out why before anything else writes to it"
    )]
    WentBack {
        /// On the disk.
        here: SegmentNumber,
        /// In the target.
        there: SegmentNumber,
    },
    /// Every name that was tried is taken.
    #[error("target {target}: the name {object} is taken, and so were others; is another appliance using this prefix?")]
    NameTaken {
        /// The target's name.
        target: String,
        /// The object.
        object: String,
    },
    /// A thread of ours ended badly.
    #[error("internal error: {0}; report this")]
    Internal(String),
}
