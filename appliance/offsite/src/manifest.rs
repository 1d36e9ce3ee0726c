//! What belongs to a committed state: the manifest, its clear sums, and the instructions for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use strongroom_borg::SegmentNumber;

use crate::digest::{Md5Sum, Sha256Sum};
use crate::layout::is_repository_path;
use crate::sums::PartsSum;
use crate::target::{AtService, Place, Target};

/// One file of the repository, and the object that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path in the repository: `config` or `data/0/17`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content. Missing when the ledger was lost and the object taken on by its size.
    pub sha256: Option<Sha256Sum>,
    /// The object's name below the prefix.
    pub object: String,
    /// The object's size in bytes.
    pub object_size: u64,
    /// SHA-256 of the object; missing as above, and when it was sent in parts.
    pub object_sha256: Option<Sha256Sum>,
    /// The sum of its parts, if it was sent in parts. Earlier versions wrote [`FileEntry::object_sha256`] for these too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_parts: Option<PartsSum>,
    /// MD5 of the object, if it was sent in one piece.
    pub object_md5: Option<Md5Sum>,
}

/// The commit point of a push: everything that belongs to transaction T.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `strongroom-manifest`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// The repository's id, in hexadecimal.
    pub repository: String,
    /// T.
    pub transaction: SegmentNumber,
    /// When the push was made, in Unix seconds.
    pub created: u64,
    /// `config`, then the segments in order.
    pub files: Vec<FileEntry>,
}

/// The value of [`Manifest::format`].
pub const FORMAT: &str = "strongroom-manifest";
/// The version that is written and read.
pub const VERSION: u32 = 1;

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Not JSON of the expected shape.
    #[error("it cannot be read: {0}")]
    Syntax(String),
    /// Made by a newer version.
    #[error("it is of version {0}, newer than this program: update the program")]
    Newer(u32),
    /// A path that has no place in a repository.
    #[error("it names the path {0:?}, which has no place in a repository")]
    Path(String),
    /// The same path twice, or no `config`.
    #[error("its list of files is not complete or has doubles")]
    Files,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`BadManifest`].
    pub fn parse(json: &[u8]) -> Result<Self, BadManifest> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let syntax = |error: serde_json::Error| BadManifest::Syntax(error.to_string());
        let Version { version } = serde_json::from_slice(json).map_err(syntax)?;
        if version > VERSION {
            return Err(BadManifest::Newer(version));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(syntax)?;
        if let Some(file) = manifest.files.iter().find(|file| !is_repository_path(&file.path)) {
            return Err(BadManifest::Path(file.path.clone()));
        }
        let mut paths: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        if paths.windows(2).any(|pair| pair[0] == pair[1]) || !paths.contains(&"config") || manifest.format != FORMAT {
            return Err(BadManifest::Files);
        }
        Ok(manifest)
    }

    /// Sum of the objects' sizes, in bytes.
    #[must_use]
    pub fn object_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.object_size).sum()
    }

    /// The clear sums, to be read by `sha256sum --check`, by people, and by an appliance that lost its ledger.
    /// `manifest` is the manifest's own object and sum.
    #[must_use]
    pub fn sums(&self, manifest: (&str, Sha256Sum)) -> String {
        let mut out = format!(
            "# Sums of the encrypted objects of transaction {}. Each '# file' line: size, object's size, path, object. Each\n\
             # '# parts' line: size, sum of what `split --bytes=SIZE --filter=sha256sum OBJECT` prints, object.\n\
             # repository {}\n",
            self.transaction, self.repository
        );
        for file in &self.files {
            let FileEntry {
                path,
                size,
                object,
                object_size,
                object_sha256,
                object_parts,
                ..
            } = file;
            let _ = writeln!(out, "# file {size} {object_size} {path} {object}");
            if let Some(sum) = object_sha256 {
                let _ = writeln!(out, "{sum}  {object}");
            }
            if let Some(PartsSum { size, sha256 }) = object_parts {
                let _ = writeln!(out, "# parts {size} {sha256} {object}");
            }
        }
        let _ = writeln!(out, "{}  {}", manifest.1, manifest.0);
        out
    }
}

/// What the clear sums tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// The repository's id, in hexadecimal.
    pub repository: String,
    /// Path in the repository, and what is known of its object; content sums are never in it.
    pub files: BTreeMap<String, FileEntry>,
}

