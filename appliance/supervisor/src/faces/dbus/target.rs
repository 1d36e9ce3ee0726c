//! A client's copy at a target.

use super::desk::{Desk, known};
use super::tree::{Shown, Slot};
use std::sync::Arc;
use strongroom_model::status;
use zbus::interface;

/// The object.
pub struct Target(Slot<status::Target>);

impl Shown for Target {
    type Part = status::Target;
    fn new(_desk: &Arc<Desk>, part: Slot<Self::Part>) -> Self {
        Self(part)
    }
    fn slot(&self) -> &Slot<Self::Part> {
        &self.0
    }
}

#[interface(name = "org.strongroom.Appliance1.Target")]
impl Target {
    /// The target's name.
    #[zbus(property)]
    fn name(&self) -> String {
        self.0.get().name.to_string()
    }

    /// The repository's transaction that the copy is of; -1 before the first push.
    #[zbus(property)]
    fn transaction(&self) -> i64 {
        known(self.0.get().transaction)
    }

    /// When that was pushed, Unix seconds; 0: never.
    #[zbus(property)]
    fn last_push(&self) -> u64 {
        self.0.get().last_push.unwrap_or_default()
    }

    /// Objects that belong to it.
    #[zbus(property)]
    fn objects(&self) -> u64 {
        self.0.get().objects
    }

    /// Their size in bytes.
    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.0.get().size_bytes
    }

    /// Why the last push failed; empty when it did not.
    #[zbus(property)]
    fn error(&self) -> String {
        self.0.get().error.to_string()
    }
}
