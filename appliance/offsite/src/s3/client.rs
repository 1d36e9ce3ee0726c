//! The operations on one bucket.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};
use reqwest::Method;
use sha2::Sha256;

use super::S3Error;
use super::http::{Call, Clock, EMPTY_SHA256, Sender};
use super::patience::Retry;
use super::stream::{BodySender, channel};
use super::xml::{ListBucketResult, parse, restore, unix_seconds};
use crate::digest::{Md5Sum, Sha256Sum};
use crate::layout::is_key_of_segment;
use crate::target::{AtService, Credentials};

/// Largest XML answer that is read, in bytes: a page of 1000 long keys has about 1.5 MB.
const MAX_XML: usize = 8 * 1024 * 1024;
/// Longest silence while a body is received.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// A payload whose sums are known before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Length in bytes.
    pub size: u64,
    /// For `x-amz-content-sha256`.
    pub sha256: Sha256Sum,
    /// For `Content-MD5`. Without it, the SHA-256 alone protects the payload: that is enough, and half of the work.
    pub md5: Option<Md5Sum>,
}

impl Payload {
    /// The sums of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            size: bytes.len() as u64,
            sha256: crate::digest::Digest(Sha256::digest(bytes).into()),
            md5: Some(md5_of(bytes)),
        }
    }
}

/// Where an object stands in an archive bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// It can be read now.
    Readable,
    /// It must be restored first.
    Archived,
    /// It is being restored.
    Restoring,
}

/// What HEAD tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Size in bytes.
    pub size: u64,
    /// Without quotes; usually the MD5 in hexadecimal.
    pub etag: String,
    /// Whether it can be read.
    pub archive: Archive,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Full key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// When it was written, in Unix seconds, by the service's clock; `None` when it does not tell.
    pub modified: Option<u64>,
}

/// A whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What there is, in the service's order.
    pub objects: Vec<Listed>,
    /// Whether the service knows only the first version of the list (ListObjects, not ListObjectsV2), as far as that
    /// can be told: a single page looks the same.
    pub first_version: bool,
}

/// Where a page of a list begins.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Beginning,
    /// What the second version calls the continuation token.
    Token(String),
    /// In the first version: after this key.
    Key(String),
}

/// One page of a list.
struct Page {
    objects: Vec<Listed>,
    next: Option<Start>,
}

/// A bucket, with credentials, or the two of a target: segments go to the one, everything else to the other. What is not
/// found in that one is looked for in the first: it may have been written before there was a second. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    /// Of the first bucket.
    pub(super) sender: Sender,
    /// Of the bucket for manifests, if it is another.
    manifests: Option<Sender>,
    retry: Retry,
}

impl Client {
    /// Prepares a client; sends nothing.
    ///
    /// # Errors
    /// [`S3Error::Target`] when what is said of the bucket is not valid, [`S3Error::Connect`] when TLS cannot be set up.
    pub fn new(at: &AtService, credentials: Credentials, clock: Clock, retry: Retry) -> Result<Self, S3Error> {
        let sender = Sender::new(at, credentials, clock)?;
        let other = at.manifest_bucket.as_ref().filter(|other| **other != at.bucket);
        Ok(Self {
            manifests: other.map(|other| sender.of_bucket(other)),
            sender,
            retry,
        })
    }

    /// From now on sends no more than `rate` bytes per second, all requests of this client and its clones together.
    pub fn limit(&mut self, rate: u64) {
        self.sender.limit(rate);
        self.manifests = self.manifests.take().map(|other| self.sender.of_bucket(&other.bucket));
    }

    /// Where a key may lie: first where it is written to.
    fn places(&self, key: &str) -> impl Iterator<Item = &Sender> {
        let manifests = self.manifests.as_ref().filter(|_| !is_key_of_segment(key));
        manifests.into_iter().chain([&self.sender])
    }

    /// Where a key is written to.
    fn place(&self, key: &str) -> &Sender {
        self.places(key).next().unwrap_or(&self.sender)
    }

