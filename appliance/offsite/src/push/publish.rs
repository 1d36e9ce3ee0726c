//! Publishing a state: the clear sums, then the manifest, which is the commit point.

use bytes::Bytes;

use super::error::PushError;
use super::send::Sender;
use super::{Local, Sealing, too_large};
use crate::layout::Name;
use crate::ledger::{Item, Ledger, What};
use crate::manifest::{FORMAT, FileEntry, Manifest, RECOVERY, VERSION};
use crate::s3::Payload;

/// The files of the present state, as the ledger knows them.
fn files(ledger: &Ledger, local: &Local<'_>) -> Vec<FileEntry> {
    let entry = |path: &str, item: &Item| FileEntry {
        path: path.to_owned(),
        size: item.plain_size,
        sha256: item.plain_sha256,
        object: item.object.clone(),
        object_size: item.size,
        object_sha256: item.sha256,
        object_md5: item.md5,
    };
    let config = ledger
        .state
        .configs
        .get(&local.config_sha256)
        .map(|item| entry("config", item));
    let segments = local.segments.iter().filter_map(|segment| {
        let item = ledger.state.segments.get(&segment.number)?;
        Some(entry(&segment.name, item))
    });
    config.into_iter().chain(segments).collect()
}

/// How many objects the present state has, and their sizes together.
pub(super) fn totals(ledger: &Ledger, local: &Local<'_>) -> (u64, u64) {
    let files = files(ledger, local);
    (files.len() as u64, files.iter().map(|file| file.object_size).sum())
}

pub(super) async fn publish(
    sender: &Sender<'_>,
    local: &Local<'_>,
    sealing: &Sealing,
    now: u64,
) -> Result<(), PushError> {
    if !sender.ledger().state.recovery {
        let text = Bytes::from_static(RECOVERY.as_bytes());
        let object = Name::recovery().revision(None);
        // An older text does as well: its commands keep working.
        if sender.choose_revision(&[Name::recovery()]).await?.is_none() {
            sender.bytes_as(What::Recovery, object, text).await?;
        }
    }
    let manifest = Manifest {
        format: FORMAT.into(),
        version: VERSION,
        repository: local.repository_id.into(),
        transaction: local.transaction,
        created: now,
        files: files(&sender.ledger(), local),
    };
    if manifest.files.len() != local.segments.len() + 1 {
        return Err(PushError::Internal(
            "the ledger does not hold all segments after sending them".into(),
        ));
    }
    let json = serde_json::to_vec(&manifest).map_err(|error| PushError::Internal(error.to_string()))?;
    let names = [Name::sums(local.transaction), Name::manifest(local.transaction)];
    let mut revision = sender.choose_revision(&names).await?;
    for _ in 0..3 {
        let [sums_object, manifest_object] = names.each_ref().map(|name| name.revision(revision));
        let sealed = sealing.seal()?.seal(&json).ok_or_else(too_large)?;
        let sums = manifest.sums((&manifest_object, Payload::of(&sealed).sha256));
        let what = What::Manifest(local.transaction, local.config_sha256);
        if sender
            .bytes_as(What::Sums(local.transaction), sums_object, sums.into())
            .await?
            && sender.bytes_as(what, manifest_object, sealed.into()).await?
        {
            return Ok(());
        }
        revision = Some(sender.next_revision());
    }
    Err(PushError::NameTaken {
        target: sender.target.name.clone(),
        object: names[1].revision(revision),
    })
}
