//! Images, as far as containers and the command line need them.

use rcon_image::{ImportOptions, LoadedImage, Progress, PullOptions, Reference, Source};
use rcon_store::{ImageHold, ImageRecord, NewImage, Store};

use crate::error::{Error, Result};
use crate::events::{Action, Event};
use crate::requests::PullPolicy;
use crate::{Container, Engine, ImageRequest, ListRequest, RemoveRequest};

/// What became of an image that was to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedImage {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// The id, when the image itself is gone.
    pub deleted: Option<String>,
}

impl Engine {
    /// The image that is here under that name, id, or prefix of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn find_image(&self, name: &str) -> Result<ImageRecord> {
        rcon_image::find_local(&self.store, name)?
            .ok_or_else(|| Error::NoSuchImage(name.to_string()))
    }

    /// The image of a container to be made, pulled if the policy says so; with it the name to show for it.
    ///
    /// # Errors
    /// As [`Engine::pull`]; [`Error::NoSuchImage`] when it may not be pulled.
    pub fn ensure_image(
        &self,
        name: &str,
        request: &ImageRequest,
        progress: &dyn Progress,
    ) -> Result<(ImageRecord, String)> {
        // What is in files is taken from there, whatever is here.
        let in_files = rcon_image::LocalSource::parse(name)?.is_some();
        let here = match request.policy {
            PullPolicy::Always => None,
            _ if in_files => None,
            _ => rcon_image::find_local(&self.store, name)?
                .filter(|image| fits(image, &request.pull)),
        };
        let image = match (request.policy, here) {
            (PullPolicy::Missing | PullPolicy::Never, Some(image)) => image,
            (PullPolicy::Never, None) => return Err(Error::NoSuchImage(name.to_string())),
            (PullPolicy::Newer, Some(image)) => match self.pull(name, &request.pull, progress) {
                Ok(image) => image,
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // Out of reach: what is here will do.
                Err(_) => image,
            },
            (_, None) | (PullPolicy::Always, _) => self.pull(name, &request.pull, progress)?,
        };
        let shown = shown_name(&image, name);
        Ok((image, shown))
    }

    /// As [`Engine::ensure_image`], and nobody removes the image as long as the last part of the answer is kept.
    ///
    /// # Errors
    /// The same.
    pub fn hold_image(
        &self,
        name: &str,
        request: &ImageRequest,
        progress: &dyn Progress,
    ) -> Result<(ImageRecord, String, ImageHold)> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (image, shown) = match self.ensure_image(name, request, progress) {
                // It was removed as soon as it was there.
                Err(Error::NoSuchImage(_))
                    if request.policy != PullPolicy::Never && attempts < 5 =>
                {
                    continue;
                }
                other => other?,
            };
            match self.store.hold_image(&image.id)? {
                Some(hold) => return Ok((image, shown, hold)),
                None if attempts < 5 => {}
                None => return Err(Error::NoSuchImage(name.to_string())),
            }
        }
    }

    /// Pulls an image. `progress` is called in another process: it must draw, not remember.
    ///
    /// # Errors
    /// What the registry or the store says; [`Error::Interrupted`] after ctrl-c.
    pub fn pull(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord> {
        let id = self.in_worker(|store| {
            rcon_image::pull(store, name, options, progress).map(|image| image.id)
        })?;
        let image = self.known(&id)?;
        self.emit(&Event::image(&image, Action::Pull, name));
        Ok(image)
    }

    /// Pulls what may be several images: a docker-archive holds as many as one likes.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub fn pull_each(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<ImageRecord>> {
        self.pull_several(name, |store| {
            rcon_image::pull_each(store, name, options, progress)
        })
    }

    /// `pull --all-tags`.
    ///
    /// # Errors
    /// As [`Engine::pull`].
    pub fn pull_all_tags(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<ImageRecord>> {
        self.pull_several(name, |store| {
            rcon_image::pull_all_tags(store, name, options, progress)
        })
    }

    fn pull_several(
        &self,
        name: &str,
        pull: impl FnOnce(&Store) -> rcon_image::Result<Vec<ImageRecord>>,
    ) -> Result<Vec<ImageRecord>> {
        let ids: Vec<String> = self.in_worker(|store| {
            pull(store).map(|images| images.into_iter().map(|image| image.id).collect())
        })?;
        for id in &ids {
            self.emit(&Event::image_id(id, Action::Pull, name));
        }
        ids.iter().map(|id| self.known(id)).collect()
    }

    /// Loads the images of an archive.
    ///
    /// # Errors
    /// An archive that is none or is damaged.
    pub fn load(
        &self,
        source: &Source,
        policy: Option<&std::path::Path>,
        progress: &dyn Progress,
    ) -> Result<Vec<LoadedImage>> {
        let loaded: Vec<(String, Vec<String>)> = self.in_worker(|store| {
            let images = rcon_image::load_with(store, source, policy, progress);
            images.map(|images| {
                images
                    .into_iter()
                    .map(|image| (image.record.id, image.names))
                    .collect()
            })
        })?;
        loaded
            .into_iter()
            .map(|(id, names)| {
                let name = names.first().unwrap_or(&id);
                self.emit(&Event::image_id(&id, Action::Load, name));
                Ok(LoadedImage {
                    record: self.known(&id)?,
                    names,
                })
            })
            .collect()
    }

    /// Makes an image of a tarball.
    ///
    /// # Errors
    /// A tarball or a `--change` that cannot be read.
    pub fn import(
        &self,
        source: &Source,
        options: &ImportOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord> {
        let id = self.in_worker(|store| {
            rcon_image::import(store, source, options, progress).map(|image| image.id)
        })?;
        let image = self.known(&id)?;
        let name = image.names.first().unwrap_or(&image.id);
        self.emit(&Event::image(&image, Action::Import, name));
        Ok(image)
    }

    /// Looks at everything in the store, and takes away what is damaged if that is asked for.
    ///
    /// # Errors
    /// When the store cannot be read at all.
    pub fn check_store(
        &self,
        options: rcon_store::CheckOptions,
    ) -> Result<Vec<rcon_store::Damage>> {
        let found: Vec<(String, String, String, bool)> = self.in_worker(|store| {
            store.check(options).map(|found| {
                let parts = |d: rcon_store::Damage| (d.kind.to_owned(), d.id, d.why, d.repaired);
                found.into_iter().map(parts).collect()
            })
        })?;
        let kinds = ["layer", "image", "name", "container"];
        let damage =
            |(kind, id, why, repaired): (String, String, String, bool)| rcon_store::Damage {
                kind: kinds.into_iter().find(|k| *k == kind).unwrap_or("layer"),
                id,
                why,
                repaired,
            };
        Ok(found.into_iter().map(damage).collect())
    }

    /// All images.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        Ok(self.store.images()?)
    }

    /// Gives an image another name; the full name it has now.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a name that is none.
    pub fn tag(&self, image: &str, name: &str) -> Result<String> {
        let image = self.find_image(image)?;
        let full = local_name(name)?;
        match self.store.tag(&image.id, &full) {
            Err(rcon_store::Error::NoSuchImage(_)) if image.read_only => {
                self.tag_read_only(&image, &full)?;
            }
            other => drop(other?),
        }
        self.emit(&Event::image(&image, Action::Tag, &full));
        Ok(full)
    }

    /// Gives an image of an additional store a name here: it is put beside the own ones, without its layers where these
    /// can be used where they are.
    fn tag_read_only(&self, image: &ImageRecord, name: &str) -> Result<()> {
        self.in_worker(|store| -> Result<()> {
            let layers = image.layers.iter();
            let held = layers.map(|layer| store.take_layer_from_others(layer));
            let held = held.collect::<std::result::Result<Vec<_>, _>>()?;
            let digests: Vec<_> = image.digests().collect();
            // The last becomes its own.
            for digest in digests.into_iter().rev() {
                let image = image.clone().seen_by(digest);
                store.put_image(NewImage {
                    manifest: image.manifest()?,
                    manifest_digest: image.manifest_digest.clone(),
                    media_type: image.media_type.clone(),
                    config: image.config()?,
                    layers: image.layers.clone(),
                    names: vec![name.to_owned()],
                    repo_digests: image.repo_digests.clone(),
                })?;
            }
            drop(held);
            Ok(())
        })
    }

    /// Takes names away from an image (all of them when `names` is empty).
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a name it does not have.
    pub fn untag(&self, image: &str, names: &[String]) -> Result<()> {
        let image = self.find_image(image)?;
        if image.read_only {
            return Err(rcon_store::Error::ReadOnlyImage(image.id).into());
        }
        let names = match names {
            [] => image.names.clone(),
            names => names
                .iter()
                .map(|name| match own_name(&image, name) {
                    Some(full) => Ok(full),
                    None => Err(Error::Invalid(format!("{name}: tag not known"))),
                })
                .collect::<Result<_>>()?,
        };
        for name in names {
            self.store.untag(&image.id, &name)?;
            self.emit(&Event::image(&image, Action::Untag, &name));
        }
        Ok(())
    }

    /// Removes a name of an image, and the image with its last name. With `force` the containers that use it go first.
    ///
    /// # Errors
    /// [`Error::ImageInUse`] without force.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<RemovedImage> {
        let image = self.find_image(name)?;
        if image.read_only {
            return Err(rcon_store::Error::ReadOnlyImage(image.id).into());
        }
        match own_name(&image, name) {
            Some(full) if image.names.len() > 1 => {
                self.store.untag(&image.id, &full)?;
                self.emit(&Event::image(&image, Action::Untag, &full));
                return Ok(RemovedImage {
                    untagged: vec![full],
                    deleted: None,
                });
            }
            None if image.names.len() > 1 && !force => {
                return Err(Error::Invalid(format!(
                    "unable to delete image {:?} by ID with more than one tag ([{}]): please force removal",
                    image.id,
                    image.names.join(" ")
                )));
            }
            _ => {}
        }
        self.take_away(&image, force)
    }

    /// Removes an image with all its names.
    pub(crate) fn take_away(&self, image: &ImageRecord, force: bool) -> Result<RemovedImage> {
        let request = RemoveRequest {
            force: true,
            volumes: false,
            timeout: None,
        };
        // Those that are made of it the store knows.
        for container in self.mounting(&image.id)? {
            match force {
                true => self.remove_found(&container, &request)?,
                false => return Err(Error::ImageInUse { container }),
            }
        }
        let removed = loop {
            match self.store.remove_unused_image(&image.id) {
                Err(rcon_store::Error::ImageInUse(container)) if force => {
                    match self.remove(&container, &request) {
                        Ok(_) => {}
                        // It is not there yet; its layers stay.
                        Err(Error::NoSuchContainer(_)) => {
                            break self.store.remove_image(&image.id)?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Err(rcon_store::Error::ImageInUse(container)) => {
                    return Err(Error::ImageInUse { container });
                }
                other => break other?,
            }
        };
        for name in &removed.names {
            self.emit(&Event::image(image, Action::Untag, name));
        }
        self.emit(&Event::image(image, Action::Remove, &image.id));
        if removed.collected.partly {
            self.sweep_in(None)?;
        }
        Ok(RemovedImage {
            untagged: removed.names,
            deleted: Some(removed.id),
        })
    }

    /// The ids of the containers made of an image, or that have it mounted.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn image_users(&self, image_id: &str) -> Result<Vec<String>> {
        let snapshots = self.store.snapshots()?.into_iter();
        let made = snapshots.filter(|s| s.image_id == image_id).map(|s| s.id);
        let mut users: Vec<String> = made.collect();
        for id in self.mounting(image_id)? {
            if !users.contains(&id) {
                users.push(id);
            }
        }
        Ok(users)
    }

    /// The ids of the containers that have an image mounted.
    fn mounting(&self, image_id: &str) -> Result<Vec<String>> {
        let all = self.list(&ListRequest {
            all: true,
            ..ListRequest::default()
        })?;
        let has = |container: &Container| {
            let mut mounts = container.config.options.mounts.iter();
            mounts.any(|m| matches!(&m.source, rcon_bundle::Source::Image(id) if id == image_id))
        };
        let users = all.into_iter().filter(has);
        Ok(users.map(|container| container.config.id).collect())
    }

    /// An image that was there a moment ago.
    fn known(&self, id: &str) -> Result<ImageRecord> {
        self.store
            .image_by_id(id)?
            .ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }
}

/// Whether the image is for the platform that was asked for, if one was.
fn fits(image: &ImageRecord, options: &PullOptions) -> bool {
    options.platform.as_ref().is_none_or(|wanted| {
        let have = &image.platform;
        wanted.os == have.os
            && wanted.architecture == have.architecture
            && (wanted.variant.is_none()
                || have.variant.is_none()
                || wanted.variant == have.variant)
    })
}

fn local_name(name: &str) -> Result<String> {
    Ok(Reference::parse_local(name)
        .map_err(rcon_image::Error::from)?
        .to_string())
}

/// The full name among the image's own that the user means by `name`, if it is a name and not an id.
pub fn own_name(image: &ImageRecord, name: &str) -> Option<String> {
    let name = name.strip_prefix("docker://").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = if last.contains([':', '@']) {
        name.to_string()
    } else {
        format!("{name}:latest")
    };
    let same = |full: &&String| {
        **full == tagged
            || full
                .strip_suffix(&tagged)
                .is_some_and(|rest| rest.ends_with('/'))
    };
    image.names.iter().find(same).cloned()
}

/// How a container's image is shown: by the name the user meant, in full; else by any; else by its id.
fn shown_name(image: &ImageRecord, name: &str) -> String {
    own_name(image, name)
        .or_else(|| image.names.first().cloned())
        .unwrap_or_else(|| match name.contains(['/', '@']) {
            true => name.to_string(),
            false => image.id.clone(),
        })
}
