//! A snapshot for tests.

use super::topics::Topics;
use strongroom_model::condition::{Condition, ConditionId, Health, Severity};
use strongroom_model::drill::LastDrill;
use strongroom_model::events::Events;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::{
    ArrayState, Behind, Client, ClockState, ClockStep, Disk, DiskHealth, DiskRole, RepositoryState, Status, Target,
    TimeSource, TimeSourceState,
};
use strongroom_model::verification::Compared;

pub(crate) fn topics() -> Topics {
    Topics::new("strongroom_0a1b2c3d", "homeassistant")
}

/// Two clients; the first has a target whose last push failed.
pub(crate) fn sample() -> Status {
    let mut status = Status {
        health: Health::Warning,
        ..Status::default()
    };
    status.appliance.id = "strongroom_0a1b2c3d".into();
    status.appliance.hostname = "backup".into();
    status.appliance.release = "0.1.0".into();
    status.appliance.booted = Some(1_700_000_000);
    status.clock.state = ClockState::Synchronised;
    status.clock.offset_ns = -120_000;
    status.clock.stratum = 3;
    status.clock.last_step = Some(ClockStep {
        by_ms: 1_500,
        at: Some(1_700_000_000),
        at_start: true,
    });
    let source = TimeSource {
        name: "192.168.1.1".into(),
        state: TimeSourceState::Followed,
        reach: 0o377,
        ..TimeSource::default()
    };
    let _ = status.clock.servers.push(source);
    status.array.state = ArrayState::Mounted;
    status.array.size_bytes = 4_000_000;
    status.array.used_bytes = 1_000_000;
    status.array.days_until_full = Some(40);
    status.array.last_scrub = Some(1_700_000_000);
    for (serial, role) in [("WD-1/X", DiskRole::Data), ("STICK", DiskRole::Other)] {
        let disk = Disk {
            serial: serial.into(),
            role,
            health: DiskHealth::Good,
            temperature: Some(34),
            ..Disk::default()
        };
        status.disks.push(disk).unwrap();
    }
    let mut first = Client {
        name: ClientName::new("asus_home").unwrap(),
        repository: RepositoryState::Present,
        size_bytes: 1_000_000,
        quota_bytes: Some(1_000_000),
        quota_used_bytes: Some(805_000),
        transaction: Some(17),
        last_backup: Some(1_700_010_000),
        archives: Some(3),
        checked: Some(1_700_006_400),
        compared: Compared::NeedKey,
        damaged: 1,
        drill: LastDrill {
            whole: Some(1_700_000_000),
            seconds: Some(840),
            ..LastDrill::default()
        },
        next_push: Some(1_700_101_800),
        ..Client::default()
    };
    let target = Target {
        name: TargetName::new("oracle").unwrap(),
        transaction: Some(13),
        last_push: Some(1_700_013_600),
        verified: Some(1_700_013_605),
        behind: Some(Behind {
            transactions: 2,
            bytes: 4096,
        }),
        error: "no route".into(),
        ..Target::default()
    };
    first.targets.push(target).unwrap();
    status.clients.push(first).unwrap();
    status
        .clients
        .push(Client {
            name: ClientName::new("laptop").unwrap(),
            ..Client::default()
        })
        .unwrap();
    status.conditions.raise(Condition::new(
        ConditionId::PushFailed,
        Severity::Warning,
        "asus_home",
        "a",
        "b",
    ));
    let mut events = Events::default();
    events.note(
        &Status {
            health: Health::Good,
            ..Status::default()
        },
        &status,
        Some(1_700_000_000),
    );
    status.events = events;
    status
}
