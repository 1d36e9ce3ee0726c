use super::*;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::DiskHealth;

const NOW: u64 = 1_700_000_000;

fn healthy() -> Status {
    let mut status = Status {
        health: Health::Good,
        ..Status::default()
    };
    status.appliance.hostname = "backup".into();
    status.appliance.release = "0.1.0".into();
    status.appliance.addresses.push("192.168.1.10".into()).unwrap();
    status.appliance.host_key = "SHA256:uNiVztksCsDhcc0u9e8BrqJXG36HR6cBbvQ4IQSQnGg".into();
    status.appliance.booted = Some(NOW - 7200);
    status.clock = Clock {
        state: ClockState::Synchronised,
        error_ns: 15_000_000,
        stratum: 3,
        source: "192.168.1.1".into(),
        ..Clock::default()
    };
    status.array.state = ArrayState::Mounted;
    status.array.size_bytes = 4 << 40;
    status.array.used_bytes = 1 << 40;
    add_client(&mut status, "asus_home", "");
    status
}

fn add_client(status: &mut Status, name: &str, error: &str) {
    let mut client = Client {
        name: ClientName::new(name).unwrap(),
        repository: RepositoryState::Present,
        size_bytes: 120 << 30,
        transaction: Some(17),
        last_backup: Some(NOW - 3 * 3600),
        ..Client::default()
    };
    let name = TargetName::new("oracle").unwrap();
    let target = Target {
        name,
        last_push: Some(NOW - 3600),
        error: error.into(),
        ..Target::default()
    };
    client.targets.push(target).unwrap();
    status.clients.push(client).unwrap();
}

fn raise(status: &mut Status, id: ConditionId, severity: Severity, subject: &str, text: &str) {
    status.conditions.raise(Condition::new(
        id,
        severity,
        subject,
        text,
        "Do this and that about it.",
    ));
    status.health = status.conditions.health();
}

/// What a terminal would show, after checking that every escape is one of ours.
fn shown(screen: &str) -> Vec<String> {
    let mut text = screen.to_string();
    for escape in ["H", "2K", "J", "0m", "1m", "2m", "1;31m", "1;32m", "1;33m"].map(|escape| format!("\x1b[{escape}")) {
        text = text.replace(&escape, "");
    }
    let lines: Vec<String> = text.split("\r\n").map(String::from).collect();
    assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
    lines
}

