//! TCP to the outside: the table of flows.

pub(crate) mod engine;
mod flow;
mod inlet;
mod later;
#[cfg(test)]
mod lossy;
pub(crate) mod segment;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use super::Io;
use super::dns::{self, Dns};
use super::icmp::{self, Reason};
use super::packet::Packet;
use super::policy::Target;
use super::udp::is_out_of_descriptors;
use super::usage::Usage;
use crate::control;
use crate::outside;
use crate::poll::{Kind, Ready, Token};
use crate::slab::{Key, Slab};
use crate::timers::Deadline;
use engine::Engines;
use flow::{Flow, Open, Phase, Turn};
use segment::{Header, RST};

/// How long a SYN may be, in bytes: headers, options, and what fast open (RFC 7413) may add, which
/// is passed over and comes again.
const MAX_SYN: usize = 2048;

/// The flows.
#[derive(Debug, Default)]
pub(crate) struct Tcp {
    flows: Slab<Flow>,
    by_name: HashMap<Name, Key>,
    /// Those that had something to do in this turn.
    queue: Vec<Key>,
    /// Makes sequence numbers nobody can guess.
    random: RandomState,
    /// What all open flows share, once there is one.
    engines: Option<Engines>,
    turned_away: u64,
    /// The container has ended: a flow is over when all is delivered that the container has sent.
    lingering: bool,
}

/// The container's endpoint and the outside one, as the container knows it.
type Name = (SocketAddr, SocketAddr);

impl Tcp {
    /// Takes a segment from the container.
    pub(crate) fn segment(&mut self, io: &mut Io, dns: &mut Dns, packet: &Packet<'_>) {
        let Some(header) = Header::of(packet) else {
            return;
        };
        let name = (
            SocketAddr::new(header.source, header.source_port),
            SocketAddr::new(header.destination, header.destination_port),
        );
        if let Some(key) = self.by_name.get(&name).copied()
            && let Some(flow) = self.flows.get_mut(key)
        {
            match &mut flow.phase {
                // Asking again does not make it faster; giving up ends it.
                Phase::Dialing { .. } => {
                    if header.control & RST != 0 {
                        self.close(io, key);
                    }
                    return;
                }
                Phase::Over => return,
                Phase::Open(open) if header.opens() && open.is_closing() => {
                    open.forsake();
                    self.close(io, key);
                }
                Phase::Open(open) => {
                    if let Some(engines) = &mut self.engines {
                        open.packet(packet.whole, engines, io);
                    }
                    return self.enqueue(key);
                }
            }
        }
        if header.opens() && !self.lingering {
            self.open(io, dns, &header, name, packet.whole);
        } else if header.control & RST == 0 {
            reset(io, &header);
        }
    }

