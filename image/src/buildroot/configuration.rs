//! Buildroot's configuration: the defconfig, and a fragment that changes what depends on where sources come from.

use std::path::Path;

use super::Sources;
use crate::error::{OnFile, Result};
use crate::workspace::Workspace;

/// The folder of the defconfig and the fragments, in the source tree.
const FOLDER: &str = "image/configs";
/// The defconfig.
const DEFCONFIG: &str = "strongroom_x86_64_defconfig";

/// The text of the defconfig, with the fragment for `sources` behind it: of an option that stands twice the last counts.
///
/// # Errors
/// When a file can't be read.
pub fn text(workspace: &Workspace, sources: Sources) -> Result<String> {
    let folder = workspace.root.join(FOLDER);
    let mut text = read(&folder.join(DEFCONFIG))?;
    if sources == Sources::Debian {
        text.push_str(&read(&folder.join("debian.fragment"))?);
    }
    Ok(text)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).on("read", path)
}
