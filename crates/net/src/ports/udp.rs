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
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;
use smoltcp::time::{Duration, Instant};

use super::bind::Listener;
use super::datagram::{Local, To, receive, send_all};
use super::inner::InnerSockets;
use crate::control::{Direction, Flow, Kind as FlowKind};
use crate::poll::{Kind, Token};
use crate::recency::Recency;
use crate::slab::{Key, Slab};
use crate::stack::Io;
use crate::stack::packet;
use crate::stack::policy::Target;
use crate::stack::udp::{Datagram, Load, Train};
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
    by_address: HashMap<SocketAddr, Key>,
    clients: Slab<Client>,
    by_sender: HashMap<(Key, SocketAddr), Key>,
    by_inside: HashMap<(SocketAddr, SocketAddr), Key>,
    recency: Recency,
    turned_away: u64,
    /// Answers that are sent with the next, or at the end of the turn.
    train: Train,
    /// Where clients appear as the container itself.
    inner: Option<InnerSockets>,
    /// Whether the kernel cuts apart what is sent together there, as far as we know.
    inner_cuts: bool,
}

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    ipv6: bool,
    address: SocketAddr,
    container_port: u16,
    /// Whether the kernel cuts apart what is sent together, as far as we know.
    cuts: bool,
    /// How many there are.
    clients: usize,
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

impl UdpPorts {
    /// Whether clients on the host's loopback appear as the container; else as the gateway.
    pub(crate) fn has_inner_sockets(&self) -> bool {
        self.inner.is_some()
    }

    /// Lets clients on the host's loopback appear as the container.
    pub(crate) fn set_inner_sockets(&mut self, inner: InnerSockets) {
        self.inner = Some(inner);
        self.inner_cuts = true;
    }

