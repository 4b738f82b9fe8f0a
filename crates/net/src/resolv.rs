//! The host's resolv.conf, and the one the container gets.

use std::net::IpAddr;

use crate::config::{Config, DNS_V6};

/// Where the host says who resolves names (resolv.conf(5)).
pub(crate) const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the host keeps names of its own (hosts(5)).
pub(crate) const HOST_HOSTS: &str = "/etc/hosts";

/// The parts of a resolv.conf that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of a resolv.conf; what cannot be understood is passed over, as resolvers do.
    pub(crate) fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (fe80::1%eth0) means nothing elsewhere: such servers are left out.
                    if let Some(address) = words.next().and_then(|word| word.parse().ok()) {
                        conf.servers.push(address);
                    }
                }
                // The last of several counts; `domain` is the old name for one search domain.
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    /// Reads the host's; an absent or unreadable file is an empty one.
    pub(crate) fn of_host() -> ResolvConf {
        std::fs::read(HOST_RESOLV_CONF)
            .map(|bytes| ResolvConf::parse(&String::from_utf8_lossy(&bytes)))
            .unwrap_or_default()
    }
}

/// The text of /etc/resolv.conf in the container: the servers that were asked for, else the
/// network's own, which follow the host's; search domains and options as asked for, else the host's.
pub fn resolv_conf(config: &Config) -> String {
    compose(config, &ResolvConf::of_host())
}

fn compose(config: &Config, host: &ResolvConf) -> String {
    let search = match config.dns_search.as_slice() {
        [] => host.search.as_slice(),
        [none] if none == "." => &[],
        search => search,
    };
    let options = match config.dns_options.as_slice() {
        [] => host.options.as_slice(),
        options => options,
    };
    let mut text = String::new();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    if config.dns.is_empty() {
        text += &format!("nameserver {}\n", config.dns_v4());
        if config.has_ipv6() {
            text += &format!("nameserver {DNS_V6}\n");
        }
    } else {
        for server in &config.dns {
            text += &format!("nameserver {server}\n");
        }
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_follows_the_host() {
        let host = ResolvConf::parse(
            "# made by hand\nnameserver 127.0.0.53 ; local\nnameserver fe80::1%eth0\n\
             domain old.example\nsearch lan.example example\noptions edns0 trust-ad\nsortlist x\n",
        );
        assert_eq!(host.servers, ["127.0.0.53".parse::<IpAddr>().unwrap()]);
        let mut config = Config::default();
        assert_eq!(
            compose(&config, &host),
            "search lan.example example\nnameserver 10.0.2.3\noptions edns0 trust-ad\n"
        );
        config.dns = vec!["192.0.2.53".parse().unwrap()];
        config.dns_search = vec![".".into()];
        config.dns_options = vec!["ndots:2".into()];
        assert_eq!(
            compose(&config, &host),
            "nameserver 192.0.2.53\noptions ndots:2\n"
        );
    }

    #[test]
    fn no_text_makes_it_panic() {
        let mut random = crate::testing::Random::new(7);
        for _ in 0..10_000 {
            let length = random.below(200);
            let bytes = random.bytes(length);
            ResolvConf::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
