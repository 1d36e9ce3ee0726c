//! Block devices, as `lsblk` and `blkid` tell them and as the superblock reads. Observes only; never writes.

use super::command::{self, CommandError};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use strongroom_model::array::{Contents, DiskFacts, PartitionFacts, RAID_START_BYTES, Signature};
use strongroom_model::superblock::{self, Found, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET};

/// Why the disks could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its output was not of the expected form.
    #[error("lsblk's output can't be understood: {0}")]
    Form(#[from] serde_json::Error),
}

#[derive(Debug, Deserialize)]
struct Listing {
    blockdevices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Device {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    size: Option<u64>,
    serial: Option<String>,
    wwn: Option<String>,
    model: Option<String>,
    partn: Option<u32>,
    /// In sectors of 512 bytes.
    start: Option<u64>,
    partlabel: Option<String>,
    #[serde(default)]
    mountpoints: Vec<Option<String>>,
    #[serde(default)]
    children: Vec<Device>,
}

/// How a partition table without anything else is named.
const TABLE: &str = "a partition table";
const COLUMNS: &str = "PATH,TYPE,SIZE,SERIAL,WWN,MODEL,PARTN,START,PARTLABEL,MOUNTPOINTS";

/// Every disk with its partitions and what is on them. The booted disk is the one that holds the root file system.
pub fn disks() -> Result<Vec<DiskFacts>, BlockError> {
    let text = command::run("lsblk", &["--json", "--bytes", "--tree=PATH", "--output", COLUMNS], "")?;
    let listing = parse(&text)?;
    Ok(listing.into_iter().map(observe).collect())
}

fn parse(text: &str) -> Result<Vec<Device>, serde_json::Error> {
    let listing: Listing = serde_json::from_str(text)?;
    Ok(listing
        .blockdevices
        .into_iter()
        .filter(|device| device.kind == "disk" && device.size != Some(0))
        .collect())
}

fn is_mounted_at(device: &Device, mountpoint: &str) -> bool {
    device.mountpoints.iter().flatten().any(|at| at == mountpoint)
        || device.children.iter().any(|child| is_mounted_at(child, mountpoint))
}

/// What uses a device right now, its partitions aside.
fn usage(device: &Device) -> Option<String> {
    // Of several, the shortest is the one that people know.
    let mounted = device.mountpoints.iter().flatten().min_by_key(|at| at.len());
    let mounted = mounted.map(|at| format!("mounted at {at}"));
    mounted.or_else(|| {
        let mut holders = device.children.iter().filter(|child| child.kind != "part");
        holders.next().map(|holder| format!("part of {}", holder.path))
    })
}

fn observe(device: Device) -> DiskFacts {
    let booted = is_mounted_at(&device, "/");
    let partitions: Vec<PartitionFacts> = device
        .children
        .iter()
        .filter(|child| child.kind == "part")
        .map(|child| PartitionFacts {
            number: child.partn.unwrap_or(0),
            path: child.path.clone(),
            start_bytes: child.start.unwrap_or(0) * 512,
            size_bytes: child.size.unwrap_or(0),
            label: child.partlabel.clone().unwrap_or_default(),
            contents: contents_at(&child.path, 0),
            used: usage(child),
        })
        .collect();
    let contents = if booted {
        // The kernel caches the disk as a whole apart from its partitions: what was written through a partition is read
        // through it.
        let mut seen = partitions.iter();
        match seen.find(|partition| partition.start_bytes == RAID_START_BYTES) {
            Some(partition) => partition.contents.clone(),
            None => contents_at(&device.path, RAID_START_BYTES),
        }
    } else {
        contents_at(&device.path, 0)
    };
    // A table whose partitions are seen is told by them; one that shows none may be damaged, and is in the way.
    let contents = match contents {
        Contents::Signature(what) if what.kind == TABLE && !partitions.is_empty() => Contents::Blank,
        other => other,
    };
    let used = usage(&device);
    DiskFacts {
        serial: device.serial.unwrap_or_default().trim().to_string(),
        wwn: device.wwn.unwrap_or_default().trim().to_string(),
        used,
        path: device.path,
        model: device.model.unwrap_or_default().trim().to_string(),
        size_bytes: device.size.unwrap_or(0),
        booted,
        contents,
        partitions,
    }
}

/// What lies at `offset` of a device: a member's superblock, another signature, or nothing.
fn contents_at(path: &str, offset: u64) -> Contents {
    match read_superblock(Path::new(path), offset) {
        Ok(Some(Found::Superblock(superblock))) => {
            // The first chunk of an array is the first of its first member, so that member shows the file system.
            let data = offset.saturating_add(superblock.data_offset.saturating_mul(512));
            let holds = match superblock.role {
                Some(0) => match probe(path, data) {
                    Contents::Signature(signature) => Some(signature),
                    _ => None,
                },
                _ => None,
            };
            Contents::Member { superblock, holds }
        }
        Ok(Some(Found::Damaged)) => signature("a damaged superblock of an md array", ""),
        Ok(Some(Found::Nothing)) => probe(path, offset),
        Ok(None) => Contents::Blank,
        Err(error) => Contents::Unreadable(error.to_string()),
    }
}

fn probe(path: &str, offset: u64) -> Contents {
    let offset = offset.to_string();
    match command::outcome("blkid", &["--probe", "--output", "export", "--offset", &offset, path]) {
        Ok(outcome) => from_blkid(outcome.code, &outcome.stdout),
        Err(error) => Contents::Unreadable(error.to_string()),
    }
}

/// What is found where a superblock may be; `None` beyond the end of the device. Everything before it is read as well:
/// where partition tables and most file systems begin, an error must not pass for emptiness.
fn read_superblock(path: &Path, offset: u64) -> io::Result<Option<Found>> {
    let mut file = File::open(path)?;
    // What an earlier look left in the cache may be older than what was written through a partition since.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    file.seek(SeekFrom::Start(offset))?;
    let wanted = SUPERBLOCK_OFFSET as usize + SUPERBLOCK_BYTES;
    let mut bytes = Vec::with_capacity(wanted);
    file.take(wanted as u64).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(superblock::parse(
        bytes.get(SUPERBLOCK_OFFSET as usize..).unwrap_or_default(),
    )))
}

