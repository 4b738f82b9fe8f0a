//! UDP to the outside: one connected host socket for each pair of endpoints.
//!
//! Connected, so that the kernel takes datagrams from nobody else and tells of ICMP errors, which
//! the container is told in turn.

mod train;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::time::{Duration, Instant};

use super::icmp::{self, Reason};
use super::link::MAX_PACKET;
use super::packet::{self, Packet, UDP_LEN};
use super::policy::Target;
use super::usage::Usage;
use super::{HEADROOM, Io};
use crate::control;
use crate::outside;
use crate::poll::{Kind, Token};
use crate::recency::Recency;
use crate::slab::{Key, Slab};
use crate::timers::Deadline;
pub(crate) use train::{LONGEST, Load, MOST_TOGETHER, Train};

/// How long a flow is kept that was never answered: as nf_conntrack_udp_timeout. The two minutes of RFC
/// 4787 REQ-5 are for those that are.
const UNANSWERED: Duration = Duration::from_secs(30);
/// How long a flow is kept that was answered (as nf_conntrack_udp_timeout_stream was for long).
const ANSWERED: Duration = Duration::from_secs(180);
/// How many datagrams of one flow are taken in one turn, so that no flow starves the others.
const BATCH: usize = 64;

/// A datagram from the container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Takes the payload of an IP packet apart; `None` when it is no UDP.
    pub(crate) fn parse(packet: &Packet<'a>) -> Option<Datagram<'a>> {
        let (source, destination) = packet.endpoints()?;
        let length = usize::from(packet::be16(packet.payload, 4)?);
        if source.port() == 0 || destination.port() == 0 {
            return None;
        }
        Some(Datagram {
            source,
            destination,
            payload: packet.payload.get(UDP_LEN..length)?,
        })
    }
}

/// The flows.
#[derive(Debug, Default)]
pub(crate) struct Udp {
    flows: Slab<Flow>,
    by_name: HashMap<Name, Key>,
    /// The port on the host of each of the container's endpoints, and how many flows it has: whomever it writes to, it is
    /// seen as the same (RFC 4787 REQ-1), by which two behind such networks find each other.
    places: HashMap<SocketAddr, (u16, usize)>,
    recency: Recency,
    turned_away: u64,
    /// What is sent with the next datagram, or at the end of the turn.
    train: Train,
}

/// The container's endpoint and that outside, as the container knows it.
type Name = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Flow {
    name: Name,
    socket: OwnedFd,
    answered: bool,
    /// By what length the kernel cuts what is sent; 0 if it does not. `None` where it cannot.
    cut: Option<u16>,
    /// Bytes of datagrams to the outside and from there.
    sent: u64,
    received: u64,
    expiry: Deadline,
}

impl Flow {
    /// Has the kernel cut what is sent from now on by a length, or not any more (0); false where it does not.
    fn cut_by(&mut self, size: usize) -> bool {
        let (Some(cut), Ok(size)) = (self.cut, u16::try_from(size)) else {
            return false;
        };
        if cut != size && setsockopt(&self.socket, sockopt::UdpGsoSegment, &size.into()).is_err() {
            self.cut = None;
            return false;
        }
        self.cut = Some(size);
        true
    }

    /// Sends one datagram.
    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.cut.is_some_and(|cut| payload.len() > cut.into()) {
            self.cut_by(0);
        }
        send(&self.socket, payload)?;
        self.sent += payload.len() as u64;
        Ok(())
    }

    /// Sends several, each of `size` bytes but the last: in one where that can be.
    fn send_all(&mut self, payloads: &[u8], size: usize) -> io::Result<()> {
        if payloads.len() > size && self.cut_by(size) {
            match send(&self.socket, payloads) {
                Err(error) if cannot_be_cut(&error) => {
                    self.cut_by(0);
                    self.cut = None;
                }
                result => {
                    self.sent += payloads.len() as u64;
                    return result;
                }
            }
        }
        payloads
            .chunks(size)
            .try_for_each(|payload| self.send(payload))
    }

    /// Sends one datagram, or all that it stands for, each of `segment` bytes but the last.
    fn send_segments(&mut self, payload: &[u8], segment: Option<u16>) -> io::Result<()> {
        let Some(segment) = segment.filter(|_| !payload.is_empty()) else {
            return self.send(payload);
        };
        let size = usize::from(segment).max(1);
        payload
            .chunks(size * MOST_TOGETHER)
            .try_for_each(|some| self.send_all(some, size))
    }

    fn touch(&mut self, io: &mut Io, key: Key, recency: &mut Recency) {
        let lifetime = match self.answered {
            true => ANSWERED,
            false => UNANSWERED,
        };
        recency.touch(key, self.answered, io.now);
        let token = Token::new(Kind::Udp, key);
        self.expiry
            .set(Some(io.now + lifetime), token, &mut io.timers);
    }
}

