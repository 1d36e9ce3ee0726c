//! Objects in an archive tier: all are asked for first, then waited for, with few questions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};

use super::Run;
use super::error::RestoreError;
use crate::progress::{OnProgress, Phase, Progress, Told};
use crate::s3::Archive;

/// Questions and requests on their way at a time.
pub(super) const AT_A_TIME: usize = 8;

/// What an archive is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRequest {
    /// Objects to be made readable.
    pub objects: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Whether these are upper bounds: the manifest, which names them, has to be made readable first.
    pub at_most: bool,
    /// For how many days they stay readable.
    pub days: u32,
}

/// Whether an archive may be asked, which can cost money. Asked at most once in a restore, also in one that is cut short
/// and goes on.
#[derive(Clone)]
pub enum Consent {
    /// It may.
    Given,
    /// This tells. It may take its time: nothing else is done meanwhile.
    Ask(Arc<dyn Fn(&ArchiveRequest) -> bool + Send + Sync>),
}

/// An object's name below the prefix, and its size in bytes.
pub(super) type Wanted<'a> = (&'a str, u64);

/// Called once the owner has agreed, before anything is asked.
pub(super) type OnAgreed<'a> = &'a mut (dyn FnMut() -> Result<(), RestoreError> + Send);

impl Run<'_> {
    /// Asks for objects to be made readable, those that are not, and waits until all of them are. What a run before asked
    /// for is waited for as well. `bound` is what to ask the owner for instead of what is wanted now.
    pub(super) async fn thaw(
        &self,
        wanted: &[Wanted<'_>],
        bound: Option<ArchiveRequest>,
        progress: Progress,
        on_agreed: OnAgreed<'_>,
        on_progress: OnProgress<'_>,
    ) -> Result<(), RestoreError> {
        let total = wanted.len() as u64;
        let progress = Progress {
            phase: Phase::Request,
            objects_done: 0,
            objects_total: total,
            ..progress
        };
        let told = Told::new(progress, &mut *on_progress);
        let objects: Vec<&str> = wanted.iter().map(|(object, _)| *object).collect();
        let found = self.archives(&objects).await?;
        let found = || wanted.iter().copied().zip(&found);
        let archived: Vec<Wanted<'_>> = found()
            .filter(|(_, archive)| **archive == Archive::Archived)
            .map(|(wanted, _)| wanted)
            .collect();
        if !archived.is_empty() && !self.agreed.load(Ordering::Relaxed) {
            let asked = bound.unwrap_or_else(|| ArchiveRequest {
                objects: archived.len() as u64,
                bytes: archived.iter().map(|(_, size)| size).sum(),
                at_most: false,
                days: self.request.archive_days,
            });
            if let Consent::Ask(agrees) = &self.request.consent
                && !agrees(&asked)
            {
                return Err(RestoreError::NotAgreed);
            }
            self.agreed.store(true, Ordering::Relaxed);
            on_agreed()?;
        }
        told.change(|progress| progress.objects_total = archived.len() as u64);
        let mut to_ask = archived.iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < AT_A_TIME
                && let Some((object, _)) = to_ask.next()
            {
                running.push(self.ask(object));
            }
            match running.next().await {
                Some(asked) => asked?,
                None => break,
            }
            told.change(|progress| progress.objects_done += 1);
        }
        drop(running);

        let mut waiting: VecDeque<&str> = found()
            .filter(|(_, archive)| **archive != Archive::Readable)
            .map(|((object, _), _)| object)
            .collect();
        loop {
            on_progress(Progress {
                phase: Phase::Wait,
                objects_done: total - waiting.len() as u64,
                objects_total: total,
                ..progress
            });
            if waiting.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(self.request.archive_poll).await;
            self.look_again(&mut waiting).await?;
        }
    }

    /// Takes out what is readable now. They become so about in the order in which they were asked for, so the first few
    /// that are not end the look: an archive is not to be asked about thousands of objects each minute.
    async fn look_again(&self, waiting: &mut VecDeque<&str>) -> Result<(), RestoreError> {
        while !waiting.is_empty() {
            let first: Vec<&str> = waiting.drain(..waiting.len().min(AT_A_TIME)).collect();
            let states = self.archives(&first).await?;
            let mut not_yet = Vec::new();
            for (object, state) in first.into_iter().zip(states) {
                match state {
                    Archive::Readable => continue,
                    Archive::Restoring => {}
                    // Forgotten, or readable and expired since.
                    Archive::Archived => self.ask(object).await?,
                }
                not_yet.push(object);
            }
            if !not_yet.is_empty() {
                not_yet.into_iter().rev().for_each(|object| waiting.push_front(object));
                break;
            }
        }
        Ok(())
    }

    /// Where objects stand, in their order.
    async fn archives(&self, objects: &[&str]) -> Result<Vec<Archive>, RestoreError> {
        let mut states = Vec::with_capacity(objects.len());
        let mut to_look_at = objects.iter();
        let mut running = FuturesOrdered::new();
        loop {
            while running.len() < AT_A_TIME
                && let Some(object) = to_look_at.next()
            {
                running.push_back(self.archive(object));
            }
            match running.next().await {
                Some(state) => states.push(state?),
                None => return Ok(states),
            }
        }
    }

    /// One that is not there counts as readable: reading it says what is wrong.
    async fn archive(&self, object: &str) -> Result<Archive, RestoreError> {
        let archive = self.client.archive(&self.request.target.key(object)).await;
        archive.map_err(|error| self.wrap(error))
    }

    async fn ask(&self, object: &str) -> Result<(), RestoreError> {
        let key = self.request.target.key(object);
        let asked = self.client.restore(&key, self.request.archive_days).await;
        asked.map_err(|error| self.wrap(error))
    }
}
