//! The partition table: constants, and the check that `board/x86_64/genimage.cfg` says the same.
//!
//! GPT. The places are fixed for good: a reflashed machine finds its array again because the raid partition always
//! starts at the same place. Identities are constants too, so that GRUB, the initramfs and the units can name them.

/// Bytes in a MiB.
pub const MIB: u64 = 1024 * 1024;
/// Bytes in a logical sector.
pub const SECTOR: u64 = 512;

/// A partition of the system disk that is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its GPT name.
    pub name: &'static str,
    /// First MiB.
    pub start_mib: u64,
    /// Length in MiB.
    pub size_mib: u64,
}

impl Partition {
    /// First byte.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start_mib * MIB
    }

    /// Length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size_mib * MIB
    }

    /// Its identity (the kernel's PARTUUID).
    #[must_use]
    pub fn uuid(&self) -> String {
        format!("73747267-726f-4f6d-8000-{:012}", self.number)
    }
}

/// GRUB's core.img, for BIOS.
pub const BIOS_BOOT: Partition = Partition {
    number: 1,
    name: "bios-boot",
    start_mib: 1,
    size_mib: 2,
};
/// GRUB for UEFI, its configuration and grubenv, and the owner's CONFIG.
pub const ESP: Partition = Partition {
    number: 2,
    name: "esp",
    start_mib: 3,
    size_mib: 128,
};
/// The first system slot.
pub const SYSTEM_A: Partition = Partition {
    number: 3,
    name: "system-a",
    start_mib: 131,
    size_mib: 768,
};
/// The second system slot.
pub const SYSTEM_B: Partition = Partition {
    number: 4,
    name: "system-b",
    start_mib: 899,
    size_mib: 768,
};
/// What must survive.
pub const STATE: Partition = Partition {
    number: 5,
    name: "state",
    start_mib: 1667,
    size_mib: 2048,
};
/// All of them, in order. The sixth, raid, is made by the appliance itself.
pub const PARTITIONS: [Partition; 5] = [BIOS_BOOT, ESP, SYSTEM_A, SYSTEM_B, STATE];
/// Where the raid partition starts on every system disk, in bytes. Never change it.
pub const RAID_START: u64 = 4096 * MIB;

#[cfg(test)]
mod tests {
    use super::*;

    const GENIMAGE: &str = include_str!("../../board/x86_64/genimage.cfg");

    /// The value of `key` in the `partition NAME { … }` block of genimage's configuration.
    fn value(name: &str, key: &str) -> String {
        let block = GENIMAGE.split(&format!("partition {name} {{")).nth(1).unwrap();
        let block = block.split('}').next().unwrap();
        let line = block
            .lines()
            .find(|line| line.trim().split(' ').next() == Some(key))
            .unwrap();
        line.split('=').nth(1).unwrap().trim().trim_matches('"').to_owned()
    }

    #[test]
    fn partitions_follow_each_other_and_end_before_the_array() {
        for pair in PARTITIONS.windows(2) {
            assert_eq!(pair[0].start() + pair[0].size(), pair[1].start());
            assert_eq!(pair[0].number + 1, pair[1].number);
        }
        // One more MiB holds the backup of the partition table.
        assert!(STATE.start() + STATE.size() + MIB <= RAID_START);
    }

    #[test]
    fn genimage_is_told_the_same() {
        for partition in PARTITIONS {
            assert_eq!(value(partition.name, "offset"), format!("{}M", partition.start_mib));
            assert_eq!(value(partition.name, "size"), format!("{}M", partition.size_mib));
            assert_eq!(value(partition.name, "partition-uuid"), partition.uuid());
        }
    }

    #[test]
    fn grub_names_the_same_identities() {
        let grub = include_str!("../../board/x86_64/grub/grub.cfg");
        assert!(grub.contains(&SYSTEM_A.uuid()) && grub.contains(&SYSTEM_B.uuid()));
    }
}
