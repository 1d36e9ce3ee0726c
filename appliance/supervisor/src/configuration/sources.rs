//! Which offer was taken over last from where. What was offered last counts: an offer that has not changed since it was
//! taken over does not come into force again by a mere restart, so that two media never take turns.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

use crate::durable;
use crate::paths::Paths;

/// Most media remembered. The one that was silent longest is forgotten first; its offer would be new again.
const SOURCES_MAX: usize = 16;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// CONFIG on the disk that was started from.
    Esp,
    /// A USB stick.
    Stick {
        /// What identifies its file system.
        id: String,
        /// It was plugged into the running appliance: what is on it is wanted now, whether it has changed or not.
        plugged: bool,
    },
    /// `strongroom config apply`.
    Command,
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Esp => "esp".into(),
            Self::Stick { id, .. } => format!("stick:{id}"),
            Self::Command => "command".into(),
        }
    }

    /// Whether somebody did something just now to have this offer taken.
    fn is_deliberate(&self) -> bool {
        match self {
            Self::Esp => false,
            Self::Stick { plugged, .. } => *plugged,
            Self::Command => true,
        }
    }

    /// Where it is, for the owner.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Esp => "CONFIG on the system disk",
            Self::Stick { .. } => "the USB stick",
            Self::Command => "`strongroom config apply`",
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    source: String,
    digest: String,
}

fn load(paths: &Paths) -> Vec<Taken> {
    fs::read(paths.config_sources())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// Whether this offer has had its turn: nothing new since it was taken over, and nobody asks for it now.
pub fn is_old(paths: &Paths, source: &Source, digest: &str) -> bool {
    !source.is_deliberate()
        && paths.config().exists()
        && load(paths)
            .iter()
            .any(|taken| taken.source == source.name() && taken.digest == digest)
}

/// Remembers that this offer was taken over.
pub fn remember(paths: &Paths, source: &Source, digest: &str) -> io::Result<()> {
    let mut all = load(paths);
    all.retain(|taken| taken.source != source.name());
    all.push(Taken {
        source: source.name(),
        digest: digest.into(),
    });
    let surplus = all.len().saturating_sub(SOURCES_MAX);
    all.drain(..surplus);
    let text = serde_json::to_vec(&all).unwrap_or_default();
    durable::write_if_changed(&paths.config_sources(), &text, 0o644).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stick(id: &str, plugged: bool) -> Source {
        Source::Stick { id: id.into(), plugged }
    }

    #[test]
    fn the_offer_made_last_wins_and_none_comes_back_by_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        durable::write(&paths.config(), b"", 0o644).unwrap();
        assert!(!is_old(&paths, &Source::Esp, "a"));
        remember(&paths, &Source::Esp, "a").unwrap();
        remember(&paths, &stick("1234", true), "b").unwrap();
        // A restart with both in: neither has anything new.
        assert!(is_old(&paths, &Source::Esp, "a"));
        assert!(is_old(&paths, &stick("1234", false), "b"));
        // What changed, what is another's, and what is plugged in now: each is new.
        assert!(!is_old(&paths, &Source::Esp, "c"));
        assert!(!is_old(&paths, &stick("5678", false), "b"));
        assert!(!is_old(&paths, &stick("1234", true), "b"));
        // Without a configuration in force everything is.
        fs::remove_file(paths.config()).unwrap();
        assert!(!is_old(&paths, &Source::Esp, "a"));
    }

    #[test]
    fn many_sticks_do_not_fill_the_state_partition() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        durable::write(&paths.config(), b"", 0o644).unwrap();
        for number in 0..100 {
            remember(&paths, &stick(&number.to_string(), true), "a").unwrap();
        }
        assert_eq!(load(&paths).len(), SOURCES_MAX);
        assert!(is_old(&paths, &stick("99", false), "a"));
    }
}