impl Sums {
    /// Reads what [`Manifest::sums`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut repository = None;
        let mut files = BTreeMap::new();
        let mut sums = BTreeMap::new();
        let mut parts = BTreeMap::new();
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("# repository ") {
                repository = Some(id.to_owned());
            } else if let Some(rest) = line.strip_prefix("# file ") {
                let [size, object_size, path, object] = rest.split(' ').collect::<Vec<_>>().try_into().ok()?;
                let entry = FileEntry {
                    path: path.to_owned(),
                    size: size.parse().ok()?,
                    sha256: None,
                    object: object.to_owned(),
                    object_size: object_size.parse().ok()?,
                    object_sha256: None,
                    object_parts: None,
                    object_md5: None,
                };
                files.insert(path.to_owned(), entry);
            } else if let Some(rest) = line.strip_prefix("# parts ") {
                let [size, sum, object] = rest.split(' ').collect::<Vec<_>>().try_into().ok()?;
                let sum = PartsSum {
                    size: size.parse().ok().filter(|size| *size > 0)?,
                    sha256: Sha256Sum::parse(sum)?,
                };
                parts.insert(object.to_owned(), sum);
            } else if let Some((sum, object)) = line.split_once("  ") {
                sums.insert(object.to_owned(), Sha256Sum::parse(sum)?);
            }
        }
        for file in files.values_mut() {
            file.object_sha256 = sums.get(&file.object).copied();
            file.object_parts = parts.get(&file.object).copied();
        }
        Some(Self {
            repository: repository?,
            files,
        })
    }
}

/// `RECOVERY.txt`: how to restore with common tools only. The tests run its commands.
#[must_use]
pub fn recovery(target: &Target) -> String {
    let Place::Bucket(AtService {
        bucket,
        manifest_bucket,
        ..
    }) = &target.place
    else {
        return RECOVERY
            .replace(
                "You need: the secret key, gpg (2.2.21 or later), borg (1.x), and any program that copies from S3, such as rclone.\n",
                "You need: the secret key, gpg (2.2.21 or later) and borg (1.x).\n",
            )
            .replace(&format!("{ALL_READABLE}\n"), "")
            .replace(
                "1. Copy everything into a new directory, and go there:",
                "1. Go to the folder in which this file lies, and say where the repository is to be made:",
            )
            .replace(&format!("{COPY_ALL}    cd copy\n"), "    cd FOLDER\n    REPOSITORY=\"$HOME/repository\"\n")
            .replace("\"repository/", "\"$REPOSITORY/")
            .replace("--verify-data repository", "--verify-data \"$REPOSITORY\"")
            .replace("list repository", "list \"$REPOSITORY\"")
            .replace("certificates in this bucket", "certificates beside the copy");
    };
    match manifest_bucket {
        None => RECOVERY.to_owned(),
        Some(manifests) => RECOVERY
            .replace(
                ALL_READABLE,
                &format!(
                    "The copy lies in two buckets: its large part, 'data', in {bucket}, and everything else in {manifests}, which\n\
                     can be read at once. If {bucket} is an archive bucket, first restore all of its objects to the readable tier\n\
                     (the provider's console can do it).\n"
                ),
            )
            .replace(
                COPY_ALL,
                &format!(
                    "    rclone copy REMOTE:{manifests}/PREFIX copy\n    rclone copy REMOTE:{bucket}/PREFIX/data copy/data\n"
                ),
            ),
    }
}
const ALL_READABLE: &str =
    "In an archive bucket, first restore all objects to the readable tier (the provider's console can do it).\n";
const COPY_ALL: &str = "    rclone copy REMOTE:BUCKET/PREFIX copy\n";

/// The same for a target of one bucket.
pub const RECOVERY: &str = "\
How to restore this backup without the program that made it
===========================================================

These objects are a Borg repository, each file encrypted with OpenPGP to the owner's certificate.
You need: the secret key, gpg (2.2.21 or later), borg (1.x), and any program that copies from S3, such as rclone.

