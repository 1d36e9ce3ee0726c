//! The clock.

use super::desk::word;
use super::tree::Object;
use strongroom_model::status;
use zbus::interface;

/// The object.
pub type Clock = Object<status::Clock>;

#[interface(name = "org.strongroom.Appliance1.Clock")]
impl Clock {
    /// `unknown`, `synchronised`, `coasting` or `unsynchronised`.
    #[zbus(property)]
    fn state(&self) -> String {
        word(&self.part.get().state)
    }

    /// Whether what needs the time may go by it.
    #[zbus(property)]
    fn trusted(&self) -> bool {
        self.part.get().state.is_trusted()
    }

    /// Until when it may, in Unix seconds, while it follows no source; 0 otherwise.
    #[zbus(property)]
    fn trusted_until(&self) -> u64 {
        self.part.get().trusted_until.unwrap_or_default()
    }

    /// How far the system's clock is from NTP time, in nanoseconds; positive when it is ahead.
    #[zbus(property)]
    fn offset_ns(&self) -> i64 {
        self.part.get().offset_ns
    }

    /// The most that it can be wrong by, in nanoseconds.
    #[zbus(property)]
    fn error_ns(&self) -> u64 {
        self.part.get().error_ns
    }

    /// Stratum; 0 when not synchronised.
    #[zbus(property)]
    fn stratum(&self) -> u8 {
        self.part.get().stratum
    }

    /// How wrong its rate would be if it were not corrected, in parts per billion.
    #[zbus(property)]
    fn frequency_ppb(&self) -> i64 {
        self.part.get().frequency_ppb
    }

    /// The source that is followed; empty when none is.
    #[zbus(property)]
    fn source(&self) -> String {
        self.part.get().source.to_string()
    }

    /// Sources that answered lately.
    #[zbus(property)]
    fn reachable_sources(&self) -> u8 {
        self.part.get().reachable
    }

    /// Sources that are known.
    #[zbus(property)]
    fn sources(&self) -> u8 {
        self.part.get().sources
    }

    /// The kernel's clock source, such as `tsc` or `hpet`.
    #[zbus(property)]
    fn kernel_source(&self) -> String {
        self.part.get().clocksource.to_string()
    }
}
