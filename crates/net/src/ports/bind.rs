//! Binding published ports on the host, before the container starts.
//!
//! A port without a host address is bound twice, on 0.0.0.0 and on `[::]` with IPV6_V6ONLY, so that
//! what is listening is what is written and IPv4 clients never appear as `::ffff:` addresses.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt as nix_opt};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::holder;
use super::rows::{self, Withdrawn};
use crate::channel::Place;
use crate::error::{Error, Result};
use crate::ports::mapping::{PortMapping, Protocol};

/// The queue of clients not yet accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How often another port is tried when the kernel's choice for one family is taken in the other.
const RANDOM_PORT_ATTEMPTS: u32 = 16;
/// What else a process with published ports has open, and some room for connections, in descriptors: an eighth of what is
/// usual (RLIMIT_NOFILE of 1024).
const OTHER_DESCRIPTORS: u64 = 128;

/// The bound sockets of a container's published ports.
#[derive(Debug, Default)]
pub struct Listeners {
    pub(crate) sockets: Vec<Listener>,
    mappings: Vec<PortMapping>,
}

impl Listeners {
    /// The mappings as they came to be: every host port is a real one. A range whose host ports
    /// the kernel chose is given as single ports.
    pub fn mappings(&self) -> &[PortMapping] {
        &self.mappings
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Whether a TCP port is among them.
    pub(crate) fn has_tcp(&self) -> bool {
        let tcp = |listener: &Listener| listener.protocol == Protocol::Tcp;
        self.sockets.iter().any(tcp)
    }

    /// Takes over those of another.
    pub(crate) fn append(&mut self, mut other: Listeners) {
        self.sockets.append(&mut other.sockets);
        self.mappings.append(&mut other.mappings);
    }

    /// Gives up ports: all that are meant, or none.
    ///
    /// # Errors
    /// [`Error::Publish`] for a port that is not published.
    pub(crate) fn remove(&mut self, unwanted: &[PortMapping]) -> Result<Vec<Listener>> {
        let Withdrawn { left, gone } = rows::withdraw(&self.mappings, unwanted)
            .map_err(|missing| Error::Publish(format!("port {missing} is not published")))?;
        self.mappings = left;
        let gone: HashSet<Place> = gone.iter().flat_map(places).collect();
        let (out, kept) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|listener| gone.contains(&listener.place()));
        self.sockets = kept;
        Ok(out)
    }

    /// The sockets, for a process that passes them on or must keep them open.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|listener| listener.socket.as_fd())
    }
}

/// One bound socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    pub(crate) container_port: u16,
}

impl Listener {
    pub(crate) fn of(place: Place, socket: OwnedFd) -> Listener {
        Listener {
            socket,
            protocol: place.protocol,
            address: place.address,
            container_port: place.container_port,
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            protocol: self.protocol,
            address: self.address,
            container_port: self.container_port,
        }
    }
}

/// Where a mapping listens: each of its ports at its address, or at all of both families.
fn places(mapping: &PortMapping) -> impl Iterator<Item = Place> {
    let addresses = addresses(mapping);
    mapping.singles().flat_map(move |port| {
        addresses.clone().into_iter().map(move |ip| Place {
            protocol: port.protocol,
            address: SocketAddr::new(ip, port.host_port),
            container_port: port.container_port,
        })
    })
}

