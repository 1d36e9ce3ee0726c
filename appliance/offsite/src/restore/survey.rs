//! What a bucket holds, and what a restore of it would take: learnt without any key, from names, sizes and the clear sums.
//!
//! The sums of a state say exactly what belongs to it. While they are archived, the names say at least what can belong to
//! it at most.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use strongroom_borg::SegmentNumber;

use super::error::RestoreError;
use super::thaw::AT_A_TIME;
use crate::layout::{object_of_segment, parse_manifest, sums_of_manifest};
use crate::manifest::Sums;
use crate::progress::{OnProgress, Phase, Progress, Told};
use crate::push::Tuning;
use crate::s3::{Archive, Listed, S3Error};
use crate::store::Store;
use crate::target::{Credentials, Target};

/// The sums of a state of 20,000 segments have 4 MB.
const SUMS_MAX: usize = 64 * 1024 * 1024;
/// Sums that are read at a time.
const SUMS_AT_A_TIME: usize = 4;
/// The line is measured for no longer than this, nor on more bytes.
const MEASURE_FOR: Duration = Duration::from_secs(5);
const MEASURE_BYTES: u64 = 32 * 1024 * 1024;
/// An archive tier takes up to so long, in seconds, until the first byte of an object can be read (Oracle's documentation).
pub const ARCHIVE_WAIT: u64 = 3600;

/// A repository's copy in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketCopy {
    /// What the names of its objects begin with.
    pub prefix: String,
    /// The points in time that can be restored, the newest first.
    pub states: Vec<CopiedState>,
}

/// A point in time that can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedState {
    /// The transaction.
    pub transaction: SegmentNumber,
    /// When its manifest was written, in Unix seconds, by the service's clock.
    pub pushed: Option<u64>,
    /// Objects that belong to it, without the manifest.
    pub objects: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Whether these are exact; otherwise upper bounds, as told by names alone.
    pub exact: bool,
}

/// What a restore would take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of which state.
    pub state: CopiedState,
    /// Objects that have to be made readable first.
    pub archived: u64,
    /// Their sizes together, in bytes.
    pub archived_bytes: u64,
    /// Objects that are being made readable already.
    pub restoring: u64,
    /// Whether the manifest, which names the others, is archived itself.
    pub manifest_archived: bool,
    /// What the line was seen to carry, in bytes per second; `None` when it was not measured.
    pub measured: Option<u64>,
}

impl Estimate {
    /// Seconds until everything can be read, at most: an archive is waited for once, and once before for a manifest that is
    /// archived itself.
    #[must_use]
    pub fn longest_wait(&self) -> u64 {
        let waits = u64::from(self.manifest_archived) + u64::from(self.archived + self.restoring > 0);
        waits * ARCHIVE_WAIT
    }

    /// Seconds of download at `speed` bytes per second, rounded up; `None` when nothing comes.
    #[must_use]
    pub fn download(&self, speed: u64) -> Option<u64> {
        (speed > 0).then(|| self.state.bytes.div_ceil(speed))
    }
}

/// What a provider asks for, as the owner says; in whatever currency. A GB is 10^9 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// For a GB downloaded.
    pub download: Option<f64>,
    /// Bytes of download that are free.
    pub free_download: u64,
    /// For a GB of restored copy, kept for a month of 30 days.
    pub copy: Option<f64>,
}

/// What a restore costs, as far as prices are known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// For the download.
    pub download: Option<f64>,
    /// For the restored copies.
    pub copies: Option<f64>,
}

impl Estimate {
    /// What it costs when archived objects stay readable for `days`.
    #[must_use]
    pub fn cost(&self, prices: &Prices, days: u32) -> Cost {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        Cost {
            download: prices
                .download
                .map(|price| price * gb(self.state.bytes.saturating_sub(prices.free_download))),
            copies: prices
                .copy
                .map(|price| price * gb(self.archived_bytes) * f64::from(days) / 30.0),
        }
    }
}

/// What can belong to the state of a transaction at most, by names alone: objects, and their sizes together in bytes.
pub(super) fn bound(target: &Target, listed: &[Listed], up_to: SegmentNumber) -> (u64, u64) {
    possible(target, listed, up_to).fold((0, 0), |(objects, bytes), (_, size)| (objects + 1, bytes + size))
}

