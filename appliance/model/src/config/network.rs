//! `[network]`: host name and addresses, and what can be known to be wrong with them before they are used.

use super::{Fault, HostLabel, fault};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

/// Most addresses, routers or name servers.
const EACH_MAX: usize = 8;
/// Smallest packet size: what IPv6 needs (RFC 8200 section 5).
const MTU_MIN: u32 = 1280;
/// Largest packet size: the jumbo frames of common cards.
const MTU_MAX: u32 = 9216;
/// Largest number of a VLAN; 4095 is reserved (IEEE 802.1Q).
const VLAN_MAX: u16 = 4094;

/// `[network]`: DHCP on every wired interface unless an address is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Host name.
    pub hostname: HostLabel,
    /// Fixed addresses with their prefix lengths; DHCP when there are none.
    pub address: Option<Spanned<OneOrMany<Cidr>>>,
    /// Routers, when the address is fixed: at most one of each family.
    pub gateway: Option<Spanned<OneOrMany<IpAddr>>>,
    /// Name servers; in addition to those given by DHCP.
    pub dns: Vec<Spanned<IpAddr>>,
    /// Number of the VLAN, tagged on the wired port, that the appliance lives in.
    pub vlan: Option<Spanned<u16>>,
    /// Largest packet in bytes; what the card prefers when absent.
    pub mtu: Option<Spanned<u32>>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            hostname: HostLabel::standard(),
            address: None,
            gateway: None,
            dns: Vec::new(),
            vlan: None,
            mtu: None,
        }
    }
}

impl Network {
    /// The fixed addresses.
    pub fn addresses(&self) -> &[Cidr] {
        self.address
            .as_ref()
            .map_or(&[], |address| address.get_ref().as_slice())
    }

    /// The routers.
    pub fn gateways(&self) -> &[IpAddr] {
        self.gateway
            .as_ref()
            .map_or(&[], |gateway| gateway.get_ref().as_slice())
    }
}

/// An IP address with its prefix length, e.g. `192.168.1.10/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Cidr {
    /// Checks and takes the text.
    pub fn new(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (1..=longest).contains(&length).then_some(Self { address, length })
    }

    /// The address as a number, and the mask of its network.
    fn bits(&self, address: IpAddr) -> Option<(u128, u128)> {
        match (self.address, address) {
            (IpAddr::V4(_), IpAddr::V4(v4)) => Some((v4.to_bits().into(), u128::from(u32::MAX << (32 - self.length)))),
            (IpAddr::V6(_), IpAddr::V6(v6)) => Some((v6.to_bits(), u128::MAX << (128 - self.length))),
            _ => None,
        }
    }

    /// The first address of the network.
    fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX << (32 - self.length)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << (128 - self.length)).into(),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.bits(self.address), self.bits(address)) {
            (Some((own, mask)), Some((other, _))) => own & mask == other & mask,
            _ => false,
        }
    }

    /// Whether `address` stands for the network itself or for all of its members, and so for nobody in particular.
    fn is_nobody(&self, address: IpAddr) -> bool {
        if !address.is_ipv4() || self.length >= 31 {
            return false;
        }
        self.bits(address).is_some_and(|(bits, mask)| {
            let host = !mask & u128::from(u32::MAX);
            bits & host == 0 || bits & host == host
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{}` is not an address with its prefix length, as in 192.168.1.10/24",
                text.escape_debug()
            ))
        })
    }
}

/// Addresses of clients: one, or a network by its first address and prefix length, as in `192.168.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange(Cidr);

impl AddressRange {
    /// Checks and takes the text. Errors: why it is none, in words that go on from the text itself.
    pub fn new(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let length = if address.is_ipv4() { 32 } else { 128 };
            return Ok(Self(Cidr { address, length }));
        }
        let cidr = Cidr::new(text)
            .ok_or("is neither an address nor a network, as in `192.168.1.20` or `192.168.1.0/24`".to_string())?;
        let first = cidr.first();
        // sshd refuses the whole key when a network is not named by its first address.
        if first != cidr.address {
            return Err(format!(
                "names one address within a network; write `{first}/{}` for the network, or `{}` for the address",
                cidr.length, cidr.address
            ));
        }
        Ok(Self(cidr))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for AddressRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(|why| serde::de::Error::custom(format_args!("`{}` {why}", text.escape_debug())))
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct OneOrMany<T>(Vec<T>);

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a list of addresses")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(|one| [one].into())
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(next) = list.next_element()? {
                    all.push(next);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData)).map(Self)
    }
}

/// Whether an address can be a machine's own, or a router's.
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first < 224 && !v4.is_loopback()
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    }
}

