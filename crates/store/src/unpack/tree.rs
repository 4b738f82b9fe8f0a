//! The tree that is being written: finding directories in it, and giving them their times.
//!
//! Directories are opened by openat2(2) with `RESOLVE_IN_ROOT`: a link in the middle of a name is
//! followed as a program in the container would follow it, and cannot lead out. The last part of
//! a name is never handed to anything that follows links.
//!
//! Times of directories change with what is made in them, so they are set at the end. They are
//! remembered up to a limit; beyond it what is known is set early and, if a directory is used
//! again, read back from it first.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::name::split_last;
use super::pax::Time;
use super::{attributes, shown, whiteout};
use crate::error::{Error, Result};
use crate::remove::{self, Removal};

/// Directories that are kept open.
const OPEN: usize = 32;

/// Longer names are resolved in pieces, below what the kernel takes at once.
const PATH_LIMIT: usize = 4000;

/// Bytes that remembered directories may take, roughly.
const REMEMBERED: usize = 16 << 20;

/// Mode of directories that the archive does not mention.
const IMPLIED: u32 = 0o755;

/// A directory handle for making things in; it cannot be read.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What a directory gets in the end.
#[derive(Clone, Copy, Debug)]
struct Finish {
    mtime: Time,
    /// Set if it has another mode until then.
    mode: Option<u32>,
}

