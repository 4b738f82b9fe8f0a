//! The side of the process that starts a network and answers for it.
//!
//! The network process parses what a hostile container sends, so it may be killed, or crash. Then
//! it is started again: the tap, the bound ports and the namespaces are held here, so that nothing
//! of the network's outside face is lost with it, and clients that come in between wait in the
//! kernel's queue. Connections that it carried are reset. One that crashes again and again is
//! started less and less often, and in the end not any more.
//!
//! The network process has no files. What it needs of the host it asks for here.

mod crashes;
mod files;
mod lingering;

pub use lingering::Lingering;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;
use rcon_sys::process::{self, Fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::channel::{self, Order, Received, Word};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::namespace;
use crate::ports::bind::{Listener, Listeners, bind_beside};
use crate::ports::mapping::PortMapping;
use crate::serve::{self, Service};
use crashes::Crashes;
use files::Files;
use lingering::After;

/// How long the network process may take to end, which it does in its next turn.
const GRACE: Duration = Duration::from_secs(2);
/// How long is waited for the network process to open or close ports, which it does in its next turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// The exit code of a network process that has panicked, as Rust has it.
const PANICKED: i32 = 101;

/// What a network is made for.
#[derive(Debug)]
pub struct Guest {
    /// Its options.
    pub config: Config,
    /// What [`crate::set_up_namespace`] gave.
    pub tap: OwnedFd,
    /// The user namespace that owns the network namespace; none when that is the caller's own.
    pub userns: Option<OwnedFd>,
    /// The network namespace.
    pub netns: OwnedFd,
    /// The published ports.
    pub listeners: Listeners,
    /// A listening Unix socket for those who want to look at the network: see [`crate::control`].
    pub control: Option<OwnedFd>,
    /// A pidfd of the process whose network this is: if the supervisor dies, the network goes on
    /// until that process has ended. Without one it ends with the supervisor.
    pub process: Option<OwnedFd>,
}

/// A network that is being served; dropping this ends it, and its ports are closed then. Where the container was said
/// to have ended ([`Network::dismiss`]), connections linger that have something of it left to deliver.
///
/// Whoever has it waits for [`Network::fd`] to be readable and calls [`Network::attend`] then. It
/// may only be used in a process with one thread, for it forks.
#[derive(Debug)]
pub struct Network {
    guest: Guest,
    phase: Phase,
    crashes: Crashes,
    restarts: u32,
    files: Files,
    /// Whether the namespace is ready for clients with their own addresses, if it was tried.
    client_addresses: Option<bool>,
    /// Whether the process was told that the container has ended.
    dismissed: bool,
}

#[derive(Debug)]
enum Phase {
    /// It is served.
    Running {
        pid: Pid,
        process: OwnedFd,
        channel: OwnedFd,
        since: Instant,
    },
    /// It will be served again when the timer is readable.
    Resting { timer: OwnedFd },
    /// It crashed too often.
    GivenUp,
}

impl Network {
    /// Forks the process that serves the network.
    ///
    /// # Errors
    /// [`Error::Io`] when there can be no process.
    pub fn start(guest: Guest) -> Result<Network> {
        let client_addresses = guest.config.publishes_tcp().then_some(true);
        let mut network = Network {
            guest,
            phase: Phase::GivenUp,
            crashes: Crashes::default(),
            restarts: 0,
            files: Files::default(),
            client_addresses,
            dismissed: false,
        };
        network
            .launch()
            .map_err(Error::io("cannot start the network"))?;
        Ok(network)
    }

    /// Readable when [`Network::attend`] is to be called.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Running { channel, .. } => Some(channel.as_fd()),
            Phase::Resting { timer } => Some(timer.as_fd()),
            Phase::GivenUp => None,
        }
    }

    /// Answers the network process, or starts another in its place.
    pub fn attend(&mut self) {
        match &self.phase {
            Phase::Running { channel, .. } => match channel::receive::<Word>(channel) {
                Received::Message(Word::Look, _) => self.look(),
                Received::Message(Word::Published | Word::Withdrawn | Word::Lingers, _)
                | Received::Nothing => {}
                Received::End => self.bury(),
            },
            Phase::Resting { .. } => self.revive(),
            Phase::GivenUp => {}
        }
    }

    /// Publishes more ports; gives them as they came to be.
    ///
    /// # Errors
    /// As [`crate::bind`], or [`Error::Failed`] when the network is down: then none of them is published.
    pub fn publish(&mut self, ports: &[PortMapping]) -> Result<Vec<PortMapping>> {
        if matches!(self.phase, Phase::GivenUp) {
            return Err(Error::Failed(
                "the network of the container has failed too often and is down".into(),
            ));
        }
        let from = self.guest.listeners.sockets.len();
        let added = bind_beside(ports, from)?;
        let mut changed = None;
        if added.has_tcp() && self.client_addresses.is_none() {
            self.client_addresses = Some(self.prepare());
            changed = self.client_addresses;
        }
        let mappings = added.mappings().to_vec();
        self.guest.listeners.append(added);
        let process = self.process_id();
        for at in (from..self.guest.listeners.sockets.len()).step_by(channel::BATCH) {
            // Who has come in its place meanwhile began with all of them.
            if self.process_id() != process {
                break;
            }
            let sockets = self.guest.listeners.sockets[at..]
                .iter()
                .take(channel::BATCH);
            let order = Order::Publish {
                places: sockets.clone().map(Listener::place).collect(),
                client_addresses: changed,
            };
            let fds: Vec<BorrowedFd<'_>> =
                sockets.map(|listener| listener.socket.as_fd()).collect();
            self.order(&order, &fds);
            // The channel has room for few messages, and the kernel for few descriptors that are on their way.
            self.await_word(Word::Published);
        }
        Ok(mappings)
    }

    /// Takes published ports back. A host port of 0 stands for any, no host address for every one.
    /// Connections through them go on; new ones are refused, and the ports are free for others.
    ///
    /// # Errors
    /// [`Error::Publish`] when one of them is not published: then nothing has changed.
    pub fn withdraw(&mut self, ports: &[PortMapping]) -> Result<()> {
        let removed = self.guest.listeners.remove(ports)?;
        for listener in &removed {
            // Whoever comes from now on is refused, before the network process has heard of it. A
            // datagram socket has nothing to shut down, and says so.
            let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
        }
        let places: Vec<_> = removed.iter().map(|listener| listener.place()).collect();
        for places in places.chunks(channel::WITHDRAWN) {
            let order = Order::Withdraw {
                places: places.to_vec(),
            };
            self.order(&order, &[]);
            self.await_word(Word::Withdrawn);
        }
        Ok(())
    }

    /// Waits until the network process has done what it was told, or has ended.
    fn await_word(&mut self, done: Word) {
        let end = Instant::now() + PATIENCE;
        let mut asked_to_look = false;
        while let Phase::Running { channel, .. } = &self.phase {
            let Ok(left) = Timespec::try_from(end.saturating_duration_since(Instant::now())) else {
                break;
            };
            let mut fds = [PollFd::new(channel, PollFlags::IN)];
            if !matches!(
                rustix::io::retry_on_intr(|| poll(&mut fds, Some(&left))),
                Ok(1)
            ) {
                break;
            }
            match channel::receive::<Word>(channel) {
                Received::Message(word, _) if word == done => break,
                Received::Message(Word::Look, _) => asked_to_look = true,
                Received::Message(Word::Published | Word::Withdrawn | Word::Lingers, _)
                | Received::Nothing => {}
                Received::End => {
                    self.bury();
                    break;
                }
            }
        }
        if asked_to_look {
            self.look();
        }
    }

    /// The ports that are published.
    pub fn ports(&self) -> &[PortMapping] {
        self.guest.listeners.mappings()
    }

    /// The process that serves it now.
    pub fn process_id(&self) -> Option<i32> {
        match &self.phase {
            Phase::Running { pid, .. } => Some(pid.as_raw_pid()),
            Phase::Resting { .. } | Phase::GivenUp => None,
        }
    }

    /// Tells the process that the container has ended, and does not wait until it has heard it.
    pub fn dismiss(&mut self) {
        self.say(&Order::Linger);
        self.dismissed = true;
    }

    /// The end of the channel says that it is over, too, but might be taken for our own death.
    fn say(&self, order: &Order) {
        if let Phase::Running { channel, .. } = &self.phase {
            let _ = channel::send(channel, order, &[]);
        }
    }

    /// Ends the network and closes the ports. What is left, the tap, takes the kernel some milliseconds to let
    /// go of; it goes with the value. The process if it lingers.
    pub fn close(&mut self) -> Option<Lingering> {
        let left = self.stop();
        self.guest.listeners = Listeners::default();
        left.err()
    }

    /// Ends the network; its ports are closed when this returns. True when it ended in good order.
    pub fn end(mut self) -> bool {
        self.stop().unwrap_or(true)
    }

    /// Waits until the process has ended, and says whether in good order, or has closed its ports and lingers. One that does
    /// neither is killed.
    fn stop(&mut self) -> std::result::Result<bool, Lingering> {
        if !self.dismissed {
            self.say(&Order::End);
        }
        let Phase::Running {
            process, channel, ..
        } = std::mem::replace(&mut self.phase, Phase::GivenUp)
        else {
            return Ok(false);
        };
        match lingering::await_end(&process, &channel, GRACE) {
            After::Ended => {}
            After::Lingers => return Err(Lingering::new(process)),
            After::Neither => drop(process::pidfd_send_signal(&process, libc::SIGKILL)),
        }
        Ok(process::wait_pidfd(&process).is_ok_and(|status| status.success()))
    }

    fn launch(&mut self) -> io::Result<()> {
        let (ours, theirs) = channel::pair()?;
        self.files.remember();
        match process::fork()? {
            Fork::Child => {
                // Nothing of the parent's life goes on here, whatever happens.
                let served = catch_unwind(AssertUnwindSafe(|| self.serve(theirs)));
                process::exit_now(match served {
                    Ok(Ok(())) => 0,
                    Ok(Err(_)) => 1,
                    Err(_) => PANICKED,
                })
            }
            Fork::Parent { pid, pidfd } => {
                self.phase = Phase::Running {
                    pid,
                    process: pidfd,
                    channel: ours,
                    since: Instant::now(),
                };
                Ok(())
            }
        }
    }

    /// The life of the network process. What it does not need is closed by then.
    fn serve(&mut self, channel: OwnedFd) -> Result<()> {
        let _ = process::set_name("rcon-net");
        let _ = SigSet::empty().thread_set_mask();
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        let guest = &mut self.guest;
        let service = (|| {
            Ok(Service {
                config: guest.config.clone(),
                tap: guest.tap.try_clone()?,
                userns: copy(&guest.userns)?,
                netns: guest.netns.try_clone()?,
                listeners: std::mem::take(&mut guest.listeners),
                control: copy(&guest.control)?,
                process: copy(&guest.process)?,
                channel,
                restarts: self.restarts,
            })
        })()
        .map_err(Error::io("cannot start the network"))?;
        serve::serve(service)
    }

    /// Says something to the network process; one that does not listen is done for.
    fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) {
        if let Phase::Running {
            channel, process, ..
        } = &self.phase
            && channel::send(channel, order, fds).is_err()
        {
            // Its end is seen by its channel, and what replaces it knows everything.
            let _ = process::pidfd_send_signal(process, libc::SIGKILL);
        }
    }

    fn look(&mut self) {
        let (resolv_conf, hosts) = self.files.look();
        let order = Order::Names {
            resolv_conf: files::content(&resolv_conf),
            hosts: files::content(&hosts),
        };
        let fds: Vec<BorrowedFd<'_>> = [&resolv_conf, &hosts]
            .into_iter()
            .filter_map(files::descriptor)
            .collect();
        self.order(&order, &fds);
    }

    /// The network process has ended, or speaks no sense.
    fn bury(&mut self) {
        let Phase::Running { process, since, .. } =
            std::mem::replace(&mut self.phase, Phase::GivenUp)
        else {
            return;
        };
        let _ = process::pidfd_send_signal(&process, libc::SIGKILL);
        let _ = process::wait_pidfd(&process);
        self.rest(since.elapsed());
    }

    /// Waits before the next attempt, as long as the crashes before suggest.
    fn rest(&mut self, lived: Duration) {
        match self.crashes.next(lived) {
            Some(Duration::ZERO) => self.revive(),
            Some(delay) => match timer(delay) {
                Ok(timer) => self.phase = Phase::Resting { timer },
                Err(_) => self.give_up(),
            },
            None => self.give_up(),
        }
    }

    fn revive(&mut self) {
        self.restarts += 1;
        if self.launch().is_err() {
            self.rest(Duration::ZERO);
        }
    }

    /// Clients are refused then, and do not wait for what does not come.
    fn give_up(&mut self) {
        self.phase = Phase::GivenUp;
        self.guest.listeners = Listeners::default();
    }

    /// Readies the namespace for TCP clients with their own addresses; whether it is.
    fn prepare(&self) -> bool {
        let enter = || -> io::Result<()> {
            if let Some(userns) = &self.guest.userns {
                setns(userns, CloneFlags::CLONE_NEWUSER)?;
            }
            setns(&self.guest.netns, CloneFlags::CLONE_NEWNET)?;
            namespace::publish_tcp(&self.guest.config)
        };
        match process::fork() {
            Ok(Fork::Child) => {
                let done = catch_unwind(AssertUnwindSafe(enter));
                process::exit_now(i32::from(!matches!(done, Ok(Ok(())))))
            }
            Ok(Fork::Parent { pidfd, .. }) => {
                process::wait_pidfd(&pidfd).is_ok_and(|status| status.success())
            }
            Err(_) => false,
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn timer(delay: Duration) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let it_value =
        Timespec::try_from(delay).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let once = Itimerspec {
        it_interval: zero,
        it_value,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(timer)
}
