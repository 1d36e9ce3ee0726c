//! Block maps: which blocks of an image hold anything, with a checksum each, so that only those are written.
//!
//! The format is bmap 2.0 as bmaptool reads and writes it (its man page and `BmapCreate.py` describe it): XML with
//! inclusive block ranges, a SHA-256 for each, and a SHA-256 over the file itself computed with its own value as zeros.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, OnFile, Result};
use crate::fingerprint::hex;

/// Bytes in a block.
pub const BLOCK: u64 = 4096;
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A mapped range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// First block.
    pub first: u64,
    /// Last block, included.
    pub last: u64,
    /// SHA-256 of the range's bytes, lower-case hexadecimal. The image's last block may be short.
    pub sha256: String,
}

/// A block map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmap {
    /// The image's size in bytes.
    pub image_size: u64,
    /// The mapped ranges in ascending order.
    pub ranges: Vec<Range>,
}

impl Bmap {
    /// Bytes that are mapped.
    #[must_use]
    pub fn mapped(&self) -> u64 {
        self.ranges.iter().map(|range| self.bytes(range).1).sum()
    }

    /// A range's first byte and its length in bytes.
    #[must_use]
    pub fn bytes(&self, range: &Range) -> (u64, u64) {
        let start = range.first * BLOCK;
        let end = ((range.last + 1) * BLOCK).min(self.image_size);
        (start, end.saturating_sub(start))
    }

    /// Maps an image by asking its file system for the holes.
    ///
    /// # Errors
    /// When the image can't be read.
    pub fn of(image: &Path) -> Result<Self> {
        let mut file = File::open(image).on("open", image)?;
        let image_size = file.metadata().on("read", image)?.len();
        let mut bmap = Self {
            image_size,
            ranges: Vec::new(),
        };
        for (first, last) in allocated(&file, image_size).on("map", image)? {
            let mut range = Range {
                first,
                last,
                sha256: String::new(),
            };
            let (start, length) = bmap.bytes(&range);
            file.seek(SeekFrom::Start(start)).on("read", image)?;
            range.sha256 = sha256(&mut file, length, &mut |_| Ok(())).on("read", image)?;
            bmap.ranges.push(range);
        }
        Ok(bmap)
    }

    /// The map as XML.
    #[must_use]
    pub fn render(&self) -> String {
        let draft = self.xml(ZEROS);
        let checksum = hex(&Sha256::digest(draft.as_bytes()));
        self.xml(&checksum)
    }

    fn xml(&self, checksum: &str) -> String {
        let mapped: u64 = self.ranges.iter().map(|range| range.last - range.first + 1).sum();
        let mut xml = String::from("<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n");
        let _ = writeln!(xml, "    <ImageSize> {} </ImageSize>", self.image_size);
        let _ = writeln!(xml, "    <BlockSize> {BLOCK} </BlockSize>");
        let _ = writeln!(
            xml,
            "    <BlocksCount> {} </BlocksCount>",
            self.image_size.div_ceil(BLOCK)
        );
        let _ = writeln!(xml, "    <MappedBlocksCount> {mapped} </MappedBlocksCount>");
        let _ = writeln!(xml, "    <ChecksumType> sha256 </ChecksumType>");
        let _ = writeln!(xml, "    <BmapFileChecksum> {checksum} </BmapFileChecksum>");
        let _ = writeln!(xml, "    <BlockMap>");
        for Range { first, last, sha256 } in &self.ranges {
            let blocks = if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            };
            let _ = writeln!(xml, "        <Range chksum=\"{sha256}\"> {blocks} </Range>");
        }
        xml.push_str("    </BlockMap>\n</bmap>\n");
        xml
    }

    /// Reads a map and checks it against its own checksum.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document = roxmltree::Document::parse(text).map_err(|error| error.to_string())?;
        let root = document.root_element();
        let field = |name: &str| {
            root.children()
                .find(|node| node.has_tag_name(name))
                .and_then(|node| node.text())
                .map(str::trim)
                .ok_or_else(|| format!("has no {name}"))
        };
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        if root.attribute("version") != Some("2.0") {
            return Err("is not of version 2.0".to_owned());
        }
        if field("ChecksumType")? != "sha256" || number(field("BlockSize")?)? != BLOCK {
            return Err("has another checksum or block size than this program writes".to_owned());
        }
        let checksum = field("BmapFileChecksum")?;
        if checksum.len() != ZEROS.len() || hex(&Sha256::digest(text.replacen(checksum, ZEROS, 1))) != checksum {
            return Err("does not match its own checksum".to_owned());
        }
        let image_size = number(field("ImageSize")?)?;
        let mut ranges = Vec::new();
        let mut next = 0;
        for node in root.descendants().filter(|node| node.has_tag_name("Range")) {
            let blocks = node.text().unwrap_or_default();
            let (first, last) = blocks.split_once('-').unwrap_or((blocks, blocks));
            let (first, last) = (number(first)?, number(last)?);
            if first < next || last < first || last >= image_size.div_ceil(BLOCK) {
                return Err(format!("the range {} is out of place", blocks.trim()));
            }
            next = last + 1;
            let sha256 = node.attribute("chksum").ok_or("a range has no checksum")?.to_owned();
            ranges.push(Range { first, last, sha256 });
        }
        Ok(Self { image_size, ranges })
    }

    /// Reads a map from a file.
    ///
    /// # Errors
    /// When it can't be read or is not a sound map.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).on("read", path)?;
        Self::parse(&text).map_err(|detail| Error::Unexpected {
            what: path.display().to_string(),
            detail,
        })
    }
}

