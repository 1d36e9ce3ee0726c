//! GRUB for both kinds of firmware, made and put in place without root and without grub-install.
//!
//! `grub-mkimage` makes core.img (BIOS) and BOOTX64.EFI (UEFI) with every module they need inside. For BIOS three
//! numbers are then written by this program, since core.img lies in the BIOS boot partition: its first sector into
//! boot.img, its second into its own first sector. Source: GRUB's `boot.h` and `setup.c`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, OnFile, Result};
use crate::partitions::{BIOS_BOOT, SECTOR};
use crate::process;

/// Modules that both need: FACTS.md, "GRUB and RAUC".
const MODULES: [&str; 23] = [
    "loadenv",
    "regexp",
    "test",
    "echo",
    "configfile",
    "normal",
    "search",
    "search_label",
    "part_gpt",
    "fat",
    "squash4",
    "gzio",
    "xzio",
    "linux",
    "serial",
    "terminal",
    "minicmd",
    "reboot",
    "halt",
    "sleep",
    "all_video",
    "password_pbkdf2",
    "datehook",
];
const BIOS_MODULES: [&str; 1] = ["biosdisk"];
/// The file on the ESP that UEFI starts by itself.
pub const EFI_NAME: &str = "EFI/BOOT/BOOTX64.EFI";

/// Bytes of boot code in a disk's first sector; after it come the disk's signature and the old partition table.
const BOOT_CODE: usize = 440;
/// In boot.img: the first sector of core.img, 64 bits.
const BOOT_KERNEL_SECTOR: usize = 0x5c;
/// In boot.img: a jump that trusts the BIOS about the drive; two no-operations make it distrust it.
const BOOT_DRIVE_CHECK: usize = 0x66;
/// In core.img's first sector: the block list's first entry, of a 64-bit sector, a 16-bit length and a segment.
const CORE_BLOCK_LIST: usize = 0x1f4;
/// A GRUB environment block's size.
const ENV_SIZE: usize = 1024;
const ENV_HEADER: &str = "# GRUB Environment Block\n";

/// Makes core.img, patched for its place, and the EFI program, in `folder`. Returns their paths.
///
/// # Errors
/// When grub-mkimage fails or core.img outgrows its partition.
pub fn images(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let core = folder.join("core.img");
    let efi = folder.join("BOOTX64.EFI");
    make("i386-pc", &BIOS_MODULES, &core)?;
    make("x86_64-efi", &[], &efi)?;
    let mut bytes = std::fs::read(&core).on("read", &core)?;
    if bytes.len() as u64 > BIOS_BOOT.size() {
        return Err(Error::TooBig {
            what: "GRUB's core.img".to_owned(),
            actual: bytes.len() as u64,
            limit: BIOS_BOOT.size(),
        });
    }
    patch_core(&mut bytes, BIOS_BOOT.start() / SECTOR)?;
    std::fs::write(&core, bytes).on("write", &core)?;
    Ok((core, efi))
}

fn make(format: &str, extra: &[&str], output: &Path) -> Result<()> {
    let mut command = process::command("grub-mkimage");
    command.arg("--format").arg(format).arg("--output").arg(output);
    // No disk is named: GRUB fills in the one it was started from, and loads grub.cfg from there. A second flashed disk
    // in the machine never gets a say.
    command.args(["--prefix", "(,gpt2)/grub"]);
    command.args(MODULES).args(extra);
    process::capture("make GRUB's image", &mut command).map(drop)
}

/// Writes GRUB's boot code into the first sector of the disk image, around the partition table.
///
/// # Errors
/// When boot.img is not as expected or the image can't be written.
pub fn install_boot_code(image: &Path) -> Result<()> {
    let source = Path::new("/usr/lib/grub/i386-pc/boot.img");
    let boot = std::fs::read(source).on("read", source)?;
    let code = boot_code(&boot, BIOS_BOOT.start() / SECTOR)?;
    let file = File::options().write(true).open(image).on("open", image)?;
    file.write_all_at(&code, 0).on("write", image)
}

