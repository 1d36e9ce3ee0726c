//! What is mounted, as the kernel tells it (proc(5), /proc/pid/mountinfo).

use crate::paths::Paths;

/// How something is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The file system takes no writes: it was mounted so, or turned so after an error.
    pub read_only: bool,
}

/// What is mounted at `at`; `None` when nothing is.
pub fn at(paths: &Paths, at: &str) -> Option<Mount> {
    let table = std::fs::read_to_string(paths.at("/proc/self/mountinfo")).ok()?;
    // The last mount at a place is the one that is seen.
    table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.nth(4)? == at).then_some(())?;
        // The options of the file system itself come last, after the separator; a sandbox changes only the mount's.
        let of_file_system = line.rsplit(' ').next()?;
        Some(Mount {
            read_only: of_file_system.split(',').any(|option| option == "ro"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_from_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert_eq!(at(&paths, "/mnt/raid"), None);
        std::fs::create_dir_all(paths.at("/proc/self")).unwrap();
        let show = |table: &str| std::fs::write(paths.at("/proc/self/mountinfo"), table).unwrap();
        show("36 35 9:127 / /mnt/raid ro,noatime master:1 - ext4 /dev/md127 rw,stripe=256\n");
        assert_eq!(at(&paths, "/mnt/raid"), Some(Mount { read_only: false }));
        assert_eq!(at(&paths, "/mnt"), None);
        show("36 35 9:127 / /mnt/raid rw,noatime master:1 - ext4 /dev/md127 ro,stripe=256\n");
        assert_eq!(at(&paths, "/mnt/raid"), Some(Mount { read_only: true }));
    }
}
