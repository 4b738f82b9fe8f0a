//! Published UDP ports: datagrams go into the container by the tap, from their sender's address.
//!
//! The server in the container sees the client itself, and its answer comes back by the default
//! route into this same stack, which knows whom it belongs to. Answers leave the host from the
//! very address that the client wrote to.
//!
//! A client whose address would mean something else in the container (the host's loopback, an
//! address of the container's own network) appears as the container itself, by a socket inside,
//! or as the gateway: see [`crate::PortHandler`].

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};
use rustix::net::RecvFlags;
use smoltcp::time::{Duration, Instant};

use super::bind::Listener;
use super::inner::InnerSockets;
use crate::control::{Direction, Flow, Kind as FlowKind};
use crate::poll::{Kind, Token};
use crate::slab::{Key, Slab};
use crate::stack::Io;
use crate::stack::link::{HEADROOM, MAX_PACKET};
use crate::stack::packet;
use crate::stack::policy::Target;
use crate::stack::udp::{self, Datagram};
use crate::stack::usage::Usage;
use crate::timers::Deadline;

/// How long a client is remembered after its last datagram in either direction: as long as a
/// flow out that was answered.
const LIFETIME: Duration = Duration::from_secs(180);
/// How many datagrams are taken from one port in one turn, so that no port starves the others.
const BATCH: usize = 64;
/// How many other ports are tried for a client whose own is taken by another behind the gateway:
/// few ports in a row are taken, and no more work than this is done for one datagram.
const PORT_ATTEMPTS: u16 = 64;

/// The published UDP ports, and who speaks to them.
#[derive(Debug, Default)]
pub(crate) struct UdpPorts {
    ports: Slab<Port>,
    clients: Slab<Client>,
    by_sender: HashMap<(Key, SocketAddr), Key>,
    by_inside: HashMap<(SocketAddr, SocketAddr), Key>,
    turned_away: u64,
    /// Where clients appear as the container itself.
    inner: Option<InnerSockets>,
}

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    ipv6: bool,
    address: SocketAddr,
    container_port: u16,
}

#[derive(Debug)]
struct Client {
    port: Key,
    /// Where it is, and which of the host's addresses it wrote to.
    sender: SocketAddr,
    local: Local,
    /// The server, and the client as the server sees it.
    inside: SocketAddr,
    seen: Seen,
    /// Bytes of its datagrams, from the server and to it.
    sent: u64,
    received: u64,
    last: Instant,
    expiry: Deadline,
}

/// How a client appears in the container.
#[derive(Debug)]
enum Seen {
    /// By an address; its datagrams go in by the tap.
    As(SocketAddr),
    /// As the container; its datagrams go in by a socket there.
    Inner(OwnedFd),
}

/// The host's address that a datagram came to.
#[derive(Clone, Copy, Debug)]
enum Local {
    V4(libc::in_addr),
    V6(libc::in6_pktinfo),
    Unknown,
}

impl UdpPorts {
    /// Whether clients on the host's loopback appear as the container; else as the gateway.
    pub(crate) fn has_inner_sockets(&self) -> bool {
        self.inner.is_some()
    }

    /// Lets clients on the host's loopback appear as the container.
    pub(crate) fn set_inner_sockets(&mut self, inner: InnerSockets) {
        self.inner = Some(inner);
    }

