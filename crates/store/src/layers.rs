//! Layers: unpacked in `tmp/`, moved to `layers/MAPKEY/HEX/` by one rename.
//!
//! A layer that was committed is not necessarily on disk yet: that costs one syncfs(2) for all
//! layers of an image, when its record is put. Until then a layer counts as long as the machine
//! runs (its `meta.json` has the boot id); after a power cut it is unpacked again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Context, Error, Result};
use crate::stage::{self, Stage};
use crate::store::{self, DIRECTORY, Store};
use crate::unpack::recipe::{self, Recorder};
use crate::unpack::{self, Policy, Unpacked};

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

/// A layer that is being unpacked. Dropped without [`LayerStage::commit`] it is gone.
#[derive(Debug)]
pub struct LayerStage<'a> {
    store: &'a Store,
    stage: Stage,
    root: OwnedFd,
    algorithm: Algorithm,
    unpacked: Option<Unpacked>,
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
    pub fn layer_meta(&self, diff_id: &Digest) -> Result<Option<LayerMeta>> {
        Ok(self.hold_layer_anywhere(diff_id)?.map(|hold| hold.meta))
    }

    /// Keep a layer from being removed; `None` if it is not here. One that lies in an additional store, and can be
    /// used there, is here as well; its owner may remove it all the same.
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

    /// Begin to unpack a layer whose diff id is a SHA-256 digest, as nearly all are.
    ///
    /// Call this in a process that is root of a user namespace with the store's id maps.
    pub fn stage_layer(&self) -> Result<LayerStage<'_>> {
        self.stage_layer_with(Algorithm::Sha256)
    }

    /// Begin to unpack a layer whose diff id is of the given kind.
    pub fn stage_layer_with(&self, algorithm: Algorithm) -> Result<LayerStage<'_>> {
        self.sweep_once();
        let stage = Stage::new(self, "layer")?;
        let what = || "cannot make a folder for a layer";
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(stage.dir(), "fs", mode).context(what)?;
        let root = rustix::fs::openat(stage.dir(), "fs", DIRECTORY, Mode::empty()).context(what)?;
        rustix::fs::fchmod(&root, mode).context(what)?;
        if let Some(shift) = self.shift() {
            let (uid, gid) = shift.root().context(what)?;
            let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&root, Some(owner.0), Some(owner.1)).context(what)?;
        }
        Ok(LayerStage {
            store: self,
            stage,
            root,
            algorithm,
            unpacked: None,
        })
    }
}

impl Store {
    /// Unpack a layer that lies with the owners of other containers, here or in an additional store, for those of this
    /// store. Nothing is done if it is here already.
    ///
    /// Call this in a process that is root of a user namespace with the ids of both.
    ///
    /// # Errors
    /// As [`LayerHold::write_archive`], [`LayerStage::unpack`] and [`LayerStage::commit`];
    /// [`Error::LayerMissing`] when it is nowhere, [`Error::Unreadable`] when its owner keeps it from others.
    pub fn take_layer_from_others(&self, diff_id: &Digest) -> Result<LayerHold> {
        if let Some(here) = self.hold_layer(diff_id)? {
            return Ok(here);
        }
        let theirs = self.hold_layer_anywhere(diff_id)?;
        let theirs = theirs.ok_or_else(|| Error::LayerMissing(diff_id.clone()))?;
        let lender = match theirs.lent {
            true => self.elsewhere(diff_id).map(|(other, _)| other),
            false => None,
        };
        let what = || "cannot make a pipe";
        let (pipe, end) = io::pipe().context(what)?;
        let writer = std::thread::Builder::new()
            .name("layer".to_owned())
            .spawn(move || {
                let mut out = io::BufWriter::with_capacity(1 << 17, end);
                let count = theirs.write_archive(&mut out)?;
                out.flush().map_err(Error::Stream)?;
                Ok(count)
            })
            .context(|| "cannot start a thread")?;
        let mut stage = self.stage_layer_with(diff_id.algorithm())?;
        let unpacked = stage.unpack(pipe);
        let written = writer.join().unwrap_or_else(|_| {
            Err(Error::NotReproducible {
                layer: diff_id.clone(),
                why: "the thread that read it broke down".to_owned(),
            })
        });
        match written {
            // It wrote to nobody any more.
            Err(Error::Stream(_)) if unpacked.is_err() => {}
            // Their owner keeps them from us.
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied && lender.is_some() =>
            {
                return Err(lender.map_or_else(
                    || Error::LayerMissing(diff_id.clone()),
                    |other| other.unreadable(diff_id, source),
                ));
            }
            written => drop(written?),
        }
        unpacked?;
        stage.commit(diff_id)
    }
}

