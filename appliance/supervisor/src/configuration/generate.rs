//! What other programs read, made from the configuration. Pure.

use crate::offsite::disks;
use crate::paths::Paths;
use std::fmt::Write;
use strongroom_model::config::{Config, Network, Target};
use strongroom_offsite::Trust;

/// One generated file.
#[derive(Debug, PartialEq, Eq)]
pub struct Generated {
    /// Absolute path.
    pub path: String,
    /// Whole content.
    pub content: String,
}

fn file(path: &str, content: String) -> Generated {
    Generated {
        path: path.into(),
        content: format!("# Made by strongroom-configure from strongroom.toml.\n{content}"),
    }
}

/// Files that are absent with some configurations; a file of an earlier one goes.
pub const OPTIONAL: [&str; 6] = [NTP_SERVERS, NTS_TRUST, VLAN_DEVICE, VLAN_NETWORK, TRUST, METRICS];
/// What the wired ports are told.
pub const NETWORK: &str = "/run/systemd/network/10-strongroom.network";
/// The VLAN's device and what it is told.
pub const VLAN_DEVICE: &str = "/run/systemd/network/05-strongroom.netdev";
/// What the VLAN's device is told.
pub const VLAN_NETWORK: &str = "/run/systemd/network/05-strongroom.network";
/// A file of this name stands in for the image's own, which names the public pool.
pub const NTP_SERVERS: &str = "/run/chrony-strongroom/default.sources";
/// By which authorities, beside the public ones, servers are believed that are asked by NTS. chronyd reads it at its start.
pub const NTS_TRUST: &str = "/run/chrony-strongroom/trust.conf";
/// Certificate authorities of the owner's own.
pub const TRUST: &str = "/run/strongroom/trust.pem";
/// What the firewall lets in beside what it always does: /etc/nftables.conf includes what lies there.
pub const METRICS: &str = "/run/strongroom/firewall/metrics.nft";
/// Services that the appliance announces on the LAN.
pub const SERVICE: &str = "/run/systemd/dnssd/strongroom.dnssd";

/// All generated files. They are always all written, so that what was removed from the configuration goes. `id` is the
/// appliance's identity.
pub fn files(config: &Config, id: &str, trust: &Trust) -> Vec<Generated> {
    let mut files = vec![
        file("/run/strongroom/authorized_keys/admin", admin_keys(config)),
        client_keys_file(config),
        file(
            "/run/systemd/system/strongroom-push@.timer.d/schedule.conf",
            format!("[Timer]\nOnCalendar=\nOnCalendar={}\n", config.schedule.push),
        ),
        file(SERVICE, service(id)),
        file(
            "/run/systemd/system/strongroom-scrub.timer.d/schedule.conf",
            format!("[Timer]\nOnCalendar=\nOnCalendar={}\n", config.schedule.scrub),
        ),
        file(
            "/run/systemd/system/strongroom-verify.timer.d/schedule.conf",
            format!("[Timer]\nOnCalendar=\nOnCalendar={}\n", config.schedule.check),
        ),
    ];
    files.extend(config.offsite.target.iter().filter_map(disk_mount));
    let network = &config.network;
    match &network.vlan {
        None => files.push(file(NETWORK, format!("{PORTS}{}", addresses(network)))),
        Some(vlan) => {
            let name = vlan_name(*vlan.get_ref());
            files.push(file(
                NETWORK,
                format!(
                    "{PORTS}{}\n[Network]\nVLAN={name}\nLinkLocalAddressing=no\n",
                    mtu(network)
                ),
            ));
            files.push(file(
                VLAN_DEVICE,
                format!("[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={}\n", vlan.get_ref()),
            ));
            files.push(file(
                VLAN_NETWORK,
                format!(
                    "[Match]\nName={name}\n\n[Link]\nRequiredForOnline=no\n{}",
                    addresses(network)
                ),
            ));
        }
    }
    if !config.clock.servers.is_empty() || !config.clock.nts.is_empty() {
        files.push(file(NTP_SERVERS, ntp_servers(config)));
    }
    if let Some(metrics) = &config.metrics {
        files.push(file(METRICS, metrics_door(*metrics.port.get_ref())));
    }
    if !trust.is_empty() {
        files.push(file(NTS_TRUST, format!("ntstrustedcerts {TRUST}\n")));
        files.push(file(TRUST, trust.to_pem()));
    }
    files
}

/// Where units are made.
pub const UNITS: &str = "/run/systemd/system";

/// Whether a file of this name among the units is the mount of a disk; one that no target names any more goes.
pub fn is_disk_mount(name: &str) -> bool {
    name.starts_with("run-media-") && name.ends_with(".mount")
}

/// How systemd mounts the disk of a target, for as long as a unit needs it. Neither programs nor devices on it count, nor do
/// links. What is given here wins over what an ext4 superblock asks for, such as a panic on errors.
fn disk_mount(target: &Target) -> Option<Generated> {
    let paths = Paths::new("/");
    let name = target.name.get_ref();
    let volume = paths.volume(target.disk()?.disk.get_ref());
    let content = format!(
        "[Unit]\nDescription=Strongroom: the disk of the target {name}\nStopWhenUnneeded=yes\nCollectMode=inactive-or-failed\n\n\
         [Mount]\nWhat={}\nWhere={}\nOptions=nosuid,nodev,noexec,nosymfollow,noatime,errors=remount-ro\n\
         DirectoryMode=0755\nTimeoutSec=5min\n",
        volume.display(),
        paths.disk_place(name).display()
    );
    Some(file(&format!("{UNITS}/{}", disks::mount_unit(name)), content))
}

