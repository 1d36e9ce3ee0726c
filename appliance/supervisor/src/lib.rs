//! The daemon and its roles.
//!
//! A duty is a folder: it observes, decides (in `strongroom_model`), acts and reports. A face renders the snapshot.
//! A foreign service is one thin module in [`services`]. The roles (`configure`, `array`, `serve`, `push`) are small
//! programs of their own; their mains are in `src/bin`.

pub mod clock;
pub mod faces;
pub mod report;
pub mod services;
