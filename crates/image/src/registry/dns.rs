//! Names to addresses without the C library, which cannot do it in a static program.
//!
//! First `/etc/hosts`, then the servers of `/etc/resolv.conf`, as resolv.conf(5) has it: without a
//! server, the one on this machine.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("lookup {host}: {why}")]
pub(crate) struct LookupError {
    pub host: String,
    pub why: String,
}

/// Resolver for the HTTP client; reads its configuration when it is first needed.
#[derive(Clone, Default)]
pub(crate) struct Resolver {
    dns: Arc<OnceLock<TokioResolver>>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let dns = self.dns.clone();
        Box::pin(async move {
            let found = lookup(&dns, name.as_str()).await?;
            let found = found.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(found) as Addrs)
        })
    }
}

async fn lookup(dns: &OnceLock<TokioResolver>, host: &str) -> Result<Vec<IpAddr>, LookupError> {
    let fail = |why: String| LookupError {
        host: host.to_owned(),
        why,
    };
    let hosts = std::fs::read("/etc/hosts").unwrap_or_default();
    let mut found = in_hosts(&String::from_utf8_lossy(&hosts), host);
    if found.is_empty() && is_localhost(host) {
        found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let resolver = match dns.get() {
        Some(resolver) => resolver,
        None => {
            let new =
                new_resolver().map_err(|e| fail(format!("cannot use /etc/resolv.conf: {e}")))?;
            dns.get_or_init(|| new)
        }
    };
    match resolver.lookup_ip(host).await {
        Ok(answer) => {
            let all: Vec<IpAddr> = answer.iter().collect();
            if all.is_empty() {
                return Err(fail("no address is known".to_owned()));
            }
            Ok(all)
        }
        Err(e) if e.is_nx_domain() => Err(fail("no such host".to_owned())),
        Err(e) if e.is_no_records_found() => Err(fail("no address is known".to_owned())),
        Err(NetError::Timeout) => Err(fail("the name servers do not answer".to_owned())),
        Err(e) => Err(fail(e.to_string())),
    }
}

fn new_resolver() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, Vec::new(), vec![local]),
            TokioRuntimeProvider::default(),
        )
    });
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Done already, and better: a name that is there is not asked for elsewhere.
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// `localhost` and what is below it is here (RFC 6761).
pub(crate) fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let mut found = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next().and_then(|w| w.parse::<IpAddr>().ok()) else {
            continue;
        };
        if words.any(|w| w.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file() {
        let text =
            "127.0.0.1 localhost # x registry\n::1 localhost\n10.0.0.5\treg.lan Registry\nbad x\n";
        assert_eq!(
            in_hosts(text, "registry"),
            ["10.0.0.5".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(in_hosts(text, "REG.lan.").len(), 1);
        assert_eq!(in_hosts(text, "localhost").len(), 2);
        assert!(in_hosts(text, "x").is_empty());
    }

    #[test]
    fn localhost_is_here() {
        assert!(is_localhost("localhost") && is_localhost("a.LocalHost."));
        assert!(!is_localhost("localhost.example"));
    }
}
