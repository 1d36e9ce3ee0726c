//! The records of a ledger, and what they add up to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use strongroom_borg::SegmentNumber;

use super::{Identity, LedgerError};
use crate::digest::{Md5Sum, Sha256Sum};
use crate::sums::PartsSum;

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A segment.
    Segment(SegmentNumber),
    /// The `config` with this SHA-256.
    Config(Sha256Sum),
    /// The clear sums of a transaction, their signature, or the signer's certificate that went with them.
    Sums(SegmentNumber),
    /// The manifest of a transaction, with the SHA-256 of the `config` it names.
    Manifest(SegmentNumber, Sha256Sum),
    /// The instructions.
    Recovery,
}

/// An object and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Name below the prefix.
    pub object: String,
    /// The object's size in bytes.
    pub size: u64,
    /// The ETag that the service gives, or is expected to.
    pub etag: String,
    /// The object's MD5, if it was sent in one piece.
    pub md5: Option<Md5Sum>,
    /// The object's SHA-256; unknown when it was sent in parts, or taken on after the ledger was lost.
    pub sha256: Option<Sha256Sum>,
    /// The sum of its parts, if it was sent in parts; unknown as above, or when an earlier version sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PartsSum>,
    /// The content's size in bytes.
    pub plain_size: u64,
    /// The content's SHA-256; unknown when taken on.
    pub plain_sha256: Option<Sha256Sum>,
    /// The file's time of change, in nanoseconds since 1970, when it was read.
    pub modified: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum Record {
    Header {
        version: u32,
        repository: String,
        bucket: String,
        prefix: String,
    },
    Intent {
        what: What,
        item: Item,
    },
    Stored {
        what: What,
        item: Item,
    },
    /// What the bucket held before is known.
    Ready,
    /// Objects that were stored and are gone from the bucket, or are others now.
    Lost {
        objects: Vec<String>,
    },
    Dropped {
        object: String,
    },
    Taken {
        object: String,
    },
    Upload {
        object: String,
        id: String,
    },
    UploadEnded {
        /// Empty stands for any object.
        #[serde(default)]
        object: String,
        id: String,
    },
    /// Segments that a manifest which is about to be published does not name, though an earlier one may.
    Without {
        manifest: String,
        segments: Vec<SegmentNumber>,
    },
    /// Objects that are about to be deleted: nothing counts on them from now on.
    Retired {
        objects: Vec<String>,
    },
}

pub(super) const VERSION: u32 = 1;

/// A manifest that this ledger knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The first that the ledger knows is 1.
    pub order: u32,
    /// It was published with this ledger, so the ledger knows what it names; otherwise it was found in the bucket.
    pub own: bool,
    pub size: u64,
    pub etag: String,
}

/// What the records add up to.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub segments: BTreeMap<SegmentNumber, Item>,
    pub configs: BTreeMap<Sha256Sum, Item>,
    /// Segments whose objects were lost: what they were, so that nothing else is sent in their place.
    pub lost: BTreeMap<SegmentNumber, Item>,
    /// The newest manifest: transaction and `config`.
    pub manifest: Option<(SegmentNumber, Sha256Sum)>,
    /// All manifests, by their objects; those that were retired too.
    pub manifests: BTreeMap<String, Published>,
    /// Segments that manifests of this order and later ones do not name.
    pub released: BTreeMap<SegmentNumber, u32>,
    /// What a manifest that is about to be published does not name.
    without: BTreeMap<String, Vec<SegmentNumber>>,
    /// How many manifests there were.
    order: u32,
    /// The instructions that were published last: the SHA-256 of their text, where that is known.
    pub recovery: Option<Option<Sha256Sum>>,
    /// The state has to be published anew, since some of it was lost.
    pub publish_again: bool,
    /// What the bucket held before this ledger began is known.
    pub ready: bool,
    /// Objects that were about to be sent when the record ends.
    pub intents: BTreeMap<String, (What, Item)>,
    /// Names that must not be used (again).
    pub taken: BTreeSet<String>,
    /// Unfinished multipart uploads: object and id, which is empty where one was about to be started.
    pub uploads: BTreeSet<(String, String)>,
}

