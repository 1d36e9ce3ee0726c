//! `cargo image reproduce`: builds the image a second time from a copy of the sources, and compares stage by stage.
//!
//! The copy lies on another path, its files carry other times, and cargo's own folder has another name; the Debian
//! packages are those of the first build's manifest. The first stage that differs is where to look.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::build;
use crate::error::{Error, OnFile, Result};
use crate::fingerprint::hex;
use crate::process;
use crate::programs;
use crate::progress;
use crate::workspace::{Foundation, NAME, Workspace};

/// How to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether missing packages may be installed on this machine.
    pub install: bool,
    /// Where the second build goes; a new folder beside other temporary files if absent.
    pub at: Option<PathBuf>,
}

/// Products in the order in which they are made; each is made of those before it.
const STAGES: [&str; 14] = [
    "image/work/base.manifest",
    "image/work/base.tar",
    "image/work/initrd.img",
    "image/work/os-release",
    "image/work/system.tar",
    "PROGRAMS",
    "image/strongroom-x86_64.cdx.json",
    "image/work/licences.txt",
    "image/work/system-a.squashfs",
    "image/work/core.img",
    "image/work/esp.vfat",
    "image/work/state.ext4",
    "image/strongroom-x86_64.bmap",
    "image/strongroom-x86_64.sha256",
];

/// Builds twice and compares.
///
/// # Errors
/// [`Error::Differs`] with the first stage that differs; otherwise what failed.
pub fn reproduce(workspace: &Workspace, options: &Options) -> Result<()> {
    if workspace.foundation != Foundation::Debian {
        return Err(Error::Unexpected {
            what: "cargo image reproduce".to_owned(),
            detail: "knows the Debian base only".to_owned(),
        });
    }
    eprintln!("The first build:");
    let first = build::Options {
        install: options.install,
        locked: None,
    };
    build::build(workspace, &first)?;
    let place = match &options.at {
        Some(place) => place.clone(),
        None => std::env::temp_dir().join(format!("strongroom-built-again-{}", std::process::id())),
    };
    let copy = Workspace {
        root: place.join("another/path/to/the/sources"),
        ..workspace.clone()
    };
    progress::stage("copy of the sources", || copy_sources(workspace, &copy))?;
    let cargo_home = place.join("cargo");
    link_registry(&cargo_home)?;

    eprintln!("The second build, in {}:", copy.root.display());
    let this = std::env::current_exe().on("find", Path::new("this program"))?;
    let mut again = process::command(this);
    again
        .arg("build")
        .arg("--locked")
        .arg(workspace.product("manifest")?)
        .arg("--tree")
        .arg(&copy.root)
        .env("CARGO_HOME", &cargo_home)
        // Folders that the first build's cargo named must not lead the second one back.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_MANIFEST_DIR");
    let status = again.status().map_err(|source| process::cannot_start(&again, source))?;
    if !status.success() {
        return Err(Error::Program {
            purpose: "build a second time".to_owned(),
            program: "cargo image build".to_owned(),
            status,
            log: None,
            output: String::new(),
        });
    }
    eprintln!("Both, stage by stage:");
    compare(workspace, &copy)?;
    if options.at.is_none() {
        std::fs::remove_dir_all(&place).on("remove", &place)?;
    }
    Ok(())
}

fn copy_sources(from: &Workspace, to: &Workspace) -> Result<()> {
    if to.root.exists() {
        std::fs::remove_dir_all(&to.root).on("remove", &to.root)?;
    }
    std::fs::create_dir_all(&to.root).on("create", &to.root)?;
    if from.root.join(".git").exists() {
        // With a history of its own, so that a commit made meanwhile changes neither build's version.
        let git = |folder: &Path, arguments: &[&str]| {
            let mut git = process::command("git");
            git.current_dir(folder).args(arguments);
            process::capture("copy the history", &mut git).map(drop)
        };
        let target = to.root.display().to_string();
        git(&from.root, &["clone", "--quiet", "--no-checkout", ".", &target])?;
        git(&to.root, &["reset", "--quiet"])?;
    }
    // Without the files' times, which become those of the copying.
    let mut copy = process::command("sh");
    copy.args([
        "-c",
        "tar -C \"$1\" --exclude=./target --exclude=./.git -cf - . | tar -C \"$2\" -xmf -",
        "sh",
    ])
    .arg(&from.root)
    .arg(&to.root);
    process::capture("copy the sources", &mut copy).map(drop)
}

