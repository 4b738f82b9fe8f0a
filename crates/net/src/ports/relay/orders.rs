//! The relay's thread, and what it is told by the thread that started it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SendError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::CapabilitySet;
use smoltcp::time::Instant;

use super::Relay;
use super::pair::Side;
use crate::control::{Direction, Flow, Kind as FlowKind};
use crate::limits::Limits;
use crate::namespace::{begins_with_reno, keeps_client_addresses};
use crate::outside::keep_urgent_bytes;
use crate::poll::{Kind, Token};
use crate::ports::bind::Listener;
use crate::ports::inner::InnerSockets;
use crate::sandbox;
use crate::serve::Bounds;
use crate::slab::Key;
use crate::stack::policy::Policy;
use crate::stack::usage::Usage;

/// The stack of the thread, in bytes: its loop is shallow.
const STACK: usize = 128 * 1024;
/// How long to wait for an answer of the thread, which gives it in its next turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the relay is told.
pub(super) enum Order {
    /// Serve a port too.
    Publish(Listener),
    /// Accept no more clients at these, and say when that is done.
    Withdraw(Vec<SocketAddr>, SyncSender<()>),
    /// Whether servers see clients by their own addresses.
    ClientAddresses(bool),
    /// Say who is connected.
    Flows(SyncSender<Vec<Flow>>),
    /// Start a thread that makes sockets in the container's network namespace.
    InnerSockets(SyncSender<io::Result<InnerSockets>>),
    /// The container has ended: take no clients any more, tell how many are left, and end when they have everything.
    Linger(Bounds, Tell),
    /// End.
    End,
}

/// Takes a number of connections.
pub(crate) type Tell = Box<dyn FnOnce(usize) + Send>;

/// The thread, seen from the one that started it.
#[derive(Debug)]
pub(crate) struct RelayThread {
    thread: JoinHandle<io::Result<()>>,
    orders: Sender<Order>,
    wake: OwnedFd,
    shared: Arc<Shared>,
}

/// What the thread tells without being asked.
#[derive(Debug, Default)]
pub(super) struct Shared {
    restricted: AtomicBool,
    connections: AtomicU64,
    opened: AtomicU64,
}

impl RelayThread {
    /// Starts the thread, which calls `join` first: that brings it into the container's network
    /// namespace.
    ///
    /// # Errors
    /// What `join` says, or that there can be no thread.
    pub(crate) fn start(
        policy: Policy,
        limits: Limits,
        join: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<RelayThread> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (orders, receiver) = channel();
        let mut relay = Relay::new(policy, limits, receiver, wake.try_clone()?)?;
        let shared = relay.shared.clone();
        let (joined, outcome) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("relay".into())
            .stack_size(STACK)
            .spawn(move || {
                let result = join();
                let failed = result.is_err();
                relay.transparent = !failed && keeps_client_addresses();
                relay.paced = !begins_with_reno();
                relay
                    .shared
                    .restricted
                    .store(sandbox::restrict_relay(), Ordering::Relaxed);
                let _ = joined.send(result);
                match failed {
                    true => Ok(()),
                    false => relay.run(),
                }
            })?;
        outcome
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the relay has ended")))?;
        Ok(RelayThread {
            thread,
            orders,
            wake,
            shared,
        })
    }

    fn order(&self, order: Order) {
        // A thread that has ended obeys nobody.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Serves a port.
    pub(crate) fn publish(&self, listener: Listener) {
        self.order(Order::Publish(listener));
    }

    /// Accepts no more clients at these ports; those who are connected stay so.
    pub(crate) fn withdraw(&self, addresses: Vec<SocketAddr>) {
        let (sender, done) = sync_channel(1);
        self.order(Order::Withdraw(addresses, sender));
        let _ = done.recv_timeout(PATIENCE);
    }

    /// Whether servers see clients by their own addresses has changed.
    pub(crate) fn client_addresses(&self, kept: bool) {
        self.order(Order::ClientAddresses(kept));
    }

    /// Who is connected.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let (sender, flows) = sync_channel(1);
        self.order(Order::Flows(sender));
        flows.recv_timeout(PATIENCE).unwrap_or_default()
    }

