//! What other programs read, made from the configuration. Pure.

use std::fmt::Write;
use strongroom_model::config::Config;

use crate::paths::{ARRAY_MOUNT, repository_name};

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

/// All generated files. They are always all written, so that what was removed from the configuration goes.
pub fn files(config: &Config) -> Vec<Generated> {
    let mut files = vec![
        file("/run/systemd/network/10-strongroom.network", network(config)),
        file("/run/strongroom/authorized_keys/admin", admin_keys(config)),
        file("/run/strongroom/authorized_keys/borgbackup", client_keys(config)),
        file("/run/tmpfiles.d/strongroom-repositories.conf", repositories(config)),
        file(
            "/run/systemd/system/strongroom-push@.timer.d/schedule.conf",
            format!("[Timer]\nOnCalendar=\nOnCalendar={}\n", config.schedule.push),
        ),
    ];
    if !config.clock.servers.is_empty() {
        // A file of this name stands in for the image's own, which names the public pool.
        files.push(file("/run/chrony-strongroom/default.sources", ntp_servers(config)));
    }
    files
}

fn network(config: &Config) -> String {
    let network = &config.network;
    let mut text =
        "[Match]\nType=ether\nKind=!*\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nMulticastDNS=yes\n".to_string();
    match &network.address {
        Some(address) => {
            let _ = writeln!(text, "DHCP=no\nAddress={address}");
            if let Some(gateway) = network.gateway {
                let _ = writeln!(text, "Gateway={gateway}");
            }
        }
        None => text.push_str("DHCP=yes\n"),
    }
    for server in &network.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if network.address.is_none() {
        text.push_str("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseNTP=no\n");
    }
    text
}

fn admin_keys(config: &Config) -> String {
    let mut text = String::new();
    for key in &config.admin.keys {
        let _ = writeln!(text, "{}", key.get_ref().authorized());
    }
    text
}

/// sshd(8), AUTHORIZED_KEYS FILE FORMAT. Names and keys hold no quote, space or line break: their types see to it.
fn client_keys(config: &Config) -> String {
    let mut text = String::new();
    for client in &config.client {
        for key in &client.keys {
            let _ = writeln!(
                text,
                "restrict,command=\"/usr/lib/strongroom/strongroom-serve {}\" {}",
                client.name.get_ref(),
                key.get_ref().authorized()
            );
        }
    }
    text
}

/// tmpfiles.d(5): the folder of each client's repository, made once the array is mounted.
fn repositories(config: &Config) -> String {
    let mut text = String::new();
    for client in &config.client {
        let name = repository_name(client.name.get_ref());
        let _ = writeln!(text, "d {ARRAY_MOUNT}/{name} 0700 borgbackup borgbackup -");
    }
    text
}

fn ntp_servers(config: &Config) -> String {
    let mut text = String::new();
    for server in &config.clock.servers {
        let _ = writeln!(text, "server {server} iburst");
    }
    text
}
