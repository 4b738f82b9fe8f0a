//! Published TCP ports: a thread in the container's network namespace that accepts clients on the
//! host's sockets and dials the server from inside.
//!
//! A socket stays in the namespace it was made in, so the listeners are the host's though the
//! thread that accepts is not; sockets it makes are the container's. Both ends of a connection are
//! kernel TCP, and bytes move between them without passing through our memory where that pays.
//!
//! The server sees the client's own address: the dialing socket is bound to it (IP_TRANSPARENT)
//! and marked, and the routes of [`crate::set_up_namespace`] bring the answers back to it. Clients
//! on the host's loopback, whose address would mean the container itself, appear as the container
//! or as the gateway ([`PortHandler`]).
//!
//! A client is accepted before the server was asked, for the kernel offers no other way; where
//! nobody listens inside, the client is reset at once.

mod linger;
mod orders;
mod pair;
mod pipe;

pub(crate) use orders::RelayThread;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant as Clock;

use nix::sys::socket::{setsockopt, sockopt as nix_opt};
use rcon_sys::memory::Untouched;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use smoltcp::time::{Duration, Instant};

use super::bind::Listener;
use crate::config::PortHandler;
use crate::limits::Limits;
use crate::namespace::MARK;
use crate::outside::{is_loopback, keep_urgent_bytes, prefer_reno};
use crate::poll::{Alertness, Kind, Poller, Ready, Token};
use crate::serve::Watch;
use crate::slab::{Key, Slab};
use crate::stack::policy::{Policy, Target};
use crate::timers::Timers;
use orders::{Order, Shared};
use pair::{Pair, Side, Turn};
use pipe::Pipes;

/// How many clients of one port are accepted in one turn.
const BATCH: usize = 64;
/// How long accepting rests when there are no descriptors, or too many connections.
const REST: Duration = Duration::from_millis(100);
/// How much is copied at a time, in bytes.
const COPY_BUFFER: usize = 128 * 1024;

/// The relay.
pub(crate) struct Relay {
    poller: Poller,
    timers: Timers,
    policy: Policy,
    /// How many connections there may be.
    limit: usize,
    ports: Slab<Listener>,
    by_address: HashMap<SocketAddr, Key>,
    pairs: Slab<Pair>,
    queue: Vec<Key>,
    pipes: Pipes,
    buffer: Untouched,
    /// Whether the server can see clients by their own addresses.
    transparent: bool,
    /// Whether connections in the container begin with a congestion control that may pace.
    paced: bool,
    /// The container has ended: a connection is over when the client has all that the server sent.
    lingering: Option<Watch>,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
    /// Readable when there are orders.
    wake: OwnedFd,
}

impl Relay {
    /// A relay without ports, which does what it is told.
    fn new(
        policy: Policy,
        limits: Limits,
        orders: Receiver<Order>,
        wake: OwnedFd,
    ) -> io::Result<Relay> {
        let poller = Poller::new()?;
        poller.add_readable(&wake, Token::only(Kind::Wake))?;
        Ok(Relay {
            poller,
            timers: Timers::default(),
            policy,
            limit: limits.relayed,
            ports: Slab::default(),
            by_address: HashMap::new(),
            pairs: Slab::default(),
            queue: Vec::new(),
            pipes: Pipes::default(),
            buffer: Untouched::new(COPY_BUFFER),
            transparent: false,
            paced: true,
            lingering: None,
            orders,
            shared: Arc::default(),
            wake,
        })
    }

    /// Relays until the end. The calling thread must be in the container's network namespace.
    fn run(mut self) -> io::Result<()> {
        let start = Clock::now();
        let mut ready = Vec::new();
        let mut alertness = Alertness::default();
        loop {
            let now = Instant::from_micros(start.elapsed().as_micros() as i64);
            let Some(patience) = self.look_at_clock(now) else {
                return Ok(());
            };
            let timeout = match self.queue.is_empty() {
                true => [self.timers.delay(now), patience]
                    .into_iter()
                    .flatten()
                    .min(),
                false => Some(Duration::ZERO),
            };
            alertness.wait(&self.poller, &mut ready, timeout.map(Into::into))?;
            let now = Instant::from_micros(start.elapsed().as_micros() as i64);
            for event in &ready {
                match event.token.kind {
                    Kind::Wake if self.obey(now) => {}
                    Kind::Wake => return Ok(()),
                    Kind::TcpPort => self.accept(now, event.token.key),
                    Kind::RelayClient => self.news(*event, Side::Client),
                    Kind::RelayServer => self.news(*event, Side::Server),
                    _ => {}
                }
            }
            while let Some(token) = self.timers.due(now) {
                self.rest(now, token.key, false);
            }
            alertness.moved(self.flush());
            self.count();
        }
    }

