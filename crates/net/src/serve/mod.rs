//! The process that serves a network.

mod linger;
mod show;

pub(crate) use linger::{Bounds, Due, Watch};

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant as Clock;

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcon_sys::memory::{Leftovers, Rest, Untouched};
use rustix::thread::CapabilitySet;
use smoltcp::time::{Duration, Instant};

use crate::channel::{self, Content, Order, Place, Received, Word};
use crate::config::{Config, PortHandler};
use crate::control::{Control, Traffic};
use crate::device::{self, FRAME_LEN, Reader};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::outside::HostSockets;
use crate::poll::{Alertness, Kind, Poller, Ready, Token};
use crate::ports::bind::{Listener, Listeners};
use crate::ports::mapping::Protocol;
use crate::ports::relay::RelayThread;
use crate::ports::udp::UdpPorts;
use crate::resolv::{HOST_HOSTS, HOST_RESOLV_CONF};
use crate::sandbox::{self, Sandbox, Thread};
use crate::stack::dns::Dns;
use crate::stack::policy::Policy;
use crate::stack::tcp::engine::SMALLEST_BUFFER;
use crate::stack::{Io, Stack};

/// How many frames are read in one turn: enough to share the cost of the turn, few enough for
/// everybody else to have theirs soon.
const FRAMES: usize = 32;
/// A longer file of names is taken for an empty one, in bytes.
const MAX_FILE: usize = 256 * 1024;

/// What the process works with.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) tap: OwnedFd,
    pub(crate) userns: Option<OwnedFd>,
    pub(crate) netns: OwnedFd,
    pub(crate) listeners: Listeners,
    pub(crate) control: Option<OwnedFd>,
    /// The process whose network this is.
    pub(crate) process: Option<OwnedFd>,
    /// The supervisor.
    pub(crate) channel: OwnedFd,
    pub(crate) restarts: u32,
}

/// Serves a network until the supervisor says that it is over, or is gone and the container too.
///
/// To be called in a process of its own with a single thread: it closes every other descriptor but
/// the standard ones, and gives up whatever it does not need.
///
/// # Errors
/// [`Error::Io`] when the tap or the namespaces cannot be used.
pub(crate) fn serve(service: Service) -> Result<()> {
    close_everything_else(&service);
    forbid_privilege()?;
    let ports = service.listeners.fds().count() as u64;
    let limits = Limits::for_descriptors(raise_descriptor_limit().saturating_sub(ports));
    rcon_sys::memory::set_mmap_threshold(SMALLEST_BUFFER as i32);
    // Buffers lie side by side and are used a little each: a huge page would make memory of all of them. A kernel
    // that does not know this has no such pages.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let Service {
        config,
        tap,
        userns,
        netns,
        listeners,
        control,
        process,
        channel,
        restarts,
    } = service;

    // A process joins a user namespace while it has one thread (setns(2)); the threads that follow
    // then have the right to join the network namespace.
    let joined = match &userns {
        Some(userns) => setns(userns, CloneFlags::CLONE_NEWUSER),
        None => Ok(()),
    };
    if let Err(errno) = joined
        && !listeners.is_empty()
    {
        return Err(Error::io("cannot join the container's user namespace")(
            errno.into(),
        ));
    }
    drop(userns);
    let policy = Policy::new(&config);
    // The relay's thread looks at a setting of the container's; after that nobody opens a file.
    let relay = joined
        .is_ok()
        .then(|| start_relay(&policy, limits, netns))
        .transpose();
    let relay = match relay {
        Ok(relay) => relay,
        Err(_) if listeners.is_empty() => None,
        Err(error) => {
            return Err(Error::io("cannot join the container's network namespace")(
                error,
            ));
        }
    };
    let mut server = Server::new(
        tap, policy, limits, &config, channel, process, relay, control,
    )?;
    for listener in listeners.sockets {
        server.publish(listener)?;
    }
    let names = |path: &str| {
        let file = std::fs::File::open(path).ok()?;
        read_file(file.as_fd())
    };
    let (resolv_conf, hosts) = (names(HOST_RESOLV_CONF), names(HOST_HOSTS));
    server
        .stack
        .learn_names(resolv_conf.as_deref(), hosts.as_deref());
    let leftovers = Leftovers::find();
    server.restarts = restarts;
    server.sandbox = Sandbox {
        no_files: sandbox::leave_files(),
        no_capabilities: sandbox::keep_capabilities(CapabilitySet::empty()).is_ok(),
        few_calls: sandbox::restrict(Thread::Stack).is_ok(),
    };
    server.run(Rest::new(leftovers))
}