impl Udp {
    /// Sends a datagram to the outside.
    pub(crate) fn datagram(
        &mut self,
        io: &mut Io,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
        segment: Option<u16>,
    ) {
        let name = (datagram.source, datagram.destination);
        let key = match self.by_name.get(&name) {
            Some(key) => *key,
            None => match self.open(io, name) {
                Ok(key) => key,
                Err(Some(reason)) => return icmp::unreachable(io, reason, packet.whole),
                Err(None) => return,
            },
        };
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        // Alone, or empty, or cut apart already: nothing to gain by waiting.
        let waits = io.more_frames || self.train.is_of(key);
        if waits && flow.cut.is_some() && segment.is_none() && !datagram.payload.is_empty() {
            flow.touch(io, key, &mut self.recency);
            if !self.train.takes(key, datagram.payload) {
                self.flush(io);
            }
            self.train.add(key, datagram.payload);
            if !io.more_frames {
                self.flush(io);
            }
            return;
        }
        if self.train.is_of(key) {
            self.flush(io);
        }
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        if let Err(error) = flow.send_segments(datagram.payload, segment)
            && let Some(reason) = Reason::of(&error)
        {
            icmp::unreachable(io, reason, packet.whole);
        }
        flow.touch(io, key, &mut self.recency);
    }

    /// Sends what waits for more of its kind.
    pub(crate) fn flush(&mut self, io: &mut Io) {
        let Some(key) = self.train.leave() else {
            return;
        };
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let (payloads, size) = self.train.load();
        if let Err(error) = flow.send_all(payloads, size)
            && let Some(reason) = Reason::of(&error)
        {
            let (inside, outside) = flow.name;
            icmp::unreachable(io, reason, &icmp::quote_udp(inside, outside));
        }
    }

    /// How many flows there are.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.flows, self.turned_away)
    }

    /// Who speaks to whom.
    pub(crate) fn list(&self, now: Instant, flows: &mut Vec<control::Flow>) {
        flows.extend(self.flows.iter().map(|(key, flow)| control::Flow {
            kind: control::Kind::Udp,
            direction: control::Direction::Out,
            state: match flow.answered {
                true => "open".into(),
                false => "unanswered".into(),
            },
            container: flow.name.0,
            peer: flow.name.1,
            host: outside::local_address(&flow.socket),
            sent: Some(flow.sent),
            received: Some(flow.received),
            idle_ms: Some((now - self.recency.last(key)).total_millis()),
        }));
    }

    /// Opens a flow; else says why the destination cannot be reached, if that is why.
    fn open(&mut self, io: &mut Io, name: Name) -> Result<Key, Option<Reason>> {
        let address = match io.policy.target(name.1.ip()) {
            Target::Outside(address) | Target::HostLoopback(address) => address,
            Target::Gateway | Target::Dns => return Err(Some(Reason::Port)),
            Target::Nobody => return Err(Some(Reason::Host)),
            Target::Prohibited => return Err(Some(Reason::Prohibited)),
            Target::Ignored => return Err(None),
        };
        if self.flows.len() >= io.limits.udp_flows {
            self.close_quietest(io);
        }
        let outside = SocketAddr::new(address, name.1.port());
        let place = self.places.get(&name.0);
        let port = place.map(|(port, _)| *port).filter(|port| *port != 0);
        let socket = match io.outside.datagram(outside, port) {
            // No descriptors left: one less flow is one more descriptor.
            Err(error) if is_out_of_descriptors(&error) && self.flows.len() > 0 => {
                self.close_quietest(io);
                io.outside.datagram(outside, port)
            }
            result => result,
        }
        .map_err(|error| Reason::of(&error))?;
        let key = self.flows.insert(Flow {
            name,
            socket,
            answered: false,
            cut: Some(0),
            sent: 0,
            received: 0,
            expiry: Deadline::default(),
        });
        if let Some(flow) = self.flows.get(key)
            && io
                .poller
                .add_readable(&flow.socket, Token::new(Kind::Udp, key))
                .is_err()
        {
            self.flows.remove(key);
            return Err(None);
        }
        self.by_name.insert(name, key);
        self.settle(name.0, key);
        self.recency.touch(key, false, io.now);
        Ok(key)
    }

    /// Notes what the port of a new flow of an endpoint is, if it is the first.
    fn settle(&mut self, endpoint: SocketAddr, key: Key) {
        let port = || {
            let flow = self.flows.get(key)?;
            outside::local_address(&flow.socket).map(|near| near.port())
        };
        let place = self.places.entry(endpoint);
        place.or_insert_with(|| (port().unwrap_or(0), 0)).1 += 1;
    }

    fn close(&mut self, io: &mut Io, key: Key) {
        if let Some(flow) = self.flows.remove(key) {
            flow.expiry
                .cancel(Token::new(Kind::Udp, key), &mut io.timers);
            self.by_name.remove(&flow.name);
            if let Entry::Occupied(mut place) = self.places.entry(flow.name.0) {
                place.get_mut().1 -= 1;
                if place.get().1 == 0 {
                    place.remove();
                }
            }
            self.recency.remove(key);
        }
    }

    fn close_quietest(&mut self, io: &mut Io) {
        if let Some(key) = self.recency.quietest() {
            self.turned_away += 1;
            self.close(io, key);
        }
    }

    /// Takes datagrams from the outside.
    pub(crate) fn ready(&mut self, io: &mut Io, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let (inside, outside) = flow.name;
        let mut load = Load::new(packet::udp_payload_at(inside));
        for _ in 0..BATCH {
            let room = load.room(&mut io.buffer);
            match rustix::net::recv(&flow.socket, room, RecvFlags::empty()) {
                Ok((length, _)) => {
                    if !load.takes(length) || !io.link.cuts_datagrams() {
                        io.send_load(&mut load, outside, inside);
                    }
                    load.add(&mut io.buffer, length);
                    flow.answered = true;
                    flow.received += length as u64;
                    flow.touch(io, key, &mut self.recency);
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => {
                    if let Some(reason) = Reason::of(&error.into()) {
                        io.send_load(&mut load, outside, inside);
                        let quoted = icmp::quote_udp(inside, outside);
                        icmp::unreachable(io, reason, &quoted);
                    }
                }
            }
        }
        io.send_load(&mut load, outside, inside);
    }

    /// Closes a flow whose time has come.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::Udp, key);
        let due = self
            .flows
            .get_mut(key)
            .is_some_and(|flow| flow.expiry.reached(io.now, token, &mut io.timers));
        if due {
            self.close(io, key);
        }
    }
}

