//! A user-mode network for a network namespace: TCP/IP, DNS, ping and published ports, without
//! privilege and without a helper program.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod device;
mod error;
mod namespace;
mod outside;
mod poll;
mod ports;
mod resolv;
mod serve;
mod slab;
mod stack;
#[cfg(test)]
mod testing;
mod timers;
mod watched;

pub use config::{Config, Ipv4Cidr, Outbound, PortHandler, PortMapping, Protocol, host_has_ipv6};
pub use error::{Error, Result};
pub use namespace::set_up_namespace;
pub use ports::bind::{Listeners, bind};
pub use resolv::resolv_conf;
pub use serve::serve;
