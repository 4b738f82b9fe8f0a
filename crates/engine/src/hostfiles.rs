//! The small files that are mounted into a container: `hosts`, `resolv.conf`, `hostname`, `.containerenv`.
//!
//! They live in the container's runtime directory, are written anew at each start, and belong to the container then: its
//! root may change them.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;

use crate::error::{Context, Result};
use crate::record::{Config, Network};

/// The names every container knows its host by.
const HOST_NAMES: &str = "host.containers.internal host.docker.internal";

/// Writes the files into `dir`.
pub(crate) fn write(dir: &Path, config: &Config, hostname: &str) -> Result<()> {
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).on("write", &path)
    };
    if !config.names.no_hosts {
        let base = match config.names.base_hosts.as_deref() {
            None => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            Some("none") => String::new(),
            Some(file) => fs::read_to_string(file).on("read", Path::new(file))?,
        };
        put("hosts", &hosts(&base, config, hostname, host_address()))?;
    }
    if let Some(zone) = &config.options.tz {
        let (from, to) = (rcon_bundle::parse::zone_file(zone), dir.join("localtime"));
        if from.exists() {
            let zone = fs::read(&from).on("read", &from)?;
            fs::write(&to, zone).on("write", &to)?;
        }
    }
    put("resolv.conf", &resolv_conf(config))?;
    put("hostname", &format!("{hostname}\n"))?;
    put(".containerenv", &container_env(config))
}

/// What the host is reached at: the address it would leave by. Connecting a datagram socket looks up the route and sends
/// nothing.
pub(crate) fn host_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737): reached by the default route if by any.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address)
            if !address.ip().is_unspecified() && !address.ip().is_loopback() =>
        {
            Some(*address.ip())
        }
        _ => None,
    }
}

/// The text of /etc/hosts: what the user added, loopback, the host's own entries, the host, the container.
fn hosts(base: &str, config: &Config, hostname: &str, host: Option<Ipv4Addr>) -> String {
    let (own, gateway) = match &config.network {
        Network::Slirp(net) => (
            Some(IpAddr::V4(net.container_v4())),
            // Within a container with such a network the host has the same address as this one.
            host.filter(|host| *host != net.container_v4())
                .or(Some(net.gateway_v4())),
        ),
        // What is shown of these two is what they join.
        Network::None | Network::Container(_) | Network::Path(_) => {
            (Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), None)
        }
        // Its own names are the host's.
        Network::Host => (None, host.or(Some(Ipv4Addr::LOCALHOST))),
    };
    let mut text = String::new();
    let mut known: Vec<&str> = Vec::new();
    for (name, address) in &config.names.hosts {
        let address = match (address.as_str(), gateway) {
            ("host-gateway", Some(gateway)) => gateway.to_string(),
            ("host-gateway", None) => continue,
            (address, _) => address.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
        known.push(name);
    }
    let _ = writeln!(
        text,
        "127.0.0.1\tlocalhost localhost.localdomain localhost4 localhost4.localdomain4"
    );
    let _ = writeln!(
        text,
        "::1\tlocalhost localhost.localdomain localhost6 localhost6.localdomain6"
    );
    for line in base.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            continue;
        };
        // The host's loopback is not the container's, and its names may not be taken for what the user said.
        if address.is_loopback() && !matches!(config.network, Network::Host) {
            continue;
        }
        let names: Vec<&str> = words
            .filter(|name| !known.contains(name) && *name != "localhost")
            .collect();
        if !names.is_empty() {
            let _ = writeln!(text, "{address}\t{}", names.join(" "));
        }
    }
    let missing = |names: &str| {
        names
            .split(' ')
            .filter(|name| !known.contains(name))
            .collect::<Vec<_>>()
            .join(" ")
    };
    if let Some(gateway) = gateway
        && !missing(HOST_NAMES).is_empty()
    {
        let _ = writeln!(text, "{gateway}\t{}", missing(HOST_NAMES));
    }
    if let Some(own) = own {
        let _ = writeln!(text, "{own}\t{hostname} {}", config.name);
    }
    text
}

