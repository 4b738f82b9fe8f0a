//! Removing images, and the layers that nobody needs after that.
//!
//! An image disappears by one rename under its lock, after its names. Then each of its layers is locked
//! exclusively, without waiting: who holds it shared is about to use it, and keeps it. With the
//! lock in hand images and then containers are looked through for a reference. In this order
//! nothing can be missed: a container is noted under the lock of its image, so either its image
//! is still there or its note already is.

use rustix::fs::{FlockOperation, Mode};

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::images::image_path;
use crate::names;
use crate::remove::Removal;
use crate::stage::{self, Stage};
use crate::store::{DIRECTORY, Store};

/// What removing an image removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedImage {
    /// The id of the image.
    pub id: String,
    /// The names that it had.
    pub names: Vec<String>,
    /// What became of its layers.
    pub collected: Collected,
}

/// What a collection of layers did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that are gone.
    pub layers: Vec<Digest>,
    /// Some files could not be deleted (yet): they belong to ids that only a user namespace with
    /// the container's id maps has. [`Store::sweep`] inside of one deletes them.
    pub partly: bool,
}

impl Store {
    /// Remove an image, its names, and the layers that nothing else uses. What a container is made of
    /// stays in any case.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::ReadOnlyImage`]; when files cannot be removed.
    pub fn remove_image(&self, id: &str) -> Result<RemovedImage> {
        self.remove_image_if(id, || Ok(()))
    }

    /// The same, unless a container uses the image ([`Error::ImageInUse`]); none can begin to meanwhile.
    pub fn remove_unused_image(&self, id: &str) -> Result<RemovedImage> {
        self.remove_image_if(id, || {
            let users = self.snapshots()?;
            match users.into_iter().find(|user| user.image_id == id) {
                Some(user) => Err(Error::ImageInUse(user.id)),
                None => Ok(()),
            }
        })
    }

    fn remove_image_if(&self, id: &str, may: impl FnOnce() -> Result<()>) -> Result<RemovedImage> {
        let unknown = || Error::NoSuchImage(id.to_owned());
        let lock = match self.lock_image(id, FlockOperation::LockExclusive)? {
            Some(lock) => lock,
            None if self.image_of_others(id)?.is_some() => {
                return Err(Error::ReadOnlyImage(id.to_owned()));
            }
            None => return Err(unknown()),
        };
        let record = self.own_image_by_id(id)?.ok_or_else(unknown)?;
        may()?;
        // Names first, while nobody can put the same image again and give them to that.
        for name in record.names.iter().chain(&record.repo_digests) {
            names::remove(self, name, &record.id)?;
        }
        let stage = Stage::take(self, &image_path(&record.id))?.ok_or_else(unknown)?;
        drop(lock);
        // Where no overlay can be mounted it has a tree, with files of other owners.
        let left = stage.remove();
        let mut collected = self.collect_layers(&record.layers)?;
        collected.partly |= left == Removal::Partly;
        Ok(RemovedImage {
            id: record.id,
            names: record.names,
            collected,
        })
    }

    /// Remove all layers that no image and no container uses, for example of pulls that were
    /// never finished.
    ///
    /// # Errors
    /// When the store cannot be read, or files cannot be removed.
    pub fn collect_all_layers(&self) -> Result<Collected> {
        let mut all = Vec::new();
        for key in self.list("layers")? {
            for name in self.list(&format!("layers/{key}"))? {
                all.extend(digest_of(&name));
            }
        }
        self.collect_layers(&all)
    }

    /// Remove those of `layers` that nobody uses, under every id map.
    fn collect_layers(&self, layers: &[Digest]) -> Result<Collected> {
        let mut collected = Collected::default();
        let keys = self.list("layers")?;
        for layer in layers {
            for key in &keys {
                let path = format!("layers/{key}/{}", layer.file_name());
                let Ok(dir) = rustix::fs::openat(self.dir(), &path, DIRECTORY, Mode::empty())
                else {
                    continue;
                };
                let free = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)
                    .is_ok()
                    && stage::is_at(self.dir(), &path, &dir);
                if !free || self.is_layer_used(layer)? {
                    continue;
                }
                if let Some(stage) = Stage::take(self, &path)? {
                    drop(dir);
                    collected.partly |= stage.remove() == Removal::Partly;
                    if !collected.layers.contains(layer) {
                        collected.layers.push(layer.clone());
                    }
                }
            }
        }
        Ok(collected)
    }

    /// Whether an image or a container refers to the layer. An image that cannot be read may.
    fn is_layer_used(&self, layer: &Digest) -> Result<bool> {
        for id in self.image_ids()? {
            match self.read_record(&id) {
                Ok(Some(record)) if record.layers.contains(layer) => return Ok(true),
                Ok(_) => {}
                Err(_) => return Ok(true),
            }
        }
        Ok(self
            .notes()?
            .iter()
            .any(|(_, note)| note.layers.contains(layer)))
    }

    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>> {
        let what = || format!("cannot read {}", self.path(path).display());
        let dir = rustix::fs::openat(self.dir(), path, DIRECTORY, Mode::empty()).context(what)?;
        let names = stage::names_in(dir).context(what)?;
        Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect())
    }
}

/// The digest of a layer, from the name of its folder.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    let text = match name.split_once('-') {
        Some((algorithm, hex)) => format!("{algorithm}:{hex}"),
        None => format!("sha256:{name}"),
    };
    text.parse().ok()
}
