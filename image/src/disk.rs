//! The disk image: the EFI system partition, the empty state partition, and genimage, which puts all in its place.
//!
//! Everything is made in plain files by tools that need neither root nor loop devices.

use std::path::{Path, PathBuf};

use crate::error::{OnFile, Result};
use crate::partitions::{ESP, STATE};
use crate::workspace::{NAME, Workspace};
use crate::{grub, process};

/// What GRUB knows of the slots when the machine starts for the first time: A is good, B is empty.
const FIRST_ENVIRONMENT: [(&str, &str); 5] = [
    ("ORDER", "A B"),
    ("A_OK", "1"),
    ("A_TRY", "0"),
    ("B_OK", "0"),
    ("B_TRY", "0"),
];
const CONFIG_README: &str = "\
Put strongroom.toml here, with the files that it names beside it.
It is read at every start; what is wrong with it is shown on the console.
";

/// Makes the image from the slot and GRUB's images, which are in the work folder. Returns its path.
///
/// # Errors
/// When a tool fails; its output is in a log in the work folder.
pub fn image(workspace: &Workspace) -> Result<PathBuf> {
    let work = workspace.work()?;
    let board = workspace.root.join("board/x86_64");
    let (_, efi) = grub::images(&work)?;
    esp(workspace, &work, &board, &efi)?;
    state(workspace, &work)?;

    let empty = work.join("empty");
    std::fs::create_dir_all(&empty).on("create", &empty)?;
    let scratch = work.join("genimage");
    let _ = std::fs::remove_dir_all(&scratch);
    let mut command = process::command("genimage");
    command
        .arg("--config")
        .arg(board.join("genimage.cfg"))
        .arg("--rootpath")
        .arg(&empty)
        .arg("--inputpath")
        .arg(&work)
        .arg("--outputpath")
        .arg(&work)
        .arg("--tmppath")
        .arg(&scratch);
    process::run_logged("make the disk image", &mut command, &work.join("genimage.log"))?;
    let made = work.join(format!("{NAME}.img"));
    grub::install_boot_code(&made)?;
    let image = workspace.product("img")?;
    std::fs::rename(&made, &image).on("rename", &made)?;
    Ok(image)
}

fn esp(workspace: &Workspace, work: &Path, board: &Path, efi: &Path) -> Result<()> {
    let esp = work.join("esp.vfat");
    let log = work.join("esp.log");
    let _ = std::fs::remove_file(&esp);
    let time = workspace.commit_time().to_string();
    let mut format = process::command("mkfs.vfat");
    format
        .args([
            "-C",
            "-F",
            "32",
            "-s",
            "2",
            "-n",
            "ESP",
            "-i",
            "5354524f",
            "--invariant",
        ])
        .arg(&esp)
        .arg((ESP.size() / 1024).to_string());
    process::run_logged("format the EFI system partition", &mut format, &log)?;

    let environment = work.join("grubenv");
    std::fs::write(&environment, grub::environment(&FIRST_ENVIRONMENT)?).on("write", &environment)?;
    let readme = work.join("README.txt");
    std::fs::write(&readme, CONFIG_README).on("write", &readme)?;

    let mut folders = process::command("mmd");
    folders
        .env("SOURCE_DATE_EPOCH", &time)
        .arg("-i")
        .arg(&esp)
        .args(["::EFI", "::EFI/BOOT", "::grub", "::CONFIG"]);
    process::run_logged("make folders on the EFI system partition", &mut folders, &log)?;
    for (file, place) in [
        (efi, grub::EFI_NAME),
        (&board.join("grub/grub.cfg"), "grub/grub.cfg"),
        (&environment, "grub/grubenv"),
        (&readme, "CONFIG/README.txt"),
    ] {
        let mut copy = process::command("mcopy");
        copy.env("SOURCE_DATE_EPOCH", &time)
            .arg("-i")
            .arg(&esp)
            .arg(file)
            .arg(format!("::{place}"));
        process::run_logged("fill the EFI system partition", &mut copy, &log)?;
    }
    Ok(())
}

fn state(workspace: &Workspace, work: &Path) -> Result<()> {
    let state = work.join("state.ext4");
    let _ = std::fs::remove_file(&state);
    let mut format = process::command("mkfs.ext4");
    format
        // Older releases of e2fsprogs know only this name; 0 would mean now.
        .env("E2FSPROGS_FAKE_TIME", workspace.commit_time().max(1).to_string())
        .args(["-q", "-L", "state", "-m", "1", "-J", "size=32"])
        // Fixed identities keep builds alike.
        .args(["-U", "73747267-726f-4f6d-8000-00000000f505"])
        .args([
            "-E",
            "root_owner=0:0,hash_seed=73747267-726f-4f6d-8000-00000000f506,lazy_itable_init=1",
        ])
        .arg(&state)
        .arg(format!("{}M", STATE.size_mib));
    process::run_logged("format the state partition", &mut format, &work.join("state.log"))
}
