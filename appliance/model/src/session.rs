//! A client's session, as it is told to people and programs.

use crate::name::ClientName;
use alloc::string::String;
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
