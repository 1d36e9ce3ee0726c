//! Trying out a bucket: what it is, and what the credentials may do there, found out with a few tiny objects.
//!
//! Harmless to what lies in the bucket: every key is new, below one that carries a random number; only what the probe
//! itself wrote is overwritten or deleted. What it could not delete is named, so that somebody else can.
//! Here is what is asked; what the answers mean is in [`judge`].

pub mod judge;

use bytes::Bytes;

use crate::s3::{Client, Head, Listing, Payload, Retry, S3Error, system_clock};
use crate::target::{self, AtService, Credentials};
pub use judge::{Finding, Report, Tier, Verdict, judge};

/// What the objects say to whoever finds them.
const FIRST: &[u8] = b"Strongroom wrote this to try out the bucket. It may be deleted.\n";
/// The same, overwritten.
const SECOND: &[u8] = b"Strongroom overwrote this to try out the bucket. It may be deleted.\n";
/// Most that is read back, in bytes.
const MOST: usize = 4096;
/// How long a restored object is asked to stay readable, in days: the least.
const DAYS: u32 = 1;

/// An answer; `None` when nothing was asked.
pub type Asked<T> = Option<Result<T, S3Error>>;

/// What the service answered.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// PUT of a new key: whether its ETag was the MD5 of what was sent.
    pub create: Asked<bool>,
    /// PUT of a key that is there.
    pub overwrite: Asked<()>,
    /// HEAD; `None` in it: the object was not there.
    pub head: Asked<Option<Head>>,
    /// GET: whether it was what was sent.
    pub read: Asked<bool>,
    /// A list in pages of one object.
    pub list: Asked<Listing>,
    /// RestoreObject, where the object is archived or that is not known.
    pub restore: Asked<()>,
    /// HEAD after that.
    pub restoring: Asked<Option<Head>>,
    /// An object in parts, from its start to its completion.
    pub parts: Asked<()>,
    /// Removing an upload that was not completed.
    pub abort: Asked<()>,
    /// Deleting the probe's own objects: whether any could be.
    pub delete: Asked<()>,
    /// Keys of objects that the probe wrote.
    pub written: Vec<String>,
    /// Those of them that are still there.
    pub left: Vec<String>,
    /// Keys of uploads that could neither be completed nor removed.
    pub uploads_left: Vec<String>,
    /// Seconds by which the service's clock is ahead of ours.
    pub clock_ahead: Option<i64>,
}

/// A name for the probe's objects that nobody has used: `strongroom-probe-` and 128 random bits.
#[must_use]
pub fn unique_name() -> String {
    format!("strongroom-probe-{:032x}", rand::random::<u128>())
}

/// What was seen at the buckets of a target.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// At the bucket of the segments.
    pub segments: Observations,
    /// At that of the manifests, if it is another.
    pub manifests: Option<Observations>,
}

/// Tries out each bucket of a target, below its prefix ([`probe`]).
///
/// # Errors
/// [`S3Error`] when nothing can be sent at all. What the service refuses is an observation.
pub async fn probe_buckets(at: &AtService, prefix: &str, credentials: &Credentials) -> Result<Seen, S3Error> {
    let mut seen = Vec::new();
    for bucket in at.buckets() {
        let client = Client::new(&bucket, credentials.clone(), system_clock(), Retry::default())?;
        seen.push(probe(&client, &target::key(prefix, &unique_name())).await);
    }
    let mut seen = seen.into_iter();
    Ok(Seen {
        segments: seen.next().unwrap_or_default(),
        manifests: seen.next(),
    })
}

/// Judges what was seen at the buckets of a target.
#[must_use]
pub fn judge_buckets(seen: &Seen, at: &AtService) -> Report {
    let mut report = judge(&seen.segments, at);
    if let Some((manifests, bucket)) = seen.manifests.as_ref().zip(at.buckets().get(1)) {
        report.findings.extend(judge::judge_manifests(manifests, bucket));
    }
    report
}

/// Asks everything that can be asked. `prefix`, by [`unique_name`], is what all its keys begin with; nothing else may
/// be below it. Takes some twenty requests, and waits for no restore.
pub async fn probe(client: &Client, prefix: &str) -> Observations {
    let mut seen = Observations::default();
    ask(client, prefix, &mut seen).await;
    clean(client, &mut seen).await;
    seen.clock_ahead = client.clock_ahead();
    seen
}