    /// Accepts clients of a port.
    fn accept(&mut self, now: Instant, key: Key) {
        for _ in 0..BATCH {
            let Some(listener) = self.ports.get(key) else {
                return;
            };
            if self.pairs.len() >= self.limit {
                return self.rest(now, key, true);
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&listener.socket, flags) {
                Ok((client, address)) => {
                    let port = listener.container_port;
                    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                    if let Some(address) = address {
                        self.connect(client, address, port);
                    }
                }
                Err(Errno::AGAIN) => return,
                // It listens no more, and is about to be withdrawn. That would be news again and again, and hide the order.
                Err(Errno::INVAL) => return self.poller.remove(&listener.socket),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    return self.rest(now, key, true);
                }
                // The client has gone already, or its network has (accept(2)).
                Err(_) => {}
            }
        }
    }

    /// Stops accepting for a while, or goes on with it.
    fn rest(&mut self, now: Instant, key: Key, paused: bool) {
        let token = Token::new(Kind::TcpPort, key);
        if let Some(listener) = self.ports.get(key)
            && self.poller.pause(&listener.socket, token, paused).is_ok()
            && paused
        {
            self.timers.set(now + REST, token);
        }
    }

    /// Dials the server for a client.
    fn connect(&mut self, client: OwnedFd, address: SocketAddr, port: u16) {
        let server = match self.dial(address, port) {
            Ok(server) => server,
            Err(_) => {
                // Closing resets; nobody is there to be served by.
                let _ = rcon_sys::sockopt::set_reset_on_close(&client);
                return;
            }
        };
        if self.paced {
            prefer_reno(&server);
        }
        if is_loopback(address.ip()) {
            prefer_reno(&client);
        }
        let _ = sockopt::set_tcp_nodelay(&server, true);
        let _ = keep_urgent_bytes(&server);
        self.join(client, server);
    }

    /// Begins to move bytes between two sockets.
    fn join(&mut self, client: OwnedFd, server: OwnedFd) {
        let key = self.pairs.insert(Pair::new(client, server));
        let watched = self.pairs.get(key).map(|pair| {
            let client = Token::new(Kind::RelayClient, key);
            let server = Token::new(Kind::RelayServer, key);
            self.poller.add_stream(pair.socket(Side::Client), client)?;
            self.poller.add_stream(pair.socket(Side::Server), server)
        });
        if !matches!(watched, Some(Ok(()))) {
            self.close(key, true);
        }
    }

    /// Begins a connection to the server at a port of the container, for a client.
    fn dial(&self, client: SocketAddr, port: u16) -> io::Result<OwnedFd> {
        let config = self.policy.config();
        let inside = self
            .policy
            .container(client.is_ipv6())
            .unwrap_or_else(|| config.container_v4().into());
        let to = SocketAddr::new(inside, port);
        let own = self.transparent
            && matches!(self.policy.target(client.ip()), Target::Outside(_))
            && client.is_ipv4() == inside.is_ipv4();
        if own {
            // The same client port may be in use towards this server from another published port;
            // the address is what matters.
            for from in [client, SocketAddr::new(client.ip(), 0)] {
                if let Ok(socket) = dial_from(from, to) {
                    return Ok(socket);
                }
            }
        } else if self.transparent && config.port_handler == PortHandler::Slirp4netns {
            let gateway: IpAddr = self.policy.gateway(inside);
            if let Ok(socket) = dial_from(SocketAddr::new(gateway, 0), to) {
                return Ok(socket);
            }
        }
        let socket = stream(to)?;
        begin(&socket, to)?;
        Ok(socket)
    }

    /// Takes news of one side of a connection.
    fn news(&mut self, event: Ready, side: Side) {
        let key = event.token.key;
        let Some(pair) = self.pairs.get_mut(key) else {
            return;
        };
        match pair.ready(&event, side) {
            Ok(()) if pair.queued => {}
            Ok(()) => {
                pair.queued = true;
                self.queue.push(key);
            }
            Err(_) => self.close(key, true),
        }
    }

    /// Moves bytes of every connection that has news; gives how many.
    fn flush(&mut self) -> u64 {
        let mut moved = 0;
        let queue = std::mem::take(&mut self.queue);
        for key in queue {
            let Some(pair) = self.pairs.get_mut(key) else {
                continue;
            };
            pair.queued = false;
            let turn = pair.turn(&mut self.pipes, &mut self.buffer);
            moved += pair.moved;
            match turn {
                Ok(_) if self.lingering.is_some() && pair.hand_over() => self.close(key, false),
                Ok(Turn::Waiting) => {}
                Ok(Turn::More) => {
                    pair.queued = true;
                    self.queue.push(key);
                }
                Ok(Turn::Over) => self.close(key, false),
                Err(_) => self.close(key, true),
            }
        }
        moved
    }

    fn close(&mut self, key: Key, reset: bool) {
        if let Some(mut pair) = self.pairs.remove(key) {
            pair.recycle(&mut self.pipes);
            if reset {
                pair.reset();
            }
        }
    }
}

/// A socket in the container's namespace.
fn stream(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Begins a connection from an address that is not the container's.
fn dial_from(from: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream(to)?;
    match to {
        SocketAddr::V4(_) => setsockopt(&socket, nix_opt::IpTransparent, &true)?,
        SocketAddr::V6(_) => rcon_sys::sockopt::set_ipv6_transparent(&socket)?,
    }
    setsockopt(&socket, nix_opt::Mark, &MARK)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &from)?;
    begin(&socket, to)?;
    Ok(socket)
}

fn begin(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    match rustix::net::connect(socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
