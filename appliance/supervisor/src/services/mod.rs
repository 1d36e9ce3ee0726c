//! Foreign services, one thin module each. They translate; they decide nothing.

pub mod block;
pub mod chrony;
pub mod command;
pub mod mounts;
pub mod systemd;
