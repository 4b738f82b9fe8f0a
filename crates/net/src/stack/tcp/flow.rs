//! One TCP connection between the container and the outside.
//!
//! A flow begins with the container's SYN, kept as it came, and a connection under way on the
//! host. Only when that stands is the SYN given to a [`Engine`], which then answers it: what
//! happens outside, a refusal, an unreachable network, silence, happens inside too, and a
//! connection that comes to nothing costs no buffers. From then on bytes go from frame to socket
//! and from socket to ring, each copied once, under the windows of both sides.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use super::engine::{Engine, Engines};
use crate::outside::{keep_alive, prefer_reno_if_local};
use crate::poll::Ready;
use crate::stack::Io;
use crate::timers::Deadline;

/// How much is taken from a host socket at a time, in bytes: enough for several super-frames,
/// little enough to be in the cache still when it is sent on.
const CHUNK: usize = 256 * 1024;
/// How much goes in each direction in one turn, in bytes, so that no flow starves the others.
const TURN: usize = 1024 * 1024;
/// How long after its last byte a flow gives memory back.
const IDLE: Duration = Duration::from_secs(2);
/// A segment with as much payload as this, in bytes, is part of a long transfer: what is left of it
/// after cutting it for the outside may wait for the next, if that is there already.
const BULK: usize = 16 * 1024;
/// A flow that moved less than this, in bytes, has no memory to give back.
const SMALL: usize = 64 * 1024;

/// A flow.
#[derive(Debug)]
pub(crate) struct Flow {
    /// The container's endpoint and the outside one, as the container knows it.
    pub(crate) name: (SocketAddr, SocketAddr),
    pub(crate) phase: Phase,
    pub(crate) deadline: Deadline,
    /// Whether the flow waits to be flushed at the end of this turn.
    pub(crate) queued: bool,
}

/// How far a flow is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The host is connecting.
    Dialing {
        socket: OwnedFd,
        /// The container's SYN, an IP packet.
        syn: Vec<u8>,
        /// Where to.
        to: IpAddr,
        /// Where else to try, the next one last.
        others: Vec<SocketAddr>,
    },
    /// Both sides are connected.
    Open(Box<Open>),
    /// Neither any more.
    Over,
}

/// The two sides of an open flow.
#[derive(Debug)]
pub(crate) struct Open {
    engine: Engine,
    socket: OwnedFd,
    /// Whether the socket may have something for us, may take something, as far as we know.
    readable: bool,
    writable: bool,
    /// Whether there may be more when a read brings less than it could: the outside has said that it
    /// will send no more, or something urgent, and of that we do not hear again.
    insists: bool,
    /// Whether the outside will send no more, and all has been read.
    outside_done: bool,
    /// Whether the outside was told that the container will send no more.
    inside_done: bool,
    /// Whether the host was told that more comes, and so may keep the last bytes back.
    held: bool,
    /// Whether the host asks if the outside is there still, as the container has begun to.
    asks: bool,
    /// Whether the outside has failed: what it sent before goes to the container, and then the reset.
    failing: bool,
    /// Whether one of the two was reset.
    broken: bool,
    /// Bytes towards the container since memory was given back last, and when the last came.
    moved: usize,
    last: Instant,
    /// Bytes in both directions since the flow rested last.
    busy: usize,
    /// How often the outside took something, and how often it had when somebody looked.
    taken: u64,
    seen: u64,
}

/// What became of a flow in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for news.
    Waiting,
    /// It has more to do at once.
    More,
    /// It is over.
    Over,
}

impl Open {
    /// Connects the two sides: `socket` is connected to `far`, `syn` asks for it. `None` when the SYN is
    /// not one after all.
    pub(crate) fn new(
        socket: OwnedFd,
        far: IpAddr,
        hung_up: bool,
        syn: &mut [u8],
        connections: usize,
        engines: &mut Engines,
        io: &mut Io,
    ) -> Option<Open> {
        prefer_reno_if_local(&socket, far);
        let engine = engines.open(syn, connections, &mut io.wire())?;
        Some(Open {
            engine,
            socket,
            readable: true,
            writable: true,
            insists: hung_up,
            outside_done: false,
            inside_done: false,
            held: false,
            asks: false,
            failing: false,
            broken: false,
            moved: 0,
            last: io.now,
            busy: 0,
            taken: 0,
            seen: 0,
        })
    }