/// Starts the thread that relays published TCP ports; it is in the container's network namespace.
fn start_relay(policy: &Policy, limits: Limits, netns: OwnedFd) -> io::Result<RelayThread> {
    RelayThread::start(policy.clone(), limits, move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    })
}

/// Closes every descriptor but the standard ones and those that are needed.
fn close_everything_else(service: &Service) {
    let optional = [&service.userns, &service.control, &service.process];
    let keep: Vec<i32> = service
        .listeners
        .fds()
        .map(|fd| fd.as_raw_fd())
        .chain([&service.tap, &service.netns, &service.channel].map(AsRawFd::as_raw_fd))
        .chain(optional.into_iter().flatten().map(AsRawFd::as_raw_fd))
        .collect();
    rcon_sys::descriptors::close_range_except(3, &keep);
}

/// Makes sure that this process cannot gain what it does not have, nor be looked into.
fn forbid_privilege() -> Result<()> {
    nix::sys::prctl::set_no_new_privs()
        .and_then(|()| nix::sys::prctl::set_dumpable(false))
        .map_err(|errno| Error::io("cannot give up privilege")(errno.into()))
}

/// Allows as many descriptors as may be, for each flow has one or two; gives how many that are.
fn raise_descriptor_limit() -> u64 {
    /// What every process may have (systemd's and the kernel's default).
    const USUAL: u64 = 1024;
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() => hard,
        Ok((soft, _)) => soft,
        Err(_) => USUAL,
    }
}

/// The text of a small file that is open.
fn read_file(file: BorrowedFd<'_>) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::read(file, &mut chunk) {
            Ok(0) => return Some(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        if bytes.len() > MAX_FILE {
            return None;
        }
    }
}

/// The loop, and what it works with.
struct Server {
    stack: Stack,
    frames: Reader,
    /// Of these two, one holds the frame that is being taken, the other the next.
    buffers: [Untouched; 2],
    /// Shared with the relay's thread, which may be the last to know that ports are closed.
    channel: Arc<OwnedFd>,
    process: Option<OwnedFd>,
    relay: Option<RelayThread>,
    control: Control,
    /// Every published port, and how many were published before it: for those who ask, in this order.
    places: HashMap<Place, u64>,
    published: u64,
    /// Clients on the host's loopback come to published UDP ports as the container itself.
    inner_clients: bool,
    tap: Traffic,
    sandbox: Sandbox,
    restarts: u32,
    start: Clock,
}

/// What comes after a turn of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another.
    Turn,
    /// The end, once what the container sent is delivered.
    Linger,
    /// The end.
    End,
}

/// What one turn of the loop leaves to the next.
#[derive(Default)]
struct Turns {
    ready: Vec<Ready>,
    alertness: Alertness,
    /// Some flow has more to do at once.
    more: bool,
    /// Bytes that went through the tap so far.
    bytes: u64,
}

