//! What a disk already holds of an array: refuses to lose it unasked, and keeps one partition of it in place.
//!
//! Looks with sfdisk(8) and blkid(8), which take disks and plain files alike and need no root for a file. A member that
//! begins where every Strongroom's does needs no keeping: the appliance finds it by its place.

use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, OnFile, Result};
use crate::partitions::{MIB, PARTITIONS, RAID_START, SECTOR};
use crate::process;

/// GPT type of Linux RAID partitions.
const RAID_TYPE: &str = "A19D880F-05FC-4D3B-A006-743F0F84911E";
/// Sectors at a disk's end that hold the backup of a GPT: 32 of entries and a header.
const GPT_BACKUP_SECTORS: u64 = 33;

/// A partition of the table that is on the disk before flashing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Old {
    number: u64,
    /// First sector.
    start: u64,
    /// Length in sectors.
    size: u64,
    /// Its GPT type, when the table is GPT.
    kind: Option<String>,
    /// Its GPT identity, when the table is GPT.
    uuid: Option<String>,
}

impl Old {
    fn end(&self) -> u64 {
        self.start + self.size
    }
}

impl fmt::Display for Old {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "partition {} (sectors {} to {}, {} to {} MiB)",
            self.number,
            self.start,
            self.end() - 1,
            self.start * SECTOR / MIB,
            self.end() * SECTOR / MIB
        )
    }
}

/// The partitions of a disk or disk image; none when it has no table.
///
/// # Errors
/// When its sectors are not of 512 bytes.
pub fn table(device: &Path) -> Result<Vec<Old>> {
    let mut command = process::command("sfdisk");
    command.arg("--json").arg(device);
    let output = process::output_of(&mut command)?;
    if !output.status.success() {
        return Ok(Vec::new());
    }
    parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| Error::Unexpected {
        what: device.display().to_string(),
        detail: "its partition table can't be understood, or its sectors are not of 512 bytes".to_owned(),
    })
}

fn parse(json: &str) -> Option<Vec<Old>> {
    let json: Value = serde_json::from_str(json).ok()?;
    let table = &json["partitiontable"];
    if table["sectorsize"].as_u64().is_some_and(|size| size != SECTOR) {
        return None;
    }
    let gpt = table["label"] == "gpt";
    let text = |value: &Value| value.as_str().filter(|_| gpt).map(str::to_owned);
    let empty = Vec::new();
    table["partitions"]
        .as_array()
        .unwrap_or(&empty)
        .iter()
        .map(|partition| {
            let node = partition["node"].as_str()?;
            let digits = node.len() - node.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            Some(Old {
                number: node[node.len() - digits..].parse().ok()?,
                start: partition["start"].as_u64()?,
                size: partition["size"].as_u64()?,
                kind: text(&partition["type"]),
                uuid: text(&partition["uuid"]),
            })
        })
        .collect()
}

/// The partition of that number, when flashing can leave it in place. `image` is the image's size in bytes.
///
/// # Errors
/// The reason why not, with the numbers.
pub fn choose(table: &[Old], number: u64, image: u64, device: &Path) -> Result<Old> {
    let refuse = |reason: String| Error::Refused {
        device: device.to_owned(),
        reason,
    };
    let Some(old) = table.iter().find(|old| old.number == number) else {
        let known: Vec<String> = table.iter().map(Old::to_string).collect();
        return Err(refuse(format!(
            "it has no partition {number} to keep; it has {}",
            if known.is_empty() {
                "none at all".to_owned()
            } else {
                known.join(", ")
            }
        )));
    };
    if old.start * SECTOR < image {
        return Err(refuse(format!(
            "{old} begins at {} MiB, but the image takes the first {} MiB: it can't be kept on this disk. \
             Use another disk for the system, and leave this one in as a data disk",
            old.start * SECTOR / MIB,
            image.div_ceil(MIB)
        )));
    }
    let sectors = size_of(device)? / SECTOR;
    let last = sectors.saturating_sub(GPT_BACKUP_SECTORS);
    if old.end() > last {
        return Err(refuse(format!(
            "{old} reaches into the last {GPT_BACKUP_SECTORS} of the disk's {sectors} sectors, where the backup of the \
             partition table goes: it can't be kept on this disk. Use another disk for the system, and leave this one \
             in as a data disk"
        )));
    }
    Ok(old.clone())
}

