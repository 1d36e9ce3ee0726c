//! The sessions that are running, as their units tell, and how one is ended.

use super::unit::{SessionId, UNIT_PATTERN};
use crate::services::systemd::{Systemd, SystemdError};
use strongroom_model::name::ClientName;
use strongroom_model::session::Session;

/// All sessions, by client and number.
pub async fn sessions(systemd: &Systemd) -> Result<Vec<Session>, SystemdError> {
    let mut sessions = Vec::new();
    for unit in systemd.matching(UNIT_PATTERN).await? {
        let Some(id) = SessionId::of_unit(&unit) else {
            continue;
        };
        // It may be over by now.
        let Ok(usage) = systemd.usage(&unit, &id.object_path()).await else {
            continue;
        };
        sessions.push(Session {
            id: id.to_string(),
            client: id.client,
            since: usage.since,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
        });
    }
    sessions.sort_by(|a, b| (&a.client, a.since, &a.id).cmp(&(&b.client, b.since, &b.id)));
    Ok(sessions)
}

/// The sessions of one client, by name, also those that are only coming up or ending.
pub async fn of_client(systemd: &Systemd, client: &ClientName) -> Result<Vec<String>, SystemdError> {
    let units = systemd.matching(UNIT_PATTERN).await?;
    let ids = units.iter().filter_map(|unit| SessionId::of_unit(unit));
    Ok(ids.filter(|id| id.client == *client).map(|id| id.to_string()).collect())
}

/// Ends a session. Returns whether there was one.
pub async fn end(systemd: &Systemd, id: &SessionId) -> Result<bool, SystemdError> {
    let unit = id.unit();
    if !systemd.matching(&unit).await?.contains(&unit) {
        return Ok(false);
    }
    systemd.stop(&unit).await.map(|()| true)
}
