//! Removing and measuring trees, however they were made.
//!
//! A container owns what is below its upper directory: names are arbitrary, links lead anywhere,
//! directories may be closed to their owner or nested thousands deep. So nothing here follows a
//! link or builds a path: each directory is opened by its name in the one above, and what lies
//! too deep is first moved up to the top. Memory and descriptors stay bounded.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::store::DIRECTORY;

/// How deep a directory is worked on where it is.
const DEPTH: usize = 64;

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
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> Removal {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Removal::Whole,
        Err(_) => {}
    }
    let Ok(name) = CString::new(name.as_bytes()) else {
        return Removal::Whole;
    };
    let Some(dir) = enter(parent, &name) else {
        return Removal::Partly;
    };
    let mut top = Top { fd: &dir, moved: 0 };
    let mut passes = 0;
    loop {
        top.moved = 0;
        let done = empty(&mut top, &dir, 0);
        match rustix::fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Removal::Whole,
            // What was moved up is there now, with less below it.
            Err(Errno::NOTEMPTY | Errno::EXIST) if top.moved > 0 => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if done && passes < PASSES => passes += 1,
            Err(_) => return Removal::Partly,
        }
    }
}

/// Where directories go that lie too deep.
struct Top<'a> {
    fd: &'a OwnedFd,
    moved: u64,
}

/// Delete all that can be deleted in a directory; whether that was everything seen.
fn empty(top: &mut Top<'_>, dir: &OwnedFd, depth: usize) -> bool {
    if rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)).is_err() {
        return false;
    }
    let (mut opened_up, mut done) = (false, true);
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_dir = entry.file_type() == FileType::Directory;
        let mut removed = remove_entry(top, dir, name, is_dir, depth);
        if !removed && !opened_up {
            // The directory itself may not be writable to its owner.
            opened_up = true;
            if rustix::fs::fchmod(dir, Mode::RWXU).is_ok() {
                removed = remove_entry(top, dir, name, is_dir, depth);
            }
        }
        done &= removed;
    }
    done
}

fn remove_entry(top: &mut Top<'_>, dir: &OwnedFd, name: &CStr, is_dir: bool, depth: usize) -> bool {
    if !is_dir {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return true,
            // A file system that does not tell kinds.
            Err(Errno::ISDIR) => {}
            Err(_) => return false,
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return true,
        Err(_) => {}
    }
    if depth >= DEPTH {
        // A directory is only moved if it is writable: its `..` changes.
        let Some(_) = enter(dir.as_fd(), name) else {
            return false;
        };
        let new = format!(".deep-{}", crate::atomic::unique());
        let moved = rustix::fs::renameat(dir, name, top.fd, new).is_ok();
        top.moved += u64::from(moved);
        return moved;
    }
    let Some(inner) = enter(dir.as_fd(), name) else {
        return false;
    };
    for _ in 0..PASSES {
        let done = empty(top, &inner, depth + 1);
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return true,
            Err(Errno::NOTEMPTY | Errno::EXIST) if done => {}
            Err(_) => return false,
        }
    }
    false
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
    let mut size = TreeSize::default();
    let mut linked = HashSet::new();
    let device = rustix::fs::fstat(&dir)?.st_dev;
    let dir = rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty())?;
    measure(&dir, device, &mut linked, &mut size, 0)?;
    Ok(size)
}

fn measure(
    dir: &OwnedFd,
    device: u64,
    linked: &mut HashSet<u64>,
    size: &mut TreeSize,
    depth: usize,
) -> io::Result<()> {
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
        if stat.st_dev != device {
            continue;
        }
        size.entries += 1;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink == 1 || linked.insert(stat.st_ino) => {
                size.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            }
            FileType::Directory => {
                let inner = (depth < 512)
                    .then(|| rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).ok())
                    .flatten();
                match inner {
                    Some(inner) => measure(&inner, device, linked, size, depth + 1)?,
                    None => size.partial = true,
                }
            }
            _ => {}
        }
    }
    Ok(())
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
