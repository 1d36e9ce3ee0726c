//! A writer of segments for tests only, made from the format's description alone.

use proptest::prelude::*;

use crate::segment::{EntryKind, MAGIC, ObjectKey};

/// An entry to be written.
#[derive(Debug, Clone)]
pub enum Planned {
    Put([u8; 32], Vec<u8>),
    Delete([u8; 32]),
    Commit,
}

impl Planned {
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Put(key, _) => EntryKind::Put(ObjectKey(*key)),
            Self::Delete(key) => EntryKind::Delete(ObjectKey(*key)),
            Self::Commit => EntryKind::Commit,
        }
    }
}

pub fn planned() -> impl Strategy<Value = Planned> {
    prop_oneof![
        // Larger than the reader's buffer from time to time.
        (
            any::<[u8; 32]>(),
            any::<u8>(),
            prop_oneof![0_usize..300, 60_000_usize..140_000]
        )
            .prop_map(|(key, fill, len)| Planned::Put(key, vec![fill; len])),
        any::<[u8; 32]>().prop_map(Planned::Delete),
        Just(Planned::Commit),
    ]
}

pub fn write_segment(plan: &[Planned]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for entry in plan {
        let (tag, body) = match entry {
            Planned::Put(key, data) => (0, [key.as_slice(), data].concat()),
            Planned::Delete(key) => (1, key.to_vec()),
            Planned::Commit => (2, Vec::new()),
        };
        let size = u32::try_from(9 + body.len()).unwrap();
        let checked = [&size.to_le_bytes(), [tag].as_slice(), &body].concat();
        out.extend(crc32fast::hash(&checked).to_le_bytes());
        out.extend(checked);
    }
    out
}
