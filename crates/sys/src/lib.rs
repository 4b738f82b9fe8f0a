//! The Linux calls that rcon needs and that no library wraps, and what is built right on them.
//!
//! The only crate of the workspace with unsafe code: every other one forbids it. Each module is
//! one subject, with safe functions over it and typed or translated errors.
//!
//! It is what all others stand on, so it depends on none of them and knows of no container, image or network. What a good
//! library has (rustix, nix) is taken from there, not wrapped again.
//!
//! | subject | modules |
//! |---|---|
//! | processes | `process` first: all that forks goes through it; `descriptors`, `fdpass`, `scheduling`, `stub` (PID 1), `trace` |
//! | users and namespaces | `ids`, `userns`, `passwd`, `shift`, `forbidden` (why there are none), `floor` (the oldest kernel) |
//! | files and mounts | `folders` (trees of any depth), `mount`, `fuse`, `owner` (owners that could not be given) |
//! | networks | `netlink`, `tun`, `sockopt` |
//! | filters | `seccomp`, `notify`, `bpf` |
//! | memory and words | `memory`, `counting`, `errors`; `outlet` (words that nobody waits for) |

pub mod bpf;
pub mod counting;
pub mod descriptors;
pub mod errors;
pub mod fdpass;
pub mod floor;
pub mod folders;
pub mod forbidden;
pub mod fuse;
pub mod ids;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod notify;
pub mod outlet;
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
