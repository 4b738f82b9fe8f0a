//! What a user may say about a container's network, and what follows from it.
//!
//! The addresses are those slirp4netns made familiar: in 10.0.2.0/24 the container is .100, the
//! gateway .2 and the name server .3; in fd00::/64 the same with ::100, the router fe80::2 (::2 for
//! what is asked of it by a global address) and ::3.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::cidr::Ipv4Cidr;
use crate::error::{Error, Result};
use crate::ports::mapping::{PortMapping, Protocol};
use crate::stack::GATEWAY_MAC;

/// The address of the container in the IPv6 network.
pub const CONTAINER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
/// The router of the IPv6 network: a link-local address, as RFC 4861 §6.1.2 asks of routers.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// The gateway's other IPv6 address; the host's `::1` when host loopback is allowed.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// The name server of the IPv6 network.
pub const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
/// The prefix length of the IPv6 network.
pub const PREFIX_V6: u8 = 64;

/// The largest MTU of a tap whose frames stay within 64 KiB with their Ethernet header.
pub const MAX_MTU: u16 = 65520;
/// The smallest IPv4 MTU (RFC 791 §3.2).
const MIN_MTU: u16 = 68;
/// The smallest IPv6 MTU (RFC 8200 §5).
const MIN_MTU_V6: u16 = 1280;

/// All that is said about one container's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The IPv4 network; its hosts .2, .3 and .100 are gateway, name server and container.
    pub cidr: Ipv4Cidr,
    /// The MTU of tap0, in bytes.
    pub mtu: u16,
    /// The hardware address of tap0; a random one if none.
    pub mac: Option<[u8; 6]>,
    /// Whether the container has IPv6.
    pub ipv6: bool,
    /// The host's own address where it lies in `cidr`, as in many a virtual machine: the container
    /// reaches it there all the same.
    pub host: Option<Ipv4Addr>,
    /// Whether the gateway address reaches the host's 127.0.0.1 (and `fd00::2` its `::1`).
    pub allow_host_loopback: bool,
    /// Where IPv4 connections leave the host from.
    pub outbound_addr: Option<Outbound>,
    /// Where IPv6 connections leave the host from.
    pub outbound_addr6: Option<Outbound>,
    /// How clients on the host's own loopback appear to a published port.
    pub port_handler: PortHandler,
    /// Whether there is a name server.
    pub name_server: bool,
    /// Name servers that replace the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains that replace the host's; a single `.` means none.
    pub dns_search: Vec<String>,
    /// Resolver options that replace the host's.
    pub dns_options: Vec<String>,
    /// The published ports.
    pub ports: Vec<PortMapping>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cidr: Ipv4Cidr::default(),
            mtu: MAX_MTU,
            mac: None,
            ipv6: false,
            host: None,
            allow_host_loopback: false,
            outbound_addr: None,
            outbound_addr6: None,
            port_handler: PortHandler::default(),
            name_server: true,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            ports: Vec::new(),
        }
    }
}

impl Config {
    /// The default network on this machine: with IPv6 where the host has an IPv6 default route.
    pub fn for_this_host() -> Config {
        Config {
            ipv6: host_has_ipv6(),
            ..Config::default()
        }
    }

    /// The network that `--network slirp4netns:OPTIONS` asks for, `options` being what follows
    /// the colon; what is not said is as in [`Config::for_this_host`].
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown option or a bad value.
    pub fn parse_slirp_options(options: &str) -> Result<Config> {
        let mut config = Config::for_this_host();
        config.apply_slirp_options(options)?;
        Ok(config)
    }

