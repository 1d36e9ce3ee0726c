//! Debian's part: which mirror, which versions, and the base system as a tar file and its manifest.
//!
//! Reads this machine's apt configuration and the mirror. Writes `base.tar` and `base.manifest` in the work folder.
//! Never writes to apt's own files, and trusts the mirror only as far as Debian's archive keyring checks it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::manifest::{self, Versions};
use crate::mirror::{self, Mirror, Source};
use crate::workspace::Workspace;
use crate::{namespace, process, progress};

/// The release of Debian that the image is made of.
pub const RELEASE: &str = "trixie";
/// What the mirror's signatures are checked with.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const STAGE: &str = "Debian base system";

/// The base system.
#[derive(Debug, Clone)]
pub struct Base {
    /// What it is, like `debian-trixie`.
    pub name: String,
    /// Its files.
    pub tar: PathBuf,
    /// Its packages and versions.
    pub manifest: PathBuf,
    /// What it was made of.
    pub fingerprint: String,
    /// The age of what the mirror held, in seconds since 1970; nothing in the system is newer.
    pub time: u64,
}

/// Makes the base system, unless it is there already, made of the same.
///
/// # Errors
/// When there is no mirror, when versions of `locked` are gone, or when mmdebstrap fails.
pub fn base(workspace: &Workspace, locked: Option<&Path>) -> Result<Base> {
    let work = workspace.work()?;
    let mirror = mirror::choose(&sources()?).ok_or(Error::NoMirror { suite: RELEASE })?;
    let suites = mirror.suites(RELEASE);
    let release = progress::stage("ask the mirror for Debian's current state", || release(&work, &suites))?;
    let wanted = locked.map(|path| wanted(&work, path, &suites)).transpose()?;
    // A manifest carries its own age: built again later, from a mirror that has moved on, the same comes out.
    let time = match locked.map(manifest::time).transpose()?.flatten() {
        Some(time) => time,
        None => release_time(&release)?,
    };

    let recipe = workspace.root.join("image/debian");
    let tar = work.join("base.tar");
    let fingerprint = Fingerprint::of("base", 3)
        .file(&recipe.join("packages.list"))?
        .file(&recipe.join("excludes.list"))?;
    let fingerprint = match &wanted {
        Some(wanted) => fingerprint.text("locked", &manifest::render(wanted, time)),
        None => fingerprint.text("release", &release),
    };
    let base = Base {
        name: format!("debian-{RELEASE}"),
        manifest: work.join("base.manifest"),
        fingerprint: fingerprint.finish(),
        tar,
        time,
    };
    if fingerprint::is_fresh(&base.tar, &base.fingerprint) && base.manifest.exists() {
        progress::unchanged(STAGE);
        return Ok(base);
    }
    fingerprint::forget(&base.tar)?;
    progress::stage(STAGE, || bootstrap(workspace, &work, &base, &mirror, wanted.as_ref()))?;
    let versions = progress::stage("list of packages", || installed(&base.tar))?;
    if let Some(wanted) = &wanted {
        same(wanted, &versions)?;
    }
    std::fs::write(&base.manifest, manifest::render(&versions, time)).on("write", &base.manifest)?;
    fingerprint::remember(&base.tar, &base.fingerprint)?;
    Ok(base)
}

