//! What a check can find, in words.

use std::io;

use super::Sum;
use crate::object::BadContent;
use crate::segment::{Damage, SegmentNumber};

/// What is wrong with a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A segment breaks the format or a checksum. Only the first place in each segment is told.
    #[error("segment {segment} is damaged: {damage}")]
    Damaged {
        /// The segment.
        segment: SegmentNumber,
        /// Where and how.
        damage: Damage,
    },
    /// The disk doesn't give a segment's bytes.
    #[error("segment {segment} cannot be read beyond byte {offset}: {source}")]
    Unreadable {
        /// The segment.
        segment: SegmentNumber,
        /// How far reading came.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A segment is well-formed but isn't what it was.
    #[error("segment {segment} was altered after it was committed")]
    Altered {
        /// The segment.
        segment: SegmentNumber,
        /// The SHA-256 in the ledger.
        expected: Sum,
        /// The SHA-256 now.
        found: Sum,
    },
    /// A segment is well-formed and, as far as is known, what it was; but objects in it don't hold what their names say.
    /// Whoever stored them stored them so.
    #[error(
        "{objects} of the objects in segment {segment} do not hold what they should, first that at byte {offset}: {first}"
    )]
    Content {
        /// The segment.
        segment: SegmentNumber,
        /// Start of the first such entry.
        offset: u64,
        /// What is wrong with it.
        first: BadContent,
        /// How many there are.
        objects: u32,
    },
    /// A segment holds nothing, which Borg writes only when it repairs.
    #[error("segment {segment} holds no entry: it was cut off, or `borg check --repair` emptied it")]
    Empty {
        /// The segment.
        segment: SegmentNumber,
    },
    /// A commit is always the last entry of its segment.
    #[error("segment {segment} goes on after the commit, at byte {offset}")]
    AfterCommit {
        /// The segment.
        segment: SegmentNumber,
        /// Start of the first entry that shouldn't be there.
        offset: u64,
    },
    /// A segment lies in a directory where Borg doesn't look for it.
    #[error("segment {segment} lies at {name}, where Borg does not look for it")]
    Misplaced {
        /// The segment.
        segment: SegmentNumber,
        /// Where it lies below the repository.
        name: String,
    },
    /// Live objects are gone with the segment, or the end of the segment, that held them.
    #[error("segment {segment} is missing, or lacks at least {objects} of the objects that Borg's index has there")]
    Lost {
        /// The segment.
        segment: SegmentNumber,
        /// How many objects at least.
        objects: u32,
    },
    /// The index belongs to a commit that is gone.
    #[error("Borg's index is of transaction {index}, but the last commit found is {found:?}")]
    CommitLost {
        /// The transaction of the index.
        index: SegmentNumber,
        /// The last commit that is left.
        found: Option<SegmentNumber>,
    },
    /// The whole repository was read, and it holds no list of archives.
    #[error("there is no list of archives")]
    NoManifest,
}