impl State {
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Header { .. } => {}
            Record::Ready => self.ready = true,
            Record::Intent { what, item } => {
                self.intents.insert(item.object.clone(), (what, item));
            }
            Record::Stored { what, item } => {
                let own = self.intents.remove(&item.object).is_some();
                match what {
                    What::Segment(number) => {
                        self.released.remove(&number);
                        self.lost.remove(&number);
                        self.segments.insert(number, item);
                    }
                    What::Config(sum) => {
                        self.configs.insert(sum, item);
                    }
                    What::Manifest(transaction, config) => {
                        self.manifest = Some((transaction, config));
                        self.order += 1;
                        let published = Published {
                            order: self.order,
                            own,
                            size: item.size,
                            etag: item.etag,
                        };
                        self.manifests.insert(item.object.clone(), published);
                        for number in self.without.remove(&item.object).unwrap_or_default() {
                            self.released.entry(number).or_insert(self.order);
                        }
                        self.publish_again = false;
                        self.taken.insert(item.object);
                    }
                    What::Sums(_) => {
                        self.taken.insert(item.object);
                    }
                    What::Recovery => self.recovery = Some(item.sha256),
                }
            }
            Record::Lost { objects } => {
                self.publish_again = true;
                let objects: BTreeSet<String> = objects.into_iter().collect();
                let is_lost = |item: &Item| objects.contains(&item.object);
                let segments = self.segments.extract_if(.., |_, item| is_lost(item));
                self.lost.extend(segments);
                self.configs.retain(|_, item| !is_lost(item));
            }
            Record::Dropped { object } => {
                self.intents.remove(&object);
            }
            Record::Taken { object } => {
                self.intents.remove(&object);
                self.taken.insert(object);
            }
            Record::Upload { object, id } => {
                self.uploads.insert((object, id));
            }
            Record::UploadEnded { object, id } => self
                .uploads
                .retain(|(of, known)| *known != id || !(object.is_empty() || *of == object)),
            Record::Without { manifest, segments } => {
                self.without.insert(manifest, segments);
            }
            Record::Retired { objects } => {
                let gone: BTreeSet<String> = objects.into_iter().collect();
                self.segments.retain(|_, item| !gone.contains(&item.object));
                self.released.retain(|number, _| self.segments.contains_key(number));
                self.taken.extend(gone);
            }
        }
    }

    /// The newest manifest that this ledger knows.
    pub fn newest(&self) -> Option<(&str, &Published)> {
        let newest = self.manifests.iter().max_by_key(|(_, published)| published.order);
        newest.map(|(object, published)| (object.as_str(), published))
    }
}

/// The state, and how many bytes of the log are good; `None` when the log must be set aside.
pub(super) fn replay(bytes: &[u8], identity: Option<Identity<'_>>) -> Result<Option<(State, usize)>, LedgerError> {
    let mut state = State::default();
    let mut good = 0;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    for line in bytes
        .get(..whole)
        .unwrap_or_default()
        .split_inclusive(|byte| *byte == b'\n')
    {
        let Ok(record) = serde_json::from_slice::<Record>(line) else {
            return Ok(None);
        };
        match (good, &record) {
            (
                0,
                Record::Header {
                    version: VERSION,
                    repository,
                    bucket,
                    prefix,
                },
            ) => {
                if identity.is_some_and(|it| bucket != it.bucket || prefix != it.prefix) {
                    return Ok(None);
                }
                if let Some(identity) = identity.filter(|it| repository != it.repository) {
                    let (known, found) = (repository.clone(), identity.repository.to_owned());
                    return Err(LedgerError::OtherRepository { known, found });
                }
            }
            (0, _) => return Ok(None),
            _ => state.apply(record),
        }
        good += line.len();
    }
    Ok((good > 0).then_some((state, good)))
}
