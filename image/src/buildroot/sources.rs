//! `--sources debian`: finds, fetches, checks and unpacks the sources of Buildroot's packages from the Debian mirror that
//! this machine's apt uses, and tells Buildroot of them in `overrides.mk`.
//!
//! Trust goes as apt's does: the mirror's signed release file vouches for its indices, they for each file by SHA-256.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::checkout::Checkout;
use super::room::Room;
use super::select::{self, Offer, SourceFile, Wanted};
use crate::error::{Error, OnFile, Result};
use crate::fingerprint;
use crate::workspace::Workspace;
use crate::{debian, mirror, process, progress};

/// Stands in the list where none of Debian's patches are wanted.
const NO_PATCHES: &str = "-";

/// What is ready for Buildroot.
#[derive(Debug)]
pub struct Prepared {
    /// Where Buildroot is to work.
    pub room: Room,
    /// Versions by Buildroot's package, as Debian writes them.
    pub versions: BTreeMap<String, String>,
    /// Every file and its SHA-256.
    pub lock: String,
}

/// Makes the room, and has all sources unpacked in it.
///
/// # Errors
/// When there is no mirror, or when it has neither source nor binaries of a package.
pub fn prepare(workspace: &Workspace, checkout: &Checkout) -> Result<Prepared> {
    let suite = debian::RELEASE;
    let mirror = mirror::choose(&debian::sources()?).ok_or(Error::NoMirror { suite })?;
    let room = Room::make(workspace, &checkout.folder, &mirror)?;
    let recipe = workspace.root.join("image/buildroot");
    let wanted = wanted(workspace)?;
    let (versions, lock) = progress::stage("sources of Buildroot's packages", || {
        Fetcher {
            room: &room,
            script: recipe.join("unpack.sh"),
        }
        .all(&wanted)
    })?;
    Ok(Prepared { room, versions, lock })
}

fn wanted(workspace: &Workspace) -> Result<Vec<Wanted>> {
    let lines = debian::lines(&workspace.root.join("image/buildroot/sources.list"))?;
    Ok(lines.iter().filter_map(|line| Wanted::parse(line)).collect())
}

/// Debian's source packages by Buildroot's name of what they stand in for.
///
/// # Errors
/// When the list can't be read.
pub fn origins(workspace: &Workspace) -> Result<BTreeMap<String, String>> {
    let wanted = wanted(workspace)?;
    Ok(wanted.into_iter().map(|item| (item.package, item.source)).collect())
}

struct Fetcher<'a> {
    room: &'a Room,
    script: PathBuf,
}