fn possible<'a>(
    target: &'a Target,
    listed: &'a [Listed],
    up_to: SegmentNumber,
) -> impl Iterator<Item = (&'a str, u64)> {
    listed.iter().filter_map(move |listed| {
        let object = target.object(&listed.key)?;
        let belongs = object.starts_with("config.") || object_of_segment(object).is_some_and(|number| number <= up_to);
        belongs.then_some((object, listed.size))
    })
}

/// All copies below `target`'s prefix, by prefix. Of each, the newest `exact` states are told exactly, where their sums
/// can be read: that takes a request each.
///
/// # Errors
/// [`RestoreError::Target`].
pub async fn copies(
    target: &Target,
    credentials: &Credentials,
    exact: usize,
    tuning: &Tuning,
) -> Result<Vec<BucketCopy>, RestoreError> {
    let (client, listed) = look(target, credentials, tuning).await?;
    let mut found: BTreeMap<&str, Vec<Listed>> = BTreeMap::new();
    for listed in &listed {
        if let Some(prefix) = prefix_of(&listed.key) {
            found.entry(prefix).or_default().push(listed.clone());
        }
    }
    let mut copies = Vec::new();
    for (prefix, listed) in &found {
        let of_copy = Target {
            prefix: (*prefix).to_owned(),
            ..target.clone()
        };
        let states: Vec<CopiedState> = stream::iter(manifests(&of_copy, listed).into_iter().enumerate())
            .map(|(age, manifest)| {
                let (client, of_copy) = (&client, &of_copy);
                async move {
                    let sums = if age < exact {
                        sums(client, of_copy, &manifest).await?
                    } else {
                        None
                    };
                    Ok::<_, S3Error>(describe(of_copy, listed, &manifest, sums.as_ref()))
                }
            })
            .buffered(SUMS_AT_A_TIME)
            .try_collect()
            .await
            .map_err(|source| refused(target, source))?;
        if !states.is_empty() {
            copies.push(BucketCopy {
                prefix: of_copy.prefix,
                states,
            });
        }
    }
    Ok(copies)
}

/// What a restore of one copy would take. `measure` fetches up to 32 MiB for no longer than 5 seconds, if anything can be
/// read, to see what the line carries.
///
/// # Errors
/// [`RestoreError::Target`], [`RestoreError::NoManifest`].
pub async fn estimate(
    target: &Target,
    credentials: &Credentials,
    transaction: Option<SegmentNumber>,
    measure: bool,
    tuning: &Tuning,
    on_progress: OnProgress<'_>,
) -> Result<Estimate, RestoreError> {
    let wrap = |source| refused(target, source);
    let (client, listed) = look(target, credentials, tuning).await?;
    let manifest = manifests(target, &listed)
        .into_iter()
        .find(|manifest| transaction.is_none_or(|wanted| wanted == manifest.transaction))
        .ok_or_else(|| RestoreError::NoManifest {
            target: target.name.clone(),
            transaction,
        })?;
    let sums = sums(&client, target, &manifest).await.map_err(wrap)?;
    let state = describe(target, &listed, &manifest, sums.as_ref());
    let wanted: Vec<(String, u64)> = match &sums {
        Some(sums) => sums
            .files
            .values()
            .map(|file| (file.object.clone(), file.object_size))
            .collect(),
        None => possible(target, &listed, manifest.transaction)
            .map(|(object, size)| (object.to_owned(), size))
            .collect(),
    };
    let progress = Progress {
        objects_total: wanted.len() as u64,
        ..Progress::new(Phase::Request)
    };
    let told = Told::new(progress, on_progress);
    let archive = |object: &str| {
        let (client, key) = (&client, target.key(object));
        async move { client.archive(&key).await }
    };
    let archives: Vec<Archive> = stream::iter(&wanted)
        .map(|(object, _)| archive(object))
        .buffered(AT_A_TIME)
        .inspect(|_| told.change(|progress| progress.objects_done += 1))
        .try_collect()
        .await
        .map_err(wrap)?;
    let mut estimate = Estimate {
        state,
        archived: 0,
        archived_bytes: 0,
        restoring: 0,
        manifest_archived: archive(&manifest.object).await.map_err(wrap)? != Archive::Readable,
        measured: None,
    };
    for ((_, size), archive) in wanted.iter().zip(&archives) {
        match archive {
            Archive::Archived => {
                estimate.archived += 1;
                estimate.archived_bytes += size;
            }
            Archive::Restoring => estimate.restoring += 1,
            Archive::Readable => {}
        }
    }
    let readable = wanted
        .iter()
        .zip(&archives)
        .filter(|(_, archive)| **archive == Archive::Readable);
    if measure && let Some(((object, _), _)) = readable.max_by_key(|((_, size), _)| (*size).min(MEASURE_BYTES)) {
        estimate.measured = speed(&client, &target.key(object)).await.map_err(wrap)?;
    }
    Ok(estimate)
}

