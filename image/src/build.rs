//! `cargo image build`: from sources and a Debian mirror to the image, its block map, checksum and manifest.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::bmap::Bmap;
use crate::dependencies::{self, Need};
use crate::error::{OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::workspace::{NAME, Workspace};
use crate::{bmap, debian, disk, programs, progress, slot, system};

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
    dependencies::ensure(workspace, &[Need::Build], options.install)?;
    let work = workspace.work()?;
    let base = debian::base(workspace, options.locked.as_deref())?;
    let system = system::system(workspace, &base)?;
    let programs = progress::stage("our programs", || programs::build(workspace))?;
    let (_, slot) = slot::slot(workspace, &system, &programs, &workspace.describe())?;

    let image = workspace.product("img")?;
    let made_of = Fingerprint::of("image", 1)
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
    eprintln!("  beside it: {NAME}.bmap, {NAME}.sha256, {NAME}.manifest");
    eprintln!("  try it: cargo image run        write it: cargo image flash DEVICE");
    Ok(())
}
