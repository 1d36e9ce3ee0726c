//! Decisions, without input and output: which of a mirror's files stand for a package's source, and what Buildroot's
//! own list of packages says.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::manifest::Versions;

/// A line of `image/buildroot/sources.list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Buildroot's package.
    pub package: String,
    /// Debian's source package.
    pub source: String,
    /// How its version must start.
    pub version: String,
    /// How the first of Debian's patches that is wanted starts; empty for all.
    pub patches: String,
    /// Debian's binary packages that stand in when there is no source.
    pub binaries: Vec<String>,
}

impl Wanted {
    /// Reads a line of the list: words separated by blanks.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let package = words.next()?.to_owned();
        let source = words.next()?;
        let (source, version) = source.split_once('@').unwrap_or((source, ""));
        let (source, patches) = source.split_once(':').unwrap_or((source, ""));
        Some(Self {
            package,
            source: source.to_owned(),
            version: version.to_owned(),
            patches: patches.to_owned(),
            binaries: words.map(str::to_owned).collect(),
        })
    }

    /// The package's name in Buildroot's variables.
    #[must_use]
    pub fn variable(&self) -> String {
        self.package.to_uppercase().replace('-', "_")
    }
}

/// One file of a source package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name.
    pub name: String,
    /// Its SHA-256, which the mirror's signed index vouches for.
    pub sha256: String,
}

/// A version of a source package that a mirror's index lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// How far its release is from the one that the toolchain is of; 0 is that release itself.
    pub distance: usize,
    /// Its version.
    pub version: String,
    /// The address of its folder.
    pub folder: String,
    /// Its files, without signatures.
    pub files: Vec<SourceFile>,
}

impl Offer {
    /// Only the authors' own archive: what is left when the mirror lacks Debian's additions.
    #[must_use]
    pub fn upstream_only(&self) -> Option<&SourceFile> {
        let mut archives = self.files.iter().filter(|file| file.name.contains(".orig.tar."));
        // More than one belong together in ways that only dpkg knows.
        archives.next().filter(|_| archives.next().is_none())
    }
}

/// The offers of the wanted source packages in a `Sources` index, by name.
#[must_use]
pub fn offers(index: &str, base: &str, distance: usize, wanted: &BTreeSet<&str>) -> Vec<(String, Offer)> {
    index
        .split("\n\n")
        .filter_map(|stanza| {
            let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
            let mut files = Vec::new();
            let mut key = "";
            for line in stanza.lines() {
                match line.strip_prefix(' ') {
                    Some(line) if key == "Checksums-Sha256" => {
                        let mut words = line.split_whitespace();
                        let sha256 = words.next()?.to_owned();
                        let name = words.nth(1)?.to_owned();
                        if !name.ends_with(".asc") {
                            files.push(SourceFile { name, sha256 });
                        }
                    }
                    Some(_) => {}
                    None => {
                        let (name, value) = line.split_once(':')?;
                        key = name;
                        fields.insert(name, value.trim());
                    }
                }
            }
            let name = fields.get("Package")?;
            wanted.contains(name).then_some(())?;
            let offer = Offer {
                distance,
                version: (*fields.get("Version")?).to_owned(),
                folder: format!("{}/{}", base.trim_end_matches('/'), fields.get("Directory")?),
                files,
            };
            Some(((*name).to_owned(), offer))
        })
        .collect()
}

/// The part of a Debian version that its authors gave.
#[must_use]
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    version.rsplit_once('-').map_or(version, |(version, _)| version)
}

/// In which order to try offers: nearest release, newest first; of one upstream version all of Debian's before the bare
/// archive. Each is an offer and whether only its authors' archive is taken.
#[must_use]
pub fn attempts(mut offers: Vec<Offer>, compare: impl Fn(&str, &str) -> Ordering) -> Vec<(Offer, bool)> {
    offers.sort_by(|a, b| {
        a.distance
            .cmp(&b.distance)
            .then_with(|| compare(&b.version, &a.version))
    });
    let mut attempts = Vec::new();
    let mut rest = offers.as_slice();
    while let Some(first) = rest.first() {
        let same = rest
            .iter()
            .take_while(|offer| {
                offer.distance == first.distance && upstream(&offer.version) == upstream(&first.version)
            })
            .count();
        let (group, others) = rest.split_at(same);
        attempts.extend(group.iter().map(|offer| (offer.clone(), false)));
        attempts.extend(
            group
                .iter()
                .filter(|offer| offer.upstream_only().is_some())
                .take(1)
                .map(|offer| (offer.clone(), true)),
        );
        rest = others;
    }
    attempts
}

/// The packages on the target and their versions, from `make show-info`.
#[must_use]
pub fn versions(info: &str) -> Versions {
    target(info)
        .into_iter()
        .map(|(name, value)| {
            let version = value["version"].as_str().filter(|version| !version.is_empty());
            (name, version.unwrap_or("0").to_owned())
        })
        .collect()
}

/// What `make show-info` says, for the bill of materials: of the target alone, in the versions that were built. A package
/// whose source came from elsewhere than the recipe says has neither its address nor its sums.
#[must_use]
pub fn for_bill(info: &str, versions: &Versions) -> String {
    let Ok(Value::Object(mut all)) = serde_json::from_str(info) else {
        return String::new();
    };
    all.retain(|_, value| value["type"] == "target");
    for value in all.values_mut() {
        if let Some(Value::Array(dependencies)) = value.get_mut("dependencies") {
            dependencies.retain(|name| !name.as_str().is_some_and(|name| name.starts_with("host-")));
        }
        let built = value["name"].as_str().and_then(|name| versions.get(name));
        if let (Some(built), Some(value)) = (built, value.as_object_mut())
            && value.get("version").is_none_or(|version| version != built.as_str())
        {
            value.insert("version".to_owned(), Value::from(built.as_str()));
            for of_the_recipe in ["downloads", "hashes", "cpe-id"] {
                value.remove(of_the_recipe);
            }
        }
    }
    Value::Object(all).to_string()
}