#[test]
fn a_healthy_screen() {
    let lines = shown(&render(&healthy(), NOW, 80, 24));
    let text = lines.join("\n");
    for part in [
        "Strongroom  backup",
        "release 0.1.0",
        "Health     good",
        "Address    192.168.1.10",
        "SHA256:uNiVztksCsDhcc0u9e8BrqJXG36HR6cBbvQ4IQSQnGg",
        "synchronised to 192.168.1.1 within 15 ms, stratum 3",
        "mounted, 1.0 TiB of 4.0 TiB used (25 %)",
        "asus_home  3 h ago",
        "120 GiB",
        "oracle: 1 h ago",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(
        !text.contains("What to know") && !text.contains("What to do first"),
        "{text}"
    );
}

#[test]
fn without_configuration_it_says_what_to_do_first_and_which_disks_there_are() {
    let mut status = healthy();
    status.clients.clear();
    status.array = Default::default();
    status.array.state = ArrayState::NotReady;
    raise(
        &mut status,
        ConditionId::NotConfigured,
        Severity::Warning,
        "",
        "There is no configuration yet.",
    );
    let disk = Disk {
        serial: "WD-1".into(),
        model: "WDC".into(),
        kernel_name: "sdb".into(),
        size_bytes: 4 << 40,
        ..Disk::default()
    };
    status.disks.push(disk).unwrap();
    let text = shown(&render(&status, NOW, 80, 24)).join("\n");
    for part in [
        "What to do first",
        "1. Write strongroom.toml",
        "CONFIG",
        "3. Start",
        "WD-1",
        "sdb WDC",
        "192.168.1.10",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn members_show_their_health_and_the_array_its_outlook() {
    let mut status = healthy();
    for (serial, health, temperature) in [("WD-1", DiskHealth::Aging, Some(51)), ("S-2", DiskHealth::Good, None)] {
        let disk = Disk {
            serial: serial.into(),
            member: true,
            health,
            temperature,
            ..Disk::default()
        };
        status.disks.push(disk).unwrap();
    }
    status.array.days_until_full = Some(40);
    status.array.last_scrub = Some(NOW - 3 * 86_400);
    let text = shown(&render(&status, NOW, 100, 24)).join("\n");
    for part in ["WD-1 aging, 51 °C; S-2 good", "full in about 40 d", "scrubbed 3 d ago"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_refused_configuration_shows_its_fault_rather_than_the_guide() {
    let mut status = healthy();
    raise(
        &mut status,
        ConditionId::NotConfigured,
        Severity::Warning,
        "",
        "There is no configuration yet.",
    );
    let fault = "strongroom.toml, line 7: unknown field `hots`.";
    raise(
        &mut status,
        ConditionId::ConfigRefused,
        Severity::Warning,
        "strongroom.toml",
        fault,
    );
    let text = shown(&render(&status, NOW, 80, 24)).join("\n");
    assert!(text.contains("line 7") && !text.contains("What to do first"), "{text}");
}

#[test]
fn conditions_come_with_their_advice_and_a_running_job_with_its_bar() {
    let mut status = healthy();
    raise(
        &mut status,
        ConditionId::PushFailed,
        Severity::Alarm,
        "laptop",
        "The push failed: no way leads there.",
    );
    let (client, target) = (
        ClientName::new("asus_home").unwrap(),
        TargetName::new("oracle").unwrap(),
    );
    let running = Job {
        kind: JobKind::Push,
        client: Some(client),
        target: Some(target),
        done_bytes: 45 << 20,
        total_bytes: 100 << 20,
    };
    status.jobs.push(running).unwrap();
    let screen = render(&status, NOW, 80, 24);
    assert!(screen.contains("\x1b[1;31m !! laptop: The push failed"), "{screen:?}");
    let text = shown(&screen).join("\n");
    for part in [
        "ALARM",
        "    Do this and that",
        "push asus_home to oracle  [#########-----------]  45 %  45 MiB of 100 MiB",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn it_never_exceeds_the_terminal_and_keeps_its_head() {
    let mut status = healthy();
    for number in 0..63 {
        add_client(&mut status, &format!("client{number}"), "refused");
    }
    for number in 0..70 {
        let long = "what happened is a long story that needs several lines ".repeat(4);
        raise(
            &mut status,
            ConditionId::PushFailed,
            Severity::Warning,
            &format!("client{number}"),
            &long,
        );
    }
    for (columns, rows) in [
        (80, 24),
        (80, 25),
        (40, 24),
        (132, 50),
        (20, 10),
        (10, 3),
        (1, 1),
        (0, 0),
    ] {
        let lines = shown(&render(&status, NOW, columns, rows));
        assert!(lines.len() <= rows.max(1), "{columns}×{rows}: {}", lines.len());
        assert!(
            lines.iter().all(|line| line.chars().count() <= columns),
            "{columns}×{rows}"
        );
        if (columns, rows) == (80, 24) {
            let text = lines.join("\n");
            for part in [
                "192.168.1.10",
                "SHA256:",
                "What to know",
                "Clients",
                "more: `strongroom status`",
            ] {
                assert!(text.contains(part), "{part} in\n{text}");
            }
        }
    }
}

#[test]
fn an_empty_snapshot_is_a_start_and_nothing_breaks() {
    let text = shown(&render(&Status::default(), 0, 80, 24)).join("\n");
    assert!(text.contains("starting") && text.contains("is the cable in?"), "{text}");
}

#[test]
fn text_from_outside_cannot_steer_the_terminal() {
    let mut status = healthy();
    status.clients.clear();
    add_client(&mut status, "a", "\x1b[31mred");
    status.appliance.hostname = "evil\x1b]0;title\x07".into();
    raise(
        &mut status,
        ConditionId::ConfigRefused,
        Severity::Warning,
        "\r\n",
        "line\nline\x1b[2J",
    );
    shown(&render(&status, NOW, 80, 24));
    let text = status_text(&status, NOW);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn plain_text_has_everything() {
    let mut status = healthy();
    for number in 0..63 {
        add_client(&mut status, &format!("client{number}"), "refused");
    }
    raise(
        &mut status,
        ConditionId::ClientSilent,
        Severity::Warning,
        "client7",
        "client7 has been silent for 3 days.",
    );
    let text = status_text(&status, NOW);
    assert!(
        text.contains("client62") && text.contains("oracle: FAILED, last 1 h ago"),
        "{text}"
    );
    assert!(text.contains("  ! client7 has been silent"), "{text}");
    assert!(
        !text.contains('\x1b') && text.ends_with('\n') && !text.contains(" \n"),
        "{text:?}"
    );
}