impl Server {
    #[allow(clippy::too_many_arguments)]
    fn new(
        tap: OwnedFd,
        policy: Policy,
        limits: Limits,
        config: &Config,
        channel: OwnedFd,
        process: Option<OwnedFd>,
        relay: Option<RelayThread>,
        control: Option<OwnedFd>,
    ) -> Result<Server> {
        let (frames, link) = device::open(tap).map_err(Error::io("cannot use the tap"))?;
        let watch = || -> io::Result<Poller> {
            let poller = Poller::new()?;
            poller.add_readable(&frames, Token::only(Kind::Tap))?;
            poller.add_readable(&channel, Token::only(Kind::Supervisor))?;
            Ok(poller)
        };
        let poller = watch().map_err(Error::io("cannot watch the tap"))?;
        let control =
            Control::new(control, &poller).map_err(Error::io("cannot watch the control socket"))?;
        let outside = Box::new(HostSockets::new(config));
        let io = Io::new(Box::new(link), outside, poller, policy, limits);
        Ok(Server {
            stack: Stack::new(io, Dns::new(&config.dns), UdpPorts::default()),
            frames,
            buffers: [Untouched::new(FRAME_LEN), Untouched::new(FRAME_LEN)],
            channel: Arc::new(channel),
            process,
            relay,
            control,
            places: HashMap::new(),
            published: 0,
            inner_clients: config.port_handler == PortHandler::Rootlesskit,
            tap: Traffic::default(),
            sandbox: Sandbox::default(),
            restarts: 0,
            start: Clock::now(),
        })
    }

    /// Serves until the end.
    fn run(mut self, mut rest: Rest) -> Result<()> {
        let mut turns = Turns::default();
        loop {
            match self.turn(&mut turns, &mut rest, None)? {
                Next::Turn => {}
                Next::Linger => return self.linger(turns, rest, Bounds::default()),
                Next::End => return self.finish(),
            }
        }
    }