/// Makes sure that flashing loses no member of an array that the appliance would not find again by itself.
///
/// # Errors
/// [`Error::Refused`] with what is there and what to do.
pub fn loses_no_member(table: &[Old], image: u64, device: &Path) -> Result<()> {
    let refuse = |reason: String| Error::Refused {
        device: device.to_owned(),
        reason,
    };
    if table.is_empty() && is_member(device, 0, size_of(device)?)? {
        return Err(refuse(
            "the whole disk is a member of a RAID array; use another disk for the system. If the array may be lost, \
             say --overwrite-array"
                .to_owned(),
        ));
    }
    for old in table {
        let start = old.start * SECTOR;
        if start == RAID_START || !is_member(device, start, old.size * SECTOR)? {
            continue;
        }
        let way = if start >= image {
            format!("keep it in place with --keep-partition {}", old.number)
        } else {
            format!(
                "the image takes the first {} MiB and would overwrite it: use another disk for the system",
                image.div_ceil(MIB)
            )
        };
        return Err(refuse(format!(
            "{old} is a member of a RAID array; {way}. If the array may be lost, say --overwrite-array"
        )));
    }
    Ok(())
}

/// Enters the partition into the table that was just written, and moves the table's backup to the disk's end.
///
/// # Errors
/// When sfdisk refuses; it then says what to enter by hand.
pub fn enter(old: &Old, device: &Path) -> Result<()> {
    let number = PARTITIONS.len() as u64 + 1;
    let line = line(old);
    let sfdisk = |arguments: &[&str], input: &str| {
        let mut command = process::command("sfdisk");
        // What lies in the partition is kept: no signature is to be wiped.
        command
            .args(["--quiet", "--wipe=never", "--wipe-partitions=never"])
            .args(arguments)
            .arg(device);
        process::capture_with_input(
            &format!("enter the kept partition into the table, as number {number}: `{line}`"),
            &mut command,
            input,
        )
    };
    sfdisk(&["--relocate", "gpt-bak-std"], "")?;
    sfdisk(&["--append"], &format!("{line}\n"))?;
    let found = table(device)?;
    let same = |new: &&Old| new.start == old.start && new.size == old.size && new.number == number;
    if found.iter().find(same).is_some() && found.len() == PARTITIONS.len() + 1 {
        Ok(())
    } else {
        Err(Error::Unexpected {
            what: device.display().to_string(),
            detail: format!("the kept partition does not read back; enter it as number {number}: `{line}`"),
        })
    }
}

fn line(old: &Old) -> String {
    let kind = old.kind.as_deref().unwrap_or(RAID_TYPE);
    let uuid = old
        .uuid
        .as_ref()
        .map(|uuid| format!(", uuid={uuid}"))
        .unwrap_or_default();
    format!(
        "start={}, size={}, type={kind}{uuid}, name=\"raid\"",
        old.start, old.size
    )
}

fn is_member(device: &Path, offset: u64, size: u64) -> Result<bool> {
    let mut command = process::command("blkid");
    command
        .args(["--probe", "--output", "export"])
        .arg(format!("--offset={offset}"))
        .arg(format!("--size={size}"))
        .arg(device);
    let output = process::output_of(&mut command)?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("TYPE=linux_raid_member"))
}

