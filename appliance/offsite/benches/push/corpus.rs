//! A repository of raw segments, which neither compress nor repeat.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::support::noise;

/// Borg's own limit.
const SEGMENT: usize = 500_000_000;

/// Writes an empty repository.
pub fn new(repository: &Path) {
    fs::create_dir_all(repository.join("data/0")).unwrap();
    let config = format!("[repository]\nversion = 1\nid = {}\n", "ab".repeat(32));
    fs::write(repository.join("config"), config).unwrap();
}

/// Adds `bytes` in segments, then a commit.
pub fn grow(repository: &Path, bytes: usize) {
    let block = noise(1 << 20, 3);
    let (mut left, mut number) = (bytes, fs::read_dir(repository.join("data/0")).unwrap().count());
    while left > 0 {
        let mut here = left.min(SEGMENT);
        left -= here;
        let mut file = File::create(repository.join(format!("data/0/{number}"))).unwrap();
        while here > 0 {
            let piece = here.min(block.len());
            file.write_all(&block[..piece]).unwrap();
            here -= piece;
        }
        number += 1;
    }
    let (magic, commit) = (strongroom_borg::segment::MAGIC, strongroom_borg::segment::COMMIT);
    fs::write(
        repository.join(format!("data/0/{number}")),
        [magic.as_slice(), commit.as_slice()].concat(),
    )
    .unwrap();
}
