//! What in a target nothing needs any more, and when it may go. Pure: judges by a list of the target and by the ledger.
//!
//! Kept are the newest [`KEEP_NEWEST`] manifests, those younger than the days that the owner wants to go back to, and the
//! one that was the newest when those days began; and every segment that any manifest names which is still there. Manifests
//! go before what only they name, so that after each step every manifest that is there can be restored. Versions of
//! `config`, which may hold the key of a repository, signers' certificates and the instructions are never retired: they
//! are small.
//!
//! Which segments an older manifest names can't be read without a secret key. The ledger knows it of those that it
//! published. Any other is taken to name every segment up to its transaction.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use strongroom_borg::SegmentNumber;

use crate::layout::{manifest_of_sums, object_of_segment, parse_manifest, signature_of_sums, sums_of_manifest};
use crate::ledger::{Item, State};
use crate::s3::Listed;

/// How many manifests are kept, however old they are.
pub const KEEP_NEWEST: usize = 3;
/// Seconds of a day.
pub const DAY: u64 = 24 * 3600;

/// What may be retired, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether anything is deleted; otherwise it is only told what could be.
    pub act: bool,
    /// How old an object must be before it can be deleted without being paid for longer, in days.
    pub minimum_age_days: u16,
    /// How many days back any state must stay restorable.
    pub keep_days: u16,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            act: false,
            minimum_age_days: 0,
            keep_days: 90,
        }
    }
}

impl Rules {
    /// Nothing younger is ever deleted. Seconds.
    fn least_age(&self) -> u64 {
        u64::from(self.minimum_age_days.max(self.keep_days)) * DAY
    }
}

/// What is known of objects that nothing needs any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// When the target was looked at, in Unix seconds.
    pub at: u64,
    /// Objects that were deleted then.
    pub retired: Tally,
    /// Objects that could be deleted now, and are still there.
    pub free: Tally,
    /// Objects that the newest state does not need, but an older one that is kept does, or that are too young.
    pub waiting: Tally,
    /// When the first segment of those that wait may go, in Unix seconds; `None` where that depends on pushes to come.
    pub next: Option<u64>,
    /// Why what could be deleted was not, in words; empty where nothing hindered it, or it was not wanted.
    pub hindered: String,
}

/// Objects, and their sizes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    /// Counts one more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    /// Counts one less.
    pub(crate) fn remove(&mut self, bytes: u64) {
        self.objects = self.objects.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What a list of the target holds, by the names of objects below the prefix.
pub(crate) type There<'a> = BTreeMap<&'a str, &'a Listed>;

/// What may go now, in this order, and what has to wait.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// Manifests, the oldest first.
    pub manifests: Vec<&'a str>,
    /// Sums and signatures of manifests that are gone by then.
    pub sums: Vec<&'a str>,
    /// Segments that only those manifests named, if any did.
    pub segments: Vec<&'a str>,
    pub waiting: Tally,
    pub next: Option<u64>,
}

/// A manifest that is there.
struct Kept<'a> {
    transaction: SegmentNumber,
    object: &'a str,
    /// When it may go, in Unix seconds; `None` while it is one of the newest.
    free: Option<u64>,
    /// Its place among those that the ledger published; `None` when its content is not known.
    order: Option<u32>,
}

impl Kept<'_> {
    /// Whether it may name this object of a segment. `released`: `None` when the ledger does not know the object.
    fn names(&self, segment: SegmentNumber, released: Option<u32>) -> bool {
        let knows = |order: u32| released.is_some_and(|released| order < released);
        segment <= self.transaction && self.order.is_none_or(knows)
    }
}

