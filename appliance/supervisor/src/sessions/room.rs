//! Whether the machine has memory for one more session. Borg takes some 50 MiB before it has read anything, so a crowd of small
//! clients alone can fill what sessions may take together; the kernel would then end one of them in the middle of its backup.
//! Who comes late waits instead.
//!
//! Read from the control group of the slice (Linux, Documentation/admin-guide/cgroup-v2.rst): its bound, and what each session in
//! it holds that can't be dropped.

use super::unit::SLICE;
use crate::paths::Paths;
use std::fs;
use std::path::{Path, PathBuf};

/// What a session is counted with at least, in bytes, since it will take as much: Borg 1.4 with a small repository was seen to
/// hold 47 to 54 MiB.
const LEAST: u64 = 56 << 20;

/// How sessions stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What all may hold together, in bytes; none where the kernel does not bound them.
    limit: Option<u64>,
    /// What each holds, in bytes.
    held: Vec<u64>,
}

impl Room {
    /// Reads how they stand now.
    pub fn read(paths: &Paths) -> Self {
        // systemd.slice(5): the name tells the place.
        let slice = paths.at("/sys/fs/cgroup/strongroom.slice").join(SLICE);
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse().ok();
        let sessions = fs::read_dir(&slice).into_iter().flatten().flatten();
        Self {
            limit: number(slice.join("memory.max")),
            held: sessions.filter_map(|session| anonymous(&session.path())).collect(),
        }
    }

    /// Whether there is room for another, when `begun` of them were let in and are not over. One alone is always let in.
    pub fn is_there(&self, begun: usize) -> bool {
        let Some(limit) = self.limit else { return true };
        let coming = begun.saturating_sub(self.held.len()) as u64;
        let held: u64 = self.held.iter().map(|held| (*held).max(LEAST)).sum();
        (begun == 0 && self.held.is_empty()) || held + (coming + 1) * LEAST <= limit
    }
}

/// What a control group holds that has no place but memory, in bytes; none for what isn't one.
fn anonymous(group: &Path) -> Option<u64> {
    let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
    stat.lines().find_map(|line| line.strip_prefix("anon ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(limit: Option<u64>, held: &[u64]) -> Room {
        Room {
            limit,
            held: held.to_vec(),
        }
    }

    #[test]
    fn one_that_has_not_grown_yet_is_counted_as_it_will_be() {
        let limit = Some(725 * MIB);
        assert!(room(limit, &[]).is_there(0));
        assert!(room(limit, &[MIB; 11]).is_there(11));
        assert!(!room(limit, &[MIB; 12]).is_there(12));
        assert!(!room(limit, &[]).is_there(12), "none of them is seen yet");
        assert!(!room(limit, &[500 * MIB, MIB, MIB, MIB, MIB]).is_there(5));
        assert!(room(limit, &[500 * MIB, MIB]).is_there(2));
        assert!(
            room(limit, &[500 * MIB, MIB]).is_there(1),
            "begun before this program was"
        );
    }

    #[test]
    fn nobody_waits_for_ever() {
        assert!(room(Some(MIB), &[]).is_there(0), "a machine that is too small tries");
        assert!(!room(Some(MIB), &[MIB]).is_there(1));
        assert!(room(None, &[MIB; 64]).is_there(64), "no bound");
    }

    #[test]
    fn it_is_read_from_the_control_groups() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        assert_eq!(Room::read(&paths), Room::default());
        let slice = paths.at("/sys/fs/cgroup/strongroom.slice/strongroom-sessions.slice");
        let session = slice.join("strongroom-session@asus-3.service");
        fs::create_dir_all(&session).unwrap();
        fs::write(slice.join("memory.max"), "760549376\n").unwrap();
        fs::write(slice.join("memory.stat"), "anon 99\nfile 1\n").unwrap();
        fs::write(session.join("memory.stat"), "anon 4096\nfile 307200\n").unwrap();
        assert_eq!(Room::read(&paths), room(Some(760_549_376), &[4096]));
        fs::write(slice.join("memory.max"), "max\n").unwrap();
        assert_eq!(Room::read(&paths).limit, None);
    }
}
