//! Compares a copy with its ledger after a push, once a day, and keeps what was found beside the ledger. Has the next push
//! send again what is gone. What to say of it is decided in [`strongroom_model::copy_check`].

use crate::durable;
use crate::paths::Paths;
use strongroom_model::copy_check::{CopyCheck, Found, is_due};
use strongroom_model::name::{ClientName, TargetName};
use strongroom_offsite::{Tuning, VerifyRequest, ledger, verify};

/// Longest file of what was found, in bytes.
const BYTES_MAX: u64 = 16 * 1024;

/// What the last comparison found; nothing before the first, or when the file is lost: then another is made soon.
pub fn read(paths: &Paths, client: &ClientName, target: &TargetName) -> Option<CopyCheck> {
    durable::read_json(&paths.copy_check(client, target), BYTES_MAX)
}

/// Compares, if it is due. To be called when a push has ended well, whether anything was sent or not. A comparison that
/// fails is remembered and is no error: the copy was made.
///
/// Errors, in words: what was found could not be written.
pub async fn after_push(
    paths: &Paths,
    client: &ClientName,
    target: &TargetName,
    request: &VerifyRequest,
    tuning: &Tuning,
    now: u64,
) -> Result<(), String> {
    let last = read(paths, client, target);
    if !is_due(last.as_ref(), now) {
        return Ok(());
    }
    let check = match compare(request, tuning).await {
        Ok(found) => CopyCheck {
            since: last.map_or(now, |last| last.since),
            at: Some(now),
            ..found
        },
        Err(error) => {
            eprintln!("{client} at {target}: the copy could not be compared: {error}");
            CopyCheck::failed(last, now, &error)
        }
    };
    let path = paths.copy_check(client, target);
    durable::write_json(&path, &check).map_err(|error| format!("{}: {error}", path.display()))
}

/// Compares, and hands what is gone to the ledger.
async fn compare(request: &VerifyRequest, tuning: &Tuning) -> Result<CopyCheck, String> {
    let report = verify(request, tuning).await.map_err(|error| error.to_string())?;
    let lost = report.lost();
    let altered = report
        .different
        .iter()
        .filter(|object| !report.replaced.contains(object));
    let found = CopyCheck {
        objects: report.checked,
        bytes: report.bytes,
        lost: Found::of(lost.iter().map(String::as_str)),
        altered: Found::of(altered.map(String::as_str)),
        foreign: Found::of(report.foreign.iter().map(String::as_str)),
        ..CopyCheck::default()
    };
    if !lost.is_empty() {
        ledger::lose(&request.ledger, lost).map_err(|error| error.to_string())?;
    }
    Ok(found)
}
