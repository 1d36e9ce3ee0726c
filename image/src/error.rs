//! Everything that can go wrong in building, writing, running and testing the image, in words for the person at the
//! keyboard: what failed, on which object, and what to do next. Turned into text in `lib.rs` only.

use std::path::{Path, PathBuf};

/// A failure of a `cargo image` command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or device could not be read, written, or otherwise handled.
    #[error("could not {action} {path}: {source}", path = path.display())]
    File {
        /// What was attempted, as a verb: "read", "create".
        action: &'static str,
        /// On which file or device.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error(
        "could not start `{program}`: {source}; `cargo image build` installs what it needs, unless told `--no-install`"
    )]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ended badly.
    #[error("{purpose}: `{program}` ended with {status}{}", tail(log, output))]
    Program {
        /// What it was started for.
        purpose: String,
        /// The program's name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Where all its output is, when it went to a file.
        log: Option<PathBuf>,
        /// The end of what it printed.
        output: String,
    },
    /// The machine lacks packages and `--no-install` was given, or there is no way to become root.
    #[error("missing packages: {packages}\n{reason}; run\n  {command}")]
    Missing {
        /// The packages, separated by spaces.
        packages: String,
        /// Why they were not installed.
        reason: &'static str,
        /// The exact command that installs them.
        command: String,
    },
    /// This machine's apt names no Debian mirror.
    #[error(
        "found no Debian mirror in apt's configuration (/etc/apt/sources.list and sources.list.d): \
         the image is built from the mirror that this machine itself uses; add a line such as \
         `deb URI {suite} main` for a mirror of Debian"
    )]
    NoMirror {
        /// The release wanted.
        suite: &'static str,
    },
    /// The mirror does not carry the release.
    #[error(
        "the mirror {uri} could not be asked for {suite} ({detail}), and no base system is left from an earlier build; \
         check the network and the mirror"
    )]
    MirrorSilent {
        /// The mirror's base address.
        uri: String,
        /// The release wanted.
        suite: String,
        /// What was seen.
        detail: String,
    },
    /// Versions that a manifest demands are no longer on the mirror.
    #[error(
        "{} of the packages in {manifest} are gone from the mirror, which keeps current versions only:\n  {}\n\
         build without --locked, or use a mirror that keeps old versions",
        gone.len(), gone.join("\n  "), manifest = manifest.display()
    )]
    Gone {
        /// The manifest.
        manifest: PathBuf,
        /// `package=version` of each.
        gone: Vec<String>,
    },
    /// A line of a manifest that isn't `package=version`.
    #[error("{path}, line {line}: not of the form package=version", path = path.display())]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A part outgrew its place.
    #[error("{what} has {actual} bytes; its place has {limit}")]
    TooBig {
        /// What.
        what: String,
        /// Its size.
        actual: u64,
        /// The place's.
        limit: u64,
    },
    /// A crate must not be shipped as it is.
    #[error(
        "the crate {package} can't go into the image: {reason}; replace it, or, if its licence allows, \
         extend the lists in image/src/licences.rs and deny.toml"
    )]
    Licence {
        /// The crate and its version.
        package: String,
        /// Why.
        reason: String,
    },
    /// Two builds of the same sources gave different things.
    #[error("the two builds differ, first in {stage}: {detail}")]
    Differs {
        /// The first stage that differs.
        stage: String,
        /// Where in it.
        detail: String,
    },
    /// Something is not as the program expects it: a format, an answer.
    #[error("{what}: {detail}")]
    Unexpected {
        /// Which object.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The image hasn't been built.
    #[error("{path} does not exist: run `cargo image build` first", path = path.display())]
    NoImage {
        /// Where it should be.
        path: PathBuf,
    },
    /// The device must not be written.
    #[error("refused to write {device}: {reason}", device = device.display())]
    Refused {
        /// The device.
        device: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// What was written reads back differently.
    #[error("{device} differs from the image in bytes {start}..{end}: the device is faulty or worn; try another", device = device.display())]
    ReadBack {
        /// The device.
        device: PathBuf,
        /// First byte of the range.
        start: u64,
        /// One past its last byte.
        end: u64,
    },
    /// A virtual machine did not do what was awaited in time.
    #[error("the virtual machine {machine}: {what}{}", tail(&Some(log.clone()), output))]
    Machine {
        /// Its name.
        machine: String,
        /// What was awaited, or what happened instead.
        what: String,
        /// Its serial log.
        log: PathBuf,
        /// The end of that log.
        output: String,
    },
}

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds what was done to which file to an I/O error.
pub trait OnFile<T> {
    /// Names the action (a verb) and the path.
    ///
    /// # Errors
    /// [`Error::File`] where `self` is an error.
    fn on(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> OnFile<T> for std::io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

fn tail(log: &Option<PathBuf>, output: &str) -> String {
    let mut text = String::new();
    if let Some(log) = log {
        text.push_str(&format!("; all of its output is in {}", log.display()));
    }
    if !output.trim().is_empty() {
        text.push_str("; at the end it said:\n");
        text.push_str(output.trim_end());
    }
    text
}