/// Rules of the chain of what comes in: the private ranges (RFC 1918, 3927, 4193, 4291), which are the LAN's.
fn metrics_door(port: u16) -> String {
    format!(
        "ip saddr {{ 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16 }} tcp dport {port} accept\n\
         ip6 saddr {{ fc00::/7, fe80::/10 }} tcp dport {port} accept\n"
    )
}

/// What matches every wired port, but nothing made of them.
const PORTS: &str = "[Match]\nType=ether\nKind=!*\n\n[Link]\nRequiredForOnline=no\n";

/// Name of a VLAN's device. It tells the number, since a device can't change its own.
pub fn vlan_name(number: u16) -> String {
    format!("vlan{number}")
}

/// To be written below `[Link]`.
fn mtu(network: &Network) -> String {
    network
        .mtu
        .as_ref()
        .map(|mtu| format!("MTUBytes={}\n", mtu.get_ref()))
        .unwrap_or_default()
}

/// To be written below `[Link]`: the packets' size and the addresses.
fn addresses(network: &Network) -> String {
    let mut text = format!("{}\n[Network]\nMulticastDNS=yes\n", mtu(network));
    let fixed = network.addresses();
    text.push_str(if fixed.is_empty() { "DHCP=yes\n" } else { "DHCP=no\n" });
    for address in fixed {
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in network.gateways() {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for server in &network.dns {
        let _ = writeln!(text, "DNS={}", server.get_ref());
    }
    if fixed.is_empty() {
        text.push_str("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n");
    }
    text
}

/// systemd.dnssd(5): how other machines find this one, and know it from others. It is reached over SSH.
fn service(id: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("[Service]\nName=%H\nType=_strongroom._tcp\nPort=22\nTxtText=id={id} version={version}\n")
}

fn admin_keys(config: &Config) -> String {
    let mut text = String::new();
    for key in &config.admin.keys {
        let _ = writeln!(text, "{}", key.get_ref().authorized());
    }
    text
}

/// What sshd admits as clients.
pub fn client_keys_file(config: &Config) -> Generated {
    file("/run/strongroom/authorized_keys/borgbackup", client_keys(config))
}

/// sshd(8), AUTHORIZED_KEYS FILE FORMAT. Names and keys hold no quote, space or line break: their types see to it.
fn client_keys(config: &Config) -> String {
    let mut text = String::new();
    for client in &config.client {
        let from: Vec<String> = client.from.iter().map(|range| range.get_ref().to_string()).collect();
        let from = if from.is_empty() {
            String::new()
        } else {
            format!("from=\"{}\",", from.join(","))
        };
        let rights = [(&client.keys, ""), (&client.restore_keys, " restore")];
        for (keys, right) in rights {
            for key in keys {
                let _ = writeln!(
                    text,
                    "restrict,{from}command=\"/usr/lib/strongroom/strongroom-serve {}{right} {}\" {}",
                    client.name.get_ref(),
                    key.get_ref().fingerprint(),
                    key.get_ref().authorized()
                );
            }
        }
    }
    text
}

fn ntp_servers(config: &Config) -> String {
    let mut text = String::new();
    for server in &config.clock.servers {
        let _ = writeln!(text, "server {server} iburst");
    }
    for server in &config.clock.nts {
        let _ = writeln!(text, "server {server} iburst nts");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_mounted_by_its_name_and_nothing_else_is() {
        let text = r#"
            [[offsite.recipient]]
            name = "owner"
            certificate = "owner.asc"
            [[offsite.target]]
            name = "my-usb"
            disk = "BACKUP"
            recipients = ["owner"]
            [[offsite.target]]
            name = "other"
            disk = "12ab-34cd"
            recipients = ["owner"]
        "#;
        let config = Config::parse(text).unwrap();
        let files = files(&config, "strongroom_1", &Trust::default());
        let mounts: Vec<&Generated> = files.iter().filter(|file| file.path.ends_with(".mount")).collect();
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].path, "/run/systemd/system/run-media-my\\x2dusb.mount");
        for line in [
            "What=/dev/disk/by-label/BACKUP",
            "Where=/run/media/my-usb",
            "StopWhenUnneeded=yes",
        ] {
            assert!(
                mounts[0].content.lines().any(|other| other == line),
                "{}",
                mounts[0].content
            );
        }
        assert!(mounts[0].content.contains("nosuid,nodev,noexec,nosymfollow"));
        assert!(mounts[1].content.contains("What=/dev/disk/by-uuid/12AB-34CD\n"));
        let named = |file: &&Generated| is_disk_mount(file.path.rsplit('/').next().unwrap());
        assert!(mounts.iter().all(named));
        assert!(!is_disk_mount("mnt-raid.mount") && !is_disk_mount("run-media-x.service"));
    }
}
