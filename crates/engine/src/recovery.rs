//! Seeing how containers really are, whatever was killed: each look at a record compares it with the processes it names,
//! and mends what is not true any more.
//!
//! A container whose monitor was killed lives on, and gets another monitor ([`crate::monitor`]). One that has ended with
//! nobody there to see it is written down as ended, and one that a killed `run` never started is removed.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rcon_sys::process::boot_id;

use crate::error::Result;
use crate::events::{Action, Event};
use crate::files::{self, Durable};
use crate::monitor::Ends;
use crate::record::{Container, ProcessRef, State, Status};
use crate::records::{Lock, load, save_state};
use crate::{Engine, limits};

/// The exit code of a container whose end nobody saw.
pub(crate) const UNKNOWN_EXIT: i32 = 255;

/// What is said of that end.
pub(crate) const MONITOR_KILLED: &str =
    "the monitor was killed before it could see how the container ended";

/// How long a monitor may take to write down what it sees.
const PATIENCE: Duration = Duration::from_secs(5);

impl State {
    /// Whether a process of this record runs, in this boot.
    pub(crate) fn has(&self, process: Option<ProcessRef>) -> bool {
        self.boot_id == boot_id() && process.is_some_and(|p| p.is_there())
    }

    /// Its process and its monitor, or who stands in for that, to be looked at; `None` where there is more to find out.
    pub(crate) fn hold(&self) -> Option<[OwnedFd; 2]> {
        let hold = |process: Option<ProcessRef>| process?.hold();
        if self.boot_id != boot_id() {
            return None;
        }
        let keeper = || hold(self.monitor).or_else(|| hold(self.command));
        Some([hold(self.process)?, keeper()?])
    }

    /// Whether the command that made it was killed before it was started.
    fn is_abandoned(&self) -> bool {
        self.status == Status::Created && self.creator.is_some() && !self.has(self.creator)
    }

    /// Whether it is as it says: nothing that would have written down otherwise was killed.
    pub(crate) fn is_true(&self) -> bool {
        match self.status {
            // It waits for a word of its monitor, and ends with it.
            Status::Initialized => self.monitor_lives(),
            status if status.is_alive() => self.has(self.process) || self.monitor_lives(),
            _ => !self.is_abandoned() && (!self.restarting || self.monitor_lives()),
        }
    }

    /// Whether its monitor was killed, and no command is there that sees to that itself.
    pub(crate) fn has_lost_monitor(&self) -> bool {
        !self.monitor_lives() && !self.has(self.command)
    }

    /// Whether the process has ended and the monitor is about to write that down.
    pub(crate) fn is_ending(&self) -> bool {
        self.status.has_process() && !self.has(self.process) && self.monitor_lives()
    }

    /// Has a monitor go on that was stopped: what it is asked for would never be done.
    pub(crate) fn wake_monitor(&self) {
        if let Some(monitor) = self.monitor
            && monitor.letter() == Some(b'T')
            && let Some(pidfd) = monitor.open()
        {
            let _ = rcon_sys::process::pidfd_send_signal(&pidfd, libc::SIGCONT);
        }
    }

    /// Sends a monitor away that waits to start its container again.
    pub(crate) fn dismiss(&self) {
        if self.restarting
            && let Some(monitor) = self.monitor.and_then(|monitor| monitor.open())
        {
            let _ = rcon_sys::process::pidfd_send_signal(&monitor, libc::SIGTERM);
        }
    }

    /// What it was before it was set up to be started later; its record has kept how it last ended.
    pub(crate) fn before_it_was_set_up(&self) -> State {
        State {
            status: match self.finished {
                Some(_) => Status::Exited,
                None => Status::Created,
            },
            started: self.started,
            finished: self.finished,
            exit_code: self.exit_code,
            oom_killed: self.oom_killed,
            stopped_by_user: self.stopped_by_user,
            ..State::default()
        }
    }

    /// Whether the monitor is there.
    pub fn monitor_lives(&self) -> bool {
        self.has(self.monitor)
    }
}

