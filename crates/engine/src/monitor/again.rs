//! Starting a container again that has ended, by its policy.
//!
//! While it waits for that the container has ended like any other, and its record says that it is to be started again, and
//! by whom. Whoever changes that record (with the container's lock) has changed the monitor's mind: it looks before it acts.

use std::time::{Duration, Instant};

use chrono::Utc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clients::Client;
use super::serve::Monitor;
use super::setup;
use crate::events::Action;
use crate::files::Durable;
use crate::record::{ProcessRef, State, Status};
use crate::records::{self, Lock};

impl Monitor {
    /// Starts it again when its pause is over; false when nobody wants that any more.
    pub(super) fn start_again(&mut self) -> bool {
        let mut ran = self.since.elapsed();
        // It has been told of the end, and goes.
        self.given.command = None;
        loop {
            if !self.pause(ran) {
                return false;
            }
            let dir = self.engine.paths.container(self.container.id());
            let Ok(Some(lock)) = Lock::take(&dir) else {
                return false;
            };
            let Ok(Some(now)) = records::load(&dir) else {
                return false;
            };
            if !is_ours(&now.state) {
                return false;
            }
            // It may have been renamed meanwhile.
            self.container.config = now.config;
            self.container.state = State {
                restarts: now.state.restarts + 1,
                ..now.state
            };
            match setup::start(&self.engine, &mut self.container, &self.given, None, false) {
                Ok(started) => {
                    let taken = self.take_over(started);
                    drop(lock);
                    if taken.is_err() {
                        // It runs, as its record says; the next command gives it another monitor.
                        return false;
                    }
                    self.note_start(&[Action::Init]);
                    return true;
                }
                Err(error) => {
                    ran = Duration::ZERO;
                    let policy = self.container.config.restart;
                    let state = &mut self.container.state;
                    state.error = error.to_string();
                    state.exit_code = error.exit_code();
                    state.finished = Some(Utc::now());
                    state.restarting = policy.wants(state.exit_code, state.restarts);
                    if !state.restarting {
                        state.monitor = None;
                    }
                    let _ = records::save_state(&dir, state, Durable::Yes);
                    if !self.container.state.restarting {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits; false when the monitor is asked to go.
    fn pause(&mut self, ran: Duration) -> bool {
        let until = Instant::now() + self.backoff.after(ran);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.clients.retain(|c| c.is_behind() && !c.is_gone());
            let mut fds = vec![PollFd::from_borrowed_fd(
                std::os::fd::AsFd::as_fd(&self.signals),
                PollFlags::IN,
            )];
            fds.extend(
                self.clients
                    .iter()
                    .map(|client| PollFd::new(&client.socket, PollFlags::OUT)),
            );
            let limit = Timespec::try_from(left).ok();
            let _ = rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()));
            drop(fds);
            self.clients.iter_mut().for_each(Client::flush);
            if self.signals.take_next().is_some() {
                self.give_up();
                return false;
            }
        }
    }

    /// Writes down that it is not to be started again.
    fn give_up(&self) {
        let dir = self.engine.paths.container(self.container.id());
        let Ok(Some(_lock)) = Lock::take(&dir) else {
            return;
        };
        if let Ok(Some(now)) = records::load(&dir)
            && is_ours(&now.state)
        {
            let state = State {
                restarting: false,
                monitor: None,
                ..now.state
            };
            let _ = records::save_state(&dir, &state, Durable::Yes);
        }
    }
}

/// Whether the record still says that we are to start it again.
fn is_ours(state: &State) -> bool {
    let own = ProcessRef::of(std::process::id().cast_signed());
    state.status == Status::Exited && state.restarting && own.is_some() && state.monitor == own
}
