//! Removing and measuring trees, however they were made.
//!
//! A container owns what is below its upper directory: names are arbitrary, links lead anywhere,
//! directories may be closed to their owner or nested thousands deep. So nothing here follows a
//! link or builds a path: each directory is opened by its name in the one above, and left as it
//! was entered ([`rcon_sys::folders`]).

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rcon_sys::folders::{self, Descent};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::store::DIRECTORY;

/// How often a directory is read anew that is not empty after everything in it was deleted: some
/// file systems skip names while others go.
const PASSES: usize = 4;

/// What became of a tree that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is left of it.
    Whole,
    /// Something could not be deleted, for want of the ids it belongs to, or because it is a
    /// mount.
    Partly,
}

/// Remove the tree at `path`, or the file; [`Removal::Whole`] if there is nothing.
///
/// Never follows a symbolic link, except in the directories that lead to `path`. Closed
/// directories are opened first as far as the caller's rights go.
pub fn remove_tree(path: &Path) -> Removal {
    remove_at(CWD, path.as_os_str())
}

/// The same, relative to a directory.
pub fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> Removal {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Removal::Whole,
        Err(_) => {}
    }
    let Ok(name) = CString::new(name.as_bytes()) else {
        return Removal::Whole;
    };
    let Some(top) = enter(parent, &name) else {
        return Removal::Partly;
    };
    let mut levels = vec![Level::empty(&top, name, 0)];
    let mut way = Descent::new(top);
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.inner.pop() {
            match enter(way.here(), &name) {
                Some(inner) => {
                    levels.push(Level::empty(&inner, name, 0));
                    if way.enter(inner).is_err() {
                        break;
                    }
                }
                None => level.done = false,
            }
            continue;
        }
        let (Some(level), Ok(left)) = (levels.pop(), leave(&mut way)) else {
            break;
        };
        let is_top = left.is_none();
        let at = if is_top { parent } else { way.here() };
        let remove = || rustix::fs::unlinkat(at, &*level.name, AtFlags::REMOVEDIR);
        let mut removed = remove();
        if !is_top && matches!(removed, Err(Errno::ACCESS | Errno::PERM)) {
            // The directory that it is in may not be writable to its owner.
            removed = rustix::fs::fchmod(at, Mode::RWXU).and_then(|()| remove());
        }
        let gone = match removed {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.done && level.passes < PASSES => {
                if let Some(again) = enter(at, &level.name) {
                    levels.push(Level::empty(&again, level.name, level.passes + 1));
                    if is_top {
                        way = Descent::new(again);
                    } else if way.enter(again).is_err() {
                        break;
                    }
                    continue;
                }
                false
            }
            Err(_) => false,
        };
        match levels.last_mut() {
            Some(above) => above.done &= gone,
            None if gone => return Removal::Whole,
            None => {}
        }
    }
    Removal::Partly
}

/// A directory on the way down, in which nothing is left but directories with something in them.
struct Level {
    name: CString,
    /// Those that were not entered yet.
    inner: Vec<CString>,
    /// All that was seen in it could be deleted.
    done: bool,
    passes: usize,
}

impl Level {
    /// Delete in `dir` what is no directory with something in it.
    fn empty(dir: &OwnedFd, name: CString, passes: usize) -> Self {
        let mut level = Self {
            name,
            inner: Vec::new(),
            done: true,
            passes,
        };
        let mut opened_up = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else {
                level.done = false;
                break;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let mut is_dir = entry.file_type() == FileType::Directory;
            let mut removed = remove_entry(dir, name, &mut is_dir);
            if removed.is_err() && !opened_up {
                // The directory itself may not be writable to its owner.
                opened_up = true;
                if rustix::fs::fchmod(dir, Mode::RWXU).is_ok() {
                    removed = remove_entry(dir, name, &mut is_dir);
                }
            }
            match removed {
                Ok(true) => {}
                Ok(false) => level.inner.push(name.to_owned()),
                // What is in it may go.
                Err(_) if is_dir => level.inner.push(name.to_owned()),
                Err(_) => level.done = false,
            }
        }
        level
    }
}

/// Whether it is gone, or a directory with something in it.
fn remove_entry(dir: &OwnedFd, name: &CStr, is_dir: &mut bool) -> rustix::io::Result<bool> {
    if !*is_dir {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            // A file system that does not tell kinds.
            Err(Errno::ISDIR) => *is_dir = true,
            Err(error) => return Err(error),
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Back up, also out of a directory that is closed to its owner.
fn leave(way: &mut Descent) -> rustix::io::Result<Option<OwnedFd>> {
    match way.leave() {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(way.here(), Mode::RWXU)?;
            way.leave()
        }
        left => left,
    }
}

/// Open a directory, after giving its owner the rights to work in it if need be.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => Some(dir),
        Err(Errno::ACCESS) => {
            // By descriptor, so that no link is followed whatever happens meanwhile.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(parent, name, flags, Mode::empty()).ok()?;
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::fs::chmod(path, Mode::RWXU).ok()?;
            rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).ok()
        }
        Err(_) => None,
    }
}

