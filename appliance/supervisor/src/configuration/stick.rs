//! A USB stick with a configuration, whoever made it and whatever is on it: judged by what it is ([`crate::services::usb`]), mounted
//! where nobody else sees it, read, and let go before anything is done. Only then is a report written beside the file.
//! It may be pulled at any time: the offer is in memory by then, or is refused.
//!
//! Runs in a unit of its own (`strongroom-stick@.service`), with its own view of mounts and bounded memory.

use super::sources::Source;
use super::{CONFIG_NAME, Outcome, REPORT_NAME, conclude, in_force, incoming, letterhead, note, take_incoming};
use crate::durable;
use crate::paths::Paths;
use crate::services::command;
use crate::services::usb::{self, FileSystem, Purpose, Stick};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A stick that is seen within this time of the system's start was in already, in microseconds.
const GRACE_US: u64 = 30_000_000;

/// Runs the role for one stick.
pub fn run(paths: &Paths, name: &str) -> io::Result<()> {
    let config = in_force(paths);
    let stick = match usb::look(name, Purpose::Configuration, config.array.as_ref()) {
        Ok(stick) => stick,
        Err(unfit) => {
            eprintln!("{name} is labelled like a stick with a configuration, but is left alone: {unfit}.");
            return Ok(());
        }
    };
    let source = Source::Stick {
        id: stick.id.clone(),
        plugged: was_plugged(paths, name),
    };
    let place = paths.at("/run/strongroom-stick").join(name);
    fs::create_dir_all(&place)?;
    let read = {
        let _mounted = match Mounted::new(&stick, &place, Access::Read) {
            Ok(mounted) => mounted,
            Err(error) => {
                let error = incoming::IncomingError::Io("the USB stick".into(), error);
                return conclude(paths, &source, Outcome::Refused(error.into())).map(drop);
            }
        };
        let folder = folder_of(&place);
        (incoming::read(&folder), folder)
    };
    let (incoming, folder) = read;
    let outcome = match incoming {
        Ok(None) => conclude(paths, &source, Outcome::Nothing)?,
        Ok(Some(incoming)) => take_incoming(paths, &source, &incoming)?,
        Err(error) => conclude(paths, &source, Outcome::Refused(error.into()))?,
    };
    let text = note::text(&letterhead(paths), &outcome);
    if let Err(error) = write_report(&stick, &place, &folder, &text) {
        eprintln!("{REPORT_NAME} could not be written to the stick: {error}");
    }
    Ok(())
}

/// The folder with the configuration: the topmost, or else CONFIG in it.
fn folder_of(place: &Path) -> PathBuf {
    let below = place.join("CONFIG");
    let has = |folder: &Path| folder.join(CONFIG_NAME).symlink_metadata().is_ok();
    if !has(place) && has(&below) {
        below
    } else {
        place.into()
    }
}

fn write_report(stick: &Stick, place: &Path, folder: &Path, text: &str) -> io::Result<()> {
    if stick.file_system == FileSystem::Ext4 && ext4_is_dirty(&stick.device)? {
        return Err(io::Error::other(
            "it was not unmounted when it was last used, and repairing it is not this machine's business",
        ));
    }
    {
        let _mounted = Mounted::new(stick, place, Access::Write)?;
        let report = folder.join(REPORT_NAME);
        let old = match fs::symlink_metadata(&report) {
            Ok(found) if found.is_file() && found.size() < 64 * 1024 => fs::read_to_string(&report).ok(),
            _ => None,
        };
        if old.as_deref().map(note::body) == Some(note::body(text)) {
            return Ok(());
        }
        durable::write(&report, text.as_bytes(), 0o644)
    }
}

