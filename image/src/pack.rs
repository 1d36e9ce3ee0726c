//! `cargo image pack`: what people download, the image compressed with zstd, and its checksum.

use std::fs::File;
use std::path::PathBuf;

use crate::bmap;
use crate::build;
use crate::dependencies::{self, Need};
use crate::error::{OnFile, Result};
use crate::process;
use crate::progress;
use crate::workspace::{NAME, Workspace};

/// Nearly all of the image is compressed already: higher levels cost minutes and save nothing.
const LEVEL: &str = "-6";

/// Builds the image and packs it. Returns the packed file.
///
/// # Errors
/// Those of the build, and when zstd fails.
pub fn pack(workspace: &Workspace, options: &build::Options) -> Result<PathBuf> {
    dependencies::ensure(workspace, &[Need::Build], options.install)?;
    let image = build::build(workspace, options)?;
    let packed = workspace.product("img.zst")?;
    progress::stage("download: zstd", || {
        let mut zstd = process::command("zstd");
        // Without --threads the result would depend on the zstd library's build; with it, not on the number of cores.
        zstd.args(["--quiet", "--force", "--threads=0", LEVEL, "-o"])
            .arg(&packed)
            .arg(&image);
        process::capture("pack the image", &mut zstd)
    })?;
    let mut file = File::open(&packed).on("open", &packed)?;
    let size = file.metadata().on("read", &packed)?.len();
    let sum = bmap::sha256(&mut file, size, &mut |_| Ok(())).on("read", &packed)?;
    let sums = workspace.product("img.zst.sha256")?;
    std::fs::write(&sums, format!("{sum}  {NAME}.img.zst\n")).on("write", &sums)?;
    eprintln!("  {} ({} MiB)", packed.display(), size.div_ceil(1 << 20));
    Ok(packed)
}
