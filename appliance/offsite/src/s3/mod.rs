//! A small S3 client: only what a push and a restore need, in path style, signed with SigV4.
//!
//! Every request carries `Content-Length` and `x-amz-content-sha256` of the true payload; PUTs also
//! `Content-MD5`. Never aws-chunked, which Oracle refuses.

pub mod client;
pub mod error;
mod http;
pub mod sign;
mod stream;
mod xml;

pub use client::{Archive, Client, Head, Listed, Payload, Upload};
pub use error::S3Error;
pub use http::{Clock, Retry, system_clock};
pub use stream::BodySender;