    /// The patience in use.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.retry
    }

    /// Asks for a key wherever it may lie.
    async fn seek(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<reqwest::Response, S3Error> {
        let mut answer = None;
        for place in self.places(key) {
            match self
                .repeat_at(place, method.clone(), Some(key), query, body.clone())
                .await
            {
                Err(error @ S3Error::NoSuchKey { .. }) => answer = Some(error),
                other => return other,
            }
        }
        Err(answer.unwrap_or(S3Error::NoSuchKey {
            operation: format!("{method} {key}"),
        }))
    }

    /// Sends a request to the first bucket that may be repeated without harm, and reads the answer.
    pub(super) async fn repeat(
        &self,
        method: Method,
        key: Option<&str>,
        query: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<reqwest::Response, S3Error> {
        self.repeat_at(&self.sender, method, key, query, body).await
    }

    async fn repeat_at(
        &self,
        sender: &Sender,
        method: Method,
        key: Option<&str>,
        query: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<reqwest::Response, S3Error> {
        let payload = body.as_deref().map(Payload::of);
        let sha256 = payload
            .as_ref()
            .map_or_else(|| EMPTY_SHA256.to_owned(), |payload| payload.sha256.to_string());
        let md5 = payload.as_ref().and_then(|payload| payload.md5).map(content_md5);
        let mut failed = 0;
        loop {
            let call = Call {
                method: method.clone(),
                key,
                query,
                sha256: &sha256,
                md5: md5.as_deref(),
                length: payload.as_ref().map_or(0, |payload| payload.size),
                body: body.clone().map(reqwest::Body::from),
            };
            match sender.send(call).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    failed += 1;
                    let Some(wait) = self.retry.wait(failed, &error) else {
                        return Err(error);
                    };
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    pub(super) async fn xml(&self, operation: &str, mut response: reqwest::Response) -> Result<Vec<u8>, S3Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk(operation, &mut response).await? {
            all.extend_from_slice(&chunk);
            if all.len() > MAX_XML {
                return Err(S3Error::BadAnswer {
                    operation: operation.into(),
                    why: "it is too long".into(),
                });
            }
        }
        Ok(all)
    }

    /// The next piece of a body, or `None` at its end.
    ///
    /// # Errors
    /// [`S3Error::Interrupted`] when the connection breaks or nothing comes for two minutes.
    pub async fn chunk(&self, operation: &str, response: &mut reqwest::Response) -> Result<Option<Bytes>, S3Error> {
        match tokio::time::timeout(LONGEST_SILENCE, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.sender.broken(operation, &error)),
            Err(_) => Err(S3Error::Interrupted {
                operation: operation.into(),
                why: "it fell silent".into(),
            }),
        }
    }

    /// PUTs some bytes, once: after a broken connection the caller looks whether it was done.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn put_once(&self, key: &str, bytes: Bytes, payload: &Payload) -> Result<String, S3Error> {
        self.put_body(key, &[], payload, bytes.into()).await
    }

    /// PUTs a body that is produced while it is sent, once. `produce` runs on a thread that may block.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn put_stream_once(
        &self,
        key: &str,
        payload: &Payload,
        produce: impl FnOnce(BodySender) + Send + 'static,
    ) -> Result<String, S3Error> {
        let (sender, body) = channel(payload.size);
        let producer = tokio::task::spawn_blocking(move || produce(sender));
        let result = self.put_body(key, &[], payload, reqwest::Body::wrap(body)).await;
        // Its channel is closed now, so it ends by itself.
        let _ = producer.await;
        result
    }

    pub(super) async fn put_body(
        &self,
        key: &str,
        query: &[(&str, &str)],
        payload: &Payload,
        body: reqwest::Body,
    ) -> Result<String, S3Error> {
        let md5 = payload.md5.map(content_md5);
        let call = Call {
            method: Method::PUT,
            key: Some(key),
            query,
            sha256: &payload.sha256.to_string(),
            md5: md5.as_deref(),
            length: payload.size,
            body: Some(body),
        };
        let response = self.place(key).send(call).await?;
        let etag = etag(&response);
        if etag.is_empty() {
            // Something between here and the service answered in its place.
            return Err(S3Error::BadAnswer {
                operation: format!("PUT {key}"),
                why: "no ETag".into(),
            });
        }
        Ok(etag)
    }

    /// What is known of an object; `None` when there is none.
    ///
    /// # Errors
    /// [`S3Error`]; [`S3Error::AccessDenied`] when the credentials may not inspect.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, S3Error> {
        let response = match self.seek(Method::HEAD, key, &[], None).await {
            Ok(response) => response,
            Err(S3Error::NoSuchKey { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let Some(size) = header("content-length").and_then(|text| text.parse().ok()) else {
            return Err(S3Error::BadAnswer {
                operation: format!("HEAD {key}"),
                why: "no Content-Length".into(),
            });
        };
        let class = header("x-amz-storage-class").unwrap_or_default();
        // Oracle says it in headers of its own.
        let state = header("archival-state").unwrap_or_default();
        let archive = match header("x-amz-restore") {
            Some(text) if text.contains("ongoing-request=\"true\"") => Archive::Restoring,
            Some(text) if text.contains("ongoing-request=\"false\"") => Archive::Readable,
            _ if state.eq_ignore_ascii_case("restoring") => Archive::Restoring,
            _ if state.eq_ignore_ascii_case("restored") => Archive::Readable,
            _ if state.eq_ignore_ascii_case("archived") => Archive::Archived,
            _ if matches!(class, "GLACIER" | "DEEP_ARCHIVE" | "ARCHIVE" | "Archive") => Archive::Archived,
            _ => Archive::Readable,
        };
        Ok(Some(Head {
            size,
            etag: etag(&response),
            archive,
        }))
    }

    /// Starts to read an object; go on with [`Client::chunk`].
    ///
    /// # Errors
    /// [`S3Error`]; [`S3Error::Archived`] when it must be restored first.
    pub async fn get(&self, key: &str) -> Result<reqwest::Response, S3Error> {
        self.seek(Method::GET, key, &[], None).await
    }

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`S3Error`]; [`S3Error::BadAnswer`] when it is larger.
    pub async fn get_small(&self, key: &str, limit: usize) -> Result<Vec<u8>, S3Error> {
        let operation = format!("GET {key}");
        let mut response = self.get(key).await?;
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk(&operation, &mut response).await? {
            all.extend_from_slice(&chunk);
            if all.len() > limit {
                return Err(S3Error::BadAnswer {
                    operation,
                    why: format!("larger than {limit} bytes"),
                });
            }
        }
        Ok(all)
    }

    /// All objects whose key starts with `prefix`, page by page.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        Ok(self.list_in_pages(prefix, None).await?.objects)
    }

    /// As [`Client::list`], of each bucket in pages of at most `most` objects, and tells how the service lists. One that does not know
    /// the second version of the list, or takes it for the first, is asked for the first.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn list_in_pages(&self, prefix: &str, most: Option<u32>) -> Result<Listing, S3Error> {
        let mut listing = self.list_at(&self.sender, prefix, most).await?;
        if let Some(manifests) = &self.manifests {
            let other = self.list_at(manifests, prefix, most).await?;
            // Where a key is in both, the one that is read counts.
            let there: BTreeSet<&str> = other.objects.iter().map(|listed| listed.key.as_str()).collect();
            listing
                .objects
                .retain(|listed| is_key_of_segment(&listed.key) || !there.contains(listed.key.as_str()));
            let others = other.objects.iter().filter(|listed| !is_key_of_segment(&listed.key));
            listing.objects.extend(others.cloned());
            listing.first_version |= other.first_version;
        }
        Ok(listing)
    }

    async fn list_at(&self, sender: &Sender, prefix: &str, most: Option<u32>) -> Result<Listing, S3Error> {
        let mut listing = Listing {
            objects: Vec::new(),
            first_version: false,
        };
        let mut from = Start::Beginning;
        loop {
            let page = match self.page(sender, prefix, &from, most).await {
                Err(S3Error::Refused {
                    status: 400 | 405 | 501,
                    ..
                }) if from == Start::Beginning => {
                    from = Start::Key(String::new());
                    self.page(sender, prefix, &from, most).await?
                }
                other => other?,
            };
            listing.first_version |= matches!(from, Start::Key(_)) || matches!(page.next, Some(Start::Key(_)));
            listing.objects.extend(page.objects);
            match page.next {
                // A page that leads to itself would never end.
                Some(next) if next == from => {
                    return Err(S3Error::BadAnswer {
                        operation: format!("LIST {prefix}"),
                        why: "its pages repeat".into(),
                    });
                }
                Some(next) => from = next,
                None => return Ok(listing),
            }
        }
    }

    async fn page(&self, sender: &Sender, prefix: &str, from: &Start, most: Option<u32>) -> Result<Page, S3Error> {
        let operation = format!("LIST {prefix}");
        let most = most.map(|most| most.to_string());
        let mut query = vec![("prefix", prefix)];
        match from {
            Start::Beginning => query.push(("list-type", "2")),
            Start::Token(token) => query.extend([("list-type", "2"), ("continuation-token", token.as_str())]),
            Start::Key(key) if key.is_empty() => {}
            Start::Key(key) => query.push(("marker", key)),
        }
        query.extend(most.as_deref().map(|most| ("max-keys", most)));
        let response = self.repeat_at(sender, Method::GET, None, &query, None).await?;
        let body = self.xml(&operation, response).await?;
        let page: ListBucketResult = parse(&body).map_err(|why| S3Error::BadAnswer {
            operation: operation.clone(),
            why,
        })?;
        let last = page.contents.last().map(|found| found.key.clone());
        let next = match (page.is_truncated, page.next, page.marker.or(last)) {
            (false, ..) => None,
            (true, Some(token), _) if !matches!(from, Start::Key(_)) => Some(Start::Token(token)),
            (true, _, Some(key)) => Some(Start::Key(key)),
            (true, _, None) => {
                return Err(S3Error::BadAnswer {
                    operation,
                    why: "there is more, but not where".into(),
                });
            }
        };
        let objects = page.contents.into_iter().map(|found| Listed {
            key: found.key,
            size: found.size,
            etag: found.etag.trim_matches('"').to_owned(),
            modified: found.last_modified.as_deref().and_then(unix_seconds),
        });
        Ok(Page {
            objects: objects.collect(),
            next,
        })
    }

    /// Deletes an object. One that is gone already is fine.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn delete(&self, key: &str) -> Result<(), S3Error> {
        for place in self.places(key) {
            match self.repeat_at(place, Method::DELETE, Some(key), &[], None).await {
                Ok(_) | Err(S3Error::NoSuchKey { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Seconds by which the service's clock was ahead of ours at its last answer; `None` before one.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.sender.clock_ahead()
    }

    /// Asks for an archived object to be made readable for `days` (1 to 10); [`Client::head`] tells when it is.
    /// Asking again while it is under way, or done, is fine.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn restore(&self, key: &str, days: u32) -> Result<(), S3Error> {
        let body = Bytes::from(restore(days));
        match self.seek(Method::POST, key, &[("restore", "")], Some(body)).await {
            Ok(_) | Err(S3Error::RestoreInProgress { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The MD5 of some bytes.
pub(super) fn md5_of(bytes: &[u8]) -> Md5Sum {
    crate::digest::Digest(Md5::digest(bytes).into())
}

/// The value of `Content-MD5`.
pub(super) fn content_md5(md5: Md5Sum) -> String {
    STANDARD.encode(md5.0)
}

fn etag(response: &reqwest::Response) -> String {
    let value = response
        .headers()
        .get("etag")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.trim_matches('"').to_owned()
}
