//! Projects of the array's file system: which files count together, and how much the kernel lets them take. A client's
//! repository is one project. Source: linux/fs.h, linux/quota.h, quotactl(2), and the kernel's fs/ext4 and fs/quota.
//!
//! A file that is made in a folder marked [`INHERIT`] belongs to the folder's project. A file's owner may change both by
//! ioctl(2), which sessions are kept from (see [`crate::sessions::confine`]).

#![expect(
    unsafe_code,
    reason = "no crate offers these calls; each is made in one place, on values that outlive it"
)]

use rustix::io::Errno;
use rustix::ioctl::{Getter, Setter, ioctl, opcode};
use std::os::fd::{AsFd, AsRawFd};

/// The project of whatever was given to none. It has no bound.
pub const NONE: u32 = 0;
/// Most files and folders of one project: at eight for each hour, those of half a century.
const FILES_MAX: u64 = 4_000_000;

/// `FS_XFLAG_PROJINHERIT`
pub const INHERIT: u32 = 0x200;
/// `FS_IOC_FSGETXATTR`
const GET: u32 = opcode::read::<Attributes>(b'X', 31);
/// `FS_IOC_FSSETXATTR`
pub const SET: u32 = opcode::write::<Attributes>(b'X', 32);

/// `struct fsxattr`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

impl Attributes {
    /// Of project `project`, as a folder where `folder` says so; `None`: they are already.
    fn of(self, project: u32, folder: bool) -> Option<Self> {
        let flags = if !folder {
            self.flags
        } else if project == NONE {
            self.flags & !INHERIT
        } else {
            self.flags | INHERIT
        };
        (self.project != project || self.flags != flags).then_some(Self { flags, project, ..self })
    }
}

/// The project of a file or folder.
///
/// Errors: `EOPNOTSUPP`: its file system has none.
pub fn of(file: impl AsFd) -> Result<u32, Errno> {
    attributes(&file).map(|attributes| attributes.project)
}

/// Gives a file or folder to a project, unless it is of it; with a folder, what will be made in it. Returns whether it was
/// given. Only its owner may, or who has `CAP_FOWNER`.
///
/// Errors: `EOPNOTSUPP`: its file system has no projects.
pub fn give(file: impl AsFd, project: u32, folder: bool) -> Result<bool, Errno> {
    let Some(new) = attributes(&file)?.of(project, folder) else {
        return Ok(false);
    };
    // SAFETY: the structure is the one that the code names, and is only read.
    unsafe { ioctl(&file, Setter::<SET, Attributes>::new(new)) }
        .map(|()| true)
        .map_err(absent)
}

fn attributes(file: &impl AsFd) -> Result<Attributes, Errno> {
    // SAFETY: the structure is the one that the code names, and any bytes are a value of it.
    unsafe { ioctl(file, Getter::<GET, Attributes>::new()) }.map_err(absent)
}

/// One error for all ways to say that there is no such thing.
fn absent(error: Errno) -> Errno {
    match error {
        Errno::NOTTY | Errno::NOSYS => Errno::OPNOTSUPP,
        other => other,
    }
}

/// `PRJQUOTA`
const OF_PROJECTS: u32 = 2;
/// `Q_QUOTAON`
const SWITCH_ON: u32 = 0x80_0002;
/// `Q_SETQUOTA`
const SET_LIMITS: u32 = 0x80_0008;
/// `QFMT_VFS_V1`, which ext4 keeps within itself.
const FORMAT: u32 = 4;
/// `QIF_LIMITS`: bounds of blocks and of files are given.
const LIMITS: u32 = 1 | 4;
/// Unit of the bounds, in bytes (`QIF_DQBLKSIZE`).
const UNIT: u64 = 1024;

/// `struct if_dqblk`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    blocks_hard: u64,
    blocks_soft: u64,
    space: u64,
    files_hard: u64,
    files_soft: u64,
    files: u64,
    blocks_time: u64,
    files_time: u64,
    valid: u32,
}

impl Limits {
    /// At most so many bytes; without a number, as many as there are. 0 is no bound to the kernel.
    fn of(bytes: Option<u64>) -> Self {
        Self {
            blocks_hard: bytes.map_or(0, |bytes| bytes.div_ceil(UNIT).max(1)),
            files_hard: FILES_MAX,
            valid: LIMITS,
            ..Self::default()
        }
    }
}

