//! The verbs of the `strongroom` command, one module each. Its exit codes are in [`exit`].

mod appliance;
mod check;
mod clock;
mod config;
mod configured;
mod confirm;
pub mod console;
mod disks;
mod drill;
mod durable;
mod enrol;
mod exit;
mod jobs;
mod kit;
mod logs;
mod recipient;
mod report;
mod restore;
mod sessions;
mod shown;
mod target;
mod upkeep;
pub mod words;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use console::live;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use strongroom_model::condition::Health;
use strongroom_model::release;
use strongroom_model::upkeep::rollback::KeptRange;

/// A home backup server that checks itself and says how it is doing.
#[derive(Parser)]
#[command(name = "strongroom", version = version(), after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show how the appliance is doing. Exit code 3: an alarm stands.
    Status {
        /// The whole snapshot as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what the clock is worth and where its time comes from. Exit codes, as ntpstat's: 0 it is trusted, 1 it is not, 2
    /// that isn't known.
    Clock {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Push a client's repository to its off-site targets now.
    Push {
        /// The client's name.
        client: String,
        /// The copies as JSON, once they are made.
        #[arg(long)]
        json: bool,
        /// Come back at once instead of waiting for the end.
        #[arg(long, conflicts_with = "json")]
        no_wait: bool,
    },
    /// Read everything on the array now, to find what has become unreadable.
    Scrub,
    /// Read a client's repository now, or every one, and compare each byte with what it was. Exit code 1: it is damaged.
    Check {
        /// The client's name; all of them when absent.
        client: Option<String>,
        /// The outcome as JSON, by client.
        #[arg(long)]
        json: bool,
        /// Come back at once instead of waiting for the end.
        #[arg(long, conflicts_with = "json")]
        no_wait: bool,
    },
    /// Free for good what a client deleted. Shows what that is, and asks first.
    Compact {
        /// The client's name.
        client: String,
        #[command(flatten)]
        consent: upkeep::Consent,
        /// Although it has no off-site copy, from which what is freed could be brought back.
        #[arg(long)]
        without_off_site_copy: bool,
    },
    /// Undo what a client did: bring back what it deleted. Without `--to`, list its transactions.
    Rollback {
        /// The client's name.
        client: String,
        /// The transaction that is to be the last again. Shows what that changes, and asks first.
        #[arg(long, value_name = "TRANSACTION")]
        to: Option<u32>,
        /// Erase what an earlier rollback took out and kept, by its name in the list, such as `53-77`. Asks first.
        #[arg(long, value_name = "KEPT", value_parser = kept_range, conflicts_with = "to")]
        remove: Option<KeptRange>,
        /// The list as JSON, with what a compaction would do too.
        #[arg(long, conflicts_with_all = ["to", "remove"])]
        json: bool,
        #[command(flatten)]
        consent: upkeep::Consent,
    },
    /// Put a sound copy of a damaged segment in its place. Reads the copy from standard input, as `strongroom restore
    /// --segment` sends it, and takes only what the segment was.
    Repair {
        /// The client's name.
        client: String,
        /// The segment's number, as `strongroom check` tells it.
        segment: u32,
    },
    /// Look after a client.
    Client {
        #[command(subcommand)]
        verb: ClientVerb,
    },
    /// Show every disk, what is on it, and what the appliance does with it.
    Disks {
        #[command(subcommand)]
        verb: Option<DisksVerb>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Look at the disks again first.
        #[arg(long)]
        rescan: bool,
    },
    /// Show the clients' sessions that are running, or end one.
    Sessions {
        #[command(subcommand)]
        verb: Option<SessionsVerb>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the status on the whole of this terminal, and follow it. `q` leaves.
    Console {
        /// As the appliance's own screen: for ever, whatever keys are pressed.
        #[arg(long)]
        own_screen: bool,
    },
    /// Make a bundle for whoever is asked to help: logs, status, configuration; no secrets.
    Report {
        /// The file, `.tar.gz`; standard output when absent.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the jobs that run and how those that ran last ended, or end one.
    Jobs {
        #[command(subcommand)]
        verb: Option<JobsVerb>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what the appliance's programs wrote to the log.
    Logs(logs::LogsArguments),
    /// Look after the configuration.
    Config {
        #[command(subcommand)]
        verb: config::ConfigVerb,
    },
    /// Make, check and show the keys that off-site copies are encrypted to.
    Recipient {
        #[command(subcommand)]
        verb: recipient::RecipientVerb,
    },
    /// Look after the off-site targets.
    Target {
        #[command(subcommand)]
        verb: target::TargetVerb,
    },
    /// Bring a repository, or one segment of it, back from its off-site copy, on any computer.
    Restore(Box<restore::RestoreArguments>),
    /// Try a restore, on any computer: all of a copy to scratch space, checked by Borg, one file taken out; or with --sample
    /// some of its objects. The record of it comes on standard output, for `strongroom drill-record` on the appliance.
    Drill(Box<drill::DrillArguments>),
    /// On the appliance: take note of a drill, by the record that `strongroom drill` made on a workstation.
    DrillRecord {
        /// The record; standard input when absent.
        file: Option<PathBuf>,
    },
    /// Print what a shell needs to complete these commands, as for `source <(strongroom completions bash)`.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages, one for each command, into a folder, such as /usr/local/share/man/man1.
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum ClientVerb {
    #[command(flatten)]
    Enrol(enrol::EnrolVerb),
    /// Show what a client stored and deleted, its archives, and what is wrong with its repository.
    Show {
        /// The client's name.
        client: String,
        /// All that is remembered, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say that you know of all that stands about a client's repository, and that it is meant. It is not told any more,
    /// and no longer keeps a compaction off.
    Accept {
        /// The client's name.
        client: String,
    },
    /// Make what a client needs to back up here: script, timer, pinned host key, borgmatic's configuration. Without
    /// --output or --directory, show what to paste there. Nothing of it is secret.
    Kit(Box<kit::KitArguments>),
}

#[derive(Subcommand)]
enum DisksVerb {
    /// List the arrays that are here, or use one that was made elsewhere, with all that it holds.
    Adopt {
        /// Its UUID.
        uuid: Option<String>,
    },
}

#[derive(Subcommand)]
enum SessionsVerb {
    /// End a session. What its client was told is stored stays stored; it may begin again at once.
    End {
        /// Its name, as `strongroom sessions` shows it.
        id: String,
    },
}

#[derive(Subcommand)]
enum JobsVerb {
    /// End a job. What it did so far stays, and it goes on from there when it is begun again.
    Stop {
        /// Its name, as `strongroom jobs` shows it.
        id: String,
    },
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Appliance(#[from] appliance::ApplianceError),
    #[error(transparent)]
    Restore(#[from] restore::RestoreFailure),
    #[error(transparent)]
    Drill(#[from] drill::DrillFailure),
    #[error(transparent)]
    Recipient(#[from] recipient::RecipientFailure),
    #[error(transparent)]
    Target(#[from] target::TargetFailure),
    #[error(transparent)]
    Report(#[from] report::ReportFailure),
    #[error(transparent)]
    Kit(#[from] kit::KitFailure),
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    #[error(transparent)]
    Config(#[from] config::ConfigFailure),
    #[error("the log can't be read: journalctl could not be run: {0}")]
    Journal(std::io::Error),
    #[error("the console could not start: {0}")]
    Console(std::io::Error),
    #[error("the program could not start: {0}")]
    Runtime(std::io::Error),
}

fn kept_range(text: &str) -> Result<KeptRange, String> {
    KeptRange::new(text).ok_or_else(|| "it is a name as `strongroom rollback` with the client's lists it".into())
}

/// The appliance's release; on another computer, the program's.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let text = std::fs::read_to_string(release::FILE).unwrap_or_default();
        release::describe(&text, env!("CARGO_PKG_VERSION"))
    })
}

/// Parses the command line and runs the verb.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(perform(arguments.verb)));
    outcome.unwrap_or_else(|failure| {
        eprintln!("strongroom: {failure}");
        if failure.is_unreachable() {
            ExitCode::from(exit::UNREACHABLE)
        } else {
            exit::FAILED
        }
    })
}

impl Failure {
    /// Whether the appliance could not be asked at all.
    fn is_unreachable(&self) -> bool {
        match self {
            Self::Appliance(error)
            | Self::Recipient(recipient::RecipientFailure::Appliance(error))
            | Self::Target(target::TargetFailure::Appliance(error))
            | Self::Kit(kit::KitFailure::Appliance(error)) => error.is_unreachable(),
            Self::Config(error) => matches!(error, config::ConfigFailure::Unreachable(..)),
            _ => false,
        }
    }
}

async fn perform(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Status { json } => {
            let appliance = appliance::Connection::open().await?;
            let text = appliance.status_json().await?;
            let status = appliance::parse(&text)?;
            if json {
                println!("{text}");
            } else {
                print!("{}", console::status_text(&status, now()));
            }
            Ok(if status.health == Health::Alarm {
                ExitCode::from(exit::ALARM)
            } else {
                exit::DONE
            })
        }
        Verb::Clock { json } => Ok(clock::show(json, now()).await),
        Verb::Push { client, json, no_wait } => {
            let appliance = appliance::Connection::open().await?;
            appliance.push(&client, !no_wait, json).await?;
            Ok(exit::DONE)
        }
        Verb::Scrub => {
            appliance::Connection::open().await?.scrub().await?;
            println!("The scrub runs now, at low priority; `strongroom status` shows how far it is.");
            Ok(exit::DONE)
        }
        Verb::Check { client, json, no_wait } => Ok(check::run(client.as_deref(), json, !no_wait).await?),
        Verb::Compact {
            client,
            consent,
            without_off_site_copy,
        } => {
            upkeep::compact(&client, &consent, without_off_site_copy).await?;
            Ok(exit::DONE)
        }
        Verb::Rollback {
            client,
            to,
            remove,
            json,
            consent,
        } => {
            match remove {
                Some(kept) => upkeep::remove_kept(&client, kept, &consent).await?,
                None => upkeep::rollback(&client, to, json, &consent).await?,
            }
            Ok(exit::DONE)
        }
        Verb::Repair { client, segment } => {
            upkeep::repair(&client, segment).await?;
            Ok(exit::DONE)
        }
        Verb::Client { verb } => {
            match verb {
                ClientVerb::Enrol(verb) => enrol::run(verb, now()).await?,
                ClientVerb::Show { client, json } => check::show(&client, json, now()).await?,
                ClientVerb::Accept { client } => check::accept(&client).await?,
                ClientVerb::Kit(arguments) => kit::run(*arguments).await?,
            }
            Ok(exit::DONE)
        }
        Verb::Disks { verb, json, rescan } => {
            match verb {
                Some(DisksVerb::Adopt { uuid }) => disks::adopt(uuid.as_deref()).await?,
                None => disks::show(json, rescan).await?,
            }
            Ok(exit::DONE)
        }
        Verb::Sessions { verb, json } => {
            match verb {
                Some(SessionsVerb::End { id }) => sessions::end(&id).await?,
                None => sessions::show(json).await?,
            }
            Ok(exit::DONE)
        }
        Verb::Console { own_screen } => {
            let used = if own_screen {
                live::Use::OwnScreen
            } else {
                live::Use::Person
            };
            live::run(used).await.map_err(Failure::Console)?;
            Ok(exit::DONE)
        }
        Verb::Report { output } => {
            report::run(output).await?;
            Ok(exit::DONE)
        }
        Verb::Jobs { verb, json } => {
            match verb {
                Some(JobsVerb::Stop { id }) => jobs::stop(&id).await?,
                None => jobs::show(json).await?,
            }
            Ok(exit::DONE)
        }
        Verb::Logs(arguments) => {
            logs::run(arguments).await?;
            Ok(exit::DONE)
        }
        Verb::Config { verb } => {
            config::run(verb)?;
            Ok(exit::DONE)
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "strongroom", &mut script);
            // Whoever reads it may have read enough.
            let _ = std::io::stdout().write_all(&script);
            Ok(exit::DONE)
        }
        Verb::Man { folder } => {
            std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(Arguments::command(), &folder))
                .map_err(|error| Failure::File(folder, error))?;
            Ok(exit::DONE)
        }
        Verb::Recipient { verb } => {
            recipient::run(verb).await?;
            Ok(exit::DONE)
        }
        Verb::Target { verb } => Ok(target::run(verb).await?),
        Verb::Drill(arguments) => Ok(drill::run(*arguments).await?),
        Verb::DrillRecord { file } => {
            drill::record(file.as_deref()).await?;
            Ok(exit::DONE)
        }
        Verb::Restore(arguments) => {
            restore::run(*arguments).await?;
            Ok(exit::DONE)
        }
    }
}

/// Unix seconds.
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
