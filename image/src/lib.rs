//! `cargo image`: build, flash, run and test the Strongroom image.
//!
//! This crate depends on none of the appliance's crates: it builds them with cargo and packs what comes out. Everything
//! it writes is under `target/`, except for Debian packages that it installs on this machine, after saying so.

mod bmap;
mod build;
mod debian;
mod dependencies;
mod disk;
mod error;
mod fingerprint;
mod grub;
mod manifest;
mod mirror;
mod namespace;
mod partitions;
mod process;
mod programs;
mod progress;
mod slot;
mod system;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Build, flash, run and test the Strongroom image.
#[derive(Debug, Parser)]
#[command(name = "cargo image", bin_name = "cargo image", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Install no packages on this machine; if some are missing, say which command installs them.
    #[arg(long, global = true)]
    no_install: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build target/image/strongroom-x86_64.img, with .bmap, .sha256 and .manifest.
    Build {
        /// Demand exactly the package versions of this manifest.
        #[arg(long, value_name = "MANIFEST")]
        locked: Option<PathBuf>,
    },
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let workspace = Workspace::here();
    let install = !arguments.no_install;
    let result = match arguments.command {
        Command::Build { locked } => build::build(&workspace, &build::Options { install, locked }).map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
