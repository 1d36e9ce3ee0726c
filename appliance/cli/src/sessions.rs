//! `strongroom sessions`: who is connected, since when, and how much was moved for them.

use crate::appliance::{ApplianceError, Connection};
use crate::{now, words};
use std::fmt::Write;
use strongroom_model::session::Session;

/// Prints the sessions that are running.
pub async fn show(json: bool) -> Result<(), ApplianceError> {
    let sessions = Connection::open().await?.sessions().await?;
    if json {
        println!("{}", serde_json::to_string(&sessions)?);
    } else {
        print!("{}", table(&sessions, now()));
    }
    Ok(())
}

/// Ends a session.
pub async fn end(id: &str) -> Result<(), ApplianceError> {
    Connection::open().await?.end_session(id).await?;
    println!("Session {id} ends; Borg has ten seconds to comply.");
    Ok(())
}

fn table(sessions: &[Session], now: u64) -> String {
    if sessions.is_empty() {
        return "No client is connected.\n".into();
    }
    let mut text = format!(
        "{:<36} {:<32} {:<12} {:>10} {:>10}\n",
        "SESSION", "CLIENT", "SINCE", "READ", "WRITTEN"
    );
    for session in sessions {
        let since = session
            .since
            .map_or("coming up".into(), |since| words::age(Some(since), now));
        let size = |bytes: Option<u64>| bytes.map_or("?".into(), words::size);
        let _ = writeln!(
            text,
            "{:<36} {:<32} {since:<12} {:>10} {:>10}",
            session.id,
            session.client,
            size(session.read_bytes),
            size(session.written_bytes)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::name::ClientName;

    #[test]
    fn one_line_for_each_session() {
        let session = |id: &str, since, written_bytes| Session {
            id: id.into(),
            client: ClientName::new("asus_home").unwrap(),
            since,
            read_bytes: Some(0),
            written_bytes,
        };
        let text = table(
            &[
                session("asus_home-3", Some(1000), Some(3 << 30)),
                session("asus_home-4", None, None),
            ],
            1000 + 7200,
        );
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["SESSION", "CLIENT", "SINCE", "READ", "WRITTEN"]);
        assert_eq!(lines[1].join(" "), "asus_home-3 asus_home 2 h ago 0 B 3.0 GiB");
        assert_eq!(lines[2].join(" "), "asus_home-4 asus_home coming up 0 B ?");
        assert_eq!(table(&[], 0), "No client is connected.\n");
    }
}
