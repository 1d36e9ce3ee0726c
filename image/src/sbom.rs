//! The bill of materials: every package of the base system and every crate in its programs, as CycloneDX 1.6
//! (<https://cyclonedx.org/docs/1.6/json/>), the same for the same image. Buildroot's packages come from its own
//! generator. Pure but for reading the base system's tar.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::crates::Crate;
use crate::debian::RELEASE;
use crate::error::{OnFile, Result};
use crate::fingerprint::hex;
use crate::manifest;

/// What a package of Debian's says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// The source package it was built from.
    pub source: String,
    /// Licences that its copyright file names, in SPDX's words where those are certain; empty where the file is prose.
    pub licences: BTreeSet<String>,
}

/// The packages of a root file system in a tar file, sorted by name.
///
/// # Errors
/// When it can't be read.
pub fn packages(tar: &Path) -> Result<Vec<Package>> {
    let mut status = String::new();
    let mut copyrights = BTreeMap::new();
    let mut links = BTreeMap::new();
    let mut archive = tar::Archive::new(File::open(tar).on("open", tar)?);
    for entry in archive.entries_with_seek().on("read", tar)? {
        let mut entry = entry.on("read", tar)?;
        let path = entry.path().on("read", tar)?.display().to_string();
        let path = path.trim_start_matches("./");
        if path == "var/lib/dpkg/status" {
            entry.read_to_string(&mut status).on("read", tar)?;
        } else if let Some(doc) = path.strip_prefix("usr/share/doc/") {
            match doc.split_once('/') {
                Some((name, "copyright")) => {
                    let name = name.to_owned();
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).on("read", tar)?;
                    copyrights.insert(name, licences(&String::from_utf8_lossy(&content)));
                }
                None => {
                    if let Some(target) = entry.link_name().on("read", tar)? {
                        links.insert(doc.to_owned(), target.display().to_string());
                    }
                }
                Some(_) => {}
            }
        }
    }
    let mut packages = manifest::packages(&status);
    for package in &mut packages {
        let folder = links.get(&package.name).unwrap_or(&package.name);
        package.licences = copyrights.get(folder).cloned().unwrap_or_default();
    }
    Ok(packages)
}

/// The licences that a copyright file in Debian's machine-readable format names.
/// Source: <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>.
fn licences(copyright: &str) -> BTreeSet<String> {
    let header = copyright.split("\n\n").next().unwrap_or_default();
    if !header.contains("copyright-format/1.0") {
        return BTreeSet::new();
    }
    copyright
        .lines()
        .filter_map(|line| line.strip_prefix("License:"))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(spdx)
        .collect()
}

/// Debian's short name in SPDX's words, where both surely mean the same; else as it is.
fn spdx(name: &str) -> String {
    let family = |prefix: &str| {
        let version = name.strip_prefix(prefix)?.strip_prefix('-')?;
        let (version, kind) = match version.strip_suffix('+') {
            Some(version) => (version, "or-later"),
            None => (version, "only"),
        };
        let known = ["1", "2", "2.0", "2.1", "3", "3.0"].contains(&version);
        let dot = if version.contains('.') { "" } else { ".0" };
        let spdx = format!("{prefix}-{version}{dot}-{kind}");
        (known && spdx::license_id(&spdx).is_some()).then_some(spdx)
    };
    let same = match name {
        "Expat" => "MIT",
        "BSD-2-clause" => "BSD-2-Clause",
        "BSD-3-clause" => "BSD-3-Clause",
        "Apache-2" => "Apache-2.0",
        "zlib" => "Zlib",
        "CC0" => "CC0-1.0",
        _ => "",
    };
    match family("LGPL").or_else(|| family("GPL")) {
        Some(found) => found,
        None if !same.is_empty() => same.to_owned(),
        None => name.to_owned(),
    }
}

/// Debian's packages as components of the bill.
#[must_use]
pub fn components(packages: &[Package]) -> Vec<Value> {
    packages.iter().map(debian).collect()
}

/// The bill: the base system's components and the crates. `time` is in ISO 8601.
#[must_use]
pub fn render(version: &str, time: &str, base: Vec<Value>, crates: &[Crate]) -> String {
    let components: Vec<Value> = base.into_iter().chain(crates.iter().map(cargo)).collect();
    let components = Value::from(components);
    let bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(version, &components.to_string()),
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "firmware",
                "bom-ref": "strongroom",
                "name": "strongroom",
                "version": version,
                "description": "A backup server for the home, as one image",
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            },
        },
        "components": components,
    });
    format!("{bill:#}\n")
}