fn resolv_conf(config: &Config) -> String {
    let names = &config.names;
    match &config.network {
        Network::Slirp(net) => {
            let mut net = (**net).clone();
            // What the network's own options say is under what the user says of names.
            for (own, asked) in [
                (&mut net.dns_search, &names.search),
                (&mut net.dns_options, &names.options),
            ] {
                if !asked.is_empty() {
                    own.clone_from(asked);
                }
            }
            if !names.servers.is_empty() {
                net.dns.clone_from(&names.servers);
            }
            rcon_net::resolv_conf(&net)
        }
        Network::None if names.servers.is_empty() => String::new(),
        _ => host_resolv_conf(
            config,
            &fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        ),
    }
}

/// The host's resolvers, but for what the user says.
fn host_resolv_conf(config: &Config, host: &str) -> String {
    let names = &config.names;
    let replaced = |line: &str| match line.split_ascii_whitespace().next() {
        Some("nameserver") => !names.servers.is_empty(),
        Some("search" | "domain") => !names.search.is_empty(),
        Some("options") => !names.options.is_empty(),
        _ => false,
    };
    let mut text = String::new();
    if !matches!(names.search.as_slice(), [] | [_])
        || names.search.first().is_some_and(|s| s != ".")
    {
        let _ = writeln!(text, "search {}", names.search.join(" "));
    }
    for server in &names.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for line in host.lines().filter(|line| !replaced(line)) {
        let _ = writeln!(text, "{line}");
    }
    if !names.options.is_empty() {
        let _ = writeln!(text, "options {}", names.options.join(" "));
    }
    text
}

/// What programs look at to learn that they are in a container, in podman's form.
fn container_env(config: &Config) -> String {
    format!(
        "engine=\"rcon-{}\"\nname=\"{}\"\nid=\"{}\"\nimage=\"{}\"\nimageid=\"{}\"\nrootless={}\n",
        env!("CARGO_PKG_VERSION"),
        config.name,
        config.id,
        config.image_name,
        config.image_id,
        u8::from(!rustix::process::geteuid().is_root()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::test_config;

    #[test]
    fn a_container_knows_itself_and_its_host() {
        let mut config = test_config("web");
        let base = "127.0.1.1 laptop\n10.1.1.1 nas # the big one\nnonsense\n::1 localhost\n";
        let text = hosts(base, &config, "abc", Some(Ipv4Addr::new(10, 0, 0, 67)));
        assert!(text.ends_with(
            "10.1.1.1\tnas\n10.0.0.67\thost.containers.internal host.docker.internal\n10.0.2.100\tabc web\n"
        ));
        assert!(!text.contains("laptop"));
        let text = hosts("", &config, "abc", None);
        assert!(text.contains("10.0.2.2\thost.containers.internal"));
        config.names.hosts = vec![
            ("db".into(), "192.0.2.9".into()),
            ("host.docker.internal".into(), "host-gateway".into()),
        ];
        let text = hosts("1.1.1.1 db other\n", &config, "abc", None);
        assert!(
            text.starts_with("192.0.2.9\tdb\n10.0.2.2\thost.docker.internal\n127.0.0.1\tlocalhost")
        );
        assert!(text.contains("1.1.1.1\tother\n10.0.2.2\thost.containers.internal\n"));
    }

    #[test]
    fn resolvers_of_the_host_network() {
        let mut config = test_config("web");
        config.network = Network::Host;
        let host = "search lan\nnameserver 192.0.2.1\noptions edns0\n";
        assert_eq!(host_resolv_conf(&config, host), host);
        config.names.servers = vec!["192.0.2.2".parse().unwrap()];
        config.names.search = vec![".".into()];
        assert_eq!(
            host_resolv_conf(&config, host),
            "nameserver 192.0.2.2\noptions edns0\n"
        );
    }
}
