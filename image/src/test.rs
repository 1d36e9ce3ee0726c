//! `cargo image test`: everything, from single functions to the built image in a virtual machine.

use std::time::Instant;

use crate::dependencies::{self, Need};
use crate::error::{Error, Result};
use crate::process;
use crate::workspace::{FOUNDATION_VARIABLE, Foundation, Workspace};
use crate::{build, buildroot};

/// How to test.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether missing packages may be installed on this machine.
    pub install: bool,
    /// Leave out the tests of single crates.
    pub only_appliance: bool,
    /// Run the long tests of the image as well.
    pub thorough: bool,
    /// Run only those appliance tests whose name contains this.
    pub filter: Option<String>,
}

/// Builds the image and runs all tests.
///
/// # Errors
/// When the build or a test fails.
pub fn test(workspace: &Workspace, options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut needs = vec![Need::Build, Need::Flash, Need::Run, Need::Test];
    if options.thorough {
        needs.push(Need::Thorough);
    }
    dependencies::ensure(workspace, &needs, options.install)?;
    if !options.only_appliance {
        eprintln!("Form and lints:");
        cargo(workspace, "the check of the form", &["fmt", "--all", "--check"])?;
        let lints = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        cargo(workspace, "the lints", &lints)?;
        eprintln!("Tests of the crates, against real servers on loopback:");
        cargo(
            workspace,
            "the tests of the crates",
            &["test", "--workspace", "--locked"],
        )?;
    }
    eprintln!("The image:");
    build::build(
        workspace,
        &build::Options {
            install: options.install,
            locked: None,
        },
    )?;
    if matches!(workspace.foundation, Foundation::Buildroot(_)) {
        dependencies::ensure(workspace, &[Need::Upstream], options.install)?;
        eprintln!("The external tree, with Buildroot's own tools:");
        let arguments = [
            "test",
            "--locked",
            "--package",
            "image",
            "--test",
            "buildroot",
            "--",
            "--ignored",
        ];
        cargo(workspace, "the tests of the external tree", &arguments)?;
    }
    eprintln!("The image in a virtual machine:");
    let machines = format!("--test-threads={}", machines_at_once());
    let mut arguments = vec!["test", "--locked", "--package", "image", "--test", "appliance", "--"];
    arguments.extend(["--ignored", &machines, "--nocapture"]);
    if !options.thorough {
        arguments.extend(["--skip", "thorough::"]);
    }
    arguments.extend(options.filter.as_deref());
    cargo(workspace, "the tests of the image", &arguments)?;
    eprintln!("All tests passed, in {} min.", start.elapsed().as_secs().div_ceil(60));
    Ok(())
}

/// As many as there are processors, as each emulates one; not more than memory is sure to be there for.
fn machines_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(4))
}

fn cargo(workspace: &Workspace, purpose: &str, arguments: &[&str]) -> Result<()> {
    let mut command = process::cargo();
    command.current_dir(&workspace.root).args(arguments);
    if let Foundation::Buildroot(choice) = &workspace.foundation {
        command
            .env(FOUNDATION_VARIABLE, "buildroot")
            .env("STRONGROOM_BUILDROOT", buildroot::folder(workspace, choice)?);
    }
    let status = command
        .status()
        .map_err(|source| process::cannot_start(&command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Program {
        purpose: purpose.to_owned(),
        program: "cargo".to_owned(),
        status,
        log: None,
        output: String::new(),
    })
}