/// Has the kernel keep the bounds of projects on the file system of `file`. Returns whether it does now; false: the file
/// system counts no projects, or the kernel can't. Takes `CAP_SYS_ADMIN`.
pub fn keep_bounds(file: impl AsFd) -> Result<bool, Errno> {
    match quotactl(file, SWITCH_ON, FORMAT, None) {
        // It does already.
        Ok(()) | Err(Errno::BUSY) => Ok(true),
        Err(Errno::NOSYS | Errno::INVAL | Errno::SRCH | Errno::OPNOTSUPP | Errno::NOTTY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets how many bytes a project may take; `None`: no bound but that of its files. Takes `CAP_SYS_ADMIN`.
pub fn bound(file: impl AsFd, project: u32, bytes: Option<u64>) -> Result<(), Errno> {
    quotactl(file, SET_LIMITS, project, Some(&Limits::of(bytes)))
}

/// quotactl_fd(2), of Linux 5.14.
fn quotactl(file: impl AsFd, command: u32, id: u32, limits: Option<&Limits>) -> Result<(), Errno> {
    let file = file.as_fd().as_raw_fd();
    let limits = limits.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the descriptor is open for as long as the call takes. The commands above read at most one structure of that
    // form from the address, which is null where they read none.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, file, (command << 8) | OF_PROJECTS, id, limits) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A real file system with projects, for tests: ext4 as on the appliance where this kernel can, else XFS, which treats
/// projects alike but keeps no bounds here. `None`, and it is said: not as root, or neither can be had.
#[cfg(test)]
pub(crate) mod trial {
    use std::path::Path;
    use std::process::{Command, Stdio};

    pub struct Mounted {
        pub folder: tempfile::TempDir,
        /// Whether the kernel keeps bounds.
        pub bounds: bool,
    }

    fn done(program: &str, arguments: &[&str], last: &[&Path]) -> bool {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(last)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    impl Mounted {
        pub fn new() -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let image = folder.path().join("image");
            let point = folder.path().join("mnt/raid");
            std::fs::create_dir_all(&point).unwrap();
            for (bounds, program, arguments) in [
                (
                    true,
                    "mkfs.ext4",
                    &["-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"][..],
                ),
                (false, "mkfs.xfs", &["-q", "-f"]),
            ] {
                // Large enough for a wall; nothing of it is written.
                std::fs::File::create(&image).unwrap().set_len(4 << 30).unwrap();
                if done(program, arguments, &[&image]) && done("mount", &["-o", "loop"], &[&image, &point]) {
                    return Some(Self { folder, bounds });
                }
            }
            eprintln!(
                "SKIPPED: no file system with projects can be mounted here; it takes root, and mkfs.xfs or quotas"
            );
            None
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            done("umount", &[], &[&self.folder.path().join("mnt/raid")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        assert_eq!((GET, SET), (0x801c_581f, 0x401c_5820));
        assert_eq!((size_of::<Attributes>(), size_of::<Limits>()), (28, 72));
        assert_eq!((SWITCH_ON << 8) | OF_PROJECTS, 0x8000_0202);
    }

    #[test]
    fn where_there_are_no_quotas_none_are_kept() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = std::fs::File::open(folder.path()).unwrap();
        assert_eq!(keep_bounds(&file), Ok(false));
    }

    #[test]
    fn bounds_are_rounded_up_and_nothing_is_no_bound() {
        assert_eq!(Limits::of(None).blocks_hard, 0);
        assert_eq!(Limits::of(Some(0)).blocks_hard, 1);
        assert_eq!(Limits::of(Some(1025)).blocks_hard, 2);
        assert_eq!(Limits::of(Some(u64::MAX)).blocks_hard, 1 << 54);
    }

    proptest! {
        #[test]
        fn what_was_given_is_not_given_again(flags in any::<u32>(), project in any::<u32>(), new in any::<u32>(), folder in any::<bool>()) {
            let before = Attributes { flags, project, ..Attributes::default() };
            let after = before.of(new, folder).unwrap_or(before);
            prop_assert_eq!(after.project, new);
            prop_assert!(after.of(new, folder).is_none());
            prop_assert_eq!(after.flags & !INHERIT, flags & !INHERIT);
            if folder {
                prop_assert_eq!(after.flags & INHERIT != 0, new != NONE);
            }
        }
    }
}