pub(super) fn validate(network: &Network) -> Result<(), Fault> {
    if let Some(vlan) = &network.vlan
        && !(1..=VLAN_MAX).contains(vlan.get_ref())
    {
        return Err(fault(
            vlan,
            format!("{} is not the number of a VLAN", vlan.get_ref()),
            "Use a number between 1 and 4094, or remove it when the port is not tagged.",
        ));
    }
    if let Some(mtu) = &network.mtu
        && !(MTU_MIN..=MTU_MAX).contains(mtu.get_ref())
    {
        return Err(fault(
            mtu,
            format!("a largest packet of {} bytes is not possible", mtu.get_ref()),
            "Use a number between 1280 and 9216 that your switch also takes, or remove it.",
        ));
    }
    if let Some(address) = &network.address {
        validate_addresses(address)?;
    }
    if let Some(gateway) = &network.gateway {
        validate_gateways(gateway, network.addresses())?;
    }
    if let Some(extra) = network.dns.get(EACH_MAX) {
        return Err(fault(
            extra,
            format!("there are more than {EACH_MAX} name servers"),
            "Remove some.",
        ));
    }
    if let Some(wrong) = network.dns.iter().find(|server| {
        let address = *server.get_ref();
        !is_unicast(address) && address != IpAddr::V4(Ipv4Addr::LOCALHOST)
    }) {
        return Err(fault(
            wrong,
            format!("{} can't be a name server", wrong.get_ref()),
            "Use the address of your router, or of another name server.",
        ));
    }
    Ok(())
}

fn validate_addresses(address: &Spanned<OneOrMany<Cidr>>) -> Result<(), Fault> {
    let all = address.get_ref().as_slice();
    if all.is_empty() || all.len() > EACH_MAX {
        return Err(fault(
            address,
            format!("there must be between 1 and {EACH_MAX} addresses"),
            "Remove `address` to have one given by DHCP.",
        ));
    }
    for (index, own) in all.iter().enumerate() {
        if !is_unicast(own.address) {
            return Err(fault(
                address,
                format!("{} can't be a machine's own address", own.address),
                "Use a free address of your network, as in 192.168.1.10/24.",
            ));
        }
        if own.is_nobody(own.address) {
            return Err(fault(
                address,
                format!("{own} is the first or last address of its network, which stands for no machine"),
                "Use a free address between them; the number after `/` is the network's prefix length, mostly 24.",
            ));
        }
        if all[..index].iter().any(|other| other.address == own.address) {
            return Err(fault(
                address,
                format!("the address {} is there twice", own.address),
                "Name each address once.",
            ));
        }
    }
    Ok(())
}

fn validate_gateways(gateway: &Spanned<OneOrMany<IpAddr>>, addresses: &[Cidr]) -> Result<(), Fault> {
    let all = gateway.get_ref().as_slice();
    if addresses.is_empty() {
        return Err(fault(
            gateway,
            "there is a gateway, but no address".to_string(),
            "With DHCP the router is told by DHCP: remove `gateway`, or add `address`.",
        ));
    }
    if all.is_empty() || all.len() > 2 || (all.len() == 2 && all[0].is_ipv4() == all[1].is_ipv4()) {
        return Err(fault(
            gateway,
            "there can be one gateway for IPv4 and one for IPv6".to_string(),
            "Name one of each, or remove `gateway`.",
        ));
    }
    for router in all {
        let link_local = matches!(router, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let own = addresses.iter().find(|own| own.contains(*router));
        if !is_unicast(*router) || own.is_some_and(|own| own.is_nobody(*router)) {
            return Err(fault(
                gateway,
                format!("{router} can't be a router's address"),
                "Use your router's address in this network, often the one that ends in 1.",
            ));
        }
        if own.is_none() && !link_local {
            let within: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            return Err(fault(
                gateway,
                format!(
                    "the gateway {router} is not within the network of {}",
                    within.join(", ")
                ),
                "Correct one of them: a router can only be reached inside the appliance's own network. The number after `/` may be wrong.",
            ));
        }
        if addresses.iter().any(|own| own.address == *router) {
            return Err(fault(
                gateway,
                format!("{router} is both the appliance's own address and its gateway"),
                "Give the appliance a free address, and name the router's in `gateway`.",
            ));
        }
    }
    Ok(())
}
