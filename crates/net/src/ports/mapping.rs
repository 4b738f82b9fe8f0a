//! A published port, or a row of them, as `-p` says it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A transport protocol whose ports can be published.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (RFC 9293).
    #[default]
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// One published port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The host address to listen on; none means every address of both families.
    pub host_ip: Option<IpAddr>,
    /// The first host port; 0 means one that the kernel chooses (for each port of the range).
    pub host_port: u16,
    /// The first port in the container.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How many ports in a row, at least 1.
    pub range: u16,
}

impl PortMapping {
    /// The mappings of a range, one port each.
    pub fn singles(&self) -> impl Iterator<Item = PortMapping> + use<> {
        let whole = self.clone();
        (0..self.range.max(1)).map(move |n| PortMapping {
            host_port: match whole.host_port {
                0 => 0,
                first => first.saturating_add(n),
            },
            container_port: whole.container_port.saturating_add(n),
            range: 1,
            ..whole.clone()
        })
    }

    /// Whether the port of one, `bound`, is meant: no host port and no host address leave those open.
    pub fn means(&self, bound: &PortMapping) -> bool {
        self.protocol == bound.protocol
            && self.container_port == bound.container_port
            && (self.host_port == 0 || self.host_port == bound.host_port)
            && (self.host_ip.is_none() || self.host_ip == bound.host_ip)
    }

    /// Reads one value of `-p`, in any of podman's forms; `80/tcp+udp` forms do not exist, so
    /// each value gives one mapping today.
    ///
    /// # Errors
    /// [`crate::Error::Publish`], worded as podman does.
    pub fn parse(text: &str) -> Result<Vec<PortMapping>> {
        crate::ports::parse::parse(text)
    }
}

impl fmt::Display for PortMapping {
    /// As it is written after `-p`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |f: &mut fmt::Formatter<'_>, first: u16| match self.range {
            0 | 1 => write!(f, "{first}"),
            range => write!(f, "{first}-{}", first.saturating_add(range - 1)),
        };
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        if self.host_port != 0 {
            range(f, self.host_port)?;
        }
        if self.host_port != 0 || self.host_ip.is_some() {
            f.write_str(":")?;
        }
        range(f, self.container_port)?;
        write!(f, "/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_written_as_they_are_read() {
        for text in [
            "80/tcp",
            "8080:80/tcp",
            "127.0.0.1::80/udp",
            "[::1]:8080-8082:80-82/tcp",
        ] {
            let mapping = PortMapping::parse(text).unwrap().remove(0);
            assert_eq!(mapping.to_string(), text);
        }
    }
}
