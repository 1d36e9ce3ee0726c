//! Which sessions there were: the last of each client, so that it can be told which of them did what. Owned by the broker;
//! a session that outlives it is not remembered.

use crate::durable;
use crate::paths::Paths;
use std::io;
use strongroom_model::name::ClientName;
use strongroom_model::session::{PAST_MAX, Past};

/// Longest file that is read back.
const BYTES_MAX: u64 = 256 * 1024;

/// The past sessions of a client, oldest first.
pub fn read(paths: &Paths, client: &ClientName) -> Vec<Past> {
    durable::read_json(&paths.session_history(client), BYTES_MAX).unwrap_or_default()
}

/// Remembers a session that is over.
pub fn add(paths: &Paths, client: &ClientName, past: Past) -> io::Result<()> {
    let mut all = read(paths, client);
    all.push(past);
    let old = all.len().saturating_sub(PAST_MAX);
    all.drain(..old);
    durable::write_json(&paths.session_history(client), &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let (paths, asus) = (Paths::new(folder.path()), ClientName::new("asus").unwrap());
        assert_eq!(read(&paths, &asus), []);
        for number in 0..PAST_MAX as u64 + 3 {
            let past = Past {
                id: format!("asus-{number}"),
                since: number,
                until: number + 1,
                reading: false,
            };
            add(&paths, &asus, past).unwrap();
        }
        let all = read(&paths, &asus);
        assert_eq!((all.len(), all[0].since), (PAST_MAX, 3));
    }
}
