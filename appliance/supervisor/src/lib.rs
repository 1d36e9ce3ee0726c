//! The daemon and its roles.
//!
//! A duty is a folder: it observes, decides (in `strongroom_model`), acts and reports. A face renders the snapshot.
//! A foreign service is one thin module in [`services`]. The roles (`configure`, `array`, `repositories`, `serve`,
//! `sessions`, `session`, `clients`, `pair`, `push`, `health`, `scrub`, `watch`, `verify`, `upkeep`, `boot`, `mirror`,
//! `time-sources`) are small programs of their own; their mains are in `src/bin`.

pub mod boot;
pub mod clients;
pub mod clock;
pub mod configuration;
pub mod daemon;
pub mod disks;
pub mod durable;
pub mod enrol;
pub mod esp;
pub mod faces;
pub mod identity;
pub mod jobs;
pub mod mirror;
pub mod offsite;
pub mod paths;
pub mod report;
pub mod services;
pub mod sessions;
pub mod snapshot;
pub mod upkeep;
pub mod watch;

/// The time, Unix seconds; `None` before 1970.
pub fn clock_now() -> Option<u64> {
    unix_seconds(std::time::SystemTime::now())
}

/// A time in Unix seconds; `None` before 1970.
pub fn unix_seconds(time: std::time::SystemTime) -> Option<u64> {
    let since = time.duration_since(std::time::UNIX_EPOCH);
    since.ok().map(|since| since.as_secs())
}
