//! Foreign services, one thin module each. They translate; they decide nothing.

pub mod block;
pub mod bounded;
pub mod chrony;
pub mod command;
pub mod disk_places;
pub mod extents;
pub mod kernel_clock;
pub mod kernel_log;
pub mod md_geometry;
pub mod mounts;
pub mod networkd;
pub mod notify;
pub mod projects;
pub mod smart;
pub mod systemd;
pub mod usb;
