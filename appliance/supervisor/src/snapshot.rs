//! The one snapshot: every duty's part put together. Pure.

use crate::disks::Disks;
use crate::offsite::Offsite;
use crate::report::Report;
use crate::watch::Watch;
use std::collections::BTreeSet;
use strongroom_model::condition::{Condition, Conditions, Health};
use strongroom_model::name::ClientName;
use strongroom_model::status::{Appliance, Client, Clock, Job, STATUS_VERSION, Status};

/// What every duty and face last reported.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Identity, and conditions of the appliance as a whole.
    pub appliance: Report<Appliance>,
    /// The clock.
    pub clock: Report<Clock>,
    /// Disks and array.
    pub disks: Report<Disks>,
    /// Clients' repositories.
    pub clients: Report<Vec<Client>>,
    /// Off-site copies.
    pub offsite: Report<Offsite>,
    /// What clients did, and whether their repositories are sound.
    pub watch: Report<Watch>,
    /// Compactions, rollbacks and repairs that are running.
    pub upkeep: Report<Vec<Job>>,
    /// The connection to the broker.
    pub mqtt: Report<()>,
    /// Duties that have stopped.
    pub duties: Vec<Condition>,
    /// Notices and metrics that do not get out.
    pub exits: Vec<Condition>,
    /// How many clients are configured, and how many of them have a target: the duties have reported for the first
    /// time once they have spoken of that many.
    pub expected: (usize, usize),
    /// Clients that are configured without a target. Of any other without one, the duty has not spoken yet.
    pub without_target: BTreeSet<ClientName>,
}

