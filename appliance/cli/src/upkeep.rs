//! `strongroom compact` and `strongroom rollback`: show what would happen and what stands against it, ask, and wait for the
//! end. `strongroom repair` passes on what it is given, and waits in the same way.

use crate::appliance::{self, ApplianceError, Connection};
use crate::{confirm, now, words};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use strongroom_model::name::ClientName;
use strongroom_model::registry::{Answer, Request};
use strongroom_model::status::JobKind;
use strongroom_model::upkeep::rollback::{Effect, Kept, KeptRange, effect};
use strongroom_model::upkeep::{Outcome, Upkeep};
use strongroom_model::watch::TransactionNote;

const POLL: Duration = Duration::from_secs(1);
/// How long a job that was asked for may take to come up or to end at once.
const START: Duration = Duration::from_secs(30);
/// Transactions that are shown.
const SHOWN: usize = 40;

/// How the owner means it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Consent {
    /// Confirms without a question: the name of what it is about once more, mostly the client's.
    #[arg(long, value_name = "NAME")]
    yes: Option<String>,
}

/// Frees what a client deleted.
pub async fn compact(client: &str, consent: &Consent, without_copy: bool) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    let upkeep = appliance.upkeep(client).await?;
    print!("{}", deletions(client, &upkeep, now()));
    let mut against = upkeep.against_compaction.clone();
    if upkeep.no_copy && !without_copy {
        against.push(
            "it has no off-site copy, so what is freed exists nowhere any more; to do it all the same, add `--without-off-site-copy`"
                .into(),
        );
    }
    refuse(client, "compacted", &against)?;
    if upkeep.freeable == Some(0) {
        println!("There is nothing to free.");
        return Ok(());
    }
    let Some(transaction) = upkeep.transaction else {
        return Ok(());
    };
    println!(
        "What is freed is gone from the appliance for good{}. {client} can't connect meanwhile.",
        if upkeep.no_copy {
            ""
        } else {
            "; off-site, the states before stay as they are"
        }
    );
    let flag = if without_copy { " --without-off-site-copy" } else { "" };
    confirm::client(client, consent.yes.as_deref(), &format!("compact {client}{flag}"))
        .map_err(ApplianceError::Upkeep)?;
    appliance.compact(client, transaction, without_copy).await?;
    let done = wait(&appliance, client, &upkeep, JobKind::Compact).await?;
    println!(
        "{client}: {} freed; the repository has {} now (transaction {}).",
        words::size(done.freed()),
        words::size(done.after),
        done.transaction.unwrap_or_default()
    );
    println!(
        "Its new segments are checked and pushed at their usual times, or with `strongroom check {client}` and `strongroom push {client}` now."
    );
    Ok(())
}

/// Lists the transactions that can be gone back to, in words or as JSON, or goes back to one.
pub async fn rollback(client: &str, to: Option<u32>, json: bool, consent: &Consent) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    let upkeep = appliance.upkeep(client).await?;
    let Some(to) = to else {
        if json {
            println!("{}", serde_json::to_string(&upkeep)?);
            return Ok(());
        }
        print!("{}", transactions(client, &upkeep, now()));
        print!("{}", kept(client, &upkeep.kept, now()));
        return Ok(());
    };
    refuse(client, "rolled back", &upkeep.against_rollback)?;
    let transaction = upkeep.transaction.unwrap_or_default();
    if to < transaction && upkeep.transactions.iter().any(|note| note.last == to) {
        print!("{}", undone(to, transaction, &effect(&upkeep.transactions, to)));
        println!(
            "Nothing is deleted: what goes is kept beside the repository, where {client} can't see it. {client} can't connect meanwhile."
        );
        confirm::client(client, consent.yes.as_deref(), &format!("rollback {client} --to {to}"))
            .map_err(ApplianceError::Upkeep)?;
    }
    // What can't be done is refused here, in the supervisor's words.
    appliance.roll_back(client, transaction, to).await?;
    let done = wait(&appliance, client, &upkeep, JobKind::Rollback).await?;
    println!(
        "{client} has again what it had at transaction {to}; its last transaction is {} now.\n",
        done.transaction.unwrap_or_default()
    );
    print!("{}", advice(client, &done.repository));
    Ok(())
}

