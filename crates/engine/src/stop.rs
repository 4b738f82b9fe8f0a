//! Ending containers and waiting for their end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::files::Durable;
use crate::health::HealthStatus;
use crate::protocol::{self, MAX_MESSAGE, Reply, Request};
use crate::record::{Container, State, Status};
use crate::records::{self, Lock};
use crate::{Engine, StartRequest, WaitFor, WaitRequest};

/// How long a killed container may take to go.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// How often a container is stopped that is started again meanwhile.
const ATTEMPTS: u32 = 5;
/// How often to look at what nobody tells us of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a monitor may have no room for us before its container is ended without a word to it.
const ROOM: Duration = Duration::from_secs(1);

impl Engine {
    /// Asks the container to end by its stop signal, and kills it when it has not after `timeout` seconds (its own timeout
    /// when `None`). One that does not run is left alone.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`]; a process that cannot be killed.
    pub fn stop(&self, name_or_id: &str, timeout: Option<u32>) -> Result<()> {
        let mut container = self.container(name_or_id)?;
        let id = container.config.id.clone();
        let mut stopped = false;
        for _ in 0..ATTEMPTS {
            let state = &container.state;
            if state.status.has_process() {
                self.stop_run(&container, timeout)?;
                stopped = true;
            } else if state.restarting {
                self.stop_restarting(&container)?;
            } else {
                if stopped {
                    self.emit_container(&container, Action::Stop);
                }
                return Ok(());
            }
            // Its end may not be written down yet. Or the run that we ended was not the last: one that is ended before it
            // has become the program never hears that nobody wants another.
            container = match self.current(&id)? {
                Some(now) => now,
                None => {
                    self.emit_container(&container, Action::Stop);
                    return Ok(());
                }
            };
        }
        Err(Error::Invalid(format!(
            "container {} is started again each time it is stopped",
            container.config.name
        )))
    }

