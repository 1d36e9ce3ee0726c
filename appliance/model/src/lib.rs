//! What is true: configuration, status, conditions, decisions.
//!
//! This crate does no I/O and reads no clock: observations and the time come in as parameters, so that every
//! decision can be tested. The status is bounded (`heapless`): see [`status::STATUS_BYTES_MAX`].
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod array;
pub mod bus;
pub mod clients;
pub mod clock;
pub mod condition;
pub mod config;
pub mod copy_check;
pub mod date;
pub mod disk_copy;
pub mod disk_health;
pub mod drill;
pub mod events;
pub mod job;
pub mod kernel_log;
pub mod name;
pub mod offer;
pub mod offsite;
pub mod pairing;
pub mod raid0;
pub mod recipient;
pub mod registry;
pub mod release;
pub mod scrub;
pub mod session;
pub mod space_trend;
pub mod ssh_key;
pub mod status;
pub mod superblock;
pub mod text;
pub mod upkeep;
pub mod verification;
pub mod watch;
