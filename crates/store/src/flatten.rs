//! Where no overlay can be mounted: the layers of an image copied into one tree.
//!
//! It costs time and space for each container, less where the file system shares the blocks of copies
//! (`FICLONE`), but it works on whatever keeps files. Trees that nobody writes to are made of hard
//! links, which cost next to nothing.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rcon_sys::folders::{Descent, LONGEST_PATH, shown};
use rcon_sys::owner::{FileKey, SideFile, TRUE_OWNER};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::layered::{Layered, LayeredDescent, Seen};
use crate::pack::attributes;
use crate::store::DIRECTORY;
use crate::unpack::is_allowed;

/// How files get into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// As files of their own.
    Copied,
    /// As further names of the layers' files: the tree must not be written to.
    Linked,
}

/// Put what `layers` (the top one first) show together into the directory `target`, which is empty.
///
/// What `owners` has of their files it gets of the copies too.
///
/// Call this in a process that is root of a user namespace with the ids of the files' owners.
pub(crate) fn flatten<'a>(
    layers: impl IntoIterator<Item = &'a Path>,
    target: &Path,
    files: Files,
    owners: Option<SideFile>,
) -> Result<()> {
    let what = || format!("cannot make {}", target.display());
    raise_limit();
    let layers = Layered::open(layers).context(|| "cannot open the layers")?;
    let root = rustix::fs::openat(CWD, target, DIRECTORY, Mode::empty()).context(what)?;
    let mut copy = Copy {
        root: root.try_clone().context(what)?,
        files,
        clones: true,
        linked: HashMap::new(),
        path: Vec::new(),
        owners,
    };
    copy.all(layers, root)
}

/// Some descriptors for each layer are open at once.
fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // Where it cannot be raised, most trees still are not that deep.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: now.maximum,
            ..now
        },
    );
}

struct Copy {
    root: OwnedFd,
    files: Files,
    /// Blocks can be shared here, as far as is known.
    clones: bool,
    /// Files with several names, and where the first one is.
    linked: HashMap<(u64, u64), Vec<u8>>,
    path: Vec<u8>,
    /// The list of owners that are not on the files themselves.
    owners: Option<SideFile>,
}

/// A directory on the way down.
struct Level {
    names: std::vec::IntoIter<OsString>,
    /// How much of the path is its own.
    path: usize,
    /// What it gets in the end.
    stat: Option<Stat>,
}

