//! What the commands that are connected say, and what is done about it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::clients::Client;
use super::serve::Monitor;
use crate::files::Durable;
use crate::protocol::{self, Reply, Request};
use crate::record::Status;
use crate::records;

/// Descriptors that nobody who connects gets: the monitor needs some for its record, its log, a check, another start.
const RESERVE: u64 = 64;

/// How long nobody is connected when that has failed for want of something that others have.
const LATER: Duration = Duration::from_secs(1);

/// Why those who wait to be connected have to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Full {
    /// There are as many clients as there can be.
    Until(usize),
    /// The machine lacks something, until then.
    For(Instant),
}

impl Monitor {
    /// Connects all who wait to be, as far as that leaves what we need ourselves.
    pub(super) fn accept(&mut self) {
        self.accept_leaving(RESERVE);
    }

    /// As [`Monitor::accept`], at the end of the container: who waited has something to say, or wants to know.
    pub(super) fn accept_last(&mut self) {
        self.accept_leaving(RESERVE / 2);
    }

    fn accept_leaving(&mut self, reserve: u64) {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        loop {
            match rustix::net::accept_with(&self.started.listener, flags) {
                Ok(socket) => {
                    let is_last = !leaves(&socket, reserve);
                    self.clients.push(Client::new(socket));
                    if is_last {
                        self.full = Some(Full::Until(self.clients.len()));
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => {
                    self.full = Some(Full::For(Instant::now() + LATER));
                    return;
                }
            }
        }
    }

    /// Whether those who wait are connected.
    pub(super) fn listens(&self) -> bool {
        match self.full {
            None => true,
            Some(Full::Until(count)) => self.clients.len() < count,
            Some(Full::For(until)) => until <= Instant::now(),
        }
    }

    /// When that changes by itself.
    pub(super) fn listens_at(&self) -> Option<Instant> {
        match self.full {
            Some(Full::For(until)) => Some(until),
            _ => None,
        }
    }

    /// Hears what everybody has said so far: at the end of the container it matters who wanted that.
    pub(super) fn hear_all(&mut self) {
        self.accept_last();
        for at in 0..self.clients.len() {
            while !self.clients[at].is_gone() && self.hear(at) {}
        }
    }

    /// Hears one message; false when there is none for now.
    fn hear(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        match protocol::try_receive(&client.socket, &mut self.buffer) {
            Ok(None) => false,
            Ok(Some(length @ 1..)) => {
                self.obey(at, length);
                true
            }
            Ok(Some(0)) | Err(_) => {
                client.leave();
                // The command that held the other end of the program's input is gone.
                if client.foreground && client.streams.stdin && !self.container.config.options.tty {
                    self.end_input();
                }
                false
            }
        }
    }

    /// Sends what a client has room for, and hears what it says.
    pub(super) fn serve(&mut self, at: usize, events: PollFlags) {
        let Some(client) = self.clients.get_mut(at) else {
            return;
        };
        if events.contains(PollFlags::OUT) {
            client.flush();
        }
        if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.hear(at);
        }
    }

    fn obey(&mut self, at: usize, length: usize) {
        let client = &mut self.clients[at];
        let wants_input = client.streams.stdin;
        match Request::decode(&self.buffer[..length]) {
            Some(Request::Attach(streams)) => {
                client.streams = streams;
                client.send(&Reply::Attached);
            }
            Some(Request::Begin) => self.begin_program(at),
            Some(Request::Input(_)) if wants_input => self.take_input(1, length),
            Some(Request::EndOfInput) if wants_input => self.end_input(),
            Some(Request::Resize(rows, cols)) => self.resize(rows, cols),
            Some(Request::CloseOutput(closed)) => self.close_unread(at, closed),
            Some(Request::Stopping) => {
                self.asked_to_end = true;
                if self.container.state.status == Status::Running {
                    self.container.state.status = Status::Stopping;
                    let dir = self.engine.paths.container(self.container.id());
                    // If it cannot be shown it is still stopped.
                    let _ = records::save_state(&dir, &self.container.state, Durable::No);
                }
            }
            Some(Request::Ports(text)) => {
                let order = serde_json::from_slice(text);
                let reply = self.change_ports(order);
                self.clients[at].send(&Reply::Ports(&reply));
            }
            Some(Request::Killing) => self.asked_to_end = true,
            Some(Request::Health) => {
                client.asked_health = true;
                self.check_health();
            }
            Some(Request::Renew) => self.renew_health(),
            _ => {}
        }
    }
}

/// Whether more than `reserve` descriptors are left, or a quarter of all where these are few. A new one has the least number that
/// is free. Our limit is raised to what it may be at most before it is said to be reached; programs in the container have
/// their own.
fn leaves(newest: &OwnedFd, reserve: u64) -> bool {
    let number = u64::from(newest.as_raw_fd().unsigned_abs());
    let fits = |all: u64| number + reserve.min(all / 4) < all;
    let limit = getrlimit(Resource::Nofile);
    let (now, most) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    if fits(now) {
        return true;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    now < most && setrlimit(Resource::Nofile, raised).is_ok() && fits(most)
}
