//! `strongroom disks`: what is on every disk, what becomes of it, and adopting an array that was made elsewhere. Shows
//! what the appliance says; looks at no disk itself.

use crate::appliance::{ApplianceError, Connection};
use crate::words;
use std::fmt::Write;
use std::time::Duration;
use strongroom_model::array::{ListedArray, ListedDisk, Listing, Verdict};
use strongroom_model::status::{Disk, DiskRole, Quotas, Status};
use strongroom_model::superblock::Layout;

/// How long a look at the disks may take: one that is failing answers late.
const LOOK: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);

/// Shows every disk; looks again first when asked to.
pub async fn show(json: bool, rescan: bool) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    if rescan {
        let before = appliance.disks().await.unwrap_or_default();
        appliance.rescan().await?;
        looked_again(&appliance, &before).await?;
    }
    let listing = appliance.disks().await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&listing)?);
    } else {
        print!("{}", disks(&listing, &*appliance.status().await?));
    }
    Ok(())
}

/// Without an identity, lists the arrays that are here; with one, consents to use that array and waits for the outcome.
pub async fn adopt(uuid: Option<&str>) -> Result<(), ApplianceError> {
    let appliance = Connection::open().await?;
    let before = appliance.disks().await?;
    let Some(uuid) = uuid else {
        print!("{}", arrays(&before));
        return Ok(());
    };
    appliance.adopt(uuid).await?;
    let after = looked_again(&appliance, &before).await?;
    let used = after.arrays.iter().find(|array| array.verdict == Verdict::InUse);
    match used {
        Some(array) => {
            println!("The array `{}` ({}) is in use.", array.name, array.uuid);
            Ok(())
        }
        None => Err(ApplianceError::Disks(
            "the array was not taken into use; `strongroom status` says why".into(),
        )),
    }
}

async fn looked_again(appliance: &Connection, before: &Listing) -> Result<Listing, ApplianceError> {
    let asked = std::time::Instant::now();
    while asked.elapsed() < LOOK {
        tokio::time::sleep(POLL).await;
        // Not there yet is what the first look ever is until it ends.
        match appliance.disks().await {
            Ok(listing) if listing.looked_ms != before.looked_ms => return Ok(listing),
            _ => {}
        }
    }
    Err(ApplianceError::Disks(
        "the disks have not been looked at in time; `journalctl --unit strongroom-array` tells more".into(),
    ))
}

fn disks(listing: &Listing, status: &Status) -> String {
    let mut text = String::new();
    for (number, disk) in listing.disks.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        let health = status
            .disks
            .iter()
            .find(|known| known.kernel_name.as_str() == disk.kernel_name);
        describe(&mut text, disk, health);
    }
    if listing.arrays.iter().any(|array| array.verdict != Verdict::InUse) {
        text.push_str("\nArrays that are not in use: `strongroom disks adopt` lists them.\n");
    }
    if status.array.quotas == Quotas::Absent {
        text.push_str(
            "\nThe array's file system was made without project quotas: clients are bounded by Borg and by the end of their \
             sessions, not by the kernel too. docs/disks.md, \"Quotas\", says how to add them.\n",
        );
    }
    text
}

fn describe(text: &mut String, disk: &ListedDisk, health: Option<&Disk>) {
    let role = match disk.role {
        DiskRole::Other => "",
        DiskRole::System => ", system disk",
        DiskRole::Data => ", data disk",
    };
    let member = if disk.member { ", member" } else { "" };
    let _ = writeln!(
        text,
        "{}  {}, {}{role}{member}",
        or_dash(&disk.serial),
        or_dash(&disk.model),
        words::size(disk.size_bytes)
    );
    let _ = writeln!(text, "  WWN {}, {} at this start", or_dash(&disk.wwn), disk.kernel_name);
    for partition in &disk.partitions {
        let used = if partition.used.is_empty() {
            String::new()
        } else {
            format!(", {}", partition.used)
        };
        let _ = writeln!(
            text,
            "  partition {:>2} {:<12} {:>8}  {}{used}",
            partition.number,
            partition.label,
            words::size(partition.size_bytes),
            if partition.contents.is_empty() {
                "nothing known"
            } else {
                &partition.contents
            },
        );
    }
    if !disk.contents.is_empty() {
        // Of the system disk, this is what lies where the raid partition is or would be.
        let place = if disk.role == DiskRole::System {
            "  space of the array: "
        } else {
            "  holds "
        };
        let _ = writeln!(text, "{place}{}", disk.contents);
    } else if disk.partitions.is_empty() {
        text.push_str("  blank\n");
    }
    if let Some(known) = health {
        let mut words = words::disk_health(known).trim_start_matches(", ").to_string();
        if !known.reason.is_empty() {
            let _ = write!(words, ": {}", known.reason);
        }
        if let Some(hours) = known.power_on_hours {
            let _ = write!(words, ", {hours} h in its life");
        }
        if !words.is_empty() {
            let _ = writeln!(text, "  health {words}");
        }
    }
    let _ = writeln!(text, "  → {}", disk.fate);
}

