//! Progress of a push or a restore, for whoever shows it.

use serde::{Deserialize, Serialize};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Comparing the repository, the ledger and the target.
    Compare,
    /// Encrypting and sending.
    Send,
    /// Publishing the manifest.
    Publish,
    /// Waiting for the archive tier to make objects readable: hours, usually.
    Wait,
    /// Receiving, decrypting and checking.
    Receive,
    /// Ended well.
    Done,
}

/// How far it is. Bytes are those of the repository's files, not of the encrypted objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Files done.
    pub objects_done: u64,
    /// Files in all.
    pub objects_total: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

impl Progress {
    pub(crate) fn new(phase: Phase) -> Self {
        Self {
            phase,
            objects_done: 0,
            objects_total: 0,
            bytes_done: 0,
            bytes_total: 0,
        }
    }
}

/// Receives every step. Called often: write to a disk only now and then.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);
