//! Starting a container.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use rcon_store::Snapshot;

use crate::error::{Context, Error, Result};
use crate::given::Given;
use crate::lifecycle::LogDriver;
use crate::monitor::{self, Order};
use crate::protocol;
use crate::record::{Container, Status};
use crate::records::Lock;
use crate::terminal::Signals;
use crate::{Ahead, CreateRequest, Engine, RemoveRequest, Session, StartRequest, Streams};

/// How often, and how long apart, to try to start a container that is just ending.
const ATTEMPTS: u32 = 100;
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

impl Engine {
    /// Starts a container that does not run. With `attach`, the session to relay with [`Session::relay`]. One that runs
    /// already is left alone (and attached to, if asked).
    ///
    /// # Errors
    /// Ports that cannot be bound, a program that does not exist (exit code 127) or cannot be run (126), what the kernel
    /// refuses. The container is then as it was before.
    pub fn start(&self, name_or_id: &str, request: &StartRequest) -> Result<Option<Session>> {
        // One that is just ending can neither be attached to nor be started: its record is about to say so.
        for _ in 0..ATTEMPTS {
            match self.start_now(name_or_id, request) {
                Err(Error::Unreachable) => std::thread::sleep(LOOK_AGAIN),
                other => return other,
            }
        }
        self.start_now(name_or_id, request)
    }

    fn start_now(&self, name_or_id: &str, request: &StartRequest) -> Result<Option<Session>> {
        let gone = || Error::NoSuchContainer(name_or_id.to_string());
        let id = self.resolve(name_or_id)?;
        let lock = Lock::take(&self.paths.container(&id))?.ok_or_else(gone)?;
        let container = self.settle(&id)?.ok_or_else(gone)?;
        let status = container.state.status;
        if request.hold && status.has_process() {
            return Err(Error::StateImproper(format!(
                "container {id} has already been created in runtime"
            )));
        }
        if status == Status::Initialized {
            return self.begin(container, lock, request);
        }
        if status.is_alive() {
            drop(lock);
            if container.state.is_ending() {
                // Its monitor is about to write that down, which is waited for here; then it is started as any other.
                self.current(&id)?;
                return Err(Error::Unreachable);
            }
            return request
                .attach
                .map(|streams| self.attach(&id, streams))
                .transpose();
        }
        let snapshot = self.store.snapshot(&id)?.ok_or_else(|| {
            Error::Invalid(format!("the root file system of container {id} is missing"))
        })?;
        let snapshot = self.put_together(snapshot)?;
        self.start_locked(container, lock, snapshot, request, None)
    }

    /// Has the monitor of a container that is set up start its program; by who holds its lock.
    fn begin(
        &self,
        container: Container,
        lock: Lock,
        request: &StartRequest,
    ) -> Result<Option<Session>> {
        let runtime = self.paths.runtime(container.id());
        container.state.wake_monitor();
        // Connected first, so that nothing it says is lost.
        let session = request
            .attach
            .map(|streams| self.join(container, streams))
            .transpose()?;
        let report = protocol::ask_to_begin(&runtime);
        drop(lock);
        match report {
            Ok(Some(report)) => report.started().map(|_| session),
            // It ended just now, and is to be started as any other.
            Ok(None) | Err(_) => Err(Error::Unreachable),
        }
    }

    /// Starts a container that does not run, of which we hold the lock.
    fn start_locked(
        &self,
        container: Container,
        lock: Lock,
        snapshot: Snapshot,
        request: &StartRequest,
        ahead: Option<Ahead>,
    ) -> Result<Option<Session>> {
        let id = container.id().to_owned();
        let (tty, interactive) = {
            let options = &container.config.options;
            (options.tty, options.interactive)
        };
        let mut given = Given::take(&request.inherit)?;
        let passthrough = container.config.lifecycle.log.driver == LogDriver::Passthrough;
        if passthrough {
            given = given.with_stdio()?;
        }
        let (ours, foreground) = match request.attach {
            Some(streams) => {
                let streams = Streams {
                    // What has our own streams needs nobody to pass on what comes and goes.
                    stdin: streams.stdin && interactive && !passthrough,
                    ..streams
                };
                let (ours, theirs) = pair()?;
                (Some((ours, streams)), Some((theirs, streams)))
            }
            None => (None, None),
        };
        container.state.dismiss();
        let special = self.arranged_for(&container.config)?;
        let (process, ends) = monitor::start(
            special.as_ref().unwrap_or(self),
            Order {
                container,
                snapshot,
                lock,
                foreground,
                given,
                running: None,
                ahead,
                hold: request.hold,
            },
        )?;
        Ok(ours.map(|(socket, streams)| Session {
            socket,
            heard: None,
            tty,
            streams,
            process: Some(process),
            foreground: true,
            id,
            held: None,
            ends,
            paths: self.paths.clone(),
        }))
    }

    /// [`Engine::create`] and [`Engine::start`], with what was begun [`Ahead`] of it, if anything was; when starting fails,
    /// nothing of the container is left.
    ///
    /// # Errors
    /// As both.
    pub fn run(
        &self,
        create: CreateRequest,
        start: &StartRequest,
        ahead: Option<Ahead>,
    ) -> Result<(Container, Option<Session>)> {
        let cidfile = create.cidfile.clone();
        // From here on until all is done or undone, nobody is interrupted half-way.
        let mut held = Signals::take(&[Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM])
            .context(|| "cannot take over signals".into())?;
        let (container, lock, snapshot) = self.create_to_run(create)?;
        rcon_sys::trace::mark("container made");
        let made = container.clone();
        let mut started = match held.take_next() {
            Some(_) => {
                drop(lock);
                Err(Error::Interrupted)
            }
            None => self.start_locked(made, lock, snapshot, start, ahead),
        };
        // A session passes signals on to the container; without one, they are for us.
        if matches!(started, Ok(None)) && held.take_next().is_some() {
            started = Err(Error::Interrupted);
        }
        match started {
            Ok(session) => Ok((
                container,
                session.map(|session| Session {
                    held: Some(held),
                    ..session
                }),
            )),
            Err(error) => {
                // The first failure is what matters.
                let _ = self.remove(
                    container.id(),
                    &RemoveRequest {
                        force: true,
                        volumes: true,
                        timeout: Some(0),
                    },
                );
                if let Some(path) = cidfile {
                    let _ = std::fs::remove_file(path);
                }
                Err(error)
            }
        }
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rcon_sys::fdpass::pair().context(|| "cannot make a socket pair".into())
}