/// Erases what a rollback kept.
pub async fn remove_kept(client: &str, range: KeptRange, consent: &Consent) -> Result<(), ApplianceError> {
    let name = ClientName::new(client).map_err(|error| ApplianceError::Client(error.to_string()))?;
    let appliance = Connection::open().await?;
    let upkeep = appliance.upkeep(client).await?;
    if let Some(one) = upkeep.kept.iter().find(|kept| kept.range == range) {
        println!(
            "{range}: {}, of the rollback {}. It is gone for good then; what {client} has now stays.",
            words::size(one.bytes),
            words::age(one.at, now())
        );
        let verb = format!("rollback {client} --remove {range}");
        confirm::named("its name", &range.to_string(), consent.yes.as_deref(), &verb)
            .map_err(ApplianceError::Upkeep)?;
    }
    // What is not there is told in the supervisor's words.
    if let Answer::Done(words) = appliance.enrol(&Request::RemoveKept { name, kept: range }).await? {
        words.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// What rollbacks kept, with how it is removed.
fn kept(client: &str, all: &[Kept], now: u64) -> String {
    let mut text = String::new();
    for (place, one) in all.iter().enumerate() {
        if place == 0 {
            text.push_str("Kept by rollbacks:\n");
        }
        let _ = writeln!(
            text,
            "{:>12}  {:<14} {:>10}",
            one.range.to_string(),
            words::age(one.at, now),
            words::size(one.bytes)
        );
    }
    if let Some(first) = all.first() {
        let _ = writeln!(
            text,
            "To erase one of them: strongroom rollback {client} --remove {}",
            first.range
        );
    }
    text
}

/// Puts a sound copy of a segment, from standard input, in the place of the damaged one.
pub async fn repair(client: &str, segment: u32) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    // Fetching from an archive takes hours: what stands against it is told before.
    appliance.repairable(client, segment).await?;
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(ApplianceError::Upkeep(format!(
            "the segment is read from standard input, which is a terminal here. With the secret key, on another computer:\n\n  \
             strongroom restore {client} --segment {segment} --output - … | ssh admin@HOST strongroom repair {client} {segment}"
        )));
    }
    // The job is asked for with the first byte, so that nothing waits on the appliance meanwhile.
    let came = tokio::task::spawn_blocking(|| anything_came(&std::io::stdin())).await;
    match came {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => {
            return Err(ApplianceError::Upkeep(
                "nothing came in; what was to send it says why. Nothing was changed".into(),
            ));
        }
        Ok(Err(error)) => {
            return Err(ApplianceError::Upkeep(format!("standard input can't be read: {error}")));
        }
        Err(error) => return Err(ApplianceError::Upkeep(error.to_string())),
    }
    let before = appliance.upkeep(client).await?;
    appliance.repair(client, segment, input.as_fd()).await?;
    wait(&appliance, client, &before, JobKind::Repair).await?;
    println!(
        "{client}: segment {segment} is what it was again, and was read back. The damaged one is kept beside the repository, where {client} can't see it."
    );
    Ok(())
}

