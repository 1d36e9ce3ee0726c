//! The room: a Debian root file system that Buildroot works in when sources come from Debian. It gives the compiler and
//! C library for the target, and the programs that Buildroot would otherwise build first, in versions that fit.
//!
//! Made by mmdebstrap from `image/buildroot/room.list`. Nothing of it is in the image but the C library and what comes
//! with the compiler.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian;
use crate::error::{Error, OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::mirror::Mirror;
use crate::sbom::Package;
use crate::workspace::Workspace;
use crate::{manifest, namespace, process, progress};

/// Where the toolchain is in the room; `image/configs/debian.fragment` says the same.
const TOOLCHAIN: &str = "/opt/toolchain";
/// Releases whose sources stand in where the mirror lacks those of the image's own: near ones first.
const FURTHER: [&str; 4] = ["trixie-backports", "forky", "sid", "bookworm"];
const STAGE: &str = "room: Debian's compilers and tools";

/// Debian's packages whose libraries the toolchain puts on the target.
const LIBRARIES: [&str; 3] = ["libc6", "libgcc-s1", "libstdc++6"];

/// What is on the target though Buildroot knows nothing of it: the libraries that came with the toolchain.
#[derive(Debug)]
pub struct Toolchain {
    /// For the bill of materials.
    pub packages: Vec<Package>,
    /// Path below a folder of licences, and content.
    pub licences: Vec<(String, Vec<u8>)>,
}

/// What came with the toolchain, of the room in this work folder.
///
/// # Errors
/// When there is no room, or when it lacks one of the libraries.
pub fn toolchain(work: &Path) -> Result<Toolchain> {
    let room = work.join("room");
    let status = room.join("var/lib/dpkg/status");
    let text = std::fs::read_to_string(&status).on("read", &status)?;
    let mut packages = manifest::packages(&text);
    packages.retain(|package| LIBRARIES.contains(&package.name.as_str()));
    if packages.len() != LIBRARIES.len() {
        return Err(Error::Unexpected {
            what: status.display().to_string(),
            detail: "lacks a library of the toolchain".to_owned(),
        });
    }
    let mut licences = Vec::new();
    for name in LIBRARIES {
        let file = room.join("usr/share/doc").join(name).join("copyright");
        licences.push((format!("{name}/copyright"), std::fs::read(&file).on("read", &file)?));
    }
    Ok(Toolchain { packages, licences })
}

/// The room, ready to work in.
#[derive(Debug, Clone)]
pub struct Room {
    root: PathBuf,
    script: PathBuf,
    binds: Vec<PathBuf>,
    /// The folder of the packages' sources, inside and outside.
    pub sources: PathBuf,
}

impl Room {
    /// Makes the room, unless it is there already, made of the same.
    ///
    /// # Errors
    /// When there is no mirror, or mmdebstrap fails.
    pub fn make(workspace: &Workspace, checkout: &Path, mirror: &Mirror) -> Result<Self> {
        let work = workspace.work()?;
        let recipe = workspace.root.join("image/buildroot");
        let room = Self {
            root: work.join("room"),
            script: recipe.join("room.sh"),
            binds: vec![workspace.root.clone(), checkout.to_owned()],
            sources: work.join("sources"),
        };
        std::fs::create_dir_all(&room.sources).on("create", &room.sources)?;
        let release = debian::release(&work, &mirror.suites(debian::RELEASE))?;
        let fingerprint = Fingerprint::of("room", 2)
            .file(&recipe.join("room.list"))?
            .file(&recipe.join("toolchain.sh"))?
            .text("release", &release)
            .finish();
        if fingerprint::is_fresh(&room.root, &fingerprint) {
            progress::unchanged(STAGE);
            return Ok(room);
        }
        fingerprint::forget(&room.root)?;
        progress::stage(STAGE, || room.bootstrap(&work, &recipe, mirror))?;
        progress::stage("toolchain of Debian's packages", || {
            let mut make = room.command(
                "env",
                &[
                    format!("TOOLCHAIN={TOOLCHAIN}").as_ref(),
                    recipe.join("toolchain.sh").as_os_str(),
                ],
            );
            process::run_logged("make the toolchain", &mut make, &work.join("toolchain.log"))
        })?;
        fingerprint::remember(&room.root, &fingerprint)?;
        Ok(room)
    }

    fn bootstrap(&self, work: &Path, recipe: &Path, mirror: &Mirror) -> Result<()> {
        let mut remove = namespace::command("rm");
        remove.args(["-rf", "--one-file-system"]).arg(&self.root);
        process::capture("remove the old room", &mut remove)?;
        let scratch = work.join("mmdebstrap");
        std::fs::create_dir_all(&scratch).on("create", &scratch)?;
        let packages = debian::lines(&recipe.join("room.list"))?.join(",");
        let mut command = namespace::command("mmdebstrap");
        command
            .env("TMPDIR", &scratch)
            .args([
                "--mode=root",
                "--variant=minbase",
                "--architectures=amd64",
                "--skip=output/dev",
            ])
            .arg(format!("--keyring={}", debian::KEYRING))
            .arg(format!("--include={packages}"))
            .arg("--aptopt=APT::Install-Recommends \"false\"");
        for option in debian::apt_options()? {
            command.arg(format!("--aptopt={option}"));
        }
        command.arg(debian::RELEASE).arg(&self.root);
        for (uri, suite) in mirror.suites(debian::RELEASE) {
            // Firmware of network cards.
            command.arg(format!("deb {uri} {suite} main non-free-firmware"));
            command.arg(format!("deb-src {uri} {suite} main"));
        }
        // Sources only, where nearer ones are missing. What a copy of a mirror holds of them may be old; it is signed.
        for suite in FURTHER {
            command.arg(format!(
                "deb-src [check-valid-until=no] {} {suite} main",
                mirror.archive
            ));
        }
        process::run_logged("make the room", &mut command, &work.join("room.log"))
    }

    /// A program in the room.
    pub fn command(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        let binds: Vec<String> = self.binds.iter().map(|folder| folder.display().to_string()).collect();
        let mut command = namespace::command(&self.script);
        command
            .env("ROOM", &self.root)
            .env("BINDS", binds.join("\n"))
            .arg(program)
            .args(arguments);
        command
    }

    /// How far a release is from the one that the room is of.
    pub fn distance(suite: &str) -> Option<usize> {
        let near = |name: &str| {
            suite == name
                || suite.strip_prefix(name) == Some("-updates")
                || suite.strip_prefix(name) == Some("-security")
        };
        if near(debian::RELEASE) {
            return Some(0);
        }
        FURTHER.iter().position(|name| near(name)).map(|place| place + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_releases_own_updates_are_nearest() {
        assert_eq!(Room::distance("trixie"), Some(0));
        assert_eq!(Room::distance("trixie-security"), Some(0));
        assert_eq!(Room::distance("trixie-updates"), Some(0));
        assert_eq!(Room::distance("trixie-backports"), Some(1));
        assert_eq!(Room::distance("sid"), Some(3));
        assert_eq!(Room::distance("bullseye"), None);
    }

    #[test]
    fn the_configuration_names_the_same_toolchain() {
        let fragment = include_str!("../../configs/debian.fragment");
        assert!(fragment.contains(&format!("BR2_TOOLCHAIN_EXTERNAL_PATH=\"{TOOLCHAIN}\"")));
    }
}
