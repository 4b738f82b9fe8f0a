//! Taking up a container whose monitor was killed.
//!
//! The container does not notice. Its pipes are whole as long as it has them (see `setup`), and are opened again through
//! `/proc`; what it wrote meanwhile is still in them. The master of a terminal cannot be had that way: the command in the
//! foreground has it, and takes the container up itself. The network has gone on; if it was killed too there is a new
//! process for the tap, which is still there with its addresses. How the container ends is told by the kernel from Linux
//! 6.15 on, though it is not our child; before that only if we look before its new parent does, else nobody knows, and the
//! record says so.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rcon_launch::Running;
use rcon_net::Guest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::Pid;

use super::serve::Monitor;
use super::setup::{self, Started};
use crate::error::{Context, Error, Result};
use crate::files::{self, Durable};
use crate::log::Log;
use crate::record::{Config, Container, ProcessRef, Status};
use crate::sharing::Place;
use crate::{Engine, limits, processes, protocol, records};

/// How long a network without a supervisor may take to notice the end.
const GRACE: Duration = Duration::from_secs(2);

/// What stands for the master of a terminal where the standard streams are 0, 1 and 2.
const CONSOLE: u8 = 3;

/// Our ends of a container's standard streams.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    /// Where its input is written.
    pub stdin: Option<OwnedFd>,
    /// Where its output and errors are read.
    pub output: [Option<OwnedFd>; 2],
}

impl Ends {
    /// Those that are [`which`](Monitor::ends).
    pub fn of(fds: Vec<OwnedFd>, which: &[u8]) -> Ends {
        let mut ends = Ends::default();
        for (fd, which) in fds.into_iter().zip(which) {
            let end = match which {
                0 => &mut ends.stdin,
                1 => &mut ends.output[0],
                2 => &mut ends.output[1],
                _ => &mut ends.console,
            };
            *end = Some(fd);
        }
        ends
    }

    /// All of them.
    pub fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        let output = self.output.iter().flatten();
        self.console.iter().chain(&self.stdin).chain(output)
    }

    fn is_empty(&self) -> bool {
        self.fds().next().is_none()
    }
}

/// Takes up a running container, by who holds its lock; from here on its record names us.
pub(super) fn take_up(
    engine: &Engine,
    container: &mut Container,
    ends: Ends,
    command: Option<ProcessRef>,
) -> Result<Started> {
    let ended = || Error::StateImproper("the container has just ended".into());
    let process = container.state.process.ok_or_else(ended)?;
    let pidfd = process.open().ok_or_else(ended)?;
    let pid = Pid::from_raw(process.pid).ok_or_else(ended)?;
    let namespace = |kind: &str| -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/{kind}", process.pid);
        Ok(File::open(&path).on("open", path.as_ref())?.into())
    };
    let userns = namespace("user")?;
    let runtime = engine.paths.runtime(container.id());
    files::make_dir(&runtime)?;
    files::remove_file(&runtime.join(protocol::CONTROL))?;
    let listener = protocol::listen(&runtime).on("listen in", &runtime)?;
    let dir = engine.paths.container(container.id());
    let log = Log::open(&dir, &container.config).context(|| "cannot open the log".into())?;
    let ends = match ends.is_empty() {
        true => Ends {
            console: None,
            ..find(container, &userns)
        },
        false => {
            // What the command has closed stays so, also with a monitor that it does not make.
            let kept = [&ends.stdin, &ends.output[0], &ends.output[1]];
            for (pipe, end) in container.state.pipes.iter_mut().zip(kept) {
                *pipe = if end.is_some() { *pipe } else { 0 };
            }
            ends
        }
    };
    let orphan = container.state.network.and_then(|network| network.open());
    let mut started = Started {
        running: Running {
            pid,
            pidfd,
            userns,
            netns: None,
            passed: Vec::new(),
            mounts: None,
            console: ends.console,
            cgroup: limits::of(&engine.paths, container.id()),
        },
        net: None,
        orphan,
        taken_up: true,
        held: None,
        log,
        mounts: match container.config.sharing.pid {
            Place::Private => None,
            _ => File::open(format!("/proc/{}/ns/mnt", pid.as_raw_nonzero())).ok(),
        },
        notify: None,
        listener,
        stdin: ends.stdin,
        output: ends.output,
    };
    if started.orphan.is_none() {
        restore_network(engine, container, &mut started);
    }
    let state = &mut container.state;
    state.monitor = ProcessRef::of(std::process::id().cast_signed());
    state.command = command;
    if let Some(path) = &container.config.lifecycle.conmon_pidfile {
        // It is written for others: who cannot have it is no worse off than before.
        let _ = fs::write(path, std::process::id().to_string());
    }
    records::save_state(&dir, state, Durable::No)?;
    Ok(started)
}

