//! What flows between the duties, the snapshot and the faces.

use strongroom_model::condition::{Condition, ConditionId};
use strongroom_model::name::ClientName;
use strongroom_model::superblock::ArrayUuid;
use tokio::sync::watch;

/// Sends `new` to whoever watches, unless it is what they have: nobody wakes for nothing.
pub fn publish<T: PartialEq>(to: &watch::Sender<T>, new: T) {
    to.send_if_modified(|old| {
        let changed = *old != new;
        *old = new;
        changed
    });
}

/// Lets a condition of this kind about this subject stand, in the place of one that does already; with `None`, none any more.
pub fn stand(among: &watch::Sender<Vec<Condition>>, id: ConditionId, subject: &str, new: Option<Condition>) {
    let mut all = among.borrow().clone();
    all.retain(|condition| condition.id != id || condition.subject.as_str() != subject);
    all.extend(new);
    publish(among, all);
}

/// What a duty or a face says of itself: its part of the status and the conditions that stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<T> {
    /// Its part of the status.
    pub part: T,
    /// Conditions standing right now.
    pub conditions: Vec<Condition>,
}

impl<T: Default> Default for Report<T> {
    fn default() -> Self {
        Self {
            part: T::default(),
            conditions: Vec::new(),
        }
    }
}

/// What a person may ask for through a face. Nothing here destroys anything, but for what [`Command::Upkeep`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Push a client's repository now.
    Push(ClientName),
    /// Read everything on the array now, or go on with it.
    Scrub,
    /// Read all of a client's repository now, or of every one, and compare it with what it was.
    Check(Option<ClientName>),
    /// The owner knows of all that stands about a client's repository. Only the D-Bus face offers it.
    Accept(ClientName),
    /// Take up the clients anew: the registry was changed.
    Clients,
    /// Compact, roll back or repair a client's repository, as its owner confirmed. Only the D-Bus face offers it, having seen that
    /// nothing stands against it.
    Upkeep(crate::upkeep::Order),
    /// Look at the disks again now.
    Rescan,
    /// Use this array that was made elsewhere. It erases nothing, but only the D-Bus face offers it.
    Adopt(ArrayUuid),
    /// Make the appliance show itself (console bell and a line on the console).
    Identify,
}
