//! Reading a segment and sealing it, on a thread that may block, in bounded memory.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::buffer::{Buffer, Pool};
use crate::digest::{Digest, Md5Sum, Sha256Sum};
use crate::openpgp::{Encryptor, Seal};
use crate::s3::{BodySender, Payload};
use crate::sums::{Behind, Lines, PartsSum};

/// What is read at once, in bytes: with what comes out of it, it stays in a processor's cache.
const PIECE: usize = 64 * 1024;

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
pub(super) struct Totals<Sum> {
    pub plain_sha256: Sha256Sum,
    /// Of the message.
    pub sum: Sum,
    pub size: u64,
}

/// One part of a multipart upload.
pub(super) struct Part {
    /// From 1.
    pub number: u32,
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
    let mut file = strongroom_borg::open_file(path)?;
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
    /// Length of the message.
    pub fn length(&self) -> Result<u64, ReadError> {
        self.seal.length(self.size).ok_or(ReadError::TooLarge)
    }

    /// Seals the file; `sink` is given each piece of the message, and says whether to go on. Gives the SHA-256 of the
    /// content, which `sink` may help with.
    fn seal_into(&self, mut sink: impl FnMut(&[u8], &mut Behind<'_>) -> bool) -> Result<Sha256Sum, ReadError> {
        let mut sum = Sha256::new();
        let go_on = Cell::new(true);
        let mut give = |piece: &[u8], plain: &mut Behind<'_>| go_on.set(go_on.get() && sink(piece, plain));
        let mut encryptor = {
            let mut none = Behind::new(&mut sum, &[]);
            Encryptor::new(&self.seal, self.size, &mut |out| give(out, &mut none)).ok_or(ReadError::TooLarge)?
        };
        each_piece(&self.path, self.size, |piece| {
            let mut plain = Behind::new(&mut sum, piece);
            encryptor.update(piece, &mut |out| give(out, &mut plain));
            plain.catch_up();
            go_on.get()
        })?;
        let mut none = Behind::new(&mut sum, &[]);
        if !encryptor.finish(&mut |out| give(out, &mut none)) {
            return Err(ReadError::Changed);
        }
        if !go_on.get() {
            return Err(ReadError::Stopped);
        }
        Ok(Digest(sum.finalize().into()))
    }

    /// Seals the file and gives its sums, while `sink` takes the message.
    fn summed(&self, mut sink: impl FnMut(&[u8]) -> bool) -> Result<(Totals<Sha256Sum>, Md5Sum), ReadError> {
        let mut sealed = Sha256::new();
        let mut before = 0;
        let mut md5 = Md5::new();
        let plain_sha256 = self.seal_into(|out, plain| {
            plain.beside(&mut sealed, before, out);
            before += out.len();
            md5.update(out);
            sink(out)
        })?;
        let totals = Totals {
            plain_sha256,
            sum: Digest(sealed.finalize().into()),
            size: self.length()?,
        };
        Ok((totals, Digest(md5.finalize().into())))
    }

    /// All of it in one buffer; for files whose message fits.
    pub fn whole(&self, pool: &Arc<Pool>, runtime: &Handle) -> Result<(Bytes, Totals<Sha256Sum>, Md5Sum), ReadError> {
        let mut buffer = pool.take(runtime).ok_or(ReadError::Stopped)?;
        let (totals, md5) = self.summed(|out| {
            let fits = out.len() <= buffer.room();
            if fits {
                buffer.add(out);
            }
            fits
        })?;
        Ok((buffer.freeze(), totals, md5))
    }

    /// Into a file. The outer error is the file's.
    pub fn write(&self, file: &mut File) -> io::Result<Result<(Totals<Sha256Sum>, Md5Sum), ReadError>> {
        let mut written = Ok(());
        let sums = self.summed(|out| {
            written = file.write_all(out);
            written.is_ok()
        });
        written.map(|()| sums)
    }

    /// Only the sums: the first of two passes.
    pub fn sums(&self) -> Result<(Totals<Sha256Sum>, Md5Sum), ReadError> {
        self.summed(|_| true)
    }

    /// Into a request's body: the second pass. The service checks it against the sums of the first.
    pub fn stream(&self, sender: &BodySender) {
        // A failure shows as a body that is too short, which the service refuses.
        let _ = self.seal_into(|out, _| sender.blocking_send(Bytes::copy_from_slice(out)));
    }

    /// In parts as large as the pool's buffers, each with its sum; those of `known` numbers also with their MD5.
    pub fn parts(
        &self,
        pool: &Arc<Pool>,
        runtime: &Handle,
        known: &BTreeSet<u32>,
        sender: &mpsc::Sender<Part>,
    ) -> Result<Totals<PartsSum>, ReadError> {
        let mut lines = Lines::default();
        let mut filling: Option<Filling> = None;
        let mut number = 0;
        let mut send = |part: Filling| {
            number += 1;
            let part = part.done(number, known.contains(&number));
            lines.add(&part.payload.sha256);
            sender.blocking_send(part).is_ok()
        };
        let plain_sha256 = self.seal_into(|mut out, plain| {
            while !out.is_empty() {
                let mut part = match filling.take() {
                    Some(part) => part,
                    None => match pool.take(runtime) {
                        Some(buffer) => Filling::new(buffer),
                        None => return false,
                    },
                };
                out = part.fill(out, plain);
                if part.buffer.room() > 0 {
                    filling = Some(part);
                } else if !send(part) {
                    return false;
                }
            }
            true
        })?;
        if filling.is_some_and(|last| !send(last)) {
            return Err(ReadError::Stopped);
        }
        Ok(Totals {
            plain_sha256,
            sum: PartsSum {
                size: pool.size() as u64,
                sha256: lines.finish(),
            },
            size: self.length()?,
        })
    }
}

/// A part that is being filled.
struct Filling {
    buffer: Buffer,
    hash: Sha256,
}

impl Filling {
    fn new(buffer: Buffer) -> Self {
        Self {
            buffer,
            hash: Sha256::new(),
        }
    }

    /// Takes what fits, and gives the rest.
    fn fill<'a>(&mut self, bytes: &'a [u8], plain: &mut Behind<'_>) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(self.buffer.room()));
        plain.beside(&mut self.hash, self.buffer.as_ref().len(), now);
        self.buffer.add(now);
        later
    }

    fn done(self, number: u32, with_md5: bool) -> Part {
        let bytes = self.buffer.freeze();
        Part {
            number,
            payload: Payload {
                size: bytes.len() as u64,
                sha256: Digest(self.hash.finalize().into()),
                md5: with_md5.then(|| Digest(Md5::digest(&bytes).into())),
            },
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session could have put it in a segment's place after the segments were listed.
    #[test]
    fn a_pipe_or_a_link_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), b"abc").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        assert_eq!(
            hash_file(&at("file"), 3).unwrap(),
            Digest(Sha256::digest(b"abc").into())
        );
        for other in ["link", "pipe"] {
            assert!(matches!(hash_file(&at(other), 3), Err(ReadError::Io(_))), "{other}");
        }
    }
}
