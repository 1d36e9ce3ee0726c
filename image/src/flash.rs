//! `cargo image flash`: writes the image onto a disk, reads it back, and adds the owner's configuration.
//!
//! Only mapped blocks are written, each checked against the block map on the way out and again when read back. The rest
//! of the disk is not touched: an array on an earlier appliance's disk starts behind the image and stays.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::bmap::{self, Bmap};
use crate::dependencies::{self, Need};
use crate::device::{self, Disk};
use crate::error::{Error, OnFile, Result};
use crate::partitions::{RAID_START, STATE};
use crate::progress::Bar;
use crate::workspace::Workspace;
use crate::{kept, owner};

/// What to write where.
#[derive(Debug, Clone)]
pub struct Options {
    /// A disk, or a plain file for a virtual machine.
    pub device: PathBuf,
    /// The owner's strongroom.toml.
    pub config: Option<PathBuf>,
    /// The serial number that admits a disk which isn't removable.
    pub serial: Option<String>,
    /// The partition of the disk's present table that stays in place.
    pub keep_partition: Option<u64>,
    /// Consent to lose an array's member that is on the disk.
    pub overwrite_array: bool,
    /// Don't ask.
    pub yes: bool,
    /// Whether missing packages may be installed on this machine.
    pub install: bool,
}

/// Writes and verifies.
///
/// # Errors
/// [`Error::Refused`] for a disk that must not be written; otherwise what failed.
pub fn flash(workspace: &Workspace, options: &Options) -> Result<()> {
    dependencies::ensure(workspace, &[Need::Flash], options.install)?;
    let image = built(workspace)?;
    let map = Bmap::read(&workspace.product("bmap")?)?;
    // Found wanting before anything is written.
    let files = options
        .config
        .as_deref()
        .map(owner::files)
        .transpose()?
        .unwrap_or_default();
    let device = &options.device;
    let is_disk = std::fs::metadata(device).is_ok_and(|metadata| metadata.file_type().is_block_device());
    let mut keep = None;
    if is_disk {
        let disk = device::look(device)?;
        device::judge(&disk, options.serial.as_deref(), RAID_START).map_err(|reason| Error::Refused {
            device: device.clone(),
            reason,
        })?;
        keep = kept(options, &map)?;
        if !options.yes {
            ask(&disk, keep.as_ref())?;
        }
    } else if device.exists() {
        keep = kept(options, &map)?;
    }
    write(&image, &map, device, true)?;
    if let Some(partition) = &keep {
        kept::enter(partition, device)?;
        eprintln!("  kept in place: {partition}");
    }
    owner::identify(device)?;
    owner::put(&files, device)?;
    eprintln!(
        "  {} is ready{}",
        device.display(),
        if files.is_empty() {
            ": no strongroom.toml was given, so the appliance will ask for its address by DHCP, show it, and wait"
        } else {
            ""
        }
    );
    Ok(())
}

/// What stays in place, when something is to; otherwise makes sure that no array is lost unasked.
fn kept(options: &Options, map: &Bmap) -> Result<Option<kept::Old>> {
    let table = kept::table(&options.device)?;
    match options.keep_partition {
        Some(number) => kept::choose(&table, number, map.image_size, &options.device).map(Some),
        None if options.overwrite_array => Ok(None),
        None => kept::loses_no_member(&table, map.image_size, &options.device).map(|()| None),
    }
}

/// The image, which must have been built.
///
/// # Errors
/// [`Error::NoImage`].
pub fn built(workspace: &Workspace) -> Result<PathBuf> {
    let image = workspace.product("img")?;
    if image.exists() {
        Ok(image)
    } else {
        Err(Error::NoImage { path: image })
    }
}

