//! Upkeep of a client's repository: the compaction, which frees what was deleted, the rollback, which brings it back, and the
//! repair, which puts a sound segment in a damaged one's place. Pure: what stands against them, what they would do, and the
//! form of what their job leaves behind.
//!
//! Each is done by a job of its own while the client is held out. The job's journal is the hold: as long as it stands, no
//! session of that client begins. It survives a power cut, and whatever was begun is brought to its end before it goes.

pub mod compaction;
pub mod policy;
pub mod repair;
pub mod rollback;

use crate::name::ClientName;
use crate::watch::TransactionNote;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What is to be done, as its owner saw and confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "job")]
pub enum Work {
    /// Free what was deleted up to this transaction, the last one.
    Compact {
        /// The repository's last transaction.
        transaction: u32,
    },
    /// Undo all transactions after one.
    RollBack {
        /// The repository's last transaction.
        transaction: u32,
        /// The one that is to be the last again.
        to: u32,
    },
    /// Put a sound copy of a segment in the place of the damaged one. A segment never changes, so this is of no state.
    Repair {
        /// The segment's number.
        segment: u32,
    },
}

impl Work {
    /// The job's unit for a client.
    pub fn unit(&self, client: &ClientName) -> String {
        match self {
            Self::Compact { .. } => format!("strongroom-compact@{}.service", self.instance(client)),
            Self::RollBack { .. } => format!("strongroom-rollback@{}.service", self.instance(client)),
            Self::Repair { .. } => format!("strongroom-repair@{}.service", self.instance(client)),
        }
    }

    /// The instance of the job's unit: the client, and the transactions or the segment. No name of a client has a colon.
    pub fn instance(&self, client: &ClientName) -> String {
        match self {
            Self::Compact { transaction } => format!("{client}:{transaction}"),
            Self::RollBack { transaction, to } => format!("{client}:{transaction}:{to}"),
            Self::Repair { segment } => format!("{client}:{SEGMENT}:{segment}"),
        }
    }

    /// Reads an instance; its form tells which job it is.
    pub fn of_instance(instance: &str) -> Option<(ClientName, Self)> {
        let mut parts = instance.split(':');
        let client = ClientName::new(parts.next()?).ok()?;
        let work = match (parts.next()?, parts.next()) {
            (SEGMENT, segment) => Self::Repair {
                segment: segment?.parse().ok()?,
            },
            (transaction, None) => Self::Compact {
                transaction: transaction.parse().ok()?,
            },
            (transaction, Some(to)) => Self::RollBack {
                transaction: transaction.parse().ok()?,
                to: to.parse().ok()?,
            },
        };
        (parts.next().is_none() && work.instance(&client) == instance).then_some((client, work))
    }

    /// What happens to the repository, for a sentence: "the repository of asus is being …".
    pub fn participle(&self) -> &'static str {
        match self {
            Self::Compact { .. } => "compacted",
            Self::RollBack { .. } => "rolled back",
            Self::Repair { .. } => "repaired",
        }
    }

    /// The command that does it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Compact { .. } => "compact",
            Self::RollBack { .. } => "rollback",
            Self::Repair { .. } => "repair",
        }
    }
}

/// What stands before a segment's number in an instance.
const SEGMENT: &str = "segment";

/// What the job knows of itself, written before it changes anything and removed when all is in order again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// What is done.
    pub work: Work,
    /// Since when, Unix seconds.
    pub since: u64,
    /// The repository's identity, in hexadecimal digits.
    pub repository: String,
    /// Size of its segments before, in bytes.
    pub bytes: u64,
    /// Of a rollback: the highest number that any segment ever had. It is not used again, since off-site objects bear it.
    pub highest: u32,
    /// Of a compaction: objects in the repository before. It has as many after.
    pub objects: Option<u64>,
    /// Of a repair: what the segment has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<repair::Content>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was done.
    pub work: Work,
    /// When it ended, Unix seconds.
    pub ended: u64,
    /// Why it failed, or was not begun; empty when it was done.
    pub error: String,
    /// Size of the segments before, in bytes.
    pub before: u64,
    /// Size of the segments after, in bytes.
    pub after: u64,
    /// The repository's last transaction after.
    pub transaction: Option<u32>,
    /// The repository's identity, in hexadecimal digits.
    pub repository: String,
}

impl Outcome {
    /// How much less the repository holds, in bytes.
    pub fn freed(&self) -> u64 {
        self.before.saturating_sub(self.after)
    }
}

