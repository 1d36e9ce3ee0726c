//! What the kernel's log says of disks: one message in, what happened and to whom out. Pure.
//!
//! The forms are those of Linux 5.10 to 6.12 (block/blk-core.c, drivers/ata/libata-eh.c and libata-scsi.c,
//! drivers/nvme/host/core.c and pci.c, drivers/usb/core/hub.c, drivers/md/raid0.c, fs/ext4/super.c). Only messages of
//! the kernel itself may come here: anybody can write words like these into the journal.

use alloc::string::{String, ToString};

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A disk, by its kernel name (`sdb`, `nvme0n1`), or the controller of an NVMe disk (`nvme0`).
    Disk(String),
    /// The port of the ATA controller that a disk hangs on: 2 for `ata2`.
    AtaPort(u32),
    /// The USB port that a disk hangs on, e.g. `2-1.4`.
    UsbPort(String),
    /// An md array, e.g. `md127`.
    Array(String),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A request failed for good: somebody did not get what was to be read, or could not store what was to be written.
    Failed,
    /// The way to the disk was disturbed; the kernel tries again.
    Disturbed,
    /// A file system found itself damaged.
    FileSystem,
    /// A member fell out of an array.
    MemberLost,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub about: About,
    /// What happened.
    pub what: What,
}

/// Reads one message, without its prefix of priority and time. `None`: it is not about a disk in trouble.
pub fn read(message: &str) -> Option<Event> {
    block(message)
        .or_else(|| ata(message))
        .or_else(|| nvme(message))
        .or_else(|| usb(message))
        .or_else(|| file_system(message))
        .or_else(|| array(message))
}

fn event(about: About, what: What) -> Option<Event> {
    Some(Event { about, what })
}

/// `I/O error, dev sdb, sector 2048 op 0x0:(READ) flags …`, `critical medium error, dev sdb, sector …`; before 5.15
/// with `blk_update_request: ` or `print_req_error: ` ahead. What was tried again by the layers below is not told here.
/// `Buffer I/O error` and `Async page read` repeat what these lines say, and are passed over.
fn block(message: &str) -> Option<Event> {
    let message = message
        .strip_prefix("blk_update_request: ")
        .or_else(|| message.strip_prefix("print_req_error: "))
        .unwrap_or(message);
    let (kind, rest) = message.split_once(" error, dev ")?;
    let failed = matches!(
        kind,
        "I/O"
            | "critical medium"
            | "critical target"
            | "critical nexus"
            | "critical space allocation"
            | "protection"
            | "timeout"
            | "device offline"
            | "recoverable transport"
            | "device resource"
    );
    let (name, rest) = rest.split_once(',')?;
    // Discarding, zeroing and the like are hints that a device may refuse.
    let hint = ["(DISCARD)", "(WRITE_ZEROES)", "(SECURE_ERASE)"]
        .iter()
        .any(|hint| rest.contains(hint));
    if !failed || hint {
        return None;
    }
    event(About::Disk(disk_of(name)?), What::Failed)
}

/// `ata2.00: failed command: READ FPDMA QUEUED`, `ata2: hard resetting link`, `ata2.00: disabled`.
fn ata(message: &str) -> Option<Event> {
    let (device, text) = message.strip_prefix("ata")?.split_once(": ")?;
    let port = device.split('.').next()?.parse().ok()?;
    let disturbed = text.starts_with("failed command: ")
        || text.starts_with("hard resetting link")
        || text.starts_with("SError: { ")
        || text.starts_with("disabled")
        || text.starts_with("revalidation failed")
        || text.starts_with("limiting SATA link speed");
    // At the start each port is brought up by a reset, without a word; these words are said only in trouble.
    if disturbed {
        event(About::AtaPort(port), What::Disturbed)
    } else {
        None
    }
}

