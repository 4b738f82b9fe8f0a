//! The monitor's loop, until the container's end.
//!
//! Nothing is lost and nothing piles up: output is read only when everybody attached has taken what came before, input is
//! taken only when the program has read what came before.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rcon_launch::cgroup::{Cgroup, OomWatch};
use rcon_net::Lingering;
use rcon_sys::memory::{Rest, Untouched};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clients::Client;
use super::health::Health;
use super::setup::{Given, Started};
use super::streams::Streams;
use super::talk::Full;
use crate::Engine;
use crate::error::{Context, Result};
use crate::files;
use crate::health::OnUnhealthy;
use crate::lifecycle::{Backoff, RestartPolicy};
use crate::protocol::MAX_MESSAGE;
use crate::record::{Container, ProcessRef, Status};
use crate::terminal::Signals;

/// The monitor of a running container.
pub(super) struct Monitor {
    pub engine: Engine,
    pub container: Container,
    pub started: Started,
    pub clients: Vec<Client>,
    /// Nobody is connected for now.
    pub full: Option<Full>,
    pub signals: Signals,
    pub streams: Streams,
    /// For reading from anybody; a message's first byte is its kind.
    pub buffer: Untouched,
    pub health: Option<Health>,
    /// Hears when the kernel kills for want of memory.
    pub oom: Option<OomWatch>,
    /// What each start of the container is made of.
    pub given: Given,
    /// Somebody wants it to end, and not to be started again.
    pub asked_to_end: bool,
    /// The same, by a signal: its service ends, or the machine. What starts at boot is started then.
    pub dismissed: bool,
    /// It is to be started again, whatever its policy says.
    pub restart_wanted: bool,
    /// Its time is up (`--timeout`).
    pub timed_out: bool,
    /// Its program could not be started when it was to be: the container is as it was before it was set up.
    pub taken_back: bool,
    /// When it is to be killed, having been asked to end.
    pub kill_at: Option<Instant>,
    /// When its time is up.
    pub ends_at: Option<Instant>,
    /// When it was started.
    pub since: Instant,
    pub backoff: Backoff,
    /// The networks of earlier runs that have something left to deliver, the oldest first.
    pub lingering: Vec<Lingering>,
    /// Keeps it small while nothing happens.
    rest: Rest,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Source {
    Process,
    Listener,
    Signals,
    Net,
    Output(usize),
    Input,
    Client(usize),
    Health,
    Notice,
    Orphan,
    Oom,
    Lingering,
}

impl Monitor {
    /// Takes over a container that has just been started.
    pub fn new(
        engine: Engine,
        container: Container,
        mut started: Started,
        signals: Signals,
        clients: Vec<Client>,
        given: Given,
    ) -> Result<Monitor> {
        let why = || "cannot connect to the container's streams".to_string();
        let streams = Streams::take(&mut started).context(why)?;
        let mut monitor = Monitor {
            engine,
            container,
            started,
            clients,
            full: None,
            signals,
            streams,
            buffer: Untouched::new(MAX_MESSAGE),
            health: None,
            oom: None,
            given,
            asked_to_end: false,
            dismissed: false,
            restart_wanted: false,
            timed_out: false,
            taken_back: false,
            kill_at: None,
            ends_at: None,
            since: Instant::now(),
            backoff: Backoff::default(),
            lingering: Vec::new(),
            rest: Rest::default(),
        };
        if !monitor.may_start_again() {
            // The program has its own copies, and whoever waits for the last one to be closed waits for no other.
            monitor.given.files = crate::given::Given::default();
        }
        monitor.begin();
        Ok(monitor)
    }

    /// Replaces what ended by what was started in its place.
    pub fn take_over(&mut self, mut started: Started) -> Result<()> {
        let why = || "cannot connect to the container's streams".to_string();
        self.streams = Streams::take(&mut started).context(why)?;
        self.started = started;
        self.begin();
        Ok(())
    }

    /// Sets the clocks of one run.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
        if self.started.held.is_some() {
            return;
        }
        let cgroup = self.started.running.cgroup.as_ref();
        self.oom = cgroup.and_then(Cgroup::watch_oom);
        let lifecycle = &self.container.config.lifecycle;
        self.health = Health::new(&lifecycle.health);
        let limit = Duration::from_secs(lifecycle.timeout.into());
        // Another monitor may have seen the first part of the run.
        let left = match self.started.taken_up {
            true => limit.saturating_sub(self.age()),
            false => limit,
        };
        self.ends_at = (lifecycle.timeout > 0).then(|| self.since + left);
        self.kill_at = None;
        self.restart_wanted = false;
        self.timed_out = false;
        if self.started.taken_up {
            self.asked_to_end |= self.container.state.status == Status::Stopping;
            if let (Some(health), Some(state)) = (&mut self.health, self.container.state.health) {
                health.go_on(state);
            }
        }
    }

    /// How long the container has run.
    fn age(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let process = self.process().map(|process| process.pid);
        let started = process.and_then(rcon_sys::process::start_time);
        // Clock ticks, of which Linux shows a hundred a second to programs.
        let started = Duration::from_millis(started.unwrap_or(0) * 10);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
        now.saturating_sub(started)
    }

    fn may_start_again(&self) -> bool {
        let config = &self.container.config;
        config.restart != RestartPolicy::No
            || config.lifecycle.health.on_unhealthy == OnUnhealthy::Restart
            || config.lifecycle.health.startup.is_some()
    }

    /// PID 1 of the container.
    pub fn process(&self) -> Option<ProcessRef> {
        self.container.state.process
    }

    /// Sees to it that the container is known after a crash of the machine. Done when the command has its answer: it need
    /// not wait for the disk.
    pub fn make_lasting(&self) {
        if !self.container.config.auto_remove {
            let _ = files::sync(
                &self.engine.paths.container(self.container.id()),
                "config.json",
            );
        }
    }

