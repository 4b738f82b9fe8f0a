//! Walking trees of any depth.
//!
//! A container may nest folders (one `mkdir` and `chdir` after another) deeper than a path can say, a process can have
//! descriptors open and a stack has room. So nothing here builds a path or calls itself: a [`Descent`] has the innermost
//! folders open, and on the way back opens the others again by `..`, which must lead to where it came from.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::{Errno, Result};

/// How many folders above the innermost stay open: no ordinary tree is deeper.
const OPEN: usize = 64;

/// The longest path, in bytes, that the kernel takes (`PATH_MAX` without the zero at its end).
pub const LONGEST_PATH: usize = 4095;

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Which folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// That of an open folder.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn of(folder: impl AsFd) -> Result<Self> {
        let stat = rustix::fs::fstat(folder)?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// Open this folder, in which `inner` is.
    ///
    /// # Errors
    /// `ESTALE` when `inner` has been moved somewhere else; as openat(2).
    pub fn above(self, inner: impl AsFd) -> Result<OwnedFd> {
        let folder = rustix::fs::openat(inner, "..", FOLDER, Mode::empty())?;
        match Self::of(&folder)? == self {
            true => Ok(folder),
            false => Err(Errno::STALE),
        }
    }
}

/// Where one is in a tree, and the way back up.
#[derive(Debug)]
pub struct Descent {
    here: OwnedFd,
    /// The folders above, the innermost at the end.
    open: VecDeque<OwnedFd>,
    /// Those above these.
    closed: Vec<FolderId>,
}

impl Descent {
    /// At the top of a tree.
    pub fn new(top: OwnedFd) -> Self {
        Self {
            here: top,
            open: VecDeque::new(),
            closed: Vec::new(),
        }
    }

    /// The folder one is in.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Go on into `inner`, a folder in the one that one is in.
    ///
    /// # Errors
    /// As fstat(2); then there is no way back.
    pub fn enter(&mut self, inner: OwnedFd) -> Result<()> {
        let above = std::mem::replace(&mut self.here, inner);
        self.open.push_back(above);
        if self.open.len() > OPEN
            && let Some(outer) = self.open.pop_front()
        {
            self.closed.push(FolderId::of(outer)?);
        }
        Ok(())
    }

    /// Go back up; the folder that was left. `None`, and nothing happens, at the top.
    ///
    /// # Errors
    /// `ESTALE` when it has been moved somewhere else meanwhile.
    pub fn leave(&mut self) -> Result<Option<OwnedFd>> {
        let above = match (self.open.pop_back(), self.closed.last()) {
            (Some(above), _) => above,
            (None, Some(id)) => {
                let above = id.above(&self.here)?;
                self.closed.pop();
                above
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(std::mem::replace(&mut self.here, above)))
    }
}

/// Open the folder of that name in `folder`, and not where a link of that name leads.
///
/// # Errors
/// As openat(2).
pub fn open(folder: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    rustix::fs::openat(folder, name, FOLDER, Mode::empty())
}

/// The names in a folder, without `.` and `..`.
///
/// # Errors
/// When it cannot be read.
pub fn names_in(folder: impl AsFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// How a path is shown that may be very long: the beginning of it.
pub fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let text = |path| String::from_utf8_lossy(path).escape_debug().to_string();
    match path.get(..MOST) {
        Some(beginning) if path.len() > LONGEST_PATH => format!("{}…", text(beginning)),
        _ => text(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, mkdirat, unlinkat};

    fn top() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        let top = rustix::fs::open(temp.path(), FOLDER, Mode::empty()).unwrap();
        (temp, top)
    }

    #[test]
    fn the_way_back_is_the_way_down() {
        let (_temp, top) = top();
        let mut way = Descent::new(top);
        let mut ids = Vec::new();
        for _ in 0..3000 {
            ids.push(FolderId::of(way.here()).unwrap());
            mkdirat(way.here(), "d", Mode::RWXU).unwrap();
            let inner = open(way.here(), "d").unwrap();
            way.enter(inner).unwrap();
        }
        assert!(way.open.len() == OPEN && way.closed.len() == 3000 - OPEN);
        while let Some(left) = way.leave().unwrap() {
            assert_eq!(Some(FolderId::of(way.here()).unwrap()), ids.pop());
            assert!(names_in(left).unwrap().is_empty());
            assert_eq!(names_in(way.here()).unwrap(), ["d"]);
            unlinkat(way.here(), "d", AtFlags::REMOVEDIR).unwrap();
        }
        assert!(ids.is_empty());
    }

    #[test]
    fn what_was_moved_leads_nowhere() {
        let (temp, top) = top();
        let mut way = Descent::new(top);
        for _ in 0..OPEN + 2 {
            mkdirat(way.here(), "d", Mode::RWXU).unwrap();
            let inner = open(way.here(), "d").unwrap();
            way.enter(inner).unwrap();
        }
        std::fs::rename(temp.path().join("d/d"), temp.path().join("e")).unwrap();
        let error = loop {
            if let Err(error) = way.leave() {
                break error;
            }
        };
        assert_eq!(error, Errno::STALE);
    }

    #[test]
    fn long_paths_are_cut_for_people() {
        assert_eq!(shown(b"a/\n"), "a/\\n");
        assert!(shown(&[b'a'; 5000]).len() < 300);
    }
}