    /// Ends what runs of a container now.
    fn stop_run(&self, container: &Container, timeout: Option<u32>) -> Result<()> {
        if container.state.status == Status::Paused {
            // Frozen, it could do nothing about being asked.
            match self.unpause(container.id()) {
                // Somebody else was quicker, or it has ended.
                Err(Error::StateImproper(_)) => {}
                done => drop(done?),
            }
        }
        let mut end = End::of_at_once(self, container);
        end.announce(Request::Stopping);
        let timeout = match container.state.status {
            // Until it is the program, it hears nothing but that.
            Status::Initialized => 0,
            _ => timeout.unwrap_or_else(|| container.config.stop_timeout()),
        };
        let signal = match timeout {
            0 => libc::SIGKILL,
            _ => container.config.stop_signal(),
        };
        end.signal(signal)?;
        let patience = match timeout {
            0 => KILL_GRACE,
            _ => Duration::from_secs(timeout.into()),
        };
        let mut ended = end.wait(Some(patience))?;
        if !ended && timeout != 0 {
            end.signal(libc::SIGKILL)?;
            ended = end.wait(Some(KILL_GRACE))?;
        }
        match ended {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "container {} was killed but does not end: a process of it may wait for a disk or a server",
                container.config.name
            ))),
        }
    }

    /// Keeps a container that has ended from being started again by its policy, unless it has been already.
    fn stop_restarting(&self, container: &Container) -> Result<()> {
        let dir = self.paths.container(container.id());
        let Some(_lock) = Lock::take(&dir)? else {
            return Ok(());
        };
        let Some(now) = self.settle(container.id())? else {
            return Ok(());
        };
        if !now.state.restarting {
            return Ok(());
        }
        now.state.dismiss();
        let state = State {
            restarting: false,
            stopped_by_user: true,
            monitor: None,
            ..now.state
        };
        records::save_state(&dir, &state, Durable::Yes)
    }

    /// Sends a signal (see [`rcon_bundle::parse::signal`]) to the container's process.
    ///
    /// # Errors
    /// [`Error::StateImproper`] when it does not run.
    pub fn kill(&self, name_or_id: &str, signal: i32) -> Result<()> {
        let container = self.container(name_or_id)?;
        let state = &container.state;
        let refused = |status: Status| {
            Error::StateImproper(format!(
                "can only kill running containers. {} is in state {status}",
                container.id()
            ))
        };
        let pidfd = match state.status.is_alive() && state.status != Status::Paused {
            true => state
                .process
                .and_then(|p| p.open())
                .ok_or_else(|| refused(Status::Exited))?,
            false => return Err(refused(state.status)),
        };
        let ends = [libc::SIGKILL, libc::SIGTERM, container.config.stop_signal()];
        let end = ends
            .contains(&signal)
            .then(|| End::of_at_once(self, &container));
        if let Some(end) = &end {
            end.announce(Request::Killing);
        }
        rcon_sys::process::pidfd_send_signal(&pidfd, signal)
            .context(|| format!("cannot signal {}", container.config.name))?;
        self.emit_container(&container, Action::Kill);
        // Nothing survives SIGKILL: who asks next is to hear of the end.
        if let Some(mut end) = end.filter(|_| signal == libc::SIGKILL) {
            end.wait(Some(KILL_GRACE))?;
        }
        Ok(())
    }

    /// Stops the container if it runs and starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub fn restart(&self, name_or_id: &str, timeout: Option<u32>) -> Result<()> {
        let id = self.resolve(name_or_id)?;
        self.stop(&id, timeout)?;
        self.start(&id, &StartRequest::default())?;
        if let Some(container) = self.current(&id)? {
            self.emit_container(&container, Action::Restart);
        }
        Ok(())
    }

    /// Waits for the container's end, or what else is asked for; its exit code, also of one that removes itself, and -1
    /// while it has none.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`].
    pub fn wait(&self, name_or_id: &str, request: &WaitRequest) -> Result<i32> {
        let mut container = self.container(name_or_id)?;
        let id = container.config.id.clone();
        let only_end = request.conditions == [WaitFor::Stopped];
        loop {
            if request
                .conditions
                .iter()
                .any(|what| holds(*what, &container))
            {
                return Ok(match container.state.status {
                    Status::Exited => container.state.exit_code,
                    _ => -1,
                });
            }
            if only_end && container.state.status.has_process() {
                let mut end = End::of(self, &container);
                end.wait(None)?;
                if let Some(code) = end.code {
                    return Ok(code);
                }
            } else {
                // Never started, or something that nobody tells of.
                std::thread::sleep(request.interval.unwrap_or(LOOK_AGAIN));
            }
            container = match self.current(&id)? {
                Some(container) => container,
                None if request.conditions.contains(&WaitFor::Removed) => return Ok(-1),
                None => return Err(Error::NoSuchContainer(name_or_id.to_string())),
            };
        }
    }
}

impl Engine {
    /// As [`Engine::wait`], for the first of several containers of which it is true.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when one of them is not there.
    pub fn wait_for_one(&self, names: &[String], request: &WaitRequest) -> Result<i32> {
        let mut watched = Vec::new();
        for name in names {
            let container = self.container(name)?;
            let end = container
                .state
                .status
                .has_process()
                .then(|| End::of(self, &container));
            watched.push((name, container, end));
        }
        let wants = |what| request.conditions.contains(&what);
        loop {
            for (name, container, end) in &mut watched {
                let held = request
                    .conditions
                    .iter()
                    .any(|what| holds(*what, container));
                if held {
                    return Ok(match container.state.status {
                        Status::Exited => container.state.exit_code,
                        _ => -1,
                    });
                }
                // One that removes itself says its code to who listens.
                let told = end.as_ref().and_then(End::hear);
                if let Some(code) = told.filter(|_| wants(WaitFor::Stopped)) {
                    return Ok(code);
                }
                *container = match self.current(container.id())? {
                    Some(now) => now,
                    None if wants(WaitFor::Removed) => return Ok(-1),
                    None => return Err(Error::NoSuchContainer(name.to_string())),
                };
                if end.is_none() && container.state.status.has_process() {
                    *end = Some(End::of(self, container));
                }
            }
            std::thread::sleep(request.interval.unwrap_or(LOOK_AGAIN));
        }
    }
}

