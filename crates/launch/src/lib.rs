//! From an OCI bundle to a process in its own namespaces, as an ordinary user.
//!
//! [`create()`] makes a container and stops right before its program is executed; [`Created::start`]
//! executes it. What takes the kernel long can be begun [`Ahead`]. [`exec()`] starts a further program in a running container.
//! Nothing here knows of images, names, logs or networks: the crate runs any OCI bundle, and is told by its caller what
//! to do in the new network namespace. [`oci`] has the commands of an OCI runtime over it.
//!
//! To read in this order: `request` is what is asked for; `create` is our side of it, `channel` how both sides talk; `init` is
//! the new process, step by step: `namespaces`, `rootfs` and `mounts`, `devices`, `credentials`, `seccomp`, `program`.
//! [`cgroup`] has the limits, `emulate` the users that are made up where there is one id.

#![forbid(unsafe_code)]

mod accounts;
mod ahead;
pub mod cgroup;
mod channel;
mod console;
mod copyup;
mod create;
mod credentials;
mod devices;
mod emulate;
mod error;
mod exec;
mod giving;
pub mod hooks;
mod idmap;
mod init;
mod lookup;
mod lsm;
mod mounts;
mod namespaces;
mod netdevices;
pub mod oci;
mod options;
mod procfs;
mod program;
mod request;
mod root;
mod rootfs;
mod schedule;
mod seccomp;
mod support;
mod user;
mod wire;

pub use accounts::{Account, Accounts};
pub use ahead::{Ahead, SetUp};
pub use create::{Begun, Created, Waiting, begin, create, start};
pub use emulate::Emulation;
pub use error::{Error, NetworkFailure, Result};
pub use exec::exec;
pub use request::{
    ExecChild, ExecRequest, FuseOverlay, InNetns, KnownAs, NoteCgroup, Request, Rootfs, Running,
    Size, Stdio, Target,
};

/// The types of a runtime specification, as this crate takes them.
pub mod spec {
    pub use oci_spec::runtime::*;
}
