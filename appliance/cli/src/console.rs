//! The status in words: as a calm full screen for the console, and as plain text for `strongroom status`.
//!
//! Pure but for [`live`] and [`terminal`]: the snapshot, the time and the size of the terminal come in. Both forms are
//! made of the same lines, so that they tell the same story.

mod code;
pub mod live;
mod page;
mod screen;
mod terminal;

use crate::words;
use page::{ALARM, BOLD, DIM, GOOD, NAME, PLAIN, Section, WARNING, line};
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::Line;
use strongroom_model::condition::{Condition, ConditionId, Health, Severity};
use strongroom_model::drill::LastDrill;
use strongroom_model::events::Event;
use strongroom_model::status::{
    ArrayState, Client, Clock, ClockState, Disk, DiskRole, Job, JobKind, RepositoryState, Status, Target,
};
use strongroom_model::verification::Compared;

/// Width of `strongroom status`, which does not know its terminal.
const TEXT_COLUMNS: usize = 100;
/// Width of what stands before a fact.
const LABEL: usize = 10;
/// Cells of a progress bar.
const BAR: usize = 20;
/// On a page narrower than this, a line holds only what matters most.
const NARROW: usize = 60;

/// Everything as plain text without escapes, ending in a newline.
pub fn status_text(status: &Status, now_unix: u64) -> String {
    let (badge, words) = verdict(status);
    // Only what should catch the eye is in capitals.
    let badge = match status.health {
        Health::Starting | Health::Good => badge.to_lowercase(),
        Health::Warning | Health::Alarm => badge.to_string(),
    };
    let health = format!("{badge}: {words}");
    let left = format!("Strongroom  {}", name(status));
    let release = format!("release {}", or_dash(&status.appliance.release));
    let gap = TEXT_COLUMNS
        .saturating_sub(left.chars().count() + release.chars().count())
        .max(2);
    let mut lines = vec![line(PLAIN, &format!("{left}{}{release}", " ".repeat(gap)))];
    lines.extend(fact("Health", &health, TEXT_COLUMNS));
    lines.push(Line::default());
    lines.extend(facts(status, now_unix, TEXT_COLUMNS));
    for section in sections(status, now_unix, TEXT_COLUMNS, false) {
        lines.extend(section.lines(usize::MAX).0);
    }
    lines
        .iter()
        .map(|line| format!("{}\n", page::text(line).trim_end()))
        .collect()
}

fn name(status: &Status) -> &str {
    match status.appliance.hostname.as_str() {
        "" => "strongroom",
        name => name,
    }
}

/// The health in one word, and in some.
fn verdict(status: &Status) -> (&'static str, &'static str) {
    match status.health {
        Health::Starting => ("STARTING", "the first observations are under way"),
        Health::Good => ("GOOD", "nothing needs attention"),
        Health::Warning => ("WARNING", "something needs attention within days"),
        Health::Alarm => ("ALARM", "backups or their copies are at risk now"),
    }
}

/// How the one word looks, and how the others do. The colour only repeats what the word says.
fn looks(health: Health) -> (Style, Style) {
    let badge = |color| Style::new().fg(Color::Black).bg(color);
    match health {
        Health::Starting => (badge(Color::Gray), PLAIN),
        Health::Good => (badge(Color::Green), PLAIN),
        Health::Warning => (badge(Color::Yellow), WARNING),
        Health::Alarm => (
            Style::new()
                .fg(Color::White)
                .bg(Color::Red)
                .add_modifier(Modifier::BOLD),
            ALARM,
        ),
    }
}

fn facts(status: &Status, now: u64, columns: usize) -> Vec<Line<'static>> {
    let appliance = &status.appliance;
    let addresses: Vec<&str> = appliance.addresses.iter().map(|address| address.as_str()).collect();
    let mut lines = Vec::new();
    match addresses.first() {
        None => lines.extend(fact("Address", "none yet: is the cable in?", columns)),
        Some(first) => {
            let first = if first.contains(':') {
                format!("[{first}]")
            } else {
                (*first).to_string()
            };
            let repository = format!("ssh://borgbackup@{first}/mnt/raid/NAME_repository");
            lines.extend(fact("Address", &addresses.join("  "), columns));
            lines.extend(fact("Log in", &format!("ssh admin@{}", addresses[0]), columns));
            lines.extend(fact("Back up to", &repository, columns));
        }
    }
    lines.extend(fact("Host key", or_dash(&appliance.host_key), columns));
    lines.extend(fact("Clock", &clock(&status.clock), columns));
    lines.extend(fact("Array", &array(status, now), columns));
    let members: Vec<String> = status
        .disks
        .iter()
        .filter(|disk| disk.member)
        .map(words::disk)
        .collect();
    if !members.is_empty() {
        lines.extend(fact("Disks", &members.join("; "), columns));
    }
    if let Some(booted) = appliance.booted {
        lines.extend(fact("Up", &words::duration(now.saturating_sub(booted)), columns));
    }
    lines
}

