//! Sending one large object in parts, several of them at a time, read once. No upload is left behind: its id is in the
//! ledger before its first part goes out. One that was cut short is gone on with: all of the segment is read and sealed
//! again, but only the parts that have not arrived are sent.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use md5::{Digest as _, Md5};
use strongroom_borg::SegmentNumber;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::PushError;
use super::read::{Part, Plan, Totals};
use super::send::{Look, Sender, read_error};
use super::unfinished::{Begun, Facts};
use crate::digest::{Digest, Md5Sum, Sha256Sum};
use crate::layout::Name;
use crate::ledger::{Item, What};
use crate::openpgp::Seal;
use crate::s3::{Arrived, Client, S3Error};
use crate::sums::PartsSum;

impl Sender<'_> {
    /// Aborts the uploads that the ledger knows, but for those that can be gone on with. Those that these credentials may
    /// not abort are kept for others.
    pub async fn abort_uploads(&self) -> Result<(), PushError> {
        let uploads = self.ledger().state.uploads.clone();
        for (object, id) in uploads {
            if self.unfinished.holds(&object, &id) {
                continue;
            }
            match self.abort(&object, &id).await {
                Ok(()) => self.ledger().upload_ended(object, id)?,
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(self.wrap(error)),
            }
        }
        Ok(())
    }

    fn bucket(&self) -> Result<&Client, PushError> {
        self.client.bucket().map_err(|error| self.wrap(error))
    }

    /// Aborts an upload; one without an id was to be started when the ledger ends.
    async fn abort(&self, object: &str, id: &str) -> Result<(), S3Error> {
        let key = self.target.key(object);
        if id.is_empty() {
            self.client.bucket()?.clear_multipart(&key).await
        } else {
            self.client.bucket()?.abort_multipart(&key, id).await
        }
    }

    /// Starts an upload so that none is left behind whose id nobody knows.
    async fn start_upload(&self, object: &str) -> Result<String, PushError> {
        self.ledger().upload(object.to_owned(), String::new())?;
        let mut failed = 0;
        let id = loop {
            match self.bucket()?.create_multipart_once(&self.target.key(object)).await {
                Ok(id) => break id,
                Err(error) => {
                    failed += 1;
                    let Some(wait) = self.client.retry().wait(failed, &error) else {
                        if !error.is_transient() {
                            // A refusal is certain: nothing was started.
                            self.ledger().upload_ended(object.to_owned(), String::new())?;
                        }
                        return Err(self.wrap(error));
                    };
                    tokio::time::sleep(wait).await;
                    self.abort(object, "").await.map_err(|error| self.wrap(error))?;
                }
            }
        };
        let mut ledger = self.ledger();
        ledger.upload(object.to_owned(), id.clone())?;
        ledger.upload_ended(object.to_owned(), String::new())?;
        Ok(id)
    }

    /// An upload of this segment that an earlier push began, if it can be gone on with; otherwise it is aborted.
    pub async fn begun_before(&self, segment: SegmentNumber) -> Result<Option<Running>, PushError> {
        let Some(begun) = self.unfinished.get(segment) else {
            return Ok(None);
        };
        let (object, id) = (&begun.facts.object, &begun.facts.id);
        if self.is_free(object).await? {
            match self.bucket()?.list_parts(&self.target.key(object), id).await {
                Ok(arrived) => return Ok(Some(Running { begun, arrived })),
                Err(error) if error.is_transient() => return Err(self.wrap(error)),
                Err(_) => {}
            }
        }
        self.give_up(&begun).await?;
        Ok(None)
    }

    /// Begins an upload. `facts` are the segment, its size and time of change, and the sum of the certificates.
    pub async fn begin(
        &self,
        name: &Name,
        facts: (SegmentNumber, u64, u64, Sha256Sum),
        seal: Seal,
    ) -> Result<Running, PushError> {
        let (segment, size, modified, recipients) = facts;
        let object = self.choose(name).await?;
        let id = self.start_upload(&object).await?;
        let facts = Facts {
            segment,
            size,
            modified,
            recipients,
            object,
            id,
        };
        let begun = Begun { facts, seal };
        self.unfinished.keep(begun.clone())?;
        Ok(Running {
            begun,
            arrived: BTreeMap::new(),
        })
    }

    /// Aborts an upload, as far as that is permitted, and wipes its seal.
    async fn give_up(&self, begun: &Begun) -> Result<(), PushError> {
        let Facts {
            segment, object, id, ..
        } = &begun.facts;
        self.unfinished.forget(*segment)?;
        match self.bucket()?.abort_multipart(&self.target.key(object), id).await {
            Ok(()) => Ok(self.ledger().upload_ended(object.clone(), id.clone())?),
            // It is in the ledger, for others or for later.
            Err(_) => Ok(()),
        }
    }

    /// Sends a segment in parts; false when parts that have arrived are of another message, and all has to begin anew.
    pub async fn in_parts(
        &self,
        upload: Running,
        plan: Plan,
        on_part: &mut impl FnMut(u64),
    ) -> Result<bool, PushError> {
        let Running { begun, arrived } = upload;
        let Facts {
            segment,
            size: plain_size,
            modified,
            object,
            id,
            ..
        } = begun.facts.clone();
        let what = What::Segment(segment);
        let key = self.target.key(&object);
        let sent = match self.parts(&key, &id, what, plan, &arrived, on_part).await {
            Ok(Some(sent)) => sent,
            Ok(None) => {
                self.give_up(&begun).await?;
                return Ok(false);
            }
            Err(error) => {
                // A broken line is no reason to send all of it again.
                if !matches!(&error, PushError::Target { source, .. } if source.is_transient()) {
                    self.give_up(&begun).await?;
                }
                return Err(error);
            }
        };
        let item = Item {
            object: object.clone(),
            size: sent.totals.size,
            etag: etag(&sent.parts).unwrap_or_default(),
            md5: None,
            sha256: None,
            parts: Some(sent.totals.sum),
            plain_size,
            plain_sha256: Some(sent.totals.plain_sha256),
            modified,
        };
        self.ledger().intend(what, item.clone())?;
        let etag = self
            .complete(&key, &id, &sent.parts, &item)
            .await
            .map_err(|error| self.wrap(error))?;
        self.count(sent.bytes);
        {
            let mut ledger = self.ledger();
            ledger.stored(what, Item { etag, ..item })?;
            ledger.upload_ended(object, id)?;
        }
        self.unfinished.forget(segment)?;
        Ok(true)
    }

    /// `None` when a part that has arrived is of another message.
    async fn parts(
        &self,
        key: &str,
        id: &str,
        what: What,
        plan: Plan,
        arrived: &BTreeMap<u32, Arrived>,
        on_part: &mut impl FnMut(u64),
    ) -> Result<Option<Sent>, PushError> {
        let (sender, mut receiver) = mpsc::channel(1);
        let (pool, runtime) = (self.pool.clone(), Handle::current());
        let known = arrived.keys().copied().collect();
        let worker = tokio::task::spawn_blocking(move || plan.parts(&pool, &runtime, &known, &sender));
        let mut running = FuturesUnordered::new();
        let mut parts = Vec::new();
        let mut bytes = 0;
        loop {
            // As many as there are buffers.
            let part: Result<(u32, u64, String), S3Error> = tokio::select! {
                Some(part) = receiver.recv() => {
                    match arrived.get(&part.number) {
                        None => running.push(self.part(key, id, part)),
                        Some(there) if is_same(&part, there) => {
                            on_part(there.size);
                            parts.push((part.number, there.etag.clone()));
                        }
                        Some(_) => return Ok(None),
                    }
                    continue;
                }
                Some(sent) = running.next() => sent,
                else => break,
            };
            let (number, size, etag) = part.map_err(|error| self.wrap(error))?;
            parts.push((number, etag));
            bytes += size;
            on_part(size);
        }
        let totals = worker.await.map_err(|error| PushError::Internal(error.to_string()))?;
        parts.sort_unstable();
        Ok(Some(Sent {
            totals: totals.map_err(read_error(what))?,
            parts,
            bytes,
        }))
    }

    async fn part(&self, key: &str, id: &str, part: Part) -> Result<(u32, u64, String), S3Error> {
        let size = part.payload.size;
        let _turn = self.turn().await;
        let etag = self
            .client
            .bucket()?
            .upload_part(key, id, part.number, part.bytes, &part.payload)
            .await?;
        Ok((part.number, size, etag))
    }

    async fn complete(&self, key: &str, id: &str, parts: &[(u32, String)], item: &Item) -> Result<String, S3Error> {
        let mut failed = 0;
        loop {
            let error = match self.client.bucket()?.complete_multipart_once(key, id, parts).await {
                Ok(etag) => return Ok(etag),
                Err(error) => error,
            };
            failed += 1;
            let wait = self.client.retry().wait(failed, &error);
            if wait.is_none() && !matches!(error, S3Error::NoSuchUpload { .. }) {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or_default()).await;
            // The upload is gone if it was completed although the answer did not arrive.
            match self.look(&item.object, item.size, &item.etag).await? {
                Look::Same(etag) => return Ok(etag),
                _ if wait.is_none() => return Err(error),
                _ => {}
            }
        }
    }
}

/// An upload that is under way.
pub(super) struct Running {
    begun: Begun,
    /// Parts that arrived before.
    arrived: BTreeMap<u32, Arrived>,
}

impl Running {
    /// What makes its message.
    pub fn seal(&self) -> Seal {
        self.begun.seal.clone()
    }
}

/// All parts of a message.
struct Sent {
    totals: Totals<PartsSum>,
    parts: Vec<(u32, String)>,
    /// Bytes that were sent now.
    bytes: u64,
}

/// Whether what has arrived is this part. Where ETags are no MD5, that can't be told, and it is taken for another.
fn is_same(part: &Part, there: &Arrived) -> bool {
    let md5 = part.payload.md5;
    part.payload.size == there.size && md5.is_some() && md5 == Md5Sum::parse(&there.etag)
}

/// The ETag of an object made of parts, as S3 makes it: the MD5 of their MD5s. `None` where the parts' ETags are none.
fn etag(parts: &[(u32, String)]) -> Option<String> {
    let mut md5 = Md5::new();
    for (_, etag) in parts {
        md5.update(Md5Sum::parse(etag)?.0);
    }
    let md5: [u8; 16] = md5.finalize().into();
    Some(format!("{}-{}", Digest(md5), parts.len()))
}