/// Serves a network anew whose process was killed with its supervisor. Without one the container still runs.
fn restore_network(engine: &Engine, container: &mut Container, started: &mut Started) {
    match serve_again(engine, &container.config, &container.state.ports, started) {
        Ok(net) => {
            container.state.network = net
                .as_ref()
                .and_then(rcon_net::Network::process_id)
                .and_then(ProcessRef::of);
            started.net = net;
        }
        Err(error) => container.state.error = format!("the network is down: {error}"),
    }
}

fn serve_again(
    engine: &Engine,
    config: &Config,
    ports: &[rcon_net::PortMapping],
    started: &Started,
) -> Result<Option<rcon_net::Network>> {
    let Some(net) = setup::network(config, ports) else {
        return Ok(None);
    };
    let running = &started.running;
    let netns = |_| Error::Invalid("the container's network namespace is gone".into());
    let netns = File::open(format!("/proc/{}/ns/net", running.pid.as_raw_nonzero()))
        .map(OwnedFd::from)
        .map_err(netns)?;
    let why = || "cannot start the network".to_string();
    let tap = rcon_net::reopen_tap(Some(&running.userns), &netns)?;
    let listeners = rcon_net::bind(ports)?;
    let runtime = engine.paths.runtime(&config.id);
    files::remove_file(&runtime.join(protocol::NET))?;
    Ok(Some(rcon_net::Network::start(Guest {
        config: net,
        tap,
        userns: Some(running.userns.try_clone().context(why)?),
        netns,
        listeners,
        control: protocol::listen_stream(&runtime, protocol::NET).ok(),
        process: running.pidfd.try_clone().ok(),
    })?))
}

/// Finds the container's pipes again among the open files of its processes. A child does that, as root over its users.
fn find(container: &Container, userns: &OwnedFd) -> Ends {
    use rcon_sys::process::{Fork, exit_now, fork, wait_pidfd};
    if container.state.pipes.is_empty() {
        return Ends::default();
    }
    let Ok((ours, theirs)) = rcon_sys::fdpass::pair() else {
        return Ends::default();
    };
    match fork() {
        Ok(Fork::Child) => {
            let _ = nix::sched::setns(userns, nix::sched::CloneFlags::CLONE_NEWUSER);
            let (which, found) = find_pipes(container);
            let fds: Vec<BorrowedFd<'_>> = found.iter().map(AsFd::as_fd).collect();
            let sent = rcon_sys::fdpass::send_fds(&theirs, &which, &fds);
            exit_now(i32::from(sent.is_err()))
        }
        Ok(Fork::Parent { pidfd, .. }) => {
            drop(theirs);
            let mut which = [0; 8];
            let received = rcon_sys::fdpass::recv_fds(&ours, &mut which);
            let _ = wait_pidfd(&pidfd);
            let (count, fds) = received.unwrap_or_default();
            Ends::of(fds, &which[..count])
        }
        Err(_) => Ends::default(),
    }
}

/// The pipes that somebody in the container still has, and which they are.
fn find_pipes(container: &Container) -> (Vec<u8>, Vec<OwnedFd>) {
    let pids = processes::pids(container);
    let pipes = (0_u8..).zip(&container.state.pipes);
    pipes
        .filter(|(_, inode)| **inode != 0)
        .filter_map(|(standard, inode)| {
            let first = pids.first().map(|pid| format!("/proc/{pid}/fd/{standard}"));
            let all = pids.iter().flat_map(|pid| {
                let folder = format!("/proc/{pid}/fd");
                let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                entries.map(|entry| entry.path().to_string_lossy().into_owned())
            });
            let flags = match standard {
                0 => OFlags::WRONLY,
                _ => OFlags::RDONLY,
            };
            let mut paths = first.into_iter().chain(all);
            let found = paths.find_map(|path| open_pipe(&path, *inode, flags))?;
            Some((standard, found))
        })
        .unzip()
}

/// Opens the pipe `inode` if it is the one at `path`. Looks before it opens: what the container has there is its own choice.
fn open_pipe(path: &str, inode: u64, flags: OFlags) -> Option<OwnedFd> {
    let look = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::open(path, look, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&found).ok()?;
    if stat.st_ino != inode || FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return None;
    }
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(again, flags, Mode::empty()).ok()
}

