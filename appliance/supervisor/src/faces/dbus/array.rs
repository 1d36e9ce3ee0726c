//! The array, and the disks that it is made of.

use super::desk::{json, known, word};
use super::tree::Object;
use crate::report::Command;
use strongroom_model::array::Verdict;
use strongroom_model::status;
use strongroom_model::superblock::ArrayUuid;
use zbus::{fdo, interface};

/// The object.
pub type Array = Object<status::Array>;

#[interface(name = "org.strongroom.Appliance1.Array")]
impl Array {
    /// `unknown`, `not-ready`, `working`, `failed`, `assembled` or `mounted`.
    #[zbus(property)]
    fn state(&self) -> String {
        word(&self.part.get().state)
    }

    /// Where its members are, such as `S4XYZ partition 6`.
    #[zbus(property)]
    fn members(&self) -> Vec<String> {
        self.part.get().members.iter().map(ToString::to_string).collect()
    }

    /// Size of its file system in bytes; 0 when it is not mounted.
    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.part.get().size_bytes
    }

    /// Bytes that are used of it.
    #[zbus(property)]
    fn used_bytes(&self) -> u64 {
        self.part.get().used_bytes
    }

    /// In how many days it will be full if the last month goes on; -1 while that can't be told, and when it isn't filling.
    #[zbus(property)]
    fn days_until_full(&self) -> i64 {
        known(self.part.get().days_until_full)
    }

    /// When the last scrub came to its end, Unix seconds; 0: never.
    #[zbus(property)]
    fn last_scrub(&self) -> u64 {
        self.part.get().last_scrub.unwrap_or_default()
    }

    /// Whether the kernel bounds what each client stores: `unknown`, `enforced` or `absent`.
    #[zbus(property)]
    fn quotas(&self) -> String {
        word(&self.part.get().quotas)
    }

    /// Reads everything on the array now, or goes on with a scrub that was cut short. Returns once the job is asked for.
    async fn scrub(&self) -> fdo::Result<()> {
        self.desk.mounted("read")?;
        self.desk.send(Command::Scrub).await
    }

    /// What is on every disk and what becomes of it, as JSON (`strongroom_model::array::Listing`): what the last look
    /// at the disks found.
    async fn disks(&self) -> fdo::Result<String> {
        json(&self.desk.disks()?.listing)
    }

    /// Looks at the disks again. Returns once that is asked for; `looked_ms` of Disks changes with its end.
    async fn rescan(&self) -> fdo::Result<()> {
        self.desk.send(Command::Rescan).await
    }

    /// Consents to use the array of this identity, which was made elsewhere. Returns once that is asked for.
    async fn adopt(&self, uuid: &str) -> fdo::Result<()> {
        let uuid = ArrayUuid::new(uuid)
            .ok_or_else(|| fdo::Error::InvalidArgs(format!("`{}` is not the UUID of an array", uuid.escape_debug())))?;
        let arrays = self.desk.disks()?.listing.arrays;
        match arrays.iter().find(|array| array.uuid == uuid.as_str()) {
            Some(array) if array.verdict == Verdict::Adoptable => self.desk.send(Command::Adopt(uuid)).await,
            Some(array) if array.verdict == Verdict::InUse => {
                Err(fdo::Error::Failed(format!("the array {uuid} is in use already")))
            }
            Some(array) => Err(fdo::Error::Failed(format!(
                "the array {uuid} can't be adopted: {}",
                array.why
            ))),
            None => Err(fdo::Error::InvalidArgs(format!(
                "there is no array {uuid} here; `strongroom disks adopt` lists those that are"
            ))),
        }
    }
}
