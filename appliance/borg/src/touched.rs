//! Which archives a damaged segment touches, for a repository that is not encrypted.
//!
//! Finds the live objects of the segment that can't be read any more or hold something else, then walks the archives:
//! the object that describes each, the objects of its list of files, and what those files refer to.
//! Holds the damaged keys, one archive's description and one piece of its list at a time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};

use crate::error::Error;
use crate::index::{Index, Place};
use crate::manifest::{self, Archive};
use crate::msgpack::{Malformed, Token, Unpacker};
use crate::object::{self, BadContent, Protection, read_object, unpack};
use crate::repository::Repository;
use crate::segment::{ObjectKey, ReadError, SegmentNumber};

/// Most damaged objects that are traced, within some 30 MB; a full segment of small files has fewer.
pub const DAMAGED_OBJECTS_MAX: usize = 1 << 18;
/// How many files are named for each archive.
pub const NAMED_FILES_MAX: usize = 8;
/// Longest path that is told, in bytes.
const PATH_MAX: usize = 4096;

/// How a damage concerns an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TouchedArchive {
    /// The archive.
    pub archive: Archive,
    /// Whether part of its description or of its list of files is lost; then the files counted
    /// here are those before the loss.
    pub list_lost: bool,
    /// How many files have lost content.
    pub files: u64,
    /// The first of them, at most [`NAMED_FILES_MAX`]. Bytes that are not UTF-8 are replaced.
    pub named: Vec<String>,
}

/// What a damaged segment costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// The repository is encrypted: its key is needed to tell.
    NeedKey {
        /// How many live objects are lost.
        objects: usize,
    },
    /// The list of archives is itself among what is lost.
    ManifestLost {
        /// How many live objects are lost.
        objects: usize,
    },
    /// The archives that lost something; none, if all that was damaged had been deleted before.
    Archives {
        /// How many live objects are lost.
        objects: usize,
        /// In the order of the manifest.
        archives: Vec<TouchedArchive>,
    },
}

impl Repository {
    /// Tells which archives of `transaction` lost something with `segment`, which may be damaged or missing.
    ///
    /// # Errors
    /// [`Error::NoIndex`], [`Error::TooMuchDamage`], [`Error::Io`], or [`Error::Content`] when the
    /// manifest is not as Borg writes it.
    pub fn archives_touched(&self, transaction: SegmentNumber, segment: SegmentNumber) -> Result<Touched, Error> {
        let index = Index::open(self, transaction)?.ok_or_else(|| Error::NoIndex {
            path: self.path().into(),
            transaction,
        })?;
        let mut objects = Objects {
            repository: self,
            index,
            open: None,
            data: Vec::new(),
        };
        let named = self.protection(transaction) == Some(Protection::None);
        let damaged = objects.damaged(segment, named)?;
        let count = damaged.len();
        if damaged.contains(&ObjectKey::MANIFEST) {
            return Ok(Touched::ManifestLost { objects: count });
        }
        let mut plain = Vec::new();
        let archives = match objects.get(&ObjectKey::MANIFEST, &mut plain)? {
            Content::Lost => return Ok(Touched::ManifestLost { objects: count }),
            Content::Read(Protection::Encrypted) => return Ok(Touched::NeedKey { objects: count }),
            Content::Read(_) => manifest::parse(&plain).map_err(|problem| Error::Content {
                object: ObjectKey::MANIFEST,
                segment: transaction,
                problem,
            })?,
        };
        let mut touched = Vec::new();
        if count > 0 {
            for archive in archives {
                touched.extend(objects.trace(archive, &damaged)?);
            }
        }
        Ok(Touched::Archives {
            objects: count,
            archives: touched,
        })
    }
}

enum Content {
    Read(Protection),
    /// It is not there, damaged, or does not unpack.
    Lost,
}

/// Objects by key, with one open file.
struct Objects<'a> {
    repository: &'a Repository,
    index: Index,
    open: Option<(SegmentNumber, File)>,
    data: Vec<u8>,
}

