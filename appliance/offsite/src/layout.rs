//! Names of objects below a target's prefix.
//!
//! A name is used once. When it is taken by something that cannot be proved to be ours, a revision (the
//! push's time in Unix seconds) goes before the extension: `data/0/17.1763871234.gpg`.

use strongroom_borg::SegmentNumber;

use crate::digest::Sha256Sum;

/// Stem and extension of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    stem: String,
    extension: &'static str,
}

impl Name {
    /// A segment, by its path in the repository: `data/0/17`.
    #[must_use]
    pub fn segment(path: &str) -> Self {
        Self {
            stem: path.to_owned(),
            extension: "gpg",
        }
    }

    /// A version of the repository's `config`.
    #[must_use]
    pub fn config(sha256: &Sha256Sum) -> Self {
        let sum = sha256.to_string();
        Self {
            stem: format!("config.{}", sum.get(..8).unwrap_or(&sum)),
            extension: "gpg",
        }
    }

    /// The manifest of a transaction.
    #[must_use]
    pub fn manifest(transaction: SegmentNumber) -> Self {
        Self {
            stem: format!("manifest/{transaction}"),
            extension: "json.gpg",
        }
    }

    /// The clear sums of a transaction.
    #[must_use]
    pub fn sums(transaction: SegmentNumber) -> Self {
        Self {
            stem: format!("manifest/{transaction}"),
            extension: "SHA256SUMS",
        }
    }

    /// The signature of a transaction's clear sums.
    #[must_use]
    pub fn signature(transaction: SegmentNumber) -> Self {
        Self {
            stem: format!("manifest/{transaction}"),
            extension: "SHA256SUMS.asc",
        }
    }

    /// The instructions.
    #[must_use]
    pub fn recovery() -> Self {
        Self {
            stem: "RECOVERY".into(),
            extension: "txt",
        }
    }

    /// The object's name; `None` for the first choice.
    #[must_use]
    pub fn revision(&self, revision: Option<u64>) -> String {
        match revision {
            None => format!("{}.{}", self.stem, self.extension),
            Some(revision) => format!("{}.{revision}.{}", self.stem, self.extension),
        }
    }
}

/// Reads a manifest's name: transaction and revision (0 for the first). Later ones compare greater.
#[must_use]
pub fn parse_manifest(object: &str) -> Option<(SegmentNumber, u64)> {
    let stem = object.strip_prefix("manifest/")?.strip_suffix(".json.gpg")?;
    let (transaction, revision) = match stem.split_once('.') {
        None => (stem, 0),
        Some((transaction, revision)) => (transaction, revision.parse().ok()?),
    };
    Some((SegmentNumber(transaction.parse().ok()?), revision))
}

/// The sums that belong to a manifest.
#[must_use]
pub fn sums_of_manifest(manifest: &str) -> Option<String> {
    Some(format!("{}.SHA256SUMS", manifest.strip_suffix(".json.gpg")?))
}

/// The signature of a manifest's clear sums.
#[must_use]
pub fn signature_of_sums(sums: &str) -> String {
    format!("{sums}.asc")
}

/// What the names of signers' certificates begin with.
pub const SIGNER: &str = "signer.";

/// The certificate of the key that signs, by its fingerprint.
#[must_use]
pub fn signer(fingerprint: &str) -> String {
    format!("{SIGNER}{fingerprint}.asc")
}

/// The manifest that clear sums, or their signature, belong to.
#[must_use]
pub fn manifest_of_sums(object: &str) -> Option<String> {
    let sums = object.strip_suffix(".asc").unwrap_or(object);
    let manifest = format!("{}.json.gpg", sums.strip_suffix(".SHA256SUMS")?);
    parse_manifest(&manifest).map(|_| manifest)
}

/// The transaction of a manifest's clear sums, or of their signature.
#[must_use]
pub fn parse_sums(object: &str) -> Option<SegmentNumber> {
    parse_manifest(&manifest_of_sums(object)?).map(|(transaction, _)| transaction)
}

/// Whether a name has the form of one of ours that belongs to no segment and no state: a version of `config`, a
/// signer's certificate, or the instructions.
#[must_use]
pub fn is_beside(object: &str) -> bool {
    let revision = |text: &str| text.is_empty() || text.strip_prefix('.').is_some_and(|n| n.parse::<u64>().is_ok());
    let config = || {
        let (sum, rest) = object
            .strip_prefix("config.")?
            .strip_suffix(".gpg")?
            .split_at_checked(8)?;
        Some(sum.bytes().all(|b| b.is_ascii_hexdigit()) && revision(rest))
    };
    let instructions = || Some(revision(object.strip_prefix("RECOVERY")?.strip_suffix(".txt")?));
    let signer = || {
        let (fingerprint, rest) = object
            .strip_prefix(SIGNER)?
            .strip_suffix(".asc")?
            .split_at_checked(40)?;
        Some(fingerprint.bytes().all(|b| b.is_ascii_hexdigit()) && revision(rest))
    };
    config().or_else(instructions).or_else(signer).unwrap_or(false)
}

