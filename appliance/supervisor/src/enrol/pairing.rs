//! The open pairing, kept in /run: one at a time. Its code's hash is for root only; that one is open, and until when, is
//! for the account that sshd asks as.

use crate::durable;
use crate::paths::Paths;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::name::ClientName;
use strongroom_model::pairing::{Pairing, TRIES};

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// Seconds since the start of the machine, also those that it slept; the time of day may jump.
pub fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default()
}

/// The pairing, if one is open.
pub fn read(paths: &Paths) -> Option<Pairing> {
    durable::read_json(&paths.pairing(), FILE_MAX).filter(|pairing: &Pairing| pairing.is_open(now()))
}

/// Opens a pairing in place of any other, or counts its tries.
pub fn keep(paths: &Paths, pairing: &Pairing) -> io::Result<()> {
    let text = serde_json::to_vec(pairing).map_err(io::Error::other)?;
    durable::write(&paths.pairing(), &text, 0o600)?;
    durable::write_if_changed(&paths.pairing_open(), pairing.until.to_string().as_bytes(), 0o644).map(drop)
}

/// Closes the pairing.
pub fn close(paths: &Paths) -> io::Result<()> {
    durable::remove(&paths.pairing_open())?;
    durable::remove(&paths.pairing())
}

/// Whether any key may come in to offer a code. Nothing but that can be told from here.
pub fn is_open(paths: &Paths) -> bool {
    let until = fs::read_to_string(paths.pairing_open())
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    until.is_some_and(|until| now() < until)
}

/// Tells that wrong codes closed a pairing, until the next one is opened; or, with `None`, no longer.
pub fn tell_failed(paths: &Paths, client: Option<&ClientName>) -> io::Result<()> {
    let Some(client) = client else {
        return durable::remove(&paths.pairing_report());
    };
    let condition = Condition::new(
        ConditionId::PairingFailed,
        Severity::Warning,
        client.as_str(),
        &format!("A pairing for client `{client}` was closed: {TRIES} wrong codes were tried. Nothing was enrolled."),
        "If it was not you who mistyped, somebody on your network tries to enrol a machine of their own. `strongroom client pair` opens another.",
    );
    durable::write_json(&paths.pairing_report(), &[condition])
}

/// What a person should know.
pub fn conditions(paths: &Paths) -> Vec<Condition> {
    durable::read_json(&paths.pairing_report(), FILE_MAX).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use strongroom_model::registry::Settings;

    #[test]
    fn one_pairing_is_open_for_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert!(!is_open(&paths) && read(&paths).is_none());
        let client = ClientName::new("asus").unwrap();
        let open = |minutes| Pairing::open(client.clone(), Settings::default(), [1; 10], now(), minutes).0;
        keep(&paths, &open(10)).unwrap();
        assert!(is_open(&paths) && read(&paths).is_some());
        let mode = fs::metadata(paths.pairing()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        keep(&paths, &open(0)).unwrap();
        assert!(!is_open(&paths) && read(&paths).is_none());
        keep(&paths, &open(10)).unwrap();
        close(&paths).unwrap();
        close(&paths).unwrap();
        assert!(!is_open(&paths) && read(&paths).is_none());
    }

    #[test]
    fn a_failure_is_told_until_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        tell_failed(&paths, Some(&ClientName::new("asus").unwrap())).unwrap();
        assert_eq!(conditions(&paths)[0].id, ConditionId::PairingFailed);
        tell_failed(&paths, None).unwrap();
        assert!(conditions(&paths).is_empty());
    }
}
