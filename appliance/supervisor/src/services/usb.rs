//! Which block device may be a stick with a configuration, or a disk for copies: a label alone says nothing. Pure but for
//! [`look`], which asks lsblk.

use crate::services::command::{self, CommandError};
use serde::Deserialize;
use std::path::PathBuf;
use strongroom_model::config::{Array, Volume};

/// What a device is to be used for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A stick with a configuration, labelled STRONGROOM.
    Configuration,
    /// A disk for copies, of this label or UUID.
    Copies(&'a Volume),
}

impl Purpose<'_> {
    fn is_named(self, device: &Device) -> bool {
        let (label, uuid) = (device.label.as_deref(), device.uuid.as_deref());
        match self {
            Self::Configuration => label.is_some_and(|label| label.eq_ignore_ascii_case(LABEL)),
            Self::Copies(volume) => volume.is_of(label, uuid),
        }
    }

    /// Which file systems it may have, in words where it has another. FAT holds no file of 4 GiB, which a segment may have.
    fn file_system(self, name: Option<&str>) -> Result<FileSystem, Unfit> {
        let found = name.and_then(FileSystem::new);
        match self {
            Self::Configuration => found.ok_or(Unfit::FileSystem("FAT, exFAT nor ext4")),
            Self::Copies(_) => found
                .filter(|found| *found != FileSystem::Vfat)
                .ok_or(Unfit::FileSystem("ext4 nor exFAT")),
        }
    }
}

/// File systems that are mounted; the kernel's drivers for others are never reached by a stick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// FAT.
    Vfat,
    /// exFAT.
    Exfat,
    /// ext4.
    Ext4,
}

impl FileSystem {
    fn new(name: &str) -> Option<Self> {
        match name {
            "vfat" => Some(Self::Vfat),
            "exfat" => Some(Self::Exfat),
            "ext4" => Some(Self::Ext4),
            _ => None,
        }
    }

    /// As the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vfat => "vfat",
            Self::Exfat => "exfat",
            Self::Ext4 => "ext4",
        }
    }
}

/// A device that may be used so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stick {
    /// The device with the file system.
    pub device: PathBuf,
    /// What is on it.
    pub file_system: FileSystem,
    /// Identity of the file system.
    pub id: String,
}

