//! Looking at a network that is being served: JSON lines over a Unix socket.
//!
//! Each line that is sent is a request, and gets one line in return, in this order:
//!
//! ```text
//! → {"version":1,"request":"stats"}
//! ← {"version":1,"stats":{"uptime_ms":4711,"tap":{…},"flows":{…},…}}
//! ```
//!
//! Requests are `stats`, `flows` and `ports`; what cannot be understood gets
//! `{"version":1,"error":"…"}`. Within a version, fields are added and never changed. Nothing can
//! be changed through this socket: ports are published by [`crate::Network::publish`], for binding
//! them takes files and rights that the network process has not.

mod client;
mod report;
mod server;

pub use client::ask;
pub use report::{Answer, Counts, Direction, Flow, Kind, Port, Request, Stats, Traffic, VERSION};

pub(crate) use server::Control;
