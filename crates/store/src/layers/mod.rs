//! Layers: unpacked in `tmp/`, moved to `layers/MAPKEY/HEX/` by one rename.
//!
//! A layer that was committed is not necessarily on disk yet: that costs one syncfs(2) for all
//! layers of an image, when its record is put. Until then a layer counts as long as the machine
//! runs (its `meta.json` has the boot id); after a power cut it is unpacked again.

mod staged;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rcon_sys::process::boot_id;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Result};
use crate::stage;
use crate::store::{DIRECTORY, Store};
use crate::unpack::recipe;

pub use staged::LayerStage;

/// What is known of an unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// The digest of its uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its uncompressed archive: what `images` adds up, as podman does.
    pub size: u64,
    /// Bytes of the content of its files.
    pub content: u64,
    /// Number of entries.
    pub files: u64,
    /// Mode of the root directory, if the archive has an entry for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mode: Option<u32>,
    /// Something in its archive was replaced by what came later in it: its tree does not tell
    /// whether it is what it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replaced: bool,
    /// The boot of the machine in which it was unpacked.
    boot: String,
}

/// As long as this exists the layer is not removed, even if no image refers to it yet.
#[derive(Debug)]
pub struct LayerHold {
    dir: OwnedFd,
    meta: LayerMeta,
    /// It is in a store that is only read.
    lent: bool,
}

impl LayerHold {
    /// What is known of the layer.
    pub fn meta(&self) -> &LayerMeta {
        &self.meta
    }

    /// Write the layer's archive, bit for bit as it was unpacked: from its tree and the recipe that
    /// was kept of all else. How many bytes that were.
    ///
    /// Call this in a process that is root of a user namespace with the store's id maps. Only when
    /// it has succeeded `out` has got the right bytes.
    ///
    /// # Errors
    /// [`Error::NotReproducible`] if there is no recipe or files have changed;
    /// [`Error::Stream`] if `out` fails.
    pub fn write_archive(&self, out: &mut dyn Write) -> Result<u64> {
        let lost = |why: &str| Error::NotReproducible {
            layer: self.meta.diff_id.clone(),
            why: why.to_owned(),
        };
        let what = || format!("cannot read layer {}", self.meta.diff_id);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let recipe = match rustix::fs::openat(&self.dir, RECIPE, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Err(lost("how its archive was written was not noted")),
            Err(error) => return Err(Error::io(what(), error)),
        };
        let root = rustix::fs::openat(&self.dir, "fs", DIRECTORY, Mode::empty()).context(what)?;
        let mut hashing = HashingWriter {
            out,
            hasher: Hasher::new(self.meta.diff_id.algorithm()),
            count: 0,
            failed: None,
        };
        let followed = recipe::follow(recipe, &root, &mut hashing);
        let HashingWriter {
            hasher,
            count,
            failed,
            ..
        } = hashing;
        if let Some(error) = failed {
            return Err(Error::Stream(error));
        }
        match followed {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(lost(&error.to_string()));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(lost("the note of how its archive was written is cut off"));
            }
            other => other.context(what)?,
        }
        if hasher.finish() != self.meta.diff_id {
            return Err(lost(
                "its archive had a file twice, or its files have changed since",
            ));
        }
        Ok(count)
    }

    /// Whether [`LayerHold::write_archive`] tells damage from what never could be made again.
    pub(crate) fn can_be_checked(&self) -> bool {
        !self.meta.replaced
    }

    /// Whether it is known to be on disk. What others keep is for them to see to.
    pub(crate) fn is_settled(&self) -> bool {
        self.lent || rustix::fs::statat(&self.dir, SETTLED, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Note that it is on disk.
    pub(crate) fn settle(&self) -> Result<()> {
        if self.lent {
            return Ok(());
        }
        match atomic::write_new(&self.dir, SETTLED, b"") {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(
                format!("cannot finish layer {}", self.meta.diff_id),
                error,
            )),
            _ => Ok(()),
        }
    }
}

