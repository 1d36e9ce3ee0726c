//! The check that the kernel is configured with everything that was asked for: kconfig silently drops an option whose
//! dependencies are not met, or which has gone under another name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, OnFile, Result};

/// Compares the fragments in `folder` with the configuration of the kernel in `output`.
///
/// # Errors
/// When one can't be read, or naming every option that differs.
pub fn check(folder: &Path, output: &Path) -> Result<()> {
    let built = configuration(output)?.unwrap_or_default();
    let mut missing = Vec::new();
    let mut fragments: Vec<_> = std::fs::read_dir(folder)
        .on("read", folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    fragments.sort();
    for fragment in fragments {
        let text = std::fs::read_to_string(&fragment).on("read", &fragment)?;
        missing.extend(dropped(&text, &built));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Unexpected {
        what: "the kernel lacks what its configuration asks for".to_owned(),
        detail: missing.join(", "),
    })
}

/// The configuration of the kernel, once there is one.
///
/// # Errors
/// When it can't be read.
pub fn configuration(output: &Path) -> Result<Option<String>> {
    let folder = output.join("build");
    if !folder.exists() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(&folder).on("read", &folder)? {
        let path = entry.on("read", &folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("linux-") && path.join(".config").exists() {
            let path = path.join(".config");
            return std::fs::read_to_string(&path).on("read", &path).map(Some);
        }
    }
    Ok(None)
}

/// What a fragment asks for and the configuration does not have, as `OPTION: wanted, not found`. An option that is asked
/// for as a module may be built in.
fn dropped(fragment: &str, built: &str) -> Vec<String> {
    let built = options(built);
    options(fragment)
        .into_iter()
        .filter_map(|(option, wanted)| {
            let found = built.get(option).copied().unwrap_or("n");
            let fits = found == wanted || (wanted == "m" && found == "y");
            (!fits).then(|| format!("{option}: {wanted}, not {found}"))
        })
        .collect()
}

/// Options and values of a configuration; `n` for those that are said not to be set.
fn options(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| match line.strip_prefix("# ") {
            Some(comment) => Some((comment.strip_suffix(" is not set")?, "n")),
            None => line.split_once('='),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: &str = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_T=\"x=y\"\n";

    #[test]
    fn what_was_dropped_or_weakened_is_named() {
        assert_eq!(dropped("CONFIG_C=y\n", BUILT), ["CONFIG_C: y, not n"]);
        assert_eq!(dropped("CONFIG_GONE=m\n", BUILT), ["CONFIG_GONE: m, not n"]);
        assert_eq!(dropped("CONFIG_B=y\n", BUILT), ["CONFIG_B: y, not m"]);
        assert_eq!(dropped("# CONFIG_A is not set\n", BUILT), ["CONFIG_A: n, not y"]);
    }

    #[test]
    fn what_is_there_passes() {
        let fragment =
            "# words\nCONFIG_A=m\nCONFIG_B=m\n# CONFIG_C is not set\n# CONFIG_NONE is not set\nCONFIG_T=\"x=y\"\n";
        assert!(dropped(fragment, BUILT).is_empty());
    }

    #[test]
    fn the_fragments_ask_for_nothing_twice() {
        let all = [
            include_str!("../../../board/x86_64/kernel/appliance.config"),
            include_str!("../../../board/x86_64/kernel/hardware.config"),
        ]
        .concat();
        let count = all
            .lines()
            .filter(|line| line.starts_with("CONFIG_") || line.ends_with(" is not set"))
            .count();
        assert_eq!(options(&all).len(), count);
    }
}
