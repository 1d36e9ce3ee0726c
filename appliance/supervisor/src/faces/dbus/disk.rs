//! A disk.

use super::desk::{known, word};
use super::tree::Object;
use strongroom_model::status;
use zbus::interface;

/// The object.
pub type Disk = Object<status::Disk>;

#[interface(name = "org.strongroom.Appliance1.Disk")]
impl Disk {
    /// Serial number; the only name by which a disk is configured.
    #[zbus(property)]
    fn serial(&self) -> String {
        self.part.get().serial.to_string()
    }

    /// Model.
    #[zbus(property)]
    fn model(&self) -> String {
        self.part.get().model.to_string()
    }

    /// The kernel's name for it now, such as `sda`; another one, maybe, after the next start.
    #[zbus(property)]
    fn kernel_name(&self) -> String {
        self.part.get().kernel_name.to_string()
    }

    /// Size in bytes.
    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.part.get().size_bytes
    }

    /// `system` (the one that was started from), `data`, or `other`.
    #[zbus(property)]
    fn role(&self) -> String {
        word(&self.part.get().role)
    }

    /// Whether it holds a member of the running array.
    #[zbus(property)]
    fn member(&self) -> bool {
        self.part.get().member
    }

    /// `unknown`, `good`, `aging` or `failing`.
    #[zbus(property)]
    fn health(&self) -> String {
        word(&self.part.get().health)
    }

    /// Why it is not good, in a few words; empty when it is.
    #[zbus(property)]
    fn reason(&self) -> String {
        self.part.get().reason.to_string()
    }

    /// Degrees Celsius; -300 when it does not tell, or sleeps.
    #[zbus(property)]
    fn temperature(&self) -> i16 {
        self.part.get().temperature.unwrap_or(-300)
    }

    /// Hours that it has been running in its life; -1 when it does not tell.
    #[zbus(property)]
    fn power_on_hours(&self) -> i64 {
        known(self.part.get().power_on_hours)
    }
}
