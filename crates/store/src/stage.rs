//! Where things are made before they are visible, and where they go to be removed.
//!
//! Everything in `tmp/` is locked by flock(2) as long as somebody works on it. The kernel gives
//! the lock back when that process dies, however it dies; so whoever gets the lock of something
//! in `tmp/` may remove it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(crate) use rcon_sys::folders::names_in;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::atomic::unique;
use crate::error::{Context, Error, Result};
use crate::remove::{self, Removal};
use crate::store::{DIRECTORY, Store};

/// A directory in `tmp/` that goes away with this object unless it was published.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Its own copy: a stage outlives the borrow of the store.
    root: OwnedFd,
    name: String,
    dir: OwnedFd,
    armed: bool,
}

impl Stage {
    /// A new, empty directory.
    pub(crate) fn new(store: &Store, kind: &str) -> Result<Self> {
        let what = || format!("cannot make a folder in {}", store.path("tmp").display());
        let root = rustix::io::fcntl_dupfd_cloexec(store.dir(), 0).context(what)?;
        loop {
            let name = format!("tmp/{kind}-{}", unique());
            match rustix::fs::mkdirat(&root, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(Error::io(what(), error)),
            }
            // Between these calls it looks abandoned, and a sweep may take it: then another.
            let dir = match rustix::fs::openat(&root, &name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => other.context(what)?,
            };
            lock(&dir, FlockOperation::LockExclusive).context(what)?;
            if is_at(&root, &name, &dir) {
                return Ok(Self {
                    root,
                    name,
                    dir,
                    armed: true,
                });
            }
        }
    }

    /// Take something out of its place: it disappears at once, and is then ours to remove.
    ///
    /// `None` if there is nothing.
    pub(crate) fn take(store: &Store, path: &str) -> Result<Option<Self>> {
        let stage = Self::new(store, "gone")?;
        let inside = format!("{}/it", stage.name);
        match rustix::fs::renameat(store.dir(), path, store.dir(), &inside) {
            Ok(()) => Ok(Some(stage)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(
                format!("cannot remove {}", store.path(path).display()),
                error,
            )),
        }
    }

    /// The same for a directory that nobody locks, which needs no other around it.
    pub(crate) fn take_directory(store: &Store, path: &str) -> Result<Option<Self>> {
        let what = || format!("cannot remove {}", store.path(path).display());
        let root = rustix::io::fcntl_dupfd_cloexec(store.dir(), 0).context(what)?;
        let name = format!("tmp/gone-{}", unique());
        match rustix::fs::renameat(&root, path, &root, &name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::io(what(), error)),
        }
        // Until it is locked it looks abandoned, and a sweep may have removed it.
        let dir = match rustix::fs::openat(&root, &name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.context(what)?,
        };
        lock(&dir, FlockOperation::LockExclusive).context(what)?;
        Ok(Some(Self {
            root,
            name,
            dir,
            armed: true,
        }))
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its path in the store.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Move it to its place and give the lock (still exclusive) to the caller.
    ///
    /// Fails with `EEXIST` or `ENOTEMPTY`, and stays, if something is there already.
    pub(crate) fn publish(&mut self, path: &str) -> rustix::io::Result<OwnedFd> {
        // A non-empty directory is never replaced by rename(2).
        rustix::fs::renameat(&self.root, &self.name, &self.root, path)?;
        self.armed = false;
        rustix::io::fcntl_dupfd_cloexec(&self.dir, 0)
    }

    /// Remove it now.
    pub(crate) fn remove(mut self) -> Removal {
        self.armed = false;
        remove::remove_at(self.root.as_fd(), self.name.as_ref())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.armed {
            // What cannot be removed now, the next sweep removes.
            remove::remove_at(self.root.as_fd(), self.name.as_ref());
        }
    }
}

pub(crate) fn lock_file(file: &File) -> io::Result<()> {
    Ok(lock(file, FlockOperation::LockExclusive)?)
}

/// flock(2), which some network file systems do not have: there it protects nothing, and rcon
/// works like a program without locks.
pub(crate) fn lock(fd: impl AsFd, operation: FlockOperation) -> rustix::io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::fs::flock(fd.as_fd(), operation)) {
        Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS | Errno::BADF) => Ok(()),
        other => other,
    }
}

/// What kind of thing is at `path`.
pub(crate) fn kind_at(
    root: impl AsFd,
    path: impl AsRef<Path>,
) -> rustix::io::Result<rustix::fs::FileType> {
    let stat = rustix::fs::statat(root, path.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode))
}

/// Whether `fd` is what `path` leads to.
pub(crate) fn is_at(root: impl AsFd, path: &str, fd: impl AsFd) -> bool {
    let there = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW);
    let here = rustix::fs::fstat(fd);
    matches!((there, here), (Ok(there), Ok(here))
        if there.st_ino == here.st_ino && there.st_dev == here.st_dev)
}

/// Remove everything in `tmp/` that nobody works on.
pub(crate) fn sweep(store: &Store) {
    store.remove_old_partials();
    let Ok(tmp) = rustix::fs::openat(store.dir(), "tmp", DIRECTORY, Mode::empty()) else {
        return;
    };
    let Ok(names) = names_in(&tmp) else { return };
    for name in names {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(&tmp, &name, flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove::remove_at(tmp.as_fd(), &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcon_sys::ids::IdMaps;

    #[test]
    fn the_dead_are_swept_and_the_living_are_not() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let tmp = temp.path().join("tmp");
        std::fs::create_dir_all(tmp.join("stage-dead/a/b")).unwrap();
        std::fs::write(tmp.join("file-dead"), "x").unwrap();
        let live = Stage::new(&store, "stage").unwrap();
        store.sweep();
        let left = names_in(rustix::fs::open(&tmp, DIRECTORY, Mode::empty()).unwrap()).unwrap();
        assert_eq!(left, [live.name.trim_start_matches("tmp/")]);
        drop(live);
        assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
    }

    #[test]
    fn publishing_never_replaces() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let mut one = Stage::new(&store, "a").unwrap();
        crate::atomic::write_new(one.dir(), "file", b"1").unwrap();
        one.publish("images/x").unwrap();
        drop(one);
        let mut two = Stage::new(&store, "a").unwrap();
        crate::atomic::write_new(two.dir(), "file", b"2").unwrap();
        assert!(two.publish("images/x").is_err());
        drop(two);
        assert_eq!(
            std::fs::read(temp.path().join("images/x/file")).unwrap(),
            b"1"
        );
        assert_eq!(
            std::fs::read_dir(temp.path().join("tmp")).unwrap().count(),
            0
        );
    }
}
