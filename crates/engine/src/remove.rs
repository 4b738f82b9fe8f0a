//! Removing containers, and all that belongs to them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rcon_store::{Removal, Store};

use crate::error::{Context, Error, Result};
use crate::files::{self, Durable};
use crate::record::{Container, Status};
use crate::records::{self, Lock};
use crate::{Engine, RemoveRequest};

/// How often a container that is started again and again under our hands is stopped.
const ATTEMPTS: u32 = 5;

impl Engine {
    /// Removes a container and all that belongs to it; its full id.
    ///
    /// # Errors
    /// [`Error::RemoveRunning`] without force.
    pub fn remove(&self, name_or_id: &str, request: &RemoveRequest) -> Result<String> {
        let id = self.resolve(name_or_id)?;
        let dir = self.paths.container(&id);
        for _ in 0..ATTEMPTS {
            // Gone by itself (--rm) is as good.
            let container = match self.current(&id) {
                Ok(Some(container)) => container,
                Ok(None) => return Ok(id),
                Err(Error::Damaged(..)) if request.force => return self.remove_damaged(id),
                Err(error) => return Err(error),
            };
            if container.state.status.is_alive() {
                if !request.force {
                    return Err(Error::RemoveRunning(id));
                }
                // Nobody waits for a container with its lock in hand: its monitor may want it.
                self.stop(&id, request.timeout)?;
            }
            let Some(_lock) = Lock::take(&dir)? else {
                return Ok(id);
            };
            match self.settle(&id)? {
                None => return Ok(id),
                Some(container) if container.state.status.is_alive() => {}
                Some(container) => {
                    self.remove_locked(&container, request.volumes)?;
                    return Ok(id);
                }
            }
        }
        Err(Error::RemoveRunning(id))
    }

    /// Removes a container that does not run, by who holds its lock. Can be done again after it was cut short.
    pub(crate) fn remove_locked(&self, container: &Container, volumes: bool) -> Result<()> {
        self.dismantle(container, volumes || container.config.auto_remove, None)
    }

    /// The same by the monitor, which holds the container's user namespace.
    pub(crate) fn remove_by_monitor(
        &self,
        container: &Container,
        userns: Option<&OwnedFd>,
    ) -> Result<()> {
        self.dismantle(container, true, userns)
    }

    /// Removes a container whose record a crash of the machine has spoilt: its name is found by looking at all.
    fn remove_damaged(&self, id: String) -> Result<String> {
        let dir = self.paths.container(&id);
        let Some(_lock) = Lock::take(&dir)? else {
            return Ok(id);
        };
        self.discard_snapshot(&id)?;
        files::remove_tree(&self.paths.runtime(&id))?;
        let names = self.paths.names();
        for entry in fs::read_dir(&names).on("read", &names)?.flatten() {
            records::drop_name(&self.paths, &entry.file_name().to_string_lossy(), &id);
        }
        files::remove_tree(&dir)?;
        Ok(id)
    }

    fn dismantle(
        &self,
        container: &Container,
        volumes: bool,
        userns: Option<&OwnedFd>,
    ) -> Result<()> {
        let id = container.id();
        let dir = self.paths.container(id);
        let mut state = container.state.clone();
        state.status = Status::Removing;
        records::save_state(&dir, &state, Durable::No)?;
        self.discard_snapshot_in(id, userns)?;
        if volumes {
            self.discard_anonymous_volumes(&container.config, userns)?;
        }
        files::remove_tree(&self.paths.runtime(id))?;
        records::drop_name(&self.paths, &container.config.name, id);
        // From here on it is not there; what is left if we are killed now is swept by the next command.
        let gone = records::unborn(&self.paths, id);
        match fs::rename(&dir, &gone) {
            Ok(()) => files::remove_tree(&gone),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e).on("remove", &dir),
        }
    }

    /// Removes a container's root file system.
    pub(crate) fn discard_snapshot(&self, id: &str) -> Result<()> {
        self.discard_snapshot_in(id, None)
    }

    fn discard_snapshot_in(&self, id: &str, userns: Option<&OwnedFd>) -> Result<()> {
        match self.store.remove_snapshot(id)? {
            Removal::Whole => Ok(()),
            // What is left belongs to other ids of the container.
            Removal::Partly => self.sweep_in(userns),
        }
    }

    /// Lets the root of the containers' user namespace remove what we had no right to.
    pub(crate) fn sweep_in(&self, userns: Option<&OwnedFd>) -> Result<()> {
        self.as_root(userns, "cannot remove files of the container", || {
            if let Ok(store) = Store::open(&self.paths.root, &self.maps) {
                store.sweep();
            }
            true
        })
    }

    /// Does something in a child that is root over the containers' ids; in a namespace that is there, or in a new one.
    pub(crate) fn as_root(
        &self,
        userns: Option<&OwnedFd>,
        what: &str,
        work: impl FnOnce() -> bool,
    ) -> Result<()> {
        let work = |_: &mut dyn std::io::Write| i32::from(!work());
        let done = match userns {
            Some(userns) => rcon_sys::userns::run_in(userns.as_fd(), work),
            None => rcon_sys::userns::run(&self.maps, work),
        };
        let (status, _) = done.context(|| what.to_string())?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::Invalid(what.to_string())),
        }
    }
}