    /// How many clients are known.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.clients, self.turned_away)
    }

    /// Serves a port no longer, and forgets its clients.
    pub(crate) fn remove(&mut self, io: &mut Io, address: SocketAddr) {
        let Some(key) = self.by_address.remove(&address) else {
            return;
        };
        let Some(port) = self.ports.remove(key) else {
            return;
        };
        io.poller.remove(&port.socket);
        // Of many ports few have clients.
        if port.clients > 0 {
            let clients = self.clients.iter().filter(|(_, client)| client.port == key);
            for client in clients.map(|(key, _)| key).collect::<Vec<_>>() {
                self.forget(io, client);
            }
        }
    }

    /// Who speaks to the ports.
    pub(crate) fn flows(&self, now: Instant, flows: &mut Vec<Flow>) {
        flows.extend(self.clients.iter().map(|(key, client)| Flow {
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
            idle_ms: Some((now - self.recency.last(key)).total_millis()),
        }));
    }

    /// Serves a bound port.
    pub(crate) fn add(&mut self, io: &Io, listener: Listener) -> std::io::Result<()> {
        let address = listener.address;
        let key = self.ports.insert(Port {
            ipv6: listener.address.is_ipv6(),
            address: listener.address,
            socket: listener.socket,
            container_port: listener.container_port,
            cuts: true,
            clients: 0,
        });
        self.by_address.insert(address, key);
        match self.ports.get(key) {
            Some(port) => io
                .poller
                .add_readable(&port.socket, Token::new(Kind::UdpPort, key)),
            None => Ok(()),
        }
    }

    /// Takes datagrams from clients.
    pub(crate) fn ready(&mut self, io: &mut Io, port_key: Key) {
        let Some(port) = self.ports.get(port_key) else {
            return;
        };
        // Without IPv6 in the container, its clients come in by IPv4.
        let address = io.policy.container(port.ipv6);
        let address = address.unwrap_or_else(|| io.policy.config().container_v4().into());
        let gateway = io.policy.gateway(address);
        let inside = SocketAddr::new(address, port.container_port);
        let mut load = Load::new(packet::udp_payload_at(inside));
        let mut of = None;
        for _ in 0..BATCH {
            let Some(port) = self.ports.get(port_key) else {
                return;
            };
            let (length, sender, local) = match receive(&port.socket, load.room(&mut io.buffer)) {
                Ok(Some(received)) => received,
                // An error of a datagram sent earlier: its client has gone.
                Ok(None) => continue,
                Err(_) => break,
            };
            let known = self.by_sender.get(&(port_key, sender)).copied();
            if known != of || !load.takes(length) || !self.goes_together(io, of) {
                self.deliver(io, of, &mut load);
            }
            let client = self.client(io, port_key, sender, local, inside, gateway);
            if let Some(key) = client
                && let Some(client) = self.clients.get_mut(key)
            {
                client.touch(io, key, &mut self.recency);
                client.received += length as u64;
                load.add(&mut io.buffer, length);
                of = Some(key);
            }
        }
        self.deliver(io, of, &mut load);
    }

    /// Whether datagrams of a client may come into the container together.
    fn goes_together(&self, io: &Io, client: Option<Key>) -> bool {
        let client = client.and_then(|key| self.clients.get(key));
        match client.map(|client| &client.seen) {
            Some(Seen::Inner(_)) => true,
            _ => io.link.cuts_datagrams(),
        }
    }

    /// Brings what was received from a client into the container.
    fn deliver(&mut self, io: &mut Io, client: Option<Key>, load: &mut Load) {
        let Some(client) = client.and_then(|key| self.clients.get(key)) else {
            load.leave();
            return;
        };
        match &client.seen {
            Seen::As(seen) => io.send_load(load, *seen, client.inside),
            Seen::Inner(socket) => {
                let at = packet::udp_payload_at(client.inside);
                if let Some((length, size)) = load.leave() {
                    let payload = &io.buffer[at..at + length];
                    send_all(socket, payload, size, To::Peer, &mut self.inner_cuts);
                }
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
        if let Some(port) = self.ports.get_mut(port) {
            port.clients += 1;
        }
        self.recency.touch(key, false, io.now);
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
        self.answer(key, datagram.payload, segment, io.more_frames);
        if let Some(client) = self.clients.get_mut(key) {
            client.touch(io, key, &mut self.recency);
        }
        true
    }

    /// Sends an answer to a client, which may stand for several, each of `segment` bytes but the last; with others of
    /// its kind where more may come right after it.
    fn answer(&mut self, key: Key, payload: &[u8], segment: Option<u16>, more: bool) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.sent += payload.len() as u64;
        let cuts = self.ports.get(client.port).is_some_and(|port| port.cuts);
        // Alone, or empty, or to be cut apart already: nothing to gain by waiting.
        let can_wait = cuts && segment.is_none() && !payload.is_empty();
        let waits = can_wait && (more || self.train.is_of(key));
        if !waits || !self.train.takes(key, payload) {
            self.flush();
        }
        if waits {
            self.train.add(key, payload);
            if !more {
                self.flush();
            }
            return;
        }
        self.send(key, payload, segment);
    }

    /// Sends what waits for more of its kind.
    pub(crate) fn flush(&mut self) {
        if let Some(key) = self.train.leave() {
            let train = std::mem::take(&mut self.train);
            let (payloads, size) = train.load();
            self.send(key, payloads, u16::try_from(size).ok());
            self.train = train;
        }
    }

    /// Sends datagrams to a client, each of `segment` bytes but the last.
    fn send(&mut self, key: Key, payload: &[u8], segment: Option<u16>) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let Some(port) = self.ports.get_mut(client.port) else {
            return;
        };
        let size = segment.map_or(payload.len(), usize::from);
        let to = To::Client(client.sender, client.local);
        send_all(&port.socket, payload, size, to, &mut port.cuts);
    }

    /// Takes answers of a server to a client that has a socket inside.
    pub(crate) fn inner_ready(&mut self, io: &mut Io, key: Key) {
        for turn in 1..=BATCH {
            let Some(Seen::Inner(socket)) = self.clients.get(key).map(|client| &client.seen) else {
                return;
            };
            match rustix::net::recv(socket, &mut io.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    self.answer(key, &io.buffer[..length], None, turn < BATCH);
                    if let Some(client) = self.clients.get_mut(key) {
                        client.touch(io, key, &mut self.recency);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                // Nobody listens inside: the client on the host cannot be told.
                Err(_) => {}
            }
        }
        self.flush();
    }

    fn forget(&mut self, io: &mut Io, key: Key) {
        if let Some(client) = self.clients.remove(key) {
            client
                .expiry
                .cancel(Token::new(Kind::UdpPort, key), &mut io.timers);
            self.by_sender.remove(&(client.port, client.sender));
            if let Some(port) = self.ports.get_mut(client.port) {
                port.clients -= 1;
            }
            self.recency.remove(key);
            if let Seen::As(seen) = client.seen {
                self.by_inside.remove(&(client.inside, seen));
            }
        }
    }

    fn forget_quietest(&mut self, io: &mut Io) {
        if let Some(key) = self.recency.quietest() {
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
    fn touch(&mut self, io: &mut Io, key: Key, recency: &mut Recency) {
        recency.touch(key, self.sent > 0, io.now);
        let token = Token::new(Kind::UdpPort, key);
        self.expiry
            .set(Some(io.now + LIFETIME), token, &mut io.timers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn answers_that_leave_together_arrive_apart() {
        let (port, far) = (
            UdpSocket::bind("127.0.0.1:0"),
            UdpSocket::bind("127.0.0.1:0"),
        );
        let (port, far) = (port.unwrap(), far.unwrap());
        far.set_nonblocking(true).unwrap();
        let mut ports = UdpPorts::default();
        let address = port.local_addr().unwrap();
        let port = ports.ports.insert(Port {
            socket: port.into(),
            ipv6: false,
            address,
            container_port: 53,
            cuts: true,
            clients: 1,
        });
        let inside = "10.0.2.100:53".parse().unwrap();
        let client = ports.clients.insert(Client {
            port,
            sender: far.local_addr().unwrap(),
            local: Local::Unknown,
            inside,
            seen: Seen::As("192.0.2.1:9".parse().unwrap()),
            sent: 0,
            received: 0,
            expiry: Deadline::default(),
        });
        let mut buffer = [0; 2000];
        let mut received = || {
            far.recv(&mut buffer)
                .map(|length| buffer[..length].to_vec())
        };
        for cuts in [true, false] {
            if let Some(port) = ports.ports.get_mut(port) {
                port.cuts = cuts;
            }
            for (payload, more) in [
                ("aa", true),
                ("bb", true),
                ("c", true),
                ("ddd", true),
                ("", true),
                ("e", false),
            ] {
                ports.answer(client, payload.as_bytes(), None, more);
            }
            ports.answer(client, b"112233", Some(2), true);
            for expected in ["aa", "bb", "c", "ddd", "", "e", "11", "22", "33"] {
                assert_eq!(received().unwrap(), expected.as_bytes());
            }
        }
        // One that waits for more leaves at the end of the turn.
        if let Some(port) = ports.ports.get_mut(port) {
            port.cuts = true;
        }
        ports.answer(client, b"alone", None, true);
        assert!(received().is_err());
        ports.flush();
        assert_eq!(received().unwrap(), b"alone");
        assert_eq!(
            ports.clients.get(client).unwrap().sent,
            2 * (2 + 2 + 1 + 3 + 1 + 6) + 5
        );
    }
}
