//! Giving files to the program's user before it runs (`-v …:U`).
//!
//! Everything is opened relative to descriptors and without following links. Only what belongs to somebody else is touched,
//! so that a second start costs a look at each file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rcon_sys::folders::{self, Descent, names_in};
use rcon_sys::owner::{TRUE_OWNER, TrueOwner};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, chownat, openat, setxattr, statat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::mounts::readable;
use crate::user::Identity;

/// Whose the files are to be.
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
    /// With a single id the owner is noted where the kernel has none.
    noted: bool,
}

impl Owner {
    pub(crate) fn new(identity: &Identity, noted: bool) -> Self {
        Self {
            uid: identity.uid,
            gid: identity.gid,
            noted,
        }
    }

    /// Give it all that is in the tree whose root `tree` is open on.
    pub(crate) fn take(&self, tree: &OwnedFd) -> io::Result<()> {
        if self.take_entry(tree.as_fd(), OsStr::new(""))? != FileType::Directory {
            return Ok(());
        }
        let top = readable(tree)?;
        let mut levels = vec![names_in(&top)?];
        let mut way = Descent::new(top);
        while let Some(names) = levels.last_mut() {
            let Some(name) = names.pop() else {
                levels.pop();
                way.leave()?;
                continue;
            };
            if self.take_entry(way.here(), &name)? == FileType::Directory {
                let inner = folders::open(way.here(), &name)?;
                levels.push(names_in(&inner)?);
                way.enter(inner)?;
            }
        }
        Ok(())
    }

    /// Give it this file, or the folder `at` itself where the name is empty; what it is.
    fn take_entry(&self, at: BorrowedFd<'_>, name: &OsStr) -> io::Result<FileType> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let stat = statat(at, name, flags)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.noted {
            self.note(at, name, kind)?;
        } else if (stat.st_uid, stat.st_gid) != (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            chownat(at, name, Some(uid), Some(gid), flags)?;
        }
        Ok(kind)
    }

    /// What takes no attribute stays the container's root's, whose everything is there.
    fn note(&self, at: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> io::Result<()> {
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Ok(());
        }
        let file = match name.is_empty() {
            true => at.try_clone_to_owned()?,
            false => openat(
                at,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?,
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let owner = TrueOwner::new(self.uid, self.gid);
        let path = Path::new(&path);
        match match owner.is_root() {
            true => rustix::fs::removexattr(path, TRUE_OWNER),
            false => setxattr(path, TRUE_OWNER, &owner.encode(), XattrFlags::empty()),
        } {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn all_of_a_tree_changes_hands_and_links_are_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root gives files away.
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        fs::write(&outside, "").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        let fd = openat(
            rustix::fs::CWD,
            &tree,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        let owner = Owner {
            uid: 7,
            gid: 8,
            noted: false,
        };
        owner.take(&fd).unwrap();
        owner.take(&fd).unwrap();
        for name in ["", "a", "a/b", "a/b/file", "a/link"] {
            let stat = fs::symlink_metadata(tree.join(name)).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (7, 8), "{name}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    }
}
