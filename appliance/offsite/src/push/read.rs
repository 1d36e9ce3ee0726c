//! Reading a segment and sealing it, on a thread that may block, in bounded memory.

use std::borrow::{Borrow as _, BorrowMut};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use strongroom_ciphers::{Sum, update_both};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::buffer::{Buffer, OVER, Pool};
use crate::digest::{Digest, Md5Sum, Sha256Sum};
use crate::openpgp::{Encryptor, Room, Seal};
use crate::s3::{BodySender, Payload};
use crate::sums::{Lines, PartsSum};

/// What is read at once to be summed up, in bytes: it stays in a processor's cache.
const PIECE: usize = 64 * 1024;
/// How much of a message that goes to a file or into a request is made in memory, in bytes.
const FLOW: usize = 512 * 1024;

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
    let mut file = strongroom_borg::open_file(path)?;
    let (mut hash, mut piece, mut left) = (Sha256::new(), Room::default(), size);
    while read_more(&mut file, &mut piece, PIECE)? > 0 {
        left = left
            .checked_sub(piece.octets().len() as u64)
            .ok_or(ReadError::Changed)?;
        hash.update(piece.octets());
        piece.clear();
    }
    if left > 0 {
        return Err(ReadError::Changed);
    }
    Ok(Digest(hash.finalize().into()))
}

