//! What to say of off-site copies. Pure.

use crate::condition::{Condition, ConditionId, Severity};
use crate::name::{ClientName, TargetName};
use crate::status::{Client, RepositoryState, Target};
use alloc::format;
use alloc::vec::Vec;

/// A copy that lags behind for longer than this is an alarm: RAID0 has no other second copy. Seconds.
pub const LAG_ALARM: u64 = 3 * 24 * 3600;

/// Decides what a person should know about the copies of one client. `now` is `None` while the clock isn't trusted. `disks`
/// are the targets that are plugged in now and then: what there is to say of those is in [`crate::disk_copy`].
pub fn decide(client: &Client, disks: &[TargetName], now: Option<u64>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if client.targets.is_empty() {
        conditions.push(Condition::new(
            ConditionId::NoTarget,
            Severity::Warning,
            client.name.as_str(),
            &format!(
                "{} has no off-site copy; if either disk dies, its backups are lost.",
                client.name
            ),
            "Add an [[offsite.target]] to strongroom.toml; docs/offsite.md shows how.",
        ));
    }
    conditions.extend(
        client
            .targets
            .iter()
            .filter_map(|target| of_target(client, target, disks.contains(&target.name), now)),
    );
    conditions
}

/// What to say of a manifest that claims to be newer than what was pushed, and is not this appliance's.
pub fn manifest_distrusted(client: &ClientName, target: &TargetName, manifest: &str, why: &str) -> Condition {
    Condition::new(
        ConditionId::ManifestDistrusted,
        Severity::Warning,
        &format!("{client}@{target}"),
        &format!(
            "The copy of {client} at {target} holds {manifest}, which claims to be newer than what was pushed and is not this appliance's: {why}. It is not believed."
        ),
        "Find out who else may write to the bucket, and give out new credentials. Restore with --signer and, as long as it is there, --transaction; whoever owns the bucket may delete it. docs/offsite.md tells more.",
    )
}

/// What to say when objects that nothing needs any more were to be deleted and could not be.
pub fn retirement_hindered(client: &ClientName, target: &TargetName, why: &str) -> Condition {
    Condition::new(
        ConditionId::RetirementHindered,
        Severity::Info,
        &format!("{client}@{target}"),
        &format!("Objects of {client} at {target} that nothing needs any more could not be deleted: {why}"),
        "Nothing is lost; they only go on costing. It is tried again with each push. Where the credentials may not delete, leave `retire` out; docs/offsite.md tells more.",
    )
}

