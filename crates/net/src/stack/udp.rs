//! UDP to the outside: one connected host socket for each pair of endpoints.
//!
//! Connected, so that the kernel takes datagrams from nobody else and tells of ICMP errors, which
//! the container is told in turn.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

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
use crate::slab::{Key, Slab};
use crate::timers::Deadline;

/// How long a flow is kept that was never answered (RFC 4787 REQ-5 leaves that to us; as conntrack).
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

    /// The datagrams that this one stands for, when the kernel left the cutting to us.
    pub(crate) fn segments(&self, size: Option<u16>) -> impl Iterator<Item = &'a [u8]> {
        let payload = self.payload;
        let size = size.map_or(usize::MAX, usize::from);
        // An empty datagram is one too.
        let empty = payload.is_empty().then_some(payload);
        payload.chunks(size).chain(empty)
    }
}

/// The flows.
#[derive(Debug, Default)]
pub(crate) struct Udp {
    flows: Slab<Flow>,
    by_name: HashMap<Name, Key>,
    turned_away: u64,
}

/// The container's endpoint and that outside, as the container knows it.
type Name = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Flow {
    name: Name,
    socket: OwnedFd,
    answered: bool,
    /// Bytes of datagrams to the outside and from there.
    sent: u64,
    received: u64,
    last: Instant,
    expiry: Deadline,
}

impl Flow {
    fn touch(&mut self, io: &mut Io, key: Key) {
        let lifetime = match self.answered {
            true => ANSWERED,
            false => UNANSWERED,
        };
        self.last = io.now;
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
        for payload in datagram.segments(segment) {
            if let Err(error) = send(&flow.socket, payload)
                && let Some(reason) = Reason::of(&error)
            {
                icmp::unreachable(io, reason, packet.whole);
                break;
            }
            flow.sent += payload.len() as u64;
        }
        flow.touch(io, key);
    }

    /// How many flows there are.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.flows, self.turned_away)
    }

    /// Who speaks to whom.
    pub(crate) fn list(&self, now: Instant, flows: &mut Vec<control::Flow>) {
        flows.extend(self.flows.iter().map(|(_, flow)| control::Flow {
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
            idle_ms: Some((now - flow.last).total_millis()),
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
            self.close_quietest();
        }
        let outside = SocketAddr::new(address, name.1.port());
        let socket = match io.outside.datagram(outside) {
            // No descriptors left: one less flow is one more descriptor.
            Err(error) if is_out_of_descriptors(&error) && self.flows.len() > 0 => {
                self.close_quietest();
                io.outside.datagram(outside)
            }
            result => result,
        }
        .map_err(|error| Reason::of(&error))?;
        let key = self.flows.insert(Flow {
            name,
            socket,
            answered: false,
            sent: 0,
            received: 0,
            last: io.now,
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
        Ok(key)
    }

    fn close(&mut self, key: Key) {
        if let Some(flow) = self.flows.remove(key) {
            self.by_name.remove(&flow.name);
        }
    }

    fn close_quietest(&mut self) {
        let quietest = self
            .by_name
            .values()
            .copied()
            .min_by_key(|key| self.flows.get(*key).map(|flow| flow.last));
        if let Some(key) = quietest {
            self.turned_away += 1;
            self.close(key);
        }
    }

    /// Takes datagrams from the outside.
    pub(crate) fn ready(&mut self, io: &mut Io, key: Key) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let (inside, outside) = flow.name;
        for _ in 0..BATCH {
            match receive(io, &flow.socket, inside) {
                Ok(length) => {
                    io.send_udp(outside, inside, length);
                    flow.answered = true;
                    flow.received += length as u64;
                    flow.touch(io, key);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    if let Some(reason) = Reason::of(&error) {
                        let quoted = icmp::quote_udp(inside, outside);
                        icmp::unreachable(io, reason, &quoted);
                    }
                }
            }
        }
    }

    /// Closes a flow whose time has come.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::Udp, key);
        let due = self
            .flows
            .get_mut(key)
            .is_some_and(|flow| flow.expiry.reached(io.now, token, &mut io.timers));
        if due {
            self.close(key);
        }
    }
}

/// Whether an error means that there are no descriptors, here or on the whole machine.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
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
    fn a_super_datagram_is_cut_as_it_would_have_been_sent() {
        let datagram = Datagram {
            source: "10.0.2.100:1".parse().unwrap(),
            destination: "192.0.2.1:2".parse().unwrap(),
            payload: b"aabbc",
        };
        let cut = |size| datagram.segments(size).collect::<Vec<_>>();
        assert_eq!(cut(Some(2)), [b"aa", b"bb".as_slice(), b"c"]);
        assert_eq!(cut(None), [b"aabbc"]);
        let empty = Datagram {
            payload: b"",
            ..datagram
        };
        assert_eq!(empty.segments(None).collect::<Vec<_>>(), [b""]);
    }
}