fn debian(package: &Package) -> Value {
    let purl = format!(
        "pkg:deb/debian/{}@{}?arch={}&distro={RELEASE}",
        percent(&package.name),
        percent(&package.version),
        package.architecture
    );
    let mut component = library(&purl, &package.name, &package.version);
    component["properties"] = json!([{"name": "debian:source", "value": package.source}]);
    add_licences(&mut component, package);
    component
}

/// The package URL of something built from source: Debian's source package, or else only name and version.
#[must_use]
pub fn purl_of_source(name: &str, version: &str, debian: Option<&str>) -> String {
    let version = percent(version);
    match debian {
        Some(source) => format!(
            "pkg:deb/debian/{}@{version}?arch=source&distro={RELEASE}",
            percent(source)
        ),
        None => format!("pkg:generic/{}@{version}", percent(name)),
    }
}

/// What every component of the bill has; its package URL names it.
fn library(purl: &str, name: &str, version: &str) -> Value {
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    })
}

fn add_licences(component: &mut Value, package: &Package) {
    if package.licences.is_empty() {
        return;
    }
    component["licenses"] = package
        .licences
        .iter()
        .map(|name| match spdx::license_id(name) {
            Some(id) => json!({"license": {"id": id.name}}),
            None => json!({"license": {"name": name}}),
        })
        .collect();
}

fn cargo(item: &Crate) -> Value {
    let purl = format!("pkg:cargo/{}@{}", percent(&item.name), percent(&item.version));
    let mut component = library(&purl, &item.name, &item.version);
    if !item.licence.is_empty() {
        component["licenses"] = json!([{"expression": item.licence}]);
    }
    if let Some(checksum) = &item.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

/// A UUID of version 8 (RFC 9562) out of what the bill says, so that the same bill has the same number.
fn serial(version: &str, components: &str) -> String {
    let mut hash = Sha256::digest(format!("{version}\n{components}"));
    hash[6] = hash[6] & 0x0f | 0x80;
    hash[8] = hash[8] & 0x3f | 0x80;
    let hex = hex(&hash[..16]);
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("urn:uuid:{a}-{b}-{c}-{d}-{e}")
}

/// As package URLs ask: <https://github.com/package-url/purl-spec>.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bill() -> Value {
        let package = Package {
            name: "g++".to_owned(),
            version: "1:2.0+b1~x".to_owned(),
            architecture: "amd64".to_owned(),
            source: "gcc".to_owned(),
            licences: licences(
                "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                 Files: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: Expat\n\nLicense: BSLA\n",
            ),
        };
        let item = Crate {
            name: "aes".to_owned(),
            version: "0.8.4".to_owned(),
            licence: "MIT OR Apache-2.0".to_owned(),
            checksum: Some("ab".repeat(32)),
            authors: Vec::new(),
            folder: "/x".into(),
        };
        let bill = render("0.1.0", "2026-01-01T00:00:00Z", components(&[package]), &[item]);
        serde_json::from_str(&bill).unwrap()
    }

    #[test]
    fn packages_and_crates_have_urls_licences_and_sums() {
        let bill = bill();
        let [package, item] = bill["components"].as_array().unwrap().as_slice() else {
            panic!("not two components");
        };
        assert_eq!(
            package["purl"],
            "pkg:deb/debian/g%2B%2B@1%3A2.0%2Bb1~x?arch=amd64&distro=trixie"
        );
        assert_eq!(
            package["licenses"],
            json!([{"license": {"name": "BSLA"}}, {"license": {"id": "GPL-2.0-or-later"}}, {"license": {"id": "MIT"}}])
        );
        assert_eq!(item["purl"], "pkg:cargo/aes@0.8.4");
        assert_eq!(item["hashes"][0]["content"], "ab".repeat(32));
        assert_eq!(bill["metadata"]["component"]["type"], "firmware");
    }

    #[test]
    fn the_serial_number_is_a_uuid_and_follows_the_content() {
        let serial = bill()["serialNumber"].as_str().unwrap().to_owned();
        assert_eq!(serial, bill()["serialNumber"]);
        let uuid = serial.strip_prefix("urn:uuid:").unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "8");
        assert_ne!(serial, super::serial("0.1.1", ""));
    }

    #[test]
    fn debians_names_become_spdxs_only_where_both_mean_the_same() {
        for (debian, expected) in [
            ("GPL-2", "GPL-2.0-only"),
            ("GPL-3+", "GPL-3.0-or-later"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("GPL-2.0+", "GPL-2.0-or-later"),
            ("GPL-2+ with Texinfo exception", "GPL-2+ with Texinfo exception"),
            ("LGPL", "LGPL"),
            ("ISC", "ISC"),
        ] {
            assert_eq!(spdx(debian), expected);
        }
        assert!(licences("Copyright: somebody\nLicense: X\n").is_empty());
    }
}