/// Reads so many bytes behind what is there, fewer only where the file ends. Gives how many.
fn read_more(file: &mut File, room: &mut Room, wanted: usize) -> io::Result<usize> {
    let spare = room.spare(wanted);
    let mut read = 0;
    while read < wanted {
        match file.read(spare.get_mut(read..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    room.added(read);
    Ok(read)
}

/// Takes a message in pieces while it is made.
trait Sink {
    /// What a piece is made in.
    type Made: BorrowMut<Room>;

    /// Empty room for the next piece; `None` when nobody wants it.
    fn begin(&mut self) -> Option<Self::Made>;

    /// Is shown all of the content, and all of the message: what of a piece was not shown before, last when it ends.
    fn show(&mut self, plain: &[u8], sealed: &[u8]);

    /// Takes a piece. False when nobody wants more.
    fn end(&mut self, piece: Self::Made) -> bool;
}

impl Plan {
    /// Length of the message.
    pub fn length(&self) -> Result<u64, ReadError> {
        self.seal.length(self.size).ok_or(ReadError::TooLarge)
    }

    /// Seals the file, in pieces of this size. It is read to where it is sealed and sent from: nothing is copied but what
    /// is over at the end of a piece.
    fn seal_into<S: Sink>(&self, size: usize, sink: &mut S) -> Result<(), ReadError> {
        let mut file = strongroom_borg::open_file(&self.path)?;
        let mut piece = sink.begin().ok_or(ReadError::Stopped)?;
        let encryptor = Encryptor::new(&self.seal, self.size, piece.borrow_mut());
        let mut encryptor = encryptor.ok_or(ReadError::TooLarge)?;
        let mut shown = 0;
        loop {
            let message = piece.borrow_mut();
            let there = message.octets().len();
            let read = read_more(&mut file, message, encryptor.wants())?;
            if read == 0 {
                break;
            }
            let (old, plain) = message.octets().split_at(there);
            let sealed = there - encryptor.pending();
            sink.show(plain, old.get(shown..sealed).unwrap_or_default());
            shown = sealed;
            encryptor.seal(message, read).ok_or(ReadError::Changed)?;
            let sealed = message.octets().len() - encryptor.pending();
            piece = cut(sink, piece, sealed, size, &mut shown)?;
        }
        let message = piece.borrow_mut();
        encryptor.finish(message).ok_or(ReadError::Changed)?;
        let sealed = message.octets().len();
        let last = cut(sink, piece, sealed, size, &mut shown)?;
        if !last.borrow().octets().is_empty() {
            end(sink, last, shown)?;
        }
        Ok(())
    }

    /// All of it in one buffer; for files whose message fits.
    pub fn whole(&self, pool: &Arc<Pool>, runtime: &Handle) -> Result<(Bytes, Totals<Sha256Sum>, Md5Sum), ReadError> {
        let mut whole = None;
        let sums = self.summed(
            usize::MAX,
            || pool.take(runtime),
            |buffer| {
                whole = Some(buffer);
                true
            },
        )?;
        let bytes = whole.map(Buffer::freeze).unwrap_or_default();
        Ok((bytes, sums.0, sums.1))
    }

    /// Into a file. The outer error is the file's.
    pub fn write(&self, file: &mut File) -> io::Result<Result<(Totals<Sha256Sum>, Md5Sum), ReadError>> {
        let mut written = Ok(());
        let sums = self.in_flow(|piece| {
            written = file.write_all(piece);
            written.is_ok()
        });
        written.map(|()| sums)
    }

    /// Only the sums: the first of two passes.
    pub fn sums(&self) -> Result<(Totals<Sha256Sum>, Md5Sum), ReadError> {
        self.in_flow(|_| true)
    }

    fn in_flow(&self, mut give: impl FnMut(&[u8]) -> bool) -> Result<(Totals<Sha256Sum>, Md5Sum), ReadError> {
        let room = Cell::new(Room::with_capacity(FLOW + OVER));
        self.summed(
            FLOW,
            || Some(room.take()),
            |mut piece: Room| {
                let go_on = give(piece.octets());
                piece.clear();
                room.set(piece);
                go_on
            },
        )
    }

    fn summed<R: BorrowMut<Room>>(
        &self,
        size: usize,
        begin: impl FnMut() -> Option<R>,
        end: impl FnMut(R) -> bool,
    ) -> Result<(Totals<Sha256Sum>, Md5Sum), ReadError> {
        let mut sink = Summed {
            begin,
            end,
            plain: Sum::default(),
            sealed: Sum::default(),
            md5: Md5::new(),
        };
        self.seal_into(size, &mut sink)?;
        let totals = Totals {
            plain_sha256: Digest(sink.plain.finish()),
            sum: Digest(sink.sealed.finish()),
            size: self.length()?,
        };
        Ok((totals, Digest(sink.md5.finalize().into())))
    }

    /// Into a request's body: the second pass. The service checks it against the sums of the first.
    pub fn stream(&self, sender: &BodySender) {
        // A failure shows as a body that is too short, which the service refuses.
        let _ = self.seal_into(FLOW, &mut Body(sender));
    }

    /// In parts as large as the pool's buffers, each with its sum; those of `known` numbers also with their MD5.
    pub fn parts(
        &self,
        pool: &Arc<Pool>,
        runtime: &Handle,
        known: &BTreeSet<u32>,
        sender: &mpsc::Sender<Part>,
    ) -> Result<Totals<PartsSum>, ReadError> {
        let mut sink = Parts {
            pool,
            runtime,
            known,
            sender,
            number: 0,
            plain: Sum::default(),
            part: Sum::default(),
            lines: Lines::default(),
        };
        self.seal_into(pool.size(), &mut sink)?;
        Ok(Totals {
            plain_sha256: Digest(sink.plain.finish()),
            sum: PartsSum {
                size: pool.size() as u64,
                sha256: sink.lines.finish(),
            },
            size: self.length()?,
        })
    }
}

/// Gives away all whole pieces of what is sealed, and gives back the one that comes next.
fn cut<S: Sink>(
    sink: &mut S,
    mut piece: S::Made,
    mut sealed: usize,
    size: usize,
    shown: &mut usize,
) -> Result<S::Made, ReadError> {
    while let Some(over) = sealed.checked_sub(size) {
        let rest = piece.borrow_mut().split_off(size);
        end(sink, piece, *shown)?;
        piece = sink.begin().ok_or(ReadError::Stopped)?;
        piece.borrow_mut().add(&rest);
        (sealed, *shown) = (over, 0);
    }
    Ok(piece)
}

fn end<S: Sink>(sink: &mut S, piece: S::Made, shown: usize) -> Result<(), ReadError> {
    sink.show(&[], piece.borrow().octets().get(shown..).unwrap_or_default());
    if sink.end(piece) {
        Ok(())
    } else {
        Err(ReadError::Stopped)
    }
}

/// Sums up the content and the message.
struct Summed<Begin, End> {
    begin: Begin,
    end: End,
    plain: Sum,
    sealed: Sum,
    md5: Md5,
}

impl<R: BorrowMut<Room>, Begin: FnMut() -> Option<R>, End: FnMut(R) -> bool> Sink for Summed<Begin, End> {
    type Made = R;

    fn begin(&mut self) -> Option<R> {
        (self.begin)()
    }

    fn show(&mut self, plain: &[u8], sealed: &[u8]) {
        update_both((&mut self.plain, plain), (&mut self.sealed, sealed));
        self.md5.update(sealed);
    }

    fn end(&mut self, piece: R) -> bool {
        (self.end)(piece)
    }
}

/// Sends what was summed up before.
struct Body<'a>(&'a BodySender);

impl Sink for Body<'_> {
    type Made = Room;

    fn begin(&mut self) -> Option<Room> {
        Some(Room::with_capacity(FLOW + OVER))
    }

    fn show(&mut self, _plain: &[u8], _sealed: &[u8]) {}

    fn end(&mut self, piece: Room) -> bool {
        self.0.blocking_send(Vec::from(piece).into())
    }
}

/// Sums up the content and each part.
struct Parts<'a> {
    pool: &'a Arc<Pool>,
    runtime: &'a Handle,
    known: &'a BTreeSet<u32>,
    sender: &'a mpsc::Sender<Part>,
    number: u32,
    plain: Sum,
    part: Sum,
    lines: Lines,
}

