//! The name server at 10.0.2.3 and fd00::3 (RFC 1035).
//!
//! Queries go to the host's own resolvers as they are, byte for byte, and answers come back so:
//! what the two ends know of extensions (EDNS, DNSSEC) is between them. The host's resolv.conf is
//! followed as it changes. Servers are tried in order; one that answered is asked first from then
//! on. A server on the host's loopback, like systemd-resolved's stub, is reached because the
//! asking is done on the host. TCP to port 53 becomes an ordinary flow to the same servers.
//!
//! The process has no files: whether those of the host have changed it is told when it asks, which
//! it does when a query comes and the last time is a second ago. The query waits for that.

pub(crate) mod hosts;
pub(crate) mod message;
mod names;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use smoltcp::time::{Duration, Instant};

use super::Io;
use super::packet;
use super::udp::{self, Datagram};
use super::usage::Usage;
use crate::control;
use crate::outside;
use crate::poll::{Kind, Token};
use crate::slab::{Key, Slab};
use crate::timers::Deadline;
#[cfg(test)]
pub(crate) use names::MAX_SERVERS;
use names::Names;

/// The port of name servers (RFC 1035 §4.2).
pub(crate) const PORT: u16 = 53;
/// How long until the next server is asked too: resolvers in the container wait 5 seconds
/// (resolv.conf(5)), and should see a second attempt within that.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long any of those that were asked may take to answer: twice what resolvers in the container
/// wait for it.
const LIFETIME: Duration = Duration::from_secs(10);
/// How often the list of servers is gone through, as resolvers do (resolv.conf(5): attempts).
const ROUNDS: usize = 2;
/// How long a query waits for the news of the host's files: the one who is asked does nothing else,
/// and nobody who looks up a name sees a fifth of a second.
const LOOK_PATIENCE: Duration = Duration::from_millis(200);

/// The name server.
#[derive(Debug)]
pub(crate) struct Dns {
    queries: Slab<Query>,
    by_name: HashMap<Name, Key>,
    names: Names,
    /// Those that wait for the news of the host's files.
    waiting: Vec<Key>,
    turned_away: u64,
}

/// Who asks, and the identifier of the query.
type Name = (SocketAddr, [u8; 2]);

#[derive(Debug)]
struct Query {
    name: Name,
    /// Which of our addresses was asked.
    asked: SocketAddr,
    message: Vec<u8>,
    /// Whom to ask, in this order; empty as long as that is not known.
    servers: Vec<IpAddr>,
    attempt: usize,
    /// Those that were asked and may still answer.
    asking: Vec<(IpAddr, OwnedFd)>,
    /// When all is given up.
    end: Instant,
    deadline: Deadline,
}

impl Dns {
    /// A name server that asks `servers`, or the host's resolvers if there are none.
    pub(crate) fn new(servers: &[IpAddr]) -> Dns {
        Dns {
            queries: Slab::default(),
            by_name: HashMap::new(),
            names: Names::new(servers),
            waiting: Vec::new(),
            turned_away: 0,
        }
    }

    /// Where a TCP connection to the name server goes: to the first of these that takes it.
    pub(crate) fn servers(&mut self, now: Instant) -> Vec<SocketAddr> {
        // A stream that is begun cannot wait: the next one will know better.
        self.names.is_stale(now);
        let list = self.names.servers();
        list.into_iter()
            .map(|server| SocketAddr::new(server, PORT))
            .collect()
    }

    /// Takes the texts of the host's resolv.conf and hosts; none is as before. Queries that waited
    /// for this go on.
    pub(crate) fn learn(&mut self, io: &mut Io, resolv_conf: Option<&str>, hosts: Option<&str>) {
        self.names.learn(io.now, resolv_conf, hosts);
        for key in std::mem::take(&mut self.waiting) {
            self.begin(io, key);
        }
    }

    /// Whether somebody should look whether the host's files have changed; asks once.
    pub(crate) fn wants_names(&mut self) -> bool {
        self.names.wants()
    }