/// What the line carries, in bytes per second, seen from the first byte of an object on.
async fn speed(client: &Store, key: &str) -> Result<Option<u64>, S3Error> {
    let operation = format!("GET {key}");
    let mut response = client.get(key).await?;
    // What came with the headers took no time that could be measured.
    let first = client.chunk(&operation, &mut response).await?;
    let begun = Instant::now();
    let mut bytes = first.map_or(0, |chunk| chunk.len() as u64);
    while bytes < MEASURE_BYTES && begun.elapsed() < MEASURE_FOR {
        match client.chunk(&operation, &mut response).await? {
            Some(chunk) => bytes += chunk.len() as u64,
            None => break,
        }
    }
    let taken = begun.elapsed().as_secs_f64().max(1e-3);
    Ok((bytes > 0).then_some((bytes as f64 / taken) as u64))
}

fn refused(target: &Target, source: S3Error) -> RestoreError {
    RestoreError::Target {
        target: target.name.clone(),
        source,
    }
}

async fn look(
    target: &Target,
    credentials: &Credentials,
    tuning: &Tuning,
) -> Result<(Store, Vec<Listed>), RestoreError> {
    let wrap = |source| refused(target, source);
    let client = Store::open(target, credentials, tuning).map_err(wrap)?;
    let below = if target.prefix.is_empty() {
        String::new()
    } else {
        target.key("")
    };
    let listed = client.list(&below).await.map_err(wrap)?;
    Ok((client, listed))
}

/// What the name of one of our objects begins with; `None` for one that is none of ours.
fn prefix_of(key: &str) -> Option<&str> {
    let below = |at: usize| (at == 0 || key.as_bytes().get(at - 1) == Some(&b'/')).then_some(at);
    let at = key
        .rmatch_indices("manifest/")
        .chain(key.rmatch_indices("data/"))
        .chain(key.rmatch_indices("config."))
        .find_map(|(at, _)| below(at))?;
    let object = key.get(at..)?;
    let is_ours =
        object.starts_with("config.") || parse_manifest(object).is_some() || object_of_segment(object).is_some();
    is_ours.then(|| key.get(..at).unwrap_or_default().trim_end_matches('/'))
}

struct Found {
    transaction: SegmentNumber,
    revision: u64,
    object: String,
    written: Option<u64>,
}

/// The manifests of a copy, the newest first; of each transaction the newest alone, as a restore takes it.
fn manifests(target: &Target, listed: &[Listed]) -> Vec<Found> {
    let mut found: Vec<Found> = listed
        .iter()
        .filter_map(|listed| {
            let object = target.object(&listed.key)?;
            let (transaction, revision) = parse_manifest(object)?;
            Some(Found {
                transaction,
                revision,
                object: object.to_owned(),
                written: listed.modified,
            })
        })
        .collect();
    found.sort_unstable_by_key(|found| std::cmp::Reverse((found.transaction, found.revision)));
    found.dedup_by_key(|found| found.transaction);
    found
}

