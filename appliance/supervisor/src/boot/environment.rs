//! GRUB's environment block: 1024 bytes of `NAME=value` lines behind a header, filled up with `#` (GRUB's manual, "The
//! GRUB environment block"). GRUB knows the file by its place on the disk, so it is overwritten, never replaced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

const SIZE: usize = 1024;
const HEADER: &str = "# GRUB Environment Block\n";

/// The block's variables, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// Reads a block; `None` when it isn't one.
    pub fn parse(block: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(block).ok().filter(|text| text.len() == SIZE)?;
        let lines = text.strip_prefix(HEADER)?.lines();
        let variables = lines.filter(|line| !line.starts_with('#'));
        Some(Self(
            variables
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        ))
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.to_string(),
            None => self.0.push((name.to_string(), value.to_string())),
        }
    }

    /// The block; `None` when it would be too large.
    pub fn render(&self) -> Option<Vec<u8>> {
        let mut text = HEADER.to_string();
        for (name, value) in &self.0 {
            text.push_str(&format!("{name}={value}\n"));
        }
        let mut block = text.into_bytes();
        (block.len() <= SIZE).then(|| {
            block.resize(SIZE, b'#');
            block
        })
    }

    /// Reads the file.
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::parse(&fs::read(path)?).ok_or_else(|| io::Error::other("grubenv is no GRUB environment block"))
    }

    /// Overwrites the file, which must be there. Durable on return.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let block = self.render().ok_or_else(|| io::Error::other("grubenv is full"))?;
        let mut file = File::options().write(true).open(path)?;
        file.write_all(&block)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(lines: &str) -> Vec<u8> {
        let mut block = format!("{HEADER}{lines}").into_bytes();
        block.resize(SIZE, b'#');
        block
    }

    #[test]
    fn grub_editenv_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grubenv");
        fs::write(&path, block("ORDER=A B\nA_TRY=1\n")).unwrap();
        let mut environment = Environment::load(&path).unwrap();
        assert_eq!(environment.get("A_TRY"), Some("1"));
        environment.set("A_TRY", "0");
        environment.set("DISK_ID", "abc");
        environment.save(&path).unwrap();
        let listed = std::process::Command::new("grub-editenv")
            .arg(&path)
            .arg("list")
            .output();
        let listed = listed.expect("missing `grub-editenv`: run `cargo image test`, which installs it");
        assert_eq!(
            String::from_utf8(listed.stdout).unwrap(),
            "ORDER=A B\nA_TRY=0\nDISK_ID=abc\n"
        );
    }

    #[test]
    fn what_is_no_block_or_does_not_fit_is_refused() {
        assert_eq!(Environment::parse(b""), None);
        assert_eq!(Environment::parse(&[b'#'; SIZE]), None);
        let mut full = Environment::parse(&block("")).unwrap();
        full.set("X", &"y".repeat(SIZE));
        assert_eq!(full.render(), None);
    }

    proptest! {
        #[test]
        fn a_block_reads_back(variables in proptest::collection::btree_map("[A-Z_]{1,8}", "[a-z0-9 ]{0,16}", 0..12)) {
            let mut environment = Environment::parse(&block("")).unwrap();
            for (name, value) in &variables {
                environment.set(name, value);
            }
            prop_assert_eq!(Environment::parse(&environment.render().unwrap()), Some(environment));
        }
    }
}
