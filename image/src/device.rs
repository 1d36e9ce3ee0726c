//! Which disks may be written: looks with lsblk(8), and judges without touching anything.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process;

/// A block device as lsblk sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// Its path.
    pub path: PathBuf,
    /// `disk`, `part`, `loop`, …
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it can be unplugged.
    pub removable: bool,
    /// Where it, or a part of it, is mounted or used as swap.
    pub mounted: Vec<String>,
    /// Its serial number, if it tells.
    pub serial: Option<String>,
    /// Its model, if it tells.
    pub model: Option<String>,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}, {} MB, serial {}",
            self.path.display(),
            self.model.as_deref().unwrap_or("unnamed"),
            self.size / 1_000_000,
            self.serial.as_deref().unwrap_or("unknown")
        )
    }
}

/// Looks at a device.
///
/// # Errors
/// When lsblk fails or says nothing about it.
pub fn look(device: &Path) -> Result<Disk> {
    let mut command = process::command("lsblk");
    command
        .args([
            "--json",
            "--bytes",
            // Without a tree, JSON lists partitions beside their disk, and a mounted one would be overlooked.
            "--tree",
            "--output",
            "PATH,TYPE,SIZE,RM,HOTPLUG,MOUNTPOINTS,SERIAL,MODEL",
        ])
        .arg(device);
    let text = process::capture("look at the disk", &mut command)?;
    parse(&text).ok_or_else(|| Error::Unexpected {
        what: device.display().to_string(),
        detail: "lsblk says nothing about it".to_owned(),
    })
}

fn parse(json: &str) -> Option<Disk> {
    let json: Value = serde_json::from_str(json).ok()?;
    let device = json["blockdevices"].get(0)?;
    let text = |key: &str| {
        device[key]
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let mut mounted = Vec::new();
    mounts(device, &mut mounted);
    Some(Disk {
        path: text("path")?.into(),
        kind: text("type")?,
        size: device["size"].as_u64()?,
        removable: device["rm"].as_bool()? || device["hotplug"].as_bool()?,
        mounted,
        serial: text("serial"),
        model: text("model"),
    })
}

fn mounts(device: &Value, found: &mut Vec<String>) {
    let list = |key: &str| device[key].as_array().map(Vec::as_slice).unwrap_or_default();
    found.extend(list("mountpoints").iter().filter_map(Value::as_str).map(str::to_owned));
    for child in list("children") {
        mounts(child, found);
    }
}

/// Whether the disk may be written, or why not and what to do. `serial` is what the person named; `least` is the size
/// in bytes that the appliance needs before its array begins.
///
/// # Errors
/// The reason, in words.
pub fn judge(disk: &Disk, serial: Option<&str>, least: u64) -> Result<(), String> {
    let own = disk.serial.as_deref();
    if disk.kind != "disk" {
        return Err(format!("it is not a whole disk but a {}", disk.kind));
    }
    if !disk.mounted.is_empty() {
        return Err(format!("it is in use at {}; unmount it first", disk.mounted.join(", ")));
    }
    if disk.size <= least {
        return Err(format!(
            "it has {} MB; the appliance needs more than {} MB before its array begins",
            disk.size / 1_000_000,
            least / 1_000_000
        ));
    }
    match serial {
        Some(named) if own == Some(named) => Ok(()),
        Some(named) => Err(format!(
            "its serial number is {}, not {named}",
            own.unwrap_or("unknown")
        )),
        None if disk.removable => Ok(()),
        None => Err(match own {
            Some(own) => format!("it is a fixed disk; if you are sure, add --serial {own}"),
            None => "it is a fixed disk without a serial number to name it by".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSBLK: &str = r#"{"blockdevices":[{"path":"/dev/sdx","type":"disk","size":64000000000,"rm":false,"hotplug":true,
        "mountpoints":[null],"serial":"AB12 ","model":"Stick  ","children":[
        {"path":"/dev/sdx1","type":"part","size":1,"rm":false,"hotplug":true,"mountpoints":["/media/x",null],"serial":null,"model":null}]}]}"#;

    fn stick() -> Disk {
        Disk {
            mounted: Vec::new(),
            ..parse(LSBLK).unwrap()
        }
    }

    #[test]
    fn lsblk_is_understood() {
        let disk = parse(LSBLK).unwrap();
        assert_eq!(disk.serial.as_deref(), Some("AB12"));
        assert!(disk.removable);
        assert_eq!(disk.mounted, ["/media/x"]);
        assert_eq!(disk.to_string(), "/dev/sdx: Stick, 64000 MB, serial AB12");
        assert_eq!(parse("{}"), None);
    }

    #[test]
    fn the_disk_that_this_machine_runs_from_is_seen_as_mounted() {
        let mut list = process::command("lsblk");
        list.args(["--json", "--nodeps", "--paths", "--output", "NAME"]);
        let Ok(text) = process::capture("list disks", &mut list) else {
            return; // Containers show no disks.
        };
        let json: Value = serde_json::from_str(&text).unwrap();
        for device in json["blockdevices"].as_array().unwrap() {
            let disk = look(Path::new(device["name"].as_str().unwrap())).unwrap();
            let mut tree = process::command("lsblk");
            tree.args(["--noheadings", "--list", "--output", "MOUNTPOINTS"])
                .arg(&disk.path);
            let mounts = process::capture("list mounts", &mut tree).unwrap();
            assert_eq!(disk.mounted.is_empty(), mounts.trim().is_empty(), "{disk}");
        }
    }

    #[test]
    fn only_an_idle_removable_disk_or_one_named_by_its_serial_is_written() {
        let fixed = Disk {
            removable: false,
            ..stick()
        };
        assert!(judge(&stick(), None, 1).is_ok());
        assert!(judge(&stick(), Some("AB12"), 1).is_ok());
        assert!(judge(&stick(), Some("other"), 1).unwrap_err().contains("AB12"));
        assert!(judge(&fixed, None, 1).unwrap_err().contains("--serial AB12"));
        assert!(judge(&fixed, Some("AB12"), 1).is_ok());
        assert!(judge(&fixed, Some(""), 1).is_err());
        let nameless = Disk {
            serial: None,
            ..fixed.clone()
        };
        assert!(judge(&nameless, Some("AB12"), 1).is_err());
        let mounted = Disk {
            mounted: vec!["/".to_owned()],
            ..fixed
        };
        assert!(judge(&mounted, Some("AB12"), 1).unwrap_err().contains("in use at /"));
        assert!(
            judge(
                &Disk {
                    kind: "part".to_owned(),
                    ..stick()
                },
                None,
                1
            )
            .is_err()
        );
        assert!(judge(&stick(), None, 64_000_000_000).is_err());
    }
}