    /// Changes this network as `OPTIONS` of `--network slirp4netns:OPTIONS` says.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown option or a bad value.
    pub fn apply_slirp_options(&mut self, options: &str) -> Result<()> {
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let unknown = || Error::Option(format!("unknown option for slirp4netns: \"{option}\""));
            let (name, value) = option.split_once('=').ok_or_else(unknown)?;
            match name {
                "cidr" => self.cidr = value.parse()?,
                "mtu" => self.mtu = parse_mtu(value)?,
                "enable_ipv6" => self.ipv6 = parse_bool(name, value)?,
                "allow_host_loopback" => self.allow_host_loopback = parse_bool(name, value)?,
                "outbound_addr" => self.outbound_addr = Some(Outbound::parse_v4(value)?),
                "outbound_addr6" => self.outbound_addr6 = Some(Outbound::parse_v6(value)?),
                "port_handler" => {
                    self.port_handler = match value {
                        "rootlesskit" => PortHandler::Rootlesskit,
                        "slirp4netns" => PortHandler::Slirp4netns,
                        _ => {
                            return Err(Error::Option(format!(
                                "unknown port_handler for slirp4netns: \"{value}\""
                            )));
                        }
                    }
                }
                _ => return Err(unknown()),
            }
        }
        Ok(())
    }

    /// Has tap0 get a hardware address, written `52:54:00:12:34:56`.
    ///
    /// # Errors
    /// [`Error::Option`] when it is none that a device can have.
    pub fn set_mac(&mut self, text: &str) -> Result<()> {
        let invalid = || Error::Option(format!("invalid MAC address \"{text}\""));
        let mut address = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut address {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(invalid)?;
        }
        let group = address[0] & 1 != 0;
        if parts.next().is_some() || group || address == [0; 6] || address == GATEWAY_MAC {
            return Err(invalid());
        }
        self.mac = Some(address);
        Ok(())
    }

    /// The container's IPv4 address, 10.0.2.100 by default.
    pub fn container_v4(&self) -> Ipv4Addr {
        self.cidr.host(100)
    }

    /// The IPv4 gateway, 10.0.2.2 by default.
    pub fn gateway_v4(&self) -> Ipv4Addr {
        self.cidr.host(2)
    }

    /// The IPv4 address of the name server, 10.0.2.3 by default.
    pub fn dns_v4(&self) -> Ipv4Addr {
        self.cidr.host(3)
    }

    /// Whether the namespace really gets IPv6: asked for, and the MTU allows it.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6 && self.mtu >= MIN_MTU_V6
    }

    /// Whether any TCP port is published.
    pub fn publishes_tcp(&self) -> bool {
        self.ports.iter().any(|port| port.protocol == Protocol::Tcp)
    }
}

/// Where connections leave the host from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outbound {
    /// A source address.
    Address(IpAddr),
    /// A network interface.
    Interface(String),
}

impl Outbound {
    fn parse_v4(value: &str) -> Result<Outbound> {
        match value.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Outbound::Address(address.into())),
            Err(_) => Outbound::interface("outbound_addr", value),
        }
    }

    fn parse_v6(value: &str) -> Result<Outbound> {
        match value.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Outbound::Address(address.into())),
            Err(_) => Outbound::interface("outbound_addr6", value),
        }
    }

    /// An interface name as the kernel takes it: fewer than IFNAMSIZ (16) bytes, no `/`, no space.
    fn interface(option: &str, value: &str) -> Result<Outbound> {
        let plausible = !value.is_empty()
            && value.len() < 16
            && value != "."
            && value != ".."
            && value
                .chars()
                .all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
        // What can be read as an address was meant as one, of the other family.
        if plausible && value.parse::<IpAddr>().is_err() {
            Ok(Outbound::Interface(value.to_owned()))
        } else {
            Err(Error::Option(format!("invalid {option} \"{value}\"")))
        }
    }
}

/// Whom clients on the host's loopback are taken for, once in the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortHandler {
    /// The container itself (10.0.2.100), as with podman's rootlessport.
    #[default]
    Rootlesskit,
    /// The gateway (10.0.2.2), as with slirp4netns's own forwarding.
    Slirp4netns,
}

fn parse_bool(name: &str, value: &str) -> Result<bool> {
    // What Go's strconv.ParseBool takes.
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::Option(format!(
            "invalid value of {name} for slirp4netns: \"{value}\""
        ))),
    }
}

fn parse_mtu(value: &str) -> Result<u16> {
    match value.parse::<u16>() {
        Ok(mtu) if (MIN_MTU..=MAX_MTU).contains(&mtu) => Ok(mtu),
        _ => Err(Error::Option(format!(
            "invalid mtu \"{value}\": must be between {MIN_MTU} and {MAX_MTU}"
        ))),
    }
}

