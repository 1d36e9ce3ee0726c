//! What to say of a client, from what its repository shows. Pure.

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::ClientName;
use crate::status::{Client, RepositoryState};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How long after a start of the appliance a client may be without a first backup before it is a warning, in seconds.
pub const FIRST_BACKUP_GRACE: u64 = 24 * 3600;

/// Share of its quota that a client may use before it is a warning, in per cent.
pub const QUOTA_WARNING_PERCENT: u8 = 80;
/// Share at which it is an alarm: the next backup may fail.
pub const QUOTA_ALARM_PERCENT: u8 = 95;

/// What was observed of one client's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is there.
    pub repository: RepositoryState,
    /// Why it could not be read.
    pub error: Option<String>,
    /// When the last transaction was committed, Unix seconds.
    pub last_backup: Option<u64>,
}

/// Decides what a person should know about a client.
///
/// `expect_hours` is the longest silence that is still usual; `now` and `booted` are Unix seconds, and `now` is `None`
/// while the clock isn't trusted: then nothing is said about ages.
pub fn decide(
    name: &ClientName,
    expect_hours: u32,
    observation: &Observation,
    now: Option<u64>,
    booted: Option<u64>,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut raise = |id, severity, text: String, advice: &str| {
        conditions.push(Condition::new(id, severity, name.as_str(), &text, advice));
    };
    match observation.repository {
        RepositoryState::Unknown => {}
        RepositoryState::Unreadable => raise(
            ConditionId::RepositoryUnreadable,
            Severity::Alarm,
            format!(
                "The repository of {name} can't be read: {}",
                observation.error.as_deref().unwrap_or("no reason is known")
            ),
            "Run `borg check` on the client, and restore damaged files from the off-site copy.",
        ),
        RepositoryState::Empty => {
            let waited = now
                .zip(booted)
                .map(|(now, booted)| now.saturating_sub(booted))
                .unwrap_or(0);
            let severity = if waited > FIRST_BACKUP_GRACE {
                Severity::Warning
            } else {
                Severity::Info
            };
            raise(
                ConditionId::ClientNeverSeen,
                severity,
                format!("{name} has never made a backup."),
                &format!("`strongroom client kit {name}` shows what to do on the client; docs/clients.md tells more."),
            );
        }
        RepositoryState::Present => match (observation.last_backup, now) {
            (Some(last), Some(now)) => {
                let hours = now.saturating_sub(last) / 3600;
                if hours >= u64::from(expect_hours) {
                    raise(
                        ConditionId::ClientSilent,
                        Severity::Warning,
                        format!("{name} has not made a backup for {hours} hours; it is expected every {expect_hours}."),
                        "See whether the client is on and what its backup script says.",
                    );
                }
            }
            (None, _) => raise(
                ConditionId::ClientNeverSeen,
                Severity::Info,
                format!("{name} has a repository, but no backup was ever completed."),
                "Run `borg create` on the client.",
            ),
            (Some(_), None) => {}
        },
    }
    conditions
}

/// How much of its quota a client has used, in tenths of a per cent; none without a quota, or before its repository was
/// looked at.
pub fn quota_used_permille(client: &Client) -> Option<u64> {
    let quota = client.quota_bytes.filter(|quota| *quota > 0)?;
    let used = client.quota_used_bytes?;
    u64::try_from(u128::from(used) * 1000 / u128::from(quota)).ok()
}

/// Decides whether a client comes too near its quota. The repository is append-only: deleting gives nothing back, so a
/// client that has reached its quota can do nothing about it.
pub fn quota(client: &Client) -> Option<Condition> {
    let permille = quota_used_permille(client)?;
    let severity = match permille / 10 {
        percent if percent >= u64::from(QUOTA_ALARM_PERCENT) => Severity::Alarm,
        percent if percent >= u64::from(QUOTA_WARNING_PERCENT) => Severity::Warning,
        _ => return None,
    };
    let name = client.name.as_str();
    let room = client.quota_bytes?.saturating_sub(client.quota_used_bytes?);
    let text = match room {
        0 => format!("{name} has used up its quota: it can't back up any more."),
        _ => format!(
            "{name} has used {} % of its quota; {} are left. When they are used up, it can't back up any more.",
            permille / 10,
            decimal(room)
        ),
    };
    Some(Condition::new(
        ConditionId::QuotaNearlyReached,
        severity,
        name,
        &text,
        "Raise its quota (`strongroom client set`, or `quota` in its [[client]] of strongroom.toml). Deleting archives on the client gives nothing back: the repository is append-only, so only a compaction on the appliance does.",
    ))
}

