//! The owner's files: strongroom.toml and what it names, put into CONFIG on the EFI system partition with mtools.
//!
//! Knows nothing of the configuration's meaning (the appliance judges that): any text in it that is the plain name of a
//! file lying beside it is taken to name that file.

use std::path::{Path, PathBuf};

use crate::error::{Error, OnFile, Result};
use crate::partitions::ESP;
use crate::{grub, process};

/// The name under which the appliance expects the configuration.
const CONFIG: &str = "strongroom.toml";
/// The appliance refuses larger files.
const LARGEST: u64 = 256 * 1024;

/// The configuration and the files that it names: each with the name it gets in CONFIG.
///
/// # Errors
/// When a file can't be read, is too large, or the configuration isn't TOML.
pub fn files(config: &Path) -> Result<Vec<(PathBuf, String)>> {
    let text = std::fs::read_to_string(config).on("read", config)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| Error::Unexpected {
        what: config.display().to_string(),
        detail: error.to_string(),
    })?;
    let folder = config.parent().unwrap_or(Path::new("."));
    let mut names = Vec::new();
    texts(&toml::Value::Table(table), &mut names);
    names.sort();
    names.dedup();
    let mut files = vec![(config.to_owned(), CONFIG.to_owned())];
    for name in names {
        let file = folder.join(&name);
        if is_plain(&name) && name != CONFIG && file.is_file() {
            files.push((file, name));
        }
    }
    for (file, _) in &files {
        let size = std::fs::metadata(file).on("read", file)?.len();
        if size > LARGEST {
            return Err(Error::TooBig {
                what: file.display().to_string(),
                actual: size,
                limit: LARGEST,
            });
        }
    }
    Ok(files)
}

/// Copies the files into CONFIG of a flashed disk or disk image.
///
/// # Errors
/// When mtools fails.
pub fn put(files: &[(PathBuf, String)], device: &Path) -> Result<()> {
    for (file, name) in files {
        let mut copy = process::command("mcopy");
        copy.args(["-o", "-i"])
            .arg(esp_of(device))
            .arg(file)
            .arg(format!("::CONFIG/{name}"));
        process::capture("put the configuration on the EFI system partition", &mut copy)?;
        eprintln!("  CONFIG/{name} from {}", file.display());
    }
    if !files.is_empty() {
        std::fs::File::open(device)
            .and_then(|device| device.sync_all())
            .on("write", device)?;
    }
    Ok(())
}

/// Gives a flashed disk an identity of its own, in the file where GRUB keeps its state.
///
/// # Errors
/// When mtools fails or the file is not as the image has it.
pub fn identify(device: &Path) -> Result<()> {
    const PLACE: &str = "grub/grubenv";
    let random = Path::new("/proc/sys/kernel/random/uuid");
    let id = std::fs::read_to_string(random)
        .on("read", random)?
        .trim()
        .replace('-', "");
    let mut variables = grub::parse_environment(&read(device, PLACE)?)?;
    variables.retain(|(name, _)| name != "DISK_ID");
    variables.push(("DISK_ID".to_owned(), id));
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let block = grub::environment(&variables)?;
    let mut copy = process::command("mcopy");
    copy.args(["-o", "-i"])
        .arg(esp_of(device))
        .arg("-")
        .arg(format!("::{PLACE}"));
    process::capture_with_input("give the disk an identity", &mut copy, &String::from_utf8_lossy(&block))?;
    std::fs::File::open(device)
        .and_then(|device| device.sync_all())
        .on("write", device)
}

/// Reads a file of the EFI system partition of a flashed disk or disk image that nobody is using.
///
/// # Errors
/// When mtools fails, as for a file that isn't there.
pub fn read(device: &Path, name: &str) -> Result<Vec<u8>> {
    let mut copy = process::command("mcopy");
    copy.arg("-i").arg(esp_of(device)).arg(format!("::{name}")).arg("-");
    let output = process::output_of(&mut copy)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Unexpected {
        what: format!("{name} on the EFI system partition of {}", device.display()),
        detail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// mtools' way to say: the file system that begins there.
fn esp_of(device: &Path) -> String {
    format!("{}@@{}M", device.display(), ESP.start_mib)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn texts(value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::String(text) => found.push(text.clone()),
        toml::Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        toml::Value::Table(table) => table.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_the_configuration_come_along_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mine.toml");
        std::fs::write(
            &config,
            "[a]\nb = \"owner.asc\"\nc = [\"../x\", \".hidden\", \"absent\"]\n[[d]]\ne = \"key\"\n",
        )
        .unwrap();
        for name in ["owner.asc", "key", ".hidden", "unrelated"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let names: Vec<String> = files(&config).unwrap().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["strongroom.toml", "key", "owner.asc"]);
    }

    #[test]
    fn what_is_no_toml_or_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.toml");
        std::fs::write(&config, "a = \n").unwrap();
        assert!(matches!(files(&config), Err(Error::Unexpected { .. })));
        std::fs::write(&config, "a = \"big\"\n").unwrap();
        std::fs::write(folder.path().join("big"), vec![0; 300_000]).unwrap();
        assert!(matches!(files(&config), Err(Error::TooBig { .. })));
    }
}
