//! What a product was made of, so that a second build redoes only what changed.
//!
//! A fingerprint is the SHA-256 of labelled inputs. It is kept beside the product in a file ending in `.made-of`, which is
//! removed before the product is touched and written after it is whole: a build that was interrupted is never mistaken
//! for a finished one.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{OnFile, Result};

/// Collects inputs.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Starts with the name of the step and the version of its recipe: raise it when the code that makes the product
    /// changes what comes out.
    #[must_use]
    pub fn of(step: &str, recipe: u32) -> Self {
        Self::default().text("step", step).text("recipe", &recipe.to_string())
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, label: &str, text: &str) -> Self {
        self.bytes(label, text.as_bytes())
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn file(self, path: &Path) -> Result<Self> {
        let content = std::fs::read(path).on("read", path)?;
        Ok(self.bytes("file", &content))
    }

    /// Adds a folder: names, kinds, permissions, link targets and contents, in sorted order.
    ///
    /// # Errors
    /// When something in it can't be read.
    pub fn tree(mut self, root: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        walk(root, &mut paths)?;
        paths.sort();
        for path in paths {
            let metadata = std::fs::symlink_metadata(&path).on("read", &path)?;
            let name = path.strip_prefix(root).unwrap_or(&path);
            self = self.bytes("path", name.as_os_str().as_bytes());
            self = if metadata.is_symlink() {
                let target = std::fs::read_link(&path).on("read", &path)?;
                self.bytes("link", target.as_os_str().as_bytes())
            } else if metadata.is_file() {
                let executable = metadata.permissions().mode() & 0o111 != 0;
                self.text("executable", if executable { "yes" } else { "no" })
                    .file(&path)?
            } else {
                self.text("kind", "folder")
            };
        }
        Ok(self)
    }

    /// The fingerprint in hexadecimal.
    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, label: &str, bytes: &[u8]) -> Self {
        self.0.update(label.as_bytes());
        self.0.update([0]);
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
}

/// Whether `product` exists and was made of what `fingerprint` says.
#[must_use]
pub fn is_fresh(product: &Path, fingerprint: &str) -> bool {
    product.exists() && std::fs::read_to_string(note(product)).is_ok_and(|found| found == fingerprint)
}

/// Must be called before `product` is changed.
///
/// # Errors
/// When the note can't be removed.
pub fn forget(product: &Path) -> Result<()> {
    let note = note(product);
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).on("remove", &note),
        _ => Ok(()),
    }
}

/// Must be called once `product` is whole.
///
/// # Errors
/// When the note can't be written.
pub fn remember(product: &Path, fingerprint: &str) -> Result<()> {
    let note = note(product);
    std::fs::write(&note, fingerprint).on("write", &note)
}

/// Bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(product: &Path) -> PathBuf {
    let mut name = product.as_os_str().to_owned();
    name.push(".made-of");
    name.into()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).on("read", folder)? {
        let path = entry.on("read", folder)?.path();
        if !path.is_symlink() && path.is_dir() {
            walk(&path, found)?;
        }
        found.push(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_lengths_keep_inputs_apart() {
        let one = Fingerprint::of("x", 1).text("a", "bc").text("d", "");
        let two = Fingerprint::of("x", 1).text("a", "b").text("d", "c");
        assert_ne!(one.finish(), two.finish());
    }

    #[test]
    fn a_tree_changes_with_content_name_mode_and_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let of = || Fingerprint::of("t", 1).tree(folder.path()).unwrap().finish();
        let mut seen = vec![of()];
        std::fs::write(&file, "1").unwrap();
        seen.push(of());
        std::fs::write(&file, "2").unwrap();
        seen.push(of());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        seen.push(of());
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        seen.push(of());
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn a_product_is_fresh_only_when_noted_after_the_last_change() {
        let folder = tempfile::tempdir().unwrap();
        let product = folder.path().join("product");
        std::fs::write(&product, "x").unwrap();
        assert!(!is_fresh(&product, "1"));
        remember(&product, "1").unwrap();
        assert!(is_fresh(&product, "1"));
        assert!(!is_fresh(&product, "2"));
        forget(&product).unwrap();
        forget(&product).unwrap();
        assert!(!is_fresh(&product, "1"));
    }
}