/// Waits until there is something to read. Returns false where the end comes before.
fn anything_came(input: &impl AsFd) -> std::io::Result<bool> {
    let mut descriptors = [PollFd::new(input, PollFlags::IN)];
    loop {
        match poll(&mut descriptors, None) {
            Ok(_) => return Ok(descriptors[0].revents().contains(PollFlags::IN)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn refuse(client: &str, what: &str, against: &[String]) -> Result<(), ApplianceError> {
    if against.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = against.iter().map(|why| format!("  - {why}.")).collect();
    Err(ApplianceError::Upkeep(format!(
        "{client} can't be {what} now:\n{}",
        lines.join("\n")
    )))
}

async fn wait(appliance: &Connection, client: &str, before: &Upkeep, kind: JobKind) -> Result<Outcome, ApplianceError> {
    let mut quiet_since = Instant::now();
    loop {
        tokio::time::sleep(POLL).await;
        let upkeep = appliance.upkeep(client).await?;
        let status = appliance.status().await?;
        let running = appliance::running(&status, kind, client).is_some();
        // The job is told as running for a moment longer, and as long the next one would be refused.
        if !running
            && upkeep.standing.is_none()
            && upkeep.last != before.last
            && let Some(last) = upkeep.last
        {
            return if last.error.is_empty() {
                Ok(last)
            } else {
                Err(ApplianceError::Upkeep(last.error))
            };
        }
        if running || upkeep.standing.is_some() {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() > START {
            return Err(ApplianceError::Upkeep(format!(
                "the job did not come up, or ended early; `strongroom logs --client {client}` tells more"
            )));
        }
    }
}

fn deletions(client: &str, upkeep: &Upkeep, now: u64) -> String {
    let mut text = format!("{client}: {} in the repository", words::size(upkeep.bytes));
    if let Some(transaction) = upkeep.transaction {
        let _ = write!(text, ", up to transaction {transaction}");
    }
    text.push_str(".\n");
    let since = upkeep.compacted.map_or(0, |compacted| compacted.transaction);
    match upkeep.compacted {
        Some(compacted) => {
            let _ = writeln!(
                text,
                "Last compacted {} ({} freed).",
                words::age(Some(compacted.at), now),
                words::size(compacted.freed)
            );
        }
        None => text.push_str("It was never compacted here.\n"),
    }
    let deleted: Vec<&TransactionNote> = upkeep
        .transactions
        .iter()
        .filter(|note| note.last > since && note.deletes > 0)
        .collect();
    if deleted.is_empty() {
        text.push_str("Nothing that is remembered was deleted since.\n");
    } else {
        text.push_str("Deleted since, newest first:\n");
        text.push_str(&table(&deleted, now));
    }
    match upkeep.freeable {
        Some(bytes) => {
            let _ = writeln!(text, "About {} would be freed.", words::size(bytes));
        }
        None => text.push_str("How much would be freed can't be told before the client's next backup.\n"),
    }
    if let Some(when) = &upkeep.automatic {
        let _ = writeln!(text, "By its policy it is compacted: {when}.");
    }
    text
}

fn transactions(client: &str, upkeep: &Upkeep, now: u64) -> String {
    let floor = upkeep.floor.unwrap_or(u32::MAX);
    let all: Vec<&TransactionNote> = upkeep.transactions.iter().filter(|note| note.last >= floor).collect();
    if all.is_empty() {
        return format!("No transaction of {client} is remembered that could be gone back to.\n");
    }
    let mut text = table(&all, now);
    if all.len() < upkeep.transactions.len() {
        text.push_str(
            "Those before can't be brought back: a compaction freed what they need, or segments were missing.\n",
        );
    }
    if let Some(before) = all.get(1) {
        let _ = writeln!(
            text,
            "To undo what came after one of them: strongroom rollback {client} --to {}",
            before.last
        );
    }
    text
}

fn table(notes: &[&TransactionNote], now: u64) -> String {
    let mut text = format!(
        "{:>12}  {:<14} {:>8} {:>8} {:>10}  {}\n",
        "TRANSACTION", "WHEN", "STORED", "DELETED", "BYTES", "ARCHIVES"
    );
    for note in notes.iter().take(SHOWN) {
        let _ = writeln!(
            text,
            "{:>12}  {:<14} {:>8} {:>8} {:>10}  {}",
            note.last,
            words::age(note.at, now),
            note.puts,
            note.deletes,
            words::size(note.bytes),
            archives(note)
        );
    }
    if notes.len() > SHOWN {
        let _ = writeln!(text, "{:>12}  and {} before", "", notes.len() - SHOWN);
    }
    text
}

/// `+came -went, and 3 more`.
fn archives(note: &TransactionNote) -> String {
    let mut all: Vec<String> = note.came.iter().map(|name| format!("+{name}")).collect();
    all.extend(note.went.iter().map(|name| format!("-{name}")));
    let Some((came, went)) = note.archives else {
        all.push("not known".into());
        return with_sessions(all, note);
    };
    let more = (came as usize + went as usize).saturating_sub(all.len());
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    with_sessions(all, note)
}

fn with_sessions(mut all: Vec<String>, note: &TransactionNote) -> String {
    if !note.sessions.is_empty() {
        all.push(format!("(session {})", note.sessions.join(" or ")));
    }
    all.join(" ")
}

fn undone(to: u32, last: u32, effect: &Effect) -> String {
    let mut text = format!(
        "Going back to transaction {to} undoes {} transactions, up to {last}:\n  {} objects that were deleted return; {} objects ({}) that were stored go.\n",
        effect.transactions,
        effect.deleted,
        effect.stored,
        words::size(effect.bytes)
    );
    for (what, names) in [("return", &effect.returns), ("go", &effect.goes)] {
        if !names.is_empty() {
            let _ = writeln!(text, "  archives that {what}: {}", names.join(", "));
        }
    }
    if !effect.complete {
        text.push_str("  Not all archives that return or go can be named.\n");
    }
    text
}

/// What has to be done on the client. Its cache and its memory of the newest list of archives are of a state that is no
/// more; the rest of what it remembers, above all which nonces it has used, has to stay.
fn advice(client: &str, repository: &str) -> String {
    format!(
        "On {client}, as the user who makes its backups, before the next one (docs/clients.md says why):\n\n  \
         borg delete --cache-only borgbackup@HOST:/mnt/raid/{client}_repository\n  \
         rm -f ~/.config/borg/security/{repository}/manifest-timestamp\n  \
         borg list borgbackup@HOST:/mnt/raid/{client}_repository\n\n\
         If the client was broken into, give it a new key before you let it back up again.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::watch::Compacted;

    fn note(last: u32, deletes: u64, came: &[&str], went: &[&str]) -> TransactionNote {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        TransactionNote {
            last,
            at: Some(1_000_000 - 7200),
            puts: 5,
            deletes,
            bytes: 2048,
            archives: Some((came.len() as u32, went.len() as u32 + 1)),
            came: names(came),
            went: names(went),
            ..TransactionNote::default()
        }
    }

    fn upkeep() -> Upkeep {
        Upkeep {
            transaction: Some(17),
            bytes: 3 << 30,
            compacted: Some(Compacted {
                at: 1_000_000 - 3 * 86_400,
                transaction: 9,
                freed: 1 << 30,
            }),
            transactions: vec![
                note(17, 0, &["c"], &[]),
                note(13, 40, &[], &["a"]),
                note(9, 0, &[], &[]),
            ],
            floor: Some(9),
            freeable: Some(1 << 20),
            ..Upkeep::default()
        }
    }

    #[test]
    fn what_was_deleted_is_shown_with_what_it_frees() {
        let mut upkeep = upkeep();
        upkeep.transactions[1].sessions = vec!["asus-4".into()];
        let text = deletions("asus", &upkeep, 1_000_000);
        assert!(
            text.starts_with(
                "asus: 3.0 GiB in the repository, up to transaction 17.\nLast compacted 3 d ago (1.0 GiB freed).\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "          13  2 h ago               5       40    2.0 KiB  -a and 1 more (session asus-4)\n"
            ),
            "{text}"
        );
        assert!(!text.contains("          17"), "{text}");
        assert!(text.ends_with("About 1.0 MiB would be freed.\n"), "{text}");
        upkeep.automatic = Some("in 3 days, unless something more is deleted".into());
        let text = deletions("asus", &upkeep, 1_000_000);
        assert!(
            text.ends_with("compacted: in 3 days, unless something more is deleted.\n"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_input_is_told_from_one_that_has_something() {
        use std::io::Write as _;
        let (input, output) = std::io::pipe().unwrap();
        drop(output);
        assert!(!anything_came(&input).unwrap());
        let (input, mut output) = std::io::pipe().unwrap();
        output.write_all(b"x").unwrap();
        assert!(anything_came(&input).unwrap());
        drop(output);
        assert!(anything_came(&input).unwrap(), "what came before the end counts");
    }

    #[test]
    fn transactions_are_listed_down_to_the_floor() {
        let text = transactions("asus", &upkeep(), 1_000_000);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.ends_with("strongroom rollback asus --to 13\n"), "{text}");
        let mut higher = upkeep();
        higher.floor = Some(13);
        assert!(transactions("asus", &higher, 1_000_000).contains("can't be brought back"));
        higher.floor = None;
        assert!(transactions("asus", &higher, 1_000_000).starts_with("No transaction"));
    }

    #[test]
    fn what_is_kept_is_listed_with_how_it_goes() {
        assert_eq!(kept("asus", &[], 0), "");
        let one = Kept {
            range: KeptRange { to: 53, highest: 77 },
            bytes: 3 << 30,
            at: Some(1_000_000 - 7200),
        };
        assert_eq!(
            kept("asus", &[one], 1_000_000),
            "Kept by rollbacks:\n       53-77  2 h ago           3.0 GiB\nTo erase one of them: strongroom rollback asus --remove 53-77\n"
        );
    }

    #[test]
    fn a_rollback_says_what_returns_and_what_the_client_has_to_do() {
        let text = undone(9, 17, &effect(&upkeep().transactions, 9));
        assert!(
            text.contains("undoes 2 transactions") && text.contains("archives that return: a\n"),
            "{text}"
        );
        assert!(
            text.contains("archives that go: c\n") && text.contains("Not all"),
            "{text}"
        );
        assert!(advice("asus", "ab").contains("security/ab/manifest-timestamp"));
    }
}
