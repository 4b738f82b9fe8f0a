//! Ping: echo requests go out by an unprivileged ping socket of the host (icmp(7)).
//!
//! Such sockets are open to the groups of net.ipv4.ping_group_range. Where the host gives them to
//! nobody the container is told that pings are prohibited; no answer is ever made up for a host
//! that was not asked. The gateway and the name server are ourselves, and answer.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;
use smoltcp::time::{Duration, Instant};

use super::icmp::{self, Reason};
use super::link::MAX_PACKET;
use super::packet::{self, Packet};
use super::policy::Target;
use super::usage::Usage;
use super::{HEADROOM, Io};
use crate::control;
use crate::poll::{Kind, Token};
use crate::recency::Recency;
use crate::slab::{Key, Slab};
use crate::timers::Deadline;

/// How long an unused ping is kept (as nf_conntrack_icmp_timeout).
const LIFETIME: Duration = Duration::from_secs(30);
/// Echo request and reply (RFC 792; RFC 4443 §4).
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;
/// How many replies to one ping are taken in one turn, so that none starves the others.
const BATCH: usize = 64;
/// The length of an echo header: type, code, checksum, identifier, sequence number
/// (RFC 792; RFC 4443 §4.1), in bytes.
const HEADER_LEN: usize = 8;

/// The pings under way.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    pings: Slab<Ping>,
    by_name: HashMap<Name, Key>,
    recency: Recency,
    turned_away: u64,
}

/// Who pings whom, and the identifier that tells one ping program from another.
type Name = (IpAddr, IpAddr, [u8; 2]);

#[derive(Debug)]
struct Ping {
    name: Name,
    socket: OwnedFd,
    expiry: Deadline,
}

impl Echoes {
    /// Takes an ICMP message from the container. Of all kinds only echo requests go anywhere.
    pub(crate) fn message(&mut self, io: &mut Io, packet: &Packet<'_>) {
        let Some(header) = packet.payload.get(..HEADER_LEN) else {
            return;
        };
        let request = match packet.source {
            IpAddr::V4(_) => (packet::ICMP, REQUEST_V4),
            IpAddr::V6(_) => (packet::ICMPV6, REQUEST_V6),
        };
        if (packet.protocol, header[0]) != request || header[1] != 0 {
            return;
        }
        let reason = match io.policy.target(packet.destination) {
            Target::Outside(_) => match self.forward(io, packet, [header[4], header[5]]) {
                Ok(()) => return,
                Err(error) => Reason::of(&error),
            },
            Target::Gateway | Target::Dns | Target::HostLoopback(_) => {
                return reply(io, packet.destination, packet.source, packet.payload);
            }
            Target::Nobody => Some(Reason::Host),
            Target::Prohibited => Some(Reason::Prohibited),
            Target::Ignored => None,
        };
        if let Some(reason) = reason {
            icmp::unreachable(io, reason, packet.whole);
        }
    }

    /// How many there are.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.pings, self.turned_away)
    }

    /// Who pings whom; in the place of a port stands the identifier.
    pub(crate) fn list(&self, now: Instant, flows: &mut Vec<control::Flow>) {
        flows.extend(self.pings.iter().map(|(key, ping)| {
            let (inside, outside, identifier) = ping.name;
            control::Flow {
                kind: control::Kind::Icmp,
                direction: control::Direction::Out,
                state: "open".into(),
                container: SocketAddr::new(inside, u16::from_be_bytes(identifier)),
                peer: SocketAddr::new(outside, 0),
                host: None,
                sent: None,
                received: None,
                idle_ms: Some((now - self.recency.last(key)).total_millis()),
            }
        }));
    }

    fn forward(&mut self, io: &mut Io, packet: &Packet<'_>, identifier: [u8; 2]) -> io::Result<()> {
        let name = (packet.source, packet.destination, identifier);
        let key = match self.by_name.get(&name) {
            Some(key) => *key,
            None => self.open(io, name)?,
        };
        let Some(ping) = self.pings.get_mut(key) else {
            return Ok(());
        };
        // Answers come at once or never: whether they did makes no difference to which of them goes.
        self.recency.touch(key, false, io.now);
        let token = Token::new(Kind::Echo, key);
        ping.expiry
            .set(Some(io.now + LIFETIME), token, &mut io.timers);
        // The kernel puts its own identifier in, and the checksum right.
        super::udp::send(&ping.socket, packet.payload)
    }

    fn open(&mut self, io: &mut Io, name: Name) -> io::Result<Key> {
        if self.pings.len() >= io.limits.pings
            && let Some(key) = self.recency.quietest()
        {
            self.turned_away += 1;
            self.close(io, key);
        }
        let socket = io.outside.echo(name.1)?;
        let key = self.pings.insert(Ping {
            name,
            socket,
            expiry: Deadline::default(),
        });
        if let Some(ping) = self.pings.get(key)
            && let Err(error) = io
                .poller
                .add_readable(&ping.socket, Token::new(Kind::Echo, key))
        {
            self.pings.remove(key);
            return Err(error);
        }
        self.by_name.insert(name, key);
        Ok(key)
    }

    fn close(&mut self, io: &mut Io, key: Key) {
        if let Some(ping) = self.pings.remove(key) {
            ping.expiry
                .cancel(Token::new(Kind::Echo, key), &mut io.timers);
            self.by_name.remove(&ping.name);
            self.recency.remove(key);
        }
    }

    /// Takes replies, and news of what became of requests.
    pub(crate) fn ready(&mut self, io: &mut Io, key: Key) {
        let Some(ping) = self.pings.get(key) else {
            return;
        };
        let (inside, outside, identifier) = ping.name;
        let start = HEADROOM + packet::ip_len(inside);
        for _ in 0..BATCH {
            let place = &mut io.buffer[start..HEADROOM + MAX_PACKET];
            match rustix::net::recv(&ping.socket, place, RecvFlags::empty()) {
                Ok((length, _)) if length >= HEADER_LEN => {
                    io.buffer[start + 4..start + 6].copy_from_slice(&identifier);
                    io.send_icmp(outside, inside, length);
                }
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => {
                    if let Some(reason) = Reason::of(&error.into()) {
                        let kind = match outside {
                            IpAddr::V4(_) => REQUEST_V4,
                            IpAddr::V6(_) => REQUEST_V6,
                        };
                        let [high, low] = identifier;
                        let header = [kind, 0, 0, 0, high, low, 0, 0];
                        let quoted = icmp::quote_echo(inside, outside, header);
                        icmp::unreachable(io, reason, &quoted);
                    }
                }
            }
        }
    }

    /// Forgets a ping whose time has come.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::Echo, key);
        let due = self
            .pings
            .get_mut(key)
            .is_some_and(|ping| ping.expiry.reached(io.now, token, &mut io.timers));
        if due {
            self.close(io, key);
        }
    }
}

/// Answers a ping to an address of our own.
fn reply(io: &mut Io, from: IpAddr, to: IpAddr, request: &[u8]) {
    let start = HEADROOM + packet::ip_len(to);
    let Some(message) = io.buffer.get_mut(start..start + request.len()) else {
        return;
    };
    message.copy_from_slice(request);
    message[0] = match to {
        IpAddr::V4(_) => REPLY_V4,
        IpAddr::V6(_) => REPLY_V6,
    };
    io.send_icmp(from, to, request.len());
}
