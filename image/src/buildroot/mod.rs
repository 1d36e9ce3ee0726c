//! Buildroot's part: the base system from source, as a tar file and its manifest, like `debian.rs` makes one of Debian's
//! packages. All that comes after, from the overlay to the disk image, is the same for both.
//!
//! `image/` is the external tree (external.desc, Config.in, external.mk, configs/, package/). Buildroot itself is never
//! part of this repository: a checkout is given, or the pinned tag is cloned and its commit compared.

mod checkout;
mod configuration;
mod kernel;
mod legal;
mod make;
mod room;
mod select;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::debian::Base;
use crate::error::{OnFile, Result};
use crate::fingerprint::{self, Fingerprint};
use crate::manifest::{self, Versions};
use crate::slot::Added;
use crate::workspace::Workspace;
use crate::{process, progress, sbom};

use checkout::Checkout;
use room::Room;

const STAGE: &str = "Buildroot base system";
const LEGAL_STAGE: &str = "licences and sources";

/// Where Buildroot's own sources, and those of its packages, come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// A checkout of Buildroot; otherwise the pinned one is cloned.
    pub checkout: Option<PathBuf>,
    /// Where the packages' sources come from.
    pub sources: Sources,
}

/// Where the packages' sources come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sources {
    /// From their authors, as Buildroot does by itself.
    #[default]
    Upstream,
    /// From the Debian mirror that this machine's apt uses, and a toolchain made of its packages.
    Debian,
}

/// Makes the base system, unless it is there already, made of the same.
///
/// # Errors
/// When there is no checkout, no mirror, or when a package fails to build; what it said is in `make.log`.
pub fn base(workspace: &Workspace, choice: &Choice) -> Result<Base> {
    let work = workspace.work()?;
    let checkout = Checkout::of(choice.checkout.as_deref(), &work)?;
    let sources = match choice.sources {
        Sources::Upstream => None,
        Sources::Debian => Some(sources::prepare(workspace, &checkout)?),
    };
    let configuration = configuration::text(workspace, choice.sources)?;
    let image = workspace.root.join("image");
    let board = workspace.root.join("board/x86_64");
    let base = Base {
        name: format!("buildroot-{}", checkout.version),
        tar: work.join("base.tar"),
        manifest: work.join("base.manifest"),
        time: checkout.time,
        fingerprint: Fingerprint::of("buildroot", 2)
            .text("commit", &checkout.commit)
            .text("configuration", &configuration)
            .text("sources", sources.as_ref().map_or("", |sources| sources.lock.as_str()))
            .file(&image.join("external.mk"))?
            .file(&image.join("buildroot/debian.mk"))?
            .tree(&image.join("package"))?
            .tree(&board.join("kernel"))?
            .file(&board.join("buildroot/busybox.fragment"))?
            .finish(),
    };
    if fingerprint::is_fresh(&base.tar, &base.fingerprint) && base.manifest.exists() {
        progress::unchanged(STAGE);
        return Ok(base);
    }
    fingerprint::forget(&base.tar)?;
    let output = work.join("buildroot");
    let room = sources.as_ref().map(|sources| &sources.room);
    // What the kernel lacks is told before the hour that everything takes.
    progress::stage("configuration, and every option of the kernel", || {
        make::configure(workspace, &checkout, room, &output, &configuration)?;
        kernel::check(&board.join("kernel"), &output)
    })?;
    progress::stage(STAGE, || make::build(workspace, &checkout, room, &output))?;
    // These take minutes, and a changed option of the kernel does not change them.
    let collected = Fingerprint::of("legal", 1)
        .text("commit", &checkout.commit)
        .text("configuration", &configuration)
        .text("sources", sources.as_ref().map_or("", |sources| sources.lock.as_str()))
        .file(&image.join("buildroot/debian.mk"))?
        .tree(&image.join("package"))?
        .finish();
    let folder = legal::folder(&output);
    if fingerprint::is_fresh(&folder, &collected) {
        progress::unchanged(LEGAL_STAGE);
    } else {
        fingerprint::forget(&folder)?;
        progress::stage(LEGAL_STAGE, || legal::collect(workspace, &checkout, room, &output))?;
        fingerprint::remember(&folder, &collected)?;
    }
    let versions = progress::stage("list of packages, bill of materials", || {
        let (info, versions) = versions(workspace, &checkout, room, &output, sources.as_ref())?;
        legal::bill(&checkout, room, &output, &info, &versions)?;
        Ok(versions)
    })?;
    std::fs::write(&base.manifest, manifest::render(&versions, base.time)).on("write", &base.manifest)?;
    let tar = output.join("images/rootfs.tar");
    std::fs::copy(&tar, &base.tar).on("copy", &tar)?;
    fingerprint::remember(&base.tar, &base.fingerprint)?;
    Ok(base)
}

/// The folder of the checkout.
///
/// # Errors
/// When there is none.
pub fn folder(workspace: &Workspace, choice: &Choice) -> Result<PathBuf> {
    Ok(Checkout::of(choice.checkout.as_deref(), &workspace.work()?)?.folder)
}

/// What Buildroot says of its packages, and the versions of those on the target.
fn versions(
    workspace: &Workspace,
    checkout: &Checkout,
    room: Option<&Room>,
    output: &Path,
    sources: Option<&sources::Prepared>,
) -> Result<(String, Versions)> {
    let mut command = make::command(workspace, checkout, room, output);
    command.args(["--silent", "--no-print-directory", "show-info"]);
    let info = process::capture("ask Buildroot for its packages", &mut command)?;
    let info = info.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let mut versions = select::versions(info);
    if let Some(sources) = sources {
        for (package, version) in &sources.versions {
            if let Some(place) = versions.get_mut(package) {
                place.clone_from(version);
            }
        }
    }
    Ok((info.to_owned(), versions))
}

/// What the last build tells of its packages: components of the bill of materials, and licences as files of the slot.
///
/// # Errors
/// When there was none.
pub fn told(workspace: &Workspace, choice: &Choice) -> Result<(Vec<Value>, Vec<Added>)> {
    let work = workspace.work()?;
    let output = work.join("buildroot");
    let origins = match choice.sources {
        Sources::Upstream => BTreeMap::new(),
        Sources::Debian => sources::origins(workspace)?,
    };
    let mut components = legal::components(&output, &origins)?;
    let mut licences = legal::licences(&output)?;
    if choice.sources == Sources::Debian {
        let toolchain = room::toolchain(&work)?;
        components.extend(sbom::components(&toolchain.packages));
        licences.extend(toolchain.licences);
    }
    let place = |(place, text)| (format!("usr/share/doc/strongroom/base/{place}"), 0o644, text);
    Ok((components, licences.into_iter().map(place).collect()))
}