/// The clear sums of a state; `None` while they can't be read, or are none.
async fn sums(client: &Store, target: &Target, manifest: &Found) -> Result<Option<Sums>, S3Error> {
    let Some(object) = sums_of_manifest(&manifest.object) else {
        return Ok(None);
    };
    match client.get_small(&target.key(&object), SUMS_MAX).await {
        Ok(text) => Ok(std::str::from_utf8(&text).ok().and_then(Sums::parse)),
        Err(S3Error::Archived { .. } | S3Error::NoSuchKey { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe(target: &Target, listed: &[Listed], manifest: &Found, sums: Option<&Sums>) -> CopiedState {
    let (objects, bytes) = match sums {
        Some(sums) => (
            sums.files.len() as u64,
            sums.files.values().map(|file| file.object_size).sum(),
        ),
        None => bound(target, listed, manifest.transaction),
    };
    CopiedState {
        transaction: manifest.transaction,
        pushed: manifest.written,
        objects,
        bytes,
        exact: sums.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: &str, size: u64) -> Listed {
        Listed {
            key: key.into(),
            size,
            etag: String::new(),
            modified: Some(9),
        }
    }

    #[test]
    fn copies_are_found_by_the_names_of_their_objects() {
        for (key, prefix) in [
            ("asus/data/0/17.gpg", Some("asus")),
            ("asus/data/0/17.1763871234.gpg", Some("asus")),
            ("a/b/manifest/17.json.gpg", Some("a/b")),
            ("manifest/17.json.gpg", Some("")),
            ("data/data/0/1.gpg", Some("data")),
            ("asus/config.01234567.gpg", Some("asus")),
            ("asus/manifest/17.SHA256SUMS", None),
            ("asus/RECOVERY.txt", None),
            ("photos/metadata/0/1.gpg", None),
        ] {
            assert_eq!(prefix_of(key), prefix, "{key}");
        }
    }

    #[test]
    fn a_state_holds_at_most_what_came_before_it() {
        let target = Target::in_directory("t".into(), "/media/usb".into(), "asus".into());
        let all = [
            listed("asus/config.01234567.gpg", 1),
            listed("asus/data/0/1.gpg", 10),
            listed("asus/data/0/5.gpg", 100),
            listed("asus/data/0/6.gpg", 1000),
            listed("asus/manifest/5.json.gpg", 7),
            listed("asus/manifest/5.99.json.gpg", 7),
            listed("asus/manifest/6.json.gpg", 7),
            listed("asus/RECOVERY.txt", 7),
        ];
        assert_eq!(bound(&target, &all, SegmentNumber(5)), (3, 111));
        let found = manifests(&target, &all);
        let names: Vec<_> = found.iter().map(|found| found.object.as_str()).collect();
        assert_eq!(names, ["manifest/6.json.gpg", "manifest/5.99.json.gpg"]);
    }

    #[test]
    fn time_and_money_follow_from_sizes() {
        let mut estimate = Estimate {
            state: CopiedState {
                transaction: SegmentNumber(5),
                pushed: None,
                objects: 10,
                bytes: 3_000_000_000_001,
                exact: true,
            },
            archived: 0,
            archived_bytes: 0,
            restoring: 0,
            manifest_archived: false,
            measured: None,
        };
        assert_eq!(estimate.longest_wait(), 0);
        assert_eq!(estimate.download(1_000_000), Some(3_000_001));
        assert_eq!(estimate.download(0), None);
        let unknown = estimate.cost(&Prices::default(), 7);
        assert_eq!((unknown.download, unknown.copies), (None, None));
        estimate.archived = 10;
        estimate.archived_bytes = 3_000_000_000_000;
        estimate.manifest_archived = true;
        assert_eq!(estimate.longest_wait(), 2 * ARCHIVE_WAIT);
        let prices = Prices {
            download: Some(0.01),
            free_download: 2_000_000_000_001,
            copy: Some(0.03),
        };
        let cost = estimate.cost(&prices, 10);
        assert!((cost.download.unwrap() - 10.0).abs() < 1e-6);
        assert!((cost.copies.unwrap() - 30.0).abs() < 1e-6);
        let free = Prices {
            free_download: u64::MAX,
            ..prices
        };
        assert_eq!(estimate.cost(&free, 10).download, Some(0.0));
    }
}
