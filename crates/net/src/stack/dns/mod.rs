//! The name server at 10.0.2.3 and fd00::3 (RFC 1035).
//!
//! Queries go to the host's own resolvers as they are, byte for byte, and answers come back so:
//! what the two ends know of extensions (EDNS, DNSSEC) is between them. The host's resolv.conf is
//! followed as it changes. Servers are tried in order; one that answered is asked first from then
//! on. A server on the host's loopback, like systemd-resolved's stub, is reached because the
//! asking is done on the host. TCP to port 53 becomes an ordinary flow to the same servers.

mod hosts;
mod message;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use smoltcp::time::{Duration, Instant};

use super::Io;
use super::packet;
use super::udp::{self, Datagram};
use crate::poll::{Kind, Token};
use crate::resolv::{HOST_RESOLV_CONF, ResolvConf};
use crate::slab::{Key, Slab};
use crate::timers::Deadline;
use crate::watched::Watched;
use hosts::Hosts;

/// The port of name servers (RFC 1035 §4.2).
pub(crate) const PORT: u16 = 53;
/// How many queries may be under way; further ones are refused.
const MAX_QUERIES: usize = 512;
/// How long one server is given: resolvers in the container wait 5 seconds (resolv.conf(5)), and
/// should see a second attempt within that.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through, as resolvers do (resolv.conf(5): attempts).
const ROUNDS: usize = 2;
/// How many servers of the list are used (resolv.h: MAXNS).
const MAX_SERVERS: usize = 3;

/// The name server.
#[derive(Debug)]
pub(crate) struct Dns {
    queries: Slab<Query>,
    by_name: HashMap<Name, Key>,
    servers: Servers,
    hosts: Watched<Hosts>,
}

/// Who asks, and the identifier of the query.
type Name = (SocketAddr, [u8; 2]);

#[derive(Debug)]
struct Query {
    name: Name,
    /// Which of our addresses was asked.
    asked: SocketAddr,
    message: Vec<u8>,
    /// Whom to ask, in this order.
    servers: Vec<IpAddr>,
    attempt: usize,
    socket: Option<OwnedFd>,
    deadline: Deadline,
}

/// Who knows names.
#[derive(Debug)]
struct Servers {
    /// Those that were asked for instead of the host's.
    fixed: Vec<IpAddr>,
    host: Watched<ResolvConf>,
    /// The one that answered last.
    preferred: Option<IpAddr>,
}

impl Servers {
    /// Whom to ask, the one that answered last first.
    fn list(&mut self, now: Instant) -> Vec<IpAddr> {
        let all = match self.fixed.as_slice() {
            [] => &self.host.get(now).servers,
            fixed => fixed,
        };
        let mut list = all[..all.len().min(MAX_SERVERS)].to_vec();
        if list.is_empty() {
            // What resolv.conf(5) says an empty one means.
            list.push(Ipv4Addr::LOCALHOST.into());
        }
        if let Some(preferred) = self.preferred
            && let Some(place) = list.iter().position(|server| *server == preferred)
        {
            list[..=place].rotate_right(1);
        }
        list
    }
}

impl Dns {
    /// A name server that asks `servers`, or the host's resolvers if there are none.
    pub(crate) fn new(servers: &[IpAddr]) -> Dns {
        Dns {
            queries: Slab::default(),
            by_name: HashMap::new(),
            servers: Servers {
                fixed: servers.to_vec(),
                host: Watched::new(HOST_RESOLV_CONF, ResolvConf::parse),
                preferred: None,
            },
            hosts: Watched::new(hosts::HOST_HOSTS, Hosts::parse),
        }
    }

    /// Where a TCP connection to the name server goes: to the first of these that takes it.
    pub(crate) fn servers(&mut self, now: Instant) -> Vec<SocketAddr> {
        let list = self.servers.list(now);
        list.into_iter()
            .map(|server| SocketAddr::new(server, PORT))
            .collect()
    }

