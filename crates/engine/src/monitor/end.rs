//! The end of a container, written down in this order: its last output is logged, its published ports are closed, its record
//! says how it ended (or it is removed, with `--rm`), and only then does anybody hear of it. A network that publishes nothing is
//! told to end at once and waited for last. One that has something of the container left to deliver is waited for by nobody.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use chrono::Utc;
use rcon_net::Lingering;
use rcon_sys::trace;
use rustix::event::{PollFd, PollFlags, poll};

use super::adopt::{ends_within, exit_of_a_stranger};
use super::clients::Client;
use super::serve::Monitor;
use crate::events::{Action, Event};
use crate::files::{self, Durable};
use crate::processes;
use crate::protocol::Reply;
use crate::record::Status;
use crate::records::{self, Lock};
use crate::{limits, recovery};

/// How many networks of earlier runs may be there.
const MAX_LINGERING: usize = 8;

/// The code of a container whose time was up, as podman has it.
const TIMED_OUT: i32 = 255;

/// The program's own code, or 128 and the number of the signal that killed it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

impl Monitor {
    /// Lets it be known, after `actions`, that the program runs, and that the command that started it listens.
    pub(super) fn note_start(&self, actions: &[Action]) {
        let mut actions = actions.to_vec();
        let waits = self.started.held.is_some();
        if !waits {
            actions.push(Action::Start);
        }
        if self.clients.iter().any(|client| client.foreground) {
            actions.push(Action::Attach);
        }
        let events = actions.into_iter();
        let events: Vec<Event> = events
            .map(|action| Event::container(&self.container, action))
            .collect();
        self.engine.emit_all(&events);
        if let Some(notify) = self.started.notify.as_ref().filter(|_| !waits) {
            notify.started();
        }
    }

    /// Does all of it; true when the container is to be started again.
    pub(super) fn end(&mut self) -> bool {
        if let Some(waiting) = self.started.held.take() {
            // It never ran, and so is not started again.
            self.asked_to_end = true;
            waiting.leave();
        }
        self.look_at_memory();
        let lacked_memory = self.oom.take().is_some_and(|oom| oom.has_seen())
            || limits::lacked_memory(&self.engine.paths, self.container.id());
        let status = self.reap();
        let code = self.code_of(status);
        self.health = None;
        trace::mark("program ended");
        if let Some(net) = &mut self.started.net {
            net.dismiss();
        }
        if let Some(mounts) = self.started.mounts.take() {
            processes::end_all(&mounts);
        }
        self.drain_output();
        self.started.running.console = None;
        // Whoever hears of the end may want the ports.
        if let Some(net) = &mut self.started.net
            && !self.container.state.ports.is_empty()
        {
            let lingering = net.close();
            self.leave(lingering);
        }
        self.end_orphan();
        trace::mark("ports closed");
        self.hear_all();
        let again = self.goes_on(code);
        let oom_killed = limits::finish(&self.engine.paths, self.container.id()) || lacked_memory;
        let state = &mut self.container.state;
        state.oom_killed = oom_killed;
        if status.is_none() {
            state.error = recovery::MONITOR_KILLED.into();
        }
        state.status = Status::Exited;
        state.exit_code = code;
        state.finished = Some(Utc::now());
        state.process = None;
        state.network = None;
        state.command = None;
        state.pipes.clear();
        state.ports.clear();
        state.restarting = again;
        state.stopped_by_user = self.asked_to_end;

        let dir = self.engine.paths.container(self.container.id());
        self.look_for_name(&dir);
        self.engine
            .emit(&Event::container(&self.container, Action::Died).exited(code));
        let remains = match self.container.config.auto_remove {
            true => Lock::take(&dir).ok().flatten().and_then(|lock| {
                // Who had the lock until now may have given it another.
                self.look_for_name(&dir);
                Some((lock, self.engine.withdraw(&self.container).ok()?))
            }),
            false => None,
        };
        if remains.is_none() {
            // First, since whoever reads the record may start the container again, with the same layers.
            self.started.running.mounts = None;
            let _ = files::remove_tree(&self.engine.paths.runtime(self.container.id()));
            self.record(&dir);
            self.engine.emit_container(&self.container, Action::Cleanup);
        }
        // Those who came while we were at it want to know too; who comes later reads the record.
        self.accept_last();
        trace::mark("end written down");
        self.tell_all(code);
        // The kernel takes its time over the tap and the mounts, and nobody need wait for that.
        if let Some(mut net) = self.started.net.take() {
            let lingering = net.close();
            self.leave(lingering);
        }
        self.started.running.mounts = None;
        if again {
            return true;
        }
        if let Some((_lock, remains)) = remains {
            // Nobody need wait for what only takes time.
            // Not everything of a container whose users are arranged otherwise is theirs.
            let usual = self.container.config.arranged.is_none();
            let userns = usual.then_some(&self.started.running.userns);
            let _ = self.engine.bury(&self.container, remains, true, userns);
        }
        self.linger();
        false
    }

