//! Who the files that a container made or changed belong to, as the container saw it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rcon_sys::owner::{self, FileKey, SideFile, TrueOwner};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::atomic;
use crate::error::{Context, Result};
use crate::snapshots::{Note, Snapshot};
use crate::store::Store;
use crate::unpack::BESIDE;

/// The owners of the files in the upper directory of a snapshot.
///
/// To be asked where the ids of containers are in force: in a worker of theirs.
#[derive(Debug, Default)]
pub struct Owners(SideFile);

impl Store {
    /// The file beside the trees of a container that has the owners of what takes no extended
    /// attributes.
    pub fn owners_file(&self, container_id: &str) -> PathBuf {
        self.path(&format!("snapshots/{container_id}/{BESIDE}"))
    }
}

impl Store {
    /// Give a new snapshot the owners that could not be noted on the files of its layers, lowest first.
    pub(crate) fn gather_owners(&self, snapshot: BorrowedFd<'_>, note: &Note) -> io::Result<()> {
        let mut list = None;
        for layer in &note.layers {
            let path = self.tree_of(note, layer).with_file_name(BESIDE);
            let text = match atomic::read(self.dir(), path, LIST) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let list = match &mut list {
                Some(list) => list,
                none => {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                    let mode = Mode::RUSR | Mode::WUSR;
                    none.insert(File::from(rustix::fs::openat(
                        snapshot, BESIDE, flags, mode,
                    )?))
                }
            };
            list.write_all(&text)?;
        }
        match list {
            Some(mut list) => list.write_all(SideFile::END_OF_LAYERS),
            None => Ok(()),
        }
    }
}

/// The most bytes of the list of a layer.
const LIST: u64 = 64 << 20;

impl Snapshot {
    /// The owners of the files in [`Snapshot::upper`].
    ///
    /// # Errors
    /// When the list of owners cannot be read.
    pub fn owners(&self) -> Result<Owners> {
        let path = self.upper.with_file_name(BESIDE);
        SideFile::read(&path)
            .map(Owners)
            .context(|| format!("cannot read {}", path.display()))
    }
}

impl Owners {
    /// Those of the upper directory of a snapshot.
    pub(crate) fn beside(upper: impl AsFd) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = format!("../{BESIDE}");
        match rustix::fs::openat(upper, path, flags, Mode::empty()) {
            Ok(file) => SideFile::from_file(file.into()).map(Self),
            Err(Errno::NOENT) => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the side file says of `name` in the directory `at`, whose status is `stat`.
    pub(crate) fn beside_of(
        &self,
        at: impl AsFd,
        name: &OsStr,
        stat: &Stat,
    ) -> rustix::io::Result<Option<TrueOwner>> {
        if self.0.is_empty() || (stat.st_uid, stat.st_gid) != (0, 0) {
            return Ok(None);
        }
        let key = FileKey::of(at, name)?.1;
        Ok(key.and_then(|key| self.0.get(&key)))
    }

    /// Owner of `name` in the directory `at` as the container sees it, and the device that it
    /// stands for, if it stands for one; a link is not followed. The mode is the file's own, but
    /// for the type of such a device.
    ///
    /// A note counts while the file belongs to the root of the container, to whom everything
    /// belongs that could not be given to its owner.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn of(&self, at: impl AsFd, name: &OsStr) -> io::Result<TrueOwner> {
        let stat = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let plain = TrueOwner::new(stat.st_uid, stat.st_gid);
        if !plain.is_root() {
            return Ok(plain);
        }
        let noted = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => owner::noted(&at, name)?,
            _ => None,
        };
        if noted.is_some() || self.0.is_empty() {
            return Ok(noted.unwrap_or(plain));
        }
        Ok(self.beside_of(at, name, &stat)?.unwrap_or(plain))
    }
}

#[cfg(test)]
mod tests {
    use rcon_sys::owner::TRUE_OWNER;
    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn notes_count_where_the_owner_is_root() {
        if !rustix::process::geteuid().is_root() {
            return; // The files of this test are root's only if root makes them.
        }
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        std::fs::create_dir(&upper).unwrap();
        for name in ["noted", "plain", "given"] {
            std::fs::write(upper.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("x", upper.join("link")).unwrap();
        let note = TrueOwner::new(33, 34).encode();
        for name in ["noted", "given"] {
            let path = upper.join(name);
            if rustix::fs::setxattr(&path, TRUE_OWNER, &note, XattrFlags::empty()).is_err() {
                return; // No such attributes on this file system.
            }
        }
        std::os::unix::fs::chown(upper.join("given"), Some(7), Some(8)).unwrap();
        let folder = File::open(&upper).unwrap();
        let mut side = SideFile::open(&dir.path().join("owners")).unwrap();
        if let Some(key) = FileKey::of(&folder, "link").unwrap().1 {
            side.set(key, TrueOwner::new(9, 9)).unwrap();
        }
        let owners = Owners(side);
        let of = |name: &str| owners.of(&folder, OsStr::new(name)).unwrap();
        assert_eq!(of("noted"), TrueOwner::new(33, 34));
        assert_eq!(of("plain"), TrueOwner::new(0, 0));
        assert_eq!(of("given"), TrueOwner::new(7, 8));
        assert!([9, 0].contains(&of("link").uid));
    }
}