async fn ask(client: &Client, prefix: &str, seen: &mut Observations) {
    let [one, two, parts, cut] = ["one", "two", "parts", "cut"].map(|name| format!("{prefix}/{name}"));
    seen.create = Some(put(client, &one, FIRST, seen).await);
    if !matches!(seen.create, Some(Ok(_))) {
        if seen.create.as_ref().is_some_and(may_go_on) {
            seen.list = Some(client.list_in_pages(prefix, Some(1)).await);
        }
        return;
    }
    seen.head = Some(client.head(&one).await);
    seen.read = Some(client.get_small(&one, MOST).await.map(|read| read == FIRST));
    seen.overwrite = Some(put(client, &one, SECOND, seen).await.map(drop));
    // A second object, so that a list has a second page.
    let _ = put(client, &two, FIRST, seen).await;
    if judge::tier(seen) != Tier::Readable {
        seen.restore = Some(client.restore(&two, DAYS).await);
        if matches!(seen.restore, Some(Ok(()))) {
            seen.restoring = Some(client.head(&two).await);
        }
    }
    seen.list = Some(client.list_in_pages(prefix, Some(1)).await);
    in_parts(client, &parts, &cut, seen).await;
}

/// Whether a refusal leaves anything to be found out.
fn may_go_on<T>(created: &Result<T, S3Error>) -> bool {
    matches!(created, Err(error) if error.is_denied())
}

async fn put(client: &Client, key: &str, bytes: &'static [u8], seen: &mut Observations) -> Result<bool, S3Error> {
    let payload = Payload::of(bytes);
    let answer = client.put_once(key, Bytes::from_static(bytes), &payload).await;
    let arrived = match &answer {
        Ok(_) => true,
        // It may have.
        Err(error) => error.is_transient(),
    };
    if arrived && !seen.written.iter().any(|known| known == key) {
        seen.written.push(key.to_owned());
    }
    let md5 = payload.md5.map(|md5| md5.to_string());
    answer.map(|etag| Some(etag) == md5)
}

/// One object in parts, and one upload that is not completed. None is left behind that no list shows, if that can be.
async fn in_parts(client: &Client, whole: &str, cut: &str, seen: &mut Observations) {
    let id = match client.create_multipart_once(whole).await {
        Ok(id) => id,
        Err(error) => {
            seen.parts = Some(Err(error));
            return;
        }
    };
    let done = complete(client, whole, &id).await;
    if done.is_err() && client.abort_multipart(whole, &id).await.is_err() {
        seen.uploads_left.push(whole.to_owned());
    }
    // It may be there although the answer was none that could be read.
    if done.is_ok() || matches!(client.head(whole).await, Ok(Some(_))) {
        seen.written.push(whole.to_owned());
    }
    seen.parts = Some(done);
    let Ok(id) = client.create_multipart_once(cut).await else {
        return;
    };
    let removed = client.abort_multipart(cut, &id).await;
    if removed.is_err() {
        // An object can be seen, and deleted by its owner.
        match complete(client, cut, &id).await {
            Ok(()) => seen.written.push(cut.to_owned()),
            Err(_) => seen.uploads_left.push(cut.to_owned()),
        }
    }
    seen.abort = Some(removed);
}

async fn complete(client: &Client, key: &str, id: &str) -> Result<(), S3Error> {
    let bytes = Bytes::from_static(FIRST);
    let etag = client.upload_part(key, id, 1, bytes, &Payload::of(FIRST)).await?;
    client.complete_multipart_once(key, id, &[(1, etag)]).await.map(drop)
}

/// Deletes what the probe wrote.
async fn clean(client: &Client, seen: &mut Observations) {
    for key in &seen.written {
        let deleted = client.delete(key).await;
        if deleted.is_err() {
            seen.left.push(key.clone());
        }
        // One that is being restored may not be deletable for a while: that is no matter of permission.
        if !matches!(seen.delete, Some(Ok(()))) {
            seen.delete = Some(deleted);
        }
    }
}
