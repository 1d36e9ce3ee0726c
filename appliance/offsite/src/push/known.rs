//! What the target holds already, when the ledger was lost.
//!
//! Without a secret key the manifest can't be read, so this goes by names, sizes and the clear sums, which are believed
//! only where this appliance signed them: anybody who may write to the bucket could put others there. A
//! size is a good witness: the message's length is an exact function of the content's length. What the
//! content's sums were is not known any more; the manifest says so with `null`.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use strongroom_borg::{SegmentFile, SegmentNumber};

use super::error::PushError;
use super::send::Sender;
use super::{Local, unix_nanos};
use crate::digest::{Digest, Sha256Sum};
use crate::layout::{Name, parse_manifest, signature_of_sums, sums_of_manifest};
use crate::ledger::{Distrusted, Item, LedgerError, What};
use crate::manifest::{FileEntry, Sums};
use crate::openpgp::sign::verify;
use crate::openpgp::{Mode, Signer, sealed_length};
use crate::s3::{Listed, S3Error};

/// The clear sums of 20,000 segments have 3 MB.
const MAX_SUMS: usize = 64 * 1024 * 1024;
/// A signature has less than a kilobyte.
const MAX_SIGNATURE: usize = 64 * 1024;
/// How many manifests are looked at, the newest first, for one that counts.
const LOOKS: usize = 10;

/// What a target turned out to hold.
#[derive(Default)]
pub(super) struct Rebuilt {
    /// Objects taken on.
    pub taken_on: u64,
    /// Manifests that are not the appliance's own.
    pub distrusted: Vec<Distrusted>,
}

/// The state that a manifest's clear sums tell of.
struct Told<'a> {
    transaction: SegmentNumber,
    manifest: &'a str,
    sums: Sums,
}

/// Takes on what is there. With a signer, no manifest counts that it has not signed.
pub(super) async fn rebuild(
    sender: &Sender<'_>,
    local: &Local<'_>,
    key_packets: u64,
    signer: Option<&Signer>,
) -> Result<Rebuilt, PushError> {
    let target = sender.target;
    let wrap = |source| sender.wrap(source);
    let prefix = target.key("");
    let listed = match sender.client.list(&prefix).await {
        Ok(listed) => listed,
        // Then every name is tried, and those that are taken are refused or seen by HEAD.
        Err(error) if error.is_denied() => return Ok(Rebuilt::default()),
        Err(error) => return Err(wrap(error)),
    };
    if listed.is_empty() {
        return Ok(Rebuilt::default());
    }
    abort_leftovers(sender, &prefix).await.map_err(wrap)?;
    let objects: BTreeMap<&str, &Listed> = listed
        .iter()
        .filter_map(|listed| Some((target.object(&listed.key)?, listed)))
        .collect();
    let mut rebuilt = Rebuilt::default();
    // The next one has to be newer than all that there ever were of this state.
    let of_now = |object: &&str| parse_manifest(object).is_some_and(|(of, _)| of == local.transaction);
    if objects.keys().any(of_now) {
        let first = Name::manifest(local.transaction).revision(None);
        sender.ledger().taken(first)?;
    }
    let told = newest(sender, local, &objects, signer, &mut rebuilt.distrusted).await?;
    for segment in local.segments {
        let entry = told.as_ref().and_then(|told| told.sums.files.get(&segment.name));
        if let Some(item) = match_segment(segment, entry, &objects, key_packets) {
            sender.ledger().stored(What::Segment(segment.number), item)?;
            rebuilt.taken_on += 1;
        }
    }
    if let Some(told) = &told {
        take_on_manifest(sender, local, &objects, (told.transaction, told.manifest), &told.sums)?;
    }
    Ok(rebuilt)
}

/// What the newest manifest that counts says belongs to it; `None` when there is none, or none that can be read.
async fn newest<'a>(
    sender: &Sender<'_>,
    local: &Local<'_>,
    objects: &BTreeMap<&'a str, &Listed>,
    signer: Option<&Signer>,
    distrusted: &mut Vec<Distrusted>,
) -> Result<Option<Told<'a>>, PushError> {
    let mut manifests: Vec<_> = objects
        .keys()
        .filter_map(|object| Some((parse_manifest(object)?, *object, sums_of_manifest(object)?)))
        .filter(|(_, _, sums)| objects.contains_key(sums.as_str()))
        .collect();
    manifests.sort_unstable();
    for ((transaction, _), manifest, name) in manifests.into_iter().rev().take(LOOKS) {
        let Some(text) = read(sender, &name, MAX_SUMS).await? else {
            return Ok(None);
        };
        let sums = std::str::from_utf8(&text).ok().and_then(Sums::parse);
        // Whoever wrote it: two repositories are never mixed.
        if let Some(sums) = sums.as_ref().filter(|sums| sums.repository != local.repository_id) {
            let (known, found) = (sums.repository.clone(), local.repository_id.to_owned());
            return Err(LedgerError::OtherRepository { known, found }.into());
        }
        let why = match (signer, sums) {
            (None, sums) => {
                return Ok(sums.map(|sums| Told {
                    transaction,
                    manifest,
                    sums,
                }));
            }
            (Some(signer), Some(sums)) => match doubt(sender, signer, manifest, &name, &text).await? {
                None => {
                    return Ok(Some(Told {
                        transaction,
                        manifest,
                        sums,
                    }));
                }
                Some(why) => why,
            },
            (Some(_), None) => "its sums are of no known form".into(),
        };
        distrusted.push(Distrusted {
            manifest: manifest.to_owned(),
            why,
        });
    }
    Ok(None)
}