fn signature(kind: &str, label: &str) -> Contents {
    Contents::Signature(Signature {
        kind: kind.to_string(),
        label: label.to_string(),
    })
}

/// blkid(8), EXIT CODE: 0 found, 2 nothing found, 8 ambivalent. A bare partition table is told by the partitions.
fn from_blkid(code: Option<i32>, output: &str) -> Contents {
    let value = |key: &str| {
        output
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let label = value("LABEL").unwrap_or_default();
    match code {
        Some(0) => match (value("TYPE"), value("VERSION")) {
            // Metadata 1.2 was read before; this is of another version, or of a BIOS.
            (Some("linux_raid_member"), version) => signature(
                &format!("a RAID member with metadata {}", version.unwrap_or("of another kind")),
                label,
            ),
            (Some(kind), _) => signature(kind, label),
            (None, _) if value("PTTYPE").is_some() => signature(TABLE, ""),
            // Only what the table says of the partition itself.
            (None, _)
                if output
                    .lines()
                    .all(|l| l.starts_with("PART_ENTRY_") || l.starts_with("DEVNAME=") || l.is_empty()) =>
            {
                Contents::Blank
            }
            (None, _) => signature("something that blkid knows", ""),
        },
        Some(2) => Contents::Blank,
        Some(8) => signature("signatures of several kinds", ""),
        _ => Contents::Unreadable("blkid could not read it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LSBLK: &str = r#"{"blockdevices":[
      {"path":"/dev/sda","type":"disk","size":8589934592,"serial":"STRONGROOM-SYS","model":"QEMU HARDDISK","partn":null,"start":null,"partlabel":null,"mountpoints":[null],
       "children":[
         {"path":"/dev/sda3","type":"part","size":805306368,"serial":null,"model":null,"partn":3,"start":268288,"partlabel":"system-a","mountpoints":["/"]},
         {"path":"/dev/sda5","type":"part","size":2147483648,"serial":null,"model":null,"partn":5,"start":3414016,"partlabel":"state","mountpoints":["/var"]}]},
      {"path":"/dev/sdb","type":"disk","size":3221225472,"serial":" STRONGROOM-DATA ","wwn":"0x5000c500a1b2c3d4","model":"QEMU HARDDISK","partn":null,"start":null,"partlabel":null,"mountpoints":[null]},
      {"path":"/dev/sr0","type":"rom","size":1073741312,"serial":"QM00003","model":"QEMU DVD-ROM","partn":null,"start":null,"partlabel":null,"mountpoints":[null]}]}"#;

    #[test]
    fn disks_are_told_from_other_devices_and_the_booted_one_is_known() {
        let devices = parse(LSBLK).unwrap();
        assert_eq!(devices.len(), 2);
        assert!(is_mounted_at(&devices[0], "/"));
        assert!(!is_mounted_at(&devices[1], "/"));
        assert_eq!(
            usage(&devices[0]),
            None,
            "its partitions are in use, not the disk as a whole"
        );
        assert_eq!(usage(&devices[0].children[1]).as_deref(), Some("mounted at /var"));
    }

    #[test]
    fn blkid_is_read_by_its_exit_code() {
        assert_eq!(from_blkid(Some(2), ""), Contents::Blank);
        let table = from_blkid(Some(0), "DEVNAME=/dev/sdb\nPTUUID=x\nPTTYPE=gpt\n");
        assert_eq!(table, signature(TABLE, ""));
        assert_eq!(from_blkid(Some(0), "TYPE=ext4\nLABEL=x\n"), signature("ext4", "x"));
        let old = from_blkid(Some(0), "TYPE=linux_raid_member\nLABEL=box:0\nVERSION=1.0\n");
        assert_eq!(old, signature("a RAID member with metadata 1.0", "box:0"));
        let entry = "DEVNAME=/dev/sda6\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_NAME=raid\n";
        assert_eq!(from_blkid(Some(0), entry), Contents::Blank);
        assert!(matches!(from_blkid(Some(8), ""), Contents::Signature(_)));
        assert!(matches!(from_blkid(Some(4), ""), Contents::Unreadable(_)));
    }

    #[test]
    fn real_files_are_probed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let path_text = path.to_str().unwrap();
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        assert_eq!(contents_at(path_text, 0), Contents::Blank);
        command::run("/sbin/mkfs.ext4", &["-q", "-L", "data", path_text], "").unwrap();
        assert_eq!(contents_at(path_text, 0), signature("ext4", "data"));
        assert_eq!(contents_at(path_text, 1 << 40), Contents::Blank, "beyond its end");
        assert!(matches!(contents_at("/nonexistent", 0), Contents::Unreadable(_)));
    }
}
