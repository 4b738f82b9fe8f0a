//! Where the container's packets may go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{CONTAINER_V6, Config, DNS_V6, GATEWAY_V6, ROUTER_V6};

/// The networks and addresses of one container.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    config: Config,
}

/// What a destination means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An address that the host reaches as it is.
    Outside(IpAddr),
    /// The host's loopback, which the container was given under the gateway's address.
    HostLoopback(IpAddr),
    /// The gateway itself: it answers pings, and has no services.
    Gateway,
    /// The name server.
    Dns,
    /// Nobody has this address: one of our own networks, or one that no host can have.
    Nobody,
    /// Forbidden: the host's loopback by another name.
    Prohibited,
    /// To be passed over in silence: groups, broadcasts, the link's own.
    Ignored,
}

impl Policy {
    pub(crate) fn new(config: &Config) -> Policy {
        let mut config = config.clone();
        // Within a container that has such a network too, the host has the container's address: here it means the container.
        config.host = config.host.filter(|host| *host != config.container_v4());
        Policy { config }
    }

    /// The network's configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the container may send from this address: one of its networks, not one of ours.
    pub(crate) fn is_container(&self, source: IpAddr) -> bool {
        let ours = matches!(
            self.target(source),
            Target::Gateway | Target::Dns | Target::Outside(_)
        ) || source == IpAddr::V4(self.config.gateway_v4())
            || source == IpAddr::V6(GATEWAY_V6);
        match source {
            IpAddr::V4(source) => {
                self.config.cidr.contains(source)
                    && source != self.config.cidr.broadcast()
                    && source != self.config.cidr.network()
                    && !ours
            }
            IpAddr::V6(source) => in_network_v6(source) && !ours,
        }
    }

    /// Our own address of the container's family, from which the network itself speaks.
    pub(crate) fn gateway(&self, to: IpAddr) -> IpAddr {
        match to {
            IpAddr::V4(_) => self.config.gateway_v4().into(),
            IpAddr::V6(_) => GATEWAY_V6.into(),
        }
    }

    /// The container's address of a family, if it has one.
    pub(crate) fn container(&self, ipv6: bool) -> Option<IpAddr> {
        match ipv6 {
            false => Some(self.config.container_v4().into()),
            true => self.config.has_ipv6().then_some(CONTAINER_V6.into()),
        }
    }

    /// What a destination means.
    pub(crate) fn target(&self, destination: IpAddr) -> Target {
        match destination {
            IpAddr::V4(address) => self.target_v4(address),
            IpAddr::V6(address) => self.target_v6(address),
        }
    }

    fn target_v4(&self, address: Ipv4Addr) -> Target {
        let config = &self.config;
        if address == config.gateway_v4() {
            return self.gateway_target(Ipv4Addr::LOCALHOST.into());
        }
        if address == config.dns_v4() {
            return self.dns_target();
        }
        // 0.0.0.0/8 is "this host" (RFC 1122 §3.2.1.3): Linux takes 0.0.0.0 for its loopback.
        if address.is_loopback() || address.octets()[0] == 0 {
            return Target::Prohibited;
        }
        if address.is_multicast() || address.is_broadcast() || address == config.cidr.broadcast() {
            return Target::Ignored;
        }
        if config.host == Some(address) {
            return Target::Outside(address.into());
        }
        // 240.0.0.0/4 is reserved (RFC 1112 §4).
        if config.cidr.contains(address) || address.octets()[0] >= 240 {
            return Target::Nobody;
        }
        Target::Outside(address.into())
    }

    fn target_v6(&self, address: Ipv6Addr) -> Target {
        if address == GATEWAY_V6 || address == ROUTER_V6 {
            return self.gateway_target(Ipv6Addr::LOCALHOST.into());
        }
        if address == DNS_V6 {
            return self.dns_target();
        }
        // Mapped and compatible addresses (RFC 4291 §2.5.5) would be IPv4 by the back door, and
        // among the latter are :: and ::1.
        if address.to_ipv4().is_some() {
            return Target::Prohibited;
        }
        if address.is_multicast() || address.is_unicast_link_local() {
            return Target::Ignored;
        }
        if in_network_v6(address) {
            return Target::Nobody;
        }
        Target::Outside(address.into())
    }

