//! A cheap check of a target: is everything that was pushed there, with the size and ETag it had, and nothing else?
//!
//! In a bucket it lists only, so it works while objects are archived, and costs a request per 1000 objects. It does not
//! read content: that is what a restore does. In a directory reading costs nothing but time, so a share of the files is also
//! read and hashed, another one each time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Sha256Sum;
use crate::layout::{Name, is_beside, object_of_segment, parse_manifest, parse_sums};
use crate::ledger::{Contents, LedgerError, read_contents};
use crate::push::Tuning;
use crate::s3::{Listed, S3Error};
use crate::store::Store;
use crate::target::{Credentials, Target};

/// What to check.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// The target.
    pub target: Target,
    /// Credentials that may list.
    pub credentials: Credentials,
    /// The ledger's directory.
    pub ledger: PathBuf,
    /// Of a directory: which comparison this is. Each reads one of [`SHARES`] shares of the files, in turn.
    pub turn: u64,
}

/// In so many comparisons every file of a directory is read once.
pub const SHARES: u64 = 8;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Objects compared.
    pub checked: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Objects that are gone.
    pub missing: Vec<String>,
    /// Objects whose size, ETag or content differs.
    pub different: Vec<String>,
    /// Those of them whose size or content differs, which certainly are others.
    pub replaced: Vec<String>,
    /// Of a directory: objects whose content was read.
    pub read: u64,
    /// Objects that no push of this ledger wrote: of another kind, or newer than all that it knows.
    pub foreign: Vec<String>,
}

impl VerifyReport {
    /// What is gone, or certainly another object: the next push is to send it again ([`crate::ledger::lose`]). One whose ETag
    /// alone differs may have been moved by the provider, or changed by somebody: a restore tells.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        self.missing.iter().chain(&self.replaced).cloned().collect()
    }
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The service refused, or cannot be reached.
    #[error("target {target}: {source}")]
    Target {
        /// The target's name.
        target: String,
        /// What happened.
        #[source]
        source: S3Error,
    },
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nothing was pushed yet, or the ledger is lost; the next push makes it anew.
    #[error("there is no ledger in {path} to compare with; push first")]
    NoLedger {
        /// The directory.
        path: PathBuf,
    },
}

/// Compares the ledger with a list of the target.
///
/// # Errors
/// [`VerifyError`]. Differences are no error but stand in the report.
pub async fn verify(request: &VerifyRequest, tuning: &Tuning) -> Result<VerifyReport, VerifyError> {
    let target = &request.target;
    let contents = read_contents(&request.ledger)?.ok_or_else(|| VerifyError::NoLedger {
        path: request.ledger.clone(),
    })?;
    let wrap = |source| VerifyError::Target {
        target: target.name.clone(),
        source,
    };
    let client = Store::open(target, &request.credentials, tuning).map_err(wrap)?;
    let below = if target.prefix.is_empty() {
        String::new()
    } else {
        target.key("")
    };
    let listed = client.list(&below).await.map_err(wrap)?;
    let there: BTreeMap<&str, &Listed> = listed
        .iter()
        .filter_map(|listed| Some((target.object(&listed.key)?, listed)))
        .collect();
    let Store::Directory(directory, _) = &client else {
        return Ok(compare(contents, &there));
    };
    let hashes: Vec<(String, u64, Sha256Sum)> = contents
        .items
        .iter()
        .filter(|item| share_of(&item.object) == request.turn % SHARES)
        .filter_map(|item| Some((item.object.clone(), item.size, item.sha256?)))
        .collect();
    let mut report = compare(contents, &there);
    for (object, size, sum) in hashes {
        if there.get(object.as_str()).is_none_or(|listed| listed.size != size) {
            continue;
        }
        report.read += 1;
        match directory.sha256(&target.key(&object)).await {
            Ok(found) if found == sum => continue,
            // It is the disk that can't be read any more, and not this file.
            Err(error) if client.list(&below).await.is_err() => return Err(wrap(error)),
            Ok(_) | Err(_) => {}
        }
        report.different.push(object.clone());
        report.replaced.push(object);
    }
    Ok(report)
}

/// The share that an object belongs to: even, and always the same one.
fn share_of(object: &str) -> u64 {
    let sum: [u8; 32] = Sha256::digest(object).into();
    u64::from(sum[0]) % SHARES
}

fn compare(contents: Contents, there: &BTreeMap<&str, &Listed>) -> VerifyReport {
    let known: BTreeSet<&str> = contents.items.iter().map(|item| item.object.as_str()).collect();
    let is_ours = |object: &str| {
        // A manifest, its sums, and what older manifests name, as far as it is no newer than the newest state.
        let of = parse_manifest(object).map(|(transaction, _)| transaction);
        let of = of.or_else(|| parse_sums(object)).or_else(|| object_of_segment(object));
        known.contains(object)
            || contents.used.contains(object)
            || is_beside(object)
            || of.is_some_and(|number| contents.manifest.is_some_and(|newest| number <= newest))
    };
    let foreign = there
        .keys()
        .filter(|object| !is_ours(object))
        .map(|object| (*object).to_owned());
    let mut report = VerifyReport {
        checked: 0,
        bytes: 0,
        missing: Vec::new(),
        different: Vec::new(),
        replaced: Vec::new(),
        read: 0,
        foreign: foreign.collect(),
    };
    if let Some(newest) = contents.manifest {
        let is_newest = |object: &&str| parse_manifest(object).is_some_and(|(transaction, _)| transaction == newest);
        if !there.keys().any(is_newest) {
            report.missing.push(Name::manifest(newest).revision(None));
        }
    }
    for item in contents.items {
        report.checked += 1;
        report.bytes += item.size;
        match there.get(item.object.as_str()) {
            None => report.missing.push(item.object),
            Some(listed) if listed.size != item.size => {
                report.replaced.push(item.object.clone());
                report.different.push(item.object);
            }
            // Some services list no ETag.
            Some(listed) if !listed.etag.is_empty() && listed.etag != item.etag => report.different.push(item.object),
            Some(_) => {}
        }
    }
    report
}