fn fact(label: &str, text: &str, columns: usize) -> Vec<Line<'static>> {
    let label = format!("{label:<LABEL$} ");
    page::wrap(&label, text, columns)
        .iter()
        .map(|line| match line.strip_prefix(label.as_str()) {
            Some(text) => page::spans(&[(NAME, &label), (PLAIN, text)]),
            None => page::line(PLAIN, line),
        })
        .collect()
}

fn clock(clock: &Clock) -> String {
    match clock.state {
        ClockState::Unknown => "not known yet".into(),
        ClockState::Unsynchronised => format!(
            "NOT synchronised, {} of {} sources answer",
            clock.reachable, clock.sources
        ),
        ClockState::Coasting => format!("coasting, right within {}", words::within(clock.total_error_ns())),
        ClockState::Synchronised => format!(
            "synchronised to {} within {}, stratum {}",
            or_dash(&clock.source),
            words::within(clock.total_error_ns()),
            clock.stratum
        ),
    }
}

fn array(status: &Status, now: u64) -> String {
    let array = &status.array;
    match array.state {
        ArrayState::Unknown => "not known yet".into(),
        ArrayState::NotReady => "not set up; see below".into(),
        ArrayState::Working => "being set up".into(),
        ArrayState::Failed => "FAILED; see below".into(),
        ArrayState::Assembled => "assembled, not mounted".into(),
        ArrayState::Mounted => match words::percent(array.used_bytes, array.size_bytes) {
            Some(percent) => format!(
                "mounted, {} of {} used ({percent} %), {} members{}",
                words::size(array.used_bytes),
                words::size(array.size_bytes),
                array.members.len(),
                words::outlook(array, now)
            ),
            None => "mounted".into(),
        },
    }
}

/// The parts below the facts, the most important first.
fn sections(status: &Status, now: u64, columns: usize, on_screen: bool) -> Vec<Section> {
    let standing = &status.conditions.standing;
    let unconfigured = standing
        .iter()
        .any(|condition| condition.id == ConditionId::NotConfigured);
    // Whoever wrote a configuration that was refused needs the fault, not the guide.
    let refused = standing
        .iter()
        .any(|condition| condition.id == ConditionId::ConfigRefused);
    let mut sections = Vec::new();
    if unconfigured && !refused {
        sections.push(Section {
            title: line(BOLD, "What to do first"),
            items: first_steps(columns),
            share: usize::MAX,
        });
    }
    let mut items: Vec<Vec<Line>> = standing
        .iter()
        .filter(|condition| condition.id != ConditionId::NotConfigured)
        .map(|condition| told(condition, columns))
        .collect();
    if status.conditions.dropped > 0 {
        let more = format!("  and {} more that did not fit", status.conditions.dropped);
        items.push(vec![line(PLAIN, &more)]);
    }
    sections.push(Section {
        title: line(BOLD, "What to know"),
        items,
        share: 9,
    });
    // A client's list is only useful with some of it; a job is a line.
    sections.push(Section {
        title: line(BOLD, "Running"),
        items: status.jobs.iter().map(|one| job(one, columns, on_screen)).collect(),
        share: 4,
    });
    sections.push(clients(status, now, columns, on_screen));
    if unconfigured || matches!(status.array.state, ArrayState::NotReady | ArrayState::Failed) {
        sections.push(Section {
            title: line(BOLD, "Disks, by serial number"),
            items: status.disks.iter().map(|one| vec![disk(one, columns)]).collect(),
            share: 5,
        });
    }
    // What was matters less than what is: it is left out where room is short.
    if !on_screen {
        let events = status.events.recent.iter().rev();
        sections.push(Section {
            title: line(BOLD, "What happened lately"),
            items: events.map(|event| happened(event, now, columns)).collect(),
            share: 0,
        });
    }
    sections
}

fn happened(event: &Event, now: u64, columns: usize) -> Vec<Line<'static>> {
    let when = event.at.map_or("-".into(), |at| words::age(Some(at), now));
    let first = format!("  {when:<12} ");
    let rows = page::wrap(&first, &event.text, columns);
    rows.iter().map(|row| line(PLAIN, row)).collect()
}

