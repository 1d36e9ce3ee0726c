//! `strongroomd`, the supervisor, and its roles: one program under a name for each, as BusyBox is. What all of them are made
//! of is in the image once, and in memory once. The links are in `rootfs-overlay/usr/lib/strongroom`.

mod array;
mod boot;
mod clients;
mod configure;
mod disk;
mod health;
mod mirror;
mod pair;
mod probe;
mod push;
mod repositories;
mod scrub;
mod serve;
mod session;
mod sessions;
mod supervisor;
mod time_sources;
mod upkeep;
mod verify;
mod watch;

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

type Role = fn() -> ExitCode;

/// Names, and what goes by them.
const ROLES: [(&str, Role); 20] = [
    ("strongroom-array", array::main),
    ("strongroom-boot", boot::main),
    ("strongroom-clients", clients::main),
    ("strongroom-configure", configure::main),
    ("strongroom-disk", disk::main),
    ("strongroom-health", health::main),
    ("strongroom-mirror", mirror::main),
    ("strongroom-pair", pair::main),
    ("strongroom-probe", probe::main),
    ("strongroom-push", push::main),
    ("strongroom-repositories", repositories::main),
    ("strongroom-scrub", scrub::main),
    ("strongroom-serve", serve::main),
    ("strongroom-session", session::main),
    ("strongroom-sessions", sessions::main),
    ("strongroom-time-sources", time_sources::main),
    ("strongroom-upkeep", upkeep::main),
    ("strongroom-verify", verify::main),
    ("strongroom-watch", watch::main),
    ("strongroomd", supervisor::main),
];

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    match ROLES.iter().find(|(role, _)| *role == name) {
        Some((_, run)) => run(),
        None => {
            let names = ROLES.map(|(role, _)| role).join(", ");
            eprintln!("This program goes by the name of what it does, which `{name}` isn't: {names}.");
            ExitCode::from(2)
        }
    }
}

/// Tells an error on standard error, after what it is of, and gives the exit code.
fn ended(what: &str, outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what}: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_a_link_for_each_role() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/usr/lib/strongroom");
        let mut links: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .inspect(|link| assert_eq!(std::fs::read_link(link).unwrap(), Path::new("strongroomd"), "{link:?}"))
            .filter_map(|link| Some(link.file_name()?.to_str()?.to_owned()))
            .collect();
        links.push("strongroomd".into());
        links.sort();
        assert_eq!(links, ROLES.map(|(role, _)| role));
    }
}