    /// Takes a query from the container.
    pub(crate) fn query(&mut self, io: &mut Io, datagram: &Datagram<'_>) {
        let message = datagram.payload;
        let Some(identifier) = message::query_identifier(message) else {
            return;
        };
        let hosts = self.hosts.get(io.now);
        if let Some(answer) =
            message::Question::parse(message).and_then(|question| hosts.answer(&question))
        {
            return answer_with(io, datagram.destination, datagram.source, &answer);
        }
        let name = (datagram.source, identifier);
        if self.by_name.contains_key(&name) {
            // Asked again while we are asking: the answer will do for both.
            return;
        }
        if self.queries.len() >= MAX_QUERIES {
            let refusal = message::failure(message);
            return answer_with(io, datagram.destination, datagram.source, &refusal);
        }
        let key = self.queries.insert(Query {
            name,
            asked: datagram.destination,
            message: message.to_vec(),
            servers: self.servers.list(io.now),
            attempt: 0,
            socket: None,
            deadline: Deadline::default(),
        });
        self.by_name.insert(name, key);
        self.ask(io, key);
    }

    /// Asks the next server that can be asked at all; when there is none left, says so.
    fn ask(&mut self, io: &mut Io, key: Key) {
        let Some(query) = self.queries.get_mut(key) else {
            return;
        };
        let token = Token::new(Kind::Dns, key);
        while query.attempt < query.servers.len() * ROUNDS {
            let server = query.servers[query.attempt % query.servers.len()];
            query.attempt += 1;
            if let Ok(socket) = io.outside.datagram(SocketAddr::new(server, PORT))
                && io.poller.add_readable(&socket, token).is_ok()
                && udp::send(&socket, &query.message).is_ok()
            {
                query.socket = Some(socket);
                query
                    .deadline
                    .set(Some(io.now + PATIENCE), token, &mut io.timers);
                return;
            }
        }
        let failure = message::failure(&query.message);
        answer_with(io, query.asked, query.name.0, &failure);
        self.close(key);
    }

    fn close(&mut self, key: Key) {
        if let Some(query) = self.queries.remove(key) {
            self.by_name.remove(&query.name);
        }
    }

    /// Takes an answer, or the news that there will be none.
    pub(crate) fn ready(&mut self, io: &mut Io, key: Key) {
        let Some(query) = self.queries.get(key) else {
            return;
        };
        let Some(socket) = &query.socket else { return };
        let (inside, identifier) = query.name;
        let length = match udp::receive(io, socket, inside) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return self.ask(io, key),
        };
        let at = packet::udp_payload_at(inside);
        let answer = &io.buffer[at..at + length];
        if !message::is_answer(answer, identifier) {
            // Not an answer to this: perhaps somebody guesses. The right one may still come.
            return;
        }
        let untried = query.attempt < query.servers.len();
        if untried && message::is_other_servers_business(answer) {
            return self.ask(io, key);
        }
        let server = query.servers[(query.attempt - 1) % query.servers.len()];
        self.servers.preferred = Some(server);
        let asked = query.asked;
        io.send_udp(asked, inside, length);
        self.close(key);
    }

    /// Gives up waiting for a server.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::Dns, key);
        let due = self
            .queries
            .get_mut(key)
            .is_some_and(|query| query.deadline.reached(io.now, token, &mut io.timers));
        if due {
            self.ask(io, key);
        }
    }
}

/// Sends an answer of our own.
fn answer_with(io: &mut Io, from: SocketAddr, to: SocketAddr, answer: &[u8]) {
    let at = packet::udp_payload_at(to);
    if let Some(place) = io.buffer.get_mut(at..at + answer.len()) {
        place.copy_from_slice(answer);
        io.send_udp(from, to, answer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_that_answered_is_asked_first() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut dns = Dns::new(&[ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3")]);
        let list = dns.servers.list(Instant::ZERO);
        assert_eq!(list[0], ip("192.0.2.1"));
        dns.servers.preferred = Some(ip("192.0.2.2"));
        assert_eq!(
            dns.servers.list(Instant::ZERO),
            [ip("192.0.2.2"), ip("192.0.2.1"), ip("192.0.2.3")]
        );
        dns.servers.preferred = Some(ip("192.0.2.99"));
        assert_eq!(dns.servers.list(Instant::ZERO)[0], ip("192.0.2.1"));
        assert_eq!(dns.servers(Instant::ZERO)[0].port(), PORT);
    }
}
