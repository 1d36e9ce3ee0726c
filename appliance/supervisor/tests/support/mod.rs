//! What several tests need of the outside: the real sshd, and a repository of the real Borg.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod repository;
pub mod rpc;
pub mod sshd;

use std::path::Path;

/// A role of the program, by its name.
pub fn role(name: &str) -> String {
    let link = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_strongroomd"), &link);
    assert!(link.exists(), "{link:?} leads nowhere");
    link.display().to_string()
}