    /// Leaves a network to itself that has something of the container left to deliver. One whose container ends again and
    /// again is not to pile up: the oldest has to go then.
    fn leave(&mut self, lingering: Option<Lingering>) {
        self.lingering.extend(lingering);
        if self.lingering.len() > MAX_LINGERING {
            self.lingering.remove(0).end();
        }
    }

    /// Lets go of the networks that have delivered everything.
    pub(super) fn bury_lingering(&mut self) {
        let ended = |lingering: &mut Lingering| ends_within(lingering.fd(), Duration::ZERO);
        for lingering in self.lingering.extract_if(.., ended) {
            lingering.bury();
        }
    }

    /// It may have been renamed since it was started.
    fn look_for_name(&mut self, dir: &Path) {
        if let Ok(Some(now)) = records::load(dir) {
            self.container.config.name = now.config.name;
        }
    }

    /// How the process ended; `None` when nobody knows.
    fn reap(&self) -> Option<ExitStatus> {
        let pidfd = &self.started.running.pidfd;
        match self.started.taken_up {
            true => exit_of_a_stranger(self.process()?, pidfd),
            false => rcon_sys::process::wait_pidfd(pidfd).ok(),
        }
    }

    fn code_of(&self, status: Option<ExitStatus>) -> i32 {
        match status {
            _ if self.timed_out => TIMED_OUT,
            Some(status) => exit_code(status),
            None => recovery::UNKNOWN_EXIT,
        }
    }

    /// Whether it is to be started again.
    fn goes_on(&self, code: i32) -> bool {
        let (config, state) = (&self.container.config, &self.container.state);
        let dir = self.engine.paths.container(&config.id);
        let policy = || match records::load(&dir) {
            // It may have been changed since it was started.
            Ok(Some(now)) => now.config.restart,
            _ => config.restart,
        };
        // What it was started with may have gone with another monitor; or was let go, as it was not to be started again then.
        let complete = !state.has_files || self.given.files.fds().next().is_some();
        complete
            && !config.auto_remove
            && !self.asked_to_end
            && !self.dismissed
            && (self.restart_wanted || policy().wants(code, state.restarts))
    }

    fn record(&mut self, dir: &Path) {
        if !self.container.state.restarting {
            self.container.state.monitor = None;
        }
        if records::save_state(dir, &self.container.state, Durable::Yes).is_err() {
            // A full disk: what needs no synchronising may fit into the old file's place.
            let _ = records::save_state(dir, &self.container.state, Durable::No);
        }
    }

    fn tell_all(&mut self, code: i32) {
        for client in &mut self.clients {
            client.send(&Reply::Exited(code));
        }
    }

    /// Waits for those who have not read all yet, however long they take.
    pub(super) fn linger(&mut self) {
        loop {
            self.clients
                .retain(|client| client.is_behind() && !client.is_gone());
            if self.clients.is_empty() {
                return;
            }
            let mut fds: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .map(|client| PollFd::new(&client.socket, PollFlags::OUT))
                .collect();
            if rustix::io::retry_on_intr(|| poll(&mut fds, None)).is_err() {
                return;
            }
            self.clients.iter_mut().for_each(Client::flush);
        }
    }
}