/// All that a person sees before confirming, and while waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upkeep {
    /// The repository's last transaction, as it was looked at last.
    pub transaction: Option<u32>,
    /// The repository's identity, in hexadecimal digits.
    pub repository: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The last compaction that freed something.
    pub compacted: Option<crate::watch::Compacted>,
    /// Transactions that are remembered, newest first.
    pub transactions: Vec<TransactionNote>,
    /// Nothing before this transaction can be brought back; none where that isn't known yet.
    pub floor: Option<u32>,
    /// About how much a compaction would free, in bytes; none where it can't be told.
    pub freeable: Option<u64>,
    /// What stands against a compaction now, in words.
    pub against_compaction: Vec<String>,
    /// Whether it has no off-site copy at all, which has to be said with the order.
    pub no_copy: bool,
    /// What stands against any rollback now, in words.
    pub against_rollback: Vec<String>,
    /// What rollbacks kept, the newest first.
    pub kept: Vec<rollback::Kept>,
    /// When it is compacted by itself, in words; none without that policy.
    pub automatic: Option<String>,
    /// The job that stands.
    pub standing: Option<Journal>,
    /// How the last one ended.
    pub last: Option<Outcome>,
}

/// What stands against any change of a repository from outside. Each tells what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The array is not mounted.
    #[error("the array is not mounted; `strongroom status` says why")]
    NotMounted,
    /// Nothing was ever committed, or the repository can't be read.
    #[error("there is no repository with a backup that could be read; `strongroom status` says more")]
    NoBackup,
    /// Transactions have not been looked at.
    #[error(
        "its last transactions have not been looked at yet; it happens within a minute of a backup. Try again then"
    )]
    Behind,
    /// A look failed.
    #[error("its last transactions can't be read: {0}")]
    Unreadable(String),
    /// Its sessions are running.
    #[error("the client is connected ({}). Wait for the end, or end it with `strongroom sessions end {}`", listed(.0), first(.0))]
    Connected(Vec<String>),
    /// A job of another kind is reading the repository.
    #[error("a {0} of it is running; wait for its end, which `strongroom status` shows")]
    Busy(&'static str),
    /// An earlier one is in an unknown state.
    #[error(
        "it can't be read how far an earlier compaction, rollback or repair came; make a report (`strongroom report`), then let the client in again with `strongroom client reopen`"
    )]
    Unknown,
    /// It is under way already.
    #[error("it is being {} already", .0.participle())]
    UnderWay(Work),
    /// Something stands that the owner has to look at first.
    #[error(
        "{why}. Look at `strongroom client show {name}`. If all of it was meant: `strongroom client accept {name}`; if not, `strongroom rollback {name}` brings back what was deleted"
    )]
    Held {
        /// The client.
        name: ClientName,
        /// What stands.
        why: String,
    },
    /// It is damaged.
    #[error(
        "{segments} of its segments are damaged, and a compaction would make that final; `strongroom client show {name}` says which, and `strongroom repair` puts sound ones in their place"
    )]
    Damaged {
        /// The client.
        name: ClientName,
        /// How many segments.
        segments: usize,
    },
    /// Parts were not checked lately.
    #[error("{why}; `strongroom check {name}` reads it now")]
    Unchecked {
        /// What.
        why: String,
        /// Whether a check failed, so that another one may fail as well.
        failed: bool,
        /// The client.
        name: ClientName,
    },
    /// A copy lacks the last transaction.
    #[error("the off-site copy at {target} is {}; `strongroom push {name}` brings it up to date", .at.map_or_else(|| "not there yet".into(), |at| format!("at transaction {at} only")))]
    CopyBehind {
        /// The client.
        name: ClientName,
        /// The target.
        target: String,
        /// What it holds.
        at: Option<u64>,
    },
    /// It is held out. What its owner orders is done all the same; what happens by itself is not.
    #[error("it is paused; `strongroom client resume {0}` lets it in again")]
    Paused(ClientName),
    /// There is no copy.
    #[error(
        "it has no off-site copy, so what is freed exists nowhere any more; to do it all the same, add `--without-off-site-copy`"
    )]
    NoCopy,
    /// The clock can't be believed, and so neither can the ages of checks.
    #[error(
        "the clock isn't synchronised, so it can't be told how old the last check is; `strongroom status` says more"
    )]
    Clock,
    /// There is nothing after it.
    #[error("transaction {0} is the last one: there is nothing to undo")]
    NothingAfter(u32),
    /// It is not known.
    #[error("there is no transaction {0}; `strongroom rollback {1}` lists those that can be gone back to")]
    NoTransaction(u32, ClientName),
    /// Segments that it needs are gone.
    #[error(
        "transaction {to} can't be brought back: {why}; the oldest that can is {floor}. An off-site copy may still hold it: `strongroom restore`"
    )]
    BelowFloor {
        /// What was asked for.
        to: u32,
        /// The oldest that can be brought back.
        floor: u32,
        /// Why.
        why: &'static str,
    },
    /// It isn't as it was when it was looked at.
    #[error(
        "its segments or settings are not those that were seen before; `strongroom check {0}`, then look at `strongroom client show {0}`"
    )]
    Altered(ClientName),
    /// It is another one than was confirmed.
    #[error("the repository has changed meanwhile: its last transaction is {now}, not {seen}. Look again")]
    Changed {
        /// What was confirmed.
        seen: u32,
        /// What is there.
        now: u32,
    },
    /// A segment is not damaged.
    #[error("segment {0} is what it was when it was committed: there is nothing to repair")]
    Sound(u32),
    /// A segment is not there, and does not belong there.
    #[error(
        "the repository has no segment {0}, and should have none: it was never committed, or a compaction or a rollback took it out"
    )]
    NoSegment(u32),
    /// It can't be told what a segment was.
    #[error(
        "what segment {segment} was isn't known, so nothing that comes in can be compared with it: it was not read here before it was damaged, and {}. `strongroom restore {name}` brings the repository back as a whole", .copies.words()
    )]
    Unwitnessed {
        /// The client.
        name: ClientName,
        /// The segment.
        segment: u32,
        /// What the ledgers of its off-site copies say.
        copies: repair::Copies,
    },
}

