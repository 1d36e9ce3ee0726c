//! Retiring what nothing needs any more, once a state is published. It never fails a push: what it could not do is told.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use strongroom_borg::SegmentNumber;

use super::Local;
use super::error::PushError;
use super::send::Sender;
use crate::ledger::{Item, What};
use crate::retire::{self, DAY, Retirement, Rules, There};

/// Objects that are deleted after one line in the ledger.
const AT_ONCE: usize = 64;
/// Requests at a time.
const AT_A_TIME: usize = 8;

/// Before a state is sent: what it names again, though an earlier state did without, is needed again.
pub(super) fn reclaim(sender: &Sender<'_>, local: &Local<'_>) -> Result<(), PushError> {
    let mut ledger = sender.ledger();
    let back: Vec<(SegmentNumber, Item)> = local
        .segments
        .iter()
        .filter(|segment| ledger.state.released.contains_key(&segment.number))
        .filter_map(|segment| Some((segment.number, ledger.state.segments.get(&segment.number)?.clone())))
        .collect();
    for (number, item) in back {
        ledger.stored(What::Segment(number), item)?;
    }
    Ok(())
}

/// Before a manifest is published: what it does not name is needed by older ones only, once it is there. It is written down
/// before, since only then it is known for certain what the manifest names.
pub(super) fn release(sender: &Sender<'_>, local: &Local<'_>, manifest: &str) -> Result<(), PushError> {
    let named: BTreeSet<SegmentNumber> = local.segments.iter().map(|segment| segment.number).collect();
    let mut ledger = sender.ledger();
    let state = &ledger.state;
    let numbers = state.segments.keys().copied();
    let without: Vec<SegmentNumber> = numbers
        .filter(|number| !named.contains(number) && !state.released.contains_key(number))
        .collect();
    if !without.is_empty() {
        ledger.without(manifest.to_owned(), without)?;
    }
    Ok(())
}

/// Whether the target is to be looked at though nothing was pushed: once a day.
pub(super) fn is_due(last: Option<&Retirement>, now: u64) -> bool {
    last.is_none_or(|last| last.at.saturating_add(DAY) <= now)
}

/// Deletes what may go, if that is wanted, and tells what is left.
pub(super) async fn retire(sender: &Sender<'_>, rules: &Rules, now: u64) -> Retirement {
    let mut outcome = Retirement {
        at: now,
        ..Retirement::default()
    };
    if let Err(why) = look_and_delete(sender, rules, now, &mut outcome).await {
        outcome.hindered = why;
    }
    outcome
}

/// Errors are in words.
async fn look_and_delete(sender: &Sender<'_>, rules: &Rules, now: u64, outcome: &mut Retirement) -> Result<(), String> {
    let listed = sender.client.list(&sender.target.key("")).await;
    let listed = listed.map_err(|error| error.to_string())?;
    let mut there: There<'_> = listed
        .iter()
        .filter_map(|listed| Some((sender.target.object(&listed.key)?, listed)))
        .collect();
    let mut plan = retire::plan(&there, &sender.ledger().state, &BTreeSet::new(), rules, now)?;
    (outcome.waiting, outcome.next) = (plan.waiting, plan.next);
    for object in plan.manifests.iter().chain(&plan.sums).chain(&plan.segments) {
        outcome.free.add(there.get(object).map_or(0, |listed| listed.size));
    }
    if !rules.act {
        return Ok(());
    }
    let mut deleting = Deleting {
        sender,
        there: &mut there,
        outcome,
    };
    deleting.all(&plan.manifests).await?;
    let manifests = plan.manifests.iter().copied();
    let held: BTreeSet<&str> = manifests.filter(|object| deleting.there.contains_key(object)).collect();
    if !held.is_empty() {
        // What a manifest names stays as long as it is there.
        plan = retire::plan(deleting.there, &sender.ledger().state, &held, rules, now)?;
    }
    deleting.all(&plan.sums).await?;
    deleting.all(&plan.segments).await
}

struct Deleting<'a, 'b, 'c> {
    sender: &'a Sender<'b>,
    there: &'a mut There<'c>,
    outcome: &'a mut Retirement,
}

impl Deleting<'_, '_, '_> {
    /// Deletes these, as far as that is permitted: a retention rule may hold some. When all of a number are refused, it is
    /// at an end.
    async fn all(&mut self, objects: &[&str]) -> Result<(), String> {
        let sender = self.sender;
        for some in objects.chunks(AT_ONCE) {
            let names: Vec<String> = some.iter().map(|object| (*object).to_owned()).collect();
            // Before anything is gone.
            sender
                .ledger()
                .retired(names.clone())
                .map_err(|error| error.to_string())?;
            let answers: Vec<_> = stream::iter(names)
                .map(|object| async move {
                    let answer = sender.client.delete(&sender.target.key(&object)).await;
                    (object, answer)
                })
                .buffer_unordered(AT_A_TIME)
                .collect()
                .await;
            let mut done = false;
            for (object, answer) in answers {
                match answer {
                    Ok(()) => {
                        done = true;
                        let size = self.there.remove(object.as_str()).map_or(0, |listed| listed.size);
                        self.outcome.retired.add(size);
                        self.outcome.free.remove(size);
                    }
                    Err(error) => self.outcome.hindered = error.to_string(),
                }
            }
            if !done {
                return Err(std::mem::take(&mut self.outcome.hindered));
            }
        }
        Ok(())
    }
}
