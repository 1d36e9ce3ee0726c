//! The md superblock, metadata version 1.2, as much as is needed to recognise an array and to judge whether it may be
//! assembled. Source: `struct mdp_superblock_1` in the kernel's `include/uapi/linux/raid/md_p.h`.

use crate::text::Text;
use serde::{Deserialize, Serialize};

/// Where the superblock of metadata 1.2 lies: 4 KiB into the member.
pub const SUPERBLOCK_OFFSET: u64 = 4096;
/// How much to read there: the fixed part and the roles of up to 384 devices.
pub const SUPERBLOCK_BYTES: usize = 1024;

const MAGIC: u32 = 0xa92b_4efc;
/// `MD_FEATURE_RAID0_LAYOUT`: the layout field is meaningful for RAID0.
const FEATURE_RAID0_LAYOUT: u32 = 4096;

/// Which RAID0 layout the superblock records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// The layout of kernels before 3.14, ours.
    Original,
    /// The layout of kernels 3.14 to 5.3.
    Alternate,
    /// None recorded, or a number that is not known.
    Unrecorded,
}

/// What a member's superblock says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// Identity of the array, as mdadm writes it: four groups of eight hexadecimal digits.
    pub array_uuid: Text<36>,
    /// Name of the array, possibly with the host's name before a colon.
    pub name: Text<32>,
    /// RAID level.
    pub level: i32,
    /// Layout, for level 0.
    pub layout: Layout,
    /// Number of members.
    pub members: u32,
    /// This member's place among them.
    pub role: Option<u16>,
    /// Where its data begins, in sectors of 512 bytes.
    pub data_offset: u64,
    /// How much of it the array uses, in sectors.
    pub data_sectors: u64,
    /// Size of a chunk, in sectors.
    pub chunk_sectors: u32,
}

impl Superblock {
    /// The name without the host's: `strongroom` of `oldbox:strongroom`.
    pub fn bare_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// Chunks that the array uses of this member. Members of different counts form a second zone, and only there do
    /// the layouts differ (`create_strip_zones` in the kernel's drivers/md/raid0.c).
    pub fn chunks(&self) -> u64 {
        self.data_sectors / u64::from(self.chunk_sectors.max(1))
    }
}

/// Identity of an array in the form that mdadm writes: four groups of eight hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ArrayUuid(Text<36>);