In an archive bucket, first restore all objects to the readable tier (the provider's console can do it).

1. Copy everything into a new directory, and go there:

    rclone copy REMOTE:BUCKET/PREFIX copy
    cd copy

2. Take the newest state: the highest number in 'manifest' for which both files exist, NUMBER.json.gpg and
   NUMBER.SHA256SUMS (if there are several for a number, the one with the highest second number). Then:

    STATE=manifest/NUMBER
    sha256sum --check --quiet \"$STATE.SHA256SUMS\"

   Large objects were sent in parts, and are known by the sums of these. This names those that are damaged:

    grep '^# parts ' \"$STATE.SHA256SUMS\" | while read -r _ _ size sum object; do
        test \"$(split --bytes=\"$size\" --filter=sha256sum \"$object\" | sha256sum)\" = \"$sum  -\" || echo \"$object\"
    done

   Who made the copy is told by a signature, NUMBER.SHA256SUMS.asc. Compare the fingerprint that gpg prints with the
   one that you noted: certificates in this bucket prove nothing by themselves. Leave this out if there is none.

    gpg --batch --import signer.*.asc
    gpg --batch --verify \"$STATE.SHA256SUMS.asc\" \"$STATE.SHA256SUMS\"

3. Decrypt each file to its place. Stop if gpg reports an error.

    grep '^# file ' \"$STATE.SHA256SUMS\" | while read -r _ _ _ _ path object; do
        mkdir -p \"repository/$(dirname \"$path\")\"
        gpg --batch --output \"repository/$path\" --decrypt \"$object\" || exit 1
    done

4. Check, and list the archives:

    borg check --verify-data repository
    borg list repository
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    /// The one that was sent in parts.
    const PARTS: &str = "data/0/4";

    fn manifest() -> Manifest {
        let entry = |path: &str, known: bool| FileEntry {
            path: path.into(),
            size: 10,
            sha256: known.then_some(Digest([1; 32])),
            object: format!("{path}.gpg"),
            object_size: 500,
            object_sha256: (known && path != PARTS).then_some(Digest([2; 32])),
            object_parts: (path == PARTS).then_some(PartsSum {
                size: 5,
                sha256: Digest([3; 32]),
            }),
            object_md5: None,
        };
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            repository: "ab".repeat(32),
            transaction: SegmentNumber(3),
            created: 0,
            files: vec![
                entry("config", true),
                entry("data/0/1", false),
                entry("data/0/3", true),
                entry(PARTS, true),
            ],
        }
    }

    #[test]
    fn the_instructions_tell_of_both_buckets() {
        assert!(RECOVERY.contains(ALL_READABLE) && RECOVERY.contains(COPY_ALL));
        let with = |manifest_bucket: Option<String>| {
            let service = AtService {
                manifest_bucket,
                ..AtService::example()
            };
            recovery(&Target {
                name: "t".into(),
                place: Place::Bucket(service),
                prefix: "asus".into(),
            })
        };
        assert_eq!(with(None), RECOVERY);
        let text = with(Some("small".into()));
        assert!(text.contains("REMOTE:small/PREFIX copy") && text.contains("REMOTE:vault/PREFIX/data copy/data"));
        assert!(text.lines().all(|line| line.len() <= 118), "{text}");
    }

    #[test]
    fn the_instructions_for_a_directory_know_no_bucket() {
        let text = recovery(&Target::in_directory("usb".into(), "/media/usb".into(), "asus".into()));
        assert!(text.contains("\n    cd FOLDER\n    REPOSITORY="), "{text}");
        for not in [
            "bucket",
            "S3",
            "rclone",
            "\"repository",
            " repository\n",
            "REMOTE",
            "cd copy",
        ] {
            assert!(!text.contains(not), "{not}: {text}");
        }
    }

    #[test]
    fn json_and_sums_round_trip() {
        let manifest = manifest();
        assert_eq!(
            Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap(),
            manifest
        );
        let sums = Sums::parse(&manifest.sums(("manifest/3.json.gpg", Digest([9; 32])))).unwrap();
        assert_eq!(sums.repository, manifest.repository);
        assert_eq!(sums.files["data/0/3"].object_sha256, Some(Digest([2; 32])));
        assert_eq!(sums.files["data/0/1"].object_sha256, None);
        assert_eq!(sums.files["data/0/1"].object_parts, None);
        for file in &manifest.files {
            let read = &sums.files[&file.path];
            assert_eq!(
                (read.object_sha256, read.object_parts),
                (file.object_sha256, file.object_parts)
            );
        }
        assert_eq!(sums.files["data/0/1"].object_size, 500);
    }

    /// They had the SHA-256 of every object, and knew of no parts.
    #[test]
    fn manifests_of_earlier_versions_are_read() {
        let manifest = manifest();
        let mut json = serde_json::to_value(&manifest).unwrap();
        for file in json["files"].as_array_mut().unwrap() {
            let file = file.as_object_mut().unwrap();
            file.remove("object_parts");
            file.insert("object_sha256".into(), "02".repeat(32).into());
        }
        let read = Manifest::parse(json.to_string().as_bytes()).unwrap();
        for file in read.files {
            assert_eq!((file.object_sha256, file.object_parts), (Some(Digest([2; 32])), None));
        }
    }

    #[test]
    fn bad_manifests_are_refused() {
        let parse = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::parse(&serde_json::to_vec(&manifest).unwrap())
        };
        assert_eq!(parse(|m| m.version = 2), Err(BadManifest::Newer(2)));
        assert!(matches!(
            parse(|m| m.files[1].path = "../x".into()),
            Err(BadManifest::Path(_))
        ));
        assert_eq!(parse(|m| m.files[1].path = "data/0/3".into()), Err(BadManifest::Files));
        assert_eq!(
            parse(|m| {
                m.files.remove(0);
            }),
            Err(BadManifest::Files)
        );
        assert!(matches!(Manifest::parse(b"{"), Err(BadManifest::Syntax(_))));
    }
}
