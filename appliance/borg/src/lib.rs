//! Reading Borg 1.x repositories as they lie on disk.
//!
//! Owns the on-disk format: segments, their entries, commits, and the repository's `config`.
//! Reads files only. Never writes, never takes Borg's lock, never decrypts or unpacks.
//!
//! The format is Borg's own (`repository.py` of 1.1 to 1.4) and is summed up in [`segment`].

pub mod config;
pub mod error;
pub mod repository;
pub mod segment;
#[cfg(test)]
mod segment_writer;
pub mod transaction;

pub use config::{RepositoryConfig, RepositoryId};
pub use error::Error;
pub use repository::{Facts, LastCommit, Repository, SegmentFile};
pub use segment::{Damage, Entry, EntryKind, ObjectKey, SegmentNumber, SegmentReader};
pub use transaction::Transaction;
