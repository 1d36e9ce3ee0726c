//! `strongroom check`, `strongroom client show` and `strongroom client accept`: what is known of clients' repositories.

use crate::appliance::{ApplianceError, Connection, running};
use crate::shown::Shown;
use crate::words;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use strongroom_model::status::{JobKind, Status};
use strongroom_model::verification::{Compared, Damage, Touched, Verification, touched_words};
use strongroom_model::watch::{Archives, Remembered};

const POLL: Duration = Duration::from_secs(1);
/// How long a check that was asked for may take to come up or to end at once.
const START: Duration = Duration::from_secs(20);
/// How long an acceptance may take.
const ACCEPTED: Duration = Duration::from_secs(30);
/// Looks and archives that are shown.
const SHOWN: usize = 20;

/// Checks one client's repository, or every one; waits for the end, and tells the outcome. Exit code 1: something is
/// damaged or could not be checked.
pub async fn run(client: Option<&str>, json: bool, wait: bool) -> Result<ExitCode, ApplianceError> {
    let appliance = Connection::open().await?;
    let status = appliance.status().await?;
    let names: Vec<String> = match client {
        Some(name) => vec![name.into()],
        None => status.clients.iter().map(|client| client.name.to_string()).collect(),
    };
    let mut answered = Vec::new();
    for name in &names {
        answered.push(appliance.watched(name).await?.verification.answered);
    }
    appliance.check(client.unwrap_or_default()).await?;
    if !wait {
        println!("The check runs now, at low priority; `strongroom status` shows how far it is.");
        return Ok(ExitCode::SUCCESS);
    }
    let mut done = Vec::new();
    let mut shown = Shown::new();
    let mut quiet_since = std::time::Instant::now();
    for (name, before) in names.iter().zip(answered) {
        loop {
            tokio::time::sleep(POLL).await;
            let now = appliance.watched(name).await?.verification;
            if now.answered > before {
                done.push((name.clone(), now));
                break;
            }
            let status = appliance.status().await?;
            if let Some(job) = status.jobs.iter().find(|job| job.kind == JobKind::Check) {
                shown.show_job(job.client.as_ref().map_or("", |client| client.as_str()), job);
                quiet_since = std::time::Instant::now();
            } else if quiet_since.elapsed() > START {
                shown.end();
                return Err(ApplianceError::Check(format!(
                    "the check of {name} did not come up, or ended early; `journalctl --unit 'strongroom-verify@*'` tells more"
                )));
            }
        }
    }
    // The job is told as running for a moment longer, and as long a repair would be refused.
    let over = std::time::Instant::now();
    let is_checked = |status: &Status| {
        let mut names = names.iter();
        names.any(|name| running(status, JobKind::Check, name).is_some())
    };
    while over.elapsed() < START && is_checked(&*appliance.status().await?) {
        tokio::time::sleep(POLL).await;
    }
    shown.end();
    let sound = done
        .iter()
        .all(|(_, one)| one.unaccepted() == 0 && one.failed.is_empty());
    if json {
        let all: serde_json::Map<String, serde_json::Value> = done
            .iter()
            .map(|(name, one)| Ok((name.clone(), serde_json::to_value(one)?)))
            .collect::<Result<_, serde_json::Error>>()?;
        println!("{}", serde_json::Value::from(all));
    } else {
        for (name, one) in &done {
            print!("{}", outcome(name, one));
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Takes note that the owner knows of all that stands about a client.
pub async fn accept(client: &str) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    let before = appliance.watched(client).await?;
    let standing = before.record.findings.len() + before.verification.unaccepted();
    if standing == 0 {
        println!("Nothing about {client} waits to be accepted.");
        return Ok(());
    }
    appliance.accept(client).await?;
    let asked = std::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = appliance.watched(client).await?;
        if now.record.hold.is_none() && now.verification.unaccepted() == 0 {
            let noun = if standing == 1 { "finding" } else { "findings" };
            println!("Accepted: {standing} {noun} about {client}. From now on, what is there is what is usual.");
            return Ok(());
        }
        if asked.elapsed() > ACCEPTED {
            return Err(ApplianceError::Check(format!(
                "it was not accepted, or something new was found; `strongroom logs --client {client}` tells more"
            )));
        }
    }
}

/// Shows what is known of a client's repository.
pub async fn show(client: &str, json: bool, now: u64) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    if json {
        println!("{}", appliance.watched_json(client).await?);
    } else {
        print!("{}", remembered(client, &appliance.watched(client).await?, now));
    }
    Ok(())
}

