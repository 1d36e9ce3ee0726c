//! A small S3 client: only what a push and a restore need, in path style, signed with SigV4.
//!
//! Every request carries `Content-Length` and `x-amz-content-sha256` of the true payload; PUTs of whole objects also
//! `Content-MD5`, which is their ETag to be. Never aws-chunked, which Oracle refuses.

pub mod client;
pub mod error;
mod http;
mod multipart;
mod pace;
mod patience;
pub mod sign;
mod stream;
mod xml;

pub use client::{Archive, Client, Head, Listed, Listing, Payload};
pub use error::S3Error;
pub use http::{Clock, system_clock};
pub use multipart::{Arrived, Upload};
pub use patience::Retry;
pub use stream::BodySender;