/// Why a manifest and its clear sums do not count as this signer's; `None` when they do.
async fn doubt(
    sender: &Sender<'_>,
    signer: &Signer,
    manifest: &str,
    name: &str,
    sums: &[u8],
) -> Result<Option<String>, PushError> {
    let key = sender.target.key(&signature_of_sums(name));
    let signature = match sender.client.get_small(&key, MAX_SIGNATURE).await {
        Ok(signature) => signature,
        Err(S3Error::NoSuchKey { .. }) => return Ok(Some("it is not signed".into())),
        Err(error) if error.is_transient() => return Err(sender.wrap(error)),
        Err(error) => return Ok(Some(format!("its signature can't be read: {error}"))),
    };
    if let Err(error) = verify(signer.certificate()?.as_bytes(), &signature, sums) {
        return Ok(Some(format!("its signature does not count: {error}")));
    }
    let named = String::from_utf8_lossy(sums)
        .lines()
        .filter_map(|line| line.split_once("  "))
        .find_map(|(sum, object)| (object == manifest).then(|| Sha256Sum::parse(sum))?);
    let Some(named) = named else {
        return Ok(Some("the signed sums are of another one".into()));
    };
    match sum_of(sender, manifest).await {
        Ok(sum) if sum != named => Ok(Some("it is not the one that was signed".into())),
        Err(error) if error.is_transient() => Err(sender.wrap(error)),
        // Archived, or not to be read: a restore compares it.
        _ => Ok(None),
    }
}

/// An object, if it can be read.
async fn read(sender: &Sender<'_>, object: &str, most: usize) -> Result<Option<Vec<u8>>, PushError> {
    match sender.client.get_small(&sender.target.key(object), most).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(S3Error::Archived { .. } | S3Error::AccessDenied { .. }) => Ok(None),
        Err(error) => Err(sender.wrap(error)),
    }
}

/// The SHA-256 of an object, which is not kept in memory.
async fn sum_of(sender: &Sender<'_>, object: &str) -> Result<Sha256Sum, S3Error> {
    let mut response = sender.client.get(&sender.target.key(object)).await?;
    let mut sum = Sha256::new();
    while let Some(chunk) = sender.client.chunk(&format!("GET {object}"), &mut response).await? {
        sum.update(&chunk);
    }
    Ok(Digest(sum.finalize().into()))
}

async fn abort_leftovers(sender: &Sender<'_>, prefix: &str) -> Result<(), S3Error> {
    let uploads = match sender.client.list_multipart(prefix).await {
        Ok(uploads) => uploads,
        Err(error) if error.is_denied() => return Ok(()),
        Err(error) => return Err(error),
    };
    for upload in uploads {
        match sender.client.bucket()?.abort_multipart(&upload.key, &upload.id).await {
            Err(error) if !error.is_denied() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The object that holds this segment, if sizes agree.
fn match_segment(
    segment: &SegmentFile,
    entry: Option<&FileEntry>,
    objects: &BTreeMap<&str, &Listed>,
    key_packets: u64,
) -> Option<Item> {
    let object = match entry {
        Some(entry) => entry.object.clone(),
        None => Name::segment(&segment.name).revision(None),
    };
    let listed = objects.get(object.as_str()).filter(|listed| match entry {
        Some(entry) => entry.size == segment.size && entry.object_size == listed.size,
        // Either mode may have been in force when it was sent.
        None => Mode::ALL
            .iter()
            .any(|mode| sealed_length(*mode, key_packets, segment.size) == Some(listed.size)),
    })?;
    Some(Item {
        size: listed.size,
        etag: listed.etag.clone(),
        md5: crate::digest::Md5Sum::parse(&listed.etag),
        sha256: entry.and_then(|entry| entry.object_sha256),
        parts: entry.and_then(|entry| entry.object_parts),
        plain_size: segment.size,
        plain_sha256: None,
        modified: unix_nanos(segment.modified),
        object,
    })
}

/// The `config` and the manifest, if they are those of the present state.
fn take_on_manifest(
    sender: &Sender<'_>,
    local: &Local<'_>,
    objects: &BTreeMap<&str, &Listed>,
    (transaction, manifest): (SegmentNumber, &str),
    sums: &Sums,
) -> Result<(), PushError> {
    let item = |object: &str, sha256, plain_size, plain_sha256: Option<Sha256Sum>| {
        let listed = objects.get(object)?;
        Some(Item {
            object: object.to_owned(),
            size: listed.size,
            etag: listed.etag.clone(),
            md5: crate::digest::Md5Sum::parse(&listed.etag),
            sha256,
            parts: None,
            plain_size,
            plain_sha256,
            modified: 0,
        })
    };
    let same = sums.files.get("config").filter(|entry| {
        let own = Name::config(&local.config_sha256).revision(None);
        entry.object == own && entry.size == local.config.len() as u64
    });
    let Some(entry) = same else { return Ok(()) };
    let Some(config) = item(
        &entry.object,
        entry.object_sha256,
        entry.size,
        Some(local.config_sha256),
    ) else {
        return Ok(());
    };
    sender.ledger().stored(What::Config(local.config_sha256), config)?;
    let complete = {
        let ledger = sender.ledger();
        let known = &ledger.state.segments;
        local.segments.iter().all(|s| known.contains_key(&s.number))
    };
    if let Some(item) = item(manifest, None, 0, None)
        && transaction == local.transaction
        && complete
    {
        sender
            .ledger()
            .stored(What::Manifest(transaction, local.config_sha256), item)?;
    }
    Ok(())
}
