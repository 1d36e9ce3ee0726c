//! The sums of objects that are sent in parts.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, Sha256Sum};

/// What an object that was sent in parts is known by. The service is told the SHA-256 of each part, so one of all of it would
/// be a second one of every byte; instead, it is the SHA-256 of what `split --bytes=SIZE --filter=sha256sum OBJECT` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsSum {
    /// Bytes of each part but the last. Never 0.
    pub size: u64,
    /// SHA-256 of the lines.
    pub sha256: Sha256Sum,
}

/// Adds up the sums of parts, in their order.
#[derive(Debug, Default)]
pub(crate) struct Lines(Sha256);

impl Lines {
    pub fn add(&mut self, part: &Sha256Sum) {
        // As sha256sum(1) writes of its standard input.
        self.0.update(format!("{part}  -\n"));
    }

    pub fn finish(self) -> Sha256Sum {
        Digest(self.0.finalize().into())
    }
}

/// The sum of an object that is being received.
pub(crate) enum ObjectHash {
    Whole(Sha256),
    Parts {
        size: u64,
        /// What is still missing of the part.
        missing: u64,
        part: Sha256,
        lines: Lines,
    },
}

impl ObjectHash {
    /// Of all of it, or of parts of that many bytes.
    pub fn new(part_size: Option<u64>) -> Self {
        match part_size.filter(|size| *size > 0) {
            None => Self::Whole(Sha256::new()),
            Some(size) => Self::Parts {
                size,
                missing: size,
                part: Sha256::new(),
                lines: Lines::default(),
            },
        }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        match self {
            Self::Whole(hash) => hash.update(bytes),
            Self::Parts {
                size,
                missing,
                part,
                lines,
            } => {
                while !bytes.is_empty() {
                    let now = usize::try_from(*missing).unwrap_or(usize::MAX).min(bytes.len());
                    let (now, later) = bytes.split_at(now);
                    part.update(now);
                    *missing -= now.len() as u64;
                    bytes = later;
                    if *missing == 0 {
                        lines.add(&Digest(part.finalize_reset().into()));
                        *missing = *size;
                    }
                }
            }
        }
    }

    pub fn finish(self) -> Sha256Sum {
        match self {
            Self::Whole(hash) => Digest(hash.finalize().into()),
            Self::Parts {
                size,
                missing,
                part,
                mut lines,
            } => {
                if missing < size {
                    lines.add(&Digest(part.finalize().into()));
                }
                lines.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn parts_sum(bytes: &[u8], size: u64, pieces: usize) -> Sha256Sum {
        let mut hash = ObjectHash::new(Some(size));
        bytes.chunks(pieces).for_each(|piece| hash.update(piece));
        hash.finish()
    }

    /// What RECOVERY.txt does.
    #[test]
    fn split_and_sha256sum_come_to_the_same() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("object");
        std::fs::write(&file, &bytes).unwrap();
        for size in [1, 7, 500, 999, 1000, 1001] {
            let script = format!("split --bytes={size} --filter=sha256sum \"$1\" | sha256sum");
            let output = Command::new("sh")
                .args(["-c", &script, "sh"])
                .arg(&file)
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            let sum = String::from_utf8(output.stdout).unwrap();
            assert_eq!(sum, format!("{}  -\n", parts_sum(&bytes, size, 64)), "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pieces_do_not_matter(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), size in 1_u64..300, pieces in 1_usize..200,
        ) {
            let mut lines = Lines::default();
            for part in bytes.chunks(usize::try_from(size).unwrap()) {
                lines.add(&Digest(Sha256::digest(part).into()));
            }
            prop_assert_eq!(parts_sum(&bytes, size, pieces), lines.finish());
            let mut whole = ObjectHash::new(None);
            bytes.chunks(pieces).for_each(|piece| whole.update(piece));
            prop_assert_eq!(whole.finish(), Digest(Sha256::digest(&bytes).into()));
        }
    }
}
