//! A disk.

use super::desk::{Desk, known, word};
use super::tree::{Shown, Slot};
use std::sync::Arc;
use strongroom_model::status;
use zbus::interface;

/// The object.
pub struct Disk(Slot<status::Disk>);

impl Shown for Disk {
    type Part = status::Disk;
    fn new(_desk: &Arc<Desk>, part: Slot<Self::Part>) -> Self {
        Self(part)
    }
    fn slot(&self) -> &Slot<Self::Part> {
        &self.0
    }
}

#[interface(name = "org.strongroom.Appliance1.Disk")]
impl Disk {
    /// Serial number; the only name by which a disk is configured.
    #[zbus(property)]
    fn serial(&self) -> String {
        self.0.get().serial.to_string()
    }

    /// Model.
    #[zbus(property)]
    fn model(&self) -> String {
        self.0.get().model.to_string()
    }

    /// The kernel's name for it now, such as `sda`; another one, maybe, after the next start.
    #[zbus(property)]
    fn kernel_name(&self) -> String {
        self.0.get().kernel_name.to_string()
    }

    /// Size in bytes.
    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.0.get().size_bytes
    }

    /// `system` (the one that was started from), `data`, or `other`.
    #[zbus(property)]
    fn role(&self) -> String {
        word(&self.0.get().role)
    }

    /// Whether it holds a member of the running array.
    #[zbus(property)]
    fn member(&self) -> bool {
        self.0.get().member
    }

    /// `unknown`, `good`, `aging` or `failing`.
    #[zbus(property)]
    fn health(&self) -> String {
        word(&self.0.get().health)
    }

    /// Why it is not good, in a few words; empty when it is.
    #[zbus(property)]
    fn reason(&self) -> String {
        self.0.get().reason.to_string()
    }

    /// Degrees Celsius; -300 when it does not tell, or sleeps.
    #[zbus(property)]
    fn temperature(&self) -> i16 {
        self.0.get().temperature.unwrap_or(-300)
    }

    /// Hours that it has been running in its life; -1 when it does not tell.
    #[zbus(property)]
    fn power_on_hours(&self) -> i64 {
        known(self.0.get().power_on_hours)
    }
}
