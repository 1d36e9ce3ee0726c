//! The checkout of Buildroot: the given one, or the pinned tag cloned and its commit compared. Never part of this
//! repository.

use std::path::{Path, PathBuf};

use crate::error::{Error, OnFile, Result};
use crate::{process, progress};

/// The long-term series whose recipes fit.
const SERIES: &str = "2025.02.";
/// The release that is cloned.
const TAG: &str = "2025.02.16";
/// The commit that the tag must name, whatever the server says.
const COMMIT: &str = "135af563b945b8c3d18f8fd370370075b9edb140";
/// Where it is cloned from.
const REPOSITORY: &str = "https://gitlab.com/buildroot.org/buildroot.git";

/// A checkout of Buildroot.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// Its folder.
    pub folder: PathBuf,
    /// What its Makefile says it is.
    pub version: String,
    /// Its commit; `unknown` for an unpacked archive.
    pub commit: String,
    /// Its age in seconds since 1970; nothing in the system is newer.
    pub time: u64,
}

impl Checkout {
    /// The checkout in `given`, or the pinned one, cloned into `work` if it isn't there.
    ///
    /// # Errors
    /// When it is of another series, or when the pinned tag can't be had or names another commit.
    pub fn of(given: Option<&Path>, work: &Path) -> Result<Self> {
        let folder = match given {
            Some(folder) => folder.canonicalize().on("find", folder)?,
            None => work.join(format!("buildroot-{TAG}")),
        };
        if given.is_none() {
            if !folder.exists() {
                progress::stage("clone Buildroot", || clone(&folder))?;
            }
            let found = git(&folder, "%H");
            if found.as_deref() != Some(COMMIT) {
                return Err(Error::Unexpected {
                    what: folder.display().to_string(),
                    detail: format!(
                        "is not Buildroot's commit {COMMIT}; remove it, or give a checkout with --buildroot"
                    ),
                });
            }
        }
        let makefile = folder.join("Makefile");
        let makefile = std::fs::read_to_string(&makefile).on("read", &makefile)?;
        let version = value(&makefile, "export BR2_VERSION :=").unwrap_or_default();
        if !version.starts_with(SERIES) {
            return Err(Error::Unexpected {
                what: folder.display().to_string(),
                detail: format!("is Buildroot {version:?}; the image's recipes are for {SERIES}x"),
            });
        }
        let epoch = value(&makefile, "BR2_VERSION_EPOCH =").and_then(|text| text.parse().ok());
        Ok(Self {
            time: git(&folder, "%ct")
                .and_then(|text| text.parse().ok())
                .or(epoch)
                .unwrap_or(0),
            commit: git(&folder, "%H").unwrap_or_else(|| "unknown".to_owned()),
            version,
            folder,
        })
    }
}

/// What stands behind `key` in a makefile.
fn value(makefile: &str, key: &str) -> Option<String> {
    makefile
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .map(|value| value.trim().to_owned())
}

fn git(folder: &Path, format: &str) -> Option<String> {
    // Only a checkout's own history: an unpacked archive may lie inside another one.
    folder.join(".git").exists().then_some(())?;
    let mut git = process::command("git");
    git.args(["log", "-1", &format!("--format={format}")])
        .current_dir(folder);
    let text = process::capture("ask for Buildroot's commit", &mut git).ok()?;
    Some(text.trim().to_owned())
}

fn clone(folder: &Path) -> Result<()> {
    let new = folder.with_extension("new");
    let _ = std::fs::remove_dir_all(&new);
    let mut git = process::command("git");
    git.args(["clone", "--quiet", "--depth", "1", "--branch", TAG, REPOSITORY])
        .arg(&new);
    process::capture(
        "clone Buildroot; without the internet, give a checkout with --buildroot",
        &mut git,
    )?;
    std::fs::rename(&new, folder).on("rename", &new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("export BR2_VERSION := {version}\nBR2_VERSION_EPOCH = 1784143200\n");
        std::fs::write(folder.path().join("Makefile"), text).unwrap();
        folder
    }

    #[test]
    fn an_unpacked_release_of_the_series_will_do_and_knows_its_age() {
        let folder = release("2025.02.3");
        let checkout = Checkout::of(Some(folder.path()), Path::new("/nowhere")).unwrap();
        assert_eq!(checkout.version, "2025.02.3");
        assert_eq!(checkout.commit, "unknown");
        assert_eq!(checkout.time, 1_784_143_200);
    }

    #[test]
    fn another_series_is_refused() {
        let folder = release("2026.02.1");
        let error = Checkout::of(Some(folder.path()), Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("2026.02.1"));
    }
}