/// SHA-256 of the next `length` bytes; each piece read is shown to `each` as well.
///
/// # Errors
/// When reading, or `each`, fails; the end of the file is a failure.
pub fn sha256(
    from: &mut impl Read,
    length: u64,
    each: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    let mut left = length;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..size];
        from.read_exact(piece)?;
        hash.update(&*piece);
        each(piece)?;
        left -= size as u64;
    }
    Ok(hex(&hash.finalize()))
}

/// Block ranges (inclusive) that are not holes, neighbours joined.
fn allocated(file: &File, size: u64) -> std::io::Result<Vec<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        let (first, last) = (start / BLOCK, (end - 1) / BLOCK);
        match ranges.last_mut() {
            Some(range) if first <= range.1 + 1 => range.1 = last,
            _ => ranges.push((first, last)),
        }
        position = end;
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn sample() -> (tempfile::NamedTempFile, Bmap) {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(100 * BLOCK + 7).unwrap();
        image.as_file().write_all_at(&[1; 10], 0).unwrap();
        image.as_file().write_all_at(&[2; 5000], 50 * BLOCK - 1).unwrap();
        image.as_file().write_all_at(&[3; 7], 100 * BLOCK).unwrap();
        let bmap = Bmap::of(image.path()).unwrap();
        (image, bmap)
    }

    #[test]
    fn holes_are_left_out_and_the_short_last_block_is_in() {
        let (_image, bmap) = sample();
        let blocks: Vec<(u64, u64)> = bmap.ranges.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(blocks, [(0, 0), (49, 51), (100, 100)]);
        assert_eq!(bmap.bytes(&bmap.ranges[2]), (100 * BLOCK, 7));
        assert_eq!(bmap.mapped(), 4 * BLOCK + 7);
        assert_eq!(bmap.ranges[2].sha256, hex(&Sha256::digest([3; 7])));
    }

    #[test]
    fn a_map_reads_back_and_damage_is_noticed() {
        let (_image, bmap) = sample();
        let text = bmap.render();
        assert_eq!(Bmap::parse(&text).unwrap(), bmap);
        assert!(Bmap::parse(&text.replace("49-51", "49-52")).is_err());
        assert!(Bmap::parse(&text[..text.len() / 2]).is_err());
    }

    #[test]
    fn bmaptool_takes_it() {
        let (image, bmap) = sample();
        let folder = tempfile::tempdir().unwrap();
        let map = folder.path().join("map");
        std::fs::write(&map, bmap.render()).unwrap();
        if !crate::process::exists("bmaptool") {
            return; // Not among the packages that the commands install: python, for one test.
        }
        let copy = folder.path().join("copy");
        let mut tool = crate::process::command("bmaptool");
        tool.arg("copy").arg("--bmap").arg(&map).arg(image.path()).arg(&copy);
        crate::process::capture("copy with bmaptool", &mut tool).unwrap();
        assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(image.path()).unwrap());
    }
}
