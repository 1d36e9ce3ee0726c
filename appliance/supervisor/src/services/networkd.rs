//! systemd-networkd over D-Bus (org.freedesktop.network1(5)): what DHCP gave. Translates; decides nothing.

use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zbus::Connection;

#[zbus::proxy(
    interface = "org.freedesktop.network1.Manager",
    default_service = "org.freedesktop.network1",
    default_path = "/org/freedesktop/network1"
)]
trait Manager {
    fn describe(&self) -> zbus::Result<String>;
}

/// What networkd knows of its links, as it describes it in JSON.
pub async fn describe(bus: &Connection) -> zbus::Result<String> {
    ManagerProxy::new(bus).await?.describe().await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    #[serde(default)]
    interfaces: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    #[serde(default, rename = "NTP")]
    ntp: Vec<Server>,
}

/// Either an address or a name (systemd 250 to 258, networkd-json.c, `ntp_append_json`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    address: Option<Vec<u8>>,
    server: Option<String>,
    #[serde(default)]
    config_source: String,
}

/// The time servers that DHCP gave on any link, as addresses or names, in networkd's order. They are as they came from the
/// network: no name is checked.
///
/// Errors: it is no JSON of the known form.
pub fn time_servers(description: &str) -> Result<Vec<String>, serde_json::Error> {
    let description: Description = serde_json::from_str(description)?;
    let given = description
        .interfaces
        .into_iter()
        .flat_map(|link| link.ntp)
        .filter(|server| server.config_source.starts_with("DHCP") || server.config_source == "NDisc");
    Ok(given
        .filter_map(|server| {
            server
                .server
                .or_else(|| address(&server.address?).map(|ip| ip.to_string()))
        })
        .collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    // As networkd 257 describes it, cut to what matters.
    const DESCRIPTION: &str = r#"{"Interfaces":[
        {"Index":1,"Name":"lo","Type":"loopback"},
        {"Index":2,"Name":"enp0s3","Type":"ether","NTP":[
            {"Family":2,"Address":[192,168,1,1],"ConfigSource":"DHCPv4","ConfigProvider":[192,168,1,1]},
            {"Family":10,"Address":[253,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1],"ConfigSource":"DHCPv6"},
            {"Server":"ntp.lan","ConfigSource":"DHCPv6"},
            {"Family":2,"Address":[10,0,0,1],"ConfigSource":"runtime"}]}],
        "Routes":[]}"#;

    #[test]
    fn what_dhcp_gave_is_read() {
        assert_eq!(
            time_servers(DESCRIPTION).unwrap(),
            ["192.168.1.1", "fd00::1", "ntp.lan"]
        );
    }

    #[test]
    fn without_links_there_are_none_and_nonsense_is_told() {
        assert!(time_servers("{}").unwrap().is_empty());
        assert!(
            time_servers(r#"{"Interfaces":[{"NTP":[{"Address":[1,2],"ConfigSource":"DHCPv4"}]}]}"#)
                .unwrap()
                .is_empty()
        );
        assert!(time_servers("").is_err());
    }
}