impl Fetcher<'_> {
    fn all(&self, wanted: &[Wanted]) -> Result<(BTreeMap<String, String>, String)> {
        let offers = self.offers(wanted)?;
        let nothing = self.room.sources.join("nothing");
        std::fs::create_dir_all(&nothing).on("create", &nothing)?;
        std::fs::write(nothing.join(".keep"), "").on("write", &nothing)?;
        let mut overrides = String::from("# Made by \"cargo image build\".\n");
        let mut versions = BTreeMap::new();
        let mut lock = String::new();
        let mut done: BTreeMap<&str, (String, bool)> = BTreeMap::new();
        for item in wanted {
            let (version, built) = match done.get(item.source.as_str()) {
                Some(found) => found.clone(),
                None => {
                    let (version, lines, built) =
                        self.one(item, offers.get(&item.source).cloned().unwrap_or_default())?;
                    lock.push_str(&lines);
                    done.insert(&item.source, (version.clone(), built));
                    (version, built)
                }
            };
            let (variable, folder) = (item.variable(), self.folder(&item.source));
            let folder = folder.display();
            overrides.push_str(&if built {
                format!("$(eval $(call room-prebuilt,{variable},{folder}))\n")
            } else {
                format!("{variable}_OVERRIDE_SRCDIR = {folder}\n")
            });
            overrides.push_str(&format!(
                "{variable}_OVERRIDE_VERSION = {}\n",
                select::upstream(&version)
            ));
            // Buildroot's sums are of the licences of its own version; what is here, the mirror has vouched for.
            overrides.push_str(&format!("override {variable}_HASH_FILES =\n"));
            let bare = lock
                .lines()
                .any(|line| line.starts_with(&format!("{} ", item.source)) && line.contains(" archive "));
            if bare || item.patches == NO_PATCHES {
                overrides.push_str(&format!("{variable}_BARE = YES\n"));
            }
            versions.insert(item.package.clone(), version);
        }
        let file = self.room.sources.join("overrides.mk");
        std::fs::write(&file, overrides).on("write", &file)?;
        let file = self.room.sources.join("sources.lock");
        std::fs::write(&file, &lock).on("write", &file)?;
        Ok((versions, lock))
    }

    /// Where the sources of a source package are unpacked.
    fn folder(&self, source: &str) -> PathBuf {
        self.room.sources.join(source)
    }

    /// What the mirror's indices offer.
    fn offers(&self, wanted: &[Wanted]) -> Result<BTreeMap<String, Vec<Offer>>> {
        let names: BTreeSet<&str> = wanted.iter().map(|item| item.source.as_str()).collect();
        let mut update = self.room.command("apt-get", &["update", "-qq"]);
        process::capture("ask the mirror for its sources", &mut update)?;
        let mut targets = self.room.command(
            "apt-get",
            &[
                "indextargets",
                "--format",
                "$(CODENAME) $(REPO_URI) $(FILENAME)",
                "Created-By: Sources",
            ],
        );
        let targets = process::capture("list the mirror's indices", &mut targets)?;
        let mut all: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
        for target in targets.lines() {
            let mut words = target.split(' ');
            let (Some(suite), Some(base), Some(file)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Some(distance) = Room::distance(suite) else {
                continue;
            };
            let mut cat = self.room.command("/usr/lib/apt/apt-helper", &["cat-file", file]);
            let index = process::capture("read the mirror's index", &mut cat)?;
            for (name, offer) in select::offers(&index, base, distance, &names) {
                all.entry(name).or_default().push(offer);
            }
        }
        Ok(all)
    }

    /// Has one source package unpacked. Returns its version, its files with their sums, and whether binaries stand in.
    fn one(&self, item: &Wanted, offers: Vec<Offer>) -> Result<(String, String, bool)> {
        let offers = offers
            .into_iter()
            .filter(|offer| offer.version.starts_with(&item.version))
            .collect();
        let mut refused = BTreeSet::new();
        for (offer, bare) in select::attempts(offers, compare) {
            let files: Vec<&SourceFile> = if bare {
                offer.upstream_only().into_iter().collect()
            } else {
                offer.files.iter().collect()
            };
            // What failed once isn't asked for again.
            if files.iter().any(|file| refused.contains(&file.sha256)) {
                continue;
            }
            if let Some(missing) = files.iter().find(|file| !self.fetch(&offer, file)) {
                refused.insert(missing.sha256.clone());
                continue;
            }
            let kind = if bare { "archive" } else { "source" };
            let lines: String = files
                .iter()
                .map(|file| {
                    format!(
                        "{} {} {kind} {} {}\n",
                        item.source, offer.version, file.sha256, file.name
                    )
                })
                .collect();
            let main = files
                .iter()
                .find(|file| bare || file.name.ends_with(".dsc"))
                .map(|file| self.downloads().join(&file.name));
            let Some(main) = main else { continue };
            let mut arguments = vec![main.display().to_string()];
            if !bare && !item.patches.is_empty() {
                arguments.push(item.patches.clone());
            }
            self.unpack(item, kind, &arguments, &lines)?;
            return Ok((offer.version, lines, false));
        }
        if item.binaries.is_empty() {
            return Err(Error::Unexpected {
                what: format!("the source package {}", item.source),
                detail: "the mirror lists it but does not hold it, in any release".to_owned(),
            });
        }
        let mut show = self.room.command("apt-cache", &["show", "--no-all-versions"]);
        show.args(&item.binaries);
        let shown = process::capture("ask for binary packages", &mut show)?;
        let field = |key: &str| {
            shown
                .lines()
                .filter_map(move |line| Some(line.strip_prefix(key)?.trim().to_owned()))
                .collect::<Vec<_>>()
        };
        let (version, names, sums) = (field("Version:"), field("Package:"), field("SHA256:"));
        let lines: String = names
            .iter()
            .zip(&version)
            .zip(&sums)
            .map(|((name, version), sum)| format!("{name} {version} binary {sum}\n"))
            .collect();
        self.unpack(item, "binaries", &item.binaries, &lines)?;
        Ok((version.first().cloned().unwrap_or_default(), lines, true))
    }

    fn downloads(&self) -> PathBuf {
        self.room.sources.join("downloads")
    }

    /// Whether the file is there, with the right sum, fetched if need be with apt's own downloader.
    fn fetch(&self, offer: &Offer, file: &SourceFile) -> bool {
        let folder = self.downloads();
        let path = folder.join(&file.name);
        let fresh = || {
            std::fs::read(&path).is_ok_and(|content| {
                use sha2::Digest;
                fingerprint::hex(&sha2::Sha256::digest(&content)) == file.sha256
            })
        };
        if fresh() {
            return true;
        }
        let _ = std::fs::create_dir_all(&folder);
        let address = format!("{}/{}", offer.folder, file.name);
        let mut helper = self.room.command(
            "/usr/lib/apt/apt-helper",
            &[
                "-o",
                "APT::Sandbox::User=root",
                "download-file",
                &address,
                &path.display().to_string(),
                &format!("SHA256:{}", file.sha256),
            ],
        );
        let there = process::capture("fetch a source", &mut helper).is_ok() && fresh();
        if !there {
            let _ = std::fs::remove_file(&path);
        }
        there
    }

    /// Unpacks, unless the same is there already.
    fn unpack(&self, item: &Wanted, kind: &str, arguments: &[String], made_of: &str) -> Result<()> {
        let folder = self.folder(&item.source);
        let script = std::fs::read(&self.script).on("read", &self.script)?;
        let script = {
            use sha2::Digest;
            fingerprint::hex(&sha2::Sha256::digest(&script))
        };
        let made_of = format!("{made_of}{}{script}", item.patches);
        if fingerprint::is_fresh(&folder, &made_of) {
            return Ok(());
        }
        fingerprint::forget(&folder)?;
        let mut unpack = self.room.command(
            &self.script.display().to_string(),
            &[kind.to_owned(), folder.display().to_string()],
        );
        unpack.args(arguments);
        let log = self.room.sources.join("unpack.log");
        process::run_logged(&format!("unpack {}", item.source), &mut unpack, &log)?;
        fingerprint::remember(&folder, &made_of)
    }
}

/// Compares versions as dpkg does.
fn compare(a: &str, b: &str) -> Ordering {
    let is = |relation: &str| {
        let mut dpkg = process::command("dpkg");
        dpkg.args(["--compare-versions", a, relation, b]);
        process::output_of(&mut dpkg).is_ok_and(|output| output.status.success())
    };
    if a == b {
        Ordering::Equal
    } else if is("lt") {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_stands_once_in_the_list() {
        let list = include_str!("../../buildroot/sources.list");
        let wanted: Vec<Wanted> = list
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(Wanted::parse)
            .collect();
        let names: BTreeSet<&str> = wanted.iter().map(|item| item.package.as_str()).collect();
        assert_eq!(names.len(), wanted.len());
        assert!(wanted.len() > 40);
    }

    #[test]
    fn versions_are_compared_as_dpkg_does() {
        assert_eq!(compare("1.0~rc1-1", "1.0-1"), Ordering::Less);
        assert_eq!(compare("1:0.9-1", "2.0-1"), Ordering::Greater);
        assert_eq!(compare("1-1", "1-1"), Ordering::Equal);
    }
}
