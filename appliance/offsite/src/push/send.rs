//! Sending one object so that it is written once, whatever happens on the way.
//!
//! Before the bytes go out, the ledger holds an intent with the object's size and ETag to be. After a
//! broken connection, or a killed push, a HEAD tells whether that very object arrived. Several objects are on their
//! way at a time; their records in the ledger may stand in any order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::PART_SIZE;
use super::buffer::Pool;
use super::error::PushError;
use super::read::{Plan, ReadError, Totals};
use super::unfinished::{Begun, Unfinished};
use crate::digest::{Md5Sum, Sha256Sum};
use crate::layout::Name;
use crate::ledger::{Item, Ledger, What};
use crate::s3::{Payload, S3Error};
use crate::store::Store;
use crate::store::directory::Directory;
use crate::target::Target;

/// Sends objects to one target and keeps the ledger.
pub(super) struct Sender<'a> {
    pub client: Store,
    pub target: &'a Target,
    ledger: Mutex<Ledger>,
    pub pool: Arc<Pool>,
    /// One permit for each upload that may be on its way.
    line: Semaphore,
    pub unfinished: Unfinished,
    /// Unix seconds; the next revision to use for a name that is taken.
    revision: AtomicU64,
    sent_objects: AtomicU64,
    sent_bytes: AtomicU64,
}

/// What a name stands for in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
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