/// Plans. `held` are manifests that can't be deleted, as was seen. `now` is in Unix seconds; 0 while the clock can't be
/// trusted, and then nothing is old enough.
///
/// # Errors
/// In words, why nothing may be retired.
pub(crate) fn plan<'a>(
    there: &There<'a>,
    known: &State,
    held: &BTreeSet<&str>,
    rules: &Rules,
    now: u64,
) -> Result<Plan<'a>, String> {
    let mut manifests = manifests(there, known, rules.least_age());
    newest_is_whole(there, known, &manifests)?;
    for kept in &mut manifests {
        kept.free = kept.free.filter(|_| !held.contains(kept.object));
    }
    let is_now = |free: Option<u64>| free.is_some_and(|at| at <= now);
    let mut plan = Plan {
        manifests: manifests.iter().filter(|m| is_now(m.free)).map(|m| m.object).collect(),
        ..Plan::default()
    };
    let by_object: BTreeMap<&str, SegmentNumber> = known
        .segments
        .iter()
        .map(|(number, item)| (item.object.as_str(), *number))
        .collect();
    for (object, listed) in there {
        let old_enough = listed.modified.map(|at| at.saturating_add(rules.least_age()));
        if let Some(manifest) = manifest_of_sums(object) {
            let free = match manifests.iter().find(|kept| kept.object == manifest) {
                Some(kept) => kept.free,
                // Left by a push that was cut short, or by a retirement.
                None if is_older(&manifest, &manifests) => old_enough,
                None => None,
            };
            if is_now(free) {
                plan.sums.push(object);
            }
            continue;
        }
        let Some(segment) = object_of_segment(object) else {
            continue;
        };
        let released = match by_object.get(object) {
            Some(number) => match known.released.get(number) {
                Some(order) => Some(*order),
                None => continue,
            },
            None => None,
        };
        let free = manifests
            .iter()
            .filter(|kept| kept.names(segment, released))
            .try_fold(old_enough, |free, kept| Some(Some(free?.max(kept.free?))))
            .flatten();
        if is_now(free) {
            plan.segments.push(object);
        } else {
            plan.waiting.add(listed.size);
            plan.next = [plan.next, free].into_iter().flatten().min();
        }
    }
    Ok(plan)
}

/// The manifests that are there, the oldest first.
fn manifests<'a>(there: &There<'a>, known: &State, least_age: u64) -> Vec<Kept<'a>> {
    let mut found: Vec<_> = there
        .iter()
        .filter_map(|(object, listed)| Some((parse_manifest(object)?, *object, listed.modified)))
        .collect();
    found.sort_unstable_by_key(|(version, ..)| *version);
    let count = found.len();
    let free = |at: usize| {
        // A state was the newest until the next one came: so it can be gone back to as long as that one is too young.
        let (own, next) = (found.get(at)?.2?, found.get(at + 1)?.2?);
        (at + KEEP_NEWEST < count).then(|| own.max(next).saturating_add(least_age))
    };
    let kept = found.iter().enumerate().map(|(at, (version, object, _))| Kept {
        transaction: version.0,
        object,
        free: free(at),
        order: known
            .manifests
            .get(*object)
            .filter(|published| published.own)
            .map(|published| published.order),
    });
    kept.collect()
}

/// Whether a manifest is of an older state than the newest that is there.
fn is_older(manifest: &str, manifests: &[Kept<'_>]) -> bool {
    let newest = manifests.last().and_then(|kept| parse_manifest(kept.object));
    parse_manifest(manifest).is_some_and(|version| newest.is_some_and(|newest| version < newest))
}

/// Whether the newest manifest is the one that the ledger published last, and all that belongs to it is there as it was
/// sent; and nobody else publishes here.
fn newest_is_whole(there: &There<'_>, known: &State, manifests: &[Kept<'_>]) -> Result<(), String> {
    let is_there = |object: &str, size: u64, etag: &str| match there.get(object) {
        None => Err(format!("{object} is gone")),
        // Some services list no ETag.
        Some(found) if found.size != size || (!found.etag.is_empty() && found.etag != etag) => {
            Err(format!("{object} is not what was sent"))
        }
        Some(_) => Ok(()),
    };
    let item_is_there = |item: &Item| is_there(&item.object, item.size, &item.etag);
    let ((object, published), (_, config)) = known.newest().zip(known.manifest).ok_or("nothing was published yet")?;
    is_there(object, published.size, &published.etag)?;
    if known.publish_again {
        return Err("some of the newest state was lost, and has to be sent again first".into());
    }
    if manifests.last().map(|kept| kept.object) != Some(object) {
        return Err("there is a newer manifest that is not from here".into());
    }
    let sums = sums_of_manifest(object).unwrap_or_default();
    for beside in [signature_of_sums(&sums), sums] {
        if !there.contains_key(beside.as_str()) {
            return Err(format!("{object} is not signed: there is no {beside}"));
        }
    }
    item_is_there(known.configs.get(&config).ok_or("its config is not known")?)?;
    for (number, item) in &known.segments {
        if !known.released.contains_key(number) {
            item_is_there(item)?;
        }
    }
    let modified = |object: &str| there.get(object).and_then(|listed| listed.modified);
    let first = manifests.iter().filter(|kept| kept.order.is_some());
    let first = first.filter_map(|kept| modified(kept.object)).min();
    let stranger = manifests.iter().find(|kept| {
        let later = modified(kept.object) > first;
        kept.order.is_none() && first.is_some() && later && !known.taken.contains(kept.object)
    });
    match stranger {
        Some(stranger) => Err(format!("somebody else published {}", stranger.object)),
        None => Ok(()),
    }
}
