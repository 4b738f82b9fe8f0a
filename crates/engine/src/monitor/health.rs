//! Health checks as the monitor runs them: each by a short-lived child of its own, so that a check that hangs, or a
//! container that is frozen, never keeps the monitor from its work.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::signal::SigSet;
use rcon_sys::descriptors;
use rcon_sys::process::{self, Fork};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::serve::Monitor;
use crate::events::{Action, Event};
use crate::exec::probe::{Probed, probe};
use crate::files::{self, Durable};
use crate::health::{self, HealthCheck, HealthResult, HealthState, HealthStatus, OnUnhealthy};
use crate::lifecycle;
use crate::protocol::Reply;
use crate::record::{Container, Status};
use crate::{Engine, limits, records};

/// The health checks of one run of a container.
pub(super) struct Health {
    options: lifecycle::Health,
    check: HealthCheck,
    /// The start-up check has succeeded so often; `None` when it is over.
    coming_up: Option<u32>,
    started: Instant,
    /// When the next check is to be made by itself.
    due: Option<Instant>,
    probe: Option<Probe>,
}

/// A check that is being made.
struct Probe {
    pidfd: OwnedFd,
    answer: File,
    text: Vec<u8>,
    /// The child gives up when this is closed, and so when the monitor dies.
    _held: OwnedFd,
    start: DateTime<Utc>,
}

/// What a check came to.
pub(super) struct Verdict {
    result: HealthResult,
    state: HealthState,
    action: OnUnhealthy,
}

impl Health {
    /// Those of `options`, if there are any.
    pub fn new(options: &lifecycle::Health) -> Option<Health> {
        let check = options.check.clone()?;
        let started = Instant::now();
        let first = options.startup.as_ref().map_or(&check, |s| &s.check);
        Some(Health {
            due: (!first.interval.is_zero()).then_some(started),
            coming_up: options.startup.as_ref().map(|_| 0),
            options: options.clone(),
            check,
            started,
            probe: None,
        })
    }

    /// Goes on where another monitor was, as far as its record tells.
    pub fn go_on(&mut self, state: HealthState) {
        if state.status != HealthStatus::Starting {
            self.coming_up = None;
        }
        self.wait();
    }

    /// When something is to be done next by itself.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.probe.is_none())
    }

    /// Readable when the check has something to say.
    pub fn answer(&self) -> Option<BorrowedFd<'_>> {
        self.probe.as_ref().map(|probe| probe.answer.as_fd())
    }

    fn current(&self) -> &HealthCheck {
        match (&self.coming_up, &self.options.startup) {
            (Some(_), Some(startup)) => &startup.check,
            _ => &self.check,
        }
    }

    /// Begins a check, unless one is under way.
    pub fn begin(&mut self, engine: &Engine, container: &Container) {
        if self.probe.is_some() {
            return;
        }
        let check = self.current();
        match Probe::start(engine, container, check, self.options.log_size()) {
            Ok(probe) => self.probe = Some(probe),
            // Out of processes or files: the next time is as good.
            Err(_) => self.wait(),
        }
    }

    /// Plans the next check.
    fn wait(&mut self) {
        let interval = self.current().interval;
        self.due = (!interval.is_zero()).then(|| Instant::now() + interval);
    }

    /// Hears what the check says; what it came to, once it is over.
    pub fn hear(&mut self, state: HealthState) -> Option<Verdict> {
        let probed = self.probe.as_mut()?.read()?;
        let start = self.probe.take().map_or_else(Utc::now, |probe| probe.start);
        let (state, action) = self.judge(state, probed.exit_code == 0);
        self.wait();
        Some(Verdict {
            result: HealthResult {
                start,
                end: Utc::now(),
                exit_code: probed.exit_code,
                output: probed.output,
            },
            state,
            action,
        })
    }

    /// What the state becomes by a check that succeeded or failed.
    fn judge(&mut self, mut state: HealthState, success: bool) -> (HealthState, OnUnhealthy) {
        if let (Some(successes), Some(startup)) = (self.coming_up, &self.options.startup) {
            if success {
                state.failing_streak = 0;
                let successes = successes + 1;
                let done = successes >= startup.successes.max(1);
                self.coming_up = (!done).then_some(successes);
                // The time for coming up is over: from here on failures count.
                return (state, OnUnhealthy::None);
            }
            self.coming_up = Some(0);
            state.failing_streak += 1;
            let enough = startup.check.retries > 0 && state.failing_streak >= startup.check.retries;
            return (
                state,
                if enough {
                    OnUnhealthy::Restart
                } else {
                    OnUnhealthy::None
                },
            );
        }
        if success {
            return (
                HealthState {
                    status: HealthStatus::Healthy,
                    failing_streak: 0,
                },
                OnUnhealthy::None,
            );
        }
        let excused = state.status == HealthStatus::Starting
            && self.started.elapsed() < self.check.start_period;
        if excused {
            return (state, OnUnhealthy::None);
        }
        state.failing_streak = state.failing_streak.saturating_add(1);
        if state.failing_streak < self.check.retries {
            return (state, OnUnhealthy::None);
        }
        state.status = HealthStatus::Unhealthy;
        (state, self.options.on_unhealthy)
    }
}

