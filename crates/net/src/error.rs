//! What can go wrong while a network is made or served, said in words.

use std::io;
use std::net::SocketAddr;

use rcon_sys::errors::in_words;

use crate::ports::mapping::Protocol;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A `-p` value that cannot be understood, or names a port that is not published.
    #[error("{0}")]
    Publish(String),

    /// An option of the `slirp4netns:` string that cannot be understood.
    #[error("{0}")]
    Option(String),

    /// The network, or a process that works for it, has failed: what it said.
    #[error("{0}")]
    Failed(String),

    /// A host port below `net.ipv4.ip_unprivileged_port_start`.
    #[error(
        "rootlessport cannot expose privileged port {port}, you can add \
         'net.ipv4.ip_unprivileged_port_start={port}' to /etc/sysctl.conf (currently {start}), \
         or choose a larger port number (>= {start}): listen {protocol} {address}: bind: permission denied"
    )]
    PrivilegedPort {
        /// The port asked for.
        port: u16,
        /// The first port an ordinary user may bind, as the kernel says now.
        start: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// The address that was to be bound.
        address: SocketAddr,
    },

    /// The host port cannot be bound.
    #[error("rootlessport listen {protocol} {address}: bind: {}", in_words(source))]
    Bind {
        /// TCP or UDP.
        protocol: Protocol,
        /// The address that was to be bound.
        address: SocketAddr,
        /// Who holds the port, where that can be seen.
        holder: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },

    /// Each published port takes a descriptor of the process that holds them, without a host address two.
    #[error(
        "too many published ports: they take {sockets} open files, and this session may have {limit}, of which some are \
         needed otherwise"
    )]
    TooManyPorts {
        /// How many descriptors it would take.
        sockets: u64,
        /// How many there may be (RLIMIT_NOFILE, the hard limit).
        limit: u64,
    },

    /// The tap device cannot be had.
    #[error("cannot open /dev/net/tun: {}", in_words(source))]
    NoTun {
        /// What the kernel said.
        source: io::Error,
    },

    /// Some other step failed.
    #[error("{what}: {}", in_words(source))]
    Io {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about a missing /dev/net/tun, where it is not known whether this is a container.
pub const HAND_IN: &str = "load the module (as root: modprobe tun) or, inside another container, \
                           pass the device in (--device /dev/net/tun)";

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Bind {
                holder: Some(holder),
                address,
                ..
            } => Some(format!("port {} is held by {holder}", address.port())),
            Error::Bind {
                address, source, ..
            } if source.raw_os_error() == Some(libc::EADDRINUSE) => Some(format!(
                "another program holds port {}; choose another host port",
                address.port()
            )),
            Error::TooManyPorts { .. } => Some(
                "raise the hard limit of open files (`ulimit -Hn`; limits.conf, systemd's LimitNOFILE=), or give a host \
                 address: a port without one takes two, for IPv4 and IPv6"
                    .to_owned(),
            ),
            Error::NoTun { source } => Some(match source.raw_os_error() {
                Some(libc::ENOENT) => {
                    format!("{HAND_IN}; without it --network host and --network none still work")
                }
                Some(libc::EACCES | libc::EPERM) => {
                    "let users open it (as root: chmod 0666 /dev/net/tun); without it \
                     --network host and --network none still work"
                        .to_owned()
                }
                _ => "without it --network host and --network none still work".to_owned(),
            }),
            _ => None,
        }
    }

    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_port_reads_as_the_page_shows() {
        let error = Error::PrivilegedPort {
            port: 80,
            start: 1024,
            protocol: Protocol::Tcp,
            address: "0.0.0.0:80".parse().unwrap(),
        };
        assert_eq!(
            error.to_string(),
            "rootlessport cannot expose privileged port 80, you can add \
             'net.ipv4.ip_unprivileged_port_start=80' to /etc/sysctl.conf (currently 1024), or \
             choose a larger port number (>= 1024): listen tcp 0.0.0.0:80: bind: permission denied"
        );
    }

    #[test]
    fn too_many_ports_name_the_limit() {
        let error = Error::TooManyPorts {
            sockets: 20_000,
            limit: 4096,
        };
        assert_eq!(
            error.to_string(),
            "too many published ports: they take 20000 open files, and this session may have 4096, of which some are \
             needed otherwise"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn busy_port_reads_as_podman_says_it() {
        let error = Error::Bind {
            protocol: Protocol::Tcp,
            address: "0.0.0.0:8080".parse().unwrap(),
            holder: Some("nginx (pid 7)".into()),
            source: io::Error::from_raw_os_error(libc::EADDRINUSE),
        };
        assert_eq!(
            error.to_string(),
            "rootlessport listen tcp 0.0.0.0:8080: bind: address already in use"
        );
        assert_eq!(
            error.hint().as_deref(),
            Some("port 8080 is held by nginx (pid 7)")
        );
    }
}
