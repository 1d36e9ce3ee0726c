//! What a push does with each byte, where libraries leave much of the processor idle: AES-256 in OCB, and SHA-256 of two texts at
//! once. Both are held against the libraries by their tests. (docs/figures.md: what they are worth.)
//!
//! A crate of its own for the sake of the tests, which compile ours without optimisation but for this one.

mod ocb;
mod sha256;

pub use ocb::{NONCE, Ocb, TAG};
pub use sha256::{Sum, update_both};