impl Probe {
    fn start(
        engine: &Engine,
        container: &Container,
        check: &HealthCheck,
        most: usize,
    ) -> std::io::Result<Probe> {
        let (answer, say) = pipe_with(PipeFlags::CLOEXEC)?;
        let (told, held) = pipe_with(PipeFlags::CLOEXEC)?;
        match process::fork()? {
            Fork::Child => {
                descriptors::close_range_except(3, &[say.as_raw_fd(), told.as_raw_fd()]);
                let _ = process::set_name("rcon-health");
                let _ = SigSet::empty().thread_set_mask();
                let probed = match engine.reopened() {
                    Ok(engine) => probe(&engine, container, check, most, &told),
                    Err(error) => Probed {
                        exit_code: error.exit_code(),
                        output: error.to_string(),
                    },
                };
                let text = serde_json::to_vec(&probed).unwrap_or_default();
                process::exit_now(i32::from(File::from(say).write_all(&text).is_err()))
            }
            Fork::Parent { pidfd, .. } => {
                rustix::io::ioctl_fionbio(&answer, true)?;
                Ok(Probe {
                    pidfd,
                    answer: answer.into(),
                    text: Vec::new(),
                    _held: held,
                    start: Utc::now(),
                })
            }
        }
    }

    /// What came of it, once it is over.
    fn read(&mut self) -> Option<Probed> {
        let mut buffer = [0; 4096];
        loop {
            match self.answer.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(e) if e.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => return None,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = process::wait_pidfd(&self.pidfd);
        let lost = || Probed {
            exit_code: -1,
            output: "the check was killed".into(),
        };
        Some(serde_json::from_slice(&self.text).unwrap_or_else(|_| lost()))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Over already, or not wanted any more; what it started in the container goes with the container.
        let _ = process::pidfd_send_signal(&self.pidfd, libc::SIGKILL);
        let _ = process::wait_pidfd(&self.pidfd);
    }
}

impl Monitor {
    /// Goes on with the checks that the record has now.
    pub(super) fn renew_health(&mut self) {
        let dir = self.engine.paths.container(self.container.id());
        let Ok(Some(now)) = records::load(&dir) else {
            return;
        };
        self.container.config.lifecycle.health = now.config.lifecycle.health;
        if self.started.held.is_some() {
            return;
        }
        self.health = Health::new(&self.container.config.lifecycle.health);
        self.container.state.health = self.health.as_ref().map(|_| HealthState::default());
        let _ = records::save_state(&dir, &self.container.state, Durable::No);
    }

    /// Begins the check that is due.
    pub(super) fn check_health(&mut self) {
        let cgroup = limits::of(&self.engine.paths, self.container.id());
        let frozen = cgroup.is_some_and(|cgroup| cgroup.is_frozen());
        let running = self.container.state.status == Status::Running && !frozen;
        if let Some(health) = &mut self.health {
            match running {
                true => health.begin(&self.engine, &self.container),
                // Nothing can be asked of a container that is paused.
                false => health.wait(),
            }
        }
    }