impl Objects<'_> {
    fn index_failed(&self, source: io::Error) -> Error {
        Error::Io {
            path: self.repository.path().join("index"),
            source,
        }
    }

    /// The live objects of `segment` that can't be read, or, where their names tell, hold something else.
    fn damaged(&mut self, segment: SegmentNumber, named: bool) -> Result<HashSet<ObjectKey>, Error> {
        let mut plain = Vec::new();
        let mut places = Vec::new();
        for entry in self.index.entries().map_err(|error| self.index_failed(error))? {
            let (key, place) = entry.map_err(|error| self.index_failed(error))?;
            if place.segment == segment {
                if places.len() >= DAMAGED_OBJECTS_MAX {
                    return Err(Error::TooMuchDamage(segment));
                }
                places.push((place.offset, key));
            }
        }
        places.sort_unstable();
        let mut damaged = HashSet::new();
        for (offset, key) in places {
            let sound = self.fetch(&key, Place { segment, offset })?
                && (!named || object::compare(&key, &self.data, &mut plain).is_ok());
            if !sound {
                damaged.insert(key);
            }
        }
        Ok(damaged)
    }

    /// Reads the stored data of an object into `self.data`; false when it is lost.
    fn fetch(&mut self, key: &ObjectKey, place: Place) -> Result<bool, Error> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != place.segment) {
            let per_directory = self.repository.config().segments_per_dir;
            let path =
                self.repository
                    .path()
                    .join(format!("data/{}/{}", place.segment.0 / per_directory, place.segment));
            self.open = match crate::file::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                other => Some((place.segment, other.map_err(Error::io(path))?)),
            };
        }
        let Some((_, file)) = &self.open else {
            return Ok(false);
        };
        match read_object(file, place.offset.into(), key, &mut self.data) {
            Ok(()) => Ok(true),
            // A bad sector is a loss like any other.
            Err(ReadError::Damage(_) | ReadError::Io(_)) => Ok(false),
        }
    }

    fn get(&mut self, key: &ObjectKey, plain: &mut Vec<u8>) -> Result<Content, Error> {
        let place = self.index.find(key).map_err(|error| self.index_failed(error))?;
        match place {
            Some(place) if self.fetch(key, place)? => {
                Ok(unpack(&self.data, plain).map_or(Content::Lost, Content::Read))
            }
            _ => Ok(Content::Lost),
        }
    }

    fn trace(&mut self, archive: Archive, damaged: &HashSet<ObjectKey>) -> Result<Option<TouchedArchive>, Error> {
        let mut touched = TouchedArchive {
            archive,
            list_lost: false,
            files: 0,
            named: Vec::new(),
        };
        let mut description = Vec::new();
        let readable = matches!(
            self.get(&touched.archive.id, &mut description)?,
            Content::Read(Protection::None | Protection::Authenticated)
        );
        let pieces = match readable.then(|| pieces(&description)) {
            Some(Ok(pieces)) => pieces,
            // Lost, whether to this damage or to another.
            _ => {
                touched.list_lost = true;
                return Ok(Some(touched));
            }
        };
        drop(description);
        let mut list = FileList {
            objects: self,
            pieces: pieces.into_iter(),
            plain: Vec::new(),
            position: 0,
            failed: None,
        };
        let walked = walk(&mut list, damaged, &mut touched);
        if let Some(error) = list.failed {
            return Err(error);
        }
        touched.list_lost = walked.is_err();
        Ok((touched.list_lost || touched.files > 0).then_some(touched))
    }
}

/// The keys of the pieces of an archive's list of files, from its description.
fn pieces(description: &[u8]) -> Result<Vec<ObjectKey>, BadContent> {
    let mut unpacker = Unpacker::new(description);
    let mut field = Vec::new();
    let mut pieces = None;
    for _ in 0..unpacker.map()? {
        unpacker.bytes(32, &mut field)?;
        if field == b"items" {
            let mut keys = Vec::new();
            for _ in 0..unpacker.list()? {
                keys.push(ObjectKey(unpacker.key()?));
            }
            pieces = Some(keys);
        } else {
            unpacker.skip()?;
        }
    }
    pieces.ok_or(BadContent::Form("a list of items expected"))
}

/// The pieces of a list of files, joined: entries go across their borders.
struct FileList<'a, 'r> {
    objects: &'a mut Objects<'r>,
    pieces: std::vec::IntoIter<ObjectKey>,
    plain: Vec<u8>,
    position: usize,
    failed: Option<Error>,
}

