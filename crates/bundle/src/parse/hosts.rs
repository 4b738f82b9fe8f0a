//! `--add-host`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// One line for the container's `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The name or, separated by `;`, names.
    pub names: Vec<String>,
    /// Where they lead.
    pub address: HostAddress,
}

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAddress {
    /// A fixed address.
    Ip(IpAddr),
    /// `host-gateway`: whatever address the host has as seen from the container.
    Gateway,
}

/// Reads `NAME[;NAME…]:ADDRESS`; `host-gateway` stands for the host. Empty text is nothing, as podman has it.
///
/// # Errors
/// podman's `bad format for add-host` and `invalid IP address in add-host`.
pub fn add_host(text: &str) -> Result<Option<HostEntry>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || Error::value(format!("bad format for add-host: {text:?}"));
    let (names, address) = text.split_once(':').ok_or_else(bad)?;
    let names: Vec<String> = names.split(';').map(str::to_string).collect();
    // A blank or a line break would make a different line of /etc/hosts than the one asked for.
    if names.iter().any(|n| {
        n.is_empty()
            || n.chars()
                .any(|c| c.is_whitespace() || c.is_control() || c == '#')
    }) {
        return Err(bad());
    }
    let address = match address {
        "host-gateway" => HostAddress::Gateway,
        ip => HostAddress::Ip(
            ip.parse()
                .map_err(|_| Error::value(format!("invalid IP address in add-host: {ip:?}")))?,
        ),
    };
    Ok(Some(HostEntry { names, address }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_entries() {
        let e = add_host("x:1.2.3.4").unwrap().unwrap();
        assert_eq!(
            (e.names, e.address),
            (vec!["x".to_string()], HostAddress::Ip([1, 2, 3, 4].into()))
        );
        let e = add_host("x;y:::1").unwrap().unwrap();
        assert_eq!(e.names, ["x", "y"]);
        assert_eq!(e.address, HostAddress::Ip("::1".parse().unwrap()));
        assert_eq!(
            add_host("h:host-gateway").unwrap().unwrap().address,
            HostAddress::Gateway
        );
        assert_eq!(add_host("").unwrap(), None);
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "x",
            ":1.2.3.4",
            "x=1.2.3.4",
            "x y:1.2.3.4",
            "a\nb:1.2.3.4",
            ";:1.2.3.4",
            "#:1.1.1.1",
        ] {
            assert_eq!(
                add_host(text).unwrap_err().to_string(),
                format!("bad format for add-host: {text:?}")
            );
        }
        for (text, ip) in [("x:1.2.3", "1.2.3"), ("x:", ""), ("x:[::1]", "[::1]")] {
            assert_eq!(
                add_host(text).unwrap_err().to_string(),
                format!("invalid IP address in add-host: {ip:?}")
            );
        }
    }
}
