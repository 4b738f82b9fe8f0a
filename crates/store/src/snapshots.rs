//! The writable part of a container's root file system.
//!
//! `snapshots/CONTAINER/` has the directories of an overlay mount (the kernel's
//! Documentation/filesystems/overlayfs.rst) and a note of the layers below, which keeps these
//! from being removed. Making one is on the way of every `run`: it writes five names and no
//! more, and leaves it to the kernel when they reach the disk.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rcon_sys::owner::SideFile;
use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::flatten::{Files, flatten};
use crate::images::{ImageRecord, image_path};
use crate::remove::{Removal, TreeSize, remove_at, tree_size};
use crate::stage::{self, Stage};
use crate::store::{DIRECTORY, Store};

/// The root file system of a container: what to mount where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The container it belongs to.
    pub id: String,
    /// The image below.
    pub image_id: String,
    /// The trees below, the top one first. At least one.
    pub lower: Vec<PathBuf>,
    /// What the container changed.
    pub upper: PathBuf,
    /// The work directory of the mount.
    pub work: PathBuf,
    /// A place to mount it on.
    pub merged: PathBuf,
    /// Bytes of the image.
    pub image_size: u64,
    /// What is made of these.
    pub form: Form,
}

/// What makes one tree of the layers and of what the container writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The kernel's overlay.
    #[default]
    Overlay,
    /// fuse-overlayfs, which leaves marks of its own in the upper directory.
    Fuse {
        /// The program.
        program: PathBuf,
    },
    /// All was copied: `merged` is the tree, and nothing is mounted.
    Copy {
        /// When the copy was whole: what was changed after that, the container changed.
        since: Time,
    },
}

impl Form {
    /// As podman names the driver.
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Overlay | Self::Fuse { .. } => "overlay",
            Self::Copy { .. } => "vfs",
        }
    }
}

/// A time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Since 1970.
    pub seconds: i64,
    /// And these.
    pub nanoseconds: u64,
}

/// Which container uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotUse {
    /// The container.
    pub id: String,
    /// The image.
    pub image_id: String,
}

/// A snapshot that is out of its place. Should this process die, the next [`Store::sweep`]
/// deletes it.
#[derive(Debug)]
#[must_use]
pub struct DetachedSnapshot(Stage);

impl DetachedSnapshot {
    /// Delete it, as far as this process may (see [`Store::remove_snapshot`]).
    pub fn remove(self) -> Removal {
        self.0.remove()
    }
}

/// What is on disk about a snapshot.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) image_id: String,
    /// Diff ids, lowest first.
    pub(crate) layers: Vec<Digest>,
    /// The id map that they were unpacked under.
    pub(crate) key: String,
    image_size: u64,
    #[serde(default)]
    form: Form,
    /// Of the layers in stores of others: in which.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    elsewhere: BTreeMap<Digest, PathBuf>,
}