impl LayerStage<'_> {
    /// Unpack an uncompressed archive, in one pass and in bounded memory.
    ///
    /// `tar` is read to its end on this thread, which also computes the digest; another one
    /// writes the files. After an error the stage can only be dropped.
    pub fn unpack(&mut self, tar: impl Read) -> Result<Unpacked> {
        let policy = Policy {
            single: self.store.is_single(),
            beside: true,
            shift: self.store.shift().cloned(),
        };
        let what = || "cannot make a file for a layer";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let dir = self.stage.dir();
        let recipe = rustix::fs::openat(dir, RECIPE, flags, mode).context(what)?;
        let recorder = Recorder::new(recipe.into(), recipe::LIMIT).context(what)?;
        let root = self.root.as_fd();
        let unpacked = unpack::unpack(tar, root, policy, self.algorithm, Some(recorder))?;
        if !unpacked.recorded {
            rustix::fs::unlinkat(dir, RECIPE, AtFlags::empty()).context(what)?;
        }
        self.unpacked = Some(unpacked.clone());
        Ok(unpacked)
    }

    /// Make the layer visible if it has the digest it should have.
    ///
    /// If another process was faster its layer is taken, and this one dropped. The layer stays
    /// as long as the result is kept, and after that as long as an image refers to it.
    pub fn commit(mut self, expected: &Digest) -> Result<LayerHold> {
        let Some(unpacked) = self.unpacked.take() else {
            return Err(Error::Archive {
                entry: "layer".to_owned(),
                why: "it was not unpacked".to_owned(),
            });
        };
        let diff_id = unpacked.diff_id;
        // Digests of different algorithms are never the same.
        if *expected != diff_id {
            return Err(Error::DigestMismatch {
                what: "layer".to_owned(),
                expected: expected.clone(),
                actual: diff_id,
            });
        }
        let meta = LayerMeta {
            diff_id,
            size: unpacked.size,
            content: unpacked.content,
            files: unpacked.files,
            root_mode: unpacked.root_mode,
            replaced: unpacked.replaced || !unpacked.recorded,
            boot: boot_id().to_owned(),
        };
        let what = || format!("cannot finish layer {expected}");
        let text = serde_json::to_vec_pretty(&meta)
            .map_err(|error| Error::io(what(), io::Error::from(error)))?;
        atomic::write_new(self.stage.dir(), META, &text).context(what)?;
        store::make_folder(self.store, &format!("layers/{}", self.store.map_key()))?;
        let path = self.store.layer_path(expected);
        loop {
            match self.stage.publish(&path) {
                Ok(dir) => {
                    // From exclusive to shared without a moment between.
                    stage::lock(&dir, FlockOperation::LockShared).context(what)?;
                    return Ok(LayerHold {
                        dir,
                        meta,
                        lent: false,
                    });
                }
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(error) => return Err(Error::io(what(), error)),
            }
            if let Some(hold) = self.store.hold_own_layer(expected)? {
                return Ok(hold);
            }
            // It was there before a power cut, and may be half written.
            drop(Stage::take(self.store, &path)?);
        }
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

/// The name of this run of the machine (random(4)); empty where it cannot be read.
fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    })
}
