//! A strict S3 server for tests and for trying things out on loopback.
//!
//! It behaves like Oracle's S3 compatibility in its limits: SigV4 with the right region and clock,
//! payload hash and Content-MD5 checked, aws-chunked refused, a minimum part size, permissions per
//! credential, and archive buckets whose objects must be restored before they can be read.
//! Requests are parsed and signatures verified by `s3s`; what `s3s` does not check is checked in [`gate`].
//!
//! Development only: no part of the appliance depends on it, and it binds to loopback alone.

mod access;
pub mod faults;
mod gate;
mod pace;
mod server;
mod service;
pub mod settings;
mod store;

pub use faults::{Action, Faults, Rule};
pub use server::{Server, StartError};
pub use settings::{Bucket, Credential, Lists, Permissions, Settings};
