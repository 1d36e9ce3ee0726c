use super::screen::{Size, render, render_silence};
use super::terminal::tests::written_whole;
use super::*;
use proptest::prelude::*;
use ratatui_core::buffer::Buffer;
use strongroom_model::events::Events;
use strongroom_model::name::{ClientName, TargetName};
use strongroom_model::status::DiskHealth;
use strongroom_model::verification::Compared;

const NOW: u64 = 1_700_000_000;

/// In a box: a test's stack has room for few.
fn healthy() -> Box<Status> {
    let mut status = Box::<Status>::default();
    status.health = Health::Good;
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

fn size(columns: u16, rows: u16) -> Size {
    Size { columns, rows }
}

/// The rows of a screen, after checking that what is written to the terminal holds no control of others.
fn rows(screen: &Buffer) -> Vec<String> {
    let written = written_whole(screen);
    assert!(!written.contains(char::is_control), "{written:?}");
    let area = screen.area;
    (0..area.height)
        .map(|y| {
            let row: String = (0..area.width).map(|x| screen[(x, y)].symbol()).collect();
            row.trim_end().to_string()
        })
        .collect()
}

/// The screen with what the QR code leaves of it, as text.
fn shown(status: &Status, columns: u16, rows_: u16) -> String {
    rows(&render(status, NOW, size(columns, rows_), None)).join("\n")
}

/// Whether the QR code is on the screen.
fn has_code(status: &Status, columns: u16, rows: u16) -> bool {
    render(status, NOW, size(columns, rows), None)
        .content
        .iter()
        .any(|cell| cell.bg == Color::Gray && cell.fg == Color::Black)
}

#[test]
fn a_healthy_screen() {
    let text = shown(&healthy(), 132, 24);
    for part in [
        "Strongroom  backup",
        "release 0.1.0",
        " GOOD   nothing needs attention",
        "Address    192.168.1.10",
        "SHA256:uNiVztksCsDhcc0u9e8BrqJXG36HR6cBbvQ4IQSQnGg",
        "synchronised to 192.168.1.1 within 15 ms, stratum 3",
        "mounted, 1.0 TiB of 4.0 TiB used (25 %)",
        "ssh admin@192.168.1.10",
        "ssh://borgbackup@192.168.1.10/mnt/raid/NAME_repository",
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
fn a_copy_tells_whether_it_was_verified() {
    let mut status = healthy();
    assert!(!status_text(&status, NOW).contains("verified"));
    status.clients[0].targets[0].verified = Some(NOW - 2 * 3600);
    let text = status_text(&status, NOW);
    assert!(
        text.contains("\n             copy at oracle verified 2 h ago; no restore tried\n"),
        "{text}"
    );
    let drill = &mut status.clients[0].drill;
    (drill.whole, drill.sample) = (Some(NOW - 30 * 86_400), Some(NOW - 3 * 86_400));
    let text = status_text(&status, NOW);
    assert!(
        text.contains("verified 2 h ago, restored whole 30 d ago, a sample 3 d ago\n"),
        "{text}"
    );
    status.clients[0].drill.failed = Some(NOW - 86_400);
    assert!(status_text(&status, NOW).contains(", FAILED 24 h ago\n"));
    assert!(
        !shown(&status, 132, 24).contains("verified"),
        "a screen is for what is wrong"
    );
    status.clients[0].targets[0].damaged = 2;
    assert!(shown(&status, 132, 24).contains("oracle: DAMAGED, last 1 h ago"));
}

#[test]
fn a_client_tells_of_its_checks_where_there_is_room() {
    let mut status = healthy();
    status.clients[0].checked = Some(NOW - 3 * 86_400);
    assert!(shown(&status, 132, 24).contains("oracle: 1 h ago; checked 3 d ago"));
    assert!(status_text(&status, NOW).contains("; checked 3 d ago, checksums only"));
    status.clients[0].compared = Compared::Whole;
    assert!(status_text(&status, NOW).contains("; checked 3 d ago, data too"));
    assert!(!shown(&status, 40, 24).contains("checked"));
    status.clients[0].damaged = 1;
    for columns in [132, 80] {
        assert!(shown(&status, columns, 24).contains("; DAMAGED"));
    }
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
    let text = shown(&status, 80, 24);
    for part in [
        "What to do first",
        "1. Write strongroom.toml",
        "USB stick labelled STRONGROOM",
        "CONFIG",
        "3. It takes effect",
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
    let text = shown(&status, 100, 24);
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
    let text = shown(&status, 80, 24);
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
        on_disk: false,
        done_bytes: 45 << 20,
        total_bytes: 100 << 20,
    };
    status.jobs.push(running).unwrap();
    let screen = render(&status, NOW, size(80, 24), None);
    let alarms = screen.content.iter().filter(|cell| cell.fg == Color::Red).count();
    assert!(alarms > 20, "{alarms}");
    let text = shown(&status, 80, 24);
    for part in [
        "ALARM",
        "    Do this and that",
        "push asus_home to oracle  █████████░░░░░░░░░░░  45 %  45 MiB of 100 MiB",
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
    let text = shown(&status, 80, 24);
    for part in [
        "192.168.1.10",
        "SHA256:",
        "What to know",
        "Clients",
        "more: `strongroom status`",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    for (columns, rows) in [(80, 25), (40, 24), (132, 50), (20, 10), (10, 3), (1, 1), (0, 0)] {
        shown(&status, columns, rows);
    }
}

#[test]
fn an_empty_snapshot_is_a_start_and_nothing_breaks() {
    let text = shown(&Status::default(), 80, 24);
    assert!(text.contains("STARTING") && text.contains("is the cable in?"), "{text}");
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
    shown(&status, 80, 24);
    let text = status_text(&status, NOW);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn plain_text_tells_what_happened_lately_the_newest_first() {
    let (calm, mut status) = (healthy(), healthy());
    raise(
        &mut status,
        ConditionId::ClientSilent,
        Severity::Warning,
        "asus_home",
        "It is silent.",
    );
    let mut events = Events::default();
    events.note(&calm, &status, Some(NOW - 7200));
    events.note(&status, &calm, None);
    status.events = events;
    let text = status_text(&status, NOW);
    let lately = text.split_once("What happened lately\n").unwrap().1;
    assert!(
        lately.starts_with("  -            No longer: It is silent.\n  2 h ago      It is silent.\n"),
        "{lately}"
    );
    // A screen has better use for its rows.
    assert!(!shown(&status, 100, 50).contains("lately"));
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

#[test]
fn the_code_is_there_while_it_costs_nothing() {
    let mut status = healthy();
    assert!(has_code(&status, 80, 24) && has_code(&status, 132, 43));
    assert!(!has_code(&status, 60, 24) && !has_code(&status, 80, 16), "no room");
    let long = "what happened is a long story that needs several lines ".repeat(5);
    for number in 0..3 {
        let client = format!("client{number}");
        raise(&mut status, ConditionId::PushFailed, Severity::Warning, &client, &long);
    }
    assert!(!has_code(&status, 80, 24), "the conditions need the room");
    assert!(has_code(&status, 132, 43));
}

#[test]
fn screens_look_as_they_were_approved() {
    let mut troubled = healthy();
    add_client(&mut troubled, "nas", "refused");
    let text = "nas has been silent for 3 days; it should back up every 48 hours.";
    raise(&mut troubled, ConditionId::ClientSilent, Severity::Warning, "nas", text);
    let running = Job {
        kind: JobKind::Scrub,
        client: None,
        target: None,
        on_disk: false,
        done_bytes: 1 << 30,
        total_bytes: 4 << 30,
    };
    troubled.jobs.push(running).unwrap();
    let mut screens = String::new();
    for (columns, rows) in [(80, 24), (80, 25), (132, 43), (40, 12)] {
        for (name, status) in [("healthy", &healthy()), ("troubled", &troubled)] {
            screens.push_str(&format!(
                "{name} {columns}x{rows}\n{}\n\n",
                shown(status, columns, rows).trim_end()
            ));
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/console/screens.txt");
    if std::env::var_os("APPROVE").is_some() {
        std::fs::write(file, &screens).unwrap();
    }
    let approved = std::fs::read_to_string(file).unwrap();
    assert!(
        screens == approved,
        "the screens differ from screens.txt; look at them and run with APPROVE=1:\n{screens}"
    );
}

#[test]
fn a_supervisor_that_does_not_answer_is_told() {
    let text = rows(&render_silence("not running\x1b[2J", size(80, 24))).join("\n");
    assert!(text.contains("does not answer yet: not running [2J"), "{text}");
    render_silence("why", size(0, 0));
}

#[test]
fn a_person_is_told_how_to_leave() {
    let text = rows(&render(&healthy(), NOW, size(80, 24), Some("q leaves"))).join("\n");
    assert!(text.contains("q leaves   release 0.1.0   22:13 UTC"), "{text}");
}

/// Text as an attacker, a broken disk or a foreign language may bring it.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}",
        "[\\x00-\\x9f\u{202e}\u{200b}箱é…]{0,60}",
        "[a-z/ ]{0,280}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_status_breaks_the_screen(
        texts in proptest::collection::vec(hostile(), 8),
        (clients, conditions, jobs, disks) in (0usize..=64, 0usize..=70, 0usize..=16, 0usize..=16),
        numbers in proptest::collection::vec(any::<u64>(), 4),
        (columns, rows_) in (0u16..200, 0u16..70),
    ) {
        let mut status = Box::new(healthy());
        status.clients.clear();
        status.appliance.hostname = texts[0].as_str().into();
        status.appliance.release = texts[1].as_str().into();
        status.appliance.host_key = texts[2].as_str().into();
        status.clock.source = texts[3].as_str().into();
        if clients % 2 == 0 {
            status.appliance.addresses.clear();
            let _ = status.appliance.addresses.push(texts[4].as_str().into());
        }
        status.array.used_bytes = numbers[0];
        status.array.size_bytes = numbers[1];
        for number in 0..clients {
            add_client(&mut status, &format!("client{number}"), &texts[number % 8]);
        }
        for number in 0..conditions {
            let id = if number == 7 { ConditionId::NotConfigured } else { ConditionId::PushFailed };
            let severity = [Severity::Info, Severity::Warning, Severity::Alarm][number % 3];
            let (subject, text) = (&texts[number % 8], &texts[(number + 3) % 8]);
            status.conditions.raise(Condition::new(id, severity, subject, text, &texts[number % 5]));
        }
        for number in 0..jobs {
            let _ = status.jobs.push(Job {
                kind: if number % 2 == 0 { JobKind::Push } else { JobKind::Scrub },
                client: ClientName::new("c").ok(),
                target: None,
                on_disk: false,
                done_bytes: numbers[2],
                total_bytes: numbers[3],
            });
        }
        for number in 0..disks {
            let _ = status.disks.push(Disk {
                serial: texts[number % 8].as_str().into(),
                model: texts[(number + 1) % 8].as_str().into(),
                member: number % 2 == 0,
                ..Disk::default()
            });
        }
        status.health = status.conditions.health();
        let lines = rows(&render(&status, numbers[0], size(columns, rows_), None));
        prop_assert_eq!(lines.len(), usize::from(rows_));
        let text = status_text(&status, numbers[0]);
        prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{:?}", text);
    }
}
