//! The process that serves a network.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Instant as Clock;

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use smoltcp::time::{Duration, Instant};

use crate::config::{Config, PortHandler, Protocol};
use crate::device::{self, FRAME_LEN, Reader};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::outside::HostSockets;
use crate::poll::{Kind, Poller, Ready, Token};
use crate::ports::bind::{Listener, Listeners};
use crate::ports::inner::InnerSockets;
use crate::ports::relay::Relay;
use crate::ports::udp::UdpPorts;
use crate::stack::dns::Dns;
use crate::stack::policy::Policy;
use crate::stack::tcp::engine::SMALLEST_BUFFER;
use crate::stack::{Io, Stack};

/// How many frames are read in one turn: enough to share the cost of the turn, few enough for
/// everybody else to have theirs soon.
const FRAMES: usize = 32;
/// The stack of the relay's thread, in bytes: its loop is shallow.
const RELAY_STACK: usize = 128 * 1024;

/// Serves a container's network until `stop` hangs up.
///
/// `tap` is what [`crate::set_up_namespace`] gave; `userns` and `netns` are the container's
/// namespaces. To be called in a process of its own with a single thread: it joins the user
/// namespace when ports are published, gives up what privilege it has, and closes every other
/// descriptor of the process but the standard ones.
///
/// # Errors
/// [`Error::Io`] when the tap or the namespaces cannot be used.
pub fn serve(
    config: &Config,
    tap: OwnedFd,
    listeners: Listeners,
    userns: OwnedFd,
    netns: OwnedFd,
    stop: OwnedFd,
) -> Result<()> {
    close_everything_else(&listeners, &[&tap, &userns, &netns, &stop]);
    give_up_privilege()?;
    let limits = Limits::for_descriptors(raise_descriptor_limit());
    rcon_sys::memory::set_mmap_threshold(SMALLEST_BUFFER as i32);

    let (tcp, udp): (Vec<Listener>, Vec<Listener>) = listeners
        .sockets
        .into_iter()
        .partition(|listener| listener.protocol == Protocol::Tcp);
    let policy = Policy::new(config);
    let relay = match tcp.is_empty() {
        true => None,
        false => Some(
            Relay::new(policy.clone(), limits, tcp, stop.as_fd())
                .map_err(Error::io("cannot watch the published ports"))?,
        ),
    };
    let inner = !udp.is_empty() && config.port_handler == PortHandler::Rootlesskit;
    let mut ports = UdpPorts::default();
    let mut thread = None;
    if relay.is_some() || inner {
        // A process joins a user namespace while it has one thread (setns(2)); the threads that
        // follow then have the right to join the network namespace.
        setns(&userns, CloneFlags::CLONE_NEWUSER).map_err(|errno| {
            Error::io("cannot join the container's user namespace")(errno.into())
        })?;
        let joining = || Error::io("cannot join the container's network namespace");
        if inner {
            let netns = netns.try_clone().map_err(joining())?;
            ports = UdpPorts::new(Some(
                InnerSockets::start(move || join(&netns)).map_err(joining())?,
            ));
        }
        if let Some(relay) = relay {
            thread = Some(start(relay, netns).map_err(joining())?);
        }
    }
    drop(userns);
    let served = Server::new(tap, policy, limits, config, ports, udp, stop.as_fd())?.run();
    if let Some(thread) = thread
        && let Ok(relayed) = thread.join()
    {
        relayed.map_err(Error::io("cannot relay published ports"))?;
    }
    served
}

/// Brings the calling thread into the container's network namespace.
fn join(netns: &OwnedFd) -> io::Result<()> {
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

/// Starts the relay of published TCP ports in its thread.
fn start(relay: Relay, netns: OwnedFd) -> io::Result<JoinHandle<io::Result<()>>> {
    let (joined, outcome) = sync_channel(1);
    let thread = thread::Builder::new()
        .name("relay".into())
        .stack_size(RELAY_STACK)
        .spawn(move || {
            let result = join(&netns);
            drop(netns);
            let failed = result.is_err();
            let _ = joined.send(result);
            match failed {
                true => Ok(()),
                false => relay.run(),
            }
        })?;
    outcome
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread of the relay has ended")))?;
    Ok(thread)
}

/// Closes every descriptor but the standard ones and those that are needed.
fn close_everything_else(listeners: &Listeners, others: &[&OwnedFd]) {
    let keep: Vec<i32> = listeners
        .fds()
        .map(|fd| fd.as_raw_fd())
        .chain(others.iter().map(|fd| fd.as_raw_fd()))
        .collect();
    rcon_sys::process::close_range_except(3, &keep);
}

/// Makes sure that this process cannot gain what it does not have, nor be looked into.
fn give_up_privilege() -> Result<()> {
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

/// The loop, and what it works with.
struct Server {
    stack: Stack,
    frames: Reader,
    buffer: Vec<u8>,
}

impl Server {
    fn new(
        tap: OwnedFd,
        policy: Policy,
        limits: Limits,
        config: &Config,
        mut ports: UdpPorts,
        udp: Vec<Listener>,
        stop: BorrowedFd<'_>,
    ) -> Result<Server> {
        let (frames, link) = device::open(tap).map_err(Error::io("cannot use the tap"))?;
        let watch = || -> io::Result<Poller> {
            let poller = Poller::new()?;
            poller.add_readable(&frames, Token::only(Kind::Tap))?;
            poller.add_readable(stop, Token::only(Kind::Stop))?;
            Ok(poller)
        };
        let poller = watch().map_err(Error::io("cannot watch the tap"))?;
        let outside = Box::new(HostSockets::new(config));
        let io = Io::new(Box::new(link), outside, poller, policy, limits);
        for listener in udp {
            ports
                .add(&io, listener)
                .map_err(Error::io("cannot watch the published ports"))?;
        }
        Ok(Server {
            stack: Stack::new(io, Dns::new(&config.dns), ports),
            frames,
            buffer: vec![0; FRAME_LEN],
        })
    }

    /// Serves until the end.
    fn run(mut self) -> Result<()> {
        let start = Clock::now();
        let clock = || Instant::from_micros(start.elapsed().as_micros() as i64);
        let mut ready: Vec<Ready> = Vec::new();
        let mut more = false;
        loop {
            let timeout = match more {
                true => Some(Duration::ZERO),
                false => self.stack.io.timers.delay(clock()),
            };
            self.stack
                .io
                .poller
                .wait(&mut ready, timeout.map(Into::into))
                .map_err(Error::io("cannot wait for frames"))?;
            self.stack.io.now = clock();
            for event in &ready {
                match event.token.kind {
                    Kind::Stop => return Ok(()),
                    Kind::Tap => self.take_frames(event.failed)?,
                    _ => self.stack.ready(*event),
                }
            }
            self.stack.timers();
            more = self.stack.flush();
        }
    }

    /// Takes some of the frames that wait at the tap.
    fn take_frames(&mut self, failed: bool) -> Result<()> {
        for _ in 0..FRAMES {
            match self.frames.read(&mut self.buffer) {
                Ok(length) => {
                    if let Some(frame) = device::parse(&self.buffer[..length]) {
                        self.stack.frame(&frame);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !failed => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The device has gone, and the network with it.
                Err(error) => return Err(Error::io("cannot read from the tap")(error)),
            }
        }
        Ok(())
    }
}
