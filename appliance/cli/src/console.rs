//! The status in words: as a calm full screen for the console, and as plain text for `strongroom status`.
//!
//! Pure: the snapshot, the time and the size of the terminal come in. Reads nothing, asks nobody. Both forms are made
//! of the same lines, so that they tell the same story.

mod page;

use crate::words;
use page::{Line, Section, Style};
use strongroom_model::condition::{Condition, ConditionId, Health, Severity};
use strongroom_model::status::{
    ArrayState, Client, Clock, ClockState, Disk, DiskRole, Job, JobKind, RepositoryState, Status, Target,
};

/// Width of `strongroom status`, which does not know its terminal.
const TEXT_COLUMNS: usize = 100;
/// Width of what stands before a fact.
const LABEL: usize = 11;
/// Cells of a progress bar.
const BAR: usize = 20;

/// A full screen of at most `rows` rows of `columns` characters, with ANSI escapes, to be written as it is. It clears
/// what was there before. What has no room is counted, the least important first.
pub fn render(status: &Status, now_unix: u64, columns: usize, rows: usize) -> String {
    let mut head = title(status, columns);
    head.extend(facts(status, now_unix, columns));
    page::screen(
        &page::fit(head, &sections(status, now_unix, columns), rows),
        columns,
        rows,
    )
}

/// Everything as plain text without escapes, ending in a newline.
pub fn status_text(status: &Status, now_unix: u64) -> String {
    let mut lines = title(status, TEXT_COLUMNS);
    lines.extend(facts(status, now_unix, TEXT_COLUMNS));
    for section in sections(status, now_unix, TEXT_COLUMNS) {
        lines.extend(section.lines(usize::MAX));
    }
    lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
}

fn title(status: &Status, columns: usize) -> Vec<Line> {
    let appliance = &status.appliance;
    let name = if appliance.hostname.is_empty() {
        "strongroom"
    } else {
        appliance.hostname.as_str()
    };
    let left = format!("Strongroom  {name}");
    let right = format!("release {}", or_dash(&appliance.release));
    let gap = columns
        .saturating_sub(left.chars().count() + right.chars().count())
        .max(2);
    let (style, words) = match status.health {
        Health::Starting => (Style::Bold, "starting: the first observations are under way"),
        Health::Good => (Style::Good, "good"),
        Health::Warning => (Style::Warning, "WARNING: something needs attention within days"),
        Health::Alarm => (Style::Alarm, "ALARM: backups or their copies are at risk now"),
    };
    vec![
        Line::new(Style::Bold, &format!("{left}{}{right}", " ".repeat(gap))),
        Line::new(style, &format!("{:<LABEL$}{words}", "Health")),
        Line::empty(),
    ]
}