    /// The host's socket.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes a packet from the container, and passes on at once what it brought.
    pub(crate) fn packet(&mut self, packet: &[u8], engines: &mut Engines, io: &mut Io) {
        let Open {
            engine,
            socket,
            writable,
            held,
            failing,
            broken,
            taken,
            ..
        } = self;
        let mut failed = false;
        let mut count = 0;
        let more = io.more_frames;
        let asks = engine.receive(engines, packet, &mut io.wire(), |bytes| {
            if *failing {
                count = bytes.len();
            } else if *writable && !*broken {
                *held = more && bytes.len() >= BULK;
                (count, *writable, failed) = send(socket, bytes, *held);
                *taken += u64::from(count > 0);
            }
            count
        });
        if asks && !std::mem::replace(&mut self.asks, true) {
            let _ = keep_alive(&self.socket, (io.now - self.last).into());
        }
        self.busy = self.busy.saturating_add(packet.len());
        self.last = io.now;
        if failed {
            self.outside_failed();
        }
    }

    /// Takes news of the host socket.
    pub(crate) fn ready(&mut self, ready: &Ready) {
        self.readable |= ready.readable;
        self.writable |= ready.writable;
        self.insists |= ready.hung_up || ready.urgent;
        // An error matters even when nothing can be read or written at the moment.
        if ready.failed && !matches!(sockopt::socket_error(&self.socket), Ok(Ok(()))) {
            self.outside_failed();
        }
    }

    /// The container has ended. Should we end before all is delivered, the outside is to see that something is missing.
    pub(crate) fn linger(&mut self) {
        if !self.inside_done {
            let _ = rcon_sys::sockopt::set_reset_on_close(&self.socket);
        }
        self.seen = self.taken;
    }

    /// Whether the host has all that the container has sent, and its end: then it goes on alone, once the socket is closed.
    pub(crate) fn hand_over(&mut self) -> bool {
        let closed = matches!(self.engine.state(), State::Closed | State::Listen);
        let was_reset = closed && !self.outside_done;
        if self.inside_done && !was_reset {
            let _ = rcon_sys::sockopt::set_deliver_on_close(&self.socket);
        }
        self.inside_done
    }

    /// Whether the outside has taken something since this was asked last.
    pub(crate) fn has_moved_on(&mut self) -> bool {
        std::mem::replace(&mut self.seen, self.taken) != self.taken
    }

    /// The outside is gone. Who answers and closes before having read all resets the connection: the answer counts, and what
    /// is still said to it does not.
    fn outside_failed(&mut self) {
        self.failing = true;
        self.readable = true;
        self.insists = true;
    }

    /// The container's connection is reset.
    pub(crate) fn fail(&mut self) {
        self.broken = true;
        self.engine.socket().abort();
    }

    /// Moves what can be moved in both directions, and sends it on.
    pub(crate) fn turn(&mut self, engines: &mut Engines, io: &mut Io) -> Turn {
        if self.busy > SMALL {
            self.engine.be_generous(engines);
        }
        let mut budget = TURN;
        let before = self.moved;
        self.outward(io.now);
        self.let_go();
        loop {
            let moved = self.inward();
            let delivered = self.outside_done && self.engine.socket().send_queue() == 0;
            if self.failing && !self.broken && delivered {
                self.fail();
            }
            self.engine.send_pending(engines, &mut io.wire());
            budget = budget.saturating_sub(moved);
            if moved == 0 || budget == 0 {
                break;
            }
        }
        if self.moved != before {
            self.last = io.now;
        }
        if self.is_over() {
            return Turn::Over;
        }
        match budget {
            0 => Turn::More,
            _ => Turn::Waiting,
        }
    }

