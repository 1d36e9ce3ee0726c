//! A cheap check of a target: is everything that was pushed there, with the size and ETag it had?
//!
//! Lists only, so it works while objects are archived, and costs a request per 1000 objects. It does not
//! read content: that is what a restore does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ledger::{LedgerError, read_items};
use crate::push::Tuning;
use crate::s3::{Client, Listed, S3Error};
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
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Objects compared.
    pub checked: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Objects that are gone.
    pub missing: Vec<String>,
    /// Objects whose size or ETag differs.
    pub different: Vec<String>,
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
    let items = read_items(&request.ledger)?.ok_or_else(|| VerifyError::NoLedger {
        path: request.ledger.clone(),
    })?;
    let wrap = |source| VerifyError::Target {
        target: target.name.clone(),
        source,
    };
    let client = Client::new(target, request.credentials.clone(), tuning.clock.clone(), tuning.retry).map_err(wrap)?;
    let listed = client.list(&target.key("")).await.map_err(wrap)?;
    let there: BTreeMap<&str, &Listed> = listed
        .iter()
        .filter_map(|listed| Some((target.object(&listed.key)?, listed)))
        .collect();
    let mut report = VerifyReport {
        checked: 0,
        bytes: 0,
        missing: Vec::new(),
        different: Vec::new(),
    };
    for item in items {
        report.checked += 1;
        report.bytes += item.size;
        match there.get(item.object.as_str()) {
            None => report.missing.push(item.object),
            // Some services list no ETag.
            Some(listed) if listed.size != item.size || (!listed.etag.is_empty() && listed.etag != item.etag) => {
                report.different.push(item.object);
            }
            Some(_) => {}
        }
    }
    Ok(report)
}