fn outcome(name: &str, one: &Verification) -> String {
    if !one.failed.is_empty() {
        return format!("{name}: could not be checked: {}\n", one.failed);
    }
    if one.repository.is_empty() {
        return format!("{name}: nothing was backed up yet\n");
    }
    let read = format!("{} segments, {}", one.segments, words::size(one.bytes));
    if one.damages.is_empty() {
        let index = if one.index_used {
            ""
        } else {
            " (without Borg's index, so it can't be told whether any is missing)"
        };
        return format!("{name}: sound: {read}{index}{}\n", how(one.compared()));
    }
    let mut text = format!("{name}: DAMAGED: {read}\n");
    text.push_str(&damages(one));
    text
}

/// What a sound outcome rests on.
fn how(compared: Compared) -> &'static str {
    match compared {
        Compared::Whole => "; all that is stored was compared with its names",
        Compared::NotYet => "; by checksums, what is stored was not compared with its names yet",
        Compared::NeedKey => {
            "; by checksums, what is stored can be compared only with the key: `borg check --verify-data` on the client"
        }
    }
}

fn damages(one: &Verification) -> String {
    let mut text = String::new();
    for damage in &one.damages {
        let accepted = if damage.accepted { " (accepted)" } else { "" };
        let _ = writeln!(
            text,
            "  {}.{}{accepted}",
            damage.what.trim_end_matches('.'),
            touched_words(&damage.touched)
        );
        text.push_str(&files(damage));
    }
    if one.more_damages > 0 {
        let _ = writeln!(text, "  and {} more", one.more_damages);
    }
    text
}

/// Names of files that lost content, below each archive.
fn files(damage: &Damage) -> String {
    let Touched::Archives { archives, .. } = &damage.touched else {
        return String::new();
    };
    let mut text = String::new();
    for archive in archives.iter().filter(|archive| !archive.named.is_empty()) {
        let more = archive.files.saturating_sub(archive.named.len() as u64);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let _ = writeln!(text, "    {}: {}{more}", archive.name, archive.named.join(", "));
    }
    text
}