/// Sessions, in a few words.
fn listed(sessions: &[String]) -> String {
    if sessions.is_empty() {
        "see `strongroom sessions`".into()
    } else {
        sessions.join(", ")
    }
}

fn first(sessions: &[String]) -> &str {
    sessions.first().map_or("ID", String::as_str)
}

/// What keeps the jobs off.
pub struct Surroundings<'a> {
    /// Whether the array is mounted.
    pub mounted: bool,
    /// Its sessions that are running.
    pub sessions: &'a [String],
    /// A job that is reading the repository.
    pub busy: Option<&'static str>,
    /// The job that stands.
    pub standing: Option<Work>,
    /// The repository's last transaction, as it is now.
    pub transaction: Option<u32>,
    /// What is remembered of it.
    pub record: &'a crate::watch::Record,
}

/// What stands against any job, and from which everything else follows.
fn closed(around: &Surroundings<'_>) -> Option<Obstacle> {
    match around.standing {
        Some(work) => Some(Obstacle::UnderWay(work)),
        None => (!around.mounted).then_some(Obstacle::NotMounted),
    }
}

/// Who else is at the repository.
fn in_use(around: &Surroundings<'_>) -> Vec<Obstacle> {
    let connected = (!around.sessions.is_empty()).then(|| Obstacle::Connected(around.sessions.to_vec()));
    connected.into_iter().chain(around.busy.map(Obstacle::Busy)).collect()
}

/// What stands against a compaction or a rollback.
fn common(around: &Surroundings<'_>) -> Vec<Obstacle> {
    let no_backup = || around.transaction.is_none().then_some(Obstacle::NoBackup);
    if let Some(obstacle) = closed(around).or_else(no_backup) {
        return vec![obstacle];
    }
    let mut all = Vec::new();
    if !around.record.failed.is_empty() {
        all.push(Obstacle::Unreadable(around.record.failed.trim_end_matches('.').into()));
    } else if around.record.audited != around.transaction {
        all.push(Obstacle::Behind);
    }
    all.extend(in_use(around));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_instance_is_none() {
        for bad in [
            "",
            "asus",
            "asus:",
            "asus:1:",
            "asus:01",
            "asus:+1",
            "asus:1:2:3",
            "../x:1",
            "A:1",
            "asus:-1",
            "asus:segment",
            "asus:segment:",
            "asus:segment:01",
            "asus:segment:1:2",
        ] {
            assert_eq!(Work::of_instance(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn instances_round_trip(name in "[a-z0-9_][a-z0-9_-]{0,30}", transaction in any::<u32>(), to in any::<u32>()) {
            let client = ClientName::new(&name).unwrap();
            for work in [
                Work::Compact { transaction },
                Work::RollBack { transaction, to },
                Work::Repair { segment: transaction },
            ] {
                prop_assert_eq!(Work::of_instance(&work.instance(&client)), Some((client.clone(), work)));
            }
        }
    }
}