    /// Hears a check, and acts on what it came to.
    pub(super) fn hear_health(&mut self) {
        let state = self.container.state.health.unwrap_or_default();
        let Some(verdict) = self.health.as_mut().and_then(|h| h.hear(state)) else {
            return;
        };
        let fresh = Some(verdict.state) != self.container.state.health;
        let became = verdict.state.status;
        let before = state.status;
        self.container.state.health = Some(verdict.state);
        let dir = self.engine.paths.container(self.container.id());
        if fresh {
            let _ = records::save_state(&dir, &self.container.state, Durable::No);
        }
        let count = self.container.config.lifecycle.health.log_count();
        let mut log = self.engine.health_log(&self.container);
        log.push(verdict.result);
        log.drain(..log.len().saturating_sub(count));
        let _ = files::replace(&dir, health::FILE, &log, Durable::No);

        let event = Event {
            health_status: Some(became.as_str().into()),
            ..Event::container(&self.container, Action::HealthStatus)
        };
        self.engine.emit(&event);
        for client in self.clients.iter_mut().filter(|c| c.asked_health) {
            client.asked_health = false;
            client.send(&Reply::Health(became));
        }
        if became == HealthStatus::Healthy && before != became {
            self.notify_healthy();
        }
        match verdict.action {
            OnUnhealthy::None => {}
            OnUnhealthy::Kill => self.signal(libc::SIGKILL),
            OnUnhealthy::Stop => {
                self.asked_to_end = true;
                self.ask_to_end();
            }
            OnUnhealthy::Restart => {
                self.restart_wanted = true;
                self.ask_to_end();
            }
        }
    }

    /// Sends the stop signal, and SIGKILL when the time for that is over.
    pub(super) fn ask_to_end(&mut self) {
        let config = &self.container.config;
        let (signal, time) = (config.stop_signal(), config.stop_timeout());
        self.kill_at = Some(Instant::now() + Duration::from_secs(time.into()));
        self.signal(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::StartupCheck;

    fn health(start_period: u64, startup: Option<StartupCheck>) -> Health {
        let check = HealthCheck {
            start_period: Duration::from_secs(start_period),
            ..HealthCheck::new(vec!["CMD".into(), "true".into()])
        };
        Health::new(&lifecycle::Health {
            check: Some(check),
            startup,
            on_unhealthy: OnUnhealthy::Kill,
            ..lifecycle::Health::default()
        })
        .unwrap()
    }

    fn run(health: &mut Health, results: &[bool]) -> Vec<(HealthStatus, u32, OnUnhealthy)> {
        let mut state = HealthState::default();
        let judge = |success: &bool| {
            let (next, action) = health.judge(state, *success);
            state = next;
            (state.status, state.failing_streak, action)
        };
        results.iter().map(judge).collect()
    }

    use HealthStatus::{Healthy, Starting, Unhealthy};
    use OnUnhealthy::{Kill, None as Nothing, Restart};

    #[test]
    fn from_starting_to_healthy_to_unhealthy() {
        let seen = run(
            &mut health(0, None),
            &[false, true, false, false, false, true],
        );
        assert_eq!(
            seen,
            [
                (Starting, 1, Nothing),
                (Healthy, 0, Nothing),
                (Healthy, 1, Nothing),
                (Healthy, 2, Nothing),
                (Unhealthy, 3, Kill),
                (Healthy, 0, Nothing),
            ]
        );
    }

    #[test]
    fn failures_while_it_starts_do_not_count() {
        let seen = run(&mut health(1000, None), &[false, false, true, false]);
        assert_eq!(seen[1], (Starting, 0, Nothing));
        assert_eq!(seen[3], (Healthy, 1, Nothing));
    }

    #[test]
    fn a_start_up_check_comes_first() {
        let startup = StartupCheck {
            check: HealthCheck {
                retries: 2,
                ..HealthCheck::new(vec!["CMD".into(), "up".into()])
            },
            successes: 2,
        };
        let mut health = health(0, Some(startup));
        let seen = run(&mut health, &[true, true, true]);
        assert_eq!(seen[1].0, Starting);
        assert_eq!(seen[2].0, Healthy);
        health.coming_up = Some(0);
        assert_eq!(run(&mut health, &[false, false])[1].2, Restart);
    }
}
