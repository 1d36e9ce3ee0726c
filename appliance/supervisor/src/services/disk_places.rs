//! Which disks there are, and where each hangs: its kernel name now, its port. From `lsblk` and /sys.

use super::command::{self, CommandError};
use serde::Deserialize;
use std::path::Path;

/// One disk and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskPlace {
    /// Kernel name now, e.g. `sdb`.
    pub name: String,
    /// Serial number, as the disks duty knows it.
    pub serial: String,
    /// Model.
    pub model: String,
    /// ATA port: 2 for `ata2`.
    pub ata_port: Option<u32>,
    /// USB port, e.g. `2-1.4`.
    pub usb_port: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Device {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size: Option<u64>,
    serial: Option<String>,
    model: Option<String>,
}

/// Every disk that tells a serial number.
pub fn all(sys: &Path) -> Result<Vec<DiskPlace>, CommandError> {
    let columns = "NAME,TYPE,SIZE,SERIAL,MODEL";
    let text = command::run("lsblk", &["--json", "--bytes", "--nodeps", "--output", columns], "")?;
    Ok(parse(&text)
        .into_iter()
        .map(|mut place| {
            let device = std::fs::canonicalize(sys.join("block").join(&place.name)).unwrap_or_default();
            (place.ata_port, place.usb_port) = ports(&device.to_string_lossy());
            place
        })
        .collect())
}

fn parse(text: &str) -> Vec<DiskPlace> {
    let devices = serde_json::from_str::<Listing>(text).map_or_else(|_| Vec::new(), |listing| listing.blockdevices);
    devices
        .into_iter()
        .filter(|device| device.kind == "disk" && device.size != Some(0))
        .map(|device| DiskPlace {
            name: device.name,
            serial: device.serial.unwrap_or_default().trim().to_string(),
            model: device.model.unwrap_or_default().trim().to_string(),
            ..DiskPlace::default()
        })
        .filter(|place| !place.serial.is_empty())
        .collect()
}

/// The ports in the path of a device, such as `/sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/…/block/sdb`.
fn ports(device: &str) -> (Option<u32>, Option<String>) {
    let ata = device
        .split('/')
        .find_map(|part| part.strip_prefix("ata")?.parse().ok());
    let is_usb = |part: &&str| {
        part.split_once('-').is_some_and(|(bus, port)| {
            bus.parse::<u32>().is_ok() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        })
    };
    (ata, device.split('/').rfind(is_usb).map(str::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_with_a_serial_number() {
        let places = parse(
            r#"{"blockdevices":[
            {"name":"sda","type":"disk","size":8589934592,"serial":" WD-1 ","model":"WDC "},
            {"name":"sdb","type":"disk","size":8589934592,"serial":null,"model":"stick"},
            {"name":"sdc","type":"disk","size":0,"serial":"reader","model":"card"},
            {"name":"sr0","type":"rom","size":1073741312,"serial":"QM3","model":"DVD"}]}"#,
        );
        assert_eq!(places.len(), 1);
        assert_eq!((places[0].name.as_str(), places[0].serial.as_str()), ("sda", "WD-1"));
        assert_eq!(parse("not json"), []);
    }

    #[test]
    fn ports_by_the_path() {
        let ata = "/sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb";
        assert_eq!(ports(ata), (Some(2), None));
        let usb = "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1.4/2-1.4:1.0/host6/target6:0:0/6:0:0:0/block/sdc";
        assert_eq!(ports(usb), (None, Some("2-1.4".into())));
        assert_eq!(ports("/sys/devices/virtual/block/loop0"), (None, None));
    }
}
