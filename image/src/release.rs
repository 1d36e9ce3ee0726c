//! Which release an image is: the version file and os-release inside it, of the sources' commit and the base's age.

use crate::error::Result;
use crate::process;
use crate::workspace::Workspace;

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Version and what `git describe` says of the sources, like `0.1.0-6953133`; ends in `.changed` when files differ
    /// from the commit. Characters as os-release(5) asks.
    pub version: String,
    /// The commit in full, or `unknown`.
    pub commit: String,
    /// The commit's time in ISO 8601.
    pub time: String,
    /// What the base system is and how old, like `debian-trixie-` and a time in ISO 8601.
    pub base: String,
}

impl Release {
    /// The release that `workspace` makes on the base of this name and age, in seconds since 1970.
    ///
    /// # Errors
    /// When date(1) can't be run.
    pub fn of(workspace: &Workspace, base: &str, base_time: u64) -> Result<Self> {
        Ok(Self {
            version: version(env!("CARGO_PKG_VERSION"), &workspace.describe()),
            commit: workspace.commit(),
            time: iso(workspace.commit_time())?,
            base: format!("{base}-{}", iso(base_time)?),
        })
    }

    /// The version file, `/etc/strongroom-release`: read by our programs, and by shells.
    #[must_use]
    pub fn file(&self) -> String {
        format!(
            "VERSION={}\nCOMMIT={}\nTIME={}\nBASE={}\n",
            self.version, self.commit, self.time, self.base
        )
    }

    /// os-release(5): the base's, with the image's identity added.
    #[must_use]
    pub fn os_release(&self, base: &str) -> String {
        format!(
            "{}\nIMAGE_ID=strongroom\nIMAGE_VERSION={}\n",
            base.trim_end(),
            self.version
        )
    }
}

fn version(package: &str, describe: &str) -> String {
    let (commit, changed) = match describe.strip_suffix('+') {
        Some(commit) => (commit, ".changed"),
        None => (describe, ""),
    };
    let tag = format!("v{package}");
    match commit.strip_prefix(&tag) {
        Some(since) if since.is_empty() || since.starts_with('-') => format!("{package}{since}{changed}"),
        _ => format!("{package}-{commit}{changed}"),
    }
}

fn iso(time: u64) -> Result<String> {
    let mut date = process::command("date");
    date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{time}")]);
    Ok(process::capture("tell a date", &mut date)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_name_the_commit_unless_it_is_the_tag() {
        assert_eq!(version("0.1.0", "6953133"), "0.1.0-6953133");
        assert_eq!(version("0.1.0", "6953133+"), "0.1.0-6953133.changed");
        assert_eq!(version("0.2.0", "v0.2.0"), "0.2.0");
        assert_eq!(version("0.2.0", "v0.2.0-3-gabcdef0"), "0.2.0-3-gabcdef0");
        assert_eq!(version("0.2.0", "v0.2.01"), "0.2.0-v0.2.01");
        assert_eq!(version("0.2.0", "unknown"), "0.2.0-unknown");
    }

    #[test]
    fn the_image_is_named_beside_debian() {
        let release = Release {
            version: "0.1.0-1".to_owned(),
            commit: "1".to_owned(),
            time: iso(0).unwrap(),
            base: format!("debian-trixie-{}", iso(86_400).unwrap()),
        };
        assert_eq!(
            release.file(),
            "VERSION=0.1.0-1\nCOMMIT=1\nTIME=1970-01-01T00:00:00Z\nBASE=debian-trixie-1970-01-02T00:00:00Z\n"
        );
        assert!(
            release
                .os_release("ID=debian\n")
                .starts_with("ID=debian\nIMAGE_ID=strongroom\n")
        );
    }
}
