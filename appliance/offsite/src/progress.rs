//! Progress of a push or a restore, for whoever shows it.

use std::sync::{Mutex, PoisonError};

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
    /// Looking which objects are archived, and asking for them to be made readable.
    Request,
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

/// The progress of several files that are on their way at a time, told as one.
pub(crate) struct Told<'a>(Mutex<(Progress, OnProgress<'a>)>);

impl<'a> Told<'a> {
    pub fn new(progress: Progress, on_progress: OnProgress<'a>) -> Self {
        on_progress(progress);
        Self(Mutex::new((progress, on_progress)))
    }

    pub fn change(&self, change: impl FnOnce(&mut Progress)) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (progress, on_progress) = &mut *told;
        change(progress);
        on_progress(*progress);
    }

    /// The part that one file of `size` bytes has in it.
    pub fn file(&self, size: u64) -> Part<'_, 'a> {
        Part { told: self, left: size }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The part that one file has in the progress. What goes over the line is larger than the file: it counts no more than
/// that, not even when it has to be sent again.
pub(crate) struct Part<'t, 'a> {
    told: &'t Told<'a>,
    /// Bytes not counted yet.
    left: u64,
}

impl Part<'_, '_> {
    pub fn add(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        if bytes > 0 {
            self.told.change(|progress| progress.bytes_done += bytes);
        }
    }

    pub fn done(self) {
        self.told.change(|progress| {
            progress.bytes_done += self.left;
            progress.objects_done += 1;
        });
    }
}
