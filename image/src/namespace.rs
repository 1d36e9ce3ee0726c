//! Being root of a private world: mounts and processes end with the command, whatever happens.
//!
//! As root this is plain unshare(1). As an ordinary user a user namespace is added, in which the user is root and the
//! range of /etc/subuid stands for the other owners; files in the user's own folders stay reachable.

use std::ffi::OsStr;
use std::process::Command;

use crate::process;

/// `program` as root of private mount and process namespaces.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = process::command("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.arg("--").arg(program);
    command
}