fn bootstrap(
    workspace: &Workspace,
    work: &Path,
    base: &Base,
    mirror: &Mirror,
    wanted: Option<&Versions>,
) -> Result<()> {
    let recipe = workspace.root.join("image/debian");
    let packages = lines(&recipe.join("packages.list"))?.join(",");
    let scratch = work.join("mmdebstrap");
    std::fs::create_dir_all(&scratch).on("create", &scratch)?;
    let mut command = namespace::command("mmdebstrap");
    command
        .env("TMPDIR", &scratch)
        .env("SOURCE_DATE_EPOCH", base.time.to_string())
        .args(["--mode=root", "--variant=essential", "--architectures=amd64", "--skip=output/dev"])
        .arg(format!("--keyring={KEYRING}"))
        .arg(format!("--include={packages}"))
        .args(["--dpkgopt=force-confold", "--aptopt=APT::Install-Recommends \"false\""])
        // The initramfs is made later, from the overlay's configuration.
        .arg("--essential-hook=mkdir -p \"$1/etc/initramfs-tools\"; echo update_initramfs=no >\"$1/etc/initramfs-tools/update-initramfs.conf\"")
        // What differs each time: keys that a package made, and the pins of a locked build.
        .arg("--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_* \"$1/etc/apt/preferences.d/locked.pref\"");
    for pattern in lines(&recipe.join("excludes.list"))? {
        command.arg(match pattern.strip_prefix('!') {
            Some(pattern) => format!("--dpkgopt=path-include={pattern}"),
            None => format!("--dpkgopt=path-exclude={pattern}"),
        });
    }
    for option in apt_options()? {
        command.arg(format!("--aptopt={option}"));
    }
    if let Some(wanted) = wanted {
        let pins = work.join("locked.pref");
        std::fs::write(&pins, manifest::pins(wanted)).on("write", &pins)?;
        command.env("STRONGROOM_PINS", &pins).arg(
            "--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\"; cp \"$STRONGROOM_PINS\" \"$1/etc/apt/preferences.d/locked.pref\"",
        );
    }
    command.arg(RELEASE).arg(&base.tar);
    for (uri, suite) in mirror.suites(RELEASE) {
        command.arg(format!("deb {uri} {suite} main"));
    }
    process::run_logged(
        "make the Debian base system",
        &mut command,
        &work.join("mmdebstrap.log"),
    )
}

/// apt's sources on this machine.
///
/// # Errors
/// When a file of them can't be read.
pub fn sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let main = Path::new("/etc/apt/sources.list");
    if main.exists() {
        sources.extend(mirror::parse_list(&std::fs::read_to_string(main).on("read", main)?));
    }
    let folder = Path::new("/etc/apt/sources.list.d");
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    for file in files {
        let ending = file.extension().and_then(std::ffi::OsStr::to_str);
        let parse = match ending {
            Some("list") => mirror::parse_list,
            Some("sources") => mirror::parse_deb822,
            _ => continue,
        };
        sources.extend(parse(&std::fs::read_to_string(&file).on("read", &file)?));
    }
    Ok(sources)
}

/// This machine's apt settings that say how to reach the mirror, as options.
///
/// # Errors
/// When apt can't be asked.
pub fn apt_options() -> Result<Vec<String>> {
    let dump = process::capture("read apt's settings", process::command("apt-config").arg("dump"))?;
    let kept = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Check-",
        "Acquire::Retries",
        "Acquire::Force",
    ];
    Ok(dump
        .lines()
        .map(|line| line.trim_end_matches(';'))
        .filter(|line| kept.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with("\"\""))
        .map(str::to_owned)
        .collect())
}

/// The suites' release files, one after the other: they name every index by its hash, so they stand for all that the
/// mirror holds. When the mirror is silent, those of the last time.
///
/// # Errors
/// When it was silent the last time, too.
pub fn release(work: &Path, suites: &[(String, String)]) -> Result<String> {
    let mut all = String::new();
    for (uri, suite) in suites {
        let kept = work.join(format!("InRelease.{suite}"));
        match download(uri, &format!("dists/{suite}/InRelease"), &work.join("download")) {
            Ok(text) => std::fs::write(&kept, text).on("write", &kept)?,
            Err(error) if !kept.exists() => {
                return Err(Error::MirrorSilent {
                    uri: uri.clone(),
                    suite: suite.clone(),
                    detail: error.to_string(),
                });
            }
            Err(_) => eprintln!("  the mirror is silent about {suite}: going on with what it said the last time"),
        }
        all.push_str(&std::fs::read_to_string(&kept).on("read", &kept)?);
    }
    Ok(all)
}