fn facts(status: &Status, now: u64, columns: usize) -> Vec<Line> {
    let appliance = &status.appliance;
    let addresses: Vec<&str> = appliance.addresses.iter().map(|address| address.as_str()).collect();
    let addresses = if addresses.is_empty() {
        "none yet: is the cable in?".to_string()
    } else {
        addresses.join("  ")
    };
    let mut lines = fact("Address", &addresses, columns);
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

fn fact(label: &str, text: &str, columns: usize) -> Vec<Line> {
    page::wrap(&format!("{label:<LABEL$}"), text, columns)
        .iter()
        .map(|line| Line::plain(line))
        .collect()
}

fn clock(clock: &Clock) -> String {
    match clock.state {
        ClockState::Unknown => "not known yet".into(),
        ClockState::Unsynchronised => format!(
            "NOT synchronised, {} of {} sources answer",
            clock.reachable, clock.sources
        ),
        ClockState::Synchronised => {
            let microseconds = clock
                .offset_ns
                .unsigned_abs()
                .saturating_add(clock.error_ns)
                .div_ceil(1000);
            let within = if microseconds < 1000 {
                format!("{microseconds} µs")
            } else {
                format!("{} ms", microseconds.div_ceil(1000))
            };
            format!(
                "synchronised to {} within {within}, stratum {}",
                or_dash(&clock.source),
                clock.stratum
            )
        }
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
fn sections(status: &Status, now: u64, columns: usize) -> Vec<Section> {
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
            title: "What to do first",
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
        items.push(vec![Line::plain(&format!(
            "  … and {} more that did not fit",
            status.conditions.dropped
        ))]);
    }
    sections.push(Section {
        title: "What to know",
        items,
        share: 9,
    });
    // A client's list is only useful with some of it; a job is a line.
    let jobs = status.jobs.iter().map(|one| vec![job(one, columns)]).collect();
    sections.push(Section {
        title: "Running",
        items: jobs,
        share: 4,
    });
    let width = status
        .clients
        .iter()
        .map(|client| client.name.as_str().len())
        .max()
        .unwrap_or(0);
    let clients = status.clients.iter().map(|one| vec![client(one, width, now)]).collect();
    sections.push(Section {
        title: "Clients",
        items: clients,
        share: 6,
    });
    if unconfigured || matches!(status.array.state, ArrayState::NotReady | ArrayState::Failed) {
        let disks = status.disks.iter().map(|one| vec![disk(one)]).collect();
        sections.push(Section {
            title: "Disks, by serial number",
            items: disks,
            share: 5,
        });
    }
    sections
}

fn first_steps(columns: usize) -> Vec<Vec<Line>> {
    [
        "Write strongroom.toml: your SSH key, the disks' serial numbers, one [[client]] for each computer. \
         docs/configuration.md has a whole one to begin with.",
        "Put it into the folder CONFIG on the flashed disk's EFI partition, or flash with \
         `cargo image flash … --config strongroom.toml`.",
        "Start the appliance again. What is wrong with the file, if anything, is then told here.",
    ]
    .iter()
    .enumerate()
    .map(|(number, step)| {
        page::wrap(&format!("  {}. ", number + 1), step, columns)
            .iter()
            .map(|l| Line::plain(l))
            .collect()
    })
    .collect()
}

fn told(condition: &Condition, columns: usize) -> Vec<Line> {
    let (style, mark) = match condition.severity {
        Severity::Info => (Style::Plain, "  i "),
        Severity::Warning => (Style::Warning, "  ! "),
        Severity::Alarm => (Style::Alarm, " !! "),
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
        .map(|line| Line::new(style, line))
        .collect();
    if !condition.advice.is_empty() {
        lines.extend(
            page::wrap("    ", &condition.advice, columns)
                .iter()
                .map(|line| Line::plain(line)),
        );
    }
    lines
}

fn job(job: &Job, columns: usize) -> Line {
    let what = match job.kind {
        JobKind::Push => {
            let client = job.client.as_ref().map_or("", |client| client.as_str());
            match &job.target {
                Some(target) => format!("  push {client} to {target}"),
                None => format!("  push {client}"),
            }
        }
        JobKind::Scrub => "  scrub: reading everything on the array".into(),
    };
    let progress = match words::percent(job.done_bytes, job.total_bytes) {
        Some(percent) => {
            let done = (percent as usize * BAR) / 100;
            let bar = format!("[{}{}]", "#".repeat(done), "-".repeat(BAR - done));
            format!(
                "{bar} {percent:>3} %  {} of {}",
                words::size(job.done_bytes),
                words::size(job.total_bytes)
            )
        }
        None => "being prepared".into(),
    };
    // The bar stays whole: it is the name that gives way.
    let room = columns.saturating_sub(progress.chars().count() + 2);
    Line::plain(&format!("{}  {progress}", page::cut(&what, room)))
}

fn client(client: &Client, width: usize, now: u64) -> Line {
    let backup = match client.repository {
        RepositoryState::Unknown => "not read: no array".to_string(),
        RepositoryState::Empty => "no backup yet".into(),
        RepositoryState::Unreadable => "UNREADABLE".into(),
        RepositoryState::Present => format!(
            "{:<12} {:>8}",
            words::age(client.last_backup, now),
            words::size(client.size_bytes)
        ),
    };
    let copies: Vec<String> = client.targets.iter().map(|one| copy(one, now)).collect();
    let copies = if copies.is_empty() {
        "no off-site copy".into()
    } else {
        copies.join(", ")
    };
    Line::plain(&format!("  {:<width$}  {backup:<21}  {copies}", client.name.as_str()))
}

fn copy(target: &Target, now: u64) -> String {
    let pushed = words::age(target.last_push, now);
    if target.error.is_empty() {
        format!("{}: {pushed}", target.name)
    } else {
        format!("{}: FAILED, last {pushed}", target.name)
    }
}

fn disk(disk: &Disk) -> Line {
    let role = match disk.role {
        DiskRole::Other => "",
        DiskRole::System => "  system disk",
        DiskRole::Data => "  data disk",
    };
    let member = if disk.member { ", member" } else { "" };
    Line::plain(&format!(
        "  {:<22} {:>8}  {} {}{role}{member}{}",
        or_dash(&disk.serial),
        words::size(disk.size_bytes),
        disk.kernel_name,
        disk.model,
        words::disk_health(disk)
    ))
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests;