    fn dns_target(&self) -> Target {
        match self.config.name_server {
            true => Target::Dns,
            false => Target::Nobody,
        }
    }

    fn gateway_target(&self, loopback: IpAddr) -> Target {
        match self.config.allow_host_loopback {
            true => Target::HostLoopback(loopback),
            false => Target::Gateway,
        }
    }
}

/// Whether an address lies in fd00::/64.
fn in_network_v6(address: Ipv6Addr) -> bool {
    address.segments()[..4] == CONTAINER_V6.segments()[..4]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(config: &Config, address: &str) -> Target {
        Policy::new(config).target(address.parse().unwrap())
    }

    #[test]
    fn a_host_in_the_containers_network_is_reached_there() {
        let host = Ipv4Addr::new(10, 0, 2, 15);
        let config = Config {
            host: Some(host),
            ..Config::default()
        };
        assert_eq!(target(&config, "10.0.2.15"), Target::Outside(host.into()));
        assert_eq!(target(&config, "10.0.2.16"), Target::Nobody);
        assert!(!Policy::new(&config).is_container(host.into()));
        let elsewhere = Config::default();
        assert_eq!(target(&elsewhere, "10.0.2.15"), Target::Nobody);
    }

    #[test]
    fn a_host_with_the_containers_address_does_not_take_it_away() {
        let address = Config::default().container_v4();
        let config = Config {
            host: Some(address),
            ..Config::default()
        };
        assert!(Policy::new(&config).is_container(address.into()));
        assert_eq!(target(&config, "10.0.2.100"), Target::Nobody);
    }

    #[test]
    fn host_loopback_is_closed_by_every_name() {
        let config = Config::default();
        for address in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(target(&config, address), Target::Prohibited, "{address}");
        }
        assert_eq!(target(&config, "10.0.2.2"), Target::Gateway);
        assert_eq!(target(&config, "fd00::2"), Target::Gateway);
    }

    #[test]
    fn the_gateway_is_the_host_when_that_is_allowed() {
        let config = Config {
            allow_host_loopback: true,
            ..Config::default()
        };
        assert_eq!(
            target(&config, "10.0.2.2"),
            Target::HostLoopback(Ipv4Addr::LOCALHOST.into())
        );
        assert_eq!(
            target(&config, "fd00::2"),
            Target::HostLoopback(Ipv6Addr::LOCALHOST.into())
        );
        assert_eq!(target(&config, "127.0.0.1"), Target::Prohibited);
    }

    #[test]
    fn everything_else_has_its_place() {
        let config = Config::default();
        let outside = |address: &str| Target::Outside(address.parse().unwrap());
        assert_eq!(target(&config, "10.0.2.3"), Target::Dns);
        assert_eq!(target(&config, "fd00::3"), Target::Dns);
        assert_eq!(target(&config, "10.0.2.77"), Target::Nobody);
        assert_eq!(target(&config, "250.1.1.1"), Target::Nobody);
        assert_eq!(target(&config, "10.0.2.255"), Target::Ignored);
        assert_eq!(target(&config, "224.0.0.251"), Target::Ignored);
        assert_eq!(target(&config, "255.255.255.255"), Target::Ignored);
        assert_eq!(target(&config, "ff02::1"), Target::Ignored);
        assert_eq!(target(&config, "fe80::99"), Target::Ignored);
        assert_eq!(target(&config, "10.0.0.67"), outside("10.0.0.67"));
        assert_eq!(target(&config, "2001:db8::1"), outside("2001:db8::1"));
    }

    #[test]
    fn only_the_container_may_speak_as_the_container() {
        let policy = Policy::new(&Config::default());
        for address in ["10.0.2.100", "10.0.2.15", "fd00::100"] {
            assert!(policy.is_container(address.parse().unwrap()), "{address}");
        }
        for address in [
            "10.0.2.2",
            "10.0.2.3",
            "10.0.2.255",
            "10.0.2.0",
            "0.0.0.0",
            "127.0.0.1",
            "192.0.2.1",
            "fd00::2",
            "fd00::3",
            "::1",
            "::",
        ] {
            assert!(!policy.is_container(address.parse().unwrap()), "{address}");
        }
    }
}