fn remembered(name: &str, known: &Remembered, now: u64) -> String {
    let Remembered {
        record,
        archives,
        verification,
        ..
    } = known;
    let mut text = String::new();
    let _ = writeln!(text, "{name}");
    let _ = writeln!(text, "  repository   {}", or_dash(&record.repository));
    let _ = writeln!(text, "  last backup  {}", words::age(record.last_backup, now));
    let transaction = record.audited.map_or("-".into(), |number| number.to_string());
    let _ = writeln!(text, "  looked at    up to transaction {transaction}");
    let checked = match verification.oldest {
        Some(oldest) => format!(
            "every byte since {}{}",
            words::age(Some(oldest), now),
            how(verification.compared())
        ),
        None => "not all of it yet".into(),
    };
    let _ = writeln!(text, "  checked      {checked}");
    if let Some(compacted) = record.compacted {
        let (when, freed) = (words::age(Some(compacted.at), now), words::size(compacted.freed));
        let _ = writeln!(text, "  compacted    {when}, {freed} freed");
    }
    if let Some(hold) = record.hold {
        let after = hold.after.map_or("the first".into(), |number| number.to_string());
        let _ = writeln!(text, "  HELD         nothing is compacted; since transaction {after}");
    }
    if !verification.damages.is_empty() {
        text.push_str("Damaged\n");
        text.push_str(&damages(verification));
    }
    if !record.looks.is_empty() {
        text.push_str("Transactions    stored   deleted       size  archives   when\n");
        for look in record.looks.iter().rev().take(SHOWN) {
            let archives = look
                .archives
                .map_or("-".into(), |(added, removed)| format!("+{added} -{removed}"));
            let _ = writeln!(
                text,
                "  up to {:<8} {:>6}  {:>8}  {:>9}  {archives:<9}  {}",
                look.until,
                look.puts,
                look.deletes,
                words::size(look.bytes),
                words::age(Some(look.at), now)
            );
        }
    }
    match record.archives {
        Archives::Nothing => {}
        Archives::NeedKey => text.push_str("Archives: the repository is encrypted; only its client can list them\n"),
        Archives::Listed { count, .. } => {
            let _ = writeln!(text, "Archives ({count})");
            for archive in archives.iter().take(SHOWN) {
                let _ = writeln!(text, "  {}  {}", archive.name, words::age(archive.time, now));
            }
            if count as usize > SHOWN {
                let _ = writeln!(text, "  and {} more: --json lists them", count as usize - SHOWN);
            }
        }
    }
    text
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::verification::TouchedArchive;
    use strongroom_model::watch::{ArchiveNote, Finding, Look, Record};

    fn damaged() -> Verification {
        let mut one = Verification {
            repository: "ab".into(),
            segments: 12,
            bytes: 5 << 20,
            index_used: true,
            ..Verification::default()
        };
        one.damage(Damage {
            segment: Some(3),
            what: "segment 3 is damaged: the checksum of the entry at byte 8 is wrong".into(),
            touched: Touched::Archives {
                count: 1,
                archives: vec![TouchedArchive {
                    name: "monday".into(),
                    files: 5,
                    named: vec!["home/a".into(), "home/b".into()],
                    list_lost: false,
                }],
            },
            ..Damage::default()
        });
        one
    }

    #[test]
    fn outcomes_are_told_with_archives_and_files() {
        assert_eq!(
            outcome("asus", &Verification::default()),
            "asus: nothing was backed up yet\n"
        );
        let text = outcome("asus", &damaged());
        assert_eq!(
            text,
            "asus: DAMAGED: 12 segments, 5.0 MiB\n  \
             segment 3 is damaged: the checksum of the entry at byte 8 is wrong. It touches 1 archive: monday (5 files).\n    \
             monday: home/a, home/b and 3 more\n"
        );
        let mut sound = damaged();
        sound.mended(Some(3));
        sound.comparable = Some(true);
        (sound.comparing_since, sound.oldest) = (Some(1), Some(2));
        assert_eq!(
            outcome("asus", &sound),
            "asus: sound: 12 segments, 5.0 MiB; all that is stored was compared with its names\n"
        );
        sound.comparable = Some(false);
        assert!(
            outcome("asus", &sound).contains("5.0 MiB; by checksums, what is stored can be compared only with the key")
        );
    }

    #[test]
    fn what_is_remembered_is_shown() {
        let mut record = Record {
            repository: "abcd".into(),
            audited: Some(21),
            archives: Archives::Listed {
                count: 1,
                newest: Some(1000),
            },
            ..Record::default()
        };
        record.find(Finding::ManifestLost, 1000, Some(17), Some(21));
        record.add_look(Look {
            at: 1000,
            until: 21,
            puts: 7,
            archives: Some((0, 2)),
            ..Look::default()
        });
        let known = Remembered {
            record,
            archives: vec![ArchiveNote {
                name: "monday".into(),
                time: Some(1000),
            }],
            verification: damaged(),
            ..Remembered::default()
        };
        let text = remembered("asus", &known, 1000 + 3 * 3600);
        for part in [
            "HELD",
            "since transaction 17",
            "+0 -2",
            "monday  3 h ago",
            "segment 3",
            "Archives (1)",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