/// Why a device is none that may be used so.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// lsblk failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// lsblk's output.
    #[error("lsblk's output can't be understood: {0}")]
    Form(#[from] serde_json::Error),
    /// It is not there any more.
    #[error("it is gone")]
    Gone,
    /// A disk inside the machine.
    #[error("it is not connected by USB")]
    NotUsb,
    /// Part of the array, or meant to be.
    #[error("the disk that it is on belongs to the array")]
    Array,
    /// A system disk, of this machine or another.
    #[error("the disk that it is on holds a Strongroom system")]
    System,
    /// In use.
    #[error("something on the same disk is mounted or in use")]
    InUse,
    /// The label is another by now.
    #[error("its label or UUID is another by now")]
    Label,
    /// A file system that it is not mounted with. Those that it is.
    #[error("its file system is neither {0}")]
    FileSystem(&'static str),
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
    tran: Option<String>,
    serial: Option<String>,
    wwn: Option<String>,
    fstype: Option<String>,
    label: Option<String>,
    uuid: Option<String>,
    parttype: Option<String>,
    partlabel: Option<String>,
    ptuuid: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Device>,
}

const COLUMNS: &str = "NAME,TYPE,TRAN,SERIAL,WWN,FSTYPE,LABEL,UUID,PARTTYPE,PARTLABEL,PTUUID,MOUNTPOINTS";
const LABEL: &str = "STRONGROOM";
/// Identity of the flashed disk's partition table (image/src/partitions.rs).
const SYSTEM_DISK: &str = "73747267-726f-4f6d-8000-000000000000";
/// GPT types of Linux RAID and LVM.
const MEMBER_TYPES: [&str; 2] = [
    "a19d880f-05fc-4d3b-a006-743f0f84911e",
    "e6d6d379-f507-44c2-a23c-238f2a3df928",
];
/// Longest identity of a file system that is remembered.
const ID_MAX: usize = 64;

/// Judges the device of that name.
pub fn look(name: &str, purpose: Purpose<'_>, array: Option<&Array>) -> Result<Stick, Unfit> {
    let text = command::run("lsblk", &["--json", "--bytes", "--tree=NAME", "--output", COLUMNS], "")?;
    judge(&text, name, purpose, array)
}

fn judge(listing: &str, name: &str, purpose: Purpose<'_>, array: Option<&Array>) -> Result<Stick, Unfit> {
    let listing: Listing = serde_json::from_str(listing)?;
    let disk = listing
        .blockdevices
        .iter()
        .find(|disk| disk.kind == "disk" && (disk.name == name || disk.children.iter().any(|part| part.name == name)));
    let disk = disk.ok_or(Unfit::Gone)?;
    if disk.tran.as_deref() != Some("usb") {
        return Err(Unfit::NotUsb);
    }
    let serial = disk.serial.as_deref().unwrap_or_default().trim();
    let wwn = disk.wwn.as_deref().unwrap_or_default().trim();
    let named = array.is_some_and(|array| {
        array
            .disks()
            .any(|known| known == serial || known.eq_ignore_ascii_case(wwn))
    });
    let all = || core::iter::once(disk).chain(&disk.children);
    let is_member = |device: &Device| {
        let of_type = device.parttype.as_deref().map(str::to_ascii_lowercase);
        of_type.is_some_and(|of_type| MEMBER_TYPES.contains(&of_type.as_str()))
            || matches!(device.fstype.as_deref(), Some("linux_raid_member" | "LVM2_member"))
            || device.children.iter().any(|child| child.kind.starts_with("raid"))
    };
    if named || all().any(is_member) {
        return Err(Unfit::Array);
    }
    let is_ours = |label: &Option<String>| matches!(label.as_deref(), Some("system-a" | "system-b" | "state" | "raid"));
    if disk.ptuuid.as_deref() == Some(SYSTEM_DISK) || all().any(|device| is_ours(&device.partlabel)) {
        return Err(Unfit::System);
    }
    let busy = |device: &Device| device.mountpoints.iter().any(Option::is_some);
    if all().any(|device| busy(device) || (device.kind == "part" && !device.children.is_empty())) {
        return Err(Unfit::InUse);
    }
    let device = all().find(|device| device.name == name).ok_or(Unfit::Gone)?;
    if !purpose.is_named(device) {
        return Err(Unfit::Label);
    }
    let file_system = purpose.file_system(device.fstype.as_deref())?;
    let id = device.uuid.as_deref().unwrap_or("unknown");
    Ok(Stick {
        device: PathBuf::from("/dev").join(&device.name),
        file_system,
        id: id.chars().filter(char::is_ascii_graphic).take(ID_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::config::Config;

    /// As lsblk 2.41 prints it, without what is null.
    fn listing(tran: &str, disk: &str, part: &str, sibling: &str) -> String {
        format!(
            r#"{{"blockdevices": [
            {{"name": "sda", "type": "disk", "tran": "sata", "serial": "SYS", "mountpoints": [null], "children": [
                {{"name": "sda2", "type": "part", "fstype": "vfat", "label": "STRONGROOM", "mountpoints": ["/boot/efi"]}}]}},
            {{"name": "sdb", "type": "disk", "tran": "{tran}", "serial": "STICK-1", {disk} "mountpoints": [null], "children": [
                {{"name": "sdb1", "type": "part", {part} "mountpoints": [null]}}
                {sibling}]}}]}}"#
        )
    }

    const FAT: &str = r#""fstype": "vfat", "label": "STRONGROOM", "uuid": "12AB-34CD","#;

    fn judged(listing: &str) -> Result<Stick, String> {
        judged_for(listing, Purpose::Configuration)
    }

    fn judged_for(listing: &str, purpose: Purpose<'_>) -> Result<Stick, String> {
        let config = Config::parse("[array]\nsystem_disk = \"SYS\"\ndata_disks = [\"DATA\"]\n").unwrap();
        judge(listing, "sdb1", purpose, config.array.as_ref()).map_err(|unfit| unfit.to_string())
    }

    #[test]
    fn a_stick_is_a_stick() {
        let stick = judged(&listing("usb", "", FAT, "")).unwrap();
        assert_eq!(stick.device, PathBuf::from("/dev/sdb1"));
        assert_eq!((stick.file_system, stick.id.as_str()), (FileSystem::Vfat, "12AB-34CD"));
        for (kind, label) in [("exfat", "Strongroom"), ("ext4", "strongroom")] {
            let part = FAT.replace("vfat", kind).replace("STRONGROOM", label);
            assert!(judged(&listing("usb", "", &part, "")).is_ok());
        }
        // Without a partition table.
        let whole = r#"{"blockdevices": [{"name": "sdb1", "type": "disk", "tran": "usb", "fstype": "vfat", "label": "STRONGROOM", "mountpoints": [null]}]}"#;
        assert_eq!(judged(whole).unwrap().id, "unknown");
    }

    #[test]
    fn no_disk_of_the_array_or_of_a_system_is_a_stick_whatever_its_label() {
        let refused = |listing: &str, why: &str| {
            let told = judged(listing).unwrap_err();
            assert!(told.contains(why), "{told}");
        };
        refused(&listing("sata", "", FAT, ""), "not connected by USB");
        refused(&listing("usb", "", FAT, "").replace("STICK-1", "DATA "), "array");
        let member = r#", {"name": "sdb2", "type": "part", "parttype": "A19D880F-05FC-4D3B-A006-743F0F84911E", "mountpoints": [null]}"#;
        refused(&listing("usb", "", FAT, member), "array");
        let member = r#", {"name": "sdb2", "type": "part", "fstype": "linux_raid_member", "mountpoints": [null]}"#;
        refused(&listing("usb", "", FAT, member), "array");
        let system = r#", {"name": "sdb3", "type": "part", "partlabel": "system-a", "mountpoints": [null]}"#;
        refused(&listing("usb", "", FAT, system), "Strongroom system");
        let table = format!(r#""ptuuid": "{SYSTEM_DISK}","#);
        refused(&listing("usb", &table, FAT, ""), "Strongroom system");
        let mounted = r#", {"name": "sdb2", "type": "part", "fstype": "ext4", "mountpoints": ["/mnt/raid"]}"#;
        refused(&listing("usb", "", FAT, mounted), "mounted");
        refused(&listing("usb", "", &FAT.replace("vfat", "btrfs"), ""), "neither FAT");
        refused(&listing("usb", "", &FAT.replace("STRONGROOM", "OTHER"), ""), "label");
        refused(r#"{"blockdevices": []}"#, "gone");
    }

    #[test]
    fn a_disk_for_copies_is_the_one_that_is_named() {
        let label = Volume::new("BACKUP").unwrap();
        let uuid = Volume::new("12ab-34cd").unwrap();
        let part = FAT.replace("vfat", "exfat").replace("STRONGROOM", "BACKUP");
        let disk = listing("usb", "", &part, "");
        for volume in [&label, &uuid] {
            let found = judged_for(&disk, Purpose::Copies(volume)).unwrap();
            assert_eq!(
                (found.device, found.file_system),
                (PathBuf::from("/dev/sdb1"), FileSystem::Exfat)
            );
        }
        let other = Volume::new("OTHER").unwrap();
        assert!(
            judged_for(&disk, Purpose::Copies(&other))
                .unwrap_err()
                .contains("another by now")
        );
        assert!(judged(&disk).is_err());
        for bad in ["vfat", "ntfs", "btrfs"] {
            let told = judged_for(&disk.replace("exfat", bad), Purpose::Copies(&label)).unwrap_err();
            assert!(told.contains("neither ext4 nor exFAT"), "{told}");
        }
        for (from, to, why) in [
            ("\"usb\"", "\"sata\"", "not connected by USB"),
            ("STICK-1", "DATA", "array"),
            (
                "\"label\": \"BACKUP\"",
                "\"label\": \"BACKUP\", \"partlabel\": \"state\"",
                "Strongroom system",
            ),
        ] {
            let told = judged_for(&disk.replace(from, to), Purpose::Copies(&label)).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