/// A folder for cargo under another name, with the crates that were downloaded already.
fn link_registry(home: &Path) -> Result<()> {
    std::fs::create_dir_all(home).on("create", home)?;
    let registry = home.join("registry");
    if registry.is_symlink() {
        return Ok(());
    }
    std::os::unix::fs::symlink(programs::cargo_home().join("registry"), &registry).on("link", &registry)
}

fn compare(first: &Workspace, second: &Workspace) -> Result<()> {
    let mut differing = None;
    let mut tell = |name: &str, one: PathBuf, two: PathBuf| -> Result<()> {
        let (sum, other) = (sum(&one)?, sum(&two)?);
        if sum == other {
            eprintln!("  {name:<34} same     {}", &sum[..16]);
        } else {
            eprintln!("  {name:<34} differs");
            differing.get_or_insert((name.to_owned(), one, two));
        }
        Ok(())
    };
    for stage in STAGES {
        if stage == "PROGRAMS" {
            for (one, two) in programs::built(first)?.iter().zip(programs::built(second)?) {
                tell(&one.place, one.file.clone(), two.file)?;
            }
        } else {
            let name = stage.rsplit('/').next().unwrap_or(stage);
            let file = |workspace: &Workspace| workspace.root.join("target").join(stage);
            tell(name, file(first), file(second))?;
        }
    }
    match differing {
        None => {
            eprintln!("  {NAME}.img is the same, byte for byte, as both checksums say");
            Ok(())
        }
        Some((stage, one, two)) => Err(Error::Differs {
            stage,
            detail: explain(first, &one, &two)?,
        }),
    }
}

/// What differs: diffoscope's report if it is installed, else which files of a tar file, else where the first byte is.
fn explain(workspace: &Workspace, one: &Path, two: &Path) -> Result<String> {
    if process::exists("diffoscope") {
        let report = workspace.work()?.join("diffoscope.txt");
        let mut diffoscope = process::command("diffoscope");
        diffoscope.arg("--text").arg(&report).arg(one).arg(two);
        process::output_of(&mut diffoscope)?;
        return Ok(format!("diffoscope's report is {}", report.display()));
    }
    if one.extension().is_some_and(|ending| ending == "tar") {
        let (one, two) = (entries(one)?, entries(two)?);
        let names: Vec<&str> = one
            .iter()
            .filter(|(name, entry)| two.get(*name) != Some(entry))
            .chain(two.iter().filter(|(name, _)| !one.contains_key(*name)))
            .map(|(name, _)| name.as_str())
            .take(10)
            .collect();
        return Ok(format!("in {}", names.join(", ")));
    }
    let read = |path: &Path| std::fs::read(path).on("read", path);
    let (first, second) = (read(one)?, read(two)?);
    let at = first.iter().zip(&second).position(|(one, two)| one != two);
    Ok(format!(
        "{} and {} from byte {} on",
        one.display(),
        two.display(),
        at.unwrap_or(first.len().min(second.len()))
    ))
}

/// Header and content of each entry of a tar file, summed.
fn entries(tar: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(File::open(tar).on("open", tar)?);
    let mut entries = BTreeMap::new();
    for entry in archive.entries().on("read", tar)? {
        let mut entry = entry.on("read", tar)?;
        let name = entry.path().on("read", tar)?.display().to_string();
        let mut sum = Sha256::new();
        sum.update(entry.header().as_bytes());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).on("read", tar)?;
        sum.update(&content);
        entries.insert(name, hex(&sum.finalize()));
    }
    Ok(entries)
}

fn sum(path: &Path) -> Result<String> {
    let mut file = File::open(path).on("open", path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).on("read", path)?;
        if length == 0 {
            return Ok(hex(&sum.finalize()));
        }
        sum.update(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with(file: &Path, content: &[u8], time: u64) {
        let mut builder = tar::Builder::new(File::create(file).unwrap());
        for (name, content) in [("same", b"x".as_slice()), ("other", content)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mtime(if name == "other" { time } else { 0 });
            builder.append_data(&mut header, name, content).unwrap();
        }
        builder.into_inner().unwrap();
    }

    #[test]
    fn a_differing_entry_of_a_tar_file_is_named_for_content_or_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        tar_with(&file("a.tar"), b"1", 1);
        tar_with(&file("b.tar"), b"2", 1);
        tar_with(&file("c.tar"), b"1", 2);
        let base = entries(&file("a.tar")).unwrap();
        for other in ["b.tar", "c.tar"] {
            let other = entries(&file(other)).unwrap();
            assert_eq!(base["same"], other["same"]);
            assert_ne!(base["other"], other["other"]);
        }
        assert_ne!(sum(&file("a.tar")).unwrap(), sum(&file("b.tar")).unwrap());
    }
}
