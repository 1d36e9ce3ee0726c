//! Faces: each renders the snapshot and takes typed commands. None talks to a foreign service of a duty.

pub mod dbus;
pub mod metrics;
pub mod mqtt;
pub mod notices;