/// Whether a path from a manifest may be written below a directory: `config`, or `data/N/N`.
#[must_use]
pub fn is_repository_path(path: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().is_ok_and(|n| n.to_string() == text);
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["config"] => true,
        ["data", directory, segment] => number(directory) && number(segment),
        _ => false,
    }
}

/// The segment at a path from a manifest: `data/0/17`.
#[must_use]
pub fn segment_of(path: &str) -> Option<SegmentNumber> {
    let (_, number) = path.strip_prefix("data/")?.split_once('/')?;
    number.parse().ok().map(SegmentNumber)
}

/// The segment that an object holds: `data/0/17.gpg`, or a revision of it.
#[must_use]
pub fn object_of_segment(object: &str) -> Option<SegmentNumber> {
    let stem = object.strip_suffix(".gpg")?;
    let (path, revision) = match stem.split_once('.') {
        None => (stem, "0"),
        Some((path, revision)) => (path, revision),
    };
    let _: u64 = revision.parse().ok()?;
    is_repository_path(path).then(|| segment_of(path))?
}

/// Whether a full key, below whatever prefix, is that of a segment's object.
#[must_use]
pub fn is_key_of_segment(key: &str) -> bool {
    key.rmatch_indices("data/").any(|(at, _)| {
        let (before, object) = key.split_at(at);
        (before.is_empty() || before.ends_with('/')) && object_of_segment(object).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Name::segment("data/0/17").revision(None), "data/0/17.gpg");
        assert_eq!(Name::segment("data/0/17").revision(Some(5)), "data/0/17.5.gpg");
        assert_eq!(
            Name::config(&crate::digest::Digest([0xab; 32])).revision(None),
            "config.abababab.gpg"
        );
        let first = Name::manifest(SegmentNumber(17)).revision(None);
        let second = Name::manifest(SegmentNumber(17)).revision(Some(99));
        assert_eq!(first, "manifest/17.json.gpg");
        assert!(parse_manifest(&first) < parse_manifest(&second));
        assert!(parse_manifest(&second) < parse_manifest("manifest/18.json.gpg"));
        assert_eq!(
            sums_of_manifest(&second).unwrap(),
            Name::sums(SegmentNumber(17)).revision(Some(99))
        );
        let sums = Name::sums(SegmentNumber(17)).revision(Some(99));
        assert_eq!(
            signature_of_sums(&sums),
            Name::signature(SegmentNumber(17)).revision(Some(99))
        );
        for other in ["manifest/17.SHA256SUMS", "manifest/17.SHA256SUMS.asc"] {
            assert_eq!(parse_manifest(other), None);
        }
        assert_eq!(parse_manifest("manifest/17.SHA256SUMS"), None);
        assert_eq!(parse_sums("manifest/17.99.SHA256SUMS"), Some(SegmentNumber(17)));
        assert_eq!(parse_sums("manifest/17.SHA256SUMS.asc"), Some(SegmentNumber(17)));
        assert_eq!(parse_sums("manifest/17.json.gpg"), None);
        for object in [
            "config.abababab.gpg",
            "config.abababab.5.gpg",
            "RECOVERY.txt",
            "RECOVERY.5.txt",
            &signer(&"A1".repeat(20)),
        ] {
            assert!(is_beside(object), "{object}");
        }
        for object in [
            "config.gpg",
            "config.ababababa.gpg",
            "config.xbababab.gpg",
            "RECOVERY.txt.exe",
            "signer.A1.asc",
            "x",
        ] {
            assert!(!is_beside(object), "{object}");
        }
    }

    #[test]
    fn segments_are_known_by_their_path() {
        assert_eq!(segment_of("data/1/1017"), Some(SegmentNumber(1017)));
        for other in ["config", "data/17", "data/0/x"] {
            assert_eq!(segment_of(other), None, "{other}");
        }
        for object in ["data/1/1017.gpg", "data/1/1017.1763871234.gpg"] {
            assert_eq!(object_of_segment(object), Some(SegmentNumber(1017)));
        }
        for other in ["data/1/1017", "data/1/1017.x.gpg", "config.gpg", "data/1/../3.gpg"] {
            assert_eq!(object_of_segment(other), None, "{other}");
            assert!(!is_key_of_segment(&format!("asus/{other}")));
        }
        for key in ["data/0/1.gpg", "a/data/0/1.5.gpg", "data/data/0/1.gpg"] {
            assert!(is_key_of_segment(key), "{key}");
        }
        for other in [
            "a/metadata/0/1.gpg",
            "data/manifest/1.json.gpg",
            "data/config.01234567.gpg",
        ] {
            assert!(!is_key_of_segment(other), "{other}");
        }
    }

    #[test]
    fn a_manifest_cannot_write_elsewhere() {
        for good in ["config", "data/0/0", "data/12/12345"] {
            assert!(is_repository_path(good));
        }
        for bad in [
            "",
            "/etc/passwd",
            "../config",
            "data/../x",
            "data/0/1/2",
            "data//1",
            "data/0/01",
            "hints.1",
        ] {
            assert!(!is_repository_path(bad), "{bad}");
        }
    }
}