/// Buildroot's target packages that are real: no virtual ones, no skeletons.
fn target(info: &str) -> BTreeMap<String, Value> {
    let Ok(Value::Object(all)) = serde_json::from_str(info) else {
        return BTreeMap::new();
    };
    all.into_iter()
        .filter(|(_, value)| {
            value["type"] == "target"
                && value["virtual"] == false
                && value["version"].as_str().is_some_and(|v| !v.is_empty())
        })
        .map(|(_, value)| (value["name"].as_str().unwrap_or_default().to_owned(), value))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "Package: xz-utils\nVersion: 5.8.1-1+deb13u2\nDirectory: pool/main/x/xz-utils\nFiles:\n 0 1 x.dsc\n\
Checksums-Sha256:\n aa 1 xz-utils_5.8.1-1+deb13u2.dsc\n bb 2 xz-utils_5.8.1.orig.tar.xz\n cc 3 xz-utils_5.8.1.orig.tar.xz.asc\n\n\
Package: other\nVersion: 1\nDirectory: d\n";

    fn offer(distance: usize, version: &str) -> Offer {
        Offer {
            distance,
            version: version.to_owned(),
            folder: String::new(),
            files: vec![SourceFile {
                name: "a_1.orig.tar.xz".to_owned(),
                sha256: String::new(),
            }],
        }
    }

    #[test]
    fn an_index_gives_what_is_wanted_with_sums_and_without_signatures() {
        let found = offers(INDEX, "file:/mirror/", 2, &BTreeSet::from(["xz-utils"]));
        let [(name, found)] = found.as_slice() else {
            panic!("not one offer");
        };
        assert_eq!(name, "xz-utils");
        assert_eq!(found.folder, "file:/mirror/pool/main/x/xz-utils");
        assert_eq!(found.files.len(), 2);
        assert_eq!(found.upstream_only().unwrap().sha256, "bb");
    }

    #[test]
    fn the_nearest_release_and_the_newest_version_come_first_and_debians_before_the_bare_archive() {
        let offers = vec![
            offer(1, "9.0-1"),
            offer(0, "1.0-1"),
            offer(0, "2.0-1"),
            offer(0, "2.0-2"),
        ];
        let order: Vec<(String, bool)> = attempts(offers, |a, b| a.cmp(b))
            .into_iter()
            .map(|(offer, bare)| (offer.version, bare))
            .collect();
        let expected = [
            ("2.0-2", false),
            ("2.0-1", false),
            ("2.0-2", true),
            ("1.0-1", false),
            ("1.0-1", true),
            ("9.0-1", false),
            ("9.0-1", true),
        ];
        let expected = expected.map(|(version, bare)| (version.to_owned(), bare));
        assert_eq!(order, expected);
    }

    #[test]
    fn several_archives_are_never_taken_bare() {
        let mut two = offer(0, "1-1");
        two.files.push(SourceFile {
            name: "a_1.orig.tar.xz".replace("orig", "orig-part"),
            sha256: String::new(),
        });
        assert!(two.upstream_only().is_some());
        two.files.push(two.files[0].clone());
        assert!(two.upstream_only().is_none());
    }

    #[test]
    fn lines_name_packages_as_buildroot_does() {
        let wanted = Wanted::parse("libnftnl  libnftnl  libnftnl11 libnftnl-dev").unwrap();
        assert_eq!(wanted.binaries, ["libnftnl11", "libnftnl-dev"]);
        assert_eq!(Wanted::parse("util-linux util-linux").unwrap().variable(), "UTIL_LINUX");
        assert_eq!(Wanted::parse("linux linux@6.12.").unwrap().version, "6.12.");
        let python = Wanted::parse("python3 python3.13:CVE-").unwrap();
        assert_eq!(
            (python.source.as_str(), python.patches.as_str()),
            ("python3.13", "CVE-")
        );
        assert!(Wanted::parse("alone").is_none());
    }

    #[test]
    fn only_real_target_packages_count() {
        let info = r#"{"zlib":{"type":"target","name":"zlib","virtual":true,"version":""},
            "libzlib":{"type":"target","name":"libzlib","virtual":false,"version":"1.3.1","licenses":"Zlib, MIT"},
            "host-zlib":{"type":"host","name":"zlib","virtual":false,"version":"1"}}"#;
        let versions = versions(info);
        assert_eq!(versions, Versions::from([("libzlib".to_owned(), "1.3.1".to_owned())]));
        assert!(super::versions("nonsense").is_empty());
    }
    #[test]
    fn the_bill_is_of_the_target_in_the_versions_that_were_built() {
        let info = r#"{"a":{"type":"target","name":"a","virtual":false,"version":"1","cpe-id":"a:1","downloads":[{}],
            "dependencies":["host-b","c"]},"c":{"type":"target","name":"c","virtual":false,"version":"3","cpe-id":"c:3"},
            "host-b":{"type":"host","name":"b","virtual":false,"version":"1"}}"#;
        let versions = Versions::from([("a".to_owned(), "2-1".to_owned()), ("c".to_owned(), "3".to_owned())]);
        let bill: Value = serde_json::from_str(&for_bill(info, &versions)).unwrap();
        assert_eq!(
            bill["a"],
            serde_json::json!({"type":"target","name":"a","virtual":false,"version":"2-1","dependencies":["c"]})
        );
        assert_eq!(bill["c"]["cpe-id"], "c:3");
        assert!(bill.get("host-b").is_none());
        assert_eq!(for_bill("nonsense", &versions), "");
    }
}
