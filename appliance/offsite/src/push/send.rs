//! Sending one object so that it is written once, whatever happens on the way.
//!
//! Before the bytes go out, the ledger holds an intent with the object's size and ETag to be. After a
//! broken connection, or a killed push, a HEAD tells whether that very object arrived.

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::mpsc;

use super::error::PushError;
use super::read::{Plan, Totals};
use crate::digest::Sha256Sum;
use crate::layout::Name;
use crate::ledger::{Item, Ledger, What};
use crate::s3::{Client, Payload, S3Error};
use crate::target::Target;

/// Sends objects to one target and keeps the ledger.
pub(super) struct Sender<'a> {
    pub client: Client,
    pub target: &'a Target,
    pub ledger: &'a mut Ledger,
    /// Unix seconds; the next revision to use for a name that is taken.
    pub revision: u64,
    pub part_size: usize,
    pub sent_objects: u64,
    pub sent_bytes: u64,
}

/// What a name stands for in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// The object that was meant, with its ETag.
    Same(String),
    Other,
    Missing,
    /// The credentials may not look.
    Unknown,
}

/// How an attempt to write a name ended.
enum Put {
    Done(String),
    /// The name is taken, as far as one can see; the service's own words if it gave any.
    Taken(Option<S3Error>),
}

/// What is sent in one piece.
enum Body {
    Bytes(Bytes),
    File(Plan),
}

