//! A client's session, as it is told to people and programs.

use crate::name::ClientName;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One session that is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name, as in `asus_home-3`.
    pub id: String,
    /// Whose it is.
    pub client: ClientName,
    /// When it began, Unix seconds; `None` while it is coming up.
    pub since: Option<u64>,
    /// Bytes read from the array for it; `None` while unknown.
    pub read_bytes: Option<u64>,
    /// Bytes written to the array for it; `None` while unknown.
    pub written_bytes: Option<u64>,
}

/// The most that the segments of a repository may take on the array while a session runs, in bytes: its `quota`, or what is
/// `committed` already where that is more, and room for what the quota does not count: deletions, what a compaction left,
/// and what Borg had been sent before it could say that the quota is reached.
pub const fn largest(quota: u64, committed: u64) -> u64 {
    let held = if quota > committed { quota } else { committed };
    held.saturating_add(quota / 8).saturating_add(256 << 20)
}

/// Where the kernel stops a client, in bytes of all files of its repository: above [`largest`], so that a session is ended
/// before, with words, and with room for two `segment`s of the repository (its `max_segment_size`), as Borg writes in a
/// compaction before it deletes. What the client says of those counts within reason.
pub const fn wall(quota: u64, committed: u64, segment: u64) -> u64 {
    const LEAST: u64 = 500 << 20;
    const MOST: u64 = 4 << 30;
    let segment = if segment < LEAST {
        LEAST
    } else if segment > MOST {
        MOST
    } else {
        segment
    };
    largest(quota, committed).saturating_add(2 * segment)
}

/// Sessions of one client that are remembered.
pub const PAST_MAX: usize = 400;
/// By how much a session's end and its last transaction may be told apart, in seconds: the one is noted when systemd tells
/// of it, the other when the file is written.
const SLACK: u64 = 2;

/// One session that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Its name. It says which one of that start of the machine.
    pub id: String,
    /// When it began, Unix seconds.
    pub since: u64,
    /// When it ended, Unix seconds.
    pub until: u64,
    /// Whether its key could only read.
    pub reading: bool,
}

/// The sessions that may have committed a transaction at that time: usually one, as Borg lets one write at a time.
pub fn at(past: &[Past], time: u64) -> Vec<String> {
    let mut all: Vec<String> = past
        .iter()
        .filter(|one| {
            !one.reading && one.since <= time.saturating_add(SLACK) && time <= one.until.saturating_add(SLACK)
        })
        .map(|one| one.id.clone())
        .collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_wall_stands_behind_the_sessions_bound() {
        let bound = largest(20_000_000, 0);
        assert_eq!(wall(20_000_000, 0, 0), bound + (1000 << 20));
        assert_eq!(wall(20_000_000, 0, 2 << 30), bound + (4 << 30));
        assert_eq!(wall(20_000_000, 0, u64::MAX), bound + (8 << 30));
        assert!(wall(20_000_000, 30_000_000, 0) > wall(20_000_000, 0, 0));
        assert_eq!(wall(u64::MAX, 0, 0), u64::MAX);
    }

    #[test]
    fn a_transaction_belongs_to_whoever_could_write_then() {
        let past = |id: &str, since, until, reading| Past {
            id: id.into(),
            since,
            until,
            reading,
        };
        let all = [
            past("asus-1", 100, 200, false),
            past("asus-2", 150, 900, true),
            past("asus-3", 300, 400, false),
        ];
        assert_eq!(at(&all, 201), ["asus-1"]);
        assert_eq!(at(&all, 98), ["asus-1"]);
        assert_eq!(at(&all, 250), [] as [&str; 0]);
        assert_eq!(at(&all, 350), ["asus-3"]);
    }
}