/// How much is in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Bytes of all regular files, each file once however many names it has.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
    /// Directories that could not be read are missing in the above.
    pub partial: bool,
}

/// Measure the tree below a directory. Other file systems mounted in it are not entered.
///
/// # Errors
/// When a directory cannot be read.
pub fn tree_size(dir: impl AsFd) -> io::Result<TreeSize> {
    let top = folders::open(dir, ".")?;
    let mut measure = Measure {
        device: rustix::fs::fstat(&top)?.st_dev,
        linked: HashSet::new(),
        size: TreeSize::default(),
    };
    let mut unseen = vec![measure.folder(&top)?];
    let mut way = Descent::new(top);
    while let Some(names) = unseen.last_mut() {
        match names.pop().map(|name| folders::open(way.here(), name)) {
            Some(Ok(inner)) => {
                unseen.push(measure.folder(&inner)?);
                way.enter(inner)?;
            }
            Some(Err(_)) => measure.size.partial = true,
            None => {
                unseen.pop();
                if way.leave().is_err() {
                    // Moved meanwhile, and the rest is out of reach.
                    measure.size.partial = true;
                    break;
                }
            }
        }
    }
    Ok(measure.size)
}

struct Measure {
    device: u64,
    /// Files with several names that have been counted.
    linked: HashSet<u64>,
    size: TreeSize,
}

impl Measure {
    /// Count what is in a directory; the directories in it.
    fn folder(&mut self, dir: &OwnedFd) -> io::Result<Vec<CString>> {
        let mut inner = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if stat.st_dev != self.device {
                continue;
            }
            self.size.entries += 1;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile if stat.st_nlink == 1 || self.linked.insert(stat.st_ino) => {
                    self.size.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                FileType::Directory => inner.push(name.to_owned()),
                _ => {}
            }
        }
        Ok(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_are_removed_and_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink("/", tree.join("root")).unwrap();
        fs::hard_link(outside.join("file"), tree.join("a/b/hard")).unwrap();
        assert_eq!(remove_tree(&tree), Removal::Whole);
        assert!(!tree.exists() && outside.join("file").exists());
        assert_eq!(remove_tree(&tree), Removal::Whole);
        symlink(&outside, &tree).unwrap();
        assert_eq!(remove_tree(&tree), Removal::Whole);
        assert!(outside.join("file").exists());
    }

    #[test]
    fn closed_directories_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        for (path, mode) in [("a/b/c", 0), ("a/b", 0o500), ("a", 0)] {
            fs::set_permissions(tree.join(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        assert_eq!(remove_tree(&tree), Removal::Whole);
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut dir = fs::File::open(&tree).unwrap().into();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = rustix::fs::openat(&dir, "d", DIRECTORY, Mode::empty()).unwrap();
            rustix::fs::openat(&dir, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        }
        let size = tree_size(fs::File::open(&tree).unwrap()).unwrap();
        assert_eq!((size.entries, size.partial), (6000, false));
        assert_eq!(remove_tree(&tree), Removal::Whole);
        assert!(!tree.exists());
    }

    #[test]
    fn deep_directories_may_be_closed() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut dirs: Vec<OwnedFd> = vec![fs::File::open(&tree).unwrap().into()];
        for _ in 0..200 {
            let last = dirs.last().unwrap();
            rustix::fs::mkdirat(last, "d", Mode::RWXU).unwrap();
            dirs.push(rustix::fs::openat(last, "d", DIRECTORY, Mode::empty()).unwrap());
        }
        for (number, dir) in dirs.iter().enumerate().rev() {
            let mode = [Mode::empty(), Mode::RUSR, Mode::RUSR | Mode::XUSR][number % 3];
            rustix::fs::fchmod(dir, mode).unwrap();
        }
        drop(dirs);
        assert_eq!(remove_tree(&tree), Removal::Whole);
        assert!(!tree.exists());
    }

    #[test]
    fn many_entries_and_sizes() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        for n in 0..1500 {
            fs::write(tree.join("sub").join(format!("file-{n}")), "abc").unwrap();
        }
        fs::hard_link(tree.join("sub/file-0"), tree.join("again")).unwrap();
        let size = tree_size(fs::File::open(&tree).unwrap()).unwrap();
        assert_eq!(
            size,
            TreeSize {
                bytes: 4500,
                entries: 1502,
                partial: false
            }
        );
        assert_eq!(remove_tree(&tree), Removal::Whole);
    }
}