/// Whether this machine has somewhere to send IPv6 to: a default route that is not a refusal.
fn host_has_ipv6() -> bool {
    // Each read has the kernel write the table anew, so it is to be one.
    let mut table = String::with_capacity(16 * 1024);
    let file = std::fs::File::open("/proc/net/ipv6_route");
    file.and_then(|mut file| file.read_to_string(&mut table))
        .is_ok_and(|_| has_default_route_v6(&table))
}

/// Reads the format of /proc/net/ipv6_route: destination, its prefix length, source, its prefix
/// length, next hop, metric, reference count, use count, flags, device.
fn has_default_route_v6(table: &str) -> bool {
    /// include/uapi/linux/route.h
    const RTF_UP: u32 = 0x0001;
    /// include/uapi/linux/route.h
    const RTF_REJECT: u32 = 0x0200;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, device] = fields[..] else {
            return false;
        };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        destination.bytes().all(|b| b == b'0')
            && prefix == "00"
            && device != "lo"
            && flags & RTF_UP != 0
            && flags & RTF_REJECT == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_addresses_are_the_familiar_ones() {
        let config = Config::default();
        assert_eq!(config.container_v4(), Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!(config.gateway_v4(), Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(config.dns_v4(), Ipv4Addr::new(10, 0, 2, 3));
        assert_eq!(config.cidr.broadcast(), Ipv4Addr::new(10, 0, 2, 255));
        assert_eq!(config.mtu, 65520);
    }

    #[test]
    fn every_slirp_option_is_understood() {
        let mut config = Config::default();
        config
            .apply_slirp_options(
                "cidr=10.9.0.77/16,mtu=1500,enable_ipv6=true,allow_host_loopback=true,\
                 outbound_addr=192.0.2.1,outbound_addr6=eth0,port_handler=slirp4netns",
            )
            .unwrap();
        assert_eq!(config.cidr.to_string(), "10.9.0.0/16");
        assert_eq!(config.container_v4(), Ipv4Addr::new(10, 9, 0, 100));
        assert_eq!(config.mtu, 1500);
        assert!(config.ipv6 && config.allow_host_loopback);
        assert_eq!(
            config.outbound_addr,
            Some(Outbound::Address("192.0.2.1".parse().unwrap()))
        );
        assert_eq!(
            config.outbound_addr6,
            Some(Outbound::Interface("eth0".into()))
        );
        assert_eq!(config.port_handler, PortHandler::Slirp4netns);
    }

    #[test]
    fn bad_slirp_options_are_refused_in_words() {
        for (options, message) in [
            ("foo=bar", "unknown option for slirp4netns: \"foo=bar\""),
            ("mtu", "unknown option for slirp4netns: \"mtu\""),
            (
                "mtu=70000",
                "invalid mtu \"70000\": must be between 68 and 65520",
            ),
            ("cidr=10.0.2.0", "invalid cidr \"10.0.2.0\""),
            (
                "cidr=10.0.2.0/30",
                "invalid cidr \"10.0.2.0/30\": the prefix must be between 8 and 25",
            ),
            (
                "enable_ipv6=yes",
                "invalid value of enable_ipv6 for slirp4netns: \"yes\"",
            ),
            (
                "port_handler=x",
                "unknown port_handler for slirp4netns: \"x\"",
            ),
            ("outbound_addr=::1", "invalid outbound_addr \"::1\""),
        ] {
            let error = Config::default().apply_slirp_options(options).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn config_survives_json() {
        let mut config = Config::default();
        config.apply_slirp_options("outbound_addr=eth1").unwrap();
        config.ports = PortMapping::parse("[::1]:8080-8081:80-81/udp").unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        assert_eq!(
            serde_json::from_str::<Config>("{}").unwrap(),
            Config::default()
        );
    }

    #[test]
    fn ipv6_is_seen_by_its_default_route() {
        let zero = "00000000000000000000000000000000";
        let via = "fd000000000000000000000000000001";
        assert!(has_default_route_v6(&format!(
            "{zero} 00 {zero} 00 {via} 00000400 00000002 00000000 00000003     eth0\n"
        )));
        assert!(!has_default_route_v6(&format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        )));
        assert!(!has_default_route_v6("garbage\n\n"));
    }
}