impl Sink for Parts<'_> {
    type Made = Buffer;

    fn begin(&mut self) -> Option<Buffer> {
        self.pool.take(self.runtime)
    }

    fn show(&mut self, plain: &[u8], sealed: &[u8]) {
        update_both((&mut self.plain, plain), (&mut self.part, sealed));
    }

    fn end(&mut self, piece: Buffer) -> bool {
        self.number += 1;
        let bytes = piece.freeze();
        let payload = Payload {
            size: bytes.len() as u64,
            sha256: Digest(std::mem::take(&mut self.part).finish()),
            md5: self
                .known
                .contains(&self.number)
                .then(|| Digest(Md5::digest(&bytes).into())),
        };
        self.lines.add(&payload.sha256);
        let part = Part {
            number: self.number,
            payload,
            bytes,
        };
        self.sender.blocking_send(part).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::openpgp::Mode;

    /// Keeps everything.
    #[derive(Default)]
    struct Kept {
        plain: Vec<u8>,
        sealed: Vec<u8>,
        pieces: Vec<Vec<u8>>,
    }

    impl Sink for Kept {
        type Made = Room;

        fn begin(&mut self) -> Option<Room> {
            Some(Room::default())
        }

        fn show(&mut self, plain: &[u8], sealed: &[u8]) {
            self.plain.extend_from_slice(plain);
            self.sealed.extend_from_slice(sealed);
        }

        fn end(&mut self, piece: Room) -> bool {
            self.pieces.push(piece.into());
            true
        }
    }

    fn seal(mode: Mode) -> Seal {
        let tag = match mode {
            Mode::Cfb => 18,
            Mode::Ocb => 20,
        };
        let mut secret = vec![1, tag];
        secret.extend(1..=48);
        secret.extend_from_slice(b"key packets");
        Seal::from_secret(&secret).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Around the ends of chunks, and with pieces smaller and larger than those.
        #[test]
        fn the_message_is_the_same_however_it_is_cut(
            mode in proptest::sample::select(Mode::ALL.to_vec()),
            chunks in 0_usize..4, over in 0_usize..40, under in 0_usize..40,
            size in prop_oneof![300_usize..2000, 60_000_usize..70_000, Just(usize::MAX)],
        ) {
            let length = (chunks * 65_536 + over).saturating_sub(under);
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("7");
            std::fs::write(&path, &content).unwrap();
            let plan = Plan { path, size: length as u64, seal: seal(mode) };
            let mut kept = Kept::default();
            plan.seal_into(size, &mut kept).unwrap();
            prop_assert!(kept.plain == content);
            prop_assert!(kept.sealed == plan.seal.seal(&content).unwrap());
            prop_assert!(kept.sealed == kept.pieces.concat());
            let (last, whole) = kept.pieces.split_last().unwrap();
            prop_assert!(whole.iter().all(|piece| piece.len() == size));
            prop_assert!(!last.is_empty() && last.len() <= size);
        }
    }

    #[test]
    fn a_file_of_another_length_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("7");
        std::fs::write(&path, vec![5; 200_000]).unwrap();
        for mode in Mode::ALL {
            for size in [0, 1, 65_536, 199_999, 200_001, 1_000_000] {
                let (path, seal) = (path.clone(), seal(mode));
                let plan = Plan { path, size, seal };
                assert!(matches!(plan.sums(), Err(ReadError::Changed)), "{mode:?} {size}");
            }
        }
    }

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