fn addresses(mapping: &PortMapping) -> Vec<IpAddr> {
    match mapping.host_ip {
        Some(ip) => vec![ip],
        None => vec![
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
    }
}

/// Binds every port, or none.
///
/// # Errors
/// [`Error::PrivilegedPort`] and [`Error::Bind`], as podman words them; [`Error::TooManyPorts`].
pub fn bind(ports: &[PortMapping]) -> Result<Listeners> {
    bind_beside(ports, 0)
}

/// The same in a process that has listening sockets already, so many.
pub(crate) fn bind_beside(ports: &[PortMapping], already: usize) -> Result<Listeners> {
    make_room(ports, already)?;
    let mut listeners = Listeners::default();
    for mapping in ports {
        if mapping.host_port != 0 {
            for offset in 0..mapping.range {
                let host_port = mapping.host_port.saturating_add(offset);
                listeners
                    .add(mapping, offset, host_port)
                    .map_err(|refusal| refusal.explain())?;
            }
            listeners.mappings.push(mapping.clone());
        } else {
            for offset in 0..mapping.range {
                let host_port = listeners.add_random(mapping, offset)?;
                listeners.mappings.push(PortMapping {
                    host_port,
                    container_port: mapping.container_port.saturating_add(offset),
                    range: 1,
                    ..mapping.clone()
                });
            }
        }
    }
    Ok(listeners)
}

/// Sees to it that this process may have a descriptor for each port: it may be given more of them, up to the hard limit.
fn make_room(ports: &[PortMapping], already: usize) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    let sockets = |any_address: u64| {
        let each = ports.iter().map(|port| match port.host_ip {
            Some(_) => u64::from(port.range),
            None => u64::from(port.range) * any_address,
        });
        already as u64 + each.sum::<u64>()
    };
    if sockets(2) + OTHER_DESCRIPTORS <= soft {
        return Ok(());
    }
    // Where that fails, binding says so.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let families = match Path::new("/proc/net/if_inet6").exists() {
        true => 2,
        false => 1,
    };
    match sockets(families) + OTHER_DESCRIPTORS > hard {
        true => Err(Error::TooManyPorts {
            sockets: sockets(families),
            limit: hard,
        }),
        false => Ok(()),
    }
}

impl Listeners {
    /// Binds one port of a mapping on every address it asks for; gives the port, which the kernel
    /// chose if `host_port` is 0.
    fn add(
        &mut self,
        mapping: &PortMapping,
        offset: u16,
        host_port: u16,
    ) -> std::result::Result<u16, Refusal> {
        let mut bound = Vec::new();
        let mut port = host_port;
        for ip in addresses(mapping) {
            let address = SocketAddr::new(ip, port);
            match open(mapping.protocol, address) {
                Ok((socket, address)) => {
                    port = address.port();
                    bound.push(Listener {
                        socket,
                        protocol: mapping.protocol,
                        address,
                        container_port: mapping.container_port.saturating_add(offset),
                    });
                }
                // Nobody asked for IPv6 in so many words: without it IPv4 is all there is.
                Err(error)
                    if mapping.host_ip.is_none()
                        && ip.is_ipv6()
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                        ) => {}
                Err(source) => {
                    return Err(Refusal {
                        protocol: mapping.protocol,
                        address,
                        source,
                    });
                }
            }
        }
        self.sockets.append(&mut bound);
        Ok(port)
    }

    /// Binds a port of the kernel's choice, the same in both families.
    fn add_random(&mut self, mapping: &PortMapping, offset: u16) -> Result<u16> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.add(mapping, offset, 0) {
                Err(refusal)
                    if refusal.source.raw_os_error() == Some(libc::EADDRINUSE)
                        && attempt < RANDOM_PORT_ATTEMPTS => {}
                result => return result.map_err(|refusal| refusal.explain()),
            }
        }
    }
}