/// `nvme nvme0: I/O 12 QID 3 timeout, aborting`, `nvme nvme0: I/O tag 12 (100c) opcode 0x2 (I/O Cmd) QID 3 timeout, …`,
/// `nvme nvme0: controller is down; will reset: CSTS=0x3`, `nvme nvme0: Removing after probe failure status: -19`.
fn nvme(message: &str) -> Option<Event> {
    let (controller, text) = message.strip_prefix("nvme ")?.split_once(": ")?;
    let number = controller.strip_prefix("nvme")?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let timeout = text.starts_with("I/O ") && text.contains(" timeout, ");
    let disturbed = timeout
        || text.starts_with("controller is down; will reset")
        || text.starts_with("Device not ready; aborting")
        || text.starts_with("Removing after probe failure")
        || text.starts_with("Disabling device after reset failure");
    if disturbed {
        event(About::Disk(controller.to_string()), What::Disturbed)
    } else {
        None
    }
}

/// `usb 2-1: reset SuperSpeed USB device number 2 using xhci_hcd`. A disk in an enclosure is reset when it did not
/// answer; other devices do so as well, and are told apart by whoever knows what hangs there.
fn usb(message: &str) -> Option<Event> {
    let (port, text) = message.strip_prefix("usb ")?.split_once(": ")?;
    let plain = port.bytes().all(|b| b.is_ascii_digit() || b"-.".contains(&b));
    let reset = text.starts_with("reset ") && text.contains("USB device");
    if plain && reset {
        event(About::UsbPort(port.to_string()), What::Disturbed)
    } else {
        None
    }
}

/// `EXT4-fs error (device md127): ext4_lookup:1855: …`, `EXT4-fs (md127): Remounting filesystem read-only`,
/// `JBD2: Error -5 detected when updating journal superblock for md127-8.`
fn file_system(message: &str) -> Option<Event> {
    let name = if let Some(rest) = message.strip_prefix("EXT4-fs error (device ") {
        rest.split_once(')')?.0
    } else if let Some(rest) = message.strip_prefix("EXT4-fs (") {
        let (name, text) = rest.split_once("): ")?;
        text.starts_with("Remounting filesystem read-only").then_some(name)?
    } else {
        let rest = message.strip_prefix("JBD2: Error ")?;
        rest.rsplit_once(" for ")?.1.split('-').next()?
    };
    let about = if name.starts_with("md") {
        About::Array(plain_name(name)?)
    } else {
        About::Disk(disk_of(name)?)
    };
    event(about, What::FileSystem)
}

/// `md/raid0:md127: Disk failure on sdb1 detected, failing array.` (kernel 6.5 and later), `md: super_written gets
/// error=-5`, of which the latter names nobody and repeats a line of the block layer.
fn array(message: &str) -> Option<Event> {
    let rest = message.strip_prefix("md/raid0:")?;
    let (_, text) = rest.split_once(": ")?;
    let name = text.strip_prefix("Disk failure on ")?.split(' ').next()?;
    event(About::Disk(disk_of(name)?), What::MemberLost)
}