fn first_steps(columns: usize) -> Vec<Vec<Line<'static>>> {
    [
        "Write strongroom.toml: your SSH key, the disks' serial numbers, one [[client]] for each computer. \
         docs/configuration.md has a whole one to begin with.",
        "Put it on a USB stick labelled STRONGROOM and plug it in here. (Or into the folder CONFIG on the flashed \
         disk's EFI partition, then start again.)",
        "It takes effect within a minute. What is wrong with the file, if anything, is then told here.",
    ]
    .iter()
    .enumerate()
    .map(|(number, step)| {
        page::wrap(&format!("  {}. ", number + 1), step, columns)
            .iter()
            .map(|text| line(PLAIN, text))
            .collect()
    })
    .collect()
}

fn told(condition: &Condition, columns: usize) -> Vec<Line<'static>> {
    let (style, mark) = match condition.severity {
        Severity::Info => (PLAIN, "  i "),
        Severity::Warning => (WARNING, "  ! "),
        Severity::Alarm => (ALARM, " !! "),
    };
    // The texts of most conditions name their subject already.
    let named = condition.subject.is_empty() || condition.text.contains(condition.subject.as_str());
    let text = if named {
        condition.text.to_string()
    } else {
        format!("{}: {}", condition.subject, condition.text)
    };
    let mut lines: Vec<Line> = page::wrap(mark, &text, columns)
        .iter()
        .map(|text| line(style, text))
        .collect();
    if !condition.advice.is_empty() {
        let advice = page::wrap("    ", &condition.advice, columns);
        lines.extend(advice.iter().map(|text| line(PLAIN, text)));
    }
    lines
}

/// A job and its bar, in one line where there is room, else in two.
fn job(job: &Job, columns: usize, on_screen: bool) -> Vec<Line<'static>> {
    let what = match job.kind {
        JobKind::Push => {
            let client = job.client.as_ref().map_or("", |client| client.as_str());
            match &job.target {
                Some(target) => format!("  push {client} to {target}"),
                None => format!("  push {client}"),
            }
        }
        JobKind::Scrub => "  scrub: reading everything on the array".into(),
        JobKind::Probe => "  a target is tried out".into(),
        JobKind::Check => format!(
            "  check {}",
            job.client.as_ref().map_or("every repository", |client| client.as_str())
        ),
        JobKind::Compact | JobKind::Rollback | JobKind::Repair => {
            let client = job.client.as_ref().map_or("", |client| client.as_str());
            let verb = match job.kind {
                JobKind::Compact => "compact",
                JobKind::Repair => "repair",
                _ => "rollback",
            };
            // A repair holds it out for moments only, once all has come in.
            let held = if job.kind == JobKind::Repair {
                String::new()
            } else {
                format!(", {client} is held out")
            };
            // It ends when it ends: nobody knows how far it is.
            return vec![line(PLAIN, &page::clean(&format!("  {verb} {client}: running{held}")))];
        }
    };
    let what = page::clean(&what);
    let Some(percent) = words::percent(job.done_bytes, job.total_bytes) else {
        return vec![line(PLAIN, &format!("{what}  being prepared"))];
    };
    let (open, full, empty, close) = if on_screen {
        ("", "█", "░", "")
    } else {
        ("[", "#", "-", "]")
    };
    let done = (percent as usize * BAR) / 100;
    let (done, left) = (full.repeat(done), empty.repeat(BAR - done));
    let figures = format!(
        " {percent:>3} %  {} of {}",
        words::size(job.done_bytes),
        words::size(job.total_bytes)
    );
    let bar = |before: &str| {
        page::spans(&[
            (PLAIN, &format!("{before}{open}")),
            (GOOD, &done),
            (DIM, &left),
            (PLAIN, &format!("{close}{figures}")),
        ])
    };
    let one = bar(&format!("{what}  "));
    if one.width() <= columns {
        return vec![one];
    }
    vec![line(PLAIN, &what), bar("    ")]
}

fn clients(status: &Status, now: u64, columns: usize, on_screen: bool) -> Section {
    let narrow = columns < NARROW;
    let names = status.clients.iter().map(|client| client.name.as_str().len());
    let width = names.max().unwrap_or(0).max("Clients".len() - 2);
    let columns_title = if narrow {
        "backup    off-site"
    } else {
        "last backup       size  off-site copy"
    };
    let title = format!("{:<width$}  ", "Clients", width = width + 2);
    let items = status.clients.iter().map(|one| {
        let mut lines = vec![client(one, width, columns, now)];
        // A screen has no room for it, unless something is wrong, which the line above and the conditions say.
        if !on_screen && let Some(proofs) = proofs(one, now) {
            lines.push(line(PLAIN, &format!("  {:<width$}  {proofs}", "")));
        }
        lines
    });
    Section {
        title: page::spans(&[(BOLD, &title), (NAME, columns_title)]),
        items: items.collect(),
        share: 6,
    }
}