/// Writes the image's mapped blocks to a disk or file and reads them back. A file is made as large as the image at least.
///
/// # Errors
/// When reading or writing fails, when the image isn't the one that was mapped, or [`Error::ReadBack`].
pub fn write(image: &Path, map: &Bmap, device: &Path, show: bool) -> Result<()> {
    let mut from = File::open(image).on("open", image)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let is_disk = std::fs::metadata(device).is_ok_and(|metadata| metadata.file_type().is_block_device());
    if is_disk {
        // The kernel then refuses a disk that is in use, whatever we have seen before.
        options.custom_flags(i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or_default());
    } else {
        options.create(true);
    }
    let mut to = options.open(device).on("open for writing", device)?;
    if !is_disk && to.metadata().on("read", device)?.len() < map.image_size {
        to.set_len(map.image_size).on("extend", device)?;
    }

    if map.image_size >= STATE.start() + STATE.size() {
        // mke2fs took the untouched part of the image for zeros and says so in the file system: make it true.
        blank(&to, is_disk, STATE.start(), STATE.size()).on("clear the state partition of", device)?;
    }
    let mut bar = show.then(|| Bar::new("writing", map.mapped()));
    for range in &map.ranges {
        let (start, length) = map.bytes(range);
        from.seek(SeekFrom::Start(start)).on("read", image)?;
        to.seek(SeekFrom::Start(start)).on("write", device)?;
        let sum = bmap::sha256(&mut from, length, &mut |piece| {
            if let Some(bar) = &mut bar {
                bar.add(piece.len() as u64);
            }
            to.write_all(piece)
        })
        .on("write", device)?;
        if sum != range.sha256 {
            return Err(Error::Unexpected {
                what: image.display().to_string(),
                detail: "differs from its block map; run `cargo image build` again".to_owned(),
            });
        }
    }
    to.sync_all().on("write", device)?;
    if let Some(bar) = bar {
        bar.finish();
    }

    // What is read back must come from the device, not from memory.
    let _ = rustix::fs::fadvise(&to, 0, None, rustix::fs::Advice::DontNeed);
    let mut bar = show.then(|| Bar::new("verifying", map.mapped()));
    for range in &map.ranges {
        let (start, length) = map.bytes(range);
        to.seek(SeekFrom::Start(start)).on("read", device)?;
        let sum = bmap::sha256(&mut to, length, &mut |piece| {
            if let Some(bar) = &mut bar {
                bar.add(piece.len() as u64);
            }
            Ok(())
        })
        .on("read back", device)?;
        if sum != range.sha256 {
            return Err(Error::ReadBack {
                device: device.to_owned(),
                start,
                end: start + length,
            });
        }
    }
    if let Some(bar) = bar {
        bar.finish();
    }
    Ok(())
}

/// Makes a range read as zeros (fallocate(2)): a disk may have to write them, a file gets a hole.
fn blank(to: &File, is_disk: bool, start: u64, length: u64) -> std::io::Result<()> {
    let how = if is_disk {
        FallocateFlags::ZERO_RANGE
    } else {
        FallocateFlags::PUNCH_HOLE
    };
    Ok(rustix::fs::fallocate(
        to,
        how | FallocateFlags::KEEP_SIZE,
        start,
        length,
    )?)
}

fn ask(disk: &Disk, keep: Option<&kept::Old>) -> Result<()> {
    eprintln!("This overwrites the first {} MiB of", RAID_START >> 20);
    eprintln!("  {disk}");
    if let Some(keep) = keep {
        eprintln!("and keeps {keep}. Note these numbers, should the power fail meanwhile.");
    }
    let refuse = |reason: &str| Error::Refused {
        device: disk.path.clone(),
        reason: reason.to_owned(),
    };
    if !std::io::stdin().is_terminal() {
        return Err(refuse("nobody is there to confirm it; say --yes"));
    }
    eprint!("Type yes to go on: ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .on("read", Path::new("standard input"))?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(refuse("you did not say yes"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::bmap::BLOCK;
    use crate::partitions::MIB;

    #[test]
    fn the_state_partition_keeps_nothing_of_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let device = folder.path().join("device");
        let end = STATE.start() + STATE.size();
        let file = File::create(&image).unwrap();
        file.set_len(end).unwrap();
        file.write_all_at(&[1; 4096], STATE.start()).unwrap();
        let used = File::create_new(&device).unwrap();
        used.set_len(end + RAID_START).unwrap();
        for at in [STATE.start() - 4096, STATE.start() + MIB, RAID_START] {
            used.write_all_at(&[9; 4096], at).unwrap();
        }

        write(&image, &Bmap::of(&image).unwrap(), &device, false).unwrap();
        let device = File::open(&device).unwrap();
        let byte = |at: u64| {
            let mut byte = [0];
            device.read_exact_at(&mut byte, at).unwrap();
            byte[0]
        };
        assert_eq!(byte(STATE.start()), 1);
        assert_eq!(byte(STATE.start() + MIB), 0);
        assert_eq!((byte(STATE.start() - 1), byte(RAID_START)), (9, 9));
    }

    #[test]
    fn mapped_blocks_are_written_and_others_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let device = folder.path().join("device");
        let file = File::create(&image).unwrap();
        file.set_len(10 * BLOCK).unwrap();
        file.write_all_at(&[1; 4096], 2 * BLOCK).unwrap();
        std::fs::write(&device, vec![9; 20 * 4096]).unwrap();
        let map = Bmap::of(&image).unwrap();

        write(&image, &map, &device, false).unwrap();
        let found = std::fs::read(&device).unwrap();
        assert_eq!(found.len(), 20 * 4096);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == if at / 4096 == 2 { 1 } else { 9 })
        );

        file.write_all_at(&[2], 2 * BLOCK).unwrap();
        assert!(matches!(
            write(&image, &map, &device, false),
            Err(Error::Unexpected { .. })
        ));
    }

    #[test]
    fn a_new_file_is_as_large_as_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, [7; 5000]).unwrap();
        let device = folder.path().join("device");
        write(&image, &Bmap::of(&image).unwrap(), &device, false).unwrap();
        assert_eq!(std::fs::read(device).unwrap(), [7; 5000]);
    }
}