    /// How many queries are under way.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.queries, self.turned_away)
    }

    /// Who asks whom.
    pub(crate) fn list(&self, flows: &mut Vec<control::Flow>) {
        flows.extend(self.queries.iter().map(|(_, query)| {
            control::Flow {
                kind: control::Kind::Dns,
                direction: control::Direction::Out,
                state: "unanswered".into(),
                container: query.name.0,
                peer: query.asked,
                host: query
                    .asking
                    .last()
                    .and_then(|(_, socket)| outside::local_address(socket)),
                sent: None,
                received: None,
                idle_ms: None,
            }
        }));
    }

    /// Takes a query from the container.
    pub(crate) fn query(&mut self, io: &mut Io, datagram: &Datagram<'_>) {
        let message = datagram.payload;
        let Some(identifier) = message::query_identifier(message) else {
            return;
        };
        let name = (datagram.source, identifier);
        if self.by_name.contains_key(&name) {
            // Asked again while we are asking: the answer will do for both.
            return;
        }
        if self.queries.len() >= io.limits.queries {
            self.turned_away += 1;
            let failure = message::failure(message);
            return answer_with(io, datagram.destination, datagram.source, &failure);
        }
        let key = self.queries.insert(Query {
            name,
            asked: datagram.destination,
            message: message.to_vec(),
            servers: Vec::new(),
            attempt: 0,
            asking: Vec::new(),
            end: io.now + LIFETIME,
            deadline: Deadline::default(),
        });
        self.by_name.insert(name, key);
        if !self.names.is_stale(io.now) {
            return self.begin(io, key);
        }
        self.waiting.push(key);
        if let Some(query) = self.queries.get_mut(key) {
            let token = Token::new(Kind::Dns, key);
            query
                .deadline
                .set(Some(io.now + LOOK_PATIENCE), token, &mut io.timers);
        }
    }

    /// Answers a query from the host's own names, or begins to ask for it.
    fn begin(&mut self, io: &mut Io, key: Key) {
        let Some(query) = self.queries.get_mut(key) else {
            return;
        };
        let known = message::Question::parse(&query.message)
            .and_then(|question| self.names.hosts().answer(&question));
        if let Some(answer) = known {
            let (asked, inside) = (query.asked, query.name.0);
            self.close(io, key);
            return answer_with(io, asked, inside, &answer);
        }
        query.servers = self.names.servers();
        self.ask(io, key);
    }

    /// Asks the next server that can be asked at all; when there is none left, waits for those that
    /// were asked, and says so when they are none either.
    fn ask(&mut self, io: &mut Io, key: Key) {
        let Some(query) = self.queries.get_mut(key) else {
            return;
        };
        let token = Token::new(Kind::Dns, key);
        let mut asked = false;
        while !asked && io.now < query.end && query.attempt < query.servers.len() * ROUNDS {
            let server = query.servers[query.attempt % query.servers.len()];
            query.attempt += 1;
            asked = query.send(io, token, server).is_ok();
        }
        if io.now < query.end && (asked || !query.asking.is_empty()) {
            let next = match asked {
                true => query.end.min(io.now + PATIENCE),
                false => query.end,
            };
            return query.deadline.set(Some(next), token, &mut io.timers);
        }
        let failure = message::failure(&query.message);
        answer_with(io, query.asked, query.name.0, &failure);
        self.close(io, key);
    }

    fn close(&mut self, io: &mut Io, key: Key) {
        if let Some(query) = self.queries.remove(key) {
            query
                .deadline
                .cancel(Token::new(Kind::Dns, key), &mut io.timers);
            self.by_name.remove(&query.name);
        }
    }

    /// Takes an answer, or the news that there will be none.
    pub(crate) fn ready(&mut self, io: &mut Io, key: Key) {
        let Some(query) = self.queries.get_mut(key) else {
            return;
        };
        let (inside, identifier) = query.name;
        let mut place = 0;
        while let Some((server, socket)) = query.asking.get(place) {
            let length = match udp::receive(io, socket, inside) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    place += 1;
                    continue;
                }
                Err(_) => {
                    query.asking.swap_remove(place);
                    return self.ask(io, key);
                }
            };
            let at = packet::udp_payload_at(inside);
            let answer = &io.buffer[at..at + length];
            if !message::is_answer(answer, identifier) {
                // Not an answer to this: perhaps somebody guesses. The right one may still come.
                continue;
            }
            let untried = query.attempt < query.servers.len();
            if untried && message::is_other_servers_business(answer) {
                query.asking.swap_remove(place);
                return self.ask(io, key);
            }
            let (server, asked) = (*server, query.asked);
            self.names.prefer(server);
            io.send_udp(asked, inside, length);
            return self.close(io, key);
        }
    }

    /// Gives up waiting for a server alone, or for all of them.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::Dns, key);
        let due = self
            .queries
            .get_mut(key)
            .is_some_and(|query| query.deadline.reached(io.now, token, &mut io.timers));
        if !due {
            return;
        }
        match self.queries.get(key) {
            Some(query) if query.servers.is_empty() => {
                // Nobody says whether the host's files have changed: then they have not, for all who wait.
                self.names.give_up();
                for key in std::mem::take(&mut self.waiting) {
                    self.begin(io, key);
                }
            }
            _ => self.ask(io, key),
        }
    }
}

impl Query {
    /// Asks a server, once more if it was asked before.
    fn send(&mut self, io: &Io, token: Token, server: IpAddr) -> io::Result<()> {
        if let Some((_, socket)) = self.asking.iter().find(|(asked, _)| *asked == server) {
            return udp::send(socket, &self.message);
        }
        let socket = io.outside.datagram(SocketAddr::new(server, PORT), None)?;
        io.poller.add_readable(&socket, token)?;
        udp::send(&socket, &self.message)?;
        self.asking.push((server, socket));
        Ok(())
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