impl Read for FileList<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.plain.len() {
            let Some(key) = self.pieces.next() else {
                return Ok(0);
            };
            self.position = 0;
            match self.objects.get(&key, &mut self.plain) {
                Ok(Content::Read(Protection::None | Protection::Authenticated)) => {}
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        let length = buffer.len().min(self.plain.len() - self.position);
        buffer[..length].copy_from_slice(&self.plain[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}

/// Goes through a list of files: `{path, chunks: [[key, size, stored], …], …}`, one after another.
fn walk(input: impl Read, damaged: &HashSet<ObjectKey>, touched: &mut TouchedArchive) -> Result<(), Malformed> {
    let mut unpacker = Unpacker::new(input);
    let (mut field, mut path) = (Vec::new(), Vec::new());
    while let Some(token) = unpacker.next()? {
        let Token::Map(pairs) = token else {
            return Err(Malformed::Expected("a map"));
        };
        let mut hit = false;
        path.clear();
        for _ in 0..pairs {
            unpacker.bytes(32, &mut field)?;
            match field.as_slice() {
                b"path" => unpacker.bytes(PATH_MAX, &mut path)?,
                b"chunks" => match unpacker.token()? {
                    Token::Array(chunks) => {
                        for _ in 0..chunks {
                            let parts = unpacker.list()?;
                            if parts == 0 {
                                return Err(Malformed::Expected("a chunk"));
                            }
                            hit |= damaged.contains(&ObjectKey(unpacker.key()?));
                            for _ in 1..parts {
                                unpacker.skip()?;
                            }
                        }
                    }
                    // Directories may say nil.
                    Token::Other => {}
                    _ => return Err(Malformed::Expected("a list of chunks")),
                },
                _ => unpacker.skip()?,
            }
        }
        if hit {
            touched.files += 1;
            if touched.named.len() < NAMED_FILES_MAX {
                touched.named.push(String::from_utf8_lossy(&path).into_owned());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;
    use proptest::sample::Index as Position;

    use super::*;

    /// Files as Borg packs them: a path and keys of chunks.
    fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            out.push(0xda);
            out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            out.extend(text);
        };
        for (path, chunks) in files {
            out.push(0x84);
            text(&mut out, b"mode");
            out.extend([0xcd, 0x81, 0xa4]);
            text(&mut out, b"chunks");
            out.push(0xdc);
            out.extend(u16::try_from(chunks.len()).unwrap().to_be_bytes());
            for chunk in chunks {
                out.push(0x93);
                text(&mut out, &[*chunk; 32]);
                out.extend([1, 0xcd, 2, 0]);
            }
            text(&mut out, b"path");
            text(&mut out, path.as_bytes());
            text(&mut out, b"xattrs");
            out.extend([0x81, 0xa1, b'a', 0xc0]);
        }
        out
    }

    fn find(list: &[u8], damaged: u8) -> Option<TouchedArchive> {
        let mut touched = TouchedArchive {
            archive: Archive {
                name: "a".into(),
                id: ObjectKey([1; 32]),
                time: SystemTime::UNIX_EPOCH,
            },
            list_lost: false,
            files: 0,
            named: Vec::new(),
        };
        let damaged = HashSet::from([ObjectKey([damaged; 32])]);
        walk(list, &damaged, &mut touched).ok().map(|()| touched)
    }

    fn files() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        proptest::collection::vec(("[a-z/]{1,40}", proptest::collection::vec(0..9_u8, 0..12)), 0..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn exactly_the_files_with_the_chunk_are_told(files in files(), damaged in 0..9_u8) {
            let touched = find(&pack(&files), damaged).unwrap();
            let hit: Vec<_> = files.iter().filter(|(_, chunks)| chunks.contains(&damaged)).map(|(path, _)| path.clone()).collect();
            prop_assert_eq!(touched.files, hit.len() as u64);
            prop_assert_eq!(&touched.named[..], &hit[..hit.len().min(NAMED_FILES_MAX)]);
        }

        /// The list comes from the client, whose checksums are right whatever it says.
        #[test]
        fn a_hostile_list_never_panics(files in files(), at in any::<Position>(), byte in any::<u8>(), cut in any::<Position>()) {
            let mut list = pack(&files);
            if !list.is_empty() {
                let at = at.index(list.len());
                list[at] = byte;
                let _ = find(&list, 1);
                let _ = find(&list[..cut.index(list.len())], 1);
                let _ = pieces(&list);
                let _ = manifest::parse(&list);
            }
        }
    }
}
