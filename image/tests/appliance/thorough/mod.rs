//! Scenarios that take long: `cargo image test --thorough` runs them, the plain command passes them over.

mod matrix;
mod mdns;
mod media;
mod stick;
