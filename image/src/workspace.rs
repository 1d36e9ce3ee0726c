//! Where things are: the sources, and the folder under `target/` that everything made here goes to.

use std::path::{Path, PathBuf};

use crate::buildroot::{Choice, Sources};
use crate::dependencies::Need;
use crate::error::{OnFile, Result};
use crate::process;

/// The base name of all that is made.
pub const NAME: &str = "strongroom-x86_64";

/// Names the base for programs that `cargo image` starts, its own tests above all.
pub const FOUNDATION_VARIABLE: &str = "STRONGROOM_IMAGE_BASE";

/// What the image stands on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Foundation {
    /// Debian's packages.
    #[default]
    Debian,
    /// Built from source by Buildroot.
    Buildroot(Choice),
}

impl Foundation {
    /// What a build needs of this machine.
    #[must_use]
    pub fn needs(&self) -> &'static [Need] {
        match self {
            Self::Debian => &[Need::Build],
            Self::Buildroot(choice) => match choice.sources {
                Sources::Upstream => &[Need::Build, Need::Buildroot, Need::Upstream],
                Sources::Debian => &[Need::Build, Need::Buildroot],
            },
        }
    }

    /// What must be added to a command line for this one.
    #[must_use]
    pub fn argument(&self) -> &'static str {
        match self {
            Self::Debian => "",
            Self::Buildroot(_) => " --base buildroot",
        }
    }
}

/// The source tree and the output folder in it.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The top of the source tree.
    pub root: PathBuf,
    /// What the image stands on. Each has an output folder of its own.
    pub foundation: Foundation,
}

impl Workspace {
    /// The tree that this program was compiled from.
    #[must_use]
    pub fn here() -> Self {
        let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            root: crate_directory.parent().unwrap_or(crate_directory).to_owned(),
            foundation: match std::env::var(FOUNDATION_VARIABLE).as_deref() {
                Ok("buildroot") => Foundation::Buildroot(Choice::default()),
                _ => Foundation::Debian,
            },
        }
    }

    /// `target/image`, or `target/image-buildroot`, made if missing: the finished files.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn output(&self) -> Result<PathBuf> {
        self.made(self.folder())
    }

    /// `work` in it, made if missing: intermediate products, logs, and fingerprints of what they were made of.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn work(&self) -> Result<PathBuf> {
        self.made(&format!("{}/work", self.folder()))
    }

    /// `target/run`, made if missing: disks and keys of `cargo image run`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn run(&self) -> Result<PathBuf> {
        self.made("target/run")
    }

    /// One of the finished files, by its ending: `img`, `bmap`, `manifest`, …
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn product(&self, ending: &str) -> Result<PathBuf> {
        Ok(self.output()?.join(format!("{NAME}.{ending}")))
    }

    /// The time of the last commit in seconds since 1970, the age of everything built. 0 outside a git checkout.
    #[must_use]
    pub fn commit_time(&self) -> u64 {
        let mut git = process::command("git");
        git.args(["log", "-1", "--format=%ct"]).current_dir(&self.root);
        process::capture("ask for the time of the last commit", &mut git)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    /// What `git describe` says of the tree, for the release file; `unknown` outside a git checkout.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut git = process::command("git");
        git.args(["describe", "--always", "--dirty=+", "--tags"])
            .current_dir(&self.root);
        process::capture("describe the source tree", &mut git)
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| "unknown".to_owned())
    }

    /// The last commit in full; `unknown` outside a git checkout.
    #[must_use]
    pub fn commit(&self) -> String {
        let mut git = process::command("git");
        git.args(["rev-parse", "HEAD"]).current_dir(&self.root);
        process::capture("ask for the last commit", &mut git)
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| "unknown".to_owned())
    }

    fn folder(&self) -> &'static str {
        match self.foundation {
            Foundation::Debian => "target/image",
            Foundation::Buildroot(_) => "target/image-buildroot",
        }
    }

    fn made(&self, path: &str) -> Result<PathBuf> {
        let path = self.root.join(path);
        std::fs::create_dir_all(&path).on("create", &path)?;
        Ok(path)
    }
}
