//! What several tests need of the outside: the real sshd, and a repository of the real Borg.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod repository;
pub mod rpc;
pub mod sshd;