/// Computes the digest of what goes to `out`, and keeps the error of that apart from others.
struct HashingWriter<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
    count: u64,
    failed: Option<io::Error>,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write_all(bytes) {
            Ok(()) => {
                self.hasher.update(bytes);
                self.count += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What it takes to make the archive again, beside the tree.
const RECIPE: &str = "recipe.zst";

/// What is known of it, beside the tree.
const META: &str = "meta.json";

/// The mark of a layer that was brought to disk.
const SETTLED: &str = "settled";

impl Store {
    /// Whether the layer is here, unpacked under this store's id map; or in an additional store, where it can be used.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.has_own_layer(diff_id) || self.lender(diff_id).is_some()
    }

    /// The same without the stores of others.
    pub(crate) fn has_own_layer(&self, diff_id: &Digest) -> bool {
        let path = self.layer_path(diff_id);
        let settled = format!("{path}/{SETTLED}");
        if rustix::fs::statat(self.dir(), settled, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return true;
        }
        rustix::fs::openat(self.dir(), &path, DIRECTORY, Mode::empty())
            .is_ok_and(|dir| read_meta(&dir).is_some())
    }

    /// The tree of a layer. It exists if [`Store::has_layer`] says so.
    pub fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        let lender = match self.has_own_layer(diff_id) {
            true => None,
            false => self.lender(diff_id),
        };
        let place = lender.unwrap_or(self);
        place.path(&self.layer_path(diff_id)).join("fs")
    }

    /// What is known of a layer, under whichever id map it is here; `None` if it is not.
    ///
    /// # Errors
    /// When the store cannot be read, or what it notes is damaged.
    pub fn layer_meta(&self, diff_id: &Digest) -> Result<Option<LayerMeta>> {
        Ok(self.hold_layer_anywhere(diff_id)?.map(|hold| hold.meta))
    }

    /// Keep a layer from being removed; `None` if it is not here. One that lies in an additional store, and can be
    /// used there, is here as well; its owner may remove it all the same.
    ///
    /// # Errors
    /// When the store cannot be read or locked.
    pub fn hold_layer(&self, diff_id: &Digest) -> Result<Option<LayerHold>> {
        if let Some(own) = self.hold_own_layer(diff_id)? {
            return Ok(Some(own));
        }
        match self.lender(diff_id) {
            Some(other) => other.borrow_layer_at(&other.layer_path(diff_id), diff_id),
            None => Ok(None),
        }
    }

    /// A layer to be read only, under whichever id map it was unpacked and in whichever store.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn hold_layer_anywhere(&self, diff_id: &Digest) -> Result<Option<LayerHold>> {
        if let Some(here) = self.hold_layer(diff_id)? {
            return Ok(Some(here));
        }
        for key in self.list("layers")? {
            let path = format!("layers/{key}/{}", diff_id.file_name());
            if let Some(hold) = self.hold_layer_at(&path, diff_id)? {
                return Ok(Some(hold));
            }
        }
        match self.elsewhere(diff_id) {
            Some((other, path)) => other.borrow_layer_at(&path, diff_id),
            None => Ok(None),
        }
    }

    /// The same without the stores of others.
    pub(crate) fn hold_own_layer(&self, diff_id: &Digest) -> Result<Option<LayerHold>> {
        self.hold_layer_at(&self.layer_path(diff_id), diff_id)
    }

    /// A layer of this store, which is another's: without a lock.
    fn borrow_layer_at(&self, path: &str, diff_id: &Digest) -> Result<Option<LayerHold>> {
        match rustix::fs::openat(self.dir(), path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.unreadable(diff_id, error.into())),
            Ok(dir) => match read_meta(&dir) {
                Some(meta) => Ok(Some(LayerHold {
                    dir,
                    meta,
                    lent: true,
                })),
                None => match atomic::read(&dir, META, atomic::LIMIT) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        Err(self.unreadable(diff_id, error))
                    }
                    _ => Ok(None),
                },
            },
        }
    }

    fn unreadable(&self, layer: &Digest, source: io::Error) -> Error {
        Error::Unreadable {
            layer: layer.clone(),
            store: self.root().to_owned(),
            source,
        }
    }

    fn hold_layer_at(&self, path: &str, diff_id: &Digest) -> Result<Option<LayerHold>> {
        let what = || format!("cannot open layer {diff_id}");
        match rustix::fs::openat(self.dir(), path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(what(), error)),
            Ok(dir) => {
                stage::lock(&dir, FlockOperation::LockShared).context(what)?;
                // Removed while we waited?
                if !stage::is_at(self.dir(), path, &dir) {
                    return Ok(None);
                }
                Ok(read_meta(&dir).map(|meta| LayerHold {
                    dir,
                    meta,
                    lent: false,
                }))
            }
        }
    }

    /// The trees of an image's layers, the top one first, under whichever id map all of them are:
    /// this store's, if they are.
    ///
    /// # Errors
    /// [`Error::LayerMissing`], [`Error::OtherIds`].
    pub fn image_trees(&self, layers: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut keys = self.list("layers")?;
        for other in &self.additional {
            keys.extend(other.list("layers").unwrap_or_default());
        }
        keys.sort_by_key(|key| key != self.map_key());
        keys.iter()
            .find_map(|key| {
                let trees = layers.iter().rev().map(|layer| self.tree_under(key, layer));
                trees.collect::<Option<Vec<PathBuf>>>()
            })
            .ok_or_else(|| match layers.first() {
                Some(layer) => Error::LayerMissing(layer.clone()),
                None => Error::OtherIds,
            })
    }
}

/// The record of the layer in `dir`, if it can be relied upon.
fn read_meta(dir: &OwnedFd) -> Option<LayerMeta> {
    let text = atomic::read(dir, META, atomic::LIMIT).ok()?;
    let meta: LayerMeta = serde_json::from_slice(&text).ok()?;
    let settled = meta.boot == boot_id()
        || rustix::fs::statat(dir, SETTLED, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    settled.then_some(meta)
}
