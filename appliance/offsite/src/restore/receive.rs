//! One object: received, hashed, decrypted and hashed again, in one pass and bounded memory.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::create;
use crate::digest::{Digest, Sha256Sum};
use crate::openpgp::{OpenError, Opener};
use crate::s3::S3Error;
use crate::store::Store;
use crate::sums::ObjectHash;

/// Where the content goes.
#[derive(Debug, Clone)]
pub(super) enum Into {
    /// Into memory, up to this many bytes.
    Memory(u64),
    /// Into this file, flushed to the disk.
    File(PathBuf),
    /// Nowhere: it is only looked at.
    Nowhere,
    /// Into this open file, emptied before and flushed after.
    Open(Arc<File>),
}

/// What was received.
#[derive(Debug)]
pub(super) struct Received {
    pub object_size: u64,
    /// Of all of it, or of its parts, as was asked for.
    pub object_sum: Sha256Sum,
    pub size: u64,
    pub sha256: Sha256Sum,
    /// The content, if it was to go into memory.
    pub memory: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum ReceiveError {
    Network(S3Error),
    Open(OpenError),
    Internal(String),
}

/// Told how many bytes of the object came.
pub(super) type OnBytes<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Receives an object. `part_size`: its sum is to be that of parts of so many bytes.
pub(super) async fn receive(
    client: &Store,
    key: &str,
    part_size: Option<u64>,
    opener: Opener,
    into: Into,
    on_bytes: OnBytes<'_>,
) -> Result<Received, ReceiveError> {
    let operation = format!("GET {key}");
    let mut response = client.get(key).await.map_err(ReceiveError::Network)?;
    let (sender, receiver) = mpsc::channel(8);
    let worker = tokio::task::spawn_blocking(move || decrypt(&opener, receiver, into));
    let mut hash = ObjectHash::new(part_size);
    let mut size = 0;
    loop {
        match client.chunk(&operation, &mut response).await {
            Ok(None) => break,
            Ok(Some(chunk)) => {
                hash.update(&chunk);
                size += chunk.len() as u64;
                on_bytes(chunk.len() as u64);
                // The worker may have failed: it says why below.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                drop(sender);
                let _ = worker.await;
                return Err(ReceiveError::Network(error));
            }
        }
    }
    drop(sender);
    let (content_size, sha256, memory) = worker
        .await
        .map_err(|error| ReceiveError::Internal(error.to_string()))?
        .map_err(ReceiveError::Open)?;
    Ok(Received {
        object_size: size,
        object_sum: hash.finish(),
        size: content_size,
        sha256,
        memory,
    })
}

fn decrypt(
    opener: &Opener,
    receiver: mpsc::Receiver<Bytes>,
    into: Into,
) -> Result<(u64, Sha256Sum, Vec<u8>), OpenError> {
    let input = Pieces {
        receiver,
        piece: Bytes::new(),
    };
    let sink = match into {
        Into::Nowhere => Sink::Nowhere,
        Into::Memory(limit) => Sink::Memory(Vec::new(), limit),
        Into::File(path) => Sink::File(Arc::new(create(&path).map_err(OpenError::Write)?)),
        Into::Open(file) => {
            // What an attempt before left there.
            file.set_len(0)
                .and_then(|()| (&*file).rewind())
                .map_err(OpenError::Write)?;
            Sink::File(file)
        }
    };
    let mut out = Hashing {
        sink,
        hash: Sha256::new(),
    };
    let size = opener.open(input, &mut out)?;
    let sum = Digest(out.hash.finalize().into());
    match out.sink {
        Sink::Memory(bytes, _) => Ok((size, sum, bytes)),
        Sink::Nowhere => Ok((size, sum, Vec::new())),
        Sink::File(file) => {
            file.sync_all().map_err(OpenError::Write)?;
            Ok((size, sum, Vec::new()))
        }
    }
}

enum Sink {
    Nowhere,
    Memory(Vec<u8>, u64),
    File(Arc<File>),
}

struct Hashing {
    sink: Sink,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.sink {
            Sink::File(file) => (&**file).write(bytes)?,
            Sink::Nowhere => bytes.len(),
            Sink::Memory(all, limit) if all.len() as u64 + bytes.len() as u64 <= *limit => {
                all.extend_from_slice(bytes);
                bytes.len()
            }
            Sink::Memory(..) => return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large for memory")),
        };
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The pieces of a body as one reader.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pieces")
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..amount), available.get(..amount)) {
            to.copy_from_slice(from);
        }
        self.consume(amount);
        Ok(amount)
    }
}
