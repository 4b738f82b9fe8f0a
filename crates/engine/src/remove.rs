//! Removing containers, and all that belongs to them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rcon_store::{DetachedSnapshot, Removal, Store};

use crate::error::{Context, Error, Result};
use crate::events::Action;
use crate::files;
use crate::record::{Container, Status};
use crate::records::{self, Lock};
use crate::{Engine, RemoveRequest, limits};

/// How often a container that is started again and again under our hands is stopped.
const ATTEMPTS: u32 = 5;

/// What is left of a container that is not there any more.
#[derive(Debug)]
pub(crate) struct Remains(Option<DetachedSnapshot>);

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
                // A folder without a record, as earlier versions could leave it.
                Ok(None) if dir.is_dir() => return self.remove_damaged(id),
                Ok(None) => return Ok(id),
                Err(Error::Damaged(..)) if request.force => return self.remove_damaged(id),
                Err(error) => return Err(error),
            };
            if container.state.status == Status::Initialized {
                // Nothing of its program has run that could be lost.
                self.stop(&id, Some(0))?;
            } else if container.state.status.is_alive() {
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
                Some(container) if container.state.status.has_process() => {}
                Some(container) => {
                    self.remove_locked(&container, request.volumes)?;
                    return Ok(id);
                }
            }
        }
        Err(Error::RemoveRunning(id))
    }

    /// As [`Engine::remove`], for one of several that were found; gone meanwhile is as good.
    pub(crate) fn remove_found(&self, id: &str, request: &RemoveRequest) -> Result<()> {
        match self.remove(id, request) {
            Ok(_) | Err(Error::NoSuchContainer(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As [`Engine::remove`], for the container of that very name: where there is none, the beginning of an id is not meant.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], and as there.
    pub fn remove_named(&self, name: &str, request: &RemoveRequest) -> Result<String> {
        let holder = match records::valid_name(name) {
            true => records::name_holder(&self.paths, name),
            false => None,
        };
        let id = holder.ok_or_else(|| Error::NoSuchContainer(name.to_string()))?;
        self.remove(&id, request)
    }

    /// Clears up what a container left that has ended; the name of its image.
    ///
    /// # Errors
    /// When it runs.
    pub fn clean_up(&self, name_or_id: &str) -> Result<String> {
        let gone = || Error::NoSuchContainer(name_or_id.to_string());
        let id = self.resolve(name_or_id)?;
        let _lock = Lock::take(&self.paths.container(&id))?.ok_or_else(gone)?;
        let container = self.settle(&id)?.ok_or_else(gone)?;
        if container.state.status.has_process() {
            return Err(Error::StateImproper(format!(
                "container {id} is running or paused, refusing to clean up"
            )));
        }
        limits::discard_runtime(&self.paths, &id)?;
        self.emit_container(&container, Action::Cleanup);
        Ok(match container.config.image_id.is_empty() {
            true => container.config.image_name,
            false => container.config.image_id,
        })
    }

    /// Removes a container that does not run, by who holds its lock.
    pub(crate) fn remove_locked(&self, container: &Container, volumes: bool) -> Result<()> {
        let remains = self.withdraw(container)?;
        self.bury(
            container,
            remains,
            volumes || container.config.auto_remove,
            None,
        )
    }

    /// Makes a container disappear, by who holds its lock: from here on it is not there, its name is free and its image is
    /// not in use. What is left of it if we are killed now is swept by the next command.
    pub(crate) fn withdraw(&self, container: &Container) -> Result<Remains> {
        let id = container.id();
        let dir = self.paths.container(id);
        match fs::rename(&dir, records::unborn(&self.paths, id)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).on("remove", &dir),
            _ => {}
        }
        container.state.dismiss();
        records::shelve_name(&self.paths, &container.config.name, id);
        self.emit_container(container, Action::Remove);
        Ok(Remains(self.store.detach_snapshot(id)?))
    }

    /// Deletes what is left of a container that was withdrawn; in its user namespace, if that is still held.
    pub(crate) fn bury(
        &self,
        container: &Container,
        remains: Remains,
        volumes: bool,
        userns: Option<&OwnedFd>,
    ) -> Result<()> {
        let id = container.id();
        let snapshot = remains.0.map_or(Removal::Whole, DetachedSnapshot::remove);
        if snapshot == Removal::Partly {
            // What is left belongs to other ids of the container.
            self.sweep_in(userns)?;
        }
        if volumes {
            self.discard_anonymous_volumes(&container.config, userns)?;
        }
        limits::discard_runtime(&self.paths, id)?;
        files::remove_tree(&records::unborn(&self.paths, id))
    }

    /// Removes what was left of a container by a command or a monitor that was killed over it, or while making it.
    pub(crate) fn sweep_remains(&self, id: &str) -> Result<()> {
        let dir = records::unborn(&self.paths, id);
        let Some(_lock) = Lock::try_take(&dir)? else {
            return Ok(());
        };
        self.discard_snapshot(id)?;
        match records::load(&dir) {
            Ok(Some(container)) => {
                records::drop_name(&self.paths, &container.config.name, id);
                if container.config.auto_remove || dir.join(records::MAKING).exists() {
                    self.discard_anonymous_volumes(&container.config, None)?;
                }
            }
            // It had taken its name, and nothing else yet.
            _ => self.drop_names_of(id)?,
        }
        limits::discard_runtime(&self.paths, id)?;
        files::remove_tree(&dir)
    }

    /// Removes a container whose record a crash of the machine has spoilt: its name is found by looking at all.
    fn remove_damaged(&self, id: String) -> Result<String> {
        let dir = self.paths.container(&id);
        let Some(_lock) = Lock::take(&dir)? else {
            return Ok(id);
        };
        // What is left of it if we are killed now is swept by the next command.
        let remains = records::unborn(&self.paths, &id);
        fs::rename(&dir, &remains).on("remove", &dir)?;
        self.discard_snapshot(&id)?;
        limits::discard_runtime(&self.paths, &id)?;
        self.drop_names_of(&id)?;
        files::remove_tree(&remains)?;
        Ok(id)
    }

    /// Frees whatever name a container has of which only the id is known.
    fn drop_names_of(&self, id: &str) -> Result<()> {
        let names = self.paths.names();
        for entry in fs::read_dir(&names).on("read", &names)?.flatten() {
            records::drop_name(&self.paths, &entry.file_name().to_string_lossy(), id);
        }
        Ok(())
    }

    /// Removes a container's root file system.
    pub(crate) fn discard_snapshot(&self, id: &str) -> Result<()> {
        match self.store.remove_snapshot(id)? {
            Removal::Whole => Ok(()),
            Removal::Partly => self.sweep_in(None),
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
