//! A user-mode network for a network namespace: TCP/IP, DNS, ping and published ports, without
//! privilege and without a helper program.
//!
//! It can be used by itself, to give any process in a network namespace of its own the network
//! that slirp4netns made familiar; `examples/with_network.rs` does. The steps, and where each runs:
//!
//! 1. on the host, before anything else: [`bind`] takes the host ports, or says why not;
//! 2. in the new namespace, by its first process: [`set_up_namespace`] makes `tap0` with its
//!    addresses and routes, and gives the tap;
//! 3. on the host, in a process with one thread: [`Network::start`] forks the process that answers
//!    what the tap brings, and [`Network`] starts it again should it die, publishes more ports, and
//!    ends it; [`resolv_conf`] is for the container's /etc/resolv.conf.
//!
//! What goes on in it is told by a socket: see [`control`].
//!
//! Where to look: `namespace.rs` is the container's side. `device.rs` reads and writes frames,
//! `serve/` has the loop, `stack/` decides what becomes of a frame (its `mod.rs` has the map),
//! `outside.rs` makes the host's sockets, `ports/` is about published ports, `sandbox/` about what
//! the process gives up, `supervise/` about the process that started it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod alone;
mod channel;
mod cidr;
mod config;
pub mod control;
mod device;
mod elsewhere;
mod error;
pub mod exercise;
mod limits;
mod namespace;
mod outside;
mod poll;
mod ports;
mod recency;
mod resolv;
mod sandbox;
mod serve;
mod slab;
mod stack;
mod supervise;
#[cfg(test)]
mod testing;
mod timers;

pub use alone::Alone;
pub use cidr::Ipv4Cidr;
pub use config::{Config, Outbound, PortHandler};
pub use error::{Error, HAND_IN, Result};
pub use namespace::{reopen_tap, set_up_namespace};
pub use ports::bind::{Listeners, bind};
pub use ports::mapping::{PortMapping, Protocol};
pub use ports::rows::{Withdrawn, joined, still_bound, withdraw};
pub use resolv::resolv_conf;
pub use sandbox::Sandbox;
pub use supervise::{Guest, Lingering, Network};
