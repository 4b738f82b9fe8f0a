//! Published ports: how they are written, bound and carried into the container.
//!
//! UDP goes in by the tap ([`udp`]), TCP by a relay inside the container's network namespace
//! ([`relay`]).

pub(crate) mod bind;
mod datagram;
mod holder;
pub(crate) mod inner;
pub mod mapping;
pub(crate) mod parse;
pub(crate) mod relay;
pub(crate) mod rows;
pub(crate) mod udp;