    /// How many clients are known.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.clients, self.turned_away)
    }

    /// Serves a port no longer, and forgets its clients.
    pub(crate) fn remove(&mut self, io: &mut Io, address: SocketAddr) {
        let found = |(_, port): &(Key, &Port)| port.address == address;
        let Some(key) = self.ports.iter().find(found).map(|(key, _)| key) else {
            return;
        };
        let clients = self.clients.iter().filter(|(_, client)| client.port == key);
        for client in clients.map(|(key, _)| key).collect::<Vec<_>>() {
            self.forget(io, client);
        }
        if let Some(port) = self.ports.remove(key) {
            io.poller.remove(&port.socket);
        }
    }

    /// Who speaks to the ports.
    pub(crate) fn flows(&self, now: Instant, flows: &mut Vec<Flow>) {
        flows.extend(self.clients.iter().map(|(_, client)| Flow {
            kind: FlowKind::Udp,
            direction: Direction::In,
            state: match client.sent {
                0 => "unanswered".into(),
                _ => "open".into(),
            },
            container: client.inside,
            peer: client.sender,
            host: self.ports.get(client.port).map(|port| port.address),
            sent: Some(client.sent),
            received: Some(client.received),
            idle_ms: Some((now - client.last).total_millis()),
        }));
    }

    /// Serves a bound port.
    pub(crate) fn add(&mut self, io: &Io, listener: Listener) -> std::io::Result<()> {
        let key = self.ports.insert(Port {
            ipv6: listener.address.is_ipv6(),
            address: listener.address,
            socket: listener.socket,
            container_port: listener.container_port,
        });
        match self.ports.get(key) {
            Some(port) => io
                .poller
                .add_readable(&port.socket, Token::new(Kind::UdpPort, key)),
            None => Ok(()),
        }
    }

    /// Takes datagrams from clients.
    pub(crate) fn ready(&mut self, io: &mut Io, port_key: Key) {
        for _ in 0..BATCH {
            let Some(port) = self.ports.get(port_key) else {
                return;
            };
            // Without IPv6 in the container, its clients come in by IPv4.
            let (inside, gateway) = match io.policy.container(port.ipv6) {
                Some(address) => (address, io.policy.gateway(address)),
                None => {
                    let address = io.policy.config().container_v4().into();
                    (address, io.policy.gateway(address))
                }
            };
            let inside = SocketAddr::new(inside, port.container_port);
            let at = packet::udp_payload_at(inside);
            let room = &mut io.buffer[at..HEADROOM + MAX_PACKET];
            match receive(&port.socket, room) {
                Ok(Some((length, sender, local))) => {
                    let client = self.client(io, port_key, sender, local, inside, gateway);
                    if let Some(key) = client
                        && let Some(client) = self.clients.get_mut(key)
                    {
                        client.touch(io, key);
                        client.received += length as u64;
                        match &client.seen {
                            Seen::As(seen) => io.send_udp(*seen, inside, length),
                            Seen::Inner(socket) => {
                                // One that cannot be delivered is lost, as datagrams are.
                                let _ = udp::send(socket, &io.buffer[at..at + length]);
                            }
                        }
                    }
                }
                // An error of a datagram sent earlier: its client has gone.
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    /// The client that a datagram came from, remembered or new.
    fn client(
        &mut self,
        io: &mut Io,
        port: Key,
        sender: SocketAddr,
        local: Local,
        inside: SocketAddr,
        gateway: IpAddr,
    ) -> Option<Key> {
        if let Some(key) = self.by_sender.get(&(port, sender)) {
            return Some(*key);
        }
        let known = matches!(io.policy.target(sender.ip()), Target::Outside(_))
            && sender.is_ipv4() == inside.is_ipv4();
        if self.clients.len() >= io.limits.udp_clients {
            self.forget_quietest(io);
        }
        let seen = match (known, &self.inner) {
            (true, _) => Seen::As(self.free_place(inside, sender)?),
            (false, Some(inner)) => Seen::Inner(inner.datagram(inside).ok()?),
            (false, None) => {
                let seen = SocketAddr::new(gateway, sender.port());
                Seen::As(self.free_place(inside, seen)?)
            }
        };
        let place = match seen {
            Seen::As(seen) => Some(seen),
            Seen::Inner(_) => None,
        };
        let key = self.clients.insert(Client {
            port,
            sender,
            local,
            inside,
            seen,
            sent: 0,
            received: 0,
            last: io.now,
            expiry: Deadline::default(),
        });
        if let Some(Seen::Inner(socket)) = self.clients.get(key).map(|client| &client.seen) {
            let token = Token::new(Kind::UdpInner, key);
            if io.poller.add_readable(socket, token).is_err() {
                self.clients.remove(key);
                return None;
            }
        }
        self.by_sender.insert((port, sender), key);
        if let Some(seen) = place {
            self.by_inside.insert((inside, seen), key);
        }
        Some(key)
    }

    /// An address for a client that no other client of the same server has: its own if that is
    /// free, else with another port.
    fn free_place(&self, inside: SocketAddr, wanted: SocketAddr) -> Option<SocketAddr> {
        (0..=PORT_ATTEMPTS)
            .map(|step| SocketAddr::new(wanted.ip(), wanted.port().wrapping_add(step)))
            .find(|seen| seen.port() != 0 && !self.by_inside.contains_key(&(inside, *seen)))
    }

    /// Passes an answer of a server on to its client; false when the datagram is none.
    pub(crate) fn reply(
        &mut self,
        io: &mut Io,
        datagram: &Datagram<'_>,
        segment: Option<u16>,
    ) -> bool {
        let name = (datagram.source, datagram.destination);
        let Some(key) = self.by_inside.get(&name).copied() else {
            return false;
        };
        if let Some(client) = self.clients.get_mut(key)
            && let Some(port) = self.ports.get(client.port)
        {
            for payload in datagram.segments(segment) {
                // One that cannot be sent is lost, as datagrams are.
                let _ = send(&port.socket, payload, client.sender, client.local);
                client.sent += payload.len() as u64;
            }
            client.touch(io, key);
        }
        true
    }

    /// Takes answers of a server to a client that has a socket inside.
    pub(crate) fn inner_ready(&mut self, io: &mut Io, key: Key) {
        for _ in 0..BATCH {
            let Some(client) = self.clients.get_mut(key) else {
                return;
            };
            let (Seen::Inner(socket), Some(port)) = (&client.seen, self.ports.get(client.port))
            else {
                return;
            };
            match rustix::net::recv(socket, &mut io.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    let payload = &io.buffer[..length];
                    let _ = send(&port.socket, payload, client.sender, client.local);
                    client.sent += length as u64;
                    client.touch(io, key);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                // Nobody listens inside: the client on the host cannot be told.
                Err(_) => {}
            }
        }
    }

    fn forget(&mut self, io: &mut Io, key: Key) {
        if let Some(client) = self.clients.remove(key) {
            client
                .expiry
                .cancel(Token::new(Kind::UdpPort, key), &mut io.timers);
            self.by_sender.remove(&(client.port, client.sender));
            if let Seen::As(seen) = client.seen {
                self.by_inside.remove(&(client.inside, seen));
            }
        }
    }

    fn forget_quietest(&mut self, io: &mut Io) {
        let quietest = self
            .by_sender
            .values()
            .copied()
            .min_by_key(|key| self.clients.get(*key).map(|client| client.last));
        if let Some(key) = quietest {
            self.turned_away += 1;
            self.forget(io, key);
        }
    }

    /// Forgets a client whose time has come.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::UdpPort, key);
        let due = self
            .clients
            .get_mut(key)
            .is_some_and(|client| client.expiry.reached(io.now, token, &mut io.timers));
        if due {
            self.forget(io, key);
        }
    }
}

impl Client {
    fn touch(&mut self, io: &mut Io, key: Key) {
        self.last = io.now;
        let token = Token::new(Kind::UdpPort, key);
        self.expiry
            .set(Some(io.now + LIFETIME), token, &mut io.timers);
    }
}

/// Receives a datagram: its length, who sent it, and which of our addresses it came to. `None`
/// when there was an error about another one instead.
fn receive(socket: &OwnedFd, room: &mut [u8]) -> Result<Option<(usize, SocketAddr, Local)>, Errno> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(room)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    );
    let message = match received {
        Ok(message) => message,
        Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut local = Local::Unknown;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info.ipi_spec_dst),
            ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
            _ => {}
        }
    }
    let Some(sender) = message.address.as_ref().and_then(address) else {
        return Ok(None);
    };
    Ok(Some((message.bytes, sender, local)))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}

/// Sends a datagram from the address that the client wrote to.
fn send(socket: &OwnedFd, payload: &[u8], to: SocketAddr, local: Local) -> Result<usize, Errno> {
    let slices = [std::io::IoSlice::new(payload)];
    let to = SockaddrStorage::from(to);
    let flags = MsgFlags::MSG_NOSIGNAL;
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &slices, control, flags, Some(&to))
    };
    match local {
        Local::V4(address) => send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: address,
            ipi_addr: libc::in_addr { s_addr: 0 },
        })]),
        Local::V6(info) => send(&[ControlMessage::Ipv6PacketInfo(&info)]),
        Local::Unknown => send(&[]),
    }
}