/// A size in the units in which quotas are written.
fn decimal(bytes: u64) -> String {
    match bytes {
        1_000_000_000_000.. => format!("{} TB", tenths(bytes, 1_000_000_000_000)),
        1_000_000_000.. => format!("{} GB", tenths(bytes, 1_000_000_000)),
        _ => format!("{} MB", tenths(bytes, 1_000_000)),
    }
}

fn tenths(bytes: u64, unit: u64) -> String {
    format!("{}.{}", bytes / unit, bytes % unit / (unit / 10))
}

/// That a client is held out.
pub fn paused(name: &ClientName) -> Condition {
    Condition::new(
        ConditionId::ClientPaused,
        Severity::Info,
        name.as_str(),
        &format!("{name} is paused: it can neither back up nor restore."),
        "`strongroom client resume` with its name lets it in again.",
    )
}

/// What is to be known of repositories on the array that belong to no client, as on one that was made elsewhere. `names`
/// are without the ending `_repository`.
pub fn unclaimed(names: &[String]) -> Option<Condition> {
    let first = names.first()?;
    let shown: Vec<String> = names
        .iter()
        .take(5)
        .map(|name| format!("{name:.40}_repository"))
        .collect();
    let more = names.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let advice = match ClientName::new(first) {
        Ok(name) => format!(
            "They are kept as they are. To go on with one, enrol its client (`strongroom client pair {name}`), or add it to strongroom.toml: [[client]] name = \"{name}\", keys = [\"ssh-ed25519 …\"]."
        ),
        Err(_) => "They are kept as they are. Before `_repository`, the name must be that of a client (`a-z 0-9 _ -`, at most 31): rename the folder on another computer, then add its [[client]].".into(),
    };
    Some(Condition::new(
        ConditionId::RepositoryUnclaimed,
        Severity::Info,
        "",
        &format!(
            "On the array are repositories that belong to no client: {}{more}.",
            shown.join(", ")
        ),
        &advice,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn present(last_backup: Option<u64>) -> Observation {
        Observation {
            repository: RepositoryState::Present,
            error: None,
            last_backup,
        }
    }

    fn ids(observation: &Observation, now: Option<u64>) -> Vec<(ConditionId, Severity)> {
        let name = ClientName::new("asus").unwrap();
        decide(&name, 48, observation, now, Some(0))
            .into_iter()
            .map(|c| (c.id, c.severity))
            .collect()
    }

    #[test]
    fn silence_is_told_once_it_is_unusual() {
        let hour = 3600;
        assert_eq!(ids(&present(Some(1000)), Some(1000 + 47 * hour)), []);
        assert_eq!(
            ids(&present(Some(1000)), Some(1000 + 48 * hour)),
            [(ConditionId::ClientSilent, Severity::Warning)]
        );
    }

    #[test]
    fn without_a_trusted_clock_ages_are_not_judged() {
        assert_eq!(ids(&present(Some(1)), None), []);
    }

    #[test]
    fn a_new_client_has_a_day() {
        let empty = Observation {
            repository: RepositoryState::Empty,
            error: None,
            last_backup: None,
        };
        assert_eq!(ids(&empty, Some(60)), [(ConditionId::ClientNeverSeen, Severity::Info)]);
        assert_eq!(
            ids(&empty, Some(2 * 86400)),
            [(ConditionId::ClientNeverSeen, Severity::Warning)]
        );
        assert_eq!(ids(&empty, None), [(ConditionId::ClientNeverSeen, Severity::Info)]);
    }

    #[test]
    fn an_unreadable_repository_is_an_alarm_with_its_reason() {
        let name = ClientName::new("asus").unwrap();
        let bad = Observation {
            repository: RepositoryState::Unreadable,
            error: Some("version 2".into()),
            last_backup: None,
        };
        let conditions = decide(&name, 48, &bad, Some(0), Some(0));
        assert_eq!(conditions[0].severity, Severity::Alarm);
        assert!(conditions[0].text.contains("version 2"));
    }

    proptest! {
        #[test]
        fn a_backup_in_the_future_is_never_silence(last in 0u64..u64::MAX, now in 0u64..u64::MAX) {
            prop_assume!(last >= now);
            prop_assert!(ids(&present(Some(last)), Some(now)).is_empty());
        }
    }

    fn with_quota(quota: Option<u64>, used: Option<u64>) -> Client {
        Client {
            name: ClientName::new("asus").unwrap(),
            quota_bytes: quota,
            quota_used_bytes: used,
            ..Client::default()
        }
    }

    #[test]
    fn a_quota_is_told_before_it_is_reached() {
        let severity = |quota, used| super::quota(&with_quota(quota, used)).map(|condition| condition.severity);
        let full = Some(1000);
        assert_eq!(severity(None, full), None);
        assert_eq!(severity(full, None), None);
        assert_eq!(severity(Some(0), full), None);
        assert_eq!(severity(full, Some(799)), None);
        assert_eq!(severity(full, Some(800)), Some(Severity::Warning));
        assert_eq!(severity(full, Some(949)), Some(Severity::Warning));
        assert_eq!(severity(full, Some(950)), Some(Severity::Alarm));
        assert_eq!(severity(full, Some(u64::MAX)), Some(Severity::Alarm));
    }

    #[test]
    fn how_much_is_left_is_told_in_the_units_of_quotas() {
        let told = |quota, used| super::quota(&with_quota(Some(quota), Some(used))).unwrap();
        let condition = told(500_000_000_000, 405_500_000_000);
        assert_eq!(
            condition.text.as_str(),
            "asus has used 81 % of its quota; 94.5 GB are left. When they are used up, it can't back up any more."
        );
        assert!(
            condition
                .advice
                .contains("Deleting archives on the client gives nothing back")
        );
        assert!(!condition.advice.ends_with('…'), "{}", condition.advice);
        assert!(told(20_000_000, 19_500_000).text.contains("0.5 MB"));
        assert!(told(9_000_000_000_000, 7_800_000_000_000).text.contains("1.2 TB"));
        assert!(told(10, 11).text.contains("has used up its quota"));
    }

    proptest! {
        #[test]
        fn no_quota_makes_it_panic_and_less_use_is_never_worse(quota in any::<u64>(), one in any::<u64>(), other in any::<u64>()) {
            let severity = |used| super::quota(&with_quota(Some(quota), Some(used))).map(|condition| condition.severity);
            prop_assert!(severity(one.min(other)) <= severity(one.max(other)));
        }
    }

    #[test]
    fn unclaimed_repositories_are_named_with_what_to_write() {
        assert_eq!(unclaimed(&[]), None);
        let names = |all: &[&str]| {
            all.iter()
                .map(|name| std::string::String::from(*name))
                .collect::<Vec<_>>()
        };
        let condition = unclaimed(&names(&["asus_home", "old"])).unwrap();
        assert!(
            condition.text.contains("asus_home_repository, old_repository."),
            "{condition:?}"
        );
        assert!(condition.advice.contains("name = \"asus_home\""), "{condition:?}");
        assert!(
            unclaimed(&names(&["My Laptop"]))
                .unwrap()
                .advice
                .contains("rename the folder")
        );
        let long = "x".repeat(250);
        let many = unclaimed(&names(&[long.as_str(); 9])).unwrap();
        assert!(
            many.text.contains("and 4 more") && !many.text.ends_with('…'),
            "{many:?}"
        );
    }
}