/// The boot code that loads core.img from `core_sector`.
fn boot_code(boot: &[u8], core_sector: u64) -> Result<[u8; BOOT_CODE]> {
    let Some(mut code) = boot.first_chunk::<BOOT_CODE>().copied().filter(|_| boot.len() == 512) else {
        return Err(unexpected("boot.img", "is not one sector long"));
    };
    if code[BOOT_DRIVE_CHECK] != 0xeb && code[BOOT_DRIVE_CHECK] != 0x90 {
        return Err(unexpected("boot.img", "has no jump at the drive check"));
    }
    code[BOOT_KERNEL_SECTOR..BOOT_KERNEL_SECTOR + 8].copy_from_slice(&core_sector.to_le_bytes());
    code[BOOT_DRIVE_CHECK..BOOT_DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

/// Tells core.img where the rest of it is, when its first sector is `core_sector`.
fn patch_core(core: &mut [u8], core_sector: u64) -> Result<()> {
    let sectors = core.len().div_ceil(512);
    let Some(entry) = core.get_mut(CORE_BLOCK_LIST..CORE_BLOCK_LIST + 12) else {
        return Err(unexpected("core.img", "is shorter than a sector"));
    };
    let length = usize::from(u16::from_le_bytes([entry[8], entry[9]]));
    if length != sectors - 1 {
        return Err(unexpected(
            "core.img",
            &format!("its block list has {length} sectors of {}", sectors - 1),
        ));
    }
    entry[..8].copy_from_slice(&(core_sector + 1).to_le_bytes());
    Ok(())
}

/// An environment block with these variables.
///
/// # Errors
/// When they don't fit.
pub fn environment(variables: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut text = ENV_HEADER.to_owned();
    for (name, value) in variables {
        text.push_str(&format!("{name}={value}\n"));
    }
    if text.len() > ENV_SIZE {
        return Err(Error::TooBig {
            what: "grubenv".to_owned(),
            actual: text.len() as u64,
            limit: ENV_SIZE as u64,
        });
    }
    let mut block = text.into_bytes();
    block.resize(ENV_SIZE, b'#');
    Ok(block)
}

/// Reads an environment block.
///
/// # Errors
/// When it isn't one.
pub fn parse_environment(block: &[u8]) -> Result<Vec<(String, String)>> {
    let text = String::from_utf8_lossy(block);
    let Some(body) = text.strip_prefix(ENV_HEADER).filter(|_| block.len() == ENV_SIZE) else {
        return Err(unexpected("grubenv", "is no GRUB environment block"));
    };
    Ok(body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn unexpected(what: &str, detail: &str) -> Error {
    Error::Unexpected {
        what: format!("GRUB's {what}"),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_code_names_the_sector_and_leaves_the_rest() {
        let mut boot = [7_u8; 512];
        boot[0x66] = 0xeb;
        let code = boot_code(&boot, 0x0102_0304_0506).unwrap();
        assert_eq!(code[0x5c..0x64], [6, 5, 4, 3, 2, 1, 0, 0]);
        assert_eq!(code[0x66..0x68], [0x90, 0x90]);
        assert!(code[..0x5c].iter().chain(&code[0x68..]).all(|byte| *byte == 7));
        assert!(boot_code(&boot[..511], 1).is_err());
        boot[0x66] = 0;
        assert!(boot_code(&boot, 1).is_err());
    }

    #[test]
    fn core_points_at_its_second_sector() {
        let mut core = vec![0_u8; 3 * 512 + 1];
        core[0x1fc] = 3;
        patch_core(&mut core, 2048).unwrap();
        assert_eq!(core[0x1f4..0x1fc], 2049_u64.to_le_bytes());
        core[0x1fc] = 9;
        assert!(patch_core(&mut core, 2048).is_err());
        assert!(patch_core(&mut core[..100], 2048).is_err());
    }

    #[test]
    fn the_machines_own_boot_img_is_as_expected() {
        let path = Path::new("/usr/lib/grub/i386-pc/boot.img");
        let boot = std::fs::read(path).expect("missing `grub-pc-bin`: run `cargo image test`, which installs it");
        boot_code(&boot, 2048).unwrap();
    }

    #[test]
    fn environments_read_back() {
        let block = environment(&[("ORDER", "A B"), ("A_OK", "1")]).unwrap();
        assert_eq!(block.len(), 1024);
        assert!(block.starts_with(b"# GRUB Environment Block\nORDER=A B\nA_OK=1\n#####"));
        assert_eq!(
            parse_environment(&block).unwrap(),
            [
                ("ORDER".to_owned(), "A B".to_owned()),
                ("A_OK".to_owned(), "1".to_owned())
            ]
        );
        assert!(parse_environment(&block[1..]).is_err());
        assert!(environment(&[("X", &"y".repeat(1024))]).is_err());
    }
}
