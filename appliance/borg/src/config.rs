//! The repository's `config` file: the few values that matter here.
//!
//! It is an INI file as Python's `configparser` writes it: `key = value`, continued lines are
//! indented (a `repokey` is such a value), comments start with `#` or `;`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::error::Error;

/// A repository's identity: 32 random bytes, chosen by `borg init`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepositoryId([u8; 32]);

impl RepositoryId {
    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 32];
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
            let high = char::from(*pair.first()?).to_digit(16)?;
            let low = char::from(*pair.get(1)?).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryId({self})")
    }
}

/// The values of `[repository]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// The repository's identity.
    pub id: RepositoryId,
    /// Whether the repository itself refuses to free space. `borg init` through
    /// `borg serve --append-only` leaves this false, although the server enforces it.
    pub append_only: bool,
    /// Upper size of new segments, in bytes; existing ones may be larger.
    pub max_segment_size: u64,
    /// How many segments share a directory below `data`.
    pub segments_per_dir: u32,
    /// Whether `config` holds the repository's key (`repokey` modes).
    pub holds_key: bool,
}

impl RepositoryConfig {
    /// Parses the text of `config`; `path` (the repository) is for messages only.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::UnsupportedVersion`] or [`Error::BadConfig`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let missing = |why| Error::NotARepository { path: path.into(), why };
        let bad = |key, value: &str| Error::BadConfig {
            path: path.into(),
            key,
            value: value.into(),
        };

        let version = value(text, "version").ok_or_else(|| missing("its config has no [repository] version"))?;
        if version != "1" {
            return Err(Error::UnsupportedVersion {
                path: path.into(),
                version: version.into(),
            });
        }
        let id = value(text, "id").ok_or_else(|| missing("its config has no id"))?;
        let number = |key, default: u64| match value(text, key) {
            None => Ok(default),
            Some(found) => found.parse().map_err(|_| bad(key, found)),
        };
        Ok(Self {
            id: RepositoryId::parse(id).ok_or_else(|| bad("id", id))?,
            append_only: number("append_only", 0)? != 0,
            max_segment_size: number("max_segment_size", 500 * 1024 * 1024)?,
            segments_per_dir: u32::try_from(number("segments_per_dir", 1000)?)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| bad("segments_per_dir", value(text, "segments_per_dir").unwrap_or_default()))?,
            holds_key: value(text, "key").is_some(),
        })
    }
}

/// Names of the settings that differ between two texts of `config`, in order, each once. Values are never told: one of
/// them is the key. What Borg's check notes for itself, and `append_only` being switched on, are no change.
#[must_use]
pub fn changed_settings(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (settings(old), settings(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| {
            let (before, after) = (old.get(*name), new.get(*name));
            let own = match name.as_str() {
                "last_segment_checked" => true,
                "append_only" => after.is_some_and(|value| value == "1"),
                _ => false,
            };
            before != after && !own
        })
        .cloned()
        .collect()
}

/// Every setting with its whole value, continued lines included. Outside of `[repository]` the section is part of the name.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let (mut section, mut name) = (String::new(), None);
    for line in text.lines() {
        let line = line.trim_end();
        if line.starts_with(['#', ';']) || line.is_empty() {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if let Some(value) = name.as_ref().and_then(|name| settings.get_mut(name)) {
                let value: &mut String = value;
                value.push('\n');
                value.push_str(line.trim_start());
            }
        } else if let Some(begun) = line.strip_prefix('[') {
            section = match begun.strip_suffix(']').unwrap_or(begun) {
                "repository" => String::new(),
                other => format!("{other}."),
            };
            name = None;
        } else {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let key = format!("{section}{}", key.trim_end().to_ascii_lowercase());
            settings.insert(key.clone(), value.trim().to_owned());
            name = Some(key);
        }
    }
    settings
}

/// The value of `key` in section `[repository]`: its first line.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        let line = line.trim_end();
        if let Some(section) = line.strip_prefix('[') {
            inside = section.strip_suffix(']') == Some("repository");
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim_end().eq_ignore_ascii_case(key)
        {
            return Some(value.trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn parse(text: &str) -> Result<RepositoryConfig, Error> {
        RepositoryConfig::parse(Path::new("/r"), text)
    }

    #[test]
    fn reads_what_borg_writes() {
        let config = parse(&format!(
            "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\n\
             append_only = 1\nstorage_quota = 0\nadditional_free_space = 0\nid = {ID}\nkey = hqlhbGdv\n\tid = nonsense\n\n"
        ))
        .unwrap();
        assert_eq!(config.id.to_string(), ID);
        assert!(config.append_only && config.holds_key);
        assert_eq!(config.max_segment_size, 524_288_000);
    }

    #[test]
    fn changes_are_named_and_values_are_not() {
        let old = format!("[repository]\nversion = 1\nappend_only = 0\nid = {ID}\nkey = abc\n\tdef\n\n");
        let same = format!(
            "[repository]\nid = {ID}\nversion=1\nappend_only = 1\nlast_segment_checked = 7\nkey = abc\n\tdef\n"
        );
        assert!(changed_settings(&old, &same).is_empty());
        assert_eq!(changed_settings(&same, &old), ["append_only"]);
        let other = old
            .replace("\tdef", "\tdeg")
            .replace("version = 1", "version = 1\nstorage_quota = 5");
        assert_eq!(changed_settings(&old, &other), ["key", "storage_quota"]);
        assert_eq!(changed_settings(&old, ""), ["append_only", "id", "key", "version"]);
        assert_eq!(changed_settings("[a]\nkey=1", "[b]\nkey=1"), ["a.key", "b.key"]);
    }

    #[test]
    fn other_versions_and_other_files_are_named() {
        assert!(matches!(
            parse("[repository]\nversion = 2\n"),
            Err(Error::UnsupportedVersion { .. })
        ));
        assert!(matches!(
            parse("[cache]\nversion = 1\n"),
            Err(Error::NotARepository { .. })
        ));
        assert!(matches!(parse(""), Err(Error::NotARepository { .. })));
        assert!(matches!(
            parse("[repository]\nversion = 1\nid = 12\n"),
            Err(Error::BadConfig { key: "id", .. })
        ));
    }
}
