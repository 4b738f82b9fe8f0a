//! The values of podman's flags: text in, typed values or podman's error messages out.
//!
//! Nothing here looks at a container. What a value depends on (the caller's environment) is passed in; files are read only
//! where the flag names a file (`--env-file`, `--label-file`).

mod device;
mod environment;
mod expand;
mod hosts;
mod labels;
mod path;
mod ports;
mod security;
mod signal;
mod size;
mod sysctl;
mod ulimit;
mod umask;
mod words;

pub use device::{device, device_rule};
pub(crate) use environment::set;
pub use environment::{environment, host_environment};
pub(crate) use expand::expand;
pub use hosts::{HostAddress, HostEntry, add_host};
pub use labels::{annotations, labels};
pub(crate) use path::clean;
pub use ports::{ExposedPort, Protocol, expose, image_ports};
pub use security::{SeccompChoice, Security, security};
pub use signal::{signal, signal_name};
pub use size::{bytes, shm_size};
pub use sysctl::sysctl;
pub use ulimit::{Ulimit, UlimitKind, ulimit};
pub use umask::umask;
pub use words::{entrypoint, image_volumes, init_path, personality, systemd, time_zone, zone_file};

pub use crate::mounts::{mount, tmpfs, volume};
