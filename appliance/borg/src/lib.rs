//! Reading Borg 1.x repositories as they lie on disk.
//!
//! Owns the on-disk format: segments, their entries, commits, and the repository's `config`.
//! Reads files only, in bounded memory. Never writes, never takes Borg's lock, never decrypts.
//!
//! [`audit`] tells what transactions did, [`judgement`] whether that is worrying, [`verify`] whether
//! every byte is still as it was written, [`touched`] whom a damage concerns, and [`manifest`] lists
//! the archives of a repository that is not encrypted.
//!
//! The format is Borg's own (`repository.py` of 1.1 to 1.4) and is summed up in [`segment`] and [`index`].

pub mod audit;
pub mod config;
pub mod error;
mod file;
pub mod headers;
mod hints;
pub mod index;
pub mod judgement;
pub mod manifest;
mod msgpack;
pub mod object;
pub mod repository;
pub mod segment;
#[cfg(test)]
mod segment_writer;
pub mod touched;
pub mod transaction;
pub mod verify;

pub use audit::Audit;
pub use config::{RepositoryConfig, RepositoryId, changed_settings};
pub use error::Error;
pub use file::open as open_file;
pub use headers::HeaderReader;
pub use index::{Index, Place};
pub use manifest::{Archive, Archives, Manifest};
pub use object::{BadContent, Protection};
pub use repository::{Facts, LastCommit, Repository, SegmentFile, lacking};
pub use segment::{Damage, Entry, EntryKind, ObjectKey, SegmentNumber, SegmentReader};
pub use touched::{Touched, TouchedArchive};
pub use transaction::{Depth, Transaction};
pub use verify::{Outcome, Plan, Problem};