/// Whether what is waited for is true.
fn holds(what: WaitFor, container: &Container) -> bool {
    let state = &container.state;
    let health = state.health.filter(|_| state.status.is_alive());
    match what {
        WaitFor::Stopped => state.status == Status::Exited,
        WaitFor::Initialized => state.status.has_process(),
        WaitFor::Running => state.status.is_alive(),
        WaitFor::Created => true,
        WaitFor::Paused => state.status == Status::Paused,
        WaitFor::Stopping => state.status == Status::Stopping,
        WaitFor::Healthy => health.is_some_and(|h| h.status == HealthStatus::Healthy),
        WaitFor::Unhealthy => health.is_some_and(|h| h.status == HealthStatus::Unhealthy),
        WaitFor::Removed => false,
    }
}

/// Watching one run of a container from outside, with its monitor or without.
struct End {
    /// A connection to the monitor.
    socket: Option<OwnedFd>,
    /// PID 1 of the container; `None` when it has ended.
    process: Option<OwnedFd>,
    /// The exit code, once the monitor has told it.
    code: Option<i32>,
}

impl End {
    /// Waits until the monitor has room for us.
    fn of(engine: &Engine, container: &Container) -> End {
        container.state.wake_monitor();
        let socket = protocol::connect(&engine.paths.runtime(container.id())).ok();
        End::heard_by(socket, engine, container)
    }

    /// For ending it: those who are attached do not keep it alive, however many. Of what a monitor is not told it finds the
    /// effect.
    fn of_at_once(engine: &Engine, container: &Container) -> End {
        container.state.wake_monitor();
        let dir = engine.paths.runtime(container.id());
        let until = Instant::now() + ROOM;
        let socket = loop {
            match protocol::connect_now(&dir) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                connected => break connected.ok(),
            }
        };
        End::heard_by(socket, engine, container)
    }

    fn heard_by(mut socket: Option<OwnedFd>, engine: &Engine, container: &Container) -> End {
        let process = container.state.process.and_then(|p| p.open());
        if process.is_none()
            && let Ok(Some(now)) = records::load(&engine.paths.container(container.id()))
            && now.state.process != container.state.process
        {
            // What we are connected to watches over another run by now.
            socket = None;
        }
        End {
            socket,
            process,
            code: None,
        }
    }

    /// Lets the monitor know that its container is being ended.
    fn announce(&self, what: Request<'_>) {
        let mut message = Vec::new();
        what.encode(&mut message);
        if let Some(socket) = &self.socket {
            let _ = protocol::try_send(socket, &message);
        }
    }

    fn signal(&self, signal: i32) -> Result<()> {
        match &self.process {
            Some(pidfd) => match rcon_sys::process::pidfd_send_signal(pidfd, signal) {
                Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                    Err(e).context(|| "cannot signal the container".into())
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Waits until the monitor tells the end, having written it down; or, where it does not, until the process has ended
    /// (what the record says then is seen by [`Engine::current`], which lets a monitor come to it). False when it takes
    /// longer than `limit`.
    fn wait(&mut self, limit: Option<Duration>) -> Result<bool> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            let Some(watched) = self.socket.as_ref().or(self.process.as_ref()) else {
                // Just ended, or just lost: the record is about to say so.
                std::thread::sleep(LOOK_AGAIN);
                return Ok(true);
            };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::from_borrowed_fd(watched.as_fd(), PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context(|| "cannot wait for the container".into()),
                Ok(_) if self.socket.is_some() => {
                    self.code = self.hear();
                    if self.code.is_some() {
                        return Ok(true);
                    }
                    // The monitor was killed, and the container may live on; or it gave up a start.
                    self.socket = None;
                }
                Ok(_) => return Ok(true),
            }
        }
    }

    /// The exit code, when the monitor tells it.
    fn hear(&self) -> Option<i32> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let length = protocol::try_receive(self.socket.as_ref()?, &mut buffer).ok()??;
        match Reply::decode(&buffer[..length]) {
            Some(Reply::Exited(code)) => Some(code),
            _ => None,
        }
    }
}
