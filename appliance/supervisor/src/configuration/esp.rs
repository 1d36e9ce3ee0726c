//! CONFIG on the ESP, after an offer was read from it: without secrets that are sealed by now, and with a report. The
//! folder is writable only for as long as this takes, and only when something has to change.

use super::incoming::Incoming;
use super::{Outcome, REPORT_NAME, letterhead, note};
use crate::durable;
use crate::esp;
use crate::paths::Paths;
use std::fs;
use strongroom_model::config::FileName;

/// Leaves the owner's folder as it should be.
pub fn tidy(paths: &Paths, incoming: Option<&Incoming>, outcome: &Outcome) {
    let folder = paths.owner_config();
    let report = folder.join(REPORT_NAME);
    let old = fs::read_to_string(&report).ok();
    let sealed = matches!(outcome, Outcome::InForce | Outcome::Taken { .. });
    let secrets: Vec<FileName> = incoming.filter(|_| sealed).map(Incoming::secrets).unwrap_or_default();
    let text = match outcome {
        Outcome::Nothing => return,
        // At each start the same: the flash memory need not be worn for it, unless something else is said there.
        Outcome::InForce | Outcome::Old if !old.as_deref().is_some_and(|old| old.contains("refused")) => None,
        _ => Some(note::text(&letterhead(paths), outcome)),
    };
    let text = text.filter(|text| old.as_deref().map(note::body) != Some(note::body(text)));
    if secrets.is_empty() && text.is_none() {
        return;
    }
    let changed = esp::writable(paths, || {
        for name in &secrets {
            let path = folder.join(name.as_str());
            let length = incoming
                .and_then(|incoming| incoming.files.get(name))
                .map_or(0, Vec::len);
            // Best effort on flash memory: at least the file's present blocks no longer hold the secret.
            fs::write(&path, vec![0; length])?;
            fs::File::open(&path)?.sync_all()?;
            fs::remove_file(&path)?;
        }
        match &text {
            Some(text) => durable::write(&report, text.as_bytes(), 0o644),
            None => Ok(()),
        }
    });
    if let Err(error) = changed {
        eprintln!("{REPORT_NAME} and the secrets in CONFIG could not be tidied: {error}");
    }
}