impl Store {
    /// Make the directories for a container of this image.
    ///
    /// Fails with [`Error::NoSuchImage`] if the image was removed meanwhile, with
    /// [`Error::OtherIds`] if a layer was unpacked under another id map only, with
    /// [`Error::LayerMissing`] if it is gone, and with [`Error::SnapshotExists`].
    pub fn create_snapshot(&self, container_id: &str, image: &ImageRecord) -> Result<Snapshot> {
        let path = snapshot_path(container_id)?;
        // While we have this the image stays, and so do its layers; after that our note counts.
        let _hold = self
            .hold_image(&image.id)?
            .ok_or_else(|| Error::NoSuchImage(image.id.clone()))?;
        let mut elsewhere = BTreeMap::new();
        let mut held = Vec::new();
        for layer in &image.layers {
            let fs = format!("{}/fs", self.layer_path(layer));
            if image.read_only {
                // No image of ours keeps what was taken over for one of others, nor says that it is whole.
                if let Some(hold) = self.hold_own_layer(layer)? {
                    held.push(hold);
                    continue;
                }
            } else if rustix::fs::statat(self.dir(), fs, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                continue;
            }
            if let Some(lender) = self.lender(layer) {
                elsewhere.insert(layer.clone(), lender.root().to_owned());
                continue;
            }
            if self.has_under_other_ids(layer) {
                return Err(Error::OtherIds);
            }
            return Err(match self.elsewhere(layer) {
                Some((other, _)) => Error::OthersLayer {
                    layer: layer.clone(),
                    store: other.root().to_owned(),
                },
                None => Error::LayerMissing(layer.clone()),
            });
        }
        let what = || format!("cannot make {}", self.path(&path).display());
        match rustix::fs::mkdirat(self.dir(), &path, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::SnapshotExists(container_id.to_owned())),
            Err(error) => return Err(Error::io(what(), error)),
        }
        let note = Note {
            image_id: image.id.clone(),
            layers: image.layers.clone(),
            key: self.map_key().to_owned(),
            image_size: image.size,
            form: Form::Overlay,
            elsewhere,
        };
        let filled = self.fill_snapshot(&path, &note, image.root_mode);
        if filled.is_err() {
            // Only this call knows of it.
            drop(Stage::take(self, &path));
        }
        filled.context(what)?;
        drop(held);
        Ok(self.describe(container_id, &path, note))
    }

    /// Copy all that a container has into one tree, for a machine where no overlay can be mounted.
    ///
    /// Call this in a process that is root of a user namespace with the store's id maps. It is not
    /// to be undone: the container stays like that.
    ///
    /// # Errors
    /// What cannot be copied; for want of space more often than elsewhere.
    pub fn flatten_snapshot(&self, container_id: &str) -> Result<Snapshot> {
        let path = snapshot_path(container_id)?;
        let mut note = self.read_note(&path)?.ok_or_else(|| {
            Error::io(
                format!("cannot read {}", self.path(&path).display()),
                Errno::NOENT,
            )
        })?;
        let from = self.describe(container_id, &path, note.clone());
        let what = || format!("cannot make {}", from.merged.display());
        // An attempt that was cut short is begun anew.
        let merged = format!("{path}/merged");
        remove_at(self.dir().as_fd(), merged.as_ref());
        match rustix::fs::mkdirat(self.dir(), &merged, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(what),
        }
        let layers = std::iter::once(&from.upper).chain(&from.lower);
        let owners = self.owners_file(container_id);
        let owners = match owners.exists() {
            true => Some(SideFile::open(&owners).context(what)?),
            false => None,
        };
        flatten(
            layers.map(PathBuf::as_path),
            &from.merged,
            Files::Copied,
            owners,
        )?;
        let stat = rustix::fs::statat(self.dir(), &merged, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.context(what)?;
        note.form = Form::Copy {
            since: Time {
                seconds: stat.st_ctime,
                nanoseconds: stat.st_ctime_nsec,
            },
        };
        let text =
            serde_json::to_vec(&note).map_err(|error| Error::io(what(), io::Error::from(error)))?;
        atomic::write(self, &format!("{path}/{NOTE}"), &text)?;
        Ok(self.describe(container_id, &path, note))
    }

    /// Write down that fuse-overlayfs puts a container's layers together from now on.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn use_fuse(&self, container_id: &str, program: &Path) -> Result<Snapshot> {
        let path = snapshot_path(container_id)?;
        let what = || format!("cannot change {}", self.path(&path).display());
        let note = self.read_note(&path)?;
        let mut note = note.ok_or_else(|| Error::io(what(), Errno::NOENT))?;
        note.form = Form::Fuse {
            program: program.to_owned(),
        };
        let text =
            serde_json::to_vec(&note).map_err(|error| Error::io(what(), io::Error::from(error)))?;
        atomic::write(self, &format!("{path}/{NOTE}"), &text)?;
        Ok(self.describe(container_id, &path, note))
    }

    /// The layers of an image as one tree to look at, where no overlay can be mounted. It is made once, of
    /// hard links, and goes with the image; nobody may write to it.
    ///
    /// Call this in a process that is root of a user namespace with the store's id maps.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; what cannot be read.
    pub fn image_tree(&self, image: &ImageRecord) -> Result<PathBuf> {
        if image.read_only {
            return Err(Error::NoPlaceForTree(image.id.clone()));
        }
        let _lock = self
            .lock_image(&image.id, FlockOperation::LockShared)?
            .ok_or_else(|| Error::NoSuchImage(image.id.clone()))?;
        let path = format!("{}/tree-{}", image_path(&image.id), self.map_key());
        if self.path(&path).is_dir() {
            return Ok(self.path(&path));
        }
        let mut stage = Stage::new(self, "tree")?;
        let target = self.path(stage.name());
        let layers = self.image_trees(&image.layers)?;
        flatten(
            layers.iter().map(PathBuf::as_path),
            &target,
            Files::Linked,
            None,
        )?;
        match stage.publish(&path) {
            Ok(_) | Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(self.path(&path)),
            Err(error) => {
                Err(error).context(|| format!("cannot make {}", self.path(&path).display()))
            }
        }
    }

    pub(crate) fn has_under_other_ids(&self, layer: &Digest) -> bool {
        let keys = std::fs::read_dir(self.path("layers"));
        keys.into_iter()
            .flatten()
            .flatten()
            .any(|key| key.path().join(layer.file_name()).join("fs").is_dir())
    }

    fn fill_snapshot(&self, path: &str, note: &Note, root_mode: Option<u32>) -> io::Result<()> {
        let dir = rustix::fs::openat(self.dir(), path, DIRECTORY, Mode::empty())?;
        atomic::write_new(&dir, NOTE, &serde_json::to_vec(note)?)?;
        // The merged root has the owner, mode and times of this one.
        let mode = Mode::from_raw_mode(root_mode.unwrap_or(0o755) & 0o7777);
        rustix::fs::mkdirat(&dir, "upper", mode)?;
        // Whatever the umask is.
        rustix::fs::chmodat(&dir, "upper", mode, AtFlags::empty())?;
        rustix::fs::mkdirat(&dir, "work", Mode::RWXU)?;
        if let Some(shift) = self.shift() {
            let (uid, gid) = shift.root()?;
            for name in ["upper", "work"] {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::empty())?;
            }
            // Who mounts it need not be who made it; above it is the store, which nobody else can enter.
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o711))?;
        }
        rustix::fs::mkdirat(&dir, "merged", Mode::RWXU)?;
        self.gather_owners(dir.as_fd(), note)?;
        if note.layers.is_empty() {
            // An overlay needs something below.
            rustix::fs::mkdirat(&dir, "empty", Mode::from_raw_mode(0o755))?;
        }
        Ok(())
    }

    /// The snapshot of a container, if it has one.
    ///
    /// # Errors
    /// [`Error::BadSnapshotName`]; when what is noted of it is damaged.
    pub fn snapshot(&self, container_id: &str) -> Result<Option<Snapshot>> {
        let path = snapshot_path(container_id)?;
        let note = self.read_note(&path)?;
        Ok(note.map(|note| self.describe(container_id, &path, note)))
    }

    /// All containers that have a snapshot, and of which image.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn snapshots(&self) -> Result<Vec<SnapshotUse>> {
        Ok(self
            .notes()?
            .into_iter()
            .map(|(id, note)| SnapshotUse {
                id,
                image_id: note.image_id,
            })
            .collect())
    }

    /// Remove the snapshot of a container, which must not be mounted any more.
    ///
    /// It disappears at once and is deleted then. Outside of a user namespace with the
    /// container's id maps files of other owners may remain: then the answer is
    /// [`Removal::Partly`], and [`Store::sweep`] inside of one removes the rest. No error if
    /// there is no such snapshot.
    pub fn remove_snapshot(&self, container_id: &str) -> Result<Removal> {
        Ok(match self.detach_snapshot(container_id)? {
            Some(detached) => detached.remove(),
            None => Removal::Whole,
        })
    }

    /// The first half of [`Store::remove_snapshot`]: it disappears, and is to be deleted when
    /// there is time. `None` if there is no such snapshot.
    ///
    /// # Errors
    /// [`Error::BadSnapshotName`]; when the store cannot be written.
    pub fn detach_snapshot(&self, container_id: &str) -> Result<Option<DetachedSnapshot>> {
        let path = snapshot_path(container_id)?;
        Ok(Stage::take_directory(self, &path)?.map(DetachedSnapshot))
    }

    /// What a container wrote. Walks its upper directory; without the ids of the container's
    /// files, parts of it may be out of sight.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn snapshot_size(&self, container_id: &str) -> Result<TreeSize> {
        let path = snapshot_path(container_id)?;
        let what = || format!("cannot read {}", self.path(&path).display());
        let note = self.read_note(&path)?;
        let note = note.ok_or_else(|| Error::io(what(), Errno::NOENT))?;
        let written = self.written(&self.describe(container_id, &path, note))?;
        let dir =
            rustix::fs::openat(CWD, written.path(), DIRECTORY, Mode::empty()).context(what)?;
        tree_size(&dir).context(what)
    }

    /// The notes of all snapshots. Those that a power cut damaged are left out: their containers
    /// cannot be mounted, and keep nothing.
    pub(crate) fn notes(&self) -> Result<Vec<(String, Note)>> {
        let what = || format!("cannot read {}", self.path("snapshots").display());
        let dir =
            rustix::fs::openat(self.dir(), "snapshots", DIRECTORY, Mode::empty()).context(what)?;
        let mut notes = Vec::new();
        for name in stage::names_in(dir).context(what)? {
            let Ok(id) = name.into_string() else { continue };
            let Ok(path) = snapshot_path(&id) else {
                continue;
            };
            match self.read_note(&path) {
                Ok(Some(note)) => notes.push((id, note)),
                Ok(None) | Err(Error::Damaged { .. }) => {}
                // A file where a folder should be.
                Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {}
                // Its layers may be in use: nobody may take that for a no.
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }

    fn read_note(&self, path: &str) -> Result<Option<Note>> {
        let file = format!("{path}/{NOTE}");
        match atomic::read(self.dir(), &file, atomic::LIMIT) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| Error::damaged(&self.path(&file), error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(
                format!("cannot read {}", self.path(&file).display()),
                error,
            )),
        }
    }

    /// Where the tree of one of its layers is.
    pub(crate) fn tree_of(&self, note: &Note, layer: &Digest) -> PathBuf {
        let root = note
            .elsewhere
            .get(layer)
            .map_or(self.root(), PathBuf::as_path);
        root.join(format!("layers/{}/{}/fs", note.key, layer.file_name()))
    }

    fn describe(&self, id: &str, path: &str, note: Note) -> Snapshot {
        let dir = self.path(path);
        let mut lower: Vec<PathBuf> = note
            .layers
            .iter()
            .rev()
            .map(|layer| self.tree_of(&note, layer))
            .collect();
        if lower.is_empty() {
            lower.push(dir.join("empty"));
        }
        Snapshot {
            id: id.to_owned(),
            image_id: note.image_id,
            lower,
            upper: dir.join("upper"),
            work: dir.join("work"),
            merged: dir.join("merged"),
            image_size: note.image_size,
            form: note.form,
        }
    }
}

const NOTE: &str = "snapshot.json";

/// Only plain names become paths.
fn snapshot_path(id: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.bytes().all(plain) {
        return Err(Error::BadSnapshotName(id.chars().take(200).collect()));
    }
    Ok(format!("snapshots/{id}"))
}
