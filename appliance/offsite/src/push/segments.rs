//! The segments of a state: those that were sent are compared with what is there, new ones are sent, several at a time.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use strongroom_borg::{Repository, SegmentFile};

use super::error::PushError;
use super::read::{Plan, ReadError, hash_file};
use super::send::{Sender, blocking};
use super::{Local, Sealing, too_large, unix_nanos};
use crate::layout::Name;
use crate::ledger::{Item, What};
use crate::progress::{OnProgress, Phase, Progress, Told};

/// Compares what was sent with what is there: by size and time, and by content where the time differs or the object was lost.
pub(super) async fn check_unaltered(
    sender: &Sender<'_>,
    repository: &Repository,
    segments: &[SegmentFile],
) -> Result<(), PushError> {
    for segment in segments {
        let (item, is_lost) = {
            let ledger = sender.ledger();
            match ledger.state.segments.get(&segment.number) {
                Some(item) => (item.clone(), false),
                None => match ledger.state.lost.get(&segment.number) {
                    Some(item) => (item.clone(), true),
                    None => continue,
                },
            }
        };
        let altered = |why| PushError::SegmentAltered {
            segment: segment.number,
            why,
        };
        if item.plain_size != segment.size {
            return Err(altered("its size differs"));
        }
        let modified = unix_nanos(segment.modified);
        // What is to be sent again is read to see that it still is what was sent.
        if item.modified == modified && !is_lost {
            continue;
        }
        if let Some(known) = item.plain_sha256 {
            let (path, size) = (repository.path().join(&segment.name), segment.size);
            let found = blocking(move || hash_file(&path, size))
                .await?
                .map_err(|source| PushError::Segment {
                    segment: segment.number,
                    source,
                })?;
            if found != known {
                return Err(altered("its content differs"));
            }
        }
        if !is_lost {
            sender
                .ledger()
                .stored(What::Segment(segment.number), Item { modified, ..item })?;
        }
    }
    Ok(())
}

/// Sends what the ledger does not know. After an error nothing more is started, and what is under way is dropped. Its
/// uploads are aborted, unless the line or the service failed: then the next push goes on with them.
pub(super) async fn send_new(
    sender: &Sender<'_>,
    repository: &Repository,
    local: &Local<'_>,
    sealing: &Sealing,
    at_a_time: usize,
    on_progress: OnProgress<'_>,
) -> Result<(), PushError> {
    let (new, has_config) = {
        let ledger = sender.ledger();
        let known = &ledger.state.segments;
        let new = local.segments.iter().filter(|s| !known.contains_key(&s.number));
        let has_config = ledger.state.configs.contains_key(&local.config_sha256);
        (new.collect::<Vec<_>>(), has_config)
    };
    let progress = Progress {
        objects_total: new.len() as u64,
        bytes_total: new.iter().map(|segment| segment.size).sum(),
        ..Progress::new(Phase::Send)
    };
    let told = Told::new(progress, on_progress);
    if !has_config {
        let sealed = sealing.seal()?.seal(local.config).ok_or_else(too_large)?;
        let plain = (local.config_sha256, local.config.len() as u64);
        let name = Name::config(&local.config_sha256);
        let what = What::Config(local.config_sha256);
        sender.bytes(what, &name, sealed.into(), plain).await?;
    }
    let mut waiting = new.into_iter();
    let mut running = FuturesUnordered::new();
    let sent = loop {
        while running.len() < at_a_time
            && let Some(segment) = waiting.next()
        {
            running.push(send(sender, repository, sealing, segment, &told));
        }
        match running.next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    drop(running);
    if let Err(error) = &sent {
        // A broken line is no reason to send all of it again.
        let goes_on = matches!(error, PushError::Target { source, .. } if source.is_transient());
        // As far as it goes: what remains is in the ledger, for the next push. The first error is the one to tell.
        let _ = sender.unfinished.retain(|_| goes_on);
        let _ = sender.abort_uploads().await;
    }
    sent?;
    told.change(|progress| progress.phase = Phase::Publish);
    Ok(())
}

async fn send(
    sender: &Sender<'_>,
    repository: &Repository,
    sealing: &Sealing,
    segment: &SegmentFile,
    told: &Told<'_>,
) -> Result<(), PushError> {
    let number = segment.number;
    let plan = |seal| Plan {
        path: repository.path().join(&segment.name),
        size: segment.size,
        seal,
    };
    let name = Name::segment(&segment.name);
    let length = sealing.length(segment.size).ok_or(PushError::Segment {
        segment: number,
        source: ReadError::TooLarge,
    })?;
    let modified = unix_nanos(segment.modified);
    let mut part_of = told.file(segment.size);
    if length > sender.pool.size() as u64 && sender.target.goes_in_parts() {
        let mut on_part = |bytes| part_of.add(bytes);
        loop {
            let upload = match sender.begun_before(number).await? {
                Some(upload) => upload,
                None => {
                    let facts = (number, segment.size, modified, sealing.certificates);
                    sender.begin(&name, facts, sealing.seal()?).await?
                }
            };
            let plan = plan(upload.seal());
            if sender.in_parts(upload, plan, &mut on_part).await? {
                break;
            }
        }
    } else {
        let what = What::Segment(number);
        sender
            .in_one_piece(what, &name, plan(sealing.seal()?), modified)
            .await?;
    }
    part_of.done();
    Ok(())
}
