//! The list of packages and versions in an image: one `package=version` a line, sorted, under a line that tells the age
//! of the mirror they came from.
//!
//! Reads dpkg's control format (deb-control(5)) as in `/var/lib/dpkg/status` and a mirror's `Packages`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, OnFile, Result};
use crate::sbom::Package;

/// Versions by package.
pub type Versions = BTreeMap<String, String>;

/// The installed packages of a dpkg status file.
#[must_use]
pub fn installed(status: &str) -> Versions {
    stanzas(status)
        .filter(|stanza| {
            stanza
                .get("Status")
                .is_some_and(|status| status.ends_with(" installed"))
        })
        .filter_map(|stanza| {
            Some((
                (*stanza.get("Package")?).to_owned(),
                (*stanza.get("Version")?).to_owned(),
            ))
        })
        .collect()
}

/// What the installed packages of a dpkg status file say of themselves, but for their licences; sorted by name.
#[must_use]
pub fn packages(status: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = stanzas(status)
        .filter(|stanza| {
            stanza
                .get("Status")
                .is_some_and(|status| status.ends_with(" installed"))
        })
        .map(|stanza| {
            let text = |key: &str| stanza.get(key).copied().unwrap_or_default().to_owned();
            // `Source: name (version)`, absent where it is the package's own name.
            let source = stanza.get("Source").and_then(|source| source.split(' ').next());
            Package {
                name: text("Package"),
                version: text("Version"),
                architecture: text("Architecture"),
                source: source.map_or_else(|| text("Package"), str::to_owned),
                ..Package::default()
            }
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// Every package and version that a mirror's index offers.
#[must_use]
pub fn offered(packages: &str) -> BTreeSet<(String, String)> {
    stanzas(packages)
        .filter_map(|stanza| {
            Some((
                (*stanza.get("Package")?).to_owned(),
                (*stanza.get("Version")?).to_owned(),
            ))
        })
        .collect()
}

/// Starts the manifest's first line; seconds since 1970 follow.
const TIME: &str = "# Debian as of @";

/// The manifest's text.
#[must_use]
pub fn render(versions: &Versions, time: u64) -> String {
    let lines = versions
        .iter()
        .map(|(package, version)| format!("{package}={version}\n"));
    std::iter::once(format!("{TIME}{time}\n")).chain(lines).collect()
}

/// The age that a manifest names, in seconds since 1970.
///
/// # Errors
/// When it can't be read.
pub fn time(path: &Path) -> Result<Option<u64>> {
    let text = std::fs::read_to_string(path).on("read", path)?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix(TIME)?.trim().parse().ok()))
}

/// Reads a manifest. Empty lines and lines that start with `#` are passed over. `path` is for the message only.
///
/// # Errors
/// [`Error::BadManifest`] with the line.
pub fn parse(text: &str, path: &Path) -> Result<Versions> {
    let mut versions = Versions::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((package, version)) if is_word(package) && is_word(version) => {
                versions.insert(package.to_owned(), version.to_owned());
            }
            _ => {
                return Err(Error::BadManifest {
                    path: path.to_owned(),
                    line: index + 1,
                });
            }
        }
    }
    Ok(versions)
}

/// What `wanted` asks for and `offered` lacks, as `package=version`.
#[must_use]
pub fn gone(wanted: &Versions, offered: &BTreeSet<(String, String)>) -> Vec<String> {
    wanted
        .iter()
        .filter(|(package, version)| !offered.contains(&((*package).clone(), (*version).clone())))
        .map(|(package, version)| format!("{package}={version}"))
        .collect()
}

/// apt preferences (apt_preferences(5)) that admit exactly these versions.
#[must_use]
pub fn pins(wanted: &Versions) -> String {
    wanted
        .iter()
        .map(|(package, version)| format!("Package: {package}\nPin: version {version}\nPin-Priority: 1001\n\n"))
        .collect()
}

// Characters of package names and versions, deb-version(7).
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:~".contains(c))
}

fn stanzas(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    text.split("\n\n").map(|stanza| {
        stanza
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(": "))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: b\nStatus: install ok installed\nVersion: 1:2.0-1\nDescription: x\n more: text\n\n\
                          Package: a\nStatus: install ok installed\nVersion: 3~rc1+deb13u1\n\n\
                          Package: c\nStatus: deinstall ok config-files\nVersion: 1\n";

    #[test]
    fn a_manifest_lists_what_is_installed_and_reads_back() {
        let versions = installed(STATUS);
        let text = render(&versions, 7);
        assert_eq!(text, "# Debian as of @7\na=3~rc1+deb13u1\nb=1:2.0-1\n");
        assert_eq!(
            parse(&format!("# taken today\n\n{text}"), Path::new("m")).unwrap(),
            versions
        );
    }

    #[test]
    fn what_is_gone_is_named() {
        let offer = offered("Package: a\nVersion: 4\n\nPackage: b\nVersion: 1:2.0-1\n\nPackage: b\nVersion: 9\n");
        assert_eq!(gone(&installed(STATUS), &offer), ["a=3~rc1+deb13u1"]);
    }

    #[test]
    fn a_line_that_is_none_is_an_error_with_its_number() {
        for bad in ["a=1\nb", "a=1\n=2", "a=1\na b=2", "a=1\nb=$(x)"] {
            let error = parse(bad, Path::new("m")).unwrap_err();
            assert!(matches!(error, Error::BadManifest { line: 2, .. }), "{bad}");
        }
    }
}