fn arrays(listing: &Listing) -> String {
    if listing.arrays.is_empty() {
        return "No member of any array (md, metadata 1.2) is here.\n".into();
    }
    let mut text = String::new();
    for array in &listing.arrays {
        let _ = writeln!(text, "{}  `{}`", array.uuid, array.name);
        let _ = writeln!(
            text,
            "  RAID{}, {}, {} of {} members here: {}",
            array.level,
            layout(array),
            array.present.len(),
            array.members,
            array.present.join(", ")
        );
        if !array.holds.is_empty() {
            let _ = writeln!(text, "  holds {}", array.holds);
        }
        let _ = match array.verdict {
            Verdict::InUse => writeln!(text, "  → in use"),
            Verdict::Adoptable => writeln!(text, "  → to use it: strongroom disks adopt {}", array.uuid),
            Verdict::Refused => writeln!(text, "  → can't be used: {}", array.why),
        };
    }
    text
}

fn layout(array: &ListedArray) -> &'static str {
    match array.layout {
        Layout::Original => "original layout",
        Layout::Alternate => "alternate layout",
        Layout::Unrecorded => "no layout recorded",
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom_model::array::ListedPartition;

    #[test]
    fn a_disk_is_shown_with_what_becomes_of_it() {
        let listing = Listing {
            disks: vec![ListedDisk {
                serial: "WD-1".into(),
                model: "WDC WD10".into(),
                kernel_name: "sdb".into(),
                size_bytes: 1 << 40,
                role: DiskRole::Data,
                partitions: vec![ListedPartition {
                    number: 1,
                    label: "photos".into(),
                    size_bytes: 1 << 39,
                    contents: "ext4 named `photos`".into(),
                    ..ListedPartition::default()
                }],
                fate: "refused: partition 1: ext4 named `photos`; consent `erase` is needed".into(),
                ..ListedDisk::default()
            }],
            ..Listing::default()
        };
        assert_eq!(
            disks(&listing, &Status::default()),
            "WD-1  WDC WD10, 1.0 TiB, data disk\n  WWN -, sdb at this start\n  \
             partition  1 photos        512 GiB  ext4 named `photos`\n  \
             → refused: partition 1: ext4 named `photos`; consent `erase` is needed\n"
        );
        let mut status = Status::default();
        status.array.quotas = Quotas::Absent;
        assert!(disks(&listing, &status).contains("without project quotas"));
        status.array.quotas = Quotas::Enforced;
        assert_eq!(disks(&listing, &status), disks(&listing, &Status::default()));
    }

    #[test]
    fn arrays_are_shown_with_how_to_adopt_them() {
        let array = ListedArray {
            uuid: "u".into(),
            name: "oldbox:backup".into(),
            level: 0,
            layout: Layout::Alternate,
            members: 2,
            present: vec!["A (sdb3)".into(), "B (sdc)".into()],
            holds: "ext4".into(),
            verdict: Verdict::Adoptable,
            why: String::new(),
        };
        let listing = Listing {
            arrays: vec![array],
            ..Listing::default()
        };
        assert_eq!(
            arrays(&listing),
            "u  `oldbox:backup`\n  RAID0, alternate layout, 2 of 2 members here: A (sdb3), B (sdc)\n  holds ext4\n  \
             → to use it: strongroom disks adopt u\n"
        );
    }
}