/// The newest date in release files, in seconds since 1970: the age of the base system.
fn release_time(release: &str) -> Result<u64> {
    let mut newest = 0;
    for date in release.lines().filter_map(|line| line.strip_prefix("Date: ")) {
        let mut command = process::command("date");
        command.args(["-u", "+%s", "-d", date.trim()]);
        let text = process::capture("read the mirror's date", &mut command)?;
        newest = newest.max(text.trim().parse().unwrap_or(0));
    }
    Ok(newest)
}

/// Reads the manifest that `--locked` names, and makes sure that the mirror still has all of it.
fn wanted(work: &Path, path: &Path, suites: &[(String, String)]) -> Result<Versions> {
    let wanted = manifest::parse(&std::fs::read_to_string(path).on("read", path)?, path)?;
    let offered = progress::stage("ask the mirror for the versions of the manifest", || {
        let mut offered = std::collections::BTreeSet::new();
        for (uri, suite) in suites {
            let file = work.join("Packages.xz");
            download(uri, &format!("dists/{suite}/main/binary-amd64/Packages.xz"), &file)?;
            let text = process::capture(
                "unpack the mirror's index",
                process::command("xz").arg("-dc").arg(&file),
            )?;
            offered.extend(manifest::offered(&text));
        }
        Ok(offered)
    })?;
    let gone = manifest::gone(&wanted, &offered);
    if gone.is_empty() {
        Ok(wanted)
    } else {
        Err(Error::Gone {
            manifest: path.to_owned(),
            gone,
        })
    }
}

fn same(wanted: &Versions, found: &Versions) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    let differing: Vec<String> = found
        .iter()
        .filter(|(package, version)| wanted.get(*package) != Some(version))
        .chain(wanted.iter().filter(|(package, _)| !found.contains_key(*package)))
        .map(|(package, version)| format!("{package}={version}"))
        .collect();
    Err(Error::Unexpected {
        what: "the base system differs from the locked manifest".to_owned(),
        detail: format!(
            "{}; was the manifest made with another image/debian/packages.list?",
            differing.join(" ")
        ),
    })
}

/// Fetches with apt's own downloader, which knows this machine's proxies. Returns the content, lossily as text.
fn download(uri: &str, path: &str, to: &Path) -> Result<String> {
    let uri = match uri
        .strip_prefix("mirror+file://")
        .or_else(|| uri.strip_prefix("mirror+file:"))
    {
        Some(list) => {
            let list = Path::new(list);
            let text = std::fs::read_to_string(list).on("read", list)?;
            let first = text
                .lines()
                .find(|line| !line.trim().is_empty() && !line.starts_with('#'));
            first
                .and_then(|line| line.split_whitespace().next())
                .unwrap_or_default()
                .to_owned()
        }
        None => uri.to_owned(),
    };
    let _ = std::fs::remove_file(to);
    let address = format!("{}/{path}", uri.trim_end_matches('/'));
    let mut helper = process::command("/usr/lib/apt/apt-helper");
    helper.arg("download-file").arg(address).arg(to);
    process::capture("ask the mirror", &mut helper)?;
    Ok(String::from_utf8_lossy(&std::fs::read(to).on("read", to)?).into_owned())
}

/// The packages of a root file system in a tar file.
fn installed(tar: &Path) -> Result<Versions> {
    let file = File::open(tar).on("open", tar)?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().on("read", tar)? {
        let mut entry = entry.on("read", tar)?;
        if entry.path().on("read", tar)?.ends_with("var/lib/dpkg/status") {
            let mut status = String::new();
            entry.read_to_string(&mut status).on("read", tar)?;
            return Ok(manifest::installed(&status));
        }
    }
    Err(Error::Unexpected {
        what: tar.display().to_string(),
        detail: "holds no var/lib/dpkg/status".to_owned(),
    })
}

/// A list file without its comments.
///
/// # Errors
/// When it can't be read.
pub fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).on("read", path)?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}