/// Whether the journal of an ext4 file system waits to be replayed: mounting it for writing would do so.
/// The superblock is at 1024, `s_magic` at 0x38, `s_feature_incompat` at 0x60 (kernel.org, ext4 data structures).
fn ext4_is_dirty(device: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    const RECOVER: u32 = 4;
    let mut superblock = [0; 0x64];
    fs::File::open(device)?.read_exact_at(&mut superblock, 1024)?;
    let features = [superblock[0x60], superblock[0x61], superblock[0x62], superblock[0x63]];
    Ok(superblock[0x38..0x3a] != [0x53, 0xef] || u32::from_le_bytes(features) & RECOVER != 0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// A mounted stick; unmounted, and all written, when dropped.
struct Mounted<'a> {
    place: &'a Path,
}

impl<'a> Mounted<'a> {
    fn new(stick: &Stick, place: &'a Path, access: Access) -> io::Result<Self> {
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME | NOSYMFOLLOW;
        if access == Access::Read {
            flags |= MountFlags::RDONLY;
        }
        // What is given here wins over what an ext4 superblock asks for, such as a panic on errors.
        let options = match (stick.file_system, access) {
            (FileSystem::Ext4, Access::Read) => "errors=remount-ro,noload",
            (FileSystem::Ext4, Access::Write) => "errors=remount-ro",
            (FileSystem::Vfat, _) => "errors=remount-ro,umask=0077,utf8",
            (FileSystem::Exfat, _) => "errors=remount-ro,umask=0077",
        };
        let options = CString::new(options).unwrap_or_default();
        rustix::mount::mount(
            &stick.device,
            place,
            stick.file_system.name(),
            flags,
            options.as_c_str(),
        )?;
        Ok(Self { place })
    }
}

/// mount(2), `MS_NOSYMFOLLOW`: links are not followed, wherever they lie in a path.
const NOSYMFOLLOW: MountFlags = MountFlags::from_bits_retain(256);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Writes out what is left. A stick that was pulled can only be let go.
        if rustix::mount::unmount(self.place, UnmountFlags::NOFOLLOW).is_err()
            && let Err(error) = rustix::mount::unmount(self.place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        {
            eprintln!("the stick stays mounted: {error}");
        }
    }
}

/// Microseconds since the start of the system, not counting sleep.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}

/// Whether the stick came after the start: udev notes when it first saw a device (`USEC_INITIALIZED`, in the same
/// clock as [`monotonic_us`]).
fn was_plugged(paths: &Paths, name: &str) -> bool {
    let configured = fs::read_to_string(paths.configured())
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let device = format!("/dev/{name}");
    let properties = command::run("udevadm", &["info", "--query=property", "--name", &device], "");
    let seen = properties.ok().and_then(|properties| {
        let line = properties
            .lines()
            .find_map(|line| line.strip_prefix("USEC_INITIALIZED="))?;
        line.parse::<u64>().ok()
    });
    match (configured, seen) {
        (Some(configured), Some(seen)) => seen > configured + GRACE_US,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_folder_comes_first() {
        let stick = tempfile::tempdir().unwrap();
        assert_eq!(folder_of(stick.path()), stick.path());
        fs::create_dir(stick.path().join("CONFIG")).unwrap();
        fs::write(stick.path().join("CONFIG/strongroom.toml"), "").unwrap();
        assert_eq!(folder_of(stick.path()), stick.path().join("CONFIG"));
        fs::write(stick.path().join("strongroom.toml"), "").unwrap();
        assert_eq!(folder_of(stick.path()), stick.path());
    }

    #[test]
    fn a_file_system_that_was_not_unmounted_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let made = std::process::Command::new("/sbin/mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&image)
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "missing `mkfs.ext4`: run `cargo image test`, which installs it"
        );
        assert!(!ext4_is_dirty(&image).unwrap());
        let mut bytes = fs::read(&image).unwrap();
        bytes[1024 + 0x60] |= 4;
        fs::write(&image, bytes).unwrap();
        assert!(ext4_is_dirty(&image).unwrap());
        fs::write(&image, [0; 100]).unwrap();
        assert!(ext4_is_dirty(&image).is_err());
    }
}
