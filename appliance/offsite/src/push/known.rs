//! What the target holds already, when the ledger was lost.
//!
//! Without a secret key the manifest can't be read, so this goes by names, sizes and the clear sums. A
//! size is a good witness: the message's length is an exact function of the content's length. What the
//! content's sums were is not known any more; the manifest says so with `null`.

use std::collections::BTreeMap;

use strongroom_borg::{SegmentFile, SegmentNumber};

use super::error::PushError;
use super::send::Sender;
use super::{Local, unix_nanos};
use crate::digest::Sha256Sum;
use crate::layout::{Name, parse_manifest, sums_of_manifest};
use crate::ledger::{Item, LedgerError, What};
use crate::manifest::{FileEntry, Sums};
use crate::openpgp::{Mode, sealed_length};
use crate::s3::{Listed, S3Error};

/// The clear sums of 20,000 segments have 3 MB.
const MAX_SUMS: usize = 64 * 1024 * 1024;

/// Takes on what is there. Returns how many objects that were.
pub(super) async fn rebuild(sender: &Sender<'_>, local: &Local<'_>, key_packets: u64) -> Result<u64, PushError> {
    let target = sender.target;
    let wrap = |source| PushError::Target {
        target: target.name.clone(),
        source,
    };
    let prefix = target.key("");
    let listed = match sender.client.list(&prefix).await {
        Ok(listed) => listed,
        // Then every name is tried, and those that are taken are refused or seen by HEAD.
        Err(error) if error.is_denied() => return Ok(0),
        Err(error) => return Err(wrap(error)),
    };
    if listed.is_empty() {
        return Ok(0);
    }
    abort_leftovers(sender, &prefix).await.map_err(wrap)?;
    let objects: BTreeMap<&str, &Listed> = listed
        .iter()
        .filter_map(|listed| Some((target.object(&listed.key)?, listed)))
        .collect();
    let newest = objects
        .keys()
        .filter_map(|object| Some((parse_manifest(object)?, *object, sums_of_manifest(object)?)))
        .filter(|(_, _, sums)| objects.contains_key(sums.as_str()))
        .max();
    let mut sums = None;
    if let Some((_, _, name)) = &newest {
        sums = match sender.client.get_small(&target.key(name), MAX_SUMS).await {
            Ok(text) => std::str::from_utf8(&text).ok().and_then(Sums::parse),
            Err(S3Error::Archived { .. } | S3Error::AccessDenied { .. }) => None,
            Err(error) => return Err(wrap(error)),
        };
    }
    if let Some(sums) = &sums
        && sums.repository != local.repository_id
    {
        let (known, found) = (sums.repository.clone(), local.repository_id.to_owned());
        return Err(LedgerError::OtherRepository { known, found }.into());
    }
    let mut taken_on = 0;
    for segment in local.segments {
        let entry = sums.as_ref().and_then(|sums| sums.files.get(&segment.name));
        if let Some(item) = match_segment(segment, entry, &objects, key_packets) {
            sender.ledger().stored(What::Segment(segment.number), item)?;
            taken_on += 1;
        }
    }
    if let (Some(((transaction, _), manifest, _)), Some(sums)) = (newest, &sums) {
        take_on_manifest(sender, local, &objects, (transaction, manifest), sums)?;
    }
    Ok(taken_on)
}

async fn abort_leftovers(sender: &Sender<'_>, prefix: &str) -> Result<(), S3Error> {
    let uploads = match sender.client.list_multipart(prefix).await {
        Ok(uploads) => uploads,
        Err(error) if error.is_denied() => return Ok(()),
        Err(error) => return Err(error),
    };
    for upload in uploads {
        match sender.client.abort_multipart(&upload.key, &upload.id).await {
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
    let (object, sha256) = match entry {
        Some(entry) => (entry.object.clone(), entry.object_sha256),
        None => (Name::segment(&segment.name).revision(None), None),
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
        sha256,
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
