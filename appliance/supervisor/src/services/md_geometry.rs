//! The geometry of a running RAID0, as the kernel tells it in /sys (Documentation/admin-guide/md.rst).

use std::fs;
use std::path::Path;
use strongroom_model::raid0::Geometry;

/// The geometry of the array `device` and its members' kernel names (`sda6`), in the order of their roles. `None` when
/// it is no RAID0, or not all members are there.
pub fn of(sys: &Path, device: &Path) -> Option<(Geometry, Vec<String>)> {
    let real = fs::canonicalize(device).ok()?;
    let md = sys.join("block").join(real.file_name()?).join("md");
    let text = |name: &str| fs::read_to_string(md.join(name)).ok();
    if text("level")?.trim() != "raid0" {
        return None;
    }
    // "2" or, while it changes, "2 (1)".
    let number = |name: &str| text(name)?.split_whitespace().next()?.parse::<u64>().ok();
    let (mut members, mut names) = (Vec::new(), Vec::new());
    for role in 0..number("raid_disks")? {
        let link = md.join(format!("rd{role}"));
        // In KiB.
        let size: u64 = fs::read_to_string(link.join("size")).ok()?.trim().parse().ok()?;
        members.push(size.checked_mul(2)?);
        let target = fs::read_link(&link).ok()?;
        names.push(target.file_name()?.to_str()?.strip_prefix("dev-")?.to_string());
    }
    let geometry = Geometry {
        members,
        chunk: number("chunk_size")? / 512,
        alternate: number("layout") == Some(2),
    };
    Some((geometry, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_two() {
        let folder = tempfile::tempdir().unwrap();
        let md = folder.path().join("block/md127/md");
        for (name, size) in [("dev-sda6", "4190208"), ("dev-sdb1", "3143680")] {
            fs::create_dir_all(md.join(name)).unwrap();
            fs::write(md.join(name).join("size"), format!("{size}\n")).unwrap();
        }
        std::os::unix::fs::symlink("dev-sda6", md.join("rd0")).unwrap();
        for (name, text) in [
            ("level", "raid0\n"),
            ("raid_disks", "2\n"),
            ("chunk_size", "524288\n"),
            ("layout", "1\n"),
        ] {
            fs::write(md.join(name), text).unwrap();
        }
        let device = folder.path().join("md127");
        fs::write(&device, "").unwrap();
        assert_eq!(of(folder.path(), &device), None, "a member is missing");
        std::os::unix::fs::symlink("dev-sdb1", md.join("rd1")).unwrap();
        let (geometry, names) = of(folder.path(), &device).unwrap();
        assert_eq!(names, ["sda6", "sdb1"]);
        assert_eq!((geometry.chunk, geometry.alternate), (1024, false));
        assert_eq!(geometry.members, [8_380_416, 6_287_360]);
    }
}