    /// The container has ended. What its kernel still has to send comes with each flow's end behind it; who has not
    /// got an answer yet will not hear it any more.
    pub(super) fn linger(&mut self, io: &mut Io) {
        self.lingering = true;
        let keys: Vec<Key> = self.flows.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.flows.get_mut(key).map(|flow| &mut flow.phase) {
                Some(Phase::Open(open)) => {
                    open.linger();
                    self.enqueue(key);
                }
                _ => self.close(io, key),
            }
        }
    }

    /// Resets the flows that have delivered nothing since this was called last, or all.
    pub(super) fn give_up(&mut self, all: bool) {
        let keys: Vec<Key> = self.flows.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(flow) = self.flows.get_mut(key)
                && let Phase::Open(open) = &mut flow.phase
                && (!open.has_moved_on() || all)
            {
                open.fail();
                self.enqueue(key);
            }
        }
    }

    /// How many flows there are.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.flows, self.turned_away)
    }

    /// Who speaks to whom. What they moved is the kernel's count at the host's socket.
    pub(crate) fn list(&self, flows: &mut Vec<control::Flow>) {
        flows.extend(self.flows.iter().filter_map(|(_, flow)| {
            let (socket, state) = match &flow.phase {
                Phase::Dialing { socket, .. } => (socket.as_fd(), "connecting"),
                Phase::Open(open) => (open.socket(), "open"),
                Phase::Over => return None,
            };
            let used = rcon_sys::sockopt::tcp_use(socket).ok();
            Some(control::Flow {
                kind: control::Kind::Tcp,
                direction: control::Direction::Out,
                state: state.into(),
                container: flow.name.0,
                peer: flow.name.1,
                host: outside::local_address(socket),
                sent: used.map(|used| used.sent),
                received: used.map(|used| used.received),
                idle_ms: used.map(|used| used.idle_ms.into()),
            })
        }));
    }

    /// Begins a flow: has the host connect.
    fn open(&mut self, io: &mut Io, dns: &mut Dns, header: &Header, name: Name, syn: &[u8]) {
        let port = name.1.port();
        let targets = match io.policy.target(name.1.ip()) {
            Target::Outside(address) | Target::HostLoopback(address) => {
                vec![SocketAddr::new(address, port)]
            }
            Target::Dns if port == dns::PORT => {
                let mut servers = dns.servers(io.now);
                servers.reverse();
                servers
            }
            Target::Gateway | Target::Dns => return reset(io, header),
            Target::Nobody => return icmp::unreachable(io, Reason::Host, syn),
            Target::Prohibited => return icmp::unreachable(io, Reason::Prohibited, syn),
            Target::Ignored => return,
        };
        let absurd = port == 0 || name.0.port() == 0 || syn.len() > MAX_SYN;
        let too_many = self.flows.len() >= io.limits.tcp_flows;
        self.turned_away += u64::from(too_many);
        if absurd || too_many {
            return reset(io, header);
        }
        self.dial(io, name, syn.to_vec(), targets);
    }

    /// Has the host connect to the last of the targets, or one before it.
    fn dial(&mut self, io: &mut Io, name: Name, syn: Vec<u8>, mut targets: Vec<SocketAddr>) {
        let mut result = Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        while let Some(target) = targets.pop() {
            result = io
                .outside
                .stream(target)
                .map(|socket| (socket, target.ip()));
            if result.is_ok() {
                break;
            }
        }
        let failure = match result {
            Ok((socket, to)) => match self.watch(io, name, socket, to, syn, targets) {
                Ok(()) => return,
                Err(failure) => failure,
            },
            Err(error) => (error, syn),
        };
        self.turned_away += u64::from(is_out_of_descriptors(&failure.0));
        refuse(io, &failure.0, &failure.1);
    }

    fn watch(
        &mut self,
        io: &mut Io,
        name: Name,
        socket: OwnedFd,
        to: IpAddr,
        syn: Vec<u8>,
        others: Vec<SocketAddr>,
    ) -> Result<(), (io::Error, Vec<u8>)> {
        let key = self.flows.insert(Flow {
            name,
            phase: Phase::Dialing {
                socket,
                to,
                syn,
                others,
            },
            deadline: Deadline::default(),
            queued: false,
        });
        let token = Token::new(Kind::Tcp, key);
        let added = match self.flows.get(key).map(|flow| &flow.phase) {
            Some(Phase::Dialing { socket, .. }) => io.poller.add_stream(socket, token),
            _ => Ok(()),
        };
        if let Err(error) = added {
            let syn = match self.flows.remove(key).map(|flow| flow.phase) {
                Some(Phase::Dialing { syn, .. }) => syn,
                _ => Vec::new(),
            };
            return Err((error, syn));
        }
        self.by_name.insert(name, key);
        Ok(())
    }

    fn close(&mut self, io: &mut Io, key: Key) {
        let Some(flow) = self.flows.remove(key) else {
            return;
        };
        flow.deadline
            .cancel(Token::new(Kind::Tcp, key), &mut io.timers);
        self.by_name.remove(&flow.name);
        if let (Phase::Open(open), Some(engines)) = (flow.phase, &mut self.engines) {
            open.leave(engines);
        }
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(flow) = self.flows.get_mut(key)
            && !flow.queued
        {
            flow.queued = true;
            self.queue.push(key);
        }
    }

    /// Takes news of a host socket.
    pub(crate) fn ready(&mut self, io: &mut Io, ready: Ready) {
        let key = ready.token.key;
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        match &mut flow.phase {
            Phase::Open(open) => {
                open.ready(&ready);
                self.enqueue(key);
            }
            Phase::Dialing { .. } if ready.writable => self.dialed(io, key, ready.hung_up),
            Phase::Dialing { .. } | Phase::Over => {}
        }
    }

    /// A connection that was under way stands, or failed.
    fn dialed(&mut self, io: &mut Io, key: Key, hung_up: bool) {
        let connections = self.flows.len();
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let Phase::Dialing {
            socket,
            to,
            mut syn,
            others,
        } = std::mem::replace(&mut flow.phase, Phase::Over)
        else {
            return;
        };
        if let Err(error) = flow::dialed(&socket) {
            let name = flow.name;
            self.close(io, key);
            return match others.is_empty() {
                true => refuse(io, &error, &syn),
                false => self.dial(io, name, syn, others),
            };
        }
        let mtu = io.policy.config().mtu;
        let random = &self.random;
        let engines = self
            .engines
            .get_or_insert_with(|| Engines::new(random.hash_one(mtu), mtu, &mut io.wire()));
        match Open::new(socket, to, hung_up, &mut syn, connections, engines, io) {
            Some(open) => {
                flow.phase = Phase::Open(Box::new(open));
                self.enqueue(key);
            }
            None => self.close(io, key),
        }
    }

    /// Does what a flow's timer was set for.
    pub(crate) fn timer(&mut self, io: &mut Io, key: Key) {
        let token = Token::new(Kind::Tcp, key);
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        if flow.deadline.reached(io.now, token, &mut io.timers) {
            if let (Phase::Open(open), Some(engines)) = (&mut flow.phase, &mut self.engines) {
                open.rest(engines, io.now);
            }
            self.enqueue(key);
        }
    }

    /// Lets every flow that had something to do finish its turn; true when some have more to do.
    pub(crate) fn flush(&mut self, io: &mut Io) -> bool {
        let mut queue = std::mem::take(&mut self.queue);
        for key in &queue {
            let Some(flow) = self.flows.get_mut(*key) else {
                continue;
            };
            flow.queued = false;
            let (Phase::Open(open), Some(engines)) = (&mut flow.phase, &mut self.engines) else {
                continue;
            };
            let turn = open.turn(engines, io);
            match turn {
                _ if self.lingering && open.hand_over() => {
                    self.close(io, *key);
                    continue;
                }
                Turn::Over => {
                    self.close(io, *key);
                    continue;
                }
                Turn::More => {
                    flow.queued = true;
                    self.queue.push(*key);
                }
                Turn::Waiting => {}
            }
            let at = open.next_deadline(engines, io.now);
            let token = Token::new(Kind::Tcp, *key);
            flow.deadline.set(at, token, &mut io.timers);
        }
        if self.queue.is_empty() {
            queue.clear();
            self.queue = queue;
            return false;
        }
        true
    }
}

/// Tells the container why a connection cannot be had, as the host was told.
fn refuse(io: &mut Io, error: &io::Error, syn: &[u8]) {
    // Out of descriptors: the container asks again in a second, and there may be some then. Out
    // of time: the container's own patience ends about now too, with the same error.
    if is_out_of_descriptors(error) || error.kind() == io::ErrorKind::TimedOut {
        return;
    }
    match Reason::of(error) {
        Some(Reason::Port) | None => {
            if let Some(header) = Header::parse(syn) {
                reset(io, &header);
            }
        }
        Some(reason) => icmp::unreachable(io, reason, syn),
    }
}

fn reset(io: &mut Io, header: &Header) {
    let offloads = io.link.offloads();
    if let Some((length, finish)) = segment::reset(&mut io.buffer, header, offloads) {
        io.link.send(&mut io.buffer[..length], finish);
    }
}
