//! `cargo image build`: from sources and a base system, Debian's or Buildroot's, to the image, its block map, checksum and manifest.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::bmap::Bmap;
use crate::debian::Base;
use crate::dependencies;
use crate::error::{OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::release::Release;
use crate::system::System;
use crate::workspace::{Foundation, NAME, Workspace};
use crate::{bmap, buildroot, crates, debian, disk, licences, programs, progress, sbom, slot, system};

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether missing packages may be installed on this machine.
    pub install: bool,
    /// The manifest whose exact versions are demanded.
    pub locked: Option<PathBuf>,
}

/// Builds the image; what is there already and made of the same is left alone. Returns the image's path.
///
/// # Errors
/// Those of any stage.
pub fn build(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    dependencies::ensure(workspace, workspace.foundation.needs(), options.install)?;
    let work = workspace.work()?;
    let _alone = alone(&work)?;
    let base = match &workspace.foundation {
        Foundation::Debian => debian::base(workspace, options.locked.as_deref())?,
        Foundation::Buildroot(choice) => buildroot::base(workspace, choice)?,
    };
    let system = system::system(workspace, &base)?;
    let programs = progress::stage("our programs", || programs::build(workspace))?;
    let told = progress::stage("release, bill of materials, licences", || {
        told(workspace, &base, &system)
    })?;
    let (_, slot) = slot::slot(workspace, &system, &programs, told)?;

    let image = workspace.product("img")?;
    let made_of = Fingerprint::of("image", 2)
        .text("slot", &slot)
        .tree(&workspace.root.join("board/x86_64"))?
        .file(Path::new("/usr/lib/grub/i386-pc/boot.img"))?
        .finish();
    if fingerprint::is_fresh(&image, &made_of) {
        progress::unchanged("disk image");
    } else {
        fingerprint::forget(&image)?;
        progress::stage("disk image", || disk::image(workspace))?;
        progress::stage("block map and checksum", || describe(workspace, &image))?;
        fingerprint::remember(&image, &made_of)?;
    }
    let manifest = workspace.product("manifest")?;
    std::fs::copy(&base.manifest, &manifest).on("write", &manifest)?;
    tell(workspace, &work, &image)?;
    Ok(image)
}

/// Waits until no other build works in this folder. The lock ends with the file that is returned.
fn alone(work: &Path) -> Result<File> {
    let path = work.join("lock");
    let file = File::create(&path).on("create", &path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(std::io::Error::from)
        .on("lock", &path)?;
    Ok(file)
}

/// The files that tell what the image is and holds.
fn told(workspace: &Workspace, base: &Base, system: &System) -> Result<Vec<slot::Added>> {
    let release = Release::of(workspace, &base.name, base.time)?;
    let crates = crates::linked(workspace)?;
    let (components, licences_of_base) = match &workspace.foundation {
        // Their licences are in their own files, below usr/share/doc.
        Foundation::Debian => (sbom::components(&sbom::packages(&base.tar)?), Vec::new()),
        Foundation::Buildroot(choice) => buildroot::told(workspace, choice)?,
    };
    let bill = sbom::render(&release.version, &release.time, components, &crates);
    let bill_file = workspace.product("cdx.json")?;
    std::fs::write(&bill_file, &bill).on("write", &bill_file)?;
    let licences = licences::collect(&crates)?;
    let licences_file = workspace.work()?.join("licences.txt");
    std::fs::write(&licences_file, &licences).on("write", &licences_file)?;
    let os_release = std::fs::read_to_string(&system.os_release).on("read", &system.os_release)?;
    let own = |name: &str| {
        let file = workspace.root.join(name);
        std::fs::read_to_string(&file).on("read", &file)
    };
    let mut told: Vec<slot::Added> = [
        ("etc/strongroom-release", release.file()),
        ("usr/lib/os-release", release.os_release(&os_release)),
        ("usr/share/strongroom/sbom.cdx.json", bill),
        ("usr/share/doc/strongroom/crates", licences),
        ("usr/share/doc/strongroom/LICENSE-APACHE", own("LICENSE-APACHE")?),
        ("usr/share/doc/strongroom/LICENSE-MIT", own("LICENSE-MIT")?),
    ]
    .map(|(place, text)| (place.to_owned(), 0o644, text.into_bytes()))
    .into();
    told.extend(licences_of_base);
    Ok(told)
}

fn describe(workspace: &Workspace, image: &Path) -> Result<()> {
    let map = workspace.product("bmap")?;
    std::fs::write(&map, Bmap::of(image)?.render()).on("write", &map)?;
    let mut file = File::open(image).on("open", image)?;
    let size = file.metadata().on("read", image)?.len();
    let sum = bmap::sha256(&mut file, size, &mut |_| Ok(())).on("read", image)?;
    let sums = workspace.product("sha256")?;
    std::fs::write(&sums, format!("{sum}  {NAME}.img\n")).on("write", &sums)
}

fn tell(workspace: &Workspace, work: &Path, image: &Path) -> Result<()> {
    let map = Bmap::read(&workspace.product("bmap")?)?;
    let slot = work.join("system-a.squashfs");
    let slot = std::fs::metadata(&slot).on("read", &slot)?.len();
    eprintln!();
    eprintln!("  {}", image.display());
    eprintln!(
        "  {} MiB, of which {} MiB are written to a disk; the system takes {} MiB of its slot",
        map.image_size >> 20,
        map.mapped() >> 20,
        slot >> 20
    );
    eprintln!("  beside it, {NAME}: .bmap, .sha256, .manifest (packages), .cdx.json (all that is in it)");
    let base = workspace.foundation.argument();
    eprintln!("  try it: cargo image run{base}        write it: cargo image flash DEVICE{base}");
    Ok(())
}