    /// Container to outside: what found no room at once.
    fn outward(&mut self, now: Instant) {
        while self.failing && !self.engine.waiting().is_empty() {
            self.engine.consume(self.engine.waiting().len());
        }
        while self.writable && !self.broken && !self.engine.waiting().is_empty() {
            let failed;
            let count;
            (count, self.writable, failed) = send(&self.socket, self.engine.waiting(), false);
            self.held = false;
            self.taken += u64::from(count > 0);
            self.engine.consume(count);
            self.last = now;
            if failed {
                self.outside_failed();
                return self.outward(now);
            }
        }
        if !self.inside_done && self.engine.has_ended() && self.engine.waiting().is_empty() {
            self.inside_done = true;
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// Has the host send what it kept back for more that has not come.
    fn let_go(&mut self) {
        if std::mem::take(&mut self.held) {
            // Set already; setting it sends what is there (tcp(7)).
            let _ = sockopt::set_tcp_nodelay(&self.socket, true);
        }
    }

    /// Outside to container: from the socket to the ring. Gives how much.
    fn inward(&mut self) -> usize {
        let mut total = 0;
        while self.readable && !self.outside_done && !self.broken && total < CHUNK {
            let room = self.engine.room();
            if room == 0 {
                break;
            }
            let socket = &self.socket;
            let result = self.engine.socket().send(|space| {
                let length = space.len().min(CHUNK).min(room);
                match rustix::net::recv(socket, &mut space[..length], RecvFlags::empty()) {
                    Ok((count, _)) => (count, Ok((count, length))),
                    Err(error) => (0, Err(error)),
                }
            });
            match result {
                Ok(Ok((0, _))) => {
                    self.outside_done = true;
                    if !self.failing {
                        self.engine.socket().close();
                    }
                }
                Ok(Ok((count, asked))) => {
                    total += count;
                    self.engine.took(count);
                    // Less than asked for means that there is no more; epoll(7) tells of new.
                    self.readable = count == asked || self.insists;
                }
                Ok(Err(Errno::AGAIN)) => {
                    self.readable = false;
                    // It failed otherwise than by the other end.
                    self.outside_done |= self.failing;
                }
                Ok(Err(Errno::INTR)) => {}
                // All that came before it has been read.
                Ok(Err(_)) => {
                    self.outside_failed();
                    self.outside_done = true;
                }
                Err(_) => break,
            }
        }
        self.moved = self.moved.saturating_add(total);
        self.busy = self.busy.saturating_add(total);
        total
    }

    fn is_over(&mut self) -> bool {
        match self.engine.state() {
            State::Closed if self.inside_done && self.outside_done => true,
            // One side reset the connection: so does the other (SYN-RECEIVED falls back to LISTEN).
            State::Closed | State::Listen => {
                let _ = rcon_sys::sockopt::set_reset_on_close(&self.socket);
                true
            }
            // The wait is for the sake of lost packets, of which there are none on this link.
            State::TimeWait => self.inside_done,
            _ => false,
        }
    }

    /// When the flow has something to do by itself.
    pub(crate) fn next_deadline(&mut self, engines: &mut Engines, now: Instant) -> Option<Instant> {
        let tcp = self
            .engine
            .next_deadline(engines, now)
            // What could be done now has been done.
            .map(|at| at.max(now + Duration::from_millis(1)));
        let rest = self.has_worked().then_some(self.last + IDLE);
        tcp.into_iter().chain(rest).min()
    }

    /// Whether a rest makes a difference.
    fn has_worked(&self) -> bool {
        self.holds_memory() || self.engine.is_generous()
    }

    /// Whether there is memory worth giving back.
    fn holds_memory(&self) -> bool {
        self.moved > SMALL || self.engine.waiting_capacity() > SMALL
    }

    /// Gives memory back after a time without bytes, and the right to hold much.
    pub(crate) fn rest(&mut self, engines: &mut Engines, now: Instant) {
        if self.has_worked() && self.last + IDLE <= now {
            self.moved = 0;
            self.busy = 0;
            self.last = now;
            self.engine.release_memory();
            self.engine.be_modest(engines);
        }
    }

    /// Whether the container has finished with the connection, so that it may use the same
    /// endpoints for another.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(
            self.engine.state(),
            State::Closed | State::TimeWait | State::LastAck | State::Closing
        )
    }

    /// Gives back what a flow that is over has of the engines.
    pub(crate) fn leave(mut self, engines: &mut Engines) {
        self.engine.be_modest(engines);
        if self.moved <= SMALL {
            engines.recycle(self.engine);
        }
    }

    /// Ends the flow without a word to the container; the outside sees a reset.
    pub(crate) fn forsake(&mut self) {
        let _ = rcon_sys::sockopt::set_reset_on_close(&self.socket);
    }
}

/// Sends what the socket takes, with a word whether more comes at once; gives how much was taken,
/// whether the socket would take more, and whether it has failed.
fn send(socket: &OwnedFd, bytes: &[u8], more: bool) -> (usize, bool, bool) {
    let flags = match more {
        true => SendFlags::NOSIGNAL | SendFlags::MORE,
        false => SendFlags::NOSIGNAL,
    };
    loop {
        return match rustix::net::send(socket, bytes, flags) {
            // It has taken less than it was given: there was no room for more.
            Ok(count) => (count, count == bytes.len(), false),
            Err(Errno::AGAIN) => (0, false, false),
            Err(Errno::INTR) => continue,
            Err(_) => (0, true, true),
        };
    }
}

/// How a connection that was under way came out.
pub(crate) fn dialed(socket: &OwnedFd) -> io::Result<()> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) | Err(error) => Err(error.into()),
    }
}