/// Puts the snapshot together. `now` is Unix seconds, `None` while the clock isn't trusted.
pub fn compose(reports: &Reports, now: Option<u64>) -> Box<Status> {
    let mut status = Box::<Status>::default();
    status.version = STATUS_VERSION;
    status.appliance = reports.appliance.part.clone();
    status.clock = reports.clock.part.clone();
    status.array = reports.disks.part.array.clone();
    status.disks = reports
        .disks
        .part
        .disks
        .iter()
        .take(status.disks.capacity())
        .cloned()
        .collect();
    let mut conditions = Conditions::default();
    for client in reports.clients.part.iter().take(status.clients.capacity()) {
        let mut client = client.clone();
        let looked = std::mem::take(&mut client.targets);
        let targets = reports.offsite.part.targets.get(&client.name);
        client.targets = targets
            .into_iter()
            .flatten()
            .take(client.targets.capacity())
            .cloned()
            .collect();
        for target in &mut client.targets {
            let same = looked.iter().find(|same| same.name == target.name);
            target.behind = same.and_then(|same| same.behind);
        }
        client.next_push = reports.offsite.part.next.get(&client.name).copied();
        if let Some(watched) = reports.watch.part.clients.get(&client.name) {
            watched.enter(&mut client);
        }
        if !client.targets.is_empty() || reports.without_target.contains(&client.name) {
            for condition in strongroom_model::offsite::decide(&client, &reports.offsite.part.disks, now) {
                conditions.raise(condition);
            }
        }
        let offsite = &reports.offsite.part;
        client.drill = offsite.drills.last(&client.name);
        let mut copied_since = None;
        for target in &client.targets {
            if let Some(check) = offsite.checks.get(&(client.name.clone(), target.name.clone())) {
                copied_since = Some(copied_since.map_or(check.since, |since: u64| since.min(check.since)));
                let told = strongroom_model::copy_check::decide(&client.name, &target.name, check, target.last_push);
                told.into_iter().for_each(|condition| conditions.raise(condition));
            }
        }
        for condition in offsite
            .drills
            .decide(&client.name, copied_since, offsite.drill_days, now)
        {
            conditions.raise(condition);
        }
        if let Some(condition) = strongroom_model::clients::quota(&client) {
            conditions.raise(condition);
        }
        // There is room: the iterator was bounded above.
        let _ = status.clients.push(client);
    }
    let offsite = &reports.offsite.part;
    for recipient in &offsite.recipients {
        for condition in strongroom_model::recipient::decide(recipient, offsite.proof_required, now) {
            conditions.raise(condition);
        }
    }
    for condition in strongroom_model::scrub::decide(&reports.disks.part.scrubs, now) {
        conditions.raise(condition);
    }
    let jobs = reports.disks.part.scrub.iter();
    let jobs = jobs.chain(&reports.upkeep.part).chain(&reports.offsite.part.jobs);
    let jobs = jobs.chain(&reports.watch.part.jobs);
    status.jobs = jobs.take(status.jobs.capacity()).cloned().collect();
    let standing = [
        &reports.appliance.conditions,
        &reports.clock.conditions,
        &reports.disks.conditions,
        &reports.clients.conditions,
        &reports.offsite.conditions,
        &reports.watch.conditions,
        &reports.upkeep.conditions,
        &reports.mqtt.conditions,
        &reports.duties,
        &reports.exits,
    ];
    for condition in standing.into_iter().flatten() {
        conditions.raise(condition.clone());
    }
    let observed = status.array.state != Default::default()
        && !status.appliance.id.is_empty()
        && (reports.clients.part.len(), reports.offsite.part.targets.len()) == reports.expected;
    // What is wrong is told at once; that nothing is wrong, only after everybody has spoken.
    let bad = conditions.health() > Health::Good;
    status.health = if observed || bad {
        conditions.health()
    } else {
        Health::Starting
    };
    status.conditions = conditions;
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::condition::{ConditionId, Severity};
    use strongroom_model::name::TargetName;
    use strongroom_model::status::{ArrayState, Behind, Target};

    #[test]
    fn parts_and_conditions_come_together() {
        let name = ClientName::new("asus").unwrap();
        let mut reports = Reports::default();
        reports.appliance.part.id = "strongroom_1".into();
        reports.disks.part.array.state = ArrayState::Mounted;
        let behind = Some(Behind {
            transactions: 1,
            bytes: 500,
        });
        let looked = Target {
            name: TargetName::new("oracle").unwrap(),
            behind,
            ..Target::default()
        };
        reports.clients.part = vec![Client {
            name: name.clone(),
            transaction: Some(3),
            targets: [looked].into_iter().collect(),
            ..Client::default()
        }];
        reports.offsite.part.next.insert(name.clone(), 77);
        let target = Target {
            name: TargetName::new("oracle").unwrap(),
            error: "refused".into(),
            ..Target::default()
        };
        reports.offsite.part.targets.insert(name, vec![target]);
        let advice = Condition::new(ConditionId::StateLost, Severity::Alarm, "", "text", "advice");
        reports.appliance.conditions = vec![advice];
        assert_eq!(
            compose(&reports, None).health,
            Health::Alarm,
            "an alarm waits for nobody"
        );
        reports.expected = (1, 1);
        let status = compose(&reports, None);
        assert_eq!(status.health, Health::Alarm);
        let ids: Vec<_> = status.conditions.standing.iter().map(|c| c.id).collect();
        assert_eq!(ids, [ConditionId::StateLost, ConditionId::PushFailed]);
        assert_eq!(status.clients[0].targets.len(), 1);
        assert_eq!(status.clients[0].targets[0].behind, behind);
        assert_eq!(status.clients[0].targets[0].error.as_str(), "refused");
        assert_eq!(status.clients[0].next_push, Some(77));
    }

    #[test]
    fn before_the_first_observations_health_is_not_claimed() {
        assert_eq!(compose(&Reports::default(), None).health, Health::Starting);
    }

    #[test]
    fn a_copy_that_nobody_has_spoken_of_yet_is_not_missing() {
        let name = ClientName::new("asus").unwrap();
        let mut reports = Reports {
            expected: (1, 1),
            ..Reports::default()
        };
        reports.clients.part = vec![Client {
            name: name.clone(),
            ..Client::default()
        }];
        let status = compose(&reports, None);
        assert_eq!(status.conditions.standing.len(), 0, "{:?}", status.conditions);
        assert_eq!(status.health, Health::Starting);
        reports.without_target.insert(name);
        let status = compose(&reports, None);
        assert_eq!(status.conditions.standing[0].id, ConditionId::NoTarget);
    }

    #[test]
    fn more_clients_than_fit_do_no_harm() {
        let mut reports = Reports::default();
        reports.clients.part = vec![Client::default(); 100];
        assert_eq!(compose(&reports, None).clients.len(), 64);
    }
}
