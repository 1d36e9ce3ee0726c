//! A client's copy at a target.

use super::desk::known;
use super::tree::Object;
use strongroom_model::status;
use zbus::interface;

/// The object.
pub type Target = Object<status::Target>;

#[interface(name = "org.strongroom.Appliance1.Target")]
impl Target {
    /// The target's name.
    #[zbus(property)]
    fn name(&self) -> String {
        self.part.get().name.to_string()
    }

    /// The repository's transaction that the copy is of; -1 before the first push.
    #[zbus(property)]
    fn transaction(&self) -> i64 {
        known(self.part.get().transaction)
    }

    /// When that was pushed, Unix seconds; 0: never.
    #[zbus(property)]
    fn last_push(&self) -> u64 {
        self.part.get().last_push.unwrap_or_default()
    }

    /// Objects that belong to it.
    #[zbus(property)]
    fn objects(&self) -> u64 {
        self.part.get().objects
    }

    /// Their size in bytes.
    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.part.get().size_bytes
    }

    /// Why the last push failed; empty when it did not.
    #[zbus(property)]
    fn error(&self) -> String {
        self.part.get().error.to_string()
    }
}