fn client(client: &Client, width: usize, columns: usize, now: u64) -> Line<'static> {
    let narrow = columns < NARROW;
    let backup = match client.repository {
        RepositoryState::Unknown => "not read: no array".to_string(),
        RepositoryState::Empty => "no backup yet".into(),
        RepositoryState::Unreadable => "UNREADABLE".into(),
        RepositoryState::Present if narrow => words::age(client.last_backup, now),
        RepositoryState::Present => format!(
            "{:<12} {:>8}",
            words::age(client.last_backup, now),
            words::size(client.size_bytes)
        ),
    };
    // Where room is scarce, the name of the only target says nothing new.
    let named = !narrow || client.targets.len() > 1;
    let copies: Vec<String> = client.targets.iter().map(|one| copy(one, named, now)).collect();
    let copies = match (copies.is_empty(), narrow) {
        (true, true) => "none".into(),
        (true, false) => "no off-site copy".into(),
        _ => copies.join(", "),
    };
    let style_of_copies = if client.targets.iter().any(|target| target.damaged > 0) {
        ALARM
    } else if client.targets.iter().any(|target| !target.error.is_empty()) {
        WARNING
    } else {
        PLAIN
    };
    let name = client.name.as_str();
    let first = if narrow {
        format!("  {name:<width$}  {backup:<9} ")
    } else {
        format!("  {name:<width$}  {backup:<21}  ")
    };
    let (style, check) = match (client.damaged, client.checked) {
        (0, None) => (PLAIN, String::new()),
        (0, checked) => {
            let how = match client.compared {
                Compared::Whole => ", data too",
                Compared::NotYet | Compared::NeedKey => ", checksums only",
            };
            (PLAIN, format!("; checked {}{how}", words::age(checked, now)))
        }
        (1.., _) => (ALARM, "; DAMAGED".into()),
    };
    let copies = (style_of_copies, copies.as_str());
    let whole = page::spans(&[(PLAIN, &first), copies, (style, &check)]);
    // That all is well is left out where there is no room for it.
    if whole.width() <= columns || client.damaged > 0 {
        whole
    } else {
        page::spans(&[(PLAIN, &first), copies])
    }
}

fn copy(target: &Target, named: bool, now: u64) -> String {
    let pushed = words::age(target.last_push, now);
    let name = if named {
        format!("{}: ", target.name)
    } else {
        String::new()
    };
    match (target.damaged, target.error.is_empty()) {
        (0, true) => format!("{name}{pushed}"),
        (0, false) => format!("{name}FAILED, last {pushed}"),
        (1.., _) => format!("{name}DAMAGED, last {pushed}"),
    }
}

/// What shows that the copies are worth something; nothing before the first comparison.
fn proofs(client: &Client, now: u64) -> Option<String> {
    let verified = client.targets.iter().filter(|target| target.verified.is_some());
    let mut proofs: Vec<String> = verified
        .map(|target| format!("copy at {} verified {}", target.name, words::age(target.verified, now)))
        .collect();
    let drill = &client.drill;
    if *drill == LastDrill::default() {
        return (!proofs.is_empty()).then(|| format!("{}; no restore tried", proofs.join(", ")));
    }
    proofs.push(format!("restored whole {}", words::age(drill.whole, now)));
    if drill.sample > drill.whole {
        proofs.push(format!("a sample {}", words::age(drill.sample, now)));
    }
    if drill.failed.is_some() {
        proofs.push(format!("FAILED {}", words::age(drill.failed, now)));
    }
    Some(proofs.join(", "))
}

fn disk(disk: &Disk, columns: usize) -> Line<'static> {
    let role = match disk.role {
        DiskRole::Other => "",
        DiskRole::System => "  system disk",
        DiskRole::Data => "  data disk",
    };
    let member = if disk.member { ", member" } else { "" };
    let (serial, size, health) = (
        or_dash(&disk.serial),
        words::size(disk.size_bytes),
        words::disk_health(disk),
    );
    let name = &disk.kernel_name;
    let text = if columns < NARROW {
        format!("  {serial:<15} {size:>8} {name}{role}{member}{health}")
    } else {
        format!("  {serial:<22} {size:>8}  {name} {}{role}{member}{health}", disk.model)
    };
    line(PLAIN, &text)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests;