/// A tree that is being written.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The last used ones, the latest at the end.
    open: Vec<(Vec<u8>, Rc<OwnedFd>)>,
    unfinished: BTreeMap<Vec<u8>, Finish>,
    remembered: usize,
    limit: usize,
    /// Some directories have their times already.
    finished_some: bool,
    /// Something was removed for the sake of something else.
    cleared: bool,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            open: Vec::new(),
            unfinished: BTreeMap::new(),
            remembered: 0,
            limit: REMEMBERED,
            finished_some: false,
            cleared: false,
        }
    }

    /// With another limit of memory, for tests.
    #[cfg(test)]
    pub(super) fn with_limit(root: BorrowedFd<'a>, limit: usize) -> Self {
        Self {
            limit,
            ..Self::new(root)
        }
    }

    /// The root of the layer, open for reading.
    pub(super) fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// A directory to make something in; those that are missing on the way are made.
    pub(super) fn parent(&mut self, dir: &[u8]) -> Result<Rc<OwnedFd>> {
        let fd = match self.find(dir) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_missing(dir)?;
                self.find(dir)
            }
            other => other,
        };
        let fd = fd.map_err(|error| unresolved(dir, error))?;
        self.touch(dir, &fd)?;
        Ok(fd)
    }

    /// A directory that must be there.
    pub(super) fn existing(&mut self, dir: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        self.find(dir)
    }

    /// Remove what is in the way of a new entry.
    pub(super) fn clear_way(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        self.cleared = true;
        // Names may lead through it, and directories wait for their times in it.
        self.open.clear();
        self.forget(path);
        match remove::remove_at(parent.as_fd(), attributes::os(name)) {
            Removal::Whole => Ok(()),
            Removal::Partly => Err(super::bad(path, "what it replaces cannot be removed")),
        }
    }

    /// Whether something in the archive replaced something else.
    pub(super) fn cleared(&self) -> bool {
        self.cleared
    }

    /// Let a directory have this time, and perhaps this mode, when all is done.
    pub(super) fn finish_later(
        &mut self,
        path: &[u8],
        mtime: Time,
        mode: Option<u32>,
    ) -> Result<()> {
        self.remember(path, Finish { mtime, mode });
        if self.remembered > self.limit {
            self.finish()?;
            self.open.clear();
            self.finished_some = true;
        }
        Ok(())
    }

    /// Give all directories their modes and times.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.remembered = 0;
        // From the last to the first neighbours share a parent, and what is inside comes before what closes it.
        for (path, finish) in std::mem::take(&mut self.unfinished).into_iter().rev() {
            let failed = |error: Errno| {
                Error::io(format!("cannot finish directory {}", shown(&path)), error)
            };
            if path.is_empty() {
                attributes::times_of(self.root, finish.mtime).map_err(failed)?;
                if let Some(mode) = finish.mode {
                    rustix::fs::fchmod(self.root, Mode::from_raw_mode(mode)).map_err(failed)?;
                }
                continue;
            }
            let (dir, name) = split_last(&path);
            let parent = self.find(dir).map_err(failed)?;
            attributes::times_at(&parent, name, finish.mtime).map_err(failed)?;
            if let Some(mode) = finish.mode {
                attributes::mode_of_dir(&parent, name, mode).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn remember(&mut self, path: &[u8], finish: Finish) {
        self.unfinished.insert(path.to_vec(), finish);
        self.remembered += path.len() + 120;
    }

    /// A directory is gone, with all below it. Only these are looked at, however many there are: an archive may replace
    /// something in every entry.
    fn forget(&mut self, path: &[u8]) {
        self.unfinished.remove(path);
        let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below = self
            .unfinished
            .range(first..end)
            .map(|(path, _)| path.clone());
        for path in below.collect::<Vec<_>>() {
            self.unfinished.remove(&path);
        }
    }

    /// A directory is about to change that may have its times already.
    fn touch(&mut self, path: &[u8], fd: &OwnedFd) -> Result<()> {
        if !self.finished_some || self.unfinished.contains_key(path) {
            return Ok(());
        }
        let stat = rustix::fs::fstat(fd).map_err(|error| unresolved(path, error))?;
        let mtime = Time {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        };
        self.remember(path, Finish { mtime, mode: None });
        Ok(())
    }

    /// Open a directory, or take one that is open already.
    fn find(&mut self, dir: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if let Some(at) = self.open.iter().rposition(|(path, _)| path == dir) {
            let found = self.open.remove(at);
            let fd = Rc::clone(&found.1);
            self.open.push(found);
            return Ok(fd);
        }
        let fd = Rc::new(self.resolve(dir)?);
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push((dir.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn resolve(&self, dir: &[u8]) -> rustix::io::Result<OwnedFd> {
        if dir.len() > PATH_LIMIT {
            return self.walk(dir);
        }
        let path = if dir.is_empty() { b"." } else { dir };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(self.root, path, HANDLE, Mode::empty(), how) {
                // A rename somewhere on the machine raced with `..` in a link.
                Err(Errno::AGAIN | Errno::INTR) => {}
                // A sandbox from before this call existed.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(dir),
                other => return other,
            }
        }
    }

    /// Open a directory part by part, following no links at all.
    fn walk(&self, dir: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = HANDLE | OFlags::NOFOLLOW;
        let mut at = rustix::fs::openat(self.root, ".", flags, Mode::empty())?;
        for part in dir
            .split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty())
        {
            at = rustix::fs::openat(&at, part, flags, Mode::empty())?;
        }
        Ok(at)
    }

    /// Make the directories of `dir` that are not there.
    fn make_missing(&mut self, dir: &[u8]) -> Result<()> {
        let ends = (0..dir.len())
            .filter(|&at| dir[at] == b'/')
            .chain([dir.len()]);
        let mut parent = self.find(b"").map_err(|error| unresolved(dir, error))?;
        for end in ends {
            let path = &dir[..end];
            let (_, name) = split_last(path);
            match self.step(&parent, path, name) {
                Ok(fd) => parent = fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    // A whiteout in its place: it is new in this layer, and hides what was below.
                    let fresh = whiteout::is_one(&parent, name);
                    if fresh {
                        self.clear_way(&parent, name, path)?;
                    }
                    rustix::fs::mkdirat(&*parent, name, Mode::from_raw_mode(IMPLIED)).map_err(
                        |error| match error {
                            Errno::EXIST => {
                                super::bad(path, "it is used as a directory, but is none")
                            }
                            _ => Error::io(format!("cannot make directory {}", shown(path)), error),
                        },
                    )?;
                    attributes::mode_of_dir(&parent, name, IMPLIED)
                        .map_err(|error| unresolved(path, error))?;
                    parent = self
                        .step(&parent, path, name)
                        .map_err(|error| unresolved(path, error))?;
                    if fresh {
                        whiteout::make_opaque(&parent)
                            .map_err(|error| whiteout::refused(path, error))?;
                    }
                }
                Err(error) => return Err(unresolved(path, error)),
            }
        }
        Ok(())
    }

    /// One step down from a directory to `path`, which has this name in it: one call where that
    /// is a directory, from the root where it is a link.
    fn step(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        name: &[u8],
    ) -> rustix::io::Result<Rc<OwnedFd>> {
        let flags = HANDLE | OFlags::NOFOLLOW;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Rc::new(fd)),
            Err(Errno::LOOP | Errno::NOTDIR) => self.find(path),
            Err(error) => Err(error),
        }
    }

    /// What is there under a name, links not followed.
    pub(super) fn kind_of(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<FileType> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }
}

fn unresolved(dir: &[u8], error: Errno) -> Error {
    match error {
        Errno::LOOP => super::bad(dir, "links in its name lead in a circle"),
        Errno::NOTDIR => super::bad(dir, "a part of its name is not a directory"),
        Errno::XDEV => super::bad(dir, "its name leads out of the layer"),
        _ => Error::io(format!("cannot open directory {}", shown(dir)), error),
    }
}
