//! Scenarios that take long: `cargo image test --thorough` runs them, the plain command passes them over.

mod adopt;
mod attack;
mod clock;
mod copies;
mod crowd;
mod dhcp_time;
mod disk_health;
mod disks;
mod duplicate;
mod exits;
mod full;
mod kit;
mod matrix;
mod mdns;
mod media;
mod missing;
mod recovery;
mod retirement;
mod stick;
mod usb_copy;
mod watchdog;
