//! A configuration that the owner offers by `strongroom config apply`: what goes over the socket, and what comes back. An
//! offer is judged first; what is shown then is confirmed by its consent, which names exactly that.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Where the role that takes it over listens.
pub const SOCKET: &str = "/run/strongroom/offer.sock";
/// Longest request, in bytes: the configuration and some files, as JSON.
pub const REQUEST_MAX: u64 = 8 << 20;
/// Longest answer, in bytes.
pub const ANSWER_MAX: u64 = 1 << 20;

/// What is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// strongroom.toml.
    pub text: String,
    /// Files beside it, by their names: certificates, secrets. Those that it does not name are passed over.
    pub files: BTreeMap<String, Vec<u8>>,
    /// That of [`Answer::Would`], once the owner agrees; none to have it judged.
    pub consent: Option<String>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Answer {
    /// It is good, and would change this.
    Would {
        /// In words, one line each.
        changes: Vec<String>,
        /// Names this offer, and what it would take the place of.
        consent: String,
    },
    /// It is what is in force already.
    InForce,
    /// It is in force now.
    Taken {
        /// What it changed, in words, one line each.
        changes: Vec<String>,
        /// What of it has to wait for the next start, and why.
        later: Vec<String>,
    },
    /// It is wrong, or could not be kept; the last good one stays in force.
    Refused {
        /// Why, with the line and what to do.
        why: String,
    },
}
