//! An IPv4 network and the addresses in it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An IPv4 network, written `10.0.2.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Default for Ipv4Cidr {
    fn default() -> Ipv4Cidr {
        Ipv4Cidr {
            network: Ipv4Addr::new(10, 0, 2, 0),
            prefix: 24,
        }
    }
}

impl Ipv4Cidr {
    /// The network's address.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// The number of bits that name the network.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The `n`th address of the network.
    pub fn host(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + u32::from(n))
    }

    /// The broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) | !self.mask())
    }

    /// Whether the address lies in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.network)
    }

    fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }
}

impl FromStr for Ipv4Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ipv4Cidr> {
        let invalid = |why: &str| Error::Option(format!("invalid cidr \"{text}\"{why}"));
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid(""))?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid(""))?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid(""))?;
        // The 100th host must exist, and the shift of `mask` must be defined.
        if !(8..=25).contains(&prefix) {
            return Err(invalid(": the prefix must be between 8 and 25"));
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        let network = Ipv4Addr::from(u32::from(address) & mask);
        if network.is_loopback() || network.is_multicast() || network.octets()[0] == 0 {
            return Err(invalid(": not a network that hosts can be in"));
        }
        Ok(Ipv4Cidr { network, prefix })
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Ipv4Cidr> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}
