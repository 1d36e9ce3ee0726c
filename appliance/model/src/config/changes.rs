//! What one configuration changes of another, in words for its owner. Names things; never shows a secret or a key.

use super::{Client, Config, Network};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// One short line for each thing that differs. Empty: both mean the same.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told = |what: &str, before: String, after: String| {
        if before != after {
            lines.push(format!("{what}: {before} -> {after}"));
        }
    };
    told(
        "host name",
        old.network.hostname.to_string(),
        new.network.hostname.to_string(),
    );
    told("address", addresses(&old.network), addresses(&new.network));
    told("gateway", list(old.network.gateways()), list(new.network.gateways()));
    let dns = |network: &Network| list(&network.dns.iter().map(|server| *server.get_ref()).collect::<Vec<_>>());
    told("name servers", dns(&old.network), dns(&new.network));
    let number = |number: Option<u32>| number.map_or("none".to_string(), |number| number.to_string());
    let vlan = |network: &Network| number(network.vlan.as_ref().map(|vlan| u32::from(*vlan.get_ref())));
    told("VLAN", vlan(&old.network), vlan(&new.network));
    let mtu = |network: &Network| number(network.mtu.as_ref().map(|mtu| *mtu.get_ref()));
    told("largest packet", mtu(&old.network), mtu(&new.network));
    told("time servers", list(&old.clock.servers), list(&new.clock.servers));
    told("time servers by NTS", list(&old.clock.nts), list(&new.clock.nts));
    let dhcp = |config: &Config| if config.clock.dhcp { "asked" } else { "not asked" }.to_string();
    told("time servers that DHCP gives", dhcp(old), dhcp(new));
    lines.extend(clients(&old.client, &new.client));
    // Compared as they would be written: a value's place in the file is no difference.
    for (what, same) in [
        ("administrators' keys", text(&old.admin) == text(&new.admin)),
        ("the array's disks", text(&old.array) == text(&new.array)),
        ("the MQTT broker", text(&old.mqtt) == text(&new.mqtt)),
        ("metrics", text(&old.metrics) == text(&new.metrics)),
        ("who is told of what happens", told_of(old) == told_of(new)),
        (
            "off-site targets or recipients",
            text(&old.offsite) == text(&new.offsite),
        ),
        ("trusted certificates", text(&old.trust) == text(&new.trust)),
        ("the schedule", text(&old.schedule) == text(&new.schedule)),
    ] {
        if !same {
            lines.push(format!("{what}: changed"));
        }
    }
    lines
}

fn told_of(config: &Config) -> Vec<Option<toml::Value>> {
    let notify = config.notify.iter().map(text);
    notify.chain(config.ping.iter().map(text)).collect()
}

/// A form in which two values compare by what they mean.
fn text<T: serde::Serialize>(value: &T) -> Option<toml::Value> {
    toml::Value::try_from(value).ok()
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn addresses(network: &Network) -> String {
    match network.addresses() {
        [] => "DHCP".into(),
        fixed => list(fixed),
    }
}

fn clients(old: &[Client], new: &[Client]) -> Vec<String> {
    let mut lines = Vec::new();
    let find = |all: &[Client], name: &str| all.iter().position(|client| client.name.get_ref().as_str() == name);
    for client in new {
        let name = client.name.get_ref();
        match find(old, name.as_str()) {
            None => lines.push(format!("client {name}: added")),
            Some(at) if text(&old[at]) != text(client) => lines.push(format!("client {name}: changed")),
            Some(_) => {}
        }
    }
    for client in old {
        let name = client.name.get_ref();
        if find(new, name.as_str()).is_none() {
            lines.push(format!("client {name}: removed (its backups stay)"));
        }
    }
    lines
}
