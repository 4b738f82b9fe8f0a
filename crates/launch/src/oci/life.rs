//! Starting, signalling and deleting containers.

use std::fs;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use rcon_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::create::door_address;
use super::error::{Error, On, Result};
use super::record::{Container, Lock, Status};
use super::{Runtime, processes};
use crate::cgroup::Cgroup;
use crate::hooks::{self, Point, StateOf};

/// How long processes that were killed may take to be gone, in seconds.
const PATIENCE: i64 = 10;

impl Runtime {
    /// Start the program of the container `id`, which must be created; what hooks failed afterwards,
    /// in words.
    ///
    /// # Errors
    /// When it is in another state, or the program cannot be executed; it is stopped then.
    pub fn start(&self, id: &str) -> Result<Vec<String>> {
        let (mut container, _lock) = self.locked(id)?;
        match container.status() {
            Status::Created => {}
            Status::Stopped => {
                return Err(Error::State(
                    "cannot start a container that has stopped".to_owned(),
                ));
            }
            status => {
                return Err(Error::State(format!(
                    "cannot start a container in the {} state",
                    status.as_str()
                )));
            }
        }
        let spec = container.spec()?;
        let folder = &container.folder;
        let (_file, address) = door_address(folder)?;
        let visitor = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .on("open a socket in", folder)?;
        connect(&visitor, &address).on("connect to the first process of", folder)?;
        crate::start(visitor, &spec)?;
        Ok(container.started(&spec))
    }

    /// Send `signal` to the first process of the container `id`, or with `all` to all its processes.
    ///
    /// # Errors
    /// When the container is not running, or the signal cannot be sent.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let container = self.find(id)?;
        let gone = || Error::State("container not running".to_owned());
        let first = container.process();
        if all {
            let others = processes::of(&container);
            if first.is_none() && others.is_empty() {
                return Err(gone());
            }
            processes::signal(&others, signal);
            return Ok(());
        }
        let (_, pidfd) = first.ok_or_else(gone)?;
        match process::pidfd_send_signal(&pidfd, signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
            result => result.on("signal", &container.folder),
        }
    }

    /// Stop all processes of the container `id` where they are (`frozen`), or let them go on.
    ///
    /// # Errors
    /// When it has no cgroup to be frozen, or is in another state.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<()> {
        let (container, _lock) = self.locked(id)?;
        match (container.status(), frozen) {
            (Status::Created | Status::Running, true) | (Status::Paused, false) => {}
            (status, true) => {
                return Err(Error::State(format!(
                    "cannot pause a container in the {} state",
                    status.as_str()
                )));
            }
            (_, false) => return Err(Error::State("container not paused".to_owned())),
        }
        Ok(container
            .cgroup()?
            .freeze(frozen)
            .map_err(crate::Error::from)?)
    }

    /// Change the limits of the container `id`; those that `resources` does not speak of stay.
    ///
    /// # Errors
    /// When it has no cgroup, or a limit cannot be had.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let (container, _lock) = self.locked(id)?;
        if matches!(container.status(), Status::Stopped | Status::Creating) {
            return Err(Error::State("container not running".to_owned()));
        }
        Ok(container
            .cgroup()?
            .limit(resources)
            .map_err(crate::Error::from)?)
    }

    /// Give the container `id`, or rather its class, other shares of caches and memory bandwidth.
    ///
    /// # Errors
    /// When it has no class of service, or the processor does not have such shares.
    pub fn share(&self, id: &str, shares: &LinuxIntelRdt) -> Result<()> {
        let (container, _lock) = self.locked(id)?;
        let groups = container.record.intel_rdt.as_ref().ok_or_else(|| {
            Error::State(format!(
                "container {id} has no class of service (linux.intelRdt)"
            ))
        })?;
        groups.change(shares)
    }

    /// Delete the container `id`: what is left of its processes, its record, and, by its hooks, what
    /// others have made for it. What hooks failed, in words.
    ///
    /// # Errors
    /// When it runs and `force` is not given; when its processes do not go.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<String>> {
        let folder = self.folder(id)?;
        let (container, _lock) = match self.locked(id) {
            Err(Error::NoSuchContainer(_)) if force => {
                // What an interrupted create may have left.
                let _ = fs::remove_dir_all(&folder);
                return Ok(Vec::new());
            }
            result => result?,
        };
        let status = container.status();
        if matches!(status, Status::Running | Status::Paused) && !force {
            return Err(Error::State(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.as_str()
            )));
        }
        container.end()?;
        let failures = match container.spec() {
            Ok(spec) => {
                let state = StateOf::new(&spec, container.known_as(), "stopped", None);
                hooks::run_all(&spec, Point::Poststop, &state)
            }
            // Without a specification there are no hooks, and the rest has to go all the same.
            Err(_) => Vec::new(),
        };
        if let Some(cgroup) = &container.record.cgroup {
            cgroup.remove().map_err(crate::Error::from)?;
        }
        if let Some(groups) = &container.record.intel_rdt {
            groups.remove();
        }
        fs::remove_dir_all(&folder).on("remove", &folder)?;
        Ok(failures)
    }

    /// The container `id`, which nobody else changes meanwhile.
    pub(super) fn locked(&self, id: &str) -> Result<(Container, Lock)> {
        let folder = self.find(id)?.folder;
        let lock = match Lock::take(&folder) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoSuchContainer(id.to_owned()));
            }
            result => result?,
        };
        // It may have changed, or gone, while we waited.
        Ok((self.find(id)?, lock))
    }
}

impl Container {
    pub(super) fn cgroup(&self) -> Result<&Cgroup> {
        self.record.cgroup.as_ref().ok_or_else(|| {
            Error::State(format!(
                "container {} has no cgroup of its own: none could be made for it",
                self.record.id
            ))
        })
    }

    /// Kill all its processes and wait until its first one is gone.
    fn end(&self) -> Result<()> {
        let others = processes::of(self);
        let Some((_, pidfd)) = self.process() else {
            processes::signal(&others, libc::SIGKILL);
            return Ok(());
        };
        let _ = process::pidfd_send_signal(&pidfd, libc::SIGKILL);
        processes::signal(&others, libc::SIGKILL);
        if let Some(cgroup) = &self.record.cgroup {
            // Also those that came while we looked; and a frozen one hears nothing.
            let _ = cgroup.kill();
            let _ = cgroup.freeze(false);
        }
        let limit = Timespec {
            tv_sec: PATIENCE,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit))) {
            Ok(0) => Err(Error::State(format!(
                "the first process of container {} does not end",
                self.record.id
            ))),
            _ => Ok(()),
        }
    }
}