impl Copy {
    /// Have the copy of something belong to whom it belongs to.
    fn carry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let Some(owners) = &mut self.owners else {
            return Ok(());
        };
        let mut carried = || -> std::io::Result<()> {
            let (Some(old), Some(new)) = (FileKey::of(from, name)?.1, FileKey::of(to, name)?.1)
            else {
                return Ok(());
            };
            match owners.get(&old) {
                Some(owner) => owners.set(new, owner),
                None => Ok(()),
            }
        };
        carried().context(|| format!("cannot note the owner of {}", name.display()))
    }

    fn failed(&self, error: Errno) -> Error {
        Error::io(format!("cannot copy /{}", shown(&self.path)), error)
    }

    fn all(&mut self, layers: Layered, root: OwnedFd) -> Result<()> {
        let mut levels = vec![self.level(&layers, layers.top().map(rustix::fs::fstat))?];
        let (mut from, mut to) = (LayeredDescent::new(layers), Descent::new(root));
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            if let Some(name) = level.names.next() {
                if level.path > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(name.as_bytes());
                let seen = from
                    .here()
                    .find(&name)
                    .map_err(|error| self.failed(error))?;
                let Some(seen) = seen else { continue };
                if seen.kind() != FileType::Directory {
                    self.entry(&seen, to.here(), &name)?;
                    continue;
                }
                let (inner, made) = self.dir(from.here(), &seen, to.here(), &name)?;
                levels.push(self.level(&inner, Some(Ok(seen.stat)))?);
                let entered = from.enter(inner).and_then(|()| to.enter(made));
                entered.map_err(|error| self.failed(error))?;
                continue;
            }
            let stat = level.stat;
            levels.pop();
            let left = from.leave().and_then(|inner| Ok((inner, to.leave()?)));
            let (inner, made) = left.map_err(|error| self.failed(error))?;
            // At the root nothing is left.
            let inner = inner.as_ref().unwrap_or(from.here());
            let made = made.as_ref().map_or(to.here(), AsFd::as_fd);
            if let Some(stat) = stat {
                let top = inner.top().unwrap_or(made);
                finish(top, made, &stat).map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    /// A directory of which nothing is copied yet, and what its status is.
    fn level(&self, from: &Layered, stat: Option<rustix::io::Result<Stat>>) -> Result<Level> {
        let names = from.names().map_err(|error| self.failed(error))?;
        Ok(Level {
            names: names.into_iter(),
            path: self.path.len(),
            stat: stat.transpose().map_err(|error| self.failed(error))?,
        })
    }

    /// A directory of the layers, and the one that is made of it.
    fn dir(
        &mut self,
        from: &Layered,
        seen: &Seen<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(Layered, OwnedFd)> {
        let inner = from.enter(name).map_err(|error| self.failed(error))?;
        let made = rustix::fs::mkdirat(to, name, Mode::RWXU)
            .and_then(|()| rustix::fs::openat(to, name, DIRECTORY, Mode::empty()))
            .map_err(|error| self.failed(error))?;
        self.carry(seen.dir, to, name)?;
        Ok((inner, made))
    }

    fn entry(&mut self, seen: &Seen<'_>, to: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let stat = &seen.stat;
        if self.link(seen, to, name).map_err(|e| self.failed(e))? {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match seen.kind() {
            FileType::RegularFile => self.file(seen, to, name),
            FileType::Symlink => rustix::fs::readlinkat(seen.dir, name, Vec::new())
                .and_then(|target| rustix::fs::symlinkat(&*target, to, name))
                .and_then(|()| finish_at(to, name, stat)),
            FileType::Fifo => rustix::fs::mknodat(to, name, FileType::Fifo, mode, 0)
                .and_then(|()| rustix::fs::chmodat(to, name, mode, AtFlags::empty()))
                .and_then(|()| finish_at(to, name, stat)),
            // Layers have no others.
            _ => return Ok(()),
        }
        .map_err(|error| self.failed(error))?;
        self.carry(seen.dir, to, name)
    }

    /// Make a hard link, of a name that was copied before or of the layer's own file; whether that did.
    fn link(
        &mut self,
        seen: &Seen<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
    ) -> rustix::io::Result<bool> {
        let stat = &seen.stat;
        if self.files == Files::Linked {
            return match rustix::fs::linkat(seen.dir, name, to, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // It has as many names as it can have; or there are no hard links here, or none from another store.
                Err(Errno::MLINK | Errno::PERM | Errno::NOTSUP | Errno::XDEV) => Ok(false),
                Err(error) => Err(error),
            };
        }
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.linked.get(&key) else {
            // What no path leads to cannot be found again, and a later name becomes a file of its own.
            if self.path.len() <= LONGEST_PATH {
                self.linked.insert(key, self.path.clone());
            }
            return Ok(false);
        };
        let (dir, last) = match first.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&first[..at], &first[at + 1..]),
            None => (&b"."[..], &first[..]),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let dir = rustix::fs::openat2(&self.root, dir, flags, Mode::empty(), resolve)?;
        rustix::fs::linkat(dir, last, to, name, AtFlags::empty())?;
        Ok(true)
    }

    fn file(
        &mut self,
        seen: &Seen<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
    ) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(seen.dir, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let new = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(seen.stat.st_size).unwrap_or(0);
        if size > 0 {
            self.clones = self.clones && rustix::fs::ioctl_ficlone(&new, &file).is_ok();
            if !self.clones {
                copy_data(&file, &new, size)?;
            }
        }
        finish(file.as_fd(), new.as_fd(), &seen.stat)
    }
}

/// Copy what is in a file; its holes stay holes.
fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> rustix::io::Result<()> {
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin)).unwrap_or(size);
        copy_range(from, to, begin, end.min(size))?;
        at = end.max(begin + 1);
    }
    rustix::fs::ftruncate(to, size)
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, begin: u64, end: u64) -> rustix::io::Result<()> {
    let (mut source, mut target) = (begin, begin);
    while source < end {
        let want = usize::try_from(end - source).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), want) {
            // It became shorter.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                let mut buffer = vec![0; want.min(128 * 1024)];
                let count = rustix::io::pread(from, &mut buffer[..], source)?;
                if count == 0 {
                    return Ok(());
                }
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    let written = rustix::io::pwrite(to, rest, target)?;
                    rest = &rest[written..];
                    target += written as u64;
                }
                source = target;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Give `to` the owner, the attributes, the mode and the times of `from`, whose status is `stat`.
pub(crate) fn finish(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    if (stat.st_uid, stat.st_gid) != (0, 0) {
        rustix::fs::fchown(to, Some(uid), Some(gid))?;
    }
    for (name, value) in attributes(from)? {
        if !is_allowed(&name) && name != TRUE_OWNER.as_bytes() {
            continue;
        }
        match rustix::fs::fsetxattr(to, OsStr::from_bytes(&name), &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(stat))
}

fn finish_at(to: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> rustix::io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    if (stat.st_uid, stat.st_gid) != (0, 0) {
        rustix::fs::chownat(to, name, Some(uid), Some(gid), flags)?;
    }
    rustix::fs::utimensat(to, name, &times(stat), flags)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