fn open(protocol: Protocol, address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match protocol {
        Protocol::Tcp => sockopt::set_socket_reuseaddr(&socket, true)?,
        // The reply must leave from the address the client wrote to.
        Protocol::Udp if address.is_ipv4() => {
            setsockopt(&socket, nix_opt::Ipv4PacketInfo, &true)?;
        }
        Protocol::Udp => setsockopt(&socket, nix_opt::Ipv6RecvPacketInfo, &true)?,
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)
        .map_err(|_| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    Ok((socket, bound))
}

/// What could not be bound, and what the kernel says of it.
struct Refusal {
    protocol: Protocol,
    address: SocketAddr,
    source: io::Error,
}

impl Refusal {
    /// Puts it into the words users of podman know. Who holds a port is looked for in all of /proc: that is for the one
    /// refusal that is told.
    fn explain(self) -> Error {
        let Refusal {
            protocol,
            address,
            source,
        } = self;
        match source.raw_os_error() {
            Some(libc::EACCES) if address.port() < unprivileged_port_start() => {
                Error::PrivilegedPort {
                    port: address.port(),
                    start: unprivileged_port_start(),
                    protocol,
                    address,
                }
            }
            Some(libc::EADDRINUSE) => Error::Bind {
                protocol,
                address,
                holder: holder::of_port(protocol, address.port()),
                source,
            },
            _ => Error::Bind {
                protocol,
                address,
                holder: None,
                source,
            },
        }
    }
}

/// The first port that needs no privilege (ip-sysctl: ip_unprivileged_port_start), 1024 by default.
fn unprivileged_port_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_port_becomes_a_real_one_and_a_busy_one_names_its_holder() {
        let random = PortMapping::parse("127.0.0.1::80").unwrap();
        let listeners = bind(&random).unwrap();
        let port = listeners.mappings()[0].host_port;
        assert_ne!(port, 0);
        assert_eq!(listeners.fds().count(), 1);

        let again = PortMapping::parse(&format!("127.0.0.1:{port}:80")).unwrap();
        let error = bind(&again).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("rootlessport listen tcp 127.0.0.1:{port}: bind: address already in use")
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.contains(&format!("(pid {})", std::process::id())),
            "{hint}"
        );
    }

    #[test]
    fn ports_are_given_up_one_by_one_or_not_at_all() {
        let parse = |text: &str| PortMapping::parse(text).unwrap();
        let mut listeners = bind(&parse("127.0.0.1::5000-5002/udp")).unwrap();
        listeners.append(bind(&parse("127.0.0.1::80")).unwrap());
        let host_port = listeners.mappings()[1].host_port;
        let error = listeners.remove(&parse("5000/tcp")).unwrap_err();
        assert_eq!(error.to_string(), "port 5000/tcp is not published");
        let wrong = [parse("80"), parse("81")].concat();
        assert!(listeners.remove(&wrong).is_err());
        assert_eq!(listeners.fds().count(), 4);
        let gone = listeners
            .remove(&parse(&format!("{host_port}:5001/udp")))
            .unwrap();
        assert_eq!((gone.len(), gone[0].container_port), (1, 5001));
        let left: Vec<u16> = listeners
            .mappings()
            .iter()
            .map(|m| m.container_port)
            .collect();
        assert_eq!(left, [5000, 5002, 80]);
        assert_eq!(listeners.remove(&parse("127.0.0.1::80")).unwrap().len(), 1);
        assert!(listeners.remove(&parse("80")).is_err());
        assert!(!listeners.has_tcp() && listeners.sockets.len() == 2);
    }

    #[test]
    fn a_port_of_many_leaves_rows_and_their_sockets() {
        let parse = |text: &str| PortMapping::parse(text).unwrap();
        // Of these, some are likely to be held by others; which of them is not the point.
        let base = (20_000..60_000).step_by(40).find_map(|first| {
            let text = format!("127.0.0.1:{first}-{}:1-20", first + 19);
            Some((first, bind(&parse(&text)).ok()?))
        });
        let (first, mut listeners) = base.unwrap();
        let gone = listeners.remove(&parse("5-6")).unwrap();
        let ports: Vec<u16> = gone.iter().map(|gone| gone.address.port()).collect();
        assert_eq!(ports, [first + 4, first + 5]);
        let left: Vec<String> = listeners.mappings().iter().map(|m| m.to_string()).collect();
        let expected = [
            format!("127.0.0.1:{first}-{}:1-4/tcp", first + 3),
            format!("127.0.0.1:{}-{}:7-20/tcp", first + 6, first + 19),
        ];
        assert_eq!(left, expected);
        assert_eq!(listeners.sockets.len(), 18);
    }

    #[test]
    fn a_range_is_bound_port_by_port() {
        let udp = PortMapping::parse("127.0.0.1::5000-5002/udp").unwrap();
        let listeners = bind(&udp).unwrap();
        let inside: Vec<u16> = listeners
            .mappings()
            .iter()
            .map(|mapping| mapping.container_port)
            .collect();
        assert_eq!(inside, [5000, 5001, 5002]);
    }
}