/// How a process ended that is not our child; `None` where nobody knows. As long as nobody has waited for it `/proc` tells,
/// after that the kernel from Linux 6.15 on.
pub(super) fn exit_of_a_stranger(process: ProcessRef, pidfd: &OwnedFd) -> Option<ExitStatus> {
    match rcon_sys::process::exit_info(pidfd) {
        Ok(Some(status)) => return Some(status),
        told => {
            if let Some(status) = process.exit_status() {
                return Some(ExitStatus::from_raw(status));
            }
            told.ok()?;
        }
    }
    // Waited for between the two looks.
    rcon_sys::process::exit_info(pidfd).ok()?
}

/// Waits until `process` has ended; false when it takes longer than `limit`.
pub(super) fn ends_within(process: impl AsFd, limit: Duration) -> bool {
    is_told_within(&[process.as_fd()], limit)
}

/// Waits until one of the descriptors is readable; false when it takes longer than `limit`.
fn is_told_within(fds: &[BorrowedFd<'_>], limit: Duration) -> bool {
    let watched = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let mut fds: Vec<PollFd<'_>> = watched.collect();
    let limit = Timespec::try_from(limit).ok();
    matches!(
        rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref())),
        Ok(1..)
    )
}

impl Monitor {
    /// Our ends of the container's streams, for the command in the foreground, and which they are.
    pub(super) fn ends(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        if let Some(console) = &self.started.running.console {
            return (vec![CONSOLE], vec![console.as_fd()]);
        }
        let input = self.streams.input.iter();
        let input = input.map(|input| (0, input.fd.as_fd()));
        let output = self.streams.outputs.iter();
        let output = output.map(|output| (output.standard(), output.fd.as_fd()));
        input.chain(output).unzip()
    }

    /// Has the record know that we close a stream that the container still has: another monitor must not open it again.
    pub(super) fn forget_pipe(&mut self, standard: u8) {
        let pipes = &mut self.container.state.pipes;
        if let Some(inode) = pipes.get_mut(usize::from(standard))
            && *inode != 0
        {
            *inode = 0;
            let dir = self.engine.paths.container(self.container.id());
            // If that fails it is closed nevertheless, for as long as we live.
            let _ = records::save_state(&dir, &self.container.state, Durable::No);
        }
    }

    /// Replaces a network that was killed while nobody supervised it.
    pub(super) fn replace_orphan(&mut self) {
        self.started.orphan = None;
        if self.container.state.status == Status::Exited {
            return;
        }
        restore_network(&self.engine, &mut self.container, &mut self.started);
        let dir = self.engine.paths.container(self.container.id());
        let _ = records::save_state(&dir, &self.container.state, Durable::No);
    }

    /// Sees to it that a network that nobody supervises has closed its ports: has ended, or only lingers, for it closes
    /// the socket then at which it can be looked at.
    pub(super) fn end_orphan(&mut self) {
        let Some(orphan) = self.started.orphan.take() else {
            return;
        };
        let runtime = self.engine.paths.runtime(self.container.id());
        let closed = match protocol::connect_stream(&runtime, protocol::NET) {
            Ok(seen) => is_told_within(&[orphan.as_fd(), seen.as_fd()], GRACE),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => true,
            Err(_) => ends_within(&orphan, GRACE),
        };
        if !closed {
            let _ = rcon_sys::process::pidfd_send_signal(&orphan, libc::SIGKILL);
            ends_within(&orphan, GRACE);
        }
    }
}

impl Engine {
    /// Gives a running container a monitor, by who holds its lock. `foreground` is the command's end of a session.
    pub(crate) fn take_up(
        &self,
        container: Container,
        lock: records::Lock,
        foreground: Option<(OwnedFd, crate::Streams)>,
        ends: Ends,
    ) -> Result<Ends> {
        let snapshot = self.store.snapshot(container.id())?.ok_or_else(|| {
            Error::Invalid(format!(
                "the root file system of container {} is missing",
                container.id()
            ))
        })?;
        let special = self.arranged_for(&container.config)?;
        let order = super::Order {
            container,
            snapshot,
            lock,
            foreground,
            given: crate::given::Given::default(),
            running: Some(ends),
            ahead: None,
            hold: false,
        };
        super::start(special.as_ref().unwrap_or(self), order).map(|(_, ends)| ends)
    }
}
