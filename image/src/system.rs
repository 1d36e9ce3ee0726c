//! The system: the base, the overlay and the initramfs, as one tar file that lacks only our own programs
//! and the release file.
//!
//! Runs `image/assemble.sh`, and the base's own `initramfs.sh`. Writes `system.tar` and `initrd.img` in the work folder.

use std::path::{Path, PathBuf};

use crate::debian::Base;
use crate::error::{OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::workspace::{Foundation, Workspace};
use crate::{namespace, process, progress};

const STAGE: &str = "system: overlay and initramfs";

/// The system's files.
#[derive(Debug, Clone)]
pub struct System {
    /// Its files.
    pub tar: PathBuf,
    /// The base's os-release, which is not among them: the slot adds it with the image's own version.
    pub os_release: PathBuf,
    /// What it was made of.
    pub fingerprint: String,
}

/// Makes the system, unless it is there already, made of the same. The initramfs is made anew only when the base or
/// its own configuration changed.
///
/// # Errors
/// When the overlay can't be read or the script fails.
pub fn system(workspace: &Workspace, base: &Base) -> Result<System> {
    let work = workspace.work()?;
    let overlay = workspace.root.join("rootfs-overlay");
    let script = workspace.root.join("image/assemble.sh");
    let board = workspace.root.join("board/x86_64/buildroot");
    let (recipe, own) = match workspace.foundation {
        Foundation::Debian => ("image/debian/initramfs.sh", None),
        Foundation::Buildroot(_) => ("image/buildroot/initramfs.sh", Some(board.join("overlay"))),
    };
    let recipe = workspace.root.join(recipe);
    let skeleton = board.join("initramfs");
    let initrd = work.join("initrd.img");
    let mut initrd_made_of = Fingerprint::of("initrd", 4)
        .text("base", &base.fingerprint)
        .file(&recipe)?
        .tree(&overlay.join("etc/initramfs-tools"))?;
    let mut made_of = Fingerprint::of("system", 3)
        .text("base", &base.fingerprint)
        .file(&script)?
        .tree(&overlay)?;
    let mut overlays = overlay.display().to_string();
    if let Some(own) = &own {
        initrd_made_of = initrd_made_of.tree(&skeleton)?;
        made_of = made_of.tree(own)?;
        overlays = format!("{overlays}\n{}", own.display());
    }
    let initrd_made_of = initrd_made_of.finish();
    let system = System {
        tar: work.join("system.tar"),
        os_release: work.join("os-release"),
        fingerprint: made_of.text("initrd", &initrd_made_of).finish(),
    };
    if fingerprint::is_fresh(&system.tar, &system.fingerprint) && system.os_release.exists() {
        progress::unchanged(STAGE);
        return Ok(system);
    }
    if !fingerprint::is_fresh(&initrd, &initrd_made_of) {
        fingerprint::forget(&initrd)?;
        remove(&initrd)?;
    }
    fingerprint::forget(&system.tar)?;
    progress::stage(STAGE, || {
        let mut command = namespace::command(&script);
        command
            .env("BASE", &base.tar)
            .env("OVERLAYS", &overlays)
            .env("INITRAMFS", &recipe)
            .env("SKELETON", &skeleton)
            .env("MANIFEST", &base.manifest)
            .env("ROOT", work.join("root"))
            .env("INITRD", &initrd)
            .env("OS_RELEASE", &system.os_release)
            .env("OUT", &system.tar)
            .env("SOURCE_DATE_EPOCH", base.time.to_string());
        process::run_logged("assemble the system", &mut command, &work.join("assemble.log"))
    })?;
    fingerprint::remember(&initrd, &initrd_made_of)?;
    fingerprint::remember(&system.tar, &system.fingerprint)?;
    Ok(system)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_file(path).on("remove", path)
    } else {
        Ok(())
    }
}