/// Whether an error means that there are no descriptors, here or on the whole machine.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether it is the sending of several in one that failed: the path takes no datagram of the length, or its device cannot.
pub(crate) fn cannot_be_cut(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP)
    )
}

/// Sends a datagram. One that finds no room is lost, as datagrams are.
pub(crate) fn send(socket: &OwnedFd, payload: &[u8]) -> io::Result<()> {
    let mut result = rustix::net::send(socket, payload, SendFlags::NOSIGNAL);
    // An error that an earlier datagram met is told first; this one may be fine.
    if matches!(result, Err(error) if error != rustix::io::Errno::AGAIN) {
        result = rustix::net::send(socket, payload, SendFlags::NOSIGNAL);
    }
    match result {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Receives a datagram for `inside` to where its payload belongs in the buffer; gives its length.
pub(crate) fn receive(io: &mut Io, socket: &OwnedFd, inside: SocketAddr) -> io::Result<usize> {
    let at = packet::udp_payload_at(inside);
    let end = HEADROOM + MAX_PACKET;
    let (length, _) = rustix::net::recv(socket, &mut io.buffer[at..end], RecvFlags::empty())?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_together_arrives_apart() {
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let near = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        let mut flow = Flow {
            name: (near.local_addr().unwrap(), far.local_addr().unwrap()),
            socket: near.into(),
            answered: false,
            cut: Some(0),
            sent: 0,
            received: 0,
            expiry: Deadline::default(),
        };
        let mut buffer = [0; 2000];
        let mut lengths = || far.recv(&mut buffer).unwrap();
        flow.send_all(&[1; 2500], 1000).unwrap();
        assert_eq!([lengths(), lengths(), lengths()], [1000, 1000, 500]);
        // One that is longer is still one.
        flow.send(&[2; 1500]).unwrap();
        assert_eq!(lengths(), 1500);
        flow.send_all(&[3; 30], 10).unwrap();
        assert_eq!([lengths(), lengths(), lengths()], [10, 10, 10]);
        // So does what the container left to be cut.
        flow.send_segments(b"aabbc", Some(2)).unwrap();
        assert_eq!([lengths(), lengths(), lengths()], [2, 2, 1]);
        flow.send_segments(b"aabbc", None).unwrap();
        flow.send_segments(b"", Some(2)).unwrap();
        assert_eq!([lengths(), lengths()], [5, 0]);
        flow.send_segments(&[5; 70], Some(1)).unwrap();
        assert!((0..70).all(|_| lengths() == 1));
        assert_eq!(flow.sent, 2500 + 1500 + 30 + 5 + 5 + 70);
        // Where it cannot be, each goes by itself.
        assert!(flow.cut_by(0));
        flow.cut = None;
        flow.send_all(&[4; 25], 10).unwrap();
        assert_eq!([lengths(), lengths(), lengths()], [10, 10, 5]);
    }
}