fn of_target(client: &Client, target: &Target, is_disk: bool, now: Option<u64>) -> Option<Condition> {
    let subject = format!("{}@{}", client.name, target.name);
    if client.repository == RepositoryState::Empty
        && let Some(transaction) = target.transaction
    {
        return Some(Condition::new(
            ConditionId::RepositoryGone,
            Severity::Alarm,
            &subject,
            &format!(
                "The repository of {} is gone from the array; its copy at {} holds transaction {transaction}.",
                client.name, target.name
            ),
            "Restore it with `strongroom restore` before the client runs `borg init`; docs/offsite.md shows how.",
        ));
    }
    if is_disk {
        return None;
    }
    // Nothing was committed, so there is nothing to push.
    client.transaction?;
    let behind = client.transaction != target.transaction;
    let since = target.last_push.or(client.last_backup);
    let long = behind
        && now
            .zip(since)
            .is_some_and(|(now, since)| now.saturating_sub(since) > LAG_ALARM);
    let severity = if long { Severity::Alarm } else { Severity::Warning };
    if !target.error.is_empty() {
        return Some(Condition::new(
            ConditionId::PushFailed,
            severity,
            &subject,
            &format!(
                "The push of {} to {} failed: {}",
                client.name, target.name, target.error
            ),
            "It is tried again by itself, less and less often. Nothing is lost: the last complete copy stays restorable.",
        ));
    }
    if target.transaction.is_some() && !long {
        return None;
    }
    let text = if target.transaction.is_some() {
        format!(
            "The copy of {} at {} has been behind for more than three days.",
            client.name, target.name
        )
    } else {
        format!("{} has not been copied to {} yet.", client.name, target.name)
    };
    Some(Condition::new(
        if target.transaction.is_some() {
            ConditionId::CopyBehind
        } else {
            ConditionId::NeverPushed
        },
        if long { Severity::Alarm } else { Severity::Info },
        &subject,
        &text,
        "It happens at the next scheduled time, or now with `strongroom push`. If that does not help, its log says why: `journalctl --unit 'strongroom-push@*'`.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    fn client(transaction: Option<u64>, target: Option<Target>) -> Client {
        Client {
            name: ClientName::new("asus").unwrap(),
            transaction,
            last_backup: transaction.map(|_| 1_000_000),
            targets: target.into_iter().collect(),
            ..Client::default()
        }
    }

    fn target(transaction: Option<u64>, last_push: Option<u64>, error: &str) -> Target {
        Target {
            name: TargetName::new("oracle").unwrap(),
            transaction,
            last_push,
            error: error.into(),
            ..Target::default()
        }
    }

    fn ids(client: &Client, now: Option<u64>) -> Vec<(ConditionId, Severity)> {
        decide(client, &[], now)
            .into_iter()
            .map(|c| (c.id, c.severity))
            .collect()
    }

    #[test]
    fn no_target_is_a_warning() {
        assert_eq!(
            ids(&client(Some(5), None), None),
            [(ConditionId::NoTarget, Severity::Warning)]
        );
    }

    #[test]
    fn nothing_committed_needs_no_copy() {
        assert_eq!(ids(&client(None, Some(target(None, None, ""))), Some(9_000_000)), []);
    }

    #[test]
    fn a_copy_that_is_current_is_fine_however_old() {
        assert_eq!(
            ids(&client(Some(5), Some(target(Some(5), Some(1), ""))), Some(9_000_000)),
            []
        );
    }

    #[test]
    fn a_failing_push_becomes_an_alarm_in_time() {
        let failing = client(Some(6), Some(target(Some(5), Some(1_000_000), "refused")));
        assert_eq!(
            ids(&failing, Some(1_000_100)),
            [(ConditionId::PushFailed, Severity::Warning)]
        );
        assert_eq!(
            ids(&failing, Some(1_000_000 + LAG_ALARM + 1)),
            [(ConditionId::PushFailed, Severity::Alarm)]
        );
        assert_eq!(ids(&failing, None), [(ConditionId::PushFailed, Severity::Warning)]);
    }

    #[test]
    fn a_copy_that_silently_stays_behind_is_an_alarm() {
        let behind = client(Some(6), Some(target(Some(5), Some(1_000_000), "")));
        assert_eq!(ids(&behind, Some(1_000_100)), []);
        assert_eq!(
            ids(&behind, Some(1_000_000 + LAG_ALARM + 1)),
            [(ConditionId::CopyBehind, Severity::Alarm)]
        );
    }

    #[test]
    fn a_repository_that_vanished_is_not_taken_for_a_new_one() {
        let mut gone = client(None, Some(target(Some(5), Some(1_000_000), "")));
        gone.repository = RepositoryState::Empty;
        assert_eq!(ids(&gone, None), [(ConditionId::RepositoryGone, Severity::Alarm)]);
    }

    #[test]
    fn never_pushed_is_told() {
        let new = client(Some(6), Some(target(None, None, "")));
        assert_eq!(ids(&new, Some(1_000_100)), [(ConditionId::NeverPushed, Severity::Info)]);
        assert_eq!(
            ids(&new, Some(1_000_000 + LAG_ALARM + 1)),
            [(ConditionId::NeverPushed, Severity::Alarm)]
        );
    }
}
