//! `system reset`: everything of ours goes.

use std::cell::Cell;
use std::fs;

use crate::error::{Context, Error, Result};
use crate::events::{Action, Event};
use crate::{Engine, ListRequest, RemoveRequest, events, files};

impl Engine {
    /// Removes all containers, images, volumes and secrets, as far as they can be. What keeps one from being removed is given
    /// to `failed`.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; containers that cannot be listed.
    pub fn reset(&self, mut failed: impl FnMut(Error)) -> Result<()> {
        let whole = Cell::new(true);
        let mut note = |done: Result<()>| match done {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            // Somebody else was quicker.
            Ok(())
            | Err(Error::NoSuchImage(_) | Error::NoSuchVolume(_) | Error::NoSuchSecret(_)) => {
                Ok(())
            }
            Err(error) => {
                whole.set(false);
                failed(error);
                Ok(())
            }
        };
        let all = self.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        let request = RemoveRequest {
            force: true,
            volumes: true,
            timeout: Some(0),
        };
        for container in &all {
            note(self.remove_found(container.id(), &request))?;
        }
        // Those whose records are damaged are in no list.
        let mut others = self.ids()?;
        others.retain(|id| all.iter().all(|container| container.id() != id));
        for id in others {
            note(self.remove_found(&id, &request))?;
        }
        let images = self
            .images()
            .or_else(|error| note(Err(error)).map(|()| Vec::new()))?;
        for image in images.into_iter().filter(|image| !image.read_only) {
            note(self.remove_image(&image.id, true).map(drop))?;
        }
        let names = self
            .volume_names()
            .or_else(|error| note(Err(error)).map(|()| Vec::new()))?;
        for name in names {
            note(self.remove_volume(&name))?;
        }
        let secrets = self
            .secrets()
            .or_else(|error| note(Err(error)).map(|()| Vec::new()))?;
        for secret in secrets {
            note(self.remove_secret(&secret.id).map(drop))?;
        }
        note(self.sweep_in(None))?;
        self.emit(&Event::system(Action::Remove));
        note(files::remove_tree(&self.paths.root.join("secrets")))?;
        if whole.get() {
            // What stays needs them.
            note(files::remove_tree(&self.paths.volumes()))?;
            note(files::remove_tree(&self.paths.names()))?;
        }
        for name in [events::FILE, events::OLD] {
            note(files::remove_file(&self.paths.runroot.join(name)))?;
        }
        fs::create_dir_all(self.paths.names()).on("create", &self.paths.names())
    }
}