impl Sender<'_> {
    fn wrap(&self) -> impl Fn(S3Error) -> PushError + use<> {
        let target = self.target.name.clone();
        move |source| PushError::Target {
            target: target.clone(),
            source,
        }
    }

    /// A revision that was not used before.
    pub fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision - 1
    }

    /// Cleans up after a push that was killed: unfinished uploads are aborted, intents resolved.
    pub async fn settle(&mut self) -> Result<(), PushError> {
        for (id, object) in self.ledger.state.uploads.clone() {
            match self.abort(&object, &id).await {
                Ok(()) => self.ledger.upload_ended(id)?,
                // Kept, so that a later push with better credentials can do it.
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(self.wrap()(error)),
            }
        }
        for (object, (what, item)) in self.ledger.state.intents.clone() {
            match self.look(&object, item.size, &item.etag).await.map_err(self.wrap())? {
                Look::Same(etag) => self.ledger.stored(what, Item { etag, ..item })?,
                Look::Missing => self.ledger.dropped(object)?,
                Look::Other | Look::Unknown => self.ledger.taken(object)?,
            }
        }
        Ok(())
    }

    /// Aborts an upload; one without an id was to be started when the ledger ends.
    async fn abort(&self, object: &str, id: &str) -> Result<(), S3Error> {
        let key = self.target.key(object);
        if id.is_empty() {
            self.client.clear_multipart(&key).await
        } else {
            self.client.abort_multipart(&key, id).await
        }
    }

    /// Starts an upload so that none is left behind whose id nobody knows.
    async fn start_upload(&mut self, object: &str) -> Result<String, PushError> {
        self.ledger.upload(object.to_owned(), String::new())?;
        let mut failed = 0;
        let id = loop {
            match self.client.create_multipart_once(&self.target.key(object)).await {
                Ok(id) => break id,
                Err(error) => {
                    failed += 1;
                    let Some(wait) = self.client.retry().wait(failed, &error) else {
                        if !error.is_transient() {
                            // A refusal is certain: nothing was started.
                            self.ledger.upload_ended(String::new())?;
                        }
                        return Err(self.wrap()(error));
                    };
                    tokio::time::sleep(wait).await;
                    self.abort(object, "").await.map_err(self.wrap())?;
                }
            }
        };
        self.ledger.upload(object.to_owned(), id.clone())?;
        self.ledger.upload_ended(String::new())?;
        Ok(id)
    }

    async fn look(&self, object: &str, size: u64, etag: &str) -> Result<Look, S3Error> {
        match self.client.head(&self.target.key(object)).await {
            Ok(None) => Ok(Look::Missing),
            Ok(Some(head)) if head.size == size && head.etag == etag => Ok(Look::Same(head.etag)),
            Ok(Some(_)) => Ok(Look::Other),
            Err(error) if error.is_denied() => Ok(Look::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Whether a name may be used: not known to be taken, and nothing is seen there.
    async fn is_free(&mut self, object: &str) -> Result<bool, PushError> {
        if self.ledger.state.taken.contains(object) {
            return Ok(false);
        }
        // Size and ETag that no object has: anything that is there is another.
        match self.look(object, u64::MAX, "").await.map_err(self.wrap())? {
            Look::Missing | Look::Unknown => Ok(true),
            Look::Same(_) | Look::Other => {
                self.ledger.taken(object.to_owned())?;
                Ok(false)
            }
        }
    }

    async fn choose(&mut self, name: &Name) -> Result<String, PushError> {
        let first = name.revision(None);
        Ok(if self.is_free(&first).await? {
            first
        } else {
            name.revision(Some(self.next_revision()))
        })
    }

    /// One revision for which all names are free.
    pub async fn choose_revision(&mut self, names: &[Name]) -> Result<Option<u64>, PushError> {
        for name in names {
            if !self.is_free(&name.revision(None)).await? {
                return Ok(Some(self.next_revision()));
            }
        }
        Ok(None)
    }

    /// Sends bytes under the first free name.
    pub async fn bytes(
        &mut self,
        what: What,
        name: &Name,
        bytes: Bytes,
        plain: (Sha256Sum, u64),
    ) -> Result<(), PushError> {
        let item = item(&bytes, plain.0, plain.1);
        self.under_free_name(what, name, item, Body::Bytes(bytes)).await
    }

    /// Sends bytes under this name; false when it is taken.
    pub async fn bytes_as(&mut self, what: What, object: String, bytes: Bytes) -> Result<bool, PushError> {
        let payload = Payload::of(&bytes);
        let item = Item {
            object,
            ..item(&bytes, payload.sha256, payload.size)
        };
        match self.put(what, item, &Body::Bytes(bytes)).await? {
            Put::Done(_) => Ok(true),
            Put::Taken(Some(error)) if !error.is_denied() => Err(self.wrap()(error)),
            Put::Taken(_) => Ok(false),
        }
    }

    /// Sends a segment in one piece, read once (small) or twice.
    pub async fn in_one_piece(&mut self, what: What, name: &Name, plan: Plan, modified: u64) -> Result<(), PushError> {
        let failed = segment_of(what);
        let plain_size = plan.size;
        let small = plan
            .seal
            .length(plain_size)
            .is_some_and(|size| size <= self.part_size as u64);
        let (item, body) = if small {
            let (bytes, totals) = blocking(move || plan.whole()).await?.map_err(failed)?;
            (item(&bytes, totals.plain_sha256, plain_size), Body::Bytes(bytes))
        } else {
            let first = plan.clone();
            let (totals, md5) = blocking(move || first.sums()).await?.map_err(failed)?;
            let item = Item {
                object: String::new(),
                size: totals.size,
                etag: md5.to_string(),
                md5: Some(md5),
                sha256: Some(totals.sha256),
                plain_size,
                plain_sha256: Some(totals.plain_sha256),
                modified,
            };
            (item, Body::File(plan))
        };
        self.under_free_name(what, name, Item { modified, ..item }, body).await
    }

    async fn under_free_name(&mut self, what: What, name: &Name, item: Item, body: Body) -> Result<(), PushError> {
        let mut object = self.choose(name).await?;
        for last in [false, true] {
            let Put::Taken(why) = self
                .put(
                    what,
                    Item {
                        object: object.clone(),
                        ..item.clone()
                    },
                    &body,
                )
                .await?
            else {
                return Ok(());
            };
            match why {
                Some(error) if last => return Err(self.wrap()(error)),
                None if last => break,
                _ => object = name.revision(Some(self.next_revision())),
            }
        }
        Err(PushError::NameTaken {
            target: self.target.name.clone(),
            object,
        })
    }

    /// Writes the intent, sends, and records the outcome.
    async fn put(&mut self, what: What, item: Item, body: &Body) -> Result<Put, PushError> {
        let object = item.object.clone();
        self.ledger.intend(what, item.clone())?;
        let outcome = self.attempts(&item, body).await.map_err(self.wrap())?;
        match &outcome {
            Put::Done(etag) => {
                self.sent_objects += 1;
                self.sent_bytes += item.size;
                self.ledger.stored(
                    what,
                    Item {
                        etag: etag.clone(),
                        ..item
                    },
                )?;
            }
            Put::Taken(_) => self.ledger.taken(object)?,
        }
        Ok(outcome)
    }

    async fn attempts(&self, item: &Item, body: &Body) -> Result<Put, S3Error> {
        let key = self.target.key(&item.object);
        let payload = match (item.sha256, item.md5) {
            (Some(sha256), Some(md5)) => Payload {
                size: item.size,
                sha256,
                md5,
            },
            // Both are always set for what is sent in one piece.
            _ => {
                return Err(S3Error::BadAnswer {
                    operation: key,
                    why: "sums are missing".into(),
                });
            }
        };
        let mut failed = 0;
        loop {
            let sent = match body {
                Body::Bytes(bytes) => self.client.put_once(&key, bytes.clone(), &payload).await,
                Body::File(plan) => {
                    let plan = plan.clone();
                    self.client
                        .put_stream_once(&key, &payload, move |sender| plan.stream(&sender))
                        .await
                }
            };
            let error = match sent {
                Ok(etag) => return Ok(Put::Done(etag)),
                Err(error) => error,
            };
            failed += 1;
            let wait = self.client.retry().wait(failed, &error);
            if !error.is_denied() {
                let Some(wait) = wait else { return Err(error) };
                tokio::time::sleep(wait).await;
            }
            // It may have arrived although the answer did not; or the name may not be overwritten.
            match self.look(&item.object, item.size, &item.etag).await? {
                Look::Same(etag) => return Ok(Put::Done(etag)),
                Look::Other => return Ok(Put::Taken(None)),
                Look::Unknown if error.is_denied() => return Ok(Put::Taken(Some(error))),
                Look::Missing if error.is_denied() => return Err(error),
                Look::Missing | Look::Unknown => {}
            }
        }
    }

    /// Sends a segment in parts, read once.
    pub async fn in_parts(
        &mut self,
        what: What,
        name: &Name,
        plan: Plan,
        modified: u64,
        mut on_part: impl FnMut(u64),
    ) -> Result<(), PushError> {
        let object = self.choose(name).await?;
        let key = self.target.key(&object);
        let plain_size = plan.size;
        let id = self.start_upload(&object).await?;
        let sent = self.parts(&key, &id, plan, segment_of(what), &mut on_part).await;
        let (totals, parts, etag) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                if self.client.abort_multipart(&key, &id).await.is_ok() {
                    self.ledger.upload_ended(id)?;
                }
                return Err(error);
            }
        };
        let item = Item {
            object,
            size: totals.size,
            etag,
            md5: None,
            sha256: Some(totals.sha256),
            plain_size,
            plain_sha256: Some(totals.plain_sha256),
            modified,
        };
        self.ledger.intend(what, item.clone())?;
        let etag = self.complete(&key, &id, &parts, &item).await.map_err(self.wrap())?;
        self.sent_objects += 1;
        self.sent_bytes += item.size;
        self.ledger.stored(what, Item { etag, ..item })?;
        self.ledger.upload_ended(id)?;
        Ok(())
    }

    async fn parts(
        &self,
        key: &str,
        id: &str,
        plan: Plan,
        failed: impl Fn(super::read::ReadError) -> PushError,
        on_part: &mut impl FnMut(u64),
    ) -> Result<(Totals, Vec<(u32, String)>, String), PushError> {
        // One part waits while one is sent and one is made: three in memory.
        let (sender, mut receiver) = mpsc::channel(1);
        let size = self.part_size;
        let worker = tokio::task::spawn_blocking(move || plan.parts(size, &sender));
        let mut parts = Vec::new();
        let mut md5 = Md5::new();
        let mut number = 0;
        let mut outcome = Ok(());
        while let Some(part) = receiver.recv().await {
            number += 1;
            md5.update(part.payload.md5.0);
            match self
                .client
                .upload_part(key, id, number, part.bytes, &part.payload)
                .await
            {
                Ok(etag) => parts.push((number, etag)),
                Err(error) => {
                    outcome = Err(self.wrap()(error));
                    break;
                }
            }
            on_part(part.payload.size);
        }
        drop(receiver);
        let totals = worker.await.map_err(|error| PushError::Internal(error.to_string()))?;
        outcome?;
        let md5: [u8; 16] = md5.finalize().into();
        Ok((
            totals.map_err(failed)?,
            parts,
            format!("{}-{number}", crate::digest::Digest(md5)),
        ))
    }

    async fn complete(&self, key: &str, id: &str, parts: &[(u32, String)], item: &Item) -> Result<String, S3Error> {
        let mut failed = 0;
        loop {
            let error = match self.client.complete_multipart_once(key, id, parts).await {
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

/// A ledger item for bytes that are sent in one piece; without name and time.
fn item(bytes: &[u8], plain_sha256: Sha256Sum, plain_size: u64) -> Item {
    let payload = Payload::of(bytes);
    Item {
        object: String::new(),
        size: payload.size,
        etag: payload.md5.to_string(),
        md5: Some(payload.md5),
        sha256: Some(payload.sha256),
        plain_size,
        plain_sha256: Some(plain_sha256),
        modified: 0,
    }
}

fn segment_of(what: What) -> impl Fn(super::read::ReadError) -> PushError {
    let segment = match what {
        What::Segment(number) => number,
        _ => strongroom_borg::SegmentNumber(0),
    };
    move |source| match source {
        super::read::ReadError::Changed => PushError::SegmentAltered {
            segment,
            why: "its size changed while it was read",
        },
        source => PushError::Segment { segment, source },
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PushError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| PushError::Internal(error.to_string()))
}
