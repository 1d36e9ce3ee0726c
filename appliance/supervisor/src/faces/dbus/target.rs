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

    /// When the copy was last compared with what was sent, by a list of the bucket, Unix seconds; 0: never.
    #[zbus(property)]
    fn verified(&self) -> u64 {
        self.part.get().verified.unwrap_or_default()
    }

    /// Objects that were gone then, or not what was sent.
    #[zbus(property)]
    fn damaged_objects(&self) -> u32 {
        self.part.get().damaged
    }

    /// Objects that no push had sent.
    #[zbus(property)]
    fn foreign_objects(&self) -> u32 {
        self.part.get().foreign
    }

    /// Transactions of the repository that the copy lacks; -1 while that isn't known.
    #[zbus(property)]
    fn behind_transactions(&self) -> i64 {
        known(self.part.get().behind.map(|behind| behind.transactions))
    }

    /// Size of the segments that the copy lacks, in bytes; -1 while that isn't known.
    #[zbus(property)]
    fn behind_bytes(&self) -> i64 {
        known(self.part.get().behind.map(|behind| behind.bytes))
    }

    /// Why the last push failed; empty when it did not.
    #[zbus(property)]
    fn error(&self) -> String {
        self.part.get().error.to_string()
    }
}
