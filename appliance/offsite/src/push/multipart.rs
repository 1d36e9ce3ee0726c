//! Sending one large object in parts, several of them at a time, read once. No upload is left behind: its id is in the
//! ledger before its first part goes out.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use md5::{Digest as _, Md5};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::PushError;
use super::read::{Part, Plan, Totals};
use super::send::{Look, Sender, read_error};
use crate::digest::{Digest, Md5Sum};
use crate::layout::Name;
use crate::ledger::{Item, What};
use crate::s3::S3Error;

impl Sender<'_> {
    /// Aborts the uploads that the ledger knows. Those that these credentials may not abort are kept for others.
    pub async fn abort_uploads(&self) -> Result<(), PushError> {
        let uploads = self.ledger().state.uploads.clone();
        for (object, id) in uploads {
            match self.abort(&object, &id).await {
                Ok(()) => self.ledger().upload_ended(object, id)?,
                Err(error) if error.is_denied() => {}
                Err(error) => return Err(self.wrap(error)),
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
    async fn start_upload(&self, object: &str) -> Result<String, PushError> {
        self.ledger().upload(object.to_owned(), String::new())?;
        let mut failed = 0;
        let id = loop {
            match self.client.create_multipart_once(&self.target.key(object)).await {
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

    /// Sends a segment in parts.
    pub async fn in_parts(
        &self,
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
        let (totals, parts) = match self.parts(&key, &id, what, plan, &mut on_part).await {
            Ok(sent) => sent,
            Err(error) => {
                if self.client.abort_multipart(&key, &id).await.is_ok() {
                    self.ledger().upload_ended(object, id)?;
                }
                return Err(error);
            }
        };
        let item = Item {
            object: object.clone(),
            size: totals.size,
            etag: etag(&parts).unwrap_or_default(),
            md5: None,
            sha256: Some(totals.sha256),
            plain_size,
            plain_sha256: Some(totals.plain_sha256),
            modified,
        };
        self.ledger().intend(what, item.clone())?;
        let etag = self
            .complete(&key, &id, &parts, &item)
            .await
            .map_err(|error| self.wrap(error))?;
        self.count(item.size);
        let mut ledger = self.ledger();
        ledger.stored(what, Item { etag, ..item })?;
        ledger.upload_ended(object, id)?;
        Ok(())
    }

    async fn parts(
        &self,
        key: &str,
        id: &str,
        what: What,
        plan: Plan,
        on_part: &mut impl FnMut(u64),
    ) -> Result<(Totals, Vec<(u32, String)>), PushError> {
        let (sender, mut receiver) = mpsc::channel(1);
        let (pool, runtime) = (self.pool.clone(), Handle::current());
        let worker = tokio::task::spawn_blocking(move || plan.parts(&pool, &runtime, &sender));
        let mut running = FuturesUnordered::new();
        let mut done = Vec::new();
        loop {
            // As many as there are buffers.
            let sent: Result<(u32, u64, String), S3Error> = tokio::select! {
                Some(part) = receiver.recv() => {
                    running.push(self.part(key, id, part));
                    continue;
                }
                Some(sent) = running.next() => sent,
                else => break,
            };
            let (number, size, etag) = sent.map_err(|error| self.wrap(error))?;
            done.push((number, etag));
            on_part(size);
        }
        let totals = worker.await.map_err(|error| PushError::Internal(error.to_string()))?;
        done.sort_unstable();
        Ok((totals.map_err(read_error(what))?, done))
    }

    async fn part(&self, key: &str, id: &str, part: Part) -> Result<(u32, u64, String), S3Error> {
        let size = part.payload.size;
        let _turn = self.turn().await;
        let etag = self
            .client
            .upload_part(key, id, part.number, part.bytes, &part.payload)
            .await?;
        Ok((part.number, size, etag))
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

/// The ETag of an object made of parts, as S3 makes it: the MD5 of their MD5s. `None` where the parts' ETags are none.
fn etag(parts: &[(u32, String)]) -> Option<String> {
    let mut md5 = Md5::new();
    for (_, etag) in parts {
        md5.update(Md5Sum::parse(etag)?.0);
    }
    let md5: [u8; 16] = md5.finalize().into();
    Some(format!("{}-{}", Digest(md5), parts.len()))
}