    /// How many are connected, and were.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            now: self.shared.connections.load(Ordering::Relaxed),
            opened: self.shared.opened.load(Ordering::Relaxed),
            turned_away: 0,
        }
    }

    /// Whether the thread has given up all that it could.
    pub(crate) fn is_restricted(&self) -> bool {
        self.shared.restricted.load(Ordering::Relaxed)
    }

    /// What makes sockets in the container's network namespace.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub(crate) fn inner_sockets(&self) -> io::Result<InnerSockets> {
        let (sender, inner) = sync_channel(1);
        self.order(Order::InnerSockets(sender));
        inner
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the relay has ended")))
    }

    /// Has it take no clients any more, call `tell` with the number of those that are left, and end when they have all
    /// that servers sent. [`RelayThread::join`] waits for that.
    pub(crate) fn linger(&self, bounds: Bounds, tell: Tell) {
        match self.orders.send(Order::Linger(bounds, tell)) {
            Ok(()) => drop(rustix::io::write(&self.wake, &1_u64.to_ne_bytes())),
            // It has ended, and nobody is left.
            Err(SendError(Order::Linger(_, tell))) => tell(0),
            Err(_) => {}
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What made it end.
    pub(crate) fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or(Ok(()))
    }

    /// Ends it.
    ///
    /// # Errors
    /// What made it end before.
    pub(crate) fn end(self) -> io::Result<()> {
        self.order(Order::End);
        self.join()
    }
}

impl Relay {
    /// Does what it is told; false when that is to end.
    pub(super) fn obey(&mut self, now: Instant) -> bool {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        loop {
            let Ok(order) = self.orders.try_recv() else {
                return true;
            };
            match order {
                Order::Publish(listener) => self.publish(listener),
                Order::Withdraw(addresses, sender) => {
                    addresses.iter().for_each(|address| self.withdraw(address));
                    let _ = sender.try_send(());
                }
                Order::ClientAddresses(kept) => self.transparent = kept,
                Order::Flows(sender) => drop(sender.try_send(self.list())),
                Order::InnerSockets(sender) => {
                    // A thread is born into the namespaces of the one that starts it.
                    let inner =
                        InnerSockets::start(|| sandbox::keep_capabilities(CapabilitySet::empty()));
                    drop(sender.try_send(inner));
                }
                Order::Linger(bounds, tell) => {
                    self.linger(now, bounds);
                    tell(self.pairs.len());
                }
                Order::End => return false,
            }
        }
    }

    fn publish(&mut self, listener: Listener) {
        // What comes in pieces was sent in pieces. Accepted sockets inherit it (tcp(7)).
        let _ = rustix::net::sockopt::set_tcp_nodelay(&listener.socket, true);
        let _ = keep_urgent_bytes(&listener.socket);
        // Whether a server asks if its client is there still (SO_KEEPALIVE) ends with its connection to us: so we ask
        // always, in the host's time (tcp(7): tcp_keepalive_time).
        let _ = rustix::net::sockopt::set_socket_keepalive(&listener.socket, true);
        let address = listener.address;
        let key = self.ports.insert(listener);
        let token = Token::new(Kind::TcpPort, key);
        let watched = self
            .ports
            .get(key)
            .is_some_and(|listener| self.poller.add_readable(&listener.socket, token).is_ok());
        match watched {
            true => drop(self.by_address.insert(address, key)),
            false => drop(self.ports.remove(key)),
        }
    }

    fn withdraw(&mut self, address: &SocketAddr) {
        if let Some(key) = self.by_address.remove(address)
            && let Some(listener) = self.ports.remove(key)
        {
            self.poller.remove(&listener.socket);
        }
    }

    fn list(&self) -> Vec<Flow> {
        let address = |name: rustix::io::Result<rustix::net::SocketAddrAny>| {
            name.ok().and_then(|name| SocketAddr::try_from(name).ok())
        };
        let flow = |(_, pair): (Key, &super::Pair)| {
            let (client, server) = (pair.socket(Side::Client), pair.socket(Side::Server));
            let peer = |socket| rustix::net::getpeername(socket).ok().flatten();
            let used = rcon_sys::sockopt::tcp_use(client).ok();
            Some(Flow {
                kind: FlowKind::Tcp,
                direction: Direction::In,
                state: match pair.is_connected() {
                    true => "open".into(),
                    false => "connecting".into(),
                },
                container: SocketAddr::try_from(peer(server)?).ok()?,
                peer: SocketAddr::try_from(peer(client)?).ok()?,
                host: address(rustix::net::getsockname(client)),
                sent: used.map(|used| used.sent),
                received: used.map(|used| used.received),
                idle_ms: used.map(|used| used.idle_ms.into()),
            })
        };
        self.pairs.iter().filter_map(flow).collect()
    }

    /// Says how many are connected, for those who look.
    pub(super) fn count(&self) {
        let usage = Usage::of(&self.pairs, 0);
        let Shared {
            connections,
            opened,
            ..
        } = &*self.shared;
        connections.store(usage.now, Ordering::Relaxed);
        opened.store(usage.opened, Ordering::Relaxed);
    }
}
