//! The system: Debian's base, the overlay and the initramfs, as one tar file that lacks only our own programs
//! and the release file.
//!
//! Runs `image/debian/assemble.sh`. Writes `system.tar` and `initrd.img` in the work folder.

use std::path::{Path, PathBuf};

use crate::debian::Base;
use crate::error::{OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::workspace::Workspace;
use crate::{namespace, process, progress};

const STAGE: &str = "system: overlay and initramfs";

/// The system's files.
#[derive(Debug, Clone)]
pub struct System {
    /// Its files.
    pub tar: PathBuf,
    /// Debian's os-release, which is not among them: the slot adds it with the image's own version.
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
    let script = workspace.root.join("image/debian/assemble.sh");
    let initrd = work.join("initrd.img");
    let initrd_made_of = Fingerprint::of("initrd", 3)
        .text("base", &base.fingerprint)
        .tree(&overlay.join("etc/initramfs-tools"))?
        .finish();
    let system = System {
        tar: work.join("system.tar"),
        os_release: work.join("os-release"),
        fingerprint: Fingerprint::of("system", 2)
            .text("base", &base.fingerprint)
            .file(&script)?
            .tree(&overlay)?
            .finish(),
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
            .env("OVERLAY", &overlay)
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
