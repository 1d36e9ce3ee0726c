//! What goes with the base system wherever it goes: the licences of its packages and their sources, by Buildroot's
//! `legal-info`, and the bill of materials, by its `utils/generate-cyclonedx`.
//! Source: <https://buildroot.org/downloads/manual/manual.html#legal-info>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::checkout::Checkout;
use super::make;
use super::room::Room;
use super::select;
use crate::error::{Error, OnFile, Result};
use crate::manifest::Versions;
use crate::workspace::Workspace;
use crate::{process, sbom};

/// In Buildroot's output folder: what `legal-info` collects. The sources are there too, for whoever passes the image on.
const LEGAL: &str = "legal-info";
/// In Buildroot's output folder: the bill of materials.
const BILL: &str = "base.cdx.json";
/// Where the generator looks for the names of licences, in the folder of downloads.
const NAMES: &str = "cyclonedx/spdx-1.6.schema.json";

/// Where licences and sources are collected.
pub fn folder(output: &Path) -> PathBuf {
    output.join(LEGAL)
}

/// Collects licences and sources of everything that was built.
///
/// # Errors
/// When a licence's file is not where a recipe says it is.
pub fn collect(workspace: &Workspace, checkout: &Checkout, room: Option<&Room>, output: &Path) -> Result<()> {
    let mut command = make::command(workspace, checkout, room, output);
    command.arg(LEGAL);
    process::run_logged("collect licences and sources", &mut command, &output.join("legal.log"))
}

/// Has the bill of materials written: of the target's packages, in the versions that were built.
///
/// # Errors
/// When the generator fails.
pub fn bill(checkout: &Checkout, room: Option<&Room>, output: &Path, info: &str, versions: &Versions) -> Result<()> {
    // The generator would fetch the list of names from the network: the same list is in a crate.
    let names = output.join(NAMES);
    let folder = names.parent().unwrap_or(output);
    std::fs::create_dir_all(folder).on("create", folder)?;
    std::fs::write(&names, licence_names().to_string()).on("write", &names)?;
    let input = output.join("base.show-info.json");
    std::fs::write(&input, select::for_bill(info, versions)).on("write", &input)?;
    let mut downloads = std::ffi::OsString::from("BR2_DL_DIR=");
    downloads.push(output);
    let arguments = [
        downloads,
        "python3".into(),
        checkout.folder.join("utils/generate-cyclonedx").into(),
        "--in-file".into(),
        input.into(),
        "--out-file".into(),
        output.join(BILL).into(),
    ];
    let mut command = match room {
        Some(room) => room.command("env", &arguments),
        None => {
            let mut command = process::command("env");
            command.args(arguments);
            command
        }
    };
    process::run_logged("write the bill of materials", &mut command, &output.join("bill.log"))
}

/// In the form of SPDX's schema, as far as the generator reads it.
fn licence_names() -> Value {
    json!({ "enum": spdx::identifiers::LICENSES.iter().map(|license| license.name).collect::<Vec<_>>() })
}

/// The components of the bill, as the generator wrote them but for the texts of Buildroot's patches, which are whole in
/// the sources that were collected; and with package URLs, by which scanners find what is known of a version. `origins`
/// are Debian's source packages that stood in, by Buildroot's name.
///
/// # Errors
/// When there was no build, or when its bill names nothing.
pub fn components(output: &Path, origins: &BTreeMap<String, String>) -> Result<Vec<Value>> {
    let file = output.join(BILL);
    let text = std::fs::read_to_string(&file).on("read", &file)?;
    let mut components = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(mut bill)) => match bill.remove("components") {
            Some(Value::Array(components)) => components,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    for component in &mut components {
        if let Some(component) = component.as_object_mut() {
            component.remove("pedigree");
            let text = |key: &str| component.get(key).and_then(Value::as_str).unwrap_or_default();
            let name = text("name");
            let purl = sbom::purl_of_source(name, text("version"), origins.get(name).map(String::as_str));
            component.insert("purl".to_owned(), Value::from(purl));
        }
    }
    if components.is_empty() {
        return Err(Error::Unexpected {
            what: file.display().to_string(),
            detail: "names no component".to_owned(),
        });
    }
    Ok(components)
}

/// Path below the package's folder, and content, of every licence of what is on the target; sorted.
///
/// # Errors
/// When there are none, or one can't be read.
pub fn licences(output: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let root = folder(output).join("licenses");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).on("list", &folder)? {
            let path = entry.on("list", &folder)?.path();
            let kind = std::fs::symlink_metadata(&path).on("read", &path)?.file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(place) = path.strip_prefix(&root)
            {
                found.push((place.display().to_string(), std::fs::read(&path).on("read", &path)?));
            }
        }
    }
    if found.is_empty() {
        return Err(Error::Unexpected {
            what: root.display().to_string(),
            detail: "holds no licence".to_owned(),
        });
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_knows_the_common_licences() {
        let names = licence_names();
        let names = names["enum"].as_array().unwrap();
        for name in ["GPL-2.0-only", "MIT", "LGPL-2.1+"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn components_come_without_patches_with_urls_and_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let bill = r#"{"components":[{"name":"zlib","version":"1","pedigree":{"patches":[]}}]}"#;
        std::fs::write(folder.path().join(BILL), bill).unwrap();
        let none = BTreeMap::new();
        assert_eq!(
            components(folder.path(), &none).unwrap(),
            [json!({"name": "zlib", "version": "1", "purl": "pkg:generic/zlib@1"})]
        );
        let debian = BTreeMap::from([("zlib".to_owned(), "libz".to_owned())]);
        assert_eq!(
            components(folder.path(), &debian).unwrap()[0]["purl"],
            "pkg:deb/debian/libz@1?arch=source&distro=trixie"
        );
        std::fs::write(folder.path().join(BILL), "{}").unwrap();
        assert!(components(folder.path(), &none).is_err());
    }

    #[test]
    fn licences_are_found_in_folders_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(licences(folder.path()).is_err());
        let root = folder.path().join(LEGAL).join("licenses");
        std::fs::create_dir_all(root.join("b-1/LICENSES")).unwrap();
        std::fs::create_dir_all(root.join("a-1")).unwrap();
        std::fs::write(root.join("b-1/LICENSES/MIT"), "m").unwrap();
        std::fs::write(root.join("a-1/COPYING"), "c").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("a-1/link")).unwrap();
        let expected = [("a-1/COPYING", "c"), ("b-1/LICENSES/MIT", "m")];
        let expected = expected.map(|(place, text)| (place.to_owned(), text.as_bytes().to_vec()));
        assert_eq!(licences(folder.path()).unwrap(), expected);
    }
}
