//! `strongroom logs`: what the appliance's own programs wrote to the journal. It only knows which lines are meant; reading
//! them is journalctl's, with arguments that are all of ours, and the rights are those of whoever asks.

use crate::appliance::Connection;
use crate::{Failure, jobs};
use std::os::unix::process::CommandExt;
use std::process::Command;
use strongroom_model::name::ClientName;

/// Lines that are shown when nothing says how many.
const LINES: u32 = 200;

/// Which lines.
#[derive(clap::Args)]
pub struct LogsArguments {
    /// Of a client: its sessions, and the jobs that work on its repository.
    #[arg(long, value_name = "NAME", conflicts_with = "job")]
    client: Option<ClientName>,
    /// Of one job, by its name in `strongroom jobs`.
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// From this time on: `yesterday`, `-2h`, `2027-03-31 04:00` (systemd.time(7)). Otherwise the last 200 lines.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// So many lines, the last ones.
    #[arg(long, value_name = "NUMBER")]
    lines: Option<u32>,
    /// Go on with what is written from now on, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Each line as JSON, with all that the journal knows of it.
    #[arg(long)]
    json: bool,
}

/// Becomes journalctl. Returns only when it can't.
pub async fn run(arguments: LogsArguments) -> Result<(), Failure> {
    let job = match &arguments.job {
        Some(id) if is_whole(id) => Some(id.clone()),
        Some(id) => {
            let all = Connection::open().await?.jobs().await?;
            Some(jobs::find(&all, id)?.id.clone())
        }
        None => None,
    };
    let error = Command::new("journalctl").args(journalctl(&arguments, job)).exec();
    Err(Failure::Journal(error))
}

/// Whether it is a job's whole name, which the journal may know for longer than the supervisor.
fn is_whole(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The arguments (journalctl(1)).
fn journalctl(arguments: &LogsArguments, job: Option<String>) -> Vec<String> {
    let mut words: Vec<String> = vec!["--no-pager".into()];
    if arguments.json {
        words.push("--output=json".into());
    }
    if arguments.follow {
        words.push("--follow".into());
    }
    if let Some(since) = &arguments.since {
        words.push(format!("--since={since}"));
    }
    let all = arguments.since.is_some() || job.is_some();
    match arguments.lines {
        Some(lines) => words.push(format!("--lines={lines}")),
        None if all => words.push("--lines=all".into()),
        None => words.push(format!("--lines={LINES}")),
    }
    match (job, &arguments.client) {
        // What it wrote itself, or what systemd wrote of it.
        (Some(job), _) => words.extend([
            format!("_SYSTEMD_INVOCATION_ID={job}"),
            "+".into(),
            format!("INVOCATION_ID={job}"),
        ]),
        // One at least without a pattern: journalctl refuses patterns of which none matches anything.
        // No name has a colon or a dot, and a session's number follows the last dash.
        (None, Some(client)) => words.extend([
            format!("--unit=strongroom-push@{client}.service"),
            format!("--unit=strongroom-*@{client}.service"),
            format!("--unit=strongroom-*@{client}:*.service"),
            format!("--unit=strongroom-*@*.{client}.service"),
            format!("--unit=strongroom-session@{client}-[0-9]*.service"),
            // It copies all clients, one after the other.
            "--unit=strongroom-disk@*.service".into(),
        ]),
        (None, None) => words.extend(["--unit=strongroomd.service".into(), "--unit=strongroom*".into()]),
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: LogsArguments,
    }

    fn words(typed: &[&str], job: Option<&str>) -> Vec<String> {
        let line = Line::try_parse_from(["logs"].iter().chain(typed)).unwrap();
        journalctl(&line.arguments, job.map(str::to_string))
    }

    #[test]
    fn journalctl_is_asked_for_what_is_meant() {
        assert_eq!(
            words(&[], None),
            [
                "--no-pager",
                "--lines=200",
                "--unit=strongroomd.service",
                "--unit=strongroom*"
            ]
        );
        assert_eq!(
            words(&["--since", "-2h", "--follow", "--json"], None),
            [
                "--no-pager",
                "--output=json",
                "--follow",
                "--since=-2h",
                "--lines=all",
                "--unit=strongroomd.service",
                "--unit=strongroom*"
            ]
        );
        assert_eq!(
            words(&["--client", "asus", "--lines", "5"], None)[1..],
            [
                "--lines=5",
                "--unit=strongroom-push@asus.service",
                "--unit=strongroom-*@asus.service",
                "--unit=strongroom-*@asus:*.service",
                "--unit=strongroom-*@*.asus.service",
                "--unit=strongroom-session@asus-[0-9]*.service",
                "--unit=strongroom-disk@*.service"
            ]
        );
        assert_eq!(
            words(&["--job", "abcd"], Some("abcd1"))[1..],
            [
                "--lines=all",
                "_SYSTEMD_INVOCATION_ID=abcd1",
                "+",
                "INVOCATION_ID=abcd1"
            ]
        );
    }

    #[test]
    fn nothing_that_is_typed_becomes_an_option_of_journalctl() {
        for typed in [
            ["--client", "--vacuum-size=1"],
            ["--client", "a/../b"],
            ["--lines", "--flush"],
        ] {
            assert!(
                Line::try_parse_from(["logs"].iter().chain(&typed)).is_err(),
                "{typed:?}"
            );
        }
        assert!(words(&["--since", "--flush"], None).contains(&"--since=--flush".into()));
        assert!(is_whole(&"a1".repeat(16)) && !is_whole(&"--".repeat(16)));
    }

    #[test]
    fn the_real_journalctl_knows_these_arguments() {
        for typed in [&["--since", "-2h", "--json"][..], &["--client", "asus"], &[]] {
            let run = Command::new("journalctl").args(words(typed, None)).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        }
        let run = Command::new("journalctl")
            .args(words(&[], Some(&"0".repeat(32))))
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}
