//! Scenarios that take long: `cargo image test --thorough` runs them, the plain command passes them over.

mod disk_health;
mod matrix;
mod mdns;
mod media;
mod stick;