fn plain_name(name: &str) -> Option<String> {
    ((1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| name.to_string())
}

/// The disk of a block device: `sdb` of `sdb1`, `nvme0n1` of `nvme0n1p2` and of `nvme0c0n1`. `None` for what is no disk
/// (`sr0`, `fd0`, `loop0`, `dm-0`, `md127`) or no name at all.
pub fn disk_of(name: &str) -> Option<String> {
    let name = plain_name(name)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = name.strip_prefix("nvme") {
        let rest = rest.split('p').next()?;
        let (controller, namespace) = rest.split_once('n')?;
        // With several ways to one disk, the kernel names the way.
        let controller = controller.split('c').next()?;
        return (digits(controller) && digits(namespace)).then(|| alloc::format!("nvme{controller}n{namespace}"));
    }
    if let Some(rest) = name.strip_prefix("mmcblk") {
        let number = rest.split('p').next()?;
        return digits(number).then(|| alloc::format!("mmcblk{number}"));
    }
    let is_disk = ["sd", "vd", "hd", "xvd"].iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    });
    is_disk.then(|| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(name: &str) -> About {
        About::Disk(name.into())
    }

    #[test]
    fn what_the_kernel_says() {
        let port = About::AtaPort(2);
        for (message, about, what) in [
            (
                "I/O error, dev sdb, sector 6291328 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 3",
                disk("sdb"),
                What::Failed,
            ),
            (
                "critical medium error, dev sda, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 8 prio class 2",
                disk("sda"),
                What::Failed,
            ),
            (
                "blk_update_request: I/O error, dev nvme0n1, sector 8 op 0x1:(WRITE) flags 0x800",
                disk("nvme0n1"),
                What::Failed,
            ),
            (
                "ata2.00: failed command: READ FPDMA QUEUED",
                port.clone(),
                What::Disturbed,
            ),
            ("ata2: hard resetting link", port.clone(), What::Disturbed),
            ("ata2: SError: { UnrecovData Handshk }", port, What::Disturbed),
            (
                "nvme nvme1: I/O 23 QID 4 timeout, aborting",
                disk("nvme1"),
                What::Disturbed,
            ),
            (
                "nvme nvme0: I/O tag 12 (100c) opcode 0x2 (I/O Cmd) QID 3 timeout, aborting req_op:READ(0) size:4096",
                disk("nvme0"),
                What::Disturbed,
            ),
            (
                "usb 2-1.4: reset SuperSpeed USB device number 3 using xhci_hcd",
                About::UsbPort("2-1.4".into()),
                What::Disturbed,
            ),
            (
                "EXT4-fs error (device md127): ext4_lookup:1855: inode #2: comm borg: iget: checksum invalid",
                About::Array("md127".into()),
                What::FileSystem,
            ),
            (
                "EXT4-fs (sda5): Remounting filesystem read-only",
                disk("sda"),
                What::FileSystem,
            ),
            (
                "JBD2: Error -5 detected when updating journal superblock for md127-8.",
                About::Array("md127".into()),
                What::FileSystem,
            ),
            (
                "md/raid0:md127: Disk failure on sdb1 detected, failing array.",
                disk("sdb"),
                What::MemberLost,
            ),
        ] {
            assert_eq!(read(message), Some(Event { about, what }), "{message}");
        }
    }

    #[test]
    fn what_is_no_trouble_of_a_disk() {
        for message in [
            "",
            "sd 1:0:0:0: [sdb] Attached SCSI disk",
            "ata2: SATA link up 1.5 Gbps (SStatus 113 SControl 300)",
            "ata2.00: configured for UDMA/100",
            "I/O error, dev sr0, sector 0 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
            "I/O error, dev loop0, sector 0 op 0x0:(READ)",
            "I/O error, dev sdb, sector 0 op 0x3:(DISCARD) flags 0x800 phys_seg 1 prio class 2",
            "I/O error, dev ../../x, sector 0",
            "nvme nvme0: pci function 0000:00:04.0",
            "nvme nvme0: 2/0/0 default/read/poll queues",
            "usb 2-1: new SuperSpeed USB device number 2 using xhci_hcd",
            "EXT4-fs (md127): mounted filesystem 00000000-0000 r/w with ordered data mode",
            "md/raid0:md127: md_size is 8380416 sectors.",
            "x: I/O error, dev sdb, sector 1",
        ] {
            assert_eq!(read(message), None, "{message}");
        }
    }

    #[test]
    fn disks_of_devices() {
        for (name, of) in [
            ("sdb", Some("sdb")),
            ("sdaa12", Some("sdaa")),
            ("nvme0n1p6", Some("nvme0n1")),
            ("nvme12c3n1", Some("nvme12n1")),
            ("mmcblk0p1", Some("mmcblk0")),
            ("vda", Some("vda")),
            ("md127", None),
            ("dm0", None),
            ("sr0", None),
            ("sd", None),
            ("nvme0", None),
        ] {
            assert_eq!(disk_of(name).as_deref(), of, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(message in "\\PC{0,120}", cut in 0usize..100) {
            let _ = read(&message);
            let real = "EXT4-fs error (device md127): ext4_lookup:1855: inode";
            let _ = read(&real[..cut.min(real.len())]);
            let _ = disk_of(&message);
        }
    }
}
