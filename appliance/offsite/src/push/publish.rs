//! Publishing a state: the clear sums, their signature, then the manifest, which is the commit point.
//!
//! The sums name the manifest's own object too, so that what signs them signs all of the state.

use super::error::PushError;
use super::retire::release;
use super::send::{Look, Sender};
use super::{Local, Sealing, too_large};
use crate::layout::{self, Name};
use crate::ledger::{Item, Ledger, What};
use crate::manifest::{FORMAT, FileEntry, Manifest, VERSION, recovery};
use crate::openpgp::Signer;
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
        object_parts: item.parts,
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
    signer: Option<&Signer>,
    now: u64,
) -> Result<(), PushError> {
    publish_recovery(sender).await?;
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
    let sums_name = Name::sums(local.transaction);
    let signature_name = Name::signature(local.transaction);
    let manifest_name = Name::manifest(local.transaction);
    let mut names = vec![sums_name.clone(), manifest_name.clone()];
    if let Some(signer) = signer {
        publish_certificate(sender, signer, local).await?;
        names.push(signature_name.clone());
    }
    let mut revision = sender.choose_revision(&names).await?;
    let clear = What::Sums(local.transaction);
    for _ in 0..3 {
        let manifest_object = manifest_name.revision(revision);
        let sealed = sealing.seal()?.seal(&json).ok_or_else(too_large)?;
        let sums = manifest.sums((&manifest_object, Payload::of(&sealed).sha256));
        let signature = signer.map(|signer| signer.sign(sums.as_bytes())).transpose()?;
        let mut sent = sender
            .bytes_as(clear, sums_name.revision(revision), sums.into())
            .await?;
        if let Some(signature) = signature.filter(|_| sent) {
            let object = signature_name.revision(revision);
            sent = sender.bytes_as(clear, object, signature.into()).await?;
        }
        let what = What::Manifest(local.transaction, local.config_sha256);
        if sent {
            release(sender, local, &manifest_object)?;
        }
        if sent && sender.bytes_as(what, manifest_object, sealed.into()).await? {
            return Ok(());
        }
        revision = Some(sender.next_revision());
    }
    Err(PushError::NameTaken {
        target: sender.target.name.clone(),
        object: manifest_name.revision(revision),
    })
}

/// Puts the instructions beside what they are for. An older text does as well, as its commands keep working; unless there
/// is a second bucket now, of which it does not know.
async fn publish_recovery(sender: &Sender<'_>) -> Result<(), PushError> {
    let text = recovery(sender.target);
    let payload = Payload::of(text.as_bytes());
    let known = sender.ledger().state.recovery;
    let is_enough =
        known.is_some_and(|known| known == Some(payload.sha256) || sender.target.manifest_bucket().is_none());
    if is_enough {
        return Ok(());
    }
    let (name, plain) = (Name::recovery(), (payload.sha256, payload.size));
    if sender.target.manifest_bucket().is_some() {
        let etag = payload.md5.map(|md5| md5.to_string()).unwrap_or_default();
        let object = name.revision(None);
        // As it is after the ledger was lost.
        let look = sender.look(&object, payload.size, &etag).await;
        if matches!(look.map_err(|error| sender.wrap(error))?, Look::Same(_)) {
            return Ok(());
        }
        return sender.bytes(What::Recovery, &name, text.into(), plain).await;
    }
    if sender.choose_revision(std::slice::from_ref(&name)).await?.is_none() {
        sender
            .bytes_as(What::Recovery, name.revision(None), text.into())
            .await?;
    }
    Ok(())
}

/// Puts the signer's certificate beside what it signs, once.
async fn publish_certificate(sender: &Sender<'_>, signer: &Signer, local: &Local<'_>) -> Result<(), PushError> {
    let object = layout::signer(&signer.fingerprint());
    if sender.is_free(&object).await? {
        let certificate = signer.certificate()?;
        // Taken is as good: the name is that of no other certificate, and whoever verifies compares it.
        sender
            .bytes_as(What::Sums(local.transaction), object, certificate.into())
            .await?;
    }
    Ok(())
}
