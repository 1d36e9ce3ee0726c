//! Reading a segment and sealing it, on a thread that may block, in bounded memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::digest::{Digest, Md5Sum, Sha256Sum};
use crate::openpgp::{Encryptor, Seal};
use crate::s3::{BodySender, Payload};

const PIECE: usize = 256 * 1024;

/// Why a file could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not as long as it was.
    #[error("its size changed while it was read")]
    Changed,
    /// It is larger than one OpenPGP packet (4 GiB).
    #[error("it is larger than 4 GiB")]
    TooLarge,
    /// Nobody wants the rest.
    #[error("the transfer ended early")]
    Stopped,
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file and how it is to be sealed.
#[derive(Clone)]
pub(super) struct Plan {
    pub path: PathBuf,
    pub size: u64,
    pub seal: Seal,
}

/// What is known once all was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals {
    pub plain_sha256: Sha256Sum,
    pub sha256: Sha256Sum,
    pub size: u64,
}

/// One part of a multipart upload.
pub(super) struct Part {
    pub bytes: Bytes,
    pub payload: Payload,
}

/// SHA-256 of a file of a known size.
pub(super) fn hash_file(path: &Path, size: u64) -> Result<Sha256Sum, ReadError> {
    let mut hash = Sha256::new();
    each_piece(path, size, |piece| {
        hash.update(piece);
        true
    })?;
    Ok(Digest(hash.finalize().into()))
}

fn each_piece(path: &Path, size: u64, mut piece: impl FnMut(&[u8]) -> bool) -> Result<(), ReadError> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE];
    let mut left = size;
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            return if left == 0 { Ok(()) } else { Err(ReadError::Changed) };
        }
        left = left.checked_sub(read as u64).ok_or(ReadError::Changed)?;
        if !piece(buffer.get(..read).unwrap_or_default()) {
            return Err(ReadError::Stopped);
        }
    }
}

impl Plan {
    /// Seals the file; `sink` takes each piece of the message out of the buffer, and says whether to go on.
    fn seal_into(&self, mut sink: impl FnMut(&mut Vec<u8>) -> bool) -> Result<Totals, ReadError> {
        let mut plain = Sha256::new();
        let mut sealed = Sha256::new();
        let mut out = Vec::with_capacity(2 * PIECE);
        let size = self.seal.length(self.size).ok_or(ReadError::TooLarge)?;
        let mut encryptor = Encryptor::new(&self.seal, self.size, &mut out).ok_or(ReadError::TooLarge)?;
        each_piece(&self.path, self.size, |piece| {
            plain.update(piece);
            encryptor.update(piece, &mut out);
            sealed.update(&out);
            let go_on = sink(&mut out);
            out.clear();
            go_on
        })?;
        if !encryptor.finish(&mut out) {
            return Err(ReadError::Changed);
        }
        sealed.update(&out);
        if !sink(&mut out) {
            return Err(ReadError::Stopped);
        }
        Ok(Totals {
            plain_sha256: Digest(plain.finalize().into()),
            sha256: Digest(sealed.finalize().into()),
            size,
        })
    }

    /// All of it in memory; for small files.
    pub fn whole(&self) -> Result<(Bytes, Totals), ReadError> {
        let mut all = Vec::new();
        let totals = self.seal_into(|out| {
            all.append(out);
            true
        })?;
        Ok((all.into(), totals))
    }

    /// Only the sums: the first of two passes.
    pub fn sums(&self) -> Result<(Totals, Md5Sum), ReadError> {
        let mut md5 = Md5::new();
        let totals = self.seal_into(|out| {
            md5.update(&*out);
            out.clear();
            true
        })?;
        Ok((totals, Digest(md5.finalize().into())))
    }

    /// Into a request's body: the second pass. The service checks it against the sums of the first.
    pub fn stream(&self, sender: &BodySender) {
        // A failure shows as a body that is too short, which the service refuses.
        let _ = self.seal_into(|out| sender.blocking_send(std::mem::take(out).into()));
    }

    /// In parts of `size` bytes, each with its sums.
    pub fn parts(&self, size: usize, sender: &mpsc::Sender<Part>) -> Result<Totals, ReadError> {
        let mut pending = Vec::with_capacity(size + 2 * PIECE);
        let send = |bytes: Vec<u8>| {
            let payload = Payload::of(&bytes);
            sender
                .blocking_send(Part {
                    bytes: bytes.into(),
                    payload,
                })
                .is_ok()
        };
        let totals = self.seal_into(|out| {
            pending.append(out);
            while pending.len() >= size {
                let mut rest = Vec::with_capacity(size + 2 * PIECE);
                rest.extend_from_slice(pending.get(size..).unwrap_or_default());
                pending.truncate(size);
                if !send(std::mem::replace(&mut pending, rest)) {
                    return false;
                }
            }
            true
        })?;
        if pending.is_empty() || send(pending) {
            Ok(totals)
        } else {
            Err(ReadError::Stopped)
        }
    }
}
