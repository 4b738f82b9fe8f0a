//! The seam between flows and sockets: how the network reaches what is outside of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt as nix_opt};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::config::{Config, Outbound};

/// Makes sockets towards the outside, all of them non-blocking.
pub(crate) trait Outside {
    /// Begins to connect a stream; it is writable when that is decided (connect(2), EINPROGRESS).
    fn stream(&self, to: SocketAddr) -> io::Result<OwnedFd>;

    /// Makes a connected datagram socket: it takes datagrams from `to` only, and learns of errors. It has `port`, if that
    /// is one that another socket made by this has, and can be had.
    fn datagram(&self, to: SocketAddr, port: Option<u16>) -> io::Result<OwnedFd>;

    /// Makes a socket for pings to an address (icmp(7): unprivileged where the host allows it).
    fn echo(&self, to: IpAddr) -> io::Result<OwnedFd>;
}

/// Sockets of the host.
#[derive(Debug)]
pub(crate) struct HostSockets {
    from_v4: Option<Outbound>,
    from_v6: Option<Outbound>,
}

impl HostSockets {
    pub(crate) fn new(config: &Config) -> HostSockets {
        HostSockets {
            from_v4: config.outbound_addr.clone(),
            from_v6: config.outbound_addr6.clone(),
        }
    }

    fn socket(
        &self,
        to: IpAddr,
        kind: SocketType,
        protocol: Option<rustix::net::Protocol>,
        port: u16,
    ) -> io::Result<OwnedFd> {
        let family = match to {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, protocol)?;
        if port != 0 {
            sockopt::set_socket_reuseport(&socket, true)?;
        }
        // The host's own loopback is only reached from the loopback.
        match to.is_loopback() {
            true => bind_any(&socket, to, port)?,
            false => self.leave_from(&socket, to, port)?,
        }
        Ok(socket)
    }

    /// A connected datagram socket with a port that another has already (SO_REUSEPORT, socket(7)).
    fn datagram_from(&self, port: u16, to: SocketAddr) -> io::Result<OwnedFd> {
        let socket = self.socket(to.ip(), SocketType::DGRAM, None, port)?;
        rustix::net::connect(&socket, &to)?;
        // What came in between may be of anybody.
        while rustix::net::recv(&socket, &mut [0; 1], RecvFlags::empty()).is_ok() {}
        Ok(socket)
    }

    fn leave_from(&self, socket: &OwnedFd, to: IpAddr, port: u16) -> io::Result<()> {
        let from = match to {
            IpAddr::V4(_) => &self.from_v4,
            IpAddr::V6(_) => &self.from_v6,
        };
        match from {
            None => bind_any(socket, to, port),
            Some(Outbound::Address(address)) => {
                if is_stream(socket)? {
                    // The port is chosen by connect, of all that are free towards there (ip(7)).
                    set_bind_address_no_port(socket)?;
                }
                Ok(rustix::net::bind(socket, &SocketAddr::new(*address, port))?)
            }
            Some(Outbound::Interface(name)) => {
                setsockopt(socket, nix_opt::BindToDevice, &name.into())?;
                bind_any(socket, to, port)
            }
        }
    }
}

/// Gives a socket a port, unless that is 0: then it gets one when it is connected.
fn bind_any(socket: &OwnedFd, to: IpAddr, port: u16) -> io::Result<()> {
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    match port {
        0 => Ok(()),
        _ => Ok(rustix::net::bind(socket, &SocketAddr::new(any, port))?),
    }
}

fn is_stream(socket: &OwnedFd) -> io::Result<bool> {
    Ok(sockopt::socket_type(socket)? == SocketType::STREAM)
}

fn set_bind_address_no_port(socket: &OwnedFd) -> io::Result<()> {
    Ok(setsockopt(socket, nix_opt::IpBindAddressNoPort, &true)?)
}

impl Outside for HostSockets {
    fn stream(&self, to: SocketAddr) -> io::Result<OwnedFd> {
        let socket = self.socket(to.ip(), SocketType::STREAM, None, 0)?;
        // Whatever is to be sent was a segment of its own already.
        sockopt::set_tcp_nodelay(&socket, true)?;
        keep_urgent_bytes(&socket)?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    fn datagram(&self, to: SocketAddr, port: Option<u16>) -> io::Result<OwnedFd> {
        if let Some(port) = port
            && let Ok(socket) = self.datagram_from(port, to)
        {
            return Ok(socket);
        }
        let socket = self.socket(to.ip(), SocketType::DGRAM, None, 0)?;
        rustix::net::connect(&socket, &to)?;
        // After the kernel has chosen a port that nobody has, not before: others of this user may join it from now on.
        sockopt::set_socket_reuseport(&socket, true)?;
        Ok(socket)
    }

    fn echo(&self, to: IpAddr) -> io::Result<OwnedFd> {
        let protocol = match to {
            IpAddr::V4(_) => ipproto::ICMP,
            IpAddr::V6(_) => ipproto::ICMPV6,
        };
        let socket = self.socket(to, SocketType::DGRAM, Some(protocol), 0)?;
        rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
        Ok(socket)
    }
}

/// Has urgent bytes of a stream come in their place, not beside it, where they would be lost on the
/// way: the one thing to do with them that is safe (RFC 6093 §5, §6).
pub(crate) fn keep_urgent_bytes(stream: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_oobinline(stream, true)?)
}

/// Has the kernel ask the other end of a stream from time to time whether it is there still, beginning now, because somebody
/// who speaks through it has begun to after this time without a word (SO_KEEPALIVE, socket(7) and tcp(7)). After as many
/// questions without an answer as the host's administrator has chosen (tcp_keepalive_probes) the connection has failed.
pub(crate) fn keep_alive(stream: impl AsFd, idle: Duration) -> io::Result<()> {
    /// What the kernel takes at most (MAX_TCP_KEEPIDLE), in seconds.
    const LONGEST: u64 = 32767;
    /// How often the question is asked again without an answer, in seconds, as the kernel does (TCP_KEEPALIVE_INTVL);
    /// whoever asks more often in general hears of it sooner.
    const INTERVAL: u64 = 75;
    let idle = idle.as_secs().clamp(1, LONGEST);
    let again = (idle / 4).clamp(1, INTERVAL);
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(idle))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(again))?;
    Ok(sockopt::set_socket_keepalive(&stream, true)?)
}

/// The address and port that a socket has on the host.
pub(crate) fn local_address(socket: impl AsFd) -> Option<SocketAddr> {
    let name = rustix::net::getsockname(socket).ok()?;
    SocketAddr::try_from(name).ok()
}

/// Prepares a connected stream whose other end is on this machine: a path without loss, on which
/// a congestion control that paces (BBR) only costs time. Streams that leave the machine keep
/// what its administrator chose.
pub(crate) fn prefer_reno_if_local(stream: impl AsFd, far: IpAddr) {
    let near = || local_address(&stream).map(|near| near.ip());
    if is_loopback(far) || near() == Some(far) {
        prefer_reno(stream);
    }
}

/// Sets the congestion control of a stream whose other end is on this machine.
pub(crate) fn prefer_reno(stream: impl AsFd) {
    // Every user may choose it (ip-sysctl: tcp_allowed_congestion_control); else all stays as it is.
    let _ = sockopt::set_tcp_congestion(stream, "reno");
}

/// Whether the address is the loopback's, also when written as IPv6.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address == Ipv6Addr::LOCALHOST
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|address: Ipv4Addr| address.is_loopback())
        }
    }
}