impl<'a> Sender<'a> {
    pub fn new(
        client: Store,
        target: &'a Target,
        ledger: Ledger,
        unfinished: Unfinished,
        uploads: usize,
        now: u64,
    ) -> Self {
        Self {
            client,
            unfinished,
            target,
            ledger: Mutex::new(ledger),
            // One buffer more than are on their way, so that the next is filled meanwhile.
            pool: Pool::new(uploads + 1, PART_SIZE),
            line: Semaphore::new(uploads),
            revision: AtomicU64::new(now),
            sent_objects: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    /// The ledger, for one step.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn to upload, which ends when the permit is dropped. Nobody closes the line: there always is one.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.line.acquire().await.ok()
    }

    pub fn wrap(&self, source: S3Error) -> PushError {
        PushError::Target {
            target: self.target.name.clone(),
            source,
        }
    }

    /// A revision that was not used before.
    pub fn next_revision(&self) -> u64 {
        self.revision.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts an object that was sent.
    pub fn count(&self, bytes: u64) {
        self.sent_objects.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Objects and bytes sent so far.
    pub fn sent(&self) -> (u64, u64) {
        (
            self.sent_objects.load(Ordering::Relaxed),
            self.sent_bytes.load(Ordering::Relaxed),
        )
    }

    /// Cleans up after a push that was killed: intents are resolved, and unfinished uploads aborted but for those that
    /// can be gone on with. `fits` tells whether the segment and the certificates are still the same.
    pub async fn settle(&self, fits: impl Fn(&Begun) -> bool) -> Result<(), PushError> {
        let intents = self.ledger().state.intents.clone();
        for (object, (what, item)) in intents {
            let look = self.look(&object, item.size, &item.etag).await;
            let look = look.map_err(|error| self.wrap(error))?;
            let mut ledger = self.ledger();
            match look {
                Look::Same(etag) => ledger.stored(what, Item { etag, ..item })?,
                Look::Missing => ledger.dropped(object)?,
                Look::Other | Look::Unknown => ledger.taken(object)?,
            }
        }
        self.unfinished.retain(|begun| {
            let facts = &begun.facts;
            let state = &self.ledger().state;
            let is_known = state.uploads.contains(&(facts.object.clone(), facts.id.clone()));
            is_known && !state.segments.contains_key(&facts.segment) && fits(begun)
        })?;
        self.abort_uploads().await
    }

    pub async fn look(&self, object: &str, size: u64, etag: &str) -> Result<Look, S3Error> {
        match self.client.head(&self.target.key(object)).await {
            Ok(None) => Ok(Look::Missing),
            Ok(Some(head)) if head.size == size && head.etag == etag => Ok(Look::Same(head.etag)),
            Ok(Some(_)) => Ok(Look::Other),
            Err(error) if error.is_denied() => Ok(Look::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Whether a name may be used: not known to be taken, and nothing is seen there.
    pub async fn is_free(&self, object: &str) -> Result<bool, PushError> {
        if self.ledger().state.taken.contains(object) {
            return Ok(false);
        }
        // Size and ETag that no object has: anything that is there is another.
        let look = self.look(object, u64::MAX, "").await;
        match look.map_err(|error| self.wrap(error))? {
            Look::Missing | Look::Unknown => Ok(true),
            Look::Same(_) | Look::Other => {
                self.ledger().taken(object.to_owned())?;
                Ok(false)
            }
        }
    }

    pub async fn choose(&self, name: &Name) -> Result<String, PushError> {
        let first = name.revision(None);
        Ok(if self.is_free(&first).await? {
            first
        } else {
            name.revision(Some(self.next_revision()))
        })
    }

    /// One revision for which all names are free.
    pub async fn choose_revision(&self, names: &[Name]) -> Result<Option<u64>, PushError> {
        for name in names {
            if !self.is_free(&name.revision(None)).await? {
                return Ok(Some(self.next_revision()));
            }
        }
        Ok(None)
    }

    /// Sends bytes under the first free name.
    pub async fn bytes(&self, what: What, name: &Name, bytes: Bytes, plain: (Sha256Sum, u64)) -> Result<(), PushError> {
        let payload = Payload::of(&bytes);
        let item = item(&payload, plain.0, plain.1);
        self.under_free_name(what, name, item, &payload, Body::Bytes(bytes))
            .await
    }

    /// Sends bytes under this name; false when it is taken.
    pub async fn bytes_as(&self, what: What, object: String, bytes: Bytes) -> Result<bool, PushError> {
        let payload = Payload::of(&bytes);
        let item = Item {
            object,
            ..item(&payload, payload.sha256, payload.size)
        };
        match self.put(what, item, &payload, &Body::Bytes(bytes)).await? {
            Put::Done(_) => Ok(true),
            Put::Taken(Some(error)) if !error.is_denied() => Err(self.wrap(error)),
            Put::Taken(_) => Ok(false),
        }
    }

    /// Sends a segment in one piece: read once, or twice where its sums have to be told first, and it doesn't fit in memory.
    pub async fn in_one_piece(&self, what: What, name: &Name, plan: Plan, modified: u64) -> Result<(), PushError> {
        let failed = read_error(what);
        let plain_size = plan.size;
        if let Store::Directory(directory, _) = &self.client {
            return self.to_directory(directory, what, name, plan, modified).await;
        }
        let small = plan.length().is_ok_and(|size| size <= self.pool.size() as u64);
        let (body, totals, md5) = if small {
            let (pool, runtime) = (self.pool.clone(), Handle::current());
            let (bytes, totals, md5) = blocking(move || plan.whole(&pool, &runtime)).await?.map_err(failed)?;
            (Body::Bytes(bytes), totals, md5)
        } else {
            let first = plan.clone();
            let (totals, md5) = blocking(move || first.sums()).await?.map_err(failed)?;
            (Body::File(plan), totals, md5)
        };
        let (payload, item) = described(&totals, md5, plain_size, modified);
        self.under_free_name(what, name, item, &payload, body).await
    }

    /// Writes a segment into a directory, read once: its sums are known when it is on the disk, before it has its name.
    async fn to_directory(
        &self,
        directory: &Directory,
        what: What,
        name: &Name,
        plan: Plan,
        modified: u64,
    ) -> Result<(), PushError> {
        let failed = read_error(what);
        let plain_size = plan.size;
        let size = plan.length().map_err(&failed)?;
        let mut object = self.choose(name).await?;
        let turn = self.turn().await;
        let key = self.target.key(&object);
        let written = directory.write(&key, size, move |file| plan.write(file)).await;
        let (half, sums) = written.map_err(|error| self.wrap(error))?;
        drop(turn);
        let (totals, md5) = sums.map_err(failed)?;
        let (_, item) = described(&totals, md5, plain_size, modified);
        let mut may_rename = true;
        loop {
            let item = Item {
                object: object.clone(),
                ..item.clone()
            };
            self.ledger().intend(what, item.clone())?;
            match half.place(&self.target.key(&object)).await {
                Ok(()) => {
                    self.count(item.size);
                    return Ok(self.ledger().stored(what, item)?);
                }
                Err(error) if error.is_denied() && may_rename => {
                    may_rename = false;
                    self.ledger().taken(object)?;
                    object = name.revision(Some(self.next_revision()));
                }
                Err(error) => return Err(self.wrap(error)),
            }
        }
    }

    async fn under_free_name(
        &self,
        what: What,
        name: &Name,
        item: Item,
        payload: &Payload,
        body: Body,
    ) -> Result<(), PushError> {
        let mut object = self.choose(name).await?;
        for last in [false, true] {
            let named = Item {
                object: object.clone(),
                ..item.clone()
            };
            let Put::Taken(why) = self.put(what, named, payload, &body).await? else {
                return Ok(());
            };
            match why {
                Some(error) if last => return Err(self.wrap(error)),
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
    async fn put(&self, what: What, item: Item, payload: &Payload, body: &Body) -> Result<Put, PushError> {
        let object = item.object.clone();
        self.ledger().intend(what, item.clone())?;
        let outcome = self.attempts(&item, payload, body).await;
        let outcome = outcome.map_err(|error| self.wrap(error))?;
        match &outcome {
            Put::Done(etag) => {
                self.count(item.size);
                let etag = etag.clone();
                self.ledger().stored(what, Item { etag, ..item })?;
            }
            Put::Taken(_) => self.ledger().taken(object)?,
        }
        Ok(outcome)
    }

    async fn attempts(&self, item: &Item, payload: &Payload, body: &Body) -> Result<Put, S3Error> {
        let key = self.target.key(&item.object);
        let mut failed = 0;
        loop {
            let turn = self.turn().await;
            let sent = match body {
                Body::Bytes(bytes) => self.client.put_once(&key, bytes.clone(), payload).await,
                Body::File(plan) => {
                    let plan = plan.clone();
                    self.client
                        .bucket()?
                        .put_stream_once(&key, payload, move |sender| plan.stream(&sender))
                        .await
                }
            };
            drop(turn);
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
}

/// A segment that is sent in one piece, as the target and as the ledger are told of it; without name.
fn described(totals: &Totals<Sha256Sum>, md5: Md5Sum, plain_size: u64, modified: u64) -> (Payload, Item) {
    let payload = Payload {
        size: totals.size,
        sha256: totals.sum,
        md5: Some(md5),
    };
    let item = Item {
        modified,
        ..item(&payload, totals.plain_sha256, plain_size)
    };
    (payload, item)
}

/// A ledger item for what is sent in one piece; without name and time.
fn item(payload: &Payload, plain_sha256: Sha256Sum, plain_size: u64) -> Item {
    Item {
        object: String::new(),
        size: payload.size,
        etag: payload.md5.map(|md5| md5.to_string()).unwrap_or_default(),
        md5: payload.md5,
        sha256: Some(payload.sha256),
        parts: None,
        plain_size,
        plain_sha256: Some(plain_sha256),
        modified: 0,
    }
}

/// What a segment's reading failed with, with the segment.
pub(super) fn read_error(what: What) -> impl Fn(ReadError) -> PushError {
    let segment = match what {
        What::Segment(number) => number,
        _ => strongroom_borg::SegmentNumber(0),
    };
    move |source| match source {
        ReadError::Changed => PushError::SegmentAltered {
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
