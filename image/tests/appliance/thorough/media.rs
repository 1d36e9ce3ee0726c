//! USB sticks of three file systems, made without root, and plugged in and out by QMP.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use image::qemu::Machine;
use serde_json::json;

const MIB: u64 = 1 << 20;

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output.stdout
}

fn empty(file: &Path, size: u64) -> String {
    let _ = std::fs::remove_file(file);
    std::fs::File::create(file).unwrap().set_len(size).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A stick with FAT and these files in its topmost folder.
pub fn fat(file: &Path, size: u64, contents: &[(&str, &[u8])]) {
    let image = empty(file, size);
    run("mkfs.fat", &["-n", "STRONGROOM", &image]);
    for (name, bytes) in contents {
        put(file, name, bytes);
    }
}

/// Replaces a file on a FAT stick that is not plugged in.
pub fn put(stick: &Path, name: &str, bytes: &[u8]) {
    let source = stick.with_extension("content");
    std::fs::write(&source, bytes).unwrap();
    run(
        "mcopy",
        &[
            "-o",
            "-i",
            stick.to_str().unwrap(),
            source.to_str().unwrap(),
            &format!("::{name}"),
        ],
    );
}

/// A file of a FAT stick that is not plugged in.
pub fn read_fat(stick: &Path, name: &str) -> String {
    let bytes = run("mcopy", &["-i", stick.to_str().unwrap(), &format!("::{name}"), "-"]);
    String::from_utf8(bytes).unwrap()
}

/// A stick with ext4 and what is in `folder`.
pub fn ext4(file: &Path, folder: &Path) {
    let image = empty(file, 16 * MIB);
    run(
        "mkfs.ext4",
        &["-q", "-F", "-L", "STRONGROOM", "-d", folder.to_str().unwrap(), &image],
    );
}

/// An empty disk of this file system (`ext4`, `exfat`, `vfat`), labelled BACKUP.
pub fn backup_disk(file: &Path, file_system: &str, size: u64) {
    let image = empty(file, size);
    let label = if file_system == "vfat" { "-n" } else { "-L" };
    let mut arguments = vec![label, "BACKUP", &image];
    if file_system == "ext4" {
        arguments.splice(0..0, ["-q", "-F"]);
    }
    run(&format!("mkfs.{file_system}"), &arguments);
}

/// Takes a folder out of an ext4 disk that is not plugged in.
pub fn taken_out(disk: &Path, folder: &str, into: &Path) {
    let _ = std::fs::remove_dir_all(into);
    std::fs::create_dir_all(into).unwrap();
    let command = format!("rdump {folder} {}", into.display());
    run("debugfs", &["-R", &command, disk.to_str().unwrap()]);
}

/// Runs a command of debugfs(8) on an ext4 stick that is not plugged in.
pub fn debugfs(stick: &Path, command: &str) -> String {
    let output = run("debugfs", &["-w", "-R", command, stick.to_str().unwrap()]);
    String::from_utf8(output).unwrap()
}

/// A stick with exFAT and one file in its topmost folder, whose content fits one cluster. There is no tool that writes
/// into such an image without mounting it; the form is told by Microsoft's exFAT specification, sections 3, 6 and 7.
pub fn exfat(file: &Path, name: &str, bytes: &[u8]) {
    let image = empty(file, 32 * MIB);
    run("mkfs.exfat", &["-L", "STRONGROOM", &image]);
    let disk = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut boot = [0; 512];
    disk.read_exact_at(&mut boot, 0).unwrap();
    let number = |at: usize| u64::from(u32::from_le_bytes(boot[at..at + 4].try_into().unwrap()));
    let sector = 1_u64 << boot[108];
    let cluster_size = sector << boot[109];
    let (heap, root) = (number(88) * sector, number(96));
    let place = |cluster: u64| heap + (cluster - 2) * cluster_size;
    assert!(bytes.len() as u64 <= cluster_size);

    let mut entries = vec![0; usize::try_from(cluster_size).unwrap()];
    disk.read_exact_at(&mut entries, place(root)).unwrap();
    let free = entries.chunks(32).position(|entry| entry[0] == 0).unwrap();
    let bitmap = entries.chunks(32).find(|entry| entry[0] == 0x81).unwrap();
    let bitmap = place(u64::from(u32::from_le_bytes(bitmap[20..24].try_into().unwrap())));
    // A cluster in the middle, where nothing is yet.
    let cluster = 400_u64;
    let bit = cluster - 2;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, bitmap + bit / 8).unwrap();
    assert_eq!(byte[0] & (1 << (bit % 8)), 0);
    disk.write_all_at(&[byte[0] | 1 << (bit % 8)], bitmap + bit / 8)
        .unwrap();
    disk.write_all_at(bytes, place(cluster)).unwrap();

    let units: Vec<u16> = name.encode_utf16().collect();
    let names = units.len().div_ceil(15);
    let mut set = vec![0_u8; 32 * (2 + names)];
    set[0] = 0x85;
    set[1] = u8::try_from(1 + names).unwrap();
    set[4] = 0x20;
    // Dates: 1 January 2024.
    for at in [8, 12, 16] {
        set[at..at + 4].copy_from_slice(&((44_u32 << 25) | (1 << 21) | (1 << 16)).to_le_bytes());
    }
    set[32] = 0xc0;
    // Allocated, and in one piece.
    set[33] = 3;
    set[35] = u8::try_from(units.len()).unwrap();
    let hash = units
        .iter()
        .flat_map(|unit| {
            char::from_u32((*unit).into())
                .unwrap()
                .to_ascii_uppercase()
                .to_string()
                .encode_utf16()
                .collect::<Vec<_>>()
        })
        .flat_map(u16::to_le_bytes)
        .fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(byte.into()));
    set[36..38].copy_from_slice(&hash.to_le_bytes());
    let length = bytes.len() as u64;
    set[40..48].copy_from_slice(&length.to_le_bytes());
    set[52..56].copy_from_slice(&u32::try_from(cluster).unwrap().to_le_bytes());
    set[56..64].copy_from_slice(&length.to_le_bytes());
    for (index, part) in units.chunks(15).enumerate() {
        let at = 64 + 32 * index;
        set[at] = 0xc1;
        for (unit, to) in part.iter().zip(set[at + 2..].chunks_mut(2)) {
            to.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let sum = set
        .iter()
        .enumerate()
        .filter(|(at, _)| !(2..4).contains(at))
        .fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
    set[2..4].copy_from_slice(&sum.to_le_bytes());
    disk.write_all_at(&set, place(root) + 32 * free as u64).unwrap();
    run("fsck.exfat", &["-n", &image]);
}

/// QEMU's arguments for a machine that sticks can be plugged into.
pub fn usb() -> Vec<String> {
    ["-device", "qemu-xhci,id=usb"].map(str::to_owned).into()
}

/// Plugs a stick in under a name of its own.
pub fn plug(machine: &mut Machine, name: &str, stick: &Path) {
    machine
        .command(
            "blockdev-add",
            json!({"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": stick}}),
        )
        .unwrap();
    machine
        .command(
            "device_add",
            json!({"driver": "usb-storage", "id": name, "drive": name, "bus": "usb.0", "removable": true}),
        )
        .unwrap();
}

/// Pulls a stick, without asking the machine.
pub fn pull(machine: &mut Machine, name: &str) {
    machine.command("device_del", json!({"id": name})).unwrap();
    for _ in 0..100 {
        if machine.command("blockdev-del", json!({"node-name": name})).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the stick {name} could not be pulled");
}

/// A place for a stick beside the trial's files.
pub fn place(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.stick"))
}

#[test]
fn the_exfat_sticks_of_the_tests_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    exfat(&folder.path().join("stick"), "strongroom.toml", b"[network]\n");
}
