//! `cargo image`: build, flash, run and test the Strongroom image.
//!
//! This crate depends on none of the appliance's crates: it builds them with cargo and packs what comes out. Everything
//! it writes is under `target/`, except for Debian packages that it installs on this machine, after saying so.

pub mod bmap;
mod build;
pub mod buildroot;
mod confinement;
mod crates;
mod debian;
mod dependencies;
mod device;
mod disk;
pub mod error;
mod figures;
mod fingerprint;
mod flash;
pub mod grub;
mod kept;
mod licences;
pub mod loopback;
mod manifest;
mod mirror;
mod namespace;
mod owner;
mod pack;
pub mod partitions;
mod process;
pub mod programs;
mod progress;
pub mod qemu;
mod release;
mod reproduce;
mod run;
mod sbom;
mod slot;
pub mod ssh;
mod system;
mod test;
pub mod trial;
pub mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::{Foundation, Workspace};

/// Build, flash, run and test the Strongroom image.
#[derive(Debug, Parser)]
#[command(name = "cargo image", bin_name = "cargo image", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Install no packages on this machine; if some are missing, say which command installs them.
    #[arg(long, global = true)]
    no_install: bool,
    /// Another copy of Strongroom's source tree than the one this program was compiled from.
    #[arg(long, global = true, value_name = "FOLDER")]
    tree: Option<PathBuf>,
    /// What the image stands on: Debian's packages, or Buildroot, from source.
    #[arg(long, global = true, value_enum, default_value_t)]
    base: Base,
    /// With --base buildroot: a checkout of Buildroot 2025.02.x, instead of a clone of the pinned release.
    #[arg(long, global = true, value_name = "FOLDER")]
    buildroot: Option<PathBuf>,
    /// With --base buildroot: where the packages' sources come from.
    #[arg(long, global = true, value_enum, default_value_t)]
    sources: buildroot::Sources,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Base {
    #[default]
    Debian,
    Buildroot,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build target/image/strongroom-x86_64.img, with .bmap, .sha256 and .manifest; with --base buildroot in
    /// target/image-buildroot.
    Build {
        /// Demand exactly the package versions of this manifest.
        #[arg(long, value_name = "MANIFEST")]
        locked: Option<PathBuf>,
    },
    /// Write the image to a disk, verify it, and put a strongroom.toml on it.
    Flash {
        /// The disk, like /dev/sdX; or a plain file.
        device: PathBuf,
        /// The configuration; files that it names are taken from beside it.
        #[arg(long, value_name = "STRONGROOM.TOML")]
        config: Option<PathBuf>,
        /// Serial number of the disk, which admits one that isn't removable.
        #[arg(long)]
        serial: Option<String>,
        /// Keep this partition of the disk's present table in place, a member of an array beside an old system.
        #[arg(long, value_name = "NUMBER")]
        keep_partition: Option<u64>,
        /// Consent to lose an array's member that is on the disk.
        #[arg(long, conflicts_with = "keep_partition")]
        overwrite_array: bool,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Build, and compress the image for a download: .img.zst and its checksum.
    Pack,
    /// Measure sizes, starts and memory, and write them to docs/figures.md.
    Figures {
        /// Pairs of starts with each firmware.
        #[arg(long, default_value_t = 2)]
        pairs: u32,
        /// Measure the image that is there; build nothing.
        #[arg(long)]
        built: bool,
        /// MiB of each backup by which the cost of confinement is measured; 0 leaves that out.
        #[arg(long, value_name = "MIB", default_value_t = 64)]
        backup: u64,
    },
    /// Build twice, on two paths, and compare byte for byte: whether others get the same image.
    Reproduce {
        /// Where the second build goes, and stays.
        #[arg(long, value_name = "FOLDER")]
        at: Option<PathBuf>,
    },
    /// Run the image in a virtual machine, with a second disk, a broker and an object store, until Ctrl-C.
    Run {
        /// Start by BIOS, as without any option.
        #[arg(long, conflicts_with = "uefi")]
        bios: bool,
        /// Start by UEFI.
        #[arg(long)]
        uefi: bool,
        /// Go on with the disks of the last time.
        #[arg(long)]
        keep: bool,
        /// Use KVM instead of emulation.
        #[arg(long)]
        kvm: bool,
    },
    /// Test everything: the crates, then the built image in a virtual machine.
    Test {
        /// Leave out the tests of single crates.
        #[arg(long)]
        only_appliance: bool,
        /// Run the long tests of the image too: every scenario, every kind of PC.
        #[arg(long)]
        thorough: bool,
        /// Run only those tests of the image whose name contains this.
        filter: Option<String>,
    },
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut workspace = Workspace::here();
    if let Some(root) = arguments.tree {
        workspace.root = root;
    }
    workspace.foundation = match arguments.base {
        Base::Debian => Foundation::Debian,
        Base::Buildroot => Foundation::Buildroot(buildroot::Choice {
            checkout: arguments.buildroot,
            sources: arguments.sources,
        }),
    };
    let install = !arguments.no_install;
    let result = match arguments.command {
        Command::Build { locked } => build::build(&workspace, &build::Options { install, locked }).map(drop),
        Command::Flash {
            device,
            config,
            serial,
            keep_partition,
            overwrite_array,
            yes,
        } => flash::flash(
            &workspace,
            &flash::Options {
                device,
                config,
                serial,
                keep_partition,
                overwrite_array,
                yes,
                install,
            },
        ),
        Command::Pack => pack::pack(&workspace, &build::Options { install, locked: None }).map(drop),
        Command::Figures { pairs, built, backup } => figures::figures(
            &workspace,
            &figures::Options {
                install,
                pairs,
                built,
                backup,
            },
        ),
        Command::Reproduce { at } => reproduce::reproduce(&workspace, &reproduce::Options { install, at }),
        Command::Run {
            bios: _,
            uefi,
            keep,
            kvm,
        } => {
            let firmware = if uefi {
                qemu::Firmware::Uefi
            } else {
                qemu::Firmware::Bios
            };
            run::run(
                &workspace,
                &run::Options {
                    firmware,
                    keep,
                    kvm,
                    install,
                },
            )
        }
        Command::Test {
            only_appliance,
            thorough,
            filter,
        } => test::test(
            &workspace,
            &test::Options {
                install,
                only_appliance,
                thorough,
                filter,
            },
        ),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
