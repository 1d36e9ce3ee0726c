//! Who this appliance is and how to reach it; and conditions of the appliance as a whole.

use crate::paths::Paths;
use crate::report::{Report, publish};
use crate::services::systemd::{Systemd, SystemdError};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use std::fs;
use std::time::Duration;
use strongroom_model::condition::{Condition, ConditionId, Severity};
use strongroom_model::release;
use strongroom_model::status::{ADDRESSES_MAX, Appliance};
use strongroom_model::text::{Text, push_bounded};
use tokio::sync::watch;

const POLL: Duration = Duration::from_secs(10);

/// Observes for ever. Returns only when systemd can't be talked to; the daemon starts it again.
pub async fn run(paths: Paths, systemd: Systemd, report: watch::Sender<Report<Appliance>>) -> Result<(), SystemdError> {
    loop {
        let failed = systemd.failed().await?;
        let new = Report {
            part: observe(&paths),
            conditions: conditions(&paths, &failed),
        };
        publish(&report, new);
        tokio::time::sleep(POLL).await;
    }
}

fn observe(paths: &Paths) -> Appliance {
    let read = |path: &str| fs::read_to_string(paths.at(path)).unwrap_or_default();
    let mut appliance = Appliance {
        id: of(paths),
        hostname: read("/proc/sys/kernel/hostname").trim().into(),
        release: release::value(&read(release::FILE), "VERSION")
            .unwrap_or(env!("CARGO_PKG_VERSION"))
            .into(),
        host_key: fs::read_to_string(paths.host_key())
            .ok()
            .and_then(|key| fingerprint(&key))
            .unwrap_or_default(),
        booted: booted(&read("/proc/stat")),
        ..Appliance::default()
    };
    for address in addresses().into_iter().take(ADDRESSES_MAX) {
        push_bounded(&mut appliance.addresses, address);
    }
    appliance
}

/// The appliance's identity.
pub fn of(paths: &Paths) -> Text<32> {
    id(fs::read_to_string(paths.at("/etc/machine-id"))
        .unwrap_or_default()
        .trim())
}

/// Stable identity that does not give away the machine id, as machine-id(5) asks.
fn id(machine_id: &str) -> Text<32> {
    let hash = Sha256::digest(format!("strongroom:{machine_id}"));
    let hex: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Text::format(format_args!("strongroom_{hex}"))
}

/// As `ssh-keygen -l` shows it: base64 of the SHA-256 of the key, without padding.
fn fingerprint(public_key: &str) -> Option<Text<64>> {
    let blob = STANDARD.decode(public_key.split(' ').nth(1)?).ok()?;
    let hash = STANDARD_NO_PAD.encode(Sha256::digest(blob));
    Some(Text::format(format_args!("SHA256:{hash}")))
}

/// proc(5), /proc/stat: `btime`, Unix seconds.
fn booted(stat: &str) -> Option<u64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn addresses() -> Vec<Text<46>> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let mut found: Vec<std::net::IpAddr> = interfaces
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| std::net::IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| std::net::IpAddr::from(v6.ip())))
        })
        .filter(|address| match address {
            std::net::IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            std::net::IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect();
    found.sort();
    found.dedup();
    found
        .into_iter()
        .map(|address| Text::format(format_args!("{address}")))
        .collect()
}

fn conditions(paths: &Paths, failed: &[String]) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = fs::read(paths.config_report())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    if !paths.config().exists() {
        conditions.push(Condition::new(
            ConditionId::NotConfigured,
            Severity::Warning,
            "",
            "There is no configuration yet.",
            "Put strongroom.toml on a USB stick labelled STRONGROOM and plug it in, or into the folder CONFIG of the flashed disk's EFI partition (`cargo image flash … --config` does it) and restart.",
        ));
    }
    if let Ok(why) = fs::read_to_string(paths.at("/run/strongroom/state-lost")) {
        conditions.push(Condition::new(
            ConditionId::StateLost,
            Severity::Alarm,
            "state partition",
            &format!("The state partition could not be used: {}. Nothing that changes now survives a restart.", why.trim()),
            "Restart once. If it stays so, choose Factory reset in the boot menu, or flash a new disk: the array keeps the backups.",
        ));
    }
    if paths.recall_pending().exists() {
        conditions.push(Condition::new(
            ConditionId::RecallPending,
            Severity::Warning,
            "state partition",
            "The system disk was flashed anew, and the array that may hold this appliance's identity, clients and secrets could not be read. It goes by an identity of its own for the time being, which clients refuse.",
            "Plug in all disks of the array and restart: everything comes back by itself. To go on without, choose Factory reset in the boot menu.",
        ));
    }
    if let Ok(what) = fs::read_to_string(paths.at("/run/strongroom/state-repaired")) {
        conditions.push(Condition::new(
            ConditionId::StateRepaired,
            Severity::Warning,
            "state partition",
            &format!(
                "The state partition's file system was damaged and was repaired at this start: {}",
                what.trim()
            ),
            "If this comes again, the system disk may be failing: flash a new one; the array keeps the backups.",
        ));
    }
    // A push is tried again by itself and has conditions of its own; so has what goes to a disk, and its mount.
    let told_elsewhere = ["strongroom-push@", "strongroom-disk@", "run-media-"];
    let told_elsewhere = |unit: &&String| told_elsewhere.iter().any(|start| unit.starts_with(start));
    for unit in failed.iter().filter(|unit| !told_elsewhere(unit)) {
        conditions.push(Condition::new(
            ConditionId::UnitFailed,
            Severity::Warning,
            unit,
            &format!("The system's part {unit} has failed."),
            "Restart the appliance; if it fails again, `journalctl --unit` with its name says why.",
        ));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_stable_and_fit_for_topics() {
        let id = id("0123456789abcdef0123456789abcdef");
        assert_eq!(id.len(), "strongroom_".len() + 8);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        assert_ne!(id, super::id("1123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn the_fingerprint_is_what_ssh_keygen_prints() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(
            made.is_ok_and(|status| status.success()),
            "missing `ssh-keygen`: run `cargo image test`, which installs it"
        );
        let public = key.with_extension("pub");
        let shown = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&public)
            .output()
            .unwrap();
        let ours = fingerprint(&fs::read_to_string(public).unwrap()).unwrap();
        assert!(String::from_utf8(shown.stdout).unwrap().contains(ours.as_str()));
        assert_eq!(fingerprint("nonsense"), None);
    }

    #[test]
    fn the_time_of_boot_is_read() {
        assert_eq!(booted("cpu 1 2\nbtime 1700000000\nprocesses 1\n"), Some(1_700_000_000));
        assert_eq!(booted(""), None);
    }

    #[test]
    fn what_is_wrong_with_the_appliance_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        let ids = |failed: &[String]| conditions(&paths, failed).into_iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(ids(&[]), [ConditionId::NotConfigured]);
        crate::durable::write(&paths.config(), b"", 0o644).unwrap();
        assert_eq!(ids(&["strongroom-push@asus.service".into()]), []);
        assert_eq!(ids(&["nftables.service".into()]), [ConditionId::UnitFailed]);
        crate::durable::write(&paths.recall_pending(), b"", 0o600).unwrap();
        assert_eq!(ids(&[]), [ConditionId::RecallPending]);
        fs::remove_file(paths.recall_pending()).unwrap();
        crate::durable::write(&paths.at("/run/strongroom/state-lost"), b"fsck failed", 0o644).unwrap();
        assert_eq!(ids(&[]), [ConditionId::StateLost]);
    }
}
