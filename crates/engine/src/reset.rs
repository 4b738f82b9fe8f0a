//! `system reset`: everything of ours goes.

use std::fs;

use crate::error::{Context, Result};
use crate::events::{Action, Event};
use crate::{Engine, ListRequest, RemoveRequest, events, files};

impl Engine {
    /// Removes all containers, images, volumes and secrets.
    ///
    /// # Errors
    /// A container that does not end; files that cannot be removed.
    pub fn reset(&self) -> Result<()> {
        let all = self.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        for container in all {
            self.remove_found(
                container.id(),
                &RemoveRequest {
                    force: true,
                    volumes: true,
                    timeout: Some(0),
                },
            )?;
        }
        for image in self.images()? {
            self.remove_image(&image.id, true)?;
        }
        for volume in self.volumes()? {
            self.remove_volume(&volume.name)?;
        }
        for secret in self.secrets()? {
            self.remove_secret(&secret.id)?;
        }
        self.sweep_in(None)?;
        self.emit(&Event::system(Action::Remove));
        for dir in [
            self.paths.root.join("secrets"),
            self.paths.volumes(),
            self.paths.names(),
        ] {
            files::remove_tree(&dir)?;
        }
        for name in [events::FILE, events::OLD] {
            files::remove_file(&self.paths.runroot.join(name))?;
        }
        fs::create_dir_all(self.paths.names()).on("create", &self.paths.names())
    }
}