impl Engine {
    /// The container as it is now; `None` when it is not there (any more).
    pub(crate) fn current(&self, id: &str) -> Result<Option<Container>> {
        let dir = self.paths.container(id);
        let Some(mut container) = load(&dir)? else {
            return Ok(None);
        };
        let state = &container.state;
        if state.status.is_alive() && state.has(state.process) {
            if state.has_lost_monitor() && !self.is_monitor {
                match self.replace_monitor(id)? {
                    Some(now) => container = now,
                    None => return Ok(None),
                }
            }
            limits::look(&self.paths, &mut container);
            return Ok(Some(container));
        }
        if state.is_ending() {
            match self.await_end(&dir)? {
                Some(now) => container = now,
                None => return Ok(None),
            }
        }
        let state = &container.state;
        if state.is_true() {
            limits::look(&self.paths, &mut container);
            return Ok(Some(container));
        }
        let Some(_lock) = Lock::take(&dir)? else {
            return Ok(None);
        };
        self.settle(id)
    }

    /// Gives a container another monitor whose own was killed. If that cannot be done it still runs.
    fn replace_monitor(&self, id: &str) -> Result<Option<Container>> {
        let dir = self.paths.container(id);
        let Some(lock) = Lock::take(&dir)? else {
            return Ok(None);
        };
        let Some(container) = load(&dir)? else {
            return Ok(None);
        };
        let state = &container.state;
        if state.status.is_alive() && state.has(state.process) && state.has_lost_monitor() {
            let kept = container.clone();
            return match self.take_up(container, lock, None, Ends::default()) {
                Ok(_) => load(&dir),
                Err(_) => Ok(Some(kept)),
            };
        }
        drop(lock);
        self.current(id)
    }

    /// Lets the monitor write down an end that has come. One that was stopped (SIGSTOP) goes on.
    fn await_end(&self, dir: &Path) -> Result<Option<Container>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let Some(container) = load(dir)? else {
                return Ok(None);
            };
            if !container.state.is_ending() || Instant::now() >= until {
                return Ok(Some(container));
            }
            container.state.wake_monitor();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// As [`Engine::current`], by one who holds the lock: writes down the end of a container whose monitor could not, and
    /// removes one whose creator was killed before it ran.
    pub(crate) fn settle(&self, id: &str) -> Result<Option<Container>> {
        let dir = self.paths.container(id);
        let Some(mut container) = load(&dir)? else {
            return Ok(None);
        };
        let state = &mut container.state;
        if state.is_true() {
            limits::look(&self.paths, &mut container);
            return Ok(Some(container));
        }
        if state.is_abandoned() {
            self.remove_locked(&container, true)?;
            return Ok(None);
        }
        if state.restarting {
            // It has ended, and nobody is there who would start it again.
            state.restarting = false;
            state.monitor = None;
            save_state(&dir, state, Durable::Yes)?;
            return Ok(Some(container));
        }
        if state.status == Status::Initialized {
            self.take_back(&mut container)?;
            return Ok(Some(container));
        }
        state.oom_killed = limits::finish(&self.paths, id);
        state.error = if state.boot_id == boot_id() {
            MONITOR_KILLED.into()
        } else {
            "the machine went down while the container ran".into()
        };
        state.status = Status::Exited;
        state.exit_code = UNKNOWN_EXIT;
        state.finished = Some(chrono::Utc::now());
        state.process = None;
        state.monitor = None;
        state.network = None;
        state.command = None;
        state.pipes.clear();
        state.ports.clear();
        save_state(&dir, state, Durable::Yes)?;
        self.emit(&Event::container(&container, Action::Died).exited(UNKNOWN_EXIT));
        let _ = files::remove_tree(&self.paths.runtime(id));
        if container.config.auto_remove {
            self.remove_locked(&container, true)?;
            return Ok(None);
        }
        Ok(Some(container))
    }

    /// Makes a container again what it was before it was set up, whose monitor was killed while its program waited.
    fn take_back(&self, container: &mut Container) -> Result<()> {
        let id = container.config.id.clone();
        let state = &mut container.state;
        if let Some(process) = state.process.filter(|_| state.boot_id == boot_id())
            && let Some(pidfd) = process.open()
        {
            // It is about to end by itself.
            let _ = rcon_sys::process::pidfd_send_signal(&pidfd, libc::SIGKILL);
        }
        limits::discard_runtime(&self.paths, &id)?;
        *state = state.before_it_was_set_up();
        save_state(&self.paths.container(&id), state, Durable::Yes)
    }
}