    /// Watches until the container has ended for good and everybody knows.
    pub fn watch(&mut self) {
        // What the start needed is given back when nothing happens: who ends at once has nothing of it.
        self.rest = Rest::default();
        loop {
            self.run();
            if self.taken_back {
                return self.linger();
            }
            if !self.end() || !self.start_again() {
                return;
            }
        }
    }

    /// Watches until the container's process has ended.
    fn run(&mut self) {
        loop {
            let (mut ended, mut orphaned) = (false, false);
            for (source, events) in self.wait() {
                match source {
                    Source::Process => ended = true,
                    Source::Listener => self.accept(),
                    Source::Signals => self.handle_signals(),
                    Source::Net => self.attend_net(),
                    Source::Output(at) => drop(self.read_output(at)),
                    Source::Input => self.write_input(),
                    Source::Client(at) => self.serve(at, events),
                    Source::Health => self.hear_health(),
                    Source::Notice => self.pass_on_notices(),
                    Source::Orphan => orphaned = true,
                    Source::Oom => self.look_at_memory(),
                    Source::Lingering => self.bury_lingering(),
                }
            }
            self.close_ended_outputs();
            self.clients.retain(|client| !client.is_gone());
            if ended || self.taken_back {
                return;
            }
            // The network ends with the container too: only while that lives there is something to replace.
            if orphaned {
                self.replace_orphan();
            }
            self.look_at_clocks();
        }
    }

    /// Sees whether the kernel has killed for want of memory.
    pub(super) fn look_at_memory(&mut self) {
        // One that is gone has nothing more to say, but is remembered.
        if let Some(oom) = &mut self.oom
            && !oom.look()
            && !oom.has_seen()
        {
            self.oom = None;
        }
    }

    /// Does what is due.
    fn look_at_clocks(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.full.is_some() && self.listens() {
            self.full = None;
        }
        if due(self.ends_at) {
            self.ends_at = None;
            self.timed_out = true;
            self.signal(libc::SIGKILL);
        }
        if due(self.kill_at) {
            self.kill_at = None;
            self.signal(libc::SIGKILL);
        }
        if due(self.health.as_ref().and_then(Health::due)) {
            self.check_health();
        }
    }

    /// How long nothing need be done by itself.
    fn patience(&self) -> Option<Duration> {
        let health = self.health.as_ref().and_then(Health::due);
        let next = [self.ends_at, self.kill_at, health, self.listens_at()]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Waits for something to happen; what.
    fn wait(&mut self) -> Vec<(Source, PollFlags)> {
        let behind = self.clients.iter().any(Client::is_behind);
        let stuffed = self.streams.is_stuffed();
        let started = &self.started;
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = vec![
            (
                Source::Process,
                started.running.pidfd.as_fd(),
                PollFlags::IN,
            ),
            (Source::Signals, self.signals.as_fd(), PollFlags::IN),
        ];
        watched.extend(
            [
                (
                    Source::Net,
                    started.net.as_ref().and_then(rcon_net::Network::fd),
                ),
                (
                    Source::Health,
                    self.health.as_ref().and_then(Health::answer),
                ),
                (Source::Orphan, started.orphan.as_ref().map(AsFd::as_fd)),
                (
                    Source::Notice,
                    started.notify.as_ref().and_then(|n| n.inner()),
                ),
            ]
            .into_iter()
            .filter_map(|(source, fd)| Some((source, fd?, PollFlags::IN))),
        );
        if self.listens() {
            watched.push((Source::Listener, started.listener.as_fd(), PollFlags::IN));
        }
        if let Some(oom) = self.oom.as_ref().filter(|oom| !oom.has_seen()) {
            watched.push((Source::Oom, oom.as_fd(), PollFlags::PRI));
        }
        let lingering = self.lingering.iter();
        watched.extend(lingering.map(|net| (Source::Lingering, net.fd(), PollFlags::IN)));
        if !behind {
            let outputs = self.streams.outputs.iter().enumerate();
            watched.extend(
                outputs.map(|(at, output)| (Source::Output(at), output.fd.as_fd(), PollFlags::IN)),
            );
        }
        if let Some(input) = self.streams.input.as_ref().filter(|_| stuffed) {
            watched.push((Source::Input, input.fd.as_fd(), PollFlags::OUT));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mut events = PollFlags::empty();
            if !(stuffed && client.streams.stdin) {
                events |= PollFlags::IN;
            }
            if client.is_behind() {
                events |= PollFlags::OUT;
            }
            watched.push((Source::Client(at), client.socket.as_fd(), events));
        }
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, events)| PollFd::from_borrowed_fd(*fd, *events))
            .collect();
        // Only a broken kernel fails here; turning in a circle would be worse than waiting for the next event.
        let due = self.patience();
        let limit = self.rest.limit(due);
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let _ = rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()));
        let events = fds.iter().map(PollFd::revents);
        let sources = watched.iter().map(|(source, ..)| *source);
        let happened: Vec<(Source, PollFlags)> = sources
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .collect();
        drop(fds);
        drop(watched);
        self.rest.waited(due, !happened.is_empty());
        happened
    }

    /// Being asked to end means to ask the container.
    fn handle_signals(&mut self) {
        while self.signals.take_next().is_some() {
            self.dismissed = true;
            self.signal(match self.started.held {
                // Until it is the program, it hears nothing else.
                Some(_) => libc::SIGKILL,
                None => self.container.config.stop_signal(),
            });
        }
    }

    /// Sends a signal to the container's process.
    pub fn signal(&self, signal: i32) {
        let _ = rcon_sys::process::pidfd_send_signal(&self.started.running.pidfd, signal);
    }
}
