//! `strongroom recipient`: the keys that off-site copies are encrypted to. Making, importing and showing them needs no
//! appliance; a secret key is never given to one.

mod files;
mod import;
mod kit;
mod new;
mod proof;
mod show;

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use strongroom_model::config::ConfigError;
use strongroom_model::name::TargetName;
use strongroom_offsite::openpgp::RecipientError;
use strongroom_offsite::openpgp::certificate::ImportError;
use strongroom_offsite::openpgp::generate::GenerateError;

/// What is to be done about recipients.
#[derive(Subcommand)]
pub enum RecipientVerb {
    /// Make a key pair, on any computer but the appliance: NAME.asc for beside strongroom.toml, and a recovery kit to be
    /// printed, NAME-recovery.html. Shows the passphrase once.
    New {
        /// The recipient's name, as in strongroom.toml.
        name: TargetName,
        /// What other programs show: a name, an address or a purpose.
        #[arg(long, value_name = "TEXT")]
        user_id: Option<String>,
        /// Where both files go.
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// Use the passphrase in this file instead of making and showing one.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Whether the certificate says that OCB is read, by which copies take half the processor's time. gpg reads it
        /// from 2.2.21 on; `sq` does not.
        #[arg(long, value_enum, default_value_t = Ocb::Auto)]
        ocb: Ocb,
    },
    /// Take a certificate that was made elsewhere: check it as a recipient, and write the public part to NAME.asc.
    Import {
        /// The certificate, armoured or binary; `-` is standard input.
        file: PathBuf,
        /// The recipient's name; the file's when absent.
        #[arg(long)]
        name: Option<TargetName>,
        /// Where NAME.asc goes.
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// List the recipients: of the appliance, or of a strongroom.toml.
    List {
        /// The file; the certificates are looked for beside it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a recipient of the appliance, the certificate in a file, or everything, with the key that signs the manifests.
    Show {
        /// The recipient's name, or a file.
        recipient: Option<String>,
    },
    /// Have the appliance make a message that only the holder of a recipient's secret key can read. With `prove`, that
    /// shows that the key is there: `… challenge | gpg --decrypt`.
    Challenge {
        /// The recipient's name; needed when there are several.
        recipient: Option<TargetName>,
    },
    /// Give the appliance what the message of `challenge` holds.
    Prove {
        /// The code; `-` reads it from standard input.
        code: String,
    },
}

/// Whether a certificate says that OCB is read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ocb {
    /// If the gpg that is installed here reads it.
    Auto,
    /// It says so.
    Yes,
    /// It does not.
    No,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum RecipientFailure {
    /// The appliance could not be asked.
    #[error(transparent)]
    Appliance(#[from] crate::appliance::ApplianceError),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A file can't be read.
    #[error("{0} could not be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// A file can't be written.
    #[error("{0} could not be written: {1}")]
    Write(PathBuf, std::io::Error),
    /// There is a file of that name.
    #[error("{0} is there already and is not written over; give another name or --directory, or move it away")]
    Exists(PathBuf),
    /// The key could not be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The certificate can't be a recipient.
    #[error("{0}: {1}")]
    Certificate(PathBuf, RecipientError),
    /// The certificate is not taken.
    #[error("{0}: {1}")]
    Import(PathBuf, ImportError),
    /// Nobody would see the passphrase.
    #[error(
        "the passphrase is shown on a terminal, and there is none here ({0}). Run this in one, or give --passphrase-file"
    )]
    NoTerminal(std::io::Error),
    /// The passphrase that was given is too easy.
    #[error("the passphrase in {0} has fewer than {1} characters; whoever finds the kit could guess it")]
    WeakPassphrase(PathBuf, usize),
    /// The terminal went before the passphrase was typed.
    #[error("the passphrase was not confirmed ({0}). If it is not on the kit, delete {1} and {2}, and begin anew")]
    NotConfirmed(std::io::Error, PathBuf, PathBuf),
    /// Standard input has no name.
    #[error("say what the recipient is called: --name NAME")]
    NoName,
    /// The file's name is none.
    #[error("`{0}` can't be a recipient's name; say what it is called: --name NAME")]
    BadName(String),
    /// The name is unknown.
    #[error("there is no recipient `{0}`; `strongroom recipient list` shows them all")]
    Unknown(String),
    /// The codes can't be made.
    #[error("the recovery kit could not be made: {0}")]
    Kit(String),
}

/// Runs a verb.
pub async fn run(verb: RecipientVerb) -> Result<(), RecipientFailure> {
    match verb {
        RecipientVerb::New {
            name,
            user_id,
            directory,
            passphrase_file,
            ocb,
        } => new::run(&name, user_id, &directory, passphrase_file.as_deref(), ocb),
        RecipientVerb::Import { file, name, directory } => import::run(&file, name, &directory),
        RecipientVerb::List { config, json } => show::list(config.as_deref(), json).await,
        RecipientVerb::Show { recipient } => show::show(recipient.as_deref()).await,
        RecipientVerb::Challenge { recipient } => proof::challenge(recipient.as_ref()).await,
        RecipientVerb::Prove { code } => proof::prove(&code).await,
    }
}
