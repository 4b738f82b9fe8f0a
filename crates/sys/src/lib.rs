//! The Linux calls that rcon needs and that no library wraps, and what is built right on them.
//!
//! The only crate of the workspace with unsafe code: every other one forbids it. Each module is
//! one subject, with safe functions over it and typed or translated errors.

pub mod bpf;
pub mod counting;
pub mod descriptors;
pub mod errors;
pub mod fdpass;
pub mod floor;
pub mod forbidden;
pub mod fuse;
pub mod ids;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod notify;
pub mod owner;
pub mod passwd;
pub mod process;
pub mod scheduling;
pub mod seccomp;
pub mod shift;
pub mod sockopt;
pub mod stub;
pub mod trace;
pub mod tun;
pub mod userns;
