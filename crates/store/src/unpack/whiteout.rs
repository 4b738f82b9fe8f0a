//! Deletions of what lower layers have, from the archive's form (image-spec, layer.md,
//! "Whiteouts") to overlay's.
//!
//! `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` everything that lower layers have in its
//! directory. Neither touches what its own layer has, whichever comes first in the archive: a
//! directory that is in the layer together with a whiteout of its name is an opaque one.
//!
//! Overlay's whiteout is a character device 0:0, which anybody may make since Linux 5.8; where the
//! file system refuses it, an empty file with an extended attribute (Linux 6.7). Where a file system
//! has no such attributes there is no overlay of the kernel either: what is noted then are files with
//! the archive's names for it, as fuse-overlayfs has them; [`crate::Layered`] reads them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::name::split_last;
use super::shown;
use super::tree::Tree;
use crate::error::{Error, Result};

pub(crate) const PREFIX: &[u8] = b".wh.";
pub(crate) const OPAQUE: &str = ".wh..wh..opq";
/// Notes of aufs to itself.
const AUFS: &[u8] = b".wh..wh.";

pub(crate) const OPAQUE_XATTR: &str = "user.overlay.opaque";
pub(crate) const WHITEOUT_XATTR: &str = "user.overlay.whiteout";

/// What a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// Hide this name.
    Hide(&'a [u8]),
    /// Hide everything in the directory.
    Opaque,
    /// Nothing.
    Ignore,
}

/// Whether the last part of a name is a request. The error says what is wrong with it.
pub(super) fn request(name: &[u8]) -> Result<Option<Request<'_>>, &'static str> {
    if name == OPAQUE.as_bytes() {
        return Ok(Some(Request::Opaque));
    }
    if name.starts_with(AUFS) {
        return Ok(Some(Request::Ignore));
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err("it deletes something that has no name"),
        Some(hidden) => Ok(Some(Request::Hide(hidden))),
    }
}

/// Do what is asked for, in the directory `dir`.
pub(super) fn apply(tree: &mut Tree<'_>, dir: &[u8], request: Request<'_>) -> Result<()> {
    match request {
        Request::Ignore => Ok(()),
        Request::Opaque => {
            let parent = tree.parent(dir)?;
            make_opaque(&parent).map_err(|error| refused(dir, error))
        }
        Request::Hide(name) => {
            let parent = tree.parent(dir)?;
            let failed = |error| refused(&[dir, b"/", name].concat(), error);
            match Tree::kind_of(&parent, name) {
                Err(Errno::NOENT) => hide(&parent, name).map_err(failed),
                Err(error) => Err(failed(error)),
                Ok(FileType::Directory) => {
                    let flags =
                        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let inner =
                        rustix::fs::openat(&*parent, name, flags, Mode::empty()).map_err(failed)?;
                    make_opaque(&inner).map_err(failed)
                }
                // It hides what is below by being there.
                Ok(_) => Ok(()),
            }
        }
    }
}

/// Hide what lower layers have under this name.
pub(crate) fn hide(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    match rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM | Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => {}
        other => return other,
    }
    let dir = readable(parent)?;
    // Only directories with this mark are searched for such files.
    match rustix::fs::fsetxattr(&dir, OPAQUE_XATTR, b"x", XattrFlags::CREATE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::NOTSUP) => return mark_by_name(parent, &[PREFIX, name].concat()),
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::fsetxattr(&file, WHITEOUT_XATTR, b"y", XattrFlags::empty())
}

/// Hide everything that lower layers have in a directory.
pub(super) fn make_opaque(dir: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::fsetxattr(readable(dir)?, OPAQUE_XATTR, b"y", XattrFlags::empty()) {
        Err(Errno::NOTSUP) => mark_by_name(dir, OPAQUE.as_bytes()),
        other => other,
    }
}

/// An empty file whose name says it all.
fn mark_by_name(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(drop)
}

/// Whether a whiteout has this name.
pub(super) fn is_one(parent: &OwnedFd, name: &[u8]) -> bool {
    let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile if stat.st_size == 0 => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::empty()).is_ok_and(|file| {
                rustix::fs::fgetxattr(&file, WHITEOUT_XATTR, &mut [0_u8; 8][..]).is_ok()
            })
        }
        _ => false,
    }
}

/// Handles cannot carry attributes: the same directory, open for reading.
fn readable(handle: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(handle, ".", flags, Mode::empty())
}

/// A deletion that cannot be expressed here would bring back what was deleted: an error.
pub(super) fn refused(path: &[u8], error: Errno) -> Error {
    let (_, name) = split_last(path);
    let what = if name.is_empty() { &b"/"[..] } else { path };
    Error::io(
        format!("cannot note that lower layers lose {}", shown(what)),
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_their_names() {
        assert_eq!(request(b"file"), Ok(None));
        assert_eq!(request(b".wh"), Ok(None));
        assert_eq!(request(b".wh.a"), Ok(Some(Request::Hide(b"a"))));
        assert_eq!(request(b".wh..a"), Ok(Some(Request::Hide(b".a"))));
        assert_eq!(request(b".wh..wh..opq"), Ok(Some(Request::Opaque)));
        assert_eq!(request(b".wh..wh.plnk"), Ok(Some(Request::Ignore)));
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(request(bad).is_err());
        }
    }
}