impl ArrayUuid {
    /// Takes 32 hexadecimal digits in whatever groups: mdadm separates them by `:`, blkid by `-`.
    pub fn new(text: &str) -> Option<Self> {
        use core::fmt::Write;
        let mut uuid = Text::new();
        let mut digits = 0;
        for c in text.chars().filter(|c| !matches!(c, ':' | '-')) {
            if !c.is_ascii_hexdigit() || digits == 32 {
                return None;
            }
            let separator = if digits > 0 && digits % 8 == 0 { ":" } else { "" };
            let _ = write!(uuid, "{separator}{}", c.to_ascii_lowercase());
            digits += 1;
        }
        (digits == 32).then_some(Self(uuid))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl core::fmt::Display for ArrayUuid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ArrayUuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::string::String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{}` is not the UUID of an array (32 hexadecimal digits, as `strongroom disks adopt` shows it)",
                text.escape_debug()
            ))
        })
    }
}

/// What was found where a superblock may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No superblock.
    Nothing,
    /// A superblock whose checksum is right.
    Superblock(Superblock),
    /// The mark of a superblock, but damaged or of another version.
    Damaged,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads a superblock from the bytes at [`SUPERBLOCK_OFFSET`] of a member.
pub fn parse(bytes: &[u8]) -> Found {
    if u32_at(bytes, 0) != Some(MAGIC) {
        return Found::Nothing;
    }
    parse_fields(bytes).map_or(Found::Damaged, Found::Superblock)
}

fn parse_fields(bytes: &[u8]) -> Option<Superblock> {
    let major = u32_at(bytes, 4)?;
    let features = u32_at(bytes, 8)?;
    let max_dev = u32_at(bytes, 220)? as usize;
    let length = max_dev.checked_mul(2)?.checked_add(256)?;
    if major != 1 || length > bytes.len() || checksum(bytes.get(..length)?) != u32_at(bytes, 216)? {
        return None;
    }
    let mut array_uuid = Text::new();
    for (i, group) in bytes.get(16..32)?.chunks(4).enumerate() {
        use core::fmt::Write;
        let separator = if i == 0 { "" } else { ":" };
        let _ = write!(
            array_uuid,
            "{separator}{:02x}{:02x}{:02x}{:02x}",
            group[0], group[1], group[2], group[3]
        );
    }
    let name = bytes.get(32..64)?;
    let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
    let layout = match (features & FEATURE_RAID0_LAYOUT != 0, u32_at(bytes, 76)?) {
        (true, 1) => Layout::Original,
        (true, 2) => Layout::Alternate,
        _ => Layout::Unrecorded,
    };
    let device = u32_at(bytes, 160)? as usize;
    let role = (device < max_dev)
        .then(|| u16_at(bytes, 256 + device * 2))
        .flatten()
        .filter(|role| *role < 0xfffd);
    Some(Superblock {
        array_uuid,
        name: core::str::from_utf8(name).unwrap_or("?").into(),
        level: u32_at(bytes, 72)? as i32,
        layout,
        members: u32_at(bytes, 92)?,
        role,
        data_offset: u64_at(bytes, 128)?,
        data_sectors: u64_at(bytes, 136)?,
        chunk_sectors: u32_at(bytes, 88)?,
    })
}

/// `calc_sb_1_csum` of the kernel's md driver: the sum of all 32-bit words with the checksum's own taken as zero.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum: u64 = 0;
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    for (i, word) in words.enumerate() {
        if i * 4 != 216 {
            sum += u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    if let [low, high] = rest {
        sum += u64::from(u16::from_le_bytes([*low, *high]));
    }
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A superblock as mdadm 4.4 writes it for `--level=0 --layout=original`.
    pub(crate) fn superblock_bytes(uuid: [u8; 16], members: u32, role: u16, layout: Option<u32>) -> Vec<u8> {
        let mut bytes = std::vec![0u8; SUPERBLOCK_BYTES];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, MAGIC);
        put(4, 1);
        put(8, if layout.is_some() { FEATURE_RAID0_LAYOUT } else { 0 });
        put(76, layout.unwrap_or(0));
        put(92, members);
        put(160, u32::from(role));
        put(220, 128);
        bytes[16..32].copy_from_slice(&uuid);
        bytes[32..42].copy_from_slice(b"strongroom");
        bytes[256 + 2 * role as usize..][..2].copy_from_slice(&role.to_le_bytes());
        let sum = checksum(&bytes[..256 + 128 * 2]);
        bytes[216..220].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn reads_what_mdadm_writes() {
        let bytes = superblock_bytes([0xab; 16], 2, 1, Some(1));
        let Found::Superblock(found) = parse(&bytes) else {
            panic!()
        };
        assert_eq!(found.array_uuid.as_str(), "abababab:abababab:abababab:abababab");
        assert_eq!(found.name.as_str(), "strongroom");
        assert_eq!(
            (found.level, found.layout, found.members, found.role),
            (0, Layout::Original, 2, Some(1))
        );
    }

    #[test]
    fn identities_are_taken_in_every_usual_form() {
        let mdadm = "0a1b2c3d:00000000:11111111:deadbeef";
        for text in [
            mdadm,
            "0A1B2C3D-0000-0000-1111-1111DEADBEEF",
            "0a1b2c3d0000000011111111deadbeef",
        ] {
            assert_eq!(ArrayUuid::new(text).unwrap().as_str(), mdadm);
        }
        for text in [
            "",
            "0a1b2c3d",
            "0a1b2c3d:00000000:11111111:deadbeef0",
            "g0a1b2c3d0000000011111111deadbee",
        ] {
            assert_eq!(ArrayUuid::new(text), None, "{text}");
        }
    }

    #[test]
    fn a_missing_layout_is_told() {
        let Found::Superblock(found) = parse(&superblock_bytes([1; 16], 2, 0, None)) else {
            panic!()
        };
        assert_eq!(found.layout, Layout::Unrecorded);
    }

    #[test]
    fn zeros_are_nothing() {
        assert_eq!(parse(&[0; SUPERBLOCK_BYTES]), Found::Nothing);
        assert_eq!(parse(&[]), Found::Nothing);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_passes(bit in 32usize..512 * 8) {
            let mut bytes = superblock_bytes([7; 16], 3, 2, Some(1));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(parse(&bytes), Found::Damaged);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 4..SUPERBLOCK_BYTES)) {
            bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            let _ = parse(&bytes);
        }
    }
}
