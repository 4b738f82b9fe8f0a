//! Images on their way out: push, save; and those that nobody needs any more.

use rcon_image::{Destination, Output, Progress, PushOptions, SaveOptions, SavedImage};
use rcon_store::{Digest, ImageRecord};

use crate::error::{Error, Result};
use crate::events::{Action, Event};
use crate::{Engine, RemovedImage};

impl Engine {
    /// Pushes an image; the digest of the manifest it has there. `progress` is called in another process.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; what the registry or the store says; [`Error::Interrupted`] after ctrl-c.
    pub fn push(
        &self,
        image: &str,
        to: &Destination,
        options: &PushOptions,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let id = self.find_image(image)?.id;
        let digest = self.in_worker(|store| {
            let patience = options.registry.patience();
            rcon_image::push(store, &id, to, options, &patience, progress)
        })?;
        self.emit(&Event::image_id(&id, Action::Push, image));
        Ok(digest)
    }

    /// Writes images to a file or a folder; the digest of the last one's manifest. `progress` is called in another process.
    ///
    /// # Errors
    /// What the store says, or a destination that cannot be written; [`Error::Interrupted`] after ctrl-c.
    pub fn save(
        &self,
        images: &[SavedImage],
        to: &Destination,
        options: &SaveOptions,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let piped = matches!(
            to,
            Destination::DockerArchive(Output::Stdout, _)
                | Destination::OciArchive(Output::Stdout, _)
        );
        let digest = self.in_worker(|store| {
            rcon_image::save(store, images, to, options, progress).map_err(|error| match piped {
                true => Error::from(error).or_gone_reader(),
                false => error.into(),
            })
        })?;
        for image in images {
            let name = image
                .names
                .first()
                .map_or_else(|| image.id.clone(), ToString::to_string);
            self.emit(&Event::image_id(&image.id, Action::Save, &name));
        }
        Ok(digest)
    }

    /// Removes the images that no container uses, those without a name or, with `all`, any; `wanted` says which of them.
    /// What they were is given to `each`, one by one, and what kept one from being removed. An image that came into use
    /// meanwhile is no error.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune_images(
        &self,
        all: bool,
        mut wanted: impl FnMut(&ImageRecord) -> bool,
        mut each: impl FnMut(Result<RemovedImage>),
    ) -> Result<()> {
        self.store.remove_partials();
        for image in self.images()? {
            if image.read_only
                || !(all || image.names.is_empty())
                || !self.image_users(&image.id)?.is_empty()
                || !wanted(&image)
            {
                continue;
            }
            match self.prune_image(&image) {
                Ok(Some(removed)) => each(Ok(removed)),
                Ok(None) | Err(Error::NoSuchImage(_) | Error::ImageInUse { .. }) => {}
                Err(error) => each(Err(error)),
            }
        }
        // Of a pull or a commit that was killed before it had an image.
        let partly = self.store.collect_all_layers()?.partly;
        if partly || self.store.has_unfinished() {
            self.sweep_in(None)?;
        }
        Ok(())
    }

    /// Removes an image with all its names, unless it has got some since it was found without.
    fn prune_image(&self, image: &ImageRecord) -> Result<Option<RemovedImage>> {
        if self.find_image(&image.id)?.names != image.names {
            return Ok(None);
        }
        let removed = self.take_away(image, false)?;
        Ok(Some(RemovedImage {
            untagged: image.names.clone(),
            deleted: removed.deleted,
        }))
    }
}
