//! Stores of others, which are only read: their images are seen beside one's own.
//!
//! Nothing is ever written to them, nor locked: they may lie on a disk that cannot be written, and a reader must
//! not be able to keep their owner from anything. What a container needs of one is noted with the container,
//! so it finds its layers whatever the settings say later.
//!
//! A layer is used where it lies if its files have the owners that containers here have: it was unpacked under
//! the same id map, by the same user. All others are taken over when they are needed: their archive is made again,
//! and unpacked with the right owners into one's own store ([`Store::take_layer_from_others`]).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, CWD, Mode};

use crate::atomic;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::images::ImageRecord;
use crate::store::{DIRECTORY, Store};

impl Store {
    /// The same store, with the images of others beside its own. What one store has more than once, or has a name for,
    /// is taken from the first that has it; the own one comes before all.
    ///
    /// # Errors
    /// When there is no store at one of `roots`, or it cannot be read.
    pub fn with_additional<P: AsRef<Path>>(mut self, roots: &[P]) -> Result<Self> {
        for root in roots {
            let other = self.open_additional(root.as_ref())?;
            // One's own again would be a store that cannot be changed.
            if other.root != self.root {
                self.additional.push(other);
            }
        }
        Ok(self)
    }

    /// Whether something that can be read as a store is at `root`.
    pub fn is_at(root: &Path) -> bool {
        root.join("version").is_file() && root.join("images").is_dir()
    }

    /// The roots of the stores that are only read.
    pub fn additional(&self) -> impl Iterator<Item = &Path> {
        self.additional.iter().map(Store::root)
    }

    fn open_additional(&self, root: &Path) -> Result<Self> {
        let what = || format!("cannot open the additional image store {}", root.display());
        let root = std::path::absolute(root).context(what)?;
        let dir = rustix::fs::openat(CWD, &root, DIRECTORY, Mode::empty()).context(what)?;
        let store = Self {
            root,
            dir,
            key: self.key.clone(),
            single: self.single,
            shift: self.shift.clone(),
            // Nobody sweeps here.
            swept: AtomicBool::new(true),
            driver: OnceLock::new(),
            additional: Vec::new(),
        };
        let text = atomic::read(&store.dir, "version", 64).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NoStore(store.root.clone()),
            _ => Error::io(what(), error),
        })?;
        store.check_version_text(&text)?;
        Ok(store)
    }

    /// The images of others, as far as they can be read, with those of their names that mean them here.
    pub(crate) fn images_of_others(&self) -> Result<Vec<ImageRecord>> {
        let mut images: Vec<ImageRecord> = Vec::new();
        for other in &self.additional {
            for id in other.image_ids()? {
                // What cannot be read, or is not whole, is not here.
                let Ok(Some(record)) = other.image_by_id(&id) else {
                    continue;
                };
                let Some(record) = self.borrowed(record)? else {
                    continue;
                };
                if !images.iter().any(|image| image.id == record.id) {
                    images.push(record);
                }
            }
        }
        Ok(images)
    }

    /// Another store's image as it is seen here: without the names that mean another image. None of it is seen
    /// when it is here as well and has no name that is not.
    fn borrowed(&self, mut record: ImageRecord) -> Result<Option<ImageRecord>> {
        let mut names = Vec::with_capacity(record.names.len());
        for name in std::mem::take(&mut record.names) {
            let leads = match self.own_image_by_name(&name)? {
                Some(_) => false,
                None => self.name_of_others(&name)?.as_deref() == Some(&record.id),
            };
            if leads {
                names.push(name);
            }
        }
        let seen = !names.is_empty() || self.read_record(&record.id)?.is_none();
        record.names = names;
        record.read_only = true;
        Ok(seen.then_some(record))
    }

    /// The id of the image that the first of the others has under this name.
    fn name_of_others(&self, name: &str) -> Result<Option<String>> {
        for other in &self.additional {
            if let Some(record) = other.own_image_by_name(name)? {
                return Ok(Some(record.id));
            }
        }
        Ok(None)
    }

    /// The image of that id in the first of the others that has it.
    pub(crate) fn image_of_others(&self, id: &str) -> Result<Option<ImageRecord>> {
        for other in &self.additional {
            if let Some(record) = other.image_by_id(id)? {
                // Asked for by its id, it is seen in any case.
                let mut seen = self.borrowed(record.clone())?.unwrap_or(record);
                seen.read_only = true;
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// The image that the first of the others has under this name.
    pub(crate) fn image_of_others_by_name(&self, name: &str) -> Result<Option<ImageRecord>> {
        for other in &self.additional {
            if let Some(mut record) = other.own_image_by_name(name)? {
                record.read_only = true;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The additional store in which a layer lies that can be used where it is.
    pub(crate) fn lender(&self, diff_id: &Digest) -> Option<&Store> {
        self.additional
            .iter()
            .find(|other| other.can_lend(diff_id) && other.has_own_layer(diff_id))
    }

    /// Whether the files of a layer have the owners that they must have: the name of the folder tells most of it,
    /// and who made it the rest.
    fn can_lend(&self, diff_id: &Digest) -> bool {
        let path = self.layer_path(diff_id);
        let stat = rustix::fs::statat(self.dir(), path, AtFlags::SYMLINK_NOFOLLOW);
        let me = rustix::process::geteuid().as_raw();
        stat.is_ok_and(|stat| stat.st_uid == me)
    }

    /// Where a layer lies in the stores of others, under whichever id map.
    pub(crate) fn elsewhere(&self, diff_id: &Digest) -> Option<(&Store, String)> {
        self.additional.iter().find_map(|other| {
            let keys = other.list("layers").unwrap_or_default();
            let mut paths = keys
                .iter()
                .map(|key| format!("layers/{key}/{}", diff_id.file_name()));
            // What is kept from us is there, too.
            let path = paths.find(|path| match other.path(path).symlink_metadata() {
                Ok(_) => true,
                Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
            })?;
            Some((other, path))
        })
    }

    /// The tree of a layer under a certain id map, wherever it can be looked into.
    pub(crate) fn tree_under(&self, key: &str, layer: &Digest) -> Option<PathBuf> {
        let tree = format!("layers/{key}/{}/fs", layer.file_name());
        std::iter::once(self)
            .chain(&self.additional)
            .map(|store| store.path(&tree))
            .find(|tree| tree.is_dir())
    }
}