    fn clock(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// Waits, at most so long, and does what there is to do.
    fn turn(
        &mut self,
        turns: &mut Turns,
        rest: &mut Rest,
        at_most: Option<Duration>,
    ) -> Result<Next> {
        let timeout = match turns.more {
            true => Some(Duration::ZERO),
            false => self.stack.io.timers.delay(self.clock()),
        };
        let timeout = [timeout, at_most].into_iter().flatten().min();
        let due = timeout.map(std::time::Duration::from);
        let limit = rest.limit(due);
        turns
            .alertness
            .wait(&self.stack.io.poller, &mut turns.ready, limit)
            .map_err(Error::io("cannot wait for frames"))?;
        rest.waited(due, !turns.ready.is_empty());
        self.stack.io.now = self.clock();
        let mut next = Next::Turn;
        for event in &turns.ready {
            match event.token.kind {
                Kind::Stop => next = Next::Linger,
                Kind::Supervisor => match self.obey()? {
                    Next::Turn => {}
                    // Other events are not told again.
                    Next::Linger => next = Next::Linger,
                    Next::End => return Ok(Next::End),
                },
                Kind::Tap => self.take_frames(event.failed)?,
                Kind::Control => self.control.accept(&self.stack.io.poller),
                Kind::ControlClient => self.show(event),
                _ => self.stack.ready(*event),
            }
        }
        self.stack.timers();
        if self.stack.wants_names() {
            // Without an answer, what is known must do.
            let _ = channel::send(&*self.channel, &Word::Look, &[]);
        }
        turns.more = self.stack.flush();
        let so_far = self.tap.bytes_sent + self.stack.io.link.traffic().bytes_received;
        turns.alertness.moved(so_far - turns.bytes);
        turns.bytes = so_far;
        Ok(next)
    }

    /// Takes some of the frames that wait at the tap.
    fn take_frames(&mut self, failed: bool) -> Result<()> {
        let mut frame = self.read_frame(0, failed)?;
        for turn in 1..=FRAMES {
            let Some(length) = frame else { break };
            frame = match turn {
                FRAMES => None,
                _ => self.read_frame(turn % 2, failed)?,
            };
            self.stack.io.more_frames = frame.is_some();
            match device::parse(&self.buffers[(turn - 1) % 2][..length]) {
                Some(frame) => self.stack.frame(&frame),
                None => self.tap.ignored += 1,
            }
        }
        Ok(())
    }

    /// Reads a frame into one of the buffers; gives its length, or `None` when there is none.
    fn read_frame(&mut self, into: usize, failed: bool) -> Result<Option<usize>> {
        loop {
            match self.frames.read(&mut self.buffers[into]) {
                Ok(length) => {
                    self.tap.frames_sent += 1;
                    self.tap.bytes_sent += length as u64;
                    return Ok(Some(length));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !failed => {
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The device has gone, and the network with it.
                Err(error) => return Err(Error::io("cannot read from the tap")(error)),
            }
        }
    }

    fn finish(mut self) -> Result<()> {
        match self.relay.take() {
            Some(relay) => relay
                .end()
                .map_err(Error::io("cannot relay published ports")),
            None => Ok(()),
        }
    }

    /// Does what the supervisor says.
    fn obey(&mut self) -> Result<Next> {
        loop {
            match channel::receive::<Order>(&*self.channel) {
                Received::Message(Order::Linger, _) => return Ok(Next::Linger),
                Received::Message(Order::End, _) => return Ok(Next::End),
                Received::Message(order, fds) => self.follow(order, fds)?,
                Received::Nothing => return Ok(Next::Turn),
                Received::End => return Ok(self.outlive()),
            }
        }
    }

    /// The supervisor has gone without a word. The container may be there still.
    fn outlive(&mut self) -> Next {
        let poller = &self.stack.io.poller;
        poller.remove(&*self.channel);
        let goes_on = self.process.as_ref().is_some_and(|process| {
            poller
                .add_readable(process, Token::only(Kind::Stop))
                .is_ok()
        });
        match goes_on {
            true => Next::Turn,
            false => Next::End,
        }
    }

    fn follow(&mut self, order: Order, fds: Vec<OwnedFd>) -> Result<()> {
        match order {
            Order::Publish {
                places,
                client_addresses,
            } => {
                if fds.len() < places.len() {
                    // There was no room for them here; who comes in our place begins with all.
                    return Err(Error::io("cannot take the published ports")(
                        io::Error::from_raw_os_error(libc::EMFILE),
                    ));
                }
                if let (Some(kept), Some(relay)) = (client_addresses, &self.relay) {
                    relay.client_addresses(kept);
                }
                for (place, socket) in places.into_iter().zip(fds) {
                    self.publish(Listener::of(place, socket))?;
                }
                let _ = channel::send(&*self.channel, &Word::Published, &[]);
            }
            Order::Withdraw { places } => {
                let mut streams = Vec::new();
                for place in &places {
                    self.places.remove(place);
                    match place.protocol {
                        Protocol::Udp => self.stack.withdraw(place.address),
                        Protocol::Tcp => streams.push(place.address),
                    }
                }
                if let Some(relay) = &self.relay
                    && !streams.is_empty()
                {
                    relay.withdraw(streams);
                }
                // Who does not listen any more will not miss it.
                let _ = channel::send(&*self.channel, &Word::Withdrawn, &[]);
            }
            Order::Names { resolv_conf, hosts } => {
                let mut fds = fds.into_iter();
                let mut text = |content| match content {
                    Content::Same => None,
                    Content::Gone => Some(String::new()),
                    Content::Sent => fds
                        .next()
                        .map(|file| read_file(file.as_fd()).unwrap_or_default()),
                };
                let (resolv_conf, hosts) = (text(resolv_conf), text(hosts));
                self.stack
                    .learn_names(resolv_conf.as_deref(), hosts.as_deref());
            }
            Order::Linger | Order::End => {}
        }
        Ok(())
    }

    /// Serves a bound port.
    fn publish(&mut self, listener: Listener) -> Result<()> {
        self.places.insert(listener.place(), self.published);
        self.published += 1;
        let failed = || Error::io("cannot watch the published ports");
        match (listener.protocol, &self.relay) {
            (Protocol::Tcp, Some(relay)) => relay.publish(listener),
            (Protocol::Tcp, None) => {}
            (Protocol::Udp, relay) => {
                if let (true, Some(relay)) = (self.inner_clients, relay)
                    && !self.stack.has_inner_sockets()
                {
                    let inner = relay.inner_sockets().map_err(failed())?;
                    self.stack.set_inner_sockets(inner);
                }
                self.stack.publish(listener).map_err(failed())?;
            }
        }
        Ok(())
    }
}