fn size_of(device: &Path) -> Result<u64> {
    File::open(device)
        .and_then(|mut file| file.seek(SeekFrom::End(0)))
        .on("read", device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const IMAGE: u64 = 3716 * MIB;
    const UUID: &str = "01234567-89AB-4CDE-8F01-23456789ABCD";

    /// A disk of 10 GiB with an old system and a member of an array behind it, begin and length in MiB.
    fn disk(folder: &Path, label: &str, start: u64, size: &str) -> std::path::PathBuf {
        let device = folder.join("disk");
        File::create(&device).unwrap().set_len(10 << 30).unwrap();
        let uuid = if label == "gpt" {
            format!(", uuid={UUID}")
        } else {
            String::new()
        };
        let kind = if label == "gpt" { RAID_TYPE } else { "fd" };
        let script =
            format!("label: {label}\nstart=1MiB, size=1GiB\nstart={start}MiB, size={size}, type={kind}{uuid}\n");
        let mut command = process::command("sfdisk");
        command.arg("--quiet").arg(&device);
        process::capture_with_input("partition", &mut command, &script).unwrap();
        // The superblock of metadata 1.2 as far as blkid looks: magic, version, its own place.
        let mut superblock = [0_u8; 256];
        superblock[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        superblock[4..8].copy_from_slice(&1_u32.to_le_bytes());
        superblock[144..152].copy_from_slice(&8_u64.to_le_bytes());
        let sum: u64 = superblock
            .chunks_exact(4)
            .map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())))
            .sum();
        let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
        superblock[216..220].copy_from_slice(&sum.to_le_bytes());
        let file = File::options().write(true).open(&device).unwrap();
        file.write_all_at(&superblock, start * MIB + 4096).unwrap();
        device
    }

    fn refusal(result: Result<impl fmt::Debug>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_member_is_not_lost_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let device = disk(folder.path(), "gpt", 5000, "3GiB");
        let old = table(&device).unwrap();
        assert_eq!(old.len(), 2);
        let told = refusal(loses_no_member(&old, IMAGE, &device));
        assert!(
            told.contains("--keep-partition 2") && told.contains("--overwrite-array"),
            "{told}"
        );
        let device = disk(folder.path(), "dos", 2000, "3GiB");
        let old = table(&device).unwrap();
        let told = refusal(loses_no_member(&old, IMAGE, &device));
        assert!(
            told.contains("first 3716 MiB") && !told.contains("--keep-partition"),
            "{told}"
        );
        let told = refusal(choose(&old, 2, IMAGE, &device));
        assert!(told.contains("begins at 2000 MiB"), "{told}");
        // The appliance's own place.
        let device = disk(folder.path(), "gpt", 4096, "3GiB");
        loses_no_member(&table(&device).unwrap(), IMAGE, &device).unwrap();
        assert!(refusal(choose(&old, 7, IMAGE, &device)).contains("no partition 7"));
        let blank = folder.path().join("blank");
        File::create(&blank).unwrap().set_len(10 << 30).unwrap();
        loses_no_member(&table(&blank).unwrap(), IMAGE, &blank).unwrap();
    }

    #[test]
    fn a_member_up_to_the_last_sector_leaves_no_room_for_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let device = disk(folder.path(), "dos", 5000, "+");
        let told = refusal(choose(&table(&device).unwrap(), 2, IMAGE, &device));
        assert!(told.contains("last 33"), "{told}");
    }

    #[test]
    fn the_kept_partition_reads_back_with_another_tool() {
        let folder = tempfile::tempdir().unwrap();
        for (label, start) in [("gpt", 5000), ("gpt", 4096), ("dos", 5000)] {
            let device = disk(folder.path(), label, start, "3GiB");
            let kept = choose(&table(&device).unwrap(), 2, IMAGE, &device).unwrap();
            // A table as the image's: five partitions, its backup where the image ends.
            let image = folder.path().join("image");
            File::create(&image).unwrap().set_len(IMAGE).unwrap();
            let mut script = "label: gpt\n".to_owned();
            for partition in PARTITIONS {
                script.push_str(&format!(
                    "start={}MiB, size={}MiB, name={}\n",
                    partition.start_mib, partition.size_mib, partition.name
                ));
            }
            let mut command = process::command("sfdisk");
            command.arg("--quiet").arg(&image);
            process::capture_with_input("partition", &mut command, &script).unwrap();
            let map = crate::bmap::Bmap::of(&image).unwrap();
            crate::flash::write(&image, &map, &device, false).unwrap();
            enter(&kept, &device).unwrap();

            let sgdisk = |arguments: &[&str]| {
                let mut command = process::command("sgdisk");
                command.args(arguments).arg(&device);
                process::capture("read with sgdisk", &mut command).unwrap()
            };
            assert!(sgdisk(&["--verify"]).contains("No problems found"));
            let info = sgdisk(&["--info", "6"]);
            assert!(
                info.contains(&format!("First sector: {} ", start * MIB / SECTOR)),
                "{info}"
            );
            assert!(info.contains("Partition size: 6291456 sectors"), "{info}");
            assert!(
                info.contains("Partition name: 'raid'") && info.contains(RAID_TYPE),
                "{info}"
            );
            assert!(label != "gpt" || info.contains(UUID), "{info}");
            assert!(
                is_member(&device, start * MIB, 3 << 30).unwrap(),
                "the member was touched"
            );
        }
    }
}
